"""The tracee's threads: seized, stopped, resumed. The only place of the initiator that waits for processes.

A thread is running, or stopped with a reason (`Stop`). What stops while all are being stopped is kept in `pending` and handed
out by `next`, so no event is lost and none is handled twice.

At every moment we may be killed, and then the kernel lets all threads go on from the registers that they have. A signal
that stopped a thread is delivered then only if nobody has waited for the stop yet (wait_task_stopped, kernel/exit.c). So a
thread that met a breakpoint is put back to it before its status is taken: it meets it again, and the annex's handler.
Sources: ptrace(2), "Stopped states", "Group-stop", "Attaching and detaching"; signal(7).
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from radium.core.regs import NO_SYSCALL
from radium.errors import NotPossible, TraceeGone
from radium.linux import procfs, ptrace
from radium.linux.libc import syscall

OPTIONS = ptrace.O_SYSGOOD | ptrace.O_CLONE | ptrace.O_FORK | ptrace.O_VFORK | ptrace.O_VFORK_DONE | ptrace.O_EXEC
_WALL = 0x40000000
_PEEK = os.WEXITED | os.WSTOPPED | os.WNOWAIT | _WALL
GROUP_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
# kcmp(2)
_KCMP_VM = 1
# Stops that tell of a child, which is stopped too and must not be forgotten, whatever becomes of its parent.
BIRTHS = ("fork", "left")
# How often a wait for a thread, which SIGCHLD ends, looks whether there still is one.
_LOOK_S = 0.002
# In a signal mask.
_URGENT = 1 << (signal.SIGURG - 1)


class Stop(NamedTuple):
    """Why a thread stopped, or that it ended.

    kind: "trap" (it stands at the breakpoint `detail`), "signal" (about to be delivered), "syscall" (of a thread whose
    system calls are traced: about to be made, or made when detail is 1), "fork" (detail: the pid of a child with a memory
    of its own; the child is stopped), "left" (detail: the pid of a child that shared the memory, and executes another
    program now; it is stopped, and none of the threads any more), "exec", "exit" (detail: the wait status, tid: the
    process), "quiet" (nothing of interest: the thread is to be resumed).
    """

    tid: int
    kind: str
    detail: int = 0


class Status(NamedTuple):
    """A wait status. entry: the breakpoint that the thread met and has been put back to, 0 for none."""

    tid: int
    raw: int
    entry: int = 0


class Hits(Protocol):
    """Calls that the kernel has noticed, for each of which it sends SIGURG to the thread (uprobe.py)."""

    def is_there(self, tid: int) -> bool: ...

    def take(self, tid: int) -> int | None: ...

    def forget_thread(self, tid: int) -> None: ...


class Statuses:
    """Wait statuses of everything that this process traces, each told once, to the `Threads` that it belongs to.

    What stops that belongs to nobody is a child that stopped before its parent's event told of it. awaited: children of
    our own that nobody traces any more, whose ends are to be found in `ends`.
    """

    def __init__(self) -> None:
        self.awaited: set[int] = set()
        self.ends: dict[int, int] = {}
        self._tracees: list[Threads] = []
        self._early: deque[Status] = deque()
        self._unclaimed: set[int] = set()

    def add(self, threads: "Threads") -> None:
        if threads not in self._tracees:
            self._tracees.append(threads)

    def remove(self, threads: "Threads") -> None:
        if threads in self._tracees:
            self._tracees.remove(threads)

    def collect(self) -> bool:
        """Puts one that there is now where it belongs; whether there was any. Never blocks."""
        try:
            peeked = os.waitid(os.P_ALL, 0, _PEEK | os.WNOHANG)
        except ChildProcessError:
            return False
        if peeked is not None:
            self._take(peeked)
        return peeked is not None

    def take_orphans(self) -> list[int]:
        """Children that nobody's event has told of since this was asked last: their parent was killed as they were born.

        To be asked now and then, when there is nothing else to do. They are stopped.
        """
        known, self._unclaimed = self._unclaimed, {status.tid for status in self._early}
        orphans = known & self._unclaimed
        self._early = deque(status for status in self._early if status.tid not in orphans)
        return sorted(orphans)

    def next(self, owner: "Threads") -> Status | None:
        """The oldest of these threads' that there is now. Never blocks."""
        while not owner.inbox:
            if not self.collect():
                return None
        return owner.inbox.popleft()

    def of(self, tid: int, owner: "Threads") -> Status:
        """The next of this thread, or newborn child; blocks. Raises ChildProcessError when it has ended.

        Others are taken meanwhile: the end of a process is told only when those of all its threads have been. So the end
        of its main thread may be told much later, and a thread that is ending cannot be stopped: that one has to be seen.
        """
        while True:
            for waiting in (owner.inbox, self._early):
                for status in waiting:
                    if status.tid == tid:
                        waiting.remove(status)
                        return status
            peeked = os.waitid(os.P_PID, tid, _PEEK | os.WNOHANG) or os.waitid(os.P_ALL, 0, _PEEK | os.WNOHANG)
            if peeked is not None:
                self._take(peeked)
            elif signal.sigtimedwait([signal.SIGCHLD], _LOOK_S) is None and has_ended(tid):
                raise ChildProcessError

    def _take(self, peeked: os.waitid_result) -> None:
        tid, entry = peeked.si_pid, 0
        owner = self._owner(tid)
        if owner is not None and peeked.si_code == os.CLD_TRAPPED and peeked.si_status == signal.SIGTRAP:
            entry = _put_back(tid, owner.entries)
        try:
            found, raw = os.waitpid(tid, _WALL | os.WNOHANG)
        except ChildProcessError:
            return
        if not found:
            return
        if owner is not None:
            owner.inbox.append(Status(tid, raw, entry if os.WIFSTOPPED(raw) else 0))
        elif os.WIFSTOPPED(raw):
            self._early.append(Status(tid, raw))
        elif tid in self.awaited:
            self.ends[tid] = raw

    def _owner(self, tid: int) -> "Threads | None":
        for threads in self._tracees:
            if tid in threads.threads or tid == threads.pid:
                return threads
        try:
            process = int(procfs.status(tid)["Tgid"])
        except (TraceeGone, KeyError):
            return None
        return next((threads for threads in self._tracees if threads.pid == process), None)


