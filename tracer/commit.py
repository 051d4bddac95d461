"""The commit: an answer that has arrived as a whole is checked, and then done to the tracee: layout, pages, registers.

All or nothing (invariant 2): everything is checked before the first change, against the tracee as it is. From then on the
ledger holds a record of the commit, and its threads are parked; if radium is killed in the middle, the guardian does all
of it again from the record, which has the same result.
"""

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import NamedTuple

from radium.core import wire
from radium.core.addr import USER_END
from radium.core.mapping import (
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MREMAP_FIXED,
    MREMAP_MAYMOVE,
    PROT_EXEC,
    RESERVED,
    STACK_GROWTH,
    Layout,
    LayoutCall,
    covered,
    replay,
)  # fmt: skip
from radium.core.pages import Run, Runs, subtract
from radium.core.regs import Registers
from radium.core.xstate import is_restorable
from radium.errors import Conflict, JobFailed, RemoteFault, TraceeGone
from radium.linux import ptrace, vm
from radium.tracer.ledger import ANSWER_ROOM, CommitRecord, Ledger
from radium.tracer.remote_syscall import Borrowed, RemoteSyscalls

# EFLAGS.TF (Intel SDM 3.4.3.3).
TRAP_FLAG = 0x100
_SAME = ("cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base")


class Left(NamedTuple):
    """A thread as it left home, or waits there: what an answer may not change."""

    regs: Registers
    xstate: bytes


def check(answer: wire.Answer, left: Mapping[int, Left], returns: Mapping[int, wire.Frame], layout: Layout, brk: int) -> Runs:
    """The page runs of the answer, which fits the tracee. Raises Conflict, FrameError.

    left: the threads that can be in the mirror; returns: the frame of the one whose call returns, if it does.
    """
    if not answer.threads or answer.tid not in {standing.tid for standing in answer.threads}:
        raise Conflict("an answer without the thread that it is about")
    for standing in answer.threads:
        if standing.tid not in left:
            raise Conflict(f"an answer with a thread that did not leave home (tid {standing.tid})")
        _check_thread(standing, left[standing.tid], returns.get(standing.tid), layout)
    if not 0 <= answer.seconds < inf:
        raise Conflict(f"an answer that took {answer.seconds} s")
    after, brk_after = replay(layout, brk, answer.journal)
    if brk_after != answer.brk and answer.journal:
        raise Conflict(f"an answer whose brk {answer.brk:#x} is not that of its journal")
    runs = wire.runs(answer.dirty)
    outside = subtract(runs, covered(area for area in after if not area.kind & RESERVED))
    if outside:
        raise Conflict(f"an answer with pages at {outside[0][0]:#x} that the tracee does not have")
    return runs


def _check_thread(standing: wire.Standing, left: Left, frame: wire.Frame | None, layout: Layout) -> None:
    """frame: of the call that it has returned from, if it has."""
    regs = Registers.unpack(standing.registers)
    if frame is not None:
        if regs.rip != frame.back or regs.rsp != frame.rsp + 8:
            raise Conflict(f"an answer that did not return to the caller (rip {regs.rip:#x})")
    elif not any(a.start <= regs.rip < a.end for a in layout if a.prot & PROT_EXEC) or not regs.rsp < USER_END:
        raise Conflict(f"an answer that would go on where the tracee has no code (rip {regs.rip:#x})")
    if any(getattr(regs, name) != getattr(left.regs, name) for name in _SAME):
        raise Conflict("an answer with other segments")
    if regs.eflags & TRAP_FLAG:
        raise Conflict("an answer that single-steps")
    if not is_restorable(standing.xstate, left.xstate):
        raise Conflict("an answer whose extended state the tracee's CPU cannot have")


def check_size(nbytes: int) -> None:
    """Raises Conflict for an answer that is too large to be kept whole."""
    if nbytes > ANSWER_ROOM:
        raise Conflict(f"an answer of {nbytes} bytes")


def apply(
    record: CommitRecord,
    ledger: Ledger,
    pid: int,
    remote: RemoteSyscalls | None,
    memory: vm.ForcedMemory,
    *,
    again: bool = False,
    before_pages: Callable[[], None] = lambda: None,
) -> None:
    """Does the commit. Its threads are stopped. Raises TraceeGone, Conflict (nothing was changed), JobFailed.

    again: the commit was begun before, and nobody knows how far it came: what has been done already is passed over.
    before_pages: called when the layout is as it will be and nothing has been written to it.
    """
    if record.journal:
        assert remote is not None
        with remote.borrow(record.threads[0].tid) as thread:
            if again:
                _repeat_again(thread, record.journal)
            else:
                _repeat_all(thread, record.journal)
    before_pages()
    write_pages(pid, wire.runs(record.dirty), ledger, memory)
    move(record)


