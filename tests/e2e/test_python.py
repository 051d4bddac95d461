"""Split functions of Python programs that were never written for it."""

import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from harness import READY, TARGETS, descriptors, poll_until, remote_total

HERE = TARGETS / "python"
SPLIT = r"radium: Python \d+\.\d+: [1-9]\d* functions? (is|are) split"


@pytest.fixture(autouse=True)
def found(work):
    """What the targets import lies beside them."""
    work.env["PYTHONPATH"] = str(HERE)


@pytest.fixture
def split(tmp_path):
    """split(name, ...): a profile with these Python functions; more: lines of the split."""

    def write(*names, more=""):
        path = tmp_path / "python.toml"
        path.write_text(f'name = "python"\n[[split]]\npython = {list(names)!r}\n{more}')
        return path

    return write


def target(name, *arguments):
    return [sys.executable, HERE / f"{name}.py", *arguments]


def local_reasons(report):
    return {reason for one in report["splits"] for reason in one["local_reasons"]}


def attach(work, program, profile, *extra, acceptor=None):
    """The program, held behind READY, and the session, once its functions are split."""
    running = work.start(program, hold=True)
    session = work.attach(running.pid, profile, *extra, acceptor=acceptor)
    session.running.err.wait_for(SPLIT)
    return running, session


def test_objects(work, split):
    """What cannot be pickled goes into calls and out of them as it is."""
    program = target("objects")
    names = ("same", "use_lock", "take_three", "call", "fill", "make", "patch")
    result = work.same(program, split(*(f"__main__:{name}" for name in names)))
    assert remote_total(result.report) > 20 and not local_reasons(result.report)


@pytest.mark.parametrize("more", ["", 'guard = "1 < 2"'], ids=["plain", "guarded"])
def test_nothing_tells(work, split, more):
    """Signatures, tracebacks, tracers, profilers, warnings and limits are what they are whole."""
    names = [f"__main__:{name}" for name in ("plain", "raises", "chained", "warns", "caller_of", "frames")]
    result = work.same(target("watched"), split(*names, more=more))
    assert remote_total(result.report) > 10


def test_effects(work, split):
    """Each effect comes once, and in order."""
    result = work.same(target("effects", 10), split("__main__:tell", "__main__:keep", "__main__:talk"))
    assert remote_total(result.report) == 30
    assert all(result.split(name)["went_home"] for name in ("tell", "keep", "talk"))


def test_effects_with_the_acceptor_killed(work, split, acceptor):
    """An effect that has been made is not made again when the acceptor is lost."""
    program = target("effects", 30)
    whole = work.run_whole(program)
    session = work.start_split(program, split("__main__:tell", "__main__:keep", "__main__:talk"), acceptor=acceptor)
    session.running.out.wait_for(READY)
    generator = random.Random(1)
    for _ in range(6):
        time.sleep(generator.random() * 0.15)  # the random moment
        acceptor.kill_sessions()
    result = work.finish(session.running)
    assert (result.stdout, result.exit) == (whole.stdout, 0)
    assert local_reasons(session.report()) <= {"acceptor-lost", "no-acceptor", "nested"}


def test_many_threads(work, split):
    """Threads that want the GIL, take locks and sleep in calls come to no deadlock."""
    result = work.same(target("crowd", 800, 8), split("__main__:work", "__main__:inside"))
    assert remote_total(result.report) > 5


@pytest.mark.slow
def test_ten_thousand_calls_of_eight_threads(work, split):
    """As above, for long."""
    result = work.same(target("crowd", 10000, 8), split("__main__:work", "__main__:inside"), timeout_s=600)
    assert remote_total(result.report) > 200


@pytest.mark.parametrize("how", ["sleep", "join", "lock", "timed", "select", "busy"])
def test_main_thread_waits(work, split, how):
    """The interpreter is entered and left while its main thread waits, which goes on waiting as long as it would have."""
    running, session = attach(work, target("sleeping", how, 1.5), split("__main__:heavy"))
    running.release()
    time.sleep(0.3)  # some calls, of a hundredth of a second each
    report = session.detach()
    assert remote_total(report) > 0 and local_reasons(report) <= {"refused:detaching", "refused:visit", "nested"}
    running.check_success()


