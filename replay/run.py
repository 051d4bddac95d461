"""A split call in the mirror: from where it left home to its return, or to where it goes home in the middle.

Step 5 of DESIGN.md section 3. Everything is in one thread: ptrace wants it, and a call has one story.
What leaves the function's frame is seen by hardware breakpoints (GOING_HOME.md 4): the return address, with rsp one word
above the entry's; `_Unwind_SetIP`, and then the landing pad that it is told; longjmp, whose target says how far it goes.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

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
from radium.core.regs import NO_SYSCALL, NOT_MADE, RESTARTS, SYSCALL_NBYTES, Registers
from radium.core.xstate import OtherCpu
from radium.errors import Conflict
from radium.linux import procfs, ptrace, seccomp, userfaultfd
from radium.linux.libc import syscall_name
from radium.linux.signals import signalfd
from radium.replay import livelock, syscalls, vessel
from radium.replay.mirror import Mirror
from radium.replay.states import States

# Read-ahead of page-ins (DESIGN.md 5): a first miss brings 64 KiB, each miss where the last one ended doubles that,
# up to 1 MiB.
FIRST_WINDOW, LAST_WINDOW = 64 << 10, 1 << 20
# How often a call that is still running is looked at, and the initiator told that we live.
LOOK_S, BEAT_S = 0.02, 1.0
NDEBUG_REGISTERS = 4
INT3_NBYTES = 1
# Instructions, and some: what the vdso's clock functions have.
LONGEST_VDSO = 4096
TRAP_FLAG = 1 << 8
# EFLAGS.RF, set in the image that a hardware breakpoint leaves (Intel SDM 17.3.1.1).
RESUME_FLAG = 1 << 16
FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS)


class GoHome(Exception):
    """The call goes on at home from where its thread stands now; `reason` says why, as a report does."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CallFailed(Exception):
    """The mirror cannot take the call up; `reason` is a word of INTERFACE.md."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Outcome(NamedTuple):
    """How a call ended here: RETURNED or why it goes home, and the thread's registers and extended state."""

    reason: str
    regs: Registers
    xstate: bytes


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
        """Takes what was said; True if the call is recalled."""

    def must_drain(self) -> bool:
        """Whether the acceptor is shutting down and has waited long enough."""

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
        self._debug_registers = [0, 0, 0, 0]
        self._xstate = b""
        self._window, self._window_end = FIRST_WINDOW, 0
        self._states = States(mirror.home_components, ptrace.xstate(self.tid))
        self.paged_in = 0

    def run(self, call: wire.Call) -> Outcome:
        """From where the call is to where it goes home, at the latest by its return.

        Raises CallFailed, MirrorDied, AcceptorLost.
        """
        self.frame, self.thread, self.started = call.frame, call.thread, time.monotonic()
        self.deadline = self.started + call.seconds
        self.next_livelock_look, self.early_status = self.started + livelock.FIRST_LOOK_S, 0
        self.yields, self.last_beat, self._wanted_home = 0, self.started, ""
        self.mirror.begin()
        self._enter(call)
        try:
            reason, regs = wire.RETURNED, self._until_return()
        except GoHome as going:
            reason, regs = going.reason, self._standing()
        try:
            self._xstate = self._states.to_home(ptrace.xstate(self.tid), call.xstate)
        except OtherCpu:
            self._xstate = b""
            raise CallFailed("refused:registers") from None
        return Outcome(reason, regs, self._xstate)

    def _enter(self, call: wire.Call) -> None:
        """Sets the mirror's thread going."""
        regs = Registers.unpack(call.registers)
        regs.orig_rax = NO_SYSCALL
        try:
            self._watch([self.frame.back, self.frame.set_ip, *self.frame.longjmps])
            if call.xstate != self._xstate:
                ptrace.set_xstate(self.tid, self._states.from_home(call.xstate))
            ptrace.set_registers(self.tid, regs)
        except (OSError, OtherCpu):
            # The kernel takes no registers that this CPU cannot have.
            self._xstate = b""
            raise CallFailed("refused:registers") from None
        ptrace.resume(self.tid)

    def _watch(self, addresses: Sequence[int]) -> None:
        """Hardware breakpoints at these addresses; 0 is none."""
        wanted = [*addresses, 0, 0, 0, 0][:NDEBUG_REGISTERS]
        if wanted == self._debug_registers:
            return
        ptrace.set_debug_register(self.tid, 7, 0)
        for number, address in enumerate(wanted):
            ptrace.set_debug_register(self.tid, number, address)
        # DR7: bit 2n enables n; condition execute and length 1 are zeros (Intel SDM 17.2.4).
        ptrace.set_debug_register(self.tid, 7, sum(1 << 2 * n for n, address in enumerate(wanted) if address))
        self._debug_registers = wanted

    def _until_return(self) -> Registers:
        while True:
            regs = self._handle_stop(self._next_stop())
            if regs is not None:
                return regs

    # Going home

    def _send_home(self, reason: str) -> None:
        """The running thread is to go home; it does when it stops for that, if nothing else takes it there before."""
        if not self._wanted_home:
            self._wanted_home = reason
            ptrace.interrupt(self.tid)

    def _standing(self) -> Registers:
        """Where the stopped thread is to go on: before a system call that it was about to make, or was making."""
        regs = ptrace.registers(self.tid)
        if regs.orig_rax != NO_SYSCALL and (regs.rax == NOT_MADE or regs.rax in RESTARTS):
            regs.rip, regs.rax = regs.rip - SYSCALL_NBYTES, regs.orig_rax
        regs.orig_rax = NO_SYSCALL
        regs.eflags &= ~(RESUME_FLAG | TRAP_FLAG)
        return regs

    def _leave_vdso(self) -> bool:
        """Its code mixes what it reads of the clock's data with the CPU's counter, both of which are others at home.

        False: the thread has stopped for something else meanwhile.
        """
        try:
            for _ in range(LONGEST_VDSO):
                if not self.mirror.is_in_vdso(ptrace.registers(self.tid).rip):
                    return True
                livelock.step(self.tid, self._next_stop)
        except livelock.LeftStepping as left:
            self.early_status = left.status
            return False
        raise CallFailed("unsupported:vdso")

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
                    self._send_home("recall")
            elif not ready:
                self._look()

    def _look(self) -> None:
        """Nothing has happened for a while."""
        now = time.monotonic()
        if now > self.deadline:
            self._send_home("timeout")
        if self.link.must_drain():
            self._send_home("drain")
        if now - self.last_beat > BEAT_S:
            self.last_beat = now
            self.link.beat()
        if now > self.next_livelock_look:
            self.next_livelock_look = now + (now - self.started)
            self._look_for_livelock()

    def _look_for_livelock(self) -> None:
        if self._wanted_home or procfs.stat_fields(self.tid)[0] != "R":
            return
        ptrace.interrupt(self.tid)
        status = vessel.wait(self.tid)
        if status >> 16 != ptrace.EVENT_STOP:
            self.early_status = status
            return
        try:
            if livelock.is_stuck(self.tid, self._next_stop):
                raise GoHome("stuck")
        except livelock.LeftStepping as left:
            self.early_status = left.status
            return
        ptrace.resume(self.tid)

    # Page-ins

    def _serve_faults(self) -> None:
        for address in userfaultfd.faults(self.mirror.uffd):
            page = page_floor(address)
            if page in self.mirror.held:
                self.mirror.wake(page)
                continue
            self.paged_in += 1
            if not self.link.fetch(page, self._ahead(page)):
                self._send_home("fault:SIGBUS")

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
        """The registers if the function has returned; None when the thread was sent on. Raises GoHome."""
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == ptrace.EVENT_SECCOMP:
            self._handle_syscall(ptrace.registers(self.tid))
        elif event == ptrace.EVENT_STOP and self._wanted_home:
            if self._leave_vdso():
                raise GoHome(self._wanted_home)
        elif event:
            ptrace.resume(self.tid)
        elif number == signal.SIGTRAP and ptrace.signal_info(self.tid)[1] == ptrace.TRAP_HWBKPT:
            return self._handle_breakpoint(ptrace.registers(self.tid))
        else:
            self._handle_fault(number)
        return None

    def _handle_breakpoint(self, regs: Registers) -> Registers | None:
        """One of the places that the frame is left by. The registers if it was left by its return."""
        frame = self.frame
        if regs.rip == frame.back and regs.rsp == frame.rsp + 8:
            regs.eflags &= ~RESUME_FLAG
            return regs
        if regs.rip == frame.set_ip:
            # The landing pad is rsi (unwind.h); what lands there tells whose frame it is.
            self._watch([frame.back, regs.rsi, *frame.longjmps])
        elif regs.rip in frame.longjmps:
            if self._longjmp_target(regs) > frame.rsp:
                raise GoHome("longjmp")
        elif regs.rip == self._debug_registers[1]:
            if regs.rsp > frame.rsp:
                raise GoHome("exception")
            self._watch([frame.back, frame.set_ip, *frame.longjmps])
        ptrace.resume(self.tid)
        return None

    def _longjmp_target(self, regs: Registers) -> int:
        """The stack pointer in the jmp_buf at rdi: word 6, mangled (glibc, sysdeps/x86_64: jmpbuf-offsets.h, __longjmp.S)."""
        mangled, guard = self._word(regs.rdi + 48), self._word(regs.fs_base + 0x30)
        return (mangled >> 17 | mangled << 47 & (1 << 64) - 1) ^ guard

    def _word(self, address: int) -> int:
        """Of the mirror's memory, which is brought first if it is missing: reading a missing page would wait for us."""
        for start, end in self._missing(page_floor(address), page_ceil(address + 8)):
            self.link.fetch(start, end)
        return int.from_bytes(self.mirror.vessel.memory.read(address, 8), "little")

    def _handle_fault(self, number: int) -> None:
        """A signal of the thread's own: raised again, and truly, when the instruction is executed at home."""
        _, code, address = ptrace.signal_info(self.tid)
        if number == signal.SIGSEGV and self.mirror.is_below_room(address):
            raise GoHome("stack")
        if number == signal.SIGTRAP and code == ptrace.SI_KERNEL:
            # An int3 of the program's own, behind which the thread stands.
            regs = ptrace.registers(self.tid)
            regs.rip -= INT3_NBYTES
            ptrace.set_registers(self.tid, regs)
        raise GoHome(_signal_reason(number))

    def _handle_syscall(self, regs: Registers) -> None:
        if ptrace.syscall_info(self.tid)[1] != seccomp.AUDIT_ARCH_X86_64:
            # The same numbers are other calls there.
            raise GoHome("syscall:i386")
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
            raise GoHome("stuck" if name == "sched_yield" else f"syscall:{name}")

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
            raise GoHome(f"syscall:{name}")
        if name == "mremap":
            self._bring_whole(arguments[0], arguments[1])
        elif name == "brk":
            self._agree_on_brk(regs)
        before = regs.copy()
        result = self._make()
        if name == "brk" and result == self.mirror.brk:
            return self._go_on()
        if -4096 < result - (1 << 64) < 0:
            # The mirror has its mappings cut otherwise than home, and limits of its own: home may well say yes.
            ptrace.set_registers(self.tid, before)
            raise GoHome(f"syscall:{name}")
        self.mirror.record(LayoutCall(name, arguments, result))
        return self._go_on()

    def _go_on(self) -> None:
        ptrace.resume(self.tid)

    def _make(self) -> int:
        """Lets the kernel make the call that the thread is stopped at; its raw result."""
        while True:
            ptrace.resume_to_syscall(self.tid)
            status = vessel.wait(self.tid)
            if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
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
        while vessel.wait(self.tid) >> 16 != ptrace.EVENT_SECCOMP:
            ptrace.resume(self.tid)

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
    return f"{'fault' if number in FAULTS else 'signal'}:{name}"
