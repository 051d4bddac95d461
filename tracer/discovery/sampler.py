"""Where the time goes: samples of the user stacks of a process, its threads and its children.

With BPF a perf event on each CPU asks at every tick whether one of the processes runs there; the program copies registers
and stack, and everything else is done here afterwards. Without it, the threads are stopped by ptrace for a moment, at a
lower rate. Only what runs on a CPU is sampled: time spent waiting is no one's here.
"""

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from radium.errors import NotPossible, TraceeGone
from radium.linux import procfs
from radium.tracer.discovery.findings import Samples
from radium.tracer.discovery.python_frames import Recorder
from radium.tracer.discovery.sources import PerfEvents, Record, Source, Stops
from radium.tracer.discovery.symbols import UNKNOWN, CodeMap, Frame, Stack
from radium.tracer.discovery.unwinder import Unwinder, Vdso
from radium.tracer.resolve import MappedObject

# How often we look for children, for changed mappings, and whether to end.
_LOOK_MS = 50
# Unwinders keep files open, some ten each: of so many processes at once.
_MAX_OPEN = 32
# Every thread says who its children are: with thousands of them we ask at longer intervals, so many times what it takes.
_SEARCH_PAUSE = 20
# So many Python processes are sampled by py-spy, one process each.
_MAX_PYTHONS = 8
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Sampled:
    """What `sample` has found.

    native, python: how often each stack was met; each has its own samples. overhead: share of the CPU time that the
    processes had. ended: whether all of them have. met: in how many samples of a process a function was.
    """

    native: Counter[Stack]
    python: Counter[Stack]
    samples: Samples
    overhead: float
    pids: list[int]
    cpu_s: float
    ended: bool
    met: Counter[tuple[Frame, int]]
    notes: list[str] = field(default_factory=list)

    def processes_of(self, function: Frame) -> list[int]:
        """Those in which a function was met, the one where it was most often first."""
        return [pid for (frame, pid), _ in self.met.most_common() if frame == function]


class _Process:
    """One of those that are sampled."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code = CodeMap(pid)
        self._unwinder = Unwinder(self._code.object_at)
        self._files: set[MappedObject | Vdso] = set()
        self.is_python = False

    def refresh(self) -> None:
        """Raises TraceeGone, NotPossible."""
        self._code.refresh()
        files = self._code.files
        if files != self._files:
            self._files = files
            self._unwinder.keep(files)
            self.is_python = self._code.is_python

    def stack(self, registers: Sequence[int], copy: bytes) -> tuple[Stack, bool]:
        """The frames, and whether they go back to where the thread began."""
        frames = self._unwinder.unwind(registers, copy)
        named = tuple(self._code.frame_at(address) for address in reversed(frames.addresses))
        return named if frames.whole else (UNKNOWN, *named), frames.whole

    def close(self) -> None:
        self._unwinder.close()


class Family:
    """Some processes and all their children from now on, with the CPU time that they have had since."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.alive: set[int] = set()
        self._next_search = 0.0
        self._before: dict[int, float] = {}
        self._now: dict[int, float] = {}
        for pid in pids:
            self._meet(pid)
        self.look()
        # Those that come later are ours from their beginning.
        self._before = dict(self._now)

    @property
    def all(self) -> list[int]:
        return list(self._now)

    @property
    def cpu_s(self) -> float:
        return sum(self._now.values()) - sum(self._before.values())

    def look(self) -> None:
        """Who is new, who has gone, and what they have run."""
        began = time.monotonic()
        is_search = began >= self._next_search
        todo = list(self.alive)
        for pid in todo:
            try:
                self._meet(pid)
                if is_search:
                    todo += [child for child in procfs.children(pid) if child not in self._now]
            except TraceeGone:
                self.alive.discard(pid)
        if is_search:
            self._next_search = began + _SEARCH_PAUSE * (time.monotonic() - began)

    def _meet(self, pid: int) -> None:
        """Raises TraceeGone."""
        fields = procfs.stat_fields(pid)
        self._now[pid] = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S  # utime and stime, proc(5)
        if fields[0] in "ZX":
            raise TraceeGone("process has ended", where=f"pid {pid}")
        self.alive.add(pid)


