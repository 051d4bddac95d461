"""From what size on a call wins: power laws through what was observed. Pure.

The time of a function as its size grows is a straight line between logarithms, near enough for a factor of two.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

# Fewer sizes tell nothing of what lies between them.
FEWEST_SIZES = 3
# An argument that explains less of the time than this is not what the time depends on. Arbitrary.
LEAST_CORRELATION = 0.8
# What an argument can be if it is a size: not an address, not a flag.
_MOST_SIZE = 1 << 40


class Law(NamedTuple):
    """y = factor * x ** power, for x in [low, high]; correlation: of the logarithms, -1 to 1."""

    factor: float
    power: float
    low: float
    high: float
    correlation: float

    def at(self, x: float) -> float:
        return self.factor * x**self.power


def power_law(points: Sequence[tuple[float, float]]) -> Law | None:
    """Through (x, y), all positive, by least squares of the logarithms; None for fewer than FEWEST_SIZES sizes."""
    logs = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len({x for x, _ in logs}) < FEWEST_SIZES:
        return None
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    spread_x = sum((x - mean_x) ** 2 for x, _ in logs)
    spread_y = sum((y - mean_y) ** 2 for _, y in logs)
    common = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    power = common / spread_x
    correlation = common / math.sqrt(spread_x * spread_y) if spread_y else 0.0
    xs = [math.exp(x) for x, _ in logs]
    return Law(math.exp(mean_y - power * mean_x), power, min(xs), max(xs), correlation)


def sizing_argument(calls: Sequence[tuple[Mapping[str, int], float]]) -> tuple[str, Law] | None:
    """The argument on which the time depends most, and how; None when there is none.

    calls: arguments by name, and seconds.
    """
    best: tuple[str, Law] | None = None
    for name in sorted({name for arguments, _ in calls for name in arguments}):
        points = [(arguments[name], seconds) for arguments, seconds in calls if _is_size(arguments.get(name))]
        law = power_law(points) if len(points) == len(calls) else None
        if law and law.correlation >= LEAST_CORRELATION and (best is None or law.correlation > best[1].correlation):
            best = name, law
    return best


def _is_size(value: int | None) -> bool:
    return value is not None and 0 < value < _MOST_SIZE


def break_even(wins: Callable[[float], bool], low: float, high: float) -> float | None:
    """The size in [low, high] from which `wins` is true; low: everywhere, None: nowhere. To a per cent.

    wins: of a size, false below some size and true from there on.
    """
    if not wins(high):
        return None
    if wins(low):
        return low
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if wins(middle) else (middle, high)
    return high


def readable(size: float) -> int:
    """A size as a person would write it into a guard: the next of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 times a power of ten."""
    if size <= 1:
        return 1
    scale = 10 ** math.floor(math.log10(size))
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return math.ceil(next(step for step in steps if step * scale >= size * 0.999) * scale)
