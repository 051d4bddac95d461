"""A call that goes home in the middle and out again does what it does whole, and is one remote call."""

import os
import random
import signal
import time

import pytest
from harness import assert_same, descendants_named, poll_until, split_of, status, thread_states

LOST = {"acceptor-lost", "no-acceptor", "timeout"}


def trips(result, name):
    return dict(result.split(name)["went_home"])


# -- output and files --------------------------------------------------------------------------------------------------


def test_output_between_computing(build, work, profile):
    """A call that prints is remote, and each of its lines comes once."""
    split = work.same([build("output", library="output"), 10, 5], profile("output"))
    printed = [line for line in split.stdout.splitlines() if " line " in line]
    assert len(printed) == len(set(printed)) == 50
    assert split.remote("output_lines") == 10
    assert trips(split, "output_lines")["syscall:write"] > 0


def test_calls_that_cannot_gain_stay_at_home(build, work, tmp_path, profile):
    """With policy = "auto", a split whose calls go home all the time leaves no more after its first calls."""
    auto = tmp_path / "auto.toml"
    auto.write_text(profile("output").read_text() + 'policy = "auto"\n')
    split = work.same([build("output", library="output"), 40, 5], auto)
    assert split.remote("output_lines") < 10 and split.reasons("output_lines")["policy"] >= 10
    assert "they run at home" in story(work)


def test_a_call_that_cannot_gain_stays_at_home(build, work, tmp_path, profile):
    """With policy = "auto", one call that goes home all the time leaves no more after its first trips; later ones are timed."""
    auto = tmp_path / "auto.toml"
    auto.write_text(profile("output").read_text() + 'policy = "auto"\n')
    split = work.same([build("output", library="output"), 5, 100], auto)
    assert split.reasons("output_lines") == {"policy": 5}
    assert split.split("output_lines")["cost"]["classes"][0]["local_seconds"] > 0
    assert "cost more than all" in story(work)


def story(work):
    """What `explain` tells of the first report, in one line."""
    return " ".join(work.radium("explain", work.folder / "report1.json").stdout.split())


def test_files(build, work, profile):
    """Files, folders, file mappings and pipes are the tracee's own also in the middle of a call."""
    split = work.same([build("files", library="files")], profile("files"))
    assert trips(split, "files_pipe")["syscall:write"] > 0
    assert trips(split, "files_map").keys() >= {"syscall:mmap"}
    for name, calls in (("write", 2), ("read", 1), ("stat", 2), ("list", 1), ("map", 1), ("pipe", 1), ("grow", 1)):
        assert split.remote(f"files_{name}") == calls, split.split(f"files_{name}")


# -- signals and faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["handler", "altstack"])
def test_timer_rings_while_computing(build, work, profile, mode):
    """A handler runs at home, on the stack that it asks for, and the computation goes on where it was."""
    split = work.same([build("alarms", library="alarms"), mode], profile("alarms"))
    assert split.remote("alarms_compute") == 1
    assert trips(split, "alarms_compute")["signal:SIGALRM"] > 0


@pytest.mark.parametrize("mode", ["eintr", "restart"])
def test_timer_rings_while_waiting(build, work, profile, mode):
    """A wait in the middle of a call is interrupted, or restarted, as SA_RESTART says."""
    split = work.same([build("alarms", library="alarms"), mode], profile("alarms"))
    assert split.remote("alarms_read") == 1
    assert trips(split, "alarms_read")["syscall:read"] > 0


@pytest.mark.parametrize(
    ("mode", "name", "reason", "least", "remote"),
    [
        ("null", "faults_null", "fault:SIGSEGV", 3, 3),
        ("inside", "faults_inside", "fault:SIGSEGV", 1, 0),
        ("protected", "faults_fill", "fault:SIGSEGV", 2, 2),
        ("divide", "faults_divide", "fault:SIGFPE", 1, 4),
        ("undefined", "faults_undefined", "fault:SIGILL", 3, 3),
    ],
)
def test_faults(build, work, profile, mode, name, reason, least, remote):
    """A fault is raised at home with its true code and address, and what the call has written is kept."""
    split = work.same([build("faults", library="faults"), mode], profile("faults"))
    assert "wrong" not in split.stdout
    assert trips(split, name)[reason] >= least
    assert split.remote(name) >= remote


# -- other ways out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "status"), [("exit", 3), ("at_once", 7)])
def test_exit_in_a_call(build, work, profile, mode, status):
    """exit flushes and runs what atexit was told, _exit does neither, and the status is the program's."""
    split = work.same([build("leaving", library="leaving"), mode], profile("leaving"))
    assert split.exit == status
    assert sum(trips(split, f"leaving_{mode}").values()) > 0