class _Tally:
    """Turns records into stacks."""

    def __init__(self) -> None:
        self.stacks: Counter[Stack] = Counter()
        self.met: Counter[tuple[Frame, int]] = Counter()
        self.taken = self.not_unwound = 0
        self._processes: dict[int, _Process | None] = {}

    def add(self, records: Sequence[Record]) -> None:
        self._refresh({one.pid for one in records})
        for one in records:
            process = self._processes[one.pid]
            stack, whole = process.stack(one.registers, one.stack) if process else ((UNKNOWN,), False)
            self.stacks[stack] += 1
            self.met.update((frame, one.pid) for frame in set(stack))
            self.taken += 1
            self.not_unwound += not whole

    @property
    def pythons(self) -> list[int]:
        return [process.pid for process in self._processes.values() if process and process.is_python]

    def close(self) -> None:
        for process in self._processes.values():
            if process:
                process.close()

    def _refresh(self, pids: set[int]) -> None:
        """A process that has gone by now is read no more; what is known of its code serves for its last samples."""
        for pid in pids:
            try:
                if pid not in self._processes:
                    self._processes[pid] = None
                    self._processes[pid] = _Process(pid)
                if process := self._processes[pid]:
                    process.refresh()
            except (TraceeGone, NotPossible):
                continue
        self._close_oldest(pids)

    def _close_oldest(self, in_use: set[int]) -> None:
        open_ones = [process for process in self._processes.values() if process and process.pid not in in_use]
        for process in open_ones[: max(len(open_ones) + len(in_use) - _MAX_OPEN, 0)]:
            process.close()


class _Pythons:
    """py-spy on each CPython that is met."""

    def __init__(self, frequency: int) -> None:
        self._frequency = frequency
        self._recorders: dict[int, Recorder | None] = {}
        self.notes: dict[str, None] = {}

    def look(self, pids: Sequence[int]) -> None:
        for pid in pids:
            if pid in self._recorders or len(self._recorders) == _MAX_PYTHONS:
                continue
            self._recorders[pid] = None
            try:
                self._recorders[pid] = Recorder(pid, self._frequency)
            except NotPossible as error:
                self.notes[str(error)] = None

    def finish(self, met: Counter[tuple[Frame, int]]) -> Counter[Stack]:
        """The stacks of all; adds to `met`."""
        stacks: Counter[Stack] = Counter()
        for pid, recorder in self._recorders.items():
            try:
                found = recorder.finish() if recorder else Counter()
                stacks += found
                for stack, count in found.items():
                    met.update(dict.fromkeys(((frame, pid) for frame in set(stack)), count))
            except NotPossible as error:
                self.notes[str(error)] = None
        return stacks


def sample(
    pids: Sequence[int], duration_s: float | None, frequency: int, should_stop: Callable[[], bool] = lambda: False,
    started: Callable[[], None] = lambda: None,
) -> Sampled:  # fmt: skip
    """Samples these processes and their children, so often a second on each CPU, until they have ended or it is time.

    duration_s: None for as long as they live. started: called when everything is ready. Without BPF the frequency is lower.
    Raises NotPossible, TraceeGone.
    """
    source, notes = _source(frequency)
    family, tally, pythons = Family(pids), _Tally(), _Pythons(frequency)
    try:
        source.watch(family.alive)
        started()
        deadline = math.inf if duration_s is None else time.monotonic() + duration_s
        while family.alive and time.monotonic() < deadline and not should_stop():
            source.watch(family.alive)
            tally.add(source.take(_LOOK_MS))
            pythons.look(tally.pythons)
            family.look()
        notes += source.notes()
        cost_s = source.cost_s()
    finally:
        source.close()
        tally.close()
        python = pythons.finish(tally.met)
    samples = Samples(source.way, source.frequency, tally.taken, tally.not_unwound, python.total())
    overhead = cost_s / family.cpu_s if family.cpu_s else 0.0
    notes += pythons.notes
    return Sampled(tally.stacks, python, samples, overhead, family.all, family.cpu_s, not family.alive, tally.met, notes)


def _source(frequency: int) -> tuple[Source, list[str]]:
    try:
        return PerfEvents(frequency), []
    except NotPossible as error:
        return Stops(), [f"{error}: threads are stopped for a moment instead, {Stops.frequency:g} times a second"]
