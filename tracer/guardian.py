"""The guardian: a small process that outlives a killed radium and puts the tracee right.

It is forked before anything is changed in the tracee, in a session of its own so that a terminal's or a group's signals
do not reach it, and waits on a pipe whose other end only radium has. End of file without a word means that radium died:
then the ledger says what a commit in progress still has to do, which thread's registers are borrowed, and what there is to withdraw.

Until it gets there the tracee lives on through the annex's SIGTRAP handler (annex.py). What remains is said in ARCHITECTURE.md.
"""

import os
import signal

from radium.errors import RadiumError
from radium.linux import ptrace, vm
from radium.tracer import commit
from radium.tracer.ledger import Ledger, Plan
from radium.tracer.remote_syscall import RemoteSyscalls
from radium.tracer.stops import Threads
from radium.tracer.withdraw import StillInside, syscall_instruction, withdraw

_DISMISSED = b"."
# Threads that are inside of the handler are let run on and stopped again, so often.
_ATTEMPTS = 1000


class Guardian:
    """radium's side of the pipe."""

    def __init__(self, ledger: Ledger) -> None:
        reading, self._pipe = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _guard(reading, self._pipe, ledger)
        os.close(reading)

    def dismiss(self) -> None:
        """The tracee is as it was found, or gone."""
        if self._pipe >= 0:
            os.write(self._pipe, _DISMISSED)
            os.close(self._pipe)
            self._pipe = -1


def _guard(reading: int, writing: int, ledger: Ledger) -> None:
    """In the child; does not return."""
    code = 0
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        os.close(writing)
        _close_all_but(reading)
        if os.read(reading, 1) != _DISMISSED:
            put_right(ledger)
    except RadiumError:
        # The tracee has ended meanwhile, and nobody is left to be told anything else.
        code = 1
    finally:
        os._exit(code)


def _close_all_but(kept: int) -> None:
    """Among them radium's connections, which must close when radium is gone."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 16)


def put_right(ledger: Ledger) -> None:
    """Finishes a commit, gives back borrowed registers, takes out all that is radium's. Raises TraceeGone, NotPossible."""
    plan = ledger.plan()
    if plan is None:
        return
    threads = Threads(plan.pid)
    threads.seize()
    record, borrowed = ledger.commit(), ledger.borrowed()
    if record is not None and record.tid in threads.threads:
        memory = vm.ForcedMemory(plan.pid)
        commit.apply(record, ledger, plan.pid, RemoteSyscalls(threads, ledger, syscall_instruction(plan.pid)), memory)
        memory.close()
    elif borrowed is not None and borrowed[0] in threads.threads:
        tid, regs, mask = borrowed
        ptrace.set_registers(tid, regs)
        ptrace.set_signal_mask(tid, mask)
    _withdraw_all(threads, plan, ledger)
    threads.detach()


def _withdraw_all(threads: Threads, plan: Plan, ledger: Ledger) -> None:
    for _ in range(_ATTEMPTS):
        try:
            withdraw(threads, plan, ledger)
            return
        except StillInside:
            threads.resume_all()
            threads.stop_all()
