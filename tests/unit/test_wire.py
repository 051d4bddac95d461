"""Frames: every message comes back as it was sent, and no bytes do worse than FrameError."""

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core import pages, wire
from radium.core.addr import USER_END
from radium.core.mapping import Area, LayoutCall, LayoutDelta
from radium.core.regs import FORMAT
from radium.errors import FrameError

AREA = Area(0x1000, 0x3000, 3, 8, "x:1:2")
RUNS = pages.pack([(0x1000, 0x3000), (0x5000, 0x6000)])
DELTA = LayoutDelta([(0x1000, 0x2000)], [AREA], [Area(0x8000, 0x9000, 1, 8)])
REGISTERS, MM = bytes(FORMAT.size), [0x400000] * wire.NMM
STANDING, ASLEEP = wire.Standing(11, 3, 1 << 63, REGISTERS, b"xs"), wire.Standing(12, 4, 0, REGISTERS, b"")
CALL = wire.Call(
    7, STANDING, wire.Frame(0x401000, 0x7FFD0000, 0x7000, [0x8000]), [], [ASLEEP], True, DELTA, 0x600000, RUNS, b"", RUNS, RUNS,
    RUNS, b"", 60.0,
)  # fmt: skip
SETUP = wire.Setup(1, [AREA], [Area(0x7000, 0x8000, 5, 0, "[vdso]")], b"\x7fELF", 0x600000, MM, {"getpid": 1}, "auto", wire.Clocks(), True, [])
ANSWER = wire.Answer(
    7, "syscall:write", 11, [STANDING], [LayoutCall("mmap", (0, 1, 2, 3, (1 << 64) - 1, 5), 0x1000)], 9, RUNS, RUNS, RUNS, 0.5
)  # fmt: skip
MESSAGES = [
    wire.Hello(1, "0.1.0", "token", 4096, ["avx2"]),
    wire.Welcome(1, "0.1.0", "6.1", ["pagemap"], "b007", wire.Clocks(5, 6)),
    wire.Refused("no", "do this"),
    SETUP,
    CALL,
    wire.Fetch(0x1000, 0x5000),
    wire.Pages(0x1000, RUNS, b""),
    ANSWER,
    wire.Failed(7, "stuck", RUNS, 0.1),
    wire.Recall(7),
    wire.Beat(),
    wire.AskBrk(),
    wire.Brk(0x600000),
    wire.AskClock(12, -6),
    wire.Clock(5, 0),
    wire.AskThread(12),
    wire.State(12, 5, b"xs"),
    wire.AskNow(),
    wire.Now(wire.Clocks(5, 6)),
    wire.Discard(),
    wire.Discarded(RUNS),
    wire.Bye("draining"),
    wire.Audit(RUNS),
    wire.Digests(bytes(32)),
]


def split(frame: bytes) -> tuple[bytes, bytes]:
    return frame[: wire.HEADER.size], frame[wire.HEADER.size :]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_messages_round_trip(message):
    """A message is the same after the journey, and its header says how long it and its payload are."""
    header, body = split(wire.encode(message, 12345))
    assert wire.decode_header(header) == (len(body), 12345)
    assert wire.decode(body) == message
    assert wire.decode(memoryview(body)) == message


def test_all_messages_are_tested():
    """The list above has every message that there is."""
    kinds = {kind for union in (wire.FromInitiator, wire.FromAcceptor) for kind in union.__args__}
    assert kinds == {type(message) for message in MESSAGES}


@given(st.binary(max_size=200))
def test_any_bytes_as_a_message(raw):
    """Bytes that are no message are a FrameError and nothing else."""
    try:
        wire.decode(raw)
    except FrameError as error:
        assert "\n" not in str(error)


@given(st.sampled_from(MESSAGES), st.data())
def test_mutated_messages(message, data):
    """A message that was cut, lengthened or changed in the middle is a message or a FrameError."""
    body = bytearray(split(wire.encode(message))[1])
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body)))
        nbytes = data.draw(st.integers(0, 4))
        body[position : position + nbytes] = data.draw(st.binary(max_size=4))
    try:
        wire.decode(bytes(body))
    except FrameError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("raw", [b"\xc1", b"\x91" * 5000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b""])
def test_msgpack_bombs(raw):
    """Deep nesting and lengths that are not there are refused without being believed."""
    with pytest.raises(FrameError):
        wire.decode(raw)


