"""What `policy = "auto"` has measured of a split, in words: the numbers behind its decisions, and what would flip them."""

from collections.abc import Iterator

from radium.live import bytes_text, seconds_text
from radium.report import CostClass, CostReport

# A change beyond that is none that anybody could make: then it is not told.
_LARGEST_FACTOR = 1000.0


def tell(cost: CostReport) -> Iterator[str]:
    """Paragraphs, indented."""
    if cost.chats:
        yield (
            "  Decided by measured cost: calls had gone home in the middle so often that the way cost more than all that "
            "they computed away. A function further inside may do its work without the system calls."
        )
    if not cost.is_timed:
        yield (
            "  Calls at home could not be timed (their caller is code made at run time, or the place that they return to is "
            "passed by too many others), so nothing says that away is better, and they stay at home."
        )
    yield from _link(cost)
    for of_size in cost.classes:
        yield f"  {_size(cost, of_size)}: {_sides(of_size)}: {_decision(cost, of_size)}"
    yield from _break_even(cost)
    if cost.rests:
        yield (
            f"  Its trap was lifted {cost.rests} times, for {seconds_text(cost.rested_seconds)} in all, because traps cost "
            "more than calls gained. Calls in that time ran at home and are counted nowhere; now and then some were looked at."
        )


def _link(cost: CostReport) -> Iterator[str]:
    speed = f"; the acceptor computes {_factor(cost.speed)} as fast as home" if cost.speed else ""
    yield (
        f"  As calls have shown, a round trip on this link takes {seconds_text(cost.round_trip_seconds)}, radium's own work "
        f"included, and a second carries {bytes_text(cost.bytes_per_second)}{speed}."
    )


def _size(cost: CostReport, of_size: CostClass) -> str:
    count = f"{of_size.calls} call{'s' if of_size.calls != 1 else ''}"
    if not cost.sized_by:
        return f"All sizes ({count})"
    return f"{cost.sized_by} from {number(of_size.size_from)} to {number(of_size.size_to)} ({count})"


def _sides(of_size: CostClass) -> str:
    home = "not timed at home yet" if of_size.local_seconds is None else f"{_time(of_size.local_seconds)} at home"
    made_of = f"{seconds_text(of_size.mirror_seconds)} in the mirror, {bytes_text(of_size.bytes)}"
    return f"{home}, {seconds_text(of_size.remote_seconds)} away{' as predicted' if of_size.is_predicted else ''} ({made_of})"


def _decision(cost: CostReport, of_size: CostClass) -> str:
    where = "away" if of_size.decision == "remote" else "at home"
    flips = _flips(cost, of_size)
    return f"they run {where}. " + (f"That would flip with {' or '.join(flips)}." if flips else "Nothing near would flip that.")


def _flips(cost: CostReport, of_size: CostClass) -> list[str]:
    """Changes of one thing each, all else as it is, at which both sides take as long."""
    home_s, away_s, mirror_s = of_size.local_seconds, of_size.remote_seconds, of_size.mirror_seconds
    if home_s is None or not home_s > 0 or not away_s > 0:
        return []
    way_s = max(away_s - mirror_s, 0.0)
    spare_s = home_s - mirror_s  # what the way may take
    round_trips_s, bytes_s = of_size.round_trips * cost.round_trip_seconds, of_size.bytes / max(cost.bytes_per_second, 1.0)
    flips = []
    if spare_s > bytes_s and of_size.round_trips > 0 and round_trips_s > 0:
        flips.append(f"a round trip of {seconds_text((spare_s - bytes_s) / of_size.round_trips)}")
    if spare_s > round_trips_s and bytes_s > 0.1 * way_s:
        flips.append(f"a link of {bytes_text(of_size.bytes / (spare_s - round_trips_s))} a second")
    if home_s > way_s and mirror_s > 0 and _is_thinkable(factor := mirror_s / (home_s - way_s)):
        flips.append(f"an acceptor {_factor(factor)} as fast as this one")
    if not flips and _is_thinkable(away_s / home_s):
        flips.append(f"calls that take {seconds_text(away_s)} at home")
    return flips


def _time(seconds: float) -> str:
    return seconds_text(seconds) if seconds >= 0.5e-6 else "less than 1 us"


def _is_thinkable(factor: float) -> bool:
    return 1 / _LARGEST_FACTOR < factor < _LARGEST_FACTOR


def _break_even(cost: CostReport) -> Iterator[str]:
    if not cost.sized_by or len(cost.classes) < 2:
        return
    if cost.break_even is None:
        yield f"  At no {cost.sized_by} that can be foreseen would calls win away on this link."
    elif cost.break_even > 0:
        yield f"  Calls win away from {cost.sized_by} = {number(cost.break_even)} on."


def number(size: float) -> str:
    """Whole, as long as that can be read."""
    return f"{size:,.0f}" if abs(size) < 1e9 else f"{size:.2e}"


def _factor(value: float) -> str:
    return f"{value:.3g} x"
