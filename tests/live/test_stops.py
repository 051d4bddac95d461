"""All threads of a process stopped and resumed, however many come and go, and whatever else stops them."""

import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from harness import poll_until, status, thread_states

from radium.errors import NotPossible, TraceeGone
from radium.linux import procfs
from radium.linux.libc import syscall
from radium.tracer.ledger import Ledger
from radium.tracer.remote_syscall import RemoteSyscalls
from radium.tracer.stops import Stop, Threads, exit_code
from radium.tracer.withdraw import find_gadget

CHURN = r"""
// Threads that start and end all the time; each adds 1 to a word of the file. churn FILE SPAWNERS
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile long *word;
static void on_signal(int number) { (void)number; __atomic_fetch_add(&word[1], 1, __ATOMIC_RELAXED); }
static void on_end(int number) { (void)number; pthread_exit(NULL); }
static void *work(void *arg) { __atomic_fetch_add(&word[0], 1, __ATOMIC_RELAXED); return arg; }
static void *spawn(void *arg) {
    for (;;) {
        pthread_t thread[3];
        for (int i = 0; i < 3; i++) if (pthread_create(&thread[i], NULL, work, arg)) abort();
        for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
    }
}
int main(int argc, char **argv) {
    if (argc != 3) return 2;
    word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, open(argv[1], O_RDWR), 0);
    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, on_end);
    pthread_t thread;
    for (int i = 0; i < atoi(argv[2]); i++) pthread_create(&thread, NULL, spawn, NULL);
    puts("READY");
    fflush(stdout);
    for (;;) pause();
}
"""


@pytest.fixture(scope="module")
def churn_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("churn")
    (folder / "churn.c").write_text(CHURN)
    subprocess.run(["gcc", "-O1", "-pthread", "-o", folder / "churn", folder / "churn.c"], check=True, timeout=60)
    return folder / "churn"


class Churn:
    """The program, running, and its two words: threads that have run, signals that were handled."""

    def __init__(self, program: Path, folder: Path, spawners: int) -> None:
        file = folder / "words"
        file.write_bytes(bytes(4096))
        self.process = subprocess.Popen([program, file, str(spawners)], stdout=subprocess.PIPE)
        self.pid = self.process.pid
        self._file = file.open("r+b")
        self._words = mmap.mmap(self._file.fileno(), 4096)
        assert self.process.stdout is not None and self.process.stdout.readline() == b"READY\n"
        self.threads = Threads(self.pid)

    def word(self, index: int) -> int:
        return int(struct.unpack_from("<q", self._words, 8 * index)[0])

    def states(self) -> set[str]:
        return set(thread_states(self.pid).values())

    def tracers(self) -> set[str]:
        """Who traces the threads that there are; threads may end while we look."""
        found = set()
        for tid in procfs.threads(self.pid):
            with suppress(TraceeGone):
                found.add(procfs.status(self.pid, tid)["TracerPid"])
        return found

    def pump(self, until: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
        """Handles stops as a session without split points does, until the condition holds."""
        deadline = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < deadline, f"{what}: {thread_states(self.pid)}, {self.threads.threads}"
            stop = self.threads.next()
            if stop is None:
                time.sleep(0.001)
            elif stop.kind != "exit":
                self.threads.resume(stop.tid, stop.detail if stop.kind == "signal" else 0)

    def await_end(self) -> Stop:
        """The stop that tells of the end; others on the way are handled."""
        deadline = time.monotonic() + 20.0
        while True:
            stop = self.threads.next()
            if stop is None:
                assert time.monotonic() < deadline, f"no end: {thread_states(self.pid)}, {self.threads.threads}"
                time.sleep(0.001)
            elif stop.kind == "exit":
                return stop
            else:
                self.threads.resume(stop.tid, stop.detail if stop.kind == "signal" else 0)

    def goes_on(self) -> None:
        start = self.word(0)
        self.pump(lambda: self.word(0) > start + 50, "threads run")

    def close(self) -> None:
        """A process ends only when its tracer has seen the end of each of its threads."""
        self.process.kill()
        with suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0x40000000)
        self.process.communicate()
        self._words.close()
        self._file.close()


@pytest.fixture
def churn(churn_program: Path, tmp_path: Path) -> Iterator[Churn]:
    program = Churn(churn_program, tmp_path, 4)
    yield program
    program.close()


