"""Step 3 of a call: what the mirror lacks, of layout and pages (DESIGN.md 5 and 6)."""

from typing import NamedTuple

from radium.core.addr import PAGE_SIZE
from radium.core.mapping import LayoutDelta
from radium.core.pages import Runs, around, intersect, normalise, subtract, union
from radium.tracer.beside import Beside
from radium.tracer.call import Call
from radium.tracer.group import Group
from radium.tracer.tracee import Tracee


class Prepared(NamedTuple):
    """drop: what the mirror has and must forget; zero, pages: what it gets; scratch: where it leaves nothing of use."""

    delta: LayoutDelta
    drop: Runs
    zero: Runs
    pages: Runs
    scratch: Runs


class Delta:
    """All threads of the tracee are stopped."""

    def __init__(self, tracee: Tracee, beside: Beside) -> None:
        self._tracee = tracee
        self._beside = beside

    def take(self, call: Call, group: Group, *, is_alone: bool) -> Prepared:
        """For a call that is about to leave; the pages count as held from here on. is_alone: no other call is away."""
        home = self._tracee.home
        # First: what is gone can be neither scanned nor watched.
        delta = home.take_delta()
        changed, lost = home.written()
        if call.runs_beside:
            home.watch_shared()
            self._beside.learn(changed, lost)
        wanted = union(call.hinted, self._predict(call))
        if call.runs_beside:
            # Of what home writes while calls are away, the mirror gets only what this one needs.
            unwanted = subtract(changed, wanted)
            home.lose(unwanted)
            changed, lost = subtract(changed, unwanted), union(lost, unwanted)
        volatile = home.drop_volatile() if is_alone else []
        refused = self._beside.take_refused()
        # Again: what was refused may have been paged in since, by another call.
        home.lose(refused)
        followed = normalise([*delta.unmap, *((area.start, area.end) for area in delta.map)])
        drop = subtract(union(union(lost, volatile), refused), followed)
        scratch = self._scratch(call, group)
        wanted = subtract(wanted, intersect(home.stale.runs, scratch))
        zero, data = home.missing(wanted)
        data = home.readable(data)
        # Stale is what lies below the main thread's stack pointer; if that one is away, it is its call's now.
        stale = home.live_stale(call.regs.rsp, scratch) if is_alone else []
        pages = normalise([*subtract(changed, drop), *data, *stale])
        zero = subtract(zero, pages)
        home.hold_zero(zero)
        home.hold(subtract(pages, changed))
        return Prepared(delta, drop, zero, pages, scratch)

    def _scratch(self, call: Call, group: Group) -> Runs:
        """Where the call leaves nothing of use: not if it, or another thread with it, goes on from the middle of something."""
        if not call.split.profile.scratch or not call.is_at_entry or group.running:
            return []
        return subtract(self._tracee.home.scratch(call.hinted), self._tracee.stacks())

    def _predict(self, call: Call) -> Runs:
        """What the call will touch, as far as earlier ones tell; of contended pages only those of its own thread."""
        predicted = call.split.predict(call.frame.rsp, self._tracee.home.mappings)
        if not call.runs_beside:
            return predicted
        regs = call.regs
        own = around([(regs.rsp - PAGE_SIZE, regs.rsp + 8), (regs.fs_base, regs.fs_base + 8)])
        self._beside.contend(own)
        return union(subtract(predicted, self._beside.contended), own)
