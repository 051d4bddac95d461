"""The threads that go with a call (DESIGN.md 7): those that run, and those that wait in a futex.

A thread in any other system call stays at home, and so does one that stands where no mirror's thread can: in radium's
annex, in the vdso, at a stop that is still to be handled.
"""

from collections.abc import Collection
from typing import NamedTuple

from radium.core import futex, wire
from radium.core.regs import NO_SYSCALL, NOT_MADE, RESTARTS, SYSCALL_NBYTES, Registers
from radium.errors import TraceeGone
from radium.linux import ptrace
from radium.linux.libc import NUMBERS
from radium.tracer.stops import GROUP_STOPS, Thread
from radium.tracer.tracee import Tracee

_FUTEXES = frozenset(number for name, number in NUMBERS.items() if name.startswith("futex"))


class Member(NamedTuple):
    """regs: as it stands at home."""

    standing: wire.Standing
    regs: Registers


class Group(NamedTuple):
    """alone: nobody is left at home who waits in a futex of a kind that a mirror does not know."""

    running: list[Member]
    waiting: list[Member]
    alone: bool


def gather(tracee: Tracee, stay: Collection[int]) -> Group:
    """All threads are stopped. stay: the threads that are not looked at."""
    running: list[Member] = []
    waiting: list[Member] = []
    alone = True
    for thread in list(tracee.threads.threads.values()):
        if thread.tid in stay or not _can_go(tracee, thread):
            continue
        try:
            if _has_taken_signal(tracee, thread):
                tracee.threads.free(thread.tid)
            regs = ptrace.registers(thread.tid)
            if _is_in_syscall(regs):
                waits = _before_wait(regs)
                if waits is not None:
                    waiting.append(Member(tracee.standing(thread.tid, waits, b""), regs))
                elif regs.orig_rax in _FUTEXES:
                    alone = False
            elif _can_run_there(tracee, regs.rip):
                tracee.threads.free(thread.tid)
                regs = ptrace.registers(thread.tid)
                running.append(Member(tracee.standing(thread.tid, regs, ptrace.xstate(thread.tid)), regs))
        except TraceeGone:
            continue
    return Group(running, waiting, alone)


def _can_go(tracee: Tracee, thread: Thread) -> bool:
    if thread.is_running or thread.is_guest or thread.is_group_stopped or thread.vfork_child:
        return False
    stops = [stop for stop in tracee.threads.pending if stop.tid == thread.tid]
    return all(stop.kind == "quiet" or (stop.kind == "signal" and stop.detail not in GROUP_STOPS) for stop in stops)


def _has_taken_signal(tracee: Tracee, thread: Thread) -> bool:
    """It goes along to where the signal's handler begins."""
    return any(stop.kind == "signal" and stop.tid == thread.tid for stop in tracee.threads.pending)


def _is_in_syscall(regs: Registers) -> bool:
    """Whether it is in one still. An interrupt leaves a negative number (arch/x86/entry), and an ended call its result."""
    return not regs.orig_rax >> 63 and (regs.rax == NOT_MADE or regs.rax in RESTARTS)


def _before_wait(regs: Registers) -> Registers | None:
    """A thread that waits in a futex, as it stood before; None if it does not."""
    if regs.orig_rax != NUMBERS["futex"] or regs.rax not in RESTARTS:
        return None
    before = regs.copy()
    before.rip, before.rax, before.orig_rax = regs.rip - SYSCALL_NBYTES, regs.orig_rax, NO_SYSCALL
    call = futex.parse(before)
    return before if call is not None and call.is_wait else None


def _can_run_there(tracee: Tracee, rip: int) -> bool:
    own = [(area.start, area.end) for area in tracee.home.special()]
    if any(start <= rip < end for start, end in (*own, *tracee.breakpoints.reserved)):
        return False
    # Behind the first byte of a split function: it may have met the breakpoint, with the signal still to come.
    return tracee.breakpoints.at(rip - 1) is None
