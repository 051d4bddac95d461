"""Layouts: read, compared, changed, and what a hostile journal must not get past."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from radium.core.addr import PAGE_SIZE, USER_END
from radium.core.mapping import (
    ADVICE_WITHOUT_EFFECT,
    ANONYMOUS,
    MADV_DONTNEED,
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_FIXED_NOREPLACE,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_SHARED,
    RESERVED,
    SHARED,
    STACK,
    Area,
    Layout,
    LayoutCall,
    LayoutDelta,
    clip,
    covered,
    difference,
    layout_of,
    parse_maps,
    replay,
    touched_by,
)  # fmt: skip
from radium.core.pages import intersect
from radium.errors import Conflict
from radium.replay.mirror import apply_delta

U64 = 1 << 64
BASE = 0x10000000
NPAGES = 24
PLAIN = MAP_PRIVATE | MAP_ANONYMOUS


def at(page: int) -> int:
    return BASE + page * PAGE_SIZE


# /proc/PID/maps


@pytest.mark.parametrize(
    "path",
    [
        "", "[heap]", "/usr/lib/libc.so.6", "/a path/with  spaces.so", "/line\\012break", "/gone (deleted)",
        "/a\u2028b\u2029c\x85d", "/tab\tand\x0bmore\x1c", "[anon:name with spaces]", "/memfd:x (deleted)", "/trailing ",
    ],
)  # fmt: skip
def test_parse_one_line(path):
    """A line of maps is read field by field, whatever its path holds."""
    line = f"7f0000001000-7f0000003000 r-xp 0001a000 fe:01 4711                       {path}".rstrip("\n")
    text = f"{line if path else line.rstrip()}\n400000-401000 rw-s 00000000 00:00 0 \n".encode()
    first, second = parse_maps(text)
    assert first == (0x7F0000001000, 0x7F0000003000, 5, False, 0x1A000, "fe:01", 4711, path)
    assert second == (0x400000, 0x401000, 3, True, 0, "00:00", 0, "")


def test_parse_bytes_that_are_no_text():
    """A path that is not UTF-8 is read, and can be told from others."""
    a, b = (parse_maps(b"1000-2000 r--p 00000000 00:00 1   /" + name + b"\n")[0].path for name in (b"\xff", b"\xfe"))
    assert a != b


def test_parse_nothing():
    """A process without mappings has none."""
    assert parse_maps(b"") == []


def test_parse_own_maps():
    """All of a living process's maps is read, in order."""
    with open("/proc/self/maps", "rb") as file:
        text = file.read()
    mappings = parse_maps(text)
    assert len(mappings) == text.count(b"\n") and mappings == sorted(mappings)
    assert any(m.path == "[stack]" for m in mappings)


def test_layout_leaves_out_the_kernels_own():
    """vdso, vvar and vsyscall are no part of a layout; reserved mappings are, without contents."""
    text = b"""\
400000-401000 r-xp 00000000 fe:01 7   /bin/x
401000-402000 rw-p 00000000 00:00 0
402000-403000 rw-p 00000000 00:00 0
500000-501000 rwxp 00000000 00:00 0
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0   [stack]
7ffd00030000-7ffd00034000 r--p 00000000 00:00 0   [vvar]
7ffd00034000-7ffd00036000 r-xp 00000000 00:00 0   [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0   [vsyscall]
"""
    layout = layout_of(parse_maps(text), [(0x500000, 0x501000)])
    assert [(a.start, a.end, a.prot, a.kind) for a in layout] == [
        (0x400000, 0x401000, 5, 0),
        (0x401000, 0x403000, 3, ANONYMOUS),
        (0x500000, 0x501000, 0, RESERVED),
        (0x7FFD00000000, 0x7FFD00021000, 3, ANONYMOUS | STACK),
    ]


def test_a_line_of_maps_that_is_ours_in_part():
    """Where the kernel has merged radium's own mapping with the program's, the program's part is the program's."""
    text = b"400000-406000 rw-p 00000000 00:00 0\n"
    layout = layout_of(parse_maps(text), [(0x401000, 0x402000), (0x404000, 0x405000)])
    assert [(a.start, a.end, a.kind) for a in layout] == [
        (0x400000, 0x401000, ANONYMOUS), (0x401000, 0x402000, RESERVED), (0x402000, 0x404000, ANONYMOUS),
        (0x404000, 0x405000, RESERVED), (0x405000, 0x406000, ANONYMOUS),
    ]  # fmt: skip


