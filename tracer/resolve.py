"""From the splits of profiles and the address space of a process to split points: names and addresses.

Invariants: an address is inside an executable mapping of the object that defines the function; one address is one split
point; files are read as the process has them mapped, never as a path happens to lead elsewhere now.

Sources: proc(5) on maps, map_files, root and exe; ld.so(8); x86-64 psABI 4.4 on R_X86_64_IRELATIVE
(indirect functions).
"""

import copy
import difflib
import functools
import heapq
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from radium.core.addr import AddrRange
from radium.core.elf import ElfImage, Reference, Symbol
from radium.core.mapping import PROT_EXEC, Mapping, parse_maps
from radium.errors import NotPossible, RemoteFault
from radium.linux import procfs, vm

if TYPE_CHECKING:
    from radium.profiles.schema import FunctionPattern, Split

_DELETED = " (deleted)"
_MAIN = "main"
# Small reads are served from one read of this size; arbitrary, symbol version tables fit.
_CHUNK_NBYTES = 1 << 14
# How many names are proposed for one that is not there, out of how many that are looked at closely.
_NEAREST, _CANDIDATES = 3, 40


@dataclass(frozen=True)
class SplitPoint:
    """A function of the tracee whose calls may be split.

    name: "OBJECT:FUNCTION", with @VERSION when that is not the default; OBJECT is the soname, or the file name.
    aliases: other names (without OBJECT) of the same address.
    """

    name: str
    address: int
    aliases: tuple[str, ...]
    object_path: str
    split: "Split"


@dataclass(frozen=True, eq=False)
class Unresolved:
    """A name of a profile that leads nowhere in this process, or to something that cannot be split (yet).

    where: file:line of the split; why: one line, found out when it is read: that costs tens of milliseconds, and most
    of the names in a library profile are alternatives of which a process has only some.
    """

    where: str
    pattern: str
    explain: Callable[[], str] = field(repr=False)

    @functools.cached_property
    def why(self) -> str:
        try:
            return self.explain()
        except NotPossible as error:
            return str(error)


class Changes(NamedTuple):
    """What became of the split points since they were resolved last."""

    new: list[SplitPoint]
    gone: list[SplitPoint]
    unresolved: list[Unresolved]  # of the libraries that are new


class _LibraryFile:
    """A file read by slices, without keeping it open. Files are equal that have the same contents, by their status.

    path: where it is read; name: what it is called in errors. A file that has changed since raises NotPossible.
    No mmap: a file that shrinks must not kill us with SIGBUS.
    """

    def __init__(self, path: str, name: str, status: os.stat_result) -> None:
        self.path, self.name = path, name
        self.identity = _identity(status)
        self._nbytes = status.st_size
        self._chunk_at, self._chunk = 0, b""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _LibraryFile) and self.identity == other.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __len__(self) -> int:
        return self._nbytes

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._nbytes)
        if stop - start > _CHUNK_NBYTES:
            return self._read(start, stop - start)
        if not self._chunk_at <= start <= stop <= self._chunk_at + len(self._chunk):
            self._chunk_at, self._chunk = start, self._read(start, _CHUNK_NBYTES)
        return self._chunk[start - self._chunk_at : stop - self._chunk_at]

    def seen_by(self, child: int, pid: int) -> "_LibraryFile":
        """The same file, read where a child of `pid` has it."""
        twin = copy.copy(self)
        if self.path.startswith(f"/proc/{pid}/"):
            twin.path = f"/proc/{child}/" + self.path.removeprefix(f"/proc/{pid}/")
        return twin

    def _read(self, offset: int, nbytes: int) -> bytes:
        try:
            with open(self.path, "rb", buffering=0) as file:
                if _identity(os.fstat(file.fileno())) != self.identity:
                    raise NotPossible("changed while it was read", where=self.name, advice="try again")
                return os.pread(file.fileno(), nbytes, offset)
        except OSError as error:
            raise NotPossible(f"cannot be read ({error.strerror})", where=self.name) from None


@functools.lru_cache(maxsize=512)
def _parse(file: _LibraryFile) -> tuple[ElfImage, _LibraryFile]:
    return ElfImage.parse(file, file.name), file


def _image_of(file: _LibraryFile) -> ElfImage:
    """The image of a file, shared by all processes that map it. Raises NotPossible."""
    image, source = _parse(file)
    # The image reads on from where it was found first; by now that may be a mapping, or a process, that is gone.
    source.path = file.path
    return image


