"""C declarations in profiles."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core.abi import Parameter, Pointer, Scalar
from radium.errors import ProfileError
from radium.profiles.signature import MAX_NCHARS, MAX_NESTING, parse_signature

INT, CHAR, DOUBLE, SIZE = Scalar("int", 4), Scalar("int", 1), Scalar("float", 8), Scalar("int", 8, False)


def types_of(text):
    return [parameter.type for parameter in parse_signature(text).parameters]


def test_dgemm():
    """The signature in the interface's example is read name by name."""
    signature = parse_signature("void dgemm_(const char *transa, const int *m, const double *a, double *c)")
    assert signature.name == "dgemm_"
    assert signature.result is None
    assert signature.parameters == (
        Parameter("transa", Pointer(CHAR)),
        Parameter("m", Pointer(INT)),
        Parameter("a", Pointer(DOUBLE)),
        Parameter("c", Pointer(DOUBLE)),
    )


@pytest.mark.parametrize(
    ("spelling", "size", "signed"),
    [
        ("char", 1, True), ("signed char", 1, True), ("unsigned char", 1, False), ("_Bool", 1, False),
        ("bool", 1, False), ("short", 2, True), ("unsigned short int", 2, False), ("int", 4, True),
        ("unsigned", 4, False),
        ("unsigned int", 4, False), ("long", 8, True), ("long unsigned int", 8, False),
        ("unsigned long long", 8, False),
        ("long long int", 8, True), ("int8_t", 1, True), ("uint16_t", 2, False), ("int32_t", 4, True),
        ("uint64_t", 8, False), ("size_t", 8, False), ("ssize_t", 8, True), ("uintptr_t", 8, False),
        ("enum color", 4, True), ("const int", 4, True), ("volatile uint32_t", 4, False),
    ],
)  # fmt: skip
def test_integer_widths(spelling, size, signed):
    """Every integer type has the size and sign of the psABI, as argument, element and result."""
    signature = parse_signature(f"{spelling} f({spelling} x, {spelling} *p);")
    scalar = Scalar("int", size, signed)
    assert signature.result == scalar
    assert [parameter.type for parameter in signature.parameters] == [scalar, Pointer(scalar)]


@pytest.mark.parametrize(
    ("parameter", "type_"),
    [
        ("float x", Scalar("float", 4)),
        ("double", DOUBLE),
        ("void *p", Pointer(None)),
        ("const void *restrict p", Pointer(None)),
        ("int *__restrict__ p", Pointer(INT)),
        ("struct foo *p", Pointer(None)),
        ("const EVP_MD *digest", Pointer(None)),
        ("FILE *", Pointer(None)),
        ("size_t *n", Pointer(SIZE)),
        ("char **argv", Pointer(Pointer(CHAR))),
        ("char *const argv[]", Pointer(Pointer(CHAR))),
        ("double a[static 16]", Pointer(DOUBLE)),
        ("int (*compare)(const void *, const void *)", Pointer(None)),
        ("handler_t *(*make)(ctx_t *, size_t)", Pointer(None)),
        ("int callback(int)", Pointer(None)),
        ("int (*rows)[10]", Pointer(None)),
    ],
)
def test_parameters(parameter, type_):
    """Arrays and functions are pointers, and what cannot be read behind a pointer is opaque."""
    assert types_of(f"int f({parameter}, int last)") == [type_, INT]


@pytest.mark.parametrize("text", ["int f(void)", "int f()", "int f(void);", "  int f ( void ) ; ", "FILE *f(void)"])
def test_no_parameters(text):
    """`void` and an empty list are no parameters; the semicolon does not matter."""
    assert parse_signature(text).parameters == ()


def test_variadic():
    """Arguments before `...` are named, those after it are not."""
    signature = parse_signature("int printf(const char *format, ...)")
    assert signature.variadic
    assert signature.names == ("arg0", "format")


def test_unnamed_parameters_have_their_place():
    """A parameter without a name is called by its place."""
    assert set(parse_signature("int f(int, double x, char *)").names) == {"arg0", "arg1", "arg2", "x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cl_int f(int m)", "the result has the unknown type `cl_int`; spell it as a base type"),
        ("int f(int a, cl_mem m)", "parameter 2 (`m`) has the unknown type `cl_mem`"),
        ("int f(struct s v, int n)", "parameter 1 (`v`) is a struct by value"),
        ("int f(union u v, int n)", "a union by value"),
        ("int f(long double v, int n)", "a long double"),
        ("int f(double _Complex v, int n)", "a complex number"),
        ("int f(__int128 v, int n)", "a 128-bit integer"),
        ("struct s f(int n)", "the result is a struct by value"),
        ("int f(int a, void)", "parameter 2 (`arg1`) is void"),
        ("int f(int a int b)", "unexpected `int` at column 13"),
        ("int f(int a, @)", "at column 14"),
        ("int f(int a", "cannot be read"),
        ("int f(int a /* x */)", "at column 13"),
        ("int x", "declares no function"),
        ("int (*f)(int)", "declares no function"),
        ("typedef int f(int)", "cannot be read"),
        ("int f(int); int g(int)", "2 declarations"),
        ("int f(int a) {}", "contains `{`"),
        ("#include <x>", "contains `#`"),
        ("int f(int a, int a)", "two parameters are called `a`"),
        ("int f(int arg1, int b)", "parameter 1 is called `arg1`"),
        ("", "declarations"),
        ("f", "cannot be read"),
    ],
)
def test_refused(text, message):
    """What cannot be read, or would misplace arguments, is refused with the reason and a hint."""
    with pytest.raises(ProfileError) as caught:
        parse_signature(text)
    assert message in str(caught.value)
    assert caught.value.advice


def test_struct_by_value_at_the_end_hurts_nobody():
    """Arguments before a struct by value can be named; the struct cannot."""
    assert parse_signature("int f(int a, struct s v)").names == ("arg0", "a")


def test_long_double_result_moves_nothing():
    """Results outside the integer and vector registers leave the arguments where they are."""
    assert parse_signature("long double f(int a)").result is None


@pytest.mark.parametrize(
    "text",
    ["int f(" + "int a," * MAX_NCHARS, "int f" + "(" * (MAX_NESTING + 1), "int f(" + "*" * 1900 + ")",
     "int f(int " + "*" * 1900 + "p)", "int f(int a" + "[1]" * 600 + ")", "int f(" + "long " * 390 + "a)"],
)  # fmt: skip
def test_hostile_text_is_cheap(text):
    """Long and deep texts are read or refused within a second."""
    start = time.perf_counter()
    try:
        parse_signature(text)
    except ProfileError as error:
        assert len(str(error)) < 3 * MAX_NCHARS
    assert time.perf_counter() - start < 1


words = st.sampled_from(
    ["int", "f", "(", ")", "*", ",", ";", "const", "struct", "s", "enum", "[", "]", "3", "...", "void", "long",
     "double", "unsigned", "T", "typedef", "static", "_Alignas", "_Generic", "sizeof", "=", ":", "'", '"', "\n", "\\",
     "_Pragma",
     "_Static_assert", "_Atomic", "register", "inline", "union", "char", "0x", "é", "\0", "_Complex", "offsetof"]
)  # fmt: skip


@given(st.one_of(st.text(max_size=60), st.lists(words, max_size=25).map(" ".join)))
def test_only_profile_errors_come_out(text):
    """No text makes the parser raise anything but a ProfileError."""
    for candidate in (text, f"int f({text})"):
        try:
            signature = parse_signature(candidate)
        except ProfileError:
            continue
        assert len(signature.names) == len(set(signature.names))
