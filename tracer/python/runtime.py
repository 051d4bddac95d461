"""Which CPython a process runs, and where its functions and data are.

Sources: the C API's stable names; Include/cpython/object.h for the fields of types that are read.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from radium.errors import NotPossible
from radium.tracer.resolve import MappedObject

OLDEST, NEWEST = (3, 9), (3, 14)
# What tells an interpreter from a program that merely uses one.
_MARKS = ("Py_AddPendingCall", "PyVectorcall_Call")
_PYPY_MARK = "pypy_execute_source"
# endbr64, xor edx, edx, jmp; and endbr64, jmp to where a table of the dynamic linker's says.
_GOES_ON = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?(?:\x31\xd2)?(?:\xeb(.)|\xe9(.{4}))", re.DOTALL)
_LINKED = re.compile(rb"(?:\xf3\x0f\x1e\xfa)?\xf2?\xff\x25")


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

    def make_function(self, read: Callable[[int, int], bytes]) -> set[int]:
        """What MAKE_FUNCTION may call, with code and global names in rdi and rsi. Raises NotPossible.

        Link-time optimisation leads past PyFunction_New to where that goes on, which has no name (CPython 3.14 of Debian).
        """
        plain, named = self.function("PyFunction_New"), self.function("PyFunction_NewWithQualName")
        jump = _GOES_ON.match(read(plain, 16))
        if not jump:
            return {plain, named}
        there = plain + jump.end() + int.from_bytes(jump[1] or jump[2], "little", signed=True)
        return {named} if _LINKED.match(read(there, 16)) else {there, named}

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
