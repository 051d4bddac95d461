"""From code addresses to functions: named as a report has them where they can be split, as a person reads them elsewhere.

Source: proc(5) on /proc/PID/maps.
"""

from bisect import bisect_right
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from radium.core.addr import USER_END
from radium.core.elf import ElfImage, Symbol
from radium.core.mapping import PROT_EXEC, Mapping, parse_maps
from radium.errors import NotPossible, TraceeGone
from radium.linux import procfs
from radium.tracer.discovery.unwinder import Vdso
from radium.tracer.python import runtime
from radium.tracer.resolve import MappedObject, Resolver

MAIN = "main"
# Symbols that begin inside of another are few: so many are looked at for one that covers an address.
_BACK = 16


class Frame(NamedTuple):
    """A function. library, function: as a profile's split names it; both empty where no split can name it."""

    name: str
    library: str = ""
    function: str = ""


# From the outermost frame to the innermost.
Stack = tuple[Frame, ...]

JIT, UNKNOWN, VDSO = Frame("[jit]"), Frame("[unknown]"), Frame("[vdso]")


class Place(NamedTuple):
    """Where code is. offset: in the file `path`, which can be opened."""

    address: int
    path: str
    offset: int


class CodeMap:
    """The executable memory of one process, and the names of what is there."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._resolver = Resolver(pid)
        self._maps = b""
        self._starts: list[int] = []
        self._ranges: list[tuple[int, MappedObject | Vdso | None]] = []
        self._frames: dict[int, Frame] = {}
        self._chosen: dict[MappedObject, dict[int, str]] = {}

    def refresh(self) -> None:
        """Reads /proc/PID/maps. Raises TraceeGone, NotPossible."""
        maps = procfs.read(self.pid, "maps")
        if maps == self._maps:
            return
        self._maps = maps
        objects = self._resolver.objects(maps)
        ranges: dict[int, tuple[int, MappedObject | Vdso | None]] = {
            part.start: (part.end, one) for one in objects for part in one.executable
        }
        for mapping in parse_maps(maps):
            if mapping.prot & PROT_EXEC and mapping.start not in ranges and mapping.end <= USER_END:
                ranges[mapping.start] = (mapping.end, _without_file(mapping))
        starts = sorted(ranges)
        found = [ranges[start] for start in starts]
        if (starts, found) != (self._starts, self._ranges):
            self._starts, self._ranges, self._frames, self._chosen = starts, found, {}, {}

    @property
    def is_python(self) -> bool:
        """Whether a CPython runs there."""
        try:
            return runtime.find(self._resolver.objects(self._maps)) is not None
        except NotPossible:
            return False

    @property
    def files(self) -> set[MappedObject | Vdso]:
        return {one for _, one in self._ranges if one is not None}

    def object_at(self, address: int) -> MappedObject | Vdso | None:
        found = self._range_at(address)
        return found[1] if found else None

    def frame_at(self, address: int) -> Frame:
        frame = self._frames.get(address)
        if frame is None:
            frame = self._frames[address] = self._find(address)
        return frame

    def exported(self, frame: Frame) -> Place | None:
        """Where the function of a frame begins in this process; None when it has none of that name."""
        for one in self._resolver.objects(self._maps):
            if _library(one) != frame.library:
                continue
            for symbol in one.image.exported_by_name.get(frame.function.partition("@")[0], ()):
                address = self._resolver.address(one, symbol)
                if label(symbol) == frame.function and address is not None and one.can_execute(address):
                    return Place(address, one.file.path, _offset(one.image, address - one.base))
        return None

    def place_of(self, address: int) -> Place | None:
        """That of any code; None where it is in no file."""
        one = self.object_at(address)
        if not isinstance(one, MappedObject):
            return None
        return Place(address, one.file.path, _offset(one.image, address - one.base))

    def _range_at(self, address: int) -> tuple[int, MappedObject | Vdso | None] | None:
        at = bisect_right(self._starts, address) - 1
        return self._ranges[at] if at >= 0 and address < self._ranges[at][0] else None

    def _find(self, address: int) -> Frame:
        found = self._range_at(address)
        if found is None:
            return UNKNOWN
        one = found[1]
        if one is None:
            return JIT
        if isinstance(one, Vdso):
            return VDSO
        title = one.soname or one.file_name
        try:
            start, name, can_split = _functions(one.image).at(address - one.base)
            if not can_split and (chosen := self._chosen_of(one).get(one.base + start)):
                name, can_split = chosen, True
        except NotPossible:
            return Frame(f"{title}:?")  # a file that was damaged, or that has changed, names nothing
        if can_split:
            return Frame(f"{title}:{name}", _library(one), name)
        return Frame(f"{title}:{name or hex(start)}")

    def _chosen_of(self, one: MappedObject) -> dict[int, str]:
        """The implementations that this process has chosen for the file's indirect functions, by address."""
        if one not in self._chosen:
            indirect = [symbol for symbol in one.image.exported if symbol.kind == "ifunc" and symbol.default_version]
            self._chosen[one] = {}
            with suppress(TraceeGone):
                found = [(self._resolver.address(one, symbol), symbol.name) for symbol in indirect]
                # Of several names of one implementation, the shortest.
                by_length = sorted(found, key=lambda pair: len(pair[1]), reverse=True)
                self._chosen[one] = {address: name for address, name in by_length if address is not None}
        return self._chosen[one]


class _Functions:
    """Of one file: at(link-time address) names the function that covers it."""

    def __init__(self, image: ElfImage) -> None:
        self._named: dict[int, tuple[int, str, bool]] = {}
        exported = {id(symbol) for symbol in image.exported}
        for symbol in image.functions:
            entry = (symbol.size, label(symbol), id(symbol) in exported and symbol.kind == "func")
            known = self._named.get(symbol.value)
            if known is None or _preference(*entry) < _preference(*known):
                self._named[symbol.value] = entry
        self._starts = sorted(self._named.keys() | image.function_starts)

    def at(self, address: int) -> tuple[int, str, bool]:
        """Where the function begins, its name, and whether a split can name it so; the name may be unknown: empty."""
        last = bisect_right(self._starts, address) - 1
        for at in range(last, max(last - _BACK, -1), -1):
            start = self._starts[at]
            nbytes, name, can_split = self._named.get(start, (0, "", False))
            if address < start + nbytes or (at == last and name and not nbytes):
                return start, name, can_split
        return self._starts[last] if last >= 0 else address, "", False


@lru_cache(maxsize=512)
def _functions(image: ElfImage) -> _Functions:
    return _Functions(image)


def _preference(nbytes: int, name: str, can_split: bool) -> tuple[bool, bool, int, str]:
    """Of several names of one function: one that can be split, for the public, short."""
    return not can_split, name.startswith("_"), len(name), name


def label(symbol: Symbol) -> str:
    """As a profile names a function: with its version when that is not the default."""
    return symbol.name if symbol.default_version else f"{symbol.name}@{symbol.version}"


def _library(one: MappedObject) -> str:
    return MAIN if one.is_main else one.soname or one.file_name


def _offset(image: ElfImage, address: int) -> int:
    segment = next(one for one in image.segments if one.vaddr <= address < one.vaddr + one.filesz)
    return address - segment.vaddr + segment.offset


def _without_file(mapping: Mapping) -> Vdso | None:
    return Vdso(mapping.start) if mapping.path == "[vdso]" else None
