"""A mirror's thread that becomes one of the tracee's after another: it has the state that it is given, and nothing of the last one."""

import os
import signal

import pytest

from radium.core import wire
from radium.core.regs import NO_SYSCALL, Registers
from radium.linux import ptrace
from radium.linux.libc import NUMBERS, syscall
from radium.replay import vessel
from radium.replay.states import States
from radium.replay.threads import Thread, behind_futex

CODE, DATA = 0x10000000, 0x20000000
TRAPPED = 0x57F


@pytest.fixture
def states(bare):
    return States((), ptrace.xstate(bare.pid))


@pytest.fixture
def thread(bare):
    bare.vessel.seal(serves_kernel=True)
    return Thread(*bare.vessel.start_thread())


def standing(bare, code: str, tid: int = 5, *, mask: int = 0, state: bytes | None = None, **values: int) -> wire.Standing:
    """A thread of the tracee's that is about to run the code (hexadecimal), behind which there is an int3."""
    bare.vessel.memory.write(CODE, bytes.fromhex(code) + b"\xcc")
    regs = bare.vessel.registers.copy()
    regs.rip = CODE
    for name, value in values.items():
        setattr(regs, name, value)
    return wire.Standing(tid, tid + 100, mask, regs.pack(), ptrace.xstate(bare.pid) if state is None else state)


def run(thread: Thread) -> int:
    thread.resume()
    thread.is_running = False
    return vessel.wait(thread.pid)


def test_becoming_another(bare, thread, states):
    """It runs with the registers and the extended state of each, whatever the one before has left."""
    state = ptrace.xstate(bare.pid)
    for tid, value in ((5, 7), (6, 8)):
        thread.become(standing(bare, "488937660f76c9", tid, mask=1 << tid, rdi=DATA, rsi=value), states)  # mov [rdi], rsi; pcmpeqd xmm1
        assert (thread.tid, thread.as_seen, thread.mask, thread.mask_at_home) == (tid, tid + 100, 1 << tid, 1 << tid)
        assert ptrace.xstate(thread.pid) == state
        assert run(thread) == TRAPPED and bare.vessel.memory.read(DATA, 1) == bytes([value])
        assert ptrace.xstate(thread.pid) != state


def test_signals_of_the_last_one(bare, thread, states):
    """A signal that it was about to meet when it was stopped was the last one's: the next one never hears of it."""
    thread.become(standing(bare, "ebfe"), states)
    thread.resume()
    ptrace.interrupt(thread.pid)
    assert vessel.wait(thread.pid) >> 16 == ptrace.EVENT_STOP
    for number in (signal.SIGSEGV, signal.SIGTRAP, signal.SIGUSR1):
        syscall("tgkill", bare.pid, thread.pid, number)
    assert ptrace.has_own_signal(thread.pid)
    thread.become(standing(bare, "488937", rdi=DATA, rsi=9), states)
    assert not ptrace.has_own_signal(thread.pid)
    assert bare.vessel.memory.read(DATA, 1) == b"\0", "it has run nothing yet"
    assert run(thread) == TRAPPED and ptrace.registers(thread.pid).rip == CODE + 4
    assert bare.vessel.memory.read(DATA, 1) == b"\x09"


def test_a_system_call_of_the_last_one(bare, thread, states):
    """Stopped before a system call, it does not make that call when it becomes another one, signals or not."""
    for has_signal in (False, True):
        thread.become(standing(bare, "0f05", rax=NUMBERS["exit_group"], rdi=3), states)
        assert run(thread) >> 16 == ptrace.EVENT_SECCOMP
        if has_signal:
            syscall("tgkill", bare.pid, thread.pid, signal.SIGUSR1)
        thread.become(standing(bare, "90", rax=77), states)
        assert run(thread) == TRAPPED and ptrace.registers(thread.pid).rax == 77
    assert os.path.exists(f"/proc/{bare.pid}")


def test_standing_before_a_system_call(bare, thread, states):
    """One that is about to make a call, or has one answered, stands where it can go on at home."""
    thread.become(standing(bare, "0f05", mask=6, rax=NUMBERS["write"], rdi=1), states)
    run(thread)
    regs = Registers.unpack(thread.standing(states).registers)
    assert (regs.rip, regs.rax, regs.rdi, regs.orig_rax) == (CODE, NUMBERS["write"], 1, NO_SYSCALL)
    thread.answer(ptrace.registers(thread.pid), -11)
    assert vessel.wait(thread.pid) == TRAPPED
    there = thread.standing(states)
    regs = Registers.unpack(there.registers)
    assert (regs.rip, regs.rax, regs.rcx) == (CODE + 3, (1 << 64) - 11, CODE + 2)
    assert (there.tid, there.as_seen, there.mask) == (5, 105, 6)


def test_breakpoints(bare, thread, states):
    """What it watches for is told by its own address, and no more when it watches for nothing."""
    thread.watch([CODE + 1])
    thread.become(standing(bare, "9090"), states)
    run(thread)
    assert ptrace.signal_info(thread.pid)[1] == ptrace.TRAP_HWBKPT and ptrace.registers(thread.pid).rip == CODE + 1
    thread.watch([])
    thread.become(standing(bare, "9090"), states)
    assert run(thread) == TRAPPED and ptrace.registers(thread.pid).rip == CODE + 3


def test_states_that_it_cannot_have(bare, thread, states):
    """A state that the kernel refuses is an error, and does not keep it from becoming another one."""
    for state in (b"", bytes(64), b"\xff" * len(ptrace.xstate(bare.pid))):
        with pytest.raises(Exception, match=r"state|ptrace|CPU"):
            thread.become(standing(bare, "90", state=state), states)
    thread.become(standing(bare, "90"), states)
    assert run(thread) == TRAPPED


def test_behind_a_futex():
    """A thread that was woken has its call behind it, with the result 0, as `syscall` leaves its registers."""
    regs = Registers(*range(27))
    regs.rip, regs.rax, regs.eflags = 0x401000, NUMBERS["futex"], 0x246
    woken = behind_futex(wire.Standing(5, 6, 0, regs.pack(), b""), wire.State(5, 7, b"state"))
    after = Registers.unpack(woken.registers)
    assert (woken.tid, woken.as_seen, woken.mask, woken.xstate) == (5, 6, 7, b"state")
    assert (after.rip, after.rax, after.rcx, after.r11) == (0x401002, 0, 0x401002, 0x246)
    assert after.rdi == regs.rdi and after.rsp == regs.rsp
