"""From sampled stacks to candidates: the functions by which programs enter their libraries and packages.

Of the frames that a stack has in one object, the outermost function that can be split stands for that object's work, if
something outside of the object has called it: it is what its author offers and a person would name. Functions further inside
do a part of it. Only objects that nobody enters by such a function are proposed by those further inside.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping

from radium.tracer.discovery.findings import Candidate
from radium.tracer.discovery.symbols import UNKNOWN, Frame, Stack

# Of the samples, the least that is worth a look; and so many functions of each kind are looked at.
LEAST_SHARE, MOST = 0.03, 12
# What everything begins in, or is made of: no work of theirs is anybody's reason to split a program.
_FOUNDATIONS = re.compile(r"(ld-linux-x86-64|libc|libpthread|libgomp|libstdc\+\+)\.so")
_BEGINNINGS = {"main", "_start"}
_INTERPRETER = re.compile(r"libpython\d")
# Of Python, the packages whose functions bring others into being, or run them.
_MACHINERY = {"importlib", "runpy", "threading", "concurrent", "multiprocessing", "asyncio"}


def propose(native: Mapping[Stack, int], python: Mapping[Stack, int]) -> list[Candidate]:
    """The functions of which a profile could make split points, with their shares; those with the largest come first."""
    has_python = bool(python)
    natives = _entries(native, lambda frame: _native_unit(frame, has_python=has_python))
    pythons = _entries(python, _package)
    return sorted([*natives, *pythons], key=lambda one: -one.inclusive)


def _native_unit(frame: Frame, *, has_python: bool) -> str:
    """The object that a frame is counted for; "": none."""
    if not frame.library or _FOUNDATIONS.match(frame.library) or frame.function in _BEGINNINGS:
        return ""
    # What an interpreter exports runs Python code, whose functions are proposed by themselves.
    if has_python and (frame.library == "main" or _INTERPRETER.match(frame.library)):
        return ""
    return frame.library


def _package(frame: Frame) -> str:
    if not frame.name.startswith("python:"):
        return ""
    package = frame.function.partition(":")[0].partition(".")[0]
    return "" if package in _MACHINERY else package


def _entries(stacks: Mapping[Stack, int], unit_of: Callable[[Frame], str]) -> list[Candidate]:
    total = sum(stacks.values())
    entered, inner, ran = Counter[Frame](), Counter[Frame](), Counter[Frame]()
    for stack, count in stacks.items():
        first = _first_of_units(stack, unit_of)
        entered.update({frame: count for frame, is_entry in first.values() if is_entry})
        inner.update({frame: count for frame, is_entry in first.values() if not is_entry})
        if stack:
            ran[stack[-1]] += count
    units = {unit_of(frame) for frame in entered}
    entered.update({frame: count for frame, count in inner.items() if unit_of(frame) not in units})
    found = [
        Candidate(frame.name, frame.library, frame.function, count / total, ran[frame] / total)
        for frame, count in entered.most_common(MOST)
    ]
    return [one for one in found if one.inclusive >= LEAST_SHARE]


def _first_of_units(stack: Stack, unit_of: Callable[[Frame], str]) -> dict[str, tuple[Frame, bool]]:
    """The outermost frame of each unit that can be split, and whether the unit is entered by it, as far as is known."""
    first: dict[str, tuple[Frame, bool]] = {}
    for caller, frame in zip((UNKNOWN, *stack), stack, strict=False):
        unit = unit_of(frame)
        if unit and unit not in first:
            first[unit] = frame, caller != UNKNOWN and _owner(caller) != _owner(frame)
    return first


def _owner(frame: Frame) -> str:
    """What a frame's code belongs to, whether it has a name or not: an object, a package."""
    kind, _, rest = frame.name.partition(":")
    return rest.partition(".")[0].partition(":")[0] if kind == "python" else frame.name.rpartition(":")[0]
