"""The acceptor against peers that speak nonsense: it lives on, serves the next session, and keeps no mirror."""

import itertools
import random
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest
from conversation import (
    BRK,
    CODE,
    COUNT,
    DATA,
    LAYOUT,
    MM,
    RETURN,
    RSP,
    STACK_END,
    TID,
    Conversation,
    Home,
    connect,
    set_word,
    system_call,
)
from harness import Acceptor, poll_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radium.channel import Channel
from radium.core import pages, wire
from radium.core.addr import PAGE_SIZE, USER_END
from radium.core.mapping import ANONYMOUS, Area, LayoutDelta
from radium.core.regs import Registers
from radium.errors import AcceptorLost
from radium.linux.libc import NUMBERS
from radium.replay.sandbox import THREAD_FLAGS

FUZZ = settings(
    deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def good_session(server: Acceptor, conversation: Conversation) -> None:
    """A session as it should be: three calls, each with the right result."""
    channel = Channel(connect(server.port), "acceptor")
    channel.send(conversation.hello)
    assert isinstance(channel.receive()[0], wire.Welcome)
    channel.send(conversation.setup)
    for number in range(1, 4):
        sent = {} if number == 1 else {"pages": b"", "zero": b""}
        call = conversation.call(number=number, **sent)
        payload = conversation.payload if number == 1 else b""
        channel.send(call, [memoryview(payload)] if payload else [], len(payload))
        answer, nbytes = channel.receive()
        assert isinstance(answer, wire.Answer), answer
        data = bytearray(nbytes)
        channel.payload_into(memoryview(data))
        (thread,) = answer.threads
        regs = Registers.unpack(thread.registers)
        assert (answer.reason, answer.tid, thread.tid) == (wire.RETURNED, TID, TID)
        assert (regs.rip, regs.rsp, regs.rax) == (RETURN, RSP + 8, 5 * number)
        assert wire.runs(answer.dirty) == [(DATA, DATA + PAGE_SIZE)] and data[:8] == (5 * number).to_bytes(8, "little")
    channel.send(wire.Bye())
    channel.close()


def say(server: Acceptor, raw: bytes) -> bytes:
    """Says it, hangs up, and hears the acceptor out; what it said."""
    with connect(server.port) as sock:
        heard = b""
        try:
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(1 << 16):
                heard += piece
        except (ConnectionResetError, BrokenPipeError):
            # It had heard enough.
            return heard
        return heard


def check_unharmed(server: Acceptor, conversation: Conversation) -> None:
    assert server.running.alive
    poll_until(lambda: not server.sessions(), "all sessions and mirrors have ended")
    good_session(server, conversation)
    poll_until(lambda: not server.sessions(), "the good session has ended")
    bad = [line for line in server.running.err.seen if "Traceback" in line or "internal error" in line]
    server.running.err.seen.clear()
    assert not bad


def test_good_session(server, conversation):
    """The conversation that the others spoil works."""
    good_session(server, conversation)
    assert say(server, conversation.frames()).startswith(wire.MAGIC)
    check_unharmed(server, conversation)


@FUZZ
@given(st.lists(st.binary(max_size=500), max_size=4))
def test_garbage(server, conversation, pieces):
    """Bytes of no meaning, after a greeting or without one, end that connection and nothing else."""
    say(server, b"".join(pieces))
    say(server, wire.encode(conversation.hello) + b"".join(pieces))
    assert server.running.alive


def test_after_garbage(server, conversation):
    """After all of it the acceptor is as good as new."""
    for raw in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100_000, b"\xff" * 100, wire.MAGIC * 1000, wire.HEADER.pack(wire.MAGIC, 1 << 26, 1 << 40)):
        say(server, raw)
    check_unharmed(server, conversation)


def test_hanging_up_anywhere(server, conversation):
    """A peer may be gone after any byte: within a frame, a payload, before an answer, in the middle of a call."""
    frames = conversation.frames()
    edges = list(itertools.accumulate(len(part) for part in split_frames(frames)))
    chance = random.Random(2)
    cuts = {edge + shift for edge in edges for shift in (-1, 0, 1)} | {chance.randrange(len(frames)) for _ in range(30)}
    for cut in sorted(cuts):
        say(server, frames[:cut])
    check_unharmed(server, conversation)


def split_frames(raw: bytes) -> list[bytes]:
    out = []
    while raw:
        nbytes = wire.HEADER.size + sum(wire.decode_header(raw[: wire.HEADER.size]))
        out.append(raw[:nbytes])
        raw = raw[nbytes:]
    return out


