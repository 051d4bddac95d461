"""Split calls in the mirror: from where they left home to their returns, or to where they go home in the middle.

Step 5 of DESIGN.md section 3. Everything is in one thread: ptrace wants it, and a mirror has one story. When one call
goes home, all threads of the mirror stand: what comes home is one moment of all of them.
What leaves the function's frame is seen by hardware breakpoints (GOING_HOME.md 4): the return address, with rsp one word
above the entry's; `_Unwind_SetIP`, and then the landing pad that it is told; longjmp, whose target says how far it goes.
"""

import os
import select
import signal
import struct
import time
from collections.abc import Sequence

from radium.core import futex, syscalls, wire
from radium.core.mapping import JOURNALLED, SHARED
from radium.core.pages import PageSet, Run
from radium.core.regs import Registers
from radium.core.xstate import OtherCpu
from radium.errors import JobFailed, RemoteFault
from radium.linux import ptrace, seccomp
from radium.linux.libc import syscall_name
from radium.linux.signals import mask_of, signalfd
from radium.replay import livelock, vessel
from radium.replay.futexes import Futexes, Waiter, until
from radium.replay.memory_calls import MemoryCalls
from radium.replay.mirror import Mirror
from radium.replay.outcome import CallFailed, GoHome, Link, Outcome
from radium.replay.page_ins import PageIns
from radium.replay.states import States
from radium.replay.threads import Thread, behind_futex

# How often calls that are still running are looked at, and the initiator told that we live.
LOOK_S, BEAT_S = 0.02, 1.0
INT3_NBYTES = 1
# Instructions, and some: what the vdso's clock functions have.
LONGEST_VDSO = 4096
FAULTS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS)
EAGAIN, EFAULT, ETIMEDOUT = 11, 14, 110
# rt_sigprocmask(2), <asm-generic/signal.h>
SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK = 0, 1, 2
NEVER_BLOCKED = mask_of([signal.SIGKILL, signal.SIGSTOP])


class Active:
    """A call that is here."""

    def __init__(self, message: wire.Call) -> None:
        self.message = message
        self.frame = message.frame
        self.tid = message.thread.tid
        self.tids: list[int] = []  # of its threads: its own, and those that came along
        self.brought = PageSet()
        self.started = time.monotonic()
        self.deadline = self.started + message.seconds

    @property
    def places(self) -> list[int]:
        """What leaves its frame."""
        return [self.frame.back, self.frame.set_ip, *self.frame.longjmps]


