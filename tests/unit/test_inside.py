"""The script that runs in the tracee's interpreter, run in this one."""

import ast
import sys
import types
from importlib import resources

import pytest

TEXT = resources.files("radium.tracer.python").joinpath("inside.py").read_text()
SOURCE = '''
import functools
def plain(a, b=2, /, c=3, *rest, d, e=5, **more): return a
def _private(): pass
class Kind:
    def method(self): pass
    @classmethod
    def made(cls): pass
    @staticmethod
    def free(): pass
    @property
    def value(self): return 1
    def __init__(self): pass
    def __call__(self): pass
    class Inner:
        def deep(self): pass
class Heir(Kind): pass
@functools.lru_cache
def cached(): pass
instance = Kind()
bound = instance.method
number = 3
from json import dumps
'''


@pytest.fixture
def inside():
    scope = {"__builtins__": __builtins__}
    exec(compile(TEXT, "inside.py", "exec"), scope)
    return scope


@pytest.fixture
def module():
    made = types.ModuleType("radium_sample")
    exec(compile(SOURCE, "radium_sample.py", "exec"), made.__dict__)
    sys.modules["radium_sample"] = made
    yield made
    del sys.modules["radium_sample"]


def found(inside, pattern, module="radium_sample", *, is_package=False, guard=None):
    """Qualified names with the objects that they lead to, and notes."""
    lines = [line.split("\t") for line in inside["find"]([(0, module, is_package, pattern, guard)], len(inside["lines"])).decode().splitlines()]
    splits = {line[3]: inside["held"][int(line[4])] for line in lines if line[0] == "split"}
    return splits, [line[3:] for line in lines if line[0] == "note"]


def test_it_is_for_old_interpreters():
    """The script has no syntax that CPython 3.9 does not know."""
    ast.parse(TEXT, feature_version=(3, 9))


def test_all_of_a_module(inside, module):
    """`*` names the public functions and methods that the module defines, and each once."""
    splits, notes = found(inside, "*")
    assert set(splits) == {
        "plain", "Kind.method", "Kind.made", "Kind.free", "Kind.value", "Kind.__call__", "Kind.Inner.deep", "cached",
    }  # fmt: skip
    assert not notes
    assert splits["Kind.made"] is module.Kind.__dict__["made"].__func__
    assert splits["Kind.value"] is module.Kind.__dict__["value"].fget
    assert splits["cached"] is module.cached.__wrapped__
    assert found(inside, "*") == ({}, [])


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("plain", {"plain"}),
        ("Kind.method", {"Kind.method"}),
        ("Kind.*", {"Kind.method", "Kind.made", "Kind.free", "Kind.value", "Kind.__init__", "Kind.__call__", "Kind.Inner.deep"}),
        ("_priv*", {"_private"}),
        ("dumps", {"dumps"}),
        ("instance", {"instance"}),
        ("bound", {"bound"}),
        ("nothing", set()),
        ("Kind.nothing", set()),
    ],
)
def test_names(inside, module, pattern, names):
    """A name leads to what stands there, wherever it was defined; a glob only to what the module defines."""
    assert set(found(inside, pattern)[0]) == names


@pytest.mark.parametrize(
    ("pattern", "told"),
    [("Heir", True), ("Heir.__init__", True), ("Kind.val*", True), ("Heir.value", True), ("Kind.method", False), ("dumps", False)],
)
def test_classes(inside, module, pattern, told):
    """Where CPython 3.13 looks at a class alone before it calls a split function, the class is told, once, and lives on."""
    inside["sys"] = types.SimpleNamespace(modules=sys.modules, version_info=(3, 13))
    wanted = [(0, "radium_sample", False, pattern, None)]
    lines = [line.split("\t") for line in inside["find"](wanted, 0).decode().splitlines()]
    classes = [inside["held"][int(line[4])] for line in lines if line[0] == "class"]
    assert classes == [module.Kind] * told
    assert not inside["find"](wanted, len(lines))


def test_what_cannot_be_called(inside, module):
    """A name that leads to something else is told."""
    assert found(inside, "number") == ({}, [["number", "is not split: it cannot be called"]])
    assert found(inside, "number") == ({}, [])


def test_packages(inside):
    """A package with `**` brings its submodules along."""
    splits, _ = found(inside, "**", "json", is_package=True)
    assert {"dumps", "JSONDecoder.decode", "JSONEncoder.iterencode"} <= set(splits)


def test_guards(inside, module):
    """A guard takes the arguments as the function does; one with a parameter that is not there is told."""
    splits, _ = found(inside, "plain", guard=("a + b + c + d > 10 and _len(rest) == 0", "", ["a", "b", "c", "d", "rest"]))
    guard = inside["guards"][id(splits["plain"])]
    assert guard(5, d=1) is True and guard(4, d=1) is False and guard(9, 9, 9, 9, d=1) is False
    with pytest.raises(TypeError):
        guard(5)
    _, notes = found(inside, "Kind.method", guard=("x > 1", "", ["x"]))
    assert notes == [["Kind.method", "is not split: its guard: it has no parameter x, but self"]]


@pytest.mark.parametrize(
    ("pattern", "name", "answer"),
    [("*", "", True), ("a*b*c", "aXbXbXc", True), ("a*b", "aXbX", False), ("?", "", False), ("a?c", "abc", True), ("", "a", False),
     ("*" + "a*" * 100, "b" * 5000, False)],
)  # fmt: skip
def test_globs(inside, pattern, name, answer):
    """As fnmatch without sets, in time that no pattern makes long."""
    assert inside["matches"](pattern, name) is answer


def test_twins(inside):
    """A type that is derived from a final one cannot be: that takes a flag, which radium sets meanwhile."""
    with pytest.raises(TypeError):
        inside["make_twin"](types.FunctionType)
    generators = inside["types_of_generators"]()
    assert generators == (types.GeneratorType, types.CoroutineType)
