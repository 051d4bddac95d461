"""The breakpoint trap: int3 at the entries of split points, in every thread.

A breakpoint is armed and disarmed only while all threads are stopped. A call that stays local passes it without lifting
it (entry.py). What they hide is told by `patches`.

Invariant: the ledger names a breakpoint before its int3 is written, and forgets it after the byte is back.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from radium.core.addr import PAGE_SIZE, USER_END
from radium.core.mapping import Mapping
from radium.core.pages import Run, normalise, subtract
from radium.core.regs import Registers
from radium.errors import NotPossible, RemoteFault
from radium.linux import procfs, ptrace, vm
from radium.tracer.annex import PARK_SYSCALL, SIGTRAP, Annex
from radium.tracer.entry import MAX_INSTRUCTION_NBYTES, Emulator, FirstInstruction, compile_emulation, decode_first
from radium.tracer.ledger import AnnexPlan, Armed, Gadget, GatesPlan, Ledger, Plan
from radium.tracer.patches import Patches
from radium.tracer.remote_syscall import RemoteSyscalls
from radium.tracer.stops import Threads

INT3 = 0xCC
ANNEX_NBYTES = 8 * PAGE_SIZE
# Behind an annex: a page for the structures of its own system calls.
ANNEX_MAPPED_NBYTES = ANNEX_NBYTES + PAGE_SIZE
# rel32 operands of relocated copies reach 2 GiB; half of that leaves room for the library itself.
REACH = 1 << 30
SIGACTION_NBYTES = 32
_CODE_NBYTES = 4 + MAX_INSTRUCTION_NBYTES
# In a signal mask.
TRAP = 1 << (SIGTRAP - 1)
MAP_FIXED_NOREPLACE_ANONYMOUS = 0x100000 | 0x22
LOWEST = 0x110000


@dataclass
class Breakpoint:
    """first: the instruction that int3 hides; at the entry, or behind an endbr64 there."""

    entry: int
    first: FirstInstruction
    emulator: Emulator | None
    copy: int | None


class TraceeMemory:
    """What an emulated instruction reads and writes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def read(self, address: int, nbytes: int) -> bytes:
        return vm.read(self.pid, address, nbytes)

    def write(self, address: int, data: bytes) -> None:
        vm.write(self.pid, address, data)


