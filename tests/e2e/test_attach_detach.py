"""A detached tracee is as it was found."""

import signal

import pytest
from harness import Snapshot, calls_made, progress, remote_of, thread_states

LIBRARY = "libwork.so"


@pytest.fixture
def target(build, work):
    running = work.start([build("longrun", library="work")])
    progress(running)
    return running


def check_detached(target, before):
    before.check_same(Snapshot.of(target.pid, LIBRARY))
    made = calls_made(target)
    progress(target)
    assert calls_made(target) > made
    assert not set(thread_states(target.pid).values()) & {"T", "t"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_detach_leaves_nothing(target, work, profile, number):
    """After Ctrl-C or SIGTERM: code, mappings, descriptors, signal state, threads and tracer are as before."""
    before = Snapshot.of(target.pid, LIBRARY)
    session = work.attach(target.pid, profile("work"))
    progress(target)
    report = session.detach(number)
    assert remote_of(report, "work_mix") > 0
    check_detached(target, before)
    target.kill()
    target.check_success()


def test_duration(target, work, profile):
    """--duration detaches by itself, with exit 0."""
    before = Snapshot.of(target.pid, LIBRARY)
    session = work.attach(target.pid, profile("work"), "--duration", "2")
    assert remote_of(session.ended(), "work_mix") > 0
    check_detached(target, before)


def test_twenty_cycles(target, work, profile, acceptor):
    """Twenty attachments leave no more behind than none."""
    before = Snapshot.of(target.pid, LIBRARY)
    for _ in range(20):
        session = work.attach(target.pid, profile("work"), acceptor=acceptor)
        progress(target, steps=1)
        session.detach()
        before.check_same(Snapshot.of(target.pid, LIBRARY))
    check_detached(target, before)
    target.kill()
    target.check_success()


def test_detach_when_nothing_is_called(build, work, profile):
    """A program that makes no call meanwhile is found as it was."""
    target = work.start([build("null", library="null"), 10], hold=True)
    before = Snapshot.of(target.pid, "libnull.so")
    session = work.attach(target.pid, profile("null"))
    session.detach()
    before.check_same(Snapshot.of(target.pid, "libnull.so"))
    target.release()
    target.check_success()


def test_detach_at_once(target, work, profile):
    """A detach that is asked for while the session is being set up leaves nothing either."""
    before = Snapshot.of(target.pid, LIBRARY)
    for _ in range(3):
        session = work.start_attach(target.pid, profile("work"))
        session.running.err.wait_for("radium: ")
        session.running.kill(signal.SIGINT)
        session.running.wait()
        assert "Traceback" not in session.running.err.finish()
        check_detached(target, before)


def test_asked_twice(build, work, profile):
    """More requests to end during a detach change nothing: it is finished."""
    target = work.start([build("threads", library="work"), "concurrent", 1000000])
    before = Snapshot.of(target.pid, LIBRARY)
    session = work.attach(target.pid, profile("work"))
    while session.running.alive:
        session.running.kill(signal.SIGINT)
        session.running.kill(signal.SIGTERM)
    session.ended()
    now = Snapshot.of(target.pid, LIBRARY)
    assert now.code == before.code and now.descriptors == before.descriptors and now.status["TracerPid"] == "0"
    assert not set(thread_states(target.pid).values()) & {"T", "t"}
    target.kill(signal.SIGKILL)


def test_blocked_in_system_calls(build, work, profile):
    """Threads that wait in system calls go on waiting, through attach and detach, and are woken as without radium."""
    target = work.start([build("blocked", library="work")])
    for _ in range(3):
        session = work.attach(target.pid, profile("work"))
        session.detach()
    session = work.attach(target.pid, profile("work"))
    target.release()
    target.check_success()
    session.ended()


@pytest.mark.root
@pytest.mark.parametrize("action", ["errno", "kill"])
def test_filter_installed_after_attach(build, work, profile, action):
    """A seccomp filter that the program installs while it is attached meets no system call of radium's."""
    target = work.start([build("seccomped", library="work"), action, "late"], hold=True)
    session = work.attach(target.pid, profile("work"))
    target.release()
    target.check_success()
    assert remote_of(session.ended(), "work_mix") == 10


def test_detach_with_threads(build, work, profile):
    """All threads of a program run after a detach, and their mappings are as before."""
    program = build("threads", library="work")
    target = work.start([program, "idle"])
    target.out.wait_for("^RUNNING$")
    before = Snapshot.of(target.pid, LIBRARY)
    session = work.attach(target.pid, profile("work"))
    session.detach()
    after = Snapshot.of(target.pid, LIBRARY)
    assert after.code == before.code and after.threads == before.threads and after.status == before.status
    assert not set(thread_states(target.pid).values()) & {"T", "t"}
    target.kill(signal.SIGKILL)


def test_two_programs_at_once(build, work, profile, acceptor):
    """One acceptor serves two programs of two radiums at a time."""
    targets = [work.start([build("longrun", library="work")]) for _ in range(2)]
    sessions = [work.attach(target.pid, profile("work"), acceptor=acceptor) for target in targets]
    for target in targets:
        progress(target)
    for target, session in zip(targets, sessions, strict=True):
        assert remote_of(session.detach(), "work_mix") > 0
        target.kill()
        target.check_success()
