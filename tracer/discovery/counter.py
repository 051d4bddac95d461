"""Calls of chosen functions of one process, counted by uprobes: how many, how long, by whom, with what arguments.

A function's entry is probed, and the places in its callers that it has been seen to return to. Probes of the kernel's for
returns (uretprobes) are not used: they replace return addresses on the stack, so a C++ exception that passes one ends the
program (no unwind table covers it), and so does a coroutine that returns on another thread. A probe at the place of return
has neither fault, and tail calls are seen as well; a call that never returns there is simply without a latency.

The budget: probes may take `BUDGET` of the tracee's CPU time. Functions that are too hot are armed for moments only.
"""

import ctypes
import math
import mmap
import os
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from radium.bpf import links, program
from radium.core.abi import EIGHTBYTE, Signature
from radium.core.regs import INTEGER_ARGUMENTS, Registers
from radium.errors import NotPossible, RemoteFault, TraceeGone
from radium.linux import procfs
from radium.linux.libc import syscall
from radium.tracer.discovery.symbols import CodeMap, Frame, Place

MAX_FUNCTIONS = 256
BUDGET = 0.05
# Moments of those that are too hot for it may bring the whole to no more than this: calls without end are no candidates.
_HOT_BUDGET = BUDGET / 2
# As count.c has them.
_NSTACK, _NCLASSES = 8, 48
_NVALUES = len(INTEGER_ARGUMENTS) + _NSTACK
_COUNTED = struct.Struct(f"<4Q{_NCLASSES}Q")
_OBSERVATION = struct.Struct(f"<3Q{_NVALUES}Q{_NVALUES}Q")
_CALL = struct.Struct("<4Q")
_PAIR, _U32, _U64 = struct.Struct("<2Q"), struct.Struct("<I"), struct.Struct("<Q")
_KEPT, _MAX_SITES, _CALLERS = 48, 2048, 8
# All are armed for so long first, to see which are too hot; then for twice as long each time, up to this.
_FIRST_S, _LOOK_S = 0.01, 0.1
# While a thread is in probes it makes no calls: without them it would make so many times more, at most.
_MOST_HINDERED = 20
# A function that is too hot is armed for so long, as often as the budget allows.
_MOMENT_S = 0.002
_CALIBRATIONS = 1000


@dataclass(frozen=True)
class Observation:
    """One call: its latency in ns, and its arguments as far as integer registers and the top of the stack tell them."""

    latency_ns: int
    _sp: int
    _values: tuple[int, ...]
    _pointed: Mapping[int, bytes]

    def bind(self, signature: Signature) -> Mapping[str, object]:
        """The arguments by name, as guards take them; what was not kept raises RemoteFault when it is asked for.

        Kept are 8 bytes at each argument that is a pointer; floating-point arguments are not.
        """
        regs = Registers(*[0] * 27)
        regs.rsp = self._sp
        for name, value in zip(INTEGER_ARGUMENTS, self._values, strict=False):
            setattr(regs, name, value)
        return signature.bind(regs, _no_xmm, self._read)

    def _read(self, address: int, nbytes: int) -> bytes:
        index, inside = divmod(address - self._sp - EIGHTBYTE, EIGHTBYTE)
        if 0 <= index < _NSTACK and not inside:
            return _U64.pack(self._values[len(INTEGER_ARGUMENTS) + index])[:nbytes]
        kept = self._pointed.get(address, b"")
        if len(kept) < nbytes:
            raise RemoteFault("memory that was not kept", where=f"{address:#x}")
        return kept[:nbytes]


def _no_xmm(number: int) -> bytes:
    raise RemoteFault("floating-point arguments were not kept", where=f"xmm{number}")


@dataclass
class Counted:
    """Of one function, while it was armed, `watched_s` seconds in all.

    calls: outermost ones only; entries: all. latency_ns: how many took from 2**i ns on to 2**(i + 1), of the `returned` ones
    that were seen to return, which took `total_s`. callers: by the names of reports. armed_always: it was not too hot.
    """

    calls: int
    entries: int
    returned: int
    total_s: float
    latency_ns: list[int]
    threads: int
    callers: dict[str, int]
    observations: list[Observation]
    watched_s: float
    armed_always: bool


@dataclass
class Counting:
    """overhead: share of the process's CPU time that the probes have taken. ended: the process has, or runs another program."""

    functions: dict[Frame, Counted]
    overhead: float
    ended: bool
    notes: list[str] = field(default_factory=list)


class _Costs(NamedTuple):
    """Seconds for one hit, by whether the kernel emulates the probed instruction or steps over it."""

    emulated: float
    stepped: float


class _Probe(NamedTuple):
    path: str
    offset: int
    cookie: int
    cost_s: float


