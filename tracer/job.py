"""What `radium attach` and `radium run` do: one process, from its first stop to its detach or end.

The loop here hands out stops: split calls to the session, signals back to the program, the dynamic linker's news to the
resolver, children and new programs on their way.
"""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from radium.core.mapping import Mapping
from radium.core.regs import Registers
from radium.errors import NotPossible, RadiumError, TraceeGone
from radium.linux import procfs, ptrace, vm
from radium.live import Console
from radium.profiles.schema import Profile
from radium.report import ProcessReport, Report
from radium.tracer import leaving
from radium.tracer.acceptors import Acceptors
from radium.tracer.admission import admit, check_program
from radium.tracer.guardian import Guardian
from radium.tracer.ledger import Ledger, Plan
from radium.tracer.loader import loader_trap
from radium.tracer.resolve import Resolver, SplitPoint
from radium.tracer.session import LOOK_S, PagesLeft, Session
from radium.tracer.split import Split
from radium.tracer.stops import OPTIONS, Stop, Threads, exit_code
from radium.tracer.tracee import Tracee
from radium.tracer.wakeups import Wakeups
from radium.tracer.withdraw import let_go, withdraw

IDLE_S = 0.25
# ESRCH, from ptrace and from the other system calls that reach into the tracee.
GONE = (TraceeGone, ProcessLookupError)


@dataclass(frozen=True)
class Options:
    call_timeout_s: float = 600.0
    tracking: str = "auto"


