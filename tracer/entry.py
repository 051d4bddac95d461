"""Passing a breakpoint without lifting it: the first instruction of a split point, emulated or relocated.

The int3 at the entry stays for the other threads. The stopped thread goes past it in one of two ways: its first
instruction is emulated on its registers, or it is sent to a relocated copy of that instruction, which ends in a
jump back behind the original. Pure: registers, bytes and a `Memory` come in, nothing here touches a process.

Invariants:
  An emulator changes registers as the CPU would, or raises RemoteFault and has changed nothing.
  A copy changes no register, flag or memory that the original would not, whatever its distance from the entry.
  A copy pushes the original return address, never one inside itself, so that nothing outlives it on a stack.

Not covered: user shadow stacks (CET SHSTK), where a return address that was pushed by hand, or popped by hand,
does not match.

Sources: Intel SDM volume 2 (instruction formats, flags affected), volume 1 section 3.4.3 (EFLAGS).
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

import capstone
from capstone import x86

from radium.core.addr import USER_END, Addr
from radium.core.regs import U64, Registers
from radium.errors import NotPossible, RemoteFault

# Longest x86 instruction (SDM volume 2, section 2.3.11): so many bytes of code are always enough.
MAX_INSTRUCTION_NBYTES = 15
# Longest copy that `build_copy` makes: a conditional branch with a prefix and two absolute jumps.
MAX_COPY_NBYTES = 32

CF, PF, AF, ZF, SF, OF = 0x1, 0x4, 0x10, 0x40, 0x80, 0x800
_KEPT_FLAGS = U64 & ~(CF | PF | AF | ZF | SF | OF)
_PARITY = bytes(0 if byte.bit_count() & 1 else PF for byte in range(256))
_QUAD = struct.Struct("<Q")
_REL32 = struct.Struct("<i")
_OPERAND_SIZE_PREFIX = 0x66

_decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
_decoder.detail = True


class Memory(Protocol):
    """Memory of the stopped thread's process. Both raise RemoteFault where there is none."""

    def read(self, address: int, nbytes: int, /) -> bytes: ...

    def write(self, address: int, data: bytes, /) -> object: ...


Emulator = Callable[[Registers, Memory], None]
_Source = Callable[[Registers], int]


@dataclass(frozen=True, slots=True)
class FirstInstruction:
    """The instruction at a split point's entry, as it is without a breakpoint on it."""

    address: Addr
    length: int
    raw: bytes
    insn: Any = field(compare=False, repr=False)  # capstone.CsInsn, with detail

    @property
    def after(self) -> int:
        return self.address + self.length

    @property
    def text(self) -> str:
        return f"{self.insn.mnemonic} {self.insn.op_str}".strip()

    def refusal(self, why: str) -> NotPossible:
        return NotPossible(
            f"cannot run `{self.text}` away from its place: {why}",
            where=f"{self.address:#x}",
            advice="choose another function as the split point",
        )


def decode_first(code: bytes, address: int) -> FirstInstruction:
    """Decode the instruction at `address`.

    code: the bytes there, original ones; MAX_INSTRUCTION_NBYTES of them, or fewer at the end of a mapping.
    Raises NotPossible when they are no instruction, or only part of one.
    """
    insn = next(_decoder.disasm(code, address, 1), None)
    if insn is None:
        shown = code[:MAX_INSTRUCTION_NBYTES].hex(" ") or "no bytes"
        raise NotPossible(
            f"no instruction here ({shown})", where=f"{address:#x}", advice="the symbol does not name a function"
        )
    return FirstInstruction(Addr(address), insn.size, bytes(insn.bytes), insn)


# --- emulation ---------------------------------------------------------------------------------------------------


def emulate(first: FirstInstruction, regs: Registers, memory: Memory) -> bool:
    """Do what the first instruction does to `regs` and `memory`, rip included.

    Returns False with nothing changed when it is not one of the easy ones, or meets memory that is not there.
    """
    emulator = compile_emulation(first)
    if emulator is None:
        return False
    try:
        emulator(regs, memory)
    except RemoteFault:
        return False
    return True


