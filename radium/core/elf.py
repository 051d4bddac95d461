"""ELF images of x86-64 programs and libraries: segments, names, functions and the relocations that name them.

An image is read by slices of `Bytes`, and only those parts that are asked for: headers when it is parsed, symbol tables
and relocations at their first use. All addresses are link-time addresses; the load bias is the caller's.

Invariants: what is not a well-formed image raises NotPossible with one line, in time linear in its size, at parsing or
at the first use of a property.

Sources: System V gABI chapters 4 and 5 (headers, symbols, dynamic section); x86-64 psABI 4.4 (relocations); "ELF symbol
versioning", U. Drepper; DT_GNU_HASH as the GNU linkers write it (glibc elf/dl-lookup.c). Headers are decoded by
pyelftools, tables by `struct`, because a library of 50,000 symbols has to be read within a few ten milliseconds.
"""

import struct
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, TypeVar

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.enums import ENUM_D_TAG
from elftools.elf.structs import ELFStructs

from radium.core.addr import page_ceil, page_floor
from radium.errors import NotPossible

K = TypeVar("K")
V = TypeVar("V")

PF_X = 1

_SYMBOL = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_DYNAMIC = struct.Struct("<qQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_VERDEF = struct.Struct("<HHHHIII")
_VERNEED = struct.Struct("<HHIII")
_VERNAUX = struct.Struct("<IHHII")
_EHDR_NBYTES, _PHDR_NBYTES = 64, 56

# The kernel executes no file with more program headers than fit here (fs/binfmt_elf.c, load_elf_phdrs).
_PHDRS_MAX_NBYTES = 1 << 16
# Arbitrary bounds on what only a damaged file exceeds.
_DYNAMIC_MAX_NBYTES = 1 << 16
_HASH_CHAIN_MAX = 1 << 16
_NAME_MAX_NBYTES = 1 << 14
# Version indices have 15 bits (the 16th says "not the default").
_VERSIONS_MAX = 1 << 15
_VERSION_HIDDEN = 1 << 15
_VERSION_NONE, _VERSION_FIRST_NAMED = 1, 2
_VER_FLG_BASE = 1

# Version 1; the pointer to .eh_frame relative to itself in 4 bytes; the count in 4; the table relative to the header in 4.
_UNWIND_HEADER = b"\x01\x1b\x03\x3b"

_SHT_SYMTAB, _SHT_RELA, _SHT_DYNSYM = 2, 4, 11
_SHF_ALLOC = 2
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1
_NOWHERE = (_SHN_UNDEF, _SHN_ABS)
_STB_LOCAL = 0
_STT_OBJECT, _STT_FUNC, _STT_IFUNC = 1, 2, 10
_STV_INTERNAL, _STV_HIDDEN = 1, 2
_KINDS: dict[int, Literal["func", "ifunc"]] = {_STT_FUNC: "func", _STT_IFUNC: "ifunc"}
_USED_ONLY = "a reference to another object's symbol"
_NOT_FUNCTIONS = {0: "a symbol without a type", 1: "a data object", 5: "a data object", 6: "a thread-local data object"}

R_X86_64_64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT, R_X86_64_IRELATIVE = 1, 6, 7, 37
_ADDRESS_OF_SYMBOL = (R_X86_64_64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT)

_MACHINES = {"EM_386": "i386", "EM_AARCH64": "aarch64", "EM_ARM": "arm", "EM_RISCV": "riscv"}
_LAYOUT = ELFStructs(little_endian=True, elfclass=64)
_LAYOUT.create_basic_structs()
_LAYOUT.create_advanced_structs("ET_DYN", "EM_X86_64", "ELFOSABI_SYSV")


class Bytes(Protocol):
    """What an image is read from: bytes, an mmap, or a file read by slices. A slice past the end is short."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


class Segment(NamedTuple):
    """One PT_LOAD program header."""

    vaddr: int
    offset: int
    filesz: int
    memsz: int
    flags: int

    @property
    def executable(self) -> bool:
        return bool(self.flags & PF_X)

    def maps_offset(self, offset: int) -> bool:
        """Whether a mapping of this segment may start at that (page-aligned) file offset."""
        return page_floor(self.offset) <= offset < page_ceil(self.offset + self.filesz)


class Symbol(NamedTuple):
    """A function that the image defines.

    value: link-time address (of the resolver, for an ifunc). default_version: what a reference without a version gets.
    reach: "exported" to others (or GLOBAL and visible in .symtab), "hidden" by visibility, "static" by LOCAL binding,
    which is also what GNU ld makes of most hidden functions.
    """

    name: str
    version: str | None
    default_version: bool
    value: int
    size: int
    kind: Literal["func", "ifunc"]
    reach: Literal["exported", "hidden", "static"]

    @property
    def exported(self) -> bool:
        return self.reach == "exported"


class Reference(NamedTuple):
    """A slot of 8 bytes that the dynamic linker fills with the address of a named symbol, perhaps not before a call."""

    slot: int
    version: str | None


class _Section(NamedTuple):
    kind: int
    flags: int
    address: int
    offset: int
    nbytes: int
    link: int


class _SymbolTable(NamedTuple):
    """versions: per entry an index into the version names, with 0x8000 set when it is not the default."""

    entries: bytes
    names: bytes
    versions: Sequence[int]


_NO_SYMBOLS = _SymbolTable(b"", b"", ())


@dataclass(eq=False)
class ElfImage:
    """An x86-64 executable or shared object. `where` names it in errors.

    kind: "EXEC" is loaded at its link-time addresses, "DYN" anywhere. entry: 0 when there is none. unwind_header: the
    address of .eh_frame_hdr, 0 when there is none.
    """

    data: Bytes
    where: str
    kind: Literal["EXEC", "DYN"]
    entry: int
    interpreter: bool
    segments: tuple[Segment, ...]
    sections: tuple[_Section, ...]
    dynamic: dict[int, int]
    unwind_header: int
    soname: str | None = field(init=False, default=None)

    @classmethod
    def parse(cls, data: Bytes, where: str) -> "ElfImage":
        """Read the headers. Raises NotPossible if this is no x86-64 image that Linux would load."""
        header = _Headers(data, where)
        image = cls(
            data,
            where,
            header.kind,
            header.entry,
            "PT_INTERP" in header.other_segments,
            header.loads,
            header.sections(),
            header.dynamic(),
            header.unwind_header,
        )
        name_at = image.dynamic.get(ENUM_D_TAG["DT_SONAME"])
        image.soname = None if name_at is None else _name(image._dynamic_names, name_at, where)
        return image

    @cached_property
    def is_static(self) -> bool:
        """A program that is linked with everything it uses: nothing of it can be reached by the dynamic linker."""
        return not self.interpreter and self._dynamic_symbol_count <= 1

    @cached_property
    def functions(self) -> list[Symbol]:
        """Defined functions: those of .dynsym first, then what only .symtab knows, each in table order."""
        known = {(symbol.name, symbol.value) for symbol in self._dynamic_functions}
        static = self._functions_of(self._static_symbols())
        return self._dynamic_functions + [symbol for symbol in static if (symbol.name, symbol.value) not in known]

    @cached_property
    def exported(self) -> list[Symbol]:
        """The functions that others may call.

        A program's .symtab adds to them. A library's cannot, so this table, often the larger one, is not read for it.
        """
        is_program = self.interpreter or self.kind == "EXEC" or self.is_static
        return [symbol for symbol in (self.functions if is_program else self._dynamic_functions) if symbol.exported]

    @cached_property
    def exported_by_name(self) -> dict[str, list[Symbol]]:
        return _grouped((symbol.name, symbol) for symbol in self.exported)

    @cached_property
    def exported_by_value(self) -> dict[int, list[Symbol]]:
        return _grouped((symbol.value, symbol) for symbol in self.exported)

    @cached_property
    def exported_data(self) -> dict[str, int]:
        """Link-time addresses of the data objects of .dynsym, by name."""
        table = self._dynamic_symbols()
        return {
            _name(table.names, name_at, self.where): value
            for name_at, info, _, section, value, _ in _SYMBOL.iter_unpack(table.entries)
            if info & 15 == _STT_OBJECT and info >> 4 != _STB_LOCAL and section not in _NOWHERE
        }

    @cached_property
    def _data(self) -> list[tuple[int, int, str]]:
        """(link-time address, size, name) of the data objects of either table, static ones included, by address."""
        return sorted(
            (value, size, _name(table.names, name_at, self.where))
            for table in (self._dynamic_symbols(), self._static_symbols())
            for name_at, info, _, section, value, size in _SYMBOL.iter_unpack(table.entries)
            if info & 15 == _STT_OBJECT and size and section not in _NOWHERE
        )

    def data_at(self, vaddr: int) -> tuple[str, int] | None:
        """The data object that this link-time address lies in: its name and where it begins."""
        i = bisect_right(self._data, (vaddr, sys.maxsize, ""))
        if i and vaddr < sum(self._data[i - 1][:2]):
            return self._data[i - 1][2], self._data[i - 1][0]
        return None

    @cached_property
    def references(self) -> dict[str, list[Reference]]:
        """Slots that the dynamic linker fills with the address of a symbol, by the symbol's name."""
        table = self._dynamic_symbols()
        found = []
        for slot, info, addend in self._relocations():
            kind, index = info & 0xFFFFFFFF, info >> 32
            if kind not in _ADDRESS_OF_SYMBOL or addend != 0 or not 0 < index < len(table.versions):
                continue
            (name_at,) = struct.unpack_from("<I", table.entries, index * _SYMBOL.size)
            version = self._version_names.get(table.versions[index] & ~_VERSION_HIDDEN)
            found.append((_name(table.names, name_at, self.where), Reference(slot, version)))
        return _grouped(found)

    @cached_property
    def irelative(self) -> dict[int, list[int]]:
        """Slots that hold what an ifunc's resolver returned, by the resolver's link-time address."""
        return _grouped((addend, slot) for slot, info, addend in self._relocations() if info == R_X86_64_IRELATIVE)

    @cached_property
    def function_starts(self) -> list[int]:
        """Where functions begin, ascending, by the unwinder's search table (.eh_frame_hdr): names are not needed.

        Empty without the table, or when it is not of the form that linkers write (LSB core 5.0, 10.6.2).
        """
        at = self.unwind_header
        if not at or self.at(at, 4) != _UNWIND_HEADER:
            return []
        (count,) = struct.unpack("<I", self.at(at + 8, 4))
        segment = self._segment(at)
        count = min(count, (segment.vaddr + segment.filesz - at - 12) // 8)
        return sorted(at + start for start, _ in struct.iter_unpack("<ii", self.at(at + 12, 8 * count)))

    def why_not_function(self, name: str) -> str | None:
        """What `name` is here if it is a symbol, but no function: "a data object", for example."""
        wanted = name.encode()
        for table in (self._dynamic_symbols(), self._static_symbols()):
            if wanted + b"\0" not in table.names and wanted + b"@" not in table.names:
                continue
            for name_at, info, _, section, _, _ in _SYMBOL.iter_unpack(table.entries):
                end = name_at + len(wanted)
                if table.names.startswith(wanted, name_at) and table.names[end : end + 1] in (b"\0", b"@"):
                    return _USED_ONLY if section == _SHN_UNDEF else _NOT_FUNCTIONS.get(info & 15)
        return None

    def at(self, vaddr: int, nbytes: int) -> bytes:
        """The file's bytes for [vaddr, vaddr + nbytes)."""
        return self._slice(self._offset(vaddr), nbytes)

    def _slice(self, offset: int, nbytes: int) -> bytes:
        return _slice(self.data, offset, nbytes, self.where)

    def _offset(self, vaddr: int) -> int:
        return vaddr - (segment := self._segment(vaddr)).vaddr + segment.offset

    def _segment(self, vaddr: int) -> Segment:
        for segment in self.segments:
            if segment.vaddr <= vaddr < segment.vaddr + segment.filesz:
                return segment
        raise _malformed(self.where, f"address {vaddr:#x} is in no segment")

    def _table(self, address_tag: str, nbytes_tag: str) -> bytes:
        """A table named by two entries of the dynamic section; empty when there is none."""
        address, nbytes = (self.dynamic.get(ENUM_D_TAG[tag]) for tag in (address_tag, nbytes_tag))
        return self.at(address, nbytes) if address and nbytes else b""

    @cached_property
    def _dynamic_names(self) -> bytes:
        return self._table("DT_STRTAB", "DT_STRSZ")

    @cached_property
    def _dynamic_symbol_count(self) -> int:
        """Entries of .dynsym; its size stands in the section headers, or follows from either hash table."""
        address = self.dynamic.get(ENUM_D_TAG["DT_SYMTAB"])
        if not address:
            return 0
        for section in self.sections:
            if section.kind == _SHT_DYNSYM and section.address == address:
                return section.nbytes // _SYMBOL.size
        if table := self.dynamic.get(ENUM_D_TAG["DT_HASH"]):
            return int.from_bytes(self.at(table + 4, 4), "little")
        if table := self.dynamic.get(ENUM_D_TAG["DT_GNU_HASH"]):
            return self._count_by_gnu_hash(table)
        return 0

    def _count_by_gnu_hash(self, table: int) -> int:
        """The chain of the last symbol's bucket ends with the last symbol: an odd hash value."""
        nbuckets, first_hashed, nbloom = struct.unpack("<III", self.at(table, 12))
        buckets_at = table + 16 + 8 * nbloom
        buckets = self.at(buckets_at, 4 * nbuckets)
        last = max((number for (number,) in struct.iter_unpack("<I", buckets)), default=0)
        if last < first_hashed:
            return first_hashed
        chain_at = buckets_at + 4 * nbuckets + 4 * (last - first_hashed)
        for step in range(_HASH_CHAIN_MAX):
            if self.at(chain_at + 4 * step, 1)[0] & 1:
                return last + step + 1
        raise _malformed(self.where, "endless hash chain")

    def _dynamic_symbols(self) -> _SymbolTable:
        """.dynsym; empty when there is none."""
        count = self._dynamic_symbol_count
        if not count:
            return _NO_SYMBOLS
        entries = self.at(self.dynamic[ENUM_D_TAG["DT_SYMTAB"]], count * _SYMBOL.size)
        return _SymbolTable(entries, self._dynamic_names, self._version_indices(count))

    def _version_indices(self, count: int) -> Sequence[int]:
        address = self.dynamic.get(ENUM_D_TAG["DT_VERSYM"])
        return struct.unpack(f"<{count}H", self.at(address, 2 * count)) if address else (_VERSION_NONE,) * count

    def _static_symbols(self) -> _SymbolTable:
        """.symtab; empty when the image is stripped."""
        for section in self.sections:
            if section.kind == _SHT_SYMTAB and section.link < len(self.sections):
                strings = self.sections[section.link]
                count = section.nbytes // _SYMBOL.size
                entries = self._slice(section.offset, count * _SYMBOL.size)
                names = self._slice(strings.offset, strings.nbytes)
                return _SymbolTable(entries, names, (_VERSION_NONE,) * count)
        return _NO_SYMBOLS

    @cached_property
    def _dynamic_functions(self) -> list[Symbol]:
        return self._functions_of(self._dynamic_symbols())

    def _functions_of(self, table: _SymbolTable) -> list[Symbol]:
        found = []
        versions = self._version_names
        for entry, version in zip(_SYMBOL.iter_unpack(table.entries), table.versions, strict=True):
            name_at, info, other, section, value, size = entry
            kind = _KINDS.get(info & 15)
            if kind is None or section in _NOWHERE:
                continue
            name = _name(table.names, name_at, self.where)
            label, default = versions.get(version & ~_VERSION_HIDDEN), version < _VERSION_HIDDEN
            if "@" in name:
                name, label, default = _split_version(name)
            found.append(Symbol(name, label, default, value, size, kind, _reach(info, other)))
        return found

    @cached_property
    def _version_names(self) -> dict[int, str]:
        """Version index -> name, of the versions that the image defines and of those that it needs."""
        return dict(self._defined_versions()) | dict(self._needed_versions())

    def _defined_versions(self) -> Iterator[tuple[int, str]]:
        for at in self._chain("DT_VERDEF", "DT_VERDEFNUM", _VERDEF.size - 4):
            _, flags, index, _, _, names_at, _ = _VERDEF.unpack(self.at(at, _VERDEF.size))
            name_at = int.from_bytes(self.at(at + names_at, 4), "little")
            if not flags & _VER_FLG_BASE and index >= _VERSION_FIRST_NAMED:
                yield index, _name(self._dynamic_names, name_at, self.where)

    def _needed_versions(self) -> Iterator[tuple[int, str]]:
        for at in self._chain("DT_VERNEED", "DT_VERNEEDNUM", _VERNEED.size - 4):
            _, count, _, first, _ = _VERNEED.unpack(self.at(at, _VERNEED.size))
            for name_of in self._follow(at + first, count, _VERNAUX.size - 4):
                _, _, index, name_at, _ = _VERNAUX.unpack(self.at(name_of, _VERNAUX.size))
                yield index, _name(self._dynamic_names, name_at, self.where)

    def _chain(self, address_tag: str, count_tag: str, next_at: int) -> Iterator[int]:
        address, count = (self.dynamic.get(ENUM_D_TAG[tag], 0) for tag in (address_tag, count_tag))
        return self._follow(address, count if address else 0, next_at)

    def _follow(self, at: int, count: int, next_at: int) -> Iterator[int]:
        """Addresses of a chain of records, each with the distance to the next one at offset next_at."""
        for _ in range(min(count, _VERSIONS_MAX)):
            yield at
            distance = int.from_bytes(self.at(at + next_at, 4), "little")
            if not distance:
                return
            at += distance

    def _relocations(self) -> Iterator[tuple[int, int, int]]:
        """(slot, info, addend) of every relocation that is applied at run time."""
        if self.dynamic:
            tables = [self._table("DT_RELA", "DT_RELASZ"), self._table("DT_JMPREL", "DT_PLTRELSZ")]
        else:
            loaded = (one for one in self.sections if one.kind == _SHT_RELA and one.flags & _SHF_ALLOC)
            tables = [self._slice(one.offset, one.nbytes) for one in loaded]
        for table in tables:
            yield from _RELA.iter_unpack(table[: len(table) // _RELA.size * _RELA.size])


class _Headers:
    """ELF header, program headers and section headers of one file."""

    def __init__(self, data: Bytes, where: str) -> None:
        self.data, self.where = data, where
        _check_identity(data[:_EHDR_NBYTES], where)
        self.header = self._decode(_LAYOUT.Elf_Ehdr, 0, _EHDR_NBYTES)
        machine = self.header.e_machine
        if machine != "EM_X86_64":
            raise _unsupported(where, f"is for another machine ({_MACHINES.get(machine, machine)})")
        if self.header.e_type not in ("ET_EXEC", "ET_DYN"):
            raise _unsupported(where, "is neither a program nor a shared library")
        self.kind: Literal["EXEC", "DYN"] = "EXEC" if self.header.e_type == "ET_EXEC" else "DYN"
        self.entry: int = self.header.e_entry
        segments = self._program_headers()
        self.other_segments = {one.p_type: one for one in segments if one.p_type != "PT_LOAD"}
        table = self.other_segments.get("PT_GNU_EH_FRAME")
        self.unwind_header: int = table.p_vaddr if table else 0
        self.loads = tuple(
            Segment(one.p_vaddr, one.p_offset, one.p_filesz, one.p_memsz, one.p_flags)
            for one in segments
            if one.p_type == "PT_LOAD"
        )
        if not self.loads:
            raise _malformed(where, "no loadable segment")

    def _decode(self, layout, offset: int, nbytes: int):  # type: ignore[no-untyped-def]  # pyelftools has no types
        try:
            return layout.parse(_slice(self.data, offset, nbytes, self.where))
        except (ELFError, ConstructError) as error:
            raise _malformed(self.where, str(error)) from None

    def _program_headers(self) -> list:
        count, nbytes, first = (self.header[name] for name in ("e_phnum", "e_phentsize", "e_phoff"))
        if nbytes != _PHDR_NBYTES or not 0 < count * nbytes <= _PHDRS_MAX_NBYTES:
            raise _malformed(self.where, "impossible program headers")
        return [self._decode(_LAYOUT.Elf_Phdr, first + i * nbytes, nbytes) for i in range(count)]

    def sections(self) -> tuple[_Section, ...]:
        """Empty when there are none, or unusable ones: nothing that runs needs them."""
        count, nbytes, first = (self.header[name] for name in ("e_shnum", "e_shentsize", "e_shoff"))
        if nbytes != _SECTION.size or first + count * nbytes > len(self.data):
            return ()
        table = _slice(self.data, first, count * nbytes, self.where)
        return tuple(
            _Section(kind, flags, address, offset, size, link)
            for _, kind, flags, address, offset, size, link, _, _, _ in _SECTION.iter_unpack(table)
        )

    def dynamic(self) -> dict[int, int]:
        """Tag -> value, the first of each tag."""
        segment = self.other_segments.get("PT_DYNAMIC")
        if segment is None:
            return {}
        nbytes = min(segment.p_filesz, _DYNAMIC_MAX_NBYTES) // _DYNAMIC.size * _DYNAMIC.size
        entries: dict[int, int] = {}
        for tag, value in _DYNAMIC.iter_unpack(_slice(self.data, segment.p_offset, nbytes, self.where)):
            if tag == ENUM_D_TAG["DT_NULL"]:
                break
            entries.setdefault(tag, value)
        return entries


def _check_identity(start: bytes, where: str) -> None:
    """e_ident: magic, class, byte order (gABI 4.1)."""
    if start[:4] != b"\x7fELF":
        raise _unsupported(where, "is no ELF file")
    if start[4:5] == b"\x01":
        raise _unsupported(where, "is a 32-bit image")
    if start[4:6] != b"\x02\x01" or len(start) < _EHDR_NBYTES:
        raise _malformed(where, "bad ELF header")


def _slice(data: Bytes, offset: int, nbytes: int, where: str) -> bytes:
    """Raises NotPossible if the data end before offset + nbytes."""
    if offset + nbytes > len(data) or len(part := data[offset : offset + nbytes]) != nbytes:
        raise _malformed(where, f"it ends before {offset:#x} + {nbytes:#x}")
    return part


def _name(names: bytes, at: int, where: str) -> str:
    end = names.find(b"\0", at, at + _NAME_MAX_NBYTES)
    if end < 0:
        raise _malformed(where, f"bad name at {at:#x} of its string table")
    return names[at:end].decode(errors="backslashreplace")


def _split_version(name: str) -> tuple[str, str, bool]:
    """GNU ld writes versions into the names of .symtab: name@VERSION, and name@@VERSION for the default."""
    name, _, version = name.partition("@")
    return name, version.lstrip("@"), version.startswith("@")


def _reach(info: int, other: int) -> Literal["exported", "hidden", "static"]:
    if other & 3 in (_STV_INTERNAL, _STV_HIDDEN):
        return "hidden"
    return "static" if info >> 4 == _STB_LOCAL else "exported"


def _grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    groups: defaultdict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return dict(groups)


def _unsupported(where: str, what: str) -> NotPossible:
    return NotPossible(what, where=where, advice="radium splits 64-bit x86-64 programs only")


def _malformed(where: str, why: str) -> NotPossible:
    return NotPossible(f"is a malformed ELF image ({why})", where=where)
