"""What a thread asks of futex(2): what is taken for a plain wait or wake is one to the kernel, too."""

import ctypes
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core import futex
from radium.core.futex import ANY, CLOCK_REALTIME, PRIVATE, WAIT, WAIT_BITSET, WAKE, WAKE_BITSET
from radium.core.regs import U64, Registers
from radium.linux.libc import syscall

WORD, TIME = 0x7F0000001004, 0x7F0000002000
# <linux/futex.h>: FD, REQUEUE, CMP_REQUEUE, WAKE_OP, LOCK_PI, UNLOCK_PI, TRYLOCK_PI, WAIT_REQUEUE_PI, CMP_REQUEUE_PI, LOCK_PI2
OTHERS = [2, 3, 4, 5, 6, 7, 8, 11, 12, 13]


def registers(operation: int, *, address: int = WORD, value: int = 1, timeout_at: int = 0, second: int = 0, bitset: int = 0) -> Registers:
    regs = Registers(*[0] * 27)
    regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9 = address, operation, value, timeout_at, second, bitset
    return regs


@pytest.mark.parametrize("private", [0, PRIVATE])
def test_plain_operations(private):
    """Waits and wakes, of this process or any, with what each of their arguments means."""
    assert futex.parse(registers(WAIT | private, value=7, timeout_at=TIME, bitset=5)) == (WAIT, WORD, 7, ANY, TIME, False)
    assert futex.parse(registers(WAKE | private, value=7, timeout_at=TIME, bitset=5)) == (WAKE, WORD, 7, ANY, 0, False)
    assert futex.parse(registers(WAIT_BITSET | private, timeout_at=TIME, bitset=5)) == (WAIT_BITSET, WORD, 1, 5, TIME, False)
    assert futex.parse(registers(WAKE_BITSET | private, timeout_at=TIME, bitset=5)) == (WAKE_BITSET, WORD, 1, 5, 0, False)


def test_a_wait_until_a_time_of_day():
    """Only an absolute time can be of another clock (do_futex in kernel/futex/syscalls.c)."""
    call = futex.parse(registers(WAIT_BITSET | PRIVATE | CLOCK_REALTIME, timeout_at=TIME, bitset=ANY))
    assert call is not None and call.is_realtime and call.timeout_at == TIME
    for operation in (WAIT, WAKE, WAKE_BITSET):
        assert futex.parse(registers(operation | CLOCK_REALTIME, bitset=ANY)) is None


def test_waits_and_wakes():
    """Who sleeps by it and who does not."""
    kinds = {operation: futex.parse(registers(operation, bitset=1)) for operation in (WAIT, WAKE, WAIT_BITSET, WAKE_BITSET)}
    assert [call.is_wait for call in kinds.values()] == [True, False, True, False]


@pytest.mark.parametrize("operation", OTHERS)
@pytest.mark.parametrize("flags", [0, PRIVATE, CLOCK_REALTIME, PRIVATE | CLOCK_REALTIME])
def test_other_operations(operation, flags):
    """Requeues, wakes with an operation, and all with priority inheritance are the kernel's."""
    assert futex.parse(registers(operation | flags, bitset=ANY)) is None


def test_arguments_that_the_kernel_refuses():
    """A futex lies on a multiple of four, and nobody waits for no bit."""
    for operation in (WAIT, WAKE, WAIT_BITSET, WAKE_BITSET):
        for address in (WORD + 1, WORD + 2, WORD + 3):
            assert futex.parse(registers(operation, address=address, bitset=1)) is None
    for operation in (WAIT_BITSET, WAKE_BITSET):
        assert futex.parse(registers(operation, bitset=0)) is None
        assert futex.parse(registers(operation, bitset=1 << 32)) is None, "a bitset has 32 bits"


def test_only_32_bits_count():
    """Operation, value and bitset are ints, whatever the registers hold above (futex(2): uint32_t)."""
    high = 0xABCD << 32
    plain = registers(WAIT_BITSET | PRIVATE, value=5, bitset=3)
    dirty = registers(WAIT_BITSET | PRIVATE | high, value=5 | high, bitset=3 | high)
    assert futex.parse(dirty) == futex.parse(plain) is not None


class Buffer:
    """A word and a time of this process, for the kernel to look at."""

    def __init__(self) -> None:
        self._words = (ctypes.c_uint32 * 4)(5)
        self.word = ctypes.addressof(self._words)
        # A time that is past for every clock, and no time at all as a relative one.
        self._time = (ctypes.c_int64 * 2)(0, 1)
        self.time = ctypes.addressof(self._time)

    def ask(self, regs: Registers) -> int:
        """The kernel's result, or its errno as a negative number."""
        try:
            return syscall("futex", regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9)
        except OSError as error:
            assert error.errno is not None
            return -error.errno


BUFFER = Buffer()
# No operation that would make this process own a lock.
commands = st.sampled_from([WAIT, WAKE, WAIT_BITSET, WAKE_BITSET, 2, 14, 15, 63, 0x7F])
flag_bits = st.sampled_from([0, PRIVATE, CLOCK_REALTIME, PRIVATE | CLOCK_REALTIME, 512, 1 << 31, 1 << 32])


@given(commands, flag_bits, st.integers(0, 3), st.sampled_from([4, 6, 1 << 31, U64]), st.booleans(), st.sampled_from([0, 1, ANY, 1 << 32, U64]))
def test_what_is_parsed_the_kernel_takes(command, flags, shift, value, has_time, bitset):
    """A wait or wake that we do is one that the kernel would do; what it refuses as nonsense goes to it."""
    regs = registers(command | flags, address=BUFFER.word + shift, value=value, timeout_at=has_time * BUFFER.time, bitset=bitset)
    call, result = futex.parse(regs), BUFFER.ask(regs)
    if call is not None:
        assert result == (-errno.EAGAIN if call.is_wait else 0)
    else:
        # Some kernels take this flag with a relative time.
        assert result in (-errno.EINVAL, -errno.ENOSYS) or flags & CLOCK_REALTIME


@given(st.lists(st.integers(0, U64), min_size=27, max_size=27))
def test_any_registers(values):
    """Whatever a thread has in its registers: what is parsed is aligned, waits for some bit, and fits."""
    call = futex.parse(Registers(*values))
    if call is not None:
        assert call.address % 4 == 0 and 0 < call.bitset <= ANY and 0 <= call.value <= ANY
        assert call.is_wait or not call.timeout_at
