"""Seccomp filters, assembled (seccomp(2), Documentation/userspace-api/seccomp_filter.rst). No policy: the caller decides.

A filter is classic BPF over `struct seccomp_data`: nr at 0, arch at 4, instruction_pointer at 8, args at 16.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ALLOW = 0x7FFF0000
TRACE = 0x7FF00000
AUDIT_ARCH_X86_64 = 0xC000003E
SET_MODE_FILTER = 1

_INSTRUCTION = struct.Struct("<HBBI")
_LOAD, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_NR, _ARCH, _IP, _ARGS = 0, 4, 8, 16

Instruction = tuple[int, int, int, int]


def _load(offset: int) -> Instruction:
    return (_LOAD, 0, 0, offset)


def _unless_equal_skip(value: int, skip: int) -> Instruction:
    return (_JUMP_EQUAL, 0, skip, value)


def _return(action: int) -> Instruction:
    return (_RETURN, 0, 0, action)


class Rule(NamedTuple):
    """A call that is allowed: any, or only when `argument` has the `value` (its low half is equal, or has some of the bits)."""

    number: int
    argument: int | None = None
    value: int = 0
    bits: bool = False


def _allow(number: int) -> list[Instruction]:
    """Falls through for others; expects the number to be loaded."""
    return [_unless_equal_skip(number, 1), _return(ALLOW)]


def _allow_rule(rule: Rule) -> list[Instruction]:
    if rule.argument is None:
        return _allow(rule.number)
    test = _JUMP_SET if rule.bits else _JUMP_EQUAL
    return [
        _unless_equal_skip(rule.number, 4),
        _load(_ARGS + 8 * rule.argument),
        (test, 0, 1, rule.value),
        _return(ALLOW),
        _load(_NR),
    ]


def build(*, harmless: Iterable[Rule], own_addresses: Sequence[int], own: Iterable[Rule], otherwise: int) -> bytes:
    """A filter that allows `harmless` everywhere, and from `own_addresses` (instruction pointers behind `syscall`) also `own`.

    Everything else, other architectures included, is answered with `otherwise`.
    """
    program: list[Instruction] = [
        _load(_ARCH), (_JUMP_EQUAL, 1, 0, AUDIT_ARCH_X86_64), _return(otherwise), _load(_NR),
    ]  # fmt: skip
    for rule in harmless:
        program += _allow_rule(rule)
    own_part = [_load(_NR), *(step for rule in own for step in _allow_rule(rule)), _return(otherwise)]
    for address in own_addresses:
        program += [
            _load(_IP),
            _unless_equal_skip(address & 0xFFFFFFFF, len(own_part) + 2),
            _load(_IP + 4),
            _unless_equal_skip(address >> 32, len(own_part)),
            *own_part,
        ]
    program.append(_return(otherwise))
    return b"".join(_INSTRUCTION.pack(*step) for step in program)
