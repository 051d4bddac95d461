"""One process that a job follows, from its first stop to its detach or end: a session of its own.

It hands out stops: split calls to the session, signals back to the program, the dynamic linker's news to the resolver. A
forked child has all that is ours in its memory from birth, and takes over what its parent knows of that; a child that
shared memory begins as a process of its own when it executes a program; and so does every process that does.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from radium.core.mapping import Mapping
from radium.core.regs import Registers
from radium.errors import NotPossible, RadiumError, RemoteFault, TraceeGone
from radium.linux import procfs, ptrace, vm
from radium.profiles.schema import Profile
from radium.profiles.schema import Split as ProfileSplit
from radium.report import ProcessReport, Report, SplitReport
from radium.tracer import leaving
from radium.tracer.acceptors import Acceptors
from radium.tracer.admission import check_program, why_let_go
from radium.tracer.breakpoint import Breakpoint
from radium.tracer.guardian import Guardian
from radium.tracer.ledger import Guarded, Ledger, Plan
from radium.tracer.loader import loader_trap
from radium.tracer.python import runtime as python_runtime
from radium.tracer.python.interpreter import Interpreter
from radium.tracer.python.runtime import Runtime
from radium.tracer.resolve import MappedObject, Resolver, SplitPoint, Unresolved
from radium.tracer.rests import Rests
from radium.tracer.session import PagesLeft, Session
from radium.tracer.split import Split
from radium.tracer.stops import Statuses, Stop, Threads, exit_code
from radium.tracer.tracee import Tracee
from radium.tracer.uprobe import WORTH_IT, KernelGuards, Trap, Uprobes
from radium.tracer.verify import Trial
from radium.tracer.wakeups import Wakeups
from radium.tracer.withdraw import has_annexes, let_go, release, withdraw

# ESRCH, from ptrace and from the other system calls that reach into the tracee.
GONE = (TraceeGone, ProcessLookupError)
# How many of the processes that ended last may have left a child that nobody has heard of.
_MOST_ENDED = 32


@dataclass(frozen=True)
class Options:
    call_timeout_s: float = 600.0
    tracking: str = "auto"
    follow: bool = True
    verify: float = 0.0  # of a split's calls, the fraction that is verified
    trap: Trap = "auto"


@dataclass
class Common:
    """What all processes of a job share. processes: those that are followed, the job's main one first.

    guards: those that the kernel decides. ended: what was in the processes that ended last. on_verified: told of each
    verified call; counts_syscalls: with the system calls that it makes at home.
    """

    profiles: Sequence[Profile]
    report: Report
    say: Callable[[str], None]  # a line, once
    wakeups: Wakeups
    options: Options
    guards: KernelGuards
    statuses: Statuses = field(default_factory=Statuses)
    processes: "list[Process]" = field(default_factory=list)
    pages_left: list[PagesLeft] = field(default_factory=list)
    has_split: bool = False
    guarded: Guarded = field(default_factory=Guarded)
    on_verified: Callable[[Trial], None] = lambda trial: None
    counts_syscalls: bool = False
    ended: deque[Plan] = field(default_factory=lambda: deque(maxlen=_MOST_ENDED))

    @property
    def python_splits(self) -> list[ProfileSplit]:
        return [split for profile in self.profiles for split in profile.splits if split.python]

    def let_orphans_go(self) -> None:
        """Children whose parent was killed as they were born, stopped: what they have of ours is what that one had."""
        for pid in self.statuses.take_orphans():
            plan = next((plan for plan in self.ended if has_annexes(pid, plan)), None)
            if plan is None:
                release(pid)
                continue
            ledger = Ledger()
            let_go(Threads(plan.pid, self.statuses), pid, plan, ledger)
            ledger.close()

    def forget_over(self) -> None:
        self.processes[:] = [process for process in self.processes if not process.is_over]


class Process:
    """is_over: it has ended, or goes on without us."""

    def __init__(self, common: Common, threads: Threads, acceptors: Acceptors) -> None:
        """The guardian must be there before the first change. Raises OSError when there can be none."""
        self.common = common
        self.threads = threads
        self.pid = threads.pid
        self.acceptors = acceptors
        self.status: int | None = None
        self.is_over = self.is_headless = False
        self.splits: dict[int, Split] = {}
        self.rests = Rests()
        self.notices: list[int] = []
        self.resolvers: set[int] = set()
        self.choices: dict[int, int] = {}
        self.unresolved: list[Unresolved] = []
        self.tracee: Tracee | None = None
        self.uprobes: Uprobes | None = None
        self.session: Session | None = None
        self.runtime: Runtime | None = None
        self.python: Interpreter | None = None
        self.report = ProcessReport(self.pid, None)
        self.ledger = Ledger()
        self.guardian = Guardian(self.ledger, common.guarded)
        threads.on_birth = self._on_birth
        common.report.processes.append(self.report)
        common.processes.append(self)
        common.guarded.add(self.pid)

    # Entering a program

    def resolve(self) -> None:
        """Finds the split points. Raises NotPossible, TraceeGone."""
        self.resolver = Resolver(self.pid)
        self.points, self.unresolved = self.resolver.resolve([s for p in self.common.profiles for s in p.splits])
        # Here, because reading libc's symbols takes milliseconds, in which the threads need not stand.
        self.leaving = leaving.find(self.resolver.objects())
        self._find_runtime()

    def _find_runtime(self) -> None:
        """The interpreter, if it is there and a profile names functions in it."""
        self.runtime = None
        if not self.common.python_splits:
            return
        try:
            self.runtime = python_runtime.find(self.resolver.objects())
        except NotPossible as error:
            self.common.say(f"Python functions are not split: {error}")

    @property
    def can_split(self) -> bool:
        """Whether one of the profile's functions is there, or will be."""
        return bool(self.points or self.resolver.undecided or self.runtime)

    def why_nothing(self) -> str:
        if self.common.python_splits and self.runtime is None and not self.unresolved:
            return "it runs no CPython"
        return "; ".join(dict.fromkeys(why.why for why in self.unresolved[:3])) or "no profile names any"

    def enter(self, *, is_starting: bool = False) -> None:
        """All threads are stopped: breakpoints at what has been resolved, and at the dynamic linker's notice.

        is_starting: the program has not begun yet.
        """
        self.tracee = Tracee(self.threads, self.ledger, self.common.options.tracking)
        self.uprobes = Uprobes(self.common.guards, self.threads, self.tracee.breakpoints)
        self.session = self._new_session(self.tracee)
        self.splits, self.rests = {}, Rests()
        self.session.leaving = self.leaving
        if self.tracee.remote is None:
            self.common.say("its seccomp filter may refuse our system calls: writes are found by checksums")
        self._arm(self.points)
        self.notices = self._notices()
        refused = self.tracee.breakpoints.arm(self.notices, self._mappings())
        for why in refused.values():
            self.common.say(f"libraries that are loaded later are not noticed: {why}")
        self._watch_resolvers()
        self._enter_python(is_starting=is_starting)

    def _enter_python(self, *, is_starting: bool) -> None:
        if self.runtime is None or self.python is not None or self.tracee is None:
            return
        try:
            self.python = Interpreter(
                self.tracee, self.runtime, self.common.python_splits, self.common.report, self.common.say,
                is_starting=is_starting,
            )  # fmt: skip
            self.common.has_split = True
            self._tell_of_visits()
        except (NotPossible, RemoteFault) as error:
            self.common.say(f"Python functions are not split: {error}")
            self.runtime = None

    def _tell_of_visits(self) -> None:
        """The session lets no call leave while the interpreter does something for us."""
        python = self.python
        if python is not None and self.session is not None:
            self.session.is_visited = lambda: python.is_visiting

    def _new_session(self, tracee: Tracee) -> Session:
        session = Session(tracee, self.acceptors, self.common.wakeups, self.common.options.call_timeout_s)
        session.verifier.fraction = self.common.options.verify
        session.verifier.counts_syscalls = self.common.counts_syscalls
        session.verifier.objects = self._objects
        session.verifier.on_verified = self._on_verified
        return session

    def _objects(self) -> list[MappedObject]:
        return self.resolver.objects()

    def _on_verified(self, trial: Trial) -> None:
        report = trial.split.report
        if trial.difference and report.diverged == 1:
            self.common.say(f"{report.name}: a verified call DIVERGED: {trial.difference}")
        self.common.on_verified(trial)

    def _notices(self) -> list[int]:
        return loader_trap(self.resolver.objects(), procfs.auxiliary_vector(self.pid))

    def _mappings(self) -> list[Mapping]:
        assert self.tracee is not None
        self.tracee.home.refresh()
        return self.tracee.home.mappings

    def _arm(self, points: Sequence[SplitPoint]) -> None:
        assert self.tracee is not None and self.uprobes is not None
        usable, mappings = [point for point in points if self._is_possible(point)], self._mappings()
        unprobed = self.uprobes.arm(usable, mappings)
        refused = self.tracee.breakpoints.arm(list(unprobed), mappings)
        for point in usable:
            if point.address in refused:
                self.common.say(f"{point.name} cannot be split: {refused[point.address]}")
            elif point.address in unprobed:
                self._add_split(point, "breakpoint", unprobed[point.address])
            else:
                self.common.guards.count_into(self._add_split(point, "uprobe", self.uprobes.reasons[point.address]))

    def _probe(self, point: SplitPoint, split: Split) -> None:
        """Its guard rejects many calls at a breakpoint: from now on the kernel does, if that can be."""
        assert self.tracee is not None and self.uprobes is not None
        split.is_settled = True
        self.common.guards.compile([point.split])
        if split.report.trap == "uprobe" or not self.common.guards.could_decide(point.split):
            return
        self.threads.stop_all()
        if self.threads.is_over:
            return
        mappings = self._mappings()
        with self.tracee.home.own_writes(point.address):
            self.tracee.breakpoints.disarm([point.address])
            refused = self.uprobes.arm([point], mappings)
            if refused:
                self.tracee.breakpoints.arm([point.address], mappings)
        split.report.trap_reason = refused.get(point.address) or self.uprobes.reasons[point.address]
        if not refused:
            self.uprobes.let_past()
            split.report.trap = "uprobe"
            self.common.guards.count_into(split.report)
        self.threads.resume_all()

    def _add_split(self, point: SplitPoint, trap: str, why: str) -> SplitReport:
        if trap == "breakpoint" and self.common.options.trap == "uprobe" and not self.common.guards.unavailable:
            self.common.say(f"{point.name} has a breakpoint: {why}")
        report = self.common.report.split(point.name, point.split.stance, trap)
        report.trap_reason = why
        self.splits[point.address] = Split(point, report, self._read_memory)
        self.common.has_split = True
        return report

    def _watch_resolvers(self) -> None:
        """An indirect function is split from the moment at which its resolver has chosen an implementation."""
        assert self.tracee is not None
        self.resolvers = set(self.resolver.undecided)
        self.tracee.breakpoints.arm(sorted(self.resolvers), self._mappings())

    def _is_possible(self, point: SplitPoint) -> bool:
        stance = point.split.stance
        if stance != "mirror":
            self.common.say(f'{point.name} is not split: stance = "{stance}" is not in this version; its calls stay local')
        return stance == "mirror"

    def _read_memory(self, address: int, nbytes: int) -> bytes:
        return vm.read(self.pid, address, nbytes)

    # Children, and other programs

    def _on_birth(self, stop: Stop) -> None:
        """A child is there, stopped: it is followed, or goes its own way."""
        follows = self.common.options.follow and not self.common.wakeups.wants_end
        try:
            if stop.kind == "fork":
                self._on_fork(stop.detail, stop.tid, follows=follows)
            elif follows:
                self._adopt(stop.detail).begin_program()
            else:
                release(stop.detail)
        except GONE:
            # It is being killed; its end will be reported.
            return

    def _on_fork(self, child: int, forked_by: int, *, follows: bool) -> None:
        plan = Plan(child) if self.tracee is None else self.tracee.breakpoints.plan()
        if not follows:
            let_go(self.threads, child, plan, self.ledger)
            return
        # From here on its parent's guardian answers for it, until it has its own and that knows what to do.
        self.ledger.note_child(child)
        try:
            self._adopt(child).take_over(self, forked_by)
        except (OSError, NotPossible) as error:
            self.common.say(f"a child is let go: {error}")
            self._forget(child)
            let_go(self.threads, child, plan, self.ledger)
        finally:
            self.ledger.note_child(0)

    def _forget(self, child: int) -> None:
        """A child that could not be followed."""
        for process in [process for process in self.common.processes if process.pid == child]:
            self.common.processes.remove(process)
            process._close()

    def _adopt(self, child: int) -> "Process":
        threads = Threads(child, self.common.statuses)
        threads.adopt(child, is_running=False)
        try:
            return Process(self.common, threads, self.acceptors.another())
        except OSError:
            self.common.statuses.remove(threads)
            raise

    def take_over(self, parent: "Process", forked_by: int) -> None:
        """This is a child, stopped at its birth, that a thread of the parent's has forked; it goes on."""
        if parent.tracee is None or parent.session is None:
            self.begin_program()
            return
        tracking = self.common.options.tracking
        self.tracee = Tracee(self.threads, self.ledger, tracking, (parent.tracee, forked_by))
        self._take_over_uprobes(parent.uprobes, self.tracee)
        self.session = self._new_session(self.tracee)
        self.resolver = parent.resolver.copy_for(self.pid)
        self.notices, self.unresolved, self.points = parent.notices, parent.unresolved, parent.points
        self.resolvers, self.choices = set(parent.resolvers), dict(parent.choices)
        self.splits = {address: split.copy_for(self._read_memory) for address, split in parent.splits.items()}
        self.rests = parent.rests.copy()
        self.leaving = parent.leaving
        self.runtime = parent.runtime
        self.python = parent.python and parent.python.copy_for(self.tracee)
        self._tell_of_visits()
        self.session.inherit(parent.session, forked_by)
        self.threads.resume_all()

    def _take_over_uprobes(self, uprobes: Uprobes | None, tracee: Tracee) -> None:
        if uprobes is None:
            return
        try:
            self.uprobes = uprobes.copy_for(self.threads, tracee.breakpoints)
        except NotPossible as error:
            self.common.say(f"guarded calls of a child run at home: {error}")
            self.uprobes = Uprobes(self.common.guards, self.threads, tracee.breakpoints)

    def begin_program(self) -> None:
        """Another program runs in this process, which is stopped, with nothing of ours in it. It goes on, perhaps without us.

        Raises TraceeGone.
        """
        self.threads.settle(self.pid)
        why = self._why_not()
        if why:
            self.common.say(f"{procfs.status(self.pid)['Name']} is let go: {why}")
            self._detach()
        else:
            self.threads.resume_all()

    def _why_not(self) -> str:
        """Why this program is not split, nor what it may load later; "": its breakpoints are there."""
        try:
            check_program(self.pid)
            why = why_let_go(self.pid)
            if why:
                return why
            self.resolve()
            if not self.can_split and (self.resolver.is_static or not self._notices()):
                return f"nothing of it can be split: {self.why_nothing()}"
            self.enter(is_starting=True)
        except TraceeGone:
            raise
        except (RadiumError, PermissionError) as error:
            return str(error)
        return ""

    def _on_exec(self) -> None:
        if self.tracee is not None:
            self._note_pages()
            self._end_session()
            self._close_uprobes()
            self.tracee.forget_gone()
            self.tracee = self.session = self.python = None
            self.acceptors.close()
        self.splits, self.rests, self.notices = {}, Rests(), []
        self.begin_program()

    # Stops

    @property
    def is_away(self) -> bool:
        """Whether a call is away."""
        return self.session is not None and self.session.is_away

    @property
    def has_news(self) -> bool:
        return self.threads.has_news

    def advance(self) -> bool:
        """Handles one stop; False if there is none that can be handled now."""
        try:
            stands = self.session is not None and self.session.stands
            stop = self.threads.next_end() if stands else self.threads.next()
            if stop is not None:
                self._handle(stop)
                # Not only in `look`: that is when a thread has stopped again, if it does so all the time.
                self._look_at_python()
            return stop is not None
        except GONE:
            # Its end is on the way, or what it has become by an exec.
            self.threads.look()
            self.is_headless = self.threads.is_headless
            if self.is_headless:
                self.common.say("its main thread has ended before the others: they go on without us")
            return bool(self.is_headless or self.threads.pending)

    def _handle(self, stop: Stop) -> None:
        if self.session is not None and self.session.on_home_stop(stop):
            return
        if stop.kind == "trap":
            self._on_trap(stop)
        elif stop.kind == "signal":
            if self.tracee is not None:
                self.tracee.breakpoints.leave_copy(stop.tid)
            self.threads.resume(stop.tid, stop.detail)
        elif stop.kind in ("fork", "left"):
            self._on_birth(stop)
            self.threads.resume(stop.tid)
        elif stop.kind == "exec":
            self._take_births()
            self._on_exec()
        elif stop.kind == "exit":
            self._take_births()
            self._on_exit(stop.detail)
        else:
            self.threads.resume(stop.tid)

    def _take_births(self) -> None:
        """Children that are to be seen to before their parent is no more what it was when they were born."""
        for stop in self.threads.take_births():
            self._on_birth(stop)

    def _on_trap(self, stop: Stop) -> None:
        entry = stop.detail
        point = self.tracee.breakpoints.at(entry) if self.tracee else None
        if point is None or self.tracee is None or self.session is None:
            # It has been withdrawn meanwhile, and the thread stands before it.
            self.threads.resume(stop.tid)
            return
        self.tracee.breakpoints.keep_handler([stop.tid])
        regs = ptrace.registers(stop.tid)
        if self.python is not None and self.python.knows(entry):
            self._on_python(self.python, stop, point, regs)
        elif entry in self.splits and not self._is_guest(stop.tid):
            self._on_call(self.session, stop, point, self.splits[entry], regs)
        elif entry in self.session.nesting.returns:
            self.session.on_return(stop, point, regs)
        else:
            seen = regs.copy()
            self.tracee.breakpoints.pass_locally(stop.tid, point, regs)
            self._on_news(entry, seen)
            self.threads.resume(stop.tid)

    def _on_call(self, session: Session, stop: Stop, point: Breakpoint, split: Split, regs: Registers) -> None:
        """At a split point, whose trap may be lifted for a while behind this call."""
        began = time.monotonic()
        is_tried = session.on_trap(stop, point, split, regs)
        if split.rejected >= WORTH_IT and not split.is_settled:
            self._probe(split.point, split)
        sharing = [] if is_tried else self._resting_together(point.entry)
        if sharing:
            self.rests.note_local(session.tracee, point.entry, sharing, time.monotonic() - began)

    def _resting_together(self, entry: int) -> list[Split]:
        """The splits that are trapped there: all of them have to be weighed, or none rests. Python functions share a trap.

        One with a uprobe does not rest: what its guard lets pass is long, and what it rejects costs next to nothing.
        """
        if self.python is not None and self.python.knows(entry):
            splits = self.python.split_functions if self.python.may_rest else []
        else:
            splits = [self.splits[entry]] if entry in self.splits else []
        return splits if all(split.is_weighed and split.report.trap == "breakpoint" for split in splits) else []

    def _on_python(self, python: Interpreter, stop: Stop, point: Breakpoint, regs: Registers) -> None:
        assert self.session is not None
        split = python.on_trap(stop, point, regs)
        if split is not None and not self._is_guest(stop.tid):
            self._on_call(self.session, stop, point, split, regs)
            return
        if split is not None and self.tracee is not None:
            self.tracee.breakpoints.pass_locally(stop.tid, point, regs)
        self._follow_python(python)
        self.threads.resume(stop.tid)

    def _follow_python(self, python: Interpreter) -> None:
        """Breakpoints that it has found to be of use, or of no use any more."""
        if not python.has_wishes:
            return
        self.threads.stop_all()
        if not self.threads.is_over:
            python.arm()
            self._arm(python.take_natives())
        self.threads.resume_all()

    def _on_news(self, entry: int, regs: Registers) -> None:
        """The dynamic linker is at work; `regs` are those at the trap."""
        if entry in self.resolvers:
            self._await_choice(entry, int.from_bytes(self._read_memory(regs.rsp, 8), "little"))
            return
        if entry in self.choices:
            self.resolver.note_choice(self.choices.pop(entry), regs.rax)
        self._on_notice()

    def _await_choice(self, resolver: int, back: int) -> None:
        """A resolver function begins: what it returns is seen where it returns to."""
        assert self.tracee is not None
        self.choices[back] = resolver
        self.threads.stop_all()
        self.tracee.breakpoints.arm([back], self._mappings())
        self.threads.resume_all()

    def _is_guest(self, tid: int) -> bool:
        thread = self.threads.threads.get(tid)
        return thread is not None and thread.is_guest

    def _on_notice(self) -> None:
        """The dynamic linker has mapped or unmapped something."""
        assert self.tracee is not None and self.session is not None
        changes = self.resolver.resolve_new()
        self._notice_runtime()
        self.session.leaving = self.leaving = leaving.find(self.resolver.objects())
        if changes.unresolved and not self.common.has_split and self is self.common.processes[0]:
            self.unresolved = changes.unresolved
            # Asked now: the files of a program that has ended cannot be read.
            self.why_nothing()
        if not changes.new and not changes.gone and set(self.resolver.undecided) == self.resolvers:
            return
        self.threads.stop_all()
        if self.threads.is_over:
            return
        gone = [point.address for point in changes.gone]
        if self.uprobes is not None:
            self.uprobes.forget(gone)
        self.tracee.breakpoints.forget(gone)
        self.rests.forget(gone)
        for address in gone:
            self.splits.pop(address, None)
        self._arm(changes.new)
        self._watch_resolvers()
        self.threads.resume_all()

    def _notice_runtime(self) -> None:
        """A program that has been linked with libpython has it mapped now, or loads it later."""
        if self.python is None and self.common.python_splits and self.runtime is None:
            self._find_runtime()
            if self.runtime is not None:
                self.threads.stop_all()
                self._enter_python(is_starting=True)
                self.threads.resume_all()

    # What the acceptor says

    def heard(self) -> None:
        """Its connection can be read."""
        if self.session is not None:
            self.session.on_message()
        else:
            self.acceptors.lose("it ends the session")

    def look(self) -> None:
        """To be called now and then, and every LOOK_S while a call is away."""
        try:
            if self.session is not None:
                self.session.look()
                if not self.session.stands:
                    self.rests.end_due(self.session.tracee, self._trapped, self._resting_together)
                self._look_at_python()
        except GONE:
            self.threads.look()

    def _look_at_python(self) -> None:
        if self.python is not None and self.session is not None and not self.session.is_away:
            self.python.look()

    @property
    def _trapped(self) -> set[int]:
        """Where split functions have their traps, or had them before they were lifted for a while."""
        return {*self.splits, *(self.python.entries if self.python is not None else ())}

    @property
    def is_busy(self) -> bool:
        """Whether `look` is to be called often."""
        return self.is_away or (self.python is not None and self.python.is_busy)

    # The end

    def _end_session(self, reason: str = "") -> None:
        if self.session is None:
            return
        self.session.end(reason)
        for split in [*self.splits.values(), *(self.python.split_functions if self.python is not None else [])]:
            if split.is_weighed and split.cost.ncalls:
                cost = split.cost.report(split.sizing.text, self.acceptors.link)
                self.rests.tell(cost, split.point.address)
                split.report.note_cost(cost)

    def _note_pages(self) -> None:
        if self.session is not None:
            self.common.pages_left += self.session.pages_left()

    def _on_exit(self, status: int) -> None:
        self._note_pages()
        self._end_session()
        self.status = status
        self.report.exit = exit_code(status)
        self._close_uprobes()
        if self.tracee is not None:
            self.common.ended.append(self.tracee.breakpoints.plan())
            self.tracee.forget_gone()
        self._close()

    def _close_uprobes(self) -> None:
        if self.uprobes is not None:
            self.uprobes.close()
            self.uprobes = None

    def leave(self) -> bool:
        """Leaves it as it was found, if that can be done now. Raises TraceeGone.

        A thread that sleeps in vfork cannot be stopped, and is to be waited for; so is a safe point of the interpreter's.
        """
        if self.python is not None and self.threads.exit_status is None and not self.python.leave():
            return False
        if not self.threads.sleeps_in_vfork:
            self.threads.stop_all()
        if self.threads.sleeps_in_vfork:
            self.threads.resume_all()
            return False
        if self.threads.exit_status is not None:
            self._take_births()
            self._on_exit(self.threads.exit_status)
            return True
        self._note_pages()
        self._end_session("refused:detaching")
        self._detach()
        return True

    def _detach(self) -> None:
        """All threads are stopped."""
        self._close_uprobes()
        if self.tracee is not None:
            self.tracee.detach()
        else:
            withdraw(self.threads, Plan(self.pid), self.ledger)
            self.threads.detach()
        self._close()

    def _close(self) -> None:
        self.is_over = True
        self._close_uprobes()
        self.guardian.dismiss()
        self.common.guarded.remove(self.pid)
        self.acceptors.close()
        self.common.statuses.remove(self.threads)
        self.tracee = self.session = self.python = None
        self.ledger.close()
