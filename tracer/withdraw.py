"""Taking everything of radium's out of a process whose threads are stopped: at detach, in a forked child, after a kill.

It works from the ledger's plan alone, so that the guardian can do it too. Order: threads out of the annex, stops that wait to
be handled, code bytes, signal disposition, mappings; each step may be done again.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from radium.core.mapping import PROT_EXEC, SPECIAL, Mapping, parse_maps
from radium.errors import NotPossible, RemoteFault, TraceeGone
from radium.linux import procfs, ptrace, vm
from radium.tracer.annex import PARK_NBYTES, PARK_SYSCALL, SIGTRAP, STEPPING_AT
from radium.tracer.ledger import AnnexPlan, Gadget, GatesPlan, Ledger, Plan
from radium.tracer.remote_syscall import ALL_SIGNALS, RemoteSyscalls
from radium.tracer.stops import Threads

INT3 = b"\xcc"
# The signal mask of a thread that steps.
STEPPING = ALL_SIGNALS & ~(1 << (SIGTRAP - 1))
# A function's version word: 1 says that it has lost its version for good (CPython 3.13), 0 that it has none yet.
LOST_VERSION, NO_VERSION = b"\1\0\0\0", bytes(4)


def withdraw(threads: Threads, plan: Plan, ledger: Ledger) -> None:
    """All threads are stopped, and stay so. Raises TraceeGone."""
    if threads.is_over:
        return
    if not threads.threads:
        # The last has ended, and the process's end is about to be told.
        raise TraceeGone("process has ended", where=f"pid {threads.pid}")
    armed = {point.address for point in plan.armed}
    _note_stepping(next(iter(threads.threads)), plan)
    for tid in list(threads.threads):
        _report_trap(threads, tid, armed)
        _leave_annexes(threads, plan, tid, ledger)
    for birth in threads.settle_all():
        if birth.kind == "fork":
            let_go(threads, birth.detail, plan, ledger)
        else:
            release(birth.detail)
    if not threads.threads:
        raise TraceeGone("process has ended", where=f"pid {threads.pid}")
    for tid, mask in plan.unblocked:
        if tid in threads.threads and ptrace.signal_mask(tid) == mask:
            ptrace.set_signal_mask(tid, mask | 1 << (SIGTRAP - 1))
    # The main thread may have ended, and then the process cannot be reached by its pid.
    tid = next(iter(threads.threads))
    _restore_code(tid, plan)
    if plan.gates is not None:
        _leave_gates(threads, tid, plan.gates, ledger)
    _restore_rest(threads, tid, plan, ledger)


def let_go(parent: Threads, child: int, plan: Plan, ledger: Ledger) -> None:
    """A forked child, stopped, has copies of all that is radium's: they are taken out, and it goes its own way."""
    threads = Threads(child, parent.statuses, parent.options)
    threads.entries = parent.entries
    threads.adopt(child, is_running=False)
    ledger.note_child(child)
    try:
        withdraw(threads, plan, ledger)
        threads.detach()
    except TraceeGone:
        return
    finally:
        ledger.note_child(0)
        parent.statuses.remove(threads)


def release(pid: int) -> None:
    """A stopped child that executes another program, in which nothing is radium's."""
    with suppress(TraceeGone):
        ptrace.detach(pid)


def _report_trap(threads: Threads, tid: int, armed: set[int]) -> None:
    """A thread that has met a breakpoint, but was stopped by us before it could tell, would get its SIGTRAP later."""
    if ptrace.registers(tid).rip - 1 in armed:
        threads.report_trap(tid)


# Threads out of the annexes


def _note_stepping(tid: int, plan: Plan) -> None:
    with _forced(tid) as memory:
        for annex in plan.annexes:
            with suppress(RemoteFault):
                memory.write(annex.start + STEPPING_AT, b"\1")


def _leave_annexes(threads: Threads, plan: Plan, tid: int, ledger: Ledger) -> None:
    """Moves or steps the thread to where it can go on without breakpoints and annexes."""
    resume = {at: target for annex in plan.annexes for at, target in annex.resume}
    _step_while(threads, tid, lambda rip: rip not in resume and _annex_at(plan, rip) is not None, ledger)
    regs = ptrace.registers(tid)
    if regs.rip in resume:
        regs.rip = resume[regs.rip]
        ptrace.set_registers(tid, regs)


