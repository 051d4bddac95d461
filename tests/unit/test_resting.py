"""When traps are lifted, in simulated programs that call one function again and again."""

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from radium.tracer.cost import LEARNING
from radium.tracer.resting import FIRST_REST_S, LONGEST_REST_S, STOP_S, Rest, Tally


@dataclass
class Program:
    """It does nothing but calls of `call_s` seconds, with `between_s` between them; a trap takes radium `trap_s`."""

    call_s: float
    between_s: float
    trap_s: float
    change_s: float = 0.0005  # what arming or lifting costs
    saved_s: float = 0.0  # by each call

    def __post_init__(self) -> None:
        self.rest = Rest(LEARNING)
        self.now = self.lost_s = 0.0
        self.tally = Tally()
        self.ntrapped = 0

    def run(self, seconds: float) -> float:
        """The share of the time that radium has cost meanwhile."""
        until, lost_s = self.now + seconds, self.lost_s
        while self.now < until:
            self.step()
        return (self.lost_s - lost_s) / (seconds - (self.lost_s - lost_s))

    def step(self) -> None:
        rest = self.rest
        if rest.until:
            self.now = max(rest.until, self.now)
            self.spend(self.change_s)
            rest.wake(self.now, self.tally)
        self.now += self.call_s + self.between_s
        self.spend(self.trap_s + STOP_S)
        self.ntrapped += 1
        rest.note_trap(self.trap_s)
        self.tally = self.tally._replace(saved_s=self.tally.saved_s + self.saved_s)
        if rest.is_due(self.now, self.tally):
            self.spend(self.change_s)
            rest.rest(self.now, self.change_s, self.tally)

    def spend(self, seconds: float) -> None:
        self.now += seconds
        self.lost_s += seconds


@settings(deadline=None, max_examples=40)
@given(st.floats(1e-7, 0.01), st.floats(0.0, 0.01), st.floats(1e-5, 3e-4), st.floats(1e-4, 1e-2))
def test_traps_cost_little(call_s, between_s, trap_s, change_s):
    """Whatever a trap costs, and however short calls are: 2 % of the time, and a little for the changes."""
    program = Program(call_s, between_s, trap_s, change_s)
    for _ in range(LEARNING):
        program.step()
    assert program.run(60.0) < 0.035


def test_long_calls_do_not_rest():
    """Where traps cost nothing to speak of, all calls are looked at."""
    program = Program(0.1, 0.0, 1e-4)
    program.run(60.0)
    assert program.rest.nrests == 0
    assert program.ntrapped > 590


def test_a_split_that_gains_does_not_rest():
    """As long as calls away save more than traps cost."""
    program = Program(1e-4, 0.0, 1e-4, saved_s=2e-4)
    program.run(5.0)
    assert program.rest.nrests == 0


def test_rests_grow_until_something_is_learned():
    """Twice as long each time, at most LONGEST_REST_S; short again after news."""
    program = Program(1e-6, 0.0, 1e-5, change_s=1e-5)
    lengths = []
    for _ in range(400):
        program.step()
        if program.rest.until and program.rest.until > program.now:
            lengths.append(round(program.rest.until - program.now, 6))
    assert lengths[0] == FIRST_REST_S
    assert lengths[-1] == LONGEST_REST_S
    assert all(later >= earlier for earlier, later in pairwise(lengths))
    program.tally = program.tally._replace(nlearned=1)
    while program.rest.until <= program.now:
        program.step()
    program.step()
    while program.rest.until <= program.now:
        program.step()
    assert program.rest.until - program.now < LONGEST_REST_S / 10


def test_the_time_of_rests_is_told():
    """With the share of the time that calls took before."""
    rest = Rest(0)
    for n in range(8):
        rest.note_trap(1e-4)
        if rest.is_due(n * 0.001, Tally(home_s=n * 0.0005)):
            break
    rest.rest(1.0, 0.0001, Tally())
    rested_s, share = rest.wake(3.5, Tally())
    assert (rested_s, rest.rested_s, rest.nrests, rest.until) == (2.5, 2.5, 1, 0.0)
    assert 0.5 < share <= 1.0
