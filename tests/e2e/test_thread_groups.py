"""The whole thread group goes with a call: threads made before, in and after it, at home and away."""

import os
import random
import signal
import time

import pytest
from harness import poll_until, remote_total

EACH = ["join", "cancel", "barrier", "pingpong", "locals", "speak"]
LOST = {"acceptor-lost", "no-acceptor"}


def local_reasons(report):
    return {reason for split in report["splits"] for reason in split["local_reasons"]}


@pytest.mark.parametrize("mode", EACH)
def test_threads_inside_a_call(build, work, profile, mode):
    """A call that makes threads, synchronises with them, cancels or joins them gives what it gives at home."""
    split = work.same([build("pools", library="pools"), mode, 8], profile("pools"))
    assert remote_total(split.report) == 8 and not local_reasons(split.report)


def test_a_pool_made_before(build, work, profile):
    """Workers that wait in a futex at home are woken by the call, work in the mirror, and wait at home again."""
    split = work.same([build("pools", library="pools"), "before", 10], profile("pools"))
    assert split.remote("pool_run") == 10
    assert not any(reason.startswith("syscall:futex") for reason in split.split("pool_run")["went_home"])


def test_a_pool_made_and_used_anywhere(build, work, profile):
    """A pool that one call makes is used and ended by later calls, at home and away in any order."""
    split = work.same([build("pools", library="pools"), "mixed", 12], profile("pools"))
    assert split.remote("pool_start") == 6 and split.remote("pool_run") == 24 and split.remote("pool_stop") == 4
    assert local_reasons(split.report) == {"guard"}


def test_waiting_with_an_end(build, work, profile):
    """A wait that nobody ends and that has an end goes home, with sixteen threads asleep, and comes back from there."""
    split = work.same([build("pools", library="pools"), "parked", 4], profile("pools"))
    assert split.remote("threads_timed") == 4 and split.split("threads_timed")["went_home"]["syscall:futex"] == 4


def test_waits_that_a_mirror_does_not_know(build, work, profile):
    """Threads that waited during a call that knows not all who wait are no waiters of the next call."""
    split = work.same([build("pools", library="pools"), "unknown", 6], profile("pools"))
    assert split.remote("pool_run") == 12 and local_reasons(split.report) == {"guard"}


@pytest.mark.parametrize(("target", "flags"), [("openmp", ("-fopenmp",)), ("cppthreads", ())])
def test_runtimes(build, work, profile, target, flags):
    """OpenMP's teams and tasks, and C++'s threads, futures and exceptions across them."""
    split = work.same([build(target, *flags, library=target)], profile(target))
    assert remote_total(split.report) > 0 and not local_reasons(split.report)


def test_a_pool_whose_workers_steal(build, work, profile):
    """oneTBB's workers, made in a split call, are used by split calls and at home in turn, and sleep in between."""
    split = work.same([build("stealing", library="stealing", link=("-ltbb",)), 4], profile("stealing"))
    assert remote_total(split.report) == 12 and local_reasons(split.report) == {"guard"}


@pytest.mark.parametrize("mode", ["before", "mixed", "join", "cancel"])
def test_held_pages_of_thread_groups(build, work, profile, monkeypatch, mode):
    """After each commit every held page equals its twin, whichever thread wrote it."""
    monkeypatch.setitem(work.env, "RADIUM_AUDIT", "1")
    split = work.same([build("pools", library="pools"), mode, 4], profile("pools"))
    assert remote_total(split.report) > 0


@pytest.mark.parametrize("mode", ["before", "mixed", *EACH])
def test_acceptor_killed_among_threads(build, work, profile, acceptor, mode):
    """kill -9 of the acceptor at random moments, with threads of all kinds away: the program does as it does whole."""
    program = [build("pools", library="pools"), mode, 80]
    whole = work.run_whole(program)
    session = work.start_split(program, profile("pools"), acceptor=acceptor)
    session.running.out.wait_for("^0")
    generator = random.Random(mode)
    for _ in range(3):
        poll_until(lambda: acceptor.sessions() or not session.running.alive, "a session is open")
        time.sleep(generator.random() * 0.1)  # the random moment
        acceptor.kill_sessions()
    split = work.finish(session.running, timeout_s=60)
    assert (split.stdout, split.exit) == (whole.stdout, 0)
    report = session.report()
    assert remote_total(report) > 0 and local_reasons(report) <= LOST | {"guard"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", ["before", "mixed", "join", "speak"])
def test_radium_killed_among_threads(build, work, profile, mode, seed):
    """kill -9 of radium at a random moment: all threads that were away are at home again, and the program ends well."""
    program = [build("pools", library="pools"), mode, 200]
    whole = work.run_whole(program)
    target = work.start(program, hold=True)
    session = work.attach(target.pid, profile("pools"))
    target.release()
    time.sleep(random.Random(f"{mode} {seed}").random() * 0.5)  # the random moment
    session.running.kill(signal.SIGKILL)
    assert target.check_success() == whole.stdout


def test_signals_of_other_threads(build, work, profile):
    """A thread that runs, waits or reads while another one's call is away meets its signal in time, and the call goes on."""
    split = work.same([build("signalled", library="work"), 2], profile("work"))
    assert split.split("work_mix")["went_home"]["signal:SIGUSR1"] >= 6
    assert split.remote("work_mix") == 7


def test_numpy_with_all_its_threads(work, profile):
    """Matrix products with OpenBLAS's own number of threads, bit by bit what they are without radium."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        work.env.pop(name)
    program = [*python_target("matmul.py"), 12, 512]
    split = work.same(program, profile("matmul"))
    assert remote_total(split.report) == 12 and not local_reasons(split.report)


def python_target(name):
    import sys

    return [sys.executable, os.path.join(os.path.dirname(__file__), "..", "targets", name)]


@pytest.mark.parametrize("audit", ["", "1"])
def test_scratch_of_others(build, work, profile, monkeypatch, audit):
    """Where a call's profile says that it leaves nothing of use, another thread's stack and buffers are of use all the same."""
    monkeypatch.setitem(work.env, "RADIUM_AUDIT", audit)
    split = work.same([build("scratch", library="scratch"), 8], profile("scratch"))
    assert split.remote("scratch_wake") == 8 and split.remote("scratch_pack") == 8
