"""The tracee's memory as a session sees it: layout, held pages, what was written, what a call will need.

The tracee's threads are stopped in every method. Nothing here changes the tracee but its write protection.
Sources: DESIGN.md sections 5 and 6.
"""

import ctypes
import errno
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter

from radium import dirty
from radium.core import pages
from radium.core.addr import PAGE_SIZE, page_floor
from radium.core.mapping import (
    ANONYMOUS,
    PROT_READ,
    PROT_WRITE,
    RESERVED,
    SHARED,
    SPECIAL,
    STACK,
    Area,
    Layout,
    LayoutCall,
    LayoutDelta,
    Mapping,
    covered,
    difference,
    effect,
    layout_of,
    parse_maps,
)  # fmt: skip
from radium.core.pages import PageSet, Run, Runs, intersect, normalise, subtract, union
from radium.errors import RemoteFault
from radium.linux import pidfd, procfs, userfaultfd, vm
from radium.linux.pagemap import Pagemap
from radium.tracer.breakpoint import Breakpoints
from radium.tracer.mapped_files import MappedFiles
from radium.tracer.remote_syscall import RemoteSyscalls

CHUNK = 1 << 20
RED_ZONE = 128
# Smaller mappings may be parts of an allocator's heap, whose bookkeeping is of use.
SCRATCH_NBYTES = 16 << 20
# For the contents of pages on their way; one serves all tracees, in turn.
_BUFFER = memoryview(bytearray(CHUNK))
_BUFFER_AT = ctypes.addressof(ctypes.c_char.from_buffer(_BUFFER))
_start = attrgetter("start")


