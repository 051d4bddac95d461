"""`radium trace` from its first sample to its last verdict.

    sample   where the time goes                                       sampler, tree
    propose  functions by which programs enter their libraries         proposal
    count    how often those are called, with what, for how long       counter
    try      some of their calls in a mirror, the results discarded    trial
    judge    what they would take there, and from which size on        verdict, fit, ranking

A program that ends in between is judged by what is known of it by then.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from radium import __version__
from radium.core import abi
from radium.core.expr import Expression
from radium.errors import ExpressionError, NotPossible, RemoteFault, TraceeGone
from radium.tracer.acceptors import Acceptors
from radium.tracer.discovery import counter, fit, known, proposal, ranking, sampler, tree, verdict
from radium.tracer.discovery.counter import Counted, Counting, Observation
from radium.tracer.discovery.findings import Candidate, Findings, Link, Node, Overhead, Sized
from radium.tracer.discovery.sampler import Sampled
from radium.tracer.discovery.symbols import Frame
from radium.tracer.discovery.trial import LONGEST_CALL_S, Trials
from radium.tracer.stops import has_ended
from radium.tracer.wakeups import Wakeups

FREQUENCY = 99
# What sampling and counting may take of the whole time; the rest is for trials.
SAMPLING, COUNTING = 0.4, 0.25
# So many are tried, those with most of the time first; one that nobody calls for so long is not waited for any longer.
MOST_TRIED, LEAST_TRIAL_S = 8, LONGEST_CALL_S + 0.5

# By process: the candidates that are called there.
Homes = dict[int, list[Candidate]]


@dataclass
class Trace:
    """wakeups: what ends a trace early. tried: the link to `acceptors`, where calls are tried; link: the one that is reckoned
    with; duration_s: in all."""

    acceptors: Acceptors
    wakeups: Wakeups
    tried: Link
    link: Link
    duration_s: float

    def __post_init__(self) -> None:
        self.status: int | None = None

    def find(self, pid: int, program: Sequence[str], started: Callable[[], None] = lambda: None) -> Findings:
        """Of a running process and its children; `status` is its wait status then, if a trial saw its end.

        started: called as soon as it is watched. Raises NotPossible, TraceeGone.
        """
        began = time.monotonic()
        sampled = sampler.sample([pid], self.duration_s * SAMPLING, FREQUENCY, self._should_end, started)
        candidates = proposal.propose(sampled.native, sampled.python)
        homes = _homes(candidates, sampled)
        counting = self._count(homes)
        trials = Trials(self.acceptors, self.wakeups)
        ended = sampled.ended or self._try(pid, homes, trials, began + self.duration_s)
        for candidate in candidates:
            self._judge(candidate, trials.trip_s, ended=ended)
        top = _tree(sampled)
        ranking.set_aside(candidates, top)
        return Findings(
            __version__, list(program), sampled.pids, time.monotonic() - began, sampled.samples,
            Overhead(sampled.overhead, counting.overhead, trials.stood_s or None),
            self.link, ranking.rank(candidates, top), top, list(dict.fromkeys([*sampled.notes, *counting.notes])),
        )  # fmt: skip

    def complete(self, found: Findings, lasted_s: float) -> None:
        """The program has ended, and has run for so long: calls that were under way all the time are as long as their share."""
        for candidate in found.candidates:
            if candidate.trial is not None and candidate.calls == 0:
                candidate.here_s = max(candidate.inclusive * lasted_s, candidate.trial.here_s)
                self._judge(candidate, candidate.trial.way_s, ended=True)
        ranking.set_aside(found.candidates, found.tree)
        found.candidates = ranking.rank(found.candidates, found.tree)

    def _should_end(self) -> bool:
        return self.wakeups.wants_end and bool(self.wakeups.received)

    # count

    def _count(self, homes: Homes) -> "_Counts":
        """In each process those that spend their time there, one process after the other."""
        counts = _Counts()
        native = {pid: {_frame(one): one for one in here if one.library} for pid, here in homes.items()}
        todo = {pid: functions for pid, functions in native.items() if functions and not has_ended(pid)}
        for pid, functions in todo.items():
            if self._should_end():
                break
            try:
                counting = counter.count(pid, list(functions), self.duration_s * COUNTING / len(todo), self._should_end)
            except NotPossible as error:
                counts.notes.append(f"calls are not counted: {error}")
                continue
            except TraceeGone:
                continue
            counts.note(counting)
            for frame, counted in counting.functions.items():
                _take_counted(functions[frame], counted)
        return counts

    # try

    def _try(self, main: int, homes: Homes, trials: Trials, deadline: float) -> bool:
        """Whether the program has ended meanwhile."""
        # Python functions are not: once in some dozens of trials the program crashed afterwards, and why is not known yet.
        where = [(pid, one) for pid, here in homes.items() for one in here if one.library]
        where.sort(key=lambda item: -item[1].inclusive)
        # What is called now can be tried at once.
        todo = sorted(where[:MOST_TRIED], key=lambda item: item[1].calls == 0)
        for at, (pid, candidate) in enumerate(todo):
            if self.status is not None or has_ended(main):
                return True
            if self.wakeups.received:
                break
            if has_ended(pid):
                continue
            left_s = (deadline - time.monotonic()) / (len(todo) - at)
            status = trials.attempt(pid, candidate, max(left_s, LEAST_TRIAL_S))
            self.status = status if pid == main else self.status
        return self.status is not None

    # judge

    def _judge(self, candidate: Candidate, trip_s: float, *, ended: bool) -> None:
        if candidate.trial is not None and candidate.here_s is None:
            candidate.here_s = candidate.trial.here_s
        if not candidate.library:
            candidate.verdict, candidate.reason = "not yet", "Python functions are not tried"
            return
        if ended and candidate.trial is None:
            candidate.verdict, candidate.reason = "not yet", "ended before it could be tried (a smaller --duration)"
            return
        verdict.judge(candidate, verdict.Way(self.link, self.tried, trip_s))
        if candidate.here_s and candidate.there_s is not None:
            candidate.gain = candidate.inclusive * (1 - candidate.there_s / candidate.here_s)


@dataclass
class _Counts:
    """overhead: None when nothing was counted."""

    overhead: float | None = None
    notes: list[str] = field(default_factory=list)

    def note(self, counting: Counting) -> None:
        self.overhead = max(self.overhead or 0.0, counting.overhead)
        self.notes += counting.notes


def _frame(candidate: Candidate) -> Frame:
    return Frame(candidate.name, candidate.library, candidate.function)


def _homes(candidates: Sequence[Candidate], sampled: Sampled) -> Homes:
    """The candidates of each process: each belongs to that where it was met most."""
    homes: Homes = {}
    for one in candidates:
        homes.setdefault(sampled.processes_of(_frame(one))[0], []).append(one)
    return homes


def _take_counted(candidate: Candidate, counted: Counted) -> None:
    candidate.calls, candidate.watched_s = counted.calls, counted.watched_s
    candidate.latency_ns, candidate.threads, candidate.callers = counted.latency_ns, counted.threads, counted.callers
    if counted.returned:
        candidate.here_s = counted.total_s / counted.returned
    profile = known.find(candidate.library, candidate.function.partition("@")[0])
    if profile is not None:
        candidate.signature, candidate.size = profile.declaration, profile.size
        candidate.memory = list(profile.memory)
        candidate.sizes = _sizes(counted.observations, profile)
    else:
        _guess_size(candidate, counted.observations)


def _sizes(observations: Sequence[Observation], profile: known.Known) -> list[Sized]:
    """By what the library's profile takes for the size."""
    if not profile.size or profile.signature is None:
        return []
    size, found = Expression.compile(profile.size, profile.signature.names), []
    for one in observations:
        with suppress(ExpressionError):
            found.append(Sized(float(size.evaluate(one.bind(profile.signature))), one.latency_ns / 1e9, 0.0))
    return found


def _guess_size(candidate: Candidate, observations: Sequence[Observation]) -> None:
    """By the argument on which the time depends, if there is one."""
    calls = [(_integers(one.bind(abi.DEFAULT)), one.latency_ns / 1e9) for one in observations]
    found = fit.sizing_argument(calls)
    if found is not None:
        candidate.size = found[0]
        candidate.sizes = [Sized(float(arguments[found[0]]), seconds, 0.0) for arguments, seconds in calls]


def _integers(arguments: Mapping[str, object]) -> dict[str, int]:
    found = {}
    for parameter in abi.DEFAULT.parameters:
        with suppress(RemoteFault):
            value = arguments[parameter.name]
            if isinstance(value, int):
                found[parameter.name] = int(value)
    return found


def _tree(sampled: Sampled) -> Node:
    """Python's own stacks beside the native ones: each has its own samples."""
    native = tree.build(sampled.native, "native")
    if not sampled.python:
        return native
    python = tree.build(sampled.python, "Python")
    return Node("all", native.samples + python.samples, [native, python])
