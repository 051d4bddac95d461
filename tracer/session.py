"""A session: one tracee, its mirror, and the life of a call in numbered steps (DESIGN.md 3).

    1 trap      the thread stops at the entry and the guard has passed             `on_trap`
    2 settle    the other threads stop, and some of them go with it                `_begin`, `on_home_stop`
    3 delta     layout and pages that the mirror lacks                             `Delta.take`
    4 send      one frame; from then on the call is away                           `_send`
    5 run       the mirror runs; we serve its page-ins, and look for signals       `on_message`, `look`
    6 return    the whole answer arrives, and is checked                           `_take`
    7 commit    it is done to the tracee                                           `_commit`
    8 home      the call is over, or goes on at home and leaves again (2)          `_go_on`

A call that is to be verified takes other steps after 5: its answer is kept, and compared when home has made it (`_verify`).

Whatever fails between 2 and 7, the calls that are away run at home from where they last were there (`_stay_home`), the
reason counted.
"""

import os
import select
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from radium.channel import Channel
from radium.core import wire
from radium.core.addr import PAGE_SIZE
from radium.core.pages import PageSet, Runs, intersect, npages, pack, subtract, total, union
from radium.core.regs import NO_SYSCALL, Registers
from radium.dirty import digest
from radium.errors import AcceptorLost, Conflict, FrameError, JobFailed, NotPossible, RemoteFault, TraceeGone
from radium.linux import ptrace, vm
from radium.linux.signals import name as signal_name
from radium.tracer import commit, tracee_clocks, tracee_signals
from radium.tracer.acceptors import Acceptors
from radium.tracer.beside import Beside
from radium.tracer.breakpoint import Breakpoint
from radium.tracer.call import Call
from radium.tracer.commit import Left
from radium.tracer.cost import Way
from radium.tracer.delta import Delta, Prepared
from radium.tracer.group import Gathering, Group
from radium.tracer.leaving import Leaving
from radium.tracer.ledger import CommitRecord
from radium.tracer.lookout import Lookout
from radium.tracer.nesting import Nesting
from radium.tracer.resting import STOP_S
from radium.tracer.split import Split
from radium.tracer.stops import GROUP_STOPS, Stop
from radium.tracer.timing import Timings
from radium.tracer.tracee import Tracee
from radium.tracer.verify import LEFT, Outcome, Verification, Verifier
from radium.tracer.wakeups import Wakeups

# While a call is away: how often we look for signals of the tracee's, and how long an acceptor may be silent.
LOOK_S, SILENCE_S = 0.01, 5.0
# When a call beside which others go on is checked first; then each time it has been away twice as long.
CHECK_S = 0.1
# Beyond the call's own deadline, which the acceptor keeps.
GRACE_S = 2.0
# Of its stack, by one leaving: a gigabyte by core.mapping.STACK_ROOM each.
MOST_GROWTHS = 1024
# How long a thread may take to meet a signal that waits for it.
SIGNAL_S = 0.1
# How long all wait for a system call of a thread that came along with the call; then the call goes on without that one.
PASS_S = 0.02
# Reasons that say nothing of what the next call would cost.
NO_FAULT = ("refused:", "acceptor-lost", "unsupported:exit")
# From so many trips of it in one call on, such a thread is left at home: what it does is not the call's business.
MOST_PASSES = 64
# Why a call runs at home beside one that is being verified: what either writes would count as the other's.
VERIFYING = "refused:verifying"


class AtHome(Exception):
    """The call runs at home; `reason` is a word of INTERFACE.md."""

    def __init__(self, reason: str, *, is_timed: bool = False) -> None:
        """is_timed: it is to be told how long the call takes there."""
        super().__init__(reason)
        self.reason = reason
        self.is_timed = is_timed