@FUZZ
@given(st.data())
def test_mutated_conversations(server, conversation, data):
    """A conversation with bytes changed, left out, or put in ends as it may, and takes no more than its own session with it."""
    raw = bytearray(conversation.frames())
    heads = [at for at in range(len(raw)) if at < 1500 or raw[at]]
    for _ in range(data.draw(st.integers(1, 5))):
        at = heads[data.draw(st.integers(0, len(heads) - 1))]
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    say(server, bytes(raw))
    assert server.running.alive


@FUZZ
@given(st.permutations(range(6)), st.integers(1, 6))
def test_frames_in_any_order(server, conversation, order, count):
    """Good frames in the wrong order, or twice, are refused or answered."""
    parts = split_frames(conversation.frames())
    parts += [wire.encode(wire.Recall(1)), wire.encode(wire.Audit(pages.pack([(DATA, DATA + 0x1000)])))]
    say(server, b"".join(parts[number] for number in order[:count]))
    assert server.running.alive


def test_after_mutations(server, conversation):
    """After all of that the acceptor is as good as new, and has said nothing that it should not say."""
    check_unharmed(server, conversation)


RUN = pages.pack([(DATA, DATA + PAGE_SIZE)])
FAR = pages.pack([(0x10000000, 0x10001000)])
VESSEL = [(0x20000, 0x40000)]
HOSTILE_CALLS: dict[str, Callable[[Conversation], dict[str, object]]] = {
    "extended state too long": lambda c: {"thread": c.thread(xstate=bytes(1 << 20))},
    "extended state too short": lambda c: {"thread": c.thread(xstate=b"")},
    "extended state of ones": lambda c: {"thread": c.thread(xstate=b"\xff" * len(c.xstate))},
    "no registers": lambda c: {"thread": c.thread(registers=b"")},
    "registers of ones": lambda c: {"thread": c.thread(registers=b"\xff" * 216)},
    "registers of zeros": lambda c: {"thread": c.thread(registers=bytes(216))},
    "kernel return address": lambda c: {"frame": wire.Frame(0xFFFFFFFF81000000, RSP)},
    "return address nowhere": lambda c: {"frame": wire.Frame(0x10, RSP)},
    "no time": lambda c: {"seconds": 0.0},
    "endless time": lambda c: {"seconds": float("inf")},
    "pages nowhere": lambda c: {"pages": pages.pack([(0x10000000, 0x10002000)])},
    "pages of the vessel": lambda c: {"pages": pages.pack([(0x20000, 0x22000)])},
    "pages of the kernel": lambda c: {"pages": pages.pack([(USER_END, USER_END + 0x2000)])},
    "more pages than there are": lambda c: {"pages": pages.pack([(DATA, DATA + 0x100000)])},
    "zero nowhere": lambda c: {"zero": FAR},
    "much zero nowhere": lambda c: {"zero": pages.pack([(0x10000000, 0x20000000)])},
    "drop nowhere": lambda c: {"drop": FAR},
    "drop all": lambda c: {"drop": pages.pack([(0x1000, USER_END)])},
    "brk nowhere": lambda c: {"brk": 0},
    "brk in the stack": lambda c: {"brk": STACK_END - 0x8000},
    "unmap the vessel": lambda c: {"delta": LayoutDelta(VESSEL)},
    "map over the vessel": lambda c: {"delta": LayoutDelta([], [Area(0x20000, 0x40000, 3, ANONYMOUS)])},
    "protect the vessel": lambda c: {"delta": LayoutDelta([], [], [Area(0x20000, 0x40000, 0, ANONYMOUS)])},
    "unmap everything": lambda c: {"delta": LayoutDelta([(0x1000, USER_END - 0x1000)])},
    "map everything": lambda c: {"delta": LayoutDelta([], [Area(0x1000, USER_END - 0x1000, 3, ANONYMOUS)])},
    "protect nothing": lambda c: {"delta": LayoutDelta([], [], [Area(0x10000000, 0x10001000, 3, ANONYMOUS)])},
    "ranges out of order": lambda c: {"delta": LayoutDelta([(0x5000, 0x6000), (0x1000, 0x2000)])},
    "the same thread twice": lambda c: {"running": [c.thread()]},
    "the same thread waiting": lambda c: {"waiting": [c.thread(xstate=b"")]},
    "running without state": lambda c: {"running": [c.thread(2, xstate=b"")]},
    "running with state of ones": lambda c: {"running": [c.thread(2, xstate=b"\xff" * len(c.xstate))]},
    "running from ones": lambda c: {"running": [c.thread(2, registers=b"\xff" * 216)]},
    "running from zeros": lambda c: {"running": [c.thread(2, registers=bytes(216))]},
    "running in the vessel": lambda c: {"running": [c.thread_at(0x20078, 2, rax=NUMBERS["exit_group"])]},
    "running in the kernel": lambda c: {"running": [c.thread_at(0xFFFFFFFF81000000, 2)]},
    "making a thread in the vessel": lambda c: {"running": [c.thread_at(0x20078, 2, rax=NUMBERS["clone"], rdi=THREAD_FLAGS, rsi=0)]},
    "unmapping the vessel in it": lambda c: {"running": [c.thread_at(0x20078, 2, rax=NUMBERS["munmap"], rdi=0x20000, rsi=0x20000)]},
    "the vessel's table": lambda c: {"running": [c.thread_at(0x20080, 2, rbx=0x21000, rbp=1 << 40)]},
    "many threads": lambda c: {"running": [c.thread(tid) for tid in range(2, 300)]},
    "many that wait": lambda c: {"waiting": [c.thread(tid, xstate=b"") for tid in range(2, 5000)]},
    "waiting with nonsense": lambda c: {"waiting": [c.thread(2, registers=b"\xff" * 216, xstate=b"\xff")]},
    "a mask of all": lambda c: {"thread": c.thread(mask=(1 << 64) - 1), "running": [c.thread(2, mask=(1 << 64) - 1)]},
    "not alone": lambda c: {"alone": False, "waiting": None},
    "contended nowhere": lambda c: {"contended": FAR},
    "contended all": lambda c: {"contended": pages.pack([(0x1000, USER_END)])},
    "scratch all": lambda c: {"scratch": pages.pack([(0x1000, USER_END)])},
    "scratch is no runs": lambda c: {"scratch": b"x"},
    "contended is no runs": lambda c: {"contended": b"x" * 16},
    "huge numbers": lambda c: {"number": (1 << 64) - 1, "thread": c.thread((1 << 64) - 1, as_seen=-(1 << 63), mask=(1 << 64) - 1)},
}


