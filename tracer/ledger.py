"""What the guardian must know to put the tracee right if radium is killed: memory shared by the two.

    0     seal           1 while there is a tracee that must be put right
    8     borrowed tid   0: no thread's registers are borrowed
    16    mask, registers of the borrowed thread
    ...   child pid      a forked child that is being let go, 0 for none
    ...   place of the plan (MessagePack): what to withdraw at the end (withdraw.py)
    ...   place of the commit record, 0: no commit is under way; its pages are in the answer buffer (commit.py)
    ...   1 once the commit has begun: before, its threads are only being parked

Written before the change that it describes is made, cleared after the change has been undone: at every moment what the
ledger says may be done again without harm.
"""

import ctypes
import mmap
import struct
from typing import NamedTuple

import msgspec

from radium.core.mapping import MAP_NORESERVE, LayoutCall
from radium.core.regs import FORMAT, Registers

PLAN_ROOM = 1 << 20
_SEAL, _TID, _MASK = 0, 8, 16
_REGISTERS = 24
_CHILD = _REGISTERS + FORMAT.size
_PLAN_A = _CHILD + 8
_COMMIT_A = _PLAN_A + 8
_BEGUN = _COMMIT_A + 8
_PLAN = _BEGUN + 8
_COMMIT = _PLAN + PLAN_ROOM
# Of answers, reserved and not used: pages are taken when an answer needs them.
ANSWER_ROOM = 64 << 30
COMMIT_ROOM = 64 << 20
_NORESERVE_SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_NORESERVE
# More than this is given back after a commit.
_KEPT_ANSWER_NBYTES = 256 << 20


class Armed(msgspec.Struct, array_like=True):
    """A breakpoint: the byte that it hides."""

    address: int
    original: int


class AnnexPlan(msgspec.Struct, array_like=True):
    start: int
    end: int
    park: int
    resume: list[tuple[int, int]]  # (address in the annex, where a thread found there goes on)


class Slot(msgspec.Struct, array_like=True):
    """A word of an object of the interpreter's: what radium has put there, and what was there."""

    address: int
    mine: int
    original: int


class GatesPlan(msgspec.Struct, array_like=True):
    """The gates of split Python functions (python/gates.py). active: the address of the counter of threads that are in there.

    cleared: addresses of functions' versions; visited: threads that are in a visit; is_needed: the interpreter has been asked
    to call a function there, or may do so for another reason, and the mapping must stay.
    """

    start: int
    end: int
    active: int
    slots: list[Slot]
    cleared: list[int]
    visited: list[int]
    is_needed: bool


class Gadget(NamedTuple):
    """Where a thread makes system calls for us, and where it waits for the guardian when radium is killed meanwhile.

    syscall: the instruction; park: a loop, 0: there is none; returns: it gets there by a `ret`, with the address on its stack.
    """

    syscall: int
    park: int = 0
    returns: bool = False


class Plan(msgspec.Struct, array_like=True):
    """What radium has in the tracee."""

    pid: int
    armed: list[Armed] = []
    annexes: list[AnnexPlan] = []
    old_action: bytes = b""  # the tracee's own kernel sigaction of SIGTRAP; empty: ours is not installed
    unblocked: list[tuple[int, int]] = []  # (tid, signal mask): its mask, from which SIGTRAP has been taken
    outside: Gadget = Gadget(0)  # in the tracee's own code
    gates: GatesPlan | None = None
    opening: list[int] | None = None  # while one more userfaultfd is made in it: those that it had


class Moved(msgspec.Struct, array_like=True):
    """A thread that goes on elsewhere after a commit, and where it was before. xstate: empty for no change."""

    tid: int
    registers_before: bytes
    mask_before: int
    registers: bytes
    mask: int
    xstate: bytes


class Bystander(msgspec.Struct, array_like=True):
    """A thread that the commit does not move, and that may not run in the middle of it either."""

    tid: int
    registers: bytes


class CommitRecord(msgspec.Struct, array_like=True):
    """All that a commit does to the tracee; the pages of `dirty` lie in the answer buffer, in order.

    threads: those that go on elsewhere, at least one; the first makes the memory calls of the journal. bystanders: all
    others. All of them are parked meanwhile.
    """

    threads: list[Moved]
    journal: list[LayoutCall]
    dirty: bytes
    bystanders: list[Bystander] = []


class Guarded:
    """Which processes of a job have a guardian: memory shared by all guardians, made before the first."""

    MOST = 1 << 16

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 8 * self.MOST, flags=_NORESERVE_SHARED)
        self._free = list(range(self.MOST - 1, -1, -1))
        self._places: dict[int, int] = {}

    def add(self, pid: int) -> None:
        """Raises IndexError when there are too many."""
        self._places[pid] = self._free.pop()
        struct.pack_into("<Q", self._map, 8 * self._places[pid], pid)

    def remove(self, pid: int) -> None:
        place = self._places.pop(pid, None)
        if place is not None:
            struct.pack_into("<Q", self._map, 8 * place, 0)
            self._free.append(place)

    def __contains__(self, pid: object) -> bool:
        """In a guardian: whether the process had one when radium ended."""
        return pid in memoryview(self._map).cast("Q")


