"""The guardian: a small process that outlives a killed radium and puts the tracee right.

It is forked before anything is changed in the tracee, in a session of its own so that a terminal's or a group's signals
do not reach it, and waits on a pipe whose other end only radium has. End of file without a word means that radium died:
then the ledger says what a commit in progress still has to do, which thread's registers are borrowed, and what there is to
withdraw.

Until it gets there the tracee lives on through the annex's SIGTRAP handler (annex.py). What remains is said in ARCHITECTURE.md.
"""

import os
import select
import signal
from collections.abc import Container
from contextlib import suppress

import msgspec

from radium.errors import NotPossible, RadiumError, TraceeGone
from radium.linux import procfs, ptrace, vm
from radium.tracer import commit
from radium.tracer.ledger import CommitRecord, Guarded, Ledger, Plan
from radium.tracer.remote_syscall import ALL_SIGNALS, RemoteSyscalls
from radium.tracer.stops import OPTIONS, Threads
from radium.tracer.withdraw import STEPPING, annex_gadget, has_annexes, is_parked, leave_handlers, withdraw

_DISMISSED = b"."
# A thread that sleeps in vfork is stopped when its child, which is not traced then, has left the memory.
_OPTIONS = OPTIONS & ~(ptrace.O_VFORK | ptrace.O_VFORK_DONE)


class Guardian:
    """radium's side of the pipe."""

    def __init__(self, ledger: Ledger, guarded: Guarded) -> None:
        reading, self._pipe = os.pipe()
        radium = os.pidfd_open(os.getpid())
        self.pid = os.fork()
        if self.pid == 0:
            _guard(reading, self._pipe, radium, ledger, guarded)
        os.close(reading)
        os.close(radium)

    def dismiss(self) -> None:
        """The tracee is as it was found, or gone."""
        if self._pipe >= 0:
            os.write(self._pipe, _DISMISSED)
            os.close(self._pipe)
            self._pipe = -1


def _guard(reading: int, writing: int, radium: int, ledger: Ledger, guarded: Guarded) -> None:
    """In the child; does not return."""
    code = 0
    try:
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        os.close(writing)
        _close_all_but(reading, radium)
        if os.read(reading, 1) != _DISMISSED:
            _await_end(radium)
            put_right(ledger, guarded)
    except RadiumError:
        # Nobody is left to be told anything.
        code = 1
    finally:
        os._exit(code)


def _close_all_but(*kept: int) -> None:
    """Among them radium's connections, which must close when radium is gone."""
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    start = 3
    for fd in sorted(kept):
        os.closerange(start, fd)
        start = fd + 1
    os.closerange(start, 1 << 16)


def _await_end(radium: int) -> None:
    """A dying process closes its files first and lets go of its tracees later; then its pidfd becomes readable."""
    poll = select.poll()
    poll.register(radium, select.POLLIN)
    poll.poll()


def put_right(ledger: Ledger, guarded: Container[int] = ()) -> None:
    """Finishes a commit, gives back borrowed registers, takes out all that is radium's. Raises NotPossible.

    guarded: children that have a guardian of their own.
    """
    plan = ledger.plan()
    if plan is None:
        return
    child = ledger.child()
    if child:
        _put_child_right(child, plan, ledger)
    with suppress(TraceeGone):
        threads = Threads(plan.pid, options=_OPTIONS)
        _seize(threads, plan)
        for newborn in _copies(threads, plan):
            if newborn not in guarded:
                _put_child_right(newborn, plan, ledger)
        _put_right(threads, plan, ledger)


def _put_child_right(child: int, plan: Plan, ledger: Ledger) -> None:
    """A forked child, which has copies of what the plan names. Perhaps it has a guardian that has been quicker."""
    with suppress(TraceeGone, NotPossible):
        threads = Threads(child, options=_OPTIONS)
        _seize(threads, plan)
        withdraw(threads, plan, ledger)
        threads.detach()


def _copies(threads: Threads, plan: Plan) -> list[int]:
    """Children that were forked in the moment in which radium died: what is radium's is in them."""
    return [
        child
        for child in procfs.children(threads.pid)
        if not threads.shares_memory(child, otherwise=True) and has_annexes(child, plan)
    ]


def _finish(record: CommitRecord, threads: Threads, plan: Plan, ledger: Ledger) -> None:
    """A commit that was under way. If one of its threads is not parked any more, only moving the others is left to do."""
    left = _still_parked(record, threads, plan)
    if len(left.threads) < len(record.threads):
        commit.move(left)
        return
    memory = vm.ForcedMemory(plan.pid)
    remote = RemoteSyscalls(threads, ledger, annex_gadget(plan.annexes[0]))
    commit.apply(record, ledger, plan.pid, remote, memory, again=True)
    memory.close()


def _still_parked(record: CommitRecord, threads: Threads, plan: Plan) -> CommitRecord:
    moved, bystanders = (
        [one for one in group if is_parked(threads, plan, one.tid)] for group in (record.threads, record.bystanders)
    )
    return msgspec.structs.replace(record, threads=moved, bystanders=bystanders)


def _seize(threads: Threads, plan: Plan) -> None:
    threads.entries = {point.address for point in plan.armed}
    threads.seize()
    leave_handlers(threads, plan)


def _put_right(threads: Threads, plan: Plan, ledger: Ledger) -> None:
    """All threads are stopped."""
    record, borrowed = ledger.commit(), ledger.borrowed()
    if record is not None and ledger.has_begun:
        _finish(record, threads, plan, ledger)
    elif record is not None:
        commit.give_back(_still_parked(record, threads, plan))
    elif borrowed is not None and borrowed[0] in threads.threads:
        tid, regs, mask = borrowed
        if ptrace.signal_mask(tid) in (ALL_SIGNALS, STEPPING):
            ptrace.set_signal_mask(tid, mask)
        if is_parked(threads, plan, tid):
            ptrace.set_registers(tid, regs)
    withdraw(threads, plan, ledger)
    threads.detach()
