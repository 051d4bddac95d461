"""One split call in the mirror: from its first instruction to its return, or to the reason why it cannot be finished here.

Numbered as in DESIGN.md section 3, step 5. Everything is in one thread: ptrace wants it, and a call has one story.
The return trap is a hardware breakpoint on the return address with rsp one word above the entry's (GOING_HOME.md 4).
"""

import os
import select
import signal
import time
from collections.abc import Callable
from typing import Protocol

from radium.core import wire
from radium.core.addr import PAGE_SIZE, page_ceil, page_floor
from radium.core.mapping import (
    ADVICE_WITHOUT_EFFECT,
    ANONYMOUS,
    JOURNALLED,
    MADV_FREE,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_PRIVATE,
    MAP_TYPE,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    REPEATABLE_FLAGS,
    LayoutCall,
    clip,
    covered,
    replay,
)  # fmt: skip
from radium.core.pages import Runs, subtract
from radium.core.regs import NO_SYSCALL, Registers
from radium.core.xstate import OtherCpu
from radium.errors import Conflict
from radium.linux import procfs, ptrace, userfaultfd
from radium.linux.libc import NUMBERS, syscall_name
from radium.linux.signals import signalfd
from radium.replay import livelock, syscalls, vessel
from radium.replay.mirror import Mirror
from radium.replay.states import States

# Read-ahead of page-ins (DESIGN.md 5): a first miss brings 64 KiB, each miss where the last one ended doubles that,
# up to 1 MiB.
FIRST_WINDOW, LAST_WINDOW = 64 << 10, 1 << 20
# How often a call that is still running is looked at, and the initiator told that we live.
LOOK_S, BEAT_S = 0.02, 1.0
SYSCALL_NBYTES = 2
# EFLAGS.RF, set in the image that a hardware breakpoint leaves (Intel SDM 17.3.1.1).
RESUME_FLAG = 1 << 16
FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS)


class CallFailed(Exception):
    """The call cannot be finished in the mirror; `reason` is a word of INTERFACE.md."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Link(Protocol):
    """The connection, as a running call sees it."""

    def fileno(self) -> int: ...

    @property
    def buffered(self) -> bool: ...

    def fetch(self, address: int, end: int) -> bool:
        """Pages [address, end) as far as they exist at home; False if not even the first one does."""

    def home_brk(self) -> int:
        """The tracee's brk now."""

    def attend(self) -> bool:
        """Takes what the initiator said; True if it recalls the call."""

    def beat(self) -> None: ...


