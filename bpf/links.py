"""What attaches BPF programs: uprobes, and perf events. A link ends with its descriptor, so none outlives us.

Sources: bpf(2) BPF_LINK_CREATE and perf_event_open(2); uapi/linux/bpf.h, uapi/linux/perf_event.h.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from radium.errors import NotPossible
from radium.linux.libc import syscall

_PROG_LOAD, _LINK_CREATE = 5, 28
_KPROBE = 2
_PERF_EVENT, _UPROBE_MULTI = 41, 48
_RETURN = 1
_CLOEXEC = 8
_UPROBE_PMU = Path("/sys/bus/event_source/devices/uprobe/type")
_ONLINE = Path("/sys/devices/system/cpu/online")
# uapi/linux/perf_event.h: PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK; the flag `freq` is bit 10 of the attributes.
_SOFTWARE, _CPU_CLOCK, _FREQ, _ATTR_NBYTES = 1, 0, 1 << 10, 128


class Link:
    """Some descriptors by which a program is attached."""

    def __init__(self, fds: Sequence[int]) -> None:
        self._fds = list(fds)

    def close(self) -> None:
        """The program is called no more when this returns; one that is running may still end."""
        while self._fds:
            os.close(self._fds.pop())


@cache
def has_uprobe_multi() -> bool:
    """Whether one link can attach any number of uprobes (Linux 6.6).

    Tried with a file that cannot have any: EBADF says that the kernel has looked at it (kernel/trace/bpf_trace.c).
    """
    try:
        program = _load_nothing()
    except OSError:
        return False
    try:
        os.close(_multi(program, "/", [0], [0], 0, at_return=False))
    except OSError as error:
        return error.errno == errno.EBADF
    finally:
        os.close(program)
    return False


def _load_nothing() -> int:
    """A program that returns 0, to be attached by uprobe_multi."""
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    attr = ctypes.create_string_buffer(
        struct.pack(
            "<IIQQIIQII16sII", _KPROBE, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence),
            0, 0, 0, 0, 0, b"radium", 0, _UPROBE_MULTI,
        ),
        128,
    )  # fmt: skip
    return syscall("bpf", _PROG_LOAD, ctypes.addressof(attr), ctypes.sizeof(attr))


def uprobes(
    program: int, path: str, offsets: Sequence[int], cookies: Sequence[int], pid: int, *, at_return: bool = False
) -> Link:
    """The program, of kind "uprobe_multi" where `has_uprobe_multi` says so, else "uprobe", called at these places of a file.

    offsets: into the file; cookies: what bpf_get_attach_cookie says at each; pid: of the process that is meant, and its
    children do not inherit it. Raises NotPossible.
    """
    try:
        if has_uprobe_multi():
            return Link([_multi(program, path, offsets, cookies, pid, at_return=at_return)])
        return _many(program, path, offsets, cookies, pid, at_return=at_return)
    except OSError as error:
        raise NotPossible(f"uprobes cannot be attached: {error.strerror}", where=path) from error


def _multi(program: int, path: str, offsets: Sequence[int], cookies: Sequence[int], pid: int, *, at_return: bool) -> int:
    name = ctypes.create_string_buffer(os.fsencode(path))
    places = (ctypes.c_uint64 * len(offsets))(*offsets)
    marks = (ctypes.c_uint64 * len(cookies))(*cookies)
    attr = ctypes.create_string_buffer(
        struct.pack(
            "<IIIIQQQQIII", program, 0, _UPROBE_MULTI, 0, ctypes.addressof(name), ctypes.addressof(places), 0,
            ctypes.addressof(marks), len(offsets), _RETURN if at_return else 0, pid,
        ),
        64,
    )  # fmt: skip
    return syscall("bpf", _LINK_CREATE, ctypes.addressof(attr), ctypes.sizeof(attr))


def _many(
    program: int, path: str, offsets: Sequence[int], cookies: Sequence[int], pid: int, *, at_return: bool
) -> Link:
    """A perf event and a link for each (Linux 5.15)."""
    kind = int(_UPROBE_PMU.read_text())
    name = ctypes.create_string_buffer(os.fsencode(path))
    fds: list[int] = []
    try:
        for offset, cookie in zip(offsets, cookies, strict=True):
            event = _perf_event(kind, _RETURN if at_return else 0, 0, 0, ctypes.addressof(name), offset, pid, -1)
            fds.append(event)
            fds.append(_link_event(program, event, cookie))
    except OSError:
        Link(fds).close()
        raise
    return Link(fds)


def cpu_clock(program: int, frequency: int) -> Link:
    """The program, of kind "perf_event", called so often a second on each CPU that runs anything. Raises NotPossible."""
    fds: list[int] = []
    try:
        for cpu in _online_cpus():
            event = _perf_event(_SOFTWARE, _CPU_CLOCK, frequency, _FREQ, 0, 0, -1, cpu)
            fds.append(event)
            fds.append(_link_event(program, event, 0))
    except OSError as error:
        Link(fds).close()
        raise NotPossible(f"perf events cannot be had: {error.strerror}") from error
    return Link(fds)


def _online_cpus() -> list[int]:
    """Not only those on which we may run: the tracee may run elsewhere."""
    ranges = (part.split("-") for part in _ONLINE.read_text().strip().split(","))
    return [cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)]


def _perf_event(kind: int, config: int, period: int, flags: int, config1: int, config2: int, pid: int, cpu: int) -> int:
    attr = ctypes.create_string_buffer(
        struct.pack("<IIQQQQQIIQQ", kind, _ATTR_NBYTES, config, period, 0, 0, flags, 0, 0, config1, config2), _ATTR_NBYTES
    )
    return syscall("perf_event_open", ctypes.addressof(attr), pid, cpu, -1, _CLOEXEC)


def _link_event(program: int, event: int, cookie: int) -> int:
    attr = ctypes.create_string_buffer(struct.pack("<IIIIQ", program, event, _PERF_EVENT, 0, cookie), 32)
    return syscall("bpf", _LINK_CREATE, ctypes.addressof(attr), ctypes.sizeof(attr))
