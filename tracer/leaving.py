"""What leaves a function's frame otherwise than by its return: where the mirror looks for it (core.wire.Frame).

Exceptions land by `_Unwind_SetIP` (the Itanium C++ ABI's unwinder, libgcc_s), which thread cancellation uses too; longjmp
and its like are one function of libc under several names, and a checking one. Static copies of the unwinder are not found.
"""

from collections.abc import Iterable
from typing import NamedTuple

from radium.tracer.resolve import MappedObject

_UNWINDERS, _LIBCS = ("libgcc_s.", "libunwind."), ("libc.", "libc-")
_SET_IP = "_Unwind_SetIP"
_LONGJMPS = ("longjmp", "siglongjmp", "_longjmp", "__longjmp_chk")
# As many as the mirror has debug registers for.
_NLONGJMPS = 2


class Leaving(NamedTuple):
    set_ip: int = 0
    longjmps: tuple[int, ...] = ()


def find(objects: Iterable[MappedObject]) -> Leaving:
    set_ip, longjmps = 0, set[int]()
    for one in objects:
        if one.file_name.startswith(_UNWINDERS):
            set_ip = set_ip or next(iter(_addresses(one, _SET_IP)), 0)
        elif one.file_name.startswith(_LIBCS):
            longjmps.update(address for name in _LONGJMPS for address in _addresses(one, name))
    return Leaving(set_ip, tuple(sorted(longjmps)[:_NLONGJMPS]))


def _addresses(one: MappedObject, name: str) -> list[int]:
    return [one.base + symbol.value for symbol in one.image.exported_by_name.get(name, ())]
