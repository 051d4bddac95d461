"""The Python interpreters that there are to be tested: of other Debian suites (scripts/pythons), of pyenv, of here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[1]
VERSIONS = [(3, minor) for minor in range(9, 15)]
ABOUT = (
    "import json, sys; "
    "print(json.dumps([sys.implementation.name + getattr(sys, 'abiflags', ''), *sys.version_info[:2]]))"
)
SPLIT = r"radium: Python \d+\.\d+: [1-9]\d* functions? (is|are) split"


@dataclass
class Python:
    """An interpreter by its path in `root`, the folder that is its whole file system.

    kind: "cpython", "cpythont", "pypy"; "" for one that is not there. version: None for what radium does not split.
    """

    name: str
    path: Path
    root: Path = Path("/")
    kind: str = ""
    version: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if (self.root / self.path.relative_to("/")).exists() and (self.root == Path("/") or os.geteuid() == 0):
            done = subprocess.run([*self.argv, "-I", "-c", ABOUT], capture_output=True, text=True, check=False)
            self.kind, *version = json.loads(done.stdout) if done.returncode == 0 else [""]
            self.version = tuple(version) if self.kind == "cpython" and tuple(version) in VERSIONS else None

    @property
    def argv(self) -> list[object]:
        return [self.path] if self.root == Path("/") else ["chroot", self.root, self.path]


def debians() -> Iterator[Python]:
    listed = subprocess.run([TOP / "scripts/pythons", "--list"], capture_output=True, text=True, check=True).stdout
    for suite, command in map(str.split, listed.splitlines()):
        yield Python(f"{suite}-{command}", Path("/usr/bin") / command, TOP / ".pythons" / suite)


def natives() -> list[Python]:
    """Those of this machine's file system, each once."""
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob("*/bin/python3"))
    paths = {"running": sys.executable, "system": "/usr/bin/python3", **{f"pyenv-{path.parts[-3]}": path for path in pyenv}}
    by_path = {Path(path).resolve(): name for name, path in reversed(paths.items())}
    return [Python(name, path) for path, name in reversed(by_path.items())]


def parameters() -> list[Any]:
    """One for each version that radium knows, and each build; those that are missing are skipped."""
    of_debian = [python for python in debians() if python.path.name.startswith("python")]
    of_here = [python for python in natives() if python.version]
    found = [parameter(python) for python in of_debian]
    for python in of_here:
        # Debian's are the oldest and the newest, and those of this machine.
        found.append(parameter(python, *([pytest.mark.slow] if python.name.startswith("pyenv") else [])))
    for version in VERSIONS:
        if version not in [python.version for python in [*of_debian, *of_here]]:
            text = ".".join(map(str, version))
            skip = pytest.mark.skip(f"no CPython {text} is there: run pyenv install {text}")
            found.append(pytest.param(None, id=text, marks=skip))
    return found


def parameter(python: Python, *marks: Any) -> Any:
    missing = [] if python.version else [pytest.mark.skip(f"{python.name} is not there: run scripts/pythons, as root")]
    return pytest.param(python, id=python.name, marks=[*missing, *marks])