def test_jumps_out_and_within(build, work, profile):
    """longjmp and siglongjmp land at home from a call that they leave, and away within one."""
    split = work.same([build("leaving", library="leaving"), "jumps"], profile("leaving"))
    assert split.remote("leaving_jump") == 9 and trips(split, "leaving_jump")["longjmp"] == 6
    assert split.remote("leaving_turns") == 4


def test_thread_ends_in_a_call(build, work, profile):
    """pthread_exit in a call runs the cleanup handlers of the call and of its callers, and its result is joined."""
    split = work.same([build("leaving", library="leaving"), "thread"], profile("leaving"))
    assert split.remote("leaving_thread") >= 2
    assert sum(trips(split, "leaving_thread").values()) >= 2


@pytest.mark.parametrize("mode", ["inside", "spawn", "returns"])
def test_fork_in_a_call(build, work, profile, mode):
    """A call that forks goes on in the parent, and in the child for as long as that lives."""
    split = work.same([build("forking", library="forking"), mode], profile("forking"))
    assert split.remote(f"forking_{mode}") >= 3
    assert sum(trips(split, f"forking_{mode}").values()) >= 3


def test_deep_stack(build, work, profile):
    """A call may use megabytes of stack and make a system call down there."""
    split = work.same([build("deepstack", library="deepstack"), 2], profile("deepstack"))
    assert split.remote("deepstack_descend") == 2
    assert trips(split, "deepstack_descend")["syscall:write"] == 2


# -- from outside ------------------------------------------------------------------------------------------------------


def test_stop_and_continue(build, work, profile):
    """SIGSTOP while the call is away stops the program, and SIGCONT lets it end well."""
    command = [build("stops", library="stops"), 160000]
    whole = work.run_whole(command)
    session = work.start_split(command, profile("stops"))
    session.running.out.wait_for("^computing$")
    (pid,) = descendants_named(session.running.pid, "stops")
    for _ in range(3):
        time.sleep(0.1)  # some way into the call
        os.kill(pid, signal.SIGSTOP)
        poll_until(lambda: thread_states(pid)[pid] in "Tt", "the program has stopped")
        os.kill(pid, signal.SIGCONT)
    split = work.finish(session.running)
    assert_same(whole, split)
    split.report = session.report()
    assert split.remote("stops_compute") == 1


def test_detach_in_a_long_call(build, work, profile, acceptor):
    """A detach while the call is away brings it home, where it ends well."""
    command = [build("stops", library="stops"), 500000]
    whole = work.start(command)
    target = work.start(command, hold=True)
    session = work.attach(target.pid, profile("stops"), acceptor=acceptor)
    target.release()
    target.out.wait_for("^computing$")
    time.sleep(0.5)  # some way into the call
    report = session.detach()
    assert not any(line.startswith("computed") for line in target.out.seen), "the call had ended"
    assert status(target.pid)["TracerPid"] == "0"
    assert target.check_success() == whole.check_success()
    split = split_of(report, "stops_compute")
    assert split["calls"]["remote"] == 0 and split["calls"]["local"] == 1


def output_under_kills(build, work, profile, acceptor, kills):
    program, stop = build("output", library="output"), work.folder / "stop"
    session = work.start_split([program, 1_000_000, 5, stop], profile("output"), acceptor=acceptor)
    session.running.out.wait_for(" line ")
    generator = random.Random(kills)
    for _ in range(kills):
        poll_until(acceptor.sessions, "a session is open")
        time.sleep(generator.random() * 0.1)  # the random moment
        acceptor.kill_sessions()
    poll_until(acceptor.sessions, "a session is open after the last kill")
    session.running.out.wait_for(" line ", after=len(session.running.out.seen))
    stop.touch()
    split = work.finish(session.running)
    split.report = session.report()
    calls = split.stdout.splitlines()[-2].removeprefix("calls ")
    assert_same(work.run_whole([program, calls, 5]), split)
    assert split.remote("output_lines") > 0 and set(split.reasons("output_lines")) <= LOST


def test_twenty_kills_between_trips(build, work, profile, acceptor):
    """kill -9 of the acceptor's sessions at random moments of calls that print: no line is lost and none comes twice."""
    output_under_kills(build, work, profile, acceptor, 20)


@pytest.mark.slow
def test_hundred_kills_between_trips(build, work, profile, acceptor):
    """As above, with many more kills."""
    output_under_kills(build, work, profile, acceptor, 100)
