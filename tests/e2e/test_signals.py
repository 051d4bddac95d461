"""Signals and faults of a program with split calls are as without radium."""

import os
import random
import signal
import time

import pytest
from harness import calls_made, poll_until, progress, remote_of, status, thread_states


@pytest.mark.parametrize("mode", ["timer", "prof", "mask", "ignored"])
def test_timers(build, work, profile, mode):
    """Handled, blocked and ignored timer signals during split calls change no result."""
    work.same([build("signals", library="work"), mode, 6], profile("work"))


@pytest.mark.parametrize("mode", ["segv", "repair", "fpe", "ill"])
def test_faults(build, work, profile, mode):
    """A fault inside a split call reaches the program's handler with its real address and code, once."""
    work.same([build("signals", library="work"), mode, 4], profile("work"))


def test_handler_jumps_out_of_a_call(build, work, profile):
    """A handler that jumps out of an endless split call is run while the call is away."""
    split = work.same([build("signals", library="work"), "jump", 4], profile("work"))
    assert split.remote("work_mix") >= 1


def test_signals_from_outside(build, work, profile):
    """Signals that other processes send during split calls are all handled."""
    target = work.start([build("signals", library="work"), "usr1", 5], hold=True)
    session = work.attach(target.pid, profile("work"))
    target.release()
    target.out.wait_for("WAITING")
    while not target.out.wait_for_end(0.02):
        os.kill(target.pid, signal.SIGUSR1)
    assert "handled 1" in target.check_success()
    session.ended()


def test_stop_and_continue(build, work, profile):
    """SIGSTOP stops an attached program, SIGCONT lets it go on, and its calls are right after it."""
    target = work.start([build("longrun", library="work")])
    session = work.attach(target.pid, profile("work"))
    progress(target)
    for _ in range(3):
        os.kill(target.pid, signal.SIGSTOP)
        poll_until(lambda: set(thread_states(target.pid).values()) <= {"T", "t"}, "the program stops")
        made = calls_made(target)
        os.kill(target.pid, signal.SIGCONT)
        progress(target)
        assert calls_made(target) > made
    target.kill()
    target.check_success()
    session.ended()


def test_stopped_program_stays_stopped_after_detach(build, work, profile):
    """A program that was stopped by SIGSTOP is still stopped after a detach, and goes on at SIGCONT."""
    target = work.start([build("longrun", library="work")])
    session = work.attach(target.pid, profile("work"))
    progress(target)
    os.kill(target.pid, signal.SIGSTOP)
    poll_until(lambda: set(thread_states(target.pid).values()) <= {"T", "t"}, "the program stops")
    session.detach()
    assert set(thread_states(target.pid).values()) == {"T"}
    os.kill(target.pid, signal.SIGCONT)
    progress(target)
    target.kill()
    target.check_success()


def test_stopped_program_is_attached(build, work, profile):
    """A program that is stopped by SIGSTOP can be attached to, stays stopped, and its calls are right after SIGCONT."""
    target = work.start([build("longrun", library="work")])
    progress(target)
    os.kill(target.pid, signal.SIGSTOP)
    poll_until(lambda: set(thread_states(target.pid).values()) == {"T"}, "the program stops")
    session = work.attach(target.pid, profile("work"))
    poll_until(lambda: status(target.pid)["State"][0] in "Tt", "it is stopped still")
    made = len(target.out.seen)
    session.detach()
    assert set(thread_states(target.pid).values()) == {"T"} and len(target.out.seen) == made
    session = work.attach(target.pid, profile("work"))
    os.kill(target.pid, signal.SIGCONT)
    progress(target)
    assert remote_of(session.detach(), "work_mix") > 0
    target.kill()
    target.check_success()


@pytest.mark.parametrize("seed", range(6))
def test_killed_while_calling(build, work, profile, seed):
    """A program killed by SIGKILL at any moment ends by that signal; attach ends well."""
    target = work.start([build("longrun", library="work")])
    session = work.attach(target.pid, profile("work"))
    time.sleep(random.Random(seed).random() * 0.1)  # the random moment
    target.kill(signal.SIGKILL)
    assert target.wait() == 128 + signal.SIGKILL
    session.ended()