class Ledger:
    """One for each tracee, made before the guardian is forked.

    answer: the buffer for the pages of an answer, ANSWER_ROOM bytes.
    """

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _COMMIT + COMMIT_ROOM, flags=_NORESERVE_SHARED)
        self._answer = mmap.mmap(-1, ANSWER_ROOM, flags=_NORESERVE_SHARED)
        self.answer = memoryview(self._answer)
        self.answer_at = ctypes.addressof(ctypes.c_char.from_buffer(self._answer))

    def close(self) -> None:
        """Nothing is to be put right any more. The guardian has its own mapping of it."""
        self.answer.release()
        self._answer.close()
        self._map.close()

    def note_plan(self, plan: Plan) -> None:
        raw = msgspec.msgpack.encode(plan)
        if len(raw) > PLAN_ROOM // 2:
            raise ValueError(f"a plan of {len(raw)} bytes")
        # Two places in turn, and the switch is one 8-byte store: a reader sees the old plan or the new one.
        offset, length = self._current()
        at = PLAN_ROOM // 2 if offset < PLAN_ROOM // 2 and length else 0
        self._map[_PLAN + at : _PLAN + at + len(raw)] = raw
        struct.pack_into("<Q", self._map, _PLAN_A, at << 32 | len(raw))
        struct.pack_into("<Q", self._map, _SEAL, 1)

    def _current(self) -> tuple[int, int]:
        word = struct.unpack_from("<Q", self._map, _PLAN_A)[0]
        return word >> 32, word & 0xFFFFFFFF

    def plan(self) -> Plan | None:
        """None when there is nothing to put right."""
        if not struct.unpack_from("<Q", self._map, _SEAL)[0]:
            return None
        offset, length = self._current()
        return msgspec.msgpack.decode(self._map[_PLAN + offset : _PLAN + offset + length], type=Plan)

    def close_plan(self) -> None:
        struct.pack_into("<Q", self._map, _SEAL, 0)

    def note_borrowed(self, tid: int, regs: Registers, mask: int) -> None:
        struct.pack_into("<Q", self._map, _MASK, mask)
        self._map[_REGISTERS : _REGISTERS + FORMAT.size] = regs.pack()
        struct.pack_into("<Q", self._map, _TID, tid)

    def note_returned(self) -> None:
        struct.pack_into("<Q", self._map, _TID, 0)

    def borrowed(self) -> tuple[int, Registers, int] | None:
        """(tid, its registers, its signal mask) of the thread that was borrowed when radium ended."""
        tid, mask = struct.unpack_from("<QQ", self._map, _TID)
        if not tid:
            return None
        return tid, Registers.unpack(self._map[_REGISTERS : _REGISTERS + FORMAT.size]), mask

    def note_child(self, pid: int) -> None:
        """A forked child, which has the plan's changes too; 0: it has been let go."""
        struct.pack_into("<Q", self._map, _CHILD, pid)

    def child(self) -> int:
        return int(struct.unpack_from("<Q", self._map, _CHILD)[0])

    def note_commit(self, record: CommitRecord) -> None:
        """Its threads are about to be parked. Raises ValueError if it is too large to note."""
        raw = msgspec.msgpack.encode(record)
        if len(raw) > COMMIT_ROOM:
            raise ValueError(f"a commit record of {len(raw)} bytes")
        struct.pack_into("<Q", self._map, _BEGUN, 0)
        self._map[_COMMIT : _COMMIT + len(raw)] = raw
        struct.pack_into("<Q", self._map, _COMMIT_A, len(raw))

    def note_begun(self) -> None:
        """From here on the commit will be finished, by us or by the guardian."""
        struct.pack_into("<Q", self._map, _BEGUN, 1)

    @property
    def has_begun(self) -> bool:
        return bool(struct.unpack_from("<Q", self._map, _BEGUN)[0])

    def note_committed(self, answer_nbytes: int) -> None:
        struct.pack_into("<Q", self._map, _COMMIT_A, 0)
        if answer_nbytes > _KEPT_ANSWER_NBYTES:
            self._answer.madvise(mmap.MADV_REMOVE)

    def commit(self) -> CommitRecord | None:
        length = struct.unpack_from("<Q", self._map, _COMMIT_A)[0]
        if not length:
            return None
        return msgspec.msgpack.decode(self._map[_COMMIT : _COMMIT + length], type=CommitRecord)
