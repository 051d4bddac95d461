"""The uprobe trap: guards that the kernel decides, and calls that it tells of."""

import json
import signal
import sys

import pytest
from harness import Snapshot, poll_until, progress, remote_of, split_of, status

pytestmark = pytest.mark.root

LIBRARY = "libhammer.so"
EMULATED = ("push", "endbr", "jmp", "nop", "call")
NOT_UNDONE = ("store", "load", "vector", "nop_long")
EVERY = 997  # of the guard in hammer.toml
FROM_THE_FIRST = ("--trap", "uprobe")


def wanted(ncalls):
    """How many of the calls with 0, 1, 2, ... the guard lets through."""
    return -(-ncalls // EVERY)


@pytest.fixture
def hammer(build):
    return build("hammer", library="hammer")


def traps(report):
    return {split["name"].rpartition(":hammer_")[2]: split["trap"] for split in report["splits"]}


@pytest.mark.parametrize(("trap", "stepped"), [("auto", "breakpoint"), ("uprobe", "uprobe")])
def test_first_instructions(hammer, work, profile, trap, stepped):
    """A function gets the trap that its first instruction allows, and says why; each call is decided once.

    With `auto` that is so when its guard has rejected many calls.
    """
    ncalls = 1500 if trap == "uprobe" else 3000
    split = work.same([hammer, "each", ncalls], profile("hammer"), "--trap", trap)
    expected = dict.fromkeys(EMULATED, "uprobe") | dict.fromkeys(NOT_UNDONE, "breakpoint") | {"sub": stepped}
    assert traps(split.report) == expected
    for name in expected:
        assert split.remote(f"hammer_{name}") == wanted(ncalls)
        assert split.reasons(f"hammer_{name}") == {"guard": ncalls - wanted(ncalls)}
        assert "first instruction" in split.split(f"hammer_{name}")["trap_reason"]
    for name in NOT_UNDONE:
        assert (f"hammer_{name} has a breakpoint" in split.stderr) == (trap == "uprobe")


def test_two_million_calls(hammer, work, profile):
    """Guarded calls of four threads are each decided exactly once, and give what they give without radium."""
    nthreads, each = 4, 500_000
    split = work.same([hammer, "calls", nthreads, each], profile("hammer_run"), timeout_s=240)
    reasons = split.reasons("hammer_push")
    rejected = reasons.pop("guard")
    assert split.split("hammer_push")["trap"] == "uprobe"
    assert split.remote("hammer_push") + sum(reasons.values()) == wanted(nthreads * each)
    assert rejected == nthreads * each - wanted(nthreads * each)
    assert set(reasons) <= {"conflict"}
    assert "signal:SIGURG" not in split.split("hammer_push")["went_home"], "a SIGURG of radium's called a call home"


@pytest.mark.parametrize("mode", ["tgkill", "kill", "socket", "many"])
def test_own_urgent_signals(hammer, work, profile, mode):
    """A program that uses SIGURG gets each of its own, however it is sent, and none of radium's."""
    split = work.same([hammer, mode, 3000], profile("hammer"), *FROM_THE_FIRST)
    reasons = split.reasons("hammer_push")
    assert reasons.pop("guard") == 3000 - wanted(3000)
    # A call that one has called home may end there, whatever the trap.
    assert set(reasons) <= ({"unsupported:signal:SIGURG"} if mode == "many" else set())
    assert split.remote("hammer_push") + sum(reasons.values()) == wanted(3000)


def test_blocked_urgent_signals(hammer, work, profile):
    """Calls of a thread that blocks SIGURG run at home, counted; the program never sees a SIGURG that it did not send."""
    split = work.same([hammer, "blocked", 3000], profile("hammer"), *FROM_THE_FIRST)
    rejected = 3 * (3000 - wanted(3000))
    blocked = 2 * wanted(3000)
    assert split.reasons("hammer_push") == {"guard": rejected, "unsupported:SIGURG": blocked}
    assert split.remote("hammer_push") == wanted(3000)


def test_merged_urgent_signals(hammer, work, profile):
    """A SIGURG of the program's that has taken in one of radium's is the program's."""
    split = work.same([hammer, "merged", 1000], profile("hammer"), *FROM_THE_FIRST)
    assert split.reasons("hammer_push") == {"guard": 1000 - wanted(1000), "unsupported:SIGURG": wanted(1000)}


def test_blocked_when_detached(hammer, work, profile):
    """A SIGURG of radium's that waits behind a thread's mask is taken away with all else."""
    target = work.start([hammer, "hold", 2000], hold=True)
    session = work.attach(target.pid, profile("hammer"), *FROM_THE_FIRST)
    target.release()
    target.out.wait_for("^BLOCKED$")
    report = session.detach()
    assert split_of(report, "hammer_push")["local_reasons"]["unsupported:SIGURG"] == wanted(2000)
    assert not int(status(target.pid)["SigPnd"], 16)
    target.kill(signal.SIGTERM)
    target.check_success()


def test_children(hammer, work, profile):
    """Forked children have uprobes of their own."""
    split = work.same([hammer, "fork", 2000], profile("hammer"), *FROM_THE_FIRST)
    assert split.remote("hammer_push") == 6 * wanted(2000)
    assert split.reasons("hammer_push") == {"guard": 6 * (2000 - wanted(2000))}


def test_children_that_are_not_followed(hammer, work, profile):
    """A child that goes its own way meets the kernel's int3 in its copy of the code, and nothing comes of it."""
    split = work.same([hammer, "fork", 2000], profile("hammer"), "--follow", "no")
    assert split.remote("hammer_push") + split.local("hammer_push") == 3 * 2000


def test_detach(hammer, work, profile):
    """A detached program is as it was found."""
    target = work.start([hammer, "on", 2000])
    progress(target)
    before = Snapshot.of(target.pid, LIBRARY)
    session = work.attach(target.pid, profile("hammer_alone"))
    progress(target)
    assert Snapshot.of(target.pid, LIBRARY).code != before.code
    report = session.detach()
    assert split_of(report, "hammer_push")["trap"] == "uprobe" and remote_of(report, "hammer_push") > 0
    check_undone(target, before)


@pytest.mark.parametrize("seed", range(4))
def test_radium_killed(hammer, work, profile, acceptor, seed):
    """kill -9 of radium leaves no probe behind; the program goes on with right results."""
    target = work.start([hammer, "on", 2000])
    progress(target)
    before = Snapshot.of(target.pid, LIBRARY)
    session = work.attach(target.pid, profile("hammer_alone"), acceptor=acceptor)
    progress(target, steps=1 + seed)
    session.running.kill(signal.SIGKILL)
    session.running.wait()
    poll_until(lambda: is_left(target.pid, before), "the guardian has done its work", 10)
    check_undone(target, before)


def is_left(pid, before):
    return Snapshot.of(pid, LIBRARY).code == before.code and status(pid)["TracerPid"] == "0"


def check_undone(target, before):
    now = Snapshot.of(target.pid, LIBRARY)
    # It makes threads, blocks signals for that, and ends them all the time.
    assert now.code == before.code
    for key in ("SigIgn", "SigCgt", "TracerPid"):
        assert now.status[key] == before.status[key]
    assert now.descriptors == before.descriptors
    assert "[uprobes]" not in now.maps
    progress(target)
    target.kill(signal.SIGTERM)
    target.check_success()


def test_library_loaded_again(build, work, profile):
    """A library that is unloaded and loaded again has its uprobes each time, and not twice."""
    library = build("hammer", library="hammer").parent / LIBRARY
    split = work.same([build("reloads"), library, 3, 1000], profile("hammer"), *FROM_THE_FIRST)
    assert split.remote("hammer_push") == 3 * wanted(1000)
    assert split.reasons("hammer_push") == {"guard": 3 * (1000 - wanted(1000))}


@pytest.mark.parametrize("trap", ["auto", pytest.param("uprobe", marks=pytest.mark.slow)])
def test_without_bcc(hammer, work, profile, trap):
    """Where bcc is not installed breakpoints do the same, and one line says so."""
    script = 'mount -t tmpfs none /usr/lib/python3/dist-packages && exec "$@"'
    split = run_in(work, script, [hammer, "each", 3000], profile("hammer"), trap)
    check_breakpoints(split, "bcc, which is not installed")


@pytest.mark.parametrize("trap", [pytest.param("auto", marks=pytest.mark.slow), "uprobe"])
def test_without_privilege(hammer, work, profile, trap):
    """Where BPF is not permitted breakpoints do the same, and one line says so."""
    script = 'exec setpriv --bounding-set -all --inh-caps -all "$@"'
    split = run_in(work, script, [hammer, "each", 3000], profile("hammer"), trap)
    check_breakpoints(split, "not permitted")


def test_in_a_container(hammer, work, profile):
    """In a pid namespace of its own radium finds the threads by the ids that they have there."""
    split = run_in(work, 'exec unshare -p -f --mount-proc "$@"', [hammer, "each", 1000], profile("hammer"), "uprobe")
    assert split.exit == 0 and split.split("hammer_push")["trap"] == "uprobe", split.stderr
    assert split.remote("hammer_push") == wanted(1000)


def run_in(work, script, program, profile, trap):
    """`radium run` by a shell in a mount namespace of its own."""
    report = work.folder / "in.json"
    radium = [sys.executable, "-m", "radium", "run", "--split", profile, "--trap", trap, "--report", report, "--", *program]
    result = work.run_whole(["unshare", "-m", "sh", "-c", script, "sh", *radium], timeout_s=60)
    result.report = json.loads(report.read_text())
    return result


def check_breakpoints(split, why):
    assert split.exit == 0, split.stderr
    assert set(traps(split.report).values()) == {"breakpoint"}
    lines = [line for line in split.stderr.splitlines() if "breakpoints are used, not uprobes" in line]
    assert len(lines) == 1 and why in lines[0], split.stderr
    assert not [line for line in split.stderr.splitlines() if "has a breakpoint" in line]
    assert split.reasons("hammer_push") == {"guard": 3000 - wanted(3000)}


def test_breakpoints_when_asked(hammer, work, profile):
    split = work.same([hammer, "each", 1000], profile("hammer"), "--trap", "breakpoint")
    assert set(traps(split.report).values()) == {"breakpoint"} and "uprobe" not in split.stderr


def test_guards_that_stay_in_user_space(hammer, work, tmp_path):
    """A guard over floating-point numbers is decided by radium; without a guard `auto` has nothing to gain."""
    text = 'name = "two"\ntitle = "Two"\n'
    for name, guard in (("push", 'guard = "x / 2 > 1e30"\n'), ("nop", "")):
        text += f'[[split]]\nlibrary = "libhammer.so*"\nfunction = "hammer_{name}"\n'
        text += f'signature = "long hammer_{name}(long x)"\n{guard}'
    path = tmp_path / "two.toml"
    path.write_text(text)
    split = work.same([hammer, "each", 50], path)
    assert traps(split.report) == {"push": "breakpoint", "nop": "breakpoint"}
    assert "fraction" in split.split("hammer_push")["trap_reason"]
    assert "no guard" in split.split("hammer_nop")["trap_reason"]
    forced = work.same([hammer, "each", 50], path, "--trap", "uprobe")
    assert traps(forced.report) == {"push": "breakpoint", "nop": "uprobe"}
    assert forced.remote("hammer_nop") == 50


def test_deleted_library(build, work, profile, tmp_path):
    """The mapped file counts, not what lies under its name."""
    folder = tmp_path / "gone"
    folder.mkdir()
    program = build("hammer", library="hammer")
    for path in (program, program.parent / LIBRARY):
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.name).chmod(0o755)
    target = work.start([folder / "hammer", "calls", 1, 3000], hold=True)
    (folder / LIBRARY).unlink()
    session = work.attach(target.pid, profile("hammer"))
    target.release()
    target.check_success()
    report = session.ended()
    assert split_of(report, "hammer_push")["trap"] == "uprobe"
    assert remote_of(report, "hammer_push") == wanted(3000)


def test_explain_says_why(hammer, work, profile):
    split = work.run_split([hammer, "each", 10], profile("hammer"), *FROM_THE_FIRST)
    path = work.folder / "told.json"
    path.write_text(json.dumps(split.report))
    told = " ".join(work.radium("explain", path).stdout.split())
    assert "hammer_push (mirror stance, uprobe trap: its first instruction (push) is emulated by the kernel)" in told
    assert "hammer_store (mirror stance, breakpoint trap: its first instruction" in told

