"""Frames over real sockets: whole, in pieces, cut, stalled, dripping, and lying about their size."""

import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radium.channel import ROOM, Channel
from radium.core import pages, wire
from radium.errors import AcceptorLost, FrameError

STALL_S = 0.15
RUNS = pages.pack([(0x1000, 0x3000)])
PAYLOAD = bytes(range(256)) * 32
MESSAGE = wire.Pages(0x1000, b"", RUNS)
FRAME = wire.encode(MESSAGE, len(PAYLOAD)) + PAYLOAD
BEAT = wire.encode(wire.Beat())


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def ends(request: pytest.FixtureRequest) -> Iterator[tuple[Channel, socket.socket]]:
    """A channel, and the bare socket at its other end."""
    near, far = request.param()
    channel = Channel(near, "peer", STALL_S)
    yield channel, far
    channel.close()
    far.close()


def receive_all(channel: Channel) -> tuple[wire.AnyMessage, bytes]:
    message, nbytes = channel.receive()
    payload = bytearray(nbytes)
    channel.payload_into(memoryview(payload))
    return message, bytes(payload)


def test_frames_cross(ends):
    """A message and its payload arrive as they were sent, in both directions, and are counted."""
    channel, far = ends
    other = Channel(far, "other", STALL_S)
    channel.send(MESSAGE, [memoryview(PAYLOAD)[:5000], memoryview(PAYLOAD)[5000:]], len(PAYLOAD))
    assert receive_all(other) == (MESSAGE, PAYLOAD)
    other.send(wire.Beat())
    assert channel.receive() == (wire.Beat(), 0)
    assert channel.sent_nbytes == other.received_nbytes == len(FRAME)
    assert other.sent_nbytes == channel.received_nbytes == len(BEAT)


def test_many_small_frames_at_once(ends):
    """Frames that arrive in one piece are taken one by one, and `buffered` says that there are more."""
    channel, far = ends
    far.sendall(b"".join(wire.encode(wire.Recall(i)) for i in range(1000)))
    for i in range(1000):
        assert channel.receive() == (wire.Recall(i), 0)
    assert not channel.buffered


def test_buffered_frame_after_a_payload(ends):
    """What follows a payload in the same piece is the next frame."""
    channel, far = ends
    far.sendall(FRAME + BEAT)
    assert receive_all(channel) == (MESSAGE, PAYLOAD)
    assert channel.buffered and channel.receive() == (wire.Beat(), 0)


def test_frames_byte_by_byte(ends):
    """Frames are taken in whatever pieces they come."""
    channel, far = ends
    feeder = threading.Thread(target=lambda: [far.sendall(bytes([byte])) for byte in BEAT + wire.encode(wire.Recall(3))])
    feeder.start()
    assert channel.receive() == (wire.Beat(), 0) and channel.receive() == (wire.Recall(3), 0)
    feeder.join()


