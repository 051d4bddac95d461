"""Children of the program are followed: each is split by itself, and lives, ends and is heard of as without radium."""

import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from harness import (
    TARGETS,
    Snapshot,
    code_of,
    descendants,
    descendants_named,
    poll_until,
    remote_total,
    status,
)

LIBRARY = "libwork.so"
CALLS = 4  # of each round of the target's


@pytest.fixture
def children(build):
    return build("children", library="work")


@pytest.mark.parametrize(
    "mode, nprocesses, nrounds",
    [
        ("fork", 5, 6),
        ("tree", 15, 31),
        ("pipeline", 5, 21),
        ("daemon", 3, 2),
        ("clone", 4, 8),
        ("hears", 5, 5),
        ("exec", 4, 7),
        ("vfork", 4, 7),
        ("spawn", 4, 7),
    ],
)
def test_children_are_split(children, work, profile, mode, nprocesses, nrounds):
    """Every call of every child is remote, whatever way the child was made; statuses and signals are as without radium."""
    split = work.same([children, mode], profile("work"))
    assert split.split("work_mix")["calls"] == {"remote": nrounds * CALLS, "local": 0}, split.stderr
    pids = {process["pid"] for process in split.report["processes"]}
    assert len(split.report["processes"]) == len(pids) == nprocesses


def test_exit_codes_of_children(children, work, profile):
    """The report has one entry for each process, with its exit code."""
    split = work.same([children, "hears"], profile("work"))
    exits = [process["exit"] for process in split.report["processes"]]
    assert exits == [0, 5, 128 + signal.SIGKILL, 7, 128 + signal.SIGABRT]


def test_threads_fork(children, work, profile):
    """A program forks among threads that make calls; its children are split, and hold nothing of the others' calls."""
    split = work.same([children, "threaded"], profile("work"))
    assert split.remote("work_mix") >= 7 * CALLS


@pytest.mark.parametrize("mode", ["inside", "spawn", "returns", "atfork"])
def test_fork_in_a_call(build, work, profile, mode):
    """A call that forks goes home for it; its rest is done once by the parent and once by the child, atfork handlers too."""
    split = work.same([build("forking", library="forking"), mode], profile("forking"))
    went_home = {reason for one in split.report["splits"] for reason in one["went_home"]}
    assert went_home & {"syscall:clone", "syscall:clone3", "syscall:vfork", "syscall:fork"}, went_home


def test_follow_no(children, work, profile):
    """With --follow no the children are let go: only the program's own calls are split."""
    split = work.same([children, "fork"], profile("work"), "--follow", "no")
    assert split.split("work_mix")["calls"] == {"remote": 2 * CALLS, "local": 0}
    assert len(split.report["processes"]) == 1


@pytest.mark.parametrize("how", ["exec", "vfork", "spawn"])
def test_a_static_program(build, children, work, profile, how):
    """A child that executes a static program is let go, which a line says."""
    program = build("setid", "-static")
    split = work.same([children, "start", how, program], profile("work"))
    assert re.search(r"radium: setid is let go: .*static", split.stderr)
    assert re.search(r"^TracerPid:\s*0$", split.stderr, re.M)
    assert split.remote("work_mix") == 2 * CALLS


@pytest.fixture
def setuid(build, tmp_path):
    """A program that runs with the rights of another user."""
    program = tmp_path / "setid"
    program.write_bytes(build("setid").read_bytes())
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    return program


@pytest.mark.root
@pytest.mark.parametrize("how", ["exec", "vfork", "spawn"])
def test_a_setuid_program(children, work, profile, setuid, how):
    """A child that executes a setuid program gets its rights and is let go, which a line says."""
    split = work.same([children, "start", how, setuid], profile("work"))
    assert "euid 65534 secure 1" in split.stdout
    assert re.search(r"radium: setid is let go: .*setuid", split.stderr)
    assert re.search(r"^TracerPid:\s*0$", split.stderr, re.M)
    assert split.remote("work_mix") == 2 * CALLS


@pytest.mark.root
def test_the_program_becomes_setuid(work, profile, setuid):
    """A program under `radium run` that is let go ends `run` as it ends itself."""
    split = work.same(["/bin/sh", "-c", 'exec "$0"', setuid], profile("work"))
    assert split.exit == 5 and "setid is let go" in split.stderr


def test_a_shell(children, work, profile):
    """A shell's commands are split: in a pipeline, in the background, by exec, in a subshell."""
    script = '"$0" fork 1 | cat; "$0" fork 1 > out & wait $!; echo $?; cat out; ("$0" tree); exec "$0" fork 2'
    split = work.same(["/bin/sh", "-c", script, children], profile("work"))
    assert split.split("work_mix")["calls"] == {"remote": (3 + 3 + 31 + 4) * CALLS, "local": 0}


