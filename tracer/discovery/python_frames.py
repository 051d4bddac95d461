"""Where a CPython process spends its time, in Python functions: by py-spy, which reads its memory and never stops it.

Source: py-spy's output in its format "raw": `function (file:line);function (file:line) count`, one stack a line.
"""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from itertools import takewhile
from pathlib import Path, PurePosixPath

from radium.errors import NotPossible, TraceeGone
from radium.linux import namespaces, procfs
from radium.tracer.discovery.symbols import Frame, Stack

INSTALL = "pip install py-spy"
_FRAME = re.compile(r"(.*) \((.+?)(?::(\d+))?\)$")
_PACKAGES = re.compile(r"/(?:site|dist)-packages/|/lib/python3\.\d+t?/(?!(?:site|dist)-packages/)")
# What it has at the end is little.
_END_S = 10
# Reading itself fails now and then, because nobody is stopped for it; more would be of no use either.
MAX_FREQUENCY = 50


class Recorder:
    """py-spy at work on one process; it ends with us, and when the process ends."""

    def __init__(self, pid: int, frequency: int) -> None:
        """Raises NotPossible without py-spy."""
        self.pid = pid
        self._names = _Names(pid)
        self._folder = tempfile.TemporaryDirectory(prefix="radium-")
        self._out, self._said = Path(self._folder.name) / "stacks", Path(self._folder.name) / "said"
        command = [_program(), "record", "--nonblocking", "--full-filenames", "--format", "raw", "--output", str(self._out)]
        command += ["--rate", str(min(frequency, MAX_FREQUENCY)), "--pid", str(pid)]
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                preexec_fn=_end_with_us,  # noqa: PLW1509 - radium has one thread
            )

    def finish(self) -> Counter[Stack]:
        """Ends it; the stacks it has seen. Raises NotPossible with what it says when it has seen none."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        try:
            return self._read()
        finally:
            self._folder.cleanup()

    def _read(self) -> Counter[Stack]:
        if not self._out.exists():
            raise NotPossible(f"py-spy cannot sample its Python functions ({self._error()})", where=f"pid {self.pid}")
        stacks: Counter[Stack] = Counter()
        for line in self._out.read_text(errors="replace").splitlines():
            frames, _, count = line.rpartition(" ")
            stacks[tuple(self._names.frame(text) for text in frames.split(";"))] += int(count)
        return stacks

    def _error(self) -> str:
        lines = self._said.read_text(errors="replace").splitlines()
        return next((line.removeprefix("Error: ") for line in lines if line.startswith("Error")), "it says nothing")


def _end_with_us() -> None:
    # We may have blocked what is to end it.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    namespaces.die_with_parent(signal.SIGKILL)


def _program() -> str:
    beside = shutil.which("py-spy", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("py-spy")
    if found is None:
        raise NotPossible("Python functions are sampled by py-spy, which is not installed", advice=INSTALL)
    return found


class _Names:
    """The functions of one process, as a profile's split names them."""

    def __init__(self, pid: int) -> None:
        self._root = f"/proc/{pid}/root"
        self._started: set[str] = set()
        with suppress(TraceeGone, OSError):
            folder = os.readlink(f"/proc/{pid}/cwd")
            words = procfs.command_line(pid)[1:]
            options = list(takewhile(lambda word: word.startswith("-"), words))
            self._started = {os.path.normpath(os.path.join(folder, word)) for word in words[len(options) : len(options) + 1]}
            if options and options[-1] == "-m":
                self._started = set(words[len(options) : len(options) + 1])

    def frame(self, text: str) -> Frame:
        match = _FRAME.match(text)
        if not match or match[2].startswith("<"):
            return Frame(text)
        name, path, line = match[1], match[2], int(match[3] or 0)
        module = self._module(path)
        # What has no name of its own lies within the lines of what has.
        qualified = name if "<" in name else _qualified_name(self._root + path, line) or name
        if "<" in qualified:
            return Frame(f"{module}:{qualified}")
        return Frame(f"python:{module}:{qualified}", "", f"{module}:{qualified}")

    def _module(self, path: str) -> str:
        """By where the file lies in the packages that are installed, else in the packages above it."""
        if path in self._started:
            return "__main__"
        module = ".".join(self._parts(path)).removesuffix(".__init__")
        return "__main__" if {module, module.removesuffix(".__main__")} & self._started else module

    def _parts(self, path: str) -> tuple[str, ...]:
        installed = list(_PACKAGES.finditer(path))
        if installed:
            return PurePosixPath(path[installed[-1].end() :]).with_suffix("").parts
        whole = PurePosixPath(path).with_suffix("")
        above = [folder.name for folder in takewhile(self._is_package, whole.parents)]
        return (*reversed(above), whole.name)

    def _is_package(self, folder: PurePosixPath) -> bool:
        return Path(f"{self._root}{folder}/__init__.py").exists()


def _qualified_name(path: str, line: int) -> str:
    """Of the function whose definition holds that line; empty when the file tells nothing (py-spy's own name is used)."""
    found = [one for one in _definitions(path) if one[0] <= line <= one[1]]
    return min(found, key=lambda one: one[1] - one[0])[2] if found else ""


@lru_cache(maxsize=256)
def _definitions(path: str) -> list[tuple[int, int, str]]:
    """(first line, last line, qualified name) of each function in a file; those within functions have <locals>."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    found: list[tuple[int, int, str]] = []
    todo: list[tuple[ast.AST, str]] = [(tree, "")]
    while todo:
        node, prefix = todo.pop()
        for child in ast.iter_child_nodes(node):
            inner = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([child.lineno, *(one.lineno for one in child.decorator_list)])
                found.append((first, child.end_lineno or child.lineno, prefix + child.name))
                inner = f"{prefix}{child.name}.<locals>."
            elif isinstance(child, ast.ClassDef):
                inner = f"{prefix}{child.name}."
            todo.append((child, inner))
    return found
