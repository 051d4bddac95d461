"""Functions of every CPython that radium knows are split, however they are called."""

import signal
from collections.abc import Callable

import pytest
from pythons import SPLIT, parameters

ROUND = r"^\d+ \["
ASYNCHRONOUS = {"sleeps", "awaits", "never"}


@pytest.fixture(params=parameters())
def python(request):
    return request.param


@pytest.fixture
def program(python, place) -> Callable:
    """program(name): how this interpreter runs that program of tests/targets/python."""
    return lambda name: place(python, name)


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


def test_threads(work, program, profile_of_work):
    """Threads call a function that takes a lock, lets go of the GIL, and is left by its thread's end."""
    split = work.same([*program("crowd"), 120, 4], profile_of_work)
    assert split.remote("work") >= 30


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
