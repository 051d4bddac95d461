"""Candidates tried: for a few of its calls, radium makes the call in a mirror too, and discards what came of it.

Each candidate has a job of its own: attached for as long as its calls take, and gone again. A call that was begun before
and does not return is tried from where it is.
"""

import time
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from radium import __version__
from radium.core import syscalls
from radium.errors import RadiumError
from radium.live import Console
from radium.profiles import schema
from radium.report import Report
from radium.tracer.acceptors import Acceptors
from radium.tracer.discovery import frames
from radium.tracer.discovery.findings import Candidate, Trial
from radium.tracer.job import Job, Options
from radium.tracer.process import Process
from radium.tracer.session import Session
from radium.tracer.verify import THREADS
from radium.tracer.verify import Trial as Tried
from radium.tracer.wakeups import Wakeups

# Of each candidate so many calls are tried. The first teaches what the others show: what a steady state moves.
NCALLS = 3
# A call is away for so long at most: meanwhile the tracee stands.
LONGEST_CALL_S = 2.0
# How often a function that is called by nobody is looked for among the frames of all threads.
LOOK_S = 0.1
# So long one is waited for that may be called, or not: its calls were not counted.
UNKNOWN_S = 1.0


class Trials:
    """acceptors: to which the calls go. stood_s: how long the tracee has stood for them so far; trip_s: the least that a way
    there and back took."""

    def __init__(self, acceptors: Acceptors, wakeups: Wakeups) -> None:
        self._acceptors = acceptors
        self._wakeups = wakeups
        self.stood_s, self.trip_s = 0.0, 0.0

    def attempt(self, pid: int, candidate: Candidate, limit_s: float) -> int | None:
        """Fills in the candidate's `trial`, or the `reason` why there is none. The wait status if the process has ended."""
        tried: list[Tried] = []

        def note(one: Tried) -> None:
            tried.append(one)
            if job.main is not None and job.main.tracee is not None:
                home = job.main.tracee.home
                home.refresh()
                candidate.working_set = one.split.working_set.places(home.mappings)
            if len(tried) >= NCALLS or one.away_s >= LONGEST_CALL_S:
                self._wakeups.ask_end()

        job = self._job(candidate, limit_s)
        job.common.on_verified = note
        if candidate.calls == 0 or (candidate.calls is None and candidate.library):
            job.update = _Inside(job, 0.0 if candidate.calls == 0 else UNKNOWN_S).look
        try:
            job.attach(pid)
        except RadiumError as error:
            candidate.reason = error.what
        if tried:
            candidate.trial = summary(tried)
            self._note(tried)
        elif not candidate.reason and job.report.notes:
            candidate.reason = job.report.notes[-1]
        return job.status

    def _job(self, candidate: Candidate, limit_s: float) -> Job:
        self._wakeups.begin(limit_s)
        report = Report(__version__, [], [], [], [])
        options = Options(LONGEST_CALL_S, follow=False, verify=1.0)
        profile = schema.loads(_profile(candidate), "trial")
        job = Job([profile], self._acceptors.another(), report, Console(quiet=True), self._wakeups, options)
        job.common.counts_syscalls = True
        return job

    def _note(self, tried: Sequence[Tried]) -> None:
        self.stood_s += sum(one.away_s for one in tried)
        least = min(one.away_s - one.mirror_s for one in tried)
        self.trip_s = min(self.trip_s, least) if self.trip_s else least


class _Inside:
    """Looks for a thread that is in the function already, until there is one; its call is tried from where it is."""

    def __init__(self, job: Job, after_s: float) -> None:
        self._job = job
        self._next_look: float | None = time.monotonic() + after_s

    def look(self) -> None:
        process, now = self._job.main, time.monotonic()
        if process is None or process.session is None or self._next_look is None or now < self._next_look:
            return
        self._next_look = now + LOOK_S
        process.threads.stop_all()
        if not process.threads.is_over and self._begin(process, process.session):
            self._next_look = None
        elif not process.session.stands:
            process.threads.resume_all()

    def _begin(self, process: Process, session: Session) -> bool:
        """All threads are stopped. Whether a call has left."""
        for entry, split in process.splits.items():
            inside = frames.find(process.threads, entry)
            if inside is not None:
                return session.begin_inside(inside.tid, split, inside.rsp, inside.back)
        return False


def _profile(candidate: Candidate) -> str:
    """A profile of that function alone, every call of it."""
    if candidate.library:
        return f"[[split]]\nlibrary = {_quoted(candidate.library)}\nfunction = {_quoted(candidate.function)}\n"
    return f"[[split]]\npython = {_quoted(candidate.function)}\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def summary(tried: Sequence[Tried]) -> Trial:
    """The means of what a steady state is: the first call, which fetches everything, counts only if it is the only one."""
    steady = tried[1:] or tried
    equal = [one.equal for one in tried if one.equal is not None]
    trips = Counter[str]()
    for one in steady:
        trips.update({name: count for name, count in one.syscalls.items() if syscalls.goes_home(name)})
    times = [_times(one) for one in steady]
    return Trial(
        calls=len(tried),
        pages_read=fmean(one.pages_sent + one.paged_in for one in steady),
        pages_written=fmean(one.pages_written for one in steady),
        bytes_out=fmean(one.bytes_out for one in steady),
        bytes_back=fmean(one.bytes_back for one in steady),
        syscalls={name: count / len(steady) for name, count in trips.most_common()},
        threads=max(one.threads for one in tried),
        here_s=fmean(here_s for here_s, _ in times),
        in_mirror_s=fmean(mirror_s for _, mirror_s in times),
        way_s=fmean(max(one.away_s - one.mirror_s, 0.0) for one in steady),
        equal=all(equal) if equal else None,
        difference=next((one.difference for one in tried if one.difference), ""),
    )


def _times(one: Tried) -> tuple[float, float]:
    """What the whole call takes here and in the mirror, in seconds; at least, if it was sent home for taking too long.

    A mirror that went home in the middle tells nothing of its speed: then it is taken to be home's.
    """
    if one.not_compared == "timeout":
        return one.mirror_s, one.mirror_s
    return one.home_s, one.mirror_s if one.not_compared in ("", THREADS) else one.home_s