def test_seize_stops_all(churn):
    """After seizing, every thread there is, is ours and stopped, those included that were born meanwhile."""
    churn.threads.seize()
    assert churn.states() == {"t"}
    assert set(churn.threads.threads) == set(procfs.threads(churn.pid))
    assert churn.tracers() == {str(os.getpid())}
    before = churn.word(0)
    assert churn.word(0) == before and not churn.threads.running


def test_stop_and_resume_many_times(churn):
    """Stopping and resuming loses no thread and no event: the program goes on in between, and stands when it is stopped."""
    churn.threads.seize()
    for _ in range(30):
        churn.threads.resume_all()
        churn.goes_on()
        churn.threads.stop_all()
        assert churn.states() == {"t"}
        assert set(churn.threads.threads) == set(procfs.threads(churn.pid))


def test_detach(churn):
    """After a detach nothing traces the process, and all of it runs."""
    for _ in range(5):
        churn.threads.seize()
        churn.threads.resume_all()
        churn.goes_on()
        churn.threads.stop_all()
        churn.threads.detach()
        assert churn.tracers() == {"0"}
        start = churn.word(0)
        poll_until(lambda start=start: churn.word(0) > start + 50, "threads run")
        assert "t" not in churn.states()


def test_signals_are_delivered_once(churn):
    """Every signal that arrives, while all run or while all are stopped, is handled once."""
    churn.threads.seize()
    for number in range(1, 21):
        if number % 2:
            churn.threads.resume_all()
        os.kill(churn.pid, signal.SIGUSR1)
        churn.threads.stop_all()
        churn.threads.resume_all()
        churn.pump(lambda number=number: churn.word(1) == number, "the signal is handled")
        churn.goes_on()
        churn.threads.stop_all()
    assert churn.word(1) == 20


def test_signal_held_at_detach(churn):
    """A signal that was reported and not yet delivered is delivered by the detach."""
    churn.threads.seize()
    churn.threads.resume_all()
    os.kill(churn.pid, signal.SIGUSR1)
    poll_until(lambda: "t" in churn.states(), "the signal is reported")
    churn.threads.stop_all()
    churn.threads.detach()
    poll_until(lambda: churn.word(1) == 1, "it is handled")


def test_group_stop(churn):
    """SIGSTOP stops the program and SIGCONT makes it go on, as they do without us."""
    churn.threads.seize()
    churn.threads.resume_all()
    churn.goes_on()
    for _ in range(3):
        os.kill(churn.pid, signal.SIGSTOP)
        churn.pump(lambda: all(t.is_group_stopped for t in churn.threads.threads.values()), "a group-stop")
        before = churn.word(0)
        churn.threads.stop_all()
        churn.threads.resume_all()
        churn.pump(lambda: not churn.threads.pending, "nothing is left to handle")
        assert churn.word(0) == before, "stopping and resuming must not end a group-stop"
        os.kill(churn.pid, signal.SIGCONT)
        churn.goes_on()


def test_detach_of_a_stopped_program(churn):
    """A program that somebody stopped stays stopped when we leave, until somebody sends it on."""
    churn.threads.seize()
    churn.threads.resume_all()
    os.kill(churn.pid, signal.SIGSTOP)
    churn.pump(lambda: all(t.is_group_stopped for t in churn.threads.threads.values()), "a group-stop")
    churn.threads.stop_all()
    churn.threads.detach()
    poll_until(lambda: churn.states() == {"T"}, "it is stopped, and not by us")
    os.kill(churn.pid, signal.SIGCONT)
    start = churn.word(0)
    poll_until(lambda: churn.word(0) > start + 50, "threads run")


def test_attach_to_a_stopped_program(churn):
    """A program that is stopped already can be seized, stays stopped, and goes on when it is told to."""
    os.kill(churn.pid, signal.SIGSTOP)
    poll_until(lambda: churn.states() == {"T"}, "it is stopped")
    churn.threads.seize()
    churn.threads.resume_all()
    churn.pump(lambda: not churn.threads.pending, "nothing is left to handle")
    before = churn.word(0)
    os.kill(churn.pid, signal.SIGCONT)
    churn.goes_on()
    assert churn.word(0) > before


