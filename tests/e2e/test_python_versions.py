"""Functions of every CPython that radium knows are split: of other Debian suites (scripts/pythons), of pyenv, of here."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import TARGETS

TOP = Path(__file__).parents[2]
VERSIONS = [(3, minor) for minor in range(9, 15)]
ABOUT = "import json, sys; print(json.dumps([sys.implementation.name + sys.abiflags, *sys.version_info[:2]]))"
ROUND = r"^\d+ \["
SPLIT = r"radium: Python \d+\.\d+: [1-9]\d* functions? (is|are) split"
ASYNCHRONOUS = {"sleeps", "awaits", "never"}


@dataclass
class Python:
    """An interpreter by its path in `root`, the folder that is its whole file system."""

    name: str
    path: Path
    root: Path = Path("/")
    version: tuple[int, int] | None = None

    def __post_init__(self):
        """version: None for one that is not there, and for what is no CPython that radium knows."""
        if (self.root / self.path.relative_to("/")).exists() and (self.root == Path("/") or os.geteuid() == 0):
            done = subprocess.run([*self.argv, "-I", "-c", ABOUT], capture_output=True, text=True)
            name, *version = json.loads(done.stdout) if done.returncode == 0 else [""]
            self.version = tuple(version) if name == "cpython" and tuple(version) in VERSIONS else None

    @property
    def argv(self):
        return [self.path] if self.root == Path("/") else ["chroot", self.root, self.path]


def debians():
    listed = subprocess.run([TOP / "scripts/pythons", "--list"], capture_output=True, text=True, check=True).stdout
    for suite, version in map(str.split, listed.splitlines()):
        yield Python(f"{suite}-{version}", Path(f"/usr/bin/python{version}"), TOP / ".pythons" / suite)


def natives():
    """Those of this machine's file system, each once."""
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob("*/bin/python3"))
    paths = {"running": sys.executable, "system": "/usr/bin/python3", **{f"pyenv-{path.parts[-3]}": path for path in pyenv}}
    by_path = {Path(path).resolve(): name for name, path in reversed(paths.items())}
    return [Python(name, path) for path, name in reversed(by_path.items())]


def pythons():
    """A parameter for each interpreter; those that are missing are skipped."""
    of_debian, of_here = list(debians()), [python for python in natives() if python.version]
    for python in [*of_debian, *of_here]:
        marks = [] if python.version else [pytest.mark.skip(f"{python.name} is not there: run scripts/pythons, as root")]
        if python.name.startswith("pyenv") and python.version in [other.version for other in of_debian]:
            # Another build of a version that is tested anyway.
            marks.append(pytest.mark.slow)
        yield pytest.param(python, id=python.name, marks=marks)
    for version in VERSIONS:
        if version not in [python.version for python in [*of_debian, *of_here]]:
            text = ".".join(map(str, version))
            yield pytest.param(None, id=text, marks=pytest.mark.skip(f"no CPython {text} is there: run pyenv install {text}"))


@pytest.fixture(params=pythons())
def python(request):
    return request.param


@pytest.fixture
def program(python, work) -> Callable:
    """program(name): how this interpreter runs a copy of that program of tests/targets/python."""
    work.env.pop("PYTHONSAFEPATH", None)  # they import what lies beside them
    folder = Path(tempfile.mkdtemp(dir=python.root / "tmp"))
    shutil.copytree(TARGETS / "python", folder, dirs_exist_ok=True)
    yield lambda name: [*python.argv, Path("/") / folder.relative_to(python.root) / f"{name}.py"]
    shutil.rmtree(folder)


def attached(work, argv, profile):
    """The report of a session, and what it said, with a program that ran before, goes on afterwards and ends as it does whole."""
    target = work.start([*argv, 0])
    session = work.attach(target.pid, profile)
    session.running.err.wait_for(SPLIT)
    for then in (session.detach, lambda: target.kill(signal.SIGTERM)):
        target.out.wait_for(ROUND, after=len(target.out.seen) + 3)
        then()
    lines = target.check_success().splitlines()
    assert work.run_whole([*argv, lines[-2].split()[0]]).stdout.splitlines() == lines
    return session.report(), session.running.err.finish()


