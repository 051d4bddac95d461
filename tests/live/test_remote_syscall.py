"""System calls made in another process: their results are right, and the thread notices nothing."""

import ctypes
import os
import signal
import subprocess
import sys

import pytest
from harness import poll_until, status, thread_states

from radium.core.regs import NO_SYSCALL
from radium.errors import TraceeGone
from radium.linux import ptrace, vm
from radium.tracer.ledger import Ledger
from radium.tracer.remote_syscall import RemoteSyscalls
from radium.tracer.stops import Threads
from radium.tracer.withdraw import find_gadget

NO_FD = (1 << 64) - 1
SIGNAL_KEYS = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")

COUNTER = """
import signal, sys
caught = []
for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN):
    signal.signal(number, lambda number, frame: caught.append(number))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
print("READY", flush=True)
for line in sys.stdin:
    if line == "unblock\\n":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    print(line.strip(), sorted(int(n) for n in caught), flush=True)
"""


class Tracee:
    """A child, stopped, with a way to make system calls in it."""

    def __init__(self, argv: list[str]) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self.process.pid
        if len(argv) > 1:
            assert self.process.stdout.readline() == b"READY\n"
        poll_until(lambda: set(thread_states(self.pid).values()) == {"S"}, "it waits for input")
        self.ledger = Ledger()
        self.threads = Threads(self.pid)
        self.threads.seize()
        self.remote = RemoteSyscalls(self.threads, self.ledger, find_gadget(self.pid))

    def say(self, line: str) -> str:
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().strip()

    def signals(self) -> dict[str, str]:
        now = status(self.pid)
        return {key: now[key] for key in SIGNAL_KEYS}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(params=[["cat"], [sys.executable, "-S", "-c", COUNTER]], ids=["cat", "python"])
def tracee(request):
    made = Tracee(request.param)
    yield made
    made.close()


@pytest.fixture
def counter():
    made = Tracee([sys.executable, "-S", "-c", COUNTER])
    yield made
    made.close()


def test_results_and_errors(tracee):
    """Results are the kernel's, for the tracee; failures raise their errno."""
    with tracee.remote.borrow(tracee.pid) as thread:
        assert thread.call("getpid") == tracee.pid and thread.call("getppid") == os.getpid()
        start = thread.call("mmap", 0, 8192, 3, 0x22, NO_FD, 0)
        vm.write(tracee.pid, start, b"hello")
        assert thread.call("munmap", start, 8192) == 0
        for name, arguments, number in (("close", (999,), 9), ("munmap", (1, 1), 22), ("openat", (NO_FD, 0, 0), 14)):
            with pytest.raises(OSError, match=name) as caught:
                thread.call(name, *arguments)
            assert caught.value.errno == number
    with pytest.raises(vm.RemoteFault):
        vm.read(tracee.pid, start, 1)


def test_the_thread_is_as_before(tracee):
    """Registers, extended state, signal mask and pending signals are as they were, and the interrupted call goes on."""
    before = ptrace.registers(tracee.pid), ptrace.xstate(tracee.pid), ptrace.signal_mask(tracee.pid), tracee.signals()
    with tracee.remote.borrow(tracee.pid) as thread:
        for _ in range(10):
            thread.call("getpid")
        with pytest.raises(OSError, match="close"):
            thread.call("close", 999)
    after = ptrace.registers(tracee.pid), ptrace.xstate(tracee.pid), ptrace.signal_mask(tracee.pid), tracee.signals()
    assert before == after and tracee.ledger.borrowed() is None
    tracee.threads.detach()
    assert tracee.say("still here").startswith("still here")