def test_a_call_stalls_nobody_else(build, work, profile):
    """While a call of one process is away for seconds, another makes its calls, and ends."""
    script = '"$0" 6000 & "$1" 200; kill -0 $! && echo STILL; wait $!'
    programs = [build("slow", library="slow"), build("null", library="null")]
    split = work.run_split(["/bin/sh", "-c", script, *programs], profile("null"), "--split", profile("slow"))
    assert split.exit == 0 and "STILL" in split.stdout, split.stdout
    assert split.remote("null_call") == 200 and split.remote("slow_fill") == 1, split.stderr


def test_told_to_end(children, work, profile):
    """`run` that is told to end leaves all processes, and tells the program, whose end is its own."""
    session = work.start_split([children, "linger", 3], profile("work"), hold=True)
    session.running.out.wait_for("READY")
    session.running.release()
    session.running.out.wait_for("LINGERING")
    (pid,) = descendants_named(session.running.pid, "children")[:1]
    pids = descendants(pid)
    session.running.kill(signal.SIGTERM)
    assert session.running.wait() == 128 + signal.SIGTERM
    poll_until(lambda: not any(is_alive(child) for child in pids), "they end")


def is_alive(pid):
    try:
        return status(pid)["State"][0] not in "ZX"
    except OSError:
        return False


def test_a_limit_of_descriptors(children, work, profile):
    """A soft limit of descriptors is the program's, and keeps radium from following nobody."""
    limits = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (48, {1 << 12}));"
    code = f"{limits} import sys; from radium.cli import main; sys.exit(main())"
    program = ["/bin/sh", "-c", 'ulimit -S -n; ulimit -H -n; "$0" tree', children]
    radium = work.popen([sys.executable, "-P", "-c", code, "run", "--split", profile("work"), "--", *program])
    assert radium.check_success().startswith("48\n4096\n")
    assert "let go" not in radium.err.finish() and "work_mix: 124 remote" in radium.err.finish()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_python(work, method):
    """multiprocessing and concurrent.futures by each start method: the workers' products are remote, and right."""
    split = work.same([sys.executable, TARGETS / "workers.py", method], "blas", timeout_s=120)
    assert remote_total(split.report) >= 12, split.stderr


def test_attach_to_one_of_a_tree(children, work, profile):
    """Of a tree, the process that is named and the children that it has later are split, and no other."""
    script = '"$0" linger 2; echo status $?'
    shell = work.start(["/bin/sh", "-c", script, children], hold=True)
    (pid,) = descendants(shell.pid)
    session = work.attach(pid, profile("work"))
    shell.release()
    shell.out.wait_for("LINGERING")
    poll_until(lambda: len(descendants(pid)) == 2, "the children run")
    assert status(shell.pid)["TracerPid"] == "0"
    assert {status(child)["TracerPid"] for child in (pid, *descendants(pid))} == {str(session.running.pid)}
    shell.out.wait_for("CALLED")
    shell.release()
    assert shell.wait() == 0 and shell.out.finish().endswith("status 0")
    assert len(session.ended()["processes"]) == 3


def start_lingering(children, work, profile, acceptor=None):
    """A program with three children, all of which make calls; the session that has attached before it forked."""
    target = work.start([children, "linger", 3], hold=True)
    before = Snapshot.of(target.pid, LIBRARY)
    session = work.attach(target.pid, profile("work"), acceptor=acceptor)
    target.release()
    target.out.wait_for("LINGERING")
    poll_until(lambda: len(descendants(target.pid)) == 3, "the children run")
    return target, session, before, descendants(target.pid)


def check_left(target, before, pids):
    """Neither the program nor its children have anything of radium's, and all end well."""
    for pid in (target.pid, *pids):
        poll_until(lambda pid=pid: is_left(pid, before), f"{pid} is as it was found")
        now = Snapshot.of(pid, LIBRARY)
        assert now.maps.count("\n") == before.maps.count("\n") and now.flags == before.flags
        assert {key: now.status[key] for key in ("SigCgt", "SigIgn")} == {
            key: before.status[key] for key in ("SigCgt", "SigIgn")
        }
        assert not any("userfaultfd" in name for name in now.descriptors.values())
    target.out.wait_for("CALLED")
    target.release()
    assert target.check_success().count("status 0") == len(pids)


def is_left(pid, before):
    return code_of(pid, LIBRARY) == before.code and status(pid)["TracerPid"] == "0"


def test_detach(children, work, profile):
    """A detach leaves the program and all its children as they were found."""
    target, session, before, pids = start_lingering(children, work, profile)
    target.out.wait_for("CALLED")
    report = session.detach()
    assert {process["pid"]: process["exit"] for process in report["processes"]} == dict.fromkeys([target.pid, *pids])
    check_left(target, before, pids)