def compile_emulation(first: FirstInstruction) -> Emulator | None:
    """Make the emulator of this one instruction, once, when the breakpoint is armed; None: use the copy.

    The emulator raises RemoteFault when memory is not there (a stack that has yet to grow, say) or a jump leads out
    of user space; registers are unchanged then, and the relocated copy does the right thing.
    """
    compiler = _COMPILERS.get(first.insn.id)
    return compiler(first) if compiler else None


class _Part(NamedTuple):
    """The low `nbytes` of the 64-bit register `name`."""

    name: str
    nbytes: int

    @property
    def mask(self) -> int:
        return _mask(self.nbytes)


def _mask(nbytes: int) -> int:
    return (1 << 8 * nbytes) - 1


def _register_parts() -> dict[str, _Part]:
    """Names as capstone writes them. ah, bh, ch and dh are left out: no function begins with them."""
    families = [(f"r{x}x", f"e{x}x", f"{x}x", f"{x}l") for x in "abcd"]
    families += [(f"r{xx}", f"e{xx}", xx, f"{xx}l") for xx in ("si", "di", "bp", "sp")]
    families += [(f"r{n}", f"r{n}d", f"r{n}w", f"r{n}b") for n in range(8, 16)]
    return {
        name: _Part(family[0], nbytes) for family in families for name, nbytes in zip(family, (8, 4, 2, 1), strict=True)
    }


_PARTS = _register_parts()


def _part(first: FirstInstruction, register: int) -> _Part | None:
    return _PARTS.get(first.insn.reg_name(register) or "")


def _register_source(part: _Part) -> _Source:
    if part.nbytes == 8:
        whole: _Source = attrgetter(part.name)
        return whole
    name, mask = part.name, part.mask
    return lambda regs: getattr(regs, name) & mask


def _source(first: FirstInstruction, operand: Any, nbytes: int) -> _Source | None:
    """Reads a register or an immediate of `nbytes`; None for anything else."""
    if operand.type == x86.X86_OP_IMM:
        value = operand.imm & _mask(nbytes)
        return lambda regs: value
    if operand.type != x86.X86_OP_REG:
        return None
    part = _part(first, operand.reg)
    return _register_source(part) if part and part.nbytes == nbytes else None


def _sink(part: _Part) -> Callable[[Registers, int], None]:
    """Writes a value of the part's width. A 32-bit write clears the upper half (SDM volume 1, 3.4.1.1)."""
    name = part.name
    if part.nbytes >= 4:
        return lambda regs, value: setattr(regs, name, value)
    kept = U64 & ~part.mask
    return lambda regs, value: setattr(regs, name, getattr(regs, name) & kept | value)


def _address(first: FirstInstruction, operand: Any) -> _Source | None:
    """The effective address of a memory operand, without fs or gs; None for 32-bit addressing."""
    mem = operand.mem
    if mem.base == x86.X86_REG_RIP:
        target = (first.after + mem.disp) & U64
        return lambda regs: target
    base = _address_term(first, mem.base)
    index = _address_term(first, mem.index)
    if base is None or index is None:
        return None
    scale, disp = mem.scale, mem.disp
    return lambda regs: (base(regs) + index(regs) * scale + disp) & U64


def _address_term(first: FirstInstruction, register: int) -> _Source | None:
    if register == x86.X86_REG_INVALID:
        return lambda regs: 0
    part = _part(first, register)
    return _register_source(part) if part and part.nbytes == 8 else None


def _emulate_nothing(first: FirstInstruction) -> Emulator | None:
    after = first.after

    def nothing(regs: Registers, memory: Memory) -> None:
        regs.rip = after

    return nothing


def _emulate_push(first: FirstInstruction) -> Emulator | None:
    operand = first.insn.operands[0]
    value = _source(first, operand, 8) if operand.size == 8 else None
    if value is None:
        return None
    after, pack = first.after, _QUAD.pack

    def push(regs: Registers, memory: Memory) -> None:
        top = (regs.rsp - 8) & U64
        memory.write(top, pack(value(regs)))
        regs.rsp = top
        regs.rip = after

    return push