@dataclass
class _Function:
    """One that is counted. hits and cost are of its entry and of the places that it returns to."""

    index: int
    frame: Frame
    entry: _Probe
    sites: dict[int, _Probe] = field(default_factory=dict)
    hot: bool = False
    watched_s: float = 0.0
    armed_at: float | None = None
    cost_s: float = 0.0


class _Links:
    """Some functions armed: the links of their entries and places of return."""

    def __init__(self, counter: "_Counter", functions: Sequence[_Function]) -> None:
        self.functions = functions
        self._counter = counter
        self._sites: set[int] = set()
        self._links = counter.attach(counter.entry_fd, [one.entry for one in functions])
        self.arm_sites()
        self.looked_at = time.monotonic()
        for one in functions:
            one.armed_at = self.looked_at

    def arm_sites(self) -> None:
        """Those that are not armed yet."""
        sites = {probe.cookie: probe for one in self.functions for probe in one.sites.values()}
        self._links += self._counter.attach(
            self._counter.return_fd, [probe for cookie, probe in sites.items() if cookie not in self._sites]
        )
        self._sites |= sites.keys()

    def close(self) -> None:
        for one in self.functions:
            if one.armed_at is not None:
                one.watched_s += time.monotonic() - one.armed_at
            one.armed_at = None
        for link in self._links:
            link.close()
        self._counter.forget_calls({one.index for one in self.functions})


