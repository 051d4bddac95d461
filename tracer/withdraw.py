"""Taking everything of radium's out of a process whose threads are stopped: at detach, in a forked child, after a kill.

It works from the ledger's plan alone, so that the guardian can do it too. Order: threads out of the annex, code bytes,
signal disposition, mappings; each step may be done again.
"""


from radium.core.mapping import SPECIAL, Mapping, parse_maps
from radium.core.regs import Registers
from radium.errors import NotPossible, RemoteFault
from radium.linux import procfs, ptrace, vm
from radium.tracer.annex import SIGTRAP
from radium.tracer.ledger import Ledger, Plan
from radium.tracer.remote_syscall import RemoteSyscalls
from radium.tracer.stops import Threads

INT3 = b"\xcc"


class StillInside(Exception):
    """A thread is in the middle of radium's code and must first be run on."""


def withdraw(threads: Threads, plan: Plan, ledger: Ledger) -> None:
    """Raises StillInside (nothing was changed), TraceeGone."""
    moved = {tid: _outside(threads, plan, tid) for tid in threads.threads}
    for tid, regs in moved.items():
        if regs is not None:
            ptrace.set_registers(tid, regs)
    _restore_code(threads.pid, plan)
    _restore_rest(threads, plan, ledger)


def _outside(threads: Threads, plan: Plan, tid: int) -> Registers | None:
    """The registers with which the thread goes on without breakpoints and annex; None if they are right as they are."""
    regs = ptrace.registers(tid)
    trapped = any(stop.tid == tid and stop.kind == "trap" for stop in threads.pending)
    if trapped and any(point.address == regs.rip - 1 for point in plan.armed):
        regs.rip -= 1
        return regs
    for annex in plan.annexes:
        if annex.start <= regs.rip < annex.end:
            target = dict(annex.resume).get(regs.rip)
            if target is None:
                raise StillInside
            regs.rip = target
            return regs
    return None


def _restore_code(pid: int, plan: Plan) -> None:
    memory = vm.ForcedMemory(pid)
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


def _restore_rest(threads: Threads, plan: Plan, ledger: Ledger) -> None:
    if not plan.annexes:
        return
    mapped = {m.start for m in parse_maps(procfs.read(threads.pid, "maps"))}
    there = [annex for annex in plan.annexes if annex.start in mapped]
    if not there:
        return
    remote = RemoteSyscalls(threads, ledger, syscall_instruction(threads.pid))
    with remote.borrow(next(iter(threads.threads))) as thread:
        if plan.old_action:
            _write_forced(threads.pid, there[0].end - len(plan.old_action), plan.old_action)
            thread.call("rt_sigaction", SIGTRAP, there[0].end - len(plan.old_action), 0, 8)
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


