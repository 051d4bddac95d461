"""Split calls that were tried and now run at home: what their thread calls until they return is part of them.

The return is noticed by a breakpoint at the return address, which stays: it is met again only where the call is made
again from there. One that leaves its function otherwise (an exception, longjmp) is forgotten at the next split call
that its thread makes from further up the stack.
"""

from collections.abc import Callable
from typing import NamedTuple

from radium.core.mapping import Mapping
from radium.core.regs import Registers
from radium.tracer.breakpoint import Breakpoints
from radium.tracer.stops import Thread, Threads


def _do_nothing(regs: Registers) -> None:
    return


class _Frame(NamedTuple):
    """A call that runs at home: its thread, the stack pointer at its entry, where it returns to, and what is done then."""

    thread: Thread
    rsp: int
    back: int
    on_return: Callable[[Registers], None]


class Nesting:
    def __init__(self, threads: Threads, breakpoints: Breakpoints) -> None:
        self._threads = threads
        self._breakpoints = breakpoints
        self._frames: dict[int, list[_Frame]] = {}
        self.returns: set[int] = set()

    def inherit(self, parent: "Nesting", forked_by: int) -> None:
        """This is a child that a thread of the parent's has forked, perhaps in the middle of calls."""
        tid = self._threads.pid
        self.returns = set(parent.returns)
        thread = self._threads.threads[tid]
        self._frames[tid] = [frame._replace(thread=thread, on_return=_do_nothing) for frame in parent._frames_of(forked_by)]

    def begin(
        self, tid: int, rsp: int, back: int, mappings: list[Mapping], on_return: Callable[[Registers], None] = _do_nothing
    ) -> bool:
        """A call that was tried runs at home from here on; all threads are stopped. Whether its return will be noticed.

        on_return: called with the registers at the return address, when the thread stands there; never for a call that
        leaves its function otherwise. Where the return address takes no breakpoint, what is inside the call counts by
        itself. So it does for a caller that is in no file: a compiler at run time may write other code over a breakpoint
        without our seeing.
        """
        if not any(m.inode for m in mappings if m.start <= back < m.end):
            return False
        if not self._breakpoints.at(back) and self._breakpoints.arm([back], mappings):
            return False
        self.returns.add(back)
        self._frames_of(tid).append(_Frame(self._threads.threads[tid], rsp, back, on_return))
        return True

    def is_inside(self, tid: int, rsp: int) -> bool:
        """Whether a call that the thread makes with this stack pointer is part of another one."""
        frames = self._frames_of(tid)
        while frames and frames[-1].rsp <= rsp:
            frames.pop()
        return bool(frames)

    def on_return(self, tid: int, regs: Registers) -> bool:
        """The thread stands at a return address; it may be that of an inner call. Whether one that was awaited has ended."""
        frames = self._frames_of(tid)
        while frames and frames[-1].rsp + 8 < regs.rsp:
            frames.pop()
        if frames and (frames[-1].back, frames[-1].rsp + 8) == (regs.rip, regs.rsp):
            frames.pop().on_return(regs)
            return True
        return False

    def awaits(self, back: int) -> bool:
        """Whether a call that runs at home is to return there."""
        return any(frame.back == back for frames in self._frames.values() for frame in frames)

    def lift(self, back: int) -> None:
        """The breakpoint there is of no use any more; all threads are stopped. Calls that return there are not noticed."""
        self.returns.discard(back)
        self._breakpoints.disarm([back])

    def _frames_of(self, tid: int) -> list[_Frame]:
        """Outermost first. Those of a thread that had the same id before are none of its own."""
        frames = self._frames.setdefault(tid, [])
        if frames and frames[0].thread is not self._threads.threads.get(tid):
            frames.clear()
        return frames
