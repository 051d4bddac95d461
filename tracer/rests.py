"""The traps of one process that are lifted for a while, and armed again; when that is, resting.py decides."""

import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from radium.report import CostReport
from radium.tracer.cost import LEARNING, tally_of
from radium.tracer.resting import Rest, Tally
from radium.tracer.split import Split
from radium.tracer.tracee import Tracee


class Rests:
    """Each by the entry at which its splits are trapped."""

    def __init__(self) -> None:
        self._rests: dict[int, Rest] = {}

    def copy(self) -> "Rests":
        """Those of a forked child, whose code is as its parent's."""
        twin = Rests()
        twin._rests = {entry: rest.copy() for entry, rest in self._rests.items()}
        return twin

    def forget(self, entries: Iterable[int]) -> None:
        """They are not mapped any more."""
        for entry in entries:
            self._rests.pop(entry, None)

    @property
    def until(self) -> float:
        """When the next one ends, by the monotonic clock."""
        return min((rest.until for rest in self._rests.values() if rest.until), default=math.inf)

    def note_local(self, tracee: Tracee, entry: int, sharing: Sequence[Split], trap_s: float) -> None:
        """A call of one of these splits was trapped there and stayed at home: perhaps they are to rest now.

        trap_s: what radium took for it.
        """
        now, tally = time.monotonic(), tally_of(split.cost for split in sharing)
        rest = self._rests.setdefault(entry, Rest(LEARNING))
        rest.note_trap(trap_s)
        if rest.is_due(now, tally):
            self._lift(tracee, entry)
            lifted = time.monotonic()
            rest.rest(lifted, lifted - now, tally)

    def _lift(self, tracee: Tracee, entry: int) -> None:
        tracee.threads.stop_all()
        if not tracee.threads.is_over:
            tracee.home.refresh()
            with tracee.home.own_writes(entry):
                tracee.breakpoints.disarm([entry])
        tracee.threads.resume_all()

    def end_due(self, tracee: Tracee, entries: Collection[int], sharing: Callable[[int], Sequence[Split]]) -> None:
        """What has rested long enough is trapped again, if it is still among `entries`. sharing: the splits there."""
        now = time.monotonic()
        over = [entry for entry, rest in self._rests.items() if 0 < rest.until <= now]
        if not over:
            return
        tracee.threads.stop_all()
        if tracee.threads.is_over:
            return
        self.forget(entry for entry in over if entry not in entries)
        for entry in over:
            if entry in entries:
                self._end(tracee, entry, sharing(entry))
        tracee.threads.resume_all()

    def _end(self, tracee: Tracee, entry: int, sharing: Sequence[Split]) -> None:
        tracee.home.refresh()
        with tracee.home.own_writes(entry):
            tracee.breakpoints.arm([entry], tracee.home.mappings)
        rested_s, share = self._rests[entry].wake(time.monotonic(), tally_of(split.cost for split in sharing))
        for split in sharing:
            split.cost.note_rest(rested_s, share / len(sharing))

    def tell(self, cost: CostReport, entry: int) -> None:
        """Fills in how often and how long the splits there have rested; the process is being left."""
        rest = self._rests.get(entry)
        if rest is not None:
            if rest.until:
                rest.wake(time.monotonic(), Tally())
            cost.rests, cost.rested_seconds = rest.nrests, rest.rested_s
