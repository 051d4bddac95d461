"""Who waits in the mirror's futexes and who is woken: against the man page, and against the kernel's own futexes."""

import ctypes
import os
import threading
import time
from dataclasses import dataclass, field
from queue import SimpleQueue

import pytest
from harness import poll_until
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from radium.core import wire
from radium.core.futex import ANY, PRIVATE, WAIT, WAIT_BITSET, WAKE, WAKE_BITSET, Futex
from radium.linux.libc import NUMBERS, syscall
from radium.replay.futexes import Futexes, Waiter, until

HERE, THERE = 0x1000, 0x1004
ALL = 0x7FFFFFFF


def waiting(*waiters: Waiter) -> Futexes:
    futexes = Futexes()
    for waiter in waiters:
        futexes.wait(waiter)
    return futexes


def test_in_the_order_of_their_coming():
    """Those that have waited longest are woken first, as many as were asked for, and then wait no longer."""
    futexes = waiting(*(Waiter(tid, HERE, ANY) for tid in (3, 1, 2, 5)))
    assert futexes.wake(HERE, 2, ANY) == [3, 1]
    assert [tid in futexes for tid in (3, 1, 2, 5)] == [False, False, True, True]
    futexes.wait(Waiter(3, HERE, ANY))
    assert futexes.wake(HERE, ALL, ANY) == [2, 5, 3] and futexes.wake(HERE, ALL, ANY) == []


def test_each_word_has_its_own():
    """A wake is for one word, to the byte."""
    futexes = waiting(Waiter(1, HERE, ANY), Waiter(2, THERE, ANY), Waiter(3, HERE, ANY))
    assert futexes.wake(HERE + 1, ALL, ANY) == [] and futexes.wake(THERE, ALL, ANY) == [2]
    assert futexes.wake(HERE, ALL, ANY) == [1, 3]


def test_bitsets():
    """Woken is who has a bit in common; those passed over count for nothing and keep their places."""
    futexes = waiting(*(Waiter(tid, HERE, bits) for tid, bits in ((1, 1), (2, 2), (3, 6), (4, ANY))))
    assert futexes.wake(HERE, 2, 2) == [2, 3]
    assert futexes.wake(HERE, ALL, 4) == [4] and futexes.wake(HERE, ALL, ANY) == [1]


@pytest.mark.parametrize(("most", "woken"), [(0, 1), (1, 1), (2, 2), (ALL, 3), (1 << 31, 1), (ANY, 1)])
def test_counts(most, woken):
    """As many as were asked for; one, if that is no positive number (futex_wake in kernel/futex/waitwake.c)."""
    assert waiting(*(Waiter(tid, HERE, ANY) for tid in range(3))).wake(HERE, most, ANY) == list(range(woken))


def test_ends_of_waits():
    """Who has waited long enough waits no longer, and nobody has to look before the first such moment."""
    futexes = waiting(Waiter(1, HERE, ANY), Waiter(2, HERE, ANY, 7.0), Waiter(3, HERE, ANY, 5.0), Waiter(4, HERE, ANY, 0.0))
    assert futexes.next_end() == 0.0
    assert futexes.expired(4.9) == [4] and futexes.next_end() == 5.0
    assert futexes.expired(7.0) == [2, 3] and futexes.next_end() is None and futexes.expired(1e9) == []
    assert futexes.wake(HERE, ALL, ANY) == [1]


def test_forgetting():
    """A thread that is forgotten waits no longer, and one that does not wait is forgotten as well."""
    futexes = waiting(Waiter(1, HERE, ANY), Waiter(2, HERE, ANY))
    futexes.forget(1)
    futexes.forget(1)
    assert 1 not in futexes and 2 in futexes
    futexes.clear()
    assert futexes.wake(HERE, ALL, ANY) == []


# Until when


def ends(operation: int, whole: int, nanoseconds: int, *, is_realtime: bool = False) -> float | None:
    words = {0x2000: whole, 0x2008: nanoseconds}
    return until(Futex(operation, HERE, 0, ANY, 0x2000, is_realtime), words.__getitem__, wire.Clocks())


