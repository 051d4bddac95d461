"""policy = "auto": measured costs decide where calls run."""

import math
import os
import re
import signal
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from harness import TARGETS, Proxy, poll_until

BUSY = 5  # programs that compute beside ours, on its CPU
DELAY_S = 0.01  # of the link, each way


@pytest.fixture
def auto(tmp_path):
    path = tmp_path / "auto.toml"
    path.write_text((TARGETS / "sizes.toml").read_text().replace("[[split]]\n", '[[split]]\npolicy = "auto"\n'))
    return path


@pytest.fixture
def link(work):
    """A slow link to an acceptor whose CPU, if there are several, is not the program's."""
    proxy = Proxy(work.serve(prefix=["taskset", "-c", cpus()[-1]]).address, delay_s=DELAY_S)
    yield proxy
    proxy.close()


def cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def times(stderr: str) -> dict[int, float]:
    return {int(size): float(seconds) for size, seconds in re.findall(r"^size (\d+) took (\S+)$", stderr, re.MULTILINE)}


def crossing(home: dict[int, float], away: dict[int, float]) -> float:
    """The size at which both take as long: the last at which away begins to win."""
    logs = [(size, math.log(away[size] / home[size])) for size in sorted(home)]
    (size, loses), (next_size, wins) = next(pair for pair in reversed([*pairwise(logs)]) if pair[0][1] >= 0 > pair[1][1])
    return float(size * (next_size / size) ** (loses / (loses - wins)))


@pytest.mark.slow
def test_break_even(build, work, auto, profile, link):
    """Where the best side flips with size, the size at which it does is found within a factor of two.

    Home is slow because others compute on its CPU, and the way is long. What is right is measured here too: all calls at
    home, and all away.
    """
    program = build("sizes", library="sizes")
    for _ in range(BUSY):
        work.start([program, "spin", 1000, cpus()[0]])
    argv = [program, "sum", 12, 1, cpus()[0]]
    home = times(work.run_whole(argv).stderr)
    away = times(work.run_split(argv, profile("sizes"), acceptor=link).stderr)
    split = work.run_split([program, "sum", 40, 2, cpus()[0]], auto, acceptor=link)
    cost = split.split("sizes_sum")["cost"]
    right = 8 * crossing(home, away)
    assert cost["sized_by"] == "8 * n"
    assert right / 2 <= cost["break_even"] <= 2 * right
    assert cost["classes"][-1]["decision"] == "remote"
    assert {of_size["decision"] for of_size in cost["classes"] if of_size["size_to"] <= right / 2} == {"local"}
    told = work.radium("explain", work.folder / "report2.json").stdout
    assert re.search(r"Calls win away from 8 \* n = [\d,]+ on", told), told
    assert "That would flip with" in told


def test_short_calls_rest(build, work, auto):
    """A function that can gain nothing is trapped no more, but for a look now and then."""
    split = work.same([build("sizes", library="sizes"), "short", 2], auto)
    calls = split.split("sizes_short")["calls"]
    cost = split.split("sizes_short")["cost"]
    assert cost["rests"] > 0 and cost["rested_seconds"] > 0
    assert calls["remote"] < 20 and calls["local"] < 1000
    told = work.radium("explain", work.folder / "report1.json").stdout
    assert "Its trap was lifted" in told


def test_threads_and_children_rest(build, work, auto):
    """Traps are lifted and armed again among running threads, and in children that are forked meanwhile."""
    split = work.same([build("sizes", library="sizes"), "crowd", 3], auto)
    assert split.split("sizes_short")["cost"]["rests"] > 0
    assert len(split.report["processes"]) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_left_while_at_rest(build, work, auto, number):
    """A program that is left while a trap is lifted, or just armed, has its own code, and goes on."""
    program = work.start([build("sizes", library="sizes"), "crowd", 4])
    session = work.attach(program.pid, auto)
    poll_until(lambda: traps(program.pid) == 1, "a rest of the one that is called")
    session.running.kill(number)
    session.running.wait()
    poll_until(lambda: not traps(program.pid), "what is ours taken out")
    program.check_success()


def traps(pid: int) -> int:
    """How many bytes of the program's and its library's code are not as in their files."""
    with (Path("/proc") / str(pid) / "maps").open() as maps:
        lines = [line.split() for line in maps if "sizes" in line and " r-xp " in line]
    return sum(map(changed, [pid] * len(lines), lines))


def changed(pid: int, line: list[str]) -> int:
    start, end = (int(word, 16) for word in line[0].split("-"))
    with (Path("/proc") / str(pid) / "mem").open("rb") as memory:
        memory.seek(start)
        now = memory.read(end - start)
    with Path(line[5]).open("rb") as file:
        file.seek(int(line[2], 16))
        was = file.read(end - start)
    return sum(ours != theirs for ours, theirs in zip(now, was, strict=False))


def test_python_functions_are_weighed(work, tmp_path):
    """Python functions are timed on both sides too; those that gain nothing rest together."""
    (tmp_path / "weighed.py").write_text(MODULE)
    (tmp_path / "program.py").write_text(PROGRAM)
    profile = tmp_path / "weighed.toml"
    profile.write_text('name = "w"\n[[split]]\npython = ["weighed:busy", "weighed:short"]\npolicy = "auto"\n')
    work.env.pop("PYTHONSAFEPATH", None)
    split = work.same([sys.executable, "program.py"], profile)
    cost = split.split("busy")["cost"]
    [of_size] = cost["classes"]
    assert cost["rests"] > 0
    assert split.remote("short") + split.local("short") < 50_000
    assert of_size["local_seconds"] > 0 and of_size["remote_seconds"] > of_size["mirror_seconds"] > 0


MODULE = """
def busy(n):
    return sum(i * i % 7 for i in range(n))

def short(n):
    return n + 1
"""
PROGRAM = """import weighed
print([weighed.busy(200) for _ in range(300)][-1])
print(sum(weighed.short(n) for n in range(300000)))
"""
