"""The bare process that a mirror starts as: what it has, what it can be made to do, and what it cannot do once it is sealed."""

import os
import resource
import select
import signal
import socket
from pathlib import Path

import pytest
from harness import DEADLINE_S, poll_until, status

from radium.core.syscalls import HARMLESS
from radium.errors import RadiumError
from radium.linux import ptrace
from radium.linux.libc import NUMBERS
from radium.replay import vessel
from radium.replay.sandbox import THREAD_FLAGS, Limits

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


# Threads that run what the tracee's threads would


LOOP_ADDING = "f0480137ebfa"  # lock add [rdi], rsi; jmp
COUNTERS = 0x20000000


def tasks(pid: int) -> set[int]:
    return {int(name) for name in os.listdir(f"/proc/{pid}/task")}


def set_going(bare, tid: int, code: str, **values: int) -> None:
    """The stopped thread runs the code, from a place of its own, with these registers."""
    at = 0x10000000 + 64 * sorted(tasks(bare.pid)).index(tid)
    bare.vessel.memory.write(at, bytes.fromhex(code) + b"\xcc")
    regs = ptrace.registers(tid)
    regs.rip, regs.orig_rax = at, NO_FD
    for name, value in values.items():
        setattr(regs, name, value)
    ptrace.set_registers(tid, regs)
    ptrace.resume(tid)


def word(bare, address: int) -> int:
    return int.from_bytes(bare.vessel.memory.read(address, 8), "little")


def test_a_thread(bare):
    """A thread that was started is one of the vessel's, stopped, ours, and in no call; the vessel itself is as before."""
    tid = bare.vessel.start_thread()[0]
    assert tasks(bare.pid) == {bare.pid, tid}
    now = status(tid)
    assert (now["State"][0], now["TracerPid"], now["Tgid"]) == ("t", str(os.getpid()), str(bare.pid))
    assert vessel.wait(tid, block=False) == 0
    assert bare.vessel.call("getpid") == bare.pid and bare.vessel.batch([("gettid", ())]) == [bare.pid]


def test_a_thread_runs_code(bare):
    """It runs from the registers that it is given, in the vessel's memory, and its stops are told by its own id."""
    tid = bare.vessel.start_thread()[0]
    set_going(bare, tid, "488937", rdi=COUNTERS, rsi=7)  # mov [rdi], rsi
    assert vessel.wait(tid) == TRAPPED and word(bare, COUNTERS) == 7
    # mov eax, gettid; syscall
    set_going(bare, tid, "b8ba0000000f05")
    assert vessel.wait(tid) == TRAPPED and ptrace.registers(tid).rax == tid
    assert vessel.wait(bare.pid, block=False) == 0


def test_threads_run_side_by_side(bare):
    """Threads run at the same time as others and as calls of the vessel's, each until it is stopped itself."""
    tids = [bare.vessel.start_thread()[0] for _ in range(8)]
    for number, tid in enumerate(tids):
        set_going(bare, tid, LOOP_ADDING, rdi=COUNTERS + 8 * number, rsi=1)
    poll_until(lambda: all(word(bare, COUNTERS + 8 * n) for n in range(8)), "all threads have run")
    assert bare.vessel.call("getpid") == bare.pid
    ptrace.interrupt(tids[3])
    assert vessel.wait(tids[3]) >> 16 == ptrace.EVENT_STOP
    before = [word(bare, COUNTERS + 8 * n) for n in range(8)]
    poll_until(lambda: all(word(bare, COUNTERS + 8 * n) > before[n] for n in range(8) if n != 3), "the others run on")
    assert word(bare, COUNTERS + 8 * 3) == before[3]


def test_their_registers_are_their_own(bare):
    """General registers, extended state, breakpoints and signal masks are each thread's."""
    first, second = bare.vessel.start_thread()[0], bare.vessel.start_thread()[0]
    state = ptrace.xstate(second)
    # pcmpeqd xmm1, xmm1: all ones
    set_going(bare, first, "660f76c9", rbx=5, rdi=COUNTERS)
    assert vessel.wait(first) == TRAPPED
    ptrace.set_signal_mask(first, 0x200)
    ptrace.set_debug_register(first, 0, COUNTERS)
    assert ptrace.registers(first).rbx == 5 != ptrace.registers(second).rbx
    assert ptrace.xstate(second) == state != ptrace.xstate(first)
    assert (ptrace.signal_mask(first), ptrace.signal_mask(second), ptrace.signal_mask(bare.pid)) == (0x200, 0, 0)
    assert (ptrace.debug_register(first, 0), ptrace.debug_register(second, 0)) == (COUNTERS, 0)


