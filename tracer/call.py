"""One split call, from its trap to its end: where it is, and what it has cost."""

from dataclasses import dataclass, field

from radium.core import wire
from radium.core.pages import Runs
from radium.core.regs import NO_SYSCALL, NOT_MADE, RESTARTS, SYSCALL_NBYTES, Registers
from radium.linux import ptrace
from radium.linux.libc import NUMBERS
from radium.tracer.breakpoint import Breakpoint
from radium.tracer.split import Split
from radium.tracer.stops import Thread


@dataclass(eq=False)
class Call:
    """regs, xstate: where its thread is, when it is at home. An answer is told by `number`, that of the last leaving.

    hinted: the pages that its profile says it will touch; results: those that it is expected to write.
    """

    thread: Thread
    split: Split
    point: Breakpoint
    frame: wire.Frame
    regs: Registers
    xstate: bytes
    hinted: Runs
    started: float
    size: float = 1.0
    results: Runs = field(default_factory=list)
    number: int = 0
    left: float = 0.0
    recalled: str = ""  # why it was asked to come home
    recalled_for: int = 0  # the thread that this is about
    next_check: float = 0.0  # when it is to be looked whether home has written what it may have read
    home_reason: str = ""  # why it came home in the middle
    ntrips: int = 0  # how often it came home in the middle: after the first time it cannot begin again
    goes_on_at: tuple[int, int] = (0, 0)  # (rip, rsp) from which it may leave again
    sent_npages: int = 0
    paged_in: int = 0
    nfetches: int = 0  # round trips for them
    made_mirror: bool = False
    written_back: int = 0
    out_nbytes: int = 0
    back_nbytes: int = 0
    mirror_s: float = 0.0
    # What had crossed the wire when it left.
    sent_nbytes: int = 0
    received_nbytes: int = 0
    # Trips home of threads that came along, by their ids.
    npasses: dict[int, int] = field(default_factory=dict)
    verifies: bool = False  # whether its answer is compared with what home makes of the call, and not committed
    scratch: Runs = field(default_factory=list)  # where it leaves nothing of use
    _syscall: int = field(default=NO_SYSCALL, repr=False)

    @property
    def tid(self) -> int:
        return self.thread.tid

    def left_behind(self, most: int) -> list[int]:
        """Threads that came home more often than that."""
        return [tid for tid, npasses in self.npasses.items() if npasses > most]

    @property
    def is_at_entry(self) -> bool:
        """Whether it can begin again: nothing of it has been done, or nothing has come of that."""
        return (self.regs.rip, self.regs.rsp) == (self.point.entry, self.frame.rsp)

    @property
    def runs_beside(self) -> bool:
        """Whether the tracee's other threads go on at home while it is away."""
        return self.split.profile.threads == "run"

    def come_home(self, reason: str) -> None:
        """Its thread stands in the middle of the function, and goes on at home."""
        is_syscall = reason.startswith("syscall:")
        self.home_reason = reason
        self.ntrips += 1
        self.goes_on_at = (self.regs.rip + (SYSCALL_NBYTES if is_syscall else 0), self.regs.rsp)
        self._syscall = NO_SYSCALL

    def has_ended(self, rsp: int) -> bool:
        """Whether a thread with this stack pointer has left the function."""
        return rsp > self.frame.rsp

    def enters_syscall(self, regs: Registers) -> None:
        self._syscall = regs.orig_rax

    def may_leave(self, regs: Registers, *, behind_syscall: bool) -> bool:
        """Whether its thread, at home, stands where the call goes on: behind its system call, or back from a handler."""
        if regs.orig_rax != NO_SYSCALL and (regs.rax in RESTARTS or (regs.rax == NOT_MADE and not behind_syscall)):
            return False
        if behind_syscall and self._syscall == NUMBERS["rt_sigreturn"]:
            # A handler may have changed where its thread goes on; an interrupted system call is made anew first.
            return regs.rsp == self.goes_on_at[1] and regs.rip != self.goes_on_at[0] - SYSCALL_NBYTES
        # An instruction that faults has to be executed at home first, and then its signal handled.
        return (regs.rip, regs.rsp) == self.goes_on_at and not self.home_reason.startswith("fault:")

    def leave_from(self, regs: Registers) -> None:
        """It is about to leave home again."""
        self.regs, self.xstate = regs.copy(), ptrace.xstate(self.tid)
        self.regs.orig_rax = NO_SYSCALL
