"""Frames: every message comes back as it was sent, and no bytes do worse than FrameError."""

import struct
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radium.core import pages, wire
from radium.core.addr import USER_END
from radium.core.mapping import Area, LayoutCall, LayoutDelta
from radium.core.regs import FORMAT, Registers
from radium.errors import FrameError

AREA = Area(0x1000, 0x3000, 3, 8, "x:1:2")
RUNS = pages.pack([(0x1000, 0x3000), (0x5000, 0x6000)])
DELTA = LayoutDelta([(0x1000, 0x2000)], [AREA], [Area(0x8000, 0x9000, 1, 8)])
REGISTERS, MM = bytes(FORMAT.size), [0x400000] * wire.NMM
THREAD = wire.Standing(5, 4, 1 << 63, REGISTERS, b"xs")
RUNNING, WAITING = wire.Standing(6, 6, 0, REGISTERS, b"xs"), wire.Standing(8, 8, 0, REGISTERS, b"")
FRAME = wire.Frame(0x401000, 0x7FFD0000, 0x7000, [0x8000])
CALL = wire.Call(7, THREAD, FRAME, [RUNNING], [WAITING], True, DELTA, 0x600000, RUNS, b"", RUNS, RUNS, RUNS, RUNS, 60.0)
SETUP = wire.Setup(1, [AREA], [Area(0x7000, 0x8000, 5, 0, "[vdso]")], b"\x7fELF", 0x600000, MM, {"getpid": 1}, "auto", wire.Clocks(1, -1), True, [])
ANSWER = wire.Answer(
    7, "syscall:write", 6, [THREAD, RUNNING], [LayoutCall("mmap", (0, 1, 2, 3, (1 << 64) - 1, 5), 0x1000)], 9, RUNS, RUNS,
    RUNS, 0.5,
)  # fmt: skip
MESSAGES = [
    wire.Hello(1, "0.1.0", "token", 4096, ["avx2"]),
    wire.Welcome(1, "0.1.0", "6.1", ["pagemap"], "b007", wire.Clocks(5, 6)),
    wire.AskNow(),
    wire.Bulk(4096),
    wire.Now(wire.Clocks(5, 6)),
    wire.Refused("no", "do this"),
    SETUP,
    CALL,
    wire.Fetch(0x1000, 0x5000),
    wire.Pages(0x1000, RUNS, b""),
    ANSWER,
    wire.Failed(7, "stuck", RUNS, 0.1),
    wire.Discard(),
    wire.Discarded(RUNS),
    wire.Recall(7),
    wire.Beat(),
    wire.AskBrk(),
    wire.Brk(0x600000),
    wire.AskThread(8),
    wire.State(8, 5, b"xs"),
    wire.AskClock(8, -6),
    wire.Clock(5, 0),
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


Struct = TypeVar("Struct", bound=msgspec.Struct)


def changed(message: Struct, **fields: object) -> Struct:
    return msgspec.structs.replace(message, **fields)


def with_thread(**fields: object) -> list[wire.AnyMessage]:
    """Calls and answers in each of which one thread is changed so."""
    calls = [changed(CALL, thread=changed(THREAD, **fields)), changed(CALL, running=[changed(RUNNING, **fields)]),
             changed(CALL, waiting=[changed(WAITING, **fields)])]  # fmt: skip
    return [*calls, changed(ANSWER, threads=[THREAD, changed(RUNNING, **fields)])]


@pytest.mark.parametrize(
    "message",
    [
        *with_thread(registers=b""), *with_thread(registers=REGISTERS + b"x"), *with_thread(mask=-1), changed(CALL, frame=wire.Frame(USER_END, 0)),
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
        wire.Brk(-1), wire.Brk(USER_END + 1), wire.Brk((1 << 64) - 1),
    ],
)  # fmt: skip
def test_values_of_no_process(message):
    """A message whose addresses, sizes or times can be nobody's is refused as it arrives."""
    with pytest.raises(FrameError):
        wire.decode(split(wire.encode(message))[1])


@pytest.mark.parametrize(
    "message",
    [
        changed(CALL, running=[RUNNING, RUNNING]), changed(CALL, running=[THREAD]), changed(CALL, waiting=[THREAD]),
        changed(CALL, waiting=[changed(WAITING, tid=RUNNING.tid)]), changed(CALL, waiting=[WAITING, WAITING]),
        changed(ANSWER, threads=[THREAD, THREAD]), changed(ANSWER, threads=[RUNNING, changed(THREAD, tid=RUNNING.tid)]),
    ],
)  # fmt: skip
def test_a_thread_is_in_one_place(message):
    """No message says of one thread that it is in two places."""
    with pytest.raises(FrameError, match="twice"):
        wire.decode(split(wire.encode(message))[1])


words = st.integers(0, (1 << 64) - 1)
ids = st.integers(-(1 << 63), (1 << 63) - 1)
standings = st.builds(wire.Standing, ids, ids, words, st.binary(min_size=FORMAT.size, max_size=FORMAT.size), st.binary(max_size=40))
groups = st.lists(standings, max_size=5, unique_by=lambda standing: standing.tid)


@given(groups.filter(bool), st.integers(0, 5), st.booleans(), st.booleans())
def test_any_threads_round_trip(threads, nrunning, is_told, alone):
    """Whatever threads a call takes along, they arrive as they left, each in its part; so they do in an answer."""
    running, waiting = threads[1 : 1 + nrunning], threads[1 + nrunning :]
    call = changed(CALL, thread=threads[0], running=running, waiting=waiting if is_told else None, alone=alone)
    for message in (call, changed(ANSWER, threads=threads, tid=threads[0].tid)):
        assert wire.decode(split(wire.encode(message))[1]) == message


@given(st.one_of(st.builds(wire.AskThread, ids), st.builds(wire.State, ids, ids, st.binary(max_size=5000)), st.builds(wire.Discarded, st.binary(max_size=50))))
def test_any_questions_round_trip(message):
    """What is asked and told of threads, and what was dropped, arrives as it was sent."""
    assert wire.decode(split(wire.encode(message))[1]) == message


def raw_of(message: msgspec.Struct) -> list[object]:
    """Tag and fields, as they are on the wire."""
    out = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    assert isinstance(out, list)
    return out


# What may stand in the place of a field: of other types, of other sizes, too deep, too many.
junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.binary(max_size=8) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
NESTED = [message for message in MESSAGES if isinstance(message, wire.Call | wire.Answer | wire.State | wire.AskThread | wire.Discarded | wire.Discard)]


def places_of(value: object, at: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Of every list and all that is in it, the way there."""
    here = [at] if at else []
    return here + [place for n, inner in enumerate(value if isinstance(value, list) else []) for place in places_of(inner, (*at, n))]


def put(value: object, place: tuple[int, ...], new: object) -> object:
    if not place:
        return new
    assert isinstance(value, list)
    return [put(inner, place[1:], new) if n == place[0] else inner for n, inner in enumerate(value)]


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(NESTED), st.data())
def test_junk_in_the_place_of_fields(message, data):
    """Any value in the place of any field, however deep: the message is one whose threads make sense, or a FrameError."""
    raw = raw_of(message)
    for _ in range(data.draw(st.integers(1, 3))):
        raw = put(raw, data.draw(st.sampled_from(places_of(raw))), data.draw(junk))
    check_sense(msgspec.msgpack.encode(raw))


@given(st.sampled_from(NESTED), st.lists(junk, max_size=15))
def test_junk_behind_a_tag(message, fields):
    """A message of any fields at all, too few or too many, is one or a FrameError."""
    check_sense(msgspec.msgpack.encode([type(message).__name__, *fields]))


def check_sense(body: bytes) -> None:
    try:
        decoded = wire.decode(body)
    except FrameError as error:
        assert "\n" not in str(error)
        return
    threads = decoded.threads if isinstance(decoded, wire.Answer) else []
    if isinstance(decoded, wire.Call):
        threads = [decoded.thread, *decoded.running, *(decoded.waiting or [])]
    assert len({thread.tid for thread in threads}) == len(threads)
    for thread in threads:
        assert Registers.unpack(thread.registers) and 0 <= thread.mask < 1 << 64


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
