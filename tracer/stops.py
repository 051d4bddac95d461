"""The tracee's threads: seized, stopped, resumed. The only place of the initiator that waits for processes.

A thread is running, or stopped with a reason (`Stop`). What stops while all are being stopped is kept in `pending` and handed
out by `next`, so no event is lost and none is handled twice.
Sources: ptrace(2), "Stopped states", "Group-stop", "Attaching and detaching"; signal(7).
"""

import os
import signal
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from radium.errors import NotPossible, TraceeGone
from radium.linux import procfs, ptrace

OPTIONS = ptrace.O_SYSGOOD | ptrace.O_CLONE | ptrace.O_FORK | ptrace.O_VFORK | ptrace.O_VFORK_DONE | ptrace.O_EXEC
_WALL = 0x40000000
_GROUP_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class Stop(NamedTuple):
    """Why a thread stopped, or that it ended.

    kind: "trap" (int3), "signal" (about to be delivered), "fork" (detail: the child's pid; the child is stopped), "exec",
    "exit" (detail: the wait status, tid: the process), "quiet" (nothing of interest: the thread is to be resumed).
    """

    tid: int
    kind: str
    detail: int = 0


@dataclass
class Thread:
    tid: int
    is_running: bool = True
    is_group_stopped: bool = False
    is_in_vfork: bool = False  # sleeps in the kernel until the child that shares its memory execs or ends
    is_guest: bool = False  # such a child: another process in the tracee's memory


