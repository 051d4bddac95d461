"""Pages by names that survive address space randomisation."""

from hypothesis import given
from hypothesis import strategies as st

from radium.core.mapping import parse_maps
from radium.core.pages import intersect, normalise, subtract
from radium.core.places import Place, addresses, bases, places

MAPS = """\
{main:x}000-{main:x}002 r-xp 00000000 08:01 10 /usr/bin/app
{main:x}100-{main:x}900 rw-p 00000000 00:00 0 [heap]
{low:x}000-{low:x}100 rw-p 00000000 00:00 0
{low:x}200-{low:x}240 r-xp 00000000 08:01 11 /usr/lib/libwork.so.1
{low:x}240-{low:x}250 rw-p 00040000 08:01 11 /usr/lib/libwork.so.1
{low:x}250-{low:x}260 rw-p 00000000 00:00 0
{low:x}300-{low:x}310 r--p 00000000 08:01 12 /opt/a/twice.so
{low:x}320-{low:x}330 r--p 00000000 08:01 13 /opt/b/twice.so
{low:x}400-{low:x}410 rw-s 00000000 00:05 14 /dev/shm/queue
{low:x}420-{low:x}430 rw-s 00000000 00:05 15 /dev/dri/card0
{low:x}500-{low:x}600 rw-p 00000000 00:00 0 [stack]
{low:x}700-{low:x}702 r-xp 00000000 00:00 0 [vdso]
"""


def process(main=0x55550, low=0x7F000):
    text = MAPS.format(main=main, low=low)
    return parse_maps("".join(_in_pages(line) for line in text.splitlines(keepends=True)).encode())


def _in_pages(line):
    """The addresses above are page numbers."""
    start, _, rest = line.partition("-")
    end, _, rest = rest.partition(" ")
    return f"{start}000-{end}000 {rest}"


def at(mappings, path, page=0):
    return next(m.start for m in mappings if m.path == path) + page * 4096


BEFORE, AFTER = process(), process(0x5A5A0, 0x7E123)
PAGES = st.lists(
    st.sampled_from(BEFORE).flatmap(
        lambda m: st.tuples(st.integers(m.start // 4096, m.end // 4096 - 1), st.integers(1, 64)).map(
            lambda run: (run[0] * 4096, min(run[0] * 4096 + run[1] * 4096, m.end))
        )
    ),
    max_size=12,
).map(normalise)


def test_names():
    """A library by its file, .bss by the library that it belongs to, the heap by itself, other memory by what lies above."""
    lib = at(BEFORE, "/usr/lib/libwork.so.1")
    touched = [(lib, lib + 8192), (lib + 0x50000, lib + 0x51000), (lib - 0x150000, lib - 0x14F000)]
    touched.append((at(BEFORE, "[heap]"), at(BEFORE, "[heap]", 1)))
    assert places(normalise(touched), BEFORE) == [
        Place("heap", 0, 4096),
        Place("libwork.so.1", -0x150000, 4096),
        Place("libwork.so.1", 0, 8192),
        Place("libwork.so.1", 0x50000, 4096),
    ]


def test_nothing_by_a_doubtful_name():
    """Two files of one name, devices and what the kernel maps name nothing."""
    assert set(bases(BEFORE)) == {"app", "heap", "libwork.so.1", "queue"}
    doubtful = [BEFORE[i][:2] for i, m in enumerate(BEFORE) if "twice" in m.path or "card0" in m.path or m.path == "[vdso]"]
    assert places(normalise(doubtful), BEFORE) == []


@given(PAGES)
def test_same_pages_again(runs):
    """What has a name is found again: here, and at the same place of each mapping where all lies elsewhere."""
    named = places(runs, BEFORE)
    found = addresses(named, BEFORE)
    assert subtract(found, runs) == []
    moved = addresses(named, AFTER)
    for old, new in zip(BEFORE, AFTER, strict=True):
        here = [(start - old.start, end - old.start) for start, end in intersect(found, [old[:2]])]
        assert here == [(start - new.start, end - new.start) for start, end in intersect(moved, [new[:2]])]


def test_what_is_not_there_is_left_out():
    """Places of libraries that are not mapped, before the first byte of memory, or on the stack have no address."""
    assert addresses([Place("gone.so", 0, 4096), Place("app", -(1 << 46), 4096), Place("stack", 0, 4096)], BEFORE) == []
