"""Where the time goes in real programs, with and without BPF."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from harness import TARGETS, Running, Workplace, status
from pythons import Python, parameters

from radium.bpf import program
from radium.errors import NotPossible
from radium.tracer.discovery import sampler, sources, tree
from radium.tracer.discovery.sampler import Sampled
from radium.tracer.discovery.symbols import Frame

Builder = Callable[..., Path]
ENOUGH_S, FREQUENCY = 1.5, 99
OUTER = Frame("libhotspots.so:outer_work", "libhotspots.so", "outer_work")
pytestmark = pytest.mark.root


@pytest.fixture(params=["bpf", "ptrace"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to samples."""
    if request.param == "ptrace":
        forbid_bpf(monkeypatch)
    return str(request.param)


def forbid_bpf(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NotPossible("BPF needs bcc, which is not installed")

    monkeypatch.setattr(program, "load_bcc", refuse)


@pytest.fixture
def hotspots(build: Builder, work: Workplace) -> Callable[[str], Running]:
    path = build("hotspots", library="hotspots")
    return lambda mode: work.start([path, mode])


def sampled(pid: int, seconds: float = ENOUGH_S) -> Sampled:
    found = sampler.sample([pid], seconds, FREQUENCY)
    assert found.samples.taken, found.notes
    return found


def later(action: Callable[[], None], turns: int = 1) -> Callable[[], bool]:
    """A `should_stop` that never says so, but does something in that turn of the loop."""
    count = iter(range(1, 1 << 30))

    def should_stop() -> bool:
        if next(count) == turns:
            action()
        return False

    return should_stop


def inclusive(found: Sampled, name: str) -> float:
    return sum(share.inclusive for frame, share in tree.shares(found.native).items() if frame.name == name)


def test_exported_and_static_functions(way: str, hotspots: Callable[[str], Running]) -> None:
    """The exported function has all of the time inclusively, its static helper exclusively; main is below both."""
    found = sampled(hotspots("spin").pid)
    assert found.samples.way == {"bpf": "perf events", "ptrace": "ptrace"}[way]
    assert found.samples.not_unwound == 0 and not found.ended
    shares = tree.shares(found.native)
    assert shares[OUTER].inclusive > 0.95 and shares[OUTER].exclusive < 0.2
    assert shares[Frame("libhotspots.so:spin")].exclusive > 0.8
    assert inclusive(found, "hotspots:main") > 0.95
    assert 0 <= found.overhead < 1


def test_recursion_counts_once(hotspots: Callable[[str], Running]) -> None:
    """A recursive function is in a sample once, however deep it is."""
    found = sampled(hotspots("recursive").pid)
    recursive = [share for frame, share in tree.shares(found.native).items() if frame.function == "recursive_work"]
    assert 0.9 < recursive[0].inclusive <= 1


def test_children_that_come_meanwhile(way: str, build: Builder, work: Workplace) -> None:
    """A child that is forked while its parent is sampled is sampled too."""
    running = work.start([build("hotspots", library="hotspots"), "children"], hold=True)
    found = sampler.sample([running.pid], ENOUGH_S, FREQUENCY, later(running.release))
    assert len(found.pids) == 2 and tree.shares(found.native)[OUTER].inclusive > 0.9


def test_generated_code(way: str, hotspots: Callable[[str], Running]) -> None:
    """Code of no file is called what it is, and passed by its frame pointers."""
    found = sampled(hotspots("jit").pid)
    assert inclusive(found, "[jit]") > 0.9 and inclusive(found, "hotspots:main") > 0.9


def test_static_stripped_program(build: Builder, work: Workplace) -> None:
    """Without any names: functions are told apart by where they begin."""
    path = build("hotspots", "-static", "-s", link=(str(TARGETS / "libhotspots.c"),))
    found = sampled(work.start([path, "spin"]).pid)
    assert found.samples.not_unwound == 0
    names = {frame.name for stack in found.native for frame in stack}
    assert all(name.startswith("hotspots:0x") for name in names), names
    assert len(names) < 12
    assert not any(frame.function for stack in found.native for frame in stack)


def test_thousand_threads(way: str, hotspots: Callable[[str], Running]) -> None:
    """Those that sleep cost nothing, the one that runs is found."""
    running = hotspots("threads")
    found = sampled(running.pid, 3)
    assert tree.shares(found.native)[OUTER].inclusive > 0.9
    assert running.alive and status(running.pid)["State"][0] in "RS"


def test_process_ends(way: str, build: Builder, work: Workplace) -> None:
    """Sampling ends with the process, whose exit is left for others to see."""
    running = work.start([build("hotspots", library="hotspots"), "ends"])
    found = sampler.sample([running.pid], None, FREQUENCY, later(running.release, turns=20))
    assert found.ended and found.samples.taken
    assert running.check_success()


def test_process_is_killed_while_it_is_stopped(
    hotspots: Callable[[str], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of threads that are held is taken, so that who started the program can take its own."""
    forbid_bpf(monkeypatch)
    monkeypatch.setattr(sources, "_STOP_S", 0.0)
    running = hotspots("signals")
    found = sampler.sample([running.pid], None, FREQUENCY, later(lambda: os.kill(running.pid, 9), turns=20))
    assert found.ended and running.wait() == 128 + signal.SIGKILL


def test_process_execs(build: Builder, work: Workplace) -> None:
    """Another program's code is named by its own file from then on."""
    path = build("hotspots", library="hotspots")
    go = work.folder / "go"
    running = work.popen(["/bin/sh", "-c", f"while [ ! -e {go} ]; do :; done; exec {path} spin"])
    found = sampler.sample([running.pid], 2 * ENOUGH_S, FREQUENCY, later(go.touch, turns=20))
    names = {frame.name for stack in found.native for frame in stack}
    assert OUTER.name in names and any(name.startswith(("dash:", "bash:", "sh:")) for name in names), names


def test_traced_by_another(hotspots: Callable[[str], Running], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without BPF, a process that has a tracer is left alone, with a line."""
    forbid_bpf(monkeypatch)
    running = hotspots("spin")
    program_text = (
        "import sys; from radium.linux import ptrace; ptrace.seize(int(sys.argv[1]), 0); print('READY', flush=True);"
        "sys.stdin.read()"
    )
    tracer = subprocess.Popen(
        [sys.executable, "-c", program_text, str(running.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert tracer.stdin and tracer.stdout and tracer.stdout.readline() == b"READY\n"
    found = sampler.sample([running.pid], 0.5, FREQUENCY)
    assert found.samples.taken == 0
    assert any("is traced by process" in line for line in found.notes)
    tracer.communicate()


@pytest.mark.parametrize("stop_s", [sources._STOP_S, pytest.param(0.0, marks=pytest.mark.slow)])
def test_signals_arrive_while_sampled(
    hotspots: Callable[[str], Running], monkeypatch: pytest.MonkeyPatch, stop_s: float
) -> None:
    """Stopping a thread for a sample loses none of the signals that come just then; nor if it does not stop in time."""
    forbid_bpf(monkeypatch)
    monkeypatch.setattr(sources, "_STOP_S", stop_s)
    monkeypatch.setattr(sources.Stops, "frequency", 500)
    running = hotspots("signals")
    sampler.sample([running.pid], 3, FREQUENCY)
    assert status(running.pid)["TracerPid"] == "0"
    running.release()
    assert running.check_success()


def test_libcrypto_without_frame_pointers(work: Workplace) -> None:
    """A stock program: the time is in the key derivation, and every stack is whole."""
    command = "openssl enc -pbkdf2 -iter 100000000 -aes-256-cbc -k x -in /etc/hosts -out /dev/null"
    found = sampled(work.popen(command.split()).pid, 2)
    named = {frame.function: share for frame, share in tree.shares(found.native).items()}
    assert named["PKCS5_PBKDF2_HMAC"].inclusive > 0.9
    assert found.samples.not_unwound <= found.samples.taken // 20


def test_python_and_numpy(work: Workplace) -> None:
    """Python functions by module and name, native ones through OpenBLAS's kernels, which have no unwind tables."""
    script = work.folder / "script.py"
    script.write_text(
        "import numpy as np\n"
        "class Worker:\n"
        "    def multiply(self, a):\n"
        "        return a @ a\n"
        "def main():\n"
        "    a = np.random.rand(600, 600)\n"
        "    print('READY', flush=True)\n"
        "    while True:\n"
        "        [Worker().multiply(a) for _ in range(3)]\n"
        "main()\n"
    )
    found = sampled(work.start([sys.executable, script]).pid, 3)
    python = tree.shares(found.python)
    multiply = Frame("python:__main__:Worker.multiply", "", "__main__:Worker.multiply")
    assert python[multiply].inclusive > 0.7, python
    assert python[Frame("__main__:<module>")].inclusive > 0.9
    assert found.samples.python == found.python.total()
    assert found.samples.not_unwound <= found.samples.taken // 10
    dgemm = [share.inclusive for frame, share in tree.shares(found.native).items() if "dgemm" in frame.function]
    assert max(dgemm) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("python", parameters())
def test_python_versions(python: Python, work: Workplace, place: Callable[[Python, str], list[object]]) -> None:
    """Functions of each CPython, wherever it is installed: methods, and what has no name of its own is no candidate."""
    found = sampled(work.start(place(python, "sampled")).pid, 3)
    shares = tree.shares(found.python)
    assert shares[Frame("python:busywork:Worker.work", "", "busywork:Worker.work")].inclusive > 0.5, shares
    assert shares[Frame("python:__main__:main", "", "__main__:main")].inclusive > 0.9, shares
    assert not any("<" in frame.function for frame in shares)


def test_indirect_functions(hotspots: Callable[[str], Running]) -> None:
    """The implementation that the process has chosen bears the name by which it is called."""
    found = sampled(hotspots("copies").pid)
    assert tree.shares(found.native)[Frame("libc.so.6:memcpy", "libc.so.6", "memcpy")].exclusive > 0.8


def test_sqlite_with_a_long_query(work: Workplace) -> None:
    """A stock program: all of the time is in one step of a statement."""
    query = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c WHERE x % 7 = 3;"
    found = sampled(work.popen(["sqlite3", ":memory:", query]).pid)
    named = {frame.function: share for frame, share in tree.shares(found.native).items()}
    assert named["sqlite3_step"].inclusive > 0.9
    assert found.samples.not_unwound <= found.samples.taken // 20


def test_threads_and_exceptions_of_cpp(build: Builder, work: Workplace) -> None:
    """C++ in many threads: whole stacks."""
    found = sampled(work.start([build("throwing"), "for ever"]).pid)
    assert found.samples.not_unwound <= found.samples.taken // 20
    assert inclusive(found, "throwing:passing_task") > 0.5
    assert any(frame.name.startswith("libgcc_s.so.1:_Unwind") for stack in found.native for frame in stack)


def test_without_privilege(hotspots: Callable[[str], Running]) -> None:
    """Another user gets a line for each thing that is refused, and no samples of what is not his."""
    running = hotspots("spin")
    text = (
        "import os\n"
        "from radium.tracer.discovery import sampler\n"
        "os.setresuid(65534, 65534, 65534)\n"
        f"found = sampler.sample([{running.pid}], 1, 99)\n"
        "print(found.samples.way, found.samples.taken, *found.notes, sep=chr(10))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    way, taken, *notes = done.stdout.splitlines()
    assert (way, taken) == ("ptrace", "0")
    assert any("threads are stopped for a moment instead" in line for line in notes)
    assert any("cannot be traced" in line for line in notes), notes
    assert running.alive


def test_unwinding_goes_through_the_tree(hotspots: Callable[[str], Running]) -> None:
    """The tree has the samples of all stacks, and each node those of its children at least."""
    found = sampled(hotspots("spin").pid)
    top = tree.build(found.native, "native")
    assert top.samples == found.samples.taken
    todo = [top]
    for node in todo:
        assert sum(child.samples for child in node.children) <= node.samples
        todo += node.children
    assert "libhotspots.so:spin" in {node.name for node in todo}


def test_in_a_container(monkeypatch: pytest.MonkeyPatch, hotspots: Callable[[str], Running]) -> None:
    """Where process ids differ from those that BPF sees, samples come by ptrace, with a line."""
    monkeypatch.setattr(sources, "_INITIAL_PIDS", 1)
    found = sampled(hotspots("spin").pid)
    assert found.samples.way == "ptrace" and any("container" in line for line in found.notes)


def test_killed_sampler_leaves_nothing(hotspots: Callable[[str], Running]) -> None:
    """kill -9 of the sampler: the program runs on, untraced."""
    running = hotspots("spin")
    text = f"from radium.tracer.discovery import sampler; print(1, flush=True); sampler.sample([{running.pid}], None, 99)"
    killed = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    assert killed.stdout and killed.stdout.readline()
    with suppress(subprocess.TimeoutExpired):
        killed.wait(1)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert running.alive and status(running.pid)["TracerPid"] == "0"
