"""Two outcomes of one call, compared: memory word by word, and the registers that a caller may look at.

Words are equal that are the same, that point to the same place of a mapping which each side has somewhere else, or that are
floats within the tolerance. That one is relative, and goes by type: memory behind a pointer argument to `float` or `double`
is compared by element, other typed memory exactly; where no type is known, an aligned word of 8 bytes counts as a double
if it is a normal one on both sides (which pointers and small integers are not).

Sources: System V psABI for AMD64, 3.2.1 (registers that a function preserves), 3.2.3 (returning of values); Intel SDM volume 1,
10.5.1 (legacy region of an XSAVE area).
"""

import math
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from radium.core.abi import Pointer, Scalar, Signature, Type
from radium.core.addr import PAGE_SIZE
from radium.core.pages import Run
from radium.core.regs import Registers

# The name of a register, and its value in the mirror and at home.
Pair = tuple[str, int | float, int | float]
WORD = 8
_DOUBLE = Scalar("float", 8)
_PRESERVED = ("rsp", "rbx", "rbp", "r12", "r13", "r14", "r15")
_DIRECTION_FLAG = 0x400
# Of MXCSR, what a function preserves: all but the status bits.
_MXCSR_CONTROL = 0xFFC0
_CONTROL_WORD, _STATUS_WORD, _TAGS, _MXCSR, _ST0, _XMM0, _XMM1 = 0, 2, 4, 24, 32, 160, 176
_ST_NBYTES = 10
# A double's exponent is that of a normal number: neither 0 (denormal: pointers, small integers) nor all ones.
_SMALLEST_NORMAL = 2.2250738585072014e-308


class Argument(NamedTuple):
    """The memory [start, end) behind a pointer argument. type: of its elements, None where it is not known."""

    name: str
    start: int
    end: int
    type: Scalar | None

    def describe(self, address: int) -> str:
        """`c[17]`; `c + 0x88` where the elements have no type."""
        at = address - self.start
        return f"{self.name} + {at:#x}" if self.type is None else f"{self.name}[{at // self.type.size}]"


class Moved(NamedTuple):
    """A mapping that both sides have made, each at an address of its own."""

    mirror: int
    home: int
    nbytes: int


class Rules(NamedTuple):
    """When words are equal. tolerance: relative, of floats."""

    tolerance: float = 0.0
    arguments: Sequence[Argument] = ()
    moved: Sequence[Moved] = ()

    def argument_at(self, address: int) -> Argument | None:
        """That whose memory it is: of several the one that begins last."""
        there = [argument for argument in self.arguments if argument.start <= address < argument.end]
        return max(there, key=lambda argument: argument.start, default=None)

    def is_same_place(self, there: int, here: int) -> bool:
        """Whether a word of the mirror's and one of home's point to the same byte of a mapping that both have made."""
        return any(
            place.mirror <= there < place.mirror + place.nbytes and here == there - place.mirror + place.home
            for place in self.moved
        )

    def are_close(self, mirror: float, home: float) -> bool:
        """Values whose bytes differ."""
        if not self.tolerance:
            return False
        return math.isclose(mirror, home, rel_tol=self.tolerance) or (math.isnan(mirror) and math.isnan(home))


class Difference(NamedTuple):
    """Of two outcomes, in memory: the element or the byte at which it begins, and the values there."""

    address: int
    mirror: str
    home: str


def differences(start: int, mirror: bytes | bytearray, home: bytes, rules: Rules) -> Iterator[Difference]:
    """Of the contents of [start, start + len), pages: at most one in each word of 8 bytes."""
    for at in range(0, len(mirror), PAGE_SIZE):
        theirs, ours = mirror[at : at + PAGE_SIZE], home[at : at + PAGE_SIZE]
        if theirs == ours:
            continue
        for word, pair in enumerate(zip(struct.iter_unpack("8s", theirs), struct.iter_unpack("8s", ours), strict=True)):
            if pair[0] != pair[1] and (found := _compare_word(start + at + word * WORD, pair[0][0], pair[1][0], rules)):
                yield found


def _compare_word(address: int, mirror: bytes, home: bytes, rules: Rules) -> Difference | None:
    there, here = (int.from_bytes(word, "little") for word in (mirror, home))
    if rules.is_same_place(there, here):
        return None
    at = next(address + i for i in range(WORD) if mirror[i] != home[i])
    argument = rules.argument_at(at)
    if argument is not None and argument.type is not None and (address - argument.start) % argument.type.size == 0:
        return _compare_elements(address, mirror, home, argument.type, rules)
    doubles = _DOUBLE.decode(mirror), _DOUBLE.decode(home)
    is_typed = argument is not None and argument.type is not None
    if not is_typed and all(_is_normal(value) for value in doubles) and rules.are_close(*doubles):
        return None
    return Difference(at, _word_text(there), _word_text(here))


