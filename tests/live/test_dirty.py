"""Both trackers on a living process: they tell what was written since the pages were declared clean, all of it, and little else."""

import os
import random

import pytest

from radium import dirty
from radium.core.addr import PAGE_SIZE
from radium.core.pages import Runs, intersect, normalise, subtract
from radium.linux import pagemap, userfaultfd, vm

DATA, NPAGES = 0x20000000, 64
MADV_DONTNEED = 4


def page(number: int) -> int:
    return DATA + number * PAGE_SIZE


def runs_of(numbers) -> Runs:
    return normalise((page(number), page(number + 1)) for number in numbers)


ALL = runs_of(range(NPAGES))


def told(tracker: dirty.Tracker, held: Runs) -> Runs:
    """Everything that is not known to be unchanged."""
    changed, lost = tracker.written(held)
    return normalise([*changed, *lost])


class Watched:
    """A process whose data exists, is watched where its tracker needs that, and is clean."""

    def __init__(self, bare, name: str, absent_counts: bool) -> None:
        self.bare = bare
        self.uffd = bare.vessel.take_descriptor(bare.vessel.call("userfaultfd", userfaultfd.O_CLOEXEC_NONBLOCK))
        userfaultfd.enable(self.uffd, dirty.FEATURES)
        vm.write(bare.pid, DATA, b"\x80" * NPAGES * PAGE_SIZE)
        self.tracker = dirty.tracker(name, bare.pid, absent_counts=absent_counts)
        self.watch(ALL)
        self.tracker.clean(ALL)

    def watch(self, runs: Runs) -> None:
        for start, end in runs:
            userfaultfd.register(self.uffd, start, end, userfaultfd.WRITE_PROTECT)
        self.tracker.watch(runs)

    def close(self) -> None:
        self.tracker.close()
        os.close(self.uffd)


@pytest.fixture(params=["pagemap", "checksum"])
def watched(request, bare):
    if request.param == "pagemap" and not dirty.can_track_by_pagemap():
        pytest.skip("this kernel has no PAGEMAP_SCAN")
    process = Watched(bare, request.param, absent_counts=True)
    yield process
    process.close()


def test_nothing_written(watched):
    """Right after `clean` nothing is written."""
    assert watched.tracker.written(ALL) == ([], [])


def test_written_once(watched):
    """A page is told once: it counts as clean from then on."""
    watched.bare.write(page(3))
    assert watched.tracker.written(ALL) == (runs_of([3]), [])
    assert watched.tracker.written(ALL) == ([], [])


def test_exactly_what_was_written(watched):
    """Over many rounds, the answer is exactly the pages that the process wrote."""
    chance = random.Random(1)
    for turn in range(12):
        numbers = chance.sample(range(NPAGES), chance.randrange(12))
        for number in numbers:
            watched.bare.write(page(number) + chance.randrange(PAGE_SIZE), turn + 1)
        assert watched.tracker.written(ALL) == (runs_of(numbers), [])


def test_only_held_pages_are_told(watched):
    """Pages that are not held are not in the answer, though a scan may pass over them."""
    held = runs_of([1, 2, 10, 30, 31])
    for number in (0, 1, 3, 11, 31, 63):
        watched.bare.write(page(number))
    assert watched.tracker.written(held) == (runs_of([1, 31]), [])


def test_reading_is_not_writing(watched):
    """A page that was only read is clean."""
    for number in range(8):
        watched.bare.read(page(number))
    assert watched.tracker.written(ALL) == ([], [])


def test_clean_forgives(watched):
    """What was written before `clean` is not told after it."""
    watched.bare.write(page(3))
    watched.bare.write(page(4))
    assert watched.tracker.clean(runs_of([3, 4])) == []
    assert watched.tracker.written(ALL) == ([], [])


def test_dropped_pages_have_changed(watched):
    """A page that the process dropped is zero now, and so changed."""
    watched.bare.vessel.call("madvise", page(5), 2 * PAGE_SIZE, MADV_DONTNEED)
    assert told(watched.tracker, ALL) == runs_of([5, 6])


