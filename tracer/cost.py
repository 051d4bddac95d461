"""What calls cost here and there, and where the next one is to run: the model behind `policy = "auto"`. Pure: times are given.

Calls of one split fall into classes of sizes, each reaching to twice the size at which it begins. Of each class the times at
home and away are kept, of the last few calls only. Away they are also taken apart: what the mirror computed, and the way (round
trips and bytes on this link). So a class that has never been away, or not since the link changed, is predicted.

The first LEARNING calls try both sides freely. From then on every call away is charged to a balance, which earns EXPLORING of
the time that calls take at home, and what calls away have saved, if not more than it would have without any of them: while it
is negative, nothing leaves. So whatever the world does, calls never take more than that share longer than if all had stayed at
home, and one call. What trying the side that seems to be the worse costs is taken from there too, and from the time away
when that side is home.
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import count
from statistics import fmean
from typing import NamedTuple

from radium.report import CostClass, CostReport
from radium.tracer.resting import Tally

# The calls of a split that may try both sides, whatever it costs (the promise begins behind them).
LEARNING = 20
# Of each side, in each class.
TRIES = 3
# The share of the time that looking at the worse side may cost.
EXPLORING = 0.01
# A class leaves home when it takes less than this share of the time away; it comes back when it takes more than 1.
WORTH = 0.9
# Between two tries of the worse side: from there on twice as long each time that nothing has changed.
FIRST_GAP_S, LONGEST_GAP_S = 0.1, 10.0
# What timing a call at home costs: breakpoints at its return armed and lifted, a stop more. As seen, about.
TIMING_S = 0.0003
# So many of the last times are kept. Of fewer than ENOUGH, one that is further than FAR from the middle is cut off there.
KEPT, ENOUGH, FAR = 8, 4, 2.0
# Two in a row that are further than that from the middle, and beyond all others: things have changed.
CHANGED = 1.5
# So many calls in a row that are odd are none: the link is another.
MOST_ODD = 3
# Arbitrary: what the first calls cost, with their page-ins, says little.
ENOUGH_TRIPS = 16
# As long as nothing is known of a link: a round trip with radium's work on both sides, and bytes, as on a local one.
USUAL_ROUND_TRIP_S, USUAL_BYTE_S = 300e-6, 1e-9
# What a call carries as long as nothing is known of it.
_USUAL_NBYTES = 64 << 10
# Of two kinds of burdens, so far from being one (the square of the sine between them): below, calls are all alike.
ALIKE = 1e-3
_SMALLEST_S = 1e-9
_marks = count()


def middle(values: Iterable[float]) -> float:
    """The median, the lower one of two."""
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) // 2]


def typical(values: Sequence[float]) -> float:
    """A mean that one odd time does not move far: without the longest, if there are enough."""
    if len(values) >= ENOUGH:
        return fmean(sorted(values)[:-1])
    limit = FAR * middle(values)
    return fmean(min(value, limit) for value in values)


def has_changed(values: Sequence[float]) -> bool:
    """Whether the last two are others than all before."""
    before, last = values[:-2], values[-2:]
    if len(before) < 2:
        return False
    usual = middle(before)
    return min(last) > max(*before, CHANGED * usual) or max(last) < min(*before, usual / CHANGED)


class Way(NamedTuple):
    """Of one call away: seconds beyond what its mirror computed; round trips and bytes."""

    seconds: float
    round_trips: float
    nbytes: float


class Link:
    """What a round trip and a byte cost on the way to an acceptor, radium's own work included, as calls tell.

    mark: another one each time that the link has become another.
    """

    def __init__(self) -> None:
        self._ways: deque[Way] = deque(maxlen=4 * KEPT)
        self._odd: list[Way] = []
        self._are_longer = False
        self._costs: tuple[float, float] | None = None
        self.mark = next(_marks)

    def note(self, way: Way, usual_s: float | None) -> None:
        """usual_s: what the same way has taken since the last change, None when nobody knows.

        MOST_ODD in a row that are all longer than usual, or all shorter, are a change.
        """
        ratio = way.seconds / usual_s if usual_s else 1.0
        if 1 / CHANGED <= ratio <= CHANGED:
            self._odd.clear()
            self._ways.append(way)
        else:
            self._note_odd(way, is_longer=ratio > 1)
        self._costs = None

    def _note_odd(self, way: Way, *, is_longer: bool) -> None:
        if is_longer != self._are_longer:
            self._odd.clear()
        self._are_longer = is_longer
        self._odd.append(way)
        if len(self._odd) == MOST_ODD:
            self._ways = deque(self._odd, maxlen=self._ways.maxlen)
            self._odd.clear()
            self.mark = next(_marks)

    def way_s(self, round_trips: float, nbytes: float) -> float:
        round_trip_s, byte_s = self.costs()
        return round_trips * round_trip_s + nbytes * byte_s

    def costs(self) -> tuple[float, float]:
        """Seconds of a round trip, and of a byte."""
        if self._costs is None:
            self._costs = self._fit()
        return self._costs

    def _fit(self) -> tuple[float, float]:
        """Least squares of the relative errors, neither below zero; calls that are all alike only scale what is usual."""
        rows = [(way.round_trips / way.seconds, way.nbytes / way.seconds) for way in self._ways]
        xx, xy, yy = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
        x, y = (sum(row[i] for row in rows) for i in (0, 1))
        determinant = xx * yy - xy * xy
        if determinant <= ALIKE * xx * yy:
            usual = [trips * USUAL_ROUND_TRIP_S + nbytes * USUAL_BYTE_S for trips, nbytes in rows]
            factor = sum(usual) / sum(share * share for share in usual) if usual else 1.0
            return factor * USUAL_ROUND_TRIP_S, factor * USUAL_BYTE_S
        round_trip_s, byte_s = (x * yy - y * xy) / determinant, (y * xx - x * xy) / determinant
        if round_trip_s < 0:
            return 0.0, y / yy
        return (x / xx, 0.0) if byte_s < 0 else (round_trip_s, byte_s)


class Away(NamedTuple):
    """One call that was away. mark: of the link that it went by."""

    seconds: float
    mirror_s: float
    way: Way
    page_ins: int
    mark: int


class Decision(NamedTuple):
    """is_timed: of a call that stays, how long it takes is to be told."""

    is_away: bool
    is_timed: bool = False


AWAY, HOME, TIMED = Decision(is_away=True), Decision(is_away=False), Decision(is_away=False, is_timed=True)


class SizeClass:
    """Calls of [2**number, 2**(number+1)). home_s: what one takes at home, None: not timed yet."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ncalls = 0
        self.is_away = False
        self.home: deque[float] = deque(maxlen=KEPT)
        self.home_s: float | None = None
        self.away: deque[Away] = deque(maxlen=KEPT)
        self.ntried_home = self.ntried_away = 0
        self.untimed_s = self.owed_s = 0.0
        self.gap_s, self.next_try, self.tried_mark = FIRST_GAP_S, 0.0, -1
        self._logs = 0.0
        self._seen_away_s, self._seen_mark = 0.0, -1

    def count(self, size: float) -> None:
        self.ncalls += 1
        self._logs += math.log2(max(size, 1.0))

    @property
    def size(self) -> float:
        """In the middle of its calls'."""
        return float(2 ** (self._logs / self.ncalls)) if self.ncalls else float(2**self.number)

    def note_home(self, seconds: float) -> None:
        kept = [*self.home, seconds]
        self.home = deque(kept[-2:] if has_changed(kept) else kept, maxlen=KEPT)
        self.home_s = typical(self.home)

    def note_away(self, call: Away) -> None:
        """A call that brought along what earlier ones still had to fetch replaces them."""
        kept = [one for one in self.away if one.page_ins <= 2 * call.page_ins + 1]
        kept.append(call)
        if has_changed([one.seconds for one in kept]):
            kept = kept[-2:]
        self.away = deque(kept, maxlen=KEPT)
        self._seen_away_s = typical([one.seconds for one in self.away if one.mark == call.mark])
        self._seen_mark = call.mark

    def seen_away_s(self, mark: int) -> float | None:
        """By the link as it is now."""
        return self._seen_away_s if mark == self._seen_mark else None

    @property
    def mirror_s(self) -> float | None:
        """What the mirror computed; None when no call has come to its end there."""
        ended = [call.mirror_s for call in self.away if call.mirror_s > 0]
        return middle(ended) if ended else None

    def usual_way_s(self, mark: int) -> float | None:
        fresh = [call.way.seconds for call in self.away if call.mark == mark]
        return typical(fresh) if len(fresh) > 1 else None

    def change_sides(self, *, is_away: bool) -> None:
        self.is_away = is_away
        self.gap_s, self.owed_s = FIRST_GAP_S, 0.0

    def put_off(self, now: float, mark: int) -> None:
        """The worse side is about to be tried: not again soon."""
        self.gap_s = FIRST_GAP_S if mark != self.tried_mark else min(2 * self.gap_s, LONGEST_GAP_S)
        self.tried_mark, self.next_try = mark, now + self.gap_s


