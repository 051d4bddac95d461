"""The ledger: what it says is always whole, also to another process."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radium.core.mapping import LayoutCall
from radium.core.regs import FORMAT, Registers
from radium.tracer import ledger
from radium.tracer.ledger import AnnexPlan, Armed, Bystander, CommitRecord, Ledger, Moved, Plan

PLAN = Plan(7, [Armed(0x401000, 0x55)], [AnnexPlan(0x1000, 0x3000, 0x1040, [(0x1200, 0x401001)])], b"action")
REGISTERS = Registers(*range(27))
MOVED = Moved(7, REGISTERS.pack(), 0x10, bytes(FORMAT.size), 0x20, b"xstate")
RECORD = CommitRecord(
    [MOVED, Moved(8, bytes(FORMAT.size), 0, REGISTERS.pack(), (1 << 64) - 1, b"")], [LayoutCall("brk", (1, 2, 3, 4, 5, 6), 9)], b"runs",
    [Bystander(9, REGISTERS.pack())],
)  # fmt: skip


def test_a_new_ledger_says_nothing():
    """Before anything was done to a tracee there is nothing to put right."""
    new = Ledger()
    assert (new.plan(), new.borrowed(), new.commit()) == (None, None, None)


def test_plan():
    """The last plan is the one that counts, until it is closed."""
    book = Ledger()
    for plan in (PLAN, Plan(7), Plan(7, [Armed(1, 2)] * 3), PLAN):
        book.note_plan(plan)
        assert book.plan() == plan
    book.close_plan()
    assert book.plan() is None


plans = st.builds(Plan, st.integers(1, 1 << 22), st.lists(st.builds(Armed, st.integers(0, 1 << 47), st.integers(0, 255)), max_size=50))


@settings(deadline=None)
@given(st.lists(plans, min_size=1, max_size=6))
def test_plans_one_after_the_other(sequence):
    """Plans of any sizes can follow one another; none leaves anything of the last one behind."""
    book = Ledger()
    for plan in sequence:
        book.note_plan(plan)
        assert book.plan() == plan


def test_the_old_plan_stands_until_the_new_one_is_whole():
    """Writing a plan does not touch the place of the one that is in force."""
    book = Ledger()
    for _ in range(4):
        book.note_plan(PLAN)
        offset, nbytes = book._current()
        before = bytes(book._map[ledger._PLAN + offset : ledger._PLAN + offset + nbytes])
        book.note_plan(Plan(8, [Armed(0xDEAD, 1)] * 5))
        assert bytes(book._map[ledger._PLAN + offset : ledger._PLAN + offset + nbytes]) == before


def test_a_plan_that_has_no_place():
    """A plan too large to be noted is refused, and the one in force stays."""
    book = Ledger()
    book.note_plan(PLAN)
    with pytest.raises(ValueError, match="a plan of"):
        book.note_plan(Plan(7, [Armed(1 << 40, 1)] * 100_000))
    assert book.plan() == PLAN


def test_borrowed_registers():
    """A borrowed thread's registers and mask are kept until they were given back."""
    book = Ledger()
    book.note_borrowed(42, REGISTERS, (1 << 64) - 1)
    assert book.borrowed() == (42, REGISTERS, (1 << 64) - 1)
    book.note_returned()
    assert book.borrowed() is None


def test_commit_record():
    """A commit is under way between its note and its end, and is kept whole."""
    book = Ledger()
    for record in (RECORD, CommitRecord([MOVED], [], b""), RECORD):
        book.note_commit(record)
        assert book.commit() == record
        book.note_committed(0)
        assert book.commit() is None


u64 = st.integers(0, (1 << 64) - 1)
moves = st.builds(Moved, st.integers(1, 1 << 22), st.binary(max_size=216), u64, st.binary(max_size=216), u64, st.binary(max_size=3000))
calls = st.builds(LayoutCall, st.sampled_from(["brk", "mmap", "stack"]), st.tuples(*[u64] * 6), u64)
records = st.builds(CommitRecord, st.lists(moves, min_size=1, max_size=6), st.lists(calls, max_size=4), st.binary(max_size=200))


@settings(deadline=None)
@given(st.lists(records, min_size=1, max_size=5))
def test_records_of_whole_groups(sequence):
    """All threads of a commit are kept, in their order, with where they were and where they go; none of an earlier one's."""
    book = Ledger()
    for record in sequence:
        book.note_commit(record)
        assert book.commit() == record


def test_a_commit_that_has_begun():
    """Until it is said to have begun, a commit is only about to be: the last one's having begun does not count."""
    book = Ledger()
    assert not book.has_begun
    for _ in range(2):
        book.note_commit(RECORD)
        assert not book.has_begun and book.commit() == RECORD
        book.note_begun()
        assert book.has_begun and book.commit() == RECORD
        book.note_committed(0)
        assert book.commit() is None


def test_a_record_that_is_not_there_has_not_begun():
    """Whoever dies while a record is being noted leaves none, or one that has not begun: its order of writing."""
    book = Ledger()
    book.note_commit(RECORD)
    book.note_begun()
    book.note_committed(0)
    with pytest.raises(ValueError, match="a commit record"):
        book.note_commit(CommitRecord([MOVED], [], bytes(ledger.COMMIT_ROOM)))
    assert book.commit() is None


def test_a_record_that_has_no_place():
    """A commit too large to be noted is not begun."""
    book = Ledger()
    with pytest.raises(ValueError, match="a commit record"):
        book.note_commit(CommitRecord([MOVED], [], bytes(ledger.COMMIT_ROOM)))
    assert book.commit() is None


def test_another_process_sees_it():
    """The guardian, forked before, sees what is written after, and the pages of the answer."""
    book = Ledger()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        same = book.plan() == PLAN and book.commit() == RECORD and book.has_begun and book.borrowed() == (42, REGISTERS, 5)
        os._exit(0 if same and book.answer[5 << 30 : (5 << 30) + 4] == b"page" else 1)
    os.close(reading)
    book.note_plan(PLAN)
    book.note_borrowed(42, REGISTERS, 5)
    book.answer[5 << 30 : (5 << 30) + 4] = b"page"
    book.note_commit(RECORD)
    book.note_begun()
    os.write(writing, b"!")
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0


def test_large_answers_are_given_back():
    """After the commit of a large answer its memory is free again, for both processes."""
    book = Ledger()
    nbytes = ledger._KEPT_ANSWER_NBYTES + 1
    book.answer[0:4], book.answer[nbytes - 1 : nbytes] = b"page", b"x"
    book.note_commit(RECORD)
    book.note_committed(nbytes)
    assert bytes(book.answer[0:4]) == bytes(4) and bytes(book.answer[nbytes - 1 : nbytes]) == b"\0"