class Runner:
    """Runs calls in one mirror."""

    def __init__(self, mirror: Mirror, link: Link) -> None:
        self.mirror = mirror
        self.link = link
        self.tid = mirror.vessel.pid
        self._children = child_signals()
        self._poll = select.poll()
        for fd in (self._children, mirror.uffd, link.fileno()):
            self._poll.register(fd, select.POLLIN)
        self._return_address = 0
        self._xstate = b""
        self._window, self._window_end = FIRST_WINDOW, 0
        self._states = States(mirror.home_components, ptrace.xstate(self.tid))
        self.paged_in = 0

    def run(self, call: wire.Call) -> tuple[Registers, bytes]:
        """Registers and extended state at the return. Raises CallFailed, MirrorDied, AcceptorLost."""
        regs = Registers.unpack(call.registers)
        self.entry_rsp, self.thread, self.started = regs.rsp, call.thread, time.monotonic()
        self.deadline = self.started + call.seconds
        self.next_livelock_look, self.early_status = self.started + livelock.FIRST_LOOK_S, 0
        self.yields, self.asleep_since, self.last_beat = 0, 0.0, self.started
        self.mirror.begin()
        self._enter(call, regs)
        regs = self._until_return()
        try:
            self._xstate = self._states.to_home(ptrace.xstate(self.tid), call.xstate)
        except OtherCpu:
            self._xstate = b""
            raise CallFailed("refused:registers") from None
        return regs, self._xstate

    def _enter(self, call: wire.Call, regs: Registers) -> None:
        """Sets the mirror's thread going at the function's entry."""
        regs.orig_rax = NO_SYSCALL
        try:
            self._arm_return(call.return_address)
            if call.xstate != self._xstate:
                ptrace.set_xstate(self.tid, self._states.from_home(call.xstate))
            ptrace.set_registers(self.tid, regs)
        except (OSError, OtherCpu):
            # The kernel takes no registers that this CPU cannot have.
            self._xstate = b""
            raise CallFailed("refused:registers") from None
        ptrace.resume(self.tid)

    def _arm_return(self, address: int) -> None:
        if address != self._return_address:
            ptrace.set_debug_register(self.tid, 7, 0)
            ptrace.set_debug_register(self.tid, 0, address)
            # DR7: L0 set, condition execute, length 1 (Intel SDM 17.2.4).
            ptrace.set_debug_register(self.tid, 7, 1)
            self._return_address = address

    def _until_return(self) -> Registers:
        try:
            while True:
                status = self._next_stop()
                regs = self._handle_stop(status)
                if regs is not None:
                    return regs
        except CallFailed:
            self._xstate = b""
            raise

    def stop(self) -> None:
        """Brings the running thread to a stop, whatever it is doing."""
        ptrace.interrupt(self.tid)
        vessel.wait(self.tid)

    # Waiting

    def _next_stop(self) -> int:
        while True:
            status, self.early_status = self.early_status or vessel.wait(self.tid, block=False), 0
            if status:
                return status
            ready = {fd for fd, _ in self._poll.poll(LOOK_S * 1000)}
            if self._children in ready:
                os.read(self._children, 128 * 16)
                status = vessel.wait(self.tid, block=False)
                if status:
                    return status
            if self.mirror.uffd in ready:
                self._serve_faults()
            elif self.link.buffered or self.link.fileno() in ready:
                if self.link.attend():
                    self._give_up("recall")
            elif not ready:
                self._look()

    def _look(self) -> None:
        """Nothing has happened for a while."""
        now = time.monotonic()
        if now > self.deadline:
            self._give_up("timeout")
        if now - self.last_beat > BEAT_S:
            self.last_beat = now
            self.link.beat()
        if now > self.next_livelock_look:
            self.next_livelock_look = now + (now - self.started)
            self._look_for_livelock()
        elif not self._waits_for_nobody():
            self.asleep_since = 0.0
        elif not self.asleep_since:
            self.asleep_since = now
        else:
            self._give_up("stuck")

    def _look_for_livelock(self) -> None:
        if procfs.stat_fields(self.tid)[0] != "R":
            return
        ptrace.interrupt(self.tid)
        status = vessel.wait(self.tid)
        if status >> 16 != ptrace.EVENT_STOP:
            self.early_status = status
            return
        try:
            if livelock.is_stuck(self.tid):
                raise CallFailed("stuck")
        except livelock.LeftStepping as left:
            self.early_status = left.status
            return
        ptrace.resume(self.tid)

    def _waits_for_nobody(self) -> bool:
        """The thread sleeps in a futex without a time limit, and nobody is here to wake it."""
        if procfs.stat_fields(self.tid)[0] != "S":
            return False
        fields = procfs.read(self.tid, "syscall").split()
        return fields[0] == b"%d" % NUMBERS["futex"] and int(fields[4], 16) == 0

    def _give_up(self, reason: str) -> None:
        self.stop()
        raise CallFailed(reason)

    # Page-ins

    def _serve_faults(self) -> None:
        for address in userfaultfd.faults(self.mirror.uffd):
            page = page_floor(address)
            if page in self.mirror.held:
                self.mirror.wake(page)
                continue
            self.paged_in += 1
            if not self.link.fetch(page, self._ahead(page)):
                self._give_up("unsupported:fault:SIGBUS")

    def _ahead(self, page: int) -> int:
        """Up to where the page-in of `page` would like to go."""
        self._window = min(self._window * 2, LAST_WINDOW) if page == self._window_end else FIRST_WINDOW
        area = self.mirror.area_at(page)
        end = min(page + self._window, area.end if area else page + PAGE_SIZE)
        missing = self._missing(page, end)
        self._window_end = missing[0][1] if missing else page + PAGE_SIZE
        return self._window_end

    # Stops

    def _handle_stop(self, status: int) -> Registers | None:
        """The registers if the function has returned; None when the thread was sent on."""
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == ptrace.EVENT_SECCOMP:
            self._handle_syscall(ptrace.registers(self.tid))
            return None
        if event:
            ptrace.resume(self.tid)
            return None
        if number == signal.SIGTRAP:
            regs = ptrace.registers(self.tid)
            if ptrace.signal_info(self.tid)[1] == ptrace.TRAP_HWBKPT and regs.rip == self._return_address:
                if regs.rsp == self.entry_rsp + 8:
                    regs.eflags &= ~RESUME_FLAG
                    return regs
                ptrace.resume(self.tid)
                return None
        raise CallFailed(_signal_reason(number))

    def _handle_syscall(self, regs: Registers) -> None:
        name = syscall_name(regs.orig_rax)
        if name in JOURNALLED:
            self._memory_call(name, regs)
        elif name in self.thread:
            self._answer(regs, self.thread[name])
        elif name in self.mirror.identity:
            self._answer(regs, self.mirror.identity[name])
        elif name in syscalls.PLACEMENT:
            self._answer(regs, 0)
        elif name == "sched_yield" and self.yields < syscalls.YIELDS_UNTIL_STUCK:
            self.yields += 1
            self._answer(regs, 0)
        else:
            raise CallFailed("stuck" if name == "sched_yield" else f"unsupported:syscall:{name}")

    def _answer(self, regs: Registers, result: int) -> None:
        """The call is not made; the thread goes on behind it with the result (seccomp(2) on skipping a call)."""
        regs.rax, regs.orig_rax = result & (1 << 64) - 1, NO_SYSCALL
        # `syscall` itself leaves rip in rcx and eflags in r11 (Intel SDM, SYSCALL).
        regs.rcx, regs.r11 = regs.rip, regs.eflags
        ptrace.set_registers(self.tid, regs)
        ptrace.resume(self.tid)

    # Memory calls

    def _memory_call(self, name: str, regs: Registers) -> None:
        arguments = (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9)
        if name == "madvise" and arguments[2] in ADVICE_WITHOUT_EFFECT | {MADV_FREE}:
            # MADV_FREE lets the kernel keep the pages (madvise(2)), and so do we.
            self._answer(regs, 0)
            return None
        if not self.mirror.may_change_layout or not self._is_possible(name, arguments):
            raise CallFailed(f"unsupported:syscall:{name}")
        if name == "mremap":
            self._bring_whole(arguments[0], arguments[1])
        elif name == "brk":
            self._agree_on_brk(regs)
        result = self._make()
        if name == "brk" and result == self.mirror.brk:
            return self._go_on()
        if -4096 < result - (1 << 64) < 0:
            # The mirror has its mappings cut otherwise than home, and limits of its own: home may well say yes.
            raise CallFailed("refused:memory" if result - (1 << 64) == -12 else f"unsupported:syscall:{name}")
        self.mirror.record(LayoutCall(name, arguments, result))
        return self._go_on()

    def _go_on(self) -> None:
        ptrace.resume(self.tid)

    def _make(self) -> int:
        """Lets the kernel make the call that the thread is stopped at; its raw result."""
        ptrace.resume_to_syscall(self.tid)
        status = vessel.wait(self.tid)
        if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            raise CallFailed(_signal_reason(os.WSTOPSIG(status)))
        return ptrace.registers(self.tid).rax

    def _is_possible(self, name: str, a: tuple[int, int, int, int, int, int]) -> bool:
        """Whether the mirror may make this call: it must mean the same here as at home, and fit home's layout."""
        allowed: dict[str, Callable[[], bool]] = {
            "mmap": lambda: self._is_plain_mmap(a),
            "munmap": lambda: self._fits(name, a, 0),
            "mprotect": lambda: a[2] <= 7 and self._fits(name, a, 0),
            "brk": lambda: True,
            "mremap": lambda: self._is_plain_mremap(a),
            "madvise": lambda: self._fits(name, a, 0),
        }
        return allowed[name]()

    def _fits(self, name: str, a: tuple[int, int, int, int, int, int], result: int) -> bool:
        try:
            replay(self.mirror.layout, self.mirror.brk, [LayoutCall(name, a, result)])
        except Conflict:
            return False
        return True

    def _is_plain_mmap(self, a: tuple[int, int, int, int, int, int]) -> bool:
        flags = a[3]
        if not flags & MAP_ANONYMOUS or flags & MAP_TYPE != MAP_PRIVATE or flags & ~REPEATABLE_FLAGS or a[2] > 7:
            return False
        if not flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
            return True
        return not self._is_ours(a[0], a[0] + page_ceil(a[1])) and self._fits("mmap", a, a[0])

    def _is_ours(self, start: int, end: int) -> bool:
        """Memory of the vessel, the vdso, or anything else that is not the tracee's."""
        return any(
            m.start < end and start < m.end
            for m in self.mirror.vessel.mappings()
            if not clip(self.mirror.layout, m.start, m.end)
        )

    def _is_plain_mremap(self, a: tuple[int, int, int, int, int, int]) -> bool:
        pieces = clip(self.mirror.layout, a[0], a[0] + page_ceil(a[1]))
        return (
            len(pieces) == 1
            and bool(pieces[0].kind & ANONYMOUS)
            and not subtract([(a[0], a[0] + page_ceil(a[1]))], covered(pieces))
            and a[1] > 0
            and not a[3] & ~(MREMAP_MAYMOVE | MREMAP_FIXED)
            and not a[3] & MREMAP_FIXED
        )

    def _agree_on_brk(self, regs: Registers) -> None:
        """A brk moves within a page without a change of layout, so home is asked before the first one of a call."""
        if any(call.name == "brk" for call in self.mirror.journal):
            return
        actual = self.link.home_brk()
        if actual == self.mirror.brk:
            return
        # The vessel's own call loses the registers; the thread then makes its system call anew, up to the same stop.
        self.mirror.set_brk(actual)
        again = regs.copy()
        again.rip, again.rax, again.orig_rax = regs.rip - SYSCALL_NBYTES, regs.orig_rax, NO_SYSCALL
        ptrace.set_registers(self.tid, again)
        ptrace.resume(self.tid)
        if vessel.wait(self.tid) >> 16 != ptrace.EVENT_SECCOMP:
            raise CallFailed("unsupported:syscall:brk")

    def _bring_whole(self, start: int, nbytes: int) -> None:
        """All pages of a range that home has, so that moving it moves them."""
        end = start + page_ceil(nbytes)
        for first, last in self._missing(start, end):
            while first < last:
                upto = min(first + LAST_WINDOW, last)
                self.link.fetch(first, upto)
                first = upto

    def _missing(self, start: int, end: int) -> Runs:
        return subtract(subtract([(start, end)], self.mirror.present()), self.mirror.fresh.runs)

    def close(self) -> None:
        os.close(self._children)


def child_signals() -> int:
    """A descriptor that becomes readable when a child stops or ends. SIGCHLD is blocked from here on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    return signalfd([signal.SIGCHLD])


def _signal_reason(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = str(number)
    return f"unsupported:{'fault' if number in FAULTS else 'signal'}:{name}"
