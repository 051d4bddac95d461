"""The bare process that a mirror starts as: what it has, what it can be made to do, and what it cannot do once it is sealed."""

import os
import signal
import socket
from pathlib import Path

import pytest
from harness import poll_until, status

from radium.errors import RadiumError
from radium.linux import ptrace
from radium.linux.libc import NUMBERS
from radium.replay import vessel
from radium.replay.sandbox import Limits
from radium.replay.syscalls import HARMLESS

PAGE = 4096
ANONYMOUS = 0x22
NO_FD = (1 << 64) - 1
X32 = 0x40000000
TRAPPED = 0x57F
STOPPED_BY_FILTER = ptrace.EVENT_SECCOMP
SYSCALL, INT_0X80 = "0f05", "cd80"


def exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


# Starting and calling


def test_start(bare):
    """A vessel is stopped, ours, with one thread, and has nothing but its own segment and what exec gives."""
    now = status(bare.pid)
    assert (now["State"][0], now["TracerPid"], now["Threads"]) == ("t", str(os.getpid()), "1")
    paths = {m.path for m in bare.vessel.mappings()}
    assert paths <= {"", "[stack]", "[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[heap]", "/memfd:vessel (deleted)"}


def test_results(bare):
    """A call gives the kernel's result, with all six arguments passed."""
    assert bare.vessel.call("getpid") == bare.pid
    start = bare.vessel.call("mmap", 0x30000000, 3 * PAGE, 3, ANONYMOUS | 0x10, NO_FD, 0)
    assert start == 0x30000000
    bare.vessel.memory.write(start, b"x" * 3 * PAGE)


def test_errors(bare):
    """A failed call raises its errno."""
    with pytest.raises(OSError, match="close") as caught:
        bare.vessel.call("close", 999)
    assert caught.value.errno == 9


def test_batch(bare):
    """A batch gives all results in order, however long it is."""
    calls = [("getpid", ()), ("getppid", ())] * vessel.MAX_BATCH
    assert bare.vessel.batch(calls) == [bare.pid, os.getpid()] * vessel.MAX_BATCH
    assert bare.vessel.batch([]) == []


def test_error_in_a_batch(bare):
    """A batch ends at the first error: what was before it was done, what is behind it was not."""
    first, last = 0x30000000, 0x40000000
    mmap = (PAGE, 3, ANONYMOUS | 0x10, NO_FD, 0)
    with pytest.raises(OSError, match="munmap") as caught:
        bare.vessel.batch([("mmap", (first, *mmap)), ("munmap", (1, PAGE)), ("mmap", (last, *mmap))])
    assert caught.value.errno == 22
    starts = {m.start for m in bare.vessel.mappings()}
    assert first in starts and last not in starts
    assert bare.vessel.call("getpid") == bare.pid


def test_place_avoids_the_tracee():
    """A vessel lies where the tracee has nothing."""
    assert vessel.place([]) == 0x20000
    assert vessel.place([(0x400000, 0x500000)]) == 0x20000
    taken = [(0x10000, 0x10000000)]
    base = vessel.place(taken)
    assert base >= 0x10000000 and base + vessel.ROOM <= vessel.HIGHEST + vessel.ROOM
    with pytest.raises(vessel.JobFailed, match="low addresses"):
        vessel.place([(0x10000, 0x50000000)])


@pytest.mark.parametrize("base", [0x20000, 0x120000, 0x3FF20000])
def test_any_place(base):
    """A vessel works wherever it is placed."""
    placed = vessel.Vessel(base, Limits())
    try:
        assert placed.call("getpid") == placed.pid and placed.batch([("getpid", ())] * 3) == [placed.pid] * 3
    finally:
        placed.kill()


# What it has of the acceptor's


def test_no_descriptors():
    """A vessel has none of the acceptor's files and sockets, not even those that are inheritable, and no terminal."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.set_inheritable(ours.fileno(), True)
        bare = vessel.Vessel(0x20000, Limits())
        try:
            assert os.listdir(f"/proc/{bare.pid}/fd") == []
        finally:
            bare.kill()


def test_descriptor_is_moved(bare):
    """A descriptor that is taken is ours afterwards, and not the vessel's."""
    fd = bare.vessel.take_descriptor(bare.vessel.call("userfaultfd", os.O_CLOEXEC | os.O_NONBLOCK))
    assert os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[userfaultfd]"
    assert os.listdir(f"/proc/{bare.pid}/fd") == []
    os.close(fd)