def _emulate_mov(first: FirstInstruction) -> Emulator | None:
    target, origin = first.insn.operands
    part = _part(first, target.reg) if target.type == x86.X86_OP_REG else None
    value = _source(first, origin, part.nbytes) if part else None
    if part is None or value is None:
        return None
    return _assignment(first, part, value)


def _emulate_lea(first: FirstInstruction) -> Emulator | None:
    target, origin = first.insn.operands
    part, address = _part(first, target.reg), _address(first, origin)
    if part is None or address is None:
        return None
    mask = part.mask
    return _assignment(first, part, address if part.nbytes == 8 else lambda regs: address(regs) & mask)


def _assignment(first: FirstInstruction, part: _Part, value: _Source) -> Emulator:
    after, store = first.after, _sink(part)

    def assign(regs: Registers, memory: Memory) -> None:
        store(regs, value(regs))
        regs.rip = after

    return assign


# (a, b, mask, sign bit) -> (result, flags CF AF OF); the others follow from the result.
_Arithmetic = Callable[[int, int, int, int], tuple[int, int]]


def _add(a: int, b: int, mask: int, sign: int) -> tuple[int, int]:
    total = a + b
    result = total & mask
    flags = (CF if total > mask else 0) | (a ^ b ^ result) & AF
    return result, flags | OF if (a ^ result) & (b ^ result) & sign else flags


def _subtract(a: int, b: int, mask: int, sign: int) -> tuple[int, int]:
    result = (a - b) & mask
    flags = (CF if a < b else 0) | (a ^ b ^ result) & AF
    return result, flags | OF if (a ^ b) & (a ^ result) & sign else flags


# The SDM leaves AF undefined after these; every CPU clears it.
def _and(a: int, b: int, mask: int, sign: int) -> tuple[int, int]:
    return a & b, 0


def _or(a: int, b: int, mask: int, sign: int) -> tuple[int, int]:
    return a | b, 0


def _xor(a: int, b: int, mask: int, sign: int) -> tuple[int, int]:
    return a ^ b, 0


def _emulate_arithmetic(operation: _Arithmetic, *, keeps_result: bool) -> Callable[[FirstInstruction], Emulator | None]:
    def compiler(first: FirstInstruction) -> Emulator | None:
        target, origin = first.insn.operands
        part = _part(first, target.reg) if target.type == x86.X86_OP_REG else None
        right = _source(first, origin, part.nbytes) if part else None
        if part is None or right is None:
            return None
        left, store = _register_source(part), _sink(part)
        after, mask, sign = first.after, part.mask, (part.mask >> 1) + 1

        def compute(regs: Registers, memory: Memory) -> None:
            result, flags = operation(left(regs), right(regs), mask, sign)
            flags |= _PARITY[result & 0xFF]
            if not result:
                flags |= ZF
            elif result & sign:
                flags |= SF
            if keeps_result:
                store(regs, result)
            regs.eflags = regs.eflags & _KEPT_FLAGS | flags
            regs.rip = after

        return compute

    return compiler


def _emulate_jmp(first: FirstInstruction) -> Emulator | None:
    operand = first.insn.operands[0]
    if _OPERAND_SIZE_PREFIX in first.insn.prefix:
        return None
    if operand.type == x86.X86_OP_IMM:
        target = operand.imm & U64
        return lambda regs, memory: setattr(regs, "rip", target)
    if not _is_near(first):
        return None
    if operand.type == x86.X86_OP_REG:
        part = _part(first, operand.reg)
        return _indirect_jump(_register_source(part)) if part else None
    if operand.mem.segment in (x86.X86_REG_FS, x86.X86_REG_GS):
        return None
    address = _address(first, operand)
    return _jump_through(address) if address else None


def _indirect_jump(target: _Source) -> Emulator:
    def jump(regs: Registers, memory: Memory) -> None:
        regs.rip = _user_target(target(regs))

    return jump


def _jump_through(address: _Source) -> Emulator:
    unpack = _QUAD.unpack

    def jump(regs: Registers, memory: Memory) -> None:
        regs.rip = _user_target(unpack(memory.read(address(regs), 8))[0])

    return jump


