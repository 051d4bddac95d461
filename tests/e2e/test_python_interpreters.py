"""Interpreters that are refused, and CPythons that are built or started in other ways: with the real ones."""

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from harness import remote_of, remote_total
from pythons import SPLIT, Python, debians, natives, parameter, parameters

PYPY = next(python for python in debians() if python.path.name == "pypy3")
FREE_THREADED = next((python for python in natives() if python.kind == "cpythont"), None)
SYSTEM = Python("system", Path("/usr/bin/python3"))
REFUSED = "radium: Python functions are not split: "

CRC32 = """
[[split]]
library = "libz.so*"
function = "crc32"
signature = "unsigned long crc32(unsigned long crc, const unsigned char *buf, unsigned int len)"
"""
# All that is mounted is read-only from here on.
READ_ONLY = """
while read -r _ at _; do mount -o remount,bind,ro "$at" 2>/dev/null; done </proc/self/mounts
touch "$PWD/written" 2>/dev/null && exit 1
exec "$@"
"""


@pytest.fixture
def split(tmp_path) -> Path:
    path = tmp_path / "heavy.toml"
    path.write_text('name = "heavy"\n[[split]]\npython = ["__main__:heavy", "json:dumps"]\n')
    return path


def attached(work, argv, split, line):
    """The report of a session with a program that runs already, and what it said, this line first; the program does the same as whole."""
    whole = work.run_whole(argv)
    target = work.start(argv, hold=True)
    session = work.attach(target.pid, split)
    session.running.err.wait_for(line)
    target.release()
    assert target.check_success() == whole.stdout
    return session.ended(), session.running.err.finish()


def check_split(work, argv, split):
    """All calls are remote, of a program that runs already, and of one that is started; it does the same as whole."""
    report, _ = attached(work, argv, split, SPLIT)
    for found in (report, work.same(argv, split).report):
        assert remote_total(found) == 40 and not any(one["calls"]["local"] for one in found["splits"])


def check_refused(work, argv, split, why):
    """One line says why, the other splits of the profile go on, and the program does the same as whole."""
    split.write_text(split.read_text() + CRC32)
    report, said = attached(work, argv, split, REFUSED)
    ran = work.same(argv, split)
    for found, text in ((report, said), (ran.report, ran.stderr)):
        (line,) = re.findall(f"^{REFUSED}.*", text, re.MULTILINE)
        assert why in line and "Python splits need" in line
        assert remote_total(found) == remote_of(found, "crc32") == 20


@pytest.mark.skipif(PYPY.kind != "pypy", reason="PyPy is not there: run scripts/pythons, as root")
def test_pypy(work, place, split):
    """Its functions have no slots."""
    check_refused(work, place(PYPY, "anywhere"), split, "is run by PyPy")


@pytest.mark.skipif(not FREE_THREADED, reason="no free-threaded CPython is there (Debian has none): run pyenv install 3.13t")
def test_free_threaded(work, place, split):
    """Without a GIL there is no safe point."""
    check_refused(work, place(FREE_THREADED, "anywhere"), split, "is a free-threaded CPython")


@pytest.mark.parametrize("python", parameters())
def test_sub_interpreters_before(work, place, split, python):
    """A program that has some when radium comes is refused."""
    target = work.start([*place(python, "interpreters"), "before", "sleeps"], hold=True)
    session = work.attach(target.pid, split)
    line = session.running.err.wait_for(REFUSED + ".*").string
    assert line.endswith("runs sub-interpreters; Python splits need a program with one interpreter")
    target.release()
    target.out.wait_for("INSIDE")
    target.release()
    target.check_success()
    assert remote_total(session.ended()) == 0


@pytest.mark.parametrize("how", ["sleeps", "spins"])
@pytest.mark.parametrize("python", parameters())
def test_sub_interpreters_afterwards(work, place, split, python, how):
    """Functions of the main interpreter stay split, those of the others are not; a detach while its thread is in one waits."""
    argv = [*place(python, "interpreters"), "afterwards", how]
    target = work.start(argv, hold=True)
    session = work.attach(target.pid, split)
    session.running.err.wait_for(SPLIT)
    target.release()
    target.out.wait_for("INSIDE")
    session.running.kill(signal.SIGINT)
    time.sleep(0.3)  # radium looks for a safe point meanwhile, and must find none there
    target.release()
    assert target.check_success() == work.run_whole(argv).stdout
    # Of 20 calls here and 40 there, and of one of json.dumps there.
    assert remote_total(session.ended()) == 20


@pytest.mark.parametrize("python", parameters())
def test_sub_interpreters_run(work, place, split, python):
    """As above, from the program's start to its end."""
    assert work.same([*place(python, "interpreters"), "afterwards", "sleeps"], split).remote("heavy") == 40


@pytest.mark.parametrize("options", [["-I"], ["-S"], ["-B"], ["-I", "-S", "-B"]], ids=" ".join)
@pytest.mark.parametrize("python", [parameter(SYSTEM)])
def test_options(work, place, split, python, options):
    """What the interpreter is told not to read, we do not need either."""
    *interpreter, program = place(python, "anywhere")
    check_split(work, [*interpreter, *options, program], split)


@pytest.mark.parametrize("python", [parameter(SYSTEM)])
def test_virtual_environment(work, place, split, python, tmp_path):
    """The interpreter is reached by a link."""
    subprocess.run([python.path, "-m", "venv", "--without-pip", "--symlinks", tmp_path / "venv"], check=True)
    check_split(work, place(Python("venv", tmp_path / "venv/bin/python"), "anywhere"), split)


@pytest.mark.root
@pytest.mark.parametrize("python", [parameter(SYSTEM)])
def test_read_only(work, place, split, python):
    """A program that can write nowhere."""
    probe = ["unshare", "--mount", "true"]
    if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip(f"needs {' '.join(probe)}")
    check_split(work, ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", *place(python, "anywhere")], split)


@pytest.mark.parametrize("python", [parameter(SYSTEM)])
def test_relocated(work, place, split, python, tmp_path):
    """As conda has it: the interpreter in a stripped executable, in a prefix that was moved; names come from .dynsym alone."""
    if not shutil.which("strip"):
        pytest.skip("needs strip")
    name = f"python{python.version[0]}.{python.version[1]}"
    for folder in ("bin", "lib"):
        (tmp_path / "prefix" / folder).mkdir(parents=True)
    moved = tmp_path / "prefix/bin" / name
    subprocess.run(["strip", "-o", moved, python.path.resolve()], check=True)
    shutil.copytree(f"/usr/lib/{name}", tmp_path / "prefix/lib" / name, ignore=shutil.ignore_patterns("__pycache__", "test"))
    relocated = Python("relocated", moved)
    argv = [*relocated.argv, "-I", "-c", "import sys, os; print(sys.prefix, os.__file__)"]
    assert work.run_whole(argv).stdout == f"{tmp_path}/prefix {tmp_path}/prefix/lib/{name}/os.py"
    check_split(work, place(relocated, "anywhere"), split)
