"""What radium has changed in the tracee's memory is hidden from mirrors, and kept when pages come home."""

import random

from hypothesis import given
from hypothesis import strategies as st

from radium.tracer.patches import Patches

PAGE = 0x1000
PLACES = st.dictionaries(st.integers(0, 4 * 512 - 1).map(lambda word: 0x10000 + 8 * word), st.integers(1, 255), max_size=20)


def put_all(places, memory):
    """The patches, and `memory` with what is ours in it."""
    patches, ours = Patches(), bytearray(memory)
    for address, byte in places.items():
        at = address - 0x10000
        patches.put(address, bytes([byte]) * 8, bytes(memory[at : at + 8]))
        ours[at : at + 8] = bytes([byte]) * 8
    return patches, ours


@given(PLACES)
def test_hidden_and_kept(places):
    """Reading gives the program's own bytes, and writing them back leaves ours: nothing is new then."""
    memory = bytes(range(256)) * (4 * PAGE // 256)
    patches, ours = put_all(places, memory)
    seen = bytearray(ours)
    patches.hide(0x10000, memoryview(seen))
    assert seen == memory
    assert not patches.keep_in([(0x10000, 0x14000)], memoryview(seen))
    assert seen == ours


@given(PLACES, st.integers(0, 1 << 32))
def test_what_comes_home_is_remembered(places, seed):
    """A page that a call has written is as the call wrote it, for whoever reads it later."""
    page = random.Random(seed).randbytes(PAGE)
    patches, _ = put_all(places, bytes(4 * PAGE))
    data = bytearray(page)
    patches.keep_in([(0x11000, 0x12000)], memoryview(data))
    within = [address for address in places if 0x11000 <= address < 0x12000]
    assert all(data[a - 0x11000 : a - 0x11000 + 8] == bytes([places[a]]) * 8 for a in within)
    assert patches.touches([(0x11000, 0x12000)]) == bool(within)
    patches.hide(0x11000, memoryview(data))
    assert data == page


def test_removed():
    """What has been taken out is not hidden any more."""
    patches, _ = put_all({0x10008: 1, 0x10010: 2}, bytes(PAGE))
    patches.remove([0x10008, 0x20000])
    data = bytearray(b"\1" * 64)
    patches.hide(0x10000, memoryview(data))
    assert data == b"\1" * 16 + bytes(8) + b"\1" * 40
    child = patches.copy()
    child.remove([0x10010])
    assert patches.touches([(0x10000, 0x11000)]) and not child.touches([(0x10000, 0x11000)])