class _Counter:
    def __init__(self, pid: int, frames: Sequence[Frame]) -> None:
        """Raises NotPossible, TraceeGone."""
        self.pid = pid
        self.notes: dict[str, None] = {}
        self._code = CodeMap(pid)
        self._code.refresh()
        self._exe = os.stat(f"/proc/{pid}/exe").st_ino
        self._site_cookies: dict[int, int] = {}
        self._refused: set[tuple[str, int]] = set()
        # The last function is ourselves, to see what a probe costs.
        defines = [f"NFUNCTIONS={len(frames) + 1}", f"NSITES={_MAX_SITES}", f"KEPT={_KEPT}"]
        self._programs = program.Programs(program.source("count"), defines)
        try:
            kind: program.Kind = "uprobe_multi" if links.has_uprobe_multi() else "uprobe"
            self.entry_fd, self.return_fd = (self._programs.load(name, kind) for name in ("on_entry", "on_return"))
            self._functions_map, self._sites_map = self._programs.map("functions"), self._programs.map("sites")
            self._costs = _calibrate(self.entry_fd, len(frames))
            self.functions = list(self._find(frames))
            self._cpu_before_s = self.cpu_s()
        except (NotPossible, TraceeGone):
            self._programs.close()
            raise

    def _find(self, frames: Sequence[Frame]) -> Iterable[_Function]:
        for index, frame in enumerate(frames):
            place = self._code.exported(frame)
            if place is None:
                self.notes[f"{frame.name} cannot be counted: it has no address in process {self.pid}"] = None
                continue
            yield _Function(index, frame, self._probe(place, index, is_entry=True))

    def _probe(self, place: Place, cookie: int, *, is_entry: bool = False) -> _Probe:
        code = _read(place.path, place.offset)
        # A landing mark is no instruction that the kernel emulates; nobody jumps behind it.
        skip = len(_ENDBR64) if is_entry and code.startswith(_ENDBR64) else 0
        emulated = _is_emulated(code[skip:])
        return _Probe(place.path, place.offset + skip, cookie, self._costs.emulated if emulated else self._costs.stepped)

    def attach(self, fd: int, probes: Iterable[_Probe]) -> list[links.Link]:
        """A link for each file; a place that the kernel refuses is left out and said."""
        by_path: defaultdict[str, list[_Probe]] = defaultdict(list)
        for probe in probes:
            if (probe.path, probe.offset) not in self._refused:
                by_path[probe.path].append(probe)
        return [link for path, group in by_path.items() for link in self._attach(fd, path, group)]

    def _attach(self, fd: int, path: str, group: list[_Probe]) -> list[links.Link]:
        try:
            offsets, cookies = [one.offset for one in group], [one.cookie for one in group]
            return [links.uprobes(fd, path, offsets, cookies, self.pid)]
        except NotPossible as error:
            if len(group) > 1:
                half = len(group) // 2
                return self._attach(fd, path, group[:half]) + self._attach(fd, path, group[half:])
            self._refused.add((path, group[0].offset))
            self.notes[f"{error} (at {group[0].offset:#x})"] = None
            return []

    def cpu_s(self) -> float:
        """Raises TraceeGone."""
        fields = procfs.stat_fields(self.pid)
        if fields[0] in "ZX":
            raise TraceeGone("process has ended", where=f"pid {self.pid}")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def check_program(self) -> None:
        """Raises TraceeGone after an exec."""
        try:
            inode = os.stat(f"/proc/{self.pid}/exe").st_ino
        except OSError:
            raise TraceeGone("process has ended", where=f"pid {self.pid}") from None
        if inode != self._exe:
            raise TraceeGone("runs another program now", where=f"pid {self.pid}")

    def share(self) -> float:
        """Of the process's CPU time until now that the probes have taken. Raises TraceeGone."""
        return self.cost_s() / max(self.cpu_s() - self._cpu_before_s, _LOOK_S / 10)

    def cost_s(self) -> float:
        return sum(one.cost_s for one in self.functions)

    def note_costs(self) -> dict[int, float]:
        """What each function's probes have taken since we looked last, by its index."""
        more = {}
        for one in self.functions:
            before = one.cost_s
            one.cost_s = self._entries(one.index) * one.entry.cost_s
            for probe in one.sites.values():
                hits = _U64.unpack(self._sites_map.get(_U32.pack(probe.cookie)) or bytes(8))[0]
                one.cost_s += hits * probe.cost_s / max(self._site_users(probe.cookie), 1)
            more[one.index] = one.cost_s - before
        return more

    def _site_users(self, cookie: int) -> int:
        return sum(any(probe.cookie == cookie for probe in one.sites.values()) for one in self.functions)

    def _entries(self, index: int) -> int:
        return _COUNTED.unpack(self._functions_map.get(_U32.pack(index)) or bytes(_COUNTED.size))[0]

    def find_sites(self) -> None:
        """Notes new places that functions return to: those of their most frequent callers."""
        callers = self._pairs("callers")
        for one in self.functions:
            for address, _ in callers[one.index].most_common(_CALLERS):
                if address not in one.sites and len(one.sites) < _CALLERS:
                    self._add_site(one, address)

    def _add_site(self, one: _Function, address: int) -> None:
        place = self._code.place_of(address)
        is_full = address not in self._site_cookies and len(self._site_cookies) == _MAX_SITES
        if place is not None and not is_full:
            cookie = self._site_cookies.setdefault(address, len(self._site_cookies))
            one.sites[address] = self._probe(place, cookie)

    def _pairs(self, name: str) -> defaultdict[int, Counter[int]]:
        found: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for key, value in self._programs.map(name).items():
            index, what = _PAIR.unpack(key)
            found[index][what] = _U64.unpack(value)[0]
        return found

    def forget_calls(self, functions: Set[int]) -> None:
        """Those that are under way: they return unseen, and a later return must not be taken for theirs."""
        away = self._programs.map("away")
        for key, value in list(away.items()):
            if _CALL.unpack(value)[2] in functions:
                away.remove(key)

    def results(self) -> dict[Frame, Counted]:
        callers, threads = self._pairs("callers"), self._pairs("threads")
        with suppress(TraceeGone, NotPossible):
            self._code.refresh()
        return {one.frame: self._result(one, callers[one.index], len(threads[one.index])) for one in self.functions}

    def _result(self, one: _Function, callers: Counter[int], threads: int) -> Counted:
        raw = self._functions_map.get(_U32.pack(one.index)) or bytes(_COUNTED.size)
        entries, calls, returned, total_ns, *latency = _COUNTED.unpack(raw)
        while latency and not latency[-1]:
            latency.pop()
        named: Counter[str] = Counter()
        for address, count in callers.items():
            named[self._code.frame_at(address - 1).name] += count
        top = dict(named.most_common(_CALLERS))
        kept = list(self._observations(one.index))
        return Counted(
            calls, entries, returned, total_ns / 1e9, latency, threads, top, kept, one.watched_s, not one.hot
        )

    def _observations(self, index: int) -> Iterable[Observation]:
        table = self._programs.map("observations")
        for slot in range(index * _KEPT, (index + 1) * _KEPT):
            latency_ns, sp, there, *words = _OBSERVATION.unpack(table.get(_U32.pack(slot)) or bytes(_OBSERVATION.size))
            if latency_ns:
                values, pointed = words[:_NVALUES], words[_NVALUES:]
                kept = {values[at]: _U64.pack(pointed[at]) for at in range(_NVALUES) if there >> at & 1}
                yield Observation(latency_ns, sp, tuple(values), kept)

    def close(self) -> None:
        self._programs.close()


