"""While a call is away: whether one of the tracee's stopped threads has a signal to meet."""

from radium.tracer import tracee_signals
from radium.tracer.tracee import Tracee

# How many threads are looked at each time, beside the call's own: one look costs 20 us.
MOST = 16


class Lookout:
    def __init__(self, tracee: Tracee) -> None:
        self._tracee = tracee
        self._next = 0

    def find_signal(self, tid: int, *, with_others: bool) -> tuple[int, int]:
        """(signal, the thread that would meet it); (0, 0) for none. Of many others, some more are looked at each time."""
        for looked_at in (tid, *(self._some_others(tid) if with_others else ())):
            number = self._signal_of(looked_at)
            if number:
                return number, looked_at
        return 0, 0

    def _some_others(self, tid: int) -> list[int]:
        others = [other for other in self._tracee.threads.threads if other != tid]
        self._next = (self._next + MOST) % max(len(others), 1)
        return (others + others)[self._next :][: min(MOST, len(others))]

    def _signal_of(self, tid: int) -> int:
        """One that the thread has taken already, or would take if it ran."""
        taken = (stop.detail for stop in self._tracee.threads.pending if stop.kind == "signal" and stop.tid == tid)
        return next(taken, 0) or tracee_signals.deliverable(self._tracee.pid, tid)