def _emulate_ret(first: FirstInstruction) -> Emulator | None:
    if _OPERAND_SIZE_PREFIX in first.insn.prefix:
        return None
    popped = 8 + (first.insn.operands[0].imm if first.insn.operands else 0)
    unpack = _QUAD.unpack

    def ret(regs: Registers, memory: Memory) -> None:
        regs.rip = _user_target(unpack(memory.read(regs.rsp, 8))[0])
        regs.rsp = (regs.rsp + popped) & U64

    return ret


def _user_target(target: int) -> int:
    """PTRACE_SETREGS takes no other rip, and the CPU would fault before the jump."""
    if target >= USER_END:
        raise RemoteFault("a jump out of user space", where=f"{target:#x}")
    return target


_COMPILERS: Mapping[int, Callable[[FirstInstruction], Emulator | None]] = {
    x86.X86_INS_ENDBR64: _emulate_nothing,
    x86.X86_INS_NOP: _emulate_nothing,
    x86.X86_INS_PUSH: _emulate_push,
    x86.X86_INS_MOV: _emulate_mov,
    x86.X86_INS_MOVABS: _emulate_mov,
    x86.X86_INS_LEA: _emulate_lea,
    x86.X86_INS_ADD: _emulate_arithmetic(_add, keeps_result=True),
    x86.X86_INS_SUB: _emulate_arithmetic(_subtract, keeps_result=True),
    x86.X86_INS_CMP: _emulate_arithmetic(_subtract, keeps_result=False),
    x86.X86_INS_AND: _emulate_arithmetic(_and, keeps_result=True),
    x86.X86_INS_OR: _emulate_arithmetic(_or, keeps_result=True),
    x86.X86_INS_XOR: _emulate_arithmetic(_xor, keeps_result=True),
    x86.X86_INS_TEST: _emulate_arithmetic(_and, keeps_result=False),
    x86.X86_INS_JMP: _emulate_jmp,
    x86.X86_INS_RET: _emulate_ret,
}


# --- relocation --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RelocatedCopy:
    """Position-dependent code that does what a first instruction does and goes on behind the original.

    resume: offset in `code` -> the original address at which a thread would be in the same state; a thread at an
    offset that is not listed must run on before the copy may go away.
    """

    address: Addr
    code: bytes
    resume: Mapping[int, Addr]


def relocate(first: FirstInstruction, at: int) -> bytes:
    """The bytes of `build_copy`."""
    return build_copy(first, at).code


def build_copy(first: FirstInstruction, at: int) -> RelocatedCopy:
    """Relocate the first instruction to `at`, at most MAX_COPY_NBYTES long.

    Raises NotPossible when the instruction cannot be moved, or not so far (a rip-relative operand reaches 2 GiB).
    """
    code, resume = _builder(first)(first, at)
    return RelocatedCopy(Addr(at), code, {offset: Addr(address) for offset, address in resume.items()})


_Copy = tuple[bytes, dict[int, int]]


def _builder(first: FirstInstruction) -> Callable[[FirstInstruction, int], _Copy]:
    insn = first.insn
    branches = insn.group(capstone.CS_GRP_BRANCH_RELATIVE) or insn.group(capstone.CS_GRP_JUMP)
    calls, returns = insn.group(capstone.CS_GRP_CALL), insn.group(capstone.CS_GRP_RET)
    if insn.id == x86.X86_INS_XBEGIN:
        raise first.refusal("it begins a transaction")
    if insn.group(capstone.CS_GRP_IRET) or (insn.group(capstone.CS_GRP_INT) and insn.id != x86.X86_INS_SYSCALL):
        raise first.refusal("it is an interrupt instruction")
    if (branches or calls or returns) and _OPERAND_SIZE_PREFIX in insn.prefix:
        raise first.refusal("CPUs disagree about 16-bit branches")
    if (branches or calls) and not _is_near(first):
        raise first.refusal("it is a far branch")
    if calls:
        return _copy_call
    if insn.group(capstone.CS_GRP_BRANCH_RELATIVE):
        return _copy_jmp if insn.id == x86.X86_INS_JMP else _copy_conditional
    return _copy_verbatim


