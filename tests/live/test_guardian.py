"""The guardian, when radium is killed at each step of the commit of a whole thread group: all of it is done, or nothing."""

import ctypes
import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from harness import poll_until, status, thread_states

from radium.core import futex, pages
from radium.core.addr import PAGE_SIZE
from radium.core.mapping import LayoutCall, parse_maps
from radium.core.regs import NO_SYSCALL, U64, Registers
from radium.linux import procfs, ptrace, vm
from radium.linux.libc import NUMBERS, syscall
from radium.tracer import commit, withdraw
from radium.tracer.guardian import Guardian
from radium.tracer.ledger import CommitRecord, Guarded, Ledger, Moved
from radium.tracer.stops import Threads
from radium.tracer.tracee import Tracee

PROGRAM = r"""
// Three threads that count, each in a word of the file and by its address in rdi alone, one that waits in a futex there.
// The main thread counts too, until it sees that the commit's page has been written.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long *words;
static char data[8192] __attribute__((aligned(4096)));
void split_here(void) { __asm__ volatile("nop"); }
static void count(volatile long *word) { __asm__ volatile("1: lock incq (%0)\n jmp 1b" : : "D"(word) : "memory"); }
static void *work(void *arg) { count(arg); return arg; }
static void *wait(void *arg) {
    struct timespec end = {1000, 0};
    syscall(SYS_futex, &words[30], FUTEX_WAIT, 0, arg ? &end : NULL, NULL, 0);
    words[20]++;
    for (;;) pause();
}
int main(int argc, char **argv) {
    pthread_t thread;
    words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, open(argv[1], O_RDWR), 0);
    for (int i = 0; i < 3; i++) pthread_create(&thread, NULL, work, (void *)&words[i]);
    pthread_create(&thread, NULL, wait, argc > 2 ? argv : NULL);
    printf("%lx %lx %lx\n", (long)words, (long)split_here, (long)data);
    fflush(stdout);
    for (;;) {
        split_here();
        if (!*(volatile char *)data) words[50]++;
        usleep(1);
    }
}
"""
MAPPED = 0x10000000
# Where the commit has the threads count instead, in words; the word that who has been woken counts; the futex.
FURTHER, WOKEN, FUTEX = 40, 20, 30
# The word that the main thread counts in, and where its value is kept when the commit begins.
SEEN, SEEN_AT_BEGIN = 50, 51
WALL = 0x40000000
BLOCKED = 1 << signal.SIGUSR2 - 1


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("counting")
    (folder / "counting.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-pthread", "-o", folder / "counting", folder / "counting.c"], check=True, timeout=60)
    return folder / "counting"


class Target:
    def __init__(self, program: Path, folder: Path, *extra: str) -> None:
        file = folder / "words"
        file.write_bytes(bytes(PAGE_SIZE))
        self.process = subprocess.Popen([program, file, *extra], stdout=subprocess.PIPE)
        self.pid = self.process.pid
        assert self.process.stdout is not None
        self.words_at, self.entry, self.data = (int(word, 16) for word in self.process.stdout.readline().split())
        with file.open("r+b") as opened:
            self.map = mmap.mmap(opened.fileno(), PAGE_SIZE)
        poll_until(lambda: all(self.word(n) for n in range(3)) and self.waiter() is not None, "all threads are where they stay")

    def word(self, index: int) -> int:
        return int.from_bytes(self.map[8 * index : 8 * index + 8], "little")

    def tids(self) -> list[int]:
        return procfs.threads(self.pid)

    def waiter(self) -> int | None:
        """The thread that waits in the futex (proc_pid_syscall(5)); one with an end waits by restart_syscall(2) when it was stopped."""
        wanted = f"{NUMBERS['futex']} {self.words_at + 8 * FUTEX:#x} ", f"{NUMBERS['restart_syscall']} "
        # The main thread sleeps by one of those too.
        others = [tid for tid in self.tids() if tid != self.pid]
        return next((tid for tid in others if Path(f"/proc/{self.pid}/task/{tid}/syscall").read_text().startswith(wanted)), None)

    def counts(self, index: int) -> bool:
        """Whether somebody counts there."""
        before = self.word(index)
        for _ in range(40):
            if self.word(index) != before:
                return True
            os.sched_yield()
        return False

    def wake(self) -> None:
        """From outside: the futex is in a shared file."""
        syscall("futex", ctypes.addressof(ctypes.c_char.from_buffer(self.map)) + 8 * FUTEX, futex.WAKE, 1)

    def is_left(self) -> bool:
        """The guardian has done its work: nobody traces it, and its code is its own."""
        return vm.read(self.pid, self.entry, 1) != b"\xcc" and all(status(tid)["TracerPid"] == "0" for tid in self.tids())

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(params=[(), ("timed",)], ids=["waits", "waits with an end"])
def target(request, program, tmp_path):
    made = Target(program, tmp_path, *request.param)
    yield made
    made.close()


