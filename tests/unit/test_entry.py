"""First instructions, executed: natively, emulated, and from relocated copies near and far."""

import ctypes
import glob
import mmap
import shutil
import struct
import subprocess
import sysconfig
import time
from collections import Counter
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given, settings
from hypothesis import strategies as st

from radium.core.addr import USER_END
from radium.core.regs import U64, Registers
from radium.errors import NotPossible, RemoteFault
from radium.tracer import entry

GCC = shutil.which("gcc")
needs_gcc = pytest.mark.skipif(GCC is None, reason="gcc is missing")

# The hardware order of the registers, and that of the harness's `context`, which has eflags and the code behind it.
ORDER = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()
HARNESS = r"""
    .data
    .globl context, landings
context: .fill 18, 8, 0
which:   .quad 0
host:    .quad 0
    .section .data.rel, "aw"
landings: .quad landing_0, landing_1, landing_2
    .text
    .globl run
run:
    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
    mov %rsp, host(%rip)
    pushq 128+context(%rip); popfq
LOADS
    jmp *136+context(%rip)
landing_0: movq $0, which(%rip); jmp save
landing_1: movq $1, which(%rip); jmp save
landing_2: movq $2, which(%rip)
save:
SAVES
    mov host(%rip), %rsp
    pushfq; popq 128+context(%rip)
    cld
    mov which(%rip), %rax
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
    ret
    .section .note.GNU-stack, "", @progbits
"""

# Everything lies in one page at CODE: the entry, landing stubs at fixed distances, data; and a stack in the next one.
CODE = 0x10_0000_0000
NEAR = CODE + 0x10_0000
FAR = CODE + 0x30_0000_0000
ENTRY = CODE + 0x400
TAKEN, BACK, DATA = ENTRY + 0x40, ENTRY - 0x40, ENTRY + 0x100
STACK = CODE + 0x1000
STACK_TOP = STACK + 0x800
FLAGS = (entry.CF, entry.PF, entry.AF, entry.ZF, entry.SF, entry.OF)


class Harness:
    """Runs code at an address with given registers, until it reaches one of three landings."""

    def __init__(self, folder):
        loads = "\n".join(f"mov {8 * n}+context(%rip), %{name}" for n, name in enumerate(ORDER))
        saves = "\n".join(f"mov %{name}, {8 * n}+context(%rip)" for n, name in enumerate(ORDER))
        source, library = folder / "harness.s", folder / "harness.so"
        source.write_text(HARNESS.replace("LOADS", loads).replace("SAVES", saves))
        subprocess.run([GCC, "-shared", "-Wl,-Bsymbolic", "-o", library, source], check=True)
        self._library = ctypes.CDLL(str(library))
        self._library.run.restype = ctypes.c_uint64
        self._context = (ctypes.c_uint64 * 18).in_dll(self._library, "context")
        self.landings = list((ctypes.c_uint64 * 3).in_dll(self._library, "landings"))
        for address, nbytes in ((CODE, 0x2000), (NEAR, 0x1000), (FAR, 0x1000)):
            map_at(address, nbytes)

    def prepare(self, raw, stack=b""):
        """Fill the page: `raw` at the entry, the landing stubs, the data, a stack with `stack` on top."""
        ctypes.memset(CODE, 0xCC, 0x1000)
        ctypes.memset(STACK, 0x5A, 0x1000)
        put(DATA, struct.pack("<Q", TAKEN) + bytes(range(1, 120)))
        put(ENTRY, raw)
        for address, landing in ((ENTRY + len(raw), 0), (TAKEN, 1), (BACK, 2)):
            put(address, b"\xff\x25\0\0\0\0" + struct.pack("<Q", self.landings[landing]))
        put(STACK_TOP, stack)

    def run(self, at, regs):
        """Returns where the code went, the registers after it, and the stack's page."""
        for number, name in enumerate(ORDER):
            self._context[number] = getattr(regs, name)
        self._context[16], self._context[17] = regs.eflags, at
        rip = (None, TAKEN, BACK)[self._library.run()]
        return rip, self._context[:17], ctypes.string_at(STACK, 0x1000)


class OwnMemory:
    """This process's memory."""

    def read(self, address, nbytes):
        return ctypes.string_at(address, nbytes)

    def write(self, address, data):
        put(address, data)


class NoMemory:
    def read(self, address, nbytes):
        raise RemoteFault("nothing there", where=hex(address))

    def write(self, address, data):
        raise RemoteFault("nothing there", where=hex(address))


def put(address, data):
    ctypes.memmove(address, data, len(data))


