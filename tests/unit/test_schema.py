"""Profiles: what is accepted, and the file, line and hint of every refusal."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core.places import Place
from radium.errors import ProfileError
from radium.profiles.schema import MAX_NBYTES, FunctionPattern, load, loads

FULL = '''
name = "blas"
title = "BLAS level 3"

[[split]]
library = "libblas.so*"   # [[split]] in a comment is none
function = ["dgemm_", "d*k_", "memcpy@GLIBC_2.2.5", "memcpy@@GLIBC_2.14"]
signature = """
void dgemm_(const char *transa, const int *m,
            const double *a, int lda)"""
guard = "m[0] >= 2**21 and transa[0] == 'N'"
memory = [
  { at = "a", bytes = "8 * lda" },
  { at = "a + 8", bytes = "m[0]" },
]
stance = "native"
backend = "libopenblas.so.0"
threads = "run"
policy = "auto"
outermost = false

[[split]]
python = ["sklearn.cluster:KMeans.fit", "numpy.linalg:*"]
working_set = [{ mapping = "libc.so.6", offset = 0x1000, bytes = 8192 }, { mapping = "stack", offset = -8192, bytes = 4096 }]
'''


def test_full_profile():
    """Every key of the interface arrives in its field."""
    profile = loads(FULL, "x.toml")
    assert (profile.name, profile.title, profile.path) == ("blas", "BLAS level 3", "x.toml")
    native, python = profile.splits
    assert native.library == "libblas.so*"
    assert native.functions == (
        FunctionPattern("dgemm_"),
        FunctionPattern("d*k_"),
        FunctionPattern("memcpy", "GLIBC_2.2.5"),
        FunctionPattern("memcpy", "GLIBC_2.14"),
    )
    assert native.signature.names == ("arg0", "transa", "arg1", "m", "arg2", "a", "arg3", "lda")
    assert native.guard.text == "m[0] >= 2**21 and transa[0] == 'N'"
    assert [(hint.at.text, hint.nbytes.text) for hint in native.memory] == [("a", "8 * lda"), ("a + 8", "m[0]")]
    assert (native.stance, native.backend, native.threads) == ("native", "libopenblas.so.0", "run")
    assert (native.policy, native.outermost, native.python) == ("auto", False, ())
    assert (native.line, native.where) == (5, "x.toml:5")
    assert python.python == ("sklearn.cluster:KMeans.fit", "numpy.linalg:*")
    assert (python.library, python.functions, python.line) == (None, (), 22)
    assert python.working_set == (Place("libc.so.6", 0x1000, 8192), Place("stack", -8192, 4096))


def test_defaults():
    """A split needs a library and a function only; a profile is called as its file."""
    profile = loads('[[split]]\nlibrary = "main"\nfunction = "work"\nguard = "arg0 > 1 and arg5[0]"', "dir/mine.toml")
    split = profile.splits[0]
    assert (profile.name, profile.title) == ("mine", "")
    assert (split.stance, split.threads, split.policy, split.outermost) == ("mirror", "stop", "always", True)
    assert (split.signature, split.backend, split.memory, split.python) == (None, None, (), ())


SPLIT = '[[split]]\nlibrary = "libm.so*"\nfunction = "f"\n'
PLACES = "working_set = [\n{{ mapping = 'stack', offset = -8192, bytes = 4096 }},\n{{ {} }},\n]\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "profile has no splits"),
        ('name = "x"\n', 1, "profile has no splits"),
        ("a = [", 1, "not TOML: Invalid value"),
        ('name = "x"\nb = \n', 2, "not TOML: Invalid value at column 5"),
        ('name = "x"\nname = "y"\n', 2, "not TOML"),
        ("a = " + "9" * 5000, 1, "not TOML"),
        ('\nnmae = "x"\n' + SPLIT, 2, "unknown key `nmae`; did you mean `name`?"),
        ('[other]\nx = 1\n' + SPLIT, 1, "unknown key `other`"),
        ("name = 3\n" + SPLIT, 1, "`name` is a number; a string is wanted"),
        ("\n[split]\nlibrary = 'x'\n", 2, "`split` is one table; write [[split]] with two brackets"),
        ("split = 3", 1, "`split` is a number; an array is wanted"),
        ("name = 'x'\nsplit = [3]", 2, "`split` holds a number"),
        ("split = []", 1, "no splits"),
        ("\nsplit = [{ library = 'main', function = 'f', guard = 'x' }]", 2, "unknown name `x`"),
        (SPLIT + "gaurd = '1'\n", 4, "unknown key `gaurd`; did you mean `guard`?"),
        (SPLIT + "guard = 1\n", 4, "`guard` is a number; a string is wanted"),
        (SPLIT + "outermost = 'yes'\n", 4, "`outermost` is a string; true or false is wanted"),
        (SPLIT + "tolerance = '1e-12'\n", 4, "`tolerance` is a string; a number is wanted"),
        (SPLIT + "tolerance = true\n", 4, "`tolerance` is true or false; a number is wanted"),
        (SPLIT + "tolerance = 1\n", 4, "`tolerance` is 1; it is relative"),
        (SPLIT + "tolerance = nan\n", 4, "`tolerance` is nan"),
        (SPLIT + "tolerance = -1e-9\n", 4, "`tolerance` is -1e-09"),
        (SPLIT + "stance = 'nativ'\n", 4, "`stance` is `nativ`; it can be 'mirror' or 'native'"),
        (SPLIT + "threads = 'go'\n", 4, "it can be 'stop' or 'run'"),
        (SPLIT + "policy = ''\n", 4, "`policy` is empty"),
        (SPLIT + "stance = 'native'\n", 4, 'stance "native" has no `backend`'),
        (SPLIT + "backend = 'libx.so'\n", 4, "`backend` goes with stance"),
        (SPLIT + "guard = 'm > 1'\n", 4, "guard: unknown name `m`; known are arg0, arg1"),
        (SPLIT + "\n# text\n\nguard = 'open(arg0)'\n", 7, "guard: a function call is not allowed"),
        (SPLIT + "signature = 'int f(foo x)'\n", 4, "unknown type `foo`"),
        (SPLIT + "signature = 'int f(int n)'\nguard = 'm > 1'\n", 5, "unknown name `m`; known are arg0, n"),
        (SPLIT + "signature = 'int f(int n)'\nguard = 'n[0] > 1'\n", 5, "`n` is no pointer; write n instead"),
        (SPLIT + "signature = 'int f(void *n)'\nguard = 'n[0] > 1'\n", 5, "`n` points to an unknown type"),
        (SPLIT + "memory = 'arg0'\n", 4, "`memory` is a string; an array is wanted"),
        (SPLIT + "memory = ['arg0']\n", 4, "`memory` holds a string"),
        (SPLIT + "memory = [\n{ at = 'arg0', bytes = '8' },\n{ at = 'arg0' },\n]\n", 6, "an entry of `memory` has no `bytes`"),
        (SPLIT + "memory = [\n\n{ at = 'arg9', bytes = '8' }]\n", 6, "at: unknown name `arg9`"),
        (SPLIT + "memory = [{ at = 'arg0', size = '8' }]\n", 4, "unknown key `size`; known are at, bytes"),
        (SPLIT + "memory = [{ at = 'arg0', bytes = 8 }]\n", 4, "`bytes` is a number; a string is wanted"),
        (SPLIT + "[[split.memory]]\nat = '1'\nbytes = '8'\n[[split.memory]]\nat = 'x'\nbytes = '1'\n", 7, "at: unk"),
        (SPLIT + "working_set = 'all'\n", 4, "`working_set` is a string; an array is wanted"),
        (SPLIT + "working_set = [3]\n", 4, "`working_set` holds a number; write { mapping ="),
        (SPLIT + PLACES.format("mapping = 'a', offset = 0"), 6, "an entry of `working_set` has no `bytes`"),
        (SPLIT + PLACES.format("mapping = '/lib/a', offset = 0, bytes = 4096"), 6, "mapping `/lib/a` is a path"),
        (SPLIT + PLACES.format("mapping = '', offset = 0, bytes = 4096"), 6, "`mapping` is empty"),
        (SPLIT + PLACES.format("mapping = 'a', offset = 8, bytes = 4096"), 6, "`offset` is not that of a page"),
        (SPLIT + PLACES.format("mapping = 'a', offset = -140737488355328, bytes = 4096"), 6, "`offset` is not that"),
        (SPLIT + PLACES.format("mapping = 'a', offset = true, bytes = 4096"), 6, "`offset` is true or false; a whole"),
        (SPLIT + PLACES.format("mapping = 'a', offset = 0, bytes = 0"), 6, "`bytes` is not a number of whole pages"),
        (SPLIT + PLACES.format("mapping = 'a', offset = 0, bytes = 0x40001000"), 6, "`bytes` is not a number of"),
        (SPLIT + PLACES.format("mapping = 'a', offset = 0, bytes = 4096, at = 1"), 6, "unknown key `at`"),
        (SPLIT + "[[split.working_set]]\nmapping = 'a'\noffset = 0\nbytes = 5\n", 4, "`bytes` is not a number"),
        (SPLIT + "python = 'a:b'\n", 4, "both `library` and `python`"),
        (SPLIT + SPLIT + '"guard" = "x"\n', 7, "unknown name `x`"),
        (SPLIT + "[[split]]\nfunction = 'f'\n", 4, "neither `library` nor `python`"),
        ("[[split]]\nlibrary = 'x'\n", 1, "has no `function`"),
        ("[[split]]\nlibrary = 'x'\nfunction = []\n", 3, "`function` is empty; name at least one"),
        ("[[split]]\nlibrary = 'x'\nfunction = ['f', 3]\n", 3, "`function` holds a number"),
        ("[[split]]\nlibrary = 'x'\nfunction = 'f g'\n", 3, "`f g` is no function"),
        ("[[split]]\nlibrary = 'x'\nfunction = 'f@'\n", 3, "`f@` is no function"),
        ("[[split]]\nlibrary = 'x'\nfunction = ''\n", 3, "`` is no function"),
        ("[[split]]\nlibrary = '/lib/x.so'\nfunction = 'f'\n", 2, "is a path"),
        ("[[split]]\nlibrary = ''\nfunction = 'f'\n", 2, "`library` is empty"),
        ("[[split]]\npython = 'sklearn.fit'\n", 2, "`sklearn.fit` is no Python function"),
        ("[[split]]\npython = 'a:[bc]'\n", 2, "`a:[bc]` is no Python function"),
        ("[[split]]\npython = 'a:b'\nmemory = []\n", 3, "`memory` does not go with `python`"),
        ("[[split]]\npython = 'a:b'\nguard = 'open(x)'\n", 3, "guard: a function call is not allowed in a guard"),
        ("[[split]]\npython = 'a:b'\nguard = 3\n", 3, "`guard` is a number"),
        ("x" + ".a" * 50 + " = 1", 1, "key with too many dots"),
        ("a = " + "[" * 50000, 1, ""),
        ('[[split]]\r\nlibrary = "x"\r\nfunction = "f"\r\nguard = "z"\r\n', 4, "unknown name `z`"),
        (SPLIT + "signature = '''\nint f(\nint n[\n3])'''\nguard = 'z'", 8, "unknown name `z`"),
        ('title = """\n\\"""\n[[split]]"""\n' + SPLIT + "guard = 'z'", 1, "`title` is empty or not printable"),
    ],
)  # fmt: skip
def test_refusals(text, line, message):
    """Every problem is told with file, line, what it is and what to do."""
    with pytest.raises(ProfileError) as caught:
        loads(text, "p.toml")
    error = caught.value
    assert error.where == f"p.toml:{line}"
    assert message in str(error)
    assert error.advice