# Radium, in a process of its own that ends by a kill


@dataclass
class Radium:
    tracee: Tracee
    record: CommitRecord
    target: Target

    @property
    def threads(self) -> list[Moved]:
        return self.record.threads

    def write_pages(self) -> None:
        commit.write_pages(self.tracee.pid, pages.unpack(self.record.dirty), self.tracee.ledger, self.tracee.memory)

    def move(self, *numbers: int) -> None:
        commit.move(msgspec.structs.replace(self.record, threads=[self.threads[n] for n in numbers], bystanders=[]))

    def apply(self, before_pages: Callable[[], None]) -> None:
        tracee = self.tracee
        commit.apply(self.record, tracee.ledger, tracee.pid, tracee.remote, tracee.memory, before_pages=before_pages)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def attach(target: Target) -> Radium:
    """All threads are stopped, a breakpoint is in, and an answer is there that moves every thread but the main one."""
    threads = Threads(target.pid)
    ledger = Ledger()
    Guardian(ledger, Guarded())
    threads.seize()
    tracee = Tracee(threads, ledger, "auto")
    assert not tracee.breakpoints.arm([target.entry], tracee.home.mappings or parse_maps(procfs.read(target.pid, "maps")))
    ledger.answer[:PAGE_SIZE] = b"\x77" * PAGE_SIZE
    journal = [LayoutCall("mmap", (0, 2 * PAGE_SIZE, 3, 0x22, U64, 0), MAPPED)]
    moved = [move_of(target, tid) for tid in target.tids() if tid != target.pid]
    counting_first = sorted(moved, key=lambda m: Registers.unpack(m.registers).orig_rax == Registers.unpack(m.registers_before).orig_rax)
    dirty = pages.pack([(target.data, target.data + PAGE_SIZE)])
    return Radium(tracee, CommitRecord(counting_first, journal, dirty, tracee.bystanders({m.tid for m in moved})), target)


def move_of(target: Target, tid: int) -> Moved:
    """A thread that counts goes on counting elsewhere; one that waits goes on as if it had been woken."""
    before = ptrace.registers(tid)
    after = before.copy()
    if target.words_at <= before.rdi < target.words_at + 24:
        after.rdi += 8 * FURTHER
    else:
        after.rax = 0
    after.orig_rax = NO_SYSCALL
    return Moved(tid, before.pack(), ptrace.signal_mask(tid), after.pack(), BLOCKED, b"")


def play(target: Target, until: Callable[[Radium], None]) -> None:
    """Radium attaches, does what it is told, and is killed."""
    child = os.fork()
    if child == 0:
        try:
            until(attach(target))
            die()
        finally:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    _, ended = os.waitpid(child, 0)
    assert os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL


def note(radium: Radium) -> None:
    radium.tracee.ledger.note_commit(radium.record)


def park(radium: Radium, *numbers: int) -> None:
    note(radium)
    parked = [radium.threads[n] for n in numbers or range(len(radium.threads))]
    radium.tracee.park(msgspec.structs.replace(radium.record, threads=parked))


def begin(radium: Radium) -> None:
    park(radium)
    radium.target.map[8 * SEEN_AT_BEGIN : 8 * SEEN_AT_BEGIN + 8] = radium.target.map[8 * SEEN : 8 * SEEN + 8]
    radium.tracee.ledger.note_begun()


def written(radium: Radium) -> None:
    begin(radium)
    radium.apply(lambda: None)


def step(radium: Radium) -> None:
    """One thread steps out of somewhere, and nobody has waited for the stop yet: its SIGTRAP is delivered to it."""
    tracee, tid = radium.tracee, radium.threads[-1].tid

    def wait_and_die(tid: int) -> int:
        os.waitid(os.P_PID, tid, os.WSTOPPED | os.WNOWAIT | WALL)
        die()
        return 0

    tracee.threads.wait_syscall = wait_and_die  # type: ignore[method-assign]
    withdraw._note_stepping(tid, tracee.breakpoints.plan())
    withdraw._step_while(tracee.threads, tid, lambda rip: True, tracee.ledger)