@pytest.mark.parametrize("changes", HOSTILE_CALLS.values(), ids=HOSTILE_CALLS.keys())
def test_hostile_calls(server, conversation, changes):
    """A call that asks for the impossible is refused, or fails, or kills its own mirror."""
    call = conversation.call(**changes(conversation))
    raw = wire.encode(conversation.hello) + wire.encode(conversation.setup)
    say(server, raw + wire.encode(call, len(conversation.payload)) + conversation.payload)
    check_unharmed(server, conversation)


HOSTILE_SETUPS: dict[str, dict[str, object]] = {
    "no layout": {"layout": []},
    "overlapping": {"layout": [*LAYOUT, LAYOUT[0]]},
    "everything": {"layout": [Area(0x1000, USER_END - 0x1000, 3, ANONYMOUS)]},
    "beyond": {"layout": [Area(0x1000, USER_END + 0x1000, 3, ANONYMOUS)]},
    "all low addresses": {"layout": [Area(0x10000, 0x50000000, 3, ANONYMOUS)]},
    "many": {"layout": [Area(at, at + 0x1000, 3, ANONYMOUS, str(at)) for at in range(0x10000000, 0x10000000 + 70_000 * 0x2000, 0x2000)]},
    "no program": {"mm": []},
    "program upside down": {"mm": MM[::-1]},
    "negative": {"brk": -1},
    "special everywhere": {"special": [Area(0x1000, USER_END - 0x1000, 5, 0, "[vdso]")], "vdso": b"\x7fELF"},
    "vdso of nonsense": {"special": [Area(0x7FFF00000000, 0x7FFF00002000, 5, 0, "[vdso]")], "vdso": b"\x7fELF" + bytes(8188)},
    "vdso of nothing": {"special": [Area(0x7FFF00000000, 0x7FFF00002000, 5, 0, "[vdso]")], "vdso": b""},
    "vdso on the stack": {"special": [Area(STACK_END - 0x2000, STACK_END, 5, 0, "[vdso]")], "vdso": b""},
    "unknown tracking": {"tracking": "telepathy"},
    "impossible tracking": {"tracking": "pagemap"},
}


@pytest.mark.parametrize("changes", HOSTILE_SETUPS.values(), ids=HOSTILE_SETUPS.keys())
def test_hostile_setups(server, conversation, changes):
    """A tracee that cannot be mirrored is refused, and what was begun of it is gone."""
    setup = msgspec.structs.replace(conversation.setup, **changes)
    raw = wire.encode(conversation.hello) + wire.encode(setup)
    say(server, raw + wire.encode(conversation.call(), len(conversation.payload)) + conversation.payload)
    check_unharmed(server, conversation)


