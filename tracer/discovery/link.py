"""The way to an acceptor: how long a round trip takes, and how many bytes a second it carries; measured, or given."""

import re
import time
from collections.abc import Sequence

from radium.channel import Channel
from radium.core import wire
from radium.errors import AcceptorLost, FrameError, JobFailed, UsageError
from radium.tracer.acceptors import Acceptors
from radium.tracer.discovery.findings import Link

# The quickest of so many round trips has met no other work on its way.
NTRIPS = 16
# A transfer that takes so long tells of the bandwidth, not of the round trip before it.
ENOUGH_S = 0.05
_FIRST_NBYTES = 64 << 10

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_BITS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def parse_rtt(text: str) -> float:
    """Seconds, of `100us`. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|ms|us|µs|ns)", text)
    if not match or not float(match[1]) > 0:
        raise UsageError(f"--rtt {text[:40]} is no time", advice="write a number and its unit: 100us, 2ms")
    return float(match[1]) * _SECONDS[match[2]]


def parse_bandwidth(text: str) -> float:
    """Bytes a second, of `10Gbit` (a second) or `1.2GB` (a second). Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)(bit|B)(?:/s|ps)?", text)
    if not match or not float(match[1]) > 0:
        raise UsageError(
            f"--bandwidth {text[:40]} is no bandwidth", advice="write a number and its unit a second: 10Gbit, 800MB"
        )
    return float(match[1]) * _BITS[match[2]] / (8 if match[3] == "bit" else 1)


def measure(acceptors: Acceptors) -> Link:
    """Of the acceptor that answers; it is connected then. Raises JobFailed."""
    if not acceptors.try_connect() or acceptors.channel is None:
        raise JobFailed("no acceptor answers, so the link to it cannot be measured", advice="start `radium serve` there")
    channel = acceptors.channel
    try:
        rtt_s = min(_timed(channel, wire.AskNow()) for _ in range(NTRIPS))
        out, back = (_bandwidth(channel, rtt_s, is_out=is_out) for is_out in (True, False))
    except (AcceptorLost, FrameError) as error:
        raise JobFailed(f"the link to the acceptor cannot be measured: {error}") from None
    origin = "measured" if acceptors.endpoints else "this machine"
    return Link(acceptors.used[-1], rtt_s, min(out, back), origin)


def _bandwidth(channel: Channel, rtt_s: float, *, is_out: bool) -> float:
    """Bytes a second in one direction."""
    nbytes = _FIRST_NBYTES
    while True:
        payload = [memoryview(bytes(nbytes))] if is_out else []
        took_s = _timed(channel, wire.Bulk(0 if is_out else nbytes), payload)
        if took_s >= ENOUGH_S + rtt_s or nbytes >= wire.MAX_BULK:
            return nbytes / max(took_s - rtt_s, 1e-9)
        nbytes = min(nbytes * 4, wire.MAX_BULK)


def _timed(channel: Channel, question: wire.Message, payload: Sequence[memoryview] = ()) -> float:
    asked = time.monotonic()
    channel.send(question, payload, sum(len(piece) for piece in payload))
    message, _ = channel.receive()
    channel.skip_payload()
    if not isinstance(message, wire.Now | wire.Bulk):
        raise FrameError(f"{type(message).__name__} instead of an answer to a measurement", where=channel.peer)
    return time.monotonic() - asked
