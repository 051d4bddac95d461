"""How a library that is loaded later is noticed: the dynamic linker calls `_dl_debug_state` when its list has changed.

Source: glibc, elf/dl-debug.c ("This function exists solely to have a breakpoint set on it by the debugger"), <link.h> r_brk.
"""

import os
from collections.abc import Mapping, Sequence

from radium.tracer.resolve import MappedObject

_AT_BASE = 7  # getauxval(3): where the dynamic linker is mapped
_NOTICE = "_dl_debug_state"


def loader_trap(objects: Sequence[MappedObject], auxiliary: Mapping[int, int]) -> list[int]:
    """The addresses to trap; empty for a static program or another dynamic linker than glibc's."""
    base = auxiliary.get(_AT_BASE, 0)
    for candidate in objects:
        is_loader = candidate.base == base or os.path.basename(candidate.path).startswith(("ld-", "ld."))
        if is_loader:
            return [candidate.base + s.value for s in candidate.image.exported_by_name.get(_NOTICE, ())][:1]
    return []
