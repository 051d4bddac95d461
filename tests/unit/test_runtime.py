"""Which interpreters are known, and what is said of others."""

from types import SimpleNamespace

import pytest

from radium.errors import NotPossible
from radium.tracer.python.runtime import Runtime, check_version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3.9.2 (default, Feb 28 2021, 17:03:44) \n[GCC 10.2.1 20210110]", (3, 9)),
        ("3.11.7 (main, Dec  8 2023, 14:22:46) [GCC 12.2.0]", (3, 11)),
        ("3.14.0+ (main) [Clang]", (3, 14)),
    ],
)
def test_known(text, version):
    """From 3.9 to 3.14, as Py_GetVersion tells it."""
    assert check_version(text, "pid 1") == version


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2.7.18 (default)", "CPython 2.7"),
        ("3.8.10 (default)", "CPython 3.8"),
        ("3.15.0a1 (main)", "CPython 3.15"),
        ("3.13.0 experimental free-threading build (main)", "free-threaded"),
        ("", "CPython 0.0"),
        ("\xff\n", "CPython 0.0"),
    ],
)
def test_refused(text, why):
    """Everything else gets a line that says what is wanted."""
    with pytest.raises(NotPossible) as caught:
        check_version(text, "pid 1")
    assert why in str(caught.value) and "pid 1" in str(caught.value) and caught.value.advice


@pytest.mark.parametrize(
    ("code", "entries"),
    [
        ("31d2 eb0c", {0x1010, 0x2000}),  # a part of it that has no name
        ("f30f1efa 31d2 e9f50f0000", {0x2000}),  # the other one
        ("31d2 e9f9ffffff", {0x1000, 0x2000}),  # backwards
        ("31d2 e9f91f0000", {0x2000}),  # the other one, through the table of a shared library
        ("f30f1efa e9f70f0000", {0x2000}),
        ("4157 4156", {0x1000, 0x2000}),  # nowhere
    ],
)
def test_make_function(code, entries):
    """Functions are noticed wherever link-time optimisation leads the interpreter, once each."""
    names = {"PyFunction_New": 0x1000, "PyFunction_NewWithQualName": 0x2000}
    image = SimpleNamespace(exported_by_name={name: [SimpleNamespace(value=value)] for name, value in names.items()})
    memory = {0x1000: bytes.fromhex(code), 0x3000: bytes.fromhex("f30f1efa f2ff25 10000000")}
    runtime = Runtime(SimpleNamespace(image=image, base=0, path="python"))
    assert runtime.make_function(lambda address, nbytes: memory.get(address, b"").ljust(nbytes, b"\x90")) == entries
