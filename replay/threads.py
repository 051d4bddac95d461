"""A thread of the mirror: which thread of the tracee's it is now, and how it is set going, stopped and read."""

from collections.abc import Sequence

from radium.core import wire
from radium.core.regs import NO_SYSCALL, NOT_MADE, RESTARTS, SYSCALL_NBYTES, Registers
from radium.linux import ptrace
from radium.replay import vessel
from radium.replay.states import States

NDEBUG_REGISTERS = 4
TRAP_FLAG = 1 << 8
# EFLAGS.RF, set in the image that a hardware breakpoint leaves (Intel SDM 17.3.1.1).
RESUME_FLAG = 1 << 16


class Thread:
    """pid: the mirror's; own_id: the same as the mirror itself sees it; tid and as_seen: the tracee's thread that it is.

    status: of a stop that is still to be handled, 0 for none. nyields: how often it has yielded, having changed nothing in
    its registers between: then it waits for another thread. mask: blocked signals; mask_at_home: until the next commit.
    """

    def __init__(self, pid: int, own_id: int) -> None:
        self.pid, self.own_id = pid, own_id
        self.tid = self.as_seen = self.mask = self.mask_at_home = 0
        self.is_running = False
        self.status = 0
        self.nyields = 0
        self._yielded: Registers | None = None
        self.watched = [0] * NDEBUG_REGISTERS
        self._given = b""
        # What it has now, as home would have it; None: unknown.
        self._xstate: bytes | None = None

    def become(self, standing: wire.Standing, states: States) -> None:
        """It is stopped, and will go on as that thread of the tracee's.

        Raises OSError or OtherCpu when this CPU or kernel cannot have such a state.
        """
        self.tid, self.as_seen = standing.tid, standing.as_seen
        self.mask = self.mask_at_home = standing.mask
        self.status = self.nyields = 0
        regs = Registers.unpack(standing.registers)
        regs.orig_rax = NO_SYSCALL
        try:
            self._given = standing.xstate
            if standing.xstate != self._xstate:
                ptrace.set_xstate(self.pid, states.from_home(standing.xstate))
                self._xstate = standing.xstate
            ptrace.set_registers(self.pid, regs)
        except Exception:
            self._xstate = None
            raise
        self._forget_signals()

    def _forget_signals(self) -> None:
        """Of what it was before: one that it had not met yet when it was stopped it meets before its first instruction."""
        while ptrace.has_own_signal(self.pid):
            ptrace.resume(self.pid)
            vessel.wait(self.pid)

    def watch(self, addresses: Sequence[int]) -> None:
        """Hardware breakpoints at these addresses; 0 is none."""
        wanted = [*addresses, 0, 0, 0, 0][:NDEBUG_REGISTERS]
        if wanted == self.watched:
            return
        ptrace.set_debug_register(self.pid, 7, 0)
        for number, address in enumerate(wanted):
            ptrace.set_debug_register(self.pid, number, address)
        # DR7: bit 2n enables n; condition execute and length 1 are zeros (Intel SDM 17.2.4).
        ptrace.set_debug_register(self.pid, 7, sum(1 << 2 * n for n, address in enumerate(wanted) if address))
        self.watched = wanted

    def resume(self) -> None:
        ptrace.resume(self.pid)
        self.is_running = True
        self._xstate = None

    def note_yield(self, regs: Registers) -> None:
        """It stands before sched_yield."""
        self.nyields = self.nyields + 1 if regs == self._yielded else 1
        self._yielded = regs.copy()

    def answer(self, regs: Registers, result: int) -> None:
        """The call that it stands at is not made; it will go on behind it with the result (seccomp(2) on skipping a call)."""
        regs.rax, regs.orig_rax = result & (1 << 64) - 1, NO_SYSCALL
        # `syscall` itself leaves rip in rcx and eflags in r11 (Intel SDM, SYSCALL).
        regs.rcx, regs.r11 = regs.rip, regs.eflags
        ptrace.set_registers(self.pid, regs)
        self.resume()

    def standing(self, states: States) -> wire.Standing:
        """From where it would go on at home: before a system call that it was about to make, or was making. Raises OtherCpu."""
        regs = ptrace.registers(self.pid)
        if regs.orig_rax != NO_SYSCALL and (regs.rax == NOT_MADE or regs.rax in RESTARTS):
            regs.rip, regs.rax = regs.rip - SYSCALL_NBYTES, regs.orig_rax
        regs.orig_rax = NO_SYSCALL
        regs.eflags &= ~(RESUME_FLAG | TRAP_FLAG)
        xstate = self._xstate = states.to_home(ptrace.xstate(self.pid), self._given)
        return wire.Standing(self.tid, self.as_seen, self.mask, regs.pack(), xstate)


def behind_futex(standing: wire.Standing, state: wire.State) -> wire.Standing:
    """A thread that stood before the futex call that it waited in, woken."""
    regs = Registers.unpack(standing.registers)
    regs.rip, regs.rax = regs.rip + SYSCALL_NBYTES, 0
    regs.rcx, regs.r11 = regs.rip, regs.eflags
    return wire.Standing(standing.tid, standing.as_seen, state.mask, regs.pack(), state.xstate)
