"""System calls that Python's standard library does not wrap, through libc's syscall(2)."""

import ctypes
import os

from ptrace.syscall.linux.x86_64 import SYSCALL_NAMES as _NAMES

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long,) + (ctypes.c_ulong,) * 6
ioctl_function = _libc.ioctl
ioctl_function.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)

# Calls newer than python-ptrace's table (arch/x86/entry/syscalls/syscall_64.tbl).
_NEWER = {434: "pidfd_open", 435: "clone3", 436: "close_range", 438: "pidfd_getfd", 449: "futex_waitv", 462: "mseal"}
# 512 to 547 are the x32 ABI's, under the same names.
NAMES: dict[int, str] = {number: name for number, name in {**_NAMES, **_NEWER}.items() if number < 512}
NUMBERS: dict[str, int] = {name: number for number, name in NAMES.items()}


def syscall_name(number: int) -> str:
    return NAMES.get(number, str(number))


def fail(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def syscall(name: str, *arguments: int) -> int:
    padded = tuple(arguments) + (0,) * (6 - len(arguments))
    result = _syscall(NUMBERS[name], *(value & (1 << 64) - 1 for value in padded))
    if result == -1:
        raise fail(name)
    return result


def ioctl(fd: int, request: int, argument: object, what: str) -> int:
    """argument: anything ctypes can pass by address; it must outlive the call."""
    result = ioctl_function(fd, request, ctypes.cast(argument, ctypes.c_void_p))  # type: ignore[arg-type]
    if result < 0:
        raise fail(what)
    return result
