"""Profiles: TOML text to checked values. Every problem is one ProfileError with file, line and a hint.

Invariants: a Profile that exists is sound: its expressions are compiled against its signatures, its choices are legal.
Reading takes time in proportion to the text, whatever the text is.
"""

import difflib
import os
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from radium.core import abi
from radium.core.abi import Pointer, Signature
from radium.core.addr import PAGE_SIZE, USER_END
from radium.core.expr import Expression
from radium.core.places import Place
from radium.core.python_guard import PythonGuard
from radium.errors import ExpressionError, ProfileError
from radium.profiles.signature import parse_signature

# Arbitrary, far above any profile that a person writes; they bound the time that reading takes.
MAX_NBYTES = 256 * 1024
MAX_NSPLITS = 1000
MAX_NDOTS = 8
MAX_NAME = 256
MAX_NPLACES = 4096
MAX_PLACE_NBYTES = 1 << 30

Stance = Literal["mirror", "native"]
Threads = Literal["stop", "run"]
Policy = Literal["always", "auto"]


@dataclass(frozen=True, slots=True)
class FunctionPattern:
    """A symbol's name or a glob over names; version is what followed `@` or `@@`."""

    pattern: str
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.pattern}@{self.version}" if self.version else self.pattern


@dataclass(frozen=True, slots=True)
class MemoryHint:
    """Bytes [at, at + nbytes) that the call will touch; nothing when nbytes is not positive."""

    at: Expression
    nbytes: Expression


@dataclass(frozen=True, slots=True)
class Split:
    """One [[split]] table. Either library and functions are given, or python.

    library: a glob over file names and sonames, or "main"; signature: None when the profile has none, then guard and
    memory are over `radium.core.abi.DEFAULT`; declaration: the signature's text, or "". where: "file:line". scratch: what
    a call writes to large anonymous mappings outside of `memory` is its working storage, of no use to anybody afterwards: it
    does not come home. python_guard: a guard over the arguments of a Python function; `guard` is None then. working_set:
    pages that the first call is expected to touch. tolerance: relative, up to which floats count as equal when a call is
    verified; 0 demands the same bytes.
    """

    library: str | None
    functions: tuple[FunctionPattern, ...]
    signature: Signature | None
    declaration: str
    guard: Expression | None
    memory: tuple[MemoryHint, ...]
    working_set: tuple[Place, ...]
    stance: Stance
    backend: str | None
    threads: Threads
    policy: Policy
    outermost: bool
    scratch: bool
    python: tuple[str, ...]
    python_guard: PythonGuard | None
    tolerance: float
    line: int
    where: str


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    title: str
    splits: tuple[Split, ...]
    path: str


def load(path: str | os.PathLike[str]) -> Profile:
    """Read and check a profile's file. Raises ProfileError."""
    return loads(read(path), os.fspath(path))


def read(path: str | os.PathLike[str]) -> str:
    """The text of a profile's file. Raises ProfileError when there is none to be had."""
    where = os.fspath(path)
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_NBYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ProfileError(
            f"profile cannot be read: {why}", where=where, advice="`radium profiles list` shows the library's"
        ) from error
    if len(raw) > MAX_NBYTES:
        raise ProfileError(f"profile is larger than {MAX_NBYTES} bytes", where=where, advice="divide it")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ProfileError("profile is not UTF-8 text", where=f"{where}:{line}", advice="save it as UTF-8") from error


def loads(text: str, where: str) -> Profile:
    """Check a profile's text; where is its file's name. Raises ProfileError for the first problem."""
    document = _parse(text, where)
    places = _Places.find(text)
    top = _Table(document, where, 1, places.keys)
    top.check_keys(_TOP_KEYS)
    name, title = top.string("name", Path(where).stem), top.string("title", "")
    tables = _split_tables(top)
    lines = places.splits if len(places.splits) == len(tables) else [_Place(top.line_of("split"))] * len(tables)
    splits = tuple(_split(table, where, place) for table, place in zip(tables, lines, strict=True))
    return Profile(name, title, splits, where)


