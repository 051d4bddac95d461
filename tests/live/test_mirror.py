"""A mirror made by hand, against a model: after every step its memory is what the tracee's would be."""

import os
import random
from dataclasses import dataclass, field

import pytest
from harness import status

from radium import dirty
from radium.core import wire
from radium.core.addr import PAGE_SIZE
from radium.core.mapping import (
    ANONYMOUS,
    MADV_DONTNEED,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    RESERVED,
    STACK,
    STACK_ROOM,
    Area,
    LayoutCall,
    LayoutDelta,
    covered,
)  # fmt: skip
from radium.core.pages import Runs, intersect, normalise, subtract, total
from radium.core.regs import Registers
from radium.errors import JobFailed
from radium.linux import vm
from radium.linux.procfs import read as read_proc
from radium.replay.mirror import NATIVE_ZERO_NBYTES, Mirror
from radium.replay.sandbox import Limits

CODE, DATA, WIDE, ONLY_READ, CLOSED, OURS, HEAP, FREE = (
    0x400000, 0x500000, 0x600000, 0x800000, 0x810000, 0x820000, 0x900000, 0x10000000,
)  # fmt: skip
STACK_START, STACK_END = 0x7FFD00100000, 0x7FFD00120000
BRK = HEAP + 0x2000
LAYOUT = [
    Area(CODE, CODE + 0x8000, 5, 0, "main"),
    Area(DATA, DATA + 0x40000, 3, ANONYMOUS),
    Area(WIDE, WIDE + 0x100000, 3, ANONYMOUS),
    Area(ONLY_READ, ONLY_READ + 0x8000, 1, ANONYMOUS),
    Area(CLOSED, CLOSED + 0x4000, 0, ANONYMOUS),
    Area(OURS, OURS + 0x1000, 0, RESERVED),
    Area(HEAP, BRK, 3, ANONYMOUS),
    Area(STACK_START, STACK_END, 3, ANONYMOUS | STACK),
]
MM = [CODE, CODE + 0x8000, DATA, DATA + 0x1000, HEAP, STACK_END - 0x1000, *[STACK_END - 0x800] * 4]
PLAIN = MAP_PRIVATE | MAP_ANONYMOUS
NO_FD = (1 << 64) - 1


def setup(tracking: str, **changes: object) -> wire.Setup:
    values = {"layout": LAYOUT, "mm": MM, "brk": BRK, **changes}
    return wire.Setup(1, values["layout"], [], b"", values["brk"], values["mm"], {"getpid": 1}, tracking, wire.Clocks(), True, [])  # type: ignore[arg-type]


@pytest.fixture(params=["pagemap", "checksum"])
def mirror(request):
    if request.param == "pagemap" and not dirty.can_track_by_pagemap():
        pytest.skip("this kernel has no PAGEMAP_SCAN")
    made = Mirror(setup(request.param), Limits())
    yield made
    made.close()


def registers(rsp: int = STACK_END - 0x2000) -> Registers:
    regs = Registers(*[0] * 27)
    regs.rsp = rsp
    return regs


def pages_of(runs: Runs) -> list[int]:
    return [page for start, end in runs for page in range(start, end, PAGE_SIZE)]


def runs_of(numbers) -> Runs:
    return normalise((page, page + PAGE_SIZE) for page in numbers)


def at(start: int, npages: int) -> Runs:
    return [(start, start + npages * PAGE_SIZE)]


def place(mirror: Mirror, runs: Runs, contents: bytes) -> None:
    assert total(runs) == len(contents)
    position = 0

    def read_into(view: memoryview) -> None:
        nonlocal position
        view[:] = contents[position : position + len(view)]
        position += len(view)

    mirror.place_payload(runs, read_into)
    assert position == len(contents)


def contents_of(mirror: Mirror, runs: Runs) -> bytes:
    return b"".join(bytes(piece) for piece in mirror.contents(runs))


