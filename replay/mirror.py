"""The mirrored address space: layout, pages, what is held, and how it forgets what a failed call did.

Every page of the mirror is in one of four states:

    missing   not there; touching it is a page-in (userfaultfd MISSING)
    held      there, and equal to the tracee's unless written during the call (dirty)
    stale     dead stack or scratch that a call left behind: there, unequal, refreshed before it can be seen again
    fresh     in a range that the call itself mapped, or the room below the stack: zero until touched, no page-in

Invariants: `held` and `stale` are disjoint; outside of a call nothing is fresh.
Sources: DESIGN.md sections 5 and 6; prctl(2) PR_SET_MM_MAP; ioctl_userfaultfd(2).
"""

import ctypes
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from radium import dirty
from radium.core import wire
from radium.core.addr import PAGE_SIZE, page_floor
from radium.core.mapping import (
    MADV_DONTNEED,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_EXEC,
    PROT_READ,
    RESERVED,
    STACK,
    STACK_GROWTH,
    STACK_ROOM,
    Area,
    Layout,
    LayoutCall,
    LayoutDelta,
    clip,
    covered,
    effect,
    merged,
    touched_by,
)  # fmt: skip
from radium.core.pages import PageSet, Run, Runs, intersect, normalise, pieces, subtract, total
from radium.errors import JobFailed, RemoteFault
from radium.linux import namespaces, userfaultfd, vm
from radium.replay import vdso
from radium.replay.sandbox import Limits
from radium.replay.vessel import SystemCall, Vessel, place

# Behind a vessel, where its vdso stays or passes through.
AWAY = 0x40000
# System V psABI 3.2.2: the 128 bytes below rsp belong to the function.
RED_ZONE = 128
CHUNK = 1 << 20
# Zero runs from this size on are left to the kernel's own zero pages; smaller ones are placed.
NATIVE_ZERO_NBYTES = 64 << 10
_MAP_NEW = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE


