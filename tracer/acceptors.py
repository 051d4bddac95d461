"""Where calls can go: the connection to an acceptor, found, lost and found again.

Connecting never takes long: a call that finds no connection runs at home, and the next attempt is made later.
"""

import functools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import radium
from radium.channel import Channel
from radium.core import cpu, wire
from radium.core.addr import PAGE_SIZE
from radium.errors import AcceptorLost, AcceptorRefused, FrameError, RadiumError
from radium.linux import clocks, procfs
from radium.tracer.cost import Link

CONNECT_S = 0.3
# Between attempts: short enough that an acceptor which comes back is used soon, long enough to cost nothing.
RETRY_S, LONGEST_RETRY_S = 0.25, 8.0
# More than a question and its answer take; time namespaces that are used differ by more (a container that was moved).
SAME_CLOCK_NS = 1_000_000_000
# The quickest of so many answers has met no other work on its way. Arbitrary.
NQUESTIONS = 8

Say = Callable[[str], None]
Endpoint = tuple[str, int]


class _Private:
    """An acceptor of this machine for one job: it gets its connections from us, and ends when we do."""

    def __init__(self) -> None:
        self._control: socket.socket | None = None

    def connect(self) -> Channel:
        """Raises OSError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._pass(theirs)
            except OSError:
                # It has been killed.
                self._control = None
                self._pass(theirs)
        return Channel(ours, "private acceptor")

    def _pass(self, connection: socket.socket) -> None:
        self._control = self._control or _start_private()
        socket.send_fds(self._control, [b"."], [connection.fileno()])


def _start_private() -> socket.socket:
    ours, theirs = socket.socketpair()
    with theirs:
        os.set_inheritable(theirs.fileno(), True)
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", "-m", "radium", "serve", "--connections-fd", str(theirs.fileno())],
            os.environ,
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
        )
    return ours


@dataclass
class _Shared:
    """What the sessions of a job share. said: what was said last of an acceptor that is not there, until one is.

    links: what calls have told of the way to each acceptor, by name.
    """

    cpu: list[str]
    used: list[str] = field(default_factory=list)
    private: _Private = field(default_factory=_Private)
    said: str = ""
    links: dict[str, Link] = field(default_factory=dict)


class Acceptors:
    """One session's connection; `endpoints` are tried in order, none means a private acceptor."""

    def __init__(self, endpoints: Sequence[Endpoint], token: str, say: Say, shared: _Shared | None = None) -> None:
        """shared: what other sessions of the same job have (see `another`)."""
        self.endpoints = list(endpoints)
        self.token = token
        self.say = say
        self.channel: Channel | None = None
        self.generation = 0
        self.link = Link()
        self.clocks = wire.SAME_CLOCKS  # what ours are ahead of the acceptor's
        self._retry_s = RETRY_S
        self._next_try = 0.0
        self._shared = shared or _Shared(cpu.usable(procfs.cpu_flags()))

    @property
    def used(self) -> list[str]:
        """The acceptors that the job's sessions have used, by name."""
        return self._shared.used

    def another(self) -> "Acceptors":
        """For one more session; not connected yet."""
        return Acceptors(self.endpoints, self.token, self.say, self._shared)

    # Connecting

    def try_connect(self) -> bool:
        """One attempt, if it is time for one; whether there is a connection now."""
        if self.channel is not None:
            return True
        if time.monotonic() < self._next_try:
            return False
        why = "no acceptor is named"
        for name, connect in self._ways():
            try:
                self._use(name, connect())
            except (RadiumError, OSError) as error:
                why = str(error) if isinstance(error, RadiumError) else f"{name}: {error.strerror or error}"
                self._slow_down(refused=isinstance(error, (AcceptorRefused, FrameError)))
            else:
                return True
        if why != self._shared.said:
            self.say(f"no acceptor: {why}; calls run at home until there is one")
            self._shared.said = why
        return False

    def _ways(self) -> list[tuple[str, Callable[[], Channel]]]:
        if not self.endpoints:
            return [("private", self._shared.private.connect)]
        return [(f"{host}:{port}", functools.partial(_connect, (host, port))) for host, port in self.endpoints]

    def _slow_down(self, *, refused: bool) -> None:
        """A peer that says no will say it again; one that is not there may be back any moment."""
        self._retry_s = min(self._retry_s * 2, LONGEST_RETRY_S) if refused else RETRY_S
        self._next_try = time.monotonic() + self._retry_s

    def _use(self, name: str, channel: Channel) -> None:
        try:
            self.clocks = _shake_hands(channel, self.token, self._shared.cpu)
        except RadiumError:
            channel.close()
            raise
        self.channel = channel
        self.link = self._shared.links.setdefault(name, Link())
        self.generation += 1
        if self._shared.said:
            self.say(f"acceptor {name} is used")
        self._shared.said, self._retry_s = "", RETRY_S
        if name not in self.used:
            self.used.append(name)

    # Losing

    def lose(self, why: str, *, is_there: bool = False) -> None:
        """The connection is of no use any more. is_there: the acceptor is not gone, and may be asked at once."""
        if self.channel is None:
            return
        self.channel.close()
        self.channel = None
        self._next_try = time.monotonic() + (0 if is_there else RETRY_S)
        self._shared.said = why
        self.say(f"acceptor lost: {why}; calls run at home until there is one")

    def close(self) -> None:
        if self.channel is not None:
            try:
                self.channel.send(wire.Bye())
            except AcceptorLost:
                # It is gone already, which is what we were about to ask for.
                self.channel.close()
                self.channel = None
                return
            self.channel.close()
            self.channel = None


