"""Guards of Python functions: what is taken, what is refused, and what the tracee's interpreter is given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core.python_guard import FUNCTIONS, PythonGuard
from radium.errors import ExpressionError


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("len(X) > 10_000", ("X",)),
        ("X.nbytes >= 2**20 and not y is None", ("X", "y")),
        ("a.shape[0] * b.shape[-1] > (1 << 20) if a.size else False", ("a", "b")),
        ("mode in 'full' or kind == 'x' and max(n, m) // 2 != 3", ("kind", "m", "mode", "n")),
        ("True", ()),
    ],
)
def test_taken(text, names):
    """Operators, attributes, indices and a few functions over the arguments."""
    guard = PythonGuard.compile(text)
    assert guard.names == names
    compile(guard.text, "guard", "eval")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("open('x')", "a function call"),
        ("len(X, *y)", "`Starred`"),
        ("X.sum() > 3", "a function call"),
        ("X.__class__", "`__class__`"),
        ("_len(X)", "a function call"),
        ("_X > 3", "`_X`"),
        ("X[1:2]", "a slice"),
        ("X[0, 1:2]", "a tuple"),
        ("[x for x in X]", "a comprehension"),
        ("lambda: 1", "a lambda"),
        ("(x := 3)", "an assignment"),
        ("f'{x}'", "a formatted string"),
        ("b'x' in y", "bytes constant"),
        ("'x' * n", "arithmetic with a text"),
        ("2 ** n", "`**` or `<<`"),
        ("9 ** 9 ** 9", "`**` or `<<`"),
        ("2 ** 4000", "a number of that size"),
        ("x = 3", "expression"),
        ("", "expression"),
        ("(" * 5000, "characters"),
        ("-" * 4000 + "x", "characters"),
        ("-" * 900 + "x", "too deeply"),
    ],
)
def test_refused(text, why):
    """Whatever could reach further, or take long, is refused before it goes anywhere."""
    with pytest.raises(ExpressionError) as caught:
        PythonGuard.compile(text)
    assert why in caught.value.what


def test_functions_cannot_be_hidden():
    """A parameter that is called like one of the functions does not become it."""
    guard = PythonGuard.compile("len(X) > abs(arg1)")
    assert guard.text == "_len(X) > _abs(arg1)"
    assert guard.by_number == "_len(X) > _abs(arguments[1])"


@given(st.text(alphabet="len(X)[]._+-*/<>= and0123'\"", max_size=40))
def test_any_text(text):
    """Any text is taken or refused with a line."""
    try:
        guard = PythonGuard.compile(text)
    except ExpressionError as error:
        assert error.what and "\n" not in str(error)
    else:
        assert not set(guard.names) & set(FUNCTIONS)