def test_end_while_running(churn):
    """The end of the process is told once, with its wait status."""
    churn.threads.seize()
    churn.threads.resume_all()
    os.kill(churn.pid, signal.SIGKILL)
    end = churn.await_end()
    assert exit_code(end.detail) == 137 and churn.threads.exit_status == end.detail and not churn.threads.threads


def test_end_while_stopped(churn):
    """A process that is killed while all its threads are stopped does not hang who stops or resumes it."""
    churn.threads.seize()
    os.kill(churn.pid, signal.SIGKILL)
    churn.threads.resume_all()
    churn.threads.stop_all()
    assert exit_code(churn.await_end().detail) == 137


def end_main(churn: Churn) -> None:
    syscall("tgkill", churn.pid, churn.pid, signal.SIGUSR2)
    churn.pump(lambda: thread_states(churn.pid)[churn.pid] == "Z", "main has ended")


@pytest.mark.parametrize("is_late", [False, True], ids=["before", "after"])
def test_main_thread_ends_first(churn, is_late):
    """A program whose main thread ended, before or after it was seized, is stopped, resumed and left like any other."""
    if is_late:
        churn.threads.seize()
        churn.threads.resume_all()
    end_main(churn)
    if not is_late:
        churn.threads.seize()
        churn.threads.resume_all()
    for _ in range(3):
        churn.goes_on()
        churn.threads.stop_all()
        assert churn.states() == {"t", "Z"}
        churn.threads.resume_all()
    churn.threads.stop_all()
    churn.threads.detach()
    start = churn.word(0)
    poll_until(lambda: churn.word(0) > start + 50, "threads run")


def test_main_thread_ends_first_and_then_all(churn):
    """When the others end too, the end of the process is told with its status."""
    churn.threads.seize()
    churn.threads.resume_all()
    end_main(churn)
    churn.threads.stop_all()
    os.kill(churn.pid, signal.SIGKILL)
    churn.threads.resume_all()
    assert exit_code(churn.await_end().detail) == 137


def test_remote_system_calls_of_a_stopped_program(churn):
    """A program in a group-stop that has made system calls for us is still in its group-stop afterwards."""
    os.kill(churn.pid, signal.SIGSTOP)
    poll_until(lambda: churn.states() == {"T"}, "it is stopped")
    churn.threads.seize()
    remote = RemoteSyscalls(churn.threads, Ledger(), find_gadget(churn.pid))
    for tid in list(churn.threads.threads):
        with remote.borrow(tid) as thread:
            assert thread.call("getpid") == churn.pid
    before = churn.word(0)
    churn.threads.resume_all()
    churn.pump(lambda: not churn.threads.running or all(t.is_running for t in churn.threads.threads.values()), "all wait")
    assert churn.word(0) == before
    os.kill(churn.pid, signal.SIGCONT)
    churn.goes_on()


def test_killed_in_a_remote_system_call(churn):
    """A process of many threads that is killed while one of them is borrowed is TraceeGone, and its end is told."""
    churn.threads.seize()
    remote = RemoteSyscalls(churn.threads, Ledger(), find_gadget(churn.pid))
    with pytest.raises(TraceeGone), remote.borrow(churn.pid) as thread:
        os.kill(churn.pid, signal.SIGKILL)
        for _ in range(1000):
            thread.call("getpid")
    churn.threads.resume_all()
    assert exit_code(churn.await_end().detail) == 137


def test_somebody_else_traces_it(churn):
    """A process that another one traces is refused in one line, and left as it was."""
    code = "import sys, time; from radium.tracer.stops import Threads; t = Threads(int(sys.argv[1])); t.seize(); t.resume_all(); print('READY', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code, str(churn.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"READY\n"
        with pytest.raises(NotPossible, match="cannot be traced"):
            churn.threads.seize()
    finally:
        other.communicate(b"")
    assert churn.states() and status(churn.pid)["TracerPid"] == "0"


def test_no_such_process():
    """A process that is gone is TraceeGone."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(TraceeGone):
        Threads(gone.pid).seize()


def test_exit_codes():
    """Exit codes are told as a shell tells them."""
    assert [exit_code(status_) for status_ in (0, 3 << 8, signal.SIGKILL)] == [0, 3, 137]