# --- TOML, and where things stand in it ---------------------------------------------------------------------------


def _parse(text: str, where: str) -> dict[str, Any]:
    _check_bounds(text, where)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        match = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
        line = match[1] if match and match[1] else str(text.rstrip("\n").count("\n") + 1)
        what = str(error)[: match.start()] if match else str(error)
        column = f" at column {match[2]}" if match and match[2] else ""
        what = f"not TOML: {what}{column}"
        raise ProfileError(what, where=f"{where}:{line}", advice="https://toml.io shows how it is written") from error
    except RecursionError as error:
        raise ProfileError("brackets are nested too deeply", where=f"{where}:1", advice="flatten them") from error


def _check_bounds(text: str, where: str) -> None:
    if len(text) > MAX_NBYTES:
        raise ProfileError(f"profile is larger than {MAX_NBYTES} bytes", where=f"{where}:1", advice="divide it")
    deep = _DEEP_KEY.search(_blank(text))
    if deep:  # tomllib takes time in the square of a key's dots
        line = text.count("\n", 0, deep.start()) + 1
        raise ProfileError("key with too many dots", where=f"{where}:{line}", advice="profiles need no dotted keys")


_DEEP_KEY = re.compile(rf"(?:\.[ \t]*[\w-]+[ \t]*){{{MAX_NDOTS}}}")
_STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"{3,5}|\Z)'
    r"|'''.*?(?:'{3,5}|\Z)"
    r'|"(?:\\.|[^"\\\n])*(?:"|$)'
    r"|'[^'\n]*(?:'|$)"
    r"|#[^\n]*",
    re.DOTALL | re.MULTILINE,
)
_PLAIN_KEY = re.compile(r"""(["'])[\w-]+\1""")


def _blank(text: str) -> str:
    """The text with comments and strings overwritten by `_`, so that brackets, keys and dots in them do not count.

    Each character keeps its place. Short plain strings only lose their quotes: they may be keys.
    """

    def overwrite(match: re.Match[str]) -> str:
        if _PLAIN_KEY.fullmatch(match[0]):
            return f" {match[0][1:-1]} "
        filler = " " if match[0].startswith("#") else "_"
        return re.sub(r"[^\n]", filler, match[0])

    return _STRING_OR_COMMENT.sub(overwrite, text)


@dataclass(slots=True)
class _Place:
    """Lines of one [[split]] table: its header's, its keys', and those of the tables in its arrays, by key."""

    line: int
    keys: dict[str, int] = field(default_factory=dict)
    items: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))


@dataclass(slots=True)
class _Places:
    """Lines of the top-level keys and of the [[split]] tables, of a text that tomllib has taken."""

    keys: dict[str, int] = field(default_factory=dict)
    splits: list[_Place] = field(default_factory=list)

    @classmethod
    def find(cls, text: str) -> "_Places":
        places = cls()
        keys: dict[str, int] | None = places.keys
        key, depth = "", 0
        for number, line in enumerate(_blank(text).split("\n"), 1):
            if depth == 0 and (header := re.match(r"\s*(\[\[?[\w.\s-]*\])", line)):
                keys = places._enter(re.sub(r"\s", "", header[1]), number)
                continue
            if depth == 0 and keys is not None and (assignment := re.match(r"\s*([\w-]+)[^=]*=", line)):
                key = assignment[1]
                keys.setdefault(key, number)
            if key in _ARRAYS and keys is not places.keys and places.splits:
                places.splits[-1].items[key] += [number] * line.count("{")
            depth += sum(map(line.count, "[{")) - sum(map(line.count, "]}"))
        return places

    def _enter(self, header: str, number: int) -> dict[str, int] | None:
        """The keys of the table that begins here; None for one whose keys are not looked for.

        header: without spaces and its last closing bracket.
        """
        if header == "[[split]":
            self.splits.append(_Place(number))
            return self.splits[-1].keys
        table, _, key = header.removeprefix("[[").removesuffix("]").partition(".")
        if table == "split" and key in _ARRAYS and self.splits:
            self.splits[-1].keys.setdefault(key, number)
            self.splits[-1].items[key].append(number)
        else:
            self.keys.setdefault(header.strip("[]").partition(".")[0], number)
        return None


