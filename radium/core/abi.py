"""Where a function's arguments lie when a thread stands at its entry, and their values by name.

An argument of class INTEGER (integers, enums, pointers) takes the next of rdi, rsi, rdx, rcx, r8, r9; one of class SSE
(float, double) the next of xmm0 to xmm7; what finds no register takes the next eightbyte of the stack, the first of
which lies at rsp + 8, above the return address. Bits above an argument's own size are undefined and are cut off.

Sources: System V psABI for AMD64, 3.2.3 (parameter passing), figure 3.4 (register usage).
"""

import operator
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, SupportsIndex

from radium.core.regs import INTEGER_ARGUMENTS, U64, Registers
from radium.errors import RemoteFault

NFLOAT_REGISTERS = 8
EIGHTBYTE = 8
_FLOAT_FORMATS = {4: struct.Struct("<f"), 8: struct.Struct("<d")}

ReadXmm = Callable[[int], bytes]
ReadMemory = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Scalar:
    """An integer of 1, 2, 4 or 8 bytes, or an IEEE 754 float of 4 or 8."""

    kind: Literal["int", "float"]
    size: int
    signed: bool = True

    def decode(self, raw: bytes) -> int | float:
        """The value of the first `size` bytes; raw may be longer."""
        if self.kind == "int":
            return int.from_bytes(raw[: self.size], "little", signed=self.signed)
        value: float = _FLOAT_FORMATS[self.size].unpack_from(raw)[0]
        return value


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer; to is None where the element cannot be read (void, structs, functions, unknown types)."""

    to: "Type | None" = None


Type = Scalar | Pointer
INT64 = Scalar("int", 8, True)


class RemotePointer(int):
    """An address in another process; as an int it is the address, so adding to it counts bytes.

    `p[i]` reads element i: raises RemoteFault where there is no memory, TypeError where the element has no known type.
    """

    to: Type | None
    read_memory: ReadMemory

    def __new__(cls, address: int, to: Type | None, read_memory: ReadMemory) -> "RemotePointer":
        pointer = super().__new__(cls, address)
        pointer.to = to
        pointer.read_memory = read_memory
        return pointer

    @property
    def address(self) -> int:
        return int(self)

    def __getitem__(self, index: SupportsIndex) -> "int | float | RemotePointer":
        if self.to is None:
            raise TypeError("a pointer to an unknown type cannot be read through")
        size = self.to.size if isinstance(self.to, Scalar) else EIGHTBYTE
        address = self + operator.index(index) * size
        if not 0 <= address <= U64 - size:
            raise RemoteFault("element beyond the address space")
        return _decode(self.to, self.read_memory(address, size), self.read_memory)


def _decode(type_: Type, raw: bytes, read_memory: ReadMemory) -> int | float | RemotePointer:
    if isinstance(type_, Scalar):
        return type_.decode(raw)
    return RemotePointer(int.from_bytes(raw[:EIGHTBYTE], "little"), type_.to, read_memory)


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Place:
    """Where one argument lies: `where` is a register's name, its number, or bytes above rsp, as `kind` says."""

    kind: Literal["integer", "xmm", "stack"]
    where: str | int


def _places(parameters: tuple[Parameter, ...]) -> Iterator[Place]:
    """psABI 3.2.3, "Passing": each class counts its own registers; the stack is shared, in order."""
    integers = iter(INTEGER_ARGUMENTS)
    floats = iter(range(NFLOAT_REGISTERS))
    stack_offset = EIGHTBYTE
    for parameter in parameters:
        is_float = isinstance(parameter.type, Scalar) and parameter.type.kind == "float"
        register = next(floats, None) if is_float else next(integers, None)
        if register is None:
            yield Place("stack", stack_offset)
            stack_offset += EIGHTBYTE
        else:
            yield Place("xmm" if is_float else "integer", register)


@dataclass(frozen=True)
class Signature:
    """A C function's declaration, as far as its arguments can be read.

    result: None for void, which `is_void` tells, and for what no single register holds. Arguments passed for `...` have no
    name.
    Parameter i is also called `arg<i>`.
    """

    name: str
    result: Type | None
    parameters: tuple[Parameter, ...]
    variadic: bool = False
    is_void: bool = field(default=False, compare=False)
    _reads: dict[str, tuple[Type, Place]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        reads: dict[str, tuple[Type, Place]] = {}
        for index, (parameter, place) in enumerate(zip(self.parameters, _places(self.parameters), strict=True)):
            reads[f"arg{index}"] = reads[parameter.name] = (parameter.type, place)
        object.__setattr__(self, "_reads", reads)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name an expression may use: the parameters' own and arg0, arg1, ..."""
        return tuple(self._reads)

    def type_of(self, name: str) -> Type:
        """Raises KeyError for a name that is not among `names`."""
        return self._reads[name][0]

    def place_of(self, name: str) -> Place:
        """Raises KeyError for a name that is not among `names`."""
        return self._reads[name][1]

    def bind(self, regs: Registers, read_xmm: ReadXmm, read_memory: ReadMemory) -> Mapping[str, object]:
        """The arguments of a thread at the function's first instruction, each read when it is first asked for.

        read_xmm(i) returns at least the low 8 bytes of xmm<i>; read_memory(address, nbytes) exactly nbytes or raises
        RemoteFault, which passes through. Values are int, float or RemotePointer.
        """
        return _Arguments(self._reads, regs, read_xmm, read_memory)


class _Arguments(Mapping[str, object]):
    __slots__ = ("_read_memory", "_read_xmm", "_reads", "_regs", "_values")

    def __init__(
        self, reads: dict[str, tuple[Type, Place]], regs: Registers, read_xmm: ReadXmm, read_memory: ReadMemory
    ) -> None:
        self._reads = reads
        self._regs = regs
        self._read_xmm = read_xmm
        self._read_memory = read_memory
        self._values: dict[str, object] = {}

    def __getitem__(self, name: str) -> object:
        try:
            return self._values[name]
        except KeyError:
            value = self._values[name] = self._read(*self._reads[name])
            return value

    def _read(self, type_: Type, place: Place) -> int | float | RemotePointer:
        return _decode(type_, self._raw(place), self._read_memory)

    def _raw(self, place: Place) -> bytes:
        if place.kind == "integer":
            register: int = getattr(self._regs, str(place.where))
            return (register & U64).to_bytes(EIGHTBYTE, "little")
        if place.kind == "xmm":
            return self._read_xmm(int(place.where))
        return self._read_memory(self._regs.rsp + int(place.where), EIGHTBYTE)

    def __iter__(self) -> Iterator[str]:
        return iter(self._reads)

    def __len__(self) -> int:
        return len(self._reads)


# For functions without a signature: the six integer registers, unsigned, readable as pointers to 64-bit integers.
DEFAULT = Signature("", None, tuple(Parameter(f"arg{i}", Pointer(INT64)) for i in range(len(INTEGER_ARGUMENTS))))