def test_no_end():
    """Without a time a wait has no end, and nothing is read."""
    assert until(Futex(WAIT, HERE, 0, ANY, 0, False), lambda address: 1 // 0, wire.Clocks()) is None


def test_relative_and_absolute_times():
    """WAIT's time counts from now; WAIT_BITSET's is a moment of the monotonic clock, or of the time of day."""
    before = time.monotonic()
    relative = ends(WAIT, 10, 500_000_000)
    assert relative is not None and before + 10.5 <= relative <= time.monotonic() + 10.5
    assert ends(WAIT_BITSET, 1234, 500_000_000) == 1234.5
    now = time.time()
    of_day = ends(WAIT_BITSET, int(now) + 10, 0, is_realtime=True)
    assert of_day is not None and 8 < of_day - time.monotonic() < 11


@pytest.mark.parametrize("operation", [WAIT, WAIT_BITSET])
@pytest.mark.parametrize(("whole", "nanoseconds"), [(1 << 63, 0), ((1 << 64) - 1, 0), (0, 10**9), (0, (1 << 64) - 1)])
def test_times_that_are_none(operation, whole, nanoseconds):
    """A time before zero, or with more than a second of nanoseconds, is refused; the kernel does so too."""
    with pytest.raises(ValueError, match="a time of"):
        ends(operation, whole, nanoseconds)
    word, spec = ctypes.c_uint32(5), (ctypes.c_uint64 * 2)(whole, nanoseconds)
    with pytest.raises(OSError, match="Invalid argument"):
        syscall("futex", ctypes.addressof(word), operation | PRIVATE, 5, ctypes.addressof(spec), 0, ANY)


# Against a model: a list in the order of waiting


class AgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.futexes = Futexes()
        self.model: list[Waiter] = []
        self.next_tid = 1

    def take(self, found: list[Waiter]) -> list[int]:
        self.model = [waiter for waiter in self.model if waiter not in found]
        return [waiter.tid for waiter in found]

    @rule(address=st.sampled_from([HERE, THERE]), bitset=st.integers(1, 7), until=st.none() | st.floats(0, 10))
    def wait(self, address: int, bitset: int, until: float | None) -> None:
        waiter = Waiter(self.next_tid, address, bitset, until)
        self.next_tid += 1
        self.futexes.wait(waiter)
        self.model.append(waiter)

    @rule(address=st.sampled_from([HERE, THERE]), most=st.sampled_from([0, 1, 2, 3, ALL, 1 << 31, ANY]), bitset=st.integers(1, 7))
    def wake(self, address: int, most: int, bitset: int) -> None:
        count = most if 0 < most <= ALL else 1
        found = [waiter for waiter in self.model if waiter.address == address and waiter.bitset & bitset][:count]
        assert self.futexes.wake(address, most, bitset) == self.take(found)

    @rule(now=st.floats(0, 10))
    def expire(self, now: float) -> None:
        assert self.futexes.expired(now) == self.take([w for w in self.model if w.until is not None and w.until <= now])

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        tid = data.draw(st.integers(0, self.next_tid))
        self.futexes.forget(tid)
        self.take([waiter for waiter in self.model if waiter.tid == tid])

    @invariant()
    def agrees(self) -> None:
        assert [tid for tid in range(self.next_tid + 1) if tid in self.futexes] == sorted(w.tid for w in self.model)
        assert self.futexes.next_end() == min((w.until for w in self.model if w.until is not None), default=None)


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(deadline=None, stateful_step_count=30)


# Against the kernel: threads of this process that wait in its futexes


@dataclass
class Kernel:
    """Two words; who waits there waits until it is woken, and says so then."""

    words: ctypes.Array[ctypes.c_uint32] = field(default_factory=ctypes.c_uint32 * 2)
    woken: SimpleQueue[int] = field(default_factory=SimpleQueue)
    waiters: dict[int, threading.Thread] = field(default_factory=dict)

    def address(self, index: int) -> int:
        return ctypes.addressof(self.words) + 4 * index

    def wait(self, number: int, index: int, bitset: int) -> None:
        """A thread waits, and has begun to when this returns."""
        tids: SimpleQueue[int] = SimpleQueue()

        def body() -> None:
            tids.put(threading.get_native_id())
            syscall("futex", self.address(index), WAIT_BITSET | PRIVATE, 0, 0, 0, bitset)
            self.woken.put(number)

        self.waiters[number] = threading.Thread(target=body)
        self.waiters[number].start()
        tid = tids.get(timeout=10)
        wanted = f"{NUMBERS['futex']} {self.address(index):#x} "
        poll_until(lambda: is_in(tid, wanted), f"thread {number} waits")

    def wake(self, index: int, most: int, bitset: int) -> set[int]:
        count = syscall("futex", self.address(index), WAKE_BITSET | PRIVATE, most, 0, 0, bitset)
        woken = {self.woken.get(timeout=10) for _ in range(count)}
        for number in woken:
            self.waiters.pop(number).join()
        return woken

    def end(self) -> None:
        for index in range(2):
            syscall("futex", self.address(index), WAKE | PRIVATE, ALL)
        for thread in self.waiters.values():
            thread.join()


def is_in(tid: int, call: str) -> bool:
    """Whether the thread sleeps in that system call (proc_pid_syscall(5))."""
    with open(f"/proc/{os.getpid()}/task/{tid}/syscall") as file:
        return file.read().startswith(call)


waits = st.tuples(st.just("wait"), st.integers(0, 1), st.just(0), st.integers(1, 7))
wakes = st.tuples(st.just("wake"), st.integers(0, 1), st.sampled_from([0, 1, 2, ALL, ANY]), st.integers(1, 7))


@settings(deadline=None, max_examples=25)
@given(st.lists(waits | wakes, min_size=4, max_size=16))
def test_as_the_kernel_does(steps):
    """Whoever waits and wakes in whatever order: ours wakes those that the kernel wakes."""
    kernel, futexes = Kernel(), Futexes()
    try:
        for number, (kind, index, most, bitset) in enumerate(steps):
            if kind == "wait":
                kernel.wait(number, index, bitset)
                futexes.wait(Waiter(number, kernel.address(index), bitset))
            else:
                assert set(futexes.wake(kernel.address(index), most, bitset)) == kernel.wake(index, most, bitset)
    finally:
        kernel.end()


def test_moments_of_homes_clock():
    """Where home was booted at another time, a moment of its monotonic clock is another one of ours."""
    ahead = wire.Clocks(monotonic=1_000_000_000_000, boottime=5)
    words = {0x2000: 1002, 0x2008: 500_000_000}
    moments = {
        operation: until(Futex(operation, HERE, 0, ANY, 0x2000, False), words.__getitem__, ahead) for operation in (WAIT, WAIT_BITSET)
    }
    assert moments[WAIT_BITSET] == 2.5 and moments[WAIT] == pytest.approx(time.monotonic() + 1002.5, abs=1)
