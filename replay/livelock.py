"""A mirror thread that runs and can never get on: it waits, spinning, for a thread that is not in the mirror.

Proof, not guess: single-stepped, the thread comes back to an instruction with the same general registers and the same
extended state, and nothing on the way wrote memory or asked anything outside. Alone in its address space, it will do the
same forever.
Loops that write (a counter in memory) or look at a clock are not recognised; the call's deadline ends those.
Source: Intel SDM volume 2 (the first operand is the destination), and on PAUSE.
"""

import os
import signal
from collections.abc import Callable

import capstone
from capstone import x86

from radium.core.addr import PAGE_SIZE
from radium.core.regs import Registers
from radium.errors import RemoteFault
from radium.linux import ptrace

# A waiting loop is short. Each step costs 10-20 us.
LONGEST_LOOP = 128
# When a call is looked at: it has run this long without asking for anything; then each time it has run twice as long.
FIRST_LOOK_S = 0.05
RFLAGS_TF = 0x100
_LONGEST_INSTRUCTION = 15
# What waiting loops are made of. Everything else counts as work: capstone's access flags miss some stores (movnti, stmxcsr).
_SILENT = frozenset(
    """
    mov movzx movsx movsxd movabs movbe lea add sub and or xor not neg inc dec adc sbb shl shr sar sal rol ror bt bsf bsr
    tzcnt lzcnt popcnt bswap cdq cdqe cqo cwde cwd imul cmp test jmp nop endbr64 pause lfence mfence sfence
    movd movq movdqa movdqu movaps movups movapd movupd movss movsd ptest pmovmskb pcmpeqb pcmpeqd pxor por pand
    vmovd vmovq vmovdqa vmovdqu vmovaps vmovups vmovapd vmovupd vmovss vmovsd vptest vpmovmskb vpcmpeqb vpcmpeqd vpxor
    vpor vpand vzeroupper comiss comisd ucomiss ucomisd vcomiss vcomisd vucomiss vucomisd xorps xorpd vxorps vxorpd
    """.split()
)
_SILENT_FAMILIES = ("j", "cmov", "set", "prefetch")
# These have memory as their first operand, which is otherwise the one that is written, and only read it.
_READ_ONLY = frozenset({"cmp", "test", "bt", "nop"})

_decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
_decoder.detail = True


class LeftStepping(Exception):
    """The thread did something other than a step; `status` is its wait status, 0 when it is still running."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def is_stuck(tid: int, wait: Callable[[], int], read: Callable[[int, int], bytes]) -> bool:
    """The thread is stopped in user code; it is stopped again afterwards, some steps further. Raises LeftStepping.

    wait: returns the thread's next wait status, and brings the pages that it misses meanwhile. read: its memory, never
    waiting for a page that is missing (RemoteFault).
    """
    start = _state(tid)
    for _ in range(LONGEST_LOOP):
        if not _is_silent(read, ptrace.registers(tid).rip):
            return False
        step(tid, wait)
        if ptrace.registers(tid).rip == start[0].rip and _state(tid) == start:
            return True
    return False


def _state(tid: int) -> tuple[Registers, bytes]:
    regs = ptrace.registers(tid)
    regs.eflags &= ~RFLAGS_TF
    return regs, ptrace.xstate(tid)


def step(tid: int, wait: Callable[[], int]) -> None:
    """One instruction of a stopped thread. Raises LeftStepping."""
    ptrace.single_step(tid)
    status = wait()
    # A breakpoint stops before its instruction, and may have been met before the step.
    if status >> 16 or os.WSTOPSIG(status) != signal.SIGTRAP or ptrace.signal_info(tid)[1] == ptrace.TRAP_HWBKPT:
        raise LeftStepping(status)


def _is_silent(read: Callable[[int, int], bytes], rip: int) -> bool:
    """Whether the instruction at rip only computes: writes no memory, looks at nothing but memory and registers."""
    try:
        code = _code(read, rip)
    except RemoteFault:
        return False
    insn = next(_decoder.disasm(code, rip, 1), None)
    if insn is None or not (insn.mnemonic in _SILENT or insn.mnemonic.startswith(_SILENT_FAMILIES)):
        return False
    if insn.mnemonic in _READ_ONLY or insn.mnemonic.startswith("prefetch"):
        return True
    return not insn.operands or insn.operands[0].type != x86.X86_OP_MEM


def _code(read: Callable[[int, int], bytes], rip: int) -> bytes:
    in_page = PAGE_SIZE - rip % PAGE_SIZE
    try:
        return read(rip, _LONGEST_INSTRUCTION)
    except RemoteFault:
        if in_page >= _LONGEST_INSTRUCTION:
            raise
        return read(rip, in_page)
