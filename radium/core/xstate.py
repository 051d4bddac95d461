"""The extended state of a thread (x87, SSE, AVX and what else a CPU has) as ptrace gives it: a standard-format XSAVE area.

    0    legacy region, x87 and SSE: 512 bytes, the same everywhere; its last bytes say which components the kernel saves
    512  header: XSTATE_BV, which components are present; 56 zero bytes
    576  the other components, each where its CPU has it: the same feature may lie elsewhere on another CPU

Sources: Intel SDM volume 1, 10.2.3 (an MXCSR mask of 0 means 0xffbf), 13.1 to 13.4; struct _fpx_sw_bytes in
arch/x86/include/uapi/asm/sigcontext.h; validate_user_xstate_header in arch/x86/kernel/fpu/xstate.c.
"""

import struct
from collections.abc import Sequence

import msgspec

LEGACY_NBYTES, HEADER_NBYTES = 512, 64
# The first component that lies behind the header; 0 and 1, x87 and SSE, are in the legacy region.
FIRST_COMPONENT, LAST_COMPONENT = 2, 62
_MXCSR = struct.Struct("<24xII")
_COMPONENTS_SAVED = struct.Struct("<464xQ")
_PRESENT = struct.Struct("<512xQ56s")
_DEFAULT_MXCSR_MASK = 0xFFBF


class Component(msgspec.Struct, array_like=True, frozen=True):
    """Where a CPU has the component `number` of its XSAVE areas (CPUID, leaf 0xd)."""

    number: int
    offset: int
    nbytes: int


class OtherCpu(Exception):
    """A state that a CPU with the other components cannot have; the text names the component."""


def is_restorable(state: bytes, like: bytes) -> bool:
    """Whether the kernel will take this extended state for a thread whose own was `like`."""
    if len(state) != len(like):
        return False
    if len(like) < _PRESENT.size:
        return True
    (mxcsr, _), (_, mxcsr_mask) = _MXCSR.unpack_from(state), _MXCSR.unpack_from(like)
    present, zeros = _PRESENT.unpack_from(state)
    saved = _COMPONENTS_SAVED.unpack_from(like)[0]
    return not mxcsr & ~(mxcsr_mask or _DEFAULT_MXCSR_MASK) and not present & ~saved and not any(zeros)


def translate(state: bytes, here: Sequence[Component], there: Sequence[Component], like: bytes) -> bytes:
    """The same state as a CPU with the components of `there` has it, in an area such as its own `like`.

    Raises OtherCpu when a component that is present in `state` is unknown, or of another size, on either side.
    """
    if len(state) < _PRESENT.size or len(like) < _PRESENT.size:
        raise OtherCpu("one of the CPUs has no XSAVE")
    out = bytearray(like)
    out[:LEGACY_NBYTES] = state[:LEGACY_NBYTES]
    saved = _COMPONENTS_SAVED.size - 8
    out[saved:LEGACY_NBYTES] = like[saved:LEGACY_NBYTES]
    out[28:32] = like[28:32]  # the MXCSR mask is the CPU's
    out[LEGACY_NBYTES : LEGACY_NBYTES + HEADER_NBYTES] = state[LEGACY_NBYTES : LEGACY_NBYTES + HEADER_NBYTES]
    out[LEGACY_NBYTES + HEADER_NBYTES :] = bytes(len(like) - LEGACY_NBYTES - HEADER_NBYTES)
    present = _PRESENT.unpack_from(state)[0]
    ours, theirs = ({c.number: c for c in components} for components in (here, there))
    for number in range(FIRST_COMPONENT, LAST_COMPONENT + 1):
        if present >> number & 1:
            _copy(state, ours.get(number), out, theirs.get(number), number)
    return bytes(out)


def _copy(state: bytes, source: Component | None, out: bytearray, target: Component | None, number: int) -> None:
    if source is None or target is None or source.nbytes != target.nbytes:
        raise OtherCpu(f"component {number} of the extended state")
    if source.offset + source.nbytes > len(state) or target.offset + target.nbytes > len(out):
        raise OtherCpu(f"component {number} of the extended state, which lies outside of it")
    out[target.offset : target.offset + target.nbytes] = state[source.offset : source.offset + source.nbytes]