@pytest.mark.root
def test_namespaces_and_group(bare):
    """It shares no network, mounts, IPC or host name with us, no environment, and gets none of our terminal's signals."""
    for name in ("net", "mnt", "ipc", "uts"):
        assert os.readlink(f"/proc/{bare.pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), name
    assert Path(f"/proc/{bare.pid}/environ").read_bytes() == b""
    assert os.getsid(bare.pid) == os.getpgid(bare.pid) == bare.pid


def test_signals_start_clean(bare):
    """Nothing is blocked in a vessel, whatever we block."""
    assert int(status(bare.pid)["SigBlk"], 16) == 0


def test_memory_limit():
    """Beyond its limit a mirror gets no memory."""
    bare = vessel.Vessel(0x20000, Limits(max_memory_nbytes=64 << 20))
    try:
        bare.call("mmap", 0, 32 << 20, 3, ANONYMOUS, NO_FD, 0)
        with pytest.raises(OSError, match="mmap") as caught:
            bare.call("mmap", 0, 64 << 20, 3, ANONYMOUS, NO_FD, 0)
        assert caught.value.errno == 12
    finally:
        bare.kill()


# The end


def test_kill_leaves_nothing(bare):
    """A killed vessel is gone and reaped; killing it again does nothing."""
    bare.vessel.kill()
    assert not exists(bare.pid)


def test_kill_while_running(bare):
    """A vessel that runs is killed as well."""
    bare.start("ebfe")
    bare.vessel.kill()
    assert not exists(bare.pid)


def test_death_is_told(bare):
    """A vessel that was killed by somebody else is MirrorDied to whoever uses it."""
    os.kill(bare.pid, signal.SIGKILL)
    with pytest.raises(RadiumError, match="ended"):
        bare.vessel.call("getpid")


def test_it_dies_with_us():
    """When the acceptor's session is killed, so is its vessel, stopped or running."""
    reading, writing = os.pipe()
    session = os.fork()
    if session == 0:
        os.write(writing, b"%d" % vessel.Vessel(0x20000, Limits()).pid)
        signal.pause()
    os.close(writing)
    pid = int(os.read(reading, 20))
    os.close(reading)
    assert exists(pid)
    os.kill(session, signal.SIGKILL)
    os.waitpid(session, 0)
    poll_until(lambda: not exists(pid) or status(pid)["State"][0] in "ZX", "the vessel ends")


# Sealed


@pytest.fixture
def sealed(bare):
    bare.vessel.seal(serves_kernel=True)
    return bare


def test_seal(sealed):
    """A sealed vessel has a filter, no capabilities, and can gain none."""
    now = status(sealed.pid)
    assert (now["Seccomp"], now["NoNewPrivs"]) == ("2", "1")
    assert {now[key] for key in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}


def test_memory_calls_still_pass(sealed):
    """What the acceptor does to a mirror's memory goes on working."""
    call = sealed.vessel.call
    start = call("mmap", 0, 4 * PAGE, 3, ANONYMOUS, NO_FD, 0)
    assert call("mprotect", start, PAGE, 1) == 0
    assert call("madvise", start, PAGE, 4) == 0
    moved = call("mremap", start, PAGE, 2 * PAGE, 1)
    assert call("munmap", moved, 2 * PAGE) == 0
    assert call("brk", 0) > 0
    assert sealed.vessel.batch([("mmap", (0, PAGE, 3, ANONYMOUS, NO_FD, 0)), ("munmap", (start, PAGE))])[1] == 0


REACHING_OUT = ["getppid", "getpid", "open", "openat", "socket", "read", "write", "close", "dup", "clone", "clone3", "fork",
                "vfork", "execve", "execveat", "kill", "tgkill", "ptrace", "process_vm_readv", "process_vm_writev", "ioctl",
                "userfaultfd", "memfd_create", "seccomp", "capset", "unshare", "setns", "bpf", "io_uring_setup", "io_uring_enter",
                "pidfd_open", "pidfd_getfd", "perf_event_open", "mount", "shmget", "shmat", "personality", "arch_prctl",
                "rt_sigaction", "rt_sigreturn", "exit", "exit_group", "modify_ldt", "keyctl", "add_key", "uname"]  # fmt: skip


def is_filtered(bare, wait_status: int, number: int) -> bool:
    """Stopped by the filter before the call was made; the call is then skipped."""
    regs = ptrace.registers(bare.pid)
    return wait_status >> 16 == STOPPED_BY_FILTER and regs.orig_rax & 0xFFFFFFFF == number & 0xFFFFFFFF


def test_own_code_cannot_reach_out(sealed):
    """Every call to the outside stops the mirror before it is made, from wherever it comes: its own code, the gadget, the batch loop."""
    places = {"own code": None, "gadget": 0x20000 + vessel.GADGET, "batch": 0x20000 + vessel.BATCH}
    for name in REACHING_OUT:
        for place, address in places.items():
            values = {"rax": NUMBERS[name], "rdi": 0x20000, "rsi": 0, "rdx": 0}
            if address is None:
                sealed.start(SYSCALL, **values)
            else:
                sealed.vessel.memory.write(sealed.vessel.scratch, vessel.ENTRY.pack(NUMBERS[name], *[0] * 7))
                sealed.start_at(address, rbx=sealed.vessel.scratch, rbp=1, **values)
            assert is_filtered(sealed, vessel.wait(sealed.pid), NUMBERS[name]), f"{name} from {place}"


def test_other_numberings_of_system_calls(sealed):
    """The x32 and the 32-bit system calls are no way around the filter, not even for harmless ones."""
    for number in (NUMBERS["futex"], NUMBERS["getpid"], NUMBERS["mmap"]):
        assert is_filtered(sealed, sealed.run(SYSCALL, rax=number | X32), number | X32)
    for number in (1, 20, 192, 240):
        assert sealed.run(INT_0X80, rax=number) >> 16 == STOPPED_BY_FILTER


def test_the_call_is_not_made(sealed):
    """A call that the filter stopped and the runner did not allow has no effect, when the thread goes on too."""
    status_ = sealed.run(SYSCALL, rax=NUMBERS["exit_group"], rdi=3)
    assert is_filtered(sealed, status_, NUMBERS["exit_group"])
    regs = ptrace.registers(sealed.pid)
    regs.orig_rax = NO_FD
    ptrace.set_registers(sealed.pid, regs)
    ptrace.resume(sealed.pid)
    assert vessel.wait(sealed.pid) == TRAPPED


def test_only_memory_of_its_own(sealed):
    """From the gadget too: no mappings of files, and of prctl nothing but the program's layout."""
    gadget = 0x20000 + vessel.GADGET
    for name, values in (
        ("mmap", {"rsi": PAGE, "rdx": 1, "r10": 2, "r8": 0}),
        ("mmap", {"rsi": PAGE, "rdx": 1, "r10": 1, "r8": 3}),
        ("prctl", {"rdi": 22}),
        ("prctl", {"rdi": 1}),
    ):
        sealed.start_at(gadget, rax=NUMBERS[name], **values)
        assert is_filtered(sealed, vessel.wait(sealed.pid), NUMBERS[name]), (name, values)


def test_memory_calls_of_its_own_code_are_seen(sealed):
    """The mirror's own memory calls stop, so that they can be journalled."""
    for name in ("mmap", "munmap", "mprotect", "mremap", "madvise", "brk"):
        assert is_filtered(sealed, sealed.run(SYSCALL, rax=NUMBERS[name], r10=ANONYMOUS), NUMBERS[name]), name


@pytest.mark.parametrize("name", ["clock_gettime", "clock_getres", "gettimeofday", "time", "getrandom", "getcpu"])
def test_harmless_calls_pass(sealed, name):
    """Harmless calls are made without a stop."""
    assert name in HARMLESS
    first = 1 if name in ("clock_gettime", "clock_getres") else 0x20000000
    arguments = {"rdi": first, "rsi": 0x20000100, "rdx": 0}
    assert sealed.run(SYSCALL, rax=NUMBERS[name], **arguments) == TRAPPED
    assert ptrace.registers(sealed.pid).rax < 1 << 63


def test_no_harmless_calls_where_misses_of_the_kernel_are_not_served(bare):
    """Where a system call that misses a page would fail, none is made in the mirror."""
    bare.vessel.seal(serves_kernel=False)
    assert is_filtered(bare, bare.run(SYSCALL, rax=NUMBERS["clock_gettime"], rdi=1, rsi=0x20000000), NUMBERS["clock_gettime"])


def test_more_threads(sealed):
    """A sealed vessel can be given threads, which run its code beside each other, and end with it."""
    # lock inc qword ptr [rdi]; int3
    sealed.vessel.memory.write(0x10000000, bytes.fromhex("f048ff07") + b"\xcc")
    threads = [sealed.vessel.start_thread() for _ in range(5)]
    assert len(set(threads)) == 5 and all(own > 0 for _, own in threads)
    assert status(sealed.pid)["Threads"] == "6"
    for tid, _ in threads:
        regs = sealed.vessel.registers.copy()
        regs.rip, regs.rdi, regs.orig_rax = 0x10000000, 0x20000000, NO_FD
        ptrace.set_registers(tid, regs)
        ptrace.resume(tid)
    assert [vessel.wait(tid) for tid, _ in threads] == [TRAPPED] * 5
    assert sealed.vessel.memory.read(0x20000000, 8) == (5).to_bytes(8, "little")
    sealed.vessel.kill()
    assert not any(exists(tid) for tid, _ in threads)


def test_threads_of_its_own(sealed):
    """No code of the mirror's makes a thread: only we do."""
    for name in ("clone", "clone3"):
        assert is_filtered(sealed, sealed.run(SYSCALL, rax=NUMBERS[name], rdi=0x10F00), NUMBERS[name])
