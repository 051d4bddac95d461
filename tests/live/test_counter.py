"""Calls of real programs, counted: each once, with who made it, how long it took, and with what."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Running, Workplace, code_of, poll_until

from radium.bpf import links, program
from radium.errors import NotPossible, RemoteFault
from radium.profiles.signature import parse_signature
from radium.tracer.discovery import counter
from radium.tracer.discovery.counter import Counted
from radium.tracer.discovery.symbols import Frame

Builder = Callable[..., Path]
LIBRARY = "libhotspots.so"
SIZED, RECURSIVE, TAIL, OUTER = (
    Frame(f"{LIBRARY}:{name}", LIBRARY, name) for name in ("sized_work", "recursive_task", "tail_task", "outer_work")
)
pytestmark = pytest.mark.root
LONG_S = 20.0


@pytest.fixture
def calls(build: Builder, work: Workplace) -> Running:
    return work.start([build("hotspots", library="hotspots"), "calls"])


@pytest.fixture
def nothing_too_hot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is counted, whatever that costs."""
    monkeypatch.setattr(counter, "BUDGET", float("inf"))


def released_at(turn: int, running: Running, word: str = "") -> Callable[[], bool]:
    """A `should_stop` that releases the target when it is asked for the turn-th time, and says so behind that word of its."""
    turns = itertools.count(1)

    def should_stop() -> bool:
        if next(turns) == turn:
            running.release()
        return word in running.out.seen

    return should_stop


def counted(running: Running, *frames: Frame) -> counter.Counting:
    """From before the calls, which it is told to make, to behind them; the places of return are known after the first."""
    return counter.count(running.pid, frames, LONG_S, released_at(1, running, "CALLED"))


@pytest.mark.usefixtures("nothing_too_hot")
def test_each_call_once(calls: Running) -> None:
    """Outermost calls, all entries, threads, callers: of both threads, with recursion and tail calls."""
    found = counted(calls, SIZED, RECURSIVE, TAIL)
    sized, recursive, tail = (found.functions[frame] for frame in (SIZED, RECURSIVE, TAIL))
    assert (sized.calls, sized.entries, sized.threads) == (200, 200, 2)
    assert (recursive.calls, recursive.entries, recursive.threads) == (100, 800, 2)
    assert (tail.calls, tail.threads) == (60, 2)
    for one in (sized, recursive, tail):
        assert list(one.callers) == ["hotspots:make_calls"]
        assert one.watched_s > 0
    assert not found.ended and found.overhead >= 0
    calls.release()
    assert calls.check_success()


def watch_steadily(build: Builder, work: Workplace, *frames: Frame) -> dict[Frame, Counted]:
    running = work.start([build("hotspots", library="hotspots"), "spin"])
    return counter.count(running.pid, frames, 2).functions


def test_latency(build: Builder, work: Workplace) -> None:
    """Calls are seen to return, and each falls into a class of latencies."""
    one = watch_steadily(build, work, OUTER)[OUTER]
    assert one.returned > 10 and one.returned <= one.calls
    assert sum(one.latency_ns) == one.returned
    assert 0 < one.total_s <= one.watched_s * 1.5
    assert one.observations and all(seen.latency_ns > 0 for seen in one.observations)


def test_arguments(build: Builder, work: Workplace) -> None:
    """What a guard would see of an observed call: registers, and integers that they point to."""
    running = work.start([build("hotspots", library="hotspots"), "sizes"])
    one = counter.count(running.pid, [SIZED], 2).functions[SIZED]
    signature = parse_signature("double sized_work(const int *n, long scale)")
    seen = [seen.bind(signature) for seen in one.observations]
    assert seen and {call["scale"] for call in seen} == {1000}
    sizes = {call["n"][0] for call in seen}  # type: ignore[index]
    assert len(sizes) > 3 and sizes <= set(range(1, 101))
    with pytest.raises(RemoteFault, match="not kept"):
        seen[0]["n"][100]  # type: ignore[index]


