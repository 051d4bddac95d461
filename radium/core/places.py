"""Pages by names that survive address space randomisation: how far they lie from the beginning of something mapped.

That is a file's first mapping, by the file's name, or the heap. Behind a file's mappings lies what belongs to it (`.bss`);
other anonymous memory is named by the file above it, offsets negative: the kernel maps downwards, so what was mapped
next lies next below, by the same distance each time the program does the same.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from radium.core.mapping import Mapping
from radium.core.pages import Run, Runs, intersect, normalise

HEAP = "heap"
STACK = "stack"  # offsets are from the page of the stack pointer at the function's entry; only its callers know that


class Place(NamedTuple):
    """Bytes [offset, offset + nbytes) from the beginning of the mapping; whole pages."""

    mapping: str
    offset: int
    nbytes: int


def bases(mappings: Sequence[Mapping]) -> dict[str, int]:
    """Where what a Place is named by begins. Two files of one name name nothing."""
    starts: dict[str, dict[str, int]] = {}
    for mapping in mappings:
        if name := _name(mapping):
            starts.setdefault(name, {}).setdefault(mapping.path, mapping.start)
    return {name: next(iter(paths.values())) for name, paths in starts.items() if len(paths) == 1}


def places(runs: Sequence[Run], mappings: Sequence[Mapping]) -> list[Place]:
    """The pages of the runs, normalised, as far as they have names; sorted by name and offset."""
    known = bases(mappings)
    found: dict[str, Runs] = {}
    for mapping, name in _named(mappings, known):
        base = known[name]
        found.setdefault(name, []).extend((start - base, end - base) for start, end in intersect(runs, [mapping[:2]]))
    return [Place(name, start, end - start) for name in sorted(found) for start, end in normalise(found[name])]


def addresses(named: Iterable[Place], mappings: Sequence[Mapping]) -> Runs:
    """Where the places are now; those of what is not mapped are left out, and so are those on the stack."""
    known = bases(mappings)
    starts = ((known[place.mapping] + place.offset, place.nbytes) for place in named if place.mapping in known)
    return normalise((start, start + nbytes) for start, nbytes in starts if start >= 0)


def _name(mapping: Mapping) -> str:
    if mapping.path == "[heap]":
        return HEAP
    return os.path.basename(mapping.path) if mapping.path.startswith("/") and not mapping.is_device else ""


def _named(mappings: Sequence[Mapping], known: dict[str, int]) -> Iterator[tuple[Mapping, str]]:
    """Each mapping that has a name, by itself, by what it lies directly behind, or by what lies above."""
    above = ""
    names = []
    for mapping in reversed(mappings):
        above = name if (name := _name(mapping)) in known else above
        names.append(above)
    end, below = 0, ""
    for mapping, name in zip(mappings, reversed(names), strict=True):
        own = _name(mapping)
        if own not in known and mapping.start == end and below:
            name = below
        below, end = name, mapping.end
        if name and (own in known or (not mapping.path and not mapping.shared)):
            yield mapping, name