def test_frames_across_the_end_of_the_buffer(ends):
    """Messages of every length fit, wherever in the receive buffer they begin."""
    channel, far = ends
    sizes = [ROOM - 200, 300, ROOM, 5, 2 * ROOM + 1, 40, ROOM - 1, ROOM // 2, ROOM // 2, 7]
    messages = [wire.Bye("x" * size) for size in sizes]
    feeder = threading.Thread(target=far.sendall, args=(b"".join(map(wire.encode, messages)),))
    feeder.start()
    assert [channel.receive()[0] for _ in sizes] == messages
    feeder.join()


def test_large_payload(ends):
    """A payload far larger than the socket's buffers arrives whole."""
    channel, far = ends
    other = Channel(far, "other", 5.0)
    payload = bytes(range(251)) * 130_000
    pieces = (memoryview(payload)[at : at + (1 << 20)] for at in range(0, len(payload), 1 << 20))
    sender = threading.Thread(target=channel.send, args=(wire.Beat(), pieces, len(payload)))
    sender.start()
    message, received = receive_all(other)
    sender.join()
    assert message == wire.Beat() and received == payload


def test_payload_is_skipped(ends):
    """A payload that nobody wants is passed over, and the next frame is found."""
    channel, far = ends
    feeder = threading.Thread(target=far.sendall, args=(wire.encode(wire.Beat(), 300_000) + bytes(300_000) + BEAT,))
    feeder.start()
    assert channel.receive() == (wire.Beat(), 300_000)
    channel.skip_payload()
    assert channel.receive() == (wire.Beat(), 0)
    feeder.join()


def test_cut_at_every_byte():
    """A connection that ends anywhere in a frame is lost, and nothing of the frame is believed."""
    short = wire.encode(wire.Recall(1), 16) + bytes(16)
    for cut in range(len(short)):
        near, far = unix_pair()
        channel = Channel(near, "peer", STALL_S)
        far.sendall(short[:cut])
        far.close()
        with pytest.raises(AcceptorLost, match="closed"):
            receive_all(channel)
        channel.close()


def test_reset(ends):
    """A connection that is reset is lost, for the reader and for the writer."""
    channel, far = ends
    channel.send(wire.Beat())
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    with pytest.raises(AcceptorLost):
        channel.receive()
    with pytest.raises(AcceptorLost):
        for _ in range(3):
            channel.send(wire.Beat())


def lost_within_the_limit(act: Callable[[], object]) -> None:
    began = time.monotonic()
    with pytest.raises(AcceptorLost, match=r"stood still for 0\.15 s"):
        act()
    assert time.monotonic() - began < 20 * STALL_S


@pytest.mark.parametrize("nbytes", [1, wire.HEADER.size, wire.HEADER.size + 1, len(FRAME) - len(PAYLOAD), len(FRAME) - 1])
def test_stall(ends, nbytes):
    """A peer that falls silent within a frame is lost when the time is up, and not later."""
    channel, far = ends
    far.sendall(FRAME[:nbytes])
    lost_within_the_limit(lambda: receive_all(channel))


def test_dripping_message(ends):
    """A peer that sends a byte now and then, for ever, is lost too."""
    channel, far = ends
    stop = threading.Event()

    def drip() -> None:
        for byte in wire.encode(wire.Bye("x" * 1000)):
            if stop.wait(STALL_S / 5):
                return
            far.sendall(bytes([byte]))

    dripping = threading.Thread(target=drip)
    dripping.start()
    lost_within_the_limit(channel.receive)
    stop.set()
    dripping.join()


def test_dripping_payload(ends):
    """The same within a payload."""
    channel, far = ends
    far.sendall(FRAME[: len(FRAME) - len(PAYLOAD)])
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(STALL_S / 5):
            far.sendall(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    lost_within_the_limit(lambda: receive_all(channel))
    stop.set()
    dripping.join()


def test_peer_that_does_not_read(ends):
    """A peer that takes nothing is lost when the time is up."""
    channel, _ = ends
    payload = memoryview(bytes(64 << 20))
    lost_within_the_limit(lambda: channel.send(wire.Beat(), [payload], len(payload)))


def test_waiting_for_a_frame_to_begin_is_not_stalling(ends):
    """Nothing is read before the caller asks: an idle connection is not lost."""
    channel, far = ends
    time.sleep(STALL_S * 1.5)
    far.sendall(BEAT)
    assert channel.receive() == (wire.Beat(), 0)


@pytest.mark.parametrize("claim", [(wire.MAX_MESSAGE, 0), (100, wire.MAX_PAYLOAD)])
def test_claimed_sizes_cost_nothing(ends, claim):
    """Memory is taken for what has come, not for what a header says will come."""
    channel, far = ends
    far.sendall(wire.HEADER.pack(wire.MAGIC, *claim) + bytes(100))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((AcceptorLost, FrameError)):
        channel.receive()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10
    assert len(channel._buffer) <= 2 * ROOM


@pytest.mark.parametrize("nbytes", [len(PAYLOAD) + 1, 1 << 20])
def test_payload_shorter_than_its_message_says(ends, nbytes):
    """More than the header's payload is never read: the next frame is not taken for pages."""
    channel, far = ends
    far.sendall(FRAME + BEAT)
    channel.receive()
    with pytest.raises(FrameError, match="shorter"):
        channel.payload_into(memoryview(bytearray(nbytes)))


def test_payload_longer_than_its_message_says(ends):
    """A payload of which a part was left is not read as a frame."""
    channel, far = ends
    far.sendall(FRAME + BEAT)
    channel.receive()
    channel.payload_into(memoryview(bytearray(len(PAYLOAD) - 1)))
    with pytest.raises(FrameError, match="not taken"):
        channel.receive()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_garbage(garbage):
    """Any bytes at all are an answer that can be read, a lost connection, or a FrameError."""
    near, far = unix_pair()
    channel = Channel(near, "peer", STALL_S)
    far.sendall(garbage)
    far.close()
    try:
        while True:
            receive_all(channel)
    except (AcceptorLost, FrameError) as error:
        assert "\n" not in str(error)
    finally:
        channel.close()