def _leave_gates(threads: Threads, tid: int, gates: GatesPlan, ledger: Ledger) -> None:
    """No thread stands in a gate but to come back there."""
    _restore_slots(tid, gates)
    for other in list(threads.threads):
        if other not in gates.visited:
            _step_while(threads, other, lambda rip: gates.start <= rip < gates.end, ledger)


def _is_left(threads: Threads, tid: int, gates: GatesPlan) -> bool:
    """Whether no thread will come back into the gates' code, nor is about to go there: by an address in a register."""
    if gates.visited or gates.is_needed:
        return False
    words = [word for other in threads.threads for word in struct.unpack("<27Q", ptrace.raw_registers(other))]
    if any(gates.start <= word < gates.end for word in words):
        return False
    with suppress(RemoteFault):
        return not int.from_bytes(vm.read(tid, gates.active, 8), "little")
    return False


def leave_handlers(threads: Threads, plan: Plan) -> None:
    """Lets threads that are in the annexes' signal handler return from it. For guardians."""
    for tid in list(threads.threads):
        _step_while(threads, tid, lambda rip: (annex := _annex_at(plan, rip)) is not None and rip < annex.park)


def is_parked(threads: Threads, plan: Plan, tid: int) -> bool:
    """Whether the thread is where a borrowed one goes when radium dies, and so has not been given back."""
    if tid not in threads.threads:
        return False
    rip = ptrace.registers(tid).rip
    places = [(plan.outside.park, 2), (plan.outside.syscall, 3), *((annex.park, PARK_NBYTES) for annex in plan.annexes)]
    return any(start <= rip < start + nbytes for start, nbytes in places if start)


def _annex_at(plan: Plan, rip: int) -> AnnexPlan | None:
    return next((annex for annex in plan.annexes if annex.start <= rip < annex.end), None)


def has_annexes(pid: int, plan: Plan) -> bool:
    """Whether the process, perhaps a child of the plan's, has its annexes. Without any nobody can tell."""
    try:
        mapped = {m.start for m in parse_maps(procfs.read(pid, "maps")) if not m.path and m.prot & PROT_EXEC}
    except (TraceeGone, PermissionError):
        return False
    return bool(plan.annexes) and all(annex.start in mapped for annex in plan.annexes)


def annex_gadget(annex: AnnexPlan) -> Gadget:
    return Gadget(annex.park + PARK_SYSCALL, annex.park)


def _step_while(threads: Threads, tid: int, is_inside: Callable[[int], bool], ledger: Ledger | None = None) -> None:
    """ledger: where it is noted, by who may be killed meanwhile."""
    regs = ptrace.registers(tid)
    if not is_inside(regs.rip):
        return
    mask = ptrace.signal_mask(tid)
    if ledger is not None:
        ledger.note_borrowed(tid, regs, mask)
    # A step reports itself by a SIGTRAP that is forced: were that blocked, it would kill when nobody is there to see it.
    # A handler's return sets the mask too.
    ptrace.set_signal_mask(tid, STEPPING)
    while is_inside(ptrace.registers(tid).rip):
        threads.step(tid)
    ptrace.set_signal_mask(tid, mask)
    if ledger is not None:
        ledger.note_returned()


# What is in its memory


def _restore_code(tid: int, plan: Plan) -> None:
    with _forced(tid) as memory:
        for point in plan.armed:
            _exchange(memory, point.address, INT3, bytes([point.original]))


def _restore_slots(tid: int, gates: GatesPlan) -> None:
    """No Python function's slot leads to a gate any more."""
    with _forced(tid) as memory:
        for slot in gates.slots:
            _exchange(memory, slot.address, slot.mine.to_bytes(8, "little"), slot.original.to_bytes(8, "little"))
        for address in gates.cleared:
            _exchange(memory, address, LOST_VERSION, NO_VERSION)


