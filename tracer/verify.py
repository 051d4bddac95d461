"""`--verify`: a call is made in the mirror and then at home, and what came of it is compared; home's is what counts.

The call leaves as any other. Its answer is kept and not committed: the mirror forgets what the call did there (the session
sees to that), and the call runs at home from its entry, until it returns to its caller. Then, all threads stopped, these are
compared:

* the result's registers, and those that a function preserves (core.compare); the return address by where it is noticed;
* all memory that the mirror wrote, with what home has there; if both have made a mapping, the contents of the mirror's with
  those of home's, pointers into it translated;
* pages that home wrote and the mirror had and did not write, by their hashes: that they differ is told, not the byte;
* memory calls: which, of what size; and the layout that is left.

Not compared: the stack below the stack pointer; what the kernel keeps in memory (rseq areas); what a profile calls scratch;
pages that home wrote and the mirror never had. What tells the time, or is random, differs.

Other threads run at home while the call does, and some may have run in the mirror. Those that wait in the kernel all the time
are of no concern. If others did run, their stacks are left out, and what home alone wrote or mapped, and all that differs in
memory counts only where it is an argument's: elsewhere it may be theirs. Where no signature says what the arguments'
memory is, such a call counts as not compared (`threads`).

A call that the mirror could not finish (a system call for home, a signal, a fault) is not compared: its reason is counted.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import NamedTuple

from radium.core import abi, compare, wire
from radium.core.addr import PAGE_SIZE, page_ceil
from radium.core.compare import Argument, Moved, Rules, State
from radium.core.mapping import MAP_FIXED, MAP_FIXED_NOREPLACE, RESERVED, STACK, Layout, LayoutCall, difference, replay
from radium.core.pages import Run, Runs, intersect, normalise, npages, subtract
from radium.core.regs import NO_SYSCALL, U64, Registers
from radium.dirty import digest
from radium.errors import Conflict, NotPossible, RemoteFault, TraceeGone
from radium.linux import ptrace
from radium.linux.libc import syscall_name
from radium.tracer.call import Call
from radium.tracer.home import CHUNK
from radium.tracer.naming import place_name
from radium.tracer.resolve import MappedObject
from radium.tracer.split import Split
from radium.tracer.tracee import Tracee

# How far behind a pointer argument, of which nothing else says how much lies there, memory is called by its name.
ARGUMENT_REACH = 1 << 20
# On a stack that neither the kernel nor glibc made (a coroutine's, say), how much below the stack pointer is taken for dead.
FOREIGN_STACK = 256 << 10
# Above what fs_base points to lies glibc's struct pthread: 2304 bytes in 2.36 (nptl/descr.h).
_PTHREAD_NBYTES = 2304
# Memory calls that show in the layout that is left.
_COMPARED_CALLS = ("mmap", "mremap", "munmap")
# Why a call is not compared: it ended at home otherwise than by a return to its caller; others wrote as well, perhaps.
LEFT, THREADS = "left", "threads"

# Where a thread waits in the kernel: rip, rsp.
Place = tuple[int, int]
Digests = Callable[[Runs], list[bytes] | None]


class Trial(NamedTuple):
    """One call that was made on both sides, or was to be.

    arguments: at its entry, by name. pages_sent, paged_in, pages_written: what a commit would have cost, with bytes out and
    back. mirror_s: in the mirror; away_s: from when it left until its answer was there; home_s: at home, with the traps and,
    if system calls are counted, a stop before and behind each. threads: that were in the mirror, its own included.
    syscalls: that its thread made at home, by name, if they are counted (`Verifier.counts_syscalls`).
    working_set: the pages that would be sent with the next such call. difference: "" if there was none; not_compared: why it
    could not be compared, "" if it was.
    """

    split: Split
    arguments: dict[str, int | float]
    pages_sent: int
    paged_in: int
    pages_written: int
    bytes_out: int
    bytes_back: int
    mirror_s: float
    away_s: float
    home_s: float
    threads: int
    syscalls: Counter[str]
    working_set: Runs
    difference: str
    not_compared: str

    @property
    def equal(self) -> bool | None:
        return None if self.not_compared else not self.difference


class Outcome(NamedTuple):
    """What came of a call in the mirror. contents: those of the `dirty` pages; dead: pages that are of no use at home."""

    answer: wire.Answer
    dirty: Runs
    contents: bytearray
    dead: Runs


@dataclass(eq=False)
class Verification:
    """A call that has been made in the mirror and now runs at home. reason: why it cannot be compared."""

    call: Call
    outcome: Outcome
    reason: str
    rules: Rules
    values: dict[str, int | float]
    expected: Layout
    waiting: dict[int, Place]
    away_s: float
    traces: bool
    traced_before: bool
    began: float = field(default_factory=time.monotonic)
    syscalls: Counter[str] = field(default_factory=Counter)
    memory_calls: list[LayoutCall] = field(default_factory=list)
    entered: Registers | None = None


def _ignore(trial: Trial) -> None:
    return


class Verifier:
    """Of one tracee: one call at a time. fraction: of a split's calls, which ones: evenly, beginning with the first.

    on_verified: told of each. objects: the tracee's ELF objects, for names.
    """

    def __init__(self, tracee: Tracee) -> None:
        self._tracee = tracee
        self.fraction = 0.0
        self.counts_syscalls = False
        self.on_verified: Callable[[Trial], None] = _ignore
        self.objects: Callable[[], Sequence[MappedObject]] = lambda: ()
        self.current: Verification | None = None
        self._nseen: Counter[Split] = Counter()
        self._nchosen: Counter[Split] = Counter()

    def chooses(self, split: Split) -> bool:
        """Whether this call of the split's is one to be verified."""
        if not self.fraction:
            return False
        is_chosen = self._nseen[split] * self.fraction >= self._nchosen[split] - 1e-9
        self._nseen[split] += 1
        self._nchosen[split] += is_chosen
        return is_chosen

    # The call runs at home. All threads are stopped in these.

    def begin(self, call: Call, outcome: Outcome, reason: str) -> Verification:
        """It is about to run at home, from its entry. reason: why it cannot be compared, "" if it can."""
        home, answer = self._tracee.home, outcome.answer
        try:
            expected = replay(home.layout, home.brk, answer.journal)[0]
        except Conflict:
            # Threads beside it have changed the layout meanwhile.
            expected = []
        arguments, values = self._arguments(call)
        was_traced = call.thread.traces_syscalls
        traces = self.counts_syscalls or any(_places_anew(one) for one in answer.journal)
        self.current = Verification(
            call, outcome, reason, Rules(call.split.profile.tolerance, arguments), values, expected, self._waiting(call.tid),
            time.monotonic() - call.left, traces, was_traced,
        )  # fmt: skip
        call.thread.traces_syscalls = traces or was_traced
        return self.current

    def note_entry(self, tid: int, rsp: int) -> None:
        """A thread enters a function with this stack pointer: if from further up, the call that it was in has ended."""
        if self.current is not None and self.current.call.tid == tid and rsp >= self.current.call.frame.rsp:
            self.abandon(LEFT)

    def _waiting(self, own: int) -> dict[int, Place]:
        """The threads but this one that wait in the kernel, and where."""
        out = {}
        for tid in self._tracee.threads.threads:
            if tid != own:
                with suppress(TraceeGone):
                    regs = ptrace.registers(tid)
                    if regs.orig_rax != NO_SYSCALL:
                        out[tid] = regs.rip, regs.rsp
        return out

    def _is_alone(self, verification: Verification) -> bool:
        """Whether no other thread of the process has run since the call left, here or there."""
        others = self._tracee.threads.threads.keys() - {verification.call.tid}
        return (
            len(verification.outcome.answer.threads) == 1
            and others == verification.waiting.keys()
            and self._waiting(verification.call.tid) == verification.waiting
        )

    def _arguments(self, call: Call) -> tuple[list[Argument], dict[str, int | float]]:
        """The memory behind pointer arguments, and the values of all, if it left from its entry."""
        if not call.is_at_entry:
            return [], {}
        bound = call.split.arguments(call.tid, call.regs)
        signature = call.split.profile.signature
        values: dict[str, int | float] = {}
        for parameter in (signature or abi.DEFAULT).parameters:
            with suppress(RemoteFault):
                value = bound[parameter.name]
                assert isinstance(value, int | float)
                # A pointer is an int that can do more.
                values[parameter.name] = value if isinstance(value, float) else int(value)
        hinted = dict(call.split.hints(call.tid, call.regs))
        out = []
        for parameter in signature.parameters if signature is not None else ():
            at = values.get(parameter.name, 0)
            if isinstance(parameter.type, abi.Pointer) and isinstance(at, int) and at:
                element = parameter.type.to if isinstance(parameter.type.to, abi.Scalar) else None
                out.append(Argument(parameter.name, at, hinted.get(at) or self._reach(at), element))
        return out, values

    def _reach(self, address: int) -> int:
        return min(self._tracee.home.end_of_area(address), address + ARGUMENT_REACH)

    def traces(self, tid: int) -> bool:
        """Whether the system calls of this thread are of interest."""
        return self.current is not None and self.current.traces and self.current.call.tid == tid

    def note_syscall(self, regs: Registers, *, is_behind: bool) -> None:
        """The thread stands before or behind one."""
        assert self.current is not None
        if not is_behind:
            self.current.entered = regs
            self.current.syscalls[syscall_name(regs.orig_rax)] += 1
        elif (entered := self.current.entered) is not None:
            self.current.entered = None
            name = syscall_name(entered.orig_rax)
            if name in _COMPARED_CALLS and regs.rax <= U64 - 4096:
                arguments = (entered.rdi, entered.rsi, entered.rdx, entered.r10, entered.r8, entered.r9)
                self.current.memory_calls.append(LayoutCall(name, arguments, regs.rax))

    # The end

    def finish(self, verification: Verification, regs: Registers, mirror_digests: Digests) -> None:
        """The call has returned at home; its thread stands behind it. mirror_digests: of pages, None if it has gone."""
        if verification is not self.current:
            return
        home_s = time.monotonic() - verification.began
        found, reason = "", verification.reason
        if not reason:
            found, reason = self._difference(verification, State(regs, ptrace.xstate(verification.call.tid)), mirror_digests)
        self._end(found, reason, home_s)

    def abandon(self, reason: str) -> None:
        """The call that runs at home is compared with nothing."""
        if self.current is not None:
            self._end("", self.current.reason or reason, time.monotonic() - self.current.began)

    def has_left(self) -> bool:
        """Whether the call that runs at home has ended otherwise than by its return. The threads are stopped."""
        if self.current is None:
            return False
        call = self.current.call
        if self._tracee.threads.threads.get(call.tid) is not call.thread:
            return True
        try:
            regs = ptrace.registers(call.tid)
        except TraceeGone:
            return True
        return call.has_ended(regs.rsp) and regs.rip != call.frame.back

    def _end(self, found: str, reason: str, home_s: float) -> None:
        verification, self.current = self.current, None
        assert verification is not None
        call = verification.call
        call.thread.traces_syscalls = verification.traced_before
        if reason:
            call.split.report.count_unverified(reason)
        else:
            call.split.report.count_verified(found)
        self.on_verified(
            Trial(
                call.split, verification.values, call.sent_npages, call.paged_in, npages(verification.outcome.dirty),
                call.out_nbytes, call.back_nbytes, call.mirror_s, verification.away_s, home_s,
                len(verification.outcome.answer.threads), verification.syscalls,
                call.split.working_set.predict(call.frame.rsp), found, reason,
            )
        )  # fmt: skip

    # Comparing

    def _difference(self, verification: Verification, state: State, mirror_digests: Digests) -> tuple[str, str]:
        """The first one, in words, "": none; and why it does not count, if it does not."""
        call, answer = verification.call, verification.outcome.answer
        self._tracee.home.refresh()
        is_alone = self._is_alone(verification)
        moved, calls_differ = _pair(answer.journal, verification.memory_calls)
        rules = verification.rules._replace(moved=moved if verification.traces else ())
        own = next(standing for standing in answer.threads if standing.tid == call.tid)
        theirs = State(Registers.unpack(own.registers), own.xstate)
        ignored = self._ignored(verification, state.regs, with_others=not is_alone)
        signature = call.split.profile.signature
        registers = compare.register_difference(theirs, state, signature, rules)
        if registers and signature is not None:
            return registers, ""
        everywhere = self._differences(verification, rules, ignored)
        found = next(everywhere, None)
        if found is None and is_alone:
            found = self._difference_at_home(verification, ignored, mirror_digests)
        if found is not None and not is_alone:
            if not rules.arguments:
                return "", THREADS
            found = next((one for one in chain((found,), everywhere) if rules.argument_at(one.address)), None)
        if found is not None:
            return self._text(found, rules, state.regs.rsp), ""
        # Without a signature, what lies in them may be no result at all.
        return registers or (self._layout_difference(verification, calls_differ) if is_alone else ""), ""

    def _ignored(self, verification: Verification, regs: Registers, *, with_others: bool) -> Runs:
        """Bytes that are not the call's, or of no use after it."""
        kernels = [(address, address + nbytes) for address, nbytes in self._tracee.kernel_areas()]
        ignored = [*kernels, *verification.call.scratch, *self._dead_stack(regs)]
        if with_others:
            for tid in self._tracee.threads.threads:
                if tid != verification.call.tid:
                    with suppress(TraceeGone):
                        ignored += self._whole_stack(ptrace.registers(tid))
        return normalise(ignored)

    def _dead_stack(self, regs: Registers) -> Runs:
        area = next((a for a in self._tracee.home.layout if a.start <= regs.rsp < a.end), None)
        if area is None:
            return []
        is_known = area.kind & STACK or regs.rsp < regs.fs_base <= area.end
        return [(area.start if is_known else max(area.start, regs.rsp - FOREIGN_STACK), regs.rsp)]

    def _whole_stack(self, regs: Registers) -> Runs:
        """Of another thread: with its TLS and what glibc keeps there, if it is one that glibc made."""
        area = next((a for a in self._tracee.home.layout if a.start <= regs.rsp < a.end), None)
        if area is None:
            return []
        if regs.rsp < regs.fs_base <= area.end:
            return [(area.start, min(area.end, page_ceil(regs.fs_base + _PTHREAD_NBYTES)))]
        return [(area.start, area.end)] if area.kind & STACK else self._dead_stack(regs)

    def _differences(self, verification: Verification, rules: Rules, ignored: Runs) -> Iterator[compare.Difference]:
        """In the memory that the mirror wrote."""
        at = 0
        contents = memoryview(verification.outcome.contents)
        for start, end in verification.outcome.dirty:
            theirs, at = contents[at : at + end - start], at + end - start
            for first, last, here in _placed(start, end, rules.moved):
                yield from self._compare(bytearray(theirs[first - start : last - start]), here, rules, ignored)

    def _compare(self, mirror: bytearray, here: int, rules: Rules, ignored: Runs) -> Iterator[compare.Difference]:
        """here: where home has what is `mirror` there. A difference is told by its address at home."""
        try:
            ours = b"".join(bytes(piece) for piece in self._tracee.home.contents([(here, here + len(mirror))]))
        except RemoteFault:
            yield compare.Difference(here, f"{len(mirror) // PAGE_SIZE} pages written", "not all of them mapped")
            return
        compare.mask(here, mirror, ours, ignored)
        yield from compare.differences(here, mirror, ours, rules)

    def _difference_at_home(
        self, verification: Verification, ignored: Runs, mirror_digests: Digests
    ) -> compare.Difference | None:
        """In pages that home alone wrote; the mirror still has them as they were."""
        outcome = verification.outcome
        written = self._tracee.home.peek_written()
        unknown = normalise([*outcome.dirty, *outcome.dead, *self._tracee.kernel_pages(), *_whole_pages(ignored)])
        runs = intersect(subtract(written, unknown), self._tracee.home.held.runs)
        pages = [page for start, end in runs for page in range(start, end, PAGE_SIZE)]
        digests = mirror_digests(runs) if pages else []
        if digests is None:
            return None
        for page, theirs in zip(pages, digests, strict=True):
            if digest(self._tracee.home.page(page)) != theirs:
                return compare.Difference(page, "not written", "written")
        return None

    def _layout_difference(self, verification: Verification, calls_differ: str) -> str:
        if verification.traces:
            return calls_differ
        kept = RESERVED | STACK
        there, here = ([a for a in one if not a.kind & kept] for one in (verification.expected, self._tracee.home.layout))
        delta = difference(there, here)
        if not delta:
            return ""
        first = min([*delta.unmap, *((a.start, a.end) for a in (*delta.map, *delta.protect))])
        return f"the mapping {first[0]:#x}-{first[1]:#x} is not the same in the mirror and at home"

    def _text(self, found: compare.Difference, rules: Rules, rsp: int) -> str:
        """`c[17] ([heap]+0x2a0, page 0x5581c000): 1.5 in the mirror, 2.5 at home`."""
        try:
            place = place_name(found.address, self._tracee.home.mappings, self.objects(), rsp)
        except (NotPossible, TraceeGone):
            place = "somewhere"
        page = f"page {found.address & ~(PAGE_SIZE - 1):#x}"
        argument = rules.argument_at(found.address)
        if argument is None:
            where = f"{place} ({page})"
        else:
            where = f"{argument.describe(found.address)} ({place}, {page})"
        return f"{where}: {found.mirror} in the mirror, {found.home} at home"