@dataclass(frozen=True)
class MappedObject:
    """An ELF object in the tracee. base: what is added to its link-time addresses (the load bias).

    ranges: the mappings of its file; executable: those of them that may be executed. deleted: its path leads to another
    file or to none by now.
    """

    path: str
    soname: str | None
    base: int
    ranges: tuple[AddrRange, ...]
    executable: tuple[AddrRange, ...]
    deleted: bool
    is_main: bool
    device: str
    inode: int
    file: _LibraryFile = field(repr=False, compare=False)

    @property
    def file_name(self) -> str:
        return os.path.basename(self.path)

    @property
    def title(self) -> str:
        """What the user calls it."""
        return f"{_MAIN} ({self.file_name})" if self.is_main else self.soname or self.file_name

    @property
    def key(self) -> tuple[str, int, int]:
        return self.device, self.inode, self.base

    @property
    def image(self) -> ElfImage:
        return _image_of(self.file)

    def matches(self, library: str) -> bool:
        return _matches(library, self.path, self.soname, self.is_main)

    def can_execute(self, address: int) -> bool:
        return any(address in part for part in self.executable)


class _Refusal(NamedTuple):
    """A file that is mapped executable, but cannot be used."""

    path: str
    is_main: bool
    why: str


class _Pending(NamedTuple):
    """An indirect function whose implementation has not been chosen yet."""

    split: "Split"
    owner: MappedObject
    symbol: Symbol


