"""The layout of a process: /proc/PID/maps parsed, compared, and what one must do to turn one layout into another.

Sources: proc(5) on /proc/PID/maps; mmap(2), mremap(2), brk(2), madvise(2) for the journal of a mirror's memory calls.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from radium.core.addr import PAGE_MASK, USER_END
from radium.core.pages import Run, Runs, intersect, normalise, subtract
from radium.errors import Conflict

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4

# Kinds of a mapping, or'ed.
SHARED = 1  # written by others without our seeing: fetched afresh in each call
STACK = 2  # the main thread's: grows downwards, and is dead below rsp
RESERVED = 4  # radium's own in the tracee: its place is kept free in the mirror, its contents stay at home
ANONYMOUS = 8  # pages that are absent at home are zero

SPECIAL = ("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]")
# Files whose pages are not memory to be read at will (device registers, rings shared with the kernel).
DEVICES = ("/dev/", "anon_inode:", "socket:")
HARMLESS_DEVICES = ("/dev/zero", "/dev/shm/")


class Mapping(NamedTuple):
    """One line of maps; [start, end)."""

    start: int
    end: int
    prot: int
    shared: bool
    offset: int
    device: str
    inode: int
    path: str

    @property
    def is_device(self) -> bool:
        return self.path.startswith(DEVICES) and not self.path.startswith(HARMLESS_DEVICES)


def parse_maps(text: bytes) -> list[Mapping]:
    out = []
    for line in text.decode(errors="surrogateescape").rstrip("\n").split("\n") if text else ():
        fields = line.split(None, 5)
        start, _, end = fields[0].partition("-")
        flags = fields[1]
        prot = (flags[0] == "r") * PROT_READ | (flags[1] == "w") * PROT_WRITE | (flags[2] == "x") * PROT_EXEC
        path = fields[5] if len(fields) > 5 else ""
        out.append(
            Mapping(
                int(start, 16), int(end, 16), prot, flags[3] == "s", int(fields[2], 16), fields[3], int(fields[4]), path
            )
        )
    return out


class Area(NamedTuple):
    """A piece of layout as the mirror needs it; travels in frames. `what` tells mappings apart that look alike."""

    start: int
    end: int
    prot: int
    kind: int
    what: str = ""


Layout = list[Area]


def layout_of(mappings: Iterable[Mapping], reserved: Sequence[Run] = ()) -> Layout:
    """What the mirror must have: neighbours that are the same are merged, the kernel's own mappings left out.

    reserved: radium's own, normalised. The kernel merges such a mapping with one of the program's beside it.
    """
    out: Layout = []
    for m in mappings:
        if m.path in SPECIAL or m.start >= USER_END:
            continue
        ours = intersect([m[:2]], reserved)
        for start, end in sorted([*ours, *subtract([m[:2]], ours)]):
            _extend(out, _area(m, start, end, (start, end) in ours))
    return out


def _area(m: Mapping, start: int, end: int, is_reserved: bool) -> Area:
    if is_reserved:
        return Area(start, end, 0, RESERVED)
    anonymous = m.inode == 0 and not m.is_device
    kind = (m.shared * SHARED) | (anonymous and not m.shared) * ANONYMOUS | (m.path == "[stack]") * STACK
    what = "" if anonymous else f"{m.device}:{m.inode}:{m.start - m.offset:x}"
    return Area(start, end, m.prot, kind, what)


class LayoutDelta(msgspec.Struct, array_like=True):
    """What turns one layout into another: first unmap, then map, then protect."""

    unmap: list[Run] = []
    map: list[Area] = []
    protect: list[Area] = []

    def __bool__(self) -> bool:
        return bool(self.unmap or self.map or self.protect)


def difference(old: Sequence[Area], new: Sequence[Area]) -> LayoutDelta:
    """Areas are compared piece by piece; a piece with another identity is unmapped and mapped again."""
    if old == new:
        return LayoutDelta()
    edges = sorted({edge for area in (*old, *new) for edge in area[:2]})
    delta = LayoutDelta([], [], [])
    i = j = 0
    for start, end in pairwise(edges):
        while i < len(old) and old[i].end <= start:
            i += 1
        while j < len(new) and new[j].end <= start:
            j += 1
        before = old[i] if i < len(old) and old[i].start <= start else None
        after = new[j] if j < len(new) and new[j].start <= start else None
        _compare_piece(delta, start, end, before, after)
    delta.unmap = normalise(delta.unmap)
    return delta


def _compare_piece(delta: LayoutDelta, start: int, end: int, before: Area | None, after: Area | None) -> None:
    same = before is not None and after is not None and before[3:] == after[3:]
    if before is not None and not same:
        delta.unmap.append((start, end))
    if after is not None and not same:
        _extend(delta.map, after._replace(start=start, end=end))
    elif before is not None and after is not None and before.prot != after.prot:
        _extend(delta.protect, after._replace(start=start, end=end))


def _extend(areas: list[Area], area: Area) -> None:
    if areas and areas[-1].end == area.start and areas[-1][2:] == area[2:]:
        areas[-1] = areas[-1]._replace(end=area.end)
    else:
        areas.append(area)


def clip(layout: Sequence[Area], start: int, end: int) -> Layout:
    """The pieces of the layout inside [start, end)."""
    return [
        area._replace(start=max(area.start, start), end=min(area.end, end))
        for area in layout
        if area.start < end and start < area.end
    ]


def covered(layout: Iterable[Area]) -> Runs:
    return normalise((area.start, area.end) for area in layout)


class LayoutCall(msgspec.Struct, array_like=True):
    """A memory call that the mirror made: its name, its six arguments, its result."""

    name: str
    arguments: tuple[int, int, int, int, int, int]
    result: int


# <asm-generic/mman-common.h>, <linux/mman.h>
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_GROWSDOWN = 1, 2, 0x10, 0x20, 0x100
MAP_NORESERVE, MAP_FIXED_NOREPLACE = 0x4000, 0x100000
MAP_TYPE, MAP_32BIT, MAP_DENYWRITE, MAP_POPULATE, MAP_STACK = 0xF, 0x40, 0x800, 0x8000, 0x20000
# Flags of an mmap that can be made again at home, at its address, and means the same; others need privilege or luck.
REPEATABLE_FLAGS = (
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_NORESERVE | MAP_32BIT | MAP_DENYWRITE
    | MAP_POPULATE | MAP_STACK
)  # fmt: skip
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
MADV_DONTNEED, MADV_FREE = 4, 8
# Advice that changes no contents (madvise(2)): NORMAL RANDOM SEQUENTIAL WILLNEED MERGEABLE.. HUGEPAGE NOHUGEPAGE ..
ADVICE_WITHOUT_EFFECT = frozenset({0, 1, 2, 3, 12, 13, 14, 15, 16, 17, 20, 21, 22, 23, 25})
JOURNALLED = frozenset({"mmap", "munmap", "mprotect", "brk", "mremap", "madvise"})
# In a journal, no system call: the main stack has grown down to the result.
STACK_GROWTH = "stack"
# How far below the tracee's stack a mirror has room for it to grow, and so how far one answer may make it grow.
STACK_ROOM = 1 << 20


def replay(layout: Sequence[Area], brk: int, journal: Iterable[LayoutCall]) -> tuple[Layout, int]:
    """The layout and brk after the journal, checked: a call that would not fit `layout` raises Conflict.

    Nothing is done to any process. Every address of the journal is checked against the layout that the calls
    before it leave behind.
    """
    areas = list(layout)
    for call in journal:
        areas, brk = _replay_one(areas, brk, call)
    return areas, brk


def _replay_one(areas: Layout, brk: int, call: LayoutCall) -> tuple[Layout, int]:
    a = call.arguments
    if call.name == "brk":
        return _replay_brk(areas, brk, call.result)
    if call.name == "mmap":
        return _replay_mmap(areas, call), brk
    if call.name == STACK_GROWTH:
        return _replay_growth(areas, call), brk
    start, end = a[0], a[0] + _length(a[1])
    _check_range(call, start, end)
    if call.name == "munmap":
        return _without(areas, start, end, call), brk
    if call.name == "mprotect":
        return _protected(areas, start, end, a[2], call), brk
    if call.name == "madvise":
        _check_advice(areas, start, end, call)
        return areas, brk
    if call.name == "mremap":
        return _replay_mremap(areas, start, end, call), brk
    raise Conflict(f"a mirror journalled {call.name}, which is no memory call")


def _length(nbytes: int) -> int:
    return (nbytes + PAGE_MASK) & ~PAGE_MASK


def _check_range(call: LayoutCall, start: int, end: int) -> None:
    if start & PAGE_MASK or not 0x10000 <= start < end <= USER_END:
        raise Conflict(f"{call.name} of a mirror at {start:#x}-{end:#x} is not in user space")


def _check_prot(call: LayoutCall, prot: int) -> None:
    if not 0 <= prot <= PROT_READ | PROT_WRITE | PROT_EXEC:
        raise Conflict(f"{call.name} of a mirror with protection {prot:#x}")


def _check_mapped(areas: Layout, start: int, end: int, call: LayoutCall) -> None:
    mapped = normalise((x.start, x.end) for x in clip(areas, start, end) if not x.kind & RESERVED)
    if subtract([(start, end)], mapped):
        raise Conflict(f"{call.name} of a mirror at {start:#x}-{end:#x} meets memory that the tracee does not have")


def _check_advice(areas: Layout, start: int, end: int, call: LayoutCall) -> None:
    """Of all advice, mirrors journal only that which drops anonymous pages; others reach as far as into files."""
    _check_mapped(areas, start, end, call)
    if call.arguments[2] != MADV_DONTNEED or not all(x.kind & ANONYMOUS for x in clip(areas, start, end)):
        raise Conflict(f"madvise of a mirror at {start:#x}-{end:#x} does not drop private anonymous memory")


def _without(areas: Layout, start: int, end: int, call: LayoutCall) -> Layout:
    out: Layout = []
    for area in areas:
        if area.end <= start or end <= area.start:
            out.append(area)
            continue
        if area.kind & RESERVED:
            raise Conflict(f"{call.name} of a mirror at {start:#x}-{end:#x} meets memory of radium's own")
        if area.start < start:
            out.append(area._replace(end=start))
        if end < area.end:
            out.append(area._replace(start=end))
    return out


def _with(areas: Layout, new: Area, call: LayoutCall) -> Layout:
    if clip(areas, new.start, new.end):
        raise Conflict(f"{call.name} of a mirror at {new.start:#x}-{new.end:#x}: the tracee uses this range already")
    return merged([*areas, new])


def merged(areas: Iterable[Area]) -> Layout:
    """Sorted, and neighbours that are the same made one."""
    out: Layout = []
    for area in sorted(areas):
        _extend(out, area)
    return out


def _protected(areas: Layout, start: int, end: int, prot: int, call: LayoutCall) -> Layout:
    _check_prot(call, prot)
    _check_mapped(areas, start, end, call)
    pieces = [piece._replace(prot=prot) for piece in clip(areas, start, end)]
    if prot & PROT_WRITE and any(piece.kind & SHARED for piece in pieces):
        # A file that was opened for reading cannot be mapped so (mprotect(2), EACCES): only the tracee itself can tell.
        raise Conflict(f"mprotect of a mirror makes shared memory at {start:#x}-{end:#x} writable")
    return merged([*_without(areas, start, end, call), *pieces])


def _replay_mmap(areas: Layout, call: LayoutCall) -> Layout:
    _, nbytes, prot, flags, _, _ = call.arguments
    start, end = call.result, call.result + _length(nbytes)
    _check_range(call, start, end)
    _check_prot(call, prot)
    if flags & MAP_TYPE != MAP_PRIVATE or not flags & MAP_ANONYMOUS or flags & ~REPEATABLE_FLAGS:
        raise Conflict(f"a mirror mapped something that is not plain private anonymous memory at {start:#x}")
    if flags & MAP_FIXED and not flags & MAP_FIXED_NOREPLACE:
        areas = _without(areas, start, end, call)
    return _with(areas, Area(start, end, prot, ANONYMOUS), call)


def _replay_brk(areas: Layout, old: int, new: int) -> tuple[Layout, int]:
    call = LayoutCall("brk", (new, 0, 0, 0, 0, 0), new)
    old_end, new_end = _length(old), _length(new)
    if not 0x10000 <= new <= USER_END or new_end - old_end > 1 << 40:
        raise Conflict(f"brk of a mirror at {new:#x} is not in user space")
    if new_end > old_end:
        return _with(areas, Area(old_end, new_end, PROT_READ | PROT_WRITE, ANONYMOUS), call), new
    if new_end < old_end:
        _check_mapped(areas, new_end, old_end, call)
        return _without(areas, new_end, old_end, call), new
    return areas, new


def _replay_growth(areas: Layout, call: LayoutCall) -> Layout:
    stack = next((area for area in areas if area.kind & STACK), None)
    new = call.result
    if stack is None or call.arguments[0] != stack.start or new & PAGE_MASK:
        raise Conflict(f"a mirror's stack grew to {new:#x} from {call.arguments[0]:#x}")
    if not stack.start - STACK_ROOM <= new < stack.start:
        raise Conflict(f"a mirror's stack grew by {stack.start - new} bytes")
    if clip(areas, new, stack.start):
        raise Conflict(f"a mirror's stack grew to {new:#x}, over memory that the tracee uses")
    return sorted([*(area for area in areas if area is not stack), stack._replace(start=new)])


def _replay_mremap(areas: Layout, old: int, old_end: int, call: LayoutCall) -> Layout:
    new, new_end = call.result, call.result + _length(call.arguments[2])
    _check_range(call, new, new_end)
    _check_mapped(areas, old, old_end, call)
    pieces = clip(areas, old, old_end)
    if len(pieces) != 1 or not pieces[0].kind & ANONYMOUS:
        raise Conflict(f"mremap of a mirror at {old:#x}-{old_end:#x} is not of one private anonymous mapping")
    if new != old and new < old_end and old < new_end:
        raise Conflict(f"mremap of a mirror moves {old:#x}-{old_end:#x} onto itself")
    areas = _without(areas, old, old_end, call)
    return _with(areas, pieces[0]._replace(start=new, end=new_end), call)


def touched_by(call: LayoutCall, old_brk: int | None = None) -> Runs:
    """Ranges whose mapping or contents the call changed, as pages; a brk only when the one before it is given."""
    a = call.arguments
    if call.name == "mmap":
        return [(call.result, call.result + _length(a[1]))]
    if call.name == STACK_GROWTH:
        return [(call.result, a[0])]
    if call.name == "brk":
        low, high = sorted((_length(call.result if old_brk is None else old_brk), _length(call.result)))
        return [(low, high)] if low < high else []
    if call.name == "mremap":
        return normalise([(a[0], a[0] + _length(a[1])), (call.result, call.result + _length(a[2]))])
    return [(a[0], a[0] + _length(a[1]))]


class Effect(NamedTuple):
    """What a memory call did. gone: pages that are no more; new: pages that are zero now, whatever they were."""

    layout: Layout
    brk: int
    gone: Runs
    new: Runs


def effect(layout: Sequence[Area], brk: int, call: LayoutCall) -> Effect:
    """Both sides follow a journal by this, call by call, so that they agree on which pages are still held. Raises Conflict."""
    after, new_brk = replay(layout, brk, [call])
    old_runs, new_runs = covered(layout), covered(after)
    appeared = subtract(new_runs, old_runs)
    renewed = intersect(_renewed_by(call), new_runs)
    return Effect(after, new_brk, subtract(old_runs, new_runs), normalise([*appeared, *renewed]))


def _renewed_by(call: LayoutCall) -> Runs:
    """Ranges that may have been there before, and whose contents the call replaced."""
    a = call.arguments
    if call.name == "mmap":
        return [(call.result, call.result + _length(a[1]))]
    if call.name == "madvise" and a[2] == MADV_DONTNEED:
        return [(a[0], a[0] + _length(a[1]))]
    if call.name == "mremap" and call.result != a[0]:
        return [(call.result, call.result + _length(a[2]))]
    return []
