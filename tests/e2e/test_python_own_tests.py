"""CPython's own tests, with the functions of the module under test split: they pass as they do without."""

import re
import subprocess
import sys

import pytest
from harness import remote_total

JSON = (
    "decode default dump encode_basestring_ascii enum fail float indent pass1 pass2 pass3 recursion scanstring separators "
    "speedups"
)
DECIMAL = (
    "ArithmeticOperatorsTest ContextAPItests ContextFlags ContextInputValidation ContextSubclassing ContextWithStatement "
    "Coverage ExplicitConstructionTest FormatTest Functionality ImplicitConstructionTest PythonAPItests SpecialContexts "
    "ThreadingTest UsabilityTest Whitebox"
)
# The module's tests, the names that are split, and what is run unless all are: all but what makes calls by the ten thousand.
MODULES = {
    "test_json": (["json:*", "json.decoder:*", "json.encoder:*"], [f"test_json.test_{part}" for part in JSON.split()]),
    "test_re": (
        ["re:compile", "re:match", "re:sub", "re:findall", "re:split"],
        ["test_re.ReTests", "test_re.ImplementationTest", "test_re.PatternReprTests"],
    ),
    "test_functools": (["functools:*"], ["test_functools"]),
    "test_zlib": (["zlib:compress", "zlib:decompress", "zlib:crc32"], ["test_zlib"]),
    "test_decimal": (
        ["_pydecimal:Decimal.sqrt", "_pydecimal:Decimal.__format__"],
        [f"test_decimal.Py{case}" for case in DECIMAL.split()],
    ),
}
IN_PARTS = [name for name, (_, cases) in MODULES.items() if cases != [name]]


def has_tests(name):
    return subprocess.run([sys.executable, "-c", f"import test.{name}"], capture_output=True, check=False).returncode == 0


def outcomes(text):
    """By test: ok, FAIL, ERROR, skipped. Lines of radium's come anywhere, as to any terminal."""
    return dict(re.findall(r"^(\w+ \([\w.]+\)).*\.\.\. (\w+)", re.sub(r"radium: .*\n", "", text), re.MULTILINE))


def run(work, tmp_path, name, cases):
    names, _ = MODULES[name]
    profile = tmp_path / "own.toml"
    profile.write_text(f'name = "own"\n[[split]]\npython = {names!r}\n')
    program = [sys.executable, "-m", "unittest", "-v", *(f"test.{case}" for case in cases)]
    whole = work.run_whole(program, timeout_s=300)
    split = work.run_split(program, profile, timeout_s=1200)
    assert outcomes(whole.stderr) and outcomes(split.stderr) == outcomes(whole.stderr), split.stderr[-3000:]
    assert split.exit == whole.exit
    assert remote_total(split.report) > 0


@pytest.mark.parametrize("name", MODULES)
def test_some_of_them(work, tmp_path, name):
    """Nearly all tests of each module."""
    if not has_tests(name):
        pytest.skip(f"{sys.executable} has no test.{name}: run scripts/setup, as root")
    run(work, tmp_path, name, MODULES[name][1])


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_PARTS)
def test_all_of_them(work, tmp_path, name):
    """All tests of the modules that have more; those of JSON make 111,000 remote calls, which takes minutes."""
    if not has_tests(name):
        pytest.skip(f"{sys.executable} has no test.{name}: run scripts/setup, as root")
    run(work, tmp_path, name, [name])
