"""What a mirror may reach: nothing of the acceptor's (invariant 7).

The wall is the system call filter; namespaces, limits and the loss of all capabilities stand behind it. A mirror runs
code that the initiator sent, so every system call instruction in it counts as hostile, the vessel's own included: from
there too only calls on the mirror's own memory are allowed.
"""

import os
import resource
import signal
import struct
from dataclasses import dataclass

from radium.core.mapping import MAP_ANONYMOUS
from radium.linux import namespaces, seccomp
from radium.linux.libc import NUMBERS
from radium.replay import syscalls

# struct __user_cap_header_struct (version 3, self) and an empty set, capset(2).
NO_CAPABILITIES = struct.pack("<II", 0x20080522, 0), bytes(24)


@dataclass(frozen=True)
class Limits:
    """max_memory_nbytes: writable private memory of one mirror (RLIMIT_DATA), None for no limit of ours."""

    max_memory_nbytes: int | None = None


def enter(limits: Limits) -> list[str]:
    """In the child, before the vessel is executed. Returns what could not be done (an unprivileged acceptor)."""
    namespaces.die_with_parent(signal.SIGKILL)
    # Out of the reach of the signals that a terminal sends to our group, and without a descriptor of ours.
    os.setsid()
    namespaces.close_descriptors_at_exec()
    missing = _unshare_all()
    namespaces.set_oom_score(1000)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limits.max_memory_nbytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limits.max_memory_nbytes, limits.max_memory_nbytes))
    return missing


def _unshare_all() -> list[str]:
    missing = []
    for name, flag in (
        ("network", namespaces.NEWNET),
        ("mount", namespaces.NEWNS),
        ("ipc", namespaces.NEWIPC),
        ("uts", namespaces.NEWUTS),
    ):
        try:
            namespaces.unshare(flag)
        except OSError:
            missing.append(name)
    return missing


def filter_for(own_addresses: tuple[int, ...]) -> bytes:
    """The mirror's filter. What is not harmless stops the mirror thread, and the runner decides."""
    memory = [seccomp.Rule(NUMBERS[name]) for name in ("munmap", "mprotect", "mremap", "madvise", "brk")]
    return seccomp.build(
        harmless=[NUMBERS[name] for name in syscalls.HARMLESS],
        own_addresses=own_addresses,
        own=[
            *memory,
            seccomp.Rule(NUMBERS["mmap"], argument=3, value=MAP_ANONYMOUS, bits=True),
            seccomp.Rule(NUMBERS["prctl"], argument=0, value=namespaces.PR_SET_MM),
        ],
        otherwise=seccomp.TRACE,
    )
