"""The annex as bytes: its layout, its listing, its table, and the way back out of it."""

import shutil
import struct
import subprocess

import capstone
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.errors import NotPossible
from radium.tracer import annex as annex_module
from radium.tracer.annex import SA_RESTART, SIG_DFL, SIG_IGN, Annex
from radium.tracer.entry import MAX_COPY_NBYTES, decode_first, relocate

BASE = 0x7F00_0000_0000
ENTRY = BASE + 0x10_0000
PUSH_RBP, SUB_RSP, JE, CALL = b"\x55", b"\x48\x83\xec\x28", b"\x74\x10", b"\xe8\x00\x01\x00\x00"
TABLE = 0x200


def rows(image):
    """The table as the handler reads it."""
    found = {}
    while (row := struct.unpack_from("<2Q", image, TABLE + 16 * len(found)))[0]:
        found[row[0]] = row[1]
    return found


def disassemble(code, address):
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return list(decoder.disasm(code, address))


def test_the_listing_says_what_the_bytes_do():
    """Every instruction of the hand-assembled code is the one that its line names."""
    lines = [line.partition(";") for line in annex_module._LISTING.splitlines()]
    written = [text.split() for code, _, text in lines if code.strip() and not code.strip().endswith(":")]
    code = annex_module._CODE
    decoded = disassemble(code, 0)
    assert sum(insn.size for insn in decoded) == len(code)
    assert [insn.mnemonic for insn in decoded] == [{"jz": "je"}.get(words[0], words[0]) for words in written]
    assert annex_module._CODE_OFFSET + len(code) <= TABLE


def test_a_copy_and_its_row():
    """An added entry has its relocated copy in the image and one row that leads from entry+1 to it."""
    annex = Annex(BASE, 4096)
    copy = annex.add(decode_first(PUSH_RBP, ENTRY))
    image = annex.image()
    assert rows(image) == {ENTRY + 1: copy}
    code = relocate(decode_first(PUSH_RBP, ENTRY), copy)
    assert image[copy - BASE :].startswith(code)
    assert (annex.copy_of(ENTRY), annex.entry_of(copy), annex.entry_of(copy + 3)) == (copy, ENTRY, ENTRY)
    assert annex.copy_of(ENTRY + 1) is None
    assert annex.entry_of(annex.handler) is None


def test_adding_again_is_the_same_copy_unless_the_code_changed():
    """A re-armed entry keeps its copy; another library at the same address gets a new one in the same row."""
    annex = Annex(BASE, 4096)
    first = annex.add(decode_first(PUSH_RBP, ENTRY))
    other = annex.add(decode_first(PUSH_RBP, ENTRY + 16))
    assert annex.add(decode_first(PUSH_RBP, ENTRY)) == first
    replaced = annex.add(decode_first(SUB_RSP, ENTRY))
    assert rows(annex.image()) == {ENTRY + 1: replaced, ENTRY + 17: other}
    assert len({first, other, replaced}) == 3
    assert annex.entry_of(first) == ENTRY


@given(st.lists(st.tuples(st.integers(0, 500), st.booleans()), max_size=60))
def test_pending_pieces_make_the_image(additions):
    """Writing each pending piece when it is asked for always gives the image, and a row follows its copy."""
    annex, memory = Annex(BASE, 8192), bytearray(8192)
    for number, ask in additions:
        annex.add(decode_first(PUSH_RBP, ENTRY + 16 * number))
        if ask:
            write(memory, annex)
    write(memory, annex)
    assert memory == annex.image()
    assert annex.pending() == []


def write(memory, annex):
    for address, data in annex.pending():
        memory[address - BASE : address - BASE + len(data)] = data
        for copy in rows(memory).values():
            assert memory[copy - BASE] == PUSH_RBP[0]


def test_a_full_annex_refuses():
    """The last slot is used, the next breakpoint is refused in words, and the table still ends with a zero key."""
    annex = Annex(BASE, 4096)
    for number in range(annex.capacity):
        annex.add(decode_first(PUSH_RBP, ENTRY + 16 * number))
    with pytest.raises(NotPossible, match=f"{annex.capacity} are there"):
        annex.add(decode_first(PUSH_RBP, ENTRY - 16))
    assert len(rows(annex.image())) == annex.capacity > 64


