"""What `radium attach` and `radium run` do: a process and its children, until that one has ended or we are told to leave.

One loop gives each process that is followed its turn: it handles one stop, and none of them waits for another's call. The
job ends with its main process; children that outlive it are left as they were found.
"""

import math
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from radium.errors import JobFailed, NotPossible, RadiumError
from radium.linux import ptrace
from radium.live import Console
from radium.profiles.schema import Profile
from radium.report import Report
from radium.tracer.acceptors import Acceptors
from radium.tracer.admission import admit
from radium.tracer.launch import IDLE_S, await_end, hold, raise_limit
from radium.tracer.process import GONE, Common, Options, Process
from radium.tracer.session import LOOK_S, PagesLeft
from radium.tracer.stops import OPTIONS, Threads, exit_code
from radium.tracer.uprobe import KernelGuards
from radium.tracer.wakeups import Wakeups

LEAST_S = 0.001
# Processes that stop all the time leave no time to wait: so often what else there is has its turn.
TURN_S = 0.002

__all__ = ["Job", "Options"]


class Job:
    """main: the process that the command is about, from the moment at which there is one."""

    def __init__(
        self, profiles: Sequence[Profile], acceptors: Acceptors, report: Report, console: Console, wakeups: Wakeups,
        options: Options,
    ) -> None:  # fmt: skip
        self.acceptors = acceptors
        self.report = report
        self.console = console
        self.wakeups = wakeups
        self._said: set[str] = set()
        guards = KernelGuards(profiles, options.trap, self._say_once)
        self.common = Common(profiles, report, self._say_once, wakeups, options, guards)
        self.main: Process | None = None
        self.update: Callable[[], None] = lambda: None
        self._poll = select.poll()
        self._poll.register(wakeups.fd, select.POLLIN)
        self._next_turn = self._next_search = 0.0
        self._limits = raise_limit()

    @property
    def status(self) -> int | None:
        """The wait status of the main process; None when it lives."""
        return self.main.status if self.main is not None else None

    @property
    def pages_left(self) -> list[PagesLeft]:
        return self.common.pages_left

    # The two ways in

    def attach(self, pid: int) -> None:
        """Until the tracee ends, or we are told to leave it. Raises NotPossible, UsageError."""
        admit(pid)
        main = Process(self.common, Threads(pid, self.common.statuses), self.acceptors)
        try:
            main.resolve()
            if not main.can_split:
                raise NotPossible(
                    f"none of the profile's functions can be split here: {main.why_nothing()}",
                    where=f"pid {pid}",
                    advice="see which libraries it has mapped in /proc/PID/maps",
                )
            self.acceptors.try_connect()
        except BaseException:
            main.guardian.dismiss()
            raise
        self.main = main
        with self._leaving_on_error():
            self._seize(main)
            self._loop()

    def _seize(self, main: Process) -> None:
        """All threads, and what there is to arm. A tracee that ends or execs meanwhile is the loop's business."""
        try:
            main.threads.seize()
            if main.threads.is_over:
                return
            main.enter()
        except GONE:
            return
        finally:
            main.threads.resume_all()
        self.wakeups.start_clock()
        self.console.event(f"attached to PID {main.pid}: {len(main.splits)} split points")

    def run(self, command: Sequence[str]) -> int:
        """Starts the program; its exit code as a shell tells it. Raises NotPossible, UsageError."""
        self.acceptors.try_connect()
        pid, release = hold(command, self._limits)
        ptrace.seize(pid, OPTIONS)
        release()
        self.common.statuses.awaited.add(pid)
        threads = Threads(pid, self.common.statuses)
        threads.adopt(pid)
        main = self.main = Process(self.common, threads, self.acceptors)
        with self._leaving_on_error():
            self._loop()
        if not self.common.has_split:
            self._say_once(f"no call could be split: {main.why_nothing()}")
        return exit_code(self.status if self.status is not None else 0)

    def await_program(self) -> int:
        """The exit code of a program that was started by `run` and left; it is told what we are told."""
        assert self.main is not None
        return await_end(self.main.pid, self.common.statuses, self.wakeups)

    @contextmanager
    def _leaving_on_error(self) -> Iterator[None]:
        """Whatever goes wrong in radium, all tracees are left as they were found."""
        try:
            yield
        except BaseException:
            for process in reversed(self.common.processes):
                with suppress(*GONE, RadiumError, JobFailed, OSError):
                    self._leave_at_last(process)
            raise
        finally:
            self.common.guards.close()

    def _leave_at_last(self, process: Process) -> None:
        while not process.is_over and not process.leave():
            if not process.advance():
                self._idle(IDLE_S)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self.report.notes.append(text)
            self.console.event(text)

    # The loop

    def _loop(self) -> None:
        while self.common.processes:
            has_moved = self._give_turns()
            self.common.forget_over()
            if self.status is not None:
                self.wakeups.ask_end()
            if not has_moved:
                self._idle(self._longest_s())
            elif time.monotonic() >= self._next_turn:
                self._idle(0.0)
        # What was seen only now, too.
        self.common.let_orphans_go()
        self.common.let_orphans_go()

    def _longest_s(self) -> float:
        """How long a wait may be."""
        if any(process.is_busy for process in self.common.processes):
            return LOOK_S
        next_s = min((process.rests.until for process in self.common.processes), default=math.inf) - time.monotonic()
        return min(max(next_s, LEAST_S), IDLE_S)

    def _give_turns(self) -> bool:
        """Each process handles one stop, if it has one; whether there was any."""
        has_moved = self.common.statuses.collect()
        for process in list(self.common.processes):
            if self._is_to_be_left(process):
                has_moved = self._leave(process) or has_moved
            elif process.has_news and not process.is_over and process.advance():
                has_moved = True
                self.update()
        return has_moved

    def _is_to_be_left(self, process: Process) -> bool:
        """The main process is left last: its end is then told to nobody but us."""
        if process.is_headless:
            return True
        is_last = process is not self.main or len(self.common.processes) == 1
        return is_last and self.wakeups.wants_end and not process.is_away

    def _leave(self, process: Process) -> bool:
        try:
            return process.leave() or process.advance()
        except GONE:
            process.threads.look()
            return process.advance()

    def _idle(self, longest_s: float) -> None:
        """Waits until something happens; hears what acceptors say."""
        poll, channels = self._poll, self._channels()
        for fd in channels:
            poll.register(fd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(self.wakeups.timeout_s(longest_s) * 1000)]
        for fd in channels:
            poll.unregister(fd)
        for fd in ready:
            if fd in channels:
                self._hear(channels[fd])
        if self.wakeups.fd in ready:
            self.wakeups.read()
        for process in self.common.processes:
            process.look()
        if time.monotonic() >= self._next_search:
            self._next_search = time.monotonic() + IDLE_S
            self.common.let_orphans_go()
            self.common.guards.count()
        self._next_turn = time.monotonic() + TURN_S
        self.update()

    def _channels(self) -> dict[int, Process]:
        """By descriptor. What was connected once, or is the main process's, is connected again."""
        out = {}
        for process in self.common.processes:
            acceptors = process.acceptors
            if acceptors.channel is None and (process is self.main or acceptors.generation):
                acceptors.try_connect()
            if acceptors.channel is not None:
                out[acceptors.channel.fileno()] = process
        return out

    def _hear(self, process: Process) -> None:
        try:
            process.heard()
        except GONE:
            process.threads.look()