# Differences of layouts, against a model: what each page is

identities = st.sampled_from([(3, ANONYMOUS, ""), (1, ANONYMOUS, ""), (5, 0, "a"), (1, 0, "a"), (3, SHARED, "b"), (0, RESERVED, "")])
Model = dict[int, tuple[int, int, str]]
models = st.dictionaries(st.integers(0, NPAGES - 1), identities)


def layout_from(model: Model) -> Layout:
    out: Layout = []
    for page in sorted(model):
        if out and out[-1].end == at(page) and out[-1][2:] == model[page]:
            out[-1] = out[-1]._replace(end=at(page + 1))
        else:
            out.append(Area(at(page), at(page + 1), *model[page]))
    return out


def model_from(layout: Layout) -> Model:
    return {(page - BASE) // PAGE_SIZE: a[2:] for a in layout for page in range(a.start, a.end, PAGE_SIZE)}


@given(models, models)
def test_difference_turns_one_layout_into_another(old, new):
    """Applying a difference gives the new layout, page by page; equal layouts have none."""
    delta = difference(layout_from(old), layout_from(new))
    assert model_from(apply_delta(layout_from(old), delta)) == new
    assert bool(delta) == (old != new)


@given(models, models)
def test_difference_is_exact(old, new):
    """Pages are unmapped when their identity changed, protected when only their protection did, and mapped when they are new."""
    delta = difference(layout_from(old), layout_from(new))
    kept = {page for page in old.keys() & new.keys() if old[page][1:] == new[page][1:]}
    unmapped = {(page - BASE) // PAGE_SIZE for start, end in delta.unmap for page in range(start, end, PAGE_SIZE)}
    assert unmapped == old.keys() - kept
    assert model_from(delta.map) == {page: new[page] for page in new.keys() - kept}
    assert model_from(delta.protect) == {page: new[page] for page in kept if old[page] != new[page]}


@given(models, st.integers(0, NPAGES), st.integers(0, NPAGES))
def test_clip(model, first, last):
    """Clipping keeps exactly the pages inside."""
    clipped = clip(layout_from(model), at(first), at(last))
    assert model_from(clipped) == {page: what for page, what in model.items() if first <= page < last}


def test_no_difference_is_false():
    """An empty delta is false: nothing has to be done."""
    assert not LayoutDelta()


# Journals


def call(name: str, *arguments: int, result: int = 0) -> LayoutCall:
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    return LayoutCall(name, padded, result)  # type: ignore[arg-type]


def mmap(start: int, nbytes: int, prot: int = 3, flags: int = PLAIN) -> LayoutCall:
    return call("mmap", 0, nbytes, prot, flags, U64 - 1, 0, result=start)


plain_models = st.dictionaries(st.integers(0, NPAGES - 1), st.sampled_from([(3, ANONYMOUS, ""), (1, ANONYMOUS, "")]))
steps = st.tuples(
    st.sampled_from(["mmap", "fixed", "munmap", "mprotect", "madvise", "mremap"]),
    st.integers(0, NPAGES - 1), st.integers(1, 5), st.integers(0, NPAGES - 1), st.integers(1, 5), st.sampled_from([0, 1, 3]),
)  # fmt: skip


def model_step(model: Model, step: tuple[str, int, int, int, int, int]) -> tuple[LayoutCall, Model | None]:
    """The call, and the model after it: None where the kernel, or radium, says no."""
    name, first, npages, to, to_npages, prot = step
    old, new = range(first, first + npages), range(to, to + to_npages)
    kept = {page: what for page, what in model.items() if page not in old}
    mapped = all(page in model for page in old)
    nbytes = npages * PAGE_SIZE
    if name == "mmap":
        made = call("mmap", 0, nbytes, prot, PLAIN, result=at(first))
        return made, None if any(page in model for page in old) else {**model, **dict.fromkeys(old, (prot, ANONYMOUS, ""))}
    if name == "fixed":
        made = call("mmap", at(first), nbytes, prot, PLAIN | MAP_FIXED, result=at(first))
        return made, {**kept, **dict.fromkeys(old, (prot, ANONYMOUS, ""))}
    if name == "munmap":
        return call("munmap", at(first), nbytes), kept
    if name == "mprotect":
        made = call("mprotect", at(first), nbytes, prot)
        return made, {**model, **{page: (prot, *model[page][1:]) for page in old}} if mapped else None
    if name == "madvise":
        return call("madvise", at(first), nbytes, MADV_DONTNEED), model if mapped else None
    made = call("mremap", at(first), nbytes, to_npages * PAGE_SIZE, 1, result=at(to))
    one = mapped and len({model[page] for page in old}) == 1
    overlaps = to != first and set(old) & set(new)
    if not one or overlaps or any(page in kept for page in new):
        return made, None
    return made, {**kept, **dict.fromkeys(new, model[first])}


@given(plain_models, st.lists(steps, max_size=8))
def test_replay_against_a_model(model, sequence):
    """A journal does to the layout what the calls do to pages, and Conflict is raised exactly where one cannot be made."""
    layout = layout_from(model)
    for step in sequence:
        made, after = model_step(model, step)
        if after is None:
            with pytest.raises(Conflict):
                replay(layout, 0, [made])
            continue
        layout, _ = replay(layout, 0, [made])
        model = after
        assert model_from(layout) == model and layout == sorted(layout)


@given(plain_models, st.lists(steps, max_size=5))
def test_what_a_call_does_not_touch_stays(model, sequence):
    """Outside of the ranges that `touched_by` tells, a journal changes nothing."""
    layout = layout_from(model)
    for step in sequence:
        made, after = model_step(model, step)
        if after is None:
            continue
        touched = {(page - BASE) // PAGE_SIZE for run in touched_by(made) for page in range(*run, PAGE_SIZE)}
        changed = {page for page in model.keys() | after.keys() if model.get(page) != after.get(page)}
        assert changed <= touched
        layout, _ = replay(layout, 0, [made])
        model = after


def test_brk_grows_and_shrinks():
    """brk moves the end of the heap by whole pages, and within a page changes no layout."""
    layout, brk = replay([], at(0), [call("brk", at(2), result=at(2))])
    assert covered(layout) == [(at(0), at(2))]
    layout, brk = replay(layout, brk, [call("brk", at(1) + 8, result=at(1) + 8)])
    assert covered(layout) == [(at(0), at(2))] and brk == at(1) + 8
    layout, brk = replay(layout, brk, [call("brk", at(1), result=at(1))])
    assert covered(layout) == [(at(0), at(1))] and brk == at(1)
    assert touched_by(call("brk", result=at(3)), at(1)) == [(at(1), at(3))]


HOME = [
    Area(at(0), at(4), 3, ANONYMOUS),
    Area(at(4), at(6), 0, RESERVED),
    Area(at(6), at(8), 1, SHARED, "f"),
    Area(at(8), at(10), 5, 0, "g"),
]
PAGE = PAGE_SIZE


@pytest.mark.parametrize(
    "hostile",
    [
        mmap(USER_END, PAGE), mmap(USER_END - PAGE, 2 * PAGE), mmap(-(1 << 20), PAGE), mmap(0, PAGE), mmap(at(20) + 1, PAGE),
        mmap(0xFFFFFFFF81000000, PAGE), mmap(at(20), 0), mmap(at(20), U64 - 1), mmap(at(20), U64 - PAGE), mmap(at(20), -PAGE),
        mmap(at(3), 2 * PAGE), mmap(at(4), PAGE), mmap(at(4), PAGE, flags=PLAIN | MAP_FIXED),
        mmap(at(3), 3 * PAGE, flags=PLAIN | MAP_FIXED), mmap(at(3), PAGE, flags=PLAIN | MAP_FIXED | MAP_FIXED_NOREPLACE),
        mmap(at(20), PAGE, flags=MAP_PRIVATE), mmap(at(20), PAGE, flags=MAP_SHARED | MAP_ANONYMOUS),
        mmap(at(20), PAGE, flags=PLAIN | MAP_SHARED), mmap(at(20), PAGE, flags=PLAIN | MAP_GROWSDOWN),
        mmap(at(20), PAGE, flags=PLAIN | 0x40000), mmap(at(20), PAGE, flags=-1), mmap(at(20), PAGE, prot=0x01000003),
        mmap(at(20), PAGE, prot=-1),
        call("munmap", at(4), PAGE), call("munmap", at(0), 20 * PAGE), call("munmap", at(0) + 1, PAGE), call("munmap", at(0), 0),
        call("munmap", 0, U64 - 1), call("munmap", USER_END, PAGE), call("munmap", at(0), U64 - PAGE), call("munmap", -PAGE, PAGE),
        call("mprotect", at(0), 5 * PAGE, 1), call("mprotect", at(4), PAGE, 3), call("mprotect", at(20), PAGE, 3),
        call("mprotect", at(0), PAGE, 0x02000001), call("mprotect", at(0), PAGE, -1), call("mprotect", at(6), PAGE, 3),
        call("madvise", at(20), PAGE, MADV_DONTNEED), call("madvise", at(4), PAGE, MADV_DONTNEED),
        call("madvise", at(6), PAGE, MADV_DONTNEED), call("madvise", at(8), PAGE, MADV_DONTNEED),
        call("madvise", at(6), PAGE, 9), call("madvise", at(0), PAGE, 100), call("madvise", at(0), PAGE, 10),
        call("mremap", at(4), PAGE, PAGE, 1, result=at(20)), call("mremap", at(0), PAGE, 5 * PAGE, 1, result=at(0)),
        call("mremap", at(0), PAGE, PAGE, 1, result=at(4)), call("mremap", at(0), PAGE, PAGE, 1, result=USER_END),
        call("mremap", at(0), PAGE, U64 - 1, 1, result=at(20)), call("mremap", at(0), 0, PAGE, 1, result=at(20)),
        call("mremap", at(1), 0, PAGE, 1, result=at(20)), call("mremap", at(0) + 1, PAGE, PAGE, 1, result=at(20)),
        call("mremap", at(0), 2 * PAGE, 2 * PAGE, 1, result=at(1)), call("mremap", at(6), PAGE, PAGE, 1, result=at(20)),
        call("mremap", at(8), PAGE, PAGE, 1, result=at(20)), call("mremap", at(3), 2 * PAGE, PAGE, 1, result=at(20)),
        call("mremap", at(0), PAGE, 0, 1, result=at(20)), call("mremap", U64 - PAGE, 2 * PAGE, PAGE, 1, result=at(20)),
        call("brk", result=0), call("brk", result=-1), call("brk", result=USER_END + 1), call("brk", result=U64 - 1),
        call("brk", result=at(11)), call("brk", result=at(2) + (1 << 41)),
        call("execve", at(0), PAGE), call("", at(0), PAGE), call("munmap\0", at(0), PAGE),
    ],
)  # fmt: skip
def test_hostile_journals(hostile):
    """What cannot be repeated in the tracee, or would reach beyond its own private memory, is a Conflict."""
    with pytest.raises(Conflict):
        replay(HOME, at(2), [hostile])


words = st.one_of(
    st.integers(-(1 << 63), U64 - 1), st.integers(0, 24).map(at), st.integers(0, 9).map(lambda n: n * PAGE),
    st.sampled_from([0, 1, PLAIN, PLAIN | MAP_FIXED, MADV_DONTNEED, USER_END, U64 - PAGE, U64 - 1]),
)  # fmt: skip
any_call = st.builds(
    LayoutCall,
    st.sampled_from(["mmap", "munmap", "mprotect", "brk", "mremap", "madvise", "open"]),
    st.tuples(words, words, words, words, words, words),
    words,
)


@given(st.lists(any_call, max_size=4))
def test_any_journal_is_taken_or_refused(journal):
    """Whatever a journal says, it is a Conflict, or the layout after it is sound and radium's own memory is untouched."""
    try:
        after, brk = replay(HOME, at(2), journal)
    except Conflict:
        return
    assert all(0 < a.start < a.end <= USER_END and (a.start | a.end) % PAGE == 0 for a in after)
    assert all(a.end <= b.start for a, b in pairwise(after))
    assert [a for a in after if a.kind & RESERVED] == [HOME[1]]
    assert not any(intersect(touched_by(c), [(at(4), at(6))]) for c in journal if c.name != "brk")
    assert 0 < brk <= USER_END


def test_advice_without_effect_drops_nothing():
    """No advice that drops pages counts as harmless."""
    assert not ADVICE_WITHOUT_EFFECT & {4, 8, 9, 10, 11, 18, 19, 24, 100, 101}