class Mirror:
    def __init__(self, setup: wire.Setup, limits: Limits) -> None:
        self.identity = setup.identity
        self.may_change_layout = setup.may_change_layout
        self.home_components = setup.components
        self.clocks = setup.clocks
        self._mm = setup.mm
        self.brk = setup.brk
        self.layout: Layout = list(setup.layout)
        self.held, self.stale, self.fresh = PageSet(), PageSet(), PageSet()
        self.journal: list[LayoutCall] = []
        self._touched: Runs = []
        self._room: Run = (0, 0)
        used = [*covered(self.layout), *((a.start, a.end) for a in setup.special)]
        self.vessel = Vessel(place(normalise(used)), limits, setup.clocks)
        try:
            self._build(setup)
        except OSError as error:
            self.vessel.kill()
            raise JobFailed(f"the mirror cannot be built: {error.strerror}") from None

    # Building

    def _build(self, setup: wire.Setup) -> None:
        self._clear_own(setup)
        self.tracking = dirty.choose(setup.tracking)
        self.tracker = dirty.tracker(self.tracking, self.vessel.pid, absent_counts=False)
        self._open_userfaultfd()
        self._map(self.layout)
        self._place_room()
        self._set_mm()
        self.vessel.seal(self.serves_kernel)
        self._buffer = memoryview(bytearray(CHUNK))
        self._buffer_at = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._zeros = ctypes.create_string_buffer(NATIVE_ZERO_NBYTES)

    def _clear_own(self, setup: wire.Setup) -> None:
        """What exec gave the vessel goes; its vdso and that one's data move to where the tracee has them."""
        stacks = [m for m in self.vessel.mappings() if m.path == "[stack]"]
        calls: list[SystemCall] = [("munmap", (m.start, m.end - m.start)) for m in stacks]
        # First all out of the way, then all into place: a target may be where another one was.
        own = sorted(m for m in self.vessel.special if m.path != "[vsyscall]")
        away = {m.path: self.vessel.base + AWAY + m.start - own[0].start for m in own}
        calls += [_move(m.start, away[m.path], m.end - m.start) for m in own]
        image = self._own_vdso()
        is_same, wanted = image == setup.vdso and self._has_same_sizes(setup), {a.what: a for a in setup.special}
        if is_same:
            calls += [_move(away[m.path], wanted[m.path].start, m.end - m.start) for m in own if m.path in wanted]
        self.vessel.batch(calls)
        self._note_vdso(wanted, away["[vdso]"], len(image))
        if not is_same and "[vdso]" in wanted:
            foreign = vdso.patched(setup.vdso, image, away["[vdso]"])
            self._place_foreign_vdso(wanted["[vdso]"], foreign)

    def _note_vdso(self, wanted: Mapping[str, Area], away: int, nbytes: int) -> None:
        places = [(a.start, a.end) for a in (wanted.get("[vdso]"),) if a is not None]
        self._vdso = [*places, (away, away + nbytes)]

    def _has_same_sizes(self, setup: wire.Setup) -> bool:
        own = {m.path: m.end - m.start for m in self.vessel.special}
        return all(own.get(a.what) == a.end - a.start for a in setup.special)

    def _own_vdso(self) -> bytes:
        mapping = next(m for m in self.vessel.special if m.path == "[vdso]")
        return vm.read(self.vessel.pid, mapping.start, mapping.end - mapping.start)

    def _place_foreign_vdso(self, place: Area, image: bytes) -> None:
        nbytes = place.end - place.start
        self.vessel.batch([("mmap", (place.start, nbytes, PROT_READ | PROT_EXEC, _MAP_NEW, -1, 0))])
        self.vessel.memory.write(place.start, image[:nbytes])

    def _open_userfaultfd(self) -> None:
        self.uffd = self.vessel.take_descriptor(self._make_userfaultfd())
        self.registered = userfaultfd.MISSING
        features = userfaultfd.FEATURE_THREAD_ID
        if self.tracking == "pagemap":
            features |= dirty.FEATURES
            self.registered = userfaultfd.MISSING | userfaultfd.WRITE_PROTECT
        userfaultfd.enable(self.uffd, features)

    def _make_userfaultfd(self) -> int:
        """With faults of the kernel's own, for system calls that run in the mirror; without privilege there are none."""
        self.serves_kernel = True
        try:
            return self.vessel.call("userfaultfd", userfaultfd.O_CLOEXEC_NONBLOCK)
        except PermissionError:
            self.serves_kernel = False
            return self.vessel.call("userfaultfd", userfaultfd.O_CLOEXEC_NONBLOCK | userfaultfd.USER_MODE_ONLY)

    def _set_mm(self) -> None:
        """Gives the mirror the tracee's brk and program layout, so that a mirrored malloc grows the tracee's heap."""
        start = self._mm
        fields = [start[0], start[1], start[2], start[3], start[4], self.brk, *start[5:10]]
        raw = struct.pack("<12QIi", *fields, 0, 0, -1)
        self.vessel.memory.write(self.vessel.scratch, raw)
        self.vessel.call("prctl", namespaces.PR_SET_MM, namespaces.PR_SET_MM_MAP, self.vessel.scratch, len(raw))

    # Layout

    def _map(self, areas: Sequence[Area]) -> None:
        """Fresh, missing memory in the places of the areas, which are free or replaced."""
        self.vessel.batch([("mmap", (a.start, a.end - a.start, a.prot, _MAP_NEW, -1, 0)) for a in areas])
        self._register(covered(a for a in areas if not a.kind & RESERVED), missing=True)

    def _register(self, runs: Sequence[Run], *, missing: bool) -> None:
        """missing: whether touching a page that is not there is a page-in, or makes a zero page."""
        for start, end in runs:
            self.tracker.watch([(start, end)])
            if missing:
                userfaultfd.register(self.uffd, start, end, self.registered)
                continue
            # Registering for less than before changes nothing (fs/userfaultfd.c, userfaultfd_register), so first for nothing.
            userfaultfd.unregister(self.uffd, start, end)
            if self.registered & userfaultfd.WRITE_PROTECT:
                userfaultfd.register(self.uffd, start, end, userfaultfd.WRITE_PROTECT)

    def _place_room(self) -> None:
        """Free pages below the stack, so that it can grow here as it would at home."""
        stack = self._stack()
        if stack is None:
            return
        below = max((a.end for a in self.layout if a.end <= stack.start), default=0)
        room = (max(stack.start - STACK_ROOM, below), stack.start)
        if room == self._room:
            return
        gone = subtract([self._room] if self._room[1] else [], covered(self.layout))
        self._room = room
        self._forget_all(gone)
        calls: list[SystemCall] = [("munmap", (start, end - start)) for start, end in gone]
        if room[0] < room[1]:
            calls.append(("mmap", (room[0], room[1] - room[0], 3, _MAP_NEW, -1, 0)))
        self.vessel.batch(calls)
        if room[0] < room[1]:
            self._register([room], missing=False)

    def apply(self, delta: LayoutDelta, brk: int) -> None:
        """Repeats what the tracee did to its layout since the last synchronisation."""
        if delta:
            changed = normalise([*delta.unmap, *((a.start, a.end) for a in delta.map)])
            self._forget_all(changed)
            self.vessel.batch(
                [
                    *(("munmap", (start, end - start)) for start, end in delta.unmap),
                    *(("mprotect", (a.start, a.end - a.start, a.prot)) for a in delta.protect),
                ]
            )
            self._map(delta.map)
            self.layout = apply_delta(self.layout, delta)
            self._place_room()
        self.set_brk(brk)

    def set_brk(self, brk: int) -> None:
        if brk != self.brk:
            self.brk = brk
            self._set_mm()

    def _forget_all(self, runs: Sequence[Run]) -> None:
        self.tracker.forget(intersect(self.held.runs, runs))
        for pages in (self.held, self.stale, self.fresh):
            pages.remove(runs)
        self.tracker.unwatch(runs)

    def drop(self, runs: Sequence[Run]) -> None:
        """Makes pages missing again."""
        if not runs:
            return
        gone = intersect(runs, covered(self.layout))
        self.vessel.batch([("madvise", (start, end - start, MADV_DONTNEED)) for start, end in gone])
        self._forget_all(gone)
        self._register(intersect(gone, covered(a for a in self.layout if not a.kind & RESERVED)), missing=True)

    # Pages

    def present(self) -> Runs:
        return normalise([*self.held.runs, *self.stale.runs])

    def place_payload(self, runs: Sequence[Run], read_into: Callable[[memoryview], None]) -> None:
        """Takes the contents of `runs`, in order, from `read_into`; they are held and clean afterwards."""
        present = self.present()
        if self.registered & userfaultfd.WRITE_PROTECT:
            userfaultfd.lift_protection(self.uffd, intersect(runs, present))
        for start, end in runs:
            for first in range(start, end, CHUNK):
                last = min(first + CHUNK, end)
                read_into(self._buffer[: last - first])
                self.tracker.placing(first, self._buffer[: last - first])
                self._place_chunk(first, last, present)
        self.tracker.overwritten(intersect(runs, present))
        self.stale.remove(runs)
        self.held.add(runs)

    def _place_chunk(self, start: int, end: int, present: Runs) -> None:
        there = intersect([(start, end)], present)
        mode = userfaultfd.COPY_MODE_WP if self.registered & userfaultfd.WRITE_PROTECT else 0
        for first, last in subtract([(start, end)], there):
            userfaultfd.copy(self.uffd, first, self._buffer_at + first - start, last - first, mode)
        for first, last in there:
            self._overwrite(first, self._buffer[first - start : last - start])

    def _overwrite(self, address: int, data: memoryview) -> None:
        source = ctypes.addressof(ctypes.c_char.from_buffer(data))
        try:
            vm.write_runs(self.vessel.pid, [(address, address + len(data))], source)
        except RemoteFault:
            self.vessel.memory.write(address, data)

    def place_zero(self, runs: Sequence[Run]) -> None:
        """These pages are zero at home; they are held afterwards."""
        present = self.present()
        for start, end in runs:
            for first, last in intersect([(start, end)], present):
                self.tracker.placing_zero(first, last)
                self._fill_zero(first, last, self._overwrite_zero)
            for first, last in subtract([(start, end)], present):
                self.tracker.placing_zero(first, last)
                if last - first >= NATIVE_ZERO_NBYTES:
                    self._register([(first, last)], missing=False)
                    userfaultfd.wake(self.uffd, first, last)
                else:
                    self._fill_zero(first, last, self._copy_zero)
        self.tracker.overwritten(intersect(runs, present))
        self.stale.remove(runs)
        self.held.add(runs)

    def _fill_zero(self, start: int, end: int, place_piece: Callable[[int, int], None]) -> None:
        for first in range(start, end, NATIVE_ZERO_NBYTES):
            place_piece(first, min(NATIVE_ZERO_NBYTES, end - first))

    def _overwrite_zero(self, address: int, nbytes: int) -> None:
        self._overwrite(address, memoryview(bytearray(nbytes)))

    def _copy_zero(self, address: int, nbytes: int) -> None:
        mode = userfaultfd.COPY_MODE_WP if self.registered & userfaultfd.WRITE_PROTECT else 0
        userfaultfd.copy(self.uffd, address, ctypes.addressof(self._zeros), nbytes, mode)

    def wake(self, address: int) -> None:
        userfaultfd.wake(self.uffd, address, address + PAGE_SIZE)

    def is_in_vdso(self, address: int) -> bool:
        """Whether the kernel's own code is there, the tracee's or the vessel's."""
        return any(start <= address < end for start, end in self._vdso)

    def area_at(self, address: int) -> Area | None:
        return next((a for a in self.layout if a.start <= address < a.end), None)

    def begin(self) -> None:
        """A call starts: the room below the stack is its to use."""
        if self._room[0] < self._room[1]:
            self.fresh.add([self._room])

    def expect(self, runs: Sequence[Run]) -> None:
        """These pages will be written, and count as written."""
        if self.registered & userfaultfd.WRITE_PROTECT:
            userfaultfd.lift_protection(self.uffd, intersect(runs, self.held.runs))

    # Memory calls made by the call itself

    def record(self, call: LayoutCall) -> None:
        """The mirror thread made this memory call: the layout follows, new memory is fresh. Raises Conflict."""
        self.journal.append(call)
        self._touched = normalise([*self._touched, *touched_by(call, self.brk)])
        self.layout, self.brk, gone, new = effect(self.layout, self.brk, call)
        self._forget_all(normalise([*gone, *new]))
        self._register(new, missing=False)
        self.fresh.add(new)

    # The end of a call

    def collect(self, stacks: Sequence[int], scratch: Sequence[Run], *, goes_on: bool = False) -> tuple[Runs, Runs]:
        """(dirty, dead): pages that the call wrote and that must go home, and those of no use there, which become stale.

        Dead are the stack below the stack pointer, and what the call's profile calls scratch. stacks: the stack pointers of
        all threads that are here; goes_on: whether the one on the stack may need at home what it has here.
        Stale pages are not watched: those that are not dead any more count as written.
        """
        rsp = min((rsp for rsp in stacks if self._is_on_stack(rsp)), default=-1)
        if goes_on and rsp >= 0:
            self._grow_stack(rsp)
        written = self._written()
        fresh = self.tracker.populated(self.fresh.runs)
        changed = normalise([*written, *fresh, *self.stale.runs])
        dead = intersect(changed, normalise([*self._dead_stack(rsp), *scratch]))
        return subtract(changed, dead), dead

    def _is_on_stack(self, address: int) -> bool:
        stack = self._stack()
        return stack is not None and (self._room[0] or stack.start) - STACK_ROOM <= address <= stack.end

    def _grow_stack(self, rsp: int) -> None:
        """A call that goes home deep in its stack needs that stack at home."""
        stack = self._stack()
        low = max(page_floor(rsp - RED_ZONE), self._room[0])
        if stack is not None and self._room[0] <= rsp + STACK_ROOM and low < stack.start == self._room[1]:
            self.record(LayoutCall(STACK_GROWTH, (stack.start, 0, 0, 0, 0, 0), low))
            self._room = (self._room[0], low)

    def _stack(self) -> Area | None:
        return next((a for a in reversed(self.layout) if a.kind & STACK), None)

    def is_below_room(self, address: int) -> bool:
        """Whether somebody at this address has grown its stack beyond the room that we have for it."""
        return self._room[0] - STACK_ROOM <= address < self._room[0]

    def _written(self) -> Runs:
        changed, lost = self.tracker.written(self.held.runs)
        if lost:
            raise JobFailed(f"the mirror lost track of its pages at {lost[0][0]:#x}")
        return changed

    def _dead_stack(self, rsp: int) -> Runs:
        stack = self._stack()
        if stack is None or not self._room[0] <= rsp <= stack.end:
            return []
        # What lies below home's stack cannot go home, and need not: with a stack pointer above it, it is dead.
        live = max(page_floor(rsp - RED_ZONE), stack.start)
        low = self._room[0] or stack.start
        return [(low, live)] if low < live else []

    def settle(self, changed: Sequence[Run], dead: Sequence[Run]) -> None:
        """The answer was sent and counts as committed: what the call wrote is held, what it mapped is like all else."""
        self.held.remove(dead)
        self.stale.add(dead)
        ended = subtract(self.fresh.runs, [self._room])
        self.held.add(changed)
        if ended:
            self.tracker.clean(intersect(changed, ended))
            self._register(ended, missing=True)
        self.fresh.clear()
        has_grown = any(call.name == STACK_GROWTH for call in self.journal)
        self.journal, self._touched = [], []
        if has_grown:
            self._place_room()

    def undo(self, layout: Layout, brk: int) -> Runs:
        """Forgets a call that failed: its writes and its memory calls. Returns the pages that are not held any more."""
        written = self._written()
        lost = normalise([*written, *self._touched])
        touched, self._touched, self.journal = self._touched, [], []
        self.layout = layout
        self._forget_all(normalise([*lost, *self.fresh.runs]))
        self.vessel.batch([("munmap", (start, end - start)) for start, end in touched])
        self._map([piece for start, end in touched for piece in clip(layout, start, end)])
        self._place_room()
        self.set_brk(brk)
        self.drop(subtract(written, touched))
        return lost

    def contents(self, runs: Sequence[Run]) -> Iterator[memoryview]:
        """Yields the contents of the runs in pieces; each is overwritten by the next."""
        for piece in pieces(runs, CHUNK):
            try:
                vm.read_runs(self.vessel.pid, piece, self._buffer_at)
            except RemoteFault:
                self._read_forced(piece)
            yield self._buffer[: total(piece)]

    def _read_forced(self, runs: Sequence[Run]) -> None:
        """Some page is not readable for the mirror itself: the call wrote it and protected it."""
        at = 0
        for start, end in runs:
            self._buffer[at : at + end - start] = self.vessel.memory.read(start, end - start)
            at += end - start

    def close(self) -> None:
        os.close(self.uffd)
        self.tracker.close()
        self.vessel.kill()


def _move(start: int, target: int, nbytes: int) -> SystemCall:
    return "mremap", (start, nbytes, nbytes, MREMAP_MAYMOVE | MREMAP_FIXED, target)


def apply_delta(layout: Layout, delta: LayoutDelta) -> Layout:
    """The layout after the delta."""
    gone = normalise([*delta.unmap, *((a.start, a.end) for a in delta.map), *((a.start, a.end) for a in delta.protect)])
    kept = [piece for start, end in subtract(covered(layout), gone) for piece in clip(layout, start, end)]
    changed = [piece for a in delta.protect for piece in (p._replace(prot=a.prot) for p in clip(layout, a.start, a.end))]
    return merged([*kept, *changed, *delta.map])
