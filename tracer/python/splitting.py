"""What is done inside the interpreter, at a safe point: functions are found, and their slots led to gates.

Everything here is steps of a visit (visits.py) but what says otherwise. A visit may be left in the middle, by an exception
that a signal's handler raises (`Raised`); then it is begun again some time, and goes on where it was.

CPython 3.12 and newer look at a function's slot before they call it in their quick way; 3.9 and 3.10 have no other way
than the slot. 3.11 does not look: there a split function also gets another type, `twin`, which is no other for isinstance,
inspect, pickle and copy, but is for `type(f) is types.FunctionType`. 3.13 calls __init__ and 3.14 properties by the version
of their class, without looking at the function: such a class gets no version as long as the function is split.

Sources: Python/ceval.c, Python/specialize.c, Objects/funcobject.c, Objects/typeobject.c of 3.9 to 3.14; PEP 590.
"""

import copy
import struct
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from importlib import resources

from radium.errors import NotPossible
from radium.linux import vm
from radium.profiles.schema import Split as ProfileSplit
from radium.report import Report
from radium.tracer.ledger import Slot
from radium.tracer.python import gates as layout
from radium.tracer.python.gates import GateKind, Gates
from radium.tracer.python.objects import (
    BASETYPE,
    FLAGS_AT,
    HAVE_VECTORCALL,
    ITERNEXT_AT,
    METHOD_DESCRIPTOR,
    MOST_VERSIONS,
    TYPE_AT,
    VECTORCALL_OFFSET_AT,
    VERSIONS_AT,
    VERSIONS_MASK,
    Objects,
    Way,
)
from radium.tracer.python.runtime import Runtime, check_version
from radium.tracer.python.visits import Ask, Steps
from radium.tracer.resolve import SplitPoint
from radium.tracer.split import Split
from radium.tracer.tracee import Tracee
from radium.tracer.withdraw import LOST_VERSION, NO_VERSION

# So deep may Python functions call each other by way of the C stack, of which each takes less than a kilobyte.
MOST_DEEP = 4000
# The number of the gate at the end of imports.
IMPORTED = 0
# How long no function must have been found until it is said how many there are.
SETTLED_S = 0.3
_IMPORT_END = (-1, "_frozen_importlib", False, "_ModuleLockManager.__exit__", None)
_FILE_INPUT = 257  # Py_file_input, compile.h
# Flags of code objects (code.h).
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200
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


class Raised(Exception):
    """A signal's handler has raised an exception while our script ran. It is the program's, and set in its thread."""


@dataclass
class Wanted:
    """A name of a profile. found: how many functions it has led to."""

    split: ProfileSplit
    module: str
    is_package: bool
    qualname: str
    found: int = 0

    @classmethod
    def parse(cls, split: ProfileSplit, text: str) -> "Wanted":
        module, _, qualname = text.partition(":")
        return cls(split, module, qualname == "**", qualname)

    @property
    def is_open(self) -> bool:
        """Whether there may be more functions of this name."""
        return not self.found or "*" in self.qualname or "?" in self.qualname

    def line(self, number: int) -> tuple[object, ...]:
        """As the script takes it."""
        guard = self.split.python_guard
        told = None if guard is None else (guard.text, guard.by_number, list(guard.names))
        return number, self.module, self.is_package, self.qualname, told


@dataclass
class _Lead:
    """A word that is to lead to a gate, or hold a twin. function: whose word it is, if it is a Python function's slot.

    kind: the class that is to have no version; the word is where they are counted.
    """

    slot: Slot
    function: int = 0
    kind: int = 0


