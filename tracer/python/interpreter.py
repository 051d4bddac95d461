"""The CPython of a tracee: how radium gets into it, and out again.

    approach   a thread is brought to a safe point, where it holds the GIL and is in the middle of nothing   `look`
    visit      there it calls functions of the interpreter for us (visits.py)                                 `_visit`
    split      functions that a profile names get gates (splitting.py)                                        a job
    notice     the end of every import is a safe point, at which we look again                                `on_trap`
    leave      all slots are put back, what is kept in the interpreter is let go                              `leave`

A safe point is where the interpreter calls us, which it does between two bytecodes of the main thread when it has been asked
to, by PEP 768 or by Py_AddPendingCall;
where the main thread waits in a system call in which nothing of it can be half done, with PyGILState_Ensure; and the
entry of a function that the interpreter calls. A main thread that is in C code and comes to none of these is waited for.

Sources: Python/ceval_gil.c (pending calls), Lib/importlib/_bootstrap.py, Python/pylifecycle.c of 3.9 to 3.14.
"""

import copy
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

from radium.core.addr import PAGE_SIZE
from radium.core.regs import NO_SYSCALL, RESTARTS, Registers
from radium.errors import NotPossible, RemoteFault
from radium.linux import ptrace, vm
from radium.linux.libc import NUMBERS
from radium.profiles.schema import Split as ProfileSplit
from radium.report import Report
from radium.tracer.breakpoint import MAP_FIXED_NOREPLACE_ANONYMOUS, Breakpoint, free_place
from radium.tracer.ledger import GatesPlan
from radium.tracer.python import gates as layout
from radium.tracer.python.gates import Gates
from radium.tracer.python.runtime import Runtime
from radium.tracer.python.splitting import IMPORTED, Raised, Splitting
from radium.tracer.python.stop_request import StopRequest
from radium.tracer.python.visits import EINTR, Gil, Steps, Visit
from radium.tracer.resolve import SplitPoint
from radium.tracer.split import Split
from radium.tracer.stops import Stop
from radium.tracer.tracee import Tracee

# How often the main thread is looked at until it is at a safe point, and after how long we say that it takes long.
APPROACH_S, LONG_S = 0.02, 2.0
# How long a leave may take that waits for a safe point; then what the script keeps stays in the tracee.
LEAVE_S = 5.0
# Of it, how long generators may take that are in use.
GENERATORS_S = 1.0
# So long calls wait for the interpreter to come to what it has been asked for; then it is asked again.
SCHEDULED_S = 1.0
# So many functions may be made while one of the main module's is waited for, and so many one after the other of code of
# the main module's that is known already: each costs a stop.
MOST_MADE, MOST_OLD = 100_000, 1000
# The system calls in which a thread sleeps, and in which no allocator or lock of its program's is in the middle of anything.
_SLEEPS = frozenset(
    NUMBERS[name]
    for name in (
        "read pread64 readv recvfrom recvmsg accept accept4 connect poll ppoll select pselect6 epoll_wait epoll_pwait "
        "nanosleep clock_nanosleep wait4 waitid pause rt_sigsuspend rt_sigtimedwait flock msgrcv semop semtimedop"
    ).split()
)
_FUTEX, _RESTARTED = NUMBERS["futex"], NUMBERS["restart_syscall"]
# FUTEX_WAIT, FUTEX_WAIT_BITSET, and the flags FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME.
_WAITS, _FLAGS = (0, 9), 128 | 256
_EXCEPTION = struct.Struct("<3Q")  # type, value, traceback

# Steps that may be taken at a safe point.
Job = Callable[[], Steps]


@dataclass
class _Doing:
    """A visit. then: what is done when the thread is back where it was; is told whether a handler has raised an exception."""

    visit: Visit
    job: Job
    then: Callable[[bool], None]


class _Import(NamedTuple):
    """A thread that imports, the stack pointer at the entry of the function that does it, and where that returns to."""

    tid: int
    rsp: int
    back: int


