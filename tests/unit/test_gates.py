"""The gates: what their listing says, and where everything lies."""

import capstone

from radium.tracer.python import gates as layout
from radium.tracer.python.gates import Gates


def disassemble(code, address):
    return list(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64).disasm(code, address))


def without_sizes(text):
    return text.replace("qword ptr", "").replace("dword ptr", "").replace(" ", "")


def test_the_listing_says_what_the_bytes_do():
    """Every instruction of the hand-assembled code is the one that its line names, operands that are no labels included."""
    lines = [line.partition(";") for line in layout._LISTING.splitlines()]
    written = [(code, " ".join(text.split("  ")[0].split())) for code, _, text in lines if code.strip()]
    decoded = iter(disassemble(layout.CODE, 0))
    for code, text in written:
        if code.strip().endswith(":"):
            continue
        insn = next(decoded)
        said, decoded_text = text, f"{insn.mnemonic} {insn.op_str}".strip()
        if "@" in code:
            # The instruction, and its registers before the label.
            said = text.partition("[")[0] if "[" in text else text.split()[0]
        assert without_sizes(decoded_text).startswith(without_sizes(said)), text
    assert next(decoded, None) is None


def test_a_gate_leads_where_it_should():
    """It puts its number into eax and jumps to the code of its kind."""
    gates = Gates(0x7F0000000000)
    for number, kind in ((0, "common"), (7, "checked"), (layout.MOST - 1, "making")):
        at = gates.address(number)
        code = gates.gate(number, kind)
        load, jump, *rest = disassemble(code, at)
        assert (load.mnemonic, load.op_str) == ("mov", f"eax, {hex(number) if number > 9 else number}")
        assert (jump.mnemonic, int(jump.op_str, 16)) == ("jmp", gates.base + layout.LABELS[kind])
        assert len(code) == layout.GATE_NBYTES and all(insn.mnemonic == "int3" for insn in rest)


def test_nothing_overlaps():
    """Data words, tables, room, code and gates are apart, and the last gate is in the mapping."""
    gates = Gates(0x10000)
    tables = [gates.row(name, 0) for name in ("targets", "guards", "rejected", "failed", "bases")]
    ends = [gates.row(name, layout.MOST) for name in ("targets", "guards", "rejected", "failed", "bases")]
    assert gates.base + 8 * len(layout.WORDS) <= tables[0]
    assert all(end <= start for end, start in zip(ends, [*tables[1:], gates.room], strict=True))
    assert gates.room + layout.ROOM_NBYTES <= gates.code[0]
    assert gates.code[0] + len(layout.CODE) <= gates.address(0)
    assert gates.address(layout.MOST) == gates.end == gates.code[1]