@pytest.mark.root
def test_no_more_threads(bare):
    """Where the acceptor allows no more threads that is an OSError, and the vessel goes on."""
    call = bare.vessel.call
    resource.prlimit(bare.pid, resource.RLIMIT_NPROC, (3, 3))
    # A user that has nothing else running: root may have as many as it likes.
    call("setresuid", 65432, 65432, 65432)
    tids = [bare.vessel.start_thread()[0], bare.vessel.start_thread()[0]]
    with pytest.raises(OSError, match="clone") as caught:
        bare.vessel.start_thread()
    assert caught.value.errno == 11
    assert tasks(bare.pid) == {bare.pid, *tids} and call("getpid") == bare.pid


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


def test_kill_with_threads(bare):
    """All threads end with it, stopped or running, and nothing is left to be waited for."""
    tids = [bare.vessel.start_thread()[0] for _ in range(6)]
    for number, tid in enumerate(tids[::2]):
        set_going(bare, tid, LOOP_ADDING, rdi=COUNTERS + 8 * number, rsi=1)
    bare.vessel.kill()
    assert not exists(bare.pid) and not any(exists(tid) for tid in tids)
    for tid in (bare.pid, *tids):
        with pytest.raises(ChildProcessError):
            os.waitpid(tid, os.WNOHANG | vessel.WALL)


@pytest.mark.parametrize("is_known", [True, False], ids=["thread", "vessel"])
def test_kill_with_threads_that_it_made_itself(bare, is_known):
    """What runs in a mirror may go to the vessel's own instructions and make a thread: that one ends, too."""
    tid = bare.vessel.start_thread()[0] if is_known else bare.pid
    bare.vessel.seal(serves_kernel=True)
    regs = ptrace.registers(tid)
    regs.rip, regs.rax, regs.orig_rax = 0x20000 + vessel.GADGET, NUMBERS["clone"], NO_FD
    regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8 = THREAD_FLAGS, 0, 0, 0, 0
    ptrace.set_registers(tid, regs)
    ptrace.resume(tid)
    assert vessel.wait(tid) >> 16 == ptrace.EVENT_CLONE
    unknown = ptrace.event_message(tid)
    bare.vessel.kill()
    assert not exists(bare.pid) and not exists(unknown)


def test_death_of_its_threads_is_told(bare):
    """A vessel that was killed by somebody else is MirrorDied to whoever waits for one of its threads, too."""
    tid = bare.vessel.start_thread()[0]
    set_going(bare, tid, "ebfe")
    os.kill(bare.pid, signal.SIGKILL)
    with pytest.raises(RadiumError, match="ended"):
        vessel.wait(tid)


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


def test_one_that_has_not_begun_dies_with_us(monkeypatch):
    """When the session is killed before it has told its vessel to begin, that ends too."""
    reading, writing = os.pipe()
    session = os.fork()
    if session == 0:
        monkeypatch.setattr(ptrace, "seize", lambda pid, _: os.kill(os.getpid(), signal.SIGKILL))
        vessel.Vessel(0x20000, Limits())
    os.close(writing)
    os.waitpid(session, 0)
    # The vessel's process has the other end too.
    is_closed, _, _ = select.select([reading], [], [], DEADLINE_S)
    assert is_closed and os.read(reading, 1) == b""
    os.close(reading)


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


def test_threads_of_a_sealed_vessel(sealed):
    """A sealed vessel makes threads for us, each behind the same filter, without capabilities."""
    tid = sealed.vessel.start_thread()[0]
    now = status(tid)
    assert (now["Seccomp"], now["NoNewPrivs"], now["CapEff"], now["CapPrm"]) == ("2", "1", "0" * 16, "0" * 16)
    for name in ("socket", "openat", "clone", "exit_group"):
        set_going(sealed, tid, SYSCALL, rax=NUMBERS[name], rdi=0)
        assert vessel.wait(tid) >> 16 == STOPPED_BY_FILTER, name
        regs = ptrace.registers(tid)
        assert regs.orig_rax == NUMBERS[name]


def test_only_threads(sealed):
    """From the gadget too no process is made, nothing with namespaces, or tracing, of its own, and from elsewhere not even a thread."""
    gadget = 0x20000 + vessel.GADGET
    # SIGCHLD; VFORK; without CLONE_THREAD; with CLONE_UNTRACED, NEWUSER, SETTLS, PARENT_SETTID, CHILD_CLEARTID
    others = [17, 0x4111, THREAD_FLAGS & ~0x10000, *(THREAD_FLAGS | bit for bit in (0x800000, 0x10000000, 0x80000, 0x100000, 0x200000))]
    for flags in others:
        sealed.start_at(gadget, rax=NUMBERS["clone"], rdi=flags, rsi=0)
        assert is_filtered(sealed, vessel.wait(sealed.pid), NUMBERS["clone"]), f"{flags:#x}"
    sealed.start(SYSCALL, rax=NUMBERS["clone"], rdi=THREAD_FLAGS, rsi=0)
    assert is_filtered(sealed, vessel.wait(sealed.pid), NUMBERS["clone"])
    assert tasks(sealed.pid) == {sealed.pid}


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
