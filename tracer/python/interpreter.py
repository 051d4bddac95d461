"""The CPython of a tracee: its split functions, from the first safe point to the last.

    approach   a thread is brought to a safe point, where it holds the GIL and is in the middle of nothing   `look`
    visit      there it calls functions of the interpreter for us (visits.py)                                 `_visit`
    find       the script of inside.py says which objects the profile names                                   `_find`
    split      each gets a gate, to which its vectorcall slot leads from then on (gates.py)                    `_split_slot`
    notice     the end of every import is a safe point, at which we look again                                `on_trap`
    leave      all slots are put back, what the script keeps is let go                                        `leave`

A safe point is where the interpreter calls us by Py_AddPendingCall, which it does between two bytecodes of the main thread;
where the main thread waits in a system call in which nothing of it can be half done, with PyGILState_Ensure; and the
entry of a function that the interpreter calls. A main thread that is in C code and comes to none of these is waited for.

CPython 3.12 and newer look at a function's slot before they call it in their quick way; 3.9 and 3.10 have no other way
than the slot. 3.11 does not look: there a split function also gets another type, `twin`, which is no other for isinstance,
inspect, pickle and copy, but is for `type(f) is types.FunctionType`.

Sources: Python/ceval.c, Python/specialize.c, Objects/funcobject.c, Lib/importlib/_bootstrap.py of 3.9 to 3.14; PEP 590.
"""

import struct
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from importlib import resources

from radium.core.regs import NO_SYSCALL, RESTART_BLOCK, RESTARTS, Registers
from radium.errors import NotPossible, RemoteFault
from radium.linux import ptrace, vm
from radium.linux.libc import NUMBERS
from radium.profiles.schema import Split as ProfileSplit
from radium.report import Report
from radium.tracer.breakpoint import Breakpoint, free_place
from radium.tracer.ledger import GatesPlan, Slot
from radium.tracer.python import gates as layout
from radium.tracer.python.gates import GateKind, Gates
from radium.tracer.python.objects import (
    BASETYPE,
    FLAGS_AT,
    HAVE_VECTORCALL,
    ITERNEXT_AT,
    METHOD_DESCRIPTOR,
    TYPE_AT,
    VECTORCALL_OFFSET_AT,
    Objects,
    Way,
)
from radium.tracer.python.runtime import Runtime, check_version
from radium.tracer.python.visits import EINTR, Ask, Steps, Visit
from radium.tracer.resolve import SplitPoint
from radium.tracer.split import Split
from radium.tracer.stops import Stop
from radium.tracer.tracee import Tracee

# How often the main thread is looked at until it is at a safe point, and after how long we say that it takes long.
APPROACH_S, LONG_S = 0.02, 2.0
# So deep may Python functions call each other by way of the C stack, of which each takes less than a kilobyte.
MOST_DEEP = 4000
# So many functions may be made while one of the main module's is waited for: each costs a stop.
MOST_MADE = 5000
# How long a leave may take that waits for a safe point; then what the script keeps stays in the tracee.
LEAVE_S = 5.0
_FILE_INPUT = 257  # Py_file_input, compile.h
# The system calls in which a thread sleeps, and in which no allocator or lock of its program's is in the middle of anything.
# The same is true of every sleep with a time limit, a futex's too: those are the ones with RESTART_BLOCK.
_SLEEPS = frozenset(
    NUMBERS[name]
    for name in (
        "read pread64 readv recvfrom recvmsg accept accept4 connect poll ppoll select pselect6 epoll_wait epoll_pwait "
        "nanosleep clock_nanosleep wait4 waitid pause rt_sigsuspend rt_sigtimedwait flock msgrcv semop semtimedop"
    ).split()
)
_FUTEX = NUMBERS["futex"]
# The number of the gate at the end of imports.
_IMPORTED = 0
_IMPORT_END = (-1, "_frozen_importlib", False, "_ModuleLockManager.__exit__", None)
# Flags of code objects (code.h).
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200

# A signal's handler may raise an exception meanwhile, which belongs to the program.
_EVALUATE = """\
failed = True
try:
    answer = {}
    failed = False
except BaseException as error:
    if not is_ours(error):
        raise
    answer = ascii(error).encode()
"""

Answers = Generator[Ask, int, bytes]
Number = Generator[Ask, int, int]


