"""Frames over one stream socket.

One reader and one writer, both in one thread. A frame that has begun must go on: a peer that stalls inside one for
STALL_S, or drips, is lost. Waiting for a frame to begin is the caller's (poll `fileno`, ask `buffered` first).
Every failure of the connection is AcceptorLost or FrameError; after either the channel is dead.
"""

import socket
import struct
import time
from collections.abc import Iterable

from radium.core import wire
from radium.errors import AcceptorLost, FrameError

STALL_S = 5.0
# What one recv of the receive buffer asks for: a frame without payload in one system call.
ROOM = 1 << 16
# TCP sizes its buffers by itself; a local socket's hold 208 KiB unless told, and the two ends then take turns.
LOCAL_BUFFER_NBYTES = 4 << 20


class Channel:
    def __init__(self, sock: socket.socket, peer: str, stall_s: float = STALL_S) -> None:
        self.sock = sock
        self.peer = peer
        self.stall_s = stall_s
        sock.setblocking(True)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
        elif sock.family == socket.AF_UNIX:
            for direction in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, direction, LOCAL_BUFFER_NBYTES)
        timeout = struct.pack("ll", int(stall_s), int(stall_s % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        self._buffer = bytearray(ROOM)
        self._view = memoryview(self._buffer)
        self._first = self._last = 0
        self._payload_left = 0
        self.sent_nbytes = 0
        self.received_nbytes = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def buffered(self) -> bool:
        """Whether bytes of a next frame have been read already."""
        return self._last > self._first

    def send(self, message: wire.Message, payload: Iterable[memoryview] = (), payload_nbytes: int = 0) -> None:
        """payload: pieces of payload_nbytes in all; each is sent before the next is asked for."""
        head = wire.encode(message, payload_nbytes)
        pieces = iter(payload)
        first = next(pieces, None)
        if first is None:
            self._send_all(head)
        else:
            self._send_two(head, first)
            for piece in pieces:
                self._send_all(piece)
        self.sent_nbytes += len(head) + payload_nbytes

    def _send_two(self, head: bytes, piece: memoryview) -> None:
        try:
            done = self.sock.sendmsg([head, piece])
        except OSError as error:
            raise self._lost(error) from None
        if done < len(head):
            self._send_all(memoryview(head)[done:])
            done = len(head)
        if done < len(head) + len(piece):
            self._send_all(piece[done - len(head) :])

    def _send_all(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            began = time.monotonic()
            try:
                done = self.sock.send(view)
            except OSError as error:
                raise self._lost(error) from None
            view = view[done:]
            # A send that comes back early has waited for the peer.
            if view and done < ROOM and time.monotonic() - began > self.stall_s / 2:
                raise self._stalled()

    def _lost(self, error: OSError) -> AcceptorLost:
        if isinstance(error, (BlockingIOError, TimeoutError)):
            return self._stalled()
        return AcceptorLost(f"connection lost ({error.strerror or error})", where=self.peer)

    def _stalled(self) -> AcceptorLost:
        return AcceptorLost(f"connection lost (stood still for {self.stall_s:g} s in a frame)", where=self.peer)

    def _fill(self, wanted: int) -> None:
        """At least `wanted` bytes in the buffer, which holds them all."""
        if self._first + wanted > len(self._buffer):
            self._move_to_front()
        while self._last - self._first < wanted:
            if self._last == len(self._buffer):
                self._grow(wanted)
            upto = min(self._first + wanted, len(self._buffer))
            self._last = self._read(self._view, self._last, upto)

    def _move_to_front(self) -> None:
        kept = bytes(self._view[self._first : self._last])
        self._view[: len(kept)] = kept
        self._first, self._last = 0, len(kept)

    def _grow(self, wanted: int) -> None:
        """To twice the size at most: what a header claims costs nothing before it has come."""
        larger = bytearray(min(wanted + ROOM, 2 * len(self._buffer)))
        larger[: self._last] = self._view[: self._last]
        self._buffer, self._view = larger, memoryview(larger)

    def _read(self, view: memoryview, done: int, wanted: int) -> int:
        """Reads until `view`, which has `done` bytes, has at least `wanted`; how many it has then.

        A peer that brings neither all of them nor ROOM bytes in stall_s has stalled.
        """
        began, mark = time.monotonic(), done
        while done < wanted:
            done += self._recv(view[done:])
            if done - mark >= ROOM:
                began, mark = time.monotonic(), done
            elif done < wanted and time.monotonic() - began > self.stall_s:
                raise self._stalled()
        return done

    def _recv(self, view: memoryview) -> int:
        try:
            count = self.sock.recv_into(view)
        except OSError as error:
            raise self._lost(error) from None
        if not count:
            raise AcceptorLost("connection closed by the peer", where=self.peer)
        self.received_nbytes += count
        return count

    def receive(self) -> tuple[wire.AnyMessage, int]:
        """The next message and the size of its payload, which must be taken by `payload_into` before the next receive."""
        if self._payload_left:
            raise FrameError("the payload of the last frame was not taken")
        if self._first == self._last:
            self._first = self._last = 0
        self._fill(wire.HEADER.size)
        message_nbytes, payload_nbytes = wire.decode_header(self._view[self._first : self._first + wire.HEADER.size])
        self._fill(wire.HEADER.size + message_nbytes)
        start = self._first + wire.HEADER.size
        message = wire.decode(self._view[start : start + message_nbytes])
        self._first = start + message_nbytes
        self._payload_left = payload_nbytes
        return message, payload_nbytes

    def payload_into(self, view: memoryview) -> None:
        """Fills `view` with the next bytes of the payload."""
        wanted = len(view)
        if wanted > self._payload_left:
            raise FrameError("a payload is shorter than its message says")
        self._payload_left -= wanted
        ready = min(wanted, self._last - self._first)
        if ready:
            view[:ready] = self._view[self._first : self._first + ready]
            self._first += ready
        self._read(view, ready, wanted)

    def skip_payload(self) -> None:
        scratch = memoryview(bytearray(min(self._payload_left, ROOM)))
        while self._payload_left:
            self.payload_into(scratch[: min(self._payload_left, ROOM)])

    def close(self) -> None:
        self.sock.close()


def _keep_alive(sock: socket.socket) -> None:
    """A peer whose machine is gone is noticed within half a minute between calls too (tcp(7))."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