def _exchange(memory: vm.ForcedMemory, address: int, mine: bytes, original: bytes) -> None:
    """What is there now is ours, or the library or object has gone and taken it along."""
    with suppress(RemoteFault):
        if memory.read(address, len(mine)) == mine:
            memory.write(address, original)


def _restore_rest(threads: Threads, tid: int, plan: Plan, ledger: Ledger) -> None:
    mapped = {m.start for m in parse_maps(procfs.read(tid, "maps"))}
    there = [annex for annex in plan.annexes if annex.start in mapped]
    if not there:
        return
    are_gates_left = plan.gates is not None and _is_left(threads, tid, plan.gates)
    remote = RemoteSyscalls(threads, ledger, annex_gadget(there[0]))
    with remote.borrow(tid) as thread:
        if plan.old_action:
            with _forced(tid) as memory:
                memory.write(there[0].end - len(plan.old_action), plan.old_action)
            thread.call("rt_sigaction", SIGTRAP, there[0].end - len(plan.old_action), 0, 8)
        for fd in _leftover(tid, plan):
            thread.call("close", fd)
        thread.use(plan.outside if _is_whole(tid, plan.outside) else find_gadget(tid))
        for annex in there:
            thread.call("munmap", annex.start, annex.end - annex.start)
        if plan.gates is not None and plan.gates.start in mapped and are_gates_left:
            thread.call("munmap", plan.gates.start, plan.gates.end - plan.gates.start)


def _leftover(tid: int, plan: Plan) -> list[int]:
    """A userfaultfd that was taken over, or was about to be, and not closed yet."""
    return [] if plan.opening is None else [fd for fd in procfs.userfaultfds(tid) if fd not in plan.opening]


@contextmanager
def _forced(pid: int) -> Iterator[vm.ForcedMemory]:
    memory = vm.ForcedMemory(pid)
    try:
        yield memory
    finally:
        memory.close()


# Gadgets in the tracee's own code

_SYSCALL, _SYSCALL_RET, _LOOP = b"\x0f\x05", b"\x0f\x05\xc3", b"\xeb\xfe"
# Of one mapping: more than any libc has.
_SEARCHED_NBYTES = 4 << 20


def find_gadget(pid: int) -> Gadget:
    """`syscall; ret` and an endless loop, bytes that every libc has somewhere. Failing that, a `syscall` of the vdso.

    Raises NotPossible.
    """
    mappings = parse_maps(procfs.read(pid, "maps"))
    call = park = 0
    for mapping in sorted((m for m in mappings if m.prot & PROT_EXEC and m.path.startswith("/")), key=_search_order):
        code = _code(pid, mapping)
        call = call or _find(code, _SYSCALL_RET, mapping.start)
        park = park or _find(code, _LOOP, mapping.start)
        if call and park:
            return Gadget(call, park, returns=True)
    vdso = next((m for m in mappings if m.path == SPECIAL[0]), None)
    call = _find(_code(pid, vdso), _SYSCALL, vdso.start) if vdso else 0
    if not call:
        raise NotPossible("holds no system call instruction that could be used", where=f"pid {pid}")
    return Gadget(call)


def _search_order(mapping: Mapping) -> tuple[bool, int]:
    """First what stays as long as the program: libc and the dynamic linker."""
    name = mapping.path.rpartition("/")[2]
    return not name.startswith(("libc.", "libc-", "ld-")), mapping.end - mapping.start


def _code(pid: int, mapping: Mapping) -> bytes:
    try:
        return vm.read(pid, mapping.start, min(mapping.end - mapping.start, _SEARCHED_NBYTES))
    except RemoteFault:
        return b""


def _find(code: bytes, wanted: bytes, start: int) -> int:
    at = code.find(wanted)
    return start + at if at >= 0 else 0


def _is_whole(pid: int, gadget: Gadget) -> bool:
    """Whether it is there still: a library may have gone."""
    try:
        return gadget.returns and (vm.read(pid, gadget.syscall, 3), vm.read(pid, gadget.park, 2)) == (_SYSCALL_RET, _LOOP)
    except RemoteFault:
        return False
