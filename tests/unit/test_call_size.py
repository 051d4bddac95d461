import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.profiles.schema import loads
from radium.tracer.call_size import LARGEST, call_size

DGEMM = (
    'signature = "void f(const char *transa, const int *m, const int *n, int flag, double alpha, int *info, const double *a)"'
)


def sized(text):
    """The size of calls by this profile's only split."""
    profile = loads('name = "t"\n[[split]]\nlibrary = "l.so"\nfunction = "f"\n' + text, "t.toml")
    return call_size(profile.splits[0])


@pytest.mark.parametrize(
    ("text", "said", "arguments", "size"),
    [
        ("", "", {}, 1),
        ("guard = 'arg1 >= 4096'", "arg1", {"arg1": 5000}, 5000),
        ("guard = '2**10 < arg1 * arg2'", "arg1 * arg2", {"arg1": 5, "arg2": 7}, 35),
        ("guard = 'arg0 == 1 and arg1 + 8 > 100 and arg2 >= 5'", "(arg1 + 8) * arg2", {"arg1": 2, "arg2": 3}, 30),
        ("guard = 'arg1 <= 100'", "", {}, 1),
        ("guard = 'arg1 >= arg2'", "", {}, 1),
        ("memory = [{ at = 'arg0', bytes = '8 * arg1' }, { at = 'arg2', bytes = 'arg3' }]", "8 * arg1 + arg3",
         {"arg1": 4, "arg3": 10}, 42),
        (DGEMM, "m[0] * n[0] * flag", {"m": [6], "n": [7], "flag": 1}, 42),
        (DGEMM + "\nguard = 'm[0] >= 5'", "m[0]", {"m": [6]}, 6),
        ('signature = "double f(double x, short s, void *p)"', "", {}, 1),
    ],
)  # fmt: skip
def test_what_a_size_is(text, said, arguments, size):
    """The guard's own measure comes first, then what the hints name, then the arguments that are numbers."""
    found = sized(text)
    assert found.text == said
    assert found.of({name: Readable(value) if isinstance(value, list) else value for name, value in arguments.items()}) == size


class Readable(list):
    """Memory behind a pointer."""


def test_what_cannot_be_read_is_one():
    """Also a size that is not there, and arguments below one."""
    assert sized(DGEMM).of({}) == 1
    assert sized("guard = 'arg1 * arg2 >= 9'").of({"arg1": -5, "arg2": 0}) == 1


@given(st.integers(-(2**63), 2**63), st.integers(-(2**63), 2**63))
def test_any_arguments_have_a_size(one, other):
    """A finite one, at least 1."""
    assert 1 <= sized("guard = 'arg1 >= 9 and arg2 >= 9'").of({"arg1": one, "arg2": other}) <= LARGEST