# Code of a mirror's that does what it should not, and how such a call ends.
HOSTILE_CODE = {
    "run for ever": ("ebfe", {"stuck", "recall", "timeout"}),
    "count for ever": ("48ffc0ebfb", {"timeout"}),
    "ask for a file": ("b8020000000f05c3", {"syscall:open"}),
    "exit": ("b8e70000000f05", {"syscall:exit_group"}),
    "fork": ("b8390000000f05c3", {"syscall:fork"}),
    "fault": ("8b042500000000", {"fault:SIGSEGV"}),
    "illegal": ("0f0b", {"fault:SIGILL"}),
    "int3": ("cc", {"fault:SIGTRAP"}),
    "halt": ("f4", {"fault:SIGSEGV"}),
    "jump into the vessel": ("b878000200ffe0", {"syscall:131192"}),
    "unmap the vessel": ("b80b000000bf00000200be000002000f05c3", {"syscall:munmap", "returned"}),
    "unmap everything": ("b80b00000031ff48be00f0ffffff7f00000f05c3", {"syscall:munmap"}),
    "32-bit call": ("b801000000cd80c3", {"syscall:i386"}),
    "32-bit execve": ("b80b000000bf00000200be0000020031dbcd80c3", {"syscall:i386"}),
}


@pytest.mark.parametrize(("code", "reasons"), HOSTILE_CODE.values(), ids=HOSTILE_CODE.keys())
def test_hostile_code(server, conversation, code, reasons):
    """A mirror's code that misbehaves ends its own call with a reason."""
    payload = bytes.fromhex(code).ljust(PAGE_SIZE, b"\xcc") + conversation.payload[PAGE_SIZE:]
    channel = Channel(connect(server.port), "acceptor")
    channel.send(conversation.hello)
    channel.receive()
    channel.send(conversation.setup)
    channel.send(conversation.call(seconds=0.3), [memoryview(payload)], len(payload))
    while isinstance(message := channel.receive()[0], wire.Beat):
        continue
    channel.close()
    reason = message.reason
    assert reason in reasons
    check_unharmed(server, conversation)


# Conversations with threads, in which questions are answered badly

NONE_THERE = wire.Pages(DATA, b"", b"")
BAD_ANSWERS: dict[str, dict[type, Callable[..., wire.Message]]] = {
    "no state": {wire.AskThread: lambda ask: wire.State(ask.tid, 0, b"")},
    "a state of ones": {wire.AskThread: lambda ask: wire.State(ask.tid, 0, b"\xff" * 2696)},
    "a huge state": {wire.AskThread: lambda ask: wire.State(ask.tid, 0, bytes(1 << 20))},
    "another thread's state": {wire.AskThread: lambda ask: wire.State(ask.tid + 1, 0, bytes(832))},
    "pages for a state": {wire.AskThread: lambda ask: NONE_THERE},
    "a brk for a state": {wire.AskThread: lambda ask: wire.Brk(0)},
    "goodbye for a state": {wire.AskThread: lambda ask: wire.Bye()},
    "a brk of nobody": {wire.AskBrk: lambda ask: wire.Brk(1 << 63)},
    "a negative brk": {wire.AskBrk: lambda ask: wire.Brk(-1)},
    "a state for a brk": {wire.AskBrk: lambda ask: wire.State(1, 0, b"")},
    "no pages": {wire.Fetch: lambda ask: wire.Pages(ask.address, b"", b"")},
    "other pages": {wire.Fetch: lambda ask: wire.Pages(ask.address ^ 0x1000, RUN, b"")},
    "zero everywhere": {wire.Fetch: lambda ask: wire.Pages(ask.address, pages.pack([(0x1000, USER_END)]), b"")},
    "zero nowhere": {wire.Fetch: lambda ask: wire.Pages(ask.address, FAR, b"")},
    "pages without a payload": {wire.Fetch: lambda ask: wire.Pages(ask.address, b"", RUN)},
}
# It wakes one that waits, moves its brk, and touches a page that it has not got.
WAKE_ONE = (
    system_call("futex", DATA + 64, 129, 1) + system_call("brk", BRK + 0x1000) + set_word(DATA + 0x3000) + b"\xc3"
)  # fmt: skip


def talk(server: Acceptor, conversation: Conversation, home: Home, **changes: object) -> wire.AnyMessage | None:
    """What came of the call; None when the acceptor has hung up."""
    try:
        home.leave(**changes)
        return home.await_end()
    except AcceptorLost:
        return None
    finally:
        home.close()


def waiter(conversation: Conversation) -> wire.Standing:
    standing = conversation.thread_at(CODE + 0x200, 2, rax=NUMBERS["futex"], rdi=DATA + 64, rsi=128, rdx=0, r10=0)
    return msgspec.structs.replace(standing, xstate=b"")


