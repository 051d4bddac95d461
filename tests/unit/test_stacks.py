"""Stacks added up, and the names of functions by address."""

from collections import Counter
from pathlib import Path

import pytest

from radium.core.elf import ElfImage
from radium.tracer.discovery import python_frames, tree
from radium.tracer.discovery.symbols import Frame

MAIN, F, G = Frame("p:main"), Frame("l:f", "l", "f"), Frame("l:g", "l", "g")


def test_shares_count_a_function_once_in_a_sample() -> None:
    """Recursion, direct and by way of others, does not count twice; exclusive shares add up to one."""
    shares = tree.shares(Counter({(MAIN, F, G, F): 3, (MAIN, G): 1}))
    assert shares == {MAIN: (1.0, 0.0), F: (0.75, 0.75), G: (1.0, 0.25)}


def test_tree_keeps_apart_what_is_called_from_elsewhere() -> None:
    """Nodes are places in stacks, the most sampled first; those of one stack are below each other."""
    top = tree.build(Counter({(MAIN, G): 1, (MAIN, F, G): 3, (G,): 1}), "native")
    assert (top.name, top.samples) == ("native", 5)
    assert [(node.name, node.samples) for node in top.children] == [("p:main", 4), ("l:g", 1)]
    assert [(node.name, node.samples) for node in top.children[0].children] == [("l:f", 3), ("l:g", 1)]
    assert not top.children[1].children


def test_no_samples() -> None:
    assert tree.shares(Counter()) == {} and tree.build(Counter(), "native").samples == 0


def test_function_starts_without_names() -> None:
    """Where functions begin by the unwind tables: symbols of the C library agree with them."""
    with open("/proc/self/maps") as maps:
        path = next(line.split()[-1] for line in maps if "/libc.so.6" in line)
    image = ElfImage.parse(Path(path).read_bytes(), path)
    starts = set(image.function_starts)
    functions = [symbol for symbol in image.exported if symbol.kind == "func" and symbol.size]
    assert len(starts) > len(functions) // 2 > 500
    assert sum(symbol.value in starts for symbol in functions) > 0.95 * len(functions)


SOURCE = """\
import functools
def plain():
    return 1
class A:
    @functools.cache
    def method(self):
        def inner():
            return 2
        return inner()
    class B:
        async def deep(self): return 3
"""


@pytest.mark.parametrize(
    ("line", "name"),
    [(3, "plain"), (5, "A.method"), (6, "A.method"), (8, "A.method.<locals>.inner"), (11, "A.B.deep"), (1, ""), (99, "")],
)
def test_qualified_names(tmp_path: Path, line: int, name: str) -> None:
    """The innermost definition that holds a line; decorators belong to what they decorate."""
    path = tmp_path / "m.py"
    path.write_text(SOURCE)
    assert python_frames._qualified_name(str(path), line) == name


def test_a_file_that_is_no_python(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_bytes(b"\xff\x00 not python (")
    assert python_frames._qualified_name(str(tmp_path / "m.py"), 1) == ""


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ("f (/usr/lib/python3.11/json/decoder.py:1)", Frame("python:json.decoder:f", "", "json.decoder:f")),
        ("f (/v/lib/python3.13t/site-packages/a/b/__init__.py:0)", Frame("python:a.b:f", "", "a.b:f")),
        ("<module> (/usr/lib/python3/dist-packages/six.py:1)", Frame("six:<module>")),
        ("f.<locals>.<lambda> (/nowhere/at/all.py:1)", Frame("all:f.<locals>.<lambda>")),
        ("_find_and_load (<frozen importlib._bootstrap>:1178)", Frame("_find_and_load (<frozen importlib._bootstrap>:1178)")),
        ("no frame at all", Frame("no frame at all")),
    ],
)
def test_names_of_python_functions(text: str, frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules by where their files lie; only what a split can name is a candidate."""
    monkeypatch.setattr(python_frames, "_qualified_name", lambda path, line: "")
    assert python_frames._Names(1 << 30).frame(text) == frame
