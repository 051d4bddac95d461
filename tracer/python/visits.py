"""A visit: a thread of the tracee's calls functions of the interpreter for radium, and then goes on as if nothing had been.

It is done as a signal handler would be: a signal frame on the thread's stack holds what it was doing, and the code there
(gates.py, `visit`) calls one function after the other. Radium gives the thread its registers back itself, exactly; the
frame is for the case that radium is killed meanwhile, when the visit ends by itself.

Sources: arch/x86/include/asm/sigframe.h, uapi/asm/sigcontext.h, uapi/asm/ucontext.h; psABI 3.2.2 (red zone).
"""

import signal
import struct
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import NamedTuple

from radium.core.regs import NO_SYSCALL, RESTART_BLOCK, RESTARTS, SYSCALL_NBYTES, U64, Registers
from radium.errors import RemoteFault
from radium.linux import ptrace, vm
from radium.linux.signals import mask_of
from radium.tracer.python.gates import ROOM_NBYTES, Gates
from radium.tracer.remote_syscall import ALL_SIGNALS

RED_ZONE = 128
# What stays unblocked in a visit: a fault of the interpreter's is its own, and SIGTRAP is ours. All others wait, so that
# in a program with one thread no signal's handler runs among what we do.
_SYNCHRONOUS = mask_of([signal.SIGTRAP, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE])
EINTR = U64 + 1 - 4
# struct _fpx_sw_bytes, at 464 of the legacy area: the regset has the components' mask at its start.
_SW_BYTES, _SW_AT, _MAGIC1, _MAGIC2 = struct.Struct("<IIQI28x"), 464, 0x46505853, 0x46505845
# UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
_UC_FLAGS = 7
# No such flags: the alternate stack stays as it is (do_sigaltstack refuses, and sigreturn does not mind).
_NO_ALTSTACK = 0x7FFFFFFF
# pretcode; uc_flags, uc_link, uc_stack; sigcontext; fpstate and reserved1; uc_sigmask; siginfo
_FRAME = struct.Struct("<Q QQ QI4xQ 18Q HHHH 4Q Q64x Q 128x")


class Ask(NamedTuple):
    """A function of the interpreter by its address; the answer is what it returns in rax. Texts are given by address.

    undo: a function that is to be called with the first argument before the thread goes on; one at a time. It is asked for
    like others, and called without us only if radium is killed before.
    """

    function: int
    arguments: tuple[int | bytes, ...] = ()
    undo: int = 0


class Gil(NamedTuple):
    """PyGILState_Ensure and PyGILState_Release, for a thread that does not hold the GIL.

    The visit begins with the one; the other must be asked for, without arguments, and is called if radium is killed before.
    """

    take: int
    release: int


# What is done in a visit: it asks, and is told each result.
Steps = Generator[Ask, int, None]


