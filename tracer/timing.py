"""How long calls take that run at home: from their entry to the stop at a breakpoint where they return to.

The breakpoint is lifted as soon as nobody is awaited there. Where others come by too often (one place of an interpreter calls
everything), timing would cost more than it tells, and ends.
"""

import time
from contextlib import suppress
from dataclasses import dataclass

from radium.core.regs import Registers
from radium.errors import RemoteFault
from radium.linux import vm
from radium.tracer.nesting import Nesting
from radium.tracer.split import Split
from radium.tracer.tracee import Tracee

# So many stops of others, while a call is awaited, are too often.
MOST_STRAYS = 16
# What the stop at the end takes is known from the shortest call that was timed, and is no more than this. Calls then seem
# shorter than they are, if anything, and stay at home.
MOST_STOP_S = 100e-6
# Shorter ones are told as this: a call takes some instructions.
LEAST_S = 0.2e-6


@dataclass(eq=False)
class _Timing:
    split: Split
    size: float
    back: int
    began: float
    nstrays: int = 0
    is_given_up: bool = False


class Timings:
    """Those of one session."""

    def __init__(self, tracee: Tracee, nesting: Nesting) -> None:
        self._tracee = tracee
        self._nesting = nesting
        self._awaited: dict[int, list[_Timing]] = {}
        self._stop_s = MOST_STOP_S

    def inherit(self, parent: "Timings") -> None:
        """This is a forked child's, which has the parent's breakpoints; what it does there is timed by nobody."""
        self._awaited = {back: [] for back in parent._awaited}

    def begin(self, tid: int, split: Split, regs: Registers, size: float) -> None:
        """The call, whose thread stands at the entry, is about to run at home. All threads are stopped."""
        home = self._tracee.home
        with suppress(RemoteFault):
            back = int.from_bytes(vm.read(self._tracee.pid, regs.rsp, 8), "little")
            home.refresh()
            is_ours = self._tracee.breakpoints.at(back) is None or back in self._awaited
            timing = _Timing(split, size, back, 0.0)
            with home.own_writes(back):
                is_awaited = self._nesting.begin(tid, regs.rsp, back, home.mappings, lambda _: self._end(timing))
            if is_awaited and is_ours:
                self._awaited.setdefault(back, []).append(timing)
            timing.began = time.monotonic()
            if is_awaited:
                return
        split.cost.note_untimed()

    def _end(self, timing: _Timing) -> None:
        awaited = self._awaited.get(timing.back, [])
        if timing in awaited:
            awaited.remove(timing)
        if not timing.is_given_up:
            seconds = time.monotonic() - timing.began
            self._stop_s = min(self._stop_s, seconds)
            timing.split.cost.note_home(timing.size, max(seconds - self._stop_s, LEAST_S))

    def is_spent(self, back: int, *, is_stray: bool) -> bool:
        """A thread has stopped there, a stray if no call that was awaited: whether the breakpoint is to be lifted."""
        if back not in self._awaited:
            return False
        if is_stray and self._is_too_much(self._awaited[back]):
            for timing in self._awaited[back]:
                timing.is_given_up = True
                timing.split.cost.note_untimed()
            return True
        return not self._nesting.awaits(back)

    def _is_too_much(self, awaited: list[_Timing]) -> bool:
        """What strays cost, this one included."""
        for timing in awaited:
            timing.nstrays += 1
        return any(timing.nstrays > MOST_STRAYS for timing in awaited)

    def lift(self, back: int) -> None:
        """All threads are stopped."""
        del self._awaited[back]
        self._tracee.home.refresh()
        with self._tracee.home.own_writes(back):
            self._nesting.lift(back)
