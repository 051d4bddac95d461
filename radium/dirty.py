"""Which held pages were written: one interface, two mechanisms, for either side.

`PagemapTracker` asks the kernel (write-protection by userfaultfd, PAGEMAP_SCAN). `ChecksumTracker` compares hashes of
the pages as they were last synchronised: slower, and it needs nothing but reading memory. `choose` probes.

Invariant: between `clean(runs)` and `written(runs)` every page that changed in between is in the answer; a page that did
not change may be in it too (protection is by touch, not by content).
"""

import ctypes
import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Protocol

from radium.core.addr import PAGE_SIZE
from radium.core.pages import PageSet, Run, Runs, bridge, intersect, normalise, subtract
from radium.errors import RemoteFault
from radium.linux import pagemap, userfaultfd, vm
from radium.linux.libc import syscall

# Holes up to this size are scanned along: one ioctl costs as much as some 500 page table entries (measured).
BRIDGE_NBYTES = 64 << 10
FEATURES = userfaultfd.FEATURE_WP | userfaultfd.FEATURE_WP_ASYNC | userfaultfd.FEATURE_WP_UNPOPULATED


class Tracker(Protocol):
    """`lost` in an answer: pages of which nothing can be said, since their mapping was replaced by one that looks the same."""

    name: str

    def watch(self, runs: Sequence[Run]) -> None:
        """These ranges are registered for write-protection."""

    def unwatch(self, runs: Sequence[Run]) -> None:
        """These are not, or not any more."""

    def clean(self, runs: Sequence[Run]) -> Runs:
        """Both sides are equal in these pages now. Returns what is lost."""

    def placing(self, start: int, data: bytes | memoryview) -> None:
        """These contents are about to be placed as clean pages; a running thread may write them from then on."""

    def placing_zero(self, start: int, end: int) -> None:
        """As `placing`, for pages that are zero."""

    def overwritten(self, runs: Sequence[Run]) -> Runs:
        """What was placed here replaced pages that were there; they are clean now. The process does not run.

        Returns what is lost.
        """

    def written(self, held: Sequence[Run]) -> tuple[Runs, Runs]:
        """(changed, lost): pages of `held` that were written since they were declared clean; they are clean from now on."""

    def populated(self, runs: Sequence[Run]) -> Runs:
        """Pages of private anonymous `runs` that exist."""

    def forget(self, runs: Sequence[Run]) -> None:
        """These pages are not held any more."""

    def close(self) -> None: ...


class PagemapTracker:
    name = "pagemap"

    def __init__(self, pid: int, absent_counts: bool) -> None:
        """absent_counts: whether a held page that is not there any more was dropped, and so changed."""
        self.pagemap = pagemap.Pagemap(pid)
        self.absent_counts = absent_counts
        self._watched, self._zeros, self._files = PageSet(), PageSet(), PageSet()

    def watch(self, runs: Sequence[Run]) -> None:
        self._watched.add(runs)

    def unwatch(self, runs: Sequence[Run]) -> None:
        self._watched.remove(runs)

    def clean(self, runs: Sequence[Run]) -> Runs:
        _, lost = self._each_span(runs, self._protect)
        if self.absent_counts:
            self._note_files(runs)
        return lost

    def placing(self, start: int, data: bytes | memoryview) -> None:
        """Pages are placed write-protected already."""

    def placing_zero(self, start: int, end: int) -> None:
        """Zero pages count as written once they exist."""
        self._zeros.add([(start, end)])

    def overwritten(self, runs: Sequence[Run]) -> Runs:
        return self.clean(runs)

    def written(self, held: Sequence[Run]) -> tuple[Runs, Runs]:
        if self.absent_counts:
            regions, lost = self._each_span(held, self.pagemap.written_or_none)
            dropped, reverted = self._dropped(held)
            changed = intersect(normalise([*(r[:2] for r in regions), *reverted]), held)
            lost = normalise([*lost, *dropped])
            self._zeros.remove(changed)
            self._note_files(changed)
            return subtract(changed, lost), lost
        regions, lost = self._each_span(held, self.pagemap.written)
        there = pagemap.PRESENT | pagemap.SWAPPED
        return intersect(normalise(r[:2] for r in regions if r[2] & there), held), lost

    def _dropped(self, held: Sequence[Run]) -> tuple[Runs, Runs]:
        """(gone, reverted): what MADV_DONTNEED did to held pages without a trace in their write protection.

        Gone: with their page table, or not touched since. Reverted: private copies of a file's pages, dropped and read
        again; the kernel keeps the protection of such a page (zap_install_uffd_wp_if_needed, mm/memory.c), but it is the
        file's own now.
        """
        there, files = self._present(bridge(held, BRIDGE_NBYTES, self._watched))
        return subtract(subtract(held, there), self._zeros.runs), subtract(intersect(files, held), self._files.runs)

    def _present(self, spans: Sequence[Run]) -> tuple[Runs, Runs]:
        """(present pages, those of them that are a file's own)"""
        regions = [region for start, end in spans for region in self.pagemap.present(start, end)]
        return normalise(r[:2] for r in regions), normalise(r[:2] for r in regions if r[2] & pagemap.FILE)

    def _note_files(self, runs: Sequence[Run]) -> None:
        self._files.remove(runs)
        self._files.add(self._present(runs)[1])

    def _protect(self, spans: Sequence[Run]) -> list[pagemap.Region]:
        self.pagemap.protect(spans)
        return []

    def _each_span(
        self, runs: Sequence[Run], scan: Callable[[Sequence[Run]], list[pagemap.Region]]
    ) -> tuple[list[pagemap.Region], Runs]:
        """(what the scans found, lost). A scan that fails has protected a part of its span and told nothing of it.

        So each span is scanned by itself, and what a failed one covered is lost.
        """
        regions: list[pagemap.Region] = []
        lost: Runs = []
        for span in bridge(runs, BRIDGE_NBYTES, self._watched):
            try:
                regions += scan([span])
            except OSError as error:
                if error.errno != errno.EPERM:
                    raise
                lost += intersect([span], runs)
        return regions, lost

    def populated(self, runs: Sequence[Run]) -> Runs:
        return [run for start, end in runs for run in self.pagemap.populated(start, end)]

    def forget(self, runs: Sequence[Run]) -> None:
        """Protection that stays behind costs one fault when the page is written."""
        self._zeros.remove(runs)

    def close(self) -> None:
        self.pagemap.close()