def _places_anew(call: LayoutCall) -> bool:
    """Whether the kernel chose where the memory lies, which may be elsewhere at home."""
    if call.name == "mremap":
        return call.result != call.arguments[0]
    return call.name == "mmap" and not call.arguments[3] & (MAP_FIXED | MAP_FIXED_NOREPLACE)


def _size(call: LayoutCall) -> int:
    return page_ceil(call.arguments[2 if call.name == "mremap" else 1])


def _pair(mirror: Sequence[LayoutCall], home: Sequence[LayoutCall]) -> tuple[list[Moved], str]:
    """The mappings that both have made, in the order of their calls; and what the calls differ in, if they do."""
    theirs = [call for call in mirror if call.name in _COMPARED_CALLS]
    there, here = ([(call.name, _size(call)) for call in calls] for calls in (theirs, home))
    moved = [
        Moved(their.result, our.result, _size(our))
        for their, our in zip(theirs, home, strict=False)
        if their.name == our.name != "munmap" and their.result != our.result and _size(their) == _size(our)
    ]
    if there == here:
        return moved, ""
    return moved, f"memory calls: {_calls_text(there)} in the mirror, {_calls_text(here)} at home"


def _calls_text(calls: Sequence[tuple[str, int]]) -> str:
    text = ", ".join(f"{name} of {nbytes >> 10} KiB" for name, nbytes in calls[:4])
    return (text or "none") + (f" and {len(calls) - 4} more" if len(calls) > 4 else "")


def _placed(start: int, end: int, moved: Sequence[Moved]) -> Iterator[tuple[int, int, int]]:
    """Pieces [first, last) of a run of the mirror's, of CHUNK bytes at most, and where home has each."""
    edges = {edge for one in moved for edge in (one.mirror, one.mirror + one.nbytes) if start < edge < end}
    cuts = sorted({start, end, *edges, *range(start, end, CHUNK)})
    for first, last in pairwise(cuts):
        # Of several at the same place, the last one is there.
        place = next((one for one in reversed(moved) if one.mirror <= first < one.mirror + one.nbytes), None)
        yield first, last, first if place is None else first - place.mirror + place.home


def _whole_pages(runs: Sequence[Run]) -> Runs:
    """The pages that lie in the runs as wholes."""
    inner = [(page_ceil(start), end & ~(PAGE_SIZE - 1)) for start, end in runs]
    return normalise((start, end) for start, end in inner if start < end)
