"""What a split point's calls touched before, so that it is sent with the next one: DESIGN.md 5, "Learned working sets".

Within a session: stack pages are remembered relative to the stack pointer, all others by address. What is kept in a
profile is named by places instead (core/places.py).
"""

from collections.abc import Sequence

from radium.core.addr import PAGE_SIZE, page_floor
from radium.core.mapping import Mapping
from radium.core.pages import PageSet, Run, Runs, intersect, normalise
from radium.core.places import STACK, Place, addresses, places

# A set that grows beyond this is started anew: it has become a list of everything.
LARGEST_NBYTES = 1 << 30
# Arbitrary: in every call of that number it is looked at again which results are written.
RELEARN = 8


class WorkingSet:
    def __init__(self) -> None:
        self._pages = PageSet()
        self._stack = PageSet()
        self._nbytes = 0

    def learn(self, start: int, end: int, *, relative_to: int | None) -> None:
        """Pages [start, end) were paged in; relative_to: the stack pointer at entry, for pages of the stack."""
        self._nbytes += end - start
        if self._nbytes > LARGEST_NBYTES:
            self._pages.clear()
            self._nbytes = end - start
        if relative_to is None:
            self._pages.add([(start, end)])
        else:
            base = page_floor(relative_to)
            self._stack.add([(start - base + _BIAS, end - base + _BIAS)])

    def predict(self, rsp: int) -> Runs:
        """The pages that a call entered with this stack pointer will want; its own frame and its caller's always."""
        base = page_floor(rsp)
        stack: Sequence[Run] = [(start + base - _BIAS, end + base - _BIAS) for start, end in self._stack.runs]
        return normalise([(base, base + 2 * PAGE_SIZE), *self._pages.runs, *(run for run in stack if run[0] > 0)])

    def expect(self, named: Sequence[Place], mappings: Sequence[Mapping]) -> None:
        """These places were learned in an earlier run; the mappings are those of now."""
        self._pages.add(addresses(named, mappings))
        self._stack.add(normalise((_BIAS + offset, _BIAS + offset + nbytes) for name, offset, nbytes in named if name == STACK))

    def places(self, mappings: Sequence[Mapping]) -> list[Place]:
        """What is known, for a later run of the program. Pages in no mapping that has a name are left out."""
        stack = [Place(STACK, start - _BIAS, end - start) for start, end in self._stack.runs]
        return places(self._pages.runs, mappings) + stack


class Results:
    """Of the pages that a profile names, those that the calls write: noticing it again costs a fault for each of them."""

    def __init__(self) -> None:
        self._written = PageSet()
        self._ncalls = 0

    def expect(self, named: Runs) -> Runs:
        """What a call that was given these pages will write, as far as the last ones tell."""
        self._ncalls += 1
        return [] if self._ncalls % RELEARN == 0 else intersect(named, self._written.runs)

    def learn(self, named: Runs, expected: Runs, dirty: Runs) -> None:
        """A call has ended. What was expected counts as written, so it tells nothing."""
        if named and not expected:
            self._written.remove(named)
            self._written.add(intersect(named, dirty))


# Keeps relative addresses positive, as page runs are.
_BIAS = 1 << 44
