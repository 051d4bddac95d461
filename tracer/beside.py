"""Calls beside which the tracee's other threads go on at home (`threads = "run"`, DESIGN.md 7).

What such a call reads in the mirror is what home has, as long as home writes no page that the mirror has. So that is
checked whenever something comes home, leaves, or has been away for long; if it did, all calls that are away are
discarded and run at home. Pages, and not bytes: a lock that was taken and given back has its old bytes again.

Pages that home's threads write again and again (their stacks, their buffers, what lies beside them) are *contended*: once
noticed, the mirror drops those that came for a call when that call comes home, so that from then on it has such a page
only while a call that touched it is away. It may drop whatever it likes then: what comes home is all that has been done
in the mirror, by the other calls too, and they go on from there.
"""

import hashlib

from radium.core import wire
from radium.core.addr import PAGE_SIZE
from radium.core.pages import PageSet, Runs, intersect, normalise, subtract, union
from radium.tracer.tracee import Tracee


class Beside:
    """The threads of the tracee are stopped in every method. is_discarding: the mirror has been told to forget its calls."""

    def __init__(self, tracee: Tracee) -> None:
        self._tracee = tracee
        self.is_discarding = False
        self._contended, self._told = PageSet(), PageSet()
        self._refused: Runs = []
        self._kernel_pages: dict[int, tuple[Runs, bytes]] = {}

    def check(self) -> tuple[Runs, Runs]:
        """(changed, lost): what the mirror has and home has written, or mapped anew, since the last check."""
        home = self._tracee.home
        home.refresh()
        changed, lost = home.written()
        return subtract(changed, self._untouched_kernel_pages(changed)), lost

    # What the kernel writes

    def note_kernel_pages(self, tid: int) -> None:
        """The call of this thread leaves: the kernel writes its rseq area though the thread stands."""
        pages = self._tracee.kernel_pages_of(tid)
        self._kernel_pages[tid] = pages, self._digest(tid, pages)

    def _untouched_kernel_pages(self, changed: Runs) -> Runs:
        """Of the changed pages, those in which nobody but the kernel has written since they were noted."""
        return normalise(
            run
            for tid, (pages, digest) in self._kernel_pages.items()
            if intersect(changed, pages) and self._digest(tid, pages) == digest
            for run in pages
        )

    def _digest(self, tid: int, pages: Runs) -> bytes:
        home, digest = self._tracee.home, hashlib.blake2b(digest_size=16)
        for start, end in pages:
            for page in range(start, end, PAGE_SIZE):
                digest.update(self._tracee.without_kernel_area(tid, page, home.page(page)))
        return digest.digest()

    # Contended pages

    def learn(self, changed: Runs, lost: Runs) -> None:
        """Other processes write shared mappings, which counts as well."""
        home = self._tracee.home
        self._contended.add(union(union(changed, lost), intersect(home.held.runs, home.shared())))

    def contend(self, runs: Runs) -> None:
        """The thread whose call leaves writes these as soon as it is back: its stack, and what lies beside its TLS."""
        self._contended.add(runs)

    @property
    def contended(self) -> Runs:
        return self._contended.runs

    def take_news(self) -> Runs:
        """The contended pages that the mirror has not been told of."""
        news = subtract(self._contended.runs, self._told.runs)
        self._told.add(news)
        return news

    # Answers that came too late

    def refuse(self, answer: wire.Answer) -> None:
        """The mirror has what the answer brings, and home does not take it."""
        self.refuse_pages(normalise([*wire.runs(answer.dirty), *wire.runs(answer.stale), *wire.runs(answer.contended)]))

    def refuse_pages(self, runs: Runs) -> None:
        """The mirror is to drop these before anything else runs there."""
        self._refused = union(self._refused, runs)
        self._tracee.home.lose(runs)

    def take_refused(self) -> Runs:
        refused, self._refused = self._refused, []
        return refused

    def end_discarding(self, dropped: Runs) -> None:
        self.is_discarding = False
        self._tracee.home.lose(dropped)

    def forget_mirror(self) -> None:
        """A new one knows nothing, and has nothing."""
        self.is_discarding = False
        self._refused = []
        self._told.clear()
