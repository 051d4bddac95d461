"""One connection, one mirror: the acceptor's side of a session, in a process of its own.

    Hello -> Welcome | Refused      Setup (no answer: a failure answers the first call)      Call -> Answer | Failed
    during a call:  Fetch -> Pages, AskBrk -> Brk, Recall, Beat
"""

import hmac
import platform
import select
import signal
import time

import radium
from radium.channel import Channel
from radium.core import cpu, wire
from radium.core.addr import PAGE_SIZE
from radium.core.mapping import Layout
from radium.core.pages import pack, total
from radium.dirty import can_track_by_pagemap, digest
from radium.errors import FrameError, JobFailed, RadiumError
from radium.linux import procfs
from radium.linux.signals import read_signals, signalfd
from radium.replay.mirror import Mirror
from radium.replay.run import CallFailed, Runner
from radium.replay.sandbox import Limits
from radium.replay.vessel import MirrorDied


class Drained(Exception):
    """The acceptor is shutting down and nothing is running."""


# How long a call may go on when the acceptor drains; then it is sent home. Arbitrary: service managers wait longer.
DRAIN_S = 5.0


class Session:
    def __init__(self, channel: Channel, token: str | None, limits: Limits) -> None:
        self.channel = channel
        self.token = token
        self.limits = limits
        self.mirror: Mirror | None = None
        self.broken = ""
        self.recalled = False
        self._drains_at = 0.0  # when a running call is sent home because the acceptor drains; 0: it does not
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        self._signals = signalfd([signal.SIGTERM])
        self._poll = select.poll()
        self._poll.register(self._signals, select.POLLIN)
        self._poll.register(channel.fileno(), select.POLLIN)

    def serve(self) -> None:
        """Until the initiator leaves or the acceptor drains. Raises AcceptorLost when the connection breaks."""
        try:
            if not self._welcome():
                return
            while self._serve_one():
                pass
        except Drained:
            self.channel.send(wire.Bye("draining"))
        except FrameError as error:
            self.channel.send(wire.Refused(str(error)))
            raise
        finally:
            if self.mirror:
                self.mirror.close()

    # The handshake

    def _welcome(self) -> bool:
        message, _ = self.channel.receive()
        if not isinstance(message, wire.Hello):
            raise FrameError(f"{type(message).__name__} instead of Hello")
        refusal = self._refusal(message)
        if refusal:
            self.channel.send(refusal)
            return False
        abilities = ["pagemap"] if can_track_by_pagemap() else []
        self.channel.send(wire.Welcome(wire.PROTOCOL, radium.__version__, platform.release(), abilities))
        return True

    def _refusal(self, hello: wire.Hello) -> wire.Refused | None:
        if self.token is not None and not hmac.compare_digest(hello.token.encode(), self.token.encode()):
            return wire.Refused("the token is missing or wrong", "give --token-file with the acceptor's token")
        if hello.protocol != wire.PROTOCOL:
            theirs, ours = f"{hello.radium}, protocol {hello.protocol}", f"{radium.__version__}, {wire.PROTOCOL}"
            return wire.Refused(f"another version ({theirs}; here {ours})", "install the same radium on both machines")
        if hello.page_size != PAGE_SIZE:
            return wire.Refused(f"a page size of {hello.page_size} bytes instead of {PAGE_SIZE}")
        missing = cpu.lacking(hello.cpu, cpu.usable(procfs.cpu_flags()))
        if missing:
            return wire.Refused(f"this CPU lacks {', '.join(missing)}", "use an acceptor with at least the initiator's CPU")
        return None

    # Messages

    def _serve_one(self) -> bool:
        if self._drains_at:
            raise Drained
        if not self.channel.buffered:
            ready = {fd for fd, _ in self._poll.poll()}
            if self._signals in ready and read_signals(self._signals):
                raise Drained
            if self.channel.fileno() not in ready:
                return True
        message, payload_nbytes = self.channel.receive()
        if isinstance(message, wire.Bye):
            return False
        if isinstance(message, wire.Setup):
            self._set_up(message)
        elif isinstance(message, wire.Call):
            self._run(message, payload_nbytes)
        elif isinstance(message, wire.Audit):
            self._answer_audit(message)
        elif not isinstance(message, wire.Recall):  # a recall that met the answer on its way
            raise FrameError(f"{type(message).__name__} outside of a call")
        return True

    def _set_up(self, setup: wire.Setup) -> None:
        if self.mirror:
            raise FrameError("a second Setup")
        try:
            self.mirror = Mirror(setup, self.limits)
        except (RadiumError, OSError) as error:
            self.broken = str(error)
            return
        self.runner = Runner(self.mirror, self)

    def _answer_audit(self, message: wire.Audit) -> None:
        if not self.mirror:
            raise FrameError("Audit before Setup")
        memory = self.mirror.vessel.memory
        pages = [page for start, end in wire.runs(message.pages) for page in range(start, end, PAGE_SIZE)]
        self.channel.send(wire.Digests(b"".join(digest(memory.read(page, PAGE_SIZE)) for page in pages)))

    # A call

    def _run(self, call: wire.Call, payload_nbytes: int) -> None:
        if not self.mirror:
            self.channel.skip_payload()
            self.channel.send(wire.Failed(call.number, f"refused:{self.broken or 'no mirror'}", b"", 0.0))
            return
        try:
            self._synchronise(call, payload_nbytes)
        except OSError as error:
            self.channel.skip_payload()
            self.channel.send(wire.Failed(call.number, "refused:memory", b"", 0.0))
            raise JobFailed(f"the mirror cannot follow the tracee: {error.strerror}") from None
        layout, brk = list(self.mirror.layout), self.mirror.brk
        self.recalled = False
        started = time.monotonic()
        try:
            outcome = self.runner.run(call)
        except CallFailed as failure:
            self._fail(call, failure.reason, layout, brk, time.monotonic() - started)
            return
        except MirrorDied as death:
            self.channel.send(wire.Failed(call.number, "acceptor-lost", b"", time.monotonic() - started))
            raise JobFailed(f"{death}; the call runs at home") from None
        seconds = time.monotonic() - started
        in_middle = outcome.reason != wire.RETURNED
        dirty, dead = self.mirror.collect(outcome.regs.rsp, wire.runs(call.scratch), in_middle=in_middle)
        answer = wire.Answer(
            call.number, outcome.reason, outcome.regs.pack(), outcome.xstate, self.mirror.journal, self.mirror.brk,
            pack(dirty), pack(dead), seconds,
        )  # fmt: skip
        self.channel.send(answer, self.mirror.contents(dirty), total(dirty))
        self.mirror.settle(dirty, dead)

    def _synchronise(self, call: wire.Call, payload_nbytes: int) -> None:
        mirror = self.mirror
        assert mirror is not None
        mirror.apply(call.delta, call.brk)
        mirror.drop(wire.runs(call.drop))
        mirror.place_zero(wire.runs(call.zero))
        mirror.place_payload(wire.runs(call.pages, payload_nbytes), self.channel.payload_into)

    def _fail(self, call: wire.Call, reason: str, layout: Layout, brk: int, seconds: float) -> None:
        assert self.mirror is not None
        dropped = self.mirror.undo(layout, brk)
        self.channel.send(wire.Failed(call.number, reason, pack(dropped), seconds))

    # What a running call needs of the connection (run.Link)

    def fileno(self) -> int:
        return self.channel.fileno()

    @property
    def buffered(self) -> bool:
        return self.channel.buffered or self.recalled

    def fetch(self, address: int, end: int) -> bool:
        assert self.mirror is not None
        self.channel.send(wire.Fetch(address, end))
        message, payload_nbytes = self._answer()
        if not isinstance(message, wire.Pages) or message.address != address:
            raise FrameError(f"{type(message).__name__} instead of Pages")
        zero, pages = wire.runs(message.zero), wire.runs(message.pages, payload_nbytes)
        self.mirror.place_zero(zero)
        self.mirror.place_payload(pages, self.channel.payload_into)
        return bool(zero or pages)

    def _answer(self) -> tuple[wire.AnyMessage, int]:
        """The answer to a question of ours; a recall that comes before it is remembered."""
        while True:
            message, payload_nbytes = self.channel.receive()
            if not isinstance(message, wire.Recall):
                return message, payload_nbytes
            self.recalled = True

    def home_brk(self) -> int:
        self.channel.send(wire.AskBrk())
        message, _ = self._answer()
        if not isinstance(message, wire.Brk):
            raise FrameError(f"{type(message).__name__} instead of Brk")
        return message.brk

    def must_drain(self) -> bool:
        if not self._drains_at and read_signals(self._signals):
            self._drains_at = time.monotonic() + DRAIN_S
        return bool(self._drains_at) and time.monotonic() > self._drains_at

    def attend(self) -> bool:
        if self.recalled:
            return True
        message, _ = self.channel.receive()
        if not isinstance(message, wire.Recall):
            raise FrameError(f"{type(message).__name__} during a call")
        return True

    def beat(self) -> None:
        self.channel.send(wire.Beat())


