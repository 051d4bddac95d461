"""Which CPython a process runs, and where its functions and data are.

Sources: the C API's stable names; Include/cpython/object.h for the fields of types that are read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from radium.errors import NotPossible
from radium.tracer.resolve import MappedObject

OLDEST, NEWEST = (3, 9), (3, 14)
# What tells an interpreter from a program that merely uses one.
_MARKS = ("Py_AddPendingCall", "PyVectorcall_Call")
_PYPY_MARK = "pypy_execute_source"


@dataclass(frozen=True)
class Runtime:
    """holder: the program, or libpython."""

    holder: MappedObject

    def function(self, *names: str) -> int:
        """The first of these that there is. Raises NotPossible."""
        for name in names:
            if found := self.holder.image.exported_by_name.get(name):
                return self.holder.base + found[0].value
        raise NotPossible(f"its Python does not export {names[0]}", where=self.holder.path)

    def has(self, name: str) -> bool:
        return name in self.holder.image.exported_by_name

    @property
    def is_old(self) -> bool:
        """Whether it is older than CPython 3.11."""
        return "Py_Version" not in self.holder.image.exported_data

    def data(self, name: str) -> int:
        """Raises NotPossible."""
        value = self.holder.image.exported_data.get(name)
        if value is None:
            raise NotPossible(f"its Python does not export {name}", where=self.holder.path)
        return self.holder.base + value


def find(objects: Iterable[MappedObject]) -> Runtime | None:
    """The CPython among the objects; None: there is none (yet). Raises NotPossible for another interpreter."""
    for holder in objects:
        names = holder.image.exported_by_name
        if all(mark in names for mark in _MARKS):
            return Runtime(holder)
        if _PYPY_MARK in names:
            raise NotPossible(
                "is run by PyPy, whose functions have no slots", where=holder.path, advice="Python splits need CPython"
            )
    return None


def check_version(text: str, where: str) -> tuple[int, int]:
    """text: as Py_GetVersion gives it. Raises NotPossible for one that is not known to work."""
    match = re.match(r"(\d+)\.(\d+)", text)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if not OLDEST <= version <= NEWEST:
        raise NotPossible(
            f"is CPython {version[0]}.{version[1]}", where=where,
            advice=f"Python splits need {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}",
        )
    if "free-threading" in text:
        raise NotPossible("is a free-threaded CPython", where=where, advice="Python splits need one with a GIL")
    return version