def names(report, where):
    """The functions that had calls which were `remote` or `local`."""
    return {split["name"].partition(":")[2].partition(":")[2] for split in report["splits"] if split["calls"][where]}


def reasons(report):
    return {reason for split in report["splits"] for reason in split["local_reasons"]} - {"refused:detaching"}


def test_functions(work, program, profile):
    """Functions are split however they are called, and are afterwards what they were."""
    report, _ = attached(work, program("calls"), profile("python/calls"))
    assert names(report, "remote") == {
        *("plain", "loose", "wrapped", "closure", "unnamed", "raises", "catches", "same", "recursive", "depth", "called", "work"),
        *("Base.method", "Base.of_class", "Base.of_nothing", "Base.square", "Base.__call__", "Derived.method", "Pair"),
        *("Special.__init__", "Special.__getitem__", "Special.__getattr__", "Special.__getattribute__", "Special.__add__"),
        *("Special.__eq__", "Special.__len__", "Special.__contains__", "Special.__enter__", "Special.__exit__"),
    }
    assert not reasons(report)


def test_steps(work, program, profile, python):
    """Steps of generators and, from CPython 3.10 on, of coroutines are split."""
    report, said = attached(work, program("generators"), profile("python/generators"))
    split = {"squares", "delegates", "adds", "closes", "fails", "Numbers.items", *ASYNCHRONOUS}
    if python.version < (3, 10):
        split -= ASYNCHRONOUS
        assert all(f"steps:{name} is not split: coroutines are split from CPython 3.10 on" in said for name in ASYNCHRONOUS)
    assert names(report, "remote") == split and not reasons(report)


def test_guards(work, program, profile):
    """A guard sees the arguments by name, however they are given; what it cannot answer stays at home."""
    report, _ = attached(work, program("guards"), profile("python/guards"))
    assert names(report, "remote") == names(report, "local") == {"total", "Table.sum"}
    assert reasons(report) == {"guard"}


def test_late(work, program, profile):
    """Functions are split as soon as they are there, in the main module and in those that are imported."""
    split = work.same(program("late"), profile("python/late"))
    found = {name: split.remote(name) for name in sorted(names(split.report, "remote"))}
    assert found == {"Base.method": 1, "Worker.heavy": 2, "dumps": 1, "heavy": 2, "plain": 1, "recursive": 1, "work": 1}


def test_alone(work, program, profile):
    """A main module that imports nothing is split too, from the first call on."""
    split = work.same(program("alone"), profile("python/alone"))
    assert [split.remote(name) for name in ("work", "Box", "Box.volume")] == [20, 20, 20]


@pytest.mark.parametrize("is_allowed", [True, False], ids=["allowed", "forbidden"])
def test_asked_to_stop(work, program, profile_of_work, python, is_allowed):
    """A CPython that can be asked from outside to stop is (PEP 768); others are made to call a function."""
    argv = program("audited")
    if python.version >= (3, 14) and not is_allowed:
        argv[-1:-1] = ["-X", "disable-remote-debug"]
    running = work.start(argv)
    session = work.attach(running.pid, profile_of_work)
    session.running.err.wait_for(SPLIT)
    running.out.wait_for("works", after=len(running.out.seen) + 2)
    report = session.detach()
    running.kill()
    is_asked = python.version >= (3, 14) and is_allowed
    assert running.check_success().splitlines()[-2] == ("['/dev/null']" if is_asked else "[]")
    assert names(report, "remote") == {"work"}


@pytest.fixture
def profile_of_work(tmp_path):
    path = tmp_path / "work.toml"
    path.write_text('name = "work"\n[[split]]\npython = "__main__:work"\n')
    return path
