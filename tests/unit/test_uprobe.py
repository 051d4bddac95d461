"""Where a uprobe may lie, and what its first instruction leaves behind."""

import pytest

from radium.core.regs import NAMES, Registers
from radium.errors import NotPossible
from radium.tracer.breakpoint import Breakpoint, TraceeMemory
from radium.tracer.entry import compile_emulation, decode_first
from radium.tracer.uprobe import find_place, registers_behind

ENTRY = 0x401000
AFTER = bytes.fromhex("4889f8c3") + bytes(16)  # mov rax, rdi; ret


@pytest.mark.parametrize(
    ("code", "at"),
    [
        ("53", 0),  # push rbx
        ("4157", 0),  # push r15
        ("f30f1efa55", 4),  # endbr64; push rbp
        ("eb10", 0),  # jmp
        ("e900010000", 0),  # jmp
        ("e800010000", 0),  # call
        ("90", 0),  # nop
    ],
)
def test_emulated(code, at):
    """What the kernel emulates gets a uprobe, behind an endbr64."""
    place = find_place(bytes.fromhex(code) + AFTER, ENTRY, only_emulated=True)
    assert place.first.address == ENTRY + at and "emulated" in place.text


@pytest.mark.parametrize(
    ("code", "at"),
    [("4883ec18", 0), ("31c0", 0), ("89f8", 0), ("f30f1efa4889f8", 0), ("ff25000000009090", 0), ("ff7010", None), ("66900f1f00", 0)],
)
def test_stepped(code, at):
    """What the kernel steps through in a page of its own gets one only if that is asked for, and only if it can be undone."""
    raw = bytes.fromhex(code) + AFTER
    with pytest.raises(NotPossible, match="does not emulate"):
        find_place(raw, ENTRY, only_emulated=True)
    if at is None:
        with pytest.raises(NotPossible, match="cannot be undone"):
            find_place(raw, ENTRY, only_emulated=False)
    else:
        assert find_place(raw, ENTRY, only_emulated=False).first.address == ENTRY + at


@pytest.mark.parametrize("code", ["c3", "48897c24f8", "66480f6ec7", "488b07", "ffcf", "e3fe", "cc"])
def test_not_undone(code):
    """ret, stores, XMM registers, loads: a breakpoint."""
    with pytest.raises(NotPossible, match="cannot be undone"):
        find_place(bytes.fromhex(code) + AFTER, ENTRY, only_emulated=False)


@pytest.mark.parametrize("code", ["0f1f440000", "f30f1efa0f1f440000"])
def test_replaced(code):
    """A nop of five bytes at the place would be replaced by the kernel; behind an endbr64 the place is another."""
    with pytest.raises(NotPossible):
        find_place(bytes.fromhex(code) + AFTER, ENTRY, only_emulated=True)


@pytest.mark.parametrize(("code", "rsp", "rip"), [("53", -8, 1), ("e8fb000000", -8, 256), ("eb10", 0, 18), ("90", 0, 1)])
def test_registers_behind(code, rsp, rip):
    """What a thread has behind the instruction, from what it had before."""
    first = decode_first(bytes.fromhex(code) + AFTER, ENTRY)
    before = Registers(*range(1000, 1000 + len(NAMES)))
    before.rip = ENTRY

    class Memory(TraceeMemory):
        def write(self, address, data):
            return

    behind = registers_behind(Breakpoint(ENTRY, first, compile_emulation(first), None), before, Memory(1))
    assert (behind.rsp, behind.rip) == (before.rsp + rsp, ENTRY + rip)
    assert all(getattr(behind, n) == getattr(before, n) for n in NAMES if n not in ("rsp", "rip"))
