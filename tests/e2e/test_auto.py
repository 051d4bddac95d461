"""policy = "auto": measured costs decide where calls run."""

import math
import os
import re
from itertools import pairwise

import pytest
from harness import TARGETS, Proxy

BUSY = 3  # programs that compute beside ours, on its CPU
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
