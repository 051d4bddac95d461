"""A tracee: its threads, its memory, what radium has put into it, and how all of that is taken out again."""

from collections.abc import Collection, Sequence
from contextlib import suppress

from radium.core import wire
from radium.core.pages import Run, Runs, around, offset_in
from radium.core.regs import Registers
from radium.errors import NotPossible, RemoteFault, TraceeGone
from radium.linux import procfs, ptrace
from radium.linux.cpuid import state_components
from radium.tracer.breakpoint import Breakpoints
from radium.tracer.home import RED_ZONE, Home
from radium.tracer.ledger import Bystander, CommitRecord, Ledger, Moved, Plan
from radium.tracer.remote_syscall import ALL_SIGNALS, RemoteSyscalls
from radium.tracer.stops import Threads
from radium.tracer.withdraw import find_gadget, withdraw

# Fields of /proc/PID/stat (proc(5)) for prctl(PR_SET_MM_MAP): start_code end_code start_data end_data start_brk
# start_stack arg_start arg_end env_start env_end
_MM_FIELDS = (26, 27, 45, 46, 47, 28, 48, 49, 50, 51)


class Tracee:
    """All threads are stopped when this is made, and in every method that does not say otherwise."""

    def __init__(
        self, threads: Threads, ledger: Ledger, tracking: str, parent: "tuple[Tracee, int] | None" = None
    ) -> None:
        """parent: the tracee of which this is a forked child, and the thread that made it; all of ours is in it already."""
        self.threads = threads
        self.pid = threads.pid
        self.ledger = ledger
        if parent is None:
            self.remote = self._remote()
            self.breakpoints = Breakpoints(threads, self.remote, ledger)
        else:
            self.remote = parent[0].remote and RemoteSyscalls(threads, ledger, parent[0].remote.gadget)
            self.breakpoints = parent[0].breakpoints.copy_for(threads, self.remote, ledger, parent[1])
        self.memory = self.breakpoints.memory
        self.home = Home(self.pid, self.breakpoints, tracking)
        self._tracking = tracking
        self._is_watched = False
        self._rseq: dict[int, tuple[int, int]] = {}
        self._inner = _inner_ids(self.pid)

    def _remote(self) -> RemoteSyscalls | None:
        """None when the tracee has a seccomp filter that we cannot suspend: a refused call could kill it."""
        try:
            remote = RemoteSyscalls(self.threads, self.ledger, find_gadget(self.pid))
            self.ledger.note_plan(Plan(self.pid, outside=remote.gadget))
            with remote.borrow(next(iter(self.threads.threads))):
                return remote
        except (NotPossible, RemoteFault):
            return None

    # What a mirror is built from

    def watch(self, tid: int) -> None:
        """Begins to notice the tracee's writes, once."""
        if not self._is_watched:
            self.breakpoints.note_opening(procfs.userfaultfds(self.pid))
            self.home.watch(self.remote, tid)
            self.breakpoints.note_opening(None)
            self._is_watched = True

    def setup(self, tid: int, clocks: wire.Clocks) -> wire.Setup:
        """clocks: what ours are ahead of the acceptor's."""
        stat = procfs.stat_fields(self.pid)
        status = procfs.status(self.pid)
        uid, euid = status["Uid"].split()[:2]
        gid, egid = status["Gid"].split()[:2]
        identity = {
            "getpid": self._inner, "getuid": int(uid), "geteuid": int(euid), "getgid": int(gid), "getegid": int(egid),
        }  # fmt: skip
        home = self.home
        return wire.Setup(
            self.pid, home.tell_all(), home.special(), home.vdso(), self.read_brk(tid),
            [int(stat[n - 3]) for n in _MM_FIELDS], identity, self._tracking, clocks, self.remote is not None,
            list(state_components()),
        )  # fmt: skip

    def read_brk(self, tid: int) -> int:
        return self.home.read_brk(self.remote, tid)

    def as_seen(self, tid: int) -> int:
        """The thread's id as the program sees it."""
        if self._inner == self.pid:
            return tid
        return self._inner if tid == self.pid else _inner_ids(self.pid, tid)

    def stacks(self) -> Runs:
        """What its threads, all stopped, stand on, and may look at."""
        stacks = []
        for tid in self.threads.threads:
            with suppress(TraceeGone):
                regs = ptrace.registers(tid)
                # glibc has the stack of a thread that it made end below what fs_base points to (allocate_stack in nptl).
                end = regs.fs_base if regs.fs_base > regs.rsp else self.home.end_of_area(regs.rsp)
                stacks.append((regs.rsp - RED_ZONE, end))
        return around(stacks)

    # Commit

    def keep_own(self, dirty: Sequence[Run]) -> None:
        """The answer in the ledger must overwrite neither our breakpoints nor what the kernel keeps in the tracee."""
        self.breakpoints.keep_in(dirty, self.ledger.answer)
        for address, nbytes in self.kernel_areas():
            at = offset_in(dirty, address)
            if at is not None:
                self.ledger.answer[at : at + nbytes] = self.memory.read(address, nbytes)

    def kernel_areas(self) -> list[tuple[int, int]]:
        """Where the kernel tells each thread its CPU (rseq(2)): it changes while the thread is stopped."""
        # A new thread has none until it registers one itself.
        known = {tid: area for tid, area in self._rseq.items() if area[1]}
        self._rseq = {tid: known.get(tid) or ptrace.rseq_area(tid) for tid in self.threads.threads}
        return [area for area in self._rseq.values() if area[1]]

    def kernel_pages(self) -> Runs:
        """The pages that they lie in."""
        return around((address, address + nbytes) for address, nbytes in self.kernel_areas())

    def kernel_pages_of(self, tid: int) -> Runs:
        """The pages of this thread's area alone."""
        self.kernel_areas()
        address, nbytes = self._rseq.get(tid, (0, 0))
        return around([(address, address + nbytes)]) if nbytes else []

    def without_kernel_area(self, tid: int, page: int, contents: memoryview) -> bytes:
        """The contents of a page, what the kernel keeps there for the thread left out."""
        address, nbytes = self._rseq.get(tid, (0, 0))
        out = bytearray(contents)
        start, end = max(address - page, 0), max(address + nbytes - page, 0)
        out[start:end] = bytes(len(out[start:end]))
        return bytes(out)

    def standing(self, tid: int, regs: Registers, xstate: bytes) -> wire.Standing:
        """A stopped thread, to go on from there."""
        return wire.Standing(tid, self.as_seen(tid), ptrace.signal_mask(tid), regs.pack(), xstate)

    def moved(self, standing: wire.Standing, before: Registers, xstate: bytes) -> Moved:
        """What a commit does to a thread that stood at `before`, with that extended state."""
        changed = standing.xstate if standing.xstate != xstate else b""
        tid = standing.tid
        return Moved(tid, before.pack(), ptrace.signal_mask(tid), standing.registers, standing.mask, changed)

    def bystanders(self, moved: Collection[int]) -> list[Bystander]:
        """All threads but these."""
        out = []
        for thread in self.threads.threads.values():
            if thread.tid not in moved and not thread.is_running:
                with suppress(TraceeGone):
                    out.append(Bystander(thread.tid, ptrace.raw_registers(thread.tid)))
        return out

    def park(self, record: CommitRecord) -> None:
        """From here on, if we are killed, they wait for the guardian and run nothing.

        Signals are held back from threads that are moved alone: for others that is not worth two calls more for each.
        """
        if not self.breakpoints.annexes:
            return
        park = self.breakpoints.annexes[0].park
        for moved in record.threads:
            ptrace.set_raw_registers(moved.tid, Registers.moved(moved.registers_before, park))
            # Not before: where it was there is a breakpoint.
            ptrace.set_signal_mask(moved.tid, ALL_SIGNALS)
        for bystander in record.bystanders:
            with suppress(TraceeGone):
                ptrace.set_raw_registers(bystander.tid, Registers.moved(bystander.registers, park))

    # The end

    def forget_gone(self) -> None:
        """The process is gone, or runs another program: nothing of ours is left in it."""
        self.threads.entries.clear()
        self.ledger.close_plan()
        self._close()

    def detach(self) -> None:
        """Leaves the tracee as it was found, all threads running. Raises TraceeGone."""
        self.home.close_watch()
        withdraw(self.threads, self.breakpoints.plan(), self.ledger)
        self.ledger.close_plan()
        self.threads.detach()
        self._close()

    def _close(self) -> None:
        self.home.close()
        self.breakpoints.close()


def _inner_ids(pid: int, tid: int | None = None) -> int:
    """The id in the innermost pid namespace (proc(5), NSpid)."""
    try:
        return int(procfs.status(pid, tid)["NSpid"].split()[-1])
    except (TraceeGone, KeyError):
        return tid or pid
