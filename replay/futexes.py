"""Futexes in a mirror: who waits, and who is woken (futex(2)).

A thread that waits stays where it stopped, before its system call, and the kernel is asked nothing. So it is known at
every moment who sleeps, a thread that waits at home is brought here only when it is woken, and one that is still waiting
goes home by making its system call there. All operations go through the one thread that traces the mirror: none of them
comes between another one's look at the word and what it does then.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from radium.core.futex import WAIT, Futex
from radium.core.wire import Clocks

NANOSECONDS = 10**9


class Waiter(NamedTuple):
    """tid: the tracee's thread; until: when it gives up, by time.monotonic, or None."""

    tid: int
    address: int
    bitset: int
    until: float | None = None


def until(call: Futex, read_word: Callable[[int], int], clocks: Clocks) -> float | None:
    """When the waiter gives up: WAIT's time is relative, WAIT_BITSET's a moment of one of two clocks, of home's.

    clocks: what home's are ahead of ours. Raises ValueError for a time that the kernel refuses (timespec64_valid in
    <linux/time64.h>).
    """
    if not call.timeout_at:
        return None
    whole, nanoseconds = read_word(call.timeout_at), read_word(call.timeout_at + 8)
    if whole >> 63 or nanoseconds >= NANOSECONDS:
        raise ValueError(f"a time of {whole:#x} s and {nanoseconds:#x} ns")
    seconds = whole + nanoseconds / NANOSECONDS
    if call.operation == WAIT:
        return time.monotonic() + seconds
    return seconds + (time.monotonic() - time.time() if call.is_realtime else -clocks.monotonic / 1e9)


class Futexes:
    """Waiters, those that have waited longest first."""

    def __init__(self) -> None:
        self._waiters: dict[int, Waiter] = {}

    def __contains__(self, tid: int) -> bool:
        return tid in self._waiters

    def wait(self, waiter: Waiter) -> None:
        self._waiters[waiter.tid] = waiter

    def wake(self, address: int, most: int, bitset: int) -> list[int]:
        """The threads that wait no longer."""
        # A count that is not positive wakes one (futex_wake in kernel/futex/waitwake.c).
        most = max(most - (1 << 32) if most >> 31 else most, 1)
        woken = [w.tid for w in self._waiters.values() if w.address == address and w.bitset & bitset][:most]
        for tid in woken:
            del self._waiters[tid]
        return woken

    def expired(self, now: float) -> list[int]:
        """The threads whose time is over; they wait no longer."""
        over = [w.tid for w in self._waiters.values() if w.until is not None and w.until <= now]
        for tid in over:
            del self._waiters[tid]
        return over

    def next_end(self) -> float | None:
        return min((w.until for w in self._waiters.values() if w.until is not None), default=None)

    def forget(self, tid: int) -> None:
        self._waiters.pop(tid, None)

    def clear(self) -> None:
        self._waiters.clear()
