"""What is said of what a trace has observed: fits, verdicts, order."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.errors import UsageError
from radium.tracer.discovery import fit, known, link, proposal, ranking, verdict
from radium.tracer.discovery.findings import Candidate, Link, Node, Sized, Trial
from radium.tracer.discovery.symbols import Frame

HERE = Link("private", 4e-5, 2.5e9, "this machine")
FAR = Link("far:7000", 1e-3, 1e8, "measured")


def trial(here_s=0.1, mirror_s=0.1, way_s=0.001, **others):
    values = {"calls": 3, "pages_read": 10, "pages_written": 5, "bytes_out": 4e4, "bytes_back": 2e4, "syscalls": {}, "threads": 1}
    return Trial(**{**values, "here_s": here_s, "in_mirror_s": mirror_s, "way_s": way_s, "equal": True, **others})


def candidate(name="lib.so:f", share=0.5, **values):
    return Candidate(name, *name.split(":"), share, share, **values)


@pytest.mark.parametrize(
    ("text", "seconds"), [("100us", 1e-4), ("2ms", 2e-3), ("0.5 s", 0.5), ("50µs", 5e-5), ("7ns", 7e-9)]
)
def test_round_trips(text, seconds):
    assert link.parse_rtt(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "nbytes"), [("10Gbit", 1.25e9), ("800MB", 8e8), ("1.5 Gbit/s", 1.875e8), ("64kbit", 8e3), ("100Mbps", None)]
)
def test_bandwidths(text, nbytes):
    if nbytes is None:
        with pytest.raises(UsageError, match="write a number and its unit"):
            link.parse_bandwidth(text)
    else:
        assert link.parse_bandwidth(text) == pytest.approx(nbytes)


@pytest.mark.parametrize("text", ["", "0us", "-1ms", "1", "1 hour", "1e3ms", "us"])
def test_no_times(text):
    with pytest.raises(UsageError, match="write a number and its unit"):
        link.parse_rtt(text)


@given(st.floats(1e-9, 1e-3), st.floats(0.3, 4), st.lists(st.integers(1, 10**6), min_size=4, max_size=30))
def test_a_power_law_is_found(factor, power, sizes):
    law = fit.power_law([(size, factor * size**power) for size in sizes])
    if len(set(sizes)) < fit.FEWEST_SIZES:
        assert law is None
    else:
        assert law.power == pytest.approx(power, rel=1e-3)
        assert law.at(sizes[0]) == pytest.approx(factor * sizes[0] ** power, rel=1e-3)


def test_the_argument_that_the_time_depends_on():
    calls = [({"arg0": 7, "arg1": n, "arg2": 1 << 45, "arg3": (n * 37) % 11}, 1e-9 * n**2) for n in (10, 30, 100, 300, 1000)]
    assert fit.sizing_argument(calls)[0] == "arg1"
    assert fit.sizing_argument([({"arg0": 7}, t) for t in (1.0, 2.0, 3.0)]) is None


@given(st.floats(2, 1e9))
def test_break_even(size):
    found = fit.break_even(lambda x: x >= size, 1, 1e9)
    assert found == pytest.approx(size, rel=0.02) and found >= size * 0.999
    assert fit.readable(found) >= found * 0.99 and fit.readable(found) <= found * 1.5 + 1


def test_nothing_breaks_even():
    assert fit.break_even(lambda _: False, 1, 100) is None
    assert fit.break_even(lambda _: True, 1, 100) == 1


@pytest.mark.parametrize(
    ("where", "trial_", "expected"),
    [
        (HERE, trial(), ("ready", "way 1.0%")),
        (HERE, trial(way_s=0.05), ("not yet", "needs an acceptor 2.00 x as fast")),
        (HERE, trial(here_s=1e-5, mirror_s=1e-5), ("no", "too short")),
        (HERE, trial(syscalls={"write": 40.0}), ("no", "system calls")),
        (HERE, trial(equal=False), ("no", "its results differ there")),
        (FAR, trial(mirror_s=0.05), ("ready", "faster there")),
        (FAR, trial(mirror_s=0.099, way_s=0.01), ("not yet", "needs an acceptor 1.11 x as fast")),
        (FAR, trial(mirror_s=0.05, way_s=1.0), ("no", "too short")),
        (HERE, None, ("not yet", "not called while it was watched")),
    ],
)
def test_verdicts(where, trial_, expected):
    one = candidate(trial=trial_, here_s=trial_ and trial_.here_s)
    verdict.judge(one, verdict.Way(where, where, 0.001))
    assert (one.verdict, one.reason) == expected


def test_the_link_is_part_of_the_prediction():
    near, far = (verdict.costs(trial(), 0.1, verdict.Way(link, HERE, 0.001)) for link in (HERE, FAR))
    assert near.there_s == pytest.approx(0.101)
    assert far.there_s == pytest.approx(0.101 + 1e-3 - 4e-5 + 6e4 / 1e8 - 6e4 / 2.5e9)
    slow = verdict.Way(Link("private", 0.1, 1e6, "given"), HERE, 0.001)
    one = candidate(trial=trial(), here_s=0.1)
    verdict.judge(one, slow)
    assert (one.verdict, one.reason) == ("no", "too short")


def test_a_guard_where_large_calls_win():
    sizes = [Sized(n, 1e-9 * n**2, 0) for n in (1000, 2000, 4000, 8000, 16000)]
    one = candidate(trial=trial(here_s=0.01, mirror_s=0.01, way_s=0.001), here_s=0.01, size="n", sizes=sizes)
    verdict.judge(one, verdict.Way(HERE, HERE, 0.001))
    # The way is light from 10 ms on: n = sqrt(1e7).
    assert one.verdict == "with guard" and one.break_even == pytest.approx(math.sqrt(1e7), rel=0.02)
    assert one.guard == "n >= 4000"


def test_no_guard_where_all_win():
    sizes = [Sized(n, 1e-6 * n**2, 0) for n in (1000, 2000, 4000)]
    one = candidate(trial=trial(here_s=1.0, mirror_s=1.0), here_s=4.0, size="n", sizes=sizes)
    verdict.judge(one, verdict.Way(HERE, HERE, 0.001))
    assert (one.verdict, one.guard) == ("ready", "")


def test_the_innermost_of_nested_ones_comes_first():
    """And one that brings much less does not."""
    leaf, small = Node("lib.so:leaf", 95), Node("lib.so:small", 3)
    tree = Node("all", 100, [Node("lib.so:outer", 100, [Node("lib.so:middle", 98, [leaf, small])])])
    outer, middle, inner, least = (
        candidate(name, share, verdict="ready")
        for name, share in (("lib.so:outer", 1.0), ("lib.so:middle", 0.98), ("lib.so:leaf", 0.95), ("lib.so:small", 0.03))
    )
    assert ranking.rank([outer, least, middle, inner], tree) == [inner, middle, outer, least]


def test_a_function_that_nobody_calls_is_set_aside():
    """If its work is done in one that was tried."""
    tree = Node("all", 100, [Node("R.so:loop", 100, [Node("blas.so:dgemm", 95)])])
    outer = candidate("R.so:loop", 1.0, verdict="ready", calls=0)
    inner = candidate("blas.so:dgemm", 0.95, verdict="not yet", calls=7, there_s=0.1)
    ranking.set_aside([outer, inner], tree)
    assert (outer.verdict, outer.reason) == ("no", "its work is done in dgemm") and inner.verdict == "not yet"
    outer.verdict, inner.there_s = "ready", None
    ranking.set_aside([outer, inner], tree)
    assert outer.verdict == "ready"


def test_what_is_outside_of_another_is_not_moved():
    tree = Node("all", 100, [Node("a.so:f", 52), Node("b.so:g", 48)])
    first, second = candidate("a.so:f", 0.52, verdict="ready"), candidate("b.so:g", 0.48, verdict="ready")
    assert ranking.rank([second, first], tree) == [first, second]
    assert ranking.enclosed(tree, ["a.so:f", "b.so:g"]) == {}


def test_recursion_counts_once():
    tree = Node("all", 10, [Node("a.so:f", 10, [Node("a.so:f", 8, [Node("b.so:g", 5)])])])
    assert ranking.enclosed(tree, ["a.so:f", "b.so:g"]) == {("a.so:f", "b.so:g"): 1.0}


def test_what_the_library_of_profiles_knows():
    dgemm = known.find("libblas.so.3", "dgemm_")
    assert dgemm.size == "m[0] * n[0] * k[0]" and "const int *lda" in dgemm.declaration and len(dgemm.memory) == 3
    assert known.find("libscipy_openblas64_-fdde5778.so", "scipy_cblas_dgemm64_").size == "m * n * k"
    assert known.find("libm.so.6", "sin") is None


def stack(*names):
    """Names of frames, outermost first; those with a ! can be split."""
    out = []
    for name in names:
        plain = name.rstrip("!")
        library, _, function = plain.rpartition(":")
        if not name.endswith("!"):
            out.append(Frame(plain))
        elif library.startswith("python:"):
            out.append(Frame(plain, "", plain.removeprefix("python:")))
        else:
            out.append(Frame(plain, library, function))
    return tuple(out)


def proposed(native, python=()):
    return {one.name: round(one.inclusive, 2) for one in proposal.propose(dict(native), dict(python))}


def test_the_functions_by_which_libraries_are_entered():
    main = ("libc.so.6:__libc_start_main!", "app:main")
    found = proposed([
        (stack(*main, "libR.so:run!", "libR.so:eval!", "libblas.so.3:dgemm_!", "libblas.so.3:kernel!"), 90),
        (stack(*main, "libR.so:run!", "libc.so.6:memcpy!"), 8),
        (stack(*main, "libR.so:run!", "libz.so.1:inflate!"), 2),
    ])  # fmt: skip
    assert found == {"libR.so:run": 1.0, "libblas.so.3:dgemm_": 0.9}


def test_workers_of_a_library_are_no_entries():
    """And a library that is entered by no exported function is proposed by what lies further inside."""
    found = proposed([
        (stack("app:main", "libblas.so:dgemm!", "libblas.so:worker", "libblas.so:kernel!"), 50),
        (stack("libc.so.6:start_thread", "libblas.so:worker", "libblas.so:kernel!"), 40),
        (stack("[unknown]", "libblas.so:inner!", "libblas.so:kernel!"), 2),
        (stack("app:main", "plugin.so:static", "plugin.so:work!"), 8),
    ])  # fmt: skip
    assert found == {"libblas.so:dgemm": 0.5, "plugin.so:work": 0.08}


def test_python_functions_stand_beside_those_that_the_interpreter_calls():
    native = [
        (stack("python3:main", "libpython3.11.so.1.0:Py_RunMain!", "libblas.so:dgemm!"), 60),
        (stack("python3:main", "libpython3.11.so.1.0:Py_RunMain!"), 40),
    ]
    python = [
        (stack("__main__:<module>", "python:sklearn.cluster._kmeans:KMeans.fit!", "python:sklearn.utils:check!"), 80),
        (stack("__main__:<module>", "python:importlib._bootstrap:load!", "python:numpy.linalg:svd!"), 20),
    ]
    assert proposed(native, python) == {
        "libblas.so:dgemm": 0.6, "python:sklearn.cluster._kmeans:KMeans.fit": 0.8, "python:numpy.linalg:svd": 0.2
    }  # fmt: skip