@pytest.mark.parametrize("answers", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
def test_bad_answers(server, conversation, answers):
    """Whatever the acceptor is told when it asks, the call ends or the session does, and nothing else."""
    home = Home(server.port, conversation)
    home.states[2] = conversation.xstate
    home.put(CODE, WAKE_ONE)
    home.put(CODE + 0x200, b"\x0f\x05" + COUNT)
    home.answers = answers
    talk(server, conversation, home, waiting=[waiter(conversation)], seconds=0.5)
    assert any(isinstance(message, kind) for message in home.heard for kind in answers), "it was asked"
    check_unharmed(server, conversation)


values = st.sampled_from([0, 1, DATA, DATA + 64, CODE, RSP, RETURN, 0x20078, 0x20080, USER_END - 1, USER_END, (1 << 64) - 1]) | st.integers(0, (1 << 64) - 1)
numbers = st.sampled_from(["futex", "sched_yield", "rt_sigprocmask", "mmap", "munmap", "mremap", "madvise", "brk", "gettid", "clone"])
pieces = st.sampled_from([
    b"\x0f\x05", COUNT, b"\xeb\xfe", b"\xc3", b"\xcc", b"\xf4", set_word(DATA + 64), set_word(0x20078), set_word(DATA + 0x8000),
    system_call("futex", DATA + 64, 128, 0), system_call("futex", DATA + 64, 129, 1), system_call("sched_yield"),
    system_call("munmap", DATA, 0x2000), system_call("munmap", CODE, 0x1000), system_call("brk", BRK - 0x1000),
    system_call("mmap", DATA, 0x1000, 7, 0x32), system_call("madvise", DATA, 0x1000, 4), system_call("mremap", DATA, 0x1000, 0x4000, 1),
    system_call("rt_sigprocmask", 0, DATA, DATA + 8, 8), system_call("exit"), system_call("gettid"),
])  # fmt: skip
code = st.lists(pieces, max_size=6).map(b"".join)
registers_at = st.dictionaries(st.sampled_from(["rdi", "rsi", "rdx", "r10", "r8", "r9", "rsp", "eflags", "fs_base", "cs"]), values, max_size=3)
threads = st.lists(st.tuples(st.sampled_from([CODE, CODE + 0x300, CODE + 0x600, 0x20078, 0x20080, RETURN]) | values, numbers, registers_at), max_size=4)


@settings(FUZZ, max_examples=60)
@given(st.tuples(code, code, code), threads, threads, st.booleans(), st.sampled_from(["", "recall", "discard", "both", "again"]))
def test_hostile_threads(server, conversation, codes, running, waiting, alone, meanwhile):
    """Threads of any registers, running any code beside each other, asked to come home or not: their session ends as it may."""
    home = Home(server.port, conversation)
    for at, piece in zip((CODE, CODE + 0x300, CODE + 0x600), codes, strict=True):
        home.put(at, piece[:0x200])
    home.states = dict.fromkeys(range(2, 20), conversation.xstate)
    made = [conversation.thread_at(rip, tid, rax=NUMBERS[name], **regs) for tid, (rip, name, regs) in enumerate([*running, *waiting], 2)]
    waits = [msgspec.structs.replace(standing, xstate=b"") for standing in made[len(running) :]]
    call = {"running": made[: len(running)], "waiting": waits, "alone": alone, "seconds": 0.2}
    with suppress(AcceptorLost):
        home.leave(**call)
        if meanwhile in ("recall", "both"):
            home.channel.send(wire.Recall(home.number))
        if meanwhile in ("discard", "both"):
            home.channel.send(wire.Discard())
        message = home.await_end()
        if meanwhile == "again" and isinstance(message, wire.Answer):
            home.leave(running=[standing for standing in message.threads if standing.tid != TID], seconds=0.2)
            home.await_end()
    home.close()
    check_unharmed(server, conversation)


def test_many_at_once(server, conversation):
    """Sessions that were left open do not keep others from being served, and end when their peers do."""
    idle = [connect(server.port) for _ in range(20)]
    for sock in idle[::2]:
        sock.sendall(wire.encode(conversation.hello) + wire.encode(conversation.setup))
    good_session(server, conversation)
    for sock in idle:
        sock.close()
    check_unharmed(server, conversation)


def test_drain_at_the_end(server, conversation):
    """After everything the acceptor still ends as it should when it is told to."""
    check_unharmed(server, conversation)
    server.running.kill(signal.SIGTERM)
    assert server.running.wait() == 0
