"""The futex system call's arguments (futex(2)), as a thread stands before it."""

from typing import NamedTuple

from radium.core.regs import Registers

# <linux/futex.h>
WAIT, WAKE, WAIT_BITSET, WAKE_BITSET = 0, 1, 9, 10
PRIVATE, CLOCK_REALTIME = 128, 256
ANY = 0xFFFFFFFF


class Futex(NamedTuple):
    """A plain wait or wake. value: what a waiter expects to find, or how many are woken; timeout_at: 0 for no end."""

    operation: int
    address: int
    value: int
    bitset: int
    timeout_at: int
    is_realtime: bool

    @property
    def is_wait(self) -> bool:
        return self.operation in (WAIT, WAIT_BITSET)


def parse(regs: Registers) -> Futex | None:
    """The call that a thread stands at; None for one that only the kernel can make, or refuse."""
    operation, flags = regs.rsi & 0x7F, regs.rsi & ANY & ~0x7F
    if operation not in (WAIT, WAKE, WAIT_BITSET, WAKE_BITSET) or flags & ~(PRIVATE | CLOCK_REALTIME):
        return None
    if flags & CLOCK_REALTIME and operation != WAIT_BITSET:
        # Kernels differ in whether they refuse it, and in which clock they take (do_futex in kernel/futex/syscalls.c).
        return None
    bitset = regs.r9 & ANY if operation in (WAIT_BITSET, WAKE_BITSET) else ANY
    if regs.rdi % 4 or not bitset:
        return None
    timeout_at = regs.r10 if operation in (WAIT, WAIT_BITSET) else 0
    return Futex(operation, regs.rdi, regs.rdx & ANY, bitset, timeout_at, bool(flags & CLOCK_REALTIME))