@dataclass
class Visit:
    """regs, mask, xstate: where the thread goes on afterwards. steps: what is left to do."""

    tid: int
    gates: Gates
    steps: Steps
    regs: Registers
    mask: int
    xstate: bytes = field(repr=False)
    _has_begun: bool = False
    _used: int = 0

    @classmethod
    def begin(cls, pid: int, tid: int, gates: Gates, steps: Steps, gil: Gil | None = None) -> "Visit":
        """The thread, stopped, is sent there; it is to be resumed. Raises RemoteFault when its stack has no room.

        gil: when it does not hold it.
        """
        regs, xstate, mask = ptrace.registers(tid), ptrace.xstate(tid), ptrace.signal_mask(tid)
        frame, at = _signal_frame(regs, mask, xstate)
        vm.write(pid, at, frame)
        there = regs.copy()
        there.rip, there.rsp, there.orig_rax = gates.visit, at + 8, NO_SYSCALL
        there.rbx = there.r13 = 0
        if gil is not None:
            there.rip, there.rax, there.rbx = gates.visit_asleep, gil.take, gil.release
        ptrace.set_registers(tid, there)
        ptrace.set_signal_mask(tid, ALL_SIGNALS & ~_SYNCHRONOUS)
        return cls(tid, gates, steps, regs, mask, xstate)

    def answer(self, pid: int, regs: Registers) -> bool:
        """It stands at `ask` with `regs`, which are made those of the next function. False: there is none.

        Whoever lets it pass the breakpoint sets the registers. Raises what the steps raise: then there is none either.
        """
        try:
            ask = self.steps.send(regs.r11) if self._has_begun else next(self.steps)
            try:
                values = self._place_all(pid, ask)
            except RemoteFault as error:
                # What has been begun must be ended.
                ask = self.steps.throw(error)
                values = self._place_all(pid, ask)
        except StopIteration:
            return False
        self._has_begun = True
        regs.rdi, regs.rsi, regs.rdx, regs.rcx, regs.r8, regs.r9 = values
        regs.rax = ask.function
        if ask.undo:
            regs.r13, regs.r14 = ask.undo, regs.rdi
        elif ask.function == regs.r13:
            regs.r13 = 0
        elif ask.function == regs.rbx:
            regs.rbx, regs.rdi = 0, regs.r12
        return True

    def _place_all(self, pid: int, ask: Ask) -> list[int]:
        self._used = 0
        return [self._place(pid, value) for value in (*ask.arguments, 0, 0, 0, 0, 0, 0)[:6]]

    def _place(self, pid: int, value: int | bytes) -> int:
        if isinstance(value, int):
            return value & U64
        at = self.gates.room + self._used
        self._used += (len(value) + 1 + 15) & ~15
        if self._used > ROOM_NBYTES:
            raise RemoteFault("texts for the interpreter are too long", where=f"pid {pid}")
        vm.write(pid, at, value + b"\0")
        return at

    def end(self) -> None:
        """The thread, stopped at `ask`, is where it was; what it was doing goes on when it is resumed.

        But a sleep with a time limit says EINTR, as after a signal: what the kernel keeps of it is one sleep for each
        thread, and the visit may have slept too.
        """
        if self.regs.orig_rax != NO_SYSCALL and self.regs.rax == RESTART_BLOCK:
            self.regs.rax, self.regs.orig_rax = EINTR, NO_SYSCALL
        ptrace.set_signal_mask(self.tid, self.mask)
        ptrace.set_xstate(self.tid, self.xstate)
        ptrace.set_registers(self.tid, self.regs)


def _signal_frame(regs: Registers, mask: int, xstate: bytes) -> tuple[bytes, int]:
    """The frame from which rt_sigreturn goes on there, and where it belongs: below the thread's stack."""
    fp_at = (regs.rsp - RED_ZONE - len(xstate) - 4) & ~63
    at = ((fp_at - _FRAME.size) & ~15) - 8
    r = _as_after_handler(regs)
    frame = _FRAME.pack(
        0, _UC_FLAGS, 0, 0, _NO_ALTSTACK, 0,
        r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx, r.rsp, r.rip,
        r.eflags, r.cs, 0, 0, r.ss, 0, 0, 0, 0, fp_at, mask,
    )  # fmt: skip
    state = bytearray(xstate)
    components = struct.unpack_from("<Q", state, _SW_AT)[0]
    _SW_BYTES.pack_into(state, _SW_AT, _MAGIC1, len(state) + 4, components, len(state))
    return frame.ljust(fp_at - at, b"\0") + bytes(state) + struct.pack("<I", _MAGIC2), at


def _as_after_handler(regs: Registers) -> Registers:
    """An interrupted system call is made again, or says EINTR (signal(7))."""
    out = regs.copy()
    if regs.orig_rax != NO_SYSCALL and regs.rax in RESTARTS:
        if regs.rax == RESTART_BLOCK:
            out.rax = EINTR
        else:
            out.rax, out.rip = regs.orig_rax, regs.rip - SYSCALL_NBYTES
    return out
