"""Attached and let go again and again, at any moment of a program with eight busy threads: nothing is left on either side."""

import itertools
from pathlib import Path

import pytest
from harness import Snapshot, calls_made, descriptors, poll_until, progress, remote_of, status

WARM_UP = 2  # cycles after which the acceptor has all that it will ever have
ROOM_KIB = 2048  # by which an allocator may differ from itself


def kib(pid, name):
    return int(status(pid)[name].split()[0])


def own_memory(pid):
    """What the process holds, in KiB: its private data, and what is in its page tables."""
    return {name: kib(pid, name) for name in ("VmData", "VmSize", "VmRSS", "VmPTE")}


def cycle(work, target, profiles, acceptor):
    """One session in which split calls are made; how many were."""
    session = work.attach(target.pid, next(profiles), acceptor=acceptor)
    progress(target, steps=1)
    return remote_of(session.detach(), "work_mix")


def check_cycles(work, target, profiles, acceptor, ncycles):
    before = Snapshot.of(target.pid, "libwork.so")
    memory_before = own_memory(target.pid)
    remote = sum(cycle(work, target, profiles, acceptor) for _ in range(WARM_UP))
    server = acceptor.running.pid
    poll_until(lambda: not acceptor.sessions(), "all sessions have ended")
    descriptors_before, served_before = descriptors(server), own_memory(server)
    mappings_before = len(Path(f"/proc/{server}/maps").read_text().splitlines())
    for _ in range(ncycles):
        remote += cycle(work, target, profiles, acceptor)
        before.check_same(Snapshot.of(target.pid, "libwork.so"))
    assert remote > ncycles
    poll_until(lambda: not acceptor.sessions(), "all sessions have ended")
    # A listener's accepted sockets come and go: what they are called says nothing, but how many there are does.
    assert len(descriptors(server)) == len(descriptors_before)
    check_grown(served_before, own_memory(server))
    assert len(Path(f"/proc/{server}/maps").read_text().splitlines()) <= mappings_before + 8
    check_grown(memory_before, own_memory(target.pid))
    made = calls_made(target)
    progress(target)
    assert calls_made(target) > made
    target.kill()
    target.check_success()


def check_grown(before, now):
    """No process has become larger by more than an allocator's whims."""
    grown = {name: now[name] - before[name] for name in now}
    assert all(kibs <= ROOM_KIB for kibs in grown.values()), grown


@pytest.fixture
def crowd(build, work):
    target = work.start([build("crowd", library="work"), 8])
    progress(target, steps=1)
    return target


@pytest.fixture
def profiles(tmp_path):
    """Calls that take all threads along, and calls beside which the others go on, in turn."""
    paths = [tmp_path / f"{threads}.toml" for threads in ("stop", "run")]
    for path in paths:
        path.write_text(
            'name = "mixing"\n[[split]]\nlibrary = "libwork.so"\nfunction = "work_mix"\n' f'threads = "{path.stem}"\n'
        )
    return itertools.cycle(paths)


@pytest.mark.slow
def test_cycles(crowd, work, acceptor, profiles):
    """Some cycles."""
    check_cycles(work, crowd, profiles, acceptor, 4)


@pytest.mark.slow
def test_a_thousand_cycles(crowd, work, acceptor, profiles):
    """A thousand of them."""
    check_cycles(work, crowd, profiles, acceptor, 1000)
