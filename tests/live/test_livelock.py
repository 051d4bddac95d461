"""A thread that spins for nobody is found, and one that computes is let be."""

import pytest

from radium.linux import ptrace, vm
from radium.replay import livelock, vessel

DATA = 0x20000000

STUCK = {
    "jump to itself": "ebfe",
    "pause": "f390ebfc",
    "wait for a flag in memory": "833f0075fb",  # cmp dword [rdi], 0; jne (of a word that is 1)
    "wait with a mask": "f7070100000075f8",  # test dword [rdi], 1; jne
    "wait in a register": "8b0785c075fa",  # mov eax, [rdi]; test eax, eax; jne
    "count and forget": "ffc0ffc8ebfa",  # inc eax; dec eax; jmp
    "wait with a vector": "f30f6f07ebfa",  # movdqu xmm0, [rdi]; jmp
}
WORKS = {
    "count": "48ffc0ebfb",  # inc rax; jmp
    "count in a vector": "660f76c9660ffec1ebfa",  # pcmpeqd xmm1, xmm1; paddd xmm0, xmm1; jmp to paddd
    "count on the x87 stack": "d8c0ebfc",  # fadd st0, st0; jmp
    "fill memory": "f3aaebfc",  # rep stosb; jmp
    "fill byte by byte": "880748ffc7ebf9",  # mov [rdi], al; inc rdi; jmp
    "write the same again": "8907ebfc",  # mov [rdi], eax; jmp
    "store from a vector": "f30f7f07ebfa",  # movdqu [rdi], xmm0; jmp
    "store past the cache": "0fc307ebfb",  # movnti [rdi], eax; jmp
    "count in memory": "ff07ebfc",  # inc dword [rdi]; jmp
    "take a lock": "f00fb10febfa",  # lock cmpxchg [rdi], ecx; jmp
    "exchange": "8707ebfc",  # xchg [rdi], eax; jmp
    "add and exchange": "f00fc107ebfa",  # lock xadd [rdi], eax; jmp
    "set a bit": "0fab07ebfb",  # bts [rdi], eax; jmp
    "set a byte": "0f9407ebfb",  # sete [rdi]; jmp
    "save the FPU": "0fae07ebfb",  # fxsave [rdi]; jmp
    "store a float": "d917ebfc",  # fst dword [rdi]; jmp
    "store the control word": "d93febfc",  # fnstcw [rdi]; jmp
    "store MXCSR": "0fae1febfb",  # stmxcsr [rdi]; jmp
    "look at the clock": "0f31ebfc",  # rdtsc; jmp
    "look at the clock and forget": "0f3131c031d2ebf8",  # rdtsc; xor eax, eax; xor edx, edx; jmp
    "draw a number": "480fc7f031c0ebf8",  # rdrand rax; xor eax, eax; jmp
    "store by a mask": "660ff7c1ebfa",  # maskmovdqu xmm0, xmm1; jmp
    "ask the kernel": "0f05ebfc",  # syscall; jmp
    "push": "5058ebfc",  # push rax; pop rax; jmp
    "a long way round": "90" * 200 + "e933ffffff",  # 200 nops; jmp
}


def look(bare, code):
    """Looks at a thread that is about to run the code."""
    vm.write(bare.pid, DATA, b"\1" + bytes(4095))
    bare.stand(code, rdi=DATA, rcx=1 << 40, rsp=DATA + 0x8000, rax=5)
    # The first looks bring the thread into its loop.
    return any(livelock.is_stuck(bare.pid, lambda: vessel.wait(bare.pid), bare.vessel.memory.read) for _ in range(3))


@pytest.mark.parametrize("code", STUCK.values(), ids=STUCK.keys())
def test_stuck(bare, code):
    """A loop that changes nothing and asks nobody will do so for ever."""
    assert look(bare, code)


@pytest.mark.parametrize("code", WORKS.values(), ids=WORKS.keys())
def test_not_stuck(bare, code):
    """A loop that computes, writes memory or looks outside may end."""
    assert not look(bare, code)


def test_looking_changes_nothing(bare):
    """A thread that was looked at goes on as if it had not been: the trap flag is not left behind."""
    assert not look(bare, "48ffc0ebfb")  # inc rax; jmp
    before = ptrace.registers(bare.pid)
    assert not before.eflags & livelock.RFLAGS_TF
    ptrace.resume(bare.pid)
    ptrace.interrupt(bare.pid)
    assert vessel.wait(bare.pid) >> 16 == ptrace.EVENT_STOP
    after = ptrace.registers(bare.pid)
    assert after.rax >= before.rax and not after.eflags & livelock.RFLAGS_TF


def test_leaving_the_loop(bare):
    """A thread that faults while it is looked at is told by its wait status, and the fault is not lost."""
    bare.start("ebfe")
    ptrace.interrupt(bare.pid)
    vessel.wait(bare.pid)
    regs = ptrace.registers(bare.pid)
    # mov eax, [0] in the place of the loop
    bare.vessel.memory.write(regs.rip, bytes.fromhex("8b042500000000"))
    with pytest.raises(livelock.LeftStepping) as caught:
        livelock.is_stuck(bare.pid, lambda: vessel.wait(bare.pid), bare.vessel.memory.read)
    assert caught.value.status == 0xB7F


@pytest.mark.parametrize("met", ["behind the thread's first step", "not looked at yet"])
def test_breakpoint(bare, met):
    """A hardware breakpoint that a thread meets while it is looked at is told, and no step: the call may have returned."""
    code = "90ffc0ebfc"  # nop; inc eax; jmp to inc
    bare.stand(code, rax=5)
    entry = ptrace.registers(bare.pid).rip
    ptrace.set_debug_register(bare.pid, 0, entry + 1)
    ptrace.set_debug_register(bare.pid, 7, 1)
    if met == "not looked at yet":
        bare.stand_at(entry + 1, rax=5)
    with pytest.raises(livelock.LeftStepping) as caught:
        livelock.is_stuck(bare.pid, lambda: vessel.wait(bare.pid), bare.vessel.memory.read)
    assert caught.value.status == 0x57F and ptrace.signal_info(bare.pid)[1] == ptrace.TRAP_HWBKPT
    regs = ptrace.registers(bare.pid)
    assert regs.rip == entry + 1 and regs.rax == 5