def would_page_in(mirror: Mirror, page: int) -> bool:
    """The page is not there, and the kernel would ask us for it (proc(5): bits 62 and 63 of pagemap; VmFlags of smaps)."""
    with open(f"/proc/{mirror.vessel.pid}/pagemap", "rb") as file:
        file.seek(page // PAGE_SIZE * 8)
        is_there = int.from_bytes(file.read(8), "little") >> 62
    return not is_there and "um" in flags_of(mirror.vessel.pid, page)


def flags_of(pid: int, page: int) -> list[str]:
    start = end = 0
    for line in read_proc(pid, "smaps").decode().splitlines():
        if line[0] in "0123456789abcdef":
            start, end = (int(edge, 16) for edge in line.split()[0].split("-"))
        elif line.startswith("VmFlags:") and start <= page < end:
            return line.split()[1:]
    raise AssertionError(f"{page:#x} is not mapped")


def written_by_call(mirror: Mirror, address: int, value: int) -> None:
    """What the mirror's own code would do to its memory."""
    vm.write(mirror.vessel.pid, address, bytes([value]))


def make(mirror: Mirror, name: str, *arguments: int) -> int:
    """A memory call of the mirror's thread, made and recorded."""
    result = mirror.vessel.call(name, *arguments)
    padded = (*(a & NO_FD for a in arguments), 0, 0, 0, 0, 0, 0)[:6]
    mirror.record(LayoutCall(name, padded, result))  # type: ignore[arg-type]
    return result


def end_call(mirror: Mirror, rsp: int = STACK_END - 0x2000) -> tuple[Runs, Runs]:
    dirty_runs, dead = mirror.collect([rsp], [])
    mirror.settle(dirty_runs, dead)
    return dirty_runs, dead


def filled(value: int, npages: int = 1) -> bytes:
    return bytes([value]) * (npages * PAGE_SIZE)


# Building


def test_layout_is_that_of_the_tracee(mirror):
    """Every area is there with its protection, the brk is the tracee's, and no page exists yet."""
    maps = mirror.vessel.mappings()
    for area in LAYOUT:
        inside = [m for m in maps if m.start < area.end and area.start < m.end]
        assert not subtract([(area.start, area.end)], normalise((m.start, m.end) for m in inside))
        assert {m.prot for m in inside} == {area.prot}
    assert mirror.vessel.call("brk", 0) == BRK
    assert not mirror.present()


def test_every_page_is_a_page_in(mirror):
    """Before anything was placed, touching any page of the tracee's is a page-in, and of radium's own a fault."""
    for area in LAYOUT:
        for page in (area.start, area.end - PAGE_SIZE):
            assert would_page_in(mirror, page) == (not area.kind & RESERVED), f"{page:#x}"


def test_room_below_the_stack(mirror):
    """The stack can grow in the mirror as it would at home."""
    written_by_call(mirror, STACK_START - STACK_ROOM, 1)
    written_by_call(mirror, STACK_START - 1, 1)
    with pytest.raises(vm.RemoteFault):
        written_by_call(mirror, STACK_START - STACK_ROOM - 1, 1)


@pytest.mark.parametrize(
    "changes",
    [{"mm": MM[::-1]}, {"brk": 0}, {"layout": [Area(0x1000, 1 << 47, 3, ANONYMOUS)]}],
)
def test_a_mirror_that_cannot_be_built(changes):
    """The reason is told in one line, and no process is left."""
    before = children()
    with pytest.raises(JobFailed):
        Mirror(setup("checksum", **changes), Limits())
    assert children() == before


def children() -> set[str]:
    return set(read_proc(os.getpid(), f"task/{os.getpid()}/children").decode().split())


def test_closing_leaves_nothing(mirror):
    """A closed mirror leaves no process and no descriptor."""
    before = len(os.listdir("/proc/self/fd"))
    other = Mirror(setup(mirror.tracking), Limits())
    pid = other.vessel.pid
    other.close()
    assert not os.path.exists(f"/proc/{pid}") and len(os.listdir("/proc/self/fd")) == before


def test_it_is_sealed(mirror):
    """A mirror that was built is behind the filter, without a descriptor."""
    assert status(mirror.vessel.pid)["Seccomp"] == "2" and os.listdir(f"/proc/{mirror.vessel.pid}/fd") == []


# Pages


@pytest.mark.parametrize("start", [CODE, DATA, ONLY_READ, CLOSED, STACK_START])
def test_placed_pages(mirror, start):
    """Placed pages have their contents and are held and clean, whatever their protection; placed again, they have the new ones."""
    for value in (1, 2):
        place(mirror, at(start + PAGE_SIZE, 3), filled(value, 3))
        assert contents_of(mirror, at(start + PAGE_SIZE, 3)) == filled(value, 3)
        assert mirror.held.runs == at(start + PAGE_SIZE, 3)
        assert end_call(mirror) == ([], [])


@pytest.mark.parametrize("npages", [1, 3, NATIVE_ZERO_NBYTES // PAGE_SIZE, 100])
def test_zero_pages(mirror, npages):
    """Zero pages are zero, also where something else was, and clean."""
    mirror.place_zero(at(WIDE, npages))
    assert mirror.held.runs == at(WIDE, npages) and end_call(mirror) == ([], [])
    assert contents_of(mirror, at(WIDE, npages)) == filled(0, npages)
    place(mirror, at(WIDE, npages), filled(7, npages))
    mirror.place_zero(at(WIDE, npages))
    assert end_call(mirror) == ([], [])
    assert contents_of(mirror, at(WIDE, npages)) == filled(0, npages)


def test_zero_pages_are_written(mirror):
    """A zero page that the call writes goes home, whether it was placed or left to the kernel."""
    mirror.place_zero([*at(DATA, 2), *at(WIDE, 64)])
    for address in (DATA + 5, WIDE, WIDE + 63 * PAGE_SIZE):
        written_by_call(mirror, address, 1)
    dirty_runs, dead = end_call(mirror)
    assert dirty_runs == runs_of([DATA, WIDE, WIDE + 63 * PAGE_SIZE]) and not dead


def test_a_large_payload(mirror):
    """A payload that is longer than a chunk, over several areas, is placed whole and in order."""
    runs = [(DATA, DATA + 0x40000), (WIDE, WIDE + 0x100000), (HEAP, BRK)]
    contents = b"".join(number.to_bytes(4, "little") * 1024 for number in range(total(runs) // PAGE_SIZE))
    place(mirror, runs, contents)
    assert contents_of(mirror, runs) == contents and end_call(mirror) == ([], [])


def test_drop(mirror):
    """Dropped pages are missing, and can be placed again; others stay."""
    place(mirror, at(DATA, 4), filled(1, 4))
    mirror.place_zero(at(WIDE, 64))
    mirror.drop([*at(DATA + PAGE_SIZE, 2), *at(WIDE, 64)])
    assert mirror.held.runs == runs_of([DATA, DATA + 3 * PAGE_SIZE])
    for address in (DATA + PAGE_SIZE, WIDE, WIDE + 63 * PAGE_SIZE):
        assert would_page_in(mirror, address)
    place(mirror, at(DATA, 4), filled(2, 4))
    assert contents_of(mirror, at(DATA, 4)) == filled(2, 4)


def test_written_pages_come_home(mirror):
    """What the call wrote is dirty, with its new contents, and clean afterwards."""
    place(mirror, at(DATA, 8), filled(1, 8))
    mirror.begin()
    written_by_call(mirror, DATA + PAGE_SIZE, 9)
    written_by_call(mirror, DATA + 6 * PAGE_SIZE - 1, 9)
    dirty_runs, dead = mirror.collect([registers().rsp], [])
    assert dirty_runs == runs_of([DATA + PAGE_SIZE, DATA + 5 * PAGE_SIZE]) and not dead
    assert contents_of(mirror, dirty_runs) == bytes([9]) + filled(1, 2)[1:-1] + bytes([9])
    mirror.settle(dirty_runs, dead)
    mirror.begin()
    assert end_call(mirror) == ([], [])


# The stack


def test_dead_stack_stays(mirror):
    """What a call leaves below its stack pointer is not sent home; its red zone and all above are."""
    rsp = STACK_START + 0x8010
    place(mirror, [(STACK_START + 0x4000, STACK_END)], filled(1, 28))
    mirror.begin()
    for page in range(STACK_START + 0x4000, STACK_START + 0xA000, PAGE_SIZE):
        written_by_call(mirror, page, 2)
    written_by_call(mirror, STACK_START - 0x5000, 3)
    dirty_runs, dead = end_call(mirror, rsp)
    # The red zone reaches 128 bytes below rsp, into the page below.
    assert dirty_runs == [(STACK_START + 0x7000, STACK_START + 0xA000)]
    assert dead == [(STACK_START - 0x5000, STACK_START - 0x4000), (STACK_START + 0x4000, STACK_START + 0x7000)]
    assert not intersect(mirror.held.runs, dead) and mirror.stale.runs == dead
    place(mirror, [(STACK_START + 0x4000, STACK_START + 0x7000)], filled(4, 3))
    assert contents_of(mirror, [(STACK_START + 0x4000, STACK_START + 0x7000)]) == filled(4, 3)


def test_scratch_stays(mirror):
    """Pages that are of no use at home are not sent there, and are stale."""
    place(mirror, at(DATA, 4), filled(1, 4))
    mirror.begin()
    for page in pages_of(at(DATA, 4)):
        written_by_call(mirror, page, 2)
    scratch = at(DATA + 0x1000, 2)
    dirty_runs, dead = mirror.collect([registers().rsp], scratch)
    mirror.settle(dirty_runs, dead)
    assert dirty_runs == runs_of([DATA, DATA + 0x3000]) and dead == scratch == mirror.stale.runs


@pytest.mark.parametrize("rsp", [STACK_START, STACK_START + 0x20, STACK_START + 0x80, STACK_START + 0xFF0])
def test_a_stack_pointer_at_the_end_of_the_stack(mirror, rsp):
    """Pages that home's stack does not have are never sent there."""
    place(mirror, at(STACK_START, 2), filled(1, 2))
    mirror.begin()
    written_by_call(mirror, STACK_START - 8, 2)
    written_by_call(mirror, STACK_START - 0x8000, 2)
    written_by_call(mirror, STACK_START + 8, 2)
    dirty_runs, dead = end_call(mirror, rsp)
    assert dirty_runs == at(STACK_START, 1)
    assert dead == runs_of([STACK_START - PAGE_SIZE, STACK_START - 0x8000])


def test_the_stack_grows_at_home(mirror):
    """When home's stack has grown, its new pages are missing, and the room lies below them."""
    mirror.begin()
    written_by_call(mirror, STACK_START - 8, 2)
    end_call(mirror)
    grown = Area(STACK_START - 0x3000, STACK_START, 3, ANONYMOUS | STACK)
    mirror.apply(LayoutDelta([], [grown], []), BRK)
    assert would_page_in(mirror, STACK_START - PAGE_SIZE)
    place(mirror, at(STACK_START - 0x1000, 1), filled(5))
    written_by_call(mirror, grown.start - 8, 1)
    assert contents_of(mirror, at(STACK_START - 0x1000, 1)) == filled(5)


# Layout changes that come from home


def test_apply(mirror):
    """A delta unmaps, maps and protects; pages of what stayed are held, of what went they are not."""
    place(mirror, at(DATA, 8), filled(1, 8))
    delta = LayoutDelta(
        at(DATA, 2), [Area(FREE, FREE + 0x4000, 3, ANONYMOUS)], [Area(DATA + 0x4000, DATA + 0x6000, 1, ANONYMOUS)]
    )
    mirror.apply(delta, BRK + 0x123)
    assert mirror.held.runs == at(DATA + 0x2000, 6) and mirror.brk == BRK + 0x123
    assert mirror.vessel.call("brk", 0) == BRK + 0x123
    prots = {m.start: m.prot for m in mirror.vessel.mappings()}
    assert DATA not in prots and prots[FREE] == 3 and prots[DATA + 0x4000] == 1
    assert contents_of(mirror, at(DATA + 0x2000, 6)) == filled(1, 6)
    place(mirror, at(FREE, 4), filled(2, 4))
    assert contents_of(mirror, at(FREE, 4)) == filled(2, 4) and end_call(mirror) == ([], [])


def test_a_replaced_mapping_is_forgotten(mirror):
    """What was unmapped and mapped again at home is missing."""
    place(mirror, at(DATA, 2), filled(1, 2))
    mirror.apply(LayoutDelta(at(DATA, 1), [Area(DATA, DATA + 0x1000, 3, ANONYMOUS)], []), BRK)
    assert mirror.held.runs == at(DATA + 0x1000, 1)
    assert would_page_in(mirror, DATA)


# Memory calls of the call itself


def test_new_memory_comes_home_where_it_was_touched(mirror):
    """Of memory that the call mapped, the pages that it touched go home; none is a page-in."""
    mirror.begin()
    start = make(mirror, "mmap", 0, 0x10000, 3, PLAIN, NO_FD, 0)
    written_by_call(mirror, start + 0x3000, 1)
    dirty_runs, _ = mirror.collect([registers().rsp], [])
    assert dirty_runs == at(start + 0x3000, 1) and [c.name for c in mirror.journal] == ["mmap"]
    mirror.settle(dirty_runs, [])
    assert mirror.journal == [] and mirror.held.runs == at(start + 0x3000, 1)
    assert would_page_in(mirror, start)
    mirror.begin()
    written_by_call(mirror, start + 0x3000, 2)
    assert end_call(mirror)[0] == at(start + 0x3000, 1)


def test_memory_that_came_and_went(mirror):
    """What the call mapped and unmapped again is never sent."""
    mirror.begin()
    start = make(mirror, "mmap", 0, 0x10000, 3, PLAIN, NO_FD, 0)
    written_by_call(mirror, start, 1)
    make(mirror, "munmap", start, 0x10000)
    assert end_call(mirror) == ([], []) and mirror.layout == LAYOUT


def test_heap_growth(mirror):
    """New heap is fresh, and goes home where it was touched."""
    mirror.begin()
    make(mirror, "brk", BRK + 0x3000)
    written_by_call(mirror, BRK + 0x1000, 1)
    assert end_call(mirror)[0] == at(BRK + 0x1000, 1) and mirror.brk == BRK + 0x3000
    assert (HEAP, BRK + 0x3000) in covered(mirror.layout)


def test_dropped_by_the_call(mirror):
    """After MADV_DONTNEED a page is zero in the mirror, not home's old one, and goes home where it was touched."""
    place(mirror, at(DATA, 4), filled(1, 4))
    mirror.begin()
    make(mirror, "madvise", DATA, 0x2000, MADV_DONTNEED)
    assert vm.read(mirror.vessel.pid, DATA, 1) == b"\0"
    written_by_call(mirror, DATA + 0x1000, 5)
    dirty_runs, dead = mirror.collect([registers().rsp], [])
    assert not subtract(at(DATA + 0x1000, 1), dirty_runs) and not subtract(dirty_runs, at(DATA, 2))
    assert contents_of(mirror, at(DATA + 0x1000, 1)) == b"\5" + filled(0)[1:]
    mirror.settle(dirty_runs, dead)


def test_moved_by_the_call(mirror):
    """After mremap the contents are at the new place, and all of them go home."""
    place(mirror, at(DATA, 4), filled(1, 4))
    mirror.begin()
    new = make(mirror, "mremap", DATA, 0x4000, 0x200000, 1)
    assert new != DATA and contents_of(mirror, at(new, 4)) == filled(1, 4)
    dirty_runs, _ = end_call(mirror)
    assert dirty_runs == at(new, 4) and not intersect(mirror.held.runs, at(DATA, 4))


def test_written_and_then_closed(mirror):
    """A page that the call wrote and then made unreadable still comes home with its contents."""
    place(mirror, at(DATA, 2), filled(1, 2))
    mirror.begin()
    written_by_call(mirror, DATA, 9)
    make(mirror, "mprotect", DATA, 0x1000, 0)
    dirty_runs, _ = mirror.collect([registers().rsp], [])
    assert dirty_runs == at(DATA, 1) and contents_of(mirror, dirty_runs) == b"\x09" + filled(1)[1:]


# Calls that failed


def test_undo_of_writes(mirror):
    """A failed call's writes are forgotten: the pages are missing again and said to be dropped."""
    place(mirror, at(DATA, 4), filled(1, 4))
    mirror.begin()
    written_by_call(mirror, DATA + 0x1000, 9)
    assert mirror.undo(list(LAYOUT), BRK) == at(DATA + 0x1000, 1)
    assert mirror.held.runs == runs_of([DATA, DATA + 0x2000, DATA + 0x3000])
    assert would_page_in(mirror, DATA + 0x1000)


UNDONE = {
    "mmap": [("mmap", FREE, 0x4000, 3, PLAIN | MAP_FIXED, NO_FD, 0)],
    "mmap over": [("mmap", DATA, 0x2000, 3, PLAIN | MAP_FIXED, NO_FD, 0)],
    "munmap": [("munmap", DATA, 0x2000)],
    "mprotect": [("mprotect", DATA, 0x2000, 1)],
    "madvise": [("madvise", DATA, 0x2000, MADV_DONTNEED)],
    "mremap": [("mremap", DATA, 0x2000, 0x8000, 1)],
    "brk up": [("brk", BRK + 0x5000)],
    "brk down": [("brk", BRK - 0x1000)],
    "many": [("munmap", DATA, 0x1000), ("brk", BRK + 0x1000), ("mmap", DATA, 0x1000, 1, PLAIN | MAP_FIXED, NO_FD, 0),
             ("mprotect", DATA, 0x3000, 3), ("brk", BRK)],
}  # fmt: skip


@pytest.mark.parametrize("calls", UNDONE.values(), ids=UNDONE.keys())
def test_undo_of_memory_calls(mirror, calls):
    """After a failed call the layout is as before, every page that was touched is said to be dropped, and all can be placed again."""
    runs = [*at(DATA, 4), *at(HEAP, 2)]
    place(mirror, runs, filled(1, 6))
    mirror.begin()
    for name, *arguments in calls:
        make(mirror, name, *arguments)
    dropped = mirror.undo(list(LAYOUT), BRK)
    assert mirror.layout == LAYOUT and mirror.brk == BRK == mirror.vessel.call("brk", 0) and mirror.journal == []
    still = subtract(runs, dropped)
    assert mirror.held.runs == still, "what the mirror lost it must say"
    assert contents_of(mirror, still) == filled(1, total(still) // PAGE_SIZE)
    assert all(would_page_in(mirror, page) for page in pages_of(subtract(runs, still)))
    place(mirror, runs, filled(2, 6))
    mirror.begin()
    assert contents_of(mirror, runs) == filled(2, 6) and end_call(mirror) == ([], [])
    for area in LAYOUT:
        inside = [m for m in mirror.vessel.mappings() if m.start < area.end and area.start < m.end]
        assert not subtract([(area.start, area.end)], normalise((m.start, m.end) for m in inside))
        assert {m.prot for m in inside} == {area.prot}


# Many steps, against a model


@dataclass
class Model:
    """Home, and what the mirror holds of it."""

    home: dict[int, int] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)


SOME = [page for start, npages in ((DATA, 12), (WIDE, 40), (ONLY_READ, 4), (HEAP, 2)) for page in range(start, start + npages * 4096, 4096)]
WRITABLE = [page for page in SOME if not ONLY_READ <= page < HEAP]


@pytest.mark.parametrize("seed", range(6))
def test_many_steps(mirror, seed):
    """Whatever order placing, dropping, calls and failed calls come in: held pages equal home's, and dirty pages are those written."""
    chance, model = random.Random(seed), Model({page: 0 for page in SOME})
    for turn in range(1, 40):
        step = chance.choice(["place", "place", "zero", "drop", "call", "call", "fail"])
        first = chance.randrange(len(SOME))
        numbers = SOME[first : first + chance.randrange(1, 24)]
        if step == "place":
            model.home.update({page: chance.randrange(100, 256) for page in numbers})
            place(mirror, runs_of(numbers), b"".join(filled(model.home[page]) for page in sorted(numbers)))
            model.held.update(numbers)
        elif step == "zero":
            model.home.update(dict.fromkeys(numbers, 0))
            mirror.place_zero(runs_of(numbers))
            model.held.update(numbers)
        elif step == "drop":
            mirror.drop(runs_of(numbers))
            model.held.difference_update(numbers)
        else:
            written = [page for page in chance.sample(WRITABLE, 8) if page in model.held]
            value = turn
            mirror.begin()
            for page in written:
                vm.write(mirror.vessel.pid, page, filled(value))
            if step == "call":
                dirty_runs, dead = mirror.collect([registers().rsp], [])
                changed = pages_of(dirty_runs)
                model.home.update(dict.fromkeys(written, value))
                assert set(written) <= set(changed) <= model.held and not dead
                assert contents_of(mirror, dirty_runs) == b"".join(filled(model.home[page]) for page in changed)
                mirror.settle(dirty_runs, dead)
            else:
                dropped = pages_of(mirror.undo(list(LAYOUT), BRK))
                assert set(written) <= set(dropped)
                model.held.difference_update(dropped)
        assert mirror.held.runs == runs_of(model.held)
        if turn % 5 == 0:
            expected = b"".join(filled(model.home[page]) for page in sorted(model.held))
            assert contents_of(mirror, mirror.held.runs) == expected