def _compare_elements(address: int, mirror: bytes, home: bytes, type_: Scalar, rules: Rules) -> Difference | None:
    for at in range(0, WORD, type_.size):
        if mirror[at : at + type_.size] != home[at : at + type_.size]:
            there, here = type_.decode(mirror[at:]), type_.decode(home[at:])
            if type_.kind == "int" or not rules.are_close(there, here):
                return Difference(address + at, repr(there), repr(here))
    return None


def _is_normal(value: float) -> bool:
    return math.isfinite(value) and abs(value) >= _SMALLEST_NORMAL


def _word_text(word: int) -> str:
    """As a double too, if it looks like one."""
    value = struct.unpack("<d", struct.pack("<Q", word))[0]
    return f"{word:#x}" + (f" ({value!r})" if _is_normal(value) and 1e-30 < abs(value) < 1e30 else "")


# Registers


class State(NamedTuple):
    """A thread that has just returned: its registers, and its extended state as XSAVE lays it out."""

    regs: Registers
    xstate: bytes


def register_difference(mirror: State, home: State, signature: Signature | None, rules: Rules) -> str:
    """The first register that differs, with its values; "": none. What a function may leave as it likes is not looked at.

    signature: says in which register the result lies; without one, every register is looked at in which one may lie.
    """
    for name, there, here in _registers(mirror, home, signature, rules):
        if there != here:
            return f"{name}: {_value_text(there)} in the mirror, {_value_text(here)} at home"
    return ""


def _value_text(value: int | float) -> str:
    return f"{value:#x}" if isinstance(value, int) else repr(value)


def _registers(mirror: State, home: State, signature: Signature | None, rules: Rules) -> Iterator[Pair]:
    """Those to be compared: name and values; what counts as equal comes as equal."""
    yield from _results(mirror, home, signature, rules)
    for name in _PRESERVED:
        yield name, getattr(mirror.regs, name), getattr(home.regs, name)
    yield "the direction flag", mirror.regs.eflags & _DIRECTION_FLAG, home.regs.eflags & _DIRECTION_FLAG
    yield "mxcsr", _field(mirror, _MXCSR, 4) & _MXCSR_CONTROL, _field(home, _MXCSR, 4) & _MXCSR_CONTROL
    yield "the x87 control word", _field(mirror, _CONTROL_WORD, 2), _field(home, _CONTROL_WORD, 2)


def _results(mirror: State, home: State, signature: Signature | None, rules: Rules) -> Iterator[Pair]:
    if signature is not None and signature.is_void:
        return
    result: Type | None = signature.result if signature is not None else None
    if isinstance(result, Scalar) and result.kind == "float":
        yield "the result (xmm0)", *_floats(result, mirror.xstate[_XMM0:], home.xstate[_XMM0:], rules)
        return
    if result is not None:
        low = (1 << 8 * (WORD if isinstance(result, Pointer) else result.size)) - 1
        yield "the result (rax)", *_words(mirror.regs.rax & low, home.regs.rax & low, rules)
        return
    yield "rax", *_words(mirror.regs.rax, home.regs.rax, rules)
    yield "rdx", *_words(mirror.regs.rdx, home.regs.rdx, rules)
    for name, at in (("xmm0", _XMM0), ("xmm1", _XMM1)):
        yield f"{name}'s low half", *_floats(_DOUBLE, mirror.xstate[at:], home.xstate[at:], rules)
        yield f"{name}'s high half", _field(mirror, at + WORD, WORD), _field(home, at + WORD, WORD)
    yield "st0", _st0(mirror), _st0(home)


def _words(there: int, here: int, rules: Rules) -> tuple[int, int]:
    return (here if rules.is_same_place(there, here) else there), here


def _floats(type_: Scalar, mirror: bytes, home: bytes, rules: Rules) -> tuple[int | float, int | float]:
    """As floats if their bytes differ by more than the tolerance; those that have the same value, as integers."""
    there, here = type_.decode(mirror), type_.decode(home)
    if mirror[: type_.size] == home[: type_.size] or rules.are_close(there, here):
        return 0, 0
    if there != here:
        return there, here
    return int.from_bytes(mirror[: type_.size], "little"), int.from_bytes(home[: type_.size], "little")


def _field(state: State, at: int, nbytes: int) -> int:
    return int.from_bytes(state.xstate[at : at + nbytes], "little")


def _st0(state: State) -> int:
    """What is on top of the x87 stack; 0: it is empty. The abridged tag word has a bit for each physical register."""
    top = _field(state, _STATUS_WORD, 2) >> 11 & 7
    return _field(state, _ST0, _ST_NBYTES) if _field(state, _TAGS, 1) >> top & 1 else 0


def mask(start: int, mirror: bytearray, home: bytes, ignored: Sequence[Run]) -> None:
    """Makes the mirror's contents of [start, start + len) home's where nobody is to look."""
    end = start + len(mirror)
    for first, last in ignored:
        low, high = max(first, start) - start, min(last, end) - start
        if low < high:
            mirror[low:high] = home[low:high]