class ChecksumTracker:
    name = "checksum"

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.memory = vm.ForcedMemory(pid)
        self.digests: dict[int, bytes] = {}
        self.pagemap_fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def _digests_of(self, start: int, end: int) -> list[bytes]:
        """Also of pages that the process itself may not read at present."""
        data = memoryview(self.memory.read(start, end - start))
        return [digest(data[i : i + PAGE_SIZE]) for i in range(0, end - start, PAGE_SIZE)]

    def placing(self, start: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        for at in range(0, len(view), PAGE_SIZE):
            self.digests[start + at] = digest(view[at : at + PAGE_SIZE])

    def placing_zero(self, start: int, end: int) -> None:
        self.digests.update(dict.fromkeys(range(start, end, PAGE_SIZE), _ZERO_DIGEST))

    def overwritten(self, runs: Sequence[Run]) -> Runs:
        """Their digests were taken when they were placed."""
        return []

    def watch(self, runs: Sequence[Run]) -> None:
        """Nothing is registered."""

    def unwatch(self, runs: Sequence[Run]) -> None:
        """Nothing is registered."""

    def clean(self, runs: Sequence[Run]) -> Runs:
        for start, end in runs:
            self.digests.update(zip(range(start, end, PAGE_SIZE), self._digests_of(start, end), strict=True))
        return []

    def written(self, held: Sequence[Run]) -> tuple[Runs, Runs]:
        changed: Runs = []
        lost: Runs = []
        for start, end in held:
            try:
                now = self._digests_of(start, end)
            except RemoteFault:
                lost.append((start, end))
                continue
            for page, value in zip(range(start, end, PAGE_SIZE), now, strict=True):
                if self.digests.get(page) != value:
                    self.digests[page] = value
                    changed.append((page, page + PAGE_SIZE))
        return normalise(changed), lost

    def populated(self, runs: Sequence[Run]) -> Runs:
        """By the entries of /proc/PID/pagemap: bit 63 present, bit 62 swapped (proc(5))."""
        out: Runs = []
        for start, end in runs:
            raw = os.pread(self.pagemap_fd, (end - start) // PAGE_SIZE * 8, start // PAGE_SIZE * 8)
            pages = range(start, end, PAGE_SIZE)
            out += [(p, p + PAGE_SIZE) for p, top in zip(pages, raw[7::8], strict=True) if top & 0xC0]
        return normalise(out)

    def forget(self, runs: Sequence[Run]) -> None:
        for start, end in runs:
            for page in range(start, end, PAGE_SIZE):
                self.digests.pop(page, None)

    def close(self) -> None:
        os.close(self.pagemap_fd)
        self.memory.close()


def digest(page: bytes | memoryview) -> bytes:
    return hashlib.blake2b(page, digest_size=16).digest()


_ZERO_DIGEST = digest(bytes(PAGE_SIZE))


def can_track_by_pagemap() -> bool:
    """Tries it on a page of our own: write-protection without messages, and the scan."""
    try:
        fd = syscall("userfaultfd", userfaultfd.O_CLOEXEC_NONBLOCK | userfaultfd.USER_MODE_ONLY)
    except OSError:
        return False
    page = _own_page()
    scanner = pagemap.Pagemap(os.getpid())
    try:
        userfaultfd.enable(fd, FEATURES)
        userfaultfd.register(fd, page, page + PAGE_SIZE, userfaultfd.WRITE_PROTECT)
        scanner.protect([(page, page + PAGE_SIZE)])
        ctypes.memset(page, 1, 1)
        return bool(scanner.written([(page, page + PAGE_SIZE)]))
    except OSError:
        return False
    finally:
        scanner.close()
        os.close(fd)
        syscall("munmap", page, PAGE_SIZE)


def _own_page() -> int:
    return syscall("mmap", 0, PAGE_SIZE, 3, 0x22, (1 << 64) - 1, 0)


def choose(wanted: str) -> str:
    """'auto' becomes 'pagemap' where this kernel can, else 'checksum'; a forced choice is kept."""
    if wanted != "auto":
        return wanted
    return "pagemap" if can_track_by_pagemap() else "checksum"


def tracker(name: str, pid: int, *, absent_counts: bool) -> Tracker:
    return PagemapTracker(pid, absent_counts) if name == "pagemap" else ChecksumTracker(pid)


