"""`threads = "run"`: the tracee's other threads go on at home while calls are away, several at once in one mirror."""

import random
import signal
import time

import pytest
from harness import poll_until, remote_total

LOST = {"acceptor-lost", "no-acceptor"}
SERVERS = ["apart", "together", "mapped", "mixed"]


def local_reasons(report):
    return {reason for split in report["splits"] for reason in split["local_reasons"]}


@pytest.fixture
def server(build):
    return build("server", library="server")


@pytest.fixture
def beside(build):
    return build("beside", library="beside")


@pytest.mark.parametrize("nthreads", [2, 8])
@pytest.mark.parametrize("mode", SERVERS)
def test_calls_of_several_threads(server, work, profile, mode, nthreads):
    """Whatever pages the calls share with each other and with what goes on at home, no result is wrong."""
    split = work.same([server, mode, 16, nthreads], profile("server"), timeout_s=60)
    assert remote_total(split.report) > 0 and local_reasons(split.report) <= {"conflict"}


@pytest.mark.slow
@pytest.mark.parametrize("nthreads", [2, 3, 8])
@pytest.mark.parametrize("mode", SERVERS)
def test_many_calls_of_several_threads(server, work, profile, mode, nthreads):
    """As above, for long."""
    split = work.same([server, mode, 1000, nthreads], profile("server"), timeout_s=600)
    assert remote_total(split.report) > 0 and local_reasons(split.report) <= {"conflict"}


def test_two_calls_at_once(beside, work, profile):
    """Calls that wait for each other end, away: both were there at the same time, and each saw what the other wrote."""
    split = work.same([beside, "meeting", 20], profile("beside"))
    assert split.remote("beside_meet") >= 20 and local_reasons(split.report) <= {"conflict"}


@pytest.mark.parametrize("mode", ["counting", "mapping", "forking"])
def test_what_goes_on_at_home(beside, work, profile, mode):
    """A thread that computes, changes the layout or makes processes meanwhile is not stopped for long, and disturbs no call."""
    split = work.same([beside, mode, 8], profile("beside"))
    assert split.remote("beside_work") > 0 and local_reasons(split.report) <= {"conflict"}


def test_signals(beside, work, profile):
    """A signal for a thread whose call is away recalls that call, and no other's."""
    split = work.same([beside, "signalling", 24], profile("beside"))
    assert split.split("beside_work")["went_home"]["signal:SIGUSR1"] > 0 and local_reasons(split.report) <= {"conflict"}


def test_the_program_ends_meanwhile(beside, work, profile):
    """A program that ends in the middle of its threads' calls ends as it does without radium."""
    split = work.same([beside, "leaving", 1000], profile("beside"))
    assert local_reasons(split.report) <= {"conflict", "unsupported:exit"}


def test_together_with_calls_that_stop_all(server, work, tmp_path):
    """One split function takes the whole thread group along while calls of another one are away."""
    mixture = tmp_path / "mixture.toml"
    mixture.write_text(
        'name = "mixture"\n[[split]]\nlibrary = "libserver.so"\nfunction = "serve_apart"\nthreads = "run"\n'
        '[[split]]\nlibrary = "libserver.so"\nfunction = ["serve_reads", "serve_together"]\nthreads = "stop"\n'
    )
    split = work.same([server, "mixed", 40, 4], mixture, timeout_s=60)
    assert split.remote("serve_apart") > 0 and split.remote("serve_reads") > 0
    assert local_reasons(split.report) <= {"conflict"}


@pytest.mark.parametrize("tracking", ["pagemap", "checksum"])
@pytest.mark.parametrize("mode", ["together", "apart"])
def test_held_pages(server, work, profile, monkeypatch, tracking, mode):
    """Whenever no call is away any more every held page equals its twin, whichever side wrote it."""
    monkeypatch.setitem(work.env, "RADIUM_AUDIT", "1")
    split = work.same([server, mode, 20, 3], profile("server"), "--tracking", tracking, timeout_s=60)
    assert remote_total(split.report) > 0


@pytest.mark.parametrize("mode", SERVERS)
def test_acceptor_killed(server, work, profile, acceptor, mode):
    """kill -9 of the acceptor with several calls away costs what they had not brought home, and no result."""
    program = [server, mode, 40, 4]
    whole = work.run_whole(program)
    session = work.start_split(program, profile("server"), acceptor=acceptor)
    session.running.out.wait_for("READY")
    generator = random.Random(mode)
    for _ in range(3):
        poll_until(lambda: acceptor.sessions() or not session.running.alive, "a session is open")
        time.sleep(generator.random() * 0.3)  # the random moment
        acceptor.kill_sessions()
    split = work.finish(session.running, timeout_s=60)
    assert (split.stdout, split.exit) == (whole.stdout, 0)
    assert local_reasons(session.report()) <= LOST | {"conflict"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", ["together", "apart"])
def test_radium_killed(server, work, profile, mode, seed):
    """kill -9 of radium with several calls away: all their threads are at home again, and the program ends well."""
    program = [server, mode, 60, 4]
    whole = work.run_whole(program)
    target = work.start(program, hold=True)
    session = work.attach(target.pid, profile("server"))
    target.release()
    time.sleep(random.Random(f"{mode} {seed}").random())  # the random moment
    session.running.kill(signal.SIGKILL)
    assert target.check_success() == whole.stdout


@pytest.mark.parametrize("seed", range(3))
def test_detached(server, work, profile, seed):
    """A detach with several calls away brings all of them home."""
    program = [server, "apart", 60, 4]
    whole = work.run_whole(program)
    target = work.start(program, hold=True)
    session = work.attach(target.pid, profile("server"))
    target.release()
    time.sleep(0.3 + random.Random(seed).random() * 0.5)  # the random moment
    report = session.detach()
    assert target.check_success() == whole.stdout
    assert local_reasons(report) <= {"conflict", "refused:detaching"}


def test_drained(server, work, profile, acceptor):
    """An acceptor that shuts down with several calls in it lets them end or sends them home."""
    program = [server, "apart", 60, 4]
    whole = work.run_whole(program)
    session = work.start_split(program, profile("server"), acceptor=acceptor)
    poll_until(lambda: acceptor.sessions() or not session.running.alive, "a session is open")
    acceptor.running.kill(signal.SIGTERM)
    split = work.finish(session.running, timeout_s=60)
    assert (split.stdout, split.exit) == (whole.stdout, 0)
    assert local_reasons(session.report()) <= LOST | {"conflict", "refused:draining"}
    assert acceptor.running.wait() == 0
