"""Page runs against a model: plain sets of page numbers."""

from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core import pages
from radium.core.addr import PAGE_SIZE, USER_END
from radium.core.pages import PageSet, Runs

NPAGES = 40
page_sets = st.sets(st.integers(0, NPAGES - 1))
# Runs as callers may bring them: unsorted, overlapping, empty.
rough_runs = st.lists(
    st.tuples(st.integers(0, NPAGES), st.integers(0, NPAGES)).map(lambda ends: (ends[0] * PAGE_SIZE, ends[1] * PAGE_SIZE))
)


def runs_of(model: set[int]) -> Runs:
    return pages.normalise((page * PAGE_SIZE, (page + 1) * PAGE_SIZE) for page in model)


def model_of(runs: Runs) -> set[int]:
    return {page for start, end in runs for page in range(start // PAGE_SIZE, end // PAGE_SIZE)}


def is_normal(runs: Runs) -> bool:
    return all(start < end for start, end in runs) and all(a[1] < b[0] for a, b in pairwise(runs))


@given(rough_runs)
def test_normalise(runs):
    """Any ranges become sorted runs that do not touch, of the same pages."""
    out = pages.normalise(runs)
    assert is_normal(out) and model_of(out) == model_of(runs)
    assert pages.npages(out) == len(model_of(runs)) and pages.total(out) == PAGE_SIZE * pages.npages(out)


@given(page_sets, page_sets)
def test_set_operations(a, b):
    """Intersection, difference and union are those of sets, and their results are normal."""
    for function, model in ((pages.intersect, a & b), (pages.subtract, a - b), (pages.union, a | b)):
        out = function(runs_of(a), runs_of(b))
        assert is_normal(out) and model_of(out) == model


@given(page_sets, page_sets, st.integers(0, 5))
def test_bridge(wanted, allowed, gap):
    """A bridged hole is at most as long as asked and lies in `within`; nothing that was asked for is left out."""
    runs = runs_of(wanted)
    spans = pages.bridge(runs, gap * PAGE_SIZE, PageSet(runs_of(allowed)))
    holes = pages.subtract(spans, runs)
    assert model_of(spans) >= wanted and model_of(holes) <= allowed
    assert all(end - start <= gap * PAGE_SIZE for start, end in holes)


@given(st.lists(st.tuples(st.integers(0, NPAGES * PAGE_SIZE), st.integers(0, 3 * PAGE_SIZE))))
def test_around(ranges):
    """The pages around byte ranges are all that have a byte of them, and no others."""
    out = pages.around((start, start + nbytes) for start, nbytes in ranges)
    model = {
        page for start, nbytes in ranges if nbytes
        for page in range(start // PAGE_SIZE, (start + nbytes - 1) // PAGE_SIZE + 1)
    }  # fmt: skip
    assert is_normal(out) and model_of(out) == model


@given(page_sets, st.integers(1, 7))
def test_pieces(model, npages):
    """Pieces have at most the size asked for, all but the last exactly it, and are the runs in order."""
    groups = list(pages.pieces(runs_of(model), npages * PAGE_SIZE))
    assert [page for group in groups for run in group for page in sorted(model_of([run]))] == sorted(model)
    sizes = [pages.npages(group) for group in groups]
    assert all(size == npages for size in sizes[:-1]) and all(0 < size <= npages for size in sizes)


@given(page_sets)
def test_pack_and_unpack(model):
    """Runs come back from their packed form as they were."""
    runs = runs_of(model)
    assert pages.unpack(pages.pack(runs)) == runs


@given(st.lists(st.integers(0, (1 << 64) - 1)))
def test_unpack_refuses_what_is_no_runs(words):
    """Unpacked runs are in order, aligned and in user space, or ValueError is raised."""
    try:
        runs = pages.unpack(array("Q", words).tobytes())
    except ValueError:
        return
    assert all(0 <= start < end <= USER_END and (start | end) % PAGE_SIZE == 0 for start, end in runs)
    assert all(a[1] <= b[0] for a, b in pairwise(runs))


@pytest.mark.parametrize(
    "runs",
    [
        [(4096, 4096)],
        [(8192, 4096)],
        [(4096, 12288), (8192, 16384)],
        [(8192, 12288), (0, 4096)],
        [(1, 4096)],
        [(0, 4097)],
        [(0, USER_END + 4096)],
        [((1 << 64) - 4096, 0)],
    ],
)
def test_unpack_examples(runs):
    """Empty, reversed, overlapping, unsorted, unaligned and kernel runs are refused."""
    with pytest.raises(ValueError, match="page run"):
        pages.unpack(pages.pack(runs))


def test_unpack_refuses_half_a_run():
    """Bytes that are not whole runs are refused."""
    with pytest.raises(ValueError, match="not whole"):
        pages.unpack(pages.pack([(0, 4096)])[:-1])


@given(page_sets, st.lists(st.tuples(st.sampled_from(("add", "remove")), page_sets), max_size=6))
def test_page_set(start, steps):
    """A PageSet that pages are added to and removed from is the set that it models, and stays normal."""
    pages_set, model = PageSet(runs_of(start)), set(start)
    for step, change in steps:
        if step == "add":
            pages_set.add(runs_of(change))
            model |= change
        else:
            pages_set.remove(runs_of(change))
            model -= change
        assert is_normal(pages_set.runs) and model_of(pages_set.runs) == model
        assert pages_set.npages == len(model) and bool(pages_set) == bool(model)
        assert {page for page in range(NPAGES) if page * PAGE_SIZE in pages_set} == model
    pages_set.clear()
    assert not pages_set


@given(page_sets, st.integers(0, NPAGES - 1), st.integers(1, 6))
def test_adding_one_run(start, first, npages):
    """Adding a single run, which has a path of its own, is the same as a union."""
    pages_set = PageSet(runs_of(start))
    pages_set.add([(first * PAGE_SIZE, (first + npages) * PAGE_SIZE)])
    assert is_normal(pages_set.runs) and model_of(pages_set.runs) == start | set(range(first, first + npages))


@given(page_sets, st.integers(0, NPAGES - 1), st.integers(1, 6))
def test_covers(model, first, npages):
    """A range is covered when each of its pages is in the set."""
    covered = PageSet(runs_of(model)).covers(first * PAGE_SIZE, (first + npages) * PAGE_SIZE)
    assert covered == (set(range(first, first + npages)) <= model)