class Resolver:
    """Resolves the splits of one process. Its threads need not be stopped; what changes meanwhile shows next time."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._files: dict[tuple[Mapping, ...], list[MappedObject] | _Refusal] = {}
        self._maps = b""
        self._objects: list[MappedObject] = []
        self._splits: Sequence[Split] = ()
        self._points: dict[int, SplitPoint] = {}
        self._owners: dict[int, MappedObject] = {}
        self._pending: list[_Pending] = []
        self._seen: set[tuple[str, int, int]] = set()
        self._choices: dict[int, int] = {}

    def copy_for(self, child: int) -> "Resolver":
        """That of a forked child, which has the same objects mapped."""
        twin = copy.copy(self)
        twin.pid = child
        moved = {id(one): replace(one, file=one.file.seen_by(child, self.pid)) for one in self._all_objects()}
        twin._files = {
            group: found if isinstance(found, _Refusal) else [moved[id(one)] for one in found]
            for group, found in self._files.items()
        }
        twin._objects = [moved[id(one)] for one in self._objects]
        twin._owners = {address: moved[id(one)] for address, one in self._owners.items()}
        twin._pending = [one._replace(owner=moved[id(one.owner)]) for one in self._pending]
        twin._points, twin._choices = dict(self._points), dict(self._choices)
        return twin

    def _all_objects(self) -> "Iterable[MappedObject]":
        yield from self._objects
        yield from self._owners.values()
        yield from (one.owner for one in self._pending)

    @property
    def undecided(self) -> list[int]:
        """Addresses of the resolver functions of indirect functions whose implementation is not chosen yet."""
        return [one.owner.base + one.symbol.value for one in self._pending]

    @property
    def is_static(self) -> bool:
        """Whether it is a program without a dynamic linker."""
        return any(one.is_main and one.image.is_static for one in self._objects)

    def note_choice(self, resolver: int, implementation: int) -> None:
        """A resolver function was seen to return; `resolve_new` takes it from there."""
        self._choices[resolver] = implementation

    def objects(self, maps: bytes | None = None) -> list[MappedObject]:
        """The ELF objects that have code, by ascending address of their files' first mappings.

        maps: the text of /proc/PID/maps, when the caller has just read it. Raises TraceeGone, NotPossible.
        """
        maps = _read_maps(self.pid) if maps is None else maps
        if maps != self._maps:
            self._files = {group: self._files.get(group) or self._inspect(group) for group in _mapped_files(maps)}
            self._objects = [one for found in self._files.values() if isinstance(found, list) for one in found]
            self._maps = maps
        return self._objects

    def resolve(
        self, splits: "Sequence[Split]", maps: bytes | None = None
    ) -> tuple[list[SplitPoint], list[Unresolved]]:
        """All split points of `splits`, and for each name that leads nowhere the reason. Python splits are skipped.

        Raises TraceeGone, NotPossible.
        """
        objects = self.objects(maps)
        self._splits = [split for split in splits if split.library is not None]
        self._points, self._owners, self._pending = {}, {}, []
        self._seen = {one.key for one in objects}
        unresolved = [why for split in self._splits for why in self._resolve_split(split, objects)]
        return list(self._points.values()), unresolved

    def resolve_new(self, maps: bytes | None = None) -> Changes:
        """Look again for what was given to `resolve`, at the cost of what is new only.

        Raises TraceeGone, NotPossible.
        """
        objects = self.objects(maps)
        new = [one for one in objects if one.key not in self._seen]
        self._seen = {one.key for one in objects}
        gone = self._forget_vanished()
        before = set(self._points)
        self._retry_pending()
        matched = [split for split in self._splits if any(one.matches(split.library or "") for one in new)]
        unresolved = [why for split in matched for why in self._resolve_split(split, new)]
        return Changes([p for address, p in self._points.items() if address not in before], gone, unresolved)

    def _inspect(self, group: tuple[Mapping, ...]) -> list[MappedObject] | _Refusal:
        """The objects that one file is mapped as: one for each load bias."""
        path = group[0].path.removesuffix(_DELETED)
        is_main = False
        try:
            file, deleted = self._open(group)
            is_main = file.identity[:2] == self._main_identity()
            image = _image_of(file)
        except NotPossible as error:
            return _Refusal(path, is_main, str(error))
        return [
            MappedObject(
                path,
                image.soname,
                base,
                tuple(AddrRange(m.start, m.end) for m in mappings),
                tuple(AddrRange(m.start, m.end) for m in mappings if m.prot & PROT_EXEC),
                deleted,
                is_main,
                group[0].device,
                group[0].inode,
                file,
            )
            for base, mappings in _instances(image, group)
        ]

    def _open(self, group: tuple[Mapping, ...]) -> tuple[_LibraryFile, bool]:
        """The mapped file itself when that is permitted, else what its path leads to, if that is still the same file.

        Returns the file, and whether its path leads elsewhere. Raises NotPossible.
        """
        path = group[0].path.removesuffix(_DELETED)
        by_path = {name: _status(name) for name in (f"/proc/{self.pid}/root{path}", path)}
        for mapping in group:
            mapped = f"/proc/{self.pid}/map_files/{mapping.start:x}-{mapping.end:x}"
            if status := _status(mapped):
                same = any(other and _identity(other)[:2] == _identity(status)[:2] for other in by_path.values())
                return _LibraryFile(mapped, path, status), not same
        for name, status in by_path.items():
            if status and status.st_ino == group[0].inode and not group[0].path.endswith(_DELETED):
                return _LibraryFile(name, path, status), False
        raise NotPossible(
            "was deleted or replaced on disk since it was mapped, and the mapped file cannot be read",
            where=path,
            advice="run radium as root, or restart the program",
        )

    def _main_identity(self) -> tuple[int, ...]:
        status = _status(f"/proc/{self.pid}/exe")
        return _identity(status)[:2] if status else ()

    def _resolve_split(self, split: "Split", objects: Sequence[MappedObject]) -> list[Unresolved]:
        library = split.library or ""
        matched = [one for one in objects if one.matches(library)]
        if not matched:
            return [Unresolved(split.where, library, lambda: self._why_no_library(library))]
        return [why for pattern in split.functions for why in self._resolve_pattern(split, pattern, matched)]

    def _resolve_pattern(
        self, split: "Split", pattern: "FunctionPattern", objects: Sequence[MappedObject]
    ) -> list[Unresolved]:
        found, reasons = 0, []
        for owner in objects:
            try:
                symbols = _matching(owner.image, pattern)
                reasons += [why for symbol in symbols if (why := self._add(split, owner, symbol))]
                found += len(symbols)
            except NotPossible as error:
                reasons.append(str(error))
        if not found and not reasons:
            return [Unresolved(split.where, str(pattern), lambda: _why_no_function(pattern, objects))]
        return [Unresolved(split.where, str(pattern), functools.partial(str, why)) for why in reasons]

    def _add(self, split: "Split", owner: MappedObject, symbol: Symbol) -> str | None:
        """Make the function a split point. Returns the reason if it cannot be one. Raises NotPossible."""
        label = _label(symbol)
        address = self.address(owner, symbol)
        if address is None:
            self._pending.append(_Pending(split, owner, symbol))
            return (
                f"{label} of {owner.title} has several implementations (IFUNC) and this process has chosen none yet; "
                "it will be split after its first call"
            )
        if not owner.can_execute(address):
            return f"{label} of {owner.title} lies at {address:#x}, outside of the object's executable mappings"
        if point := self._points.get(address):
            self._points[address] = _with_alias(point, label)
            return None
        aliases = _aliases(owner.image, symbol, address - owner.base)
        name = f"{owner.soname or owner.file_name}:{label}"
        self._points[address] = SplitPoint(name, address, aliases, owner.path, split)
        self._owners[address] = owner
        return None

    def address(self, owner: MappedObject, symbol: Symbol) -> int | None:
        """Where its code is; None for an indirect function without an implementation yet. Raises TraceeGone."""
        if symbol.kind == "func":
            return owner.base + symbol.value
        return self._chosen(owner, symbol)

    def _chosen(self, owner: MappedObject, symbol: Symbol) -> int | None:
        """The implementation of an indirect function, from the first relocated slot that holds one.

        Resolvers choose among functions of their own object; so what lies outside only leads to the resolver, such as
        the procedure linkage table that a lazily bound slot begins with, or that of a program at a fixed address.
        """
        known = self._choices.get(owner.base + symbol.value)
        if known is not None:
            return known
        for holder, slot in self._slots(owner, symbol):
            try:
                value = int.from_bytes(vm.read(self.pid, holder.base + slot, 8), "little")
            except RemoteFault:
                continue
            if owner.can_execute(value) and not _is_unrelocated(holder, slot, value):
                return value
        return None

    def _slots(self, owner: MappedObject, symbol: Symbol) -> Iterable[tuple[MappedObject, int]]:
        """(object, link-time address) of the words that are to hold what the symbol's resolver returns."""
        for slot in owner.image.irelative.get(symbol.value, ()):
            yield owner, slot
        for holder in self._objects:
            for reference in _references(holder, symbol.name):
                if _has_version(symbol, reference.version):
                    yield holder, reference.slot

    def _forget_vanished(self) -> list[SplitPoint]:
        vanished = [address for address, owner in self._owners.items() if owner.key not in self._seen]
        self._pending = [one for one in self._pending if one.owner.key in self._seen]
        for address in vanished:
            del self._owners[address]
        return [self._points.pop(address) for address in vanished]

    def _retry_pending(self) -> None:
        pending, self._pending = self._pending, []
        for one in pending:
            try:
                self._add(*one)
            except NotPossible:
                continue  # its file can no longer be read: never split, as was said when it was resolved

    def _why_no_library(self, library: str) -> str:
        for found in self._files.values():
            if isinstance(found, _Refusal) and _matches(library, found.path, None, found.is_main):
                return found.why
        mains = [one for one in self._objects if one.is_main]
        if any(one.image.is_static for one in mains):
            return f"{mains[0].file_name} is a static program: it has no libraries, only functions of main can be split"
        names = (name for one in self._objects for name in (one.soname, one.file_name) if name)
        return f"no mapped library matches {library}{_nearest(library, names)}"


