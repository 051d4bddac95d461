import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.commands.explain import REASONS, UNVERIFIED, explain, reason_text, run
from radium.errors import UsageError
from radium.report import ProcessReport, Report

VOCABULARY = [
    "guard",
    "policy",
    "nested",
    "no-acceptor",
    "acceptor-lost",
    "timeout",
    "stuck",
    "conflict",
    "verify",
    "refused:verifying",
    "unsupported:SIGURG",
    "unsupported:syscall:write",
    "unsupported:signal:SIGALRM",
    "unsupported:fault:SIGSEGV",
    "unsupported:32-bit",
    "refused:CPU feature avx512f",
    "refused:detaching",
    "refused:visit",
    "refused:draining",
]
reasons = st.sampled_from(VOCABULARY) | st.text(max_size=20)
counts = st.integers(0, 2**62)


def report_of(*names: str) -> Report:
    report = Report("0.1.0", ["./app"], ["127.0.0.1:7000"], [ProcessReport(7, 0)], [])
    for name in names:
        report.split(name, "mirror", "breakpoint")
    return report


def story(report: Report, pattern: str | None = None) -> str:
    return "\n".join(explain(report, pattern))


@pytest.mark.parametrize("reason", VOCABULARY)
def test_every_reason_is_explained(reason):
    """Each reason of the vocabulary has a meaning of its own and names what it is about."""
    text = reason_text(reason)
    assert "does not know" not in text
    assert "{}" not in text
    if reason.startswith(("unsupported:", "refused:")):
        assert reason.split(":")[-1] in text


def test_every_explanation_is_reached():
    """The table of reasons has no entry that the vocabulary cannot reach."""
    reached = {key for key in REASONS for reason in VOCABULARY if reason == key or reason.startswith(key + ":")}
    assert reached == set(REASONS)


def test_reason_of_a_newer_version_is_admitted():
    """A reason that is not in the table is said to be unknown, not guessed."""
    assert "does not know" in reason_text("quantum")


def test_story_counts_both_sides():
    """The story says how many calls ran there and here, and for which reason."""
    report = report_of("libblas.so.3:dgemm_")
    report.splits[0].count_remote(1, 2, 3, 4000, 5000, 0.010, 0.009)
    report.splits[0].count_local("unsupported:syscall:openat")
    text = story(report)
    assert "2 calls: 1 on an acceptor, 1 at home." in text
    assert "system call openat" in text
    assert "10 ms on average, 9 ms of it in the mirror" in text
    assert "4.0 kB out and 5.0 kB back" in text


def test_lasting_page_ins_suggest_memory_hints():
    """Memory hints are suggested when later calls fetch pages on demand, and not when only the first did."""
    learned, unlearned = report_of("a:f"), report_of("a:f")
    for later in (0, 0, 0):
        learned.splits[0].count_remote(0, later or 500 * (not learned.splits[0].calls.remote), 0, 0, 0, 1.0, 0.9)
        unlearned.splits[0].count_remote(0, 500, 0, 0, 0, 1.0, 0.9)
    assert "memory = [" not in story(learned)
    assert "memory = [" in story(unlearned)


def test_losing_calls_suggest_a_guard():
    """A guard is suggested when most of a remote call's time was the way, and only then."""
    small, big = report_of("a:f"), report_of("a:f")
    small.splits[0].count_remote(0, 0, 0, 0, 0, 0.001, 0.0001)
    big.splits[0].count_remote(0, 0, 0, 0, 0, 1.0, 0.9)
    assert "guard = " in story(small)
    assert "guard = " not in story(big)


def test_divergence_is_told():
    """A verified call with another result is never passed over."""
    report = report_of("a:f")
    report.splits[0].count_remote(0, 0, 0, 0, 0, 1.0, 0.9)
    for difference in ("", "c[17]: 1.0 in the mirror, 2.0 at home", ""):
        report.splits[0].count_verified(difference)
    assert "1 of 3 verified calls DIVERGED" in story(report)
    assert "The first difference: c[17]: 1.0 in the mirror, 2.0 at home." in story(report)


@pytest.mark.parametrize("reason", ["syscall:write", "signal:SIGALRM", "fault:SIGSEGV", *UNVERIFIED, "acceptor-lost", "stuck"])
def test_not_compared(reason):
    """Each reason for which a call is not compared is told, in words."""
    report = report_of("libm.so.6:sin")
    report.splits[0].count_local("verify")
    report.splits[0].count_unverified(reason)
    told = story(report)
    assert f"Not compared, {reason} (1 call): " in told and "does not know" not in told


@pytest.mark.parametrize("pattern", ["libm.so.6:sin", "sin", "libm*", "s?n"])
def test_split_is_chosen_by_name_or_glob(pattern):
    """A split point is found by its whole name, its function's name or a glob."""
    text = story(report_of("libm.so.6:sin", "libc.so.6:qsort"), pattern)
    assert "libm.so.6:sin" in text
    assert "qsort" not in text


def test_unknown_split_names_the_nearest():
    """A split point that the report does not have is a UsageError with the nearest name."""
    with pytest.raises(UsageError, match=r"it has libblas\.so\.3:dgemm_"):
        story(report_of("libblas.so.3:dgemm_", "libc.so.6:qsort"), "dgem")
    with pytest.raises(UsageError, match="it has none at all"):
        story(report_of(), "dgemm_")


def test_output_has_no_control_characters(tmp_path, capsys):
    """A hostile symbol name cannot steer the terminal."""
    report = report_of("lib.so:\x1b[2J")
    report.write(tmp_path / "r.json")
    assert run(argparse.Namespace(report=str(tmp_path / "r.json"), split=None)) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert r"lib.so:\x1b[2J" in out


@given(
    local=st.dictionaries(reasons, counts, max_size=4),
    home=st.dictionaries(st.text(max_size=9), counts, max_size=2),
    calls=st.lists(st.tuples(*[counts] * 5, *[st.floats(0, 1e9)] * 2), max_size=3),
    verified=counts,
    diverged=counts,
)
def test_any_report_can_be_told(local, home, calls, verified, diverged):
    """Whatever figures a report holds, its story can be told."""
    report = report_of("a:f")
    split = report.splits[0]
    split.local_reasons, split.went_home, split.calls.local = local, home, sum(local.values())
    split.verified, split.diverged = verified, diverged
    for call in calls:
        split.count_remote(*call)
    assert "a:f" in story(report)
