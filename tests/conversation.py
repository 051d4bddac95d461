"""What an initiator says to an acceptor, said by hand: a tiny tracee of a few pages, its calls and its threads."""

import socket
from collections.abc import Callable

import msgspec

import radium
from radium.channel import Channel
from radium.core import cpu, pages, wire
from radium.core.addr import PAGE_SIZE
from radium.core.mapping import ANONYMOUS, RESERVED, STACK, Area, LayoutDelta
from radium.core.regs import NO_SYSCALL, Registers
from radium.linux import procfs, ptrace
from radium.linux.libc import NUMBERS
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
BRK = HEAP + 0x2000
RETURN, RSP = CODE + 0x100, STACK_END - 0x1008
TID = 1
# add [rdi], rsi; mov rax, [rdi]; ret
FUNCTION = bytes.fromhex("480137488b07c3")
SENT = [(CODE, CODE + 0x1000), (STACK_END - 0x2000, STACK_END - 0x1000)]


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
            pid=1, layout=LAYOUT, special=[], vdso=b"", brk=BRK, mm=MM, identity={"getpid": 1}, tracking="auto",
            clocks=wire.Clocks(), may_change_layout=True, components=[],
        )  # fmt: skip
        stack = bytearray(PAGE_SIZE)
        stack[RSP % PAGE_SIZE : RSP % PAGE_SIZE + 8] = RETURN.to_bytes(8, "little")
        self.payload = FUNCTION.ljust(PAGE_SIZE, b"\xcc") + bytes(stack)

    def thread(self, tid: int = TID, **changes: object) -> wire.Standing:
        """The thread that is about to call, or another one that is."""
        standing = wire.Standing(tid, tid, 0, self.registers.pack(), self.xstate)
        return msgspec.structs.replace(standing, **changes)

    def thread_at(self, rip: int, tid: int = TID, **values: int) -> wire.Standing:
        """A thread about to execute what is there, with these registers."""
        regs = self.registers.copy()
        for name, value in {"rip": rip, **values}.items():
            setattr(regs, name, value)
        return self.thread(tid, registers=regs.pack())

    def call(self, **changes: object) -> wire.Call:
        values = {
            "number": 1, "thread": self.thread(), "frame": wire.Frame(RETURN, RSP), "running": [], "waiting": [], "alone": True,
            "delta": LayoutDelta(), "brk": BRK, "drop": b"", "zero": pages.pack([(DATA, DATA + PAGE_SIZE)]),
            "pages": pages.pack(SENT), "scratch": b"", "results": b"", "contended": b"", "seconds": 5.0,
        }  # fmt: skip
        return wire.Call(**{**values, **changes})  # type: ignore[arg-type]

    def frames(self) -> bytes:
        call = self.call()
        return b"".join(
            [wire.encode(self.hello), wire.encode(self.setup), wire.encode(call, len(self.payload)), self.payload,
             wire.encode(wire.Bye())]
        )  # fmt: skip


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


