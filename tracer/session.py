"""A session: one tracee, its mirror, and the life of a call in numbered steps (DESIGN.md 3).

    1 trap      the thread stops at the entry and the guard has passed             `on_trap`
    2 settle    the other threads stop                                             `_begin`, `on_home_stop`
    3 delta     layout and pages that the mirror lacks                             `_prepare`
    4 send      one frame                                                          `_send`
    5 run       the mirror runs; we serve its page-ins                             `_await`
    6 return    the whole answer arrives, and is checked                           `_take`
    7 commit    it is done to the tracee                                           `_commit`
    8 home      the call is over, or goes on at home and leaves again (2)          `_go_on`

Whatever fails between 2 and 7, the call runs at home from where it last was there (`_stay_home`), its reason counted.
"""

import os
import select
import time
from contextlib import suppress
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
from radium.tracer.call import Call
from radium.tracer.leaving import Leaving
from radium.tracer.ledger import CommitRecord
from radium.tracer.nesting import Nesting
from radium.tracer.split import Split
from radium.tracer.stops import Stop
from radium.tracer.tracee import Tracee
from radium.tracer.wakeups import Wakeups

# While a call is away: how often we look for signals of the tracee's, and how long an acceptor may be silent.
LOOK_S, SILENCE_S = 0.01, 5.0
# Beyond the call's own deadline, which the acceptor keeps.
GRACE_S = 2.0
# Of its stack, by one leaving: a gigabyte by core.mapping.STACK_ROOM each.
MOST_GROWTHS = 1024
# How long a thread may take to meet a signal that waits for it.
SIGNAL_S = 0.1