class Breakpoints:
    """All breakpoints of one tracee, and its annexes. Threads are stopped in every method but `at`."""

    def __init__(self, threads: Threads, remote: RemoteSyscalls | None, ledger: Ledger) -> None:
        """remote: None when the tracee lets us make no system calls: then there is no annex."""
        self.threads = threads
        self.pid = threads.pid
        self.remote = remote
        self._outside = remote.gadget if remote else Gadget(0)
        self.ledger = ledger
        self.memory = vm.ForcedMemory(self.pid)
        self.plain = TraceeMemory(self.pid)
        self.annexes: list[Annex] = []
        self.patches = Patches()
        self._points: dict[int, Breakpoint] = {}
        # Where the kernel has an int3 of its own: it is no business of ours to write or withdraw it.
        self._probed: dict[int, Breakpoint] = {}
        self._old_action = b""
        self._unblocked: dict[int, int] = {}
        self._opening: list[int] | None = None
        self._gates: GatesPlan | None = None

    def copy_for(self, threads: Threads, remote: RemoteSyscalls | None, ledger: Ledger, forked_by: int) -> "Breakpoints":
        """Those of a child that a thread of this tracee has forked: it has all of them in its memory already."""
        copy = Breakpoints(threads, remote, ledger)
        copy.annexes = [annex.copy() for annex in self.annexes]
        copy.patches = self.patches.copy()
        copy._points = {entry: replace(point) for entry, point in self._points.items()}
        copy._probed = dict(self._probed)
        copy._outside, copy._old_action, copy._gates = self._outside, self._old_action, self._gates
        if forked_by in self._unblocked:
            copy._unblocked = {threads.pid: self._unblocked[forked_by]}
        threads.entries.update(copy._points)
        copy._note()
        return copy

    def at(self, entry: int) -> Breakpoint | None:
        return self._points.get(entry) or self._probed.get(entry)

    @property
    def reserved(self) -> list[Run]:
        """Mappings of radium's own in the tracee."""
        return normalise((a.range.start, a.range.start + ANNEX_MAPPED_NBYTES) for a in self.annexes)

    # Arming

    def arm(self, entries: Sequence[int], mappings: Sequence[Mapping]) -> dict[int, str]:
        """int3 at each entry. Returns, for those that cannot have one, the reason."""
        refused: dict[int, str] = {}
        points: list[Breakpoint] = []
        for entry in entries:
            if entry in self._points:
                continue
            try:
                points.append(self.prepare(entry, decode_first(self.code(entry), entry), mappings))
            except (NotPossible, RemoteFault) as error:
                refused[entry] = str(error)
        self._write_annexes()
        for point in points:
            self._points[point.entry] = point
            self.patches.put(point.entry, bytes([INT3]), point.first.raw[:1])
        self.threads.entries.update(self._points)
        self._note()
        for point in points:
            self.memory.write(point.entry, bytes([INT3]))
        return refused

    def add_probed(self, points: Sequence[Breakpoint]) -> None:
        """The kernel is about to put its int3 there, which is none of ours."""
        self._write_annexes()
        for point in points:
            self._probed[point.entry] = point
            self.patches.put(point.first.address, bytes([INT3]), point.first.raw[:1])
        self._note()

    def prepare(self, entry: int, first: FirstInstruction, mappings: Sequence[Mapping]) -> Breakpoint:
        """What it takes to pass that instruction, which is not in the tracee yet. Raises NotPossible, RemoteFault."""
        emulator = compile_emulation(first)
        copy = None
        if self.remote is not None:
            copy = self._annex_near(entry, mappings).add(first)
        elif emulator is None:
            raise NotPossible(
                f"its first instruction ({first.text}) can be passed only with the help of system calls in the tracee, "
                "which its seccomp filter refuses",
                where=f"pid {self.pid}, {entry:#x}",
            )
        return Breakpoint(entry, first, emulator, copy)

    def code(self, entry: int) -> bytes:
        """What there is, at most as much as an endbr64 and an instruction take. Raises RemoteFault."""
        in_page = PAGE_SIZE - entry % PAGE_SIZE
        try:
            return self.memory.read(entry, _CODE_NBYTES)
        except RemoteFault:
            if in_page >= _CODE_NBYTES:
                raise
            return self.memory.read(entry, in_page)

    def _annex_near(self, entry: int, mappings: Sequence[Mapping]) -> Annex:
        for annex in self.annexes:
            if abs(annex.range.start - entry) < REACH and annex.has_room:
                return annex
        return self._map_annex(entry, mappings)

    def _map_annex(self, entry: int, mappings: Sequence[Mapping]) -> Annex:
        """Only the first call is made from elsewhere: in the annex, a thread whose radium dies parks."""
        base = free_place(mappings, self.reserved, entry, ANNEX_MAPPED_NBYTES)
        remote = self._remote()
        data = base + ANNEX_NBYTES
        tid = self._any_thread()
        annex = Annex(base, ANNEX_NBYTES)
        with remote.borrow(tid) as thread:
            self.annexes.append(annex)
            self._note()
            thread.call("mmap", base, ANNEX_MAPPED_NBYTES, 5, MAP_FIXED_NOREPLACE_ANONYMOUS, -1, 0)
            self.memory.write(base, annex.image())
            remote.gadget = Gadget(self.annexes[0].park + PARK_SYSCALL, self.annexes[0].park)
            thread.use(remote.gadget)
            thread.call("mprotect", data, PAGE_SIZE, 3)
            thread.call("rt_sigaction", SIGTRAP, 0, data, 8)
            old = self.memory.read(data, SIGACTION_NBYTES)
            handler, flags = (int.from_bytes(old[i : i + 8], "little") for i in (0, 8))
            annex.chain_to(handler, flags)
            self._write_annexes()
            self._old_action = self._old_action or old
            self._note()
            self.memory.write(data, annex.kernel_sigaction())
            thread.call("rt_sigaction", SIGTRAP, data, 0, 8)
        self.keep_handler(self.threads.threads)
        return annex

    def keep_handler(self, tids: Iterable[int]) -> None:
        """Lets no stopped thread block SIGTRAP while we are there: annex.py, Beware, says what an int3 would do then.

        If one has met an int3 already, that has unblocked the signal and taken our handler away, which is put back.
        """
        masks = {tid: mask for tid in tids if (mask := ptrace.signal_mask(tid))}
        if not self.annexes or not masks:
            return
        is_caught = self._is_caught()
        changed = {tid: mask & ~TRAP for tid, mask in masks.items() if mask & TRAP or not is_caught}
        if changed:
            self._unblocked.update(changed)
            self._note()
        for tid, mask in changed.items():
            ptrace.set_signal_mask(tid, mask)
        if not is_caught:
            with self._remote().borrow(next(iter(masks))) as thread:
                thread.call("rt_sigaction", SIGTRAP, self.annexes[-1].range.end, 0, 8)

    def _is_caught(self) -> bool:
        return bool(int(procfs.status(self.pid)["SigCgt"], 16) & TRAP)

    def _remote(self) -> RemoteSyscalls:
        assert self.remote is not None
        return self.remote

    def _any_thread(self) -> int:
        """A stopped thread, if possible one that has nothing else to do first."""
        stopped = [thread for thread in self.threads.threads.values() if not thread.is_running and not thread.is_guest]
        return min(stopped, key=lambda thread: not thread.is_free).tid

    def _write_annexes(self) -> None:
        for annex in self.annexes:
            for address, piece in annex.pending():
                self.memory.write(address, piece)

    # Passing and forgetting

    def pass_locally(self, tid: int, point: Breakpoint, regs: Registers) -> None:
        """Sends the thread, stopped at the entry with `regs`, past the breakpoint; it is not resumed."""
        regs.rip = point.entry
        if point.emulator is not None:
            try:
                point.emulator(regs, self.plain)
            except RemoteFault:
                if point.copy is None:
                    raise
                regs.rip = point.copy
        elif point.copy is not None:
            regs.rip = point.copy
        ptrace.set_registers(tid, regs)

    def leave_copy(self, tid: int) -> None:
        """The thread is about to enter a signal's handler, from which it must not come back into an annex: that may be gone."""
        regs = ptrace.registers(tid)
        annex = next((annex for annex in self.annexes if regs.rip in annex.range), None)
        target = annex.resume_address(regs.rip) if annex else None
        if target is not None:
            regs.rip = target
            ptrace.set_registers(tid, regs)

    def disarm(self, entries: Sequence[int]) -> None:
        """The code is there again. A thread that has met one of them, and is to be told, stands before it.

        Its SIGTRAP may be waiting still: an interrupt stops a thread before its signals are looked at (get_signal in
        kernel/signal.c). So what was an entry goes on being known as one.
        """
        for entry in entries:
            if entry in self._points:
                self.memory.write(entry, self.patches.original(entry))
        self._remove(entries)

    def forget(self, entries: Sequence[int]) -> None:
        """These breakpoints went with the memory that they were in."""
        self._remove(entries)
        self.threads.entries.difference_update(entries)

    def _remove(self, entries: Sequence[int]) -> None:
        probed = [self._probed.pop(entry).first.address for entry in entries if entry in self._probed]
        for entry in entries:
            self._points.pop(entry, None)
        self.patches.remove([*entries, *probed])
        self._note()

    def forget_in(self, runs: Sequence[Run]) -> None:
        """What was mapped here is mapped no more, or something else is."""
        gone = [entry for entry in (*self._points, *self._probed) if any(start <= entry < end for start, end in runs)]
        if gone:
            self.forget(gone)

    def note_opening(self, there: list[int] | None) -> None:
        """A userfaultfd is about to be made in the tracee, which has these already; None: it has been closed again."""
        self._opening = there
        self._note()

    def note_gates(self, gates: GatesPlan) -> None:
        """What there is of split Python functions from here on."""
        self._gates = gates
        self._note()

    def _note(self) -> None:
        self.ledger.note_plan(self.plan())

    def plan(self) -> Plan:
        """What there is to withdraw."""
        return Plan(
            self.pid,
            [Armed(entry, self.patches.original(entry)[0]) for entry in self._points],
            [
                AnnexPlan(a.range.start, a.range.start + ANNEX_MAPPED_NBYTES, a.park, a.resume_points())
                for a in self.annexes
            ],
            self._old_action,
            list(self._unblocked.items()),
            self._outside,
            self._gates,
            self._opening,
        )

    # Memory as the program sees it

    def keep_in(self, runs: Sequence[Run], data: memoryview) -> None:
        """Puts what is ours into the contents of `runs`, which are about to be written."""
        if self.patches.keep_in(runs, data):
            self._note()

    def close(self) -> None:
        self.memory.close()


def free_place(mappings: Sequence[Mapping], reserved: Sequence[Run], near: int, nbytes: int) -> int:
    """A hole for a mapping of radium's, as near to `near` as there is one, not next to anything else. Raises NotPossible."""
    used = normalise([(m.start - PAGE_SIZE, m.end + PAGE_SIZE) for m in mappings] + [(s, e) for s, e in reserved])
    holes = subtract([(LOWEST, USER_END - PAGE_SIZE * 2)], used)
    fitting = [(start, end) for start, end in holes if end - start >= nbytes]
    places = [min(max(near, start), end - nbytes) & ~(PAGE_SIZE - 1) for start, end in fitting]
    best = min(places, key=lambda place: abs(place - near), default=None)
    if best is None or abs(best - near) >= REACH:
        raise NotPossible("no room for radium's code within reach of the function", where=f"{near:#x}")
    return best