class Threads:
    """All threads of one process; every request comes from the thread of ours that made this object."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.threads: dict[int, Thread] = {}
        self.pending: deque[Stop] = deque()
        self.exit_status: int | None = None
        self._is_stopping_all = False
        self._early: dict[int, int] = {}  # children that stopped before their parent's event told of them

    # Seizing and letting go

    def seize(self) -> None:
        """All threads, those included that appear while we are at it; afterwards all are stopped. Raises NotPossible."""
        while new := set(procfs.threads(self.pid)) - set(self.threads):
            for tid in sorted(new):
                self._seize_one(tid)
        self.stop_all()

    def _seize_one(self, tid: int) -> None:
        try:
            ptrace.seize(tid, OPTIONS)
        except TraceeGone:
            if tid == self.pid:
                raise
        except OSError as error:
            if self._is_ours(tid):
                self.threads[tid] = Thread(tid)
            elif self._is_alive(tid):
                raise NotPossible(
                    f"cannot be traced ({os.strerror(error.errno or 0)})", where=f"pid {self.pid}",
                    advice="see what traces it (TracerPid in /proc/PID/status), or run radium as root",
                ) from None  # fmt: skip
        else:
            self.threads[tid] = Thread(tid)

    def _is_ours(self, tid: int) -> bool:
        """A thread that was born of one that we had seized is seized already."""
        return self._status(tid).get("TracerPid") == str(os.getpid())

    def _is_alive(self, tid: int) -> bool:
        return self._status(tid).get("State", "X")[0] not in "ZX"

    def _status(self, tid: int) -> dict[str, str]:
        try:
            return procfs.status(self.pid, tid)
        except TraceeGone:
            return {}

    def adopt(self, tid: int) -> None:
        """A thread that is seized already and running."""
        self.threads[tid] = Thread(tid)

    def detach(self) -> None:
        """Lets all threads go on; all are stopped."""
        for thread in list(self.threads.values()):
            self._detach_one(thread)
        self.threads.clear()

    def _detach_one(self, thread: Thread) -> None:
        held_back = next((s.detail for s in self.pending if s.tid == thread.tid and s.kind == "signal"), 0)
        try:
            ptrace.detach(thread.tid, held_back)
        except TraceeGone:
            return

    # Stopping and resuming

    @property
    def running(self) -> list[Thread]:
        """Those that can run code of the tracee's."""
        return [t for t in self.threads.values() if t.is_running and not t.is_in_vfork and not t.is_guest]

    @property
    def has_guests(self) -> bool:
        return any(thread.is_guest for thread in self.threads.values())

    def stop_all(self) -> None:
        """Returns when no thread runs; what they stopped with, if it was not our doing, is pending."""
        self._is_stopping_all = True
        try:
            while running := self.running:
                for thread in running:
                    self._interrupt(thread)
                for thread in running:
                    while thread.is_running and thread.tid in self.threads:
                        self._wait_for(thread.tid)
        finally:
            self._is_stopping_all = False

    def _interrupt(self, thread: Thread) -> None:
        try:
            ptrace.interrupt(thread.tid)
        except TraceeGone:
            return

    def resume(self, tid: int, number: int = 0) -> None:
        """Sends a stopped thread on, with a signal or without."""
        thread = self.threads.get(tid)
        if thread is None:
            return
        try:
            if thread.is_group_stopped and not number:
                self._listen(tid)
            else:
                ptrace.resume(tid, number)
            thread.is_running = True
        except TraceeGone:
            # It is being killed; its end will be reported.
            thread.is_running = True

    def _listen(self, tid: int) -> None:
        """Keeps the thread in its group-stop. After a remote system call it must be brought back into it first."""
        try:
            ptrace.listen(tid)
        except OSError:
            ptrace.interrupt(tid)
            ptrace.resume(tid)

    def resume_all(self) -> None:
        """All but those whose stop is still to be handled."""
        waiting = {stop.tid for stop in self.pending}
        for thread in list(self.threads.values()):
            if not thread.is_running and thread.tid not in waiting:
                self.resume(thread.tid)

    # Waiting

    def next(self) -> Stop | None:
        """The next stop that somebody must handle, if there is one now. Never blocks."""
        while not self.pending:
            if not self._collect():
                return None
        return self.pending.popleft()

    def _collect(self) -> bool:
        try:
            tid, status = os.waitpid(-1, _WALL | os.WNOHANG)
        except ChildProcessError:
            if self.exit_status is None:
                self._end(0)
            return True
        if not tid:
            return False
        self._note(tid, status)
        return True

    def _wait_for(self, tid: int) -> None:
        try:
            if tid == self.pid:
                self._wait_for_main()
            else:
                self._note(*os.waitpid(tid, _WALL))
        except ChildProcessError:
            self._forget(tid)

    def _wait_for_main(self) -> None:
        """A main thread that ends before the others is told of when they have ended too (ptrace(2)): not to be waited for."""
        while True:
            found, status = os.waitpid(self.pid, _WALL | os.WNOHANG)
            if found:
                self._note(found, status)
                return
            if not self._is_alive(self.pid):
                self._forget(self.pid)
                return
            os.sched_yield()

    def wait_syscall(self, tid: int) -> int:
        """The status of the next stop of this thread, for a remote system call. Raises TraceeGone."""
        found, status = os.waitpid(tid if tid != self.pid or len(self.threads) == 1 else -1, _WALL)
        while found != tid:
            # The end of a main thread is told after that of all others, and they are for us to take note of.
            self._note(found, status)
            found, status = os.waitpid(-1, _WALL)
        if not os.WIFSTOPPED(status):
            self._note(found, status)
            raise TraceeGone("thread ended", where=f"tid {tid}")
        return status

    def _note(self, tid: int, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self._note_end(tid, status)
            return
        thread = self.threads.get(tid)
        if thread is None:
            thread = self._note_stranger(tid, status)
            if thread is None:
                return
        thread.is_running = False
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == ptrace.EVENT_STOP:
            self._note_event_stop(thread, number)
        elif event:
            self._note_event(thread, event)
        elif number == signal.SIGTRAP and ptrace.signal_info(tid)[1] == ptrace.SI_KERNEL:
            self.pending.append(Stop(tid, "trap"))
        else:
            self.pending.append(Stop(tid, "signal", number))

    def _note_event_stop(self, thread: Thread, number: int) -> None:
        """An interrupt of ours, the first stop of a new thread, or a group-stop that begins or ends.

        Which of them cannot be told: any stop may swallow an interrupt (ptrace_stop, kernel/signal.c), and an interrupt of
        a thread that had just stopped shows up after it was resumed. While all are being stopped each is what is wanted.
        """
        thread.is_group_stopped = number in _GROUP_STOPS
        if not self._is_stopping_all:
            self.pending.append(Stop(thread.tid, "quiet"))

    def _note_event(self, thread: Thread, event: int) -> None:
        if event == ptrace.EVENT_CLONE:
            tid = ptrace.event_message(thread.tid)
            # It may have run and ended already: its own stops can come before this one.
            if tid not in self.threads and os.path.exists(f"/proc/{tid}"):
                self.threads[tid] = Thread(tid)
            self._take_early(tid)
            self.pending.append(Stop(thread.tid, "quiet"))
        elif event == ptrace.EVENT_FORK:
            child = ptrace.event_message(thread.tid)
            self._wait_for_child(child)
            self.pending.append(Stop(thread.tid, "fork", child))
        elif event == ptrace.EVENT_VFORK:
            thread.is_in_vfork = True
            self._admit_guest(ptrace.event_message(thread.tid))
            self.pending.append(Stop(thread.tid, "quiet"))
        elif event == ptrace.EVENT_EXEC and thread.is_guest:
            self._detach_one(thread)
            self._forget(thread.tid)
        elif event == ptrace.EVENT_EXEC:
            self.threads = {thread.tid: thread}
            self.pending = deque([Stop(thread.tid, "exec")])
        else:
            thread.is_in_vfork = thread.is_in_vfork and event != ptrace.EVENT_VFORK_DONE
            self.pending.append(Stop(thread.tid, "quiet"))

    def _admit_guest(self, pid: int) -> None:
        self._wait_for_child(pid)
        self.threads[pid] = Thread(pid, is_running=False, is_guest=True)
        self.pending.append(Stop(pid, "quiet"))

    def _take_early(self, tid: int) -> None:
        status = self._early.pop(tid, None)
        if status is not None:
            self._note(tid, status)

    def _note_stranger(self, tid: int, status: int) -> Thread | None:
        """A new thread, or a forked child, may stop before its parent's event is seen."""
        if os.path.exists(f"/proc/{self.pid}/task/{tid}"):
            self.threads[tid] = Thread(tid)
            return self.threads[tid]
        self._early[tid] = status
        return None

    def _wait_for_child(self, pid: int) -> None:
        """Returns when a forked child, which is traced from its start, has made its first stop, or is gone."""
        if self._early.pop(pid, None) is None:
            try:
                os.waitpid(pid, _WALL)
            except ChildProcessError:
                return

    def _note_end(self, tid: int, status: int) -> None:
        if tid not in self.threads and tid != self.pid:
            return
        self._forget(tid)
        if tid == self.pid:
            self._end(status)
        elif not self.threads:
            self._end(self._status_of_main(status))

    def _status_of_main(self, status: int) -> int:
        """The wait status of a main thread that ended before the last one, which ended with `status`."""
        try:
            return os.waitpid(self.pid, _WALL)[1]
        except ChildProcessError:
            return status

    def _forget(self, tid: int) -> None:
        self.threads.pop(tid, None)
        self.pending = deque(stop for stop in self.pending if stop.tid != tid)

    def _end(self, status: int) -> None:
        self.threads.clear()
        self.exit_status = status
        self.pending = deque([Stop(self.pid, "exit", status)])


def exit_code(status: int) -> int:
    """As a shell tells it: 128+N for a signal."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def reap(pid: int) -> int:
    """Waits for a child of our own that nobody traces any more; its wait status."""
    return os.waitpid(pid, 0)[1]


