"""Arguments at a function's entry, as the psABI places them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core.abi import DEFAULT, Parameter, Pointer, Scalar, Signature
from radium.core.expr import Expression
from radium.core.regs import INTEGER_ARGUMENTS, Registers
from radium.errors import ExpressionError, RemoteFault

INT, UINT, CHAR, LONG = Scalar("int", 4), Scalar("int", 4, False), Scalar("int", 1), Scalar("int", 8)
FLOAT, DOUBLE = Scalar("float", 4), Scalar("float", 8)
STACK = 0x7000


class Machine:
    """Registers, vector registers and memory that a test fills in."""

    def __init__(self):
        self.regs = Registers(*[0] * 27)
        self.regs.rsp = STACK
        self.xmm = [bytes(16)] * 8
        self.memory = {}
        self.nreads = 0

    def put(self, address, raw):
        self.memory.update((address + i, byte) for i, byte in enumerate(raw))

    def read_xmm(self, index):
        return self.xmm[index]

    def read_memory(self, address, nbytes):
        self.nreads += 1
        try:
            return bytes(self.memory[address + i] for i in range(nbytes))
        except KeyError:
            raise RemoteFault(f"nothing at {address:#x}") from None

    def bind(self, signature):
        return signature.bind(self.regs, self.read_xmm, self.read_memory)


def signature(*types):
    return Signature("f", None, tuple(Parameter(f"p{i}", type_) for i, type_ in enumerate(types)))


def test_example_of_the_psabi():
    """Figure 3.5's call func(e, f, s, g, h, ld, m, y, n, i, j, k), without its struct, long double and __m256."""
    machine = Machine()
    for register, value in zip(INTEGER_ARGUMENTS, range(1, 7), strict=True):
        setattr(machine.regs, register, value)
    machine.xmm[0], machine.xmm[1] = struct.pack("<dd", 1.5, 9.0), struct.pack("<dd", 2.5, 9.0)
    machine.put(STACK + 8, struct.pack("<qqq", 7, 8, 9))
    bound = machine.bind(signature(INT, INT, INT, INT, DOUBLE, DOUBLE, INT, INT, INT, INT, LONG))
    assert [bound[f"p{i}"] for i in range(11)] == [1, 2, 3, 4, 1.5, 2.5, 5, 6, 7, 8, 9]


def test_ninth_float_goes_to_the_stack():
    """Floats beyond xmm7 share the stack with integers beyond r9, in the order of the arguments."""
    machine = Machine()
    machine.put(STACK + 8, struct.pack("<d", 8.25) + struct.pack("<q", -6) + struct.pack("<ff", 0.5, 99.0))
    bound = machine.bind(signature(*[DOUBLE] * 9, *[LONG] * 7, FLOAT))
    assert (bound["p8"], bound["p15"], bound["p16"]) == (8.25, -6, 0.5)


@pytest.mark.parametrize(
    ("type_", "register", "value"),
    [
        (INT, 0xDEADBEEF_FFFFFFFE, -2),
        (UINT, 0xDEADBEEF_FFFFFFFE, 0xFFFFFFFE),
        (CHAR, 0x1234FF, -1),
        (Scalar("int", 1, False), 0x1234FF, 255),
        (Scalar("int", 2), 0x8000, -(2**15)),
        (LONG, 2**64 - 1, -1),
        (Scalar("int", 8, False), 2**64 - 1, 2**64 - 1),
    ],
)
def test_bits_above_the_size_do_not_count(type_, register, value):
    """An integer is cut to its size and extended as its sign says."""
    machine = Machine()
    machine.regs.rdi = register
    assert machine.bind(signature(type_))["arg0"] == value


def test_names_and_places():
    """A parameter answers to its name and to its place; nothing else does."""
    bound = Machine().bind(signature(INT, DOUBLE))
    assert set(bound) == {"p0", "p1", "arg0", "arg1"} == set(signature(INT, DOUBLE).names)
    with pytest.raises(KeyError):
        bound["arg2"]


def test_arguments_are_read_when_asked_for_and_once():
    """Binding reads nothing; an argument on the stack is read at its first use only."""
    machine = Machine()
    machine.put(STACK + 8, struct.pack("<q", 5))
    bound = machine.bind(signature(*[INT] * 7))
    assert machine.nreads == 0
    assert bound["p6"] + bound["p6"] == 10
    assert machine.nreads == 1


def test_pointers_read_elements_of_their_type():
    """p[i] steps by the element's size, forwards and backwards; a pointer to pointers yields pointers."""
    machine = Machine()
    machine.regs.rdi, machine.regs.rsi, machine.regs.rdx = 0x1004, 0x2000, 0x1000
    machine.put(0x1000, struct.pack("<iii", -1, 2, 3))
    machine.put(0x2000, struct.pack("<Q", 0x1000))
    bound = machine.bind(signature(Pointer(INT), Pointer(Pointer(INT)), Pointer(CHAR)))
    assert [bound["p0"][i] for i in (-1, 0, 1)] == [-1, 2, 3]
    assert bound["p1"][0][2] == 3
    assert bound["p0"].address == bound["p0"] == 0x1004
    assert Expression.compile("p0 != 0 and p2[0] == -1 and p0 + 4 == 4104", bound).evaluate(bound)


@pytest.mark.parametrize("text", ["p0[0]", "p0[2**61]", "p1[0]", "p0[-2**62]", "p0[0.5]"])
def test_unreadable_elements(text):
    """Absent memory, addresses outside the address space and elements without a type are ExpressionErrors."""
    machine = Machine()
    machine.regs.rdi = 0x1000
    bound = machine.bind(signature(Pointer(INT), Pointer(None)))
    with pytest.raises(ExpressionError):
        Expression.compile(text, bound).evaluate(bound)


def test_default_names_the_six_registers():
    """Without a signature arg0 to arg5 are unsigned registers, readable as 64-bit integers."""
    machine = Machine()
    machine.regs.rdi, machine.regs.r9 = 2**64 - 1, 0x1000
    machine.put(0x1000, struct.pack("<q", -3))
    bound = machine.bind(DEFAULT)
    assert bound["arg0"] == 2**64 - 1
    assert bound["arg5"][0] == -3
    assert len(bound) == 6


@given(st.lists(st.tuples(st.sampled_from([INT, LONG, DOUBLE, FLOAT]), st.integers(-100, 100)), max_size=24))
def test_any_mixture_comes_back(arguments):
    """Whatever mixture of arguments is placed by the rules of 3.2.3 is read back."""
    machine = Machine()
    integers, nfloats, offset = list(INTEGER_ARGUMENTS), 0, 8
    for type_, value in arguments:
        raw = struct.pack({INT: "<i", LONG: "<q", DOUBLE: "<d", FLOAT: "<f"}[type_], value).ljust(8, b"\xaa")
        if type_.kind == "int" and integers:
            setattr(machine.regs, integers.pop(0), int.from_bytes(raw, "little"))
        elif type_.kind == "float" and nfloats < 8:
            machine.xmm[nfloats] = raw.ljust(16, b"\xaa")
            nfloats += 1
        else:
            machine.put(STACK + offset, raw)
            offset += 8
    bound = machine.bind(signature(*[type_ for type_, _ in arguments]))
    assert [bound[f"arg{i}"] for i in range(len(arguments))] == [value for _, value in arguments]
