"""What a split would bring on this link, and what is to be said of it. Pure: from what was observed to a verdict.

A call there takes what its mirror computes and the way: stops, bytes, round trips. The way of the trial is known, and what
the link adds to it. Without a named acceptor nothing is known of how fast one would be; then a split is judged by how much of
a call the way takes.
"""

from typing import NamedTuple

from radium.tracer.discovery import fit
from radium.tracer.discovery.findings import Candidate, Link, Trial, Verdict

# Of the time of a call, what the way may take when the acceptor is not known. Arbitrary: any acceptor worth having is faster
# by more than that, and one that is not takes the work off this machine at that price.
LIGHT_WAY = 0.1
# An acceptor would have to be so much faster that there is none.
HOPELESS_SPEED = 10.0
# From so many trips home per call on, it is them that a verdict is about.
CHATTY = 4.0


class Costs(NamedTuple):
    """Of one call, in seconds: at home; in the mirror; the way there and back."""

    here_s: float
    mirror_s: float
    way_s: float

    @property
    def there_s(self) -> float:
        return self.mirror_s + self.way_s


class Way(NamedTuple):
    """link: that is reckoned with; tried: over which the trials went; trip_s: the cheapest way there and back that they
    took."""

    link: Link
    tried: Link
    trip_s: float

    @property
    def knows_acceptor(self) -> bool:
        """Whether the trials tell how fast it is; a private one is no other machine."""
        return self.tried.origin != "this machine"

    def difference_s(self, ntrips: float, nbytes: float) -> float:
        """What so many round trips and bytes take longer than they did in the trials."""
        longer_s = self.link.rtt_s - self.tried.rtt_s
        return (1 + ntrips) * longer_s + nbytes / self.link.bytes_per_s - nbytes / self.tried.bytes_per_s


def costs(trial: Trial, here_s: float, way: Way) -> Costs:
    """Of a call that takes `here_s` at home; each system call that goes home costs one more way there and back."""
    ntrips = sum(trial.syscalls.values())
    way_s = trial.way_s + ntrips * way.trip_s + way.difference_s(ntrips, trial.bytes_out + trial.bytes_back)
    speed = trial.in_mirror_s / trial.here_s if trial.here_s > 0 else 1.0
    return Costs(here_s, here_s * speed, max(way_s, 0.0))


def judge(candidate: Candidate, way: Way) -> None:
    """Fills in what there is to be said: there_s, verdict, reason, guard, break_even."""
    trial = candidate.trial
    if trial is None:
        candidate.verdict = "no" if candidate.reason else "not yet"
        candidate.reason = candidate.reason or "not called while it was watched"
        return
    if trial.equal is False:
        candidate.verdict, candidate.reason = "no", "its results differ there"
        return
    here_s = candidate.here_s or trial.here_s
    expected = costs(trial, here_s, way)
    candidate.there_s = expected.there_s
    _find_guard(candidate, expected, way)
    candidate.verdict, candidate.reason = _verdict(candidate, expected, way)
    if candidate.verdict != "with guard":
        candidate.guard = ""


def _allowance(expected: Costs, way: Way) -> float:
    """The share of a call's time here that the way may take."""
    if not way.knows_acceptor:
        return LIGHT_WAY
    return 1 - expected.mirror_s / expected.here_s


def _find_guard(candidate: Candidate, expected: Costs, way: Way) -> None:
    """The size from which calls win, where a size is known. The way is taken to be what it was in the trial."""
    law = fit.power_law([(sized.size, sized.here_s) for sized in candidate.sizes])
    if law is None or not candidate.size or law.power <= 0:
        return
    speed = expected.mirror_s / expected.here_s
    for sized in candidate.sizes:
        sized.there_s = sized.here_s * speed + expected.way_s
    allowance = _allowance(expected, way)
    size = fit.break_even(lambda size: expected.way_s <= allowance * law.at(size), law.low, law.high)
    candidate.break_even = size
    if size is not None and size > law.low:
        candidate.guard = f"{candidate.size} >= {fit.readable(size)}"


def _verdict(candidate: Candidate, expected: Costs, way: Way) -> tuple[Verdict, str]:
    if candidate.guard:
        return "with guard", "large calls win"
    assert candidate.trial is not None
    overhead = expected.way_s / expected.here_s
    if overhead <= _allowance(expected, way):
        return "ready", "faster there" if way.knows_acceptor else f"way {overhead:.1%}"
    if sum(candidate.trial.syscalls.values()) >= CHATTY and overhead > LIGHT_WAY:
        return "no", "system calls"
    if overhead >= 1 - 1 / HOPELESS_SPEED:
        return "no", "too short"
    return "not yet", f"needs an acceptor {1 / (1 - overhead):.2f} x as fast"


def gain(candidate: Candidate, duration_s: float) -> float | None:
    """The share of the program's time that splitting it saves (negative: costs)."""
    if candidate.there_s is None or not candidate.calls or not candidate.watched_s or candidate.here_s is None:
        return None
    per_s = candidate.calls / candidate.watched_s
    return per_s * (candidate.here_s - candidate.there_s)


