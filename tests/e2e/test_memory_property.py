"""Random programs of memory operations: each sees the same memory, whole and split, after each call."""

import pytest
from harness import remote_total

BATCH = 5


def run_batch(build, work, profile, first, *extra):
    split = work.same([build("memory", library="memory"), first, BATCH, 120], profile("memory"), *extra)
    local = {entry["name"]: entry["local_reasons"] for entry in split.report["splits"]}
    called = sum(sum(entry["calls"].values()) for entry in split.report["splits"])
    assert remote_total(split.report) > 0.8 * called, local


@pytest.mark.parametrize("first", range(1, 31, BATCH))
def test_random_programs(build, work, profile, first):
    """After each call, everything that the program can see is what it is in a whole run."""
    run_batch(build, work, profile, first)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1300, BATCH))
def test_more_random_programs(build, work, profile, first):
    """As above, for many more seeds."""
    run_batch(build, work, profile, first)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 8])
def test_long_random_program(build, work, profile, seed):
    """A long life of one process: heap, mappings and brk go through thousands of calls."""
    work.same([build("memory", library="memory"), seed, 1, 3000], profile("memory"))


@pytest.mark.parametrize("tracking", ["pagemap", "checksum"])
def test_memory_that_is_protected_at_home(build, work, profile, monkeypatch, tracking):
    """A call that allows the use of memory finds there what is there, and pages that never were as zeros."""
    monkeypatch.setitem(work.env, "RADIUM_AUDIT", "1")
    split = work.same([build("protected", library="protected"), 3], profile("protected"), "--tracking", tracking)
    assert split.remote("protected_use") == 18 and not split.reasons("protected_use")
