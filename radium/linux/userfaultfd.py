"""userfaultfd(2) and ioctl_userfaultfd(2): missing pages served, writes noticed, also for another process's descriptor.

Sources: <linux/userfaultfd.h>; WP_ASYNC and WP_UNPOPULATED: kernel commit 2bad466cc9d9 (6.4, WP_UNPOPULATED) and
d61ea1cb0095 (6.7, "userfaultfd: UFFD_FEATURE_WP_ASYNC").
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from contextlib import suppress

from radium.core.addr import PAGE_SIZE
from radium.linux.libc import fail, ioctl_function

API = 0xAA
FEATURE_WP = 1 << 0
FEATURE_THREAD_ID = 1 << 8
FEATURE_WP_UNPOPULATED = 1 << 13
FEATURE_WP_ASYNC = 1 << 15
MISSING = 1
WRITE_PROTECT = 2
COPY_MODE_WP = 2
O_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
# UFFD_USER_MODE_ONLY: needs no privilege (vm.unprivileged_userfaultfd); faults of the kernel's own are not handed out.
# Write-protection without messages (WP_ASYNC) hands out none anyway.
USER_MODE_ONLY = 1
EVENT_PAGEFAULT = 0x12
MESSAGE = struct.Struct("<B7xQQI4x")


def _iowr(number: int, nbytes: int) -> int:
    return 3 << 30 | nbytes << 16 | API << 8 | number


def _ior(number: int, nbytes: int) -> int:
    return 2 << 30 | nbytes << 16 | API << 8 | number


_API = _iowr(0x3F, 24)
_REGISTER = _iowr(0x00, 32)
_UNREGISTER = _ior(0x01, 16)
_WAKE = _ior(0x02, 16)
_COPY = _iowr(0x03, 40)
_WRITEPROTECT = _iowr(0x06, 24)


def _ioctl(fd: int, request: int, what: str, *words: int) -> "ctypes.Array[ctypes.c_int64]":
    argument = (ctypes.c_int64 * len(words))(*words)
    if ioctl_function(fd, request, ctypes.addressof(argument)) < 0:
        raise fail(what)
    return argument


def enable(fd: int, features: int) -> None:
    _ioctl(fd, _API, "UFFDIO_API", API, features, 0)


def register(fd: int, start: int, end: int, mode: int) -> None:
    _ioctl(fd, _REGISTER, f"UFFDIO_REGISTER {start:#x}-{end:#x}", start, end - start, mode, 0)


def unregister(fd: int, start: int, end: int) -> None:
    _ioctl(fd, _UNREGISTER, f"UFFDIO_UNREGISTER {start:#x}-{end:#x}", start, end - start)


def wake(fd: int, start: int, end: int) -> None:
    _ioctl(fd, _WAKE, "UFFDIO_WAKE", start, end - start)


def copy(fd: int, start: int, source: int, nbytes: int, mode: int) -> None:
    """Places nbytes of pages from our address `source` at `start`; pages that are already there are left as they are.

    A long copy may stop half-way (EAGAIN while the address space changes, EEXIST at a present page): it is taken up
    again. The kernel copies within one mapping only (ENOENT else, mm/userfaultfd.c): a range over several is halved.
    """
    done = 0
    argument = (ctypes.c_int64 * 5)()
    while done < nbytes:
        argument[:] = [start + done, source + done, nbytes - done, mode, 0]
        if ioctl_function(fd, _COPY, ctypes.addressof(argument)) >= 0:
            return
        number = ctypes.get_errno()
        left = nbytes - done
        if number == errno.EEXIST:
            done += max(argument[4], 0) or PAGE_SIZE
        elif number == errno.EAGAIN:
            done += max(argument[4], 0)
        elif number == errno.ENOENT and left > PAGE_SIZE:
            half = left // 2 & ~(PAGE_SIZE - 1)
            copy(fd, start + done, source + done, half, mode)
            done += half
        else:
            raise OSError(number, f"UFFDIO_COPY {start + done:#x}: {os.strerror(number)}")


def write_protect(fd: int, start: int, end: int, on: bool) -> None:
    _ioctl(fd, _WRITEPROTECT, "UFFDIO_WRITEPROTECT", start, end - start, int(on))


def faults(fd: int) -> list[tuple[int, int]]:
    """The page faults that wait to be served; empty when there are none: (address, the thread's own idea of its id).

    The second is 0 without FEATURE_THREAD_ID.
    """
    try:
        raw = os.read(fd, 32 * 64)
    except BlockingIOError:
        return []
    return [(address, tid) for event, _, address, tid in MESSAGE.iter_unpack(raw) if event == EVENT_PAGEFAULT]


# A write to a protected page costs a fault (0.7 us); from some pages on one call that lifts the protection costs less.
_WORTH_LIFTING_NBYTES = 64 << 10


def lift_protection(fd: int, runs: Iterable[tuple[int, int]]) -> None:
    """Makes long runs writable without faults; they count as written until they are protected again."""
    for start, end in runs:
        if end - start >= _WORTH_LIFTING_NBYTES:
            # Where a part of the run is not registered nothing is lifted, and the pages take their faults.
            with suppress(OSError):
                write_protect(fd, start, end, False)