# --- checking ------------------------------------------------------------------------------------------------------

_TOP_KEYS = ("name", "title", "split")
_LIBRARY_KEYS = ("library", "function", "signature", "memory", "scratch", "stance", "backend")
_COMMON_KEYS = ("python", "guard", "threads", "policy", "outermost", "working_set", "tolerance")
_HINT_KEYS = ("at", "bytes")
_PLACE_KEYS = ("mapping", "offset", "bytes")
_ARRAYS = ("memory", "working_set")
_PLACE_EXAMPLE = 'write { mapping = "libc.so.6", offset = 0x1000, bytes = 8192 }'
_TYPE_NAMES = {str: "a string", bool: "true or false", list: "an array", dict: "a table"}
_WANTED = _TYPE_NAMES | {int: "a whole number"}


class _Table:
    """A TOML table with the lines of its keys; every accessor checks the type."""

    def __init__(self, values: Mapping[str, Any], where: str, line: int, lines: Mapping[str, int]) -> None:
        self.values = values
        self.where = where
        self.line = line
        self.lines = lines

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def line_of(self, key: str) -> int:
        return self.lines.get(key, self.line)

    def fail(self, key: str, what: str, advice: str) -> NoReturn:
        raise ProfileError(what, where=f"{self.where}:{self.line_of(key)}", advice=advice)

    def check_keys(self, known: tuple[str, ...]) -> None:
        for key in self.values:
            if key not in known:
                near = difflib.get_close_matches(key[:MAX_NAME], known, n=1)
                advice = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(known)}"
                self.fail(key, f"unknown key `{_short(key)}`", advice)

    def get(self, key: str, type_: type, default: Any = None) -> Any:
        value = self.values.get(key, default)
        if key in self.values and (not isinstance(value, type_) or (type_ is int and isinstance(value, bool))):
            self.fail(key, f"`{key}` is {_describe(value)}", f"{_WANTED[type_]} is wanted")
        return value

    def string(self, key: str, default: str) -> str:
        return cast(str, self.optional_string(key)) if key in self else default

    def optional_string(self, key: str) -> str | None:
        value: str | None = self.get(key, str)
        if value is not None and not (value.strip() and value.isprintable()):
            self.fail(key, f"`{key}` is empty or not printable", "give it a text or leave it away")
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """The first of `allowed` is the default."""
        value = self.string(key, allowed[0])
        if value not in allowed:
            self.fail(key, f"`{key}` is `{_short(value)}`", f"it can be {' or '.join(map(repr, allowed))}")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        """A string, or an array of them; empty when the key is not there."""
        value = self.values.get(key, [])
        values = [value] if isinstance(value, str) else self.get(key, list, [])
        for item in values:
            if not isinstance(item, str):
                self.fail(key, f"`{key}` holds {_describe(item)}", "strings are wanted")
        if key in self and not values:
            self.fail(key, f"`{key}` is empty", "name at least one")
        return tuple(values)

    def expression(self, key: str, arguments: Signature) -> Expression:
        text = self.get(key, str)
        try:
            expression = Expression.compile(text, arguments.names)
        except ExpressionError as error:
            self.fail(key, f"{key}: {error.what}", error.advice)
        for name in sorted(expression.subscripted):
            type_ = arguments.type_of(name)
            if not isinstance(type_, Pointer):
                self.fail(key, f"{key}: `{name}` is no pointer", f"write {name} instead of {name}[...]")
            if type_.to is None:
                self.fail(key, f"{key}: `{name}` points to an unknown type", "give it one in the signature")
        return expression


