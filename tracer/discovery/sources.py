"""Two ways to samples: perf events through BPF, and stops by ptrace where that is not possible.

Sources: ptrace(2), PTRACE_SEIZE and PTRACE_INTERRUPT; waitid(2); include/linux/proc_ns.h.
"""

import os
import signal
import struct
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

from radium.bpf import links, program, stats
from radium.core.addr import PAGE_SIZE
from radium.errors import NotPossible, RemoteFault, TraceeGone
from radium.linux import procfs, ptrace, vm
from radium.tracer.discovery.unwinder import NREGISTERS, RSP

# Enough for OpenBLAS, whose kernels have 31 KiB of buffers on the stack, under an interpreter.
STACK_NBYTES = 1 << 16
# So many samples may wait, of all CPUs together; a power of two for each. We are woken when a quarter has come.
_WAITING = 1 << max((os.cpu_count() or 1) * 8 - 1, 255).bit_length()
_HEAD = struct.Struct(f"<IIQ{NREGISTERS}Q")
# The initial namespace of process ids has this inode; BPF programs see the ids that are valid there.
_INITIAL_PIDS = 0xEFFFFFFC
# One tick of the fallback stops so many threads at most: with more, each has its turn.
_STOPS_AT_ONCE = 32
# A thread that does not stop for so long waits for a CPU, or in the kernel (state D): it is looked at later.
_STOP_S, _LAST_S, _LOOK_S = 0.05, 5.0, 0.005
_WALL = 0x40000000
_WAIT_FOR = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL


class Record(NamedTuple):
    """Where a thread was. registers: of user mode, as DWARF numbers them; stack: a copy from rsp on."""

    pid: int
    registers: Sequence[int]
    stack: bytes


class Source(Protocol):
    @property
    def way(self) -> str: ...

    @property
    def frequency(self) -> float: ...

    def watch(self, pids: Set[int]) -> None:
        """These are sampled from now on, and no others."""

    def take(self, timeout_ms: int) -> list[Record]:
        """The samples of so long, about."""

    def cost_s(self) -> float:
        """What it has taken of the CPU time of those that were sampled."""

    def notes(self) -> list[str]: ...

    def close(self) -> None: ...


class PerfEvents:
    """The program `sample` at every tick of each CPU's clock."""

    way = "perf events"

    def __init__(self, frequency: int) -> None:
        """Raises NotPossible."""
        if Path("/proc/self/ns/pid").stat().st_ino != _INITIAL_PIDS:
            raise NotPossible("BPF sees other process ids than radium, which runs in a container")
        self.frequency: float = frequency
        self._records: list[Record] = []
        self._watched: set[int] = set()
        defines = [
            f"STACK_NBYTES={STACK_NBYTES}",
            f"RING_NPAGES={_WAITING * STACK_NBYTES // PAGE_SIZE}",
            f"WAKE_EVERY={_WAITING // 4}",
        ]
        self._programs = program.Programs(program.source("sample"), defines)
        self._stats: stats.Stats | None = None
        try:
            self._fd = self._programs.load("on_tick", "perf_event")
            self._programs.on_records("samples", self._note)
            self._wanted, self._lost = self._programs.map("wanted"), self._programs.map("lost")
            self._stats = stats.Stats()
            self._link = links.cpu_clock(self._fd, frequency)
        except NotPossible:
            self._close()
            raise

    def watch(self, pids: Set[int]) -> None:
        for pid in self._watched - pids:
            self._wanted.remove(_u32(pid))
        for pid in pids - self._watched:
            self._wanted.set(_u32(pid), _u32(1))
        self._watched = set(pids)

    def take(self, timeout_ms: int) -> list[Record]:
        self._programs.poll(timeout_ms)
        records, self._records = self._records, []
        return records

    def cost_s(self) -> float:
        """Of the program; the interrupt that calls it, some microseconds, is not in it."""
        return stats.cost(self._fd).seconds

    def notes(self) -> list[str]:
        lost = int.from_bytes(self._lost.get(_u32(0)) or b"", "little")
        return [f"{lost} samples were lost: radium did not keep up"] if lost else []

    def close(self) -> None:
        self._link.close()
        self._close()

    def _close(self) -> None:
        if self._stats:
            self._stats.close()
        self._programs.close()

    def _note(self, raw: bytes) -> None:
        pid, _, nbytes, *registers = _HEAD.unpack_from(raw)
        self._records.append(Record(pid, registers, raw[_HEAD.size : _HEAD.size + nbytes]))