def test_a_refused_instruction_takes_no_slot():
    """An instruction that cannot be relocated leaves the annex as it was."""
    annex = Annex(BASE, 4096)
    annex.pending()
    with pytest.raises(NotPossible):
        annex.add(decode_first(b"\xcc", ENTRY))
    assert (annex.pending(), rows(annex.image())) == ([], {})


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (PUSH_RBP, {0: ENTRY, 1: ENTRY + 1}),
        (SUB_RSP, {0: ENTRY, 4: ENTRY + 4}),
        (JE, {0: ENTRY, 2: ENTRY + 2, 7: ENTRY + 0x12}),
        (CALL, {0: ENTRY, 6: ENTRY + 0x105}),
        (b"\xff\xd0", {0: ENTRY}),
    ],
)
def test_a_thread_in_a_copy_has_an_original_address(raw, expected):
    """At an instruction boundary a thread goes on at the matching original address; between two halves it must run."""
    annex = Annex(BASE, 4096)
    copy = annex.add(decode_first(raw, ENTRY))
    found = {offset: annex.resume_address(copy + offset) for offset in range(MAX_COPY_NBYTES)}
    assert {offset: address for offset, address in found.items() if address is not None} == expected
    assert annex.resume_address(ENTRY + 1) == ENTRY + 1
    assert annex.resume_address(annex.handler) is annex.resume_address(annex.park) is None


def test_gadget_and_park():
    """The gadget is a system call and a trap; behind it lies the loop of pause that keeps a thread."""
    annex = Annex(BASE, 4096)
    image = annex.image()
    assert image[annex.gadget - BASE :].startswith(b"\x0f\x05\xcc")
    assert annex.park == annex.gadget + 3
    loop = disassemble(image[annex.park - BASE :][:12], annex.park)
    texts = [f"{insn.mnemonic} {insn.op_str}".strip() for insn in loop]
    assert texts == ["mov eax, 0x22", "syscall", f"jmp {annex.park:#x}"]


def test_the_sigaction_names_handler_and_restorer():
    """The kernel's struct holds handler, flags, restorer and an empty mask; an ignored trap restarts system calls."""
    annex = Annex(BASE, 4096)
    handler, flags, restorer, mask = struct.unpack("<4Q", annex.kernel_sigaction())
    assert (handler, flags, restorer, mask) == (annex.handler, 0x4C000004, annex.restorer, 0)
    for old_handler, old_flags, restarts in ((SIG_DFL, 0, False), (SIG_IGN, 0, True), (0x401000, SA_RESTART, True)):
        action = Annex(BASE, 4096, old_handler=old_handler, old_flags=old_flags).kernel_sigaction()
        assert bool(struct.unpack("<4Q", action)[1] & SA_RESTART) == restarts


@pytest.mark.parametrize(("base", "nbytes"), [(BASE + 1, 4096), (BASE, 0), (BASE, 5000)])
def test_an_annex_is_whole_pages(base, nbytes):
    """A base or size that mmap would not take is a programming error, found at once."""
    with pytest.raises(ValueError, match="whole pages"):
        Annex(base, nbytes)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
def test_the_offsets_that_the_handler_reads(tmp_path):
    """The saved rip, si_code and the constants are where the C library's headers have them."""
    source, program = tmp_path / "offsets.c", tmp_path / "offsets"
    source.write_text(
        """
        #define _GNU_SOURCE
        #include <signal.h>
        #include <stddef.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <ucontext.h>
        int main(void) {
            printf("%zu %zu %d %d %d %d %d %d %d %d %d", offsetof(ucontext_t, uc_mcontext.gregs[REG_RIP]),
                   offsetof(siginfo_t, si_code), SI_KERNEL, SIGTRAP, SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_getpid,
                   SYS_gettid, SYS_rt_tgsigqueueinfo, SYS_tgkill, SYS_pause);
        }
        """
    )
    subprocess.run(["gcc", "-o", program, source], check=True)
    printed = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert printed == "168 8 128 5 13 14 39 186 297 234 34"