def _connect(endpoint: Endpoint) -> Channel:
    return Channel(socket.create_connection(endpoint, timeout=CONNECT_S), f"acceptor {endpoint[0]}:{endpoint[1]}")


def _shake_hands(channel: Channel, token: str, flags: list[str]) -> wire.Clocks:
    """What our clocks are ahead of the acceptor's. Raises AcceptorRefused with its reason, AcceptorLost, FrameError."""
    channel.send(wire.Hello(wire.PROTOCOL, radium.__version__, token, PAGE_SIZE, flags))
    message, _ = channel.receive()
    if isinstance(message, wire.Refused):
        raise AcceptorRefused(f"it refuses: {message.reason}", where=channel.peer, advice=message.advice)
    if not isinstance(message, wire.Welcome):
        raise FrameError(f"{type(message).__name__} instead of Welcome", where=channel.peer)
    if message.protocol != wire.PROTOCOL:
        raise AcceptorRefused(
            f"it speaks protocol {message.protocol}, we speak {wire.PROTOCOL}", where=channel.peer,
            advice="install the same radium on both machines",
        )  # fmt: skip
    ours, theirs = _now(), message.clocks
    furthest = max(abs(ours.monotonic - theirs.monotonic), abs(ours.boottime - theirs.boottime))
    # One kernel has one clock, if no time namespace makes two of it.
    return wire.SAME_CLOCKS if message.boot == clocks.boot_id() and furthest < SAME_CLOCK_NS else _compare_clocks(channel)


def _compare_clocks(channel: Channel) -> wire.Clocks:
    """By the middle of the quickest of some questions and answers, half of which it may be wrong."""
    tries = []
    for _ in range(NQUESTIONS):
        asked = _now()
        channel.send(wire.AskNow())
        message, _ = channel.receive()
        answered = _now()
        if not isinstance(message, wire.Now):
            raise FrameError(f"{type(message).__name__} instead of Now", where=channel.peer)
        monotonic = (asked.monotonic + answered.monotonic) // 2 - message.clocks.monotonic
        boottime = (asked.boottime + answered.boottime) // 2 - message.clocks.boottime
        tries.append((answered.monotonic - asked.monotonic, wire.Clocks(monotonic, boottime)))
    return min(tries, key=lambda taken: taken[0])[1]


def _now() -> wire.Clocks:
    return wire.Clocks(*clocks.now_ns())