class Runner:
    """Runs the calls of one mirror. calls: those that are here, by their thread; there are several with `threads = "run"`."""

    def __init__(self, mirror: Mirror, link: Link) -> None:
        self.mirror = mirror
        self.link = link
        self.calls: dict[int, Active] = {}
        self.threads: dict[int, Thread] = {}
        self.page_ins = PageIns(mirror, link)
        self.memory_calls = MemoryCalls(mirror, link, self.page_ins)
        self._futexes = Futexes()
        self._waiting_at_home: dict[int, wire.Standing] = {}
        self._waiters_at_home: list[Waiter] = []
        # By the thread of the tracee's that each was last: most of its state is what it will be given again.
        self._idle: dict[int, Thread] = {}
        self._children = child_signals()
        self._poll = select.poll()
        for fd in (self._children, mirror.uffd, link.fileno()):
            self._poll.register(fd, select.POLLIN)
        self._faults = select.poll()
        for fd in (self._children, mirror.uffd):
            self._faults.register(fd, select.POLLIN)
        self._states = States(mirror.home_components, ptrace.xstate(mirror.vessel.pid))
        self._last_beat = self._next_look = self._next_livelock_look = 0.0

    # Arriving

    def begin(self, call: wire.Call) -> None:
        """Sets a call going, and the threads that come with it. Raises CallFailed, MirrorDied."""
        active = Active(call)
        if call.waiting is not None:
            self._note_waiting(call.waiting)
        if call.alone:
            for waiter in self._waiters_at_home:
                self._futexes.wait(waiter)
        try:
            arrived = [self._take_in(standing, active) for standing in (call.thread, *call.running)]
        except (OSError, OtherCpu):
            # The kernel takes no registers that this CPU cannot have.
            raise CallFailed("refused:registers") from None
        self.mirror.begin()
        self.calls[active.tid] = active
        self._last_beat = active.started
        self._next_livelock_look = active.started + livelock.FIRST_LOOK_S
        for thread in arrived:
            thread.resume()

    def _note_waiting(self, waiting: Sequence[wire.Standing]) -> None:
        """Threads that wait at home and can be woken here; how long they would wait at most, home knows."""
        self._waiting_at_home = {standing.tid: standing for standing in waiting}
        calls = {standing.tid: futex.parse(Registers.unpack(standing.registers)) for standing in waiting}
        self._waiters_at_home = [Waiter(tid, c.address, c.bitset) for tid, c in calls.items() if c is not None and c.is_wait]

    def _take_in(self, standing: wire.Standing, call: Active) -> Thread:
        thread = self._idle_thread(standing.tid) or Thread(*self.mirror.vessel.start_thread())
        self.threads[standing.tid] = thread
        call.tids.append(standing.tid)
        thread.watch(call.places if standing.tid == call.tid else [])
        thread.become(standing, self._states)
        return thread

    def _idle_thread(self, tid: int) -> Thread | None:
        if tid in self._idle or not self._idle:
            return self._idle.pop(tid, None)
        return self._idle.popitem()[1]

    # Running

    def advance(self) -> Outcome | None:
        """Until a call goes home, or the initiator says something (None). Raises CallFailed, MirrorDied, AcceptorLost."""
        while True:
            try:
                has_stopped = self._handle_stops()
                # Threads that stop all the time are no reason to be deaf.
                if (not has_stopped or time.monotonic() > self._next_look) and not self._attend():
                    return None
            except GoHome as going:
                return self._outcome(going)

    def _handle_stops(self) -> bool:
        """Whether there were any."""
        stopped = [thread for thread in self.threads.values() if self._has_stopped(thread)]
        for thread in stopped:
            status, thread.status = thread.status, 0
            self._handle(thread, status)
        if stopped and all(tid in self._futexes for tid in self.threads):
            # Nobody is left here who could wake anyone.
            raise GoHome("syscall:futex", next(iter(self.calls)))
        return bool(stopped)

    def _has_stopped(self, thread: Thread) -> bool:
        if thread.is_running:
            thread.status = vessel.wait(thread.pid, block=False)
            thread.is_running = not thread.status
        return bool(thread.status)

    def _attend(self) -> bool:
        """Waits for something to do, and does it. False: the initiator has said something. Raises GoHome."""
        if self.link.buffered:
            return False
        ready = {fd for fd, _ in self._poll.poll(self._patience_s() * 1000)}
        if self._children in ready:
            os.read(self._children, 128 * 16)
        if self.mirror.uffd in ready:
            self._serve_faults()
        self._end_waits()
        if time.monotonic() > self._next_look:
            self._look()
        return self.link.fileno() not in ready

    def _patience_s(self) -> float:
        end = self._futexes.next_end()
        return LOOK_S if end is None else max(0.0, min(LOOK_S, end - time.monotonic()))

    def _serve_faults(self) -> None:
        if not self.page_ins.serve(self._note_brought):
            # Which thread it is, home finds out: it makes the access again there.
            raise GoHome("fault:SIGBUS", next(iter(self.calls)))

    def _note_brought(self, own_id: int, run: Run) -> None:
        tid = next((tid for tid, thread in self.threads.items() if thread.own_id == own_id), 0)
        if tid:
            self._call_of(tid).brought.add([run])

    def _look(self) -> None:
        """Every LOOK_S. Raises GoHome."""
        now = time.monotonic()
        self._next_look = now + LOOK_S
        for call in self.calls.values():
            if now > call.deadline:
                raise GoHome("timeout", call.tid)
            if self.link.must_drain():
                raise GoHome("drain", call.tid)
        if now - self._last_beat > BEAT_S:
            self._last_beat = now
            self.link.beat()
        if now > self._next_livelock_look:
            self._next_livelock_look = now + max(livelock.FIRST_LOOK_S, now - min(c.started for c in self.calls.values()))
            self._look_for_livelock()

    def recall(self, number: int) -> Outcome | None:
        """The call as it stands now; None when it is here no more. Raises CallFailed, MirrorDied."""
        call = next((call for call in self.calls.values() if call.message.number == number), None)
        return self._outcome(GoHome("recall", call.tid)) if call else None

    # Standing still

    def _freeze(self) -> None:
        """All threads stop, where they are; what they stopped with is kept. Raises CallFailed, MirrorDied.

        One whose system call misses a page stops when it has it: only faults of user code are left for a signal
        (fault_signal_pending in <linux/sched/signal.h>).
        """
        running = [thread for thread in self.threads.values() if thread.is_running]
        for thread in running:
            ptrace.interrupt(thread.pid)
        for thread in running:
            self._note_stop(thread, self._stop_of(thread))

    def _note_stop(self, thread: Thread, status: int) -> None:
        thread.is_running = False
        if status >> 16 != ptrace.EVENT_STOP:
            thread.status = status

    def thaw(self) -> None:
        """The threads of calls that are still here go on."""
        if self.calls:
            self.mirror.begin()
        for tid, thread in self.threads.items():
            if not thread.is_running and not thread.status and tid not in self._futexes:
                thread.resume()

    def _leave_vdso(self, thread: Thread) -> None:
        """Its code mixes what it reads of the clock's data with the CPU's counter, both of which are others at home."""
        for _ in range(LONGEST_VDSO):
            if thread.status or not self.mirror.is_in_vdso(ptrace.registers(thread.pid).rip):
                return
            try:
                livelock.step(thread.pid, lambda: self._stop_of(thread))
            except livelock.LeftStepping as left:
                self._note_stop(thread, left.status)
        raise CallFailed("unsupported:vdso")

    def _stop_of(self, thread: Thread) -> int:
        """The next wait status of a thread; page-ins are served meanwhile."""
        while True:
            status = vessel.wait(thread.pid, block=False)
            if status:
                return status
            ready = {fd for fd, _ in self._faults.poll(LOOK_S * 1000)}
            if self._children in ready:
                os.read(self._children, 128 * 16)
            if self.mirror.uffd in ready and not self.page_ins.serve(self._note_brought):
                raise CallFailed("unsupported:memory")

    def _look_for_livelock(self) -> None:
        """Goes home when each thread waits, or does what it does for ever: none of them writes, so none ends another's wait."""
        self._freeze()
        awake = [thread for tid, thread in self.threads.items() if tid not in self._futexes]
        if all(self._is_stuck(thread) for thread in awake):
            raise GoHome("stuck", next(iter(self.calls)))
        for thread in awake:
            thread.nyields = 0
            if not thread.status:
                thread.resume()

    def _is_stuck(self, thread: Thread) -> bool:
        if thread.nyields > syscalls.YIELDS_UNTIL_STUCK:
            return True
        if thread.status:
            return False
        try:
            return livelock.is_stuck(thread.pid, lambda: self._stop_of(thread), self.mirror.vessel.memory.read)
        except livelock.LeftStepping as left:
            self._note_stop(thread, left.status)
            return False

    # Going home

    def _outcome(self, going: GoHome) -> Outcome:
        """Of the call that the thread belongs to; it is here no more. Raises CallFailed, MirrorDied."""
        self._freeze()
        for thread in self.threads.values():
            self._leave_vdso(thread)
            self._stand_before_int3(thread)
        call = self._call_of(going.tid)
        try:
            standing = [thread.standing(self._states) for thread in self.threads.values()]
        except OtherCpu:
            raise CallFailed("refused:registers") from None
        others_wait_again = all(self._waits_again(other) for other in standing if other.tid != call.tid)
        self._dismiss(call)
        return Outcome(
            call.message, going.reason, going.tid, standing, time.monotonic() - call.started, call.brought.runs,
            others_wait_again,
        )  # fmt: skip

    def _waits_again(self, standing: wire.Standing) -> bool:
        """Whether a thread waits where it waited at home."""
        before = self._waiting_at_home.get(standing.tid)
        if before is None or standing.tid not in self._futexes:
            return False
        was, now = Registers.unpack(before.registers), Registers.unpack(standing.registers)
        return (was.rip, was.rsp) == (now.rip, now.rsp)

    def _call_of(self, tid: int) -> Active:
        """That the thread belongs to."""
        return next(call for call in self.calls.values() if tid in call.tids)

    def _dismiss(self, call: Active) -> None:
        """The call is here no more, and its threads stand; where they are next, home tells."""
        del self.calls[call.tid]
        for tid in call.tids:
            self._futexes.forget(tid)
            self._idle[tid] = self.threads.pop(tid)
        if call.message.alone:
            self._futexes.clear()

    def _stand_before_int3(self, thread: Thread) -> None:
        """A thread that has met an int3 of the program's own stands behind it."""
        if thread.status >> 8 == signal.SIGTRAP and ptrace.signal_info(thread.pid)[1] == ptrace.SI_KERNEL:
            regs = ptrace.registers(thread.pid)
            regs.rip -= INT3_NBYTES
            ptrace.set_registers(thread.pid, regs)

    def forget(self) -> None:
        """No call is here any more: the mirror has forgotten them."""
        self._freeze()
        for call in list(self.calls.values()):
            self._dismiss(call)

    # Stops

    def _handle(self, thread: Thread, status: int) -> None:
        """Sends the thread on, or leaves it waiting. Raises GoHome, JobFailed."""
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == ptrace.EVENT_SECCOMP:
            self._handle_syscall(thread, ptrace.registers(thread.pid))
        elif event == ptrace.EVENT_STOP:
            thread.resume()
        elif event:
            raise JobFailed(f"a mirror's thread did what its filter forbids (event {event})", where=f"pid {thread.pid}")
        elif number == signal.SIGTRAP and ptrace.signal_info(thread.pid)[1] == ptrace.TRAP_HWBKPT:
            self._handle_breakpoint(thread, ptrace.registers(thread.pid))
        else:
            thread.status = status
            self._handle_fault(thread, number)

    def _handle_breakpoint(self, thread: Thread, regs: Registers) -> None:
        """One of the places that the call's frame is left by."""
        call = self.calls[thread.tid]
        frame = call.frame
        if regs.rip == frame.back and regs.rsp == frame.rsp + 8:
            raise GoHome(wire.RETURNED, thread.tid)
        if regs.rip == frame.set_ip:
            # The landing pad is rsi (unwind.h); what lands there tells whose frame it is.
            thread.watch([frame.back, regs.rsi, *frame.longjmps])
        elif regs.rip in frame.longjmps:
            if self._leaves_by_longjmp(regs, frame):
                raise GoHome("longjmp", thread.tid)
        elif regs.rip == thread.watched[1]:
            if regs.rsp > frame.rsp:
                raise GoHome("exception", thread.tid)
            thread.watch(call.places)
        thread.resume()

    def _leaves_by_longjmp(self, regs: Registers, frame: wire.Frame) -> bool:
        """A jmp_buf that cannot be read is home's to fault on."""
        try:
            return self._longjmp_target(regs) > frame.rsp
        except RemoteFault:
            return True

    def _longjmp_target(self, regs: Registers) -> int:
        """The stack pointer in the jmp_buf at rdi: word 6, mangled (glibc, sysdeps/x86_64: jmpbuf-offsets.h, __longjmp.S)."""
        mangled, guard = self.page_ins.word(regs.rdi + 48), self.page_ins.word(regs.fs_base + 0x30)
        return (mangled >> 17 | mangled << 47 & (1 << 64) - 1) ^ guard

    def _handle_fault(self, thread: Thread, number: int) -> None:
        """A signal of the thread's own: raised again, and truly, when the instruction is executed at home."""
        address = ptrace.signal_info(thread.pid)[2]
        if number == signal.SIGSEGV and self.mirror.is_below_room(address):
            raise GoHome("stack", thread.tid)
        raise GoHome(_signal_reason(number), thread.tid)

    def _handle_syscall(self, thread: Thread, regs: Registers) -> None:
        if ptrace.syscall_info(thread.pid)[1] != seccomp.AUDIT_ARCH_X86_64:
            # The same numbers are other calls there.
            raise GoHome("syscall:i386", thread.tid)
        name = syscall_name(regs.orig_rax)
        if name in JOURNALLED and self._is_alone_for(thread):
            self.memory_calls.make(thread, name, regs)
        elif name == "gettid":
            thread.answer(regs, thread.as_seen)
        elif name in self.mirror.identity:
            thread.answer(regs, self.mirror.identity[name])
        elif name in syscalls.PLACEMENT:
            thread.answer(regs, 0)
        elif name == "sched_yield":
            thread.note_yield(regs)
            thread.answer(regs, 0)
        elif name == "clock_gettime":
            self._tell_clock(thread, regs)
        elif name == "rt_sigprocmask":
            self._block_signals(thread, regs)
        elif name == "futex":
            self._handle_futex(thread, regs)
        else:
            raise GoHome(f"syscall:{name}", thread.tid)

    def _tell_clock(self, thread: Thread, regs: Registers) -> None:
        """A clock that is not everybody's. It is asked for within the vdso mostly, from where nothing goes home."""
        (clock,) = struct.unpack("<i", struct.pack("<I", regs.rdi & 0xFFFFFFFF))
        ns, error = self.link.clock_of(thread.tid, clock)
        if not error:
            try:
                self.page_ins.write(regs.rsi, struct.pack("<QQ", *divmod(ns, 1_000_000_000)))
            except RemoteFault:
                error = EFAULT
        thread.answer(regs, -error)

    def _block_signals(self, thread: Thread, regs: Registers) -> None:
        """More blocked signals are noted, and come home with the thread; where one is unblocked, it may be waiting at home."""
        mask = thread.mask
        try:
            if regs.rsi:
                given = self.page_ins.word(regs.rsi)
                change = {SIG_BLOCK: mask | given, SIG_UNBLOCK: mask & ~given, SIG_SETMASK: given}
                mask = change[regs.rdi & 0xFFFFFFFF] & ~NEVER_BLOCKED
            if regs.r10 != 8 or thread.mask_at_home & ~mask:
                raise GoHome("syscall:rt_sigprocmask", thread.tid)
            if regs.rdx:
                self.page_ins.write(regs.rdx, thread.mask.to_bytes(8, "little"))
        except (KeyError, RemoteFault):
            raise GoHome("syscall:rt_sigprocmask", thread.tid) from None
        thread.mask = mask
        thread.answer(regs, 0)

    # Futexes

    def _handle_futex(self, thread: Thread, regs: Registers) -> None:
        call = futex.parse(regs)
        if call is None or not self._is_alone_for(thread) or self._is_shared(call.address):
            raise GoHome("syscall:futex", thread.tid)
        try:
            if call.is_wait:
                self._wait(thread, regs, call)
            else:
                woken = self._futexes.wake(call.address, call.value, call.bitset)
                for tid in woken:
                    self._wake(tid, 0, self._call_of(thread.tid))
                thread.answer(regs, len(woken))
        except (RemoteFault, ValueError):
            # EFAULT, EINVAL, or SIGBUS: home says which.
            raise GoHome("syscall:futex", thread.tid) from None

    def _is_alone_for(self, thread: Thread) -> bool:
        """Whether all that concerns the thread is here."""
        return self._call_of(thread.tid).message.alone

    def _is_shared(self, address: int) -> bool:
        """Other processes may wait there, too."""
        area = self.mirror.area_at(address)
        return area is None or bool(area.kind & SHARED)

    def _wait(self, thread: Thread, regs: Registers, call: futex.Futex) -> None:
        # The kernel reads the time first, too: a bad one is told even if nobody would have waited.
        end = until(call, self.page_ins.word, self.mirror.clocks)
        if self.page_ins.word(call.address, 4) != call.value:
            thread.answer(regs, -EAGAIN)
            return
        self._futexes.wait(Waiter(thread.tid, call.address, call.bitset, end))

    def _wake(self, tid: int, result: int, call: Active) -> None:
        """A thread that waits no longer goes on behind its system call; one that waited at home comes here, to the call."""
        thread = self.threads.get(tid)
        if thread is not None:
            thread.answer(ptrace.registers(thread.pid), result)
            return
        standing = self._waiting_at_home[tid]
        try:
            self._take_in(behind_futex(standing, self.link.state_of(tid)), call).resume()
        except (OSError, OtherCpu):
            raise CallFailed("refused:registers") from None

    def _end_waits(self) -> None:
        for tid in self._futexes.expired(time.monotonic()):
            self._wake(tid, -ETIMEDOUT, self._call_of(tid))

    def close(self) -> None:
        os.close(self._children)


def child_signals() -> int:
    """A descriptor that becomes readable when a child stops or ends. SIGCHLD is blocked from here on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    return signalfd([signal.SIGCHLD])


def _signal_reason(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = str(number)
    return f"{'fault' if number in FAULTS else 'signal'}:{name}"
