"""What BPF programs cost: bpf(2), BPF_ENABLE_STATS and BPF_OBJ_GET_INFO_BY_FD; uapi/linux/bpf.h, struct bpf_prog_info."""

import ctypes
import os
import struct
from typing import NamedTuple

from radium.errors import NotPossible
from radium.linux.libc import syscall

_OBJ_GET_INFO_BY_FD, _ENABLE_STATS = 15, 32
_STATS_RUN_TIME = 0
# offsetof(struct bpf_prog_info, run_time_ns); run_cnt follows.
_RUN_TIME_AT, _INFO_NBYTES = 192, 232


class Cost(NamedTuple):
    """Of all calls of a program while Stats were open."""

    seconds: float
    calls: int


class Stats:
    """While it is open the kernel measures the programs; that ends with us."""

    def __init__(self) -> None:
        """Raises NotPossible (needs CAP_SYS_ADMIN)."""
        attr = ctypes.create_string_buffer(struct.pack("<I", _STATS_RUN_TIME), 16)
        try:
            self._fd = syscall("bpf", _ENABLE_STATS, ctypes.addressof(attr), ctypes.sizeof(attr))
        except OSError as error:
            raise NotPossible(f"the time in BPF programs cannot be measured: {error.strerror}") from None

    def close(self) -> None:
        os.close(self._fd)


def cost(program: int) -> Cost:
    """What this program has taken until now."""
    info = ctypes.create_string_buffer(_INFO_NBYTES)
    attr = ctypes.create_string_buffer(struct.pack("<IIQ", program, _INFO_NBYTES, ctypes.addressof(info)), 16)
    syscall("bpf", _OBJ_GET_INFO_BY_FD, ctypes.addressof(attr), ctypes.sizeof(attr))
    nanoseconds, calls = struct.unpack_from("<QQ", info, _RUN_TIME_AT)
    return Cost(nanoseconds / 1e9, calls)
