"""exec, fork, spawn and the ways to end: as without radium."""

import os
import random
import signal
import time

import pytest
from harness import DEADLINE_S, descendants_named, remote_total


@pytest.mark.parametrize("how", ["return", "exit", "_exit", "abort", "segv", "kill", "term", "trap"])
def test_exit_codes(build, work, profile, how):
    """`run` exits as the program does, 128+N for a signal."""
    work.same([build("dies", library="null"), how], profile("null"))


@pytest.mark.parametrize("mode", ["self", "other", "thread"])
def test_exec(build, work, profile, mode):
    """A program that execs goes on as the new program; nothing of the old session harms it."""
    split = work.same([build("execs", library="null"), mode], profile("null"))
    assert remote_total(split.report) >= 10


@pytest.mark.parametrize("follow", ["yes", "no"])
@pytest.mark.parametrize("mode", ["fork", "grand", "spawn", "system", "vfork"])
def test_children(build, work, profile, mode, follow):
    """Children of fork, vfork, posix_spawn and system live as without radium, followed or not, with split calls or without."""
    whole = work.run_whole([build("forks", library="work"), mode])
    split = work.run_split([build("forks", library="work"), mode], profile("work"), "--follow", follow)
    assert sorted(whole.stdout.splitlines()) == sorted(split.stdout.splitlines())
    assert whole.exit == split.exit, split.stderr
    of_children = {"fork": 5, "grand": 10}.get(mode, 0) if follow == "yes" else 0
    assert split.check_no_traceback().remote("work_mix") == 6 + of_children


@pytest.mark.parametrize("follow", ["yes", "no"])
def test_child_outlives_the_session(build, work, profile, follow):
    """A child forked during a session makes the split call after the detach: no breakpoint was left in it."""
    program = build("forks", library="work")
    target = work.start([program, "linger"], hold=True)
    session = work.attach(target.pid, profile("work"), "--follow", follow)
    target.release()
    target.out.wait_for("LINGERING")
    session.detach()
    target.release()
    target.check_success()


def test_attached_program_ends(build, work, profile):
    """`attach` exits 0 when the program ends by itself."""
    target = work.start([build("null", library="null"), 100], hold=True)
    session = work.attach(target.pid, profile("null"))
    target.release()
    target.check_success()
    report = session.ended()
    assert report["splits"][0]["calls"]["remote"] == 100


@pytest.mark.parametrize("mode", ["other", "thread"])
def test_attached_program_execs(build, work, profile, mode):
    """A program attached to that execs ends as it does without radium."""
    target = work.start([build("execs", library="null"), mode], hold=True)
    session = work.attach(target.pid, profile("null"))
    target.release()
    target.check_success()
    session.ended()


def test_run_is_killed_by_the_programs_death(build, work, profile):
    """A program under `radium run` that is killed by SIGKILL, at any moment, ends `run` with 137."""
    for seed in range(5):
        session = work.start_split([build("longrun", library="work")], profile("work"))
        session.running.out.wait_for("READY")
        (pid,) = descendants_named(session.running.pid, "longrun")
        time.sleep(random.Random(seed).random() * 0.2)  # the random moment
        os.kill(pid, signal.SIGKILL)
        assert session.running.wait() == 128 + signal.SIGKILL, session.running.err.tail()


def test_interrupts_reach_the_program(build, work, profile):
    """Ctrl-C does to a program under `radium run` what it does without: it was not started with SIGINT ignored."""
    session = work.start_split([build("longrun", library="work")], profile("work"))
    session.running.out.wait_for("^progress")
    (pid,) = descendants_named(session.running.pid, "longrun")
    for each in (session.running.pid, pid):
        os.kill(each, signal.SIGINT)
    assert session.running.wait() == 128 + signal.SIGINT


def test_stdin_belongs_to_the_program(build, work, profile):
    """The program run by radium reads radium's standard input."""
    session = work.start_split([build("null", library="null"), 5], profile("null"), hold=True)
    session.running.out.wait_for("READY")
    session.running.release()
    session.running.check_success(DEADLINE_S)


def test_program_is_told_to_end(build, work, profile):
    """A program under `radium run` that is told to end by a signal ends well, and `run` with it."""
    session = work.start_split([build("longrun", library="work")], profile("work"))
    session.running.out.wait_for("^progress")
    (pid,) = descendants_named(session.running.pid, "longrun")
    os.kill(pid, signal.SIGTERM)
    assert session.running.wait() == 0
    assert session.running.out.finish().endswith("EXIT-SUCCESS")
