"""Sets of pages as sorted, disjoint, half-open runs [start, end) of page-aligned addresses, and their codec.

Invariants: runs are sorted, do not touch one another, and are never empty. No function looks at single pages.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from radium.core.addr import PAGE_MASK, PAGE_SIZE, USER_END

Run = tuple[int, int]
Runs = list[Run]


def normalise(runs: Iterable[Run]) -> Runs:
    """Sorted and merged; empty runs dropped."""
    out: Runs = []
    in_order = sorted(runs)
    if not in_order:
        return out
    for start, end in in_order:
        if start >= end:
            continue
        if out and start <= out[-1][1]:
            if end > out[-1][1]:
                out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return out


def total(runs: Iterable[Run]) -> int:
    """Bytes."""
    return sum(end - start for start, end in runs)


def npages(runs: Iterable[Run]) -> int:
    return total(runs) // PAGE_SIZE


def intersect(a: Sequence[Run], b: Sequence[Run]) -> Runs:
    """What lies in both; each argument is normalised. Cost: the shorter list, and a search of the longer."""
    if not a or not b:
        return []
    if len(a) > len(b):
        a, b = b, a
    out: Runs = []
    for start, end in a:
        i = max(bisect_right(b, (start, USER_END * 2)) - 1, 0)
        while i < len(b) and b[i][0] < end:
            first, last = max(start, b[i][0]), min(end, b[i][1])
            if first < last:
                out.append((first, last))
            i += 1
    return out


def subtract(a: Sequence[Run], b: Sequence[Run]) -> Runs:
    """What of `a` is not in `b`; both normalised."""
    if not b:
        return list(a)
    out: Runs = []
    for start, end in a:
        i = max(bisect_right(b, (start, USER_END * 2)) - 1, 0)
        while i < len(b) and b[i][0] < end:
            if b[i][0] > start:
                out.append((start, b[i][0]))
            start = max(start, b[i][1])
            i += 1
        if start < end:
            out.append((start, end))
    return out


def union(a: Sequence[Run], b: Sequence[Run]) -> Runs:
    """Both normalised."""
    if not b:
        return list(a)
    if not a:
        return list(b)
    return normalise([*a, *b])


def bridge(runs: Sequence[Run], gap: int, within: "PageSet") -> Runs:
    """Spans that cover the runs, joined across holes of at most `gap` bytes that lie in `within`: fewer, longer scans."""
    out: Runs = []
    for start, end in runs:
        if out and start - out[-1][1] <= gap and within.covers(out[-1][1], start):
            out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return out


def around(ranges: Iterable[Run]) -> Runs:
    """The pages that the byte ranges touch."""
    return normalise((start & ~PAGE_MASK, (end + PAGE_MASK) & ~PAGE_MASK) for start, end in ranges if start < end)


def pieces(runs: Iterable[Run], nbytes: int) -> Iterator[Runs]:
    """The runs, cut and grouped so that each group has at most `nbytes`."""
    group: Runs = []
    left = nbytes
    for start, end in runs:
        while start < end:
            cut = min(end, start + left)
            group.append((start, cut))
            left -= cut - start
            start = cut
            if not left:
                yield group
                group, left = [], nbytes
    if group:
        yield group


def offset_in(runs: Sequence[Run], address: int) -> int | None:
    """Where the byte at `address` lies in the contents of the runs one behind the other; None if it is in none."""
    at = 0
    for start, end in runs:
        if start <= address < end:
            return at + address - start
        at += end - start
    return None


def pack(runs: Iterable[Run]) -> bytes:
    return array("Q", [word for run in runs for word in run]).tobytes()


def unpack(raw: bytes) -> Runs:
    """Inverse of `pack`. Raises ValueError for what is not runs (`check`)."""
    if len(raw) % 16:
        raise ValueError(f"{len(raw)} bytes are not whole page runs")
    words = array("Q", raw)
    out = list(zip(words[0::2], words[1::2], strict=True))
    check(out)
    return out


def check(runs: Sequence[Run]) -> None:
    """Raises ValueError unless the runs are page-aligned, sorted, disjoint and in user space."""
    last = 0
    for start, end in runs:
        if start < last or end <= start or end > USER_END or (start | end) & PAGE_MASK:
            raise ValueError(f"page run {start:#x}-{end:#x} is out of order, empty, or not of pages of user space")
        last = end


class PageSet:
    """A changeable set of pages."""

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self.runs: Runs = normalise(runs)

    def __bool__(self) -> bool:
        return bool(self.runs)

    def __contains__(self, address: int) -> bool:
        i = bisect_right(self.runs, (address, USER_END * 2)) - 1
        return i >= 0 and self.runs[i][0] <= address < self.runs[i][1]

    def covers(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is in the set."""
        i = bisect_right(self.runs, (start, USER_END * 2)) - 1
        return i >= 0 and end <= self.runs[i][1]

    def add(self, runs: Sequence[Run]) -> None:
        if len(runs) == 1 and self.runs:
            self._add_one(*runs[0])
        elif runs:
            self.runs = union(self.runs, runs)

    def _add_one(self, start: int, end: int) -> None:
        known = self.runs
        low = bisect_left(known, (start, 0))
        if low and known[low - 1][1] >= start:
            low -= 1
        high = low
        while high < len(known) and known[high][0] <= end:
            start, end = min(start, known[high][0]), max(end, known[high][1])
            high += 1
        known[low:high] = [(start, end)]

    def remove(self, runs: Sequence[Run]) -> None:
        if runs and self.runs:
            self.runs = subtract(self.runs, runs)

    def clear(self) -> None:
        self.runs = []

    @property
    def npages(self) -> int:
        return npages(self.runs)
