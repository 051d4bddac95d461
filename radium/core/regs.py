"""The general registers of a stopped thread, as one mutable value.

The order is that of `struct user_regs_struct` (<sys/user.h>, arch/x86/include/asm/user_64.h): 27 unsigned 64-bit words.
"""

import struct
from operator import attrgetter

NAMES = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base ds es fs gs"
).split()
FORMAT = struct.Struct("<27Q")
U64 = (1 << 64) - 1
# orig_rax of a thread that is in no system call: keeps the kernel from restarting one on top of new registers.
NO_SYSCALL = U64
# Of orig_rax in the packed form; rip comes next.
_ORIG_RAX_AT = 8 * 15
SYSCALL_NBYTES = 2
# rax of a thread that stands before its system call (ENOSYS), and of one whose call a signal has interrupted and the
# kernel makes again (ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK: include/linux/errno.h).
NOT_MADE = U64 + 1 - 38
RESTARTS = frozenset(U64 + 1 - number for number in (512, 513, 514, 516))
# The last of them: the kernel goes on with restart_syscall(2), from what it keeps for the thread, one call at a time.
RESTART_BLOCK = U64 + 1 - 516
# System V psABI, 3.2.3: integer arguments in this order, then the stack.
INTEGER_ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")


_values = attrgetter(*NAMES)


class Registers:
    """General registers; each attribute is an unsigned 64-bit integer."""

    __slots__ = tuple(NAMES)

    r15: int
    r14: int
    r13: int
    r12: int
    rbp: int
    rbx: int
    r11: int
    r10: int
    r9: int
    r8: int
    rax: int
    rcx: int
    rdx: int
    rsi: int
    rdi: int
    orig_rax: int
    rip: int
    cs: int
    eflags: int
    rsp: int
    ss: int
    fs_base: int
    gs_base: int
    ds: int
    es: int
    fs: int
    gs: int

    def __init__(self, *values: int) -> None:
        if len(values) != 27:
            raise ValueError(f"{len(values)} registers instead of 27")
        (
            self.r15, self.r14, self.r13, self.r12, self.rbp, self.rbx, self.r11, self.r10, self.r9, self.r8, self.rax,
            self.rcx, self.rdx, self.rsi, self.rdi, self.orig_rax, self.rip, self.cs, self.eflags, self.rsp, self.ss,
            self.fs_base, self.gs_base, self.ds, self.es, self.fs, self.gs,
        ) = values  # fmt: skip

    @classmethod
    def unpack(cls, raw: bytes) -> "Registers":
        return cls(*FORMAT.unpack(raw))

    def pack(self) -> bytes:
        """Raises struct.error for a value that is not an unsigned 64-bit word."""
        return FORMAT.pack(*_values(self))

    @staticmethod
    def moved(raw: bytes, rip: int) -> bytes:
        """Packed registers as they are, but for a thread that goes on at `rip`, and is in no system call."""
        return raw[:_ORIG_RAX_AT] + struct.pack("<2Q", NO_SYSCALL, rip) + raw[_ORIG_RAX_AT + 16 :]

    def copy(self) -> "Registers":
        return Registers(*_values(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registers) and self.pack() == other.pack()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<rip {self.rip:#x} rsp {self.rsp:#x} rax {self.rax:#x}>"