NOT_BEGUN: dict[str, Callable[[Radium], None]] = {
    "nothing noted": lambda radium: None,
    "noted": note,
    "one parked": lambda radium: park(radium, 0),
    "the last one parked": lambda radium: park(radium, -1),
    "all but one parked": lambda radium: park(radium, 0, 1, 3),
    "parked": park,
    "stepping": step,
}


def begun_then(*steps: Callable[[Radium], object]) -> Callable[[Radium], None]:
    def until(radium: Radium) -> None:
        begin(radium)
        for step in steps:
            step(radium)

    return until


def map_new(radium: Radium) -> None:
    """The memory calls, and nothing else."""

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        radium.apply(stop)


BEGUN: dict[str, Callable[[Radium], None]] = {
    "begun": begin,
    "killed in the middle": begun_then(lambda radium: radium.apply(die)),
    "layout made": begun_then(map_new),
    "pages written": begun_then(map_new, Radium.write_pages),
    "one moved": begun_then(map_new, Radium.write_pages, lambda radium: radium.move(0)),
    "the last one moved": begun_then(map_new, Radium.write_pages, lambda radium: radium.move(-1)),
    "all but one moved": begun_then(map_new, Radium.write_pages, lambda radium: radium.move(0, 2, 3)),
    "all moved": written,
    "committed": lambda radium: (written(radium), radium.tracee.ledger.note_committed(PAGE_SIZE)),  # type: ignore[dict-item]
}


def check_left(target: Target) -> None:
    """Nothing of radium's is there, and all threads live."""
    poll_until(target.is_left, "the guardian has done its work")
    poll_until(lambda: not set(thread_states(target.pid).values()) & {"t", "T"}, "all threads go on")
    assert len(target.tids()) == 5 and target.process.poll() is None
    assert int(status(target.pid)["SigCgt"], 16) & 1 << signal.SIGTRAP - 1 == 0
    assert not [fd for fd in os.listdir(f"/proc/{target.pid}/fd") if "userfaultfd" in os.readlink(f"/proc/{target.pid}/fd/{fd}")]


def masks(target: Target) -> set[int]:
    return {int(status(tid)["SigBlk"], 16) for tid in target.tids() if tid != target.pid}


def is_mapped(target: Target) -> bool:
    return any(m.start == MAPPED for m in parse_maps(procfs.read(target.pid, "maps")))


@pytest.mark.parametrize("until", NOT_BEGUN.values(), ids=NOT_BEGUN.keys())
def test_killed_before_it_has_begun(target, until):
    """Nothing of the answer is in the tracee: threads go on where they were, parked or not, and one that waits waits on."""
    play(target, until)
    check_left(target)
    poll_until(lambda: all(target.counts(n) for n in range(3)), "they count where they did")
    assert not any(target.word(FURTHER + n) for n in range(3)) and masks(target) == {0}
    assert vm.read(target.pid, target.data, PAGE_SIZE) == bytes(PAGE_SIZE) and not is_mapped(target)
    poll_until(lambda: target.waiter() is not None, "it waits again")
    assert target.word(WOKEN) == 0
    target.wake()
    poll_until(lambda: target.word(WOKEN) == 1, "it was woken")


@pytest.mark.parametrize("until", BEGUN.values(), ids=BEGUN.keys())
def test_killed_after_it_has_begun(target, until):
    """All of the answer is in the tracee: its memory, its pages, and every thread where it goes on."""
    play(target, until)
    check_left(target)
    poll_until(lambda: all(target.counts(FURTHER + n) for n in range(3)), "they count where they were moved")
    assert masks(target) == {BLOCKED} and is_mapped(target)
    # It may have been stopped between the look and the count.
    assert 0 <= target.word(SEEN) - target.word(SEEN_AT_BEGIN) <= 1, "a bystander ran in the middle of the commit"
    assert vm.read(target.pid, target.data, PAGE_SIZE) == b"\x77" * PAGE_SIZE
    assert vm.read(target.pid, target.data + PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)
    poll_until(lambda: target.word(WOKEN) == 1, "it went on as if it had been woken")
    left = [target.word(n) for n in range(3)]
    poll_until(lambda: all(target.counts(FURTHER + n) for n in range(3)), "they count on")
    assert target.waiter() is None and [target.word(n) for n in range(3)] == left, "nobody is where it was"
