"""The tables of system calls that run in a mirror."""

import pytest

from radium.core import syscalls
from radium.core.mapping import JOURNALLED
from radium.linux.libc import NAMES, NUMBERS, syscall_name

TABLES = {name: getattr(syscalls, name) for name in ("HARMLESS", "ANSWERED", "PLACEMENT", "EMULATED")}


@pytest.mark.parametrize("table", [*TABLES, "AT_HOME"])
def test_names_exist_and_have_reasons(table):
    """Every call of a table is one of this architecture, and says why it is there."""
    for name, reason in getattr(syscalls, table).items():
        assert name in NUMBERS and len(reason.split()) >= 2, name


def test_no_name_is_in_two_tables():
    """What happens to a call is said in one place."""
    names = [name for table in (*TABLES.values(), syscalls.AT_HOME, JOURNALLED) for name in table]
    # Some of its clocks are everybody's, and the filter lets these through.
    names.remove("clock_gettime")
    assert sorted(names) == sorted(set(names))


def test_what_a_group_of_threads_needs_is_said():
    """Waiting, yielding, blocking signals and other clocks are done in the mirror, and their table says so."""
    assert set(syscalls.EMULATED) == {"futex", "sched_yield", "rt_sigprocmask", "clock_gettime"}


def test_memory_calls_exist():
    """Every journalled call is one of this architecture."""
    assert set(NUMBERS) >= JOURNALLED


@pytest.mark.parametrize(
    "name", ["open", "openat", "read", "write", "socket", "connect", "clone", "clone3", "fork", "vfork", "execve", "kill",
             "tgkill", "ptrace", "process_vm_writev", "ioctl", "mount", "bpf", "io_uring_setup", "userfaultfd", "prctl",
             "seccomp", "unshare", "setns", "memfd_create", "shmget", "exit", "exit_group", "rt_sigaction"],
)  # fmt: skip
def test_reaching_outside_is_in_no_table(name):
    """Files, network, processes, signals and the kernel's own doors are open to no mirror."""
    assert name in NUMBERS
    assert all(name not in table for table in (*TABLES.values(), JOURNALLED))


def test_names_and_numbers_agree():
    """The table is one to one, has the numbers of <asm/unistd_64.h>, and answers for numbers that it does not know."""
    assert {name: number for number, name in NAMES.items()} == NUMBERS and len(NAMES) == len(NUMBERS)
    known = {"read": 0, "mmap": 9, "getpid": 39, "futex": 202, "userfaultfd": 323, "pidfd_getfd": 438, "mseal": 462}
    assert {name: NUMBERS[name] for name in known} == known
    assert syscall_name(202) == "futex" and syscall_name(100000) == "100000"
