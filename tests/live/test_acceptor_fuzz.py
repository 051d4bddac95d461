"""The acceptor against peers that speak nonsense: it lives on, serves the next session, and keeps no mirror."""

import itertools
import random
import signal
import socket
from collections.abc import Callable, Iterator

import msgspec
import pytest
from harness import Acceptor, Workplace, poll_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import radium
from radium.channel import Channel
from radium.core import cpu, pages, wire
from radium.core.addr import PAGE_SIZE, USER_END
from radium.core.mapping import ANONYMOUS, RESERVED, STACK, Area, LayoutDelta
from radium.core.regs import NO_SYSCALL, Registers
from radium.linux import procfs, ptrace
from radium.replay.sandbox import Limits
from radium.replay.vessel import Vessel

CODE, DATA, HEAP, STACK_END = 0x400000, 0x500000, 0x600000, 0x7FFD00020000
LAYOUT = [
    Area(CODE, CODE + 0x1000, 5, 0, "main"),
    Area(DATA, DATA + 0x10000, 3, ANONYMOUS),
    Area(HEAP, HEAP + 0x2000, 3, ANONYMOUS),
    Area(0x700000, 0x701000, 0, RESERVED),
    Area(STACK_END - 0x10000, STACK_END, 3, ANONYMOUS | STACK),
]
MM = [CODE, CODE + 0x1000, DATA, DATA + 0x1000, HEAP, STACK_END - 0x1000, *[STACK_END - 0x800] * 4]
RETURN, RSP = CODE + 0x100, STACK_END - 0x1008
# add [rdi], rsi; mov rax, [rdi]; ret
FUNCTION = bytes.fromhex("480137488b07c3")
SENT = [(CODE, CODE + 0x1000), (STACK_END - 0x2000, STACK_END - 0x1000)]
FUZZ = settings(
    deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acceptor]:
    """One acceptor for all of these tests: it must outlive them."""
    workplace = Workplace(tmp_path_factory.mktemp("server"))
    yield workplace.serve()
    workplace.close()


class Conversation:
    """What an initiator of a tiny tracee says: one function, which adds rsi to the word at rdi."""

    def __init__(self) -> None:
        vessel = Vessel(0x20000, Limits())
        regs, self.xstate = vessel.registers.copy(), ptrace.xstate(vessel.pid)
        vessel.kill()
        regs.rip, regs.rsp, regs.rdi, regs.rsi, regs.orig_rax = CODE, RSP, DATA, 5, NO_SYSCALL
        self.registers = regs
        self.hello = wire.Hello(wire.PROTOCOL, radium.__version__, "", PAGE_SIZE, cpu.usable(procfs.cpu_flags()))
        self.setup = wire.Setup(
            pid=1, layout=LAYOUT, special=[], vdso=b"", brk=HEAP + 0x2000, mm=MM, identity={"getpid": 1}, tracking="auto", clocks=wire.Clocks(),
            may_change_layout=True, components=[],
        )  # fmt: skip
        stack = bytearray(PAGE_SIZE)
        stack[RSP % PAGE_SIZE : RSP % PAGE_SIZE + 8] = RETURN.to_bytes(8, "little")
        self.payload = FUNCTION.ljust(PAGE_SIZE, b"\xcc") + bytes(stack)

    def thread(self, tid: int = 1, **changes: object) -> wire.Standing:
        thread = wire.Standing(tid, tid, 0, self.registers.pack(), self.xstate)
        return msgspec.structs.replace(thread, **changes)

    def waiter(self, tid: int, address: int) -> wire.Standing:
        """A thread that waits in a futex, before which it stands."""
        regs = self.registers.copy()
        regs.rax, regs.rdi, regs.rsi, regs.rdx, regs.r10 = 202, address, 128, 0, 0
        return self.thread(tid, registers=regs.pack(), xstate=b"")

    def call(self, **changes: object) -> wire.Call:
        values = {
            "number": 1, "thread": self.thread(), "frame": wire.Frame(RETURN, RSP), "running": [], "waiting": [], "alone": True,
            "delta": LayoutDelta(), "brk": HEAP + 0x2000, "drop": b"", "zero": pages.pack([(DATA, DATA + PAGE_SIZE)]),
            "pages": pages.pack(SENT), "scratch": b"", "results": b"", "contended": b"", "seconds": 5.0,
        }  # fmt: skip
        return wire.Call(**{**values, **changes})  # type: ignore[arg-type]

    def frames(self) -> bytes:
        call = self.call()
        return b"".join(
            [wire.encode(self.hello), wire.encode(self.setup), wire.encode(call, len(self.payload)), self.payload,
             wire.encode(wire.Bye())]
        )  # fmt: skip