def test_a_thread_in_its_own_code():
    """A thread that was stopped outside of any system call has exactly its registers back."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "print('READY', flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"READY\n"
    threads = Threads(process.pid)
    threads.seize()
    try:
        before = ptrace.registers(process.pid), ptrace.xstate(process.pid)
        with RemoteSyscalls(threads, Ledger(), find_gadget(process.pid)).borrow(process.pid) as thread:
            assert thread.call("getpid") == process.pid
        assert (ptrace.registers(process.pid), ptrace.xstate(process.pid)) == before
    finally:
        process.kill()
        process.communicate()


def test_given_back_after_an_error(tracee):
    """Whatever happens in the block, the thread is given back."""
    before = ptrace.registers(tracee.pid), ptrace.signal_mask(tracee.pid)
    with pytest.raises(ZeroDivisionError), tracee.remote.borrow(tracee.pid) as thread:
        thread.call("getpid")
        assert tracee.ledger.borrowed()[0] == tracee.pid
        raise ZeroDivisionError
    assert (ptrace.registers(tracee.pid), ptrace.signal_mask(tracee.pid)) == before
    assert tracee.ledger.borrowed() is None


def test_signals_wait(counter):
    """Signals that arrive meanwhile are neither lost nor delivered early, blocked ones stay blocked."""
    with counter.remote.borrow(counter.pid) as thread:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            os.kill(counter.pid, number)
        for _ in range(3):
            thread.call("getpid")
    pending = int(status(counter.pid)["ShdPnd"], 16)
    assert pending & 1 << (signal.SIGUSR1 - 1) and pending & 1 << (signal.SIGUSR2 - 1)
    assert int(status(counter.pid)["SigBlk"], 16) == 1 << (signal.SIGUSR2 - 1)
    counter.threads.detach()
    assert counter.say("one") == f"one [{int(signal.SIGUSR1)}]"
    assert counter.say("unblock") == f"unblock [{int(signal.SIGUSR1)}, {int(signal.SIGUSR2)}]"


def test_signals_that_waited_before(counter):
    """A signal that was pending when the thread was borrowed is pending afterwards."""
    os.kill(counter.pid, signal.SIGUSR1)
    before = counter.signals()
    with counter.remote.borrow(counter.pid) as thread:
        thread.call("getpid")
    assert counter.signals() == before
    counter.threads.detach()
    assert counter.say("x") == f"x [{int(signal.SIGUSR1)}]"


def test_stop_signal_meanwhile(counter):
    """SIGSTOP, which cannot be blocked, stops the process afterwards, not the call."""
    with counter.remote.borrow(counter.pid) as thread:
        os.kill(counter.pid, signal.SIGSTOP)
        assert thread.call("getpid") == counter.pid
    counter.threads.detach()
    poll_until(lambda: status(counter.pid)["State"][0] == "T", "it stops")
    os.kill(counter.pid, signal.SIGCONT)
    assert counter.say("on") == "on []"


def test_death_meanwhile(counter):
    """A process that is killed while it is borrowed is TraceeGone, and giving back what is gone does no harm."""
    with pytest.raises(TraceeGone), counter.remote.borrow(counter.pid) as thread:
        os.kill(counter.pid, signal.SIGKILL)
        for _ in range(1000):
            thread.call("getpid")
    assert counter.ledger.borrowed() is None


def test_a_stop_within_a_system_call_is_not_restarted(counter):
    """The thread was stopped in read(): making it make calls must not make it read, nor lose the read."""
    regs = ptrace.registers(counter.pid)
    assert regs.orig_rax != NO_SYSCALL
    counter.process.stdin.write(b"early\n")
    counter.process.stdin.flush()
    with counter.remote.borrow(counter.pid) as thread:
        waiting = ctypes.c_int()
        start = thread.call("mmap", 0, 4096, 3, 0x22, NO_FD, 0)
        # FIONREAD
        thread.call("ioctl", 0, 0x541B, start)
        waiting.value = int.from_bytes(vm.read(counter.pid, start, 4), "little")
        thread.call("munmap", start, 4096)
    assert waiting.value == len("early\n")
    counter.threads.detach()
    assert counter.process.stdout.readline() == b"early []\n"
