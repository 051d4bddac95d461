"""Where a call that came home in the middle leaves again."""

import pytest

from radium.core import wire
from radium.core.regs import NO_SYSCALL, NOT_MADE, Registers
from radium.linux.libc import NUMBERS
from radium.tracer.call import Call
from radium.tracer.stops import Thread

RIP, RSP, ENTRY_RSP = 0x401000, 0x7FFD00001000, 0x7FFD00002000


def call_home(reason: str) -> Call:
    regs = Registers(*[0] * 27)
    regs.rip, regs.rsp, regs.orig_rax = RIP, RSP, NO_SYSCALL
    frame = wire.Frame(0x400000, ENTRY_RSP)
    call = Call(Thread(1), None, None, frame, regs, b"", [], 0.0)  # type: ignore[arg-type]
    call.come_home(reason)
    return call


def registers(rip: int = RIP, rsp: int = RSP, rax: int = 0, orig_rax: int = NO_SYSCALL) -> Registers:
    regs = Registers(*[0] * 27)
    regs.rip, regs.rsp, regs.rax, regs.orig_rax = rip, rsp, rax, orig_rax
    return regs


WRITE, INTERRUPTED = NUMBERS["write"], (1 << 64) - 512


@pytest.mark.parametrize(
    ("regs", "behind", "leaves"),
    [
        (registers(RIP + 2, rax=8, orig_rax=WRITE), True, True),
        (registers(RIP + 2, rax=8, orig_rax=WRITE), False, True),
        (registers(RIP + 2, rax=NOT_MADE, orig_rax=WRITE), False, False),
        (registers(RIP + 2, rax=NOT_MADE, orig_rax=WRITE), True, True),
        (registers(RIP + 2, rax=INTERRUPTED, orig_rax=WRITE), True, False),
        (registers(RIP + 2, RSP - 512, rax=8, orig_rax=WRITE), True, False),
        (registers(RIP, rax=WRITE), False, False),
        (registers(0x402000, rax=0), True, False),
    ],
)
def test_behind_its_system_call(regs, behind, leaves):
    """It leaves behind the call that was made, in its own frame; not before it, and not when it is to be made again."""
    assert call_home("syscall:write").may_leave(regs, behind_syscall=behind) is leaves


def test_back_from_a_handler():
    """After a signal it leaves where it was, or where the handler sent it; an interrupted call is made again first."""
    for reason in ("signal:SIGALRM", "fault:SIGSEGV", "syscall:read"):
        call = call_home(reason)
        call.enters_syscall(registers(orig_rax=NUMBERS["rt_sigreturn"]))
        assert call.may_leave(registers(0x402000), behind_syscall=True)
        assert not call.may_leave(registers(0x402000, RSP - 8), behind_syscall=True)
    assert not call.may_leave(registers(RIP, rax=NUMBERS["read"]), behind_syscall=True)
    assert call.may_leave(registers(RIP + 2), behind_syscall=True)


def test_a_fault_is_met_at_home():
    """A thread that still stands before the instruction that faults has not met its signal yet."""
    assert not call_home("fault:SIGSEGV").may_leave(registers(), behind_syscall=False)
    assert call_home("signal:SIGSTOP").may_leave(registers(), behind_syscall=False)


def test_its_end():
    """The function is left when the stack pointer is above its entry's."""
    call = call_home("syscall:write")
    assert not call.has_ended(ENTRY_RSP) and call.has_ended(ENTRY_RSP + 8)
