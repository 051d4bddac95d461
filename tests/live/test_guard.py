"""Guards as BPF programs against the expressions that they were made from: real uprobes on a function of this process."""

import contextlib
import ctypes
import os
import subprocess

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from radium.bpf import guard, links
from radium.bpf.program import Programs, source
from radium.core.expr import Expression
from radium.core.regs import Registers
from radium.errors import ExpressionError, NotPossible, RemoteFault
from radium.linux import vm
from radium.profiles.signature import parse_signature

pytestmark = pytest.mark.root

NO, YES, UNSURE = range(3)
# What is looked at in the first six lies in registers, the last two on the stack.
SIGNATURE = parse_signature(
    "void tried(long a, unsigned long b, int c, unsigned char d, const int *p, const unsigned short *q, short e, long long f)"
)
NAMES = ("a", "b", "c", "d", "p", "q", "e", "f")
MACROS = """
BPF_ARRAY(verdicts, u64, 64);
static __always_inline void decide(u64 number, u64 verdict)
{
	u32 key = number;
	verdicts.update(&key, &verdict);
}
#define NO { decide(bpf_get_attach_cookie(ctx), 0); return 0; }
#define YES { decide(bpf_get_attach_cookie(ctx), 1); return 0; }
#define UNSURE { decide(bpf_get_attach_cookie(ctx), 2); return 0; }
"""
REGISTERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
RSP = 1 << 40  # for the expression alone: where the stack's arguments are said to lie
NTRIED = 24


class Tried:
    """A function with a uprobe for each of some guards."""

    def __init__(self, folder):
        path = folder / "libtried.so"
        text = "__attribute__((noinline)) void tried(void) { __asm__ volatile(\"nop; nop\"); }\n"
        command = ["gcc", "-O2", "-fcf-protection=none", "-shared", "-fPIC", "-x", "c", "-", "-o", path]
        subprocess.run(command, input=text, text=True, check=True)
        self.path = str(path)
        self.function = ctypes.CDLL(self.path).tried
        address = ctypes.cast(self.function, ctypes.c_void_p).value
        lines = [line.split() for line in open("/proc/self/maps")]  # noqa: SIM115
        spans = [(*(int(part, 16) for part in words[0].split("-")), int(words[2], 16)) for words in lines]
        self.offset = next(address - start + offset for start, end, offset in spans if start <= address < end)
        self.numbers = (ctypes.c_int * 8)(*range(-4, 4))
        self.shorts = (ctypes.c_ushort * 8)(*range(65528, 65536))

    def verdicts(self, guards, tuples):
        """For each tuple of raw arguments what each guard said."""
        bodies = [guard.body(one, SIGNATURE) for one in guards]
        functions = [f"int try_{i}(struct pt_regs *ctx)\n{{\n{body}}}\n" for i, body in enumerate(bodies)]
        programs = Programs(source("guard") + MACROS + "".join(functions))
        with contextlib.ExitStack() as stack:
            stack.callback(programs.close)
            for i in range(len(guards)):
                program = programs.load(f"try_{i}", "uprobe_multi")
                link = links.uprobes(program, self.path, [self.offset], [i], os.getpid())
                stack.callback(link.close)
            table = programs.map("verdicts")
            for raw in tuples:
                self.function(*(ctypes.c_uint64(word) for word in raw))
                yield [int.from_bytes(table.get(i.to_bytes(4, "little")), "little") for i in range(len(guards))]


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    return Tried(tmp_path_factory.mktemp("tried"))