def count(
    pid: int, functions: Sequence[Frame], duration_s: float, should_stop: Callable[[], bool] = lambda: False
) -> Counting:
    """Counts the calls of these functions of a process for so long, or until it ends.

    The most important come first: no more than MAX_FUNCTIONS are taken. Raises NotPossible, TraceeGone.
    """
    counter = _Counter(pid, functions[:MAX_FUNCTIONS])
    ended = False
    share = 0.0
    armed = _Links(counter, counter.functions)
    pause_s = _FIRST_S
    try:
        deadline = time.monotonic() + duration_s
        while (left_s := deadline - time.monotonic()) > 0 and not should_stop():
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, _LOOK_S)
            counter.check_program()
            armed = _adjust(counter, armed)
            share = counter.share()
            _watch_hot(counter, share)
        counter.note_costs()
        share = counter.share()
    except TraceeGone as error:
        ended = True
        counter.notes[str(error)] = None
    finally:
        armed.close()
        found = counter.results()
        counter.close()
    return Counting(found, share, ended, list(counter.notes))


def _adjust(counter: _Counter, armed: _Links) -> _Links:
    """Arms places of return that are new, and takes out what is too hot. The links from now on."""
    counter.find_sites()
    more = counter.note_costs()
    spent = sum(more[one.index] for one in armed.functions)
    passed = time.monotonic() - armed.looked_at
    armed.looked_at += passed
    allowed = BUDGET * max(passed - spent, passed / _MOST_HINDERED)
    cool = sorted(armed.functions, key=lambda one: more[one.index])
    while spent > allowed and cool:
        hottest = cool.pop()
        hottest.hot = True
        spent -= more[hottest.index]
    if len(cool) == len(armed.functions):
        armed.arm_sites()
        return armed
    armed.close()
    return _Links(counter, cool)


def _watch_hot(counter: _Counter, share: float) -> None:
    """The hot function that was watched least is armed for a moment, if there is budget left."""
    hot = [one for one in counter.functions if one.hot]
    if not hot or share > _HOT_BUDGET:
        return
    moment = _Links(counter, [min(hot, key=lambda one: one.watched_s)])
    time.sleep(_MOMENT_S)
    moment.close()


_ENDBR64 = b"\xf3\x0f\x1e\xfa"
_CODE_NBYTES = 16


def _read(path: str, offset: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return os.pread(file.fileno(), _CODE_NBYTES, offset)
    except OSError as error:
        raise NotPossible(f"cannot be read ({error.strerror})", where=path) from None


def _is_emulated(code: bytes) -> bool:
    """Whether the kernel does the instruction itself: push, jmp, call, jcc, nop (arch/x86/kernel/uprobes.c)."""
    if code[:1] == b"\x41":
        return 0x50 <= code[1] <= 0x57
    return bool(code) and (
        0x50 <= code[0] <= 0x57
        or code[0] in (0xE8, 0xE9, 0xEB, 0x90)
        or 0x70 <= code[0] <= 0x7F
        or (code[0] == 0x0F and 0x80 <= code[1] <= 0x8F)
    )


# edi times: call the function whose address is in rsi; rbx keeps the count over it.
_LOOP = bytes.fromhex("53 55 89fb 4889f5 ffd5 ffcb 75fa 5d 5b c3")
# push rbp; pop rbp; ret. And mov rax, rdi; ret.
_EMULATED, _STEPPED = bytes.fromhex("55 5d c3"), bytes.fromhex("4889f8 c3")
_EMULATED_AT, _STEPPED_AT = 0x40, 0x80
_CALIBRATION = (_LOOP.ljust(_EMULATED_AT, b"\x90") + _EMULATED).ljust(_STEPPED_AT, b"\x90") + _STEPPED


def _calibrate(fd: int, cookie: int) -> _Costs:
    """What a hit costs here and now, measured on two functions of our own."""
    file = os.memfd_create("radium-calibration")
    os.write(file, _CALIBRATION)
    start = syscall("mmap", 0, len(_CALIBRATION), mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, file, 0)
    try:
        path = f"/proc/{os.getpid()}/fd/{file}"
        return _Costs(*(_cost_at(fd, path, cookie, start, at) for at in (_EMULATED_AT, _STEPPED_AT)))
    finally:
        syscall("munmap", start, len(_CALIBRATION))
        os.close(file)


def _cost_at(fd: int, path: str, cookie: int, start: int, at: int) -> float:
    loop = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p)(start)
    without = _seconds(lambda: loop(_CALIBRATIONS, start + at))
    link = links.uprobes(fd, path, [at], [cookie], os.getpid())
    try:
        return max(_seconds(lambda: loop(_CALIBRATIONS, start + at)) - without, 0) / _CALIBRATIONS
    finally:
        link.close()


def _seconds(function: Callable[[], object]) -> float:
    """The best of three: others run here too."""
    best = math.inf
    for _ in range(3):
        before = time.thread_time()
        function()
        best = min(best, time.thread_time() - before)
    return best
