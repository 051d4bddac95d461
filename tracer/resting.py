"""When the trap of a split whose calls gain nothing is lifted, and when it is armed again to look whether that has changed.

A trap costs its thread a stop, each time. As long as a split's traps take more than LARGEST_SHARE of the time, after what its
calls away have saved, it rests: twice as long each time that nothing new was learned, and so long that looking takes no more
than PLANNED_SHARE. Pure.
"""

from copy import copy
from typing import NamedTuple

# Of the wall time: what traps may take before a split rests, and what looking in between may take.
LARGEST_SHARE, PLANNED_SHARE = 0.02, 0.005
FIRST_REST_S, LONGEST_REST_S = 0.05, 10.0
# A look at a split that has rested is over after so many calls.
LOOK = 4
# So long one look lasts when there are fewer; then it begins anew, and the next rest is a short one.
WINDOW_S = 1.0
# Of each trap, outside of radium: the stop, two changes of processes and their caches. As seen with short functions.
STOP_S = 30e-6


class Tally(NamedTuple):
    """Of a split so far: what calls away have saved, what those at home took, how often something new was learned of it."""

    saved_s: float = 0.0
    home_s: float = 0.0
    nlearned: int = 0


class Rest:
    """Of one split. until: when a rest ends, 0: it does not rest. nrests, rested_s: how often and how long it has rested."""

    def __init__(self, nfree: int) -> None:
        """nfree: so many calls may cost what they like."""
        self.until = 0.0
        self.nrests = 0
        self.rested_s = 0.0
        self._nfree = nfree
        self._rest_s = 0.0
        self._began_rest = 0.0
        self._share_home = 0.0
        self._nlearned = 0
        self._begin(0.0, Tally())

    def _begin(self, now: float, tally: Tally) -> None:
        self._began, self._tally = now, tally
        self._traps_s, self._ntraps = 0.0, 0

    def copy(self) -> "Rest":
        return copy(self)

    def note_trap(self, seconds: float) -> None:
        """A call was trapped and stayed at home; radium took so long for it."""
        self._traps_s += seconds + STOP_S
        self._ntraps += 1

    def is_due(self, now: float, tally: Tally) -> bool:
        """Behind a trap: whether it is to rest now."""
        if self._nfree:
            self._nfree -= 1
            self._begin(now, tally)
            return False
        if self._ntraps < LOOK:
            return False
        passed_s = now - self._began
        if self._traps_s - max(tally.saved_s - self._tally.saved_s, 0.0) > LARGEST_SHARE * passed_s:
            self._share_home = min((tally.home_s - self._tally.home_s) / max(passed_s - self._traps_s, 1e-9), 1.0)
            return True
        if passed_s > WINDOW_S:
            self._rest_s = 0.0
            self._begin(now, tally)
        return False

    def rest(self, now: float, cost_s: float, tally: Tally) -> None:
        """Its trap has been lifted, which took cost_s; arming it takes about as long."""
        looking_s = self._traps_s + 2 * cost_s
        is_news = tally.nlearned != self._nlearned
        self._nlearned = tally.nlearned
        self._rest_s = FIRST_REST_S if is_news else min(max(2 * self._rest_s, FIRST_REST_S), LONGEST_REST_S)
        self._rest_s = max(self._rest_s, min(looking_s / PLANNED_SHARE, LONGEST_REST_S))
        self._began_rest, self.until = now, now + self._rest_s
        self.nrests += 1

    def wake(self, now: float, tally: Tally) -> tuple[float, float]:
        """Its trap is armed again, or will never be. How long it has rested, and what share of that calls took at home."""
        rested_s = now - self._began_rest
        self.rested_s += rested_s
        self.until = 0.0
        self._begin(now, tally)
        return rested_s, self._share_home