def _read_maps(pid: int) -> bytes:
    try:
        return procfs.read(pid, "maps")
    except PermissionError:
        raise NotPossible(
            "the memory map of this process may not be read", where=f"pid {pid}", advice="run radium as root"
        ) from None


def _mapped_files(maps: bytes) -> list[tuple[Mapping, ...]]:
    """The mappings of each file of which some part is executable; never those of the vdso, which has no file."""
    groups: dict[tuple[str, int, str], list[Mapping]] = {}
    for mapping in parse_maps(maps):
        if mapping.inode and mapping.path.startswith("/") and not mapping.is_device:
            groups.setdefault((mapping.device, mapping.inode, mapping.path), []).append(mapping)
    return [tuple(group) for group in groups.values() if any(one.prot & PROT_EXEC for one in group)]


def _instances(image: ElfImage, mappings: Iterable[Mapping]) -> list[tuple[int, list[Mapping]]]:
    """(load bias, mappings) for each time that the file is loaded; executable mappings tell how often that is.

    A mapping begins at a page of the file, a segment mostly inside of one: file offsets lead from one to the other.
    """
    instances: dict[int, list[Mapping]] = {}
    for mapping in mappings:
        for base in _biases(image, mapping):
            instances.setdefault(base, []).append(mapping)
    return [
        (base, parts)
        for base, parts in instances.items()
        if any(one.prot & PROT_EXEC for one in parts) and (base == 0 or image.kind == "DYN")
    ]