class AtHome(Exception):
    """The call runs at home; `reason` is a word of INTERFACE.md."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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
    """Calls of one tracee. `wakeups`: a descriptor that is readable when a child stopped or we are told to end.

    leaving: where its functions are left by exceptions and longjmp; to be kept up to date.
    """

    def __init__(self, tracee: Tracee, acceptors: Acceptors, wakeups: Wakeups, call_timeout_s: float) -> None:
        self.tracee = tracee
        self.acceptors = acceptors
        self.wakeups = wakeups
        self.call_timeout_s = call_timeout_s
        self.leaving = Leaving()
        self.nesting = Nesting(tracee.threads, tracee.breakpoints)
        self.left = PageSet()
        self.audits = bool(os.environ.get("RADIUM_AUDIT"))
        # By thread, outermost first: calls that came home in the middle and may leave again.
        self._home: dict[int, list[Call]] = {}
        self._number = 0
        self._generation = 0

    # 1 trap

    def on_trap(self, stop: Stop, point: Breakpoint, split: Split, regs: Registers) -> None:
        """A thread stopped at a split point; afterwards it is past the call, or on its way through it at home."""
        regs.rip = point.entry
        regs.orig_rax = NO_SYSCALL
        try:
            self._check_wanted(stop.tid, split, regs)
        except AtHome as answer:
            self._run_at_home(stop.tid, point, split, regs, answer.reason)
            self.tracee.threads.resume(stop.tid)
            return
        self._begin(stop.tid, point, split, regs)

    def _check_wanted(self, tid: int, split: Split, regs: Registers) -> None:
        """Raises AtHome for a call that is not to be tried."""
        if split.profile.outermost and self._is_inside(tid, regs.rsp):
            raise AtHome("nested")
        if not split.wants(tid, regs):
            raise AtHome("guard")
        if split.profile.policy == "auto" and split.cannot_gain:
            raise AtHome("policy")
        if self.acceptors.channel is None and not self.acceptors.try_connect():
            raise AtHome("no-acceptor")
        if self.tracee.threads.has_guests:
            raise AtHome("unsupported:vfork")

    def _is_inside(self, tid: int, rsp: int) -> bool:
        while (outer := self._call_at_home(tid)) is not None and rsp >= outer.frame.rsp:
            self._note_left(outer)
        return outer is not None or self.nesting.is_inside(tid, rsp)

    def _call_at_home(self, tid: int) -> Call | None:
        """The innermost call of the thread that may leave again."""
        thread = self.tracee.threads.threads.get(tid)
        calls = self._home.get(tid, [])
        while calls and calls[-1].thread is not thread:
            # It has ended in the middle of its call, and its id is another's.
            self._note_left(calls[-1])
        return calls[-1] if calls else None

    def _run_at_home(self, tid: int, point: Breakpoint, split: Split, regs: Registers, reason: str) -> None:
        split.report.count_local(reason)
        self.tracee.breakpoints.pass_locally(tid, point, regs)

    # 2 settle

    def _begin(self, tid: int, point: Breakpoint, split: Split, regs: Registers) -> None:
        started = time.monotonic()
        self.tracee.threads.stop_all()
        if not self._is_there(tid):
            self._resume_all()
            return
        try:
            back = int.from_bytes(vm.read(self.tracee.pid, regs.rsp, 8), "little")
        except RemoteFault:
            self._run_at_home(tid, point, split, regs, "unsupported:stack")
            self._resume_all()
            return
        frame = wire.Frame(back, regs.rsp, self.leaving.set_ip, list(self.leaving.longjmps))
        thread, hinted = self.tracee.threads.threads[tid], split.memory(tid, regs)
        self._leave(Call(thread, split, point, frame, regs, ptrace.xstate(tid), hinted, started))

    def _is_there(self, tid: int) -> bool:
        return tid in self.tracee.threads.threads and not self.tracee.threads.is_over

    def _leave(self, call: Call) -> None:
        """The call leaves home; when this ends it is at home again, and all threads go on."""
        try:
            self.tracee.breakpoints.keep_handler(tid for tid in self.tracee.threads.threads if tid != call.tid)
            reason = self._go_out(call)
            while self._leaves_at_once(call, reason):
                reason = self._go_out(call)
            self._go_on(call, reason)
        except AtHome as answer:
            self._stay_home(call, answer.reason)
        except (AcceptorLost, FrameError) as error:
            self._lose(str(error))
            self._stay_home(call, "acceptor-lost")
        except Conflict as error:
            self._lose(str(error), is_there=True)
            self._stay_home(call, "conflict")
        except RemoteFault as error:
            self._lose(str(error))
            self._stay_home(call, "unsupported:memory")
        except NotPossible as error:
            self._lose(str(error))
            self._stay_home(call, "refused:seccomp")
        finally:
            self._resume_all()

    def _leaves_at_once(self, call: Call, reason: str) -> bool:
        """Whether the call came home for something that has been done by that."""
        if reason == "drain":
            self._lose("it shuts down", is_there=True)
            return self.acceptors.try_connect()
        if reason == "stack" and call.ntrips > MOST_GROWTHS:
            raise Conflict("an acceptor that sends a call home for its stack again and again")
        return reason == "stack"

    def _resume_all(self) -> None:
        """A thread at home may have come to where its call leaves again while it was borrowed, and then nothing told."""
        threads = self.tracee.threads
        for tid in self._home:
            thread = threads.threads.get(tid)
            if thread and not thread.is_running and not any(stop.tid == tid for stop in threads.pending):
                threads.pending.append(Stop(tid, "quiet"))
        threads.resume_all()

    def _lose(self, why: str, *, is_there: bool = False) -> None:
        self.acceptors.lose(why, is_there=is_there)
        self.tracee.home.forget_mirror()

    def _go_out(self, call: Call) -> str:
        """Steps 3 to 7. Why the call is at home again: RETURNED or a reason. Whatever is raised, it never left."""
        channel = self.acceptors.channel
        if channel is None:
            raise AcceptorLost("no acceptor any more")
        sent, received = channel.sent_nbytes, channel.received_nbytes
        self._number += 1
        call.number, call.left, call.recalled = self._number, time.monotonic(), ""
        prepared = self._prepare(call, channel)
        self._send(channel, call, prepared)
        answer, nbytes = self._await(channel, call)
        dirty = self._take(channel, call, answer, nbytes)
        self._commit(call, answer, dirty, nbytes)
        if self.audits:
            self._audit(channel)
        call.written_back += npages(dirty)
        call.out_nbytes += channel.sent_nbytes - sent
        call.back_nbytes += channel.received_nbytes - received
        call.mirror_s += answer.seconds
        is_trip = answer.reason != wire.RETURNED
        call.split.note_leg(time.monotonic() - call.left, answer.seconds, is_trip=is_trip)
        reason = call.recalled if answer.reason == "recall" and call.recalled else answer.reason
        if is_trip:
            call.split.report.count_trip(reason)
            call.come_home(reason)
        return reason

    # 8 home

    def _go_on(self, call: Call, reason: str) -> None:
        """The call is at home: because it is over, or in its middle; then it may leave again from where `Call` says."""
        kind = reason.partition(":")[0]
        if kind in (wire.RETURNED, "exception", "longjmp"):
            self._pass_return(call.tid, call.regs)
            self._count_remote(call)
        elif kind not in ("syscall", "signal", "fault"):
            self._stay_home(call, "refused:draining" if kind == "drain" else reason)
        elif call.split.profile.policy == "auto" and call.split.cannot_gain:
            self._stay_home(call, "policy")
        else:
            if call.regs.rip == call.point.entry:
                # It came home before its first instruction, under which the breakpoint lies.
                self.tracee.breakpoints.pass_locally(call.tid, call.point, call.regs.copy())
            self._home.setdefault(call.tid, []).append(call)
            call.thread.traces_syscalls = True
            if kind == "signal":
                self.tracee.threads.resume_alone(call.tid, SIGNAL_S)

    def _count_remote(self, call: Call) -> None:
        call.split.report.count_remote(
            call.sent_npages, call.paged_in, call.written_back, call.out_nbytes, call.back_nbytes,
            time.monotonic() - call.started, call.mirror_s,
        )  # fmt: skip

    def _stay_home(self, call: Call, reason: str) -> None:
        """The rest of the call runs at home; the split calls that it makes there are part of it."""
        with suppress(RemoteFault):
            self.nesting.begin(call.tid, call.frame.rsp, call.frame.back, self.tracee.home.mappings)
        if call.ntrips:
            call.split.report.count_local(reason)
        else:
            self._run_at_home(call.tid, call.point, call.split, call.regs, reason)

    def on_home_stop(self, stop: Stop) -> bool:
        """A thread stopped whose call is at home; False: for nothing that has to do with the call."""
        call = self._call_at_home(stop.tid) if stop.kind in ("syscall", "quiet") else None
        if call is None or call.thread.is_group_stopped:
            return False
        regs = ptrace.registers(stop.tid)
        is_behind = stop.kind == "syscall" and bool(stop.detail)
        if call.may_leave(regs, behind_syscall=is_behind):
            self._leave_again(call, regs)
            return True
        if call.has_ended(regs.rsp):
            self._note_left(call)
        elif stop.kind == "syscall" and not is_behind:
            call.enters_syscall(regs)
        self.tracee.threads.resume(stop.tid)
        return True

    def _leave_again(self, call: Call, regs: Registers) -> None:
        threads = self.tracee.threads
        self._let_be(call)
        threads.stop_all()
        if not self._is_there(call.tid):
            self._resume_all()
            return
        call.leave_from(regs)
        why_not = self._why_stay()
        if why_not:
            self._stay_home(call, why_not)
            self._resume_all()
        else:
            self._leave(call)

    def _why_stay(self) -> str:
        if self.wakeups.wants_end:
            return "refused:detaching"
        if self.tracee.threads.has_guests:
            return "unsupported:vfork"
        return "" if self.acceptors.channel is not None or self.acceptors.try_connect() else "no-acceptor"

    def _note_left(self, call: Call) -> None:
        """The thread has left the function at home, unseen: by a longjmp out of a handler, say."""
        self._let_be(call)
        call.split.report.count_local(f"unsupported:{call.home_reason}")

    def _let_be(self, call: Call) -> None:
        """The call, the innermost of its thread, is watched no more."""
        calls = self._home[call.tid]
        calls.remove(call)
        call.thread.traces_syscalls = any(other.thread is call.thread for other in calls)
        if not calls:
            del self._home[call.tid]

    def end(self, reason: str = "") -> None:
        """No call leaves any more; those that are at home in their middle stay there, for that reason if there is one."""
        for call in [call for calls in self._home.values() for call in calls]:
            self._let_be(call)
            call.split.report.count_local(reason or f"unsupported:{call.home_reason}")

    def on_return(self, stop: Stop, point: Breakpoint, regs: Registers) -> None:
        """A thread stopped where a split call returns to that runs at home, or may do so; it goes on."""
        self.nesting.on_return(stop.tid, regs)
        self.tracee.breakpoints.pass_locally(stop.tid, point, regs)
        self.tracee.threads.resume(stop.tid)

    # 3 delta

    def _prepare(self, call: Call, channel: Channel) -> Prepared:
        home = self.tracee.home
        if self._generation != self.acceptors.generation:
            self._set_up(call, channel)
        delta = home.take_delta()
        volatile = home.drop_volatile()
        changed, lost = home.written()
        drop = union(lost, volatile)
        scratch = home.scratch(call.hinted) if call.split.profile.scratch else []
        wanted = union(call.hinted, call.split.working_set.predict(call.frame.rsp))
        wanted = subtract(wanted, intersect(home.stale.runs, scratch))
        zero, data = home.missing(wanted)
        data = home.readable(data)
        pages = normalise([*subtract(changed, drop), *data, *home.live_stale(call.regs.rsp, scratch)])
        zero = subtract(zero, pages)
        home.hold_zero(zero)
        home.hold(subtract(pages, changed))
        return Prepared(delta, drop, zero, pages, scratch)

    def _set_up(self, call: Call, channel: Channel) -> None:
        """A new mirror: the acceptor gets the layout; the answer to the first call says if it could be built."""
        tracee = self.tracee
        tracee.watch(call.tid)
        channel.send(tracee.setup(call.tid))
        self._generation = self.acceptors.generation

    # 4 send

    def _send(self, channel: Channel, call: Call, prepared: Prepared) -> None:
        home = self.tracee.home
        nbytes = total(prepared.pages)
        call.sent_npages += nbytes // PAGE_SIZE
        message = wire.Call(
            call.number, call.regs.pack(), call.xstate, call.frame, prepared.delta, home.brk,
            {"gettid": self.tracee.inner_tid(call.tid)}, pack(prepared.drop), pack(prepared.zero),
            pack(prepared.pages), pack(prepared.scratch), self.call_timeout_s,
        )  # fmt: skip
        self.left.add(prepared.pages)
        channel.send(message, home.contents(prepared.pages), nbytes)

    # 5 run

    def _await(self, channel: Channel, call: Call) -> tuple[wire.Answer, int]:
        """The answer, whose payload is still to be taken. Raises AtHome, AcceptorLost, FrameError, TraceeGone."""
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        poll.register(self.wakeups.fd, select.POLLIN)
        heard, next_look = time.monotonic(), call.left + LOOK_S
        while True:
            ready = [] if channel.buffered else [fd for fd, _ in poll.poll(LOOK_S * 1000)]
            if channel.buffered or channel.fileno() in ready:
                message, payload_nbytes = channel.receive()
                heard = time.monotonic()
                if isinstance(message, wire.Answer):
                    return message, payload_nbytes
                self._on_message(channel, call, message)
                continue
            if ready:
                self.wakeups.read()
            now = time.monotonic()
            if ready or now >= next_look:
                self._watch_tracee()
            if now >= next_look and not call.recalled:
                call.recalled = self._why_recall(call)
                next_look = now + LOOK_S
                if call.recalled:
                    channel.send(wire.Recall(call.number))
            if now - heard > SILENCE_S:
                raise AcceptorLost(f"silent for {SILENCE_S:g} s", where=channel.peer)
            if now - call.left > self.call_timeout_s + GRACE_S:
                self._lose(f"{channel.peer}: a call did not end within {self.call_timeout_s:g} s")
                raise AtHome("timeout")

    def _watch_tracee(self) -> None:
        """Something stopped or ended while all threads are stopped: only an end matters now."""
        self.tracee.threads.look()
        if self.tracee.threads.exit_status is not None:
            raise TraceeGone("ended during a call", where=f"pid {self.tracee.pid}")

    def _why_recall(self, call: Call) -> str:
        if self.wakeups.wants_end:
            return "refused:detaching"
        number = tracee_signals.deliverable(self.tracee.pid, call.tid)
        return f"signal:{signal_name(number)}" if number else ""

    def _on_message(self, channel: Channel, call: Call, message: wire.AnyMessage) -> None:
        if isinstance(message, wire.Fetch):
            self._page_in(channel, call, message)
        elif isinstance(message, wire.AskBrk):
            channel.send(wire.Brk(self.tracee.read_brk(call.tid)))
        elif isinstance(message, wire.Failed):
            if message.number != call.number:
                raise FrameError(f"an answer to call {message.number} instead of {call.number}")
            self.tracee.home.lose(wire.runs(message.dropped))
            raise AtHome(message.reason)
        elif isinstance(message, wire.Refused):
            raise AcceptorLost(message.reason, where=channel.peer, advice=message.advice)
        elif not isinstance(message, wire.Beat):
            raise FrameError(f"{type(message).__name__} during a call")

    def _page_in(self, channel: Channel, call: Call, message: wire.Fetch) -> None:
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
        call.paged_in += nbytes // PAGE_SIZE + npages(zero)
        relative = call.frame.rsp if home.is_stack(message.address) else None
        for start, end in (*zero, *data):
            call.split.working_set.learn(start, end, relative_to=relative)

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

    def _take(self, channel: Channel, call: Call, answer: wire.Answer, nbytes: int) -> Runs:
        """The answer's pages, whose contents are in the ledger then. Raises Conflict, FrameError, AcceptorLost."""
        tracee, home = self.tracee, self.tracee.home
        if answer.number != call.number:
            raise FrameError(f"an answer to call {answer.number} instead of {call.number}")
        commit.check_size(nbytes)
        dirty = commit.check(answer, call.regs, call.xstate, home.untouchable(), home.brk, call.frame)
        if answer.journal and tracee.remote is None:
            raise Conflict("an answer with memory calls for a tracee that lets us make none")
        wire.runs(answer.stale)
        wire.runs(answer.dirty, nbytes)
        channel.payload_into(tracee.ledger.answer[:nbytes])
        tracee.keep_own(dirty)
        return dirty

    def _commit(self, call: Call, answer: wire.Answer, dirty: Runs, nbytes: int) -> None:
        tracee, home, ledger = self.tracee, self.tracee.home, self.tracee.ledger
        regs = Registers.unpack(answer.registers)
        regs.orig_rax = NO_SYSCALL
        xstate = answer.xstate if answer.xstate != call.xstate else b""
        mask = tracee.park(call.tid, call.regs)
        record = CommitRecord(call.tid, regs.pack(), xstate, answer.journal, answer.dirty, mask)
        try:
            ledger.note_commit(record)
            home.expect(dirty)
            commit.apply(record, ledger, tracee.pid, tracee.remote, tracee.memory, before_pages=lambda: self._follow(answer))
        except Exception:
            tracee.unpark(call.tid, call.regs, mask)
            raise
        finally:
            ledger.note_committed(nbytes)
            ledger.note_returned()
        home.settle(dirty, intersect(wire.runs(answer.stale), home.held.runs))
        call.regs = regs

    def _pass_return(self, tid: int, regs: Registers) -> None:
        """A call that came home stands where others returned to that ran at home: no reason to stop there."""
        point = self.tracee.breakpoints.at(regs.rip)
        if point is not None and regs.rip in self.nesting.returns:
            self.tracee.breakpoints.pass_locally(tid, point, regs)

    def _follow(self, answer: wire.Answer) -> None:
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
