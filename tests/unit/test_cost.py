"""The cost model in simulated worlds: what it promises holds whatever calls cost on the two sides."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radium.tracer.cost import LEARNING, Cost, Link, Way, has_changed, through, typical


@dataclass
class World:
    """Calls of one split. home, mirror: seconds of a call of that size; a round trip and a byte on the link."""

    home: Callable[[float], float]
    mirror: Callable[[float], float]
    nbytes: Callable[[float], float] = lambda size: 8 * size
    round_trip_s: float = 300e-6
    byte_s: float = 1e-9
    noise: float = 0.0
    seed: int = 1
    cost: Cost = field(default_factory=Cost)
    link: Link = field(default_factory=Link)
    now: float = 0.0
    all_home_s: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def _noisy(self, seconds: float) -> float:
        return seconds * self.random.lognormvariate(0.0, self.noise)

    def call(self, size: float) -> bool:
        """One call where the model sends it; whether that was away. all_home_s grows by what it would have taken at home."""
        home_s = self._noisy(self.home(size))
        decision = self.cost.decide(size, self.now, self.link)
        self.all_home_s += home_s
        if not decision.is_away:
            self.now += home_s
            if decision.is_timed:
                self.cost.note_home(size, home_s)
            return False
        mirror_s = self._noisy(self.mirror(size))
        way_s = self._noisy(self.round_trip_s + self.byte_s * self.nbytes(size))
        self.now += mirror_s + way_s
        self.cost.note_away(size, mirror_s + way_s, mirror_s, Way(way_s, 1, self.nbytes(size)), 0, self.link)
        return True

    def calls(self, count: int, *sizes: float) -> float:
        """How many of those calls, as a share, were away; of random sizes."""
        return sum(self.call(self.random.choice(sizes)) for _ in range(count)) / count

    def lost(self, count: int, *sizes: float) -> float:
        """By what share those calls took longer than all at home would have."""
        began, at_home = self.now, self.all_home_s
        self.calls(count, *sizes)
        return (self.now - began) / (self.all_home_s - at_home) - 1


SIZES = [2.0**n for n in range(2, 20, 2)]


@settings(deadline=None, max_examples=40)
@given(
    local=st.floats(1e-7, 1.0), ratio=st.floats(0.05, 1000), power=st.floats(0.0, 3.0), noise=st.floats(0.0, 0.5),
    several=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
def test_never_much_worse_than_home(local, ratio, power, noise, several, seed):
    """From call 21 on, all calls together take at most 5 % longer than at home, whatever the other side costs."""
    world = World(
        lambda size: local * size**power / 2**10, lambda size: ratio * local * size**power / 2**10, noise=noise, seed=seed
    )
    sizes = SIZES if several else [16.0]
    world.calls(LEARNING, *sizes)
    assert world.lost(6000, *sizes) < 0.05


@settings(deadline=None, max_examples=40)
@given(ratio=st.floats(0.1, 0.5), local=st.floats(0.005, 1.0), noise=st.floats(0.0, 0.3), seed=st.integers(0, 1000))
def test_finds_the_better_side(ratio, local, noise, seed):
    """A side that is clearly better gets nearly all calls."""
    wins = World(lambda size: local, lambda size: ratio * local, noise=noise, seed=seed, round_trip_s=0.1 * local)
    loses = World(lambda size: ratio * local, lambda size: local, noise=noise, seed=seed)
    wins.calls(100, 64.0), loses.calls(100, 64.0)
    assert wins.calls(1000, 64.0) > 0.9
    assert loses.calls(1000, 64.0) < 0.05


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_follows_the_link(noise):
    """A link that becomes slow brings calls home; one that becomes fast again sends them out, both ways again and again."""
    world = World(lambda size: 0.01, lambda size: 0.001, noise=noise)
    world.calls(200, 64.0)
    for _ in range(3):
        assert world.calls(500, 64.0) > 0.9
        world.round_trip_s = 0.05
        world.calls(200, 64.0)
        assert world.calls(500, 64.0) < 0.1
        world.round_trip_s = 300e-6
        world.calls(4000, 64.0)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_follows_the_load_at_home(noise):
    """When home becomes busy calls leave, and when it is idle again they come back."""
    busy = 1.0
    world = World(lambda size: busy * 0.01, lambda size: 0.02, noise=noise)
    world.calls(200, 64.0)
    assert world.calls(500, 64.0) < 0.05
    busy = 5.0
    world.calls(1500, 64.0)
    assert world.calls(500, 64.0) > 0.85
    busy = 1.0
    world.calls(1500, 64.0)
    assert world.calls(500, 64.0) < 0.1


def test_a_changed_link_is_known_to_all_sizes():
    """What calls of one size tell of the link changes what is expected of others that have not been away since."""
    world = World(lambda size: 1e-6 * size**1.5, lambda size: 1e-7 * size**1.5)
    world.calls(400, *SIZES)
    small = world.cost.classes[2]
    before = world.cost.away_s(small, world.link)
    world.round_trip_s = 0.01
    world.calls(20, SIZES[-1])
    assert world.cost.away_s(small, world.link) > 5 * before


@settings(deadline=None, max_examples=40)
@given(noise=st.floats(0.0, 0.25), seed=st.integers(0, 1000), at=st.floats(4.0, 16.0))
def test_break_even_within_a_factor_of_two(noise, seed, at):
    """Where winning begins with size, it is found between sizes that were seen, through noise, within a factor of two."""
    size = 2.0**at
    # Equal at that size: home = mirror + way, with the mirror four times as fast.
    factor = (300e-6 + 8 * size * 1e-9) / (0.75 * size**2)
    world = World(lambda size: factor * size**2, lambda size: factor * size**2 / 4, noise=noise, seed=seed)
    world.calls(3000, *[2.0 ** (n / 2) for n in range(2, 38)])
    found = world.cost.break_even(world.link)
    assert found is not None
    assert size / 2 <= found <= 2 * size


def test_break_even_beyond_what_was_seen():
    """When all that was seen loses, times and bytes go on as they grew so far."""
    factor = (300e-6 + 8 * 4096 * 1e-9) / (0.75 * 4096**2)
    world = World(lambda size: factor * size**2, lambda size: factor * size**2 / 4)
    world.calls(2000, 64.0, 256.0, 1024.0)
    found = world.cost.break_even(world.link)
    assert found is not None
    assert 2048 <= found <= 8192


def test_never_wins():
    """A side that is never better has no break-even."""
    world = World(lambda size: 1e-6 * size, lambda size: 2e-6 * size)
    world.calls(1000, *SIZES)
    assert world.cost.break_even(world.link) is None


def test_calls_that_fail_away_stay_home():
    """What never comes back with a result is not tried on and on."""
    cost, link = Cost(), Link()
    away = 0
    for number in range(2000):
        decision = cost.decide(1.0, number * 0.001, link)
        away += decision.is_away
        if decision.is_away:
            cost.note_failed(1.0, 0.005, link)
        elif decision.is_timed:
            cost.note_home(1.0, 0.001)
    assert away < LEARNING
    assert cost.report("", link).speed is None


def test_mirrors_of_calls_that_fail_are_no_measure():
    """A class of which one call came home and others failed has the speed of that one."""
    cost, link = Cost(), Link()
    cost.note_home(1.0, 0.004)
    cost.note_failed(1.0, 0.005, link)
    cost.note_failed(1.0, 0.005, link)
    cost.note_away(1.0, 0.002, 0.001, Way(0.001, 1, 100), 0, link)
    assert cost.speed == pytest.approx(4.0)


def test_calls_that_chat_stay_home():
    """Calls that go home again and again for less than they compute leave no more."""
    cost, link = Cost(), Link()
    for _ in range(16):
        cost.note_leg(0.001, 0.0001, is_trip=True)
    assert cost.chats
    assert not cost.decide(1.0, 5.0, link).is_away
    assert not cost.decide(1.0, 5.05, link).is_away


def test_calls_that_chatted_once_leave_again():
    """As the first of many does, which reads files; those that chat again stay for longer."""
    cost, link = Cost(), Link()
    quiet_s = []
    for _ in range(3):
        for _ in range(16):
            cost.note_leg(0.001, 0.0001, is_trip=True)
        assert cost.chats
        began = now = 10.0
        while not (decision := cost.decide(1.0, now, link)).is_away and now < 20:
            now += 0.01
            if decision.is_timed:
                cost.note_home(1.0, 0.01)
        quiet_s.append(now - began)
    assert quiet_s[0] < quiet_s[1] < 1


def test_calls_that_cannot_be_timed_stay_home():
    """Nothing is known of home, so nothing says that away is better."""
    cost, link = Cost(), Link()
    cost.can_time = False
    for number in range(100):
        if cost.decide(1.0, number, link).is_away:
            cost.note_away(1.0, 0.001, 0.0001, Way(0.0009, 1, 100), 0, link)
    assert not any(cost.decide(1.0, 100.0 + number, link).is_away for number in range(100))


def test_first_calls_with_their_page_ins_count_no_more():
    """Pages that later calls bring along are no reason to stay at home."""
    cost, link = Cost(), Link()
    of_size = cost._class(1.0)
    cost.note_away(1.0, 0.5, 0.01, Way(0.49, 100, 1e6), 400, link)
    cost.note_away(1.0, 0.02, 0.01, Way(0.01, 1, 1e5), 0, link)
    assert cost.away_s(of_size, link) == 0.02


@given(round_trip_s=st.floats(2e-5, 0.1), bandwidth=st.floats(1e6, 1e10), seed=st.integers(0, 100))
def test_link_is_found_from_calls(round_trip_s, bandwidth, seed):
    """A round trip and a bandwidth that explain what calls of several sizes took."""
    link, sizes = Link(), random.Random(seed)
    for _ in range(32):
        trips, nbytes = sizes.randrange(1, 4), 10 ** sizes.uniform(3, 8)
        link.note(Way(trips * round_trip_s + nbytes / bandwidth, trips, nbytes), None)
    for trips, nbytes in ((1, 1e4), (2, 1e6), (1, 5e7)):
        assert link.way_s(trips, nbytes) == pytest.approx(trips * round_trip_s + nbytes / bandwidth, rel=0.1)


@given(st.lists(st.floats(1e-9, 1e6), min_size=1, max_size=8))
def test_typical_is_between(values):
    """It is none that was not seen, nearly: within the rounding of a mean."""
    assert min(values) * (1 - 1e-9) <= typical(values) <= max(values) * (1 + 1e-9)


def test_one_odd_time_is_no_change():
    """Two in a row are."""
    assert not has_changed([1, 1.1, 0.9, 1, 9])
    assert has_changed([1, 1.1, 0.9, 1, 9, 8])
    assert has_changed([1, 1.1, 0.9, 1, 0.2, 0.1])
    assert not has_changed([1, 9])


@given(points=st.lists(st.tuples(st.floats(0, 1e300), st.floats(0, 1e300)), min_size=1, max_size=5), size=st.floats(0, 1e300))
def test_a_line_through_anything_is_a_number(points, size):
    """No points and no size make it fail."""
    assert math.isfinite(through(points, size))


seconds = st.floats(0, 1e4)
steps = st.lists(
    st.tuples(
        st.sampled_from(["decide", "home", "away", "failed", "once", "leg", "rest", "untimed"]), st.floats(0, 2.0**62), seconds, seconds
    ),
    max_size=60,
)  # fmt: skip


@given(steps)
def test_nothing_that_calls_tell_makes_it_fail(told):
    """Whatever was measured, it decides and reports."""
    cost, link, now = Cost(), Link(), 0.0
    for what, size, one, other in told:
        now += one
        {
            "decide": lambda: cost.decide(size, now, link),
            "home": lambda: cost.note_home(size, one),
            "away": lambda: cost.note_away(size, one + other, one, Way(other, 1 + int(one) % 3, size), int(other), link),
            "failed": lambda: cost.note_failed(size, one, link),
            "once": lambda: cost.note_once(size, one),
            "leg": lambda: cost.note_leg(one + other, one, is_trip=one < other),
            "rest": lambda: cost.note_rest(one, 0.5),
            "untimed": cost.note_untimed,
        }[what]()
        cost.decide(size, now, link)
    assert cost.report("n", link).classes or not told
