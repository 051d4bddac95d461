"""The report of a job: what `--report` writes, the live table shows and `radium explain` tells.

Layer: beside core. The tracer counts into it, commands read and write it.
The keys are a contract with users (`radium explain`, scripts): every one of them is required when a report is
loaded, except those with a default here. Unknown keys are ignored, so that newer reports can be read.

Units: seconds are float seconds of wall time, pages are 4 KiB, bytes are bytes on the wire.
"""

import json
import os
from typing import Annotated

import msgspec

from radium import files

# Bounded to what a 64-bit counter holds, so that no sum or ratio of a hostile report overflows a float.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Span = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class Calls(msgspec.Struct):
    """Calls committed from an acceptor, and calls that ran (or were finished) at home."""

    remote: Count = 0
    local: Count = 0


class Pages(msgspec.Struct):
    """Pages of remote calls: sent with the call, fetched by the mirror on demand, brought home at commit."""

    sent: Count
    paged_in: Count
    written_back: Count


class Bytes(msgspec.Struct):
    """Bytes of remote calls on the wire, page-ins included."""

    out: Count
    back: Count


class Seconds(msgspec.Struct):
    """Time of remote calls: trap to commit, and the part of it in which the mirror ran."""

    total: Span
    in_mirror: Span


class CallCost(msgspec.Struct):
    """What one remote call took; the first one teaches the working set, the last one shows the steady state."""

    paged_in: Count
    bytes_out: Count
    bytes_back: Count
    seconds: Span


class CostClass(msgspec.Struct):
    """Of calls of a size in [size_from, size_to), as `policy = "auto"` has measured them.

    calls: that were looked at; tried: of them, those that left or were about to. local_seconds, remote_seconds: of a call
    on each side, None: not timed yet; is_predicted: remote_seconds is, from what other calls tell. mirror_seconds,
    round_trips and bytes are what it is made of. decision: remote or local, at the end.
    """

    size_from: Span
    size_to: float
    calls: Count
    tried: Count
    local_seconds: Span | None
    remote_seconds: float
    mirror_seconds: float
    round_trips: float
    bytes: float
    is_predicted: bool
    decision: str


class CostReport(msgspec.Struct):
    """What `policy = "auto"` has measured of a split, and made of it.

    sized_by: what a call's size is, in the profile's words; "": all calls are one class. round_trip_seconds and
    bytes_per_second: of the link, radium's own work included. speed: how many times faster than home the mirror computes.
    break_even: the size from which calls win away, 0: all of them, None: none. chats: its calls went home so often that it
    stays there. is_timed: False when calls at home could not be timed. rests, rested_seconds: how often and how long its
    trap was lifted, because calls gained less than their traps cost; calls in that time are counted nowhere.
    """

    sized_by: str
    classes: list[CostClass]
    round_trip_seconds: float
    bytes_per_second: float
    speed: float | None
    break_even: float | None
    chats: bool
    is_timed: bool
    rests: Count = 0
    rested_seconds: Span = 0.0

    @property
    def ncalls(self) -> int:
        return sum(of_size.calls for of_size in self.classes)


class ProcessReport(msgspec.Struct):
    """A tracee. exit: its exit status, 128+N for signal N, None when it was still running at the end."""

    pid: Count
    exit: int | None


class SplitReport(msgspec.Struct):
    """The counters of one split point, over all processes of the job. Make one with `SplitReport.start`.

    verified: calls that were made on both sides and compared; diverged: those of them that differed; difference: the first
    one found. unverified: calls that were to be compared and could not be, by reason. trap_reason: why it got that trap, a
    clause.
    """

    name: str
    stance: str
    trap: str
    calls: Calls
    local_reasons: dict[str, Count]
    went_home: dict[str, Count]
    pages: Pages
    bytes: Bytes
    seconds: Seconds
    verified: Count
    diverged: Count
    first_call: CallCost | None = None
    last_call: CallCost | None = None
    difference: str = ""
    unverified: dict[str, Count] = {}
    cost: CostReport | None = None
    trap_reason: str = ""

    @classmethod
    def start(cls, name: str, stance: str, trap: str) -> "SplitReport":
        """A split point without calls so far."""
        return cls(name, stance, trap, Calls(), {}, {}, Pages(0, 0, 0), Bytes(0, 0), Seconds(0.0, 0.0), 0, 0)

    def count_remote(
        self,
        pages_sent: int,
        paged_in: int,
        written_back: int,
        bytes_out: int,
        bytes_back: int,
        seconds_total: float,
        seconds_in_mirror: float,
    ) -> None:
        """Count one call whose result was committed from an acceptor. On the hot path: additions only."""
        self.calls.remote += 1
        pages, moved, seconds = self.pages, self.bytes, self.seconds
        pages.sent += pages_sent
        pages.paged_in += paged_in
        pages.written_back += written_back
        moved.out += bytes_out
        moved.back += bytes_back
        seconds.total += seconds_total
        seconds.in_mirror += seconds_in_mirror
        self.last_call = CallCost(paged_in, bytes_out, bytes_back, seconds_total)
        if self.first_call is None:
            self.first_call = self.last_call

    def note_cost(self, cost: CostReport) -> None:
        """What one process has measured; that which has looked at most calls is told."""
        if self.cost is None or self.cost.ncalls <= cost.ncalls:
            self.cost = cost

    def count_trip(self, reason: str) -> None:
        """Count one time that a call went home in the middle."""
        self.went_home[reason] = self.went_home.get(reason, 0) + 1

    def count_verified(self, difference: str) -> None:
        """Count one call that was made on both sides. difference: the first that was found, "" for none."""
        self.verified += 1
        self.diverged += bool(difference)
        self.difference = self.difference or difference

    def count_unverified(self, reason: str) -> None:
        """Count one call that was to be compared and could not be."""
        self.unverified[reason] = self.unverified.get(reason, 0) + 1

    def count_local(self, reason: str, ncalls: int = 1) -> None:
        """Count calls that ran at home. reason: a word of the vocabulary that `radium explain` knows."""
        if ncalls:
            self.calls.local += ncalls
            self.local_reasons[reason] = self.local_reasons.get(reason, 0) + ncalls


class Report(msgspec.Struct):
    """A job: what was split, where its calls ran and what they cost."""

    radium: str
    program: list[str]
    acceptors: list[str]
    processes: list[ProcessReport]
    splits: list[SplitReport]
    notes: list[str] = []

    def split(self, name: str, stance: str, trap: str) -> SplitReport:
        """The counters of that split point, begun at zero when it is new. trap: as it begins; its guard may make it another."""
        for known in self.splits:
            if (known.name, known.stance) == (name, stance):
                return known
        self.splits.append(SplitReport.start(name, stance, trap))
        return self.splits[-1]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON, whole. Names that are not UTF-8 lose the bytes that cannot be shown. Raises JobFailed."""
        text = json.dumps(msgspec.to_builtins(self), indent=2, ensure_ascii=False) + "\n"
        files.write(path, text, "the report", "--report")


def load(path: str | os.PathLike[str]) -> Report:
    """Read a report. Raises UsageError when it cannot be read or is not one."""
    advice = "give a file that `radium run` or `radium attach` wrote with --report"
    return files.read_json(path, Report, "a report of radium", advice)
