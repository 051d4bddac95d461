"""A session: one tracee, its mirror, and the life of a call in numbered steps (DESIGN.md 3).

    1 trap      the thread stops at the entry and the guard has passed             `_on_trap`
    2 settle    the other threads stop                                             `_call`
    3 delta     layout and pages that the mirror lacks                             `_prepare`
    4 send      one frame                                                          `_send`
    5 run       the mirror runs; we serve its page-ins                             `_await`
    6 return    the whole answer arrives                                           `_take`
    7 commit    it is checked and done to the tracee                               `_commit`

Whatever fails before 7, the call runs at home (`_run_at_home`), with its reason counted.
"""

import os
import select
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from radium.channel import Channel
from radium.core import wire
from radium.core.addr import PAGE_SIZE
from radium.core.mapping import LayoutDelta
from radium.core.pages import PageSet, Runs, intersect, normalise, npages, pack, subtract, total, union
from radium.core.regs import NO_SYSCALL, Registers
from radium.dirty import digest
from radium.errors import AcceptorLost, Conflict, FrameError, JobFailed, NotPossible, RemoteFault, TraceeGone
from radium.linux import ptrace, vm
from radium.linux.signals import name as signal_name
from radium.tracer import commit, tracee_signals
from radium.tracer.acceptors import Acceptors
from radium.tracer.breakpoint import Breakpoint
from radium.tracer.ledger import CommitRecord
from radium.tracer.nesting import Nesting
from radium.tracer.split import Split
from radium.tracer.stops import Stop
from radium.tracer.tracee import Tracee
from radium.tracer.wakeups import Wakeups

# While a call is away: how often we look for signals of the tracee's, and how long an acceptor may be silent.
LOOK_S, SILENCE_S = 0.02, 5.0
# Beyond the call's own deadline, which the acceptor keeps.
GRACE_S = 2.0


class AtHome(Exception):
    """The call runs at home; `reason` is a word of INTERFACE.md."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass
class Away:
    """A call that has left."""

    number: int
    tid: int
    split: Split
    regs: Registers
    xstate: bytes
    return_address: int
    started: float
    sent_npages: int = 0
    paged_in: int = 0
    out_nbytes: int = 0
    back_nbytes: int = 0


class PagesLeft(NamedTuple):
    """[start, end), and the path of the mapping."""

    start: int
    end: int
    mapping: str


class Prepared(NamedTuple):
    """Step 3's result."""

    delta: LayoutDelta
    drop: Runs
    zero: Runs
    pages: Runs
    scratch: Runs


