"""The profile that a trace writes."""

import tomllib

import pytest
from found import candidates, findings
from hypothesis import given, settings
from hypothesis import strategies as st

from radium.core.places import Place
from radium.profiles.schema import MAX_NBYTES, FunctionPattern, Profile, loads
from radium.tracer.discovery.findings import Candidate
from radium.tracer.discovery.profile_text import MOST_PLACES, text


def written(found) -> tuple[str, Profile]:
    profile = text(found)
    assert profile is not None
    return profile, loads(profile, "split.toml")


def test_whole():
    """Splits, guard, hints, working sets arrive; what was not taken is told, with its reason."""
    profile, checked = written(findings())
    assert checked.name == "python3"
    kmeans, dgemm, dgetrf = checked.splits
    assert kmeans.python == ("sklearn.cluster._kmeans:KMeans.fit",)
    assert kmeans.working_set == (Place("libpython3.11.so.1.0", 0x3A0000, 0x8000), Place("stack", -8192, 8192))
    assert (dgemm.library, dgemm.functions) == ("libblas.so*", (FunctionPattern("dgemm_"),))
    assert dgemm.guard.text == "m[0] * n[0] * k[0] >= 2**21" and dgemm.signature is not None
    assert [(hint.at.text, hint.nbytes.text) for hint in dgemm.memory] == [("a", "8 * lda[0] * k[0]"), ("c", "8 * ldc[0] * n[0]")]
    assert {split.policy for split in checked.splits} == {"auto"}
    assert "# libopenblas.so.0:dgetrf_: not yet (the way takes longer), 10 % of the time" in profile and dgetrf.policy == "auto"
    assert "# libz.so.1:deflate, 6.2 % of the time: no (too short)" in profile
    assert "# A call takes 5.5 ms here, predicted 2.5 ms there, +18 % of the program's time." in profile


def test_nothing_to_split():
    """No profile is made of findings that have no split."""
    assert text(findings(candidates=candidates()[3:])) is None
    assert text(findings(candidates=[])) is None


def test_a_guard_that_was_not_found():
    """A split whose small calls lose is not taken without the guard that keeps them at home."""
    unguarded = candidates()[1]
    unguarded.guard = ""
    profile, checked = written(findings(candidates=[candidates()[0], unguarded]))
    assert len(checked.splits) == 1 and "# libblas.so.3:dgemm_, 33 % of the time: no guard could be found" in profile


@pytest.mark.parametrize("name", ['q"uote', "b\\ackslash", "b\\", "é", "#", "'", "memcpy@GLIBC_2.14", "operator[]"])
def test_odd_names(name):
    """Names with what TOML escapes are written, and read as they are."""
    odd = Candidate(f"{name}:{name}", name, name, 0.5, 0.5, verdict="ready", reason=name, signature="int f(char c)")
    odd.guard = "c == '\"' or c == '\\\\'"
    _, checked = written(findings(candidates=[odd], program=[name]))
    (split,) = checked.splits
    assert (split.library, str(split.functions[0]), split.guard.text) == (name, name, odd.guard)


def test_mappings_that_have_no_name_for_a_profile():
    """They are left out of a working set, the split is not left out for them."""
    places = [Place("a\nb.so", 0, 4096), Place("", 0, 4096), Place("a/b", 0, 4096), Place("ok.so", 0, 4096)]
    _, checked = written(findings(candidates=[Candidate("m:f", "m", "f", 0.5, 0.5, verdict="ready", working_set=places)]))
    assert checked.splits[0].working_set == (Place("ok.so", 0, 4096),)


def test_large_working_sets():
    """The largest pieces of it are kept, and a profile never grows beyond what can be read."""
    pieces = [Place("libbig.so", i << 20, 4096 if i % 2 else 8192) for i in range(4 * MOST_PLACES)]
    many = [Candidate(f"libbig.so:f{i}", "libbig.so", f"f{i}", 0.5, 0.5, verdict="ready", working_set=pieces) for i in range(9)]
    profile, checked = written(findings(candidates=many))
    assert len(profile.encode()) < MAX_NBYTES and 0 < len(checked.splits) < 9
    assert checked.splits[0].working_set == tuple(pieces[: 2 * MOST_PLACES : 2])


TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ['"', "'''", '"""', "\\", "a\nb", "\r", "\x1b[0m", "#", "[[split]]", "memcpy@GLIBC_2.2.5", "f@@V_1", "\u2028", "é", "\udc80"]
        + ["_ZNSt6vectorIiE", "m:f", "m:a.<locals>.b", "lib*.so.[0-9]", "arg0 > 1", "arg0[0] >= 2**20", "8 * arg1", "x" * 300]
    ),
)
PLACES = st.lists(st.builds(Place, TEXTS, st.integers(-9, 9).map(lambda n: n << 12), st.integers(1, 9).map(lambda n: n << 12)))
CANDIDATES = st.builds(
    Candidate,
    name=TEXTS, library=st.one_of(st.just(""), TEXTS), function=TEXTS, inclusive=st.floats(0, 1), exclusive=st.floats(0, 1),
    verdict=st.sampled_from(["ready", "with guard", "not yet", "no"]), reason=TEXTS, guard=st.one_of(st.just(""), TEXTS),
    size=TEXTS, break_even=st.none() | st.floats(1, 1e12), signature=st.sampled_from(["", "int f(int n)", "\n", "int f(int n, '"]),
    memory=st.lists(st.tuples(TEXTS, TEXTS), max_size=2), working_set=PLACES,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(CANDIDATES, max_size=5), st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=2))
def test_always_a_profile(found, program, notes):
    """Whatever is in the names: either there is nothing to split, or the text is a profile that means what was found."""
    profile = text(findings(candidates=found, program=program, notes=notes))
    if profile is None:
        return
    loads(profile, "split.toml")
    assert loads(profile.encode().decode(), "split.toml").name
    tables = iter(tomllib.loads(profile)["split"])
    for table in tables:
        meant = next(one for one in found if _same(one, table))
        assert meant.verdict in ("ready", "with guard")
        assert table["policy"] == "auto" and (meant.verdict == "ready" or table["guard"])


def _same(candidate, table):
    function = table.get("function", table.get("python"))
    hints = [(hint["at"], hint["bytes"]) for hint in table.get("memory", [])]
    places = [Place(place["mapping"], place["offset"], place["bytes"]) for place in table.get("working_set", [])]
    return (
        (table.get("library", ""), function, table.get("guard", ""))
        == (candidate.library, candidate.function, candidate.guard)
        and hints == (candidate.memory if candidate.library else [])
        and places == [place for place in candidate.working_set if place in places]
    )
