"""The uprobe trap: guards that the kernel decides at the entries of split points (bpf/trap.c), without a stop.

A call whose guard says no is counted there, and goes on. Any other has left its registers in a record, and its thread
stops for a SIGURG of ours, the first instruction executed: it is put back before that (`Uprobes.take`), and from there on
it is a call like any that met a breakpoint. So the first instruction must be one that can be undone: it changes registers
as `entry.compile_emulation` tells, and of memory only the stack below rsp, where nothing lives at an entry.

The kernel's int3 ends with our descriptors, however we end. A thread that blocks SIGURG does not stop, and its call runs at
home.
"""

import ctypes
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from capstone import x86

from radium.bpf import guard, links
from radium.bpf.maps import Map
from radium.bpf.program import Programs, source
from radium.core.mapping import Mapping, parse_maps
from radium.core.regs import U64, Registers
from radium.errors import NotPossible, RemoteFault, TraceeGone
from radium.linux import ptrace
from radium.profiles.schema import Profile
from radium.profiles.schema import Split as ProfileSplit
from radium.report import SplitReport
from radium.tracer.breakpoint import INT3, Breakpoint, Breakpoints, TraceeMemory
from radium.tracer.entry import FirstInstruction, compile_emulation, decode_first
from radium.tracer.resolve import SplitPoint
from radium.tracer.stops import Threads