def _describe(value: object) -> str:
    for type_, name in _TYPE_NAMES.items():
        if isinstance(value, type_):
            return name
    return "a number" if isinstance(value, int | float) else "a date or time"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _split_tables(top: _Table) -> list[dict[str, Any]]:
    if isinstance(top.values.get("split"), dict):
        top.fail("split", "`split` is one table", "write [[split]] with two brackets")
    tables: list[dict[str, Any]] = top.get("split", list, [])
    if not tables:
        top.fail("split", "profile has no splits", "add a [[split]] with library and function")
    if len(tables) > MAX_NSPLITS:
        top.fail("split", f"profile has {len(tables)} splits", f"at most {MAX_NSPLITS} are taken; use globs")
    for table in tables:
        if not isinstance(table, dict):
            top.fail("split", f"`split` holds {_describe(table)}", "write [[split]] with two brackets")
    return tables


def _split(values: dict[str, Any], where: str, place: _Place) -> Split:
    table = _Table(values, where, place.line, place.keys)
    table.check_keys(_LIBRARY_KEYS + _COMMON_KEYS)
    _check_kind(table)
    signature = _signature(table)
    arguments = signature or abi.DEFAULT
    return Split(
        library=_library(table),
        functions=tuple(_function(table, text) for text in table.strings("function")),
        signature=signature,
        declaration=table.get("signature", str, ""),
        guard=table.expression("guard", arguments) if "guard" in table and "python" not in table else None,
        memory=_memory(table, arguments, place.items["memory"]),
        working_set=_working_set(table, place.items["working_set"]),
        stance=cast(Stance, table.choice("stance", ("mirror", "native"))),
        backend=_backend(table),
        threads=cast(Threads, table.choice("threads", ("stop", "run"))),
        policy=cast(Policy, table.choice("policy", ("always", "auto"))),
        outermost=table.get("outermost", bool, True),
        scratch=_scratch(table),
        python=tuple(_python(table, text) for text in table.strings("python")),
        python_guard=_python_guard(table),
        tolerance=_tolerance(table),
        line=place.line,
        where=f"{where}:{place.line}",
    )


def _check_kind(table: _Table) -> None:
    if "library" in table and "python" in table:
        table.fail("python", "a split has both `library` and `python`", "make two splits of it")
    if "python" in table:
        for key in _LIBRARY_KEYS:
            if key in table:
                table.fail(key, f"`{key}` does not go with `python`", "it belongs to a split of a library")
    elif "library" not in table:
        table.fail("", "a split has neither `library` nor `python`", 'library = "main" is the program itself')
    elif "function" not in table:
        table.fail("", "a split of a library has no `function`", 'add function = "NAME" or an array of names')


def _library(table: _Table) -> str | None:
    library = table.optional_string("library")
    if library is not None and "/" in library:
        table.fail("library", f"library `{_short(library)}` is a path", "give its file name or soname, or a glob")
    return library


def _function(table: _Table, text: str) -> FunctionPattern:
    """`name`, a glob, `name@VERSION` or `name@@VERSION` (the default version; the same split point)."""
    name, at, version = text.partition("@")
    version = version.removeprefix("@")
    if len(text) > MAX_NAME or not re.fullmatch(r"[^\s@/]+", name) or (at and not re.fullmatch(r"[^\s@/]+", version)):
        table.fail("function", f"`{_short(text)}` is no function", "write NAME, a glob, or NAME@VERSION")
    return FunctionPattern(name, version or None)


def _python(table: _Table, text: str) -> str:
    if len(text) > MAX_NAME or not re.fullmatch(r"[\w.*?-]+:[\w.*?<>]+", text):
        table.fail("python", f"`{_short(text)}` is no Python function", "write module:qualified.name, with * and ? as globs")
    return text


