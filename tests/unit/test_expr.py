"""Expressions: what they compute, what they refuse, and that no text can do more."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core.expr import MAX_DEPTH, MAX_NBITS, MAX_NCHARS, Expression
from radium.errors import ExpressionError, RadiumError, RemoteFault

NAMES = ("m", "n", "k", "p", "x")
VALUES = {"m": 6, "n": -4, "k": 3, "p": [10, 20, 30], "x": 0.5}


class Unreadable:
    def __getitem__(self, index):
        raise RemoteFault("nothing at 0x10")


def value_of(text, namespace=VALUES):
    return Expression.compile(text, namespace.keys()).evaluate(namespace)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("m * n * k >= 2**21", False),
        ("m[0] * n[0]", None),
        ("(m + n) * k - 1", 5),
        ("m // 4 + m % 4 + m / 4", 4.5),
        ("1 < k <= 3 < m", True),
        ("m == 6 and not n > 0 or k == 0", True),
        ("p[1] + p[k - 1]", 50),
        ("p[p[0] - 9]", 20),
        ("p[0] if n < 0 else p[1]", 10),
        ("-n + +m ^ 1 | 8 & ~0", 11),
        ("1 << k >> 1", 4),
        ("'N' == 78", True),
        ("x * 2", 1.0),
        ("True + True", 2),
        ("  m ", 6),
        ("2**-1", 0.5),
    ],
)
def test_value(text, value):
    """An expression has the value that Python gives it, with characters as their codes."""
    if value is None:
        with pytest.raises(ExpressionError):
            value_of(text)
    else:
        assert value_of(text) == value


@pytest.mark.parametrize(
    ("text", "construct"),
    [
        ("f(m)", "function call"),
        ("m.n", "attribute"),
        ("lambda: m", "lambda"),
        ("[m]", "list"),
        ("(m, n)", "tuple"),
        ("{m}", "set"),
        ("{m: n}", "dict"),
        ("[i for i in p]", "comprehension"),
        ("p[0:1]", "slice"),
        ("p[0][1]", "only a name can be subscripted"),
        ("'abc'", "string"),
        ("'é'", "string"),
        ("b'a'", "bytes"),
        ("None", "NoneType"),
        ("1j", "complex"),
        ("...", "ellipsis"),
        ("f'{m}'", "formatted string"),
        ("(m := 1)", "assignment"),
        ("m in p", "`in`"),
        ("m is n", "`is`"),
        ("m @ n", "`@`"),
        ("await m", "Await"),
    ],
)
def test_forbidden_construct_is_named(text, construct):
    """What is not arithmetic, comparison, boolean, name, number or p[i] is refused by its name."""
    with pytest.raises(ExpressionError) as caught:
        Expression.compile(text, NAMES)
    assert construct in caught.value.what
    assert caught.value.advice


def test_unknown_name_suggests_nearest():
    """A misspelt argument is refused with the names it resembles."""
    with pytest.raises(ExpressionError, match="unknown name `pasword`; did you mean password"):
        Expression.compile("pasword > 1", ["password", "salt"])


def test_keyword_as_argument_is_explained():
    """An argument that C may call `pass` and Python may not is told apart from a plain syntax error."""
    with pytest.raises(ExpressionError, match="`pass` is a word of Python"):
        Expression.compile("pass + 1", ["pass", "arg0"])


@pytest.mark.parametrize(
    "text",
    [
        "1 // 0", "m % (k - 3)", "m ** m ** m ** m", "9 ** 9 ** 9", "1 << 10**9", "k << 300", "m * 2**255", "n ** x",
        "1 << -1", "x << 1", "1e308 * 10", "1e308 ** 2", "m[0]", "p + 1", "p[x]", "1e999 - 1e999",
    ],
)  # fmt: skip
def test_no_value(text):
    """Divisions by zero, huge, infinite and complex numbers and senseless subscripts are ExpressionErrors, at once."""
    start = time.perf_counter()
    with pytest.raises(ExpressionError):
        value_of(text)
    assert time.perf_counter() - start < 1


def test_unreadable_memory():
    """A pointer that leads nowhere makes the evaluation fail, with the reason."""
    with pytest.raises(ExpressionError, match="unreadable memory \\(nothing at 0x10\\)"):
        value_of("p[0]", {"p": Unreadable()})


def test_missing_argument():
    """A namespace without a name that the expression was compiled for is an ExpressionError."""
    with pytest.raises(ExpressionError, match="no argument 'm'"):
        Expression.compile("m", ["m"]).evaluate({})


@pytest.mark.parametrize(
    "text",
    ["1" * (MAX_NCHARS + 1), "(" * 250 + "1" + ")" * 250, "-" * (MAX_DEPTH + 2) + "1", "+".join("1" * 200),
     "0x1" + "0" * (MAX_NBITS // 4), "-" * 900 + "1", "", "1 +", "\0", "m;n", "m\nn", "1or 2or", "9" * 999],
)  # fmt: skip
def test_bounds_and_syntax(text):
    """Texts that are too long, too deep, too big or no expressions are refused."""
    with pytest.raises(ExpressionError):
        Expression.compile(text, NAMES)


def test_what_it_mentions():
    """An expression knows the names that it uses and those that it reads memory through."""
    expression = Expression.compile("p[m] > k", NAMES)
    assert expression.names == {"p", "m", "k"}
    assert expression.subscripted == {"p"}
    assert expression.text == "p[m] > k"


def test_short_circuit_guards_memory():
    """What a boolean operator need not look at is not read."""
    assert value_of("p != 0 and p[0] > 0", {"p": 0}) is False


numbers = st.one_of(st.integers(-(2**60), 2**60), st.sampled_from([0, 1, -1]))


symbols = st.sampled_from(["+", "-", "*", "&", "|", "^", "<", "==", ">="])


@given(st.lists(st.tuples(symbols, numbers), max_size=3), numbers)
def test_agrees_with_python(steps, first):
    """Whatever is bounded has the value that Python computes."""
    text = f"({first})"
    for symbol, number in steps:
        text = f"({text} {symbol} ({number}))"
    assert value_of(text) == eval(text)


tokens = st.sampled_from(
    [*NAMES, *"()[]+-*/%<>=!&|^~,.:;'\"\\@{} \n\t", "**", "<<", ">>", "//", "==", " and ", " or ", " not ", " if ",
     " else ", " in ", " is ", " lambda ", "0", "1", "99999999", "1e400", "0x", "'N'", "None", "p[",
     "__class__", "é", "\0"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=60), st.lists(tokens, max_size=25).map("".join)))
def test_only_expression_errors_come_out(text):
    """No text makes compiling or evaluating raise anything but a RadiumError, or return anything but a number."""
    try:
        value = Expression.compile(text, NAMES).evaluate({"m": 2**64 - 1, "n": -1, "k": 0, "p": {0: 1}, "x": -0.5})
    except RadiumError:
        return
    assert isinstance(value, int | float)


towers = st.recursive(
    st.sampled_from(["m", "2", "x", "300"]), lambda inner: st.tuples(inner, inner).map("(%s**%s)".__mod__)
)


@given(towers)
def test_towers_of_powers_are_cheap(text):
    """No tower of powers takes time or memory."""
    start = time.perf_counter()
    try:
        value = Expression.compile(text, NAMES).evaluate(VALUES)
    except ExpressionError:
        value = 0
    assert time.perf_counter() - start < 1
    assert not isinstance(value, int) or value.bit_length() <= MAX_NBITS


def test_builtins_are_out_of_reach():
    """Compiled code sees no builtins, whatever the names are called."""
    expression = Expression.compile("__import__ + 1", ["__import__"])
    assert expression.evaluate({"__import__": 1}) == 2