Trap = Literal["auto", "breakpoint", "uprobe"]
BLOCKED = "unsupported:SIGURG"
# So many rejected calls cost as much with a breakpoint as it takes to compile their guard.
WORTH_IT = 2000
# Of trap.c: arbitrary, a megabyte of counters.
_NSLOTS, _NSTRIPES = 1024, 16
# trap.c, struct count: rejected, missed.
_COUNT_NBYTES = 16
# trap.c, struct record: the slot, and struct pt_regs, which begins as the registers of ptrace do.
_RECORD = struct.Struct("<22Q")
_NREGS = 21
# include/linux/proc_ns.h: PROC_PID_INIT_INO
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
# A nop of five bytes, which Linux 6.18 replaces by a call of a page that it maps for that, and leaves there.
_REPLACED = bytes.fromhex("0f1f440000")
_BEHIND = ("rip", "rsp", "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16)))


def compile_programs(functions: str) -> Programs:
    """functions: C text, over the macros of guard.c and the ends of trap.c. Raises NotPossible."""
    defines = [f"NSLOTS={_NSLOTS}", f"NSTRIPES={_NSTRIPES}", *_namespace_defines()]
    programs = Programs(source("guard") + source("trap") + functions, defines)
    if not links.has_uprobe_multi():
        programs.close()
        raise NotPossible("this kernel cannot attach many of them at once (uprobe_multi, Linux 6.6)")
    return programs


class _Counts:
    """What the programs have counted, read without a system call."""

    def __init__(self, programs: Programs) -> None:
        nbytes = _NSLOTS * _NSTRIPES * _COUNT_NBYTES
        self._map = mmap.mmap(programs.map("counts").fd, nbytes, mmap.MAP_SHARED, mmap.PROT_READ)
        self._words = memoryview(self._map).cast("Q")

    def of(self, slot: int) -> tuple[int, int]:
        """Calls that their guard has rejected, and calls whose thread did not stop for them."""
        return sum(self._words[2 * slot :: 2 * _NSLOTS]), sum(self._words[2 * slot + 1 :: 2 * _NSLOTS])

    def close(self) -> None:
        self._words.release()
        self._map.close()


def try_out() -> str:
    """A uprobe on a function of this process, whose guard rejects a call; what came of it. Raises NotPossible."""
    programs = compile_programs("int trap_0(struct pt_regs *ctx)\n{\n\tNO\n}\n")
    counts = _Counts(programs)
    function = ctypes.CDLL(None).labs
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    mapping = next(m for m in parse_maps(Path("/proc/self/maps").read_bytes()) if m.start <= address < m.end)
    try:
        program = programs.load("trap_0", "uprobe_multi")
        offset = address - mapping.start + mapping.offset
        link = links.uprobes(program, _path(os.getpid(), mapping), [offset], [0], os.getpid())
        function(1)
        link.close()
        if counts.of(0) != (1, 0):
            raise NotPossible(f"a call that a guard rejected was counted {counts.of(0)[0]} times")
        return "a guard rejected a call of ours"
    finally:
        counts.close()
        programs.close()


class _Unit(NamedTuple):
    """Guards that were compiled together. numbers: of their programs, by what they do."""

    programs: Programs
    records: Map
    counts: _Counts
    numbers: dict[str, int]

    @classmethod
    def compile(cls, bodies: Sequence[str]) -> "_Unit":
        """Raises NotPossible."""
        functions = "".join(
            f"int trap_{number}(struct pt_regs *ctx)\n{{\n{body}}}\n" for number, body in enumerate(bodies)
        )
        programs = compile_programs(functions)
        numbers = {body: number for number, body in enumerate(bodies)}
        return cls(programs, programs.map("records"), _Counts(programs), numbers)

    def close(self) -> None:
        self.counts.close()
        self.programs.close()


class KernelGuards:
    """The programs of a job's guards, and what they have counted; one for all its processes.

    Compiling takes a quarter of a second: with `auto` a function has a breakpoint until its guard has rejected WORTH_IT calls.
    trap: what was asked for; unavailable: why the kernel decides no guard of this job, "" if nothing is known against it.
    """

    def __init__(self, profiles: Iterable[Profile], trap: Trap, say: Callable[[str], None]) -> None:
        """say is told, once, why there are no uprobes although there could be some."""
        self.trap = trap
        self.unavailable = ""
        self._say = say
        self._units: list[_Unit] = []
        self._bodies: dict[int, str] = {}
        self._refused: dict[int, str] = {}
        self._loaded: dict[str, int] = {}
        self._slots: dict[tuple[str, str], int] = {}
        self._reports: dict[int, SplitReport] = {}
        self._counted: dict[int, tuple[int, int]] = {}
        for split in (split for profile in profiles for split in profile.splits):
            try:
                self._bodies[id(split)] = self._body(split)
            except NotPossible as error:
                self._refused[id(split)] = error.what

    def _body(self, split: ProfileSplit) -> str:
        if self.trap == "breakpoint":
            raise NotPossible("--trap breakpoint asks for it")
        if split.python:
            raise NotPossible("its calls go through a gate in the interpreter")
        if split.guard is not None:
            return guard.body(split.guard, split.signature)
        if self.trap == "auto":
            raise NotPossible("it has no guard that could reject calls")
        return "\tYES\n"

    def compile(self, splits: Iterable[ProfileSplit]) -> None:
        """The guards of these that there are no programs of yet."""
        known = {body for unit in self._units for body in unit.numbers}
        bodies = dict.fromkeys(body for split in splits if (body := self._bodies.get(id(split))) and body not in known)
        if not bodies or self.unavailable:
            return
        try:
            self._units.append(_Unit.compile(list(bodies)))
        except NotPossible as error:
            self.unavailable = error.what
            self._say(f"breakpoints are used, not uprobes: {error}")

    def could_decide(self, split: ProfileSplit) -> bool:
        """Whether it is worth a try to have its guard decided by the kernel."""
        return id(split) in self._bodies and not self.unavailable

    def program_of(self, split: ProfileSplit) -> int:
        """The program that decides its guard. Raises NotPossible, with the reason why a breakpoint does it."""
        if id(split) in self._refused:
            raise NotPossible(self._refused[id(split)])
        if self.unavailable:
            raise NotPossible(self.unavailable)
        body = self._bodies[id(split)]
        unit = next((unit for unit in self._units if body in unit.numbers), None)
        if unit is None:
            raise NotPossible("its guard has not rejected many calls")
        if body not in self._loaded:
            try:
                self._loaded[body] = unit.programs.load(f"trap_{unit.numbers[body]}", "uprobe_multi")
            except NotPossible as error:
                self._refused[id(split)] = error.what
                raise
        return self._loaded[body]

    def has_record(self, tid: int) -> bool:
        """Whether the thread has met a uprobe, and that has not been looked at."""
        key = tid.to_bytes(4, "little")
        return any(unit.records.get(key) is not None for unit in self._units)

    def take_record(self, tid: int) -> bytes | None:
        """What it has left there, which is there no more."""
        key = tid.to_bytes(4, "little")
        found = [raw for unit in self._units if (raw := unit.records.take(key)) is not None]
        return found[-1] if found else None

    def slot_of(self, name: str, stance: str) -> int:
        """Where the calls of this split point are counted. Raises NotPossible when all places are taken."""
        if (name, stance) not in self._slots and len(self._slots) == _NSLOTS:
            raise NotPossible(f"{_NSLOTS} functions have uprobes already")
        return self._slots.setdefault((name, stance), len(self._slots))

    def count_into(self, report: SplitReport) -> None:
        """What is counted for its split point belongs there."""
        self._reports[self.slot_of(report.name, report.stance)] = report

    def count(self) -> None:
        """Tells the reports what has been counted since the last time."""
        for slot, report in self._reports.items():
            rejected, missed = map(sum, zip(*(unit.counts.of(slot) for unit in self._units), strict=True))
            before = self._counted.get(slot, (0, 0))
            report.count_local("guard", rejected - before[0])
            report.count_local(BLOCKED, missed - before[1])
            self._counted[slot] = rejected, missed

    def count_missed(self, slot: int) -> None:
        """A call whose thread did not stop for it."""
        if slot in self._reports:
            self._reports[slot].count_local(BLOCKED)

    def close(self) -> None:
        self.count()
        while self._units:
            self._units.pop().close()
        self._reports.clear()


def _namespace_defines() -> list[str]:
    """For a BPF program to know threads as we do: without them it tells the ids that they have in the first pid namespace."""
    ours = os.stat("/proc/self/ns/pid")
    if ours.st_ino == _FIRST_PID_NAMESPACE:
        return []
    return [f"NAMESPACE_DEVICE={ours.st_dev}", f"NAMESPACE_INODE={ours.st_ino}"]


def _check_namespace(pid: int) -> None:
    """The kernel tells ids in a namespace only of those that are in that one itself."""
    ours, its = (os.stat(f"/proc/{whose}/ns/pid").st_ino for whose in ("self", pid))
    if ours not in (_FIRST_PID_NAMESPACE, its):
        raise NotPossible("it is in another pid namespace than radium, which is in none of the machine's own")


class Place(NamedTuple):
    """Where the uprobe of a function lies: before `first`. text: what is done there, for people."""

    first: FirstInstruction
    text: str


def find_place(code: bytes, entry: int, *, only_emulated: bool) -> Place:
    """The instruction that the uprobe's int3 takes the place of. Raises NotPossible.

    Behind endbr64, which the kernel cannot emulate, when that is followed by what it can: nothing jumps between the two.
    only_emulated: nothing that the kernel would have to step through, in a page that it maps into the process for that.
    """
    first = decode_first(code, entry)
    if first.insn.id == x86.X86_INS_ENDBR64:
        with_push = decode_first(code[first.length :], first.after)
        first = with_push if _is_push(with_push.raw) else first
    if first.raw == _REPLACED:
        raise NotPossible(f"the kernel would replace its first instruction ({first.text}) for good")
    if is_emulated(first):
        return Place(first, f"its first instruction ({first.insn.mnemonic}) is emulated by the kernel")
    if only_emulated:
        raise NotPossible(f"the kernel does not emulate its first instruction ({first.text})")
    if first.insn.id == x86.X86_INS_RET or compile_emulation(first) is None:
        raise NotPossible(f"its first instruction ({first.text}) cannot be undone")
    return Place(first, f"its first instruction ({first.insn.mnemonic}) is stepped by the kernel")


def is_emulated(first: FirstInstruction) -> bool:
    """By the kernel, and can be undone: push, jmp, call and nop (arch/x86/kernel/uprobes.c, *_setup_xol_ops)."""
    raw = first.raw
    return _is_push(raw) or raw == b"\x90" or (raw[0], len(raw)) in ((0xEB, 2), (0xE9, 5), (0xE8, 5))


def _is_push(raw: bytes) -> bool:
    """Of a register."""
    short = raw[1:] if raw[:1] == b"\x41" else raw
    return len(short) == 1 and 0x50 <= short[0] < 0x58


class _Reading(TraceeMemory):
    """What an instruction writes has been written already."""

    def write(self, address: int, data: bytes) -> None:
        return


def registers_behind(point: Breakpoint, before: Registers, memory: TraceeMemory) -> Registers:
    """What the first instruction makes of `before`. Raises RemoteFault."""
    after = before.copy()
    if point.emulator is not None:
        point.emulator(after, memory)
    else:
        after.rsp, after.rip = (after.rsp - 8) & U64, point.first.insn.operands[0].imm & U64
    return after


@dataclass
class _Linked:
    """Functions of one file that have one guard. Their places are those of `points`."""

    program: int
    points: list[Breakpoint]
    slots: list[int]
    mapping: Mapping
    link: links.Link | None = None


def _path(pid: int, mapping: Mapping) -> str:
    """The mapped file itself, also when it was deleted, or lies in another file system. Raises NotPossible."""
    for path in (f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}", f"/proc/{pid}/root{mapping.path}"):
        try:
            if os.stat(path).st_ino == mapping.inode:
                return path
        except OSError:
            continue
    raise NotPossible("its file cannot be reached", where=mapping.path)


class Uprobes:
    """Those of one process. Its threads are stopped in every method but `is_there`, `take` and `forget`."""

    def __init__(self, guards: KernelGuards, threads: Threads, breakpoints: Breakpoints) -> None:
        self.guards = guards
        self.threads = threads
        self.pid = threads.pid
        self.breakpoints = breakpoints
        self.reasons: dict[int, str] = {}
        self._linked: list[_Linked] = []
        self._by_place: dict[int, Breakpoint] = {}
        self._memory = _Reading(self.pid)

    def copy_for(self, threads: Threads, breakpoints: Breakpoints) -> "Uprobes":
        """Those of a forked child. It has the kernel's int3 in its memory, which does nothing without a link of its own.

        Raises NotPossible.
        """
        copy = Uprobes(self.guards, threads, breakpoints)
        for linked in self._linked:
            copy._link(_Linked(linked.program, linked.points, linked.slots, linked.mapping))
        return copy

    # Arming

    def arm(self, points: Sequence[SplitPoint], mappings: Sequence[Mapping]) -> dict[int, str]:
        """A uprobe at each where that can be now. By address: why the others have none."""
        if self.guards.trap == "uprobe":
            self.guards.compile(point.split for point in points)
        refused: dict[int, str] = {}
        groups: dict[tuple[int, str, int], _Linked] = {}
        for point in points:
            try:
                self._prepare(point, mappings, groups)
            except (NotPossible, RemoteFault) as error:
                refused[point.address] = error.what
        for linked in groups.values():
            try:
                self.breakpoints.add_probed(linked.points)
                self._link(linked)
            except NotPossible as error:
                self._unlink(linked)
                refused |= {point.entry: error.what for point in linked.points}
        return refused

    def _prepare(
        self, point: SplitPoint, mappings: Sequence[Mapping], groups: dict[tuple[int, str, int], _Linked]
    ) -> None:
        program = self.guards.program_of(point.split)
        _check_namespace(self.pid)
        mapping = next((m for m in mappings if m.start <= point.address < m.end), None)
        if mapping is None or not mapping.inode or mapping.shared:
            raise NotPossible("it lies in no mapped file")
        if self.breakpoints.at(point.address):
            raise NotPossible("there is a breakpoint already")
        code = self.breakpoints.code(point.address)
        place = find_place(code, point.address, only_emulated=self.guards.trap == "auto")
        slot = self.guards.slot_of(point.name, point.split.stance)
        breakpoint = self.breakpoints.prepare(point.address, place.first, mappings)
        group = groups.setdefault((program, mapping.device, mapping.inode), _Linked(program, [], [], mapping))
        group.points.append(breakpoint)
        group.slots.append(slot)
        self.reasons[point.address] = place.text

    def _link(self, linked: _Linked) -> None:
        """Raises NotPossible when not all of them are there afterwards."""
        mapping = linked.mapping
        offsets = [point.first.address - mapping.start + mapping.offset for point in linked.points]
        linked.link = links.uprobes(linked.program, _path(self.pid, mapping), offsets, linked.slots, self.pid)
        self._linked.append(linked)
        self._by_place |= {point.first.address: point for point in linked.points}
        self.threads.hits = self
        if any(self.breakpoints.memory.read(point.first.address, 1)[0] != INT3 for point in linked.points):
            raise NotPossible("the kernel has put no uprobe there", where=mapping.path)

    def _unlink(self, linked: _Linked) -> None:
        if linked.link is not None:
            linked.link.close()
        if linked in self._linked:
            self._linked.remove(linked)
        for point in linked.points:
            self._by_place.pop(point.first.address, None)
        self.breakpoints.forget([point.entry for point in linked.points])

    def let_past(self) -> None:
        """Threads between an entry and its uprobe were decided at a breakpoint that was there: they go on behind it."""
        for tid in self.threads.threads:
            regs = ptrace.registers(tid)
            point = self._by_place.get(regs.rip)
            if point is not None and regs.rip != point.entry:
                self.breakpoints.pass_locally(tid, point, regs)

    def forget(self, entries: Sequence[int]) -> None:
        """These went with the library that they were in, and all others that it had with the same guard."""
        gone = set(entries)
        for linked in [linked for linked in self._linked if gone & {point.entry for point in linked.points}]:
            self._unlink(linked)

    def close(self) -> None:
        """The program's code is as it was, and no SIGURG of ours is on its way. For a process that has ended, too."""
        for linked in list(self._linked):
            self._unlink(linked)
        if self.threads.hits is self:
            self.threads.swallow_urgent()
            self.threads.hits = None

    # Calls that were noticed

    def is_there(self, tid: int) -> bool:
        return self.guards.has_record(tid)

    def take(self, tid: int) -> int | None:
        """None: the thread has met nothing. Else it is put back to the entry that it has just met, and that is told.

        0: it has met one and gone on, because it blocks SIGURG; the call is counted.
        """
        raw = self.guards.take_record(tid)
        if raw is None:
            return None
        slot, *words = _RECORD.unpack(raw)
        try:
            entry = self._put_back(tid, words)
        except TraceeGone:
            return 0
        if not entry:
            self.guards.count_missed(slot)
        return entry

    def _put_back(self, tid: int, words: list[int]) -> int:
        now = Registers.unpack(ptrace.raw_registers(tid))
        before = Registers.unpack(struct.pack(f"<{_NREGS}Q", *words) + now.pack()[8 * _NREGS :])
        point = self._by_place.get(before.rip)
        if point is None or not self._is_just_behind(point, before, now):
            return 0
        before.rip, before.orig_rax = point.entry, now.orig_rax
        ptrace.set_registers(tid, before)
        return point.entry

    def _is_just_behind(self, point: Breakpoint, before: Registers, now: Registers) -> bool:
        """Whatever else is true of the record: undoing the first instruction leads there, and nothing is lost by it."""
        try:
            behind = registers_behind(point, before, self._memory)
        except RemoteFault:
            return False
        return all(getattr(behind, name) == getattr(now, name) for name in _BEHIND)

    def forget_thread(self, tid: int) -> None:
        """It has ended."""
        raw = self.guards.take_record(tid)
        if raw is not None:
            self.guards.count_missed(_RECORD.unpack(raw)[0])