def test_large_drops(watched):
    """The same for ranges so large that the kernel drops their page tables too."""
    start, nbytes = 0x40000000, 8 << 20
    watched.bare.map(start, nbytes // PAGE_SIZE)
    vm.write(watched.bare.pid, start, b"\x80" * nbytes)
    whole = [(start, start + nbytes)]
    watched.watch(whole)
    watched.tracker.clean(whole)
    watched.bare.vessel.call("madvise", start + (2 << 20), 4 << 20, MADV_DONTNEED)
    assert told(watched.tracker, whole) == [(start + (2 << 20), start + (6 << 20))]


def test_replaced_mapping(watched):
    """A mapping that was replaced by one that looks the same does not pass for unchanged, and nothing else is forgotten for it."""
    watched.bare.write(page(50))
    watched.bare.map(page(8), 4)
    held = runs_of([*range(6), *range(8, 12), *range(40, 60)])
    assert not subtract(runs_of([*range(8, 12), 50]), told(watched.tracker, held))


def test_unmapped_pages_are_lost(watched):
    """Held pages that are not there any more are said to be lost."""
    watched.bare.vessel.call("munmap", page(8), 4 * PAGE_SIZE)
    assert not subtract(runs_of(range(8, 12)), told(watched.tracker, runs_of([*range(4), *range(8, 12)])))


def test_a_lost_range_can_be_watched_again(watched):
    """After a replaced mapping was watched and cleaned, writes to it are told as before."""
    watched.bare.map(page(8), 4)
    _, lost = watched.tracker.written(ALL)
    vm.write(watched.bare.pid, page(8), b"\x80" * 4 * PAGE_SIZE)
    watched.watch(runs_of(range(8, 12)))
    assert watched.tracker.clean(normalise([*lost, *runs_of(range(8, 12))])) == []
    watched.bare.write(page(9))
    assert watched.tracker.written(ALL) == (runs_of([9]), [])


def test_something_unwatched_between_held_pages(watched):
    """A hole with memory that is not watched neither fails a scan nor swallows what was written around it."""
    watched.bare.map(page(8), 4)
    watched.tracker.unwatch(runs_of(range(8, 12)))
    watched.bare.write(page(2))
    watched.bare.write(page(13))
    held = subtract(ALL, runs_of(range(8, 12)))
    assert watched.tracker.written(held) == (runs_of([2, 13]), [])
    watched.bare.write(page(14))
    assert watched.tracker.clean(held) == []
    assert watched.tracker.written(held) == ([], [])


def test_pages_that_cannot_be_read(watched):
    """A page that the process wrote and then closed to itself is still told."""
    watched.bare.write(page(5))
    watched.bare.vessel.call("mprotect", page(4), 3 * PAGE_SIZE, 0)
    assert intersect(told(watched.tracker, ALL), runs_of([5])) == runs_of([5])


def test_populated(watched):
    """Only pages that exist are populated."""
    watched.bare.vessel.call("madvise", page(10), 5 * PAGE_SIZE, MADV_DONTNEED)
    watched.bare.write(page(12))
    assert watched.tracker.populated([(page(8), page(11)), (page(12), page(20))]) == runs_of([8, 9, 12, 15, 16, 17, 18, 19])


def test_absent_does_not_always_count(bare):
    """In a mirror a held page that does not exist yet has not changed."""
    process = Watched(bare, "pagemap", absent_counts=False)
    bare.vessel.call("madvise", page(5), PAGE_SIZE, MADV_DONTNEED)
    bare.write(page(7))
    assert process.tracker.written(ALL) == (runs_of([7]), [])
    process.close()


def test_placed_pages(bare):
    """Pages that are placed count as clean from their placing on, written or not before."""
    process = Watched(bare, "checksum", absent_counts=False)
    process.tracker.forget(ALL)
    process.tracker.placing(page(1), b"\x80" * 2 * PAGE_SIZE)
    process.tracker.placing_zero(page(3), page(4))
    bare.write(page(2))
    vm.write(bare.pid, page(3), bytes(PAGE_SIZE))
    assert process.tracker.overwritten(runs_of([1, 2])) == []
    assert process.tracker.written(runs_of([1, 2, 3])) == (runs_of([2]), [])
    assert process.tracker.written(runs_of([4])) == (runs_of([4]), []), "a page of which nothing is known has changed"
    process.close()


def test_long_answers(bare):
    """More regions than one scan can tell are all told."""
    npages = 3 * pagemap.ROOM
    start = 0x30000000
    bare.map(start, npages)
    process = Watched(bare, "pagemap", absent_counts=True)
    vm.write(bare.pid, start, bytes(npages * PAGE_SIZE))
    whole = [(start, start + npages * PAGE_SIZE)]
    process.watch(whole)
    process.tracker.clean(whole)
    odd = [(p, p + PAGE_SIZE) for p in range(start, start + npages * PAGE_SIZE, 2 * PAGE_SIZE)]
    for first in range(0, len(odd), 512):
        vm.write_runs(bare.pid, odd[first : first + 512], _zeros_at())
    assert process.tracker.written(whole) == (odd, [])
    process.close()


_zeros = bytearray(512 * PAGE_SIZE)


def _zeros_at() -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(_zeros))


def test_choose():
    """A forced choice is kept; left to itself, a kernel that can do better than checksums is made to."""
    assert (dirty.choose("pagemap"), dirty.choose("checksum")) == ("pagemap", "checksum")
    assert dirty.choose("auto") == ("pagemap" if dirty.can_track_by_pagemap() else "checksum")


def test_probing_leaves_nothing_behind():
    """Asking what the kernel can do costs no descriptor and no memory."""
    dirty.can_track_by_pagemap()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        dirty.can_track_by_pagemap()
    assert len(os.listdir("/proc/self/fd")) == before
