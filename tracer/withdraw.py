"""Taking everything of radium's out of a process whose threads are stopped: at detach, in a forked child, after a kill.

It works from the ledger's plan alone, so that the guardian can do it too. Order: threads out of the annex, stops that wait to
be handled, code bytes, signal disposition, mappings; each step may be done again.
"""

from collections.abc import Callable

from radium.core.mapping import SPECIAL, Mapping, parse_maps
from radium.errors import NotPossible, RemoteFault, TraceeGone
from radium.linux import procfs, ptrace, vm
from radium.tracer.annex import PARK_NBYTES, PARK_SYSCALL, SIGTRAP
from radium.tracer.ledger import AnnexPlan, Ledger, Plan
from radium.tracer.remote_syscall import ALL_SIGNALS, RemoteSyscalls
from radium.tracer.stops import Threads

INT3 = b"\xcc"


def withdraw(threads: Threads, plan: Plan, ledger: Ledger) -> None:
    """All threads are stopped, and stay so. Raises TraceeGone."""
    if threads.is_over:
        return
    armed = {point.address for point in plan.armed}
    for tid in list(threads.threads):
        _report_trap(threads, tid, armed)
        _leave_annexes(threads, plan, tid)
    for child in threads.settle_all():
        let_go(threads, child, plan, ledger)
    if not threads.threads:
        raise TraceeGone("process has ended", where=f"pid {threads.pid}")
    for tid, mask in plan.unblocked:
        if tid in threads.threads and ptrace.signal_mask(tid) == mask:
            ptrace.set_signal_mask(tid, mask | 1 << (SIGTRAP - 1))
    # The main thread may have ended, and then the process cannot be reached by its pid.
    tid = next(iter(threads.threads))
    _restore_code(tid, plan)
    _restore_rest(threads, tid, plan, ledger)


def let_go(parent: Threads, child: int, plan: Plan, ledger: Ledger) -> None:
    """A forked child, stopped, has copies of all that is radium's: they are taken out, and it goes its own way."""
    threads = Threads(child, parent.statuses, parent.options)
    threads.adopt(child, is_running=False)
    ledger.note_child(child)
    try:
        withdraw(threads, plan, ledger)
        threads.detach()
    except TraceeGone:
        return
    finally:
        ledger.note_child(0)


def _report_trap(threads: Threads, tid: int, armed: set[int]) -> None:
    """A thread that has met a breakpoint, but was stopped by us before it could tell, would get its SIGTRAP later."""
    if ptrace.registers(tid).rip - 1 in armed:
        threads.report_trap(tid)


# Threads out of the annexes


def _leave_annexes(threads: Threads, plan: Plan, tid: int) -> None:
    """Moves or steps the thread to where it can go on without breakpoints and annexes."""
    resume = {at: target for annex in plan.annexes for at, target in annex.resume}
    _step_while(threads, tid, lambda rip: rip not in resume and _annex_at(plan, rip) is not None)
    regs = ptrace.registers(tid)
    if regs.rip in resume:
        regs.rip = resume[regs.rip]
        ptrace.set_registers(tid, regs)


def leave_handlers(threads: Threads, plan: Plan) -> None:
    """Lets threads that are in the annexes' signal handler return from it."""
    for tid in list(threads.threads):
        _step_while(threads, tid, lambda rip: (annex := _annex_at(plan, rip)) is not None and rip < _park(annex))


def is_parked(threads: Threads, plan: Plan, tid: int) -> bool:
    """Whether the thread is where a borrowed one goes when radium dies, and so has not been given back."""
    if tid not in threads.threads:
        return False
    rip = ptrace.registers(tid).rip
    return any(_park(annex) <= rip < _park(annex) + PARK_NBYTES for annex in plan.annexes)


def _annex_at(plan: Plan, rip: int) -> AnnexPlan | None:
    return next((annex for annex in plan.annexes if annex.start <= rip < annex.end), None)


def _park(annex: AnnexPlan) -> int:
    return annex.gadget - PARK_SYSCALL


def _step_while(threads: Threads, tid: int, is_inside: Callable[[int], bool]) -> None:
    if not is_inside(ptrace.registers(tid).rip):
        return
    mask = ptrace.signal_mask(tid)
    # A step reports itself by a SIGTRAP that is forced, which unblocks it. A handler's return sets the mask too.
    ptrace.set_signal_mask(tid, ALL_SIGNALS)
    while is_inside(ptrace.registers(tid).rip):
        threads.step(tid)
    ptrace.set_signal_mask(tid, mask)


# What is in its memory


def _restore_code(tid: int, plan: Plan) -> None:
    memory = vm.ForcedMemory(tid)
    try:
        for point in plan.armed:
            _restore_byte(memory, point.address, point.original)
    finally:
        memory.close()


def _restore_byte(memory: vm.ForcedMemory, address: int, original: int) -> None:
    try:
        if memory.read(address, 1) == INT3:
            memory.write(address, bytes([original]))
    except RemoteFault:
        # The library was unmapped, and the breakpoint with it.
        return


def _restore_rest(threads: Threads, tid: int, plan: Plan, ledger: Ledger) -> None:
    mapped = {m.start for m in parse_maps(procfs.read(tid, "maps"))}
    there = [annex for annex in plan.annexes if annex.start in mapped]
    if not there:
        return
    remote = RemoteSyscalls(threads, ledger, there[0].gadget)
    with remote.borrow(tid) as thread:
        if plan.old_action:
            _write_forced(tid, there[0].end - len(plan.old_action), plan.old_action)
            thread.call("rt_sigaction", SIGTRAP, there[0].end - len(plan.old_action), 0, 8)
        thread.gadget = syscall_instruction(tid)
        for annex in there:
            thread.call("munmap", annex.start, annex.end - annex.start)


def _write_forced(pid: int, address: int, data: bytes) -> None:
    memory = vm.ForcedMemory(pid)
    try:
        memory.write(address, data)
    finally:
        memory.close()


def syscall_instruction(pid: int) -> int:
    """The address of a `syscall` in the kernel's vdso, which every process has. Raises NotPossible."""
    vdso = _vdso(parse_maps(procfs.read(pid, "maps")), pid)
    at = vm.read(pid, vdso.start, vdso.end - vdso.start).find(b"\x0f\x05")
    if at < 0:
        raise NotPossible("its vdso holds no system call instruction", where=f"pid {pid}")
    return vdso.start + at


def _vdso(mappings: list[Mapping], pid: int) -> Mapping:
    for mapping in mappings:
        if mapping.path == SPECIAL[0]:
            return mapping
    raise NotPossible("has no vdso (the kernel runs with vdso=0)", where=f"pid {pid}")