class Session:
    """Calls of one tracee. `wakeups`: a descriptor that is readable when a child stopped or we are told to end."""

    def __init__(self, tracee: Tracee, acceptors: Acceptors, wakeups: Wakeups, call_timeout_s: float) -> None:
        self.tracee = tracee
        self.acceptors = acceptors
        self.wakeups = wakeups
        self.call_timeout_s = call_timeout_s
        self.nesting = Nesting(tracee.threads, tracee.breakpoints)
        self.left = PageSet()
        self.audits = bool(os.environ.get("RADIUM_AUDIT"))
        self._number = 0
        self._generation = 0

    # 1 trap

    def on_trap(self, stop: Stop, point: Breakpoint, split: Split, regs: Registers) -> None:
        """A thread stopped at a split point; afterwards it is past the call, or on its way through it at home."""
        regs.rip = point.entry
        regs.orig_rax = NO_SYSCALL
        try:
            if split.profile.outermost and self.nesting.is_inside(stop.tid, regs.rsp):
                raise AtHome("nested")
            if not split.wants(stop.tid, regs):
                raise AtHome("guard")
            if self.acceptors.channel is None and not self.acceptors.try_connect():
                raise AtHome("no-acceptor")
            if self.tracee.threads.has_guests:
                raise AtHome("unsupported:vfork")
        except AtHome as answer:
            self._run_at_home(stop.tid, point, split, regs, answer.reason)
            self.tracee.threads.resume(stop.tid)
            return
        self._call(stop.tid, point, split, regs)

    def _run_at_home(self, tid: int, point: Breakpoint, split: Split, regs: Registers, reason: str) -> None:
        split.report.count_local(reason)
        self.tracee.breakpoints.pass_locally(tid, point, regs)

    # 2 settle

    def _call(self, tid: int, point: Breakpoint, split: Split, regs: Registers) -> None:
        threads = self.tracee.threads
        started = time.monotonic()
        try:
            threads.stop_all()
            if tid not in threads.threads or threads.is_over:
                return
            self.tracee.breakpoints.keep_handler(other for other in threads.threads if other != tid)
            self._try(tid, split, regs, started)
        except AtHome as answer:
            self._finish_at_home(tid, point, split, regs, answer.reason)
        except (AcceptorLost, FrameError) as error:
            self._lose(str(error))
            self._finish_at_home(tid, point, split, regs, "acceptor-lost")
        except Conflict as error:
            self._lose(str(error), is_there=True)
            self._finish_at_home(tid, point, split, regs, "conflict")
        except RemoteFault as error:
            self._lose(str(error))
            self._finish_at_home(tid, point, split, regs, "unsupported:memory")
        except NotPossible as error:
            self._lose(str(error))
            self._finish_at_home(tid, point, split, regs, "refused:seccomp")
        finally:
            threads.resume_all()

    def _finish_at_home(self, tid: int, point: Breakpoint, split: Split, regs: Registers, reason: str) -> None:
        """A call that was tried; the split calls that it makes now are part of it."""
        with suppress(RemoteFault):
            back = int.from_bytes(vm.read(self.tracee.pid, regs.rsp, 8), "little")
            self.nesting.begin(tid, regs.rsp, back, self.tracee.home.mappings)
        self._run_at_home(tid, point, split, regs, reason)

    def on_return(self, stop: Stop, point: Breakpoint, regs: Registers) -> None:
        """A thread stopped where a split call returns to that runs at home, or may do so; it goes on."""
        self.nesting.on_return(stop.tid, regs)
        self.tracee.breakpoints.pass_locally(stop.tid, point, regs)
        self.tracee.threads.resume(stop.tid)

    def _lose(self, why: str, *, is_there: bool = False) -> None:
        self.acceptors.lose(why, is_there=is_there)
        self.tracee.home.forget_mirror()

    def _try(self, tid: int, split: Split, regs: Registers, started: float) -> None:
        channel = self.acceptors.channel
        assert channel is not None
        sent, received = channel.sent_nbytes, channel.received_nbytes
        try:
            return_address = int.from_bytes(vm.read(self.tracee.pid, regs.rsp, 8), "little")
        except RemoteFault:
            raise AtHome("unsupported:stack") from None
        self._number += 1
        away = Away(self._number, tid, split, regs, ptrace.xstate(tid), return_address, started)
        prepared = self._prepare(away, channel)
        self._send(channel, away, prepared)
        answer = self._await(channel, away)
        dirty, seconds = self._commit(channel, away, *answer)
        if self.audits:
            self._audit(channel)
        away.out_nbytes, away.back_nbytes = channel.sent_nbytes - sent, channel.received_nbytes - received
        split.report.count_remote(
            away.sent_npages, away.paged_in, npages(dirty), away.out_nbytes, away.back_nbytes,
            time.monotonic() - started, seconds,
        )  # fmt: skip

    # 3 delta

    def _prepare(self, away: Away, channel: Channel) -> Prepared:
        home = self.tracee.home
        if self._generation != self.acceptors.generation:
            self._set_up(away, channel)
        delta = home.take_delta()
        volatile = home.drop_volatile()
        changed, lost = home.written()
        drop = union(lost, volatile)
        hinted = away.split.memory(away.tid, away.regs)
        scratch = home.scratch(hinted) if away.split.profile.scratch else []
        wanted = union(hinted, away.split.working_set.predict(away.regs.rsp))
        wanted = subtract(wanted, intersect(home.stale.runs, scratch))
        zero, data = home.missing(wanted)
        data = home.readable(data)
        pages = normalise([*subtract(changed, drop), *data, *home.live_stale(away.regs.rsp, scratch)])
        zero = subtract(zero, pages)
        home.hold_zero(zero)
        home.hold(subtract(pages, changed))
        return Prepared(delta, drop, zero, pages, scratch)

    def _set_up(self, away: Away, channel: Channel) -> None:
        """A new mirror: the acceptor gets the layout; the answer to the first call says if it could be built."""
        tracee = self.tracee
        tracee.watch(away.tid)
        channel.send(tracee.setup(away.tid))
        self._generation = self.acceptors.generation

    # 4 send

    def _send(self, channel: Channel, away: Away, prepared: Prepared) -> None:
        home = self.tracee.home
        nbytes = total(prepared.pages)
        away.sent_npages = nbytes // PAGE_SIZE
        message = wire.Call(
            away.number, away.regs.pack(), away.xstate, away.return_address, prepared.delta, home.brk,
            {"gettid": self.tracee.inner_tid(away.tid)}, pack(prepared.drop), pack(prepared.zero),
            pack(prepared.pages), pack(prepared.scratch), self.call_timeout_s,
        )  # fmt: skip
        self.left.add(prepared.pages)
        channel.send(message, home.contents(prepared.pages), nbytes)

    # 5 run

    def _await(self, channel: Channel, away: Away) -> tuple[wire.Returned, int]:
        """The answer, whose payload is still to be taken. Raises AtHome, AcceptorLost, FrameError, TraceeGone."""
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        poll.register(self.wakeups.fd, select.POLLIN)
        heard, next_look, recalled = time.monotonic(), away.started + LOOK_S, ""
        while True:
            ready = [] if channel.buffered else [fd for fd, _ in poll.poll(LOOK_S * 1000)]
            if channel.buffered or channel.fileno() in ready:
                message, payload_nbytes = channel.receive()
                heard = time.monotonic()
                if isinstance(message, wire.Returned):
                    return message, payload_nbytes
                self._on_message(channel, away, message, recalled)
                continue
            if ready:
                self.wakeups.read()
            now = time.monotonic()
            if ready or now >= next_look:
                self._watch_tracee()
            if now >= next_look and not recalled:
                recalled = self._why_recall(away)
                next_look = now + LOOK_S
                if recalled:
                    channel.send(wire.Recall(away.number))
            if now - heard > SILENCE_S:
                raise AcceptorLost(f"silent for {SILENCE_S:g} s", where=channel.peer)
            if now - away.started > self.call_timeout_s + GRACE_S:
                self._lose(f"{channel.peer}: a call did not end within {self.call_timeout_s:g} s")
                raise AtHome("timeout")

    def _watch_tracee(self) -> None:
        """Something stopped or ended while all threads are stopped: only an end matters now."""
        self.tracee.threads.look()
        if self.tracee.threads.exit_status is not None:
            raise TraceeGone("ended during a call", where=f"pid {self.tracee.pid}")

    def _why_recall(self, away: Away) -> str:
        if self.wakeups.wants_end:
            return "refused:detaching"
        number = tracee_signals.deliverable(self.tracee.pid, away.tid)
        return f"unsupported:signal:{signal_name(number)}" if number else ""

    def _on_message(self, channel: Channel, away: Away, message: wire.AnyMessage, recalled: str) -> None:
        if isinstance(message, wire.Fetch):
            self._page_in(channel, away, message)
        elif isinstance(message, wire.AskBrk):
            channel.send(wire.Brk(self.tracee.read_brk(away.tid)))
        elif isinstance(message, wire.Failed):
            if message.number != away.number:
                raise FrameError(f"an answer to call {message.number} instead of {away.number}")
            self.tracee.home.lose(wire.runs(message.dropped))
            raise AtHome(recalled if recalled and message.reason == "recall" else message.reason)
        elif isinstance(message, wire.Refused):
            raise AcceptorLost(message.reason, where=channel.peer, advice=message.advice)
        elif not isinstance(message, wire.Beat):
            raise FrameError(f"{type(message).__name__} during a call")

    def _page_in(self, channel: Channel, away: Away, message: wire.Fetch) -> None:
        home = self.tracee.home
        if message.address % PAGE_SIZE or not message.address < message.end <= 1 << 47:
            raise FrameError(f"a page-in of {message.address:#x}-{message.end:#x}")
        zero, data = home.missing([(message.address, message.end)])
        data = home.readable(data)
        home.hold_zero(zero)
        home.hold(data)
        nbytes = total(data)
        channel.send(wire.Pages(message.address, pack(zero), pack(data)), home.contents(data), nbytes)
        self.left.add(data)
        away.paged_in += nbytes // PAGE_SIZE + npages(zero)
        relative = away.regs.rsp if home.is_stack(message.address) else None
        for start, end in (*zero, *data):
            away.split.working_set.learn(start, end, relative_to=relative)

    # Between calls

    def pages_left(self) -> list[PagesLeft]:
        """Every page that has left the initiator in this session (invariant 6), with the mapping it lies in now."""
        return [
            PagesLeft(start, end, next((m.path for m in self.tracee.home.mappings if m.start <= start < m.end), ""))
            for start, end in self.left.runs
        ]

    def on_message(self) -> None:
        """The acceptor says something, or has gone, while no call is away."""
        channel = self.acceptors.channel
        if channel is None:
            return
        try:
            message, _ = channel.receive()
            self._lose(f"{channel.peer} ends the session" + (f" ({message.reason})" if isinstance(message, wire.Bye) else ""))
        except (AcceptorLost, FrameError) as error:
            self._lose(str(error))

    # 6 return and 7 commit

    def _commit(self, channel: Channel, away: Away, answer: wire.Returned, nbytes: int) -> tuple[Runs, float]:
        tracee, home, ledger = self.tracee, self.tracee.home, self.tracee.ledger
        if answer.number != away.number:
            raise FrameError(f"an answer to call {answer.number} instead of {away.number}")
        commit.check_size(nbytes)
        dirty = commit.check(answer, away.regs, away.xstate, home.untouchable(), home.brk, away.return_address)
        if answer.journal and tracee.remote is None:
            raise Conflict("an answer with memory calls for a tracee that lets us make none")
        stale = wire.runs(answer.stale)
        wire.runs(answer.dirty, nbytes)
        channel.payload_into(ledger.answer[:nbytes])
        tracee.keep_own(dirty)
        regs = Registers.unpack(answer.registers)
        regs.orig_rax = NO_SYSCALL
        xstate = answer.xstate if answer.xstate != away.xstate else b""
        mask = tracee.park(away.tid, away.regs)
        record = CommitRecord(away.tid, regs.pack(), xstate, answer.journal, answer.dirty, mask)
        try:
            ledger.note_commit(record)
            home.expect(dirty)
            commit.apply(record, ledger, tracee.pid, tracee.remote, tracee.memory, before_pages=lambda: self._follow(answer))
        except Exception:
            tracee.unpark(away.tid, away.regs, mask)
            raise
        finally:
            ledger.note_committed(nbytes)
            ledger.note_returned()
        home.settle(dirty, intersect(stale, home.held.runs))
        self._pass_return(away.tid, regs)
        return dirty, answer.seconds

    def _pass_return(self, tid: int, regs: Registers) -> None:
        """A call that came home stands where others returned to that ran at home: no reason to stop there."""
        point = self.tracee.breakpoints.at(regs.rip)
        if point is not None and regs.rip in self.nesting.returns:
            self.tracee.breakpoints.pass_locally(tid, point, regs)

    def _follow(self, answer: wire.Returned) -> None:
        """New mappings are watched before they are written: a written one would never merge with its neighbour again."""
        if answer.journal:
            self.tracee.home.follow(answer.journal, self.tracee.home.brk)
            self.tracee.home.brk = answer.brk

    def _audit(self, channel: Channel) -> None:
        """Recomputes invariant 3: every held page equals its twin. Raises JobFailed, which names the first that does not.

        What the kernel writes while a thread is stopped is left out: those pages are compared by nobody.
        """
        home = self.tracee.home
        runs = subtract(home.held.runs, self.tracee.kernel_pages())
        channel.send(wire.Audit(pack(runs)))
        message, _ = channel.receive()
        if not isinstance(message, wire.Digests):
            raise FrameError(f"{type(message).__name__} instead of Digests")
        theirs = iter([message.digests[i : i + 16] for i in range(0, len(message.digests), 16)])
        for start, end in runs:
            for page in range(start, end, PAGE_SIZE):
                if digest(home.page(page)) != next(theirs):
                    raise JobFailed("a held page differs from its twin", where=f"pid {self.tracee.pid}, {page:#x}")
