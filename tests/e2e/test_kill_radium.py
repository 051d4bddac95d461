"""kill -9 of radium while calls are flying: the tracee goes on living, and the breakpoints go."""

import random
import signal
import time

import pytest
from harness import (
    Snapshot,
    code_of,
    descendants,
    descendants_named,
    kill_all,
    poll_until,
    progress,
    remote_of,
    status,
    thread_states,
)

LIBRARY = "libwork.so"


@pytest.fixture
def target(build, work):
    running = work.start([build("longrun", library="work")])
    progress(running)
    return running


def check_recovers(target, before):
    """The guardian leaves nothing: code, mappings, descriptors, signal state, threads and tracer are as before the attach."""
    poll_until(lambda: not target.alive or is_left(target.pid, before), "the guardian has done its work", 10)
    assert target.alive, f"the tracee died: exit {target.wait()}\n{target.out.tail()}"
    before.check_same(Snapshot.of(target.pid, LIBRARY))
    progress(target)
    assert not set(thread_states(target.pid).values()) & {"T", "t"}


def is_left(pid, before):
    return code_of(pid, LIBRARY) == before.code and status(pid)["TracerPid"] == "0"


@pytest.mark.parametrize("seed", range(6))
def test_killed_at_a_random_moment(target, work, profile, acceptor, seed):
    """Radium killed at any moment leaves a tracee that goes on with right results and without breakpoints."""
    before = Snapshot.of(target.pid, LIBRARY)
    session = work.attach(target.pid, profile("work"), acceptor=acceptor)
    progress(target, steps=1)
    time.sleep(random.Random(seed).random() * 0.05)  # the random moment
    session.running.kill(signal.SIGKILL)
    session.running.wait()
    check_recovers(target, before)
    target.kill()
    target.check_success()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("mode", ["concurrent", "churn", "masked"])
def test_killed_among_threads(build, work, profile, acceptor, mode, seed):
    """A program of several threads, blocked signals or not, ends with the right results after a kill at any moment."""
    rounds = {"concurrent": 3000, "churn": 100, "masked": 3000}[mode]
    program = [build("threads", library="work"), mode, rounds]
    whole = work.run_whole(program)
    target = work.start(program, hold=True)
    session = work.attach(target.pid, profile("work"), acceptor=acceptor)
    target.release()
    if mode == "masked":
        # A thread that blocks SIGTRAP and meets its first breakpoint when nobody is there to see it dies.
        target.out.wait_for("RUNNING")
    time.sleep(random.Random(seed).random() * 0.3)  # the random moment
    session.running.kill(signal.SIGKILL)
    assert target.check_success() == whole.stdout


@pytest.mark.parametrize("seed", range(8))
def test_killed_among_trips_home(build, work, profile, acceptor, seed):
    """A call whose radium is killed while it is away, at home in its middle or in between prints each line once."""
    program = [build("output", library="output"), 150]
    whole = work.run_whole(program)
    target = work.start(program, hold=True)
    session = work.attach(target.pid, profile("output"), acceptor=acceptor)
    target.release()
    target.out.wait_for("^call 2 ")
    time.sleep(random.Random(seed).random() * 0.2)  # the random moment
    session.running.kill(signal.SIGKILL)
    assert target.check_success() == whole.stdout


@pytest.mark.parametrize("seed", range(3))
def test_killed_among_local_calls(build, work, profile, seed):
    """Threads that are on their way past a breakpoint when radium is killed go on rightly."""
    program = [build("null", library="null"), 100000]
    whole = work.run_whole(program)
    target = work.start(program, hold=True)
    session = work.attach(target.pid, profile("null_guarded"))
    target.release()
    time.sleep(random.Random(seed).random() * 0.1)  # the random moment
    session.running.kill(signal.SIGKILL)
    assert target.check_success() == whole.stdout


def test_attach_again_after_the_kill(target, work, profile):
    """After radium was killed, attach works again, and its detach leaves no breakpoint of either."""
    before = Snapshot.of(target.pid, LIBRARY)
    first = work.attach(target.pid, profile("work"))
    progress(target)
    first.running.kill(signal.SIGKILL)
    first.running.wait()
    check_recovers(target, before)
    second = work.attach(target.pid, profile("work"))
    progress(target)
    assert remote_of(second.detach(), "work_mix") > 0
    check_recovers(target, before)
    target.kill()
    target.check_success()


def test_nothing_of_radium_stays(target, work, profile):
    """The private acceptor, the mirror and the guardian of a killed radium end."""
    session = work.attach(target.pid, profile("work"))
    progress(target)
    helpers = descendants(session.running.pid)
    session.running.kill(signal.SIGKILL)
    session.running.wait()

    def gone():
        return not [pid for pid in helpers if is_alive(pid)]

    try:
        poll_until(gone, f"helpers {helpers} end", 10)
    finally:
        kill_all(pid for pid in helpers if is_alive(pid))


def is_alive(pid):
    try:
        return status(pid)["State"][0] not in "ZX"
    except OSError:
        return False


def test_run_killed(build, work, profile):
    """The program of a killed `radium run` goes on living too."""
    session = work.start_split([build("longrun", library="work")], profile("work"))
    session.running.out.wait_for("^progress", after=3)
    (pid,) = descendants_named(session.running.pid, "longrun")
    session.running.kill(signal.SIGKILL)
    try:
        seen = len(session.running.out.seen)
        session.running.out.wait_for("^progress", after=seen + 3)
        kill_all([pid], signal.SIGTERM)
        session.running.out.wait_for("^EXIT-SUCCESS$")
    finally:
        kill_all([pid])
