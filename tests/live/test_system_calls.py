"""Every system call there is, made by a mirror's thread: what happens is what core/syscalls.py says."""

import pytest
from conversation import DATA, Home, dword, registers_of, store_rax

from radium.core import syscalls, wire
from radium.core.mapping import JOURNALLED, MAP_ANONYMOUS, MAP_PRIVATE
from radium.core.regs import U64
from radium.linux.libc import NAMES, syscall_name

CODE = 0x400000
# syscall; mov [DATA], rax; ret
ONE_CALL = b"\x0f\x05" + store_rax(DATA) + b"\xc3"
X32 = 0x40000000
UNKNOWN = [511, 1000, 0xFFFF, X32, X32 | 202, U64 & ~0xFF]


@pytest.fixture
def home(server, conversation):
    made = Home(server.port, conversation)
    made.put(CODE, ONE_CALL)
    yield made
    made.close()


def make(home, number, **values):
    """Its answer and its result, signed."""
    answer = home.call(thread=home.conversation.thread_at(CODE, **{"rax": number, "rdi": 0, "rsi": 0, **values}))
    result = home.word(DATA)
    return answer, result - (1 << 64) if result >> 63 else result


@pytest.mark.parametrize("table", ["HARMLESS", "ANSWERED", "PLACEMENT", "AT_HOME", "no table"])
def test_the_tables(home, table):
    """What a table says runs, is answered, or goes home, does; and what is in no table goes home."""
    done = {name for which in ("HARMLESS", "ANSWERED", "PLACEMENT", "EMULATED") for name in getattr(syscalls, which)} | JOURNALLED
    named = set(NAMES.values()) - done - set(syscalls.AT_HOME) if table == "no table" else set(getattr(syscalls, table))
    numbers = [number for number, name in NAMES.items() if name in named] + (UNKNOWN if table == "no table" else [])
    identity = home.conversation.setup.identity
    for number in numbers:
        name = syscall_name(number)
        answer, result = make(home, number)
        if table in ("AT_HOME", "no table") or (table == "ANSWERED" and name not in {*identity, "gettid"}):
            assert answer.reason == f"syscall:{name}"
            regs = registers_of(answer)
            assert (regs.rip, regs.rax) == (CODE, number), "it stands before the call, to make it at home"
        else:
            assert answer.reason == wire.RETURNED, name
            # Bad addresses are refused as anywhere: 0 is none.
            assert table != "PLACEMENT" or result == 0


def test_what_is_known_from_home(home):
    """Ids are those at home, the thread's own being as the program sees it."""
    for name, expected in (("getpid", 1), ("gettid", 77)):
        thread = home.conversation.thread_at(CODE, rax={n: k for k, n in NAMES.items()}[name])
        thread.as_seen = 77
        assert home.call(thread=thread).reason == wire.RETURNED and home.word(DATA) == expected


def test_memory_calls(home):
    """Memory calls that home can repeat are made, and are in the journal; others go home."""
    numbers = {name: number for number, name in NAMES.items()}
    plain = {"rsi": 0x2000, "rdx": 3, "r10": MAP_PRIVATE | MAP_ANONYMOUS, "r8": U64, "r9": 0}
    answer, start = make(home, numbers["mmap"], **plain)
    assert answer.reason == wire.RETURNED and [(c.name, c.result) for c in answer.journal] == [("mmap", start)]
    for values in ({**plain, "r10": MAP_PRIVATE, "r8": 3}, {**plain, "r10": 1 | MAP_ANONYMOUS}, {**plain, "rsi": 0}):
        answer, _ = make(home, numbers["mmap"], **values)
        assert answer.reason == "syscall:mmap" and not answer.journal
    answer, result = make(home, numbers["munmap"], rdi=start, rsi=0x1000)
    assert (answer.reason, result, answer.journal[0].name) == (wire.RETURNED, 0, "munmap")


def test_32_bit_calls(home):
    """The other numbering is none of ours, whatever the number."""
    home.put(CODE, bytes.fromhex("cd80") + b"\xb8" + dword(0))
    for number in (1, 20, 39, 202, 240):
        answer, _ = make(home, number)
        assert answer.reason == "syscall:i386" and registers_of(answer).rip == CODE