def wanted(expression, raw):
    """As Split.wants."""
    values = dict(zip(REGISTERS, raw, strict=False), rsp=RSP)
    regs = Registers(*(values.get(name, 0) for name in Registers.__slots__))

    def read(address, nbytes):
        if RSP < address < RSP + 64:
            return raw[6 + (address - RSP - 8) // 8].to_bytes(8, "little")
        return vm.read(os.getpid(), address, nbytes)

    try:
        return bool(expression.evaluate(SIGNATURE.bind(regs, lambda number: bytes(16), read)))
    except (ExpressionError, RemoteFault):
        return False


def compile_all(texts):
    return [Expression.compile(text, NAMES) for text in texts]


def raw_of(tried, *, a=0, b=0, c=0, d=0, e=0, f=0, p=None, q=None):
    p = ctypes.addressof(tried.numbers) if p is None else p
    q = ctypes.addressof(tried.shorts) if q is None else q
    return tuple(word & (1 << 64) - 1 for word in (a, b, c, d, p, q, e, f))


words = st.one_of(
    st.integers(-8, 8), st.integers(-(1 << 63), (1 << 64) - 1), st.sampled_from([1 << 31, 1 << 32, 1 << 62, 1 << 63, -(1 << 63)])
)
atoms = st.one_of(
    st.sampled_from(NAMES), st.sampled_from(["p[3]", "q[1]", "p[d % 8]", "q[c & 7]", "p[a]"]), st.integers(-9, 9).map(str),
    st.integers(0, (1 << 63) - 1).map(str),
)  # fmt: skip


def compounds(inner):
    binary = st.sampled_from("+ - * // % & | ^ << >>".split())
    comparison = st.sampled_from("== != < <= > >=".split())
    return st.one_of(
        st.tuples(inner, binary, inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, comparison, inner, comparison, inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(inner, comparison, inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
        st.tuples(st.sampled_from(["-", "~", "not ", "+"]), inner).map(lambda t: f"({t[0]}{t[1]})"),
        st.tuples(inner, st.integers(0, 4)).map(lambda t: f"({t[0]} ** {t[1]})"),
    )


expressions = st.recursive(atoms, compounds, max_leaves=6)


def can_be_compiled(text):
    try:
        guard.body(Expression.compile(text, NAMES), SIGNATURE)
    except (ExpressionError, NotPossible):
        return False
    return True


# Not shrunk: each example is compiled.
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(
    st.lists(expressions.filter(can_be_compiled), min_size=1, max_size=NTRIED),
    st.lists(st.tuples(words, words, words, words, words, words), min_size=1, max_size=40),
)
def test_never_wrong(tried, texts, values):
    """What a program is sure of is what the expression says, whatever the arguments."""
    guards = compile_all(texts)
    tuples = [raw_of(tried, a=a, b=b, c=c, d=d, e=e, f=f) for a, b, c, d, e, f in values]
    for raw, verdicts in zip(tuples, tried.verdicts(guards, tuples), strict=True):
        for expression, verdict in zip(guards, verdicts, strict=True):
            assert verdict == UNSURE or (verdict == YES) == wanted(expression, raw), (expression.text, raw)


@pytest.mark.parametrize(
    ("text", "arguments", "verdict"),
    [
        ("a * b * c >= 2**21", {"a": 128, "b": 128, "c": 128}, YES),
        ("a * b * c >= 2**21", {"a": 128, "b": 128, "c": 127}, NO),
        ("a // 3 == -3 and a % 3 == 2", {"a": -7}, YES),
        ("a // -3 == -3 and a % -3 == -2", {"a": 7}, YES),
        ("c == -1", {"c": 0xFFFFFFFF}, YES),
        ("d == 255", {"d": -1}, YES),
        ("e == -2 and f == 1 << 40", {"e": 0xFFFE, "f": 1 << 40}, YES),
        ("p[0] == -4 and q[7] == 65535", {}, YES),
        ("a / 1 == 1 or True", None, None),
        ("10 // a > 1", {"a": 0}, NO),
        ("a != 0 and 10 // a > 1", {"a": 0}, NO),
        ("a == 0 or 10 // a > 1", {"a": 0}, YES),
        ("1 << a", {"a": -1}, NO),
        ("a ** 3 > 1e6", {"a": 101}, YES),
        ("a > 1e6", {"a": 1000001}, YES),
        # More than 63 bits, and memory that is not there: user space decides.
        ("a * a > 0", {"a": 1 << 40}, UNSURE),
        ("b > 5", {"b": 1 << 63}, UNSURE),
        ("a + 1 > 0", {"a": (1 << 63) - 1}, UNSURE),
        ("a - 1 < 0", {"a": -(1 << 63)}, UNSURE),
        ("-a < 0", {"a": -(1 << 63)}, UNSURE),
        ("a << 3 > 0", {"a": 1 << 61}, UNSURE),
        ("a >> 64 == -1 and a >> 2 == -2", {"a": -7}, YES),
        ("p[0] == 0", {"p": 8}, UNSURE),
        ("p[-3] == 0", {"p": 8}, NO),
        ("a == 1 or p[0] == 0", {"a": 1, "p": 8}, YES),
    ],
)
def test_verdicts(tried, text, arguments, verdict):
    """What can be decided is decided."""
    if arguments is None:
        with pytest.raises(NotPossible):
            guard.body(Expression.compile(text, NAMES), SIGNATURE)
        return
    guards, raw = compile_all([text]), raw_of(tried, **arguments)
    assert next(tried.verdicts(guards, [raw])) == [verdict]
    assert verdict == UNSURE or wanted(guards[0], raw) == (verdict == YES)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x > 1.5", "x, a floating-point number"),
        ("n / 2 > 3", "fraction"),
        ("n > 1.5", "fractions"),
        ("y[0] > 0", "elements of y"),
        ("v[0] > 0", "elements of v"),
        ("n[0] > 0", "elements of n"),
        ("n ** n > 3", "power"),
        ("n ** 9 > 3", "power"),
        ("n > 2**64", "63 bits"),
    ],
)
def test_what_stays_in_user_space(text, why):
    """What BPF cannot see or compute is refused, and why."""
    signature = parse_signature("void f(long n, double x, const double *y, void *v)")
    with pytest.raises(NotPossible, match=why):
        guard.body(Expression.compile(text, signature.names), signature)
