"""signalfd(2), and names of signals."""

import ctypes
import os
import signal
from collections.abc import Iterable

from radium.linux.libc import syscall


def mask_of(numbers: Iterable[int]) -> int:
    """Bit n-1 for signal n, as the kernel's sigset_t on x86-64."""
    return sum(1 << (number - 1) for number in numbers)


def signalfd(numbers: Iterable[int]) -> int:
    """A descriptor that reads blocked signals: the caller blocks them (pthread_sigmask) first."""
    mask = ctypes.c_uint64(mask_of(numbers))
    return syscall("signalfd4", (1 << 64) - 1, ctypes.addressof(mask), 8, os.O_CLOEXEC | os.O_NONBLOCK)


def read_signals(fd: int) -> list[int]:
    """Numbers of the signals that have arrived."""
    try:
        raw = os.read(fd, 128 * 16)
    except BlockingIOError:
        return []
    return [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 128)]


def name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