def map_at(address, nbytes):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    map_fixed_noreplace = 0x100000
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | map_fixed_noreplace
    assert libc.mmap(address, nbytes, 7, flags, -1, 0) == address


def registers(values=(), **named):
    regs = Registers(*[0] * 27)
    for name, value in [*zip(ORDER, values, strict=False), *named.items()]:
        setattr(regs, name, value)
    return regs


def emulated(first, regs):
    """As Harness.run, or None when the instruction is not emulated."""
    regs = regs.copy()
    if not entry.emulate(first, regs, OwnMemory()):
        return None
    rip = None if regs.rip == first.after else regs.rip
    return rip, [*(getattr(regs, name) for name in ORDER), regs.eflags], ctypes.string_at(STACK, 0x1000)


def agree(harness, raw, regs, stack=b"", *, far=True):
    """Run all ways and compare; returns whether the instruction was emulated."""
    first = entry.decode_first(raw, ENTRY)
    harness.prepare(first.raw, stack)
    native = harness.run(ENTRY, regs)
    for at in (NEAR, FAR) if far else (NEAR,):
        harness.prepare(first.raw, stack)
        put(ENTRY, b"\xcc")
        put(at, entry.relocate(first, at))
        assert harness.run(at, regs) == native, f"{first.text} copied to {at:#x}"
    harness.prepare(b"\xcc" * first.length, stack)
    result = emulated(first, regs)
    assert result in (None, native), f"{first.text} emulated"
    return result is not None


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    if GCC is None:
        pytest.skip("gcc is missing")
    return Harness(tmp_path_factory.mktemp("harness"))


@pytest.fixture(scope="module")
def assemble(tmp_path_factory):
    """Assembles statements in AT&T syntax, each on its own."""

    def assemble(statements):
        folder = tmp_path_factory.mktemp("samples")
        source, linked, binary = folder / "samples.s", folder / "samples.o", folder / "samples.bin"
        source.write_text("".join(f".balign 64, 0x90\n{statement}\n" for statement in statements) + ".balign 64\n")
        subprocess.run([GCC, "-c", "-o", linked, source], check=True)
        subprocess.run(["objcopy", "-O", "binary", "-j", ".text", linked, binary], check=True)
        code = binary.read_bytes()
        return [code[64 * number : 64 * number + 15] for number in range(len(statements))]

    return assemble


EMULATED = """
endbr64 | nop | nopw 0(%rax,%rax) | nopl 8(%rax) | .byte 0x66, 0x90 | .byte 0xf3, 0x0f, 0x1e, 0xfa
push %rbp | push %r15 | push %rsp | push $-5 | push $0x12345678 | sub $0x28, %rsp | sub $-0x80, %rsp | add $8, %rsp
mov %rdi, %rax | mov %esi, %ebp | mov %r9, %r12 | mov $-1, %rax | mov $0x80000000, %eax
movabs $0x123456789abcdef0, %r11 | mov %cx, %dx | mov %sil, %al
xor %eax, %eax | xor %r14, %r14 | xor %rcx, %rdx | and $-16, %rsp | or $-1, %ebx
lea 0x100(%rip), %rax | lea -1(%rdi,%rsi,4), %r8 | lea (%rsp), %rbp | lea 8(,%r9,8), %ecx | test %rdi, %rdi
test %eax, %edx | cmp $7, %rdi | cmp $0x100, %esi | cmp $-1, %dl | cmp %rsi, %rdi | {disp32} jmp .+0x40
jmp .+0x40 | jmp .-0x40 | jmp *0xfa(%rip) | bnd jmp *0xf9(%rip) | notrack jmp *%rax | jmp *%rax | jmp *(%rcx,%rdx,8)
ret | bnd ret | repz ret | ret $0x10
"""
COPIED = """
je .+0x40 | {disp32} jne .-0x40 | jo .+0x40 | {disp32} jg .+0x40 | jrcxz .+0x40 | jecxz .+0x40 | loop .-0x40
loopne .+0x40 | loope .+0x40 | addr32 loop .+0x40 | bnd je .+0x40
call .+0x40 | call .-0x40 | call *%rax | call *0xfa(%rip) | call *(%rcx,%rdx,8) | notrack call *%rax
pushfq | movzbl %dil, %eax | vmovaps %ymm0, %ymm1 | stosb | leave
"""
RIP_RELATIVE = """
mov 0x100(%rip), %rax | cmpl $5, 0x104(%rip) | addl $3, 0x110(%rip) | vmovups 0x102(%rip), %ymm3 | lock incl 0x110(%rip)
movsd 0x108(%rip), %xmm0 | push 0x100(%rip) | imul $1000, 0x100(%rip), %rbx | cmpb $0, 0x100(%rip)
movdqa 0xf8(%rip), %xmm1 | comisd 0x100(%rip), %xmm0 | addw $0x1234, 0x100(%rip) | pshufb 0xf6(%rip), %xmm9
"""