def tally_of(costs: "Iterable[Cost]") -> Tally:
    """Of splits that share a trap."""
    return Tally(*map(sum, zip(*(cost.tally for cost in costs), strict=True)))


class Cost:
    """Of one split."""

    def __init__(self) -> None:
        self.classes: dict[int, SizeClass] = {}
        self.ncalls = 0
        self.balance_s = 0.0
        self.can_time = True
        self.ntrips = 0
        self._total_s = 0.0
        self._leg_s = self._leg_mirror_s = 0.0
        self._nends = 0
        self._quiet_s, self._quiet_until = FIRST_GAP_S, 0.0
        self._saved_s = self._home_s = 0.0
        self._nlearned = 0

    @property
    def tally(self) -> Tally:
        """As estimated."""
        return Tally(self._saved_s, self._home_s, self._nlearned)

    # Deciding

    def decide(self, size: float, now: float, link: Link) -> Decision:
        """Where a call of this size is to run. now: seconds of any clock that only goes forward."""
        self.ncalls += 1
        of_size = self._class(size)
        of_size.count(size)
        side = of_size.is_away
        if self.chats and not self._is_forgiven(now):
            decision = self._time_some(of_size) or HOME
        else:
            decision = self._first_look(of_size) or self._choose(of_size, now, link)
        if decision.is_away:
            of_size.ntried_away += 1
        else:
            self._note_stays(of_size)
        of_size.ntried_home += decision.is_timed
        self._nlearned += of_size.is_away != side or (decision.is_timed and len(of_size.home) < TRIES)
        return decision

    def _class(self, size: float) -> SizeClass:
        number = math.floor(math.log2(size)) if size > 1 else 0
        return self.classes.setdefault(number, SizeClass(number))

    def _first_look(self, of_size: SizeClass) -> Decision | None:
        if self.ncalls > LEARNING:
            return None
        if of_size.ntried_away < TRIES and of_size.ntried_away <= of_size.ntried_home:
            return AWAY
        return self._time_some(of_size)

    def _time_some(self, of_size: SizeClass) -> Decision | None:
        return TIMED if of_size.ntried_home < TRIES and self.can_time else None

    def _choose(self, of_size: SizeClass, now: float, link: Link) -> Decision:
        home_s = of_size.home_s
        if home_s is None or len(of_size.home) < TRIES:
            return TIMED if self.can_time else HOME
        away_s = self.away_s(of_size, link)
        if of_size.is_away and away_s > home_s:
            of_size.change_sides(is_away=False)
            of_size.put_off(now, link.mark)
        elif not of_size.is_away and away_s < WORTH * home_s:
            of_size.change_sides(is_away=True)
        if of_size.is_away and self.balance_s >= 0:
            return self._look_home(of_size, home_s - away_s)
        if self._may_try(of_size, away_s - home_s, now, link.mark):
            return AWAY
        return TIMED if self.can_time and of_size.untimed_s >= TIMING_S / EXPLORING else HOME

    def _look_home(self, of_size: SizeClass, costs_s: float) -> Decision:
        """Whether home is still the worse side: seen now and then, by a share of the time away."""
        if not self.can_time or of_size.owed_s <= costs_s + TIMING_S:
            return AWAY
        of_size.owed_s = 0.0
        return TIMED

    def _may_try(self, of_size: SizeClass, costs_s: float, now: float, mark: int) -> bool:
        """Whether a class that stays at home is to look how it would be away."""
        is_time = now >= of_size.next_try or mark != of_size.tried_mark
        if of_size.is_away or not is_time or self.balance_s < max(costs_s, 0.0):
            return False
        of_size.put_off(now, mark)
        return True

    @property
    def chats(self) -> bool:
        """Whether its calls go home so often that the way costs more than all that they compute in the mirror."""
        way_s = self._leg_s - self._leg_mirror_s
        return self.ntrips >= ENOUGH_TRIPS and self.ntrips > self._nends and way_s > self._leg_mirror_s

    def _is_forgiven(self, now: float) -> bool:
        """What chatted may have done so for once (the first call of many reads files): after a while it may leave again."""
        if not self._quiet_until:
            self._quiet_until = now + self._quiet_s
        if now < self._quiet_until:
            return False
        self._quiet_until, self._quiet_s = 0.0, min(2 * self._quiet_s, LONGEST_GAP_S)
        self.ntrips = self._nends = 0
        self._leg_s = self._leg_mirror_s = 0.0
        return True

    # Learning

    def note_home(self, size: float, seconds: float) -> None:
        """A timed call at home has returned."""
        self._class(size).note_home(max(seconds, _SMALLEST_S))

    def note_untimed(self) -> None:
        """A call at home could not be timed: neither can others, if none could."""
        self.can_time = any(of_size.home for of_size in self.classes.values())

    def note_once(self, size: float, seconds: float) -> None:
        """A call away took what no later one will: a mirror was made for it."""
        self._charge(self._class(size), seconds)

    def note_away(self, size: float, seconds: float, mirror_s: float, way: Way, page_ins: int, link: Link) -> None:
        """A call has been away, and its result is home. seconds: all that it took; way: the rest of that."""
        of_size = self._class(size)
        way = way._replace(seconds=max(way.seconds, _SMALLEST_S))
        if not page_ins and way.round_trips == 1:
            link.note(way, of_size.usual_way_s(link.mark))
        of_size.note_away(Away(seconds, mirror_s, way, page_ins, link.mark))
        of_size.owed_s += EXPLORING * seconds
        self._charge(of_size, seconds)

    def note_failed(self, size: float, wasted_s: float, link: Link) -> None:
        """A call was tried away in vain, and runs at home."""
        of_size = self._class(size)
        seconds = wasted_s + (of_size.home_s or 0.0)
        of_size.note_away(Away(seconds, 0.0, Way(max(wasted_s, _SMALLEST_S), 1, 0), 0, link.mark))
        self._charge(of_size, seconds)

    def note_leg(self, away_s: float, mirror_s: float, *, is_trip: bool) -> None:
        """A call was away for so long, and in the mirror so long of it. is_trip: it went home in the middle."""
        self._leg_s += away_s
        self._leg_mirror_s += mirror_s
        self.ntrips += is_trip
        self._nends += not is_trip

    def note_rest(self, seconds: float, share: float) -> None:
        """Nobody looked for so long; share: of the time before, calls at home took so much."""
        self._earn(seconds * share)

    def _note_stays(self, of_size: SizeClass) -> None:
        home_s = of_size.home_s
        if home_s is None:
            return
        of_size.untimed_s = 0.0 if of_size.untimed_s >= TIMING_S / EXPLORING else of_size.untimed_s + home_s
        self._home_s += home_s
        self._earn(home_s)

    def _earn(self, home_s: float, saved_s: float = 0.0) -> None:
        if self.ncalls > LEARNING:
            self._total_s += home_s
            self.balance_s = min(self.balance_s + EXPLORING * home_s + saved_s, EXPLORING * self._total_s)

    def _charge(self, of_size: SizeClass, seconds: float) -> None:
        home_s = of_size.home_s
        if home_s is not None:
            self._saved_s += home_s - seconds
            self._earn(home_s, home_s - seconds)

    # Predicting

    def away_s(self, of_size: SizeClass, link: Link) -> float:
        """What a call of the class takes away: as it was seen on this link, or as all that is known of the split tells."""
        seen_s = of_size.seen_away_s(link.mark)
        return self.predict_s(of_size, link) if seen_s is None else seen_s

    def predict_s(self, of_size: SizeClass, link: Link) -> float:
        round_trips, nbytes = self._burden(of_size)
        return self._mirror_s(of_size) + link.way_s(round_trips, nbytes)

    def _burden(self, of_size: SizeClass) -> tuple[float, float]:
        """Round trips and bytes of a call."""
        known = [one for one in self.classes.values() if one.away]
        if not known:
            return 1.0, float(_USUAL_NBYTES)
        nearest = of_size if of_size.away else min(known, key=lambda one: abs(one.number - of_size.number))
        round_trips = middle(call.way.round_trips for call in nearest.away)
        if of_size.away:
            return round_trips, middle(call.way.nbytes for call in of_size.away)
        points = [(one.size, middle(call.way.nbytes for call in one.away)) for one in known]
        return round_trips, through(points, of_size.size)

    def _mirror_s(self, of_size: SizeClass) -> float:
        """By the class's own calls, or by how much faster the mirror was than home with others, or by theirs alone."""
        if of_size.mirror_s is not None:
            return of_size.mirror_s
        if of_size.home_s is not None:
            return of_size.home_s / (self.speed or 1.0)
        points = [(one.size, one.mirror_s) for one in self.classes.values() if one.mirror_s is not None]
        return through(points, of_size.size) if points else 0.0

    @property
    def speed(self) -> float | None:
        """How many times faster than home the mirror computes; by the largest class that was on both sides."""
        both = [(one.number, one.home_s / one.mirror_s) for one in self.classes.values() if one.home_s and one.mirror_s]
        return max(both)[1] if both else None

    # Telling

    def break_even(self, link: Link) -> float | None:
        """The size from which calls win away: between the classes that were seen, or beyond; None: nowhere, as it seems.

        0: all that were seen win.
        """
        ratios = [(one.size, self.away_s(one, link) / one.home_s) for one in self._ordered() if one.home_s]
        if not ratios:
            return None
        losing = [i for i, (_, ratio) in enumerate(ratios) if ratio >= 1]
        if not losing:
            return 0.0
        if losing[-1] + 1 < len(ratios):
            (size, ratio), (next_size, next_ratio) = ratios[losing[-1]], ratios[losing[-1] + 1]
            share = math.log(ratio) / (math.log(ratio) - math.log(next_ratio))
            return float(size * (next_size / size) ** share)
        return self._beyond(ratios[-1][0], link)

    def _beyond(self, largest: float, link: Link) -> float | None:
        """Larger than any that was seen, by how times and bytes have grown so far."""
        speed = self.speed
        known = [one for one in self._ordered() if one.home_s]
        carried = [(one.size, middle(call.way.nbytes for call in one.away)) for one in known if one.away]
        if speed is None or len(known) < 2 or not carried:
            return None
        times = [(one.size, one.home_s or 0.0) for one in known]
        round_trips, _ = self._burden(known[-1])

        def wins(size: float) -> bool:
            home_s = through(times, size)
            return home_s / speed + link.way_s(round_trips, through(carried, size)) < WORTH * home_s

        return next((size for step in range(1, 41) if wins(size := largest * 2 ** (step / 2))), None)

    def _ordered(self) -> list[SizeClass]:
        return [self.classes[number] for number in sorted(self.classes)]

    def report(self, sized_by: str, link: Link) -> CostReport:
        """All of it in numbers."""
        round_trip_s, byte_s = link.costs()
        classes = [self._report_class(one, link) for one in self._ordered() if one.ncalls]
        return CostReport(
            sized_by, classes, round_trip_s, 1 / max(byte_s, 1e-12), self.speed, self.break_even(link), self.chats,
            self.can_time,
        )  # fmt: skip

    def _report_class(self, of_size: SizeClass, link: Link) -> CostClass:
        round_trips, nbytes = self._burden(of_size)
        return CostClass(
            float(2**of_size.number) if of_size.number else 0.0, float(2 ** (of_size.number + 1)), of_size.ncalls,
            of_size.ntried_away, of_size.home_s, self.away_s(of_size, link), self._mirror_s(of_size), round_trips, nbytes,
            of_size.seen_away_s(link.mark) is None, "remote" if of_size.is_away else "local",
        )  # fmt: skip


def through(points: Sequence[tuple[float, float]], size: float) -> float:
    """y at a size, by the straight line through the logarithms of (size, y); of one point, in proportion to it."""
    logs = [(math.log(max(x, 1.0)), math.log(max(y, _SMALLEST_S))) for x, y in points]
    mean_x, mean_y = (fmean(values) for values in zip(*logs, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in logs)
    power = sum((x - mean_x) * (y - mean_y) for x, y in logs) / spread if spread else 1.0
    return math.exp(min(mean_y + min(max(power, 0.0), 4.0) * (math.log(max(size, 1.0)) - mean_x), 700.0))


