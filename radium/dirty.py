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
from collections.abc import Sequence
from typing import Protocol

from radium.core.addr import PAGE_SIZE
from radium.core.pages import Run, Runs, bridge, intersect, normalise
from radium.errors import RemoteFault
from radium.linux import pagemap, userfaultfd, vm
from radium.linux.libc import syscall

# Holes up to this size are scanned along: one ioctl costs as much as some 500 page table entries (measured).
BRIDGE_NBYTES = 64 << 10
FEATURES = userfaultfd.FEATURE_WP | userfaultfd.FEATURE_WP_ASYNC | userfaultfd.FEATURE_WP_UNPOPULATED


class LostProtection(Exception):
    """A range is not registered any more: its mapping was replaced by one that looks the same."""


class Tracker(Protocol):
    name: str

    def clean(self, runs: Sequence[Run]) -> None:
        """Both sides are equal in these pages now."""

    def placing(self, start: int, data: bytes | memoryview) -> None:
        """These contents are about to be placed as clean pages; a running thread may write them from then on."""

    def placing_zero(self, start: int, end: int) -> None:
        """As `placing`, for pages that are zero."""

    def overwritten(self, runs: Sequence[Run]) -> None:
        """What was placed here replaced pages that were there; they are clean now. The process does not run."""

    def written(self, held: Sequence[Run]) -> Runs:
        """Pages of `held` that were written since they were declared clean; they count as clean from now on.

        Raises LostProtection.
        """

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
        self.categories = 0 if absent_counts else pagemap.PRESENT | pagemap.SWAPPED

    def clean(self, runs: Sequence[Run]) -> None:
        try:
            self.pagemap.protect(bridge(runs, BRIDGE_NBYTES))
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            self._clean_exactly(runs)

    def _clean_exactly(self, runs: Sequence[Run]) -> None:
        """A hole between the runs holds something that is not registered."""
        try:
            self.pagemap.protect(runs)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            raise LostProtection from None

    def placing(self, start: int, data: bytes | memoryview) -> None:
        """Pages are placed write-protected already."""

    def placing_zero(self, start: int, end: int) -> None:
        """Zero pages count as written once they exist."""

    def overwritten(self, runs: Sequence[Run]) -> None:
        self.clean(runs)

    def written(self, held: Sequence[Run]) -> Runs:
        try:
            regions = self.pagemap.written(bridge(held, BRIDGE_NBYTES))
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            regions = self._written_exactly(held)
        if not regions:
            return []
        return intersect(normalise((r[0], r[1]) for r in regions if not self.categories or r[2] & self.categories), held)

    def _written_exactly(self, held: Sequence[Run]) -> list[pagemap.Region]:
        try:
            return self.pagemap.written(held)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise
            raise LostProtection from None

    def populated(self, runs: Sequence[Run]) -> Runs:
        return [run for start, end in runs for run in self.pagemap.populated(start, end)]

    def forget(self, runs: Sequence[Run]) -> None:
        """Protection that stays behind costs one fault when the page is written."""

    def close(self) -> None:
        self.pagemap.close()


class ChecksumTracker:
    name = "checksum"

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.digests: dict[int, bytes] = {}
        self.pagemap_fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def _digests_of(self, start: int, end: int) -> list[bytes]:
        data = memoryview(vm.read(self.pid, start, end - start))
        return [digest(data[i : i + PAGE_SIZE]) for i in range(0, end - start, PAGE_SIZE)]

    def placing(self, start: int, data: bytes | memoryview) -> None:
        view = memoryview(data)
        for at in range(0, len(view), PAGE_SIZE):
            self.digests[start + at] = digest(view[at : at + PAGE_SIZE])

    def placing_zero(self, start: int, end: int) -> None:
        self.digests.update(dict.fromkeys(range(start, end, PAGE_SIZE), _ZERO_DIGEST))

    def overwritten(self, runs: Sequence[Run]) -> None:
        """Their digests were taken when they were placed."""

    def clean(self, runs: Sequence[Run]) -> None:
        for start, end in runs:
            self.digests.update(zip(range(start, end, PAGE_SIZE), self._digests_of(start, end), strict=True))

    def written(self, held: Sequence[Run]) -> Runs:
        out: Runs = []
        for start, end in held:
            try:
                now = self._digests_of(start, end)
            except RemoteFault:
                raise LostProtection from None
            for page, value in zip(range(start, end, PAGE_SIZE), now, strict=True):
                if self.digests.get(page) != value:
                    self.digests[page] = value
                    out.append((page, page + PAGE_SIZE))
        return normalise(out)

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


def digest(page: bytes | memoryview) -> bytes:
    return hashlib.blake2b(page, digest_size=16).digest()


_ZERO_DIGEST = digest(bytes(PAGE_SIZE))


def can_track_by_pagemap() -> bool:
    """Tries it on a page of our own: write-protection without messages, and the scan."""
    try:
        fd = syscall("userfaultfd", userfaultfd.O_CLOEXEC_NONBLOCK)
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


