"""The threads that go with a call (DESIGN.md 7): those that run, and those that wait in a futex.

A thread in any other system call stays at home, and so does one that stands where no mirror's thread can: in radium's
annex, in the vdso, at a stop that is still to be handled.
"""

from collections.abc import Collection
from contextlib import suppress
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


class Gathering:
    """Gathers the groups of one tracee's calls. All its threads are stopped."""

    def __init__(self, tracee: Tracee) -> None:
        self._tracee = tracee
        # Of threads that waited, by their ids: their registers then. Most wait for many calls.
        self._waited: dict[int, tuple[bytes, Member]] = {}

    def gather(self, stay: Collection[int]) -> Group:
        """stay: the threads that are not looked at."""
        group, threads = Group([], [], alone=True), self._tracee.threads.threads
        if len(self._waited) > len(threads):
            self._waited = {tid: waited for tid, waited in self._waited.items() if tid in threads}
        for thread in list(threads.values()):
            if thread.tid in stay or not _can_go(self._tracee, thread):
                continue
            with suppress(TraceeGone):
                group = self._add(group, thread.tid)
        return group

    def _add(self, group: Group, tid: int) -> Group:
        tracee = self._tracee
        if _has_taken_signal(tracee, tid):
            tracee.threads.free(tid)
        raw = ptrace.raw_registers(tid)
        waited = self._waited.get(tid)
        if waited is not None and waited[0] == raw:
            group.waiting.append(waited[1])
            return group
        regs = Registers.unpack(raw)
        if _is_in_syscall(regs):
            return self._add_in_syscall(group, tid, raw, regs)
        if _can_run_there(tracee, regs.rip):
            tracee.threads.free(tid)
            regs = ptrace.registers(tid)
            group.running.append(Member(tracee.standing(tid, regs, ptrace.xstate(tid)), regs))
        return group

    def _add_in_syscall(self, group: Group, tid: int, raw: bytes, regs: Registers) -> Group:
        waits = _before_wait(regs)
        if waits is not None:
            # How else it stands is asked for when it is woken.
            member = Member(wire.Standing(tid, self._tracee.as_seen(tid), 0, waits.pack(), b""), regs)
            self._waited[tid] = raw, member
            group.waiting.append(member)
        elif regs.orig_rax in _FUTEXES:
            return group._replace(alone=False)
        return group


def _can_go(tracee: Tracee, thread: Thread) -> bool:
    if thread.is_running or thread.is_guest or thread.is_group_stopped or thread.vfork_child:
        return False
    stops = [stop for stop in tracee.threads.pending if stop.tid == thread.tid]
    return all(stop.kind == "quiet" or (stop.kind == "signal" and stop.detail not in GROUP_STOPS) for stop in stops)


def _has_taken_signal(tracee: Tracee, tid: int) -> bool:
    """It goes along to where the signal's handler begins."""
    return any(stop.kind == "signal" and stop.tid == tid for stop in tracee.threads.pending)


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
