"""Extended states between CPUs that keep the same features in different places."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core.xstate import Component, OtherCpu, is_restorable, translate

AVX, WIDE = 2, 6
HERE = (Component(AVX, 576, 256), Component(WIDE, 832, 512))
THERE = (Component(WIDE, 640, 512), Component(AVX, 1152, 256), Component(9, 1408, 8))
HERE_NBYTES, THERE_NBYTES = 1344, 1416


def area(nbytes: int, *, present: int = 0, saved: int = 0x247, fill: bytes = b"") -> bytes:
    raw = bytearray(nbytes)
    raw[576 : 576 + len(fill)] = fill
    struct.pack_into("<II", raw, 24, 0x1F80, 0xFFFF)
    struct.pack_into("<QQ", raw, 464, saved, nbytes)
    struct.pack_into("<Q", raw, 512, present)
    return bytes(raw)


@given(fill=st.binary(min_size=768, max_size=768), present=st.sampled_from([0, 3, 7, 0x43, 0x47]))
def test_there_and_back(fill, present):
    """Every component that is present comes back as it was; those that are not are zero."""
    state = area(HERE_NBYTES, present=present, fill=fill)
    abroad = translate(state, HERE, THERE, area(THERE_NBYTES))
    assert is_restorable(abroad, area(THERE_NBYTES))
    back = translate(abroad, THERE, HERE, area(HERE_NBYTES))
    for component in HERE:
        start, end = component.offset, component.offset + component.nbytes
        wanted = state[start:end] if present >> component.number & 1 else bytes(end - start)
        assert back[start:end] == wanted
    assert back[:576] == state[:576]
    assert abroad[1152 : 1152 + 256] == (fill[:256] if present >> AVX & 1 else bytes(256))


def test_what_the_other_cpu_keeps_is_its_own():
    """The MXCSR mask and what the kernel says of its area are not taken over."""
    like = bytearray(area(THERE_NBYTES, saved=0x2E7))
    struct.pack_into("<I", like, 28, 0xFFBF)
    abroad = translate(area(HERE_NBYTES, present=3), HERE, THERE, bytes(like))
    assert abroad[28:32] == like[28:32]
    assert abroad[464:512] == like[464:512]


@pytest.mark.parametrize(
    ("here", "there"),
    [(HERE, THERE[:1]), ((), THERE), (HERE, (Component(AVX, 576, 128),)), (HERE, (Component(AVX, 1400, 256),))],
)
def test_what_cannot_be_translated(here, there):
    """A component that is present and unknown, of another size, or outside of the area is told, never passed over."""
    with pytest.raises(OtherCpu, match="component 2"):
        translate(area(HERE_NBYTES, present=7), here, there, area(THERE_NBYTES))


@given(st.binary(max_size=700), st.binary(max_size=700))
def test_any_bytes(state, like):
    """Whatever comes over the wire, the answer is a state or OtherCpu."""
    try:
        assert len(translate(state, HERE, THERE, like)) == len(like)
    except OtherCpu:
        return