@dataclass
class _Wanted:
    """A name of a profile. has_module: whether a module is there that it names; found: how many functions."""

    split: ProfileSplit
    module: str
    is_package: bool
    qualname: str
    has_module: bool = False
    found: int = 0

    @classmethod
    def parse(cls, split: ProfileSplit, text: str) -> "_Wanted":
        module, _, qualname = text.partition(":")
        return cls(split, module, qualname == "**", qualname)

    @property
    def text(self) -> str:
        return f"{self.module}:{self.qualname}"

    @property
    def is_open(self) -> bool:
        """Whether there may be more functions of this name."""
        return not self.found or "*" in self.qualname or "?" in self.qualname

    def line(self, number: int) -> tuple[object, ...]:
        """As the script takes it."""
        guard = self.split.python_guard
        told = None if guard is None else (guard.text, guard.by_number, list(guard.names))
        return number, self.module, self.is_package, self.qualname, told


class Interpreter:
    """All threads of the tracee are stopped when this is made. is_starting: it has not been initialised, perhaps.

    splits: by the numbers of their gates; natives: functions in C that were found, to be split where they begin.
    """

    def __init__(
        self, tracee: Tracee, runtime: Runtime, splits: Sequence[ProfileSplit], report: Report, say: Callable[[str], None],
        *, is_starting: bool,
    ) -> None:  # fmt: skip
        """Raises NotPossible, RemoteFault."""
        self.tracee = tracee
        self.pid = tracee.pid
        self.threads = tracee.threads
        self.runtime = runtime
        self.objects = Objects(self.pid, runtime)
        self.report = report
        self.say = say
        self.wanted = [_Wanted.parse(split, text) for split in splits for text in split.python]
        self.splits: dict[int, Split] = {}
        self._ngates = self._nfunctions = 0
        self.visits: dict[int, Visit] = {}
        self.is_over = False
        self._then: dict[int, Callable[[], None]] = {}
        self._jobs: deque[Callable[[], Steps]] = deque([self._begin])
        self._is_starting = is_starting
        self._is_scheduled = False
        self._has_raised = False
        self.natives: list[SplitPoint] = []
        # By the numbers of their gates: functions that were split when they had just been made, and where the gates lead then.
        self._fresh: dict[int, tuple[int, GateKind]] = {}
        self._just_made = 0
        self._slots: list[Slot] = []
        self._versions: list[int] = []
        self._twin = self._twin_uses = 0
        self._checks = False
        self._plain = self._nlifted = 0
        self._namespace = 0
        self._version = (0, 0)
        self._notes: set[str] = set()
        self._counted: dict[int, tuple[int, int]] = {}
        self._next_look = self._began = self._leave_by = 0.0
        self._has_told = False
        self._finalise, self._evaluate_code = map(runtime.function, ("Py_FinalizeEx", "PyEval_EvalCode"))
        # What MAKE_FUNCTION calls: the second before CPython 3.11.
        makers = ("PyFunction_New", "PyFunction_NewWithQualName")
        self._make_function = runtime.function(makers[1] if runtime.is_old else makers[0])
        self._makers: set[int] = set()
        self._nmade = 0
        self._armed: set[int] = set()
        self.gates = Gates(self._map())
        self._enter()

    # What is of ours in the tracee

    def _map(self) -> int:
        home, remote = self.tracee.home, self.tracee.remote
        if remote is None:
            raise NotPossible("Python functions are split with the help of system calls in the tracee, which its seccomp "
                              "filter refuses", where=f"pid {self.pid}")  # fmt: skip
        home.refresh()
        near = self.tracee.breakpoints.reserved[0][0] if self.tracee.breakpoints.reserved else self.runtime.holder.base
        base = free_place(home.mappings, self.tracee.breakpoints.reserved, near, layout.NBYTES)
        start, end = Gates(base).code
        with remote.borrow(next(iter(self.threads.threads))) as thread:
            thread.call("mmap", base, layout.NBYTES, 3, 0x100000 | 0x22, -1, 0)
            thread.call("mprotect", start, end - start, 5)
        return base

    def _enter(self) -> None:
        gates, memory = self.gates, self.tracee.memory
        self._note()
        addresses = {name: self.runtime.function(*names) for name, names in layout.FUNCTIONS.items()}
        addresses["true"] = self.runtime.data("_Py_TrueStruct")
        memory.write(gates.code[0], layout.CODE)
        memory.write(gates.base, gates.words(addresses))
        self.arm()
        self._began = time.monotonic()

    def _note(self) -> None:
        gates = self.gates
        self.tracee.breakpoints.note_gates(
            GatesPlan(
                gates.base, gates.end, gates.active, self._slots, list(self._versions), list(self.visits), self._is_scheduled
            )
        )

    # Approach

    @property
    def is_busy(self) -> bool:
        """Whether it waits for something that `look` does."""
        return bool(self._jobs) and not self._is_starting and not self.is_over

    def look(self) -> None:
        """To be called now and then, while no call is away: brings the main thread nearer to a safe point."""
        self._count_guards()
        self._split_again()
        now = time.monotonic()
        if not self.is_busy or self.visits or now < self._next_look:
            return
        self._next_look = now + APPROACH_S
        if now - self._began > LONG_S and not self._leave_by:
            self._say_once("its main thread is in code that is not Python's; Python functions are split when it comes back")
        self.threads.stop_all()
        try:
            self._approach()
        finally:
            self.threads.resume_all()

    def _approach(self) -> None:
        main = self.threads.threads.get(self.pid)
        if main is None or not main.is_free or main.is_group_stopped or main.is_away or main.traces_syscalls:
            return
        if self.threads.is_over or any(stop.tid == self.pid for stop in self.threads.pending):
            return
        regs = ptrace.registers(self.pid)
        if self._is_ours(regs.rip):
            return
        sleeps_in = regs.orig_rax if regs.orig_rax != NO_SYSCALL and regs.rax in RESTARTS else None
        if sleeps_in in _SLEEPS or (sleeps_in is not None and regs.rax == RESTART_BLOCK):
            self._visit(self.pid, self._with_gil(self._jobs.popleft()()), lambda: None)
        elif not self._is_scheduled:
            self._visit(self.pid, self._schedule(), self._wake if sleeps_in == _FUTEX else lambda: None)
        elif sleeps_in == _FUTEX:
            regs.rax, regs.orig_rax = EINTR, NO_SYSCALL
            ptrace.set_registers(self.pid, regs)

    def _is_ours(self, rip: int) -> bool:
        ours = [*self.tracee.breakpoints.reserved, (self.gates.base, self.gates.end)]
        return any(start <= rip < end for start, end in ours)

    def _schedule(self) -> Steps:
        self._is_scheduled = True
        self._note()
        yield self._ask("Py_AddPendingCall", self.gates.pending, 0)

    def _wake(self) -> None:
        """Whoever waits for a lock of the interpreter's looks for pending calls when it is interrupted; others wait on."""
        regs = ptrace.registers(self.pid)
        if regs.orig_rax == _FUTEX and regs.rax in RESTARTS:
            regs.rax, regs.orig_rax = EINTR, NO_SYSCALL
            ptrace.set_registers(self.pid, regs)

    def _with_gil(self, steps: Steps) -> Steps:
        state = yield self._ask("PyGILState_Ensure")
        try:
            yield from steps
        finally:
            if self._has_raised:
                # It cannot be raised in the middle of a system call; the signal's handler is called again instead.
                self._has_raised = False
                yield self._ask("PyErr_Clear")
                yield self._ask("PyErr_SetInterrupt")
            yield self._ask("PyGILState_Release", state & 0xFFFFFFFF)

    # Visits

    def _visit(self, tid: int, steps: Steps, then: Callable[[], None]) -> bool:
        """Sends a stopped thread, which is to be resumed. then: what is done when it is back where it was."""
        try:
            visit = Visit.begin(self.pid, tid, self.gates, steps)
        except RemoteFault:
            self._say_once("its stack has no room: Python functions are split later")
            return False
        self.visits[tid], self._then[tid] = visit, then
        self._note()
        return True

    def _on_ask(self, tid: int, point: Breakpoint, regs: Registers) -> None:
        """The thread goes on with its next function, or is back where it was."""
        visit = self.visits.get(tid)
        if visit is None:
            regs.rax = 0
            self.tracee.breakpoints.pass_locally(tid, point, regs)
            return
        try:
            if visit.answer(self.pid, regs):
                self.tracee.breakpoints.pass_locally(tid, point, regs)
                return
        except (NotPossible, RemoteFault) as error:
            self._say_once(f"Python functions are not split: {error}")
        visit.end()
        del self.visits[tid]
        self._note()
        self._then.pop(tid)()

    def on_trap(self, stop: Stop, point: Breakpoint, regs: Registers) -> Split | None:
        """A thread stopped at a breakpoint of ours (`knows`). The split function that is called; None: it can be resumed."""
        entry, tid = stop.detail, stop.tid
        if entry == self.gates.ask:
            self._on_ask(tid, point, regs)
        elif entry == self.gates.common and regs.rax in self._fresh:
            self._settle_fresh(tid, regs.rax)
        elif entry == self.gates.common and regs.rax in self.splits:
            return self.splits[regs.rax]
        elif entry == self.gates.common and regs.rax == _IMPORTED and not self.is_over and not self._leave_by:
            self._at_safe_point(tid, point, self._find)
        elif entry == self.gates.pending:
            self._is_scheduled = False
            self._note()
            self._at_safe_point(tid, point, self._jobs.popleft() if self._jobs else None)
        elif entry == self._make_function:
            self._makers.add(self.objects.word(regs.rsp))
            self._nmade += 1
            self.tracee.breakpoints.pass_locally(tid, point, regs)
        elif entry in self._makers and not self.is_over and regs.rax and not self._leave_by:
            self._at_safe_point(tid, point, lambda: self._take_made(regs.rax))
        elif entry == self._evaluate_code and self._is_starting:
            self._at_safe_point(tid, point, self._if_initialised)
        elif entry == self._finalise and not self.is_over:
            self._jobs.clear()
            self._at_safe_point(tid, point, self._leave)
        else:
            self.tracee.breakpoints.pass_locally(tid, point, regs)
        return None

    def _settle_fresh(self, tid: int, number: int) -> None:
        """Now that its maker is done with it, the function's slot is set once more; then its gate is passed as all are."""
        function, way = self._fresh.pop(number)
        gate = self.gates.address(number)

        def pass_gate() -> None:
            regs = ptrace.registers(tid)
            regs.rip = gate
            ptrace.set_registers(tid, regs)

        self.tracee.memory.write(gate, self.gates.gate(number, way))
        if not self._visit(tid, self._set_slot(function, gate), pass_gate):
            pass_gate()

    def knows(self, entry: int) -> bool:
        return entry in self._armed

    @property
    def _entries(self) -> set[int]:
        """Where breakpoints are of use now."""
        entries = {self.gates.pending, self.gates.ask, self.gates.common, self._finalise}
        if self._is_starting:
            entries.add(self._evaluate_code)
        elif self._awaits_function and not self.is_over:
            entries |= {self._make_function, *self._makers}
        return entries

    @property
    def _awaits_function(self) -> bool:
        """Whether a function of the program's main module is wanted that is not there yet: no import tells of it."""
        is_open = any(one.is_open for one in self.wanted if one.module == "__main__")
        return is_open and self._nmade < MOST_MADE

    @property
    def has_wishes(self) -> bool:
        """Whether `arm` is to be called."""
        return bool(self.natives) or self._entries != self._armed

    def arm(self) -> None:
        """All threads are stopped: breakpoints where they are of use now, and nowhere else. Raises NotPossible."""
        entries, breakpoints = self._entries, self.tracee.breakpoints
        breakpoints.disarm(sorted(self._armed - entries))
        self.tracee.home.refresh()
        refused = breakpoints.arm(sorted(entries - self._armed), self.tracee.home.mappings)
        self._armed = entries
        if refused:
            raise NotPossible(next(iter(refused.values())))

    def _at_safe_point(self, tid: int, point: Breakpoint, job: Callable[[], Steps] | None) -> None:
        """The thread stands at the entry of a function that the interpreter calls; it goes on there afterwards."""

        def go_on() -> None:
            self._pass(tid, point)

        if job is None or tid in self.visits or not self._visit(tid, job(), go_on):
            self.tracee.breakpoints.pass_locally(tid, point, ptrace.registers(tid))

    def _pass(self, tid: int, point: Breakpoint) -> None:
        regs = ptrace.registers(tid)
        if not self._has_raised:
            self.tracee.breakpoints.pass_locally(tid, point, regs)
            return
        # A signal's handler has raised an exception meanwhile: the function fails with it before it has begun.
        self._has_raised = False
        if point.entry == self.gates.pending:
            regs.rip = self.gates.raised
        elif point.entry in self._makers:
            regs.rax = 0
            self.tracee.breakpoints.pass_locally(tid, point, regs)
            return
        else:
            regs.rip, regs.rax, regs.rsp = self.objects.word(regs.rsp), 0, regs.rsp + 8
        ptrace.set_registers(tid, regs)

    def _ask(self, name: str, *arguments: int | bytes) -> Ask:
        return Ask(self.runtime.function(name), arguments)

    # Steps: entering

    def _if_initialised(self) -> Steps:
        """A starting interpreter evaluates code before it can be used; then its first own code is the safe point."""
        if (yield self._ask("Py_IsInitialized")) & 0xFFFFFFFF:
            self._is_starting = False
            while self._jobs:
                yield from self._jobs.popleft()()

    def _begin(self) -> Steps:
        try:
            text = self.objects.text((yield self._ask("Py_GetVersion")))
            self._version = check_version(text)
            first = yield self._ask("PyInterpreterState_Head")
            if (yield self._ask("PyInterpreterState_Next", first)):
                raise NotPossible("runs sub-interpreters", advice="Python splits need a program with one interpreter")
        except NotPossible as error:
            self.say(f"Python functions are not split: pid {self.pid}: {error}")
            self.is_over = True
            return
        self._put_word(self.gates.word("exception"), self.objects.word(self.runtime.data("PyExc_Exception")))
        self._namespace = yield self._ask("PyDict_New")
        script = resources.files(__package__).joinpath("inside.py").read_text()
        if not (yield from self._run(script)):
            return
        if self._version == (3, 11):
            yield from self._make_twin()
        if self._version >= (3, 11):
            yield from self._prepare_checks()
        yield from self._find()

    def _put_word(self, address: int, value: int) -> None:
        self.tracee.memory.write(address, value.to_bytes(8, "little"))

    def _prepare_checks(self) -> Steps:
        """What `checked` needs: where a thread's depth is, and what makes a split function a plain one."""
        answer = yield from self._evaluate("b'%d %d' % (sys.getrecursionlimit(), id(matches))")
        if not answer:
            return
        limit, plain_function = map(int, answer.split())
        state = yield self._ask("PyThreadState_Get")
        ints = struct.unpack("<64i", vm.read(self.pid, state, 256))
        at = next((i for i in range(6, 62) if ints[i + 1] == limit and 0 < ints[i] <= limit), 0)
        if (3, 12) <= self._version <= (3, 13):
            # They count calls by way of C separately, behind those two, and allow 1,500 to 10,000 of them.
            top, most, at = ints[at + 2], ints[at + 2] // 3, at + 2
        else:
            top, most = 0, MOST_DEEP
        self._plain = self.objects.word(self.objects.way(plain_function).slot)
        function_type = self.objects.function_type
        plain_at = TYPE_AT if self._twin else self.objects.word(function_type + VECTORCALL_OFFSET_AT)
        self._put_word(self.gates.word("depth_at"), 4 * at)
        self._put_word(self.gates.word("top"), top)
        self._put_word(self.gates.word("most"), most)
        self._put_word(self.gates.word("plain_at"), plain_at)
        self._put_word(self.gates.word("plain"), function_type if self._twin else self._plain)
        self._checks = at > 2

    def _run(self, text: str) -> Number:
        """Executes the text in our namespace; 0 when it was left by an exception of the program's."""
        tstate = 0
        if self.runtime.has("PyThreadState_EnterTracing"):
            # Whoever traces or profiles the program sees nothing of this (sys.settrace).
            tstate = yield self._ask("PyThreadState_Get")
            yield self._ask("PyThreadState_EnterTracing", tstate)
        name = self._namespace
        done = yield self._ask("PyRun_StringFlags", text.encode(), _FILE_INPUT, name, name, 0)
        if tstate:
            yield self._ask("PyThreadState_LeaveTracing", tstate)
        if done:
            yield self._ask("Py_DecRef", done)
        else:
            self._has_raised = True
        return done

    def _evaluate(self, expression: str) -> Answers:
        """The bytes that it gives; empty when it was left by an exception."""
        if not (yield from self._run(_EVALUATE.format(expression))):
            return b""
        answer = yield self._ask("PyDict_GetItemString", self._namespace, b"answer")
        nbytes = yield self._ask("PyBytes_Size", answer)
        at = yield self._ask("PyBytes_AsString", answer)
        data = vm.read(self.pid, at, nbytes) if nbytes else b""
        failed = yield self._ask("PyDict_GetItemString", self._namespace, b"failed")
        if failed == self.runtime.data("_Py_TrueStruct"):
            self._say_once(f"Python functions are not found: {data.decode(errors='replace')[:200]}")
            return b""
        return data

    def _derive(self, base: int, expression: str) -> Answers:
        """The id, as text, of a type that the expression derives from a type that is made final by its flags."""
        flags_at = base + FLAGS_AT
        flags = self.objects.word(flags_at)
        self.tracee.memory.write(flags_at, (flags | BASETYPE).to_bytes(8, "little"))
        answer = yield from self._evaluate(f"b'%d' % id({expression})")
        now = self.objects.word(flags_at)
        self.tracee.memory.write(flags_at, (now & ~BASETYPE).to_bytes(8, "little"))
        return answer

    def _make_twin(self) -> Steps:
        function_type = self.objects.function_type
        answer = yield from self._derive(function_type, "globals().setdefault('twin', make_twin(type(make_twin)))")
        if not answer:
            return
        self._twin = int(answer)
        # Heap types do not inherit these before 3.12 (inherit_slots in typeobject.c).
        at = self._twin + FLAGS_AT
        inherited = self.objects.word(function_type + FLAGS_AT) & (HAVE_VECTORCALL | METHOD_DESCRIPTOR)
        self.tracee.memory.write(at, (self.objects.word(at) | inherited).to_bytes(8, "little"))

    # Steps: finding and splitting

    def _find(self) -> Steps:
        wanted = [_IMPORT_END, *(one.line(number) for number, one in enumerate(self.wanted))]
        answer = yield from self._evaluate(f"find({wanted!r})")
        before = self._nfunctions
        for line in answer.decode().splitlines():
            yield from self._take_line(line.split("\t"))
        self._note()
        if not self._has_told or self._nfunctions > before:
            self._tell()

    def _take_made(self, made: int) -> Steps:
        """A function has just been made, and is in no module yet."""
        yield self._ask("PyDict_SetItemString", self._namespace, b"made", made)
        wanted = [one.line(number) for number, one in enumerate(self.wanted) if one.module == "__main__"]
        answer = yield from self._evaluate(f"take_made({wanted!r})")
        self._just_made = made
        for line in answer.decode().splitlines():
            yield from self._take_line(line.split("\t"))
        self._just_made = 0

    def _set_slot(self, function: int, gate: int) -> Steps:
        yield self._ask("PyFunction_SetVectorcall", function, gate)

    def _tell(self) -> None:
        self._has_told = True
        self.say(f"Python {self._version[0]}.{self._version[1]}: {self._nfunctions} functions are split")
        for one in self.wanted:
            if one.has_module and not one.found and one.module != "__main__":
                self._say_once(f"{one.split.where}: {one.text} names nothing that is there now")

    def _take_line(self, fields: list[str]) -> Steps:
        kind, number, module, *rest = fields
        if int(number) < 0:
            if kind == "split":
                yield from self._lead_function(_IMPORTED, int(rest[1]), 0, "common")
            return
        wanted = self.wanted[int(number)]
        wanted.has_module = True
        if kind == "note":
            self._say_once(f"{wanted.split.where}: {module}:{rest[0]} is not split: {rest[1]}")
        elif kind == "split":
            qualname, thing, flags, guard = rest[0], int(rest[1]), int(rest[2]), int(rest[3])
            wanted.found += 1
            yield from self._split(wanted, f"{module}:{qualname}", thing, flags, guard)

    def _split(self, wanted: _Wanted, name: str, thing: int, flags: int, guard: int) -> Steps:
        way = self.objects.way(thing)
        why_not = way.why_not or self._why_not(way, flags, has_guard=bool(guard))
        if why_not:
            self._say_once(f"{wanted.split.where}: {name} is not split: {why_not}")
            return
        address = way.native or self.gates.common
        point = SplitPoint(f"python:{name}", address, (), self.runtime.holder.path, wanted.split)
        if way.native:
            self.natives.append(point)
            return
        self._nfunctions += 1
        split = Split(point, self.report.split(point.name, wanted.split.stance, "breakpoint"), self._read_memory)
        if flags & (_GENERATOR | _COROUTINE):
            yield from self._split_generators(split, thing, is_coroutine=not flags & _GENERATOR)
        else:
            yield from self._lead_function(self._next_gate(split), thing, guard, "guarded" if guard else "common")

    def _why_not(self, way: Way, flags: int, *, has_guard: bool) -> str:
        if way.native and has_guard:
            return "it is a C function, which takes no Python guard"
        if flags & _ASYNC_GENERATOR:
            return "it is an asynchronous generator"
        if flags & (_GENERATOR | _COROUTINE) and has_guard:
            return "what a generator or a coroutine does next takes no guard"
        if flags & _COROUTINE and self._version < (3, 10):
            return "coroutines are split from CPython 3.10 on"
        # A generator takes three gates.
        return "" if self._ngates + 3 < layout.MOST else f"{layout.MOST} gates are taken; name fewer functions"

    def _next_gate(self, split: Split) -> int:
        self._ngates += 1
        self.splits[self._ngates] = split
        return self._ngates

    def _split_generators(self, split: Split, function: int, *, is_coroutine: bool) -> Steps:
        """What the function makes from here on has a type of its own, whose slots lead to gates."""
        base = self.runtime.data("PyCoro_Type" if is_coroutine else "PyGen_Type")
        answer = yield from self._derive(base, f"make_twin_of_generators(types_of_generators()[{int(is_coroutine)}])")
        if not answer:
            return
        twin = int(answer)
        iternext = self.objects.word(self.runtime.data("PyGen_Type") + ITERNEXT_AT)
        self._lead(self._next_gate(split), twin + ITERNEXT_AT, iternext, was=iternext * (not is_coroutine))
        if self._version >= (3, 10):
            at = self.objects.send_slot(twin)
            sends = self.objects.word(self.objects.send_slot(base))
            self._lead(self._next_gate(split), at, sends, was=self.objects.word(at))
        if is_coroutine:
            # Its own would wrap it into an iterator that leads past the slots.
            at = self.objects.await_slot(twin)
            self._slots.append(Slot(at, self.gates.itself, self.objects.word(at)))
            self._note()
            self.tracee.memory.write(at, self.gates.itself.to_bytes(8, "little"))
        maker = self._next_gate(split)
        self.tracee.memory.write(self.gates.row("bases", maker), base.to_bytes(8, "little"))
        yield from self._lead_function(maker, function, twin, "making")

    def _lead(self, number: int, slot: int, target: int, *, was: int) -> None:
        """A type's slot leads to a gate from here on. was: what it held, which need not be the target."""
        if not target:
            raise NotPossible("its Python has an empty slot where it has none", where=f"pid {self.pid}, {slot:#x}")
        gates, memory = self.gates, self.tracee.memory
        memory.write(gates.row("targets", number), target.to_bytes(8, "little"))
        memory.write(gates.address(number), gates.gate(number, "common"))
        self._slots.append(Slot(slot, gates.address(number), was))
        self._note()
        memory.write(slot, gates.address(number).to_bytes(8, "little"))

    def _read_memory(self, address: int, nbytes: int) -> bytes:
        return vm.read(self.pid, address, nbytes)

    def _lead_function(self, number: int, thing: int, companion: int, kind: GateKind) -> Steps:
        """From here on the object's calls go through a gate. We hold the GIL: nobody else looks at it now.

        companion: its guard, or the twin of what it makes.
        """
        way = self.objects.way(thing)
        gates, memory = self.gates, self.tracee.memory
        gate, original = gates.address(number), self.objects.word(way.slot)
        if way.is_function and self._checks and original == self._plain and kind in ("common", "guarded"):
            kind = "checked"
        self._put_word(gates.row("targets", number), original)
        self._put_word(gates.row("guards", number), companion)
        if thing == self._just_made and self._version >= (3, 12):
            # Its maker gives it a version yet, by which calls of it are specialised that do not look at its slot.
            self._fresh[number] = thing, kind
        memory.write(gate, gates.gate(number, "common" if number in self._fresh else kind))
        self._slots.append(Slot(way.slot, gate, original))
        if way.is_function and self._twin:
            self._slots.append(Slot(thing + TYPE_AT, self._twin, self.objects.function_type))
        if way.is_function and self._version >= (3, 11):
            self._versions.append(way.slot + 8)
        self._note()
        if not way.is_function or self._version < (3, 11):
            memory.write(way.slot, gate.to_bytes(8, "little"))
        elif self._version >= (3, 12):
            yield from self._set_slot(thing, gate)
        else:
            yield self._ask("Py_IncRef", self._twin)
            # They are held, so it is still theirs when they get their own type back.
            self._twin_uses += 1
            # What has been specialised for it (specialize.c) is so for this version, which is nobody's now.
            memory.write(way.slot + 8, bytes(4))
            memory.write(way.slot, gate.to_bytes(8, "little"))
            memory.write(thing + TYPE_AT, self._twin.to_bytes(8, "little"))
        if kind != "making":
            self._hide(thing, way)

    def _hide(self, thing: int, way: Way) -> None:
        """In the mirror it is called as it always was: what a split call calls is part of it."""
        patches = self.tracee.breakpoints.patches
        for slot in self._slots:
            if slot.address in (way.slot, thing + TYPE_AT):
                patches.put(slot.address, slot.mine.to_bytes(8, "little"), slot.original.to_bytes(8, "little"))
        if way.is_function and self._version >= (3, 11):
            # It may get a version there, by which its calls are specialised; here it has none.
            version = vm.read(self.pid, way.slot + 8, 4)
            patches.put(way.slot + 8, version, version)

    # Guards, counted by their gates

    def _count_guards(self) -> None:
        if self.is_over:
            return
        for number, split in self.splits.items():
            if split.profile.python_guard is None:
                continue
            seen = tuple(self.objects.word(self.gates.row(table, number)) for table in ("rejected", "failed"))
            for _ in range(sum(seen) - sum(self._counted.get(number, (0, 0)))):
                split.report.count_local("guard")
            self._counted[number] = seen  # type: ignore[assignment]

    def _split_again(self) -> None:
        """Functions that a deep recursion has made plain ones (gates.py, `checked`)."""
        nlifted = 0 if self.is_over else self.objects.word(self.gates.word("lifted"))
        if nlifted == self._nlifted:
            return
        self._nlifted = nlifted
        self.threads.stop_all()
        for slot in self._slots:
            if self.objects.word(slot.address) == slot.original:
                self._put_word(slot.address, slot.mine)
        self.threads.resume_all()

    # Leaving

    def leave(self) -> bool:
        """To be called again until it says True: then nothing of the interpreter's leads to us any more."""
        if not self._leave_by:
            self._leave_by = time.monotonic() + LEAVE_S
            self._jobs.clear()
            self._jobs.append(self._leave)
            self.threads.stop_all()
            self._put_back()
            self.threads.resume_all()
            if self._is_starting or not (self._namespace or self.visits):
                self.is_over = True
        elif time.monotonic() > self._leave_by and not self.is_over and not self.visits:
            self._say_once("its main thread does not come back to the interpreter: what radium kept there stays")
            self.is_over = True
        return self.is_over and not self._is_in_use()

    def _is_in_use(self) -> bool:
        """Whether a thread is in the gates' code, or will come there, within the time that there is."""
        is_expected = self._is_scheduled or bool(self.objects.word(self.gates.active))
        return bool(self.visits) or (is_expected and time.monotonic() < self._leave_by)

    def _leave(self) -> Steps:
        """Lets go what the script keeps. No slot leads to a gate any more, or none will be looked at (Py_FinalizeEx)."""
        self._put_back()
        if self._twin:
            refs = self.objects.word(self._twin)
            self.tracee.memory.write(self._twin, (refs - self._twin_uses).to_bytes(8, "little"))
        if self._namespace:
            yield from self._run("forget_twins()")
            yield self._ask("PyDict_Clear", self._namespace)
            yield self._ask("Py_DecRef", self._namespace)
        self._namespace = 0
        self.is_over = True

    def _put_back(self) -> None:
        """All slots are as they were. No other thread looks at them meanwhile: it stands, or lacks the GIL."""
        self._count_guards()
        for slot in self._slots:
            if self.objects.word(slot.address) == slot.mine:
                self._put_word(slot.address, slot.original)
        for at in self._versions:
            # 1 says that it has lost its version for good (3.13), 0 that it has none yet.
            if vm.read(self.pid, at, 4) == b"\1\0\0\0":
                vm.write(self.pid, at, bytes(4))
        self.tracee.breakpoints.patches.remove([slot.address for slot in self._slots] + self._versions)
        self._slots, self._versions = [], []
        self._note()

    def _say_once(self, text: str) -> None:
        if text not in self._notes:
            self._notes.add(text)
            self.say(text)
