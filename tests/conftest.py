"""Fixtures of the end-to-end tests; what they hand out is in harness.py."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
pytest.register_assert_rewrite("harness", "conversation")

from harness import TARGETS, Acceptor, Workplace  # noqa: E402
from pythons import Python  # noqa: E402

Builder = Callable[..., Path]
PROGRAM_ONLY = ("-no-pie", "-static")


def pytest_configure() -> None:
    # A shell's background job ignores SIGINT, and so would all programs that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """build(name, *flags, library="name", link=()): the compiled program of tests/targets, its library beside it."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    base = tmp_path_factory.mktemp("targets")
    built: dict[tuple[str, ...], Path] = {}

    def build_target(name: str, *flags: str, library: str | None = None, link: tuple[str, ...] = ()) -> Path:
        key = (name, library or "", *flags, *link)
        if key not in built:
            folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
            built[key] = compile_target(folder, name, library, flags, link)
        return built[key]

    return build_target


def compile_target(folder: Path, name: str, library: str | None, flags: tuple[str, ...], link: tuple[str, ...]) -> Path:
    program = folder / name
    common = ["-O2", "-Wall", "-Wextra", "-Werror", *flags]
    linked = []
    if library:
        for_library = [flag for flag in common if flag not in PROGRAM_ONLY]
        compile_file(folder / f"lib{library}.so", f"lib{library}", [*for_library, "-fPIC", "-shared"])
        linked = [f"-L{folder}", f"-l{library}", "-Wl,-rpath,$ORIGIN"]
    compile_file(program, name, [*common, "-rdynamic", "-pthread"], [*linked, *link, "-lm"])
    return program


def compile_file(out: Path, name: str, flags: list[str], after: list[str] | None = None) -> None:
    source = next(path for path in (TARGETS / f"{name}.c", TARGETS / f"{name}.cpp") if path.exists())
    compiler = "g++" if source.suffix == ".cpp" else "gcc"
    command = [compiler, *flags, "-o", str(out), str(source), *(after or [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workplace]:
    """Starts programs and radium; ends what is left."""
    workplace = Workplace(tmp_path)
    yield workplace
    workplace.close()


@pytest.fixture
def acceptor(work: Workplace) -> Acceptor:
    return work.serve()


@pytest.fixture
def profile() -> Callable[[str], Path]:
    """profile(name): the path of tests/targets/NAME.toml"""
    return lambda name: TARGETS / f"{name}.toml"


@pytest.fixture
def place(work: Workplace) -> Iterator[Callable[[Python, str], list[object]]]:
    """place(python, name): how this interpreter runs a copy of that program of tests/targets/python."""
    work.env.pop("PYTHONSAFEPATH", None)  # they import what lies beside them
    folders = []

    def placed(python: Python, name: str) -> list[object]:
        folder = Path(tempfile.mkdtemp(dir=python.root / "tmp"))
        folders.append(folder)
        shutil.copytree(TARGETS / "python", folder, dirs_exist_ok=True)
        return [*python.argv, Path("/") / folder.relative_to(python.root) / f"{name}.py"]

    yield placed
    for folder in folders:
        shutil.rmtree(folder)