class PagesLeft(NamedTuple):
    """[start, end), and the path of the mapping."""

    start: int
    end: int
    mapping: str


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
        self.timings = Timings(tracee, self.nesting)
        self.gathering = Gathering(tracee)
        self.beside = Beside(tracee)
        self.verifier = Verifier(tracee)
        self._delta = Delta(tracee, self.beside)
        self._lookout = Lookout(tracee)
        self.left = PageSet()
        # Whether a thread does something for radium that is not the program's: no call leaves meanwhile.
        self.is_visited: Callable[[], bool] = lambda: False
        self.audits = bool(os.environ.get("RADIUM_AUDIT"))
        # By their numbers.
        self._away: dict[int, Call] = {}
        # By thread, outermost first: calls that came home in the middle and may leave again.
        self._home: dict[int, list[Call]] = {}
        # Those that have begun and not been counted yet, wherever they are: each is counted once, also if the tracee ends.
        self._open: set[Call] = set()
        # The threads that can be in the mirror, as they left, and what it was told of those that wait.
        self._left: dict[int, Left] = {}
        self._told_waiting: list[wire.Standing] | None = []
        self._number = 0
        self._generation = 0
        self._heard = self._next_look = 0.0

    def inherit(self, parent: "Session", forked_by: int) -> None:
        """This is a child that a thread of the parent's has forked. If that was in the middle of a call at home, so are both.

        The child's is part of no count: it began in the parent.
        """
        self.leaving = parent.leaving
        self.nesting.inherit(parent.nesting, forked_by)
        self.timings.inherit(parent.timings)
        for call in parent._home.get(forked_by, []):
            self.tracee.home.refresh()
            with suppress(RemoteFault):
                self.nesting.begin(self.tracee.pid, call.frame.rsp, call.frame.back, self.tracee.home.mappings)

    @property
    def is_away(self) -> bool:
        """Whether a call is away: then `look` is to be called every LOOK_S at least."""
        return bool(self._away)

    @property
    def stands(self) -> bool:
        """Whether all threads are to stand still, their stops unhandled, until a call comes home."""
        return any(not call.runs_beside for call in self._away.values())

    # 1 trap

    def on_trap(self, stop: Stop, point: Breakpoint, split: Split, regs: Registers) -> bool:
        """A thread stopped at a split point; afterwards it is past the call, or on its way through it at home.

        False: this call was not tried.
        """
        regs.rip = point.entry
        regs.orig_rax = NO_SYSCALL
        try:
            self._check_wanted(stop.tid, split, regs)
        except AtHome as answer:
            if answer.is_timed:
                self._time(stop.tid, point, split, regs)
            else:
                self._run_at_home(stop.tid, point, split, regs, answer.reason)
                self.tracee.threads.resume(stop.tid)
            if answer.reason == VERIFYING:
                self._look_at_verified()
            return False
        self._begin(stop.tid, point, split, regs)
        return True

    def _check_wanted(self, tid: int, split: Split, regs: Registers) -> None:
        """Raises AtHome for a call that is not to be tried."""
        if split.profile.outermost and self._is_inside(tid, regs.rsp):
            raise AtHome("nested")
        if not split.wants(tid, regs):
            raise AtHome("guard")
        if self.acceptors.channel is None and not self.acceptors.try_connect():
            raise AtHome("no-acceptor")
        if self.tracee.threads.has_guests:
            raise AtHome("unsupported:vfork")
        if self.wakeups.wants_end:
            raise AtHome("refused:detaching")
        if self.is_visited():
            raise AtHome("refused:visit")
        self.verifier.note_entry(tid, regs.rsp)
        if self._is_verifying:
            raise AtHome(VERIFYING)
        if split.is_weighed:
            decision = split.cost.decide(split.size(tid, regs), time.monotonic(), self.acceptors.link)
            if not decision.is_away:
                raise AtHome("policy", is_timed=decision.is_timed)

    def _time(self, tid: int, point: Breakpoint, split: Split, regs: Registers) -> None:
        """The call runs at home, for as long as its costs say; how long it takes there is part of them."""
        self.tracee.threads.stop_all()
        if self._is_there(tid):
            self.timings.begin(tid, split, regs, split.size(tid, regs))
            self._run_at_home(tid, point, split, regs, "policy")
        self._resume_all()

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
        call = Call(thread, split, point, frame, regs, ptrace.xstate(tid), hinted, started, split.size(tid, regs))
        call.verifies = not self._away and not self._home.get(tid) and self.verifier.chooses(split)
        self._open.add(call)
        self._leave(call)

    def begin_inside(self, tid: int, split: Split, rsp: int, back: int) -> bool:
        """A call that has begun before we came leaves from where it is, if it can now. All threads are stopped.

        rsp: the stack pointer as it was at the entry; back: the return address.
        """
        point, regs = self.tracee.breakpoints.at(split.point.address), ptrace.registers(tid)
        if point is None or self._why_stay() or not self._is_between_instructions(tid, regs):
            return False
        frame = wire.Frame(back, rsp, self.leaving.set_ip, list(self.leaving.longjmps))
        thread = self.tracee.threads.threads[tid]
        call = Call(thread, split, point, frame, regs, ptrace.xstate(tid), [], time.monotonic())
        call.verifies = self.verifier.chooses(split)
        self._open.add(call)
        self._leave(call)
        return True

    def _is_between_instructions(self, tid: int, regs: Registers) -> bool:
        """Whether a stopped thread is in the middle of nothing but the program's own code, and nothing is to be done for it."""
        threads = self.tracee.threads
        is_ours = any(start <= regs.rip < end for start, end in self.tracee.breakpoints.reserved)
        is_pending = any(stop.tid == tid for stop in threads.pending)
        at_trap = self.tracee.breakpoints.at(regs.rip) is not None
        return threads.threads[tid].is_free and regs.orig_rax == NO_SYSCALL and not (is_ours or is_pending or at_trap)

    def _is_there(self, tid: int) -> bool:
        return tid in self.tracee.threads.threads and not self.tracee.threads.is_over

    def _leave(self, call: Call) -> None:
        """The call leaves home; all threads are stopped. If it cannot, it goes on there."""
        self.tracee.breakpoints.keep_handler(tid for tid in self.tracee.threads.threads if tid != call.tid)
        with self._staying_home(call):
            self._go_out(call)

    @contextmanager
    def _staying_home(self, *calls: Call) -> Iterator[None]:
        """Whatever fails, these calls and, when the mirror is lost by it, all that are away, run at home. All threads go on."""
        try:
            yield
        except AtHome as answer:
            self._bring_home(calls, answer.reason)
        except (AcceptorLost, FrameError) as error:
            self._lose(str(error))
            self._bring_home((*calls, *self._away.values()), "acceptor-lost")
        except Conflict as error:
            self._lose(str(error), is_there=True)
            self._bring_home((*calls, *self._away.values()), "conflict")
        except RemoteFault as error:
            self._lose(str(error))
            self._bring_home((*calls, *self._away.values()), "unsupported:memory")
        except NotPossible as error:
            self._lose(str(error))
            self._bring_home((*calls, *self._away.values()), "refused:seccomp")
        except TraceeGone:
            for call in calls:
                self._count_local(call, "unsupported:exit")
            raise
        finally:
            self._resume_all()

    def _bring_home(self, calls: Iterable[Call], reason: str) -> None:
        """They are not away any more, and nothing has come of it."""
        self.tracee.threads.stop_all()
        for call in {call.tid: call for call in calls}.values():
            self._is_back(call)
            self._stay_home(call, reason)

    def _is_back(self, call: Call) -> None:
        self._away.pop(call.number, None)
        call.thread.is_away = False
        # Whoever else came along with it stands in no mirror any more, and no answer may move it.
        stay = {other.tid for other in self._away.values()} if not call.runs_beside else self._left.keys() - {call.tid}
        self._left = {tid: left for tid, left in self._left.items() if tid in stay}

    def _resume_all(self) -> None:
        """All but threads whose calls are away; none if one of those calls wants all to stand.

        A thread at home may have come to where its call leaves again while it was borrowed, and then nothing told.
        """
        if self.stands:
            return
        threads = self.tracee.threads
        for tid in self._home:
            thread = threads.threads.get(tid)
            if thread and not thread.is_running and not any(stop.tid == tid for stop in threads.pending):
                threads.pending.append(Stop(tid, "quiet"))
        threads.resume_all()

    def _lose(self, why: str, *, is_there: bool = False) -> None:
        self.acceptors.lose(why, is_there=is_there)
        self.tracee.home.forget_mirror()
        self.beside.forget_mirror()

    def _go_out(self, call: Call) -> None:
        """Steps 3 and 4. Whatever is raised, it never left."""
        channel = self.acceptors.channel
        if channel is None:
            raise AcceptorLost("no acceptor any more")
        self._check_others(channel)
        call.sent_nbytes, call.received_nbytes = channel.sent_nbytes, channel.received_nbytes
        self._number += 1
        call.number, call.left, call.recalled = self._number, time.monotonic(), ""
        call.next_check = call.left + CHECK_S
        # First: a signal that a thread takes with it is written onto its stack.
        group = self._gather(call)
        call.results = call.split.results.expect(call.hinted)
        if self._generation != self.acceptors.generation:
            self._set_up(call, channel)
        self._send(channel, call, self._delta.take(call, group, is_alone=not self._away), group)
        self._heard = call.left
        self._next_look = min(self._next_look, call.left + LOOK_S) if self._away else call.left + LOOK_S
        self._away[call.number] = call
        call.thread.is_away = True

    def _check_others(self, channel: Channel) -> None:
        """Raises AtHome when calls that are away may have read what home has written since."""
        if self._away and not self.beside.is_discarding and any(changes := self.beside.check()):
            self._discard(channel, *changes)
        if self.beside.is_discarding:
            raise AtHome("conflict")

    def _gather(self, call: Call) -> Group:
        """Who goes with the call."""
        if call.runs_beside:
            return Group([], [], alone=False)
        away = (other.tid for other in self._away.values())
        group = self.gathering.gather({call.tid, *call.left_behind(MOST_PASSES), *away})
        if not self._is_there(call.tid):
            raise TraceeGone("ended as its call was about to leave", where=f"pid {self.tracee.pid}")
        return group

    # 8 home

    def _go_on(self, call: Call, reason: str, tid: int) -> None:
        """The call is at home: because it is over, or in its middle; then it may leave again from where `Call` says.

        tid: the thread that the reason is about.
        """
        kind = reason.partition(":")[0]
        if kind in (wire.RETURNED, "exception", "longjmp") or call.has_ended(call.regs.rsp):
            self._pass_return(call.tid, call.regs)
            self._count_remote(call)
        elif kind in ("drain", "stack"):
            self._leave_at_once(call, kind)
        elif kind not in ("syscall", "signal", "fault"):
            self._stay_home(call, reason)
        elif call.split.is_weighed and call.split.cost.chats:
            self._stay_home(call, "policy")
        elif kind == "signal" and call.recalled_for != call.tid:
            self._let_meet(call, reason)
        elif tid != call.tid:
            self._let_pass(call, reason, tid)
        else:
            self._watch_home(call)
            if kind == "signal":
                self.tracee.threads.resume_alone(call.tid, SIGNAL_S)

    def _leave_at_once(self, call: Call, kind: str) -> None:
        """The call came home for something that has been done by that."""
        if kind == "drain":
            self._lose("it shuts down", is_there=True)
            if not self.acceptors.try_connect():
                self._stay_home(call, "refused:draining")
                return
        elif call.ntrips > MOST_GROWTHS:
            raise Conflict("an acceptor that sends a call home for its stack again and again")
        self._leave(call)

    def _let_pass(self, call: Call, reason: str, tid: int) -> None:
        """A thread that came along makes its system call at home, where all others stand; then the call leaves again.

        If that takes long, the call goes on without it.
        """
        call.npasses[tid] = call.npasses.get(tid, 0) + 1
        if reason.startswith("syscall:") and self.tracee.threads.pass_syscall(tid, PASS_S):
            self._leave(call)
        else:
            self._stay_home(call, reason)

    def _let_meet(self, call: Call, reason: str) -> None:
        """Another thread meets its signal, and goes with the call to where its handler begins."""
        self.tracee.threads.resume_alone(call.recalled_for, SIGNAL_S)
        self.tracee.threads.stop_all()
        if reason in [f"signal:{signal_name(number)}" for number in GROUP_STOPS] or self.tracee.threads.is_over:
            self._stay_home(call, reason)
        else:
            self._leave(call)

    def _watch_home(self, call: Call) -> None:
        """The call goes on at home until it can leave again."""
        if call.regs.rip in (call.point.entry, call.point.first.address):
            # It came home before the instruction under which the breakpoint lies.
            self.tracee.breakpoints.pass_locally(call.tid, call.point, call.regs.copy())
        self._home.setdefault(call.tid, []).append(call)
        call.thread.traces_syscalls = True

    def _count_local(self, call: Call, reason: str) -> None:
        if call in self._open:
            self._open.remove(call)
            call.split.report.count_local(reason)
            if call.split.is_weighed and not reason.startswith(NO_FAULT):
                call.split.cost.note_failed(call.size, time.monotonic() - call.started, self.acceptors.link)

    def _count_remote(self, call: Call) -> None:
        self._open.discard(call)
        seconds = time.monotonic() - call.started
        call.split.report.count_remote(
            call.sent_npages, call.paged_in, call.written_back, call.out_nbytes, call.back_nbytes, seconds, call.mirror_s,
        )  # fmt: skip
        if call.split.is_weighed:
            self._weigh(call, seconds + STOP_S)

    def _weigh(self, call: Call, seconds: float) -> None:
        if call.made_mirror:
            call.split.cost.note_once(call.size, seconds)
            return
        round_trips = 1 + call.ntrips + call.nfetches
        way = Way(seconds - call.mirror_s, round_trips, call.out_nbytes + call.back_nbytes)
        call.split.cost.note_away(call.size, seconds, call.mirror_s, way, call.paged_in, self.acceptors.link)

    def _stay_home(self, call: Call, reason: str) -> None:
        """The rest of the call runs at home; the split calls that it makes there are part of it."""
        if call.verifies:
            call.split.report.count_unverified(reason)
        with suppress(RemoteFault), self.tracee.home.own_writes(call.frame.back):
            self.nesting.begin(call.tid, call.frame.rsp, call.frame.back, self.tracee.home.mappings)
        self._count_local(call, reason)
        if call.is_at_entry:
            self.tracee.breakpoints.pass_locally(call.tid, call.point, call.regs)

    def on_home_stop(self, stop: Stop) -> bool:
        """A thread stopped whose call is at home; False: for nothing that has to do with the call."""
        if stop.kind == "syscall" and self.verifier.traces(stop.tid):
            self.verifier.note_syscall(ptrace.registers(stop.tid), is_behind=bool(stop.detail))
            self.tracee.threads.resume(stop.tid)
            return True
        call = self._call_at_home(stop.tid) if stop.kind in ("syscall", "quiet") else None
        if call is None or call.thread.is_group_stopped:
            return False
        regs = ptrace.registers(stop.tid)
        is_behind = stop.kind == "syscall" and bool(stop.detail)
        if call.may_leave(regs, behind_syscall=is_behind):
            if tracee_signals.deliverable(self.tracee.pid, stop.tid):
                # Its handler comes before whatever is behind a kill or sigprocmask (POSIX); the call leaves behind that.
                self.tracee.threads.resume(stop.tid)
            else:
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
        if self.is_visited():
            return "refused:visit"
        if self._is_verifying:
            return VERIFYING
        return "" if self.acceptors.channel is not None or self.acceptors.try_connect() else "no-acceptor"

    def _note_left(self, call: Call) -> None:
        """The thread has left the function at home, unseen: by a longjmp out of a handler, say."""
        self._let_be(call)
        self._count_local(call, f"unsupported:{call.home_reason}")

    def _let_be(self, call: Call) -> None:
        """The call, the innermost of its thread, is watched no more."""
        calls = self._home[call.tid]
        calls.remove(call)
        call.thread.traces_syscalls = any(other.thread is call.thread for other in calls)
        if not calls:
            del self._home[call.tid]

    def end(self, reason: str = "") -> None:
        """No call leaves any more; those that are at home in their middle stay there, for that reason if there is one."""
        self.verifier.abandon(reason or LEFT)
        for call in list(self._away.values()):
            self._is_back(call)
        for call in [call for calls in self._home.values() for call in calls]:
            self._let_be(call)
            self._count_local(call, reason or f"unsupported:{call.home_reason}")
        for call in list(self._open):
            self._count_local(call, reason or "unsupported:exit")

    def on_return(self, stop: Stop, point: Breakpoint, regs: Registers) -> None:
        """A thread stopped where a split call returns to that runs at home, or may do so; it goes on."""
        has_ended = self.nesting.on_return(stop.tid, regs)
        if self._is_there(stop.tid):
            self.tracee.breakpoints.pass_locally(stop.tid, point, regs)
        if self.timings.is_spent(point.entry, is_stray=not has_ended):
            self.tracee.threads.stop_all()
            self.timings.lift(point.entry)
            self._resume_all()
        else:
            self.tracee.threads.resume(stop.tid)

    # 3 delta, 4 send

    def _set_up(self, call: Call, channel: Channel) -> None:
        """A new mirror: the acceptor gets the layout; the answer to the first call says if it could be built."""
        tracee = self.tracee
        tracee.watch(call.tid)
        channel.send(tracee.setup(call.tid, self.acceptors.clocks))
        self._generation = self.acceptors.generation
        call.made_mirror = True

    def _send(self, channel: Channel, call: Call, prepared: Prepared, group: Group) -> None:
        home = self.tracee.home
        nbytes = total(prepared.pages)
        call.sent_npages += nbytes // PAGE_SIZE
        thread = self.tracee.standing(call.tid, call.regs, call.xstate)
        waiting = [member.standing for member in group.waiting]
        message = wire.Call(
            call.number, thread, call.frame, [member.standing for member in group.running],
            None if waiting == self._told_waiting else waiting, group.alone, prepared.delta, home.brk,
            pack(prepared.drop), pack(prepared.zero), pack(prepared.pages), pack(prepared.scratch), pack(call.results),
            pack(self.beside.take_news()), self.call_timeout_s,
        )  # fmt: skip
        self._told_waiting = waiting
        call.scratch = prepared.scratch
        self._left[call.tid] = Left(call.regs, call.xstate)
        if call.runs_beside:
            self.beside.note_kernel_pages(call.tid)
        for member in (*group.running, *group.waiting):
            self._left[member.standing.tid] = Left(member.regs, member.standing.xstate)
        self.left.add(prepared.pages)
        channel.send(message, home.contents(prepared.pages), nbytes)

    # 5 run

    def on_message(self) -> None:
        """The acceptor has said something, or has gone."""
        channel = self.acceptors.channel
        is_first = True
        while channel is not None and channel is self.acceptors.channel and (is_first or channel.buffered):
            is_first = False
            if self._away:
                with self._staying_home():
                    message, nbytes = channel.receive()
                    self._heard = time.monotonic()
                    self._on_message(channel, message, nbytes)
            else:
                self._on_farewell(channel)

    def look(self) -> None:
        """While calls are away: whether one is to be recalled, has taken too long, or the acceptor is silent."""
        now = time.monotonic()
        channel = self.acceptors.channel
        if not self._away or now < self._next_look or channel is None:
            return
        self._next_look = now + LOOK_S
        for call in list(self._away.values()):
            if call.number in self._away:
                with self._staying_home():
                    self._look_at(channel, call, now)

    def _look_at(self, channel: Channel, call: Call, now: float) -> None:
        if not call.recalled:
            call.recalled, call.recalled_for = self._why_recall(call)
            if call.recalled:
                channel.send(wire.Recall(call.number))
        if call.runs_beside and now >= call.next_check and not self.beside.is_discarding:
            self._check_beside(channel, call, now)
        if now - self._heard > SILENCE_S:
            raise AcceptorLost(f"silent for {SILENCE_S:g} s", where=channel.peer)
        if now - call.left > self.call_timeout_s + GRACE_S:
            self._lose(f"{channel.peer}: a call did not end within {self.call_timeout_s:g} s")
            self._bring_home(list(self._away.values()), "timeout")

    def _check_beside(self, channel: Channel, call: Call, now: float) -> None:
        """A call that has read what home has written since may compute for ever."""
        call.next_check = now + (now - call.left)
        self.tracee.threads.stop_all()
        changes = self.beside.check()
        if any(changes):
            self._discard(channel, *changes)

    def _why_recall(self, call: Call) -> tuple[str, int]:
        """A reason, and the thread that it is about; "": none."""
        if self.wakeups.wants_end:
            return "refused:detaching", call.tid
        number, tid = self._lookout.find_signal(call.tid, with_others=not call.runs_beside)
        return (f"signal:{signal_name(number)}", tid) if number else ("", 0)

    def _on_message(self, channel: Channel, message: wire.AnyMessage, nbytes: int) -> None:
        if isinstance(message, wire.Answer):
            self._come_home(channel, self._call_of(message.number), message, nbytes)
        elif isinstance(message, wire.Fetch):
            self._page_in(channel, message)
        elif isinstance(message, wire.AskBrk):
            channel.send(wire.Brk(self.tracee.read_brk(next(iter(self._away.values())).tid)))
        elif isinstance(message, wire.AskClock):
            self._tell_clock(channel, message)
        elif isinstance(message, wire.AskThread):
            self._tell_state(channel, message.tid)
        elif isinstance(message, wire.Discarded):
            self.beside.end_discarding(wire.runs(message.dropped))
            self._bring_home(list(self._away.values()), "conflict")
        elif isinstance(message, wire.Failed):
            self.tracee.home.lose(wire.runs(message.dropped))
            self._bring_home([self._call_of(message.number)], message.reason)
        elif isinstance(message, wire.Refused):
            raise AcceptorLost(message.reason, where=channel.peer, advice=message.advice)
        elif not isinstance(message, wire.Beat):
            raise FrameError(f"{type(message).__name__} during a call")

    def _call_of(self, number: int) -> Call:
        if number not in self._away:
            raise FrameError(f"an answer to call {number}, which is not away")
        return self._away[number]

    def _tell_clock(self, channel: Channel, message: wire.AskClock) -> None:
        if message.tid not in self.tracee.threads.threads or message.clock.bit_length() > 31:
            raise FrameError(f"a question for clock {message.clock} of a thread that is not away (tid {message.tid})")
        channel.send(wire.Clock(*tracee_clocks.read(self.tracee.pid, message.tid, message.clock)))

    def _tell_state(self, channel: Channel, tid: int) -> None:
        """A thread that waits at home is woken in the mirror."""
        if tid not in self._left or self._left[tid].xstate:
            raise FrameError(f"a question for a thread that does not wait (tid {tid})")
        self._left[tid] = self._left[tid]._replace(xstate=ptrace.xstate(tid))
        channel.send(wire.State(tid, ptrace.signal_mask(tid), self._left[tid].xstate))

    def _page_in(self, channel: Channel, message: wire.Fetch) -> None:
        """For all calls that are away it counts as one of the first's."""
        self.tracee.threads.stop_all()
        home, call = self.tracee.home, next(iter(self._away.values()))
        if message.address % PAGE_SIZE or not message.address < message.end <= 1 << 47:
            raise FrameError(f"a page-in of {message.address:#x}-{message.end:#x}")
        wanted = [(message.address, message.end)]
        if call.runs_beside:
            home.refresh()
            # What is contended comes only if it is touched.
            page = (message.address, message.address + PAGE_SIZE)
            wanted = union([page], subtract(wanted, self.beside.contended))
        zero, data = home.missing(wanted, also_closed=True)
        data = home.readable(data)
        home.hold_zero(zero)
        home.hold(data)
        nbytes = total(data)
        channel.send(wire.Pages(message.address, pack(zero), pack(data)), home.contents(data), nbytes)
        self.left.add(data)
        call.paged_in += nbytes // PAGE_SIZE + npages(zero)
        call.nfetches += 1
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

    def _on_farewell(self, channel: Channel) -> None:
        """While no call is away, the acceptor has nothing else to say."""
        try:
            message, _ = channel.receive()
            self._lose(f"{channel.peer} ends the session" + (f" ({message.reason})" if isinstance(message, wire.Bye) else ""))
        except (AcceptorLost, FrameError) as error:
            self._lose(str(error))

    # 6 return and 7 commit

    def _come_home(self, channel: Channel, call: Call, answer: wire.Answer, nbytes: int) -> None:
        self.tracee.threads.stop_all()
        if not self._is_there(call.tid):
            raise TraceeGone("ended while its call was away", where=f"pid {self.tracee.pid}")
        if call.runs_beside and not self._is_valid(channel, answer):
            return
        if call.verifies:
            self._verify(channel, call, answer, nbytes)
            return
        dirty = self._take(channel, call, answer, nbytes)
        self._commit(call, answer, dirty, nbytes)
        self._is_back(call)
        if self.audits and not self._away:
            self._audit(channel)
        self._note_cost(channel, call, answer, dirty)
        is_trip = answer.reason != wire.RETURNED
        call.split.cost.note_leg(time.monotonic() - call.left, answer.seconds, is_trip=is_trip)
        reason = call.recalled if answer.reason == "recall" and call.recalled else answer.reason
        if is_trip:
            call.split.report.count_trip(reason)
            call.come_home(reason)
        self._go_on(call, reason, answer.tid)

    def _note_cost(self, channel: Channel, call: Call, answer: wire.Answer, dirty: Runs) -> None:
        call.split.results.learn(call.hinted, call.results, dirty)
        call.written_back += npages(dirty)
        call.out_nbytes += channel.sent_nbytes - call.sent_nbytes
        call.back_nbytes += channel.received_nbytes - call.received_nbytes
        call.mirror_s += answer.seconds

    # A call that is verified

    def _verify(self, channel: Channel, call: Call, answer: wire.Answer, nbytes: int) -> None:
        """The answer is kept and not committed; the mirror forgets the call, which runs at home from where it left."""
        home = self.tracee.home
        dirty = self._check(call, answer, nbytes)
        contents = bytearray(nbytes)
        channel.payload_into(memoryview(contents))
        renewed = home.note_told(answer.journal)
        self._is_back(call)
        self._note_cost(channel, call, answer, dirty)
        reason = "" if answer.reason == wire.RETURNED else call.recalled if answer.reason == "recall" else answer.reason
        outcome = Outcome(answer, dirty, contents, wire.runs(answer.stale))
        verification = self.verifier.begin(call, outcome, reason)
        # The mirror drops this before anything runs there again, and what waited in it is told anew.
        self.beside.refuse(answer)
        self.beside.refuse_pages(renewed)
        self._told_waiting = None
        self._count_local(call, "verify")
        self._await_return(call, verification)
        if call.is_at_entry:
            self.tracee.breakpoints.pass_locally(call.tid, call.point, call.regs)

    def _await_return(self, call: Call, verification: Verification) -> None:
        def finish(regs: Registers) -> None:
            self.tracee.threads.stop_all()
            if self._is_there(call.tid):
                self.verifier.finish(verification, regs, self._digests)
            self._resume_others(call.tid)

        frame, home = call.frame, self.tracee.home
        is_noticed = False
        with suppress(RemoteFault), home.own_writes(frame.back):
            is_noticed = self.nesting.begin(call.tid, frame.rsp, frame.back, home.mappings, finish)
        if not is_noticed:
            self.verifier.abandon("unsupported:caller")

    def _resume_others(self, tid: int) -> None:
        """All but this one, whose stop is being handled."""
        for other in list(self.tracee.threads.threads):
            if other != tid and not any(stop.tid == other for stop in self.tracee.threads.pending):
                self.tracee.threads.resume(other)

    @property
    def _is_verifying(self) -> bool:
        return self.verifier.current is not None or any(call.verifies for call in self._away.values())

    def _look_at_verified(self) -> None:
        """Whether the call that is verified has left its function at home otherwise than by its return."""
        self.tracee.threads.stop_all()
        if not self.tracee.threads.is_over and self.verifier.has_left():
            self.verifier.abandon(LEFT)
        self._resume_all()

    def _digests(self, runs: Runs) -> list[bytes] | None:
        """Of pages of the mirror's; None when it is gone."""
        channel = self.acceptors.channel
        if channel is None or self._generation != self.acceptors.generation:
            return None
        try:
            return self._ask_digests(channel, runs)
        except (AcceptorLost, FrameError) as error:
            self._lose(str(error))
            return None

    def _is_valid(self, channel: Channel, answer: wire.Answer) -> bool:
        """Whether home has written nothing that the calls may have read; else they are discarded, and this answer is lost."""
        if not self.beside.is_discarding and not any(changes := self.beside.check()):
            return True
        channel.skip_payload()
        self.beside.refuse(answer)
        if not self.beside.is_discarding:
            self._discard(channel, *changes)
        return False

    def _discard(self, channel: Channel, changed: Runs, lost: Runs) -> None:
        """What the calls that are away have done is forgotten; they go on at home when the mirror has done so."""
        self.beside.learn(changed, lost)
        self.beside.refuse_pages(union(lost, intersect(self.beside.contended, self.tracee.home.held.runs)))
        self.beside.is_discarding = True
        channel.send(wire.Discard())

    def _take(self, channel: Channel, call: Call, answer: wire.Answer, nbytes: int) -> Runs:
        """The answer's pages, whose contents are in the ledger then. Raises Conflict, FrameError, AcceptorLost."""
        dirty = self._check(call, answer, nbytes)
        channel.payload_into(self.tracee.ledger.answer[:nbytes])
        self.tracee.keep_own(dirty)
        return dirty

    def _check(self, call: Call, answer: wire.Answer, nbytes: int) -> Runs:
        """The answer's pages, if it can be one. Raises Conflict, FrameError."""
        tracee, home = self.tracee, self.tracee.home
        commit.check_size(nbytes)
        returned = {call.tid: call.frame} if answer.reason == wire.RETURNED else {}
        dirty = commit.check(answer, self._left, returned, home.untouchable(), home.brk)
        if call.tid not in {standing.tid for standing in answer.threads}:
            raise Conflict("an answer without the call's own thread")
        if answer.reason in (wire.RETURNED, "exception", "longjmp") and answer.tid != call.tid:
            raise Conflict(f"an answer whose call was left by another thread (tid {answer.tid})")
        if answer.journal and tracee.remote is None:
            raise Conflict("an answer with memory calls for a tracee that lets us make none")
        wire.runs(answer.stale)
        wire.runs(answer.dirty, nbytes)
        return dirty

    def _commit(self, call: Call, answer: wire.Answer, dirty: Runs, nbytes: int) -> None:
        tracee, home, ledger = self.tracee, self.tracee.home, self.tracee.ledger
        standings = sorted(answer.threads, key=lambda standing: standing.tid != call.tid)
        moved = [tracee.moved(standing, *self._left[standing.tid]) for standing in standings]
        record = CommitRecord(moved, answer.journal, answer.dirty, tracee.bystanders({one.tid for one in moved}))
        try:
            ledger.note_commit(record)
            tracee.park(record)
            ledger.note_begun()
            home.expect(dirty)
            commit.apply(record, ledger, tracee.pid, tracee.remote, tracee.memory, before_pages=lambda: self._follow(answer))
        except Exception:
            commit.give_back(record)
            raise
        finally:
            ledger.note_committed(nbytes)
        home.settle(dirty, intersect(wire.runs(answer.stale), home.held.runs))
        home.lose(intersect(wire.runs(answer.contended), home.held.runs))
        self._note_moved(answer.threads)

    def _note_moved(self, standings: Iterable[wire.Standing]) -> None:
        calls = {call.tid: call for call in self._away.values()}
        for standing in standings:
            regs = Registers.unpack(standing.registers)
            self._left[standing.tid] = Left(regs, standing.xstate)
            if standing.tid in calls:
                calls[standing.tid].regs, calls[standing.tid].xstate = regs, standing.xstate
                if calls[standing.tid].runs_beside:
                    self.beside.note_kernel_pages(standing.tid)

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
        theirs = iter(self._ask_digests(channel, runs))
        for start, end in runs:
            for page in range(start, end, PAGE_SIZE):
                if digest(home.page(page)) != next(theirs):
                    raise JobFailed("a held page differs from its twin", where=f"pid {self.tracee.pid}, {page:#x}")

    def _ask_digests(self, channel: Channel, runs: Runs) -> list[bytes]:
        """Of the mirror's pages, while no call is away. Raises AcceptorLost, FrameError."""
        channel.send(wire.Audit(pack(runs)))
        if not channel.buffered and not select.select([channel], [], [], SILENCE_S)[0]:
            raise AcceptorLost(f"silent for {SILENCE_S:g} s", where=channel.peer)
        message, _ = channel.receive()
        if isinstance(message, wire.Bye):
            raise AcceptorLost(f"it ends the session ({message.reason})", where=channel.peer)
        if not isinstance(message, wire.Digests) or len(message.digests) != 16 * npages(runs):
            raise FrameError(f"{type(message).__name__} instead of {npages(runs)} digests")
        return [message.digests[i : i + 16] for i in range(0, len(message.digests), 16)]
