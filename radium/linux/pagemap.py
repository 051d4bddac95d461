"""PAGEMAP_SCAN: which pages of a process are present, and which were written since they were last protected.

Source: Documentation/admin-guide/mm/pagemap.rst; kernel commit 52526ca7fdb9 (6.7, "fs/proc/task_mmu: implement IOCTL to
get and optionally clear info about PTEs"). Category masks are those of <linux/fs.h>.
"""

import ctypes
import mmap
import os
from collections.abc import Iterable
from functools import cache

from radium.linux.libc import fail, ioctl_function

WRITTEN = 1 << 1
FILE = 1 << 2
PRESENT = 1 << 3
SWAPPED = 1 << 4
PFNZERO = 1 << 5
# Since 6.15. Guards themselves (MADV_GUARD_INSTALL) are there since 6.13; glibc 2.42 makes them below threads' stacks.
GUARD = 1 << 8
WP_MATCHING = 1
CHECK_WPASYNC = 2
ROOM = 2048


class _Argument(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "size flags start end walk_end vec vec_len max_pages category_inverted category_mask "
            "category_anyof_mask return_mask"
        ).split()
    ]


_SCAN = 3 << 30 | ctypes.sizeof(_Argument) << 16 | ord("f") << 8 | 16
_vector = (ctypes.c_uint64 * (3 * ROOM))()
_argument = _Argument(size=ctypes.sizeof(_Argument), vec=ctypes.addressof(_vector), vec_len=ROOM)
_argument_at = ctypes.addressof(_argument)

Region = tuple[int, int, int]


class Pagemap:
    """The page tables of one process, by /proc/PID/pagemap."""

    def __init__(self, pid: int) -> None:
        self.fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.fd)

    def _scan(self, start: int, end: int, flags: int, mask: int, anyof: int, wanted: int, out: list[Region]) -> None:
        argument = _argument
        argument.flags, argument.category_mask, argument.category_anyof_mask = flags, mask, anyof
        argument.return_mask, argument.end = wanted, end
        while start < end:
            argument.start, argument.walk_end = start, 0
            count = ioctl_function(self.fd, _SCAN, _argument_at)
            if count < 0:
                raise fail(f"PAGEMAP_SCAN {start:#x}-{end:#x}")
            if count:
                words = _vector[: 3 * count]
                out.extend(zip(words[0::3], words[1::3], words[2::3], strict=True))
            start = argument.walk_end

    def written(self, spans: Iterable[tuple[int, int]]) -> list[Region]:
        """(start, end, categories) of pages written since they were protected, and protects them again, in one step.

        Ranges must be registered write-protect-async (else OSError EPERM). `categories` has PRESENT or SWAPPED when the
        page is there: written and not there means dropped.
        """
        out: list[Region] = []
        for start, end in spans:
            self._scan(start, end, WP_MATCHING | CHECK_WPASYNC, WRITTEN, 0, WRITTEN | PRESENT | SWAPPED, out)
        return out

    def written_or_none(self, spans: Iterable[tuple[int, int]]) -> list[Region]:
        """As `written`, but a page whose page table entry is empty counts too (the kernel's fast path, for exactly this mask).

        Source: fs/proc/task_mmu.c, pagemap_scan_pmd_entry. Where the page table itself is gone (a large MADV_DONTNEED,
        CONFIG_PT_RECLAIM) nothing is reported: see `populated`.
        """
        out: list[Region] = []
        for start, end in spans:
            self._scan(start, end, WP_MATCHING | CHECK_WPASYNC, WRITTEN, 0, WRITTEN, out)
        return out

    def protect(self, spans: Iterable[tuple[int, int]]) -> None:
        """Declares every page of the ranges clean."""
        out: list[Region] = []
        for start, end in spans:
            self._scan(start, end, WP_MATCHING | CHECK_WPASYNC, WRITTEN, 0, WRITTEN, out)

    def populated(self, start: int, end: int) -> list[tuple[int, int]]:
        """Runs of pages of [start, end) that are present or swapped out, or absent and write-protected (a marker)."""
        return self.populated_and_guards(start, end)[0]

    def populated_and_guards(self, start: int, end: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """`populated`, and runs of guard pages, which nobody can touch; a kernel before 6.15 takes these for populated."""
        out: list[Region] = []
        self._scan(start, end, 0, 0, PRESENT | SWAPPED, PRESENT | SWAPPED | (GUARD if tells_guards() else 0), out)
        guards = [(first, last) for first, last, categories in out if categories & GUARD]
        return _merged((first, last) for first, last, categories in out if not categories & GUARD), guards

    def present(self, start: int, end: int) -> list[Region]:
        """(start, end, categories) of pages of [start, end) that are in memory; FILE for those that are a file's own."""
        out: list[Region] = []
        self._scan(start, end, 0, 0, PRESENT, PRESENT | FILE, out)
        return out


@cache
def tells_guards() -> bool:
    """Whether the kernel knows GUARD."""
    pages = Pagemap(os.getpid())
    try:
        pages._scan(0, mmap.PAGESIZE, 0, 0, GUARD, GUARD, [])
    except OSError:
        return False
    finally:
        pages.close()
    return True


def _merged(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in runs:
        if merged and merged[-1][1] == first:
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged
