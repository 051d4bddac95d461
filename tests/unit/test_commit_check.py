"""The check before a commit: an answer that does not fit the tracee is refused as a whole."""

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core import pages, wire
from radium.core.addr import PAGE_SIZE, USER_END
from radium.core.mapping import (
    ANONYMOUS,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_PRIVATE,
    RESERVED,
    SHARED,
    STACK,
    Area,
    LayoutCall,
)
from radium.core.regs import NAMES, NO_SYSCALL, U64, Registers
from radium.errors import Conflict, FrameError
from radium.tracer import commit

RETURN, RSP, BRK = 0x401234, 0x7FFF00010000, 0x605000
LAYOUT = [
    Area(0x400000, 0x402000, 5, 0, "main"),
    Area(0x600000, 0x605000, 3, ANONYMOUS),
    Area(0x700000, 0x701000, 0, RESERVED),
    Area(0x710000, 0x712000, 3, SHARED, "f"),
    Area(0x7FFF00000000, 0x7FFF00020000, 3, ANONYMOUS | STACK),
]
MXCSR_MASK, COMPONENTS = 0xFFFF, 0x7
RUNS = [(0x600000, 0x602000), (0x7FFF0000F000, 0x7FFF00011000)]


def xstate(*, mxcsr: int = 0x1F80, present: int = 3, compacted: int = 0, reserved: int = 0, nbytes: int = 832) -> bytes:
    """A standard-format XSAVE area (Intel SDM 13.4.1) as ptrace gives it."""
    raw = bytearray(max(nbytes, 576))
    struct.pack_into("<II", raw, 24, mxcsr, MXCSR_MASK)
    struct.pack_into("<Q", raw, 464, COMPONENTS)
    struct.pack_into("<QQQ", raw, 512, present, compacted, reserved)
    return bytes(raw[:nbytes])


def registers(**values: int) -> Registers:
    regs = Registers(*range(100, 127))
    regs.cs, regs.ss, regs.eflags = 0x33, 0x2B, 0x246
    regs.rip, regs.rsp, regs.fs_base = 0x400100, RSP, 0x7F0000000740
    for name, value in values.items():
        setattr(regs, name, value)
    return regs


# The thread whose call it is, and one that came along.
TID, OTHER = 100, 200
ENTRY = registers(orig_rax=NO_SYSCALL)
FRAME = wire.Frame(RETURN, RSP)
LEFT = commit.Left(ENTRY, xstate())
STANDING = wire.Standing(TID, TID, 0, registers(rip=RETURN, rsp=RSP + 8, rax=42).pack(), xstate())
GOOD = wire.Answer(1, wire.RETURNED, TID, [STANDING], [], BRK, pages.pack(RUNS), b"", b"", 0.5)


def check(**changes: object) -> pages.Runs:
    """Of a good answer with these changes: to its thread, by the names of `wire.Standing`, and to the rest."""
    thread = {name: changes.pop(name) for name in ("registers", "xstate") if name in changes}
    standing = msgspec.structs.replace(STANDING, **thread)
    answer = msgspec.structs.replace(GOOD, **{"threads": [standing], **changes})
    returns = {TID: FRAME} if answer.reason == wire.RETURNED else {}
    return commit.check(answer, {TID: LEFT}, returns, LAYOUT, BRK)


def returned(**values: int) -> bytes:
    return registers(**{"rip": RETURN, "rsp": RSP + 8, **values}).pack()


def test_a_good_answer():
    """An answer that fits gives its page runs."""
    assert check() == RUNS


def test_the_function_may_change_its_registers():
    """Result, scratch and argument registers, flags and extended state are the function's to change."""
    free = [name for name in NAMES if name not in ("rip", "rsp", "eflags", *commit._SAME)]
    assert check(registers=returned(**dict.fromkeys(free, U64), eflags=0x202 | 0x8D5)) == RUNS
    assert check(xstate=xstate(mxcsr=0x1FBF, present=COMPONENTS)) == RUNS


@pytest.mark.parametrize("raw", [b"", bytes(215), bytes(217), bytes(8 * 28)])
def test_registers_of_another_length(raw):
    """Registers are 27 words, and an answer with others is refused as it arrives."""
    answer = msgspec.structs.replace(GOOD, threads=[msgspec.structs.replace(STANDING, registers=raw)])
    with pytest.raises(FrameError, match="without registers"):
        wire.decode(wire.encode(answer)[wire.HEADER.size :])


@pytest.mark.parametrize(
    "values",
    [{"rip": RETURN + 1}, {"rip": 0}, {"rip": 0xFFFFFFFF81000000}, {"rsp": RSP}, {"rsp": RSP + 16}, {"rsp": 0}, {"rsp": U64 - 7}],
)
def test_an_answer_from_elsewhere(values):
    """The thread stands at the return address, one word above the entry's stack pointer."""
    with pytest.raises(Conflict, match="did not return"):
        check(registers=returned(**values))


@pytest.mark.parametrize("reason", ["syscall:write", "fault:SIGSEGV", "exception", "stack"])
def test_an_answer_in_the_middle(reason):
    """It may go on wherever the tracee has code of its own, and nowhere else."""
    assert check(reason=reason, registers=returned(rip=0x400100, rsp=RSP - 64)) == RUNS
    for rip in (0, 0x402000, 0x600000, 0x700000, USER_END, U64):
        with pytest.raises(Conflict, match="no code"):
            check(reason=reason, registers=returned(rip=rip, rsp=RSP - 64))
    with pytest.raises(Conflict, match="no code"):
        check(reason=reason, registers=returned(rip=0x400100, rsp=U64 - 7))


@pytest.mark.parametrize("name", ["cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base"])
def test_other_segments(name):
    """No call changes segments or the thread's pointer."""
    with pytest.raises(Conflict, match="segments"):
        check(registers=returned(**{name: 0x10}))


def test_single_stepping():
    """The trap flag would kill a tracee that nobody steps."""
    with pytest.raises(Conflict, match="single-steps"):
        check(registers=returned(eflags=0x346))


@pytest.mark.parametrize(
    "state",
    [
        b"", xstate(nbytes=831), xstate(nbytes=833), xstate(nbytes=1 << 20), xstate(mxcsr=0x10000), xstate(mxcsr=0xFFFFFFFF),
        xstate(present=1 << 9), xstate(present=1 << 63), xstate(compacted=1 << 63), xstate(reserved=1),
    ],
)  # fmt: skip
def test_extended_state_that_the_kernel_would_refuse(state):
    """Refused before the first page is written, not by the kernel afterwards."""
    with pytest.raises(Conflict, match="extended state"):
        check(xstate=state)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_impossible_times(seconds):
    """A time that no clock shows would spoil the report."""
    with pytest.raises(Conflict, match="took"):
        check(seconds=seconds)


@pytest.mark.parametrize(
    "run",
    [
        (0x402000, 0x403000), (0x401000, 0x403000), (0x5FF000, 0x601000), (0x604000, 0x606000), (0x700000, 0x701000),
        (0x6FF000, 0x701000), (0, 0x1000), (0x7FFF00020000, 0x7FFF00021000), (USER_END - PAGE_SIZE, USER_END),
    ],
)  # fmt: skip
def test_pages_that_the_tracee_does_not_have(run):
    """A page outside of the layout, or in radium's own memory, is never written."""
    with pytest.raises(Conflict, match="does not have"):
        check(dirty=pages.pack([run]))


@pytest.mark.parametrize("raw", [b"x", pages.pack([(1, 4096)]), pages.pack(RUNS[::-1]), pages.pack([(USER_END, USER_END + 4096)])])
def test_runs_that_are_no_runs(raw):
    """Unaligned, unsorted and kernel runs are no page runs."""
    with pytest.raises(FrameError):
        check(dirty=raw)


def test_a_payload_of_another_size():
    """Payload and runs agree to the byte, or nothing is taken."""
    with pytest.raises(FrameError, match="payload"):
        wire.runs(GOOD.dirty, pages.total(RUNS) - 1)
    with pytest.raises(Conflict, match="answer of"):
        commit.check_size(commit.ANSWER_ROOM + 1)


def journal(*calls: tuple[str, tuple[int, ...], int]) -> list[LayoutCall]:
    return [LayoutCall(name, (*arguments, 0, 0, 0, 0, 0, 0)[:6], result) for name, arguments, result in calls]  # type: ignore[arg-type]


def mmap(start: int, nbytes: int, flags: int = MAP_PRIVATE | MAP_ANONYMOUS) -> tuple[str, tuple[int, ...], int]:
    return "mmap", (0, nbytes, 3, flags, U64, 0), start


def test_pages_of_memory_that_the_call_mapped():
    """What the call mapped it may have written; what it unmapped it may not."""
    mapped = journal(mmap(0x800000, 0x2000))
    assert check(journal=mapped, dirty=pages.pack([(0x800000, 0x802000)])) == [(0x800000, 0x802000)]
    with pytest.raises(Conflict):
        check(journal=mapped, dirty=pages.pack([(0x800000, 0x803000)]))
    with pytest.raises(Conflict):
        check(journal=journal(("munmap", (0x600000, 0x1000), 0)))


@pytest.mark.parametrize(
    "calls",
    [
        [mmap(0x600000, 0x1000)], [mmap(0x6FF000, 0x2000, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED)], [mmap(USER_END, 0x1000)],
        [mmap(0x800000, U64)], [("munmap", (0, U64), 0)], [("munmap", (0x700000, 0x1000), 0)],
        [("mprotect", (0x600000, 0x10000, 1), 0)], [("madvise", (0x710000, 0x1000, 9), 0)], [("open", (0, 0), 3)],
        [mmap(0x800000, 0x1000), mmap(0x800000, 0x1000)], [("brk", (0x100000,), 0x100000)],
    ],
)  # fmt: skip
def test_journals_that_do_not_fit(calls):
    """One memory call that the tracee could not make refuses the whole answer."""
    with pytest.raises(Conflict):
        check(journal=journal(*calls), dirty=b"")


def test_a_stack_that_grew():
    """A stack grows down by as much as a mirror has room for, and its new pages are the tracee's then."""
    start = LAYOUT[-1].start
    grown = journal(("stack", (start,), start - 0x3000))
    new = pages.pack([(start - 0x3000, start)])
    assert check(journal=grown, dirty=new) == [(start - 0x3000, start)]
    for calls in (
        journal(("stack", (start,), start - (2 << 20))), journal(("stack", (start,), start)),
        journal(("stack", (start - 4096,), start - 0x3000)), journal(("stack", (start,), start - 0x1001)),
    ):  # fmt: skip
        with pytest.raises(Conflict, match="stack"):
            check(journal=calls, dirty=b"")
    with pytest.raises(Conflict):
        check(journal=[], dirty=new)


def test_brk_is_that_of_the_journal():
    """An answer cannot claim a brk that its memory calls do not lead to."""
    grown = journal(("brk", (BRK + 0x1000,), BRK + 0x1000))
    assert check(journal=grown, brk=BRK + 0x1000) == RUNS
    for calls, brk in ((grown, BRK), (grown, BRK + 0x2000), (journal(mmap(0x800000, 0x1000)), BRK + 1)):
        with pytest.raises(Conflict, match="brk"):
            check(journal=calls, brk=brk)


# Several threads


def went_on(tid: int = OTHER, *, state: bytes | None = None, **values: int) -> wire.Standing:
    """A thread that came along and has gone on to another place in the tracee's code."""
    regs = registers(**{"rip": 0x400200, "rsp": RSP - 0x4000, "fs_base": 0x7F0000001740, **values})
    return wire.Standing(tid, tid, 0, regs.pack(), xstate() if state is None else state)


BESIDE = {TID: LEFT, OTHER: commit.Left(registers(rip=0x400180, rsp=RSP - 0x4000, fs_base=0x7F0000001740), xstate())}


def check_group(threads: list[wire.Standing], *, reason: str = wire.RETURNED, tid: int = TID, returns: int = TID) -> pages.Runs:
    answer = msgspec.structs.replace(GOOD, threads=threads, reason=reason, tid=tid)
    return commit.check(answer, BESIDE, {returns: FRAME} if reason == wire.RETURNED else {}, LAYOUT, BRK)


def test_a_group_comes_home():
    """One thread has returned and the others are wherever they are, in whatever order they are told; some may not come."""
    assert check_group([STANDING, went_on()]) == RUNS
    assert check_group([went_on(), STANDING]) == RUNS
    assert check_group([STANDING]) == RUNS
    assert check_group([msgspec.structs.replace(STANDING, registers=returned(rip=0x400100)), went_on()], reason="recall") == RUNS


def test_an_answer_about_another_thread():
    """A call may come home for what a thread that came along is about to do."""
    middle = msgspec.structs.replace(STANDING, registers=returned(rip=0x400100))
    assert check_group([middle, went_on()], reason="syscall:write", tid=OTHER) == RUNS


@pytest.mark.parametrize("tid", [0, -1, TID + 1, 1 << 62])
def test_a_thread_that_did_not_leave(tid):
    """No answer moves a thread that is not away: it goes on at home, or stands in the middle of something else."""
    with pytest.raises(Conflict, match="did not leave home"):
        check_group([STANDING, went_on(tid)])
    with pytest.raises(Conflict, match="did not leave home"):
        check(threads=[STANDING, went_on()])


@pytest.mark.parametrize("threads", [[], [went_on()]])
def test_without_the_thread_that_it_is_about(threads):
    """An answer has at least the thread that it is about."""
    with pytest.raises(Conflict, match="without the thread"):
        check_group(threads)


def test_only_the_caller_returns():
    """Where the call returns to is no place for the others to be checked by, nor are theirs for it."""
    back = went_on(rip=RETURN, rsp=RSP + 8)
    assert check_group([STANDING, back]) == RUNS, "it may be there in a call of its own"
    with pytest.raises(Conflict, match="did not return"):
        check_group([msgspec.structs.replace(STANDING, registers=returned(rip=0x400100)), back])


@pytest.mark.parametrize(
    ("thread", "says"),
    [
        *((went_on(**{name: 0x10}), "segments") for name in ("cs", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base")),
        (went_on(fs_base=LEFT.regs.fs_base), "segments"), (went_on(eflags=0x346), "single-steps"),
        (went_on(rip=0x402000), "no code"), (went_on(rip=0x600000), "no code"), (went_on(rip=0x700000), "no code"),
        (went_on(rip=USER_END), "no code"), (went_on(rsp=USER_END), "no code"), (went_on(rsp=U64 - 7), "no code"),
        (went_on(state=b""), "extended state"), (went_on(state=xstate(nbytes=831)), "extended state"),
        (went_on(state=xstate(mxcsr=0x10000)), "extended state"), (went_on(state=xstate(present=1 << 9)), "extended state"),
        (went_on(state=xstate(compacted=1 << 63)), "extended state"), (went_on(state=xstate(reserved=1)), "extended state"),
    ],
)  # fmt: skip
def test_each_thread_is_checked(thread, says):
    """A thread that came along is held to all that the caller is held to, with its own segments and state."""
    for threads in ([STANDING, thread], [thread, STANDING]):
        with pytest.raises(Conflict, match=says):
            check_group(threads)


def test_a_thread_named_twice():
    """Where a thread goes on is said once."""
    answer = msgspec.structs.replace(GOOD, threads=[STANDING, went_on(), went_on(rip=0x400300)])
    with pytest.raises(FrameError, match="twice"):
        wire.decode(wire.encode(answer)[wire.HEADER.size :])


def test_a_thread_that_was_not_woken():
    """Nobody has asked for the state of a thread that waits at home, so none can come back."""
    waits = {**BESIDE, OTHER: BESIDE[OTHER]._replace(xstate=b"")}
    answer = msgspec.structs.replace(GOOD, threads=[STANDING, went_on()])
    with pytest.raises(Conflict, match="extended state"):
        commit.check(answer, waits, {TID: FRAME}, LAYOUT, BRK)


words = st.sampled_from([0, 0x346, 0x400100, 0x402000, RETURN, RSP, RSP + 8, USER_END - 1, USER_END, U64]) | st.integers(0, U64)
few = st.dictionaries(st.sampled_from(NAMES), words, max_size=3)


@given(st.lists(st.tuples(st.sampled_from([TID, OTHER, 300]), few), max_size=3, unique_by=lambda t: t[0]), st.sampled_from([TID, OTHER, 300]), st.booleans())
def test_whatever_passes_can_go_on(threads, tid, has_returned):
    """Threads of an answer that passes left home, keep their segments, and go on in code of the tracee's or at the return."""
    bases = {TID: {"rip": RETURN, "rsp": RSP + 8, "fs_base": 0x7F0000000740}}
    standings = [went_on(number, **{**bases.get(number, {}), **values}) for number, values in threads]
    try:
        check_group(standings, tid=tid, reason=wire.RETURNED if has_returned else "recall")
    except Conflict:
        return
    assert tid in {standing.tid for standing in standings} <= set(BESIDE)
    for standing in standings:
        regs, before = Registers.unpack(standing.registers), BESIDE[standing.tid].regs
        assert all(getattr(regs, name) == getattr(before, name) for name in commit._SAME) and not regs.eflags & 0x100
        if has_returned and standing.tid == TID:
            assert (regs.rip, regs.rsp) == (RETURN, RSP + 8)
        else:
            assert LAYOUT[0].start <= regs.rip < LAYOUT[0].end and regs.rsp < USER_END


edges = st.sampled_from([edge for area in LAYOUT for edge in area[:2]])
any_runs = st.lists(st.tuples(edges, st.integers(-2, 2), st.integers(1, 40)), max_size=4).map(
    lambda picks: pages.normalise((at + shift * PAGE_SIZE, at + (shift + n) * PAGE_SIZE) for at, shift, n in picks)
)


@given(any_runs)
def test_whatever_passes_lies_in_the_tracee(runs):
    """Every page of an answer that passes belongs to the program, and none to radium."""
    try:
        passed = check(dirty=pages.pack(runs))
    except (Conflict, FrameError):
        return
    own = [(a.start, a.end) for a in LAYOUT if not a.kind & RESERVED]
    assert passed == runs and not pages.subtract(runs, pages.normalise(own))