@given(st.binary(min_size=wire.HEADER.size, max_size=wire.HEADER.size))
def test_any_bytes_as_a_header(raw):
    """Bytes that are no header are a FrameError; sizes beyond the bounds never come out."""
    try:
        message_nbytes, payload_nbytes = wire.decode_header(raw)
    except FrameError:
        return
    assert message_nbytes <= wire.MAX_MESSAGE and payload_nbytes <= wire.MAX_PAYLOAD


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (struct.pack("<4sIQ", b"HTTP", 10, 0), "protocol"),
        (struct.pack("<4sIQ", b"RAD\x63", 10, 0), "version 99"),
        (struct.pack("<4sIQ", wire.MAGIC, wire.MAX_MESSAGE + 1, 0), "more than"),
        (struct.pack("<4sIQ", wire.MAGIC, 0, wire.MAX_PAYLOAD + 1), "more than"),
        (struct.pack("<4sIQ", wire.MAGIC, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF), "more than"),
    ],
)
def test_bad_headers(header, says):
    """Another protocol, another version and sizes that no frame has are told apart."""
    with pytest.raises(FrameError, match=says):
        wire.decode_header(header)


def changed(message: msgspec.Struct, **fields: object) -> wire.AnyMessage:
    return msgspec.structs.replace(message, **fields)  # type: ignore[return-value, type-var]


def stands(**fields: object) -> wire.Standing:
    return msgspec.structs.replace(STANDING, tid=13, **fields)


@pytest.mark.parametrize(
    "message",
    [
        changed(CALL, thread=stands(registers=b"")), changed(CALL, running=[stands(registers=REGISTERS + b"x")]),
        changed(CALL, waiting=[stands(mask=-1)]), changed(CALL, running=[STANDING]),
        changed(CALL, waiting=[ASLEEP, ASLEEP]), changed(ANSWER, threads=[STANDING, STANDING]),
        changed(ANSWER, threads=[stands(registers=b"")]), changed(CALL, frame=wire.Frame(USER_END, 0)),
        changed(CALL, frame=wire.Frame(-1, 0)), changed(CALL, frame=wire.Frame(0, 0, 0, [USER_END])),
        changed(CALL, seconds=float("nan")), changed(CALL, seconds=float("inf")), changed(ANSWER, reason=""),
        changed(ANSWER, reason="syscall:"), changed(ANSWER, reason="\x1b[2J"), changed(ANSWER, reason="syscall:a b"),
        changed(CALL, seconds=0.0), changed(CALL, brk=-1), changed(CALL, brk=USER_END + 1),
        changed(CALL, delta=LayoutDelta([(0x1000, 0x1001)])), changed(CALL, delta=LayoutDelta([(0x2000, 0x1000)])),
        changed(CALL, delta=LayoutDelta([], [Area(0, USER_END + 4096, 3, 8)])),
        changed(CALL, delta=LayoutDelta([], [], [Area(0x1000, 0x2000, 8, 8)])),
        changed(SETUP, layout=[AREA, AREA]), changed(SETUP, layout=[Area(0x5000, 0x6000, 3, 8), AREA]),
        changed(SETUP, layout=[Area(-0x1000, 0x1000, 3, 8)]), changed(SETUP, special=[Area(0x1000, 0x1000, 3, 8)]),
        changed(SETUP, mm=MM[1:]), changed(SETUP, mm=[*MM[1:], -1]), changed(SETUP, brk=1 << 63),
    ],
)  # fmt: skip
def test_values_of_no_process(message):
    """A message whose addresses, sizes or times can be nobody's is refused as it arrives."""
    with pytest.raises(FrameError):
        wire.decode(split(wire.encode(message))[1])


@given(st.binary(max_size=80), st.one_of(st.none(), st.integers(0, 1 << 20)))
def test_any_bytes_as_runs(raw, payload_nbytes):
    """Runs of a message are sound and fit their payload, or FrameError is raised."""
    try:
        runs = wire.runs(raw, payload_nbytes)
    except FrameError:
        return
    assert pages.pack(runs) == raw and payload_nbytes in (None, pages.total(runs))


def test_payload_that_does_not_fit():
    """A payload has exactly the pages of its runs."""
    assert pages.total(wire.runs(RUNS, 0x3000)) == 0x3000
    with pytest.raises(FrameError, match="payload of 12287"):
        wire.runs(RUNS, 0x2FFF)
