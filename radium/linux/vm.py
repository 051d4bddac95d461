"""Memory of another process: process_vm_readv(2) and process_vm_writev(2), with /proc/PID/mem for what those refuse.

Ranges are half-open. A page that is not mapped, or not accessible, raises RemoteFault; a process that is gone, TraceeGone.
"""

import ctypes
import errno
import os
from array import array
from collections.abc import Sequence

from radium.errors import RemoteFault, TraceeGone
from radium.linux.libc import _libc

# UIO_MAXIOV, <linux/uio.h>
MAX_PIECES = 1024


class IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_uint64), ("nbytes", ctypes.c_uint64)]


_ARGUMENTS = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
_readv = _libc.process_vm_readv
_writev = _libc.process_vm_writev
for _function in (_readv, _writev):
    _function.argtypes = _ARGUMENTS
    _function.restype = ctypes.c_ssize_t

Run = tuple[int, int]


def _check(done: int, wanted: int, pid: int, address: int) -> None:
    if done == wanted:
        return
    number = ctypes.get_errno() if done < 0 else errno.EFAULT
    if number == errno.ESRCH:
        raise TraceeGone("process has ended", where=f"pid {pid}")
    raise RemoteFault(f"memory is not accessible ({os.strerror(number)})", where=f"pid {pid}, {address:#x}")


_local_one, _remote_one = IoVec(), IoVec()
_local_one_at, _remote_one_at = ctypes.addressof(_local_one), ctypes.addressof(_remote_one)
_scratch = ctypes.create_string_buffer(MAX_PIECES)
_scratch_at = ctypes.addressof(_scratch)


def read(pid: int, address: int, nbytes: int) -> bytes:
    buffer = ctypes.create_string_buffer(nbytes)
    read_into(pid, address, ctypes.addressof(buffer), nbytes)
    return buffer.raw


def read_into(pid: int, address: int, local: int, nbytes: int) -> None:
    """local: address of our own buffer."""
    _local_one.base, _local_one.nbytes = local, nbytes
    _remote_one.base, _remote_one.nbytes = address, nbytes
    _check(_readv(pid, _local_one_at, 1, _remote_one_at, 1, 0), nbytes, pid, address)


def read_runs(pid: int, runs: Sequence[Run], local: int) -> int:
    """Reads the runs one behind the other to our address `local`. Returns the bytes read."""
    return _move_runs(_readv, pid, runs, local)


def write_runs(pid: int, runs: Sequence[Run], local: int) -> int:
    """Writes consecutive bytes from our address `local` to the runs. Returns the bytes written."""
    return _move_runs(_writev, pid, runs, local)


def readable(pid: int, runs: Sequence[Run], page_size: int) -> list[Run]:
    """The pieces of the runs of pages that can be read; each of their pages is there then."""
    out: list[Run] = []
    for start, end in runs:
        while start < end:
            count = min((end - start) // page_size, MAX_PIECES)
            done = _touch(pid, start, count, page_size)
            if done:
                out.append((start, start + done * page_size))
            # The page that could not be read is passed over.
            start += (done if done == count else done + 1) * page_size
    return out


def _touch(pid: int, start: int, count: int, page_size: int) -> int:
    """Reads a byte of each page, up to the first that cannot be read. How many could."""
    pieces = array("Q", [1]) * (2 * count)
    pieces[0::2] = array("Q", range(start, start + count * page_size, page_size))
    _local_one.base, _local_one.nbytes = _scratch_at, count
    done = int(_readv(pid, _local_one_at, 1, pieces.buffer_info()[0], count, 0))
    if done < 0 and ctypes.get_errno() == errno.ESRCH:
        raise TraceeGone("process has ended", where=f"pid {pid}")
    return max(done, 0)


def _move_runs(function: "ctypes._NamedFuncPointer", pid: int, runs: Sequence[Run], local: int) -> int:
    done = 0
    for first in range(0, len(runs), MAX_PIECES):
        piece = runs[first : first + MAX_PIECES]
        pieces = (IoVec * len(piece))(*[IoVec(start, end - start) for start, end in piece])
        total = sum(end - start for start, end in piece)
        _local_one.base, _local_one.nbytes = local + done, total
        _check(function(pid, _local_one_at, 1, ctypes.addressof(pieces), len(piece), 0), total, pid, piece[0][0])
        done += total
    return done


def write(pid: int, address: int, data: bytes) -> None:
    buffer = ctypes.create_string_buffer(data, len(data))
    _local_one.base, _local_one.nbytes = ctypes.addressof(buffer), len(data)
    _remote_one.base, _remote_one.nbytes = address, len(data)
    _check(_writev(pid, _local_one_at, 1, _remote_one_at, 1, 0), len(data), pid, address)


class ForcedMemory:
    """/proc/PID/mem: also writes where the process itself may only read or execute (FOLL_FORCE, proc(5))."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)

    def read(self, address: int, nbytes: int) -> bytes:
        try:
            data = os.pread(self.fd, nbytes, address)
        except OSError as error:
            raise RemoteFault(f"cannot read memory ({error.strerror})", where=f"pid {self.pid}, {address:#x}") from None
        if len(data) != nbytes:
            raise RemoteFault("memory ends early", where=f"pid {self.pid}, {address:#x}")
        return data

    def write(self, address: int, data: bytes | memoryview) -> None:
        try:
            done = os.pwrite(self.fd, data, address)
        except OSError as error:
            raise RemoteFault(f"cannot write memory ({error.strerror})", where=f"pid {self.pid}, {address:#x}") from None
        if done != len(data):
            raise RemoteFault("memory ends early", where=f"pid {self.pid}, {address:#x}")

    def close(self) -> None:
        os.close(self.fd)
