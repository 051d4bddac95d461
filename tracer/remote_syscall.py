"""System calls made in the tracee by a thread of its that is stopped: registers and signal mask are borrowed, and given back.

Two stops a call (PTRACE_SYSCALL into it and out of it), which shows results unambiguously and never lets the thread run
a user instruction. All signals are blocked meanwhile; a SIGSTOP, which cannot be, is sent again afterwards. A thread is
given back at a plain stop, from where the kernel goes on with what it was doing: an interrupted system call is made again.
Sources: ptrace(2) "Syscall-stops"; GOING_HOME.md 1.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from radium.core.regs import NO_SYSCALL, Registers
from radium.errors import JobFailed, NotPossible, RemoteFault, TraceeGone
from radium.linux import procfs, ptrace, vm
from radium.linux.libc import NUMBERS, syscall
from radium.linux.signals import mask_of
from radium.tracer.ledger import Gadget, Ledger
from radium.tracer.stops import Threads

# As the kernel keeps it: these two cannot be blocked.
ALL_SIGNALS = (1 << 64) - 1 & ~mask_of([signal.SIGKILL, signal.SIGSTOP])
RED_ZONE = 128


class RemoteSyscalls:
    """The way to make system calls in a tracee."""

    def __init__(self, threads: Threads, ledger: Ledger, gadget: Gadget) -> None:
        self.threads = threads
        self.ledger = ledger
        self.gadget = gadget

    @contextmanager
    def borrow(self, tid: int) -> "Iterator[Borrowed]":
        """The thread is stopped, and is as before when the block ends, however it ends."""
        self.threads.free(tid)
        self._suspend_seccomp(tid)
        regs, mask = ptrace.registers(tid), ptrace.signal_mask(tid)
        self.ledger.note_borrowed(tid, regs, mask)
        borrowed = Borrowed(self, tid, regs)
        try:
            borrowed.take()
            yield borrowed
        finally:
            borrowed.give_back(regs, mask)
            self.ledger.note_returned()

    def _suspend_seccomp(self, tid: int) -> None:
        """A filter of the tracee's would meet our calls too, and might kill. Raises NotPossible if it cannot be suspended."""
        try:
            ptrace.set_options(tid, self.threads.options | ptrace.O_SUSPEND_SECCOMP)
        except OSError:
            if procfs.status(self.threads.pid, tid).get("Seccomp", "0") != "0":
                raise NotPossible(
                    "its seccomp filter may refuse our system calls", where=f"pid {self.threads.pid}",
                    advice="run radium as root, which can suspend it",
                ) from None  # fmt: skip


class Borrowed:
    def __init__(self, owner: RemoteSyscalls, tid: int, regs: Registers) -> None:
        self.threads = owner.threads
        self.tid = tid
        self._regs = regs.copy()
        self._rsp = regs.rsp
        self._held_back: list[int] = []
        self.use(owner.gadget)

    def use(self, gadget: Gadget) -> None:
        """From here on calls are made there."""
        self.gadget = gadget
        self._regs.rsp = self._rsp
        if gadget.returns:
            self._prepare_return(gadget.park)

    def _prepare_return(self, park: int) -> None:
        """Below the red zone, where a signal's frame would come too, the stack belongs to nobody (psABI 3.2.2)."""
        at = (self._rsp - RED_ZONE - 8) & ~7
        try:
            vm.write(self.tid, at, park.to_bytes(8, "little"))
            self._regs.rsp = at
        except RemoteFault:
            # The stack has not grown so far: then the thread cannot wait if we are killed.
            return

    def take(self) -> None:
        """Signals are blocked when the thread is away from where it was: there may be a breakpoint, which needs SIGTRAP."""
        if self.gadget.park:
            parked = self._regs.copy()
            parked.rip, parked.orig_rax = self.gadget.park, NO_SYSCALL
            ptrace.set_registers(self.tid, parked)
        ptrace.set_signal_mask(self.tid, ALL_SIGNALS)

    def call(self, name: str, *arguments: int) -> int:
        """The result; raises OSError with the errno of a failure, TraceeGone."""
        regs = self._regs
        regs.rip, regs.rax, regs.orig_rax = self.gadget.syscall, NUMBERS[name], NO_SYSCALL
        values = [value & (1 << 64) - 1 for value in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
        regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9 = values
        ptrace.set_registers(self.tid, regs)
        self._to_syscall_stop()
        self._to_syscall_stop()
        raw = ptrace.registers(self.tid).rax
        result = raw - (1 << 64) if raw >> 63 else raw
        if -4096 < result < 0:
            raise OSError(-result, f"remote {name}: {os.strerror(-result)}", f"pid {self.threads.pid}")
        return result

    def _to_syscall_stop(self) -> None:
        while True:
            ptrace.resume_to_syscall(self.tid)
            status = self.threads.wait_syscall(self.tid)
            if status >> 8 == signal.SIGTRAP | 0x80:
                return
            if status >> 16 == ptrace.EVENT_STOP:
                continue
            number = os.WSTOPSIG(status)
            if status >> 16:
                raise JobFailed(f"a remote system call met an event ({status:#x})", where=f"tid {self.tid}")
            self._held_back.append(number)

    def give_back(self, regs: Registers, mask: int) -> None:
        try:
            self.threads.settle(self.tid)
            ptrace.set_options(self.tid, self.threads.options)
            ptrace.set_signal_mask(self.tid, mask)
            ptrace.set_registers(self.tid, regs)
        except TraceeGone:
            return
        for number in self._held_back:
            syscall("tgkill", self.threads.pid, self.tid, number)