def _biases(image: ElfImage, mapping: Mapping) -> set[int]:
    return {
        mapping.start - mapping.offset + segment.offset - segment.vaddr
        for segment in image.segments
        if segment.maps_offset(mapping.offset) and (segment.executable or not mapping.prot & PROT_EXEC)
    }


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _status(path: str) -> os.stat_result | None:
    """None if nothing is there, if it may not be seen, or if it is no regular file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _matches(library: str, path: str, soname: str | None, is_main: bool) -> bool:
    if library == _MAIN:
        return is_main
    names = (path,) if "/" in library else (os.path.basename(path), soname or "")
    return any(fnmatchcase(name, library) for name in names)


def _is_glob(pattern: str) -> bool:
    return any(mark in pattern for mark in "*?[")


def _named(image: ElfImage, pattern: str) -> list[Symbol]:
    """All exported functions of that name, in the order in which one of them lends its name to a split point."""
    if not _is_glob(pattern):
        return image.exported_by_name.get(pattern, [])
    found = [symbol for symbol in image.exported if fnmatchcase(symbol.name, pattern)]
    return sorted(found, key=lambda symbol: (len(symbol.name), symbol.name))


def _matching(image: ElfImage, pattern: "FunctionPattern") -> list[Symbol]:
    """The exported functions that a pattern means; without a version: those of the default version."""
    return [symbol for symbol in _named(image, pattern.pattern) if _has_version(symbol, pattern.version)]


def _has_version(symbol: Symbol, version: str | None) -> bool:
    return symbol.default_version if version is None else symbol.version == version


def _label(symbol: Symbol) -> str:
    return symbol.name if symbol.default_version else f"{symbol.name}@{symbol.version}"


def _aliases(image: ElfImage, symbol: Symbol, value: int) -> tuple[str, ...]:
    """Other exported names of the function at `value`; of an indirect function also those of its resolver."""
    same = [*image.exported_by_value.get(value, ()), *image.exported_by_value.get(symbol.value, ())]
    labels = {_label(one) for one in same} - {_label(symbol)}
    return tuple(sorted(labels, key=lambda label: (len(label), label)))


def _with_alias(point: SplitPoint, label: str) -> SplitPoint:
    if label in point.aliases or point.name.endswith(f":{label}"):
        return point
    return replace(point, aliases=(*point.aliases, label))


def _references(holder: MappedObject, name: str) -> Sequence[Reference]:
    try:
        return holder.image.references.get(name, ())
    except NotPossible:
        return ()  # another object's damage takes nothing from this one: its slots are not known, that is all


def _is_unrelocated(holder: MappedObject, slot: int, value: int) -> bool:
    """Whether the slot still has the contents of the file, or those moved by the load bias (lazy binding)."""
    link_time = int.from_bytes(holder.image.at(slot, 8), "little")
    return value in (link_time, link_time + holder.base)


def _why_no_function(pattern: "FunctionPattern", matched: Sequence[MappedObject]) -> str:
    name = pattern.pattern
    for explain in (_why_version, _why_unreachable, _why_no_code):
        for one in matched:
            if why := explain(pattern, one):
                return why
    titles = ", ".join(one.title for one in matched[:_NEAREST])
    if not any(one.image.functions for one in matched):
        kind = "a static program" if any(one.image.is_static for one in matched) else "an object"
        return f"{titles} is {kind} without symbols: nothing of it can be split by name"
    names = (symbol.name for one in matched for symbol in one.image.exported)
    return f"no function {name} in {titles}{_nearest(name, names)}"


def _why_version(pattern: "FunctionPattern", owner: MappedObject) -> str | None:
    named = _named(owner.image, pattern.pattern)
    if not named:
        return None
    versions = ", ".join(sorted({_label(symbol) for symbol in named} | {_full(symbol) for symbol in named}))
    wanted = "no default version" if pattern.version is None else f"no version {pattern.version}"
    return f"{pattern.pattern} has {wanted} in {owner.title}; there is {versions}"


def _full(symbol: Symbol) -> str:
    return f"{symbol.name}@{symbol.version}" if symbol.version else symbol.name


def _why_unreachable(pattern: "FunctionPattern", owner: MappedObject) -> str | None:
    for symbol in owner.image.functions:
        if symbol.exported or not fnmatchcase(symbol.name, pattern.pattern):
            continue
        reach = "hidden" if symbol.reach == "hidden" else "static or hidden"
        return f"{symbol.name} is a {reach} function of {owner.title}: only exported functions can be split"
    return None


def _why_no_code(pattern: "FunctionPattern", owner: MappedObject) -> str | None:
    what = None if _is_glob(pattern.pattern) else owner.image.why_not_function(pattern.pattern)
    return f"{pattern.pattern} is {what} in {owner.title}, no function" if what else None


def _nearest(wanted: str, names: Iterable[str]) -> str:
    """Advice with near names, or nothing. Pairs of letters choose the names that are worth difflib's time."""
    wanted = wanted.translate({ord(mark): None for mark in "*?[]"})
    pairs = [wanted[i : i + 2] for i in range(len(wanted) - 1)]
    shared: Callable[[str], int] = lambda name: sum(pair in name for pair in pairs)  # noqa: E731
    close = difflib.get_close_matches(wanted, heapq.nlargest(_CANDIDATES, dict.fromkeys(names), key=shared), n=_NEAREST)
    return f"; nearest: {', '.join(close)}" if close else ""
