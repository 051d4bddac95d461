"""The CPUID instruction, which no library of Python's gives: a few bytes of code in a page of our own.

Sources: Intel SDM volume 2, CPUID (leaf 0xd: state components; their offsets and sizes do not depend on what is enabled).
"""

import ctypes
import mmap
from functools import cache

from radium.core.xstate import FIRST_COMPONENT, LAST_COMPONENT, Component

_CODE = bytes.fromhex(
    "53"        # push rbx
    "89f8"      # mov eax, edi
    "89f1"      # mov ecx, esi
    "4989d0"    # mov r8, rdx
    "0fa2"      # cpuid
    "418900"    # mov [r8], eax
    "41895804"  # mov [r8+4], ebx
    "41894808"  # mov [r8+8], ecx
    "4189500c"  # mov [r8+12], edx
    "5b"        # pop rbx
    "c3"        # ret
)  # fmt: skip
_STATE_COMPONENTS = 0xD


def cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """eax, ebx, ecx, edx. Raises OSError where no page may be executable."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page[: len(_CODE)] = _CODE
        anchor = ctypes.c_char.from_buffer(page)
        function = ctypes.CFUNCTYPE(None, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(ctypes.addressof(anchor))
        out = (ctypes.c_uint32 * 4)()
        function(leaf, subleaf, ctypes.addressof(out))
        del anchor
        return out[0], out[1], out[2], out[3]


@cache
def state_components() -> tuple[Component, ...]:
    """Where this CPU keeps what in an XSAVE area; empty where it cannot be asked: such a state fits equal CPUs only."""
    try:
        if cpuid(0, 0)[0] < _STATE_COMPONENTS:
            return ()
        asked = [(number, cpuid(_STATE_COMPONENTS, number)) for number in range(FIRST_COMPONENT, LAST_COMPONENT + 1)]
    except OSError:
        return ()
    # Bit 0 of ecx: a supervisor's component, which is in no area of a user's.
    return tuple(Component(n, offset, nbytes) for n, (nbytes, offset, ecx, _) in asked if nbytes and not ecx & 1)