class Job:
    def __init__(
        self, profiles: Sequence[Profile], acceptors: Acceptors, report: Report, console: Console, wakeups: Wakeups,
        options: Options,
    ) -> None:  # fmt: skip
        self.profiles = profiles
        self.acceptors = acceptors
        self.report = report
        self.console = console
        self.wakeups = wakeups
        self.options = options
        self.splits: dict[int, Split] = {}
        self.status: int | None = None
        self.update: Callable[[], None] = lambda: None
        self.threads: Threads  # from the moment at which there is a process
        self.has_begun = False
        self.tracee: Tracee | None = None
        self.session: Session | None = None
        self.notices: list[int] = []
        self.resolvers: set[int] = set()
        self.choices: dict[int, int] = {}
        self.has_split = False
        self.pages_left: list[PagesLeft] = []
        self._said: set[str] = set()
        self._poll = select.poll()
        self._poll.register(wakeups.fd, select.POLLIN)

    # The two ways in

    def attach(self, pid: int) -> None:
        """Until the tracee ends, or we are told to leave it. Raises NotPossible, UsageError."""
        admit(pid)
        self._resolve(pid)
        self._require_something()
        self.acceptors.try_connect()
        self._guard()
        self.threads, self.has_begun = Threads(pid), True
        with self._leaving_on_error():
            self._seize()
            self._loop()

    def _seize(self) -> None:
        """All threads, and what there is to arm. A tracee that ends or execs meanwhile is the loop's business."""
        try:
            self.threads.seize()
            if self.threads.is_over:
                return
            self._enter()
        except GONE:
            return
        finally:
            self.threads.resume_all()
        self.wakeups.start_clock()
        self.console.event(f"attached to PID {self.threads.pid}: {len(self.splits)} split points")

    def run(self, command: Sequence[str]) -> int:
        """Starts the program; its exit code as a shell tells it. Raises NotPossible, UsageError."""
        self.acceptors.try_connect()
        self._guard()
        pid = start(command)
        self.report.processes.append(ProcessReport(pid, None))
        self.threads, self.has_begun = Threads(pid), True
        self.threads.adopt(pid)
        with self._leaving_on_error():
            self._loop()
        if not self.has_split:
            self._say_once(f"no call could be split: {self._why_nothing()}")
        return exit_code(self.status if self.status is not None else 0)

    @contextmanager
    def _leaving_on_error(self) -> Iterator[None]:
        """Whatever goes wrong in radium, the tracee is left as it was found."""
        try:
            yield
        except BaseException:
            if self.status is None:
                with suppress(*GONE):
                    self._leave()
            raise

    # Entering a program

    def _guard(self) -> None:
        """The guardian must be there before the first change."""
        self.ledger = Ledger()
        self.guardian = Guardian(self.ledger)

    def _resolve(self, pid: int) -> None:
        self._say_what_is_left_out()
        self.resolver = Resolver(pid)
        self.points, self.unresolved = self.resolver.resolve([s for p in self.profiles for s in p.splits])
        # Here, because reading libc's symbols takes milliseconds, in which the threads need not stand.
        self.leaving = leaving.find(self.resolver.objects())

    def _require_something(self) -> None:
        if not self.points and not self.resolver.undecided:
            raise NotPossible(
                f"none of the profile's functions can be split here: {self._why_nothing()}",
                where=f"pid {self.resolver.pid}",
                advice="see which libraries it has mapped in /proc/PID/maps",
            )

    def _why_nothing(self) -> str:
        return "; ".join(dict.fromkeys(why.why for why in self.unresolved[:3])) or "no profile names any"

    def _enter(self) -> None:
        """All threads are stopped: breakpoints at what has been resolved, and at the dynamic linker's notice."""
        self.tracee = Tracee(self.threads, self.ledger, self.guardian, self.options.tracking)
        self.session = Session(self.tracee, self.acceptors, self.wakeups, self.options.call_timeout_s)
        self.splits = {}
        self.session.leaving = self.leaving
        self.notices = loader_trap(self.resolver.objects(), procfs.auxiliary_vector(self.threads.pid))
        if self.tracee.remote is None:
            self._say_once("its seccomp filter may refuse our system calls: writes are found by checksums")
        self._arm(self.points)
        refused = self.tracee.breakpoints.arm(self.notices, self._mappings())
        for why in refused.values():
            self._say_once(f"libraries that are loaded later are not noticed: {why}")
        self._watch_resolvers()

    def _mappings(self) -> list[Mapping]:
        assert self.tracee is not None
        self.tracee.home.refresh()
        return self.tracee.home.mappings

    def _arm(self, points: Sequence[SplitPoint]) -> None:
        assert self.tracee is not None
        usable = [point for point in points if self._is_possible(point)]
        refused = self.tracee.breakpoints.arm([point.address for point in usable], self._mappings())
        for point in usable:
            if point.address in refused:
                self._say_once(f"{point.name} cannot be split: {refused[point.address]}")
                continue
            report = self.report.split(point.name, point.split.stance, "breakpoint")
            self.splits[point.address] = Split(point, report, self._read_memory)
            self.has_split = True

    def _watch_resolvers(self) -> None:
        """An indirect function is split from the moment at which its resolver has chosen an implementation."""
        assert self.tracee is not None
        self.resolvers = set(self.resolver.undecided)
        self.tracee.breakpoints.arm(sorted(self.resolvers), self._mappings())

    def _say_what_is_left_out(self) -> None:
        for profile in self.profiles:
            for split in profile.splits:
                if split.python:
                    self._say_once(f"{split.where}: Python splits are not in this version")

    def _is_possible(self, point: SplitPoint) -> bool:
        stance = point.split.stance
        if stance != "mirror":
            self._say_once(f'{point.name} is not split: stance = "{stance}" is not in this version; its calls stay local')
        return stance == "mirror"

    def _read_memory(self, address: int, nbytes: int) -> bytes:
        return vm.read(self.threads.pid, address, nbytes)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.report.notes.append(text)
            self.console.event(text)

    # The loop

    def _loop(self) -> None:
        is_headless = False
        while self.status is None:
            try:
                if is_headless or (self.wakeups.wants_end and not self._is_away):
                    self._leave()
                    return
                self._advance()
            except GONE:
                # Its end is on the way, or what it has become by an exec.
                self.threads.look()
                is_headless = self.threads.is_headless
                if is_headless:
                    self._say_once("its main thread has ended before the others: they go on without us")
                elif not self.threads.pending:
                    self._idle()

    @property
    def _is_away(self) -> bool:
        return self.session is not None and self.session.is_away

    def _advance(self) -> None:
        """Handles one stop, or waits for one."""
        stands = self.session is not None and self.session.stands
        stop = self.threads.next_end() if stands else self.threads.next()
        if stop is None:
            self._idle()
        else:
            self._handle(stop)
            self.update()

    def _idle(self) -> None:
        poll = self._poll
        channel = self.acceptors.channel
        if channel is None:
            self.acceptors.try_connect()
            channel = self.acceptors.channel
        if channel is not None:
            poll.register(channel.fileno(), select.POLLIN)
        longest = LOOK_S if self._is_away else IDLE_S
        ready = [fd for fd, _ in poll.poll(self.wakeups.timeout_s(longest) * 1000)]
        if channel is not None:
            poll.unregister(channel.fileno())
            if channel.fileno() in ready:
                self._heard()
        if self.wakeups.fd in ready:
            self.wakeups.read()
        if self.session is not None:
            self.session.look()
        self.update()

    def _heard(self) -> None:
        if self.session is not None:
            self.session.on_message()
        else:
            self.acceptors.lose("it ends the session")

    # Stops

    def _handle(self, stop: Stop) -> None:
        if self.session is not None and self.session.on_home_stop(stop):
            return
        if stop.kind == "trap":
            self._on_trap(stop)
        elif stop.kind == "signal":
            if self.tracee is not None:
                self.tracee.breakpoints.leave_copy(stop.tid)
            self.threads.resume(stop.tid, stop.detail)
        elif stop.kind == "fork":
            self._let_go(stop.detail)
            self.threads.resume(stop.tid)
        elif stop.kind == "exec":
            self._on_exec(stop.tid)
        elif stop.kind == "exit":
            self._on_exit(stop.detail)
        else:
            self.threads.resume(stop.tid)

    def _on_trap(self, stop: Stop) -> None:
        entry = stop.detail
        point = self.tracee.breakpoints.at(entry) if self.tracee else None
        if point is None or self.tracee is None or self.session is None:
            # It has been withdrawn meanwhile, and the thread stands before it.
            self.threads.resume(stop.tid)
            return
        self.tracee.breakpoints.keep_handler([stop.tid])
        regs = ptrace.registers(stop.tid)
        if entry in self.splits and not self._is_guest(stop.tid):
            self.session.on_trap(stop, point, self.splits[entry], regs)
        elif entry in self.session.nesting.returns:
            self.session.on_return(stop, point, regs)
        else:
            seen = regs.copy()
            self.tracee.breakpoints.pass_locally(stop.tid, point, regs)
            self._on_news(entry, seen)
            self.threads.resume(stop.tid)

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
        self.session.leaving = leaving.find(self.resolver.objects())
        if changes.unresolved and not self.has_split:
            self.unresolved = changes.unresolved
            # Asked now: the files of a program that has ended cannot be read.
            self._why_nothing()
        if not changes.new and not changes.gone and set(self.resolver.undecided) == self.resolvers:
            return
        self.threads.stop_all()
        if self.threads.is_over:
            return
        gone = [point.address for point in changes.gone]
        self.tracee.breakpoints.forget(gone)
        for address in gone:
            self.splits.pop(address, None)
        self._arm(changes.new)
        self._watch_resolvers()
        self.threads.resume_all()

    def _let_go(self, child: int) -> None:
        plan = Plan(child) if self.tracee is None else self.tracee.breakpoints.plan()
        let_go(self.threads, child, plan, self.ledger)

    def _on_exec(self, tid: int) -> None:
        """Another program runs in this process: nothing of ours is in it yet."""
        pid = self.threads.pid
        if self.tracee is not None:
            self._note_pages()
            self.tracee.forget_gone()
            self._end_session()
            self.tracee = self.session = None
            self.acceptors.close()
            self._guard()
        self.threads.settle(tid)
        try:
            check_program(pid)
            self._resolve(pid)
            self._enter()
        except RadiumError as error:
            self._say_once(f"{os.path.basename(procfs.executable(pid))} is not split: {error}")
            self.splits, self.notices = {}, []
        self.acceptors.try_connect()
        self.threads.resume_all()

    def _end_session(self, reason: str = "") -> None:
        if self.session is not None:
            self.session.end(reason)

    def _note_pages(self) -> None:
        if self.session is not None:
            self.pages_left += self.session.pages_left()

    def _on_exit(self, status: int) -> None:
        self._note_pages()
        self._end_session()
        self.status = status
        for process in self.report.processes:
            if process.pid == self.threads.pid:
                process.exit = exit_code(status)
        if self.tracee is not None:
            self.tracee.forget_gone()
        else:
            self.guardian.dismiss()
        self.acceptors.close()

    def _leave(self) -> None:
        """Detach. A thread that sleeps in vfork cannot be stopped, and is waited for. Raises TraceeGone."""
        self._note_pages()
        self.threads.stop_all()
        while self.threads.sleeps_in_vfork:
            self.threads.resume_all()
            self._advance()
            self.threads.stop_all()
        if self.threads.exit_status is not None:
            self._on_exit(self.threads.exit_status)
            return
        self._end_session("refused:detaching")
        if self.tracee is not None:
            self.tracee.detach()
        else:
            withdraw(self.threads, Plan(self.threads.pid), self.ledger)
            self.threads.detach()
            self.guardian.dismiss()
        self.acceptors.close()


def start(command: Sequence[str]) -> int:
    """The program's process, seized and about to execute it."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go)
        _execute(command, ready)
    os.close(ready)
    ptrace.seize(pid, OPTIONS)
    os.write(go, b"!")
    os.close(go)
    return pid


def _execute(command: Sequence[str], ready: int) -> None:
    """In the child; does not return."""
    try:
        os.read(ready, 1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(command[0], list(command))
    except OSError as error:
        sys.stderr.write(f"radium: {command[0]}: {error.strerror}; give a program that can be executed\n")
        sys.stderr.flush()
    finally:
        os._exit(127)