def test_first_problem_is_told():
    """Of several problems the first split's is reported."""
    with pytest.raises(ProfileError, match=r"p.toml:4: unknown key `a`"):
        loads(SPLIT + "a = 1\n" + SPLIT + "b = 1\n", "p.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"name = 'x'\n\xff\xfe", "f.toml:2: profile is not UTF-8"),
        (b"#" * (MAX_NBYTES + 1), "larger than"),
    ],
)
def test_unreadable_files(tmp_path, content, message):
    """A file that is missing, too large or no text is told like any other problem."""
    path = tmp_path / "f.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProfileError, match=message):
        load(path)


def test_directory_is_no_profile(tmp_path):
    """A directory is refused, not read."""
    with pytest.raises(ProfileError, match="Is a directory"):
        load(tmp_path)


def test_load(tmp_path):
    """A profile is read from a file by its path."""
    path = tmp_path / "f.toml"
    path.write_text(SPLIT)
    assert load(path).splits[0].where == f"{path}:1"


@pytest.mark.parametrize(
    "text",
    [
        ".a" * (MAX_NBYTES // 2 - 1), "[" * (MAX_NBYTES - 1), '"""\\"' * 50000, "'''" * 80000, '"' * (MAX_NBYTES - 1),
        "a" + " ." * 100000, "a = {b" * 40000, SPLIT * 5000, "[[split]]\n" * 20000, "\n" * MAX_NBYTES,
        "[a]\n" * 60000, SPLIT + "function_" * 20000 + " = 1", SPLIT + f"guard = '{'(' * 200000}'",
        SPLIT + f"memory = [{'{},' * 60000}]",
        SPLIT + "memory = [" + "{ at = '1', bytes = '1' },\n" * 9000 + "]",
        SPLIT + "working_set = [" + "{mapping='a',offset=0,bytes=4096},\n" * 7000 + "]",
    ],
)  # fmt: skip
def test_hostile_text_is_cheap(text):
    """Whatever the text, reading or refusing it takes seconds at most."""
    start = time.perf_counter()
    try:
        loads(text, "p.toml")
    except ProfileError as error:
        assert len(str(error)) < 1000
    assert time.perf_counter() - start < 5


lines = st.sampled_from(
    [
        "[[split]]", "[split]", "[[split.memory]]", "name = 'x'", "title = '''", "'''", 'title = """', '"""',
        "# [[split]]",
        "library = 'main'", "function = 'f'", "function = ['f',", "]", "signature = 'int f(int n, char *p)'", "",
        "guard = 'n > 1'", 'guard = "p[0]"', '"guard" = "1"', "memory = [", "{ at = 'p', bytes = 'n' },", "at = 'p'",
        "bytes = 'n'", "stance = 'native'", "backend = 'l'", "threads = 'run'", "policy = 'auto'", "outermost = false",
        "python = 'a:b'", "name = 1", "x = 1979-05-27", "a.b = 1", "split = [{library = 'x', function = 'f'}]",
        "split = {}", "memory = []", "working_set = [{}]", "[[split.working_set]]", "memory = [[]]", "title = nan",
    ]
)  # fmt: skip


@given(st.one_of(st.text(max_size=80), st.lists(lines, max_size=14).map("\n".join)))
def test_only_profile_errors_come_out(text):
    """No text makes reading raise anything but a ProfileError that has a line within the text."""
    try:
        loads(text, "p.toml")
    except ProfileError as error:
        file, _, line = error.where.rpartition(":")
        assert file == "p.toml"
        assert 1 <= int(line) <= text.count("\n") + 1


@given(st.lists(lines, max_size=8))
def test_lines_of_later_splits(before):
    """However the text before it is made, a bad key is found at its own line."""
    text = "\n".join([*before, SPLIT + "wrong = 1"])
    try:
        loads("\n".join([*before, SPLIT]), "p.toml")
    except ProfileError:
        return
    with pytest.raises(ProfileError) as caught:
        loads(text, "p.toml")
    assert caught.value.where == f"p.toml:{text.count(chr(10)) + 1}"