def _put_back(tid: int, entries: Container[int]) -> int:
    """To the breakpoint of ours that it has met, if that is why it stopped; its address."""
    try:
        if ptrace.signal_info(tid)[1] != ptrace.SI_KERNEL:
            return 0
        regs = ptrace.registers(tid)
        if regs.rip - 1 not in entries:
            return 0
        regs.rip -= 1
        regs.orig_rax = NO_SYSCALL
        ptrace.set_registers(tid, regs)
    except TraceeGone:
        return 0
    return regs.rip


@dataclass
class Thread:
    tid: int
    is_running: bool = True
    is_free: bool = True  # stopped, it can be given other registers and goes on with them (not with a signal, not in a fork)
    is_group_stopped: bool = False
    traces_syscalls: bool = False  # stops before and behind each of its system calls
    vfork_child: int = 0  # it sleeps in the kernel until this child, which shares its memory, execs or ends
    is_guest: bool = False  # another process in the tracee's memory
    is_away: bool = False  # its call is away: it stands until that comes home


class Threads:
    """All threads of one process; every request comes from the thread of ours that made this object.

    entries: the addresses of our breakpoints. hits: asked at each stop of a thread, before that means anything.
    on_birth: what is done with the stops that tell of children; they are told as soon as all threads are stopped: a child
    has what of ours was in its parent when it was born. Without it they are handed out as all others.
    """

    def __init__(self, pid: int, statuses: Statuses | None = None, options: int = OPTIONS) -> None:
        """statuses: those of other tracees of this process too, if there are any."""
        self.pid = pid
        self.statuses = statuses or Statuses()
        self.options = options
        self.threads: dict[int, Thread] = {}
        self.pending: deque[Stop] = deque()
        self.exit_status: int | None = None
        self.inbox: deque[Status] = deque()
        self.entries: set[int] = set()
        self.on_birth: Callable[[Stop], None] | None = None
        self.hits: Hits | None = None
        # Threads that have yet to meet a SIGURG of ours, for a hit that has been taken already.
        self._urgent: set[int] = set()
        self._is_stopping = False

    # Seizing and letting go

    def seize(self) -> None:
        """All threads, those included that appear while we are at it; afterwards all are stopped. Raises NotPossible."""
        self.statuses.add(self)
        dead: set[int] = set()
        while new := set(procfs.threads(self.pid)) - set(self.threads) - dead:
            for tid in sorted(new):
                if self._seize_one(tid):
                    self.threads.setdefault(tid, Thread(tid))
                else:
                    dead.add(tid)
        if not self.threads:
            raise TraceeGone("process has ended", where=f"pid {self.pid}")
        self.stop_all()

    def _seize_one(self, tid: int) -> bool:
        """False for a thread that has ended: the main one stays in the list as long as there are others."""
        try:
            ptrace.seize(tid, self.options)
            return True
        except TraceeGone:
            return False
        except OSError as error:
            # A thread that a seized one has just made is traced from its start.
            if self._is_ours(tid):
                return True
            if has_ended(tid):
                return False
            raise NotPossible(
                f"cannot be traced ({os.strerror(error.errno or 0)})", where=f"pid {self.pid}",
                advice="see what traces it (TracerPid in /proc/PID/status), or run radium as root",
            ) from None  # fmt: skip

    def _is_ours(self, tid: int) -> bool:
        try:
            return procfs.status(self.pid, tid).get("TracerPid") == str(os.getpid())
        except TraceeGone:
            return False

    def adopt(self, tid: int, *, is_running: bool = True) -> None:
        """A thread that is seized already."""
        self.statuses.add(self)
        self.threads[tid] = Thread(tid, is_running)

    def detach(self) -> None:
        """Lets all threads go on; all are stopped."""
        for thread in list(self.threads.values()):
            self._detach_one(thread)
        self.threads.clear()
        self.statuses.remove(self)

    def _detach_one(self, thread: Thread) -> None:
        held_back = next((s.detail for s in self.pending if s.tid == thread.tid and s.kind == "signal"), 0)
        try:
            ptrace.detach(thread.tid, held_back)
        except TraceeGone:
            return

    # Stopping and resuming

    @property
    def running(self) -> list[Thread]:
        """Those that can be stopped and are not."""
        return [t for t in self.threads.values() if t.is_running and not t.vfork_child]

    @property
    def has_guests(self) -> bool:
        return any(thread.is_guest for thread in self.threads.values())

    @property
    def sleeps_in_vfork(self) -> bool:
        return any(thread.vfork_child for thread in self.threads.values())

    @property
    def is_over(self) -> bool:
        """The program has ended or runs another one, and `next` is about to say so."""
        return any(stop.kind in ("exec", "exit") for stop in self.pending)

    @property
    def is_headless(self) -> bool:
        """The main thread has ended and others have not: the process cannot be reached by its pid any more."""
        others = self.threads.keys() - {self.pid}
        return not self.is_over and has_ended(self.pid) and not all(has_ended(tid) for tid in others)

    def stop_all(self) -> None:
        """Returns when no thread runs; what they stopped with, if it was not our doing, is pending."""
        while running := self.running:
            for thread in running:
                self._interrupt(thread)
            self._await_stops(running)
        if self.on_birth is not None:
            for stop in self.take_births():
                self.on_birth(stop)

    def take_births(self) -> list[Stop]:
        """The stops that tell of children, which are pending no more."""
        births = [stop for stop in self.pending if stop.kind in BIRTHS]
        if births:
            self.pending = deque(stop for stop in self.pending if stop.kind not in BIRTHS)
        return births

    def _await_stops(self, threads: Sequence[Thread]) -> None:
        self._is_stopping = True
        try:
            for thread in threads:
                while thread.is_running and self.threads.get(thread.tid) is thread:
                    self._wait_for(thread.tid)
        finally:
            self._is_stopping = False

    def _interrupt(self, thread: Thread) -> None:
        """May be repeated: any stop of the thread answers it (ptrace_stop in kernel/signal.c).

        A thread that cannot be asked has ended. It is not waited for: the end of the main thread is told after all others'.
        """
        try:
            ptrace.interrupt(thread.tid)
        except TraceeGone:
            self._forget(thread.tid)

    def resume(self, tid: int, number: int = 0) -> None:
        """Sends a stopped thread on, with a signal or without; one that runs already is left alone.

        Its next stop may be there, not yet waited for, and would be passed over: a trap lost.
        """
        thread = self.threads.get(tid)
        if thread is None or thread.is_running:
            return
        try:
            if thread.is_group_stopped and not number:
                self._listen(tid)
            else:
                self._continue(thread, number)
        except TraceeGone:
            # It is being killed; its end will be reported.
            pass
        thread.is_running = True

    def _continue(self, thread: Thread, number: int = 0) -> None:
        if thread.traces_syscalls:
            ptrace.resume_to_syscall(thread.tid, number)
        else:
            ptrace.resume(thread.tid, number)

    def resume_alone(self, tid: int, limit_s: float) -> None:
        """Sends a thread on that is expected to stop at once, while all others stand; it is pending then, or runs still."""
        thread = self.threads.get(tid)
        if thread is None:
            return
        self.resume(tid)
        deadline = time.monotonic() + limit_s
        while thread.is_running and self.threads.get(tid) is thread and time.monotonic() < deadline:
            if not self._collect():
                signal.sigtimedwait([signal.SIGCHLD], _LOOK_S)

    def pass_syscall(self, tid: int, limit_s: float) -> bool:
        """Lets a stopped thread make its next system call while all others stand; it is stopped again, or has ended.

        It may still be in its call then. False when it has met something that must be handled first, which is pending.
        """
        thread = self.threads[tid]
        was_traced, thread.traces_syscalls = thread.traces_syscalls, True
        deadline = time.monotonic() + limit_s
        try:
            while (left_s := deadline - time.monotonic()) > 0 and tid in self.threads:
                self.resume_alone(tid, left_s)
                stop = next((stop for stop in self.pending if stop.tid == tid), None)
                if stop is None or stop.kind not in ("syscall", "quiet"):
                    break
                self.pending.remove(stop)
                if stop.kind == "syscall" and stop.detail:
                    break
        finally:
            thread.traces_syscalls = was_traced
        self.stop_all()
        # One that was interrupted in its call has stopped behind it, and will make it again.
        self.pending = deque(stop for stop in self.pending if stop.tid != tid or stop.kind != "syscall")
        return not self.is_over and all(stop.kind == "quiet" for stop in self.pending if stop.tid == tid)

    def _listen(self, tid: int) -> None:
        """Keeps the thread in its group-stop; after a remote system call it must be brought back into it first."""
        try:
            ptrace.listen(tid)
        except OSError:
            ptrace.interrupt(tid)
            ptrace.resume(tid)

    def resume_all(self) -> None:
        """All but those whose stop is still to be handled, or whose call is away."""
        waiting = {stop.tid for stop in self.pending}
        for thread in list(self.threads.values()):
            if not thread.is_running and not thread.is_away and thread.tid not in waiting:
                self.resume(thread.tid)

    # Stopped threads that are about to be used, or let go

    def free(self, tid: int) -> None:
        """Makes the stopped thread one whose registers can be borrowed. Raises TraceeGone."""
        thread = self.threads.get(tid)
        if thread is None:
            raise TraceeGone("thread has ended", where=f"tid {tid}")
        if thread.is_free:
            return
        number = 0
        for stop in [stop for stop in self.pending if stop.tid == tid and stop.kind in ("signal", "quiet")]:
            number = stop.detail
            self.pending.remove(stop)
        self.settle(tid, number)

    def settle_all(self) -> list[Stop]:
        """Deals with all stops that wait to be handled: signals are delivered. Returns those that tell of children."""
        births = self.take_births()
        for thread in list(self.threads.values()):
            if not thread.is_running:
                self.free(thread.tid)
        self.pending.clear()
        return births

    def settle(self, tid: int, number: int = 0) -> None:
        """Takes a stopped thread to a stop without a signal and outside of any system call; the signal, if any, is delivered.

        It executes nothing meanwhile, a handler's first instruction included (get_signal in kernel/signal.c: a trap that
        is asked for comes first).
        """
        thread = self.threads.get(tid)
        if thread is None:
            return
        self._interrupt(thread)
        try:
            ptrace.resume(tid, number)
        except TraceeGone:
            # It is being killed.
            self._forget(tid)
            return
        thread.is_running = True
        self._await_stops([thread])

    def report_trap(self, tid: int) -> None:
        """A stopped thread that has met a breakpoint and was stopped by us before the signal: lets it stop for that."""
        if tid in self.threads and int(procfs.status(self.pid, tid)["SigPnd"], 16) & 1 << (signal.SIGTRAP - 1):
            ptrace.resume(tid)
            self.threads[tid].is_running = True
            self._await_stops([self.threads[tid]])

    def step(self, tid: int) -> None:
        """One instruction of a stopped thread. Signals that come in between are sent again. Raises TraceeGone."""
        held_back = [stop for stop in self.pending if stop.tid == tid and stop.kind == "signal"]
        for stop in held_back:
            self.pending.remove(stop)
        numbers = [stop.detail for stop in held_back]
        while True:
            ptrace.single_step(tid)
            status = self.wait_syscall(tid)
            if status >> 8 == signal.SIGTRAP:
                break
            if not status >> 16:
                numbers.append(os.WSTOPSIG(status))
        self.threads[tid].is_free = True
        for number in numbers:
            syscall("tgkill", self.pid, tid, number)

    # Waiting

    def next(self) -> Stop | None:
        """The next stop that somebody must handle, if there is one now. Never blocks."""
        while not self.pending:
            if not self._collect():
                return None
        return self.pending.popleft()

    def next_end(self) -> Stop | None:
        """The end of the process, or its exec, if there is one now; all else stays pending. Never blocks."""
        self.look()
        end = next((stop for stop in self.pending if stop.kind in ("exec", "exit")), None)
        if end is not None:
            self.pending.remove(end)
        return end

    def look(self) -> None:
        """Puts all stops that there are now to the pending ones."""
        while self.exit_status is None and self._collect():
            pass

    @property
    def has_news(self) -> bool:
        """Whether there may be something for `next`, without asking the kernel."""
        return bool(self.pending or self.inbox or not self.threads)

    def _collect(self) -> bool:
        status = self.statuses.next(self)
        if status is not None:
            self._note(status)
        elif not self.threads and self.exit_status is None and not self._is_ours(self.pid):
            # Nothing of it is traced any more, so nobody will tell its status.
            self._end(0)
        else:
            return False
        return True

    def _wait_for(self, tid: int) -> None:
        try:
            self._note(self.statuses.of(tid, self))
        except ChildProcessError:
            self._forget(tid)

    def wait_syscall(self, tid: int) -> int:
        """The status of the next stop of this thread, for a remote system call. Raises TraceeGone."""
        try:
            status = self.statuses.of(tid, self)
        except ChildProcessError:
            self._forget(tid)
            raise TraceeGone("thread ended", where=f"tid {tid}") from None
        if not os.WIFSTOPPED(status.raw):
            self._note(status)
            raise TraceeGone("thread ended", where=f"tid {tid}")
        return status.raw

    def _note(self, status: Status) -> None:
        tid = status.tid
        if not os.WIFSTOPPED(status.raw):
            self._note_end(tid, status.raw)
            return
        thread = self.threads.get(tid) or self._note_stranger(status)
        if thread is None:
            return
        thread.is_running = False
        event, number = status.raw >> 16, os.WSTOPSIG(status.raw)
        thread.is_free = event == ptrace.EVENT_STOP or status.entry != 0
        if self.hits is not None and self._note_hit(self.hits, thread, event, number):
            return
        if event == ptrace.EVENT_STOP:
            self._note_event_stop(thread, number)
        elif event:
            self._note_event(thread, event)
        elif status.entry:
            self.pending.append(Stop(tid, "trap", status.entry))
        elif number == signal.SIGTRAP | 0x80:
            self._note_syscall(tid)
        else:
            self.pending.append(Stop(tid, "signal", number))

    def _note_hit(self, hits: Hits, thread: Thread, event: int, number: int) -> bool:
        """Whether it is about a call that the kernel has noticed, and that is all that it is about."""
        tid = thread.tid
        is_interrupt = event == ptrace.EVENT_STOP and number == signal.SIGTRAP
        try:
            if is_interrupt and hits.is_there(tid) and self._awaits_urgent(tid):
                # Its SIGURG comes before its next instruction, and stops it as well.
                self._continue(thread)
                thread.is_running = True
                return True
            entry = hits.take(tid)
            is_ours = not event and number == signal.SIGURG and self._is_our_urgent(tid, is_hit=entry is not None)
        except TraceeGone:
            # It is being killed; its end will be reported.
            return False
        if entry is not None and not (number == signal.SIGURG and not event):
            self._urgent.add(tid)
        if not is_ours and not (entry and is_interrupt):
            # It stands before the call that it has met, and meets it again.
            return False
        thread.is_free = True
        self.pending.append(Stop(tid, "trap", entry) if entry else Stop(tid, "quiet"))
        return True

    def _is_our_urgent(self, tid: int, *, is_hit: bool) -> bool:
        """Whether a BPF program has sent the SIGURG that has stopped the thread.

        At most one of ours is on its way to a thread, in its own queue, which comes first. One that the program has sent
        there before takes it in (legacy_queue in kernel/signal.c), and is told as the program's.
        """
        is_expected = is_hit or tid in self._urgent
        self._urgent.discard(tid)
        return is_expected and ptrace.signal_info(tid)[1] == ptrace.SI_KERNEL

    def _awaits_urgent(self, tid: int) -> bool:
        """A SIGURG is in the thread's own queue, and not blocked."""
        own = procfs.status(self.pid, tid)
        return bool(int(own["SigPnd"], 16) & ~int(own["SigBlk"], 16) & _URGENT)

    def swallow_urgent(self) -> None:
        """All threads are stopped, and nothing sends SIGURG any more: those of ours that wait behind a mask are taken."""
        assert self.hits is not None
        for tid in list(self.threads):
            if self.hits.take(tid) is not None or tid in self._urgent:
                self._swallow_urgent(tid)
        self._urgent.clear()

    def _swallow_urgent(self, tid: int) -> None:
        self._urgent.add(tid)
        try:
            self.free(tid)
            mask = ptrace.signal_mask(tid)
            ptrace.set_signal_mask(tid, mask & ~_URGENT)
            while tid in self._urgent and self._awaits_urgent(tid):
                self._continue(self.threads[tid])
                self.threads[tid].is_running = True
                self._await_stops([self.threads[tid]])
            ptrace.set_signal_mask(tid, mask)
        except (TraceeGone, KeyError):
            # It is being killed; its end will be reported.
            return

    def _note_event_stop(self, thread: Thread, number: int) -> None:
        """Our interrupt, the first stop of a new thread, or a group-stop that begins or ends."""
        thread.is_group_stopped = number in GROUP_STOPS
        if not self._is_stopping:
            self.pending.append(Stop(thread.tid, "quiet"))

    def _note_syscall(self, tid: int) -> None:
        try:
            self.pending.append(Stop(tid, "syscall", int(ptrace.syscall_info(tid)[0] == ptrace.SYSCALL_EXIT)))
        except TraceeGone:
            # It is being killed; its end will be reported.
            return

    def _note_event(self, thread: Thread, event: int) -> None:
        if event in (ptrace.EVENT_CLONE, ptrace.EVENT_FORK):
            self._note_child(thread, ptrace.event_message(thread.tid))
        elif event == ptrace.EVENT_VFORK:
            thread.vfork_child = ptrace.event_message(thread.tid)
            self._note_child(thread, thread.vfork_child)
        elif event == ptrace.EVENT_EXEC and thread.is_guest:
            self._forget(thread.tid)
            self.pending.append(Stop(thread.tid, "left", thread.tid))
        elif event == ptrace.EVENT_EXEC:
            self.threads = {thread.tid: Thread(thread.tid, is_running=False, is_free=False)}
            self.pending = deque([*self.take_births(), Stop(thread.tid, "exec")])
        else:
            if event == ptrace.EVENT_VFORK_DONE:
                thread.vfork_child = 0
            self.pending.append(Stop(thread.tid, "quiet"))

    def _note_child(self, thread: Thread, child: int) -> None:
        if self._is_thread(child):
            self.threads.setdefault(child, Thread(child))
        elif self.shares_memory(child, otherwise=bool(thread.vfork_child)):
            self._admit_guest(child)
        else:
            self._wait_for_child(child)
            self.pending.append(Stop(thread.tid, "fork", child))
            return
        self.pending.append(Stop(thread.tid, "quiet"))

    def _is_thread(self, tid: int) -> bool:
        return os.path.exists(f"/proc/{self.pid}/task/{tid}")

    def shares_memory(self, child: int, *, otherwise: bool) -> bool:
        """clone(CLONE_VM) without CLONE_THREAD. A kernel without kcmp(2) cannot say: then `otherwise`."""
        try:
            return syscall("kcmp", self.pid, child, _KCMP_VM, 0, 0) == 0
        except OSError:
            return otherwise

    def _admit_guest(self, pid: int) -> None:
        self._wait_for_child(pid)
        self.threads[pid] = Thread(pid, is_running=False, is_guest=True)
        self.pending.append(Stop(pid, "quiet"))

    def _note_stranger(self, status: Status) -> Thread | None:
        """A new thread may stop before its maker's event is seen."""
        if not self._is_thread(status.tid):
            return None
        self.threads[status.tid] = Thread(status.tid)
        return self.threads[status.tid]

    def _wait_for_child(self, pid: int) -> None:
        """Returns when a forked child, which is traced from its start, has made its first stop, or is gone."""
        try:
            self.statuses.of(pid, self)
        except ChildProcessError:
            return

    def _note_end(self, tid: int, status: int) -> None:
        if tid not in self.threads and tid != self.pid:
            return
        self._forget(tid)
        if tid == self.pid:
            self._end(status)

    def _forget(self, tid: int) -> None:
        self.threads.pop(tid, None)
        self._urgent.discard(tid)
        if self.hits is not None:
            self.hits.forget_thread(tid)
        self.pending = deque(stop for stop in self.pending if stop.tid != tid or stop.kind in BIRTHS)
        for thread in self.threads.values():
            if thread.vfork_child == tid:
                thread.vfork_child = 0

    def _end(self, status: int) -> None:
        for tid in list(self.threads):
            self._forget(tid)
        self.exit_status = status
        self.pending = deque([*self.take_births(), Stop(self.pid, "exit", status)])
        self.statuses.remove(self)


def has_ended(tid: int) -> bool:
    """Whether the thread is a zombie, or gone."""
    try:
        return procfs.stat_fields(tid)[0] in "ZX"
    except TraceeGone:
        return True


def exit_code(status: int) -> int:
    """As a shell tells it: 128+N for a signal."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
