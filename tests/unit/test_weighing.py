from hypothesis import given
from hypothesis import strategies as st

from radium.commands.weighing import tell
from radium.report import CostClass, CostReport

amounts = st.floats(0, 1e12)


def of_size(start: float, home: float | None, away: float, mirror: float, decision: str, nbytes: float = 1e5) -> CostClass:
    return CostClass(start, 2 * start, 9, 3, home, away, mirror, 1.0, nbytes, False, decision)


def weighed(*classes: CostClass, break_even: float | None = 3000.0) -> CostReport:
    return CostReport("m[0] * n[0]", list(classes), 100e-6, 1e9, 4.0, break_even, False, True)


def story(cost: CostReport) -> str:
    return "\n".join(tell(cost))


def test_numbers_behind_a_decision_and_what_would_flip_it():
    """Both times, what the one away is made of, and each single change at which both sides would be equal."""
    text = story(weighed(of_size(1024, 250e-6, 400e-6, 200e-6, "local"), of_size(4096, 4e-3, 1.3e-3, 1e-3, "remote")))
    assert "m[0] * n[0] from 1,024 to 2,048 (9 calls): 0.25 ms at home, 0.4 ms away (0.2 ms in the mirror, 100 kB)" in text
    assert "they run at home. That would flip with" in text
    # 200 us in the mirror and 100 kB at 1 GB/s leave no room for any round trip; half of the mirror's time is too much.
    assert "an acceptor 4 x as fast" in text
    assert "they run away. That would flip with a round trip of 2.9 ms" in text
    assert "Calls win away from m[0] * n[0] = 3,000 on." in text


def test_a_round_trip_that_would_win():
    """It is what home takes longer than the mirror and the bytes."""
    text = story(weighed(of_size(1024, 350e-6, 400e-6, 200e-6, "local")))
    assert "a round trip of 50 us" in text


def test_what_was_not_measured_is_said():
    """Predictions are called so; so are calls that could not be timed, and rests."""
    cost = weighed(of_size(1024, None, 400e-6, 200e-6, "local"), break_even=None)
    cost.classes[0].is_predicted, cost.is_timed, cost.rests, cost.rested_seconds = True, False, 3, 2.5
    text = story(cost)
    assert "not timed at home yet, 0.4 ms away as predicted" in text
    assert "could not be timed" in text
    assert "lifted 3 times, for 2.5 s" in text and "counted nowhere" in text


def test_calls_that_chat_are_told():
    cost = weighed(of_size(1024, 1e-3, 2e-3, 1e-4, "local"))
    cost.chats = True
    assert "cost more than all that they computed" in story(cost)


@given(
    *[amounts] * 4, st.floats(allow_nan=False), st.none() | amounts, st.none() | st.floats(allow_nan=False), st.sampled_from(["", "n"])
)
def test_any_numbers_can_be_told(home, away, mirror, nbytes, rate, speed, break_even, sized_by):
    """Whatever a report holds."""
    classes = [of_size(1.0, home, away, mirror, "local", nbytes), of_size(2.0, None, home, away, "remote", mirror)]
    assert story(CostReport(sized_by, classes, mirror, rate, speed, break_even, False, True))
