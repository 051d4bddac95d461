"""What calls touched and wrote before, and what that says of the next one."""

from radium.core.addr import PAGE_SIZE
from radium.core.mapping import parse_maps
from radium.core.places import Place
from radium.tracer.working_set import RELEARN, Results, WorkingSet

OPERANDS, RESULT, OTHER = (0x10000, 0x30000), (0x40000, 0x60000), (0x80000, 0xA0000)


def test_stack_pages_move_with_the_stack():
    """Pages of the stack are wanted where the next call's stack pointer is, all others where they are."""
    learned = WorkingSet()
    learned.learn(0x7000000 - PAGE_SIZE, 0x7000000, relative_to=0x7000010)
    learned.learn(*OPERANDS, relative_to=None)
    assert learned.predict(0x8000010) == [OPERANDS, (0x8000000 - PAGE_SIZE, 0x8000000 + 2 * PAGE_SIZE)]


def test_results_that_are_always_written():
    """What a call wrote of the pages that its profile names is expected from then on, and looked at again now and then."""
    results, named = Results(), [OPERANDS, RESULT]
    assert results.expect(named) == []
    results.learn(named, [], [RESULT, OTHER])
    expected = [results.expect(named) for _ in range(2 * RELEARN)]
    assert expected.count([RESULT]) == 2 * RELEARN - 2 and expected.count([]) == 2


def test_what_is_expected_teaches_nothing():
    """A page that counted as written may not have been: only calls in which it did not count tell."""
    results = Results()
    results.learn([RESULT], [], [RESULT])
    results.learn([RESULT], [RESULT], [])
    assert results.expect([RESULT]) == [RESULT]
    results.learn([RESULT], [], [])
    assert results.expect([RESULT]) == []


def test_other_buffers():
    """Results in other places are learned beside each other, and a call without named pages says nothing of them."""
    results = Results()
    for named in (RESULT, OTHER):
        results.learn([named], [], [named])
    results.learn([], [], [])
    assert results.expect([RESULT]) == [RESULT] and results.expect([OTHER]) == [OTHER] and results.expect([OPERANDS]) == []


def test_a_later_run_begins_with_what_was_learned():
    """Told by places, where the stack and all else are elsewhere; nothing else is predicted."""
    before = parse_maps(b"10000-60000 rw-p 00000000 08:01 7 /lib/libwork.so\n")
    after = parse_maps(b"7710000-7760000 rw-p 00000000 08:01 7 /lib/libwork.so\n")
    learned, told = WorkingSet(), WorkingSet()
    learned.learn(*OPERANDS, relative_to=None)
    learned.learn(0x7000000 - PAGE_SIZE, 0x7000000, relative_to=0x7000010)
    places = learned.places(before)
    assert places == [Place("libwork.so", 0, 0x20000), Place("stack", -PAGE_SIZE, PAGE_SIZE)]
    told.expect(places, after)
    assert told.predict(0x8000010) == [(0x7710000, 0x7730000), (0x8000000 - PAGE_SIZE, 0x8000000 + 2 * PAGE_SIZE)]