def move(record: CommitRecord) -> None:
    """The last step. The last thing that is done to a thread is that it stands where it goes on: until then it is parked."""
    for moved in record.threads:
        with suppress(TraceeGone):
            if moved.xstate:
                ptrace.set_xstate(moved.tid, moved.xstate)
            _stand(moved.tid, moved.mask, moved.registers)
    _release(record)


def give_back(record: CommitRecord) -> None:
    """Its threads were parked, some of them or all, and the commit has not begun."""
    for moved in record.threads:
        with suppress(TraceeGone):
            _stand(moved.tid, moved.mask_before, moved.registers_before)
    _release(record)


def _stand(tid: int, mask: int, registers: bytes) -> None:
    ptrace.set_signal_mask(tid, mask)
    ptrace.set_raw_registers(tid, registers)


def _release(record: CommitRecord) -> None:
    """After the threads of the commit: that those stand where they go on says that it has been done."""
    for bystander in record.bystanders:
        with suppress(TraceeGone):
            ptrace.set_raw_registers(bystander.tid, bystander.registers)


def _repeat_all(thread: Borrowed, journal: Sequence[LayoutCall]) -> None:
    """All memory calls, or none. Raises Conflict when the tracee's own limits refuse one, after undoing those before it.

    Raises JobFailed when one of those cannot be undone: memory that the call had given back is gone.
    """
    brk = thread.call("brk", 0) if any(call.name == "brk" for call in journal) else 0
    for number, call in enumerate(journal):
        try:
            _repeat(thread, call)
        except OSError as error:
            _undo(thread, journal[:number], brk)
            raise Conflict(f"the tracee is refused a memory call that its mirror made ({error.strerror})") from None


def _repeat_again(thread: Borrowed, journal: Sequence[LayoutCall]) -> None:
    """A call that was made before finds its mapping there (EEXIST), moved (EFAULT) or gone by a later one (ENOMEM)."""
    for call in journal:
        try:
            _repeat(thread, call)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.EFAULT, errno.ENOMEM):
                raise


def _undo(thread: Borrowed, done: Sequence[LayoutCall], brk: int) -> None:
    for call in reversed(done):
        if call.name == "mmap" and not _replaces(call):
            thread.call("munmap", call.result, call.arguments[1])
        elif call.name == "brk" and call.result >= brk:
            thread.call("brk", brk)
        elif call.name == STACK_GROWTH:
            # No stack shrinks, and one that has grown is as good.
            continue
        else:
            raise JobFailed(f"a commit stopped half-way and its {call.name} cannot be undone", where=f"tid {thread.tid}")


def _replaces(call: LayoutCall) -> bool:
    flags = call.arguments[3]
    return bool(flags & MAP_FIXED and not flags & MAP_FIXED_NOREPLACE)


def _repeat(thread: Borrowed, call: LayoutCall) -> None:
    """The mirror's memory call, at the same addresses, in the tracee."""
    a = call.arguments
    if call.name == "mmap":
        flags = a[3] if _replaces(call) else a[3] & ~MAP_FIXED | MAP_FIXED_NOREPLACE
        thread.call("mmap", call.result, a[1], a[2], flags, -1, 0)
    elif call.name == "mremap":
        moves = call.result != a[0]
        thread.call("mremap", *a[:3], MREMAP_MAYMOVE | MREMAP_FIXED if moves else 0, call.result)
    elif call.name == "brk":
        if thread.call("brk", call.result) != call.result:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    elif call.name == STACK_GROWTH:
        # Where the kernel itself writes below a stack, it grows (GOING_HOME.md 2).
        thread.call("clock_gettime", 0, call.result)
    else:
        thread.call(call.name, *a[:3])


def write_pages(pid: int, runs: Sequence[Run], ledger: Ledger, memory: vm.ForcedMemory) -> None:
    try:
        vm.write_runs(pid, runs, ledger.answer_at)
    except RemoteFault:
        _write_forced(runs, ledger, memory)


def _write_forced(runs: Sequence[Run], ledger: Ledger, memory: vm.ForcedMemory) -> None:
    """Some page is not writable for the tracee itself: the call wrote it and protected it."""
    at = 0
    for start, end in runs:
        memory.write(start, ledger.answer[at : at + end - start])
        at += end - start
