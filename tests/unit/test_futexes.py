"""Futexes: which calls a mirror answers itself, and whom they wake."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core import futex, wire
from radium.core.regs import Registers
from radium.replay.futexes import Futexes, Waiter, until

WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, LOCK_PI, UNLOCK_PI, TRYLOCK_PI, WAIT_BITSET, WAKE_BITSET = (
    0, 1, 3, 4, 5, 6, 7, 8, 9, 10,
)  # fmt: skip
PRIVATE, REALTIME, ADDRESS = 128, 256, 0x601000


def call(operation: int, **values: int) -> Registers:
    regs = Registers(*[0] * 27)
    regs.rdi, regs.rsi, regs.rdx, regs.r9 = ADDRESS, operation, 1, futex.ANY
    for name, value in values.items():
        setattr(regs, name, value)
    return regs


@pytest.mark.parametrize("flags", [0, PRIVATE, REALTIME, PRIVATE | REALTIME])
def test_plain_calls(flags):
    """Waits and wakes, with a bitset or without, private or not."""
    for operation in (WAIT, WAKE, WAIT_BITSET, WAKE_BITSET):
        parsed = futex.parse(call(operation | flags, r10=0x7000, r9=6))
        assert parsed is not None and (parsed.address, parsed.value) == (ADDRESS, 1)
        assert parsed.is_wait == (operation in (WAIT, WAIT_BITSET)) and parsed.is_realtime == bool(flags & REALTIME)
        assert parsed.bitset == (6 if operation in (WAIT_BITSET, WAKE_BITSET) else futex.ANY)
        assert parsed.timeout_at == (0x7000 if parsed.is_wait else 0)


@pytest.mark.parametrize(
    "regs",
    [
        *[call(operation | PRIVATE) for operation in (REQUEUE, CMP_REQUEUE, WAKE_OP, LOCK_PI, UNLOCK_PI, TRYLOCK_PI, 11, 12, 13, 99)],
        call(WAIT | 512), call(WAIT, rdi=ADDRESS + 1), call(WAIT_BITSET, r9=0), call(WAKE_BITSET, r9=1 << 32),
    ],
)  # fmt: skip
def test_calls_for_the_kernel(regs):
    """All others, and what the kernel would refuse, are made at home."""
    assert futex.parse(regs) is None


def test_the_upper_halves_do_not_count():
    """Operation, value and bitset are 32 bits wide (futex(2))."""
    parsed = futex.parse(call(WAKE | PRIVATE | 7 << 32, rdx=3 | 1 << 40))
    assert parsed is not None and (parsed.operation, parsed.value) == (WAKE, 3)


def test_the_longest_waiting_come_first():
    """A wake takes those that have waited longest, as many as it wants, of its address and its bits only."""
    futexes = Futexes()
    for tid, address, bitset in ((1, 8, 1), (2, 8, 2), (3, 12, 3), (4, 8, 3), (5, 8, 1)):
        futexes.wait(Waiter(tid, address, bitset))
    assert futexes.wake(8, 2, 1) == [1, 4]
    assert futexes.wake(8, 0xFFFFFFFF, futex.ANY) == [2]
    assert futexes.wake(8, 0, futex.ANY) == [5] and 3 in futexes
    assert futexes.wake(8, 9, futex.ANY) == []


waiters = st.lists(st.tuples(st.integers(1, 9), st.sampled_from([8, 12]), st.integers(1, 7)), max_size=12)


@given(waiters, st.sampled_from([8, 12]), st.integers(0, 1 << 31), st.integers(1, 7))
def test_a_wake_takes_only_whom_it_may(waits, address, most, bits):
    """Whoever is woken waited there for one of these bits; who is not woken waits on."""
    futexes, wanted = Futexes(), {}
    for tid, at, bitset in waits:
        futexes.wait(Waiter(tid, at, bitset))
        wanted[tid] = at, bitset
    fitting = {tid for tid, (at, bitset) in wanted.items() if at == address and bitset & bits}
    woken = futexes.wake(address, most, bits)
    assert set(woken) <= fitting and len(woken) == min(len(fitting), 1 if most in (0, 1 << 31) else most)
    assert {tid for tid in wanted if tid in futexes} == wanted.keys() - set(woken)


def test_waits_that_end():
    """A waiter whose time is over waits no longer, and nobody wakes it."""
    futexes = Futexes()
    futexes.wait(Waiter(1, 8, 1, until=10.0))
    futexes.wait(Waiter(2, 8, 1, until=5.0))
    futexes.wait(Waiter(3, 8, 1))
    assert futexes.next_end() == 5.0 and futexes.expired(4.9) == []
    assert futexes.expired(7.0) == [2] and futexes.next_end() == 10.0
    futexes.forget(1)
    assert futexes.next_end() is None and futexes.wake(8, 9, 1) == [3]


def test_when_a_wait_ends():
    """WAIT takes a duration, WAIT_BITSET a moment of the monotonic clock or of the real one (futex(2))."""
    words = {0x7000: 2, 0x7008: 500_000_000}
    ahead = wire.Clocks(monotonic=1_000_000_000_000)
    now, offset = time.monotonic(), time.time() - time.monotonic()
    waits = {
        WAIT: now + 2.5, WAIT_BITSET: 2.5, WAIT_BITSET | REALTIME: 2.5 - offset,
    }  # fmt: skip
    for operation, moment in waits.items():
        parsed = futex.parse(call(operation, r10=0x7000))
        assert parsed is not None and until(parsed, words.__getitem__, wire.Clocks()) == pytest.approx(moment, abs=1.0)
    endless = futex.parse(call(WAIT))
    assert endless is not None and until(endless, words.__getitem__, ahead) is None
    later = futex.parse(call(WAIT_BITSET, r10=0x7000))
    assert later is not None and until(later, words.__getitem__, ahead) == pytest.approx(2.5 - 1000)
