"""One connection, one mirror: the acceptor's side of a session, in a process of its own.

Hello -> Welcome | Refused      AskNow -> Now      Bulk -> Bulk      Setup (no answer: a failure answers the first call)
Call -> Answer | Failed
while calls are here:  Fetch -> Pages, AskBrk -> Brk, AskClock -> Clock, AskThread -> State, Beat,
                           Recall, Discard -> Discarded
"""

import functools
import hmac
import platform
import select
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import radium
from radium.channel import Channel
from radium.core import cpu, wire
from radium.core.addr import PAGE_SIZE
from radium.core.mapping import Layout
from radium.core.pages import PageSet, Runs, intersect, pack, subtract, total, union
from radium.core.regs import Registers
from radium.dirty import can_track_by_pagemap, digest
from radium.errors import FrameError, JobFailed, RadiumError
from radium.linux import clocks, procfs
from radium.linux.signals import read_signals, signalfd
from radium.replay.mirror import Mirror, apply_delta
from radium.replay.outcome import CallFailed, Outcome
from radium.replay.run import Runner
from radium.replay.sandbox import Limits
from radium.replay.vessel import MirrorDied

Reply = TypeVar("Reply", bound=wire.Message)


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
        self.runner: Runner | None = None
        self.broken = ""
        # What the initiator said while it was asked something else.
        self._early: deque[wire.Recall | wire.Call | wire.Discard] = deque()
        self._arriving = 0  # the number of a call that is being taken up
        self._contended = PageSet()
        self._before: tuple[Layout, int] = [], 0
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
        self.channel.send(
            wire.Welcome(wire.PROTOCOL, radium.__version__, platform.release(), abilities, clocks.boot_id(), _now())
        )
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
        """Lets the calls that are here run on, or takes what the initiator says; False when that was goodbye."""
        if self.runner is not None and self.runner.calls:
            self._settle(self.runner.advance)
            if not self._is_heard():
                return True
        elif self._drains_at:
            raise Drained
        elif not self._is_heard():
            ready = {fd for fd, _ in self._poll.poll()}
            if self._signals in ready and read_signals(self._signals):
                raise Drained
            if self.channel.fileno() not in ready:
                return True
        if self._early:
            return self._hear(self._early.popleft(), None)
        return self._hear(*self.channel.receive())

    def _is_heard(self) -> bool:
        """Whether a message has come, or begun to."""
        return self.buffered or bool(select.select([self.channel.fileno()], [], [], 0)[0])

    def _hear(self, message: wire.AnyMessage, payload_nbytes: int | None) -> bool:
        """payload_nbytes: None for one whose payload has been taken already."""
        if isinstance(message, wire.Bye):
            return False
        if isinstance(message, wire.Setup):
            self._set_up(message)
        elif isinstance(message, wire.Call):
            self._begin(message, payload_nbytes)
        elif isinstance(message, wire.Recall):
            # One that met the answer on its way is for nobody.
            if self.runner is not None:
                self._settle(functools.partial(self.runner.recall, message.number))
        elif isinstance(message, wire.Discard):
            self._discard()
        elif isinstance(message, wire.AskNow):
            self.channel.send(wire.Now(_now()))
        elif isinstance(message, wire.Bulk):
            self._answer_bulk(message)
        elif isinstance(message, wire.Audit):
            self._answer_audit(message)
        else:
            raise FrameError(f"{type(message).__name__} that nobody has asked for")
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

    def _answer_bulk(self, message: wire.Bulk) -> None:
        self.channel.skip_payload()
        self.channel.send(wire.Bulk(0), [memoryview(bytes(message.back_nbytes))], message.back_nbytes)

    def _answer_audit(self, message: wire.Audit) -> None:
        if not self.mirror:
            raise FrameError("Audit before Setup")
        memory = self.mirror.vessel.memory
        pages = [page for start, end in wire.runs(message.pages) for page in range(start, end, PAGE_SIZE)]
        self.channel.send(wire.Digests(b"".join(digest(memory.read(page, PAGE_SIZE)) for page in pages)))

    # A call

    def _begin(self, call: wire.Call, payload_nbytes: int | None) -> None:
        if self.mirror is None or self.runner is None:
            self.channel.skip_payload()
            self.channel.send(wire.Failed(call.number, f"refused:{self.broken or 'no mirror'}", b"", 0.0))
            return
        if payload_nbytes is not None:
            self._synchronise(call, payload_nbytes)
        self._settle(lambda: self._start(call))

    def _start(self, call: wire.Call) -> None:
        assert self.runner is not None
        self._arriving = call.number
        self.runner.begin(call)
        self._arriving = 0

    def _settle(self, step: Callable[[], Outcome | None]) -> None:
        """Does a step of the runner's; tells the initiator how a call has ended, if one has."""
        try:
            outcome = step()
        except CallFailed as failure:
            self._fail(failure.reason)
            return
        except MirrorDied as death:
            for number in self._numbers():
                self.channel.send(wire.Failed(number, "acceptor-lost", b"", 0.0))
            raise JobFailed(f"{death}; the call runs at home") from None
        if outcome is not None:
            self._answer(outcome)

    def _answer(self, outcome: Outcome) -> None:
        mirror, runner, call = self.mirror, self.runner, outcome.call
        assert mirror is not None and runner is not None
        is_over = outcome.reason == wire.RETURNED and not runner.calls
        stacks = [Registers.unpack(thread.registers).rsp for thread in outcome.threads]
        dirty, dead = mirror.collect(
            stacks, wire.runs(call.scratch) if is_over and outcome.others_wait_again else [],
            goes_on=not is_over or len(outcome.threads) > 1,
        )
        contended = intersect(self._contended.runs, union(mirror.held.runs, dirty))
        if runner.calls:
            # The others go on with what came for them: their threads stand at home, and write nothing there.
            brought = union(outcome.brought, union(wire.runs(call.zero), wire.runs(call.pages)))
            contended = intersect(contended, brought)
        if not call.alone:
            # Where this thread goes on at home, others may look at its stack while they are here.
            contended, dead = union(contended, dead), []
        answer = wire.Answer(
            call.number, outcome.reason, outcome.tid, outcome.threads, mirror.journal, mirror.brk, pack(dirty), pack(dead),
            pack(contended), outcome.seconds,
        )  # fmt: skip
        self.channel.send(answer, mirror.contents(dirty), total(dirty))
        mirror.settle(dirty, dead)
        if contended:
            mirror.drop(contended)
        self._before = list(mirror.layout), mirror.brk
        runner.thaw()

    def _synchronise(self, call: wire.Call, payload_nbytes: int) -> None:
        """The mirror follows what home has done. Raises JobFailed."""
        mirror, runner = self.mirror, self.runner
        assert mirror is not None and runner is not None
        try:
            mirror.apply(call.delta, call.brk)
            mirror.drop(wire.runs(call.drop))
            mirror.place_zero(wire.runs(call.zero))
            mirror.place_payload(wire.runs(call.pages, payload_nbytes), self.channel.payload_into)
            mirror.expect(wire.runs(call.results))
        except OSError as error:
            self.channel.skip_payload()
            self.channel.send(wire.Failed(call.number, "refused:memory", b"", 0.0))
            raise JobFailed(f"the mirror cannot follow the tracee: {error.strerror}") from None
        # What home has now: the layout, but for what other calls here have done to it.
        self._before = apply_delta(self._before[0], call.delta) if runner.calls else list(mirror.layout), call.brk
        self._contended.add(wire.runs(call.contended))

    def _numbers(self) -> list[int]:
        """Of the calls that are here, or about to be."""
        assert self.runner is not None
        here = [call.message.number for call in self.runner.calls.values()]
        return [*here, self._arriving] if self._arriving and self._arriving not in here else here

    def _fail(self, reason: str) -> None:
        """The mirror forgets the call. Raises JobFailed when there are others in it: what is whose cannot be told."""
        mirror, runner, numbers = self.mirror, self.runner, self._numbers()
        assert mirror is not None and runner is not None
        if len(numbers) > 1:
            raise JobFailed(f"a call of several in one mirror failed ({reason})")
        self._arriving = 0
        runner.forget()
        self.channel.send(wire.Failed(numbers[0], reason, pack(mirror.undo(*self._before)), 0.0))

    def _discard(self) -> None:
        dropped: Runs = []
        if self.mirror is not None and self.runner is not None and self.runner.calls:
            self.runner.forget()
            dropped = self.mirror.undo(*self._before)
        self.channel.send(wire.Discarded(pack(dropped)))

    # What running calls need of the connection (outcome.Link)

    def fileno(self) -> int:
        return self.channel.fileno()

    @property
    def buffered(self) -> bool:
        return self.channel.buffered or bool(self._early)

    def fetch(self, address: int, end: int) -> bool:
        assert self.mirror is not None
        message, payload_nbytes = self._ask(wire.Fetch(address, end), wire.Pages)
        zero, pages = wire.runs(message.zero), wire.runs(message.pages, payload_nbytes)
        if message.address != address or subtract(union(zero, pages), [(address, end)]):
            raise FrameError("pages that nobody has asked for")
        try:
            self.mirror.place_zero(zero)
            self.mirror.place_payload(pages, self.channel.payload_into)
        except OSError as error:
            raise JobFailed(f"the mirror cannot take pages: {error.strerror}", where=f"{address:#x}") from None
        return bool(zero or pages) or address in self.mirror.held

    def home_brk(self) -> int:
        return self._ask(wire.AskBrk(), wire.Brk)[0].brk

    def clock_of(self, tid: int, clock: int) -> tuple[int, int]:
        message, _ = self._ask(wire.AskClock(tid, clock), wire.Clock)
        return message.ns, message.error

    def state_of(self, tid: int) -> wire.State:
        return self._ask(wire.AskThread(tid), wire.State)[0]

    def _ask(self, question: wire.Message, kind: type[Reply]) -> tuple[Reply, int]:
        """The answer; what comes before it is kept for later.

        Of a call that comes before it, the pages are taken at once: home does not send them again.
        """
        self.channel.send(question)
        while True:
            message, payload_nbytes = self.channel.receive()
            if isinstance(message, kind):
                return message, payload_nbytes
            if isinstance(message, wire.Call) and self.mirror is not None:
                self._synchronise(message, payload_nbytes)
            elif not isinstance(message, wire.Recall | wire.Discard):
                raise FrameError(f"{type(message).__name__} instead of {kind.__name__}")
            self._early.append(message)

    def must_drain(self) -> bool:
        if not self._drains_at and read_signals(self._signals):
            self._drains_at = time.monotonic() + DRAIN_S
        return bool(self._drains_at) and time.monotonic() > self._drains_at

    def beat(self) -> None:
        self.channel.send(wire.Beat())


def _now() -> wire.Clocks:
    return wire.Clocks(*clocks.now_ns())