def _is_near(first: FirstInstruction) -> bool:
    """FF /2 and FF /4 are the near call and jmp, /3 and /5 the far ones; all others that 64-bit mode has are near."""
    return first.insn.opcode[0] != 0xFF or (first.insn.modrm >> 3) & 7 in (2, 4)


def _copy_verbatim(first: FirstInstruction, at: int) -> _Copy:
    code = _rebased(first, first.raw, at)
    return code + _jump(at + len(code), first.after), {0: first.address, len(code): first.after}


def _copy_jmp(first: FirstInstruction, at: int) -> _Copy:
    return _jump(at, _direct_target(first)), {0: first.address}


def _copy_conditional(first: FirstInstruction, at: int) -> _Copy:
    """jcc, loop and jrcxz in their short form, over the jump of the case that is not taken."""
    opcode = first.insn.opcode
    short = opcode[1] - 0x10 if opcode[0] == 0x0F else opcode[0]
    # An address-size prefix makes loop and jrcxz count in ecx; the other prefixes are hints.
    prefix = b"\x67" if 0x67 in first.insn.prefix else b""
    fall_offset = len(prefix) + 2
    fall = _jump(at + fall_offset, first.after)
    taken_offset = fall_offset + len(fall)
    target = _direct_target(first)
    code = prefix + bytes((short, len(fall))) + fall + _jump(at + taken_offset, target)
    return code, {0: first.address, fall_offset: first.after, taken_offset: target}


def _copy_call(first: FirstInstruction, at: int) -> _Copy:
    """`push qword [rip+...]` of the original return address, then a jump; the address lies behind them."""
    jump_at = at + 6
    direct = first.insn.operands[0].type == x86.X86_OP_IMM
    jump = _jump(jump_at, _direct_target(first)) if direct else _indirect_call_as_jump(first, jump_at)
    code = b"\xff\x35" + _REL32.pack(len(jump)) + jump + _QUAD.pack(first.after)
    return code, {0: first.address} | ({6: _direct_target(first)} if direct else {})


def _indirect_call_as_jump(first: FirstInstruction, at: int) -> bytes:
    operand = first.insn.operands[0]
    register = operand.reg if operand.type == x86.X86_OP_REG else operand.mem.base
    if register in (x86.X86_REG_RSP, x86.X86_REG_ESP):
        raise first.refusal("its target depends on the stack pointer")
    raw, offset = first.raw, first.insn.modrm_offset
    as_jump = raw[offset] & ~0x38 | 4 << 3
    return _rebased(first, raw[:offset] + bytes((as_jump,)) + raw[offset + 1 :], at)


def _direct_target(first: FirstInstruction) -> int:
    target: int = first.insn.operands[0].imm & U64
    return target


def _rebased(first: FirstInstruction, raw: bytes, at: int) -> bytes:
    """`raw`, the first instruction or one of the same shape, with its rip-relative operand right for `at`."""
    operands = [op.mem for op in first.insn.operands if op.type == x86.X86_OP_MEM]
    if any(mem.base == x86.X86_REG_EIP for mem in operands):
        raise first.refusal("its operand is relative to eip")
    relative = next((mem for mem in operands if mem.base == x86.X86_REG_RIP), None)
    if relative is None:
        return raw
    # No SIB byte comes between (SDM volume 2, table 2-7). capstone's own disp_offset and disp_size are wrong for
    # some instructions with a mandatory 66 prefix.
    offset = first.insn.modrm_offset + 1
    if raw[offset : offset + 4] != _REL32.pack(relative.disp):
        raise first.refusal("its operand cannot be found in its bytes")
    rebased = relative.disp + first.address - at
    if not _fits_rel32(rebased):
        raise first.refusal(f"its operand is out of reach from {at:#x}")
    return raw[:offset] + _REL32.pack(rebased) + raw[offset + 4 :]


def _jump(at: int, target: int) -> bytes:
    """jmp rel32 where that reaches, else jmp [rip+0] with the target behind it; neither changes a register."""
    distance = target - (at + 5)
    if _fits_rel32(distance):
        return b"\xe9" + _REL32.pack(distance)
    return b"\xff\x25\0\0\0\0" + _QUAD.pack(target)


def _fits_rel32(distance: int) -> bool:
    return -(1 << 31) <= distance < 1 << 31