class Interpreter:
    """All threads of the tracee are stopped when this is made. is_over: nothing in it leads to us any more.

    is_starting: it has not been initialised yet, perhaps.
    """

    def __init__(
        self, tracee: Tracee, runtime: Runtime, splits: Sequence[ProfileSplit], report: Report, say: Callable[[str], None],
        *, is_starting: bool,
    ) -> None:  # fmt: skip
        """say: a line, once. Raises NotPossible, RemoteFault."""
        self._tracee = tracee
        self._runtime = runtime
        self._say = say
        self._finalise, self._evaluate_code = map(runtime.function, ("Py_FinalizeEx", "PyEval_EvalCode"))
        self._make_function = runtime.make_function(lambda address, nbytes: vm.read(tracee.pid, address, nbytes))
        # Where functions of the main module are made, and the threads that are about to come there with one.
        self._makers: set[int] = set()
        self._making: set[int] = set()
        self._codes: set[int] = set()
        self._nmade = self._nold = 0
        # The import that a thread is in: meanwhile thousands of functions are made, and hardly one of the main module's.
        self._import = runtime.function("PyImport_ImportModuleLevelObject")
        self._importing: _Import | None = None
        self._doing: dict[int, _Doing] = {}
        self._kept: deque[tuple[int, ...]] = deque()
        self._armed: set[int] = set()
        self._is_starting = is_starting
        self._request: StopRequest | None = None
        # How many calls the interpreter has been asked for that have not come, and when the last was.
        self._nscheduled, self._scheduled = 0, 0.0
        self._is_back = self._has_forgotten = False
        self._began, self._next_look, self._leave_by = time.monotonic(), 0.0, 0.0
        self.is_over = False
        self.gates = Gates(self._map())
        self._splitting = Splitting(tracee, runtime, self.gates, splits, report, say, self._note, is_starting=is_starting)
        self._jobs: deque[Job] = deque([self._splitting.begin])
        self._fill()

    def copy_for(self, tracee: Tracee) -> "Interpreter":
        """That of a forked child, which has all of it in its memory; of the threads only the one that forked is there."""
        copied = copy.copy(self)
        copied._tracee = tracee
        copied._splitting = self._splitting.copy_for(tracee, copied._note)
        copied._doing, copied._kept, copied._makers, copied._making = {}, deque(), set(self._makers), set()
        copied._codes, copied._importing = set(self._codes), None
        copied._request = self._request and replace(self._request, objects=copied._splitting.objects)
        copied._jobs = deque() if self._splitting.has_begun else deque([copied._splitting.begin])
        tracee.memory.write(self.gates.active, bytes(8))
        copied._note()
        return copied

    # What is ours in the tracee

    def _map(self) -> int:
        tracee = self._tracee
        if tracee.remote is None:
            raise NotPossible(
                "Python functions are split with the help of system calls in it, which its seccomp filter refuses",
                where=f"pid {tracee.pid}",
            )
        tracee.home.refresh()
        reserved = tracee.breakpoints.reserved
        near = reserved[0][0] if reserved else self._runtime.holder.base
        base = free_place(tracee.home.mappings, reserved, near, layout.NBYTES)
        start, end = Gates(base).code
        with tracee.remote.borrow(next(iter(tracee.threads.threads))) as thread:
            thread.call("mmap", base, layout.NBYTES, 3, MAP_FIXED_NOREPLACE_ANONYMOUS, -1, 0)
            thread.call("mprotect", start, end - start, 5)
        return base

    def _fill(self) -> None:
        self._note()
        addresses = {name: self._runtime.function(*names) for name, names in layout.FUNCTIONS.items()}
        later = {name: names for name, names in layout.LATER_FUNCTIONS.items() if self._runtime.has(*names)}
        addresses.update({name: self._runtime.function(*names) for name, names in later.items()})
        addresses["true"] = self._runtime.data("_Py_TrueStruct")
        self._tracee.memory.write(self.gates.code[0], layout.CODE)
        self._tracee.memory.write(self.gates.base, self.gates.words(addresses))
        self.arm()

    def _note(self) -> None:
        gates, splitting = self.gates, self._splitting
        self._tracee.breakpoints.note_gates(
            GatesPlan(
                gates.base, gates.end, gates.active, list(splitting.slots), list(splitting.cleared), list(self._doing),
                bool(self._nscheduled) or splitting.has_generators,
            )
        )

    # Breakpoints

    @property
    def _entries(self) -> set[int]:
        """Where breakpoints are of use now."""
        entries = {self.gates.pending, self.gates.ask, self.gates.common, self._finalise}
        if self._is_starting:
            entries.add(self._evaluate_code)
        if self._request is not None:
            entries.add(self._request.entry)
        is_likely = self._nmade < MOST_MADE and self._nold < MOST_OLD
        if self._splitting.awaits_function and is_likely and not self._is_leaving:
            entries |= {self._importing.back} if self._is_importing and self._importing else self._where_made
        return entries

    @property
    def _where_made(self) -> set[int]:
        return {*self._make_function, *self._makers, self._import}

    @property
    def _is_importing(self) -> bool:
        return self._importing is not None and self._importing.tid in self._tracee.threads.threads

    @property
    def has_wishes(self) -> bool:
        """Whether `arm` is to be called, or there are C functions to be split."""
        return bool(self._splitting.natives) or self._entries != self._armed

    def arm(self) -> None:
        """All threads are stopped: breakpoints where they are of use now, and nowhere else. Raises NotPossible."""
        entries, breakpoints = self._entries, self._tracee.breakpoints
        breakpoints.disarm(sorted(self._armed - entries))
        self._tracee.home.refresh()
        refused = breakpoints.arm(sorted(entries - self._armed), self._tracee.home.mappings)
        self._armed = entries
        if refused:
            raise NotPossible(next(iter(refused.values())))

    @property
    def split_functions(self) -> list[Split]:
        """Those whose calls come by the gates."""
        return list(self._splitting.splits.values())

    @property
    def may_rest(self) -> bool:
        """Whether nothing but calls comes by the gates: then their trap may be lifted, and calls go straight through."""
        return self._splitting.is_complete and not self._is_leaving

    def take_natives(self) -> list[SplitPoint]:
        """Functions in C that were found, to be split where they begin."""
        natives, self._splitting.natives = self._splitting.natives, []
        return natives

    # Approach

    @property
    def is_visiting(self) -> bool:
        """Whether no call may leave: a main thread that went along would do in the mirror what is meant to be done here."""
        return bool(self._doing) or self._is_scheduled

    @property
    def _is_scheduled(self) -> bool:
        return bool(self._nscheduled) and time.monotonic() < self._scheduled + SCHEDULED_S

    @property
    def _is_leaving(self) -> bool:
        return self.is_over or bool(self._leave_by)

    @property
    def is_busy(self) -> bool:
        """Whether it waits for something that `look` does."""
        return not self.is_over and not self._is_starting and bool(self._jobs or self._kept)

    def look(self) -> None:
        """To be called often, while no call is away: brings the main thread nearer to a safe point."""
        now, threads = time.monotonic(), self._tracee.threads
        if self.is_over or now < self._next_look:
            return
        self._next_look = now + APPROACH_S
        self._splitting.count_guards()
        self._splitting.tell()
        has_lifted, is_due = self._splitting.has_lifted, self.is_busy and not self._doing
        if not has_lifted and not is_due:
            return
        if now - self._began > LONG_S and not self._is_leaving and not self._splitting.has_begun:
            self._say("its main thread is in code that is not Python's; Python functions are split when it comes back")
        threads.stop_all()
        try:
            if has_lifted:
                self._splitting.split_again()
            if is_due:
                self._approach()
        finally:
            threads.resume_all()

    def _approach(self) -> None:
        pid, threads = self._tracee.pid, self._tracee.threads
        main = threads.threads.get(pid)
        if threads.is_over or any(stop.tid == pid for stop in threads.pending):
            # Again as soon as that has been handled.
            self._next_look = 0.0
            return
        if main is None or not main.is_free or main.is_group_stopped or main.is_away or main.traces_syscalls:
            return
        regs = ptrace.registers(pid)
        if self._is_ours(regs.rip):
            return
        if self._jobs and _sleeps(regs):
            job = self._jobs.popleft()
            self._visit(pid, job, self._with_gil(self._steps(job)), lambda _: None, is_asleep=True)
        elif not self._is_scheduled and (_waits(regs) or self._kept or not self._request_stop()):
            self._visit(pid, self._schedule, self._schedule(), lambda _: self._wake())
        else:
            self._wake()

    def _is_ours(self, rip: int) -> bool:
        ours = [*self._tracee.breakpoints.reserved, (self.gates.base, self.gates.end)]
        return any(start <= rip < end for start, end in ours)

    def _request_stop(self) -> bool:
        """Asks by PEP 768, if nothing has been asked for in vain yet; False: it must be done in the other way."""
        request = None if self._nscheduled else StopRequest.find(self._splitting.objects)
        if request is None:
            return False
        self._request = request
        try:
            self.arm()
            request.ask()
        except (NotPossible, RemoteFault):
            self._request = None
            return False
        self._note_scheduled()
        return True

    def _note_scheduled(self) -> None:
        self._nscheduled, self._scheduled = self._nscheduled + 1, time.monotonic()
        self._note()

    def _schedule(self) -> Steps:
        self._note_scheduled()
        result = yield self._splitting.ask("Py_AddPendingCall", self.gates.pending, 0)
        if result & 0xFFFFFFFF:
            # Its queue is full.
            self._nscheduled -= 1

    def _wake(self) -> None:
        """Whoever waits for a lock of the interpreter's looks for pending calls when it is interrupted; others wait on."""
        regs = ptrace.registers(self._tracee.pid)
        if _waits(regs):
            regs.rax, regs.orig_rax = EINTR, NO_SYSCALL
            ptrace.set_registers(self._tracee.pid, regs)

    def _with_gil(self, steps: Steps) -> Steps:
        """Of a visit that begins with taking it."""
        release = self._splitting.ask("PyGILState_Release")
        try:
            yield from self._keeping(steps)
        except Exception:
            yield release
            raise
        yield release

    def _keeping(self, steps: Steps) -> Steps:
        """Where nothing can be raised, as in the middle of a system call: it is at the next safe point where it can."""
        try:
            yield from steps
        except Raised:
            at = self.gates.room
            yield self._splitting.ask("PyErr_Fetch", at, at + 8, at + 16)
            self._kept.append(_EXCEPTION.unpack(vm.read(self._tracee.pid, at, _EXCEPTION.size)))
            raise

    def _steps(self, job: Job) -> Steps:
        """Of a thread that has gone into a sub-interpreter nothing is asked: what is ours is the main one's."""
        ours = self._splitting.interpreter
        if ours and (yield self._splitting.ask("PyInterpreterState_Get")) != ours:
            self._retry(job)
        else:
            yield from job()

    # Visits

    def _visit(self, tid: int, job: Job, steps: Steps, then: Callable[[bool], None], *, is_asleep: bool = False) -> bool:
        """Sends a stopped thread, which is to be resumed. is_asleep: it does not hold the GIL."""
        gil = Gil(*map(self._runtime.function, ("PyGILState_Ensure", "PyGILState_Release"))) if is_asleep else None
        try:
            visit = Visit.begin(self._tracee.pid, tid, self.gates, steps, gil)
        except RemoteFault:
            self._say("a Python thread's stack has no room for us: its functions are split later")
            self._retry(job)
            return False
        self._doing[tid] = _Doing(visit, job, then)
        self._note()
        return True

    def _retry(self, job: Job) -> None:
        """What can be done later is: a function that has just been made is in its module then, and found."""
        if job in (self._schedule, self._raise, self._if_initialised):
            return
        later = job if job in (self._splitting.begin, self._forget, self._leave) else self._splitting.find
        if self._is_leaving and later not in (self._forget, self._leave):
            return
        if later not in self._jobs:
            self._jobs.append(later)

    def _on_ask(self, tid: int, point: Breakpoint, regs: Registers) -> None:
        """The thread goes on with its next function, or is back where it was."""
        doing, has_raised = self._doing.get(tid), False
        if doing is None:
            regs.rax = 0
            self._tracee.breakpoints.pass_locally(tid, point, regs)
            return
        try:
            if doing.visit.answer(self._tracee.pid, regs):
                self._tracee.breakpoints.pass_locally(tid, point, regs)
                return
        except Raised:
            has_raised = True
            self._retry(doing.job)
        except (NotPossible, RemoteFault) as error:
            self._say(f"Python functions are not split: {error}")
        except Exception:
            self._end_visit(doing)
            raise
        self._end_visit(doing)
        doing.then(has_raised)

    def _end_visit(self, doing: _Doing) -> None:
        doing.visit.end()
        del self._doing[doing.visit.tid]
        self._note()

    # Traps

    @property
    def entries(self) -> Set[int]:
        """Where breakpoints of its are, lifted ones included."""
        return self._armed

    def knows(self, entry: int) -> bool:
        return entry in self._armed

    def on_trap(self, stop: Stop, point: Breakpoint, regs: Registers) -> Split | None:
        """A thread stopped at a breakpoint of ours (`knows`). The split function that is called; None: it can be resumed."""
        entry, tid, splitting = stop.detail, stop.tid, self._splitting
        if entry == self.gates.ask:
            self._on_ask(tid, point, regs)
        elif entry == self.gates.pending:
            self._on_pending(tid, point)
        elif self._request is not None and entry == self._request.entry:
            self._on_opening(tid, point, regs)
        elif entry == self.gates.common and regs.rax in splitting.fresh:
            self._settle(tid, point, regs.rax)
        elif entry == self.gates.common and regs.rax in splitting.splits:
            return splitting.splits[regs.rax]
        elif entry in self._make_function:
            self._nmade += 1
            if splitting.is_main_module(regs.rsi) and self._is_news(regs.rdi):
                self._makers.add(int.from_bytes(vm.read(self._tracee.pid, regs.rsp, 8), "little"))
                self._making.add(tid)
            self._tracee.breakpoints.pass_locally(tid, point, regs)
        elif entry == self._import and not self._is_importing:
            self._importing = _Import(tid, regs.rsp, int.from_bytes(vm.read(self._tracee.pid, regs.rsp, 8), "little"))
            self._tracee.breakpoints.pass_locally(tid, point, regs)
        elif self._importing is not None and entry == self._importing.back:
            if (tid, regs.rsp) == (self._importing.tid, self._importing.rsp + 8):
                self._importing = None
            self._tracee.breakpoints.pass_locally(tid, point, regs)
        else:
            self._at_safe_point(tid, point, self._job_at(entry, tid, regs))
        return None

    def _job_at(self, entry: int, tid: int, regs: Registers) -> Job | None:
        """What is to be done before the interpreter goes on there."""
        if self.is_over:
            return None
        if entry == self._finalise:
            self._jobs.clear()
            return self._end
        if self._is_leaving:
            return None
        if entry == self._evaluate_code and self._is_starting:
            return self._if_initialised
        if entry == self.gates.common and regs.rax == IMPORTED:
            return self._splitting.find
        if entry in self._makers and tid in self._making and regs.rax:
            self._making.discard(tid)
            made = regs.rax
            return lambda: self._splitting.take_made(made)
        return None

    def _on_pending(self, tid: int, point: Breakpoint) -> None:
        self._nscheduled = max(0, self._nscheduled - 1)
        self._note()
        job = self._raise if self._kept else self._jobs.popleft() if self._jobs else None
        self._at_safe_point(tid, point, job)

    def _on_opening(self, tid: int, point: Breakpoint, regs: Registers) -> None:
        """A file with code is opened; the one that we have asked for is empty, and the interpreter goes on."""
        job = None
        if self._request is not None and self._request.is_answer(regs.rdi):
            self._request = None
            self._nscheduled = max(0, self._nscheduled - 1)
            self._note()
            job = self._jobs.popleft() if self._jobs and not self._doing else None

        def go_on(_: bool) -> None:
            self._tracee.breakpoints.pass_locally(tid, point, ptrace.registers(tid))

        if job is None or not self._visit(tid, job, self._keeping(self._steps(job)), go_on):
            self._tracee.breakpoints.pass_locally(tid, point, regs)

    def _is_news(self, code: int) -> bool:
        """Whether no function has been made of this code of the main module's yet: closures are made again and again."""
        is_news = code not in self._codes
        self._codes.add(code)
        self._nold = 0 if is_news else self._nold + 1
        return is_news

    def _settle(self, tid: int, point: Breakpoint, number: int) -> None:
        """A function that has been made since it was split is called first; its gate is passed once more, as all are."""

        def pass_gate(_: bool) -> None:
            regs = ptrace.registers(tid)
            regs.rip = self.gates.address(number)
            ptrace.set_registers(tid, regs)

        def job() -> Steps:
            return self._splitting.settle(number)

        if not self._visit(tid, self._schedule, job(), pass_gate):
            self._tracee.breakpoints.pass_locally(tid, point, ptrace.registers(tid))

    def _at_safe_point(self, tid: int, point: Breakpoint, job: Job | None) -> None:
        """The thread stands where the interpreter calls a function, or has called one; it goes on there afterwards."""

        def go_on(has_raised: bool) -> None:
            self._pass(tid, point, has_raised=has_raised)

        if job is not None and self._doing:
            # One at a time: between two bytecodes of our script another thread may get the GIL.
            self._retry(job)
            job = None
        if job is None or not self._visit(tid, job, self._steps(job), go_on):
            self._tracee.breakpoints.pass_locally(tid, point, ptrace.registers(tid))

    def _pass(self, tid: int, point: Breakpoint, *, has_raised: bool) -> None:
        """has_raised: the function fails before it has begun."""
        regs = ptrace.registers(tid)
        if has_raised and point.entry in self._makers:
            regs.rax = 0
        elif has_raised and point.entry == self.gates.pending:
            regs.rip = self.gates.raised
            ptrace.set_registers(tid, regs)
            return
        elif has_raised and point.entry != self._finalise:
            regs.rip = int.from_bytes(vm.read(self._tracee.pid, regs.rsp, 8), "little")
            regs.rax, regs.rsp = 0, regs.rsp + 8
            ptrace.set_registers(tid, regs)
            return
        self._tracee.breakpoints.pass_locally(tid, point, regs)

    def _if_initialised(self) -> Steps:
        """A starting interpreter evaluates code before it can be used; then its first own code is the safe point."""
        if (yield self._splitting.ask("Py_IsInitialized")) & 0xFFFFFFFF:
            self._is_starting = False
            while self._jobs:
                yield from self._jobs.popleft()()

    def _raise(self) -> Steps:
        """At a safe point: what a handler has raised where nothing could be raised."""
        yield self._splitting.ask("PyErr_Restore", *self._kept.popleft())
        raise Raised

    # Leaving

    def leave(self) -> bool:
        """To be called again until it says True: then nothing of the interpreter's leads to us any more."""
        now, splitting = time.monotonic(), self._splitting
        if not self._leave_by:
            self._leave_by = now + LEAVE_S
            self._jobs.clear()
        if self._doing:
            return False
        if not self._is_back and not self.is_over:
            self._is_back = True
            self._tracee.threads.stop_all()
            splitting.put_back()
            self._tracee.threads.resume_all()
            self._jobs.append(self._forget)
        self.is_over = self.is_over or self._is_starting or not splitting.keeps
        is_ready = self._has_forgotten and not self._jobs and not self.is_over
        # Most generators end soon; some never do.
        if is_ready and (splitting.are_generators_gone or now > self._leave_by - LEAVE_S + GENERATORS_S):
            self._jobs.append(self._leave)
        if now > self._leave_by and not self.is_over:
            self._say("its main thread does not come back to the interpreter: some objects of radium's stay in it")
            self.is_over = True
        return self.is_over and (now > self._leave_by or (not self._nscheduled and not self._is_active()))

    def _is_active(self) -> bool:
        """Whether a thread is in a function that the gates' code has called."""
        return bool(int.from_bytes(vm.read(self._tracee.pid, self.gates.active, 8), "little"))

    def _forget(self) -> Steps:
        yield from self._splitting.forget_twins()
        self._has_forgotten = True

    def _leave(self) -> Steps:
        yield from self._splitting.let_go()
        self.is_over = True
        if self._splitting.has_generators:
            self._say("generators of split functions are in use: a mapping of radium's stays in the program")
        self._note()

    def _end(self) -> Steps:
        """The interpreter ends: nobody is left to catch what a handler raises."""
        self._splitting.put_back()
        try:
            yield from self._forget()
        except Raised:
            yield self._splitting.ask("PyErr_Clear")
        yield from self._leave()


def _waits(regs: Registers) -> bool:
    """Whether the thread waits in a futex. It may be in the middle of anything there: of waiting for the GIL, above all."""
    if regs.orig_rax == NO_SYSCALL or regs.rax not in RESTARTS:
        return False
    # A sleep with a time limit that was interrupted before has forgotten which it is, but for its arguments.
    is_futex = regs.orig_rax == _RESTARTED and regs.rdi >= PAGE_SIZE and regs.rsi & ~_FLAGS in _WAITS
    return regs.orig_rax == _FUTEX or is_futex


def _sleeps(regs: Registers) -> bool:
    """Whether the thread sleeps where it is in the middle of nothing."""
    if regs.orig_rax == NO_SYSCALL or regs.rax not in RESTARTS:
        return False
    return regs.orig_rax in _SLEEPS or (regs.orig_rax == _RESTARTED and not _waits(regs))
