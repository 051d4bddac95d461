"""Threads that are in a function already: where its frame is, from the unwind tables."""

from typing import NamedTuple

from radium.core.regs import NO_SYSCALL
from radium.errors import RemoteFault, TraceeGone
from radium.linux import ptrace, vm
from radium.tracer.discovery.sources import look
from radium.tracer.discovery.symbols import CodeMap
from radium.tracer.discovery.unwinder import Unwinder
from radium.tracer.stops import Threads


class Inside(NamedTuple):
    """A thread in the middle of a function: the stack pointer as it was at the entry, and where it returns to."""

    tid: int
    rsp: int
    back: int


def find(threads: Threads, entry: int) -> Inside | None:
    """A thread that is in the exported function with this entry, and in no system call; the outermost of its frames.

    All threads are stopped. Raises NotPossible without libdw, TraceeGone.
    """
    code = CodeMap(threads.pid)
    code.refresh()
    unwinder = Unwinder(code.object_at)
    try:
        for tid in threads.threads:
            found = _in_thread(threads.pid, tid, entry, code, unwinder)
            if found is not None:
                return found
    finally:
        unwinder.close()
    return None


def _in_thread(pid: int, tid: int, entry: int, code: CodeMap, unwinder: Unwinder) -> Inside | None:
    try:
        if ptrace.registers(tid).orig_rax != NO_SYSCALL:
            return None
        one = look(pid, tid)
    except TraceeGone:
        return None
    frames = unwinder.unwind(one.registers, one.stack)
    if not frames.exact:
        return None
    for at in reversed(range(len(frames.addresses) - 1)):
        place = code.exported(code.frame_at(frames.addresses[at]))
        if place is not None and place.address == entry:
            return _checked(pid, Inside(tid, frames.pointers[at + 1] - 8, frames.addresses[at + 1] + 1))
    return None


def _checked(pid: int, inside: Inside) -> Inside | None:
    """If the return address lies where the tables say."""
    try:
        word = vm.read(pid, inside.rsp, 8)
    except RemoteFault:
        return None
    return inside if int.from_bytes(word, "little") == inside.back else None
