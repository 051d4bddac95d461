"""pidfd_open(2) and pidfd_getfd(2): descriptors of other processes."""

import os

from radium.linux.libc import syscall


def take_descriptor(pid: int, fd: int) -> int:
    """Our own copy of descriptor `fd` of process `pid`; needs ptrace access to it."""
    handle = os.pidfd_open(pid)
    try:
        return syscall("pidfd_getfd", handle, fd, 0)
    finally:
        os.close(handle)
