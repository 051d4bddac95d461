"""Comparing two outcomes of a call: which words are equal, and what a difference is called."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core.abi import Pointer, Scalar
from radium.core.addr import PAGE_SIZE
from radium.core.compare import Argument, Moved, Rules, State, differences, mask, register_difference
from radium.core.regs import Registers
from radium.profiles.signature import parse_signature

START = 0x7000_0000
DOUBLE, FLOAT, LONG = Scalar("float", 8), Scalar("float", 4), Scalar("int", 8)


def page(*words: bytes) -> bytes:
    return b"".join(words).ljust(PAGE_SIZE, b"\0")


def double(value: float) -> bytes:
    return struct.pack("<d", value)


def word(value: int) -> bytes:
    return struct.pack("<Q", value)


def argument(type_: Scalar | None, nbytes: int = PAGE_SIZE) -> Argument:
    return Argument("c", START, START + nbytes, type_)


def found(mirror: bytes, home: bytes, rules: Rules = Rules()) -> list[int]:
    return [one.address - START for one in differences(START, mirror, home, rules)]


@given(st.binary(min_size=64, max_size=64), st.binary(min_size=64, max_size=64))
def test_exact_without_tolerance(mirror, home):
    """Without rules, every word that differs is told, by its first byte that does."""
    expected = [
        next(at + i for i in range(8) if mirror[at + i] != home[at + i])
        for at in range(0, 64, 8)
        if mirror[at : at + 8] != home[at : at + 8]
    ]
    assert found(page(mirror), page(home)) == expected


def test_tolerance_by_type():
    """Doubles and floats of typed arguments by element; integers exactly; untyped words if they are normal doubles."""
    near, far = double(1.0) + double(2.0), double(1.0 + 1e-13) + double(2.0 + 1e-3)
    for rules in (Rules(1e-12), Rules(1e-12, [argument(DOUBLE)]), Rules(1e-12, [argument(None)])):
        assert [at // 8 for at in found(page(near), page(far), rules)] == [1]
    assert [at // 8 for at in found(page(near), page(far), Rules(1e-12, [argument(LONG)]))] == [0, 1]
    singles = struct.pack("<4f", 1, 2, 3, 4), struct.pack("<4f", 1.00001, 2, 3, 4.1)
    assert found(page(singles[0]), page(singles[1]), Rules(1e-4, [argument(FLOAT)])) == [12]


def test_pointers_are_no_doubles():
    """Addresses and small integers that are close by are denormal doubles, and different."""
    rules = Rules(1e-3)
    assert found(page(word(0x7F12_3456_7890)), page(word(0x7F12_3456_78A0)), rules) == [0]
    assert found(page(word(1_000_001)), page(word(1_000_002)), rules) == [0]


@pytest.mark.parametrize("value", [math.inf, -math.inf, 0.0])
def test_not_close(value):
    assert found(page(double(value)), page(double(1.0)), Rules(0.5, [argument(DOUBLE)])) == [0]


def test_nan_is_nan():
    """Whatever its payload."""
    assert not found(page(word(0x7FF8_0000_0000_0001)), page(word(0x7FF8_0000_0000_0002)), Rules(1e-9, [argument(DOUBLE)]))


def test_pointers_into_moved_mappings():
    """A word that points into a mapping of the mirror's equals one that points to the same place of home's."""
    rules = Rules(moved=[Moved(0x10000, 0x50000, 0x2000)])
    assert not found(page(word(0x11FF8)), page(word(0x51FF8)), rules)
    assert found(page(word(0x11FF8)), page(word(0x51FF0)), rules) and found(page(word(0x12000)), page(word(0x52000)), rules)


def test_arguments_are_named():
    """By element where the type is known; of several that overlap, the last that begins."""
    rules = Rules(arguments=[argument(DOUBLE), Argument("d", START + 64, START + 128, None)])
    assert [rules.argument_at(START + at).describe(START + at) for at in (17, 63, 72, 200)] == ["c[2]", "c[7]", "d + 0x8", "c[25]"]
    assert rules.argument_at(START + PAGE_SIZE) is None


def test_masked_bytes_are_equal():
    mirror = bytearray(b"a" * 32)
    mask(START, mirror, b"b" * 32, [(START - 8, START + 4), (START + 30, START + 99)])
    assert bytes(mirror) == b"b" * 4 + b"a" * 26 + b"b" * 2


# Registers

XSTATE = bytes(576)


def state(xmm0: bytes = b"", **registers: int) -> State:
    regs = Registers(*[0] * 27)
    for name, value in registers.items():
        setattr(regs, name, value)
    return State(regs, XSTATE[:160] + xmm0.ljust(16, b"\0") + XSTATE[176:])


@pytest.mark.parametrize(
    ("declaration", "mirror", "home", "differs"),
    [
        ("void f(void)", state(rax=1), state(rax=2), ""),
        ("void f(void)", state(rbx=1), state(rbx=2), "rbx"),
        ("int f(void)", state(rax=1 << 32 | 5), state(rax=5), ""),
        ("long f(void)", state(rax=1 << 32 | 5), state(rax=5), "the result (rax)"),
        ("double f(void)", state(double(1)), state(double(1.5)), "the result (xmm0)"),
        ("double f(void)", state(double(1)), state(double(1 + 1e-13)), ""),
        ("float f(void)", state(struct.pack("<ff", 1, 2)), state(struct.pack("<ff", 1, 3)), ""),
        (None, state(rdx=7), state(rdx=8), "rdx"),
        (None, state(rcx=7, rsi=1, r11=2), state(rcx=8), ""),
        (None, state(bytes(8) + b"x"), state(bytes(8) + b"y"), "xmm0's high half"),
    ],
)
def test_registers(declaration, mirror, home, differs):
    """Those of the result, by its type, and those that a function preserves."""
    signature = parse_signature(declaration) if declaration else None
    assert register_difference(mirror, home, signature, Rules(1e-12)).partition(":")[0] == differs


def test_results_in_x87():
    """What lies on top of the x87 stack, if there is something."""
    def with_st0(value: bytes, tags: int) -> State:
        raw = bytearray(XSTATE)
        raw[4], raw[2:4], raw[32 : 32 + len(value)] = tags, (7 << 11).to_bytes(2, "little"), value
        return State(Registers(*[0] * 27), bytes(raw))

    assert not register_difference(with_st0(b"a", 0), with_st0(b"b", 0), None, Rules())
    assert register_difference(with_st0(b"a", 0x80), with_st0(b"b", 0x80), None, Rules()).startswith("st0: ")


def test_pointer_results():
    """A pointer into a mapping that each side has elsewhere is the same result."""
    rules = Rules(moved=[Moved(0x10000, 0x50000, 0x1000)])
    signature = parse_signature("void *f(void)")
    assert signature.result == Pointer(None)
    assert not register_difference(state(rax=0x10010), state(rax=0x50010), signature, rules)
    assert register_difference(state(rax=0x10010), state(rax=0x50018), signature, rules)