def statements(text):
    return [statement.strip() for line in text.strip().splitlines() for statement in line.split("|")]


def sample_registers(flags=0):
    return registers(
        range(0x1111, 0x11111, 0x1111), rax=TAKEN, rcx=DATA, rdx=0, rsp=STACK_TOP, rbp=STACK_TOP - 0x100,
        rdi=STACK + 0x20, eflags=0x202 | flags,
    )  # fmt: skip


ALL_FLAGS = (0, sum(FLAGS), entry.ZF, entry.CF, entry.OF, entry.SF)


@needs_gcc
def test_emulated_kinds_do_what_the_cpu_does(harness, assemble):
    """Every listed kind is emulated, and ends with the registers, flags and memory of a native run."""
    for raw in assemble(statements(EMULATED)):
        for flags in ALL_FLAGS:
            stack = struct.pack("<Q", TAKEN)
            far = b"\x25\xfa" in raw or b"\x25\xf9" in raw or b"\x05\0\x01" in raw
            assert agree(harness, raw, sample_registers(flags), stack, far=not far), raw.hex()


@needs_gcc
def test_copies_do_what_the_original_does(harness, assemble):
    """Branches, loops, calls and plain instructions behave the same from a copy near by and one 192 GiB away."""
    texts = statements(COPIED)
    for text, raw in zip(texts, assemble(texts), strict=True):
        for flags in ALL_FLAGS:
            for count in (0, 1, 2, 1 << 32) if "cxz" in text or "loop" in text else (DATA,):
                regs = sample_registers(flags)
                regs.rcx = count
                agree(harness, raw, regs, far="rip" not in text)


@needs_gcc
def test_rip_relative_operands_reach_the_same_memory(harness, assemble):
    """An operand relative to rip is re-based in the copy; where it does not reach, the copy is refused in words."""
    for raw in assemble(statements(RIP_RELATIVE)):
        regs = sample_registers()
        agree(harness, raw, regs, far=False)
        first = entry.decode_first(raw, ENTRY)
        with pytest.raises(NotPossible, match=r"0x1000000400: .*out of reach from 0x4000000000"):
            entry.relocate(first, FAR)
        moved = next(entry._decoder.disasm(entry.relocate(first, NEAR), NEAR, 1))
        (operand,) = [op for op in moved.operands if op.type == entry.x86.X86_OP_MEM]
        (origin,) = [op for op in first.insn.operands if op.type == entry.x86.X86_OP_MEM]
        assert NEAR + moved.size + operand.mem.disp == first.after + origin.mem.disp


def rex(wide, reg=0, rm=0, index=0):
    return bytes([0x40 | wide << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | rm >> 3])


def modrm(reg, rm, mode=3):
    return bytes([mode << 6 | (reg & 7) << 3 | rm & 7])


register = st.integers(0, 15)
wide = st.booleans()
imm32 = st.one_of(st.integers(-(2**31), 2**31 - 1), st.sampled_from([0, 1, -1, 127, -128, 2**31 - 1, -(2**31)]))
corner = st.sampled_from([0, 1, 0xF, 0x10, 0x7F, 0x80, 0xFF, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, U64])
word = st.one_of(st.integers(0, U64), corner)

