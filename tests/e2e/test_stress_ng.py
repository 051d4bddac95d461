"""Stressors of Debian's stress-ng, which check themselves, with what they call of libc split."""

import shutil

import pytest
from harness import descendants_named, poll_until, remote_total


@pytest.fixture
def stress_ng():
    found = shutil.which("stress-ng")
    if not found:
        pytest.skip("needs stress-ng")
    return found


@pytest.mark.parametrize("options", ["--futex 1", pytest.param("--pthread 1 --pthread-max 8", marks=pytest.mark.slow)])
def test_attached_stressor(work, profile, stress_ng, options):
    """A stressor that waits and wakes by `syscall(SYS_futex)`, or makes threads and locks, finds nothing wrong with that."""
    target = work.popen([stress_ng, *options.split(), "--timeout", "6", "--verify"])
    # Its workers are its children; it calls them after the stressor, in fifteen letters (prctl(2), PR_SET_NAME).
    name = f"stress-ng-{options.split()[0].strip('-')}"[:15]
    poll_until(lambda: descendants_named(target.pid, name), "the stressor runs")
    session = work.attach(descendants_named(target.pid, name)[0], profile("stressed"), "--duration", "1")
    assert remote_total(session.ended()) > 0
    assert target.wait() == 0, target.err.tail()


@pytest.mark.parametrize(
    "options",
    [pytest.param("--futex 1 --futex-ops 100", marks=pytest.mark.slow), "--pthread 1 --pthread-ops 10 --pthread-max 8"],
)
def test_run_with_its_stressors(work, profile, stress_ng, options):
    """Started by radium, it and its children do what they do whole."""
    split = work.run_split([stress_ng, *options.split(), "--timeout", "20", "--verify"], profile("stressed"))
    assert split.check_no_traceback().exit == 0, split.stderr
    assert remote_total(split.report) > 0
