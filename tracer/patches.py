"""What radium has changed in the tracee's memory, and what the program would see there without it.

The program's own contents are put into everything that is read for a mirror, and ours into everything that comes back.
"""

import copy
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from radium.core.pages import Run, offset_in


@dataclass
class _Patch:
    mine: bytes
    original: bytes


class Patches:
    """By address; none crosses the end of a page."""

    def __init__(self) -> None:
        self._patches: dict[int, _Patch] = {}
        self._addresses: list[int] = []

    def copy(self) -> "Patches":
        """Those of a forked child."""
        return copy.deepcopy(self)

    def put(self, address: int, mine: bytes, original: bytes) -> None:
        """Both of one length."""
        if address not in self._patches:
            insort(self._addresses, address)
        self._patches[address] = _Patch(mine, original)

    def remove(self, addresses: Iterable[int]) -> None:
        for address in addresses:
            if self._patches.pop(address, None) is not None:
                del self._addresses[bisect_left(self._addresses, address)]

    def original(self, address: int) -> bytes:
        return self._patches[address].original

    def _within(self, start: int, end: int) -> list[int]:
        return self._addresses[bisect_left(self._addresses, start) : bisect_left(self._addresses, end)]

    def touches(self, runs: Sequence[Run]) -> bool:
        """Whether one lies in the runs."""
        return any(bisect_left(self._addresses, start) < bisect_left(self._addresses, end) for start, end in runs)

    def hide(self, start: int, data: memoryview) -> None:
        """Puts what is the program's into `data`, which was read at `start`."""
        for address in self._within(start, start + len(data)):
            original = self._patches[address].original
            data[address - start : address - start + len(original)] = original

    def keep_in(self, runs: Sequence[Run], data: memoryview) -> bool:
        """Puts what is ours into the contents of `runs`, which are about to be written, and remembers what it replaces.

        Whether that is something new.
        """
        is_new = False
        for address in [address for start, end in runs for address in self._within(start, end)]:
            patch, at = self._patches[address], offset_in(runs, address)
            assert at is not None
            found = bytes(data[at : at + len(patch.mine)])
            if found != patch.mine:
                is_new |= found != patch.original
                patch.original = found
                data[at : at + len(found)] = patch.mine
        return is_new