class Splitting:
    """splits: by the numbers of their gates; natives: functions in C that were found, to be split where they begin.

    slots: what has been changed in objects; cleared: where functions have had their versions. fresh: by number, functions
    that had just been made when they were split, and where their gates lead then. interpreter: whose functions they are, by
    its address; objects: a reader of its objects.
    """

    def __init__(
        self, tracee: Tracee, runtime: Runtime, gates: Gates, splits: Sequence[ProfileSplit], report: Report,
        say: Callable[[str], None], note: Callable[[], None], *, is_starting: bool,
    ) -> None:  # fmt: skip
        """say: a line, once. note: to be called before something that is noted in the plan is done."""
        self._tracee = tracee
        self._runtime = runtime
        self._gates = gates
        self._report = report
        self._say, self._note = say, note
        self.objects = Objects(tracee.pid, runtime)
        self.wanted = [Wanted.parse(split, text) for split in splits for text in split.python]
        self.splits: dict[int, Split] = {}
        self.natives: list[SplitPoint] = []
        self.slots: list[Slot] = []
        self.cleared: list[int] = []
        self.fresh: dict[int, tuple[int, GateKind]] = {}
        self.version = (0, 0)
        self.interpreter = 0
        self.has_begun = False
        self._is_starting = is_starting
        self._namespace = self._main_module = 0
        self._has_script = False
        self._lines: deque[list[str]] = deque()
        self._nlines = 0
        self._leads: list[_Lead] = []
        self._twin = self._twin_uses = 0
        # By address: the types of split generators, and their reference counts without any generator.
        self._generators: dict[int, int] = {}
        self._just_made = 0
        self._checks = False
        self._plain = self._nlifted = 0
        # Functions that are split, those of them that the user has been told of, and how many there were when.
        self._ngates = self._nfunctions = self._ntold = self._nseen = 0
        self._seen = 0.0
        self._counted: dict[int, int] = {}

    def copy_for(self, tracee: Tracee, note: Callable[[], None]) -> "Splitting":
        """That of a forked child, which has all of it in its memory. No step."""
        copied = copy.copy(self)
        copied._tracee, copied._note = tracee, note
        copied.objects = Objects(tracee.pid, self._runtime)
        copied.wanted = [copy.copy(one) for one in self.wanted]
        copied.splits = {number: split.copy_for(copied._read_memory) for number, split in self.splits.items()}
        copied._generators = dict(self._generators)
        copied.natives, copied._leads, copied._lines = list(self.natives), [], deque(self._lines)
        copied.slots, copied.cleared, copied.fresh = list(self.slots), list(self.cleared), dict(self.fresh)
        copied._counted = {number: copied._count(number) for number in self._counted}
        return copied

    # Calling the interpreter

    def ask(self, name: str, *arguments: int | bytes) -> Ask:
        """No step itself: it is to be yielded."""
        return Ask(self._runtime.function(name), arguments)

    def _put(self, address: int, value: int) -> None:
        self._tracee.memory.write(address, value.to_bytes(8, "little"))

    def _read_memory(self, address: int, nbytes: int) -> bytes:
        return vm.read(self._tracee.pid, address, nbytes)

    def _run(self, text: str) -> Steps:
        """Executes the text in our namespace. Raises Raised."""
        tstate = 0
        if self._runtime.has("PyThreadState_EnterTracing"):
            # Whoever traces or profiles the program sees nothing of this (sys.settrace).
            tstate = yield self.ask("PyThreadState_Get")
            leave = self._runtime.function("PyThreadState_LeaveTracing")
            yield self.ask("PyThreadState_EnterTracing", tstate)._replace(undo=leave)
        scope = self._namespace
        try:
            done = yield self.ask("PyRun_StringFlags", text.encode(), _FILE_INPUT, scope, scope, 0)
        except Exception:
            if tstate:
                yield self.ask("PyThreadState_LeaveTracing", tstate)
            raise
        if tstate:
            yield self.ask("PyThreadState_LeaveTracing", tstate)
        if not done:
            raise Raised
        yield self.ask("Py_DecRef", done)

    def _evaluate(self, expression: str) -> Answers:
        """The bytes that it gives. Raises Raised, NotPossible."""
        yield from self._run(_EVALUATE.format(expression))
        answer = yield self.ask("PyDict_GetItemString", self._namespace, b"answer")
        nbytes = yield self.ask("PyBytes_Size", answer)
        at = yield self.ask("PyBytes_AsString", answer)
        data = self._read_memory(at, nbytes) if nbytes else b""
        failed = yield self.ask("PyDict_GetItemString", self._namespace, b"failed")
        if failed == self._runtime.data("_Py_TrueStruct"):
            raise NotPossible(f"its functions are not found: {data.decode(errors='replace')[:200]}")
        return data

    # Beginning

    def begin(self) -> Steps:
        """Raises Raised, NotPossible."""
        if not self._namespace:
            yield from self._check()
            exception = self.objects.word(self._runtime.data("PyExc_Exception"))
            self._put(self._gates.exception, exception)
            self._namespace = yield self.ask("PyDict_New")
        if not self._has_script:
            yield from self._run(resources.files(__package__).joinpath("inside.py").read_text())
            self._has_script = True
        if self.version == (3, 11) and not self._twin:
            yield from self._make_twin()
        if self.version >= (3, 11) and not self._checks:
            yield from self._prepare_checks()
        self._main_module = int((yield from self._evaluate("b'%d' % id(sys.modules['__main__'].__dict__)")))
        self.has_begun = True
        yield from self.find()

    def _check(self) -> Steps:
        where = f"pid {self._tracee.pid}"
        self.version = check_version(self.objects.text((yield self.ask("Py_GetVersion"))), where)
        self.interpreter = yield self.ask("PyInterpreterState_Head")
        if (yield self.ask("PyInterpreterState_Next", self.interpreter)):
            raise NotPossible("runs sub-interpreters", where=where, advice="Python splits need a program with one interpreter")

    def _derive(self, base: int, expression: str) -> Generator[Ask, int, int]:
        """The address of a type that the expression derives from a type that is made final by its flags."""
        flags_at = base + FLAGS_AT
        self._put(flags_at, self.objects.word(flags_at) | BASETYPE)
        try:
            answer = yield from self._evaluate(f"b'%d' % id({expression})")
        finally:
            self._put(flags_at, self.objects.word(flags_at) & ~BASETYPE)
        return int(answer)

    def _make_twin(self) -> Steps:
        base = self.objects.function_type
        twin = yield from self._derive(base, "globals().setdefault('twin', make_twin(type(make_twin)))")
        # Heap types do not inherit these before 3.12 (inherit_slots).
        inherited = self.objects.word(base + FLAGS_AT) & (HAVE_VECTORCALL | METHOD_DESCRIPTOR)
        self._put(twin + FLAGS_AT, self.objects.word(twin + FLAGS_AT) | inherited)
        self._twin = twin

    def _prepare_checks(self) -> Steps:
        """What `checked` needs (gates.py): where a thread's depth is, and what makes a split function a plain one."""
        answer = yield from self._evaluate("b'%d %d' % (sys.getrecursionlimit(), id(matches))")
        limit, plain_function = map(int, answer.split())
        state = yield self.ask("PyThreadState_Get")
        ints = struct.unpack("<64i", self._read_memory(state, 256))
        at = next((i for i in range(6, 62) if ints[i + 1] == limit and 0 < ints[i] <= limit), 0)
        if not at:
            return
        top, most = 0, MOST_DEEP
        if (3, 12) <= self.version <= (3, 13):
            # They count calls by way of C separately, behind those two, and allow 1,500 to 10,000 of them.
            at += 2
            top, most = ints[at], ints[at] // 3
        objects, gates = self.objects, self._gates
        self._plain = objects.word(objects.way(plain_function).slot)
        plain_at = TYPE_AT if self._twin else objects.word(objects.function_type + VECTORCALL_OFFSET_AT)
        plain = objects.function_type if self._twin else self._plain
        words = {"depth_at": 4 * at, "top": top, "most": most, "plain_at": plain_at, "plain": plain}
        for name, value in words.items():
            self._put(getattr(gates, name), value)
        self._checks = True

    # Finding

    def find(self) -> Steps:
        """Splits what there is now of the wanted names. Raises Raised, NotPossible."""
        wanted = [_IMPORT_END, *(one.line(number) for number, one in enumerate(self.wanted))]
        answer = yield from self._evaluate(f"find({wanted!r}, {self._nlines})")
        yield from self._take(answer)
        if not self._ntold and (self._nfunctions or not self._is_starting):
            self._tell()

    def tell(self) -> None:
        """To be called often: says how many functions are split when no more have been found for a while."""
        if self._nfunctions != self._nseen:
            self._nseen, self._seen = self._nfunctions, time.monotonic()
        elif self._nfunctions != self._ntold and time.monotonic() > self._seen + SETTLED_S:
            self._tell()

    def _tell(self) -> None:
        self._ntold = self._nfunctions
        what = "1 function is" if self._nfunctions == 1 else f"{self._nfunctions} functions are"
        self._say(f"Python {self.version[0]}.{self.version[1]}: {what} split")

    def take_made(self, made: int) -> Steps:
        """Splits a function that has just been made, and is in no module yet, if it is wanted. Raises Raised, NotPossible."""
        yield self.ask("PyDict_SetItemString", self._namespace, b"made", made)
        wanted = [one.line(number) for number, one in enumerate(self.wanted) if one.module == "__main__"]
        answer = yield from self._evaluate(f"take_made({wanted!r}, {self._nlines})")
        self._just_made = made
        yield from self._take(answer)
        self._just_made = 0

    @property
    def is_complete(self) -> bool:
        """Whether all names have led to functions, and no later import can change that."""
        return self.has_begun and not any(one.is_open for one in self.wanted)

    @property
    def awaits_function(self) -> bool:
        """Whether a function of the program's main module is wanted that may not be there yet: no import tells of it."""
        awaited = [one for one in self.wanted if one.module == "__main__"]
        # Of a program that runs already, globs have found what there is.
        return self.has_begun and any(one.is_open if self._is_starting else not one.found for one in awaited)

    def is_main_module(self, names: int) -> bool:
        """Whether these are the global names of the program's main module."""
        return names == self._main_module

    def _take(self, answer: bytes) -> Steps:
        """Does what the script's lines say; those that are left when it is interrupted are done next time."""
        lines = answer.decode().splitlines()
        self._nlines += len(lines)
        self._lines.extend(line.split("\t") for line in lines)
        while self._lines:
            yield from self._take_line(*self._lines[0])
            self._lines.popleft()
        yield from self._lead_all()

    def _take_line(self, kind: str, number: str, module: str, qualname: str, *rest: str) -> Steps:
        name = f"{module}:{qualname}"
        if kind == "note":
            if int(number) >= 0:
                self._say(f"{self.wanted[int(number)].split.where}: {name} {rest[0]}")
            return
        if kind == "class":
            self._lead_class(int(rest[0]))
            return
        thing, flags, guard = map(int, rest)
        if int(number) < 0:
            self._lead_thing(IMPORTED, thing, self.objects.way(thing), guard, "guarded")
        else:
            yield from self._split(self.wanted[int(number)], name, thing, flags, guard)

    def _split(self, wanted: Wanted, name: str, thing: int, flags: int, guard: int) -> Steps:
        way = self.objects.way(thing)
        why_not = way.why_not or self._why_not(way, flags, has_guard=bool(guard))
        if why_not:
            self._say(f"{wanted.split.where}: {name} is not split: {why_not}")
            return
        twin = (yield from self._twin_of(flags)) if flags & (_GENERATOR | _COROUTINE) else 0
        point = SplitPoint(
            f"python:{name}", way.native or self._gates.common, (), self._runtime.holder.path, wanted.split
        )  # fmt: skip
        wanted.found += 1
        if way.native:
            self.natives.append(point)
            return
        self._nfunctions += 1
        split = Split(point, self._report.split(point.name, wanted.split.stance, "breakpoint"), self._read_memory)
        if twin:
            self._lead_generators(split, thing, way, twin, is_coroutine=not flags & _GENERATOR)
        else:
            number = self._next_gate(split)
            if guard:
                self._counted[number] = 0
            self._lead_thing(number, thing, way, guard, "guarded" if guard else "common")

    def _why_not(self, way: Way, flags: int, *, has_guard: bool) -> str:
        if way.native and has_guard:
            return "it is a C function, which takes no Python guard"
        if flags & _ASYNC_GENERATOR:
            return "it is an asynchronous generator"
        if flags & (_GENERATOR | _COROUTINE) and has_guard:
            return "what a generator or a coroutine does next takes no guard"
        if flags & _COROUTINE and self.version < (3, 10):
            return "coroutines are split from CPython 3.10 on"
        # A generator takes three gates.
        return "" if self._ngates + 3 < layout.MOST else f"{layout.MOST} gates are taken; name fewer functions"

    # Leading

    def _next_gate(self, split: Split) -> int:
        self._ngates += 1
        self.splits[self._ngates] = split
        return self._ngates

    def _base(self, *, is_coroutine: bool) -> int:
        return self._runtime.data("PyCoro_Type" if is_coroutine else "PyGen_Type")

    def _twin_of(self, flags: int) -> Generator[Ask, int, int]:
        """A type of its own for what a generator or coroutine function makes."""
        is_coroutine = not flags & _GENERATOR
        expression = f"make_twin_of_generators(types_of_generators()[{int(is_coroutine)}])"
        twin: int = yield from self._derive(self._base(is_coroutine=is_coroutine), expression)
        self._generators[twin] = self.objects.word(twin)
        return twin

    @property
    def has_generators(self) -> bool:
        """Whether somebody may hold on to a gate: C code that goes through a generator looks up its slot once (list_extend)."""
        return bool(self._generators)

    @property
    def are_generators_gone(self) -> bool:
        """Whether none of those that had been made are there any more."""
        return all(self.objects.word(twin) <= count for twin, count in self._generators.items())

    def _lead_generators(self, split: Split, function: int, way: Way, twin: int, *, is_coroutine: bool) -> None:
        """What the function makes from here on is of the twin's type, whose slots lead to gates. No step."""
        objects, base = self.objects, self._base(is_coroutine=is_coroutine)
        iternext = objects.word(self._base(is_coroutine=False) + ITERNEXT_AT)
        # A coroutine has no such slot, but is stepped in the same way, by the same function.
        self._lead_slot(self._next_gate(split), twin + ITERNEXT_AT, iternext, was=0 if is_coroutine else iternext)
        if self.version >= (3, 10):
            at, sends = objects.send_slot(twin), objects.word(objects.send_slot(base))
            self._lead_slot(self._next_gate(split), at, sends, was=objects.word(at))
        if is_coroutine:
            # Its own would wrap it into an iterator that leads past the slots.
            at = objects.await_slot(twin)
            self._leads.append(_Lead(Slot(at, self._gates.itself, objects.word(at))))
        maker = self._next_gate(split)
        self._put(self._gates.row("bases", maker), base)
        self._lead_thing(maker, function, way, twin, "making")

    def _lead_slot(self, number: int, slot: int, target: int, *, was: int) -> None:
        """A type's slot. was: what it holds, which need not be the target."""
        self._put(self._gates.row("targets", number), target)
        self._write_gate(number, "common")
        self._leads.append(_Lead(Slot(slot, self._gates.address(number), was)))

    def _write_gate(self, number: int, kind: GateKind) -> None:
        self._tracee.memory.write(self._gates.address(number), self._gates.gate(number, kind))

    def _lead_thing(self, number: int, thing: int, way: Way, companion: int, kind: GateKind) -> None:
        """An object's own slot. companion: its guard, or the twin of what it makes. No step."""
        gates, original = self._gates, self.objects.word(way.slot)
        if way.is_function and self._checks and original == self._plain and kind in ("common", "guarded"):
            kind = "checked"
        self._put(gates.row("targets", number), original)
        self._put(gates.row("guards", number), companion)
        if thing == self._just_made and self.version >= (3, 12):
            # Its maker gives it a version yet, by which calls of it are specialised that do not look at its slot.
            self.fresh[number] = thing, kind
        self._write_gate(number, "common" if number in self.fresh else kind)
        is_ours_alone = way.is_function and self.version >= (3, 11)
        self._leads.append(_Lead(Slot(way.slot, gates.address(number), original), thing if is_ours_alone else 0))

    def _lead_class(self, kind: int) -> None:
        """A class has had all versions that it may have. No step."""
        at, word = kind + VERSIONS_AT, self.objects.word(kind + VERSIONS_AT)
        self._leads.append(_Lead(Slot(at, word & ~VERSIONS_MASK | MOST_VERSIONS, word), kind=kind))

    def _lead_all(self) -> Steps:
        """Now the words are written: all have been noted, so that whoever comes after us finds them."""
        functions = [lead for lead in self._leads if lead.function]
        self.slots += [lead.slot for lead in self._leads]
        if self._twin:
            self.slots += [self._type_slot(lead.function) for lead in functions]
        self.cleared += [lead.slot.address + 8 for lead in functions]
        self._note()
        while self._leads:
            lead = self._leads[0]
            if lead.function:
                yield from self._lead_function(lead)
            else:
                self._put(lead.slot.address, lead.slot.mine)
            if lead.kind:
                yield self.ask("PyType_Modified", lead.kind)
            self._leads.pop(0)

    def _type_slot(self, function: int) -> Slot:
        return Slot(function + TYPE_AT, self._twin, self.objects.function_type)

    def _lead_function(self, lead: _Lead) -> Steps:
        """We hold the GIL: nobody else looks at the function now."""
        slot, function = lead.slot, lead.function
        if self.version >= (3, 12):
            yield from self.set_slot(function, slot.mine)
        else:
            yield self.ask("Py_IncRef", self._twin)
            # They are held, so it is still theirs when they get their own type back.
            self._twin_uses += 1
            # What has been specialised for it (specialize.c) is so for this version, which is nobody's now.
            self._tracee.memory.write(slot.address + 8, NO_VERSION)
            self._put(slot.address, slot.mine)
            self._put(function + TYPE_AT, self._twin)
            self._hide(self._type_slot(function))
        self._hide(slot)
        # It may get a version in the mirror, by which its calls are specialised; here it has none.
        version = self._read_memory(slot.address + 8, 4)
        self._tracee.breakpoints.patches.put(slot.address + 8, version, version)

    def _hide(self, slot: Slot) -> None:
        """In the mirror it is called as it always was: what a split call calls is part of it."""
        self._tracee.breakpoints.patches.put(slot.address, slot.mine.to_bytes(8, "little"), slot.original.to_bytes(8, "little"))

    def set_slot(self, function: int, gate: int) -> Steps:
        yield self.ask("PyFunction_SetVectorcall", function, gate)

    def settle(self, number: int) -> Steps:
        """The function is made: its slot is set once more, and its gate leads where it should."""
        function, kind = self.fresh.pop(number)
        self._write_gate(number, kind)
        yield from self.set_slot(function, self._gates.address(number))
        # Its class is there by now.
        yield from self.find()

    # Between visits: no steps

    def count_guards(self) -> None:
        """Calls that never came to us, because their guards said no."""
        for number, seen in self._counted.items():
            now = self._count(number)
            for _ in range(now - seen):
                self.splits[number].report.count_local("guard")
            self._counted[number] = now

    def _count(self, number: int) -> int:
        return sum(self.objects.word(self._gates.row(table, number)) for table in ("rejected", "failed"))

    @property
    def has_lifted(self) -> bool:
        """Whether a deep recursion has made functions plain ones (gates.py, `checked`) since this was asked last."""
        before, self._nlifted = self._nlifted, self.objects.word(self._gates.lifted)
        return self._nlifted != before

    def split_again(self) -> None:
        """All threads are stopped: plain functions are split ones again."""
        for slot in self.slots:
            if self.objects.word(slot.address) == slot.original:
                self._put(slot.address, slot.mine)

    # Leaving

    def put_back(self) -> None:
        """All slots are as they were. No step: all threads are stopped, or nobody else holds the GIL."""
        self.count_guards()
        if self._nfunctions != self._ntold:
            self._tell()
        for slot in self.slots:
            if self.objects.word(slot.address) == slot.mine:
                self._put(slot.address, slot.original)
        for at in self.cleared:
            if self._read_memory(at, 4) == LOST_VERSION:
                self._tracee.memory.write(at, NO_VERSION)
        self._tracee.breakpoints.patches.remove([*(slot.address for slot in self.slots), *self.cleared])
        self.slots, self.cleared = [], []
        self._leads.clear()
        self._note()

    def forget_twins(self) -> Steps:
        """Nobody but the program's own objects refers to the types of generators any more. Raises Raised."""
        if self._has_script:
            yield from self._run("forget_twins()")

    def let_go(self) -> Steps:
        """What the script keeps is the program's own again, or gone."""
        if self._twin_uses:
            self._put(self._twin, self.objects.word(self._twin) - self._twin_uses)
            self._twin_uses = 0
        if self.are_generators_gone:
            self._generators.clear()
        scope, self._namespace = self._namespace, 0
        if scope:
            yield self.ask("PyDict_Clear", scope)
            yield self.ask("Py_DecRef", scope)

    @property
    def keeps(self) -> bool:
        """Whether there is something to let go."""
        return bool(self._namespace)