instructions = st.one_of(
    st.builds(  # add or and sub xor cmp: register, immediate
        lambda w, n, rm, imm: rex(w, 0, rm) + b"\x81" + modrm(n, rm) + struct.pack("<i", imm),
        wide, st.sampled_from([0, 1, 4, 5, 6, 7]), register, imm32,
    ),
    st.builds(
        lambda w, n, rm, imm: rex(w, 0, rm) + b"\x83" + modrm(n, rm) + struct.pack("<b", imm),
        wide, st.sampled_from([0, 1, 4, 5, 6, 7]), register, st.integers(-128, 127),
    ),
    st.builds(
        lambda n, rm, imm: rex(0, 0, rm) + b"\x80" + modrm(n, rm) + bytes([imm]),
        st.sampled_from([0, 1, 4, 5, 6, 7]), register, st.integers(0, 255),
    ),
    st.builds(  # the same, test and mov: register, register
        lambda prefix, w, opcode, reg, rm: prefix + rex(w, reg, rm) + bytes([opcode]) + modrm(reg, rm),
        st.sampled_from([b"", b"\x66"]), wide,
        st.sampled_from([*range(0, 4), *range(8, 12), *range(0x20, 0x24), *range(0x28, 0x2C), *range(0x30, 0x34),
                         *range(0x38, 0x3C), 0x84, 0x85, 0x88, 0x89, 0x8A, 0x8B]),
        register, register,
    ),
    st.builds(
        lambda w, rm, imm: rex(w, 0, rm) + b"\xc7" + modrm(0, rm) + struct.pack("<i", imm), wide, register, imm32
    ),
    st.builds(lambda rm, imm: rex(1, 0, rm) + bytes([0xB8 | rm & 7]) + struct.pack("<Q", imm), register, word),
    st.builds(  # lea disp32(base, index, scale)
        lambda w, reg, base, index, scale, disp: rex(w, reg, base, index) + b"\x8d" + modrm(reg, 4, 2)
        + bytes([scale << 6 | (index & 7) << 3 | base & 7]) + struct.pack("<i", disp),
        wide, register, register, register.filter(lambda n: n != 4), st.integers(0, 3), imm32,
    ),
    st.builds(lambda n: rex(0, 0, n) + bytes([0x50 | n & 7]), register),
    st.builds(lambda imm: b"\x68" + struct.pack("<i", imm), imm32),
)  # fmt: skip


@needs_gcc
@settings(max_examples=1500, deadline=None)
@given(raw=instructions, values=st.lists(word, min_size=16, max_size=16), flags=st.sets(st.sampled_from(FLAGS)))
def test_emulation_and_copy_agree_with_the_cpu(harness, raw, values, flags):
    """For any operands and flags an emulated instruction leaves exactly what the CPU leaves."""
    regs = registers(values, rsp=STACK_TOP, eflags=0x202 | sum(flags))
    assert agree(harness, raw, regs), entry.decode_first(raw, ENTRY).text


@settings(max_examples=2000, deadline=None)
@given(raw=st.binary(min_size=1, max_size=15), at=st.sampled_from([NEAR, FAR]))
def test_any_bytes_are_relocated_or_refused(raw, at):
    """Whatever the bytes are, the answer is a copy of bounded length that starts as the entry, or NotPossible."""
    try:
        copy = entry.build_copy(entry.decode_first(raw, ENTRY), at)
    except NotPossible:
        return
    assert 0 < len(copy.code) <= entry.MAX_COPY_NBYTES
    assert copy.resume[0] == ENTRY


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("c7f800000000", "begins a transaction"), ("cc", "interrupt"), ("cd80", "interrupt"), ("48cf", "interrupt"),
        ("ffd4", "stack pointer"), ("ff542408", "stack pointer"), ("ff2d00000000", "far"), ("66ffe0", "16-bit"),
        ("67488d0500010000", "eip"),
    ],
)  # fmt: skip
def test_what_cannot_be_moved_is_refused_by_its_text(raw, why):
    """An instruction that a copy would change is refused, with its text and the reason."""
    first = entry.decode_first(bytes.fromhex(raw), ENTRY)
    with pytest.raises(NotPossible, match=rf"`{first.insn.mnemonic}.*{why}"):
        entry.relocate(first, NEAR)
    assert entry.compile_emulation(first) is None


@pytest.mark.parametrize("raw", ["", "06", "48", "e80000"])
def test_no_instruction_is_not_possible(raw):
    """Bytes that are no instruction, or only part of one, are refused with the address."""
    with pytest.raises(NotPossible, match=r"0x1000000400: no instruction"):
        entry.decode_first(bytes.fromhex(raw), ENTRY)


@pytest.mark.parametrize("raw", ["55", "c3", "ff2500010000"])
def test_missing_memory_changes_nothing(raw):
    """An emulation that meets memory that is not there answers False and leaves the registers alone."""
    regs = registers(range(16), eflags=0x246, rip=ENTRY)
    before = regs.copy()
    assert not entry.emulate(entry.decode_first(bytes.fromhex(raw), ENTRY), regs, NoMemory())
    assert regs == before


def test_a_jump_out_of_user_space_is_left_to_the_cpu():
    """A target that ptrace would not take as rip is not emulated, so that the program gets its own fault."""
    regs = registers(rax=USER_END, rip=ENTRY)
    assert not entry.emulate(entry.decode_first(b"\xff\xe0", ENTRY), regs, NoMemory())
    assert regs.rip == ENTRY