@pytest.fixture(scope="module")
def conversation() -> Conversation:
    return Conversation()


def connect(server: Acceptor) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 10)


def good_session(server: Acceptor, conversation: Conversation) -> None:
    """A session as it should be: three calls, each with the right result."""
    channel = Channel(connect(server), "acceptor")
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
        regs = Registers.unpack(answer.threads[0].registers)
        assert (regs.rip, regs.rsp, regs.rax) == (RETURN, RSP + 8, 5 * number)
        assert wire.runs(answer.dirty) == [(DATA, DATA + PAGE_SIZE)] and data[:8] == (5 * number).to_bytes(8, "little")
    channel.send(wire.Bye())
    channel.close()


def say(server: Acceptor, raw: bytes) -> bytes:
    """Says it, hangs up, and hears the acceptor out; what it said."""
    with connect(server) as sock:
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
    "huge numbers": lambda c: {"number": (1 << 64) - 1, "thread": c.thread((1 << 64) - 1, as_seen=-(1 << 63))},
    "a thread twice": lambda c: {"running": [c.thread()]},
    "threads of ones": lambda c: {"running": [c.thread(tid, registers=b"\xff" * 216) for tid in range(2, 9)]},
    "threads without a state": lambda c: {"running": [c.thread(tid, xstate=b"") for tid in range(2, 9)]},
    "very many threads": lambda c: {"running": [c.thread(tid) for tid in range(2, 3000)]},
    "waiters nowhere": lambda c: {"waiting": [c.waiter(tid, 0x10 * tid) for tid in range(2, 99)]},
    "waiters that wait for nothing": lambda c: {"waiting": [c.thread(tid, xstate=b"") for tid in range(2, 99)]},
    "results nowhere": lambda c: {"results": pages.pack([(0x1000, USER_END)])},
    "contended nowhere": lambda c: {"contended": pages.pack([(0x1000, USER_END)])},
    "not alone": lambda c: {"alone": False, "running": [c.thread(2)], "waiting": [c.waiter(3, DATA)]},
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
    "clocks of nobody": {"clocks": wire.Clocks(-(1 << 63), (1 << 63) - 1)},
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
    "wait for nobody": ("48b8ca00000000000000be80000000ba000000004531d2" "0f05c3", {"syscall:futex"}),
    "unmap the vessel": ("b80b000000bf00000200be000002000f05c3", {"syscall:munmap", "returned"}),
    "unmap everything": ("b80b00000031ff48be00f0ffffff7f00000f05c3", {"syscall:munmap"}),
    "32-bit call": ("b801000000cd80c3", {"syscall:i386"}),
    "32-bit execve": ("b80b000000bf00000200be0000020031dbcd80c3", {"syscall:i386"}),
}


@pytest.mark.parametrize(("code", "reasons"), HOSTILE_CODE.values(), ids=HOSTILE_CODE.keys())
def test_hostile_code(server, conversation, code, reasons):
    """A mirror's code that misbehaves ends its own call with a reason."""
    payload = bytes.fromhex(code).ljust(PAGE_SIZE, b"\xcc") + conversation.payload[PAGE_SIZE:]
    channel = Channel(connect(server), "acceptor")
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


def test_many_at_once(server, conversation):
    """Sessions that were left open do not keep others from being served, and end when their peers do."""
    idle = [connect(server) for _ in range(20)]
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