@pytest.mark.parametrize("seed", range(4))
def test_radium_killed(children, work, profile, seed):
    """A kill of radium at any moment leaves the program and all its children going on, without breakpoints."""
    target, session, before, pids = start_lingering(children, work, profile)
    time.sleep(random.Random(seed).random() * 0.2)  # the random moment
    session.running.kill(signal.SIGKILL)
    session.running.wait()
    check_left(target, before, pids)


@pytest.mark.parametrize("seed", range(4))
def test_radium_killed_among_births(children, work, profile, seed):
    """A kill of radium while processes are born leaves none that dies of a breakpoint."""
    whole = work.run_whole([children, "tree"])
    target = work.start([children, "tree"], hold=True)
    session = work.attach(target.pid, profile("work"))
    target.release()
    time.sleep(random.Random(seed).random() * 0.4)  # the random moment
    session.running.kill(signal.SIGKILL)
    assert target.check_success() == whole.stdout


# Runs the command line with something changed first.
CHANGED = """
import os, signal, sys
from radium.tracer.process import Process
%s
from radium.cli import main
sys.exit(main())
"""
DIES_AT_A_BIRTH = """
Process._on_birth = lambda self, stop: os.kill(os.getpid(), signal.SIGKILL)
"""
KILLS_AT_A_BIRTH = """
from radium.errors import TraceeGone
from radium.linux import ptrace
def is_the_one(tid, killed=[]):
    if killed or open(f"/proc/{tid}/comm").read() != "children\\n":
        return False
    killed.append(tid)
    return True
def event_message(tid, ask=ptrace.event_message):
    child = ask(tid)
    if is_the_one(tid):
        os.kill(tid, signal.SIGKILL)
        print(f"born: {child}", file=sys.stderr, flush=True)
        raise TraceeGone("killed")
    return child
ptrace.event_message = event_message
"""


def radium_changed(work, code, command, *arguments):
    argv = [sys.executable, "-P", "-c", CHANGED % code, command, *arguments]
    return work.popen(argv)


def test_radium_killed_at_a_birth(children, work, profile):
    """A child that is born in the moment in which radium is killed is put right by the guardian of its parent."""
    target = work.start([children, "linger", 1], hold=True)
    before = Snapshot.of(target.pid, LIBRARY)
    radium = radium_changed(work, DIES_AT_A_BIRTH, "attach", "--split", profile("work"), "--pid", target.pid)
    radium.err.wait_for("attached")
    target.release()
    radium.wait()
    poll_until(lambda: len(descendants(target.pid)) == 1, "the child is there")
    check_left(target, before, descendants(target.pid))


def test_parent_killed_at_a_birth(children, work, profile):
    """A child whose parent is killed before anybody has heard of it is not left standing."""
    script = '"$0" linger 1; "$0" linger 0'
    command = ["--split", profile("work"), "--", "/bin/sh", "-c", script, children]
    radium = radium_changed(work, KILLS_AT_A_BIRTH, "run", *command)
    child = radium.err.wait_for(r"^born: (\d+)")[1]
    radium.out.wait_for("CALLED")
    # It reads the end of its parent's pipe, and ends.
    poll_until(lambda: not Path(f"/proc/{child}").exists() or status(int(child))["State"][0] == "Z", "the child has ended")
    radium.release()
    radium.check_success()


@pytest.mark.parametrize("seed", range(3))
def test_acceptor_killed(children, work, profile, acceptor, seed):
    """An acceptor that is killed while children's calls are away costs nothing but the time of those calls."""
    target, session, before, pids = start_lingering(children, work, profile, acceptor)
    time.sleep(random.Random(seed).random() * 0.3)  # the random moment
    acceptor.kill()
    acceptor.restart()
    target.out.wait_for("CALLED")
    session.detach()
    check_left(target, before, pids)


def test_children_outlive_the_program(children, work, profile, tmp_path):
    """`run` ends with the program; a child that outlives it is left as it would be without radium."""
    script = f'"$0" linger 0 < {tmp_path}/go > {tmp_path}/out & exit 4'
    os.mkfifo(tmp_path / "go")
    session = work.start_split(["/bin/sh", "-c", script, children], profile("work"))
    with open(tmp_path / "go", "wb") as go:
        assert session.running.wait() == 4
        (pid,) = [process["pid"] for process in session.report()["processes"][1:]]
        assert status(pid)["TracerPid"] == "0"
        go.write(b"\n")
    poll_until(lambda: "EXIT-SUCCESS" in Path(tmp_path / "out").read_text(), "the child ends well")