def _python_guard(table: _Table) -> PythonGuard | None:
    if "python" not in table or "guard" not in table:
        return None
    try:
        return PythonGuard.compile(table.get("guard", str))
    except ExpressionError as error:
        table.fail("guard", f"guard: {error.what}", error.advice)


def _signature(table: _Table) -> Signature | None:
    text = table.get("signature", str)
    if text is None:
        return None
    try:
        return parse_signature(text)
    except ProfileError as error:
        table.fail("signature", error.what, error.advice)


def _tables(
    table: _Table, array: str, lines: list[int], keys: tuple[str, ...], advice: str
) -> Iterator[_Table]:
    """The tables of an array of the split's, each with all of the keys and no others. lines: theirs, if they were found."""
    items: list[object] = table.get(array, list, [])
    if len(lines) != len(items):
        lines = [table.line_of(array)] * len(items)
    for values, line in zip(items, lines, strict=True):
        if not isinstance(values, dict):
            table.fail(array, f"`{array}` holds {_describe(values)}", advice)
        item = _Table(values, table.where, line, {})
        item.check_keys(keys)
        for key in keys:
            if key not in item:
                item.fail(key, f"an entry of `{array}` has no `{key}`", advice)
        yield item


def _memory(table: _Table, arguments: Signature, lines: list[int]) -> tuple[MemoryHint, ...]:
    hints = _tables(table, "memory", lines, _HINT_KEYS, 'write { at = "p", bytes = "8 * n" }')
    return tuple(MemoryHint(hint.expression("at", arguments), hint.expression("bytes", arguments)) for hint in hints)


def _working_set(table: _Table, lines: list[int]) -> tuple[Place, ...]:
    places = tuple(_place(item) for item in _tables(table, "working_set", lines, _PLACE_KEYS, _PLACE_EXAMPLE))
    if len(places) > MAX_NPLACES:
        table.fail("working_set", f"`working_set` has {len(places)} entries", f"at most {MAX_NPLACES} are taken")
    return places


def _place(item: _Table) -> Place:
    mapping, offset, nbytes = item.string("mapping", ""), item.get("offset", int), item.get("bytes", int)
    if "/" in mapping:
        item.fail("mapping", f"mapping `{_short(mapping)}` is a path", 'give the file name, "heap" or "stack"')
    if offset % PAGE_SIZE or not -USER_END < offset < USER_END:
        item.fail("offset", "`offset` is not that of a page", f"a multiple of {PAGE_SIZE} is wanted")
    if nbytes % PAGE_SIZE or not 0 < nbytes <= MAX_PLACE_NBYTES:
        item.fail("bytes", "`bytes` is not a number of whole pages", f"a multiple of {PAGE_SIZE} up to 2**30 is wanted")
    return Place(mapping, offset, nbytes)


def _scratch(table: _Table) -> bool:
    is_scratch: bool = table.get("scratch", bool, False)
    if is_scratch and "memory" not in table:
        table.fail("scratch", "`scratch` without `memory`", "name in `memory` all that the call's results lie in")
    return is_scratch


def _tolerance(table: _Table) -> float:
    value = table.values.get("tolerance", 0.0)
    if not isinstance(value, int | float) or isinstance(value, bool):
        table.fail("tolerance", f"`tolerance` is {_describe(value)}; a number is wanted", "write 1e-12, say")
    if not 0 <= value < 1:
        table.fail("tolerance", f"`tolerance` is {value:g}", "it is relative: give a number below 1, like 1e-12")
    return float(value)


def _backend(table: _Table) -> str | None:
    backend = table.optional_string("backend")
    is_native = table.choice("stance", ("mirror", "native")) == "native"
    if is_native and backend is None:
        table.fail("stance", 'stance "native" has no `backend`', 'add backend = "libNAME.so.N", which the acceptor has')
    if backend is not None and not is_native:
        table.fail("backend", '`backend` goes with stance "native" only', 'add stance = "native" or leave it away')
    return backend
