"""What a mirror may reach: nothing of the acceptor's (invariant 7).

The wall is the system call filter; namespaces, limits and the loss of all capabilities stand behind it. A mirror runs
code that the initiator sent, so every system call instruction in it counts as hostile, the vessel's own included: from
there too only calls on the mirror's own memory are allowed.
"""

import os
import resource
import signal
import struct
from contextlib import suppress
from dataclasses import dataclass

from radium.core import syscalls, wire
from radium.core.mapping import MAP_ANONYMOUS
from radium.linux import namespaces, seccomp
from radium.linux.libc import NUMBERS

# Of a thread of the mirror's (clone(2)): CLONE_VM, _FS, _FILES, _SIGHAND, _THREAD, _SYSVSEM.
THREAD_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
# struct __user_cap_header_struct (version 3, self) and an empty set, capset(2).
NO_CAPABILITIES = struct.pack("<II", 0x20080522, 0), bytes(24)


@dataclass(frozen=True)
class Limits:
    """max_memory_nbytes: writable private memory of one mirror (RLIMIT_DATA), None for no limit of ours."""

    max_memory_nbytes: int | None = None


def enter(limits: Limits, clocks: wire.Clocks) -> None:
    """In the child, before the vessel is executed. clocks: what home's are ahead of ours."""
    namespaces.die_with_parent(signal.SIGKILL)
    # Out of the reach of the signals that a terminal sends to our group, and without a descriptor of ours.
    os.setsid()
    namespaces.close_descriptors_at_exec()
    _unshare_all()
    if clocks != wire.SAME_CLOCKS:
        # Without privilege (CAP_SYS_TIME) the mirror sees ours.
        with suppress(OSError):
            namespaces.unshare_clocks(clocks.monotonic, clocks.boottime)
    namespaces.set_oom_score(1000)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.max_memory_nbytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limits.max_memory_nbytes, limits.max_memory_nbytes))


def _unshare_all() -> None:
    """As far as we may: `radium doctor` says which namespaces an unprivileged acceptor lacks."""
    for flag in (namespaces.NEWNET, namespaces.NEWNS, namespaces.NEWIPC, namespaces.NEWUTS):
        with suppress(OSError):
            namespaces.unshare(flag)


def filter_for(own_addresses: tuple[int, ...], serves_kernel: bool) -> bytes:
    """The mirror's filter. What is not harmless stops the mirror thread, and the runner decides.

    serves_kernel: whether pages that a system call misses are brought too; where they are not (no CAP_SYS_PTRACE, and
    vm.unprivileged_userfaultfd=0) harmless calls would fail there with EFAULT, and so none of them runs there.
    """
    memory = [seccomp.Rule(NUMBERS[name]) for name in ("munmap", "mprotect", "mremap", "madvise", "brk")]
    return seccomp.build(
        harmless=_harmless() if serves_kernel else [],
        own_addresses=own_addresses,
        own=[
            *memory,
            seccomp.Rule(NUMBERS["mmap"], argument=3, value=MAP_ANONYMOUS, bits=True),
            seccomp.Rule(NUMBERS["prctl"], argument=0, value=namespaces.PR_SET_MM),
            seccomp.Rule(NUMBERS["clone"], argument=0, value=THREAD_FLAGS),
        ],
        otherwise=seccomp.TRACE,
    )


def _harmless() -> list[seccomp.Rule]:
    clocks = [seccomp.Rule(NUMBERS["clock_gettime"], argument=0, value=clock) for clock in syscalls.CLOCKS]
    return [*clocks, *(seccomp.Rule(NUMBERS[name]) for name in syscalls.HARMLESS if name != "clock_gettime")]