@pytest.mark.usefixtures("nothing_too_hot")
@pytest.mark.parametrize("frames", [("throwing_task",), ("passing_task",), ("throwing_task", "passing_task")])
def test_exceptions_pass(build: Builder, work: Workplace, frames: tuple[str, ...]) -> None:
    """A C++ exception passes functions that are counted, and later calls are counted rightly."""
    running = work.start([build("throwing")])
    found = counted(running, *(Frame(f"throwing:{name}", "main", name) for name in frames))
    assert [one.calls for one in found.functions.values()] == [300] * len(frames)
    running.release()
    assert "caught 100, sum 30200" in running.check_success()


def test_hot_function_costs_little(build: Builder, work: Workplace) -> None:
    """A function that is called all the time is armed for moments, and its calls are extrapolated from those."""
    running = work.start([build("hotspots", library="hotspots"), "hot"])
    found = counter.count(running.pid, [Frame(f"{LIBRARY}:tiny_task", LIBRARY, "tiny_task"), OUTER], 3)
    tiny = next(iter(found.functions.values()))
    assert not tiny.armed_always and tiny.watched_s < 1
    assert tiny.calls > 100
    assert found.overhead < 2 * counter.BUDGET


def test_names_that_are_not_there(calls: Running) -> None:
    """What has no address in the process is left out, with a line."""
    missing = Frame(f"{LIBRARY}:no_such", LIBRARY, "no_such")
    found = counter.count(calls.pid, [missing, SIZED], 0.1)
    assert list(found.functions) == [SIZED]
    assert any("no_such cannot be counted" in line for line in found.notes)


@pytest.mark.parametrize("mode", ["ends", "execs"])
def test_process_goes(build: Builder, work: Workplace, mode: str) -> None:
    """A process that ends, or runs another program, ends the counting; what was counted stays."""
    running = work.start([build("hotspots", library="hotspots"), mode])
    found = counter.count(running.pid, [OUTER], LONG_S, released_at(5, running))
    assert found.ended and found.functions[OUTER].calls > 0 and found.notes


def test_children_are_left_alone(build: Builder, work: Workplace) -> None:
    """A child that is forked while its parent is counted runs on, and is not counted."""
    running = work.start([build("hotspots", library="hotspots"), "children"], hold=True)
    found = counter.count(running.pid, [OUTER], 1, released_at(1, running))
    assert found.functions[OUTER].calls == 0
    assert running.alive


def test_code_is_as_before(build: Builder, work: Workplace) -> None:
    """No probe is left: neither after counting nor when who counts is killed in the middle of it."""
    running = work.start([build("hotspots", library="hotspots"), "spin"])
    before = code_of(running.pid, LIBRARY)
    counter.count(running.pid, [OUTER, SIZED], 0.5)
    assert code_of(running.pid, LIBRARY) == before
    text = (
        "from radium.tracer.discovery import counter, symbols\n"
        f"frame = symbols.Frame('', '{LIBRARY}', 'outer_work')\n"
        f"counter.count({running.pid}, [frame], 60)"
    )
    killed = subprocess.Popen([sys.executable, "-c", text])
    poll_until(lambda: code_of(running.pid, LIBRARY) != before, "probes in the code")
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    poll_until(lambda: code_of(running.pid, LIBRARY) == before, "code without probes")
    assert running.alive


@pytest.mark.usefixtures("nothing_too_hot")
def test_kernel_without_uprobe_multi(calls: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """There each probe is a perf event; all threads are seen all the same."""
    monkeypatch.setattr(links, "has_uprobe_multi", lambda: False)
    one = counted(calls, SIZED).functions[SIZED]
    assert (one.calls, one.threads) == (200, 2)


def test_without_bcc(calls: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what is missing."""

    def refuse() -> None:
        raise NotPossible("BPF needs bcc, which is not installed", advice=program.INSTALL)

    monkeypatch.setattr(program, "load_bcc", refuse)
    with pytest.raises(NotPossible, match=r"needs bcc.*apt-get install"):
        counter.count(calls.pid, [SIZED], 1)