def test_the_other_instructions_are_not_emulated():
    """What is not on the list answers False with the registers untouched."""
    regs = registers(range(16), rip=ENTRY)
    before = regs.copy()
    for raw in ("e800000000", "7405", "0f05", "8b07", "c5f828c1", "e2f0", "4883c3ff", "00e0", "8ed8", "668f00"):
        first = entry.decode_first(bytes.fromhex(raw), ENTRY)
        expected = raw == "4883c3ff"
        assert entry.emulate(first, regs.copy(), NoMemory()) == expected, first.text
    assert regs == before


def test_resume_offsets_are_the_instruction_boundaries():
    """Each offset of a copy that has an original address is one where an instruction of the copy begins."""
    for raw in ("55", "7405", "e2f0", "e800000000", "ffd0", "eb10", "c3"):
        first = entry.decode_first(bytes.fromhex(raw), ENTRY)
        for at in (NEAR, FAR):
            copy = entry.build_copy(first, at)
            starts, offset = set(), 0
            while offset < len(copy.code):
                insn = next(entry._decoder.disasm(copy.code[offset:], at + offset, 1), None)
                if insn is None:
                    break
                starts.add(offset)
                offset += insn.size + (8 if insn.bytes == b"\xff\x25\0\0\0\0" else 0)
            assert set(copy.resume) <= starts


def test_an_emulator_takes_microseconds():
    """The emulator of a guard-rejected call is far cheaper than the stop around it."""
    regs, memory = registers(rsp=1 << 40), type("Sink", (), {"write": lambda *args: None})()
    for raw in ("55", "4883ec28", "4889f8", "31c0", "f30f1efa"):
        emulator = entry.compile_emulation(entry.decode_first(bytes.fromhex(raw), ENTRY))
        best = min(_seconds(emulator, regs, memory) for _ in range(5))
        assert best / 1000 < 20e-6


def _seconds(emulator, regs, memory):
    start = time.perf_counter()
    for _ in range(1000):
        emulator(regs, memory)
    return time.perf_counter() - start


LIBRARIES = ("libc.so.6", "libcrypto.so.3", "libz.so.1", "libpython3*.so.1.0", "libstdc++.so.6")


def library_files():
    found = []
    for name in LIBRARIES:
        found += sorted(glob.glob(f"/lib/x86_64-linux-gnu/{name}") + glob.glob(f"/usr/lib64/{name}"))[:1]
    site = Path(sysconfig.get_path("purelib"))
    return [*found, *map(str, sorted(site.glob("numpy.libs/*openblas*")))]


def exported_functions(path):
    """address -> (name, up to 15 bytes of code) of every defined function symbol in .dynsym."""
    with open(path, "rb") as stream:
        elf = ELFFile(stream)
        segments = [segment for segment in elf.iter_segments("PT_LOAD") if segment["p_flags"] & 1]
        functions = {}
        for symbol in elf.get_section_by_name(".dynsym").iter_symbols():
            address = symbol["st_value"]
            if symbol["st_info"]["type"] not in ("STT_FUNC", "STT_LOOS") or symbol["st_shndx"] == "SHN_UNDEF":
                continue
            for segment in segments:
                offset = address - segment["p_vaddr"]
                if 0 <= offset < segment["p_filesz"]:
                    stream.seek(segment["p_offset"] + offset)
                    functions[address] = (symbol.name, stream.read(min(15, segment["p_filesz"] - offset)))
    return functions


@pytest.mark.parametrize("path", library_files(), ids=lambda path: Path(path).name)
def test_functions_of_real_libraries_can_be_passed(path):
    """Every exported function decodes, more than 99.5 % relocate within reach; the exceptions are printed."""
    functions = exported_functions(path)
    assert functions
    refused, far_refused, emulated_kinds, other_kinds = [], 0, Counter(), Counter()
    for address, (name, code) in functions.items():
        first = entry.decode_first(code, CODE + address)
        kinds = other_kinds if entry.compile_emulation(first) is None else emulated_kinds
        kinds[first.insn.mnemonic] += 1
        try:
            entry.relocate(first, NEAR)
        except NotPossible as error:
            refused.append(f"{name}: {error}")
        try:
            entry.relocate(first, FAR)
        except NotPossible:
            far_refused += 1
    total = len(functions)
    print(
        f"\n{Path(path).name}: {total} functions, relocated {1 - len(refused) / total:.2%}"
        f" (2 GiB away {1 - far_refused / total:.2%}), emulated {emulated_kinds.total() / total:.1%};"
        f" not emulated: {dict(other_kinds.most_common(8))}",
        *refused,
        sep="\n  ",
    )
    assert len(refused) < 0.005 * total