def test_deep_recursion(work, split):
    """As deep as whole, though calls through a gate take C stack; guards that say no at each level included."""
    names = [f"__main__:{name}" for name in ("down", "even", "odd", "endless")]
    result = work.same(target("deep", 40000), split(*names))
    assert remote_total(result.report) > 3
    result = work.same(target("deep", 40000), split(*names, more='guard = "depth < 0"'))
    assert remote_total(result.report) == 0 and local_reasons(result.report) == {"guard"}


def test_what_a_remote_call_calls_is_part_of_it(work, split):
    """Neither counted nor asked for by its guard; a call that stays at home is no such call, and what it calls counts."""
    result = work.same(target("deep", 900), split("__main__:down", more='guard = "depth > 20"'))
    assert result.remote("down") == 2 and result.reasons("down") == {"guard": 2 * 11}


def test_large_arrays(work, split):
    """Of half a gigabyte only what the calls touch crosses the wire."""
    result = work.same(target("arrays", 500), split("__main__:touch"))
    one = result.split("touch")
    assert one["calls"]["remote"] == 3
    assert one["bytes"]["out"] < 16 << 20


def test_signals_that_raise(work, split):
    """Exceptions of signal handlers reach the program while it is attached to and left, again and again."""
    running = work.start(target("alarms", 6), hold=True)
    running.release()
    for _ in range(2):
        session = work.attach(running.pid, split("__main__:heavy"))
        session.running.err.wait_for(SPLIT)
        assert local_reasons(session.detach()) <= {"refused:detaching", "nested"}
    running.check_success()


def test_family(work, split):
    """Children that are forked are split too, and end as they do whole."""
    result = work.same(target("family"), split("__main__:heavy"))
    assert remote_total(result.report) >= 20
    assert len(result.report["processes"]) >= 5


@pytest.mark.parametrize("ncycles", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_attached_again_and_again(work, split, ncycles):
    """Busy threads, C code in the middle of generators: nothing that could be called is left, and nothing grows."""
    running = work.start(target("busy"))
    names = [f"__main__:{name}" for name in ("work", "steps", "Kind.method", "Kind.__call__")]
    before = len(Path(f"/proc/{running.pid}/maps").read_text().splitlines()), descriptors(running.pid)
    nremote = 0
    for _ in range(ncycles):
        session = work.attach(running.pid, split(*names))
        session.running.err.wait_for(SPLIT)
        time.sleep(0.2)  # some calls
        nremote += remote_total(session.detach())
    assert nremote > 5 * ncycles
    after = len(Path(f"/proc/{running.pid}/maps").read_text().splitlines()), descriptors(running.pid)
    # Arenas of the interpreter's come and go.
    assert abs(after[0] - before[0]) < 12 and after[1] == before[1]
    running.kill()
    assert running.check_success(60).splitlines()[-2] == "[] [] True"


@pytest.mark.parametrize("seed", range(6))
def test_radium_killed(work, split, seed):
    """kill -9 of radium at any moment: the program ends as it would have, and its functions are its own again."""
    running = work.start(target("crowd", 600, 4), hold=True)
    session = work.start_attach(running.pid, split("__main__:work"))
    running.release()
    time.sleep(random.Random(seed).random() * 1.5)  # the random moment
    session.running.kill(signal.SIGKILL)
    running.check_success()


@pytest.mark.parametrize("seed", range(4))
def test_radium_killed_in_a_visit(work, split, seed):
    """kill -9 while the sleeping main thread does something for radium, for which it has taken the GIL: it lets go of it."""
    running = work.start(target("contend", 2))
    session = work.start_attach(running.pid, split("__main__:work"))
    poll_until(lambda: is_visited(running.pid), "a visit")
    time.sleep(random.Random(seed).random() * 0.02)  # the random moment
    session.running.kill(signal.SIGKILL)
    running.kill()
    running.check_success(60)


def is_visited(pid):
    """In a visit all signals wait but those of faults; a thread whose registers are borrowed blocks these too."""
    blocked = int(re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1], 16)
    return blocked and not blocked & 1 << signal.SIGSEGV - 1