class Home:
    def __init__(self, pid: int, breakpoints: Breakpoints, tracking: str) -> None:
        self.pid = pid
        self.breakpoints = breakpoints
        self.maps = procfs.MapsFile(pid)
        self.held, self.stale = PageSet(), PageSet()
        # What `written` has not told yet: written pages, and pages that were held in mappings that are not there any more.
        self._noticed, self._remapped = PageSet(), PageSet()
        self.uffd = -1
        self._wanted_tracking = tracking
        self.tracker: dirty.Tracker | None = None
        self._shared_tracker: dirty.Tracker | None = None
        self._pagemap = Pagemap(pid)
        self._files = MappedFiles(pid)
        self._text = b""
        self.mappings: list[Mapping] = []
        self.layout: Layout = []
        self._told: Layout = []
        self._scratch_of: Layout = []
        self._untouchable_of: Layout = []
        self._untouchable: Layout = []
        self._scratch: Runs = []
        self._shared_of: Layout = []
        self._shared: Runs = []
        # Private mappings that cannot be watched: droppable ones (mmap(2), Linux 6.11), where glibc keeps vDSO states.
        self._unwatchable = PageSet()
        self.brk = 0
        self._buffer, self._buffer_at = _BUFFER, _BUFFER_AT

    # Watching

    def watch(self, remote: RemoteSyscalls | None, tid: int) -> None:
        """Starts to notice writes: a userfaultfd made in the tracee and taken over, all mappings write-protect only."""
        name = dirty.choose(self._wanted_tracking if remote else "checksum")
        if name == "pagemap" and remote:
            with remote.borrow(tid) as thread:
                fd = thread.call("userfaultfd", userfaultfd.O_CLOEXEC_NONBLOCK | userfaultfd.USER_MODE_ONLY)
                try:
                    self.uffd = pidfd.take_descriptor(self.pid, fd)
                finally:
                    thread.call("close", fd)
            userfaultfd.enable(self.uffd, dirty.FEATURES)
        # First: with a tracker, whatever is new takes the breakpoints in it along.
        self.refresh()
        self.tracker = dirty.tracker(name, self.pid, absent_counts=True)
        self._protect(covered(self.layout))

    def _protect(self, runs: Sequence[Run]) -> None:
        """Watches the mappings that meet the runs, as wholes.

        A new one may have taken the place of one that looked the same, and then only what lies beyond that one is in
        `runs`. Half watched, it would be two mappings, and an mremap of the program's over both would fail (EFAULT).
        """
        if self.uffd < 0 or self.tracker is None:
            return
        whole = [(a.start, a.end) for a in self.layout if not a.kind & (RESERVED | SHARED) and intersect([a[:2]], runs)]
        for start, end in normalise(whole):
            self.tracker.watch(self._register(start, end))

    def _register(self, start: int, end: int) -> Runs:
        """What of it is watched now."""
        try:
            userfaultfd.register(self.uffd, start, end, userfaultfd.WRITE_PROTECT)
            return [(start, end)]
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        parts = [(m.start, m.end) for m in self.mappings if m.start < end and start < m.end]
        if len(parts) > 1:
            return normalise(run for part in parts for run in self._register(*part))
        self._unwatchable.add(parts)
        self._shared_of = []
        return []

    def read_brk(self, remote: RemoteSyscalls | None, tid: int) -> int:
        """The tracee's brk; it need not be where [heap] ends."""
        if remote is None:
            self.brk = max((m.end for m in self.mappings if m.path == "[heap]"), default=0)
        else:
            with remote.borrow(tid) as thread:
                self.brk = thread.call("brk", 0)
        return self.brk

    # Layout

    def refresh(self) -> None:
        """Reads the layout again; what changed is not held any more, and watched if it is new."""
        text = self.maps.read()
        if text == self._text:
            return
        self._text = text
        self.mappings = parse_maps(text)
        old, self.layout = self.layout, layout_of(self.mappings, self.breakpoints.reserved)
        if self.tracker is not None:
            delta = difference(old, self.layout)
            changed = normalise([*delta.unmap, *((a.start, a.end) for a in delta.map)])
            self.breakpoints.forget_in(changed)
            self._remapped.add(intersect(self.held.runs, changed))
            self._forget(changed)
            self.tracker.unwatch(changed)
            self._unwatchable.remove(changed)
            self._protect(covered(delta.map))

    def take_delta(self) -> LayoutDelta:
        """What changed since the mirror was told last; it counts as told."""
        self.refresh()
        if self.layout is self._told:
            return LayoutDelta()
        delta = difference(self._told, self.layout)
        self._told = self.layout
        return delta

    def tell_all(self) -> Layout:
        """The layout for a new mirror, which holds nothing."""
        self.refresh()
        self.forget_mirror()
        self._told = self.layout
        return self.layout

    def untouchable(self) -> Layout:
        """The layout with what no memory call of a mirror's may meet: the kernel's own mappings, as if they were ours."""
        if self._untouchable_of is not self.layout:
            own = [Area(a.start, a.end, 0, RESERVED) for a in self.special()]
            self._untouchable_of, self._untouchable = self.layout, sorted([*self.layout, *own])
        return self._untouchable

    def special(self) -> list[Area]:
        """The kernel's own mappings, by name."""
        return [Area(m.start, m.end, m.prot, 0, m.path) for m in self.mappings if m.path in SPECIAL[:3]]

    def vdso(self) -> bytes:
        """The image of the kernel's vdso; empty when there is none."""
        vdso = next((m for m in self.mappings if m.path == "[vdso]"), None)
        return vm.read(self.pid, vdso.start, vdso.end - vdso.start) if vdso else b""

    # Held pages

    def _forget(self, runs: Sequence[Run]) -> None:
        assert self.tracker is not None
        gone = intersect(self.held.runs, runs)
        self.tracker.forget(gone)
        if self._shared_tracker is not None:
            self._shared_tracker.forget(gone)
        for pages_there in (self.held, self.stale, self._noticed):
            pages_there.remove(runs)

    def forget_mirror(self) -> None:
        """The mirror is gone: nothing is held."""
        if self.tracker is not None:
            self._forget(list(self.held.runs))
        for pages_there in (self.held, self.stale, self._noticed, self._remapped):
            pages_there.clear()

    @contextmanager
    def own_writes(self, address: int) -> Iterator[None]:
        """What radium writes into this page meanwhile, the program does not see: it counts as no change."""
        page = intersect(self.held.runs, [(page_floor(address), page_floor(address) + PAGE_SIZE)])
        changed, lost = self.tracker.written(page) if self.tracker is not None and page else ([], [])
        self._noticed.add(changed)
        yield
        if page and not lost:
            self.hold(page)

    def lose(self, runs: Sequence[Run]) -> None:
        """The mirror does not hold these pages any more."""
        self._forget(runs)

    def written(self) -> tuple[Runs, Runs]:
        """(changed, lost): held pages that were written, and such whose mappings were replaced or went, held no more.

        The layout has been refreshed.
        """
        assert self.tracker is not None
        shared = intersect(self.held.runs, self.shared())
        changed, lost = self.tracker.written(subtract(self.held.runs, shared))
        if self._shared_tracker is not None:
            changed, lost = (union(*both) for both in zip((changed, lost), self._shared_tracker.written(shared), strict=True))
            lost = union(lost, intersect(self.held.runs, self._files.changed(self.mappings, self.held.runs)))
        changed = subtract(union(changed, self._noticed.runs), lost)
        if lost:
            self._watch_again(lost)
        lost = union(lost, self._remapped.runs)
        self._noticed.clear()
        self._remapped.clear()
        return changed, lost

    def peek_written(self) -> Runs:
        """Held pages that were written since `written` was asked last, which will tell of them all the same."""
        changed, lost = self.written()
        self._noticed.add(changed)
        self._remapped.add(lost)
        return changed

    def _watch_again(self, lost: Runs) -> None:
        # What is lost may be mapped no more.
        self.refresh()
        self._forget(lost)
        self._protect(lost)

    def drop_volatile(self) -> Runs:
        """Held pages that others write without our seeing, or may have written; they are not held any more."""
        changed = self._files.changed(self.mappings, self.held.runs)
        volatile = intersect(self.held.runs, pages.union(self.shared(), changed))
        self._forget(volatile)
        return volatile

    def watch_shared(self) -> None:
        """From now on `written` tells of what others write, too: shared mappings, by their contents, and mapped files."""
        if self._shared_tracker is None:
            self._shared_tracker = dirty.tracker("checksum", self.pid, absent_counts=True)

    def shared(self) -> Runs:
        """What may be written without our seeing: by other processes, or because it cannot be watched."""
        if self._shared_of is not self.layout:
            shared = covered(a for a in self.layout if a.kind & SHARED)
            self._shared_of, self._shared = self.layout, union(shared, self._unwatchable.runs)
        return self._shared

    def hold_zero(self, runs: Sequence[Run]) -> None:
        """Pages that do not exist at home, and count as zero in the mirror."""
        assert self.tracker is not None
        for start, end in runs:
            self.tracker.placing_zero(start, end)
            if self.uffd >= 0:
                self._mark(start, end)
        self.hold(runs)

    def _mark(self, start: int, end: int) -> None:
        """Protects what does not exist: a scan leaves no marker where there is no page table."""
        try:
            userfaultfd.write_protect(self.uffd, start, end, True)
        except FileNotFoundError:
            # The mapping was replaced by one that looks the same, of which nothing was held.
            self._protect([(start, end)])
            userfaultfd.write_protect(self.uffd, start, end, True)

    def hold(self, runs: Sequence[Run]) -> None:
        """These pages are on their way to the mirror, or came from it."""
        assert self.tracker is not None
        shared = self.shared()
        lost = self.tracker.clean(subtract(runs, shared))
        if lost:
            self._watch_again(lost)
            self.tracker.clean(lost)
        if self._shared_tracker is not None:
            self._shared_tracker.clean(intersect(runs, shared))
        self.stale.remove(runs)
        self.held.add(runs)

    def expect(self, dirty: Sequence[Run]) -> None:
        """These pages are about to be written by a commit."""
        if self.uffd >= 0:
            userfaultfd.lift_protection(self.uffd, intersect(dirty, self.held.runs))

    def follow(self, journal: Sequence[LayoutCall], brk: int) -> None:
        """The tracee's layout after a commit, whose memory calls began at `brk`: what they mapped is watched from now on."""
        was_told, told, new = self._told is self.layout, self._told, PageSet()
        for call in journal:
            told, brk, gone, appeared = effect(told, brk, call)
            self._forget(normalise([*gone, *appeared]))
            new.remove(gone)
            new.add(appeared)
        self.refresh()
        # Where other threads have gone on meanwhile, the mirror knows nothing of what they did.
        self._told = self.layout if was_told else told
        self._protect(new.runs)

    def note_told(self, journal: Sequence[LayoutCall]) -> Runs:
        """The mirror has made these memory calls and home will not: the next delta undoes them. What pages they renewed."""
        brk, touched = self.brk, PageSet()
        for call in journal:
            self._told, brk, gone, new = effect(self._told, brk, call)
            touched.add(union(gone, new))
        return list(touched.runs)

    def settle(self, dirty: Sequence[Run], stale: Sequence[Run]) -> None:
        """The call's pages are home: held where both sides are equal, stale where dead stack stayed in the mirror."""
        self.hold(dirty)
        self.held.remove(stale)
        self.stale.add(stale)

    def live_stale(self, rsp: int, scratch: Sequence[Run]) -> Runs:
        """Stale pages that the function may look at: all but the stack below the red zone, and its own scratch."""
        stack = next((a for a in self.layout if a.kind & STACK and a.start <= rsp < a.end), None)
        dead = [(stack.start, page_floor(rsp - RED_ZONE))] if stack else []
        return subtract(self.stale.runs, normalise([*dead, *scratch]))

    def scratch(self, results: Sequence[Run]) -> Runs:
        """Where a call whose profile says `scratch` leaves nothing of use: large anonymous mappings but for its `results`."""
        if self._scratch_of is not self.layout:
            self._scratch_of, self._scratch = self.layout, _large_mappings(self.mappings, self.layout)
        return subtract(self._scratch, results)

    def missing(self, runs: Sequence[Run], *, also_closed: bool = False) -> tuple[Runs, Runs]:
        """(zero, data): what of the runs is readable and not held, as pages that are zero and pages with contents.

        also_closed: or is not, but will be when the mirror's memory calls are repeated.
        """
        zero: Runs = []
        data: Runs = []
        for start, end in subtract(runs, self.held.runs):
            for area in self._areas_in(start, end):
                if not (area.prot & PROT_READ or also_closed):
                    continue
                wanted = (max(area.start, start), min(area.end, end))
                if not area.kind & ANONYMOUS:
                    data.append(wanted)
                    continue
                there, guards = self._pagemap.populated_and_guards(*wanted)
                data += there
                zero += subtract(subtract([wanted], there), guards)
        zero, unseen = normalise(zero), union(self.stale.runs, self._unwatchable.runs)
        return subtract(zero, unseen), normalise([*data, *intersect(unseen, zero)])

    def _areas_in(self, start: int, end: int) -> list[Area]:
        first = max(bisect_right(self.layout, start, key=_start) - 1, 0)
        behind = bisect_left(self.layout, end, key=_start)
        return [area for area in self.layout[first:behind] if start < area.end and not area.kind & RESERVED]

    def readable(self, runs: Sequence[Run]) -> Runs:
        """The pages of the runs, which `missing` gave, that can be read: a file may be shorter than its mapping.

        A file's pages are all touched: before, they have no entry in the page table, and could not be protected.
        """
        if not runs:
            return []
        files = intersect(runs, covered(area for area in self.layout if not area.kind & ANONYMOUS))
        if not files:
            return list(runs)
        open_ones = vm.readable(self.pid, files, PAGE_SIZE)
        rest = (page for start, end in subtract(files, open_ones) for page in range(start, end, PAGE_SIZE))
        closed_ones = normalise((page, page + PAGE_SIZE) for page in rest if self._can_force(page))
        return union(subtract(runs, files), union(open_ones, closed_ones))

    def _can_force(self, page: int) -> bool:
        """Whether there is a page that the program itself may not read at present."""
        try:
            return bool(self.breakpoints.memory.read(page, 1))
        except RemoteFault:
            return False

    def contents(self, runs: Sequence[Run]) -> Iterator[memoryview]:
        """The contents of the runs as the program sees them, in pieces; each is overwritten by the next."""
        patched = self.breakpoints.patches.touches(runs)
        for piece in pages.pieces(runs, CHUNK):
            nbytes = self._read_piece(piece)
            if patched:
                at = 0
                for start, end in piece:
                    self.breakpoints.patches.hide(start, self._buffer[at : at + end - start])
                    at += end - start
            yield self._buffer[:nbytes]

    def _read_piece(self, piece: Runs) -> int:
        try:
            return vm.read_runs(self.pid, piece, self._buffer_at)
        except RemoteFault:
            # Held pages that the program has made inaccessible meanwhile.
            data = b"".join(self.breakpoints.memory.read(start, end - start) for start, end in piece)
            self._buffer[: len(data)] = data
            return len(data)

    def page(self, address: int) -> memoryview:
        """One page as the program sees it, or would if it could read it."""
        out = memoryview(bytearray(self.breakpoints.memory.read(address, PAGE_SIZE)))
        self.breakpoints.patches.hide(address, out)
        return out

    def end_of_area(self, address: int) -> int:
        """Of the mapping there, with those behind it that look alike; the address itself if there is none."""
        return next((a.end for a in self.layout if a.start <= address < a.end), address)

    def is_stack(self, address: int) -> bool:
        return any(a.kind & STACK and a.start <= address < a.end for a in self.layout)

    def close_watch(self) -> None:
        """The tracee's mappings are watched no more (closing a userfaultfd unregisters them)."""
        if self.uffd >= 0:
            os.close(self.uffd)
            self.uffd = -1

    def close(self) -> None:
        self.close_watch()
        if self.tracker is not None:
            self.tracker.close()
        if self._shared_tracker is not None:
            self._shared_tracker.close()
        self._pagemap.close()
        self.maps.close()


def _large_mappings(mappings: Sequence[Mapping], layout: Layout) -> Runs:
    """Private anonymous mappings of at least SCRATCH_NBYTES that are neither heap, stack nor a library's data."""
    large = [
        (a.start, a.end)
        for a in layout
        if a.kind == ANONYMOUS and a.prot == PROT_READ | PROT_WRITE and a.end - a.start >= SCRATCH_NBYTES
    ]
    # A library's .bss is anonymous and lies behind the mapping of its file.
    ends = {m.end for m in mappings if m.inode}
    heaps = normalise((m.start, m.end) for m in mappings if m.path.startswith("["))
    return [run for run in large if run[0] not in ends and not intersect([run], heaps)]