class Home:
    """An initiator that answers what it is asked: pages from `memory`, states of threads that wait from `states`.

    answers: to be used instead, by the kind of the question. heard: all that the acceptor has said, beats left out.
    """

    def __init__(self, port: int, conversation: Conversation) -> None:
        self.conversation = conversation
        self.memory = {page: bytes(PAGE_SIZE) for area in LAYOUT if area.prot for page in range(area.start, area.end, PAGE_SIZE)}
        self.memory[CODE], self.memory[RSP & -PAGE_SIZE] = conversation.payload[:PAGE_SIZE], conversation.payload[PAGE_SIZE:]
        self.states: dict[int, bytes] = {}
        self.answers: dict[type, Callable[[wire.AnyMessage], wire.Message]] = {}
        self.heard: list[wire.AnyMessage] = []
        self.number = 0
        self.channel = Channel(connect(port), "acceptor")
        self.channel.send(conversation.hello)
        welcome = self.channel.receive()[0]
        assert isinstance(welcome, wire.Welcome), welcome
        self.channel.send(conversation.setup)

    def put(self, address: int, data: bytes) -> None:
        """Home has this in its memory; the mirror has to be told."""
        page, at = address & -PAGE_SIZE, address % PAGE_SIZE
        assert at + len(data) <= PAGE_SIZE
        self.memory[page] = self.memory[page][:at] + data + self.memory[page][at + len(data) :]

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory[address & -PAGE_SIZE][address % PAGE_SIZE :][:8], "little")

    def contents(self, runs: pages.Runs) -> bytes:
        return b"".join(self.memory.get(page, bytes(PAGE_SIZE)) for start, end in runs for page in range(start, end, PAGE_SIZE))

    def leave(self, **changes: object) -> None:
        """A call leaves; all pages of code, data and stack that it starts with go with it."""
        self.number += 1
        runs = [*SENT[:1], (DATA, DATA + PAGE_SIZE), *SENT[1:]]
        values = {"number": self.number, "zero": b"", "pages": pages.pack(runs), **changes}
        payload = self.contents(pages.unpack(values["pages"]))  # type: ignore[arg-type]
        self.channel.send(self.conversation.call(**values), [memoryview(payload)] if payload else [], len(payload))

    def await_end(self) -> wire.AnyMessage:
        """Answers what it is asked until it is told something; an answer's pages are home then."""
        while True:
            message, nbytes = self.channel.receive()
            if isinstance(message, wire.Beat):
                continue
            self.heard.append(message)
            reply = self.answers.get(type(message))
            if reply:
                self.channel.send(reply(message))
            elif isinstance(message, wire.Fetch):
                self._page_in(message)
            elif isinstance(message, wire.AskThread):
                self.channel.send(wire.State(message.tid, 0, self.states[message.tid]))
            elif isinstance(message, wire.AskBrk):
                self.channel.send(wire.Brk(BRK))
            else:
                if isinstance(message, wire.Answer):
                    self._commit(message, nbytes)
                return message

    def _page_in(self, message: wire.Fetch) -> None:
        there = pages.normalise((p, p + PAGE_SIZE) for p in self.memory if message.address <= p < message.end)
        payload = self.contents(there)
        self.channel.send(wire.Pages(message.address, b"", pages.pack(there)), [memoryview(payload)] if payload else [], len(payload))

    def _commit(self, answer: wire.Answer, nbytes: int) -> None:
        data = bytearray(nbytes)
        self.channel.payload_into(memoryview(data))
        numbers = [page for start, end in wire.runs(answer.dirty, nbytes) for page in range(start, end, PAGE_SIZE)]
        for n, page in enumerate(numbers):
            self.memory[page] = bytes(data[n * PAGE_SIZE : (n + 1) * PAGE_SIZE])

    def call(self, **changes: object) -> wire.Answer:
        """A call that comes home with an answer."""
        self.leave(**changes)
        answer = self.await_end()
        assert isinstance(answer, wire.Answer), answer
        return answer

    def close(self) -> None:
        self.channel.close()


def registers_of(answer: wire.Answer, tid: int = TID) -> Registers:
    return Registers.unpack(next(standing.registers for standing in answer.threads if standing.tid == tid))


# Code, of the little that is needed here (Intel SDM volume 2)


def dword(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def system_call(name: str, *arguments: int) -> bytes:
    """With arguments of 32 bits: mov of each; mov eax, number; syscall."""
    moves = ["bf", "be", "ba", "41ba", "41b8", "41b9"]
    loads = b"".join(bytes.fromhex(move) + dword(value) for move, value in zip(moves, arguments, strict=False))
    return loads + b"\xb8" + dword(NUMBERS[name]) + b"\x0f\x05"


def store_rax(address: int) -> bytes:
    return bytes.fromhex("48890425") + dword(address)


def set_word(address: int, value: int = 1) -> bytes:
    """mov dword [address], value"""
    return bytes.fromhex("c70425") + dword(address) + dword(value)


def await_word(address: int) -> bytes:
    """Until the word is not zero, counting in memory meanwhile: work, to whoever looks for a livelock.

    inc dword [address + 4]; cmp dword [address], 0; je back
    """
    return bytes.fromhex("ff0425") + dword(address + 4) + bytes.fromhex("833c25") + dword(address) + bytes.fromhex("0074ef")


# For ever: inc dword [DATA + 0xff0]; jmp back
COUNT = bytes.fromhex("ff0425") + dword(DATA + 0xFF0) + bytes.fromhex("ebf7")
RET = b"\xc3"
