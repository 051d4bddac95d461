"""Files that the tracee has mapped privately, and whether they were written.

A private mapping shows what is written to its file (mmap(2) leaves that open; Linux does it) until the program writes
the page itself, and no page table tells. A write and a truncation change the file's ctime (inode(7)).
"""

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from radium.core.mapping import PROT_EXEC, Mapping
from radium.core.pages import Runs, intersect, normalise

# A file's time is that of the last tick, of 10 ms at most (CONFIG_HZ=100): a second write in it leaves no trace.
TICK_NS = 20_000_000


class Seen(NamedTuple):
    """A file as it was looked at last."""

    ctime_ns: int
    is_certain: bool


class MappedFiles:
    """Programs and libraries are left out: a program whose code is overwritten has other worries."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._of: Sequence[Mapping] = ()
        self._files: list[list[Mapping]] = []
        self._seen: dict[tuple[str, int], Seen] = {}

    def changed(self, mappings: Sequence[Mapping], held: Runs) -> Runs:
        """Private mappings that meet the held pages, of files that may have been written since this was asked last."""
        if mappings is not self._of:
            self._of, self._files = mappings, _data_files(mappings)
            known = {_identity(file[0]) for file in self._files}
            self._seen = {key: seen for key, seen in self._seen.items() if key in known}
        files = [file for file in self._files if intersect([m[:2] for m in file], held)]
        return normalise(m[:2] for file in files if self._may_have_changed(file) for m in file)

    def _may_have_changed(self, file: list[Mapping]) -> bool:
        if any(m.shared for m in file):
            # What is stored there shows as nothing at all.
            return True
        try:
            ctime_ns = self._ctime_ns(file[0])
        except OSError:
            return True
        before = self._seen.get(_identity(file[0]))
        self._seen[_identity(file[0])] = Seen(ctime_ns, time.time_ns() - ctime_ns > TICK_NS)
        return before is None or before.ctime_ns != ctime_ns or not before.is_certain

    def _ctime_ns(self, m: Mapping) -> int:
        """Raises OSError where the file cannot be reached."""
        try:
            return os.stat(f"/proc/{self._pid}/map_files/{m.start:x}-{m.end:x}").st_ctime_ns
        except PermissionError:
            # That needs CAP_CHECKPOINT_RESTORE (proc(5)). Under its name another file may be by now.
            found = os.stat(f"/proc/{self._pid}/root{m.path}")
            if found.st_ino != m.inode:
                raise
            return found.st_ctime_ns


def _identity(m: Mapping) -> tuple[str, int]:
    return m.device, m.inode


def _data_files(mappings: Sequence[Mapping]) -> list[list[Mapping]]:
    """The mappings of each file that has private ones, and none that can be executed."""
    files: dict[tuple[str, int], list[Mapping]] = {}
    for m in mappings:
        if m.inode and not m.is_device:
            files.setdefault(_identity(m), []).append(m)
    return [
        file for file in files.values()
        if not all(m.shared for m in file) and not any(m.prot & PROT_EXEC for m in file)
    ]  # fmt: skip
