"""What the library of profiles knows of a function: its declaration, its size, the memory that it touches."""

import ast
from fnmatch import fnmatchcase
from functools import cache
from typing import NamedTuple

from radium.core.abi import Signature
from radium.core.expr import Expression
from radium.profiles import library
from radium.profiles.schema import Split


class Known(NamedTuple):
    """size: what the profile's guard compares, an expression over the signature's arguments; "" when it compares nothing."""

    declaration: str
    signature: Signature | None
    size: str
    memory: tuple[tuple[str, str], ...]
    scratch: bool


def find(object_name: str, function: str) -> Known | None:
    """Of a function (its name without version) of an ELF object, by soname or file name."""
    for split in _splits():
        if split.library and fnmatchcase(object_name, split.library) and _names(split, function):
            memory = tuple((hint.at.text, hint.nbytes.text) for hint in split.memory)
            return Known(split.declaration, split.signature, _size(split.guard), memory, split.scratch)
    return None


@cache
def _splits() -> list[Split]:
    return [split for name in library.names() for split in library.open_profile(name).splits]


def _names(split: Split, function: str) -> bool:
    return any(fnmatchcase(function, pattern.pattern) for pattern in split.functions)


def _size(guard: Expression | None) -> str:
    """`m * n` of `m * n >= 2**21`."""
    if guard is None:
        return ""
    tree = ast.parse(guard.text.strip(), mode="eval").body
    if isinstance(tree, ast.Compare) and len(tree.ops) == 1 and isinstance(tree.ops[0], ast.Gt | ast.GtE):
        return ast.unparse(tree.left)
    return ""