class Stops:
    """Each running thread is stopped for some ten microseconds, ten times a second. Nobody else may trace it."""

    way = "ptrace"
    frequency: ClassVar[float] = 10

    def __init__(self) -> None:
        self._pids: set[int] = set()
        self._cost_s = 0.0
        self._next = time.monotonic()
        self._turn = 0
        self._notes: dict[str, None] = {}
        # Threads that have been seized and not let go again, and their processes.
        self._held: dict[int, int] = {}

    def watch(self, pids: Set[int]) -> None:
        self._pids = set(pids)

    def take(self, timeout_ms: int) -> list[Record]:
        time.sleep(min(max(self._next - time.monotonic(), 0), timeout_ms / 1000))
        if time.monotonic() < self._next:
            return []
        self._next = time.monotonic() + 1 / self.frequency
        for tid in list(self._held):
            self._finish(tid, 0)
        return [record for pid in self._pids for record in self._sample(pid)]

    def cost_s(self) -> float:
        return self._cost_s

    def notes(self) -> list[str]:
        return list(self._notes)

    def close(self) -> None:
        """What does not stop even now, in a call into the kernel that nothing interrupts, goes on when radium ends."""
        deadline = time.monotonic() + _LAST_S
        while self._held and time.monotonic() < deadline:
            # In turn: the first thread of a process has ended only when all others have.
            for tid in list(self._held):
                self._finish(tid, _LOOK_S)

    def _sample(self, pid: int) -> Iterator[Record]:
        with suppress(TraceeGone):
            tracer = int(procfs.status(pid)["TracerPid"])
            if tracer not in (0, os.getpid()):
                self._notes[f"pid {pid} is traced by process {tracer}: it cannot be sampled"] = None
                return
            for tid in self._running(pid):
                record = self._stop(pid, tid)
                if record:
                    yield record

    def _running(self, pid: int) -> list[int]:
        tids = procfs.threads(pid)
        start = self._turn % len(tids)
        turn = (tids[start:] + tids[:start])[:_STOPS_AT_ONCE]
        self._turn += len(turn)
        return [tid for tid in turn if tid not in self._held and _state(pid, tid) == "R"]

    def _stop(self, pid: int, tid: int) -> Record | None:
        before = time.monotonic()
        try:
            ptrace.seize(tid, 0)
            self._held[tid] = pid
            ptrace.interrupt(tid)
        except OSError as error:
            self._notes[f"pid {pid} cannot be traced ({os.strerror(error.errno or 0)}): it cannot be sampled"] = None
            return None
        except TraceeGone:
            pass  # what is left of a thread that is held is found by `_finish`
        record = self._finish(tid, _STOP_S)
        self._cost_s += time.monotonic() - before
        return record

    def _finish(self, tid: int, timeout_s: float) -> Record | None:
        """Waits for the thread to stop, looks at it, and lets it go; if it does not stop in time it is held until then."""
        pid, record = self._held.get(tid), None
        if pid is None:
            return None
        try:
            found = _wait(tid, timeout_s)
            if _state(pid, tid) == "t":
                record = _look_and_let_go(pid, tid)
            elif found is None:
                return None
            else:
                _bury(pid, tid)
        except TraceeGone:
            return None  # killed in its stop: it has to be buried yet
        except ChildProcessError:
            pass  # it is no tracee of ours any more
        del self._held[tid]
        return record


def _state(pid: int, tid: int) -> str:
    """As proc(5) has it: R runs, t is stopped for its tracer; empty for one that has gone."""
    with suppress(TraceeGone):
        return procfs.read(pid, f"task/{tid}/stat").rpartition(b")")[2].split()[0].decode()
    return ""


def look(pid: int, tid: int) -> Record:
    """Of a thread that is stopped. Raises TraceeGone."""
    regs = ptrace.registers(tid)
    numbered = [
        regs.rax, regs.rdx, regs.rcx, regs.rbx, regs.rsi, regs.rdi, regs.rbp, regs.rsp,
        regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15, regs.rip,
    ]  # fmt: skip
    return Record(pid, numbered, _copy_stack(pid, numbered[RSP]))


def _copy_stack(pid: int, start: int) -> bytes:
    """From there on up to the end of what is mapped, page by page: nobody knows how much there is."""
    copy, at = b"", start
    with suppress(RemoteFault):
        while len(copy) < STACK_NBYTES:
            nbytes = PAGE_SIZE - at % PAGE_SIZE
            copy += vm.read(pid, at, nbytes)
            at += nbytes
    return copy


def _wait(tid: int, timeout_s: float) -> os.waitid_result | None:
    """What became of the thread, which is left to be waited for; None if nothing has yet. Raises ChildProcessError."""
    deadline = time.monotonic() + timeout_s
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        while (found := os.waitid(os.P_PID, tid, _WAIT_FOR)) is None and time.monotonic() < deadline:
            # Another thread of ours may get the signal instead: so we look from time to time.
            signal.sigtimedwait({signal.SIGCHLD}, min(max(deadline - time.monotonic(), 0), _LOOK_S))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return found


def _look_and_let_go(pid: int, tid: int) -> Record | None:
    """Of a thread that has stopped; a signal that it was about to get it gets.

    Who started the program may have taken the wait status before us, so the kernel is asked what the stop is.
    """
    os.waitpid(tid, os.WNOHANG | _WALL)
    number, code, _ = ptrace.signal_info(tid)
    try:
        return look(pid, tid)
    finally:
        ptrace.detach(tid, 0 if code >> 8 == ptrace.EVENT_STOP else number)


def _bury(pid: int, tid: int) -> None:
    """A tracer must take the end of a thread before others can; that of our own child is for who started it."""
    if tid != pid or int(procfs.status(pid)["PPid"]) != os.getpid():
        os.waitpid(tid, os.WNOHANG | _WALL)


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "little")
