"""What is learned of a relay: how far it goes down, how it comes back, and where it stops."""

import pytest
from support.clock import Clock

from notifier.channels.pacing import PATIENCE, Ceiling, Pace


@pytest.fixture
def clock() -> Clock:
    """A clock that the test moves."""
    return Clock()


# Ceilings ----------------------------------------------------------------------------------------


def test_a_ceiling_is_as_configured_until_something_is_learned(clock: Clock) -> None:
    """A relay that never complains gets all that it may."""
    assert Ceiling(100, clock).now == 100


def test_a_ceiling_falls_to_what_was_borne_and_never_rises_by_a_lesson(clock: Clock) -> None:
    """Only news is told as such; a lesson of more than is known is none."""
    ceiling = Ceiling(100, clock)
    assert ceiling.lower(7)
    assert not ceiling.lower(7)
    assert not ceiling.lower(50)
    assert ceiling.now == 7


def test_a_ceiling_never_falls_below_one(clock: Clock) -> None:
    """Whatever a relay says, the next mail has a way to it."""
    ceiling = Ceiling(10, clock)
    ceiling.lower(0)
    assert ceiling.now == 1


@pytest.mark.parametrize(("configured", "step"), [(100, 10), (5, 1), (1, 0)])
def test_a_ceiling_comes_back_by_tenths(clock: Clock, configured: int, step: int) -> None:
    """Every ten minutes without a lesson a tenth is added, up to what is configured."""
    ceiling = Ceiling(configured, clock)
    ceiling.lower(1)
    clock.advance(599)
    assert ceiling.now == 1
    clock.advance(1)
    assert ceiling.now == 1 + step
    clock.advance(600)
    assert ceiling.now == 1 + 2 * step
    clock.advance(86400)
    assert ceiling.now == configured


def test_a_lesson_starts_the_wait_anew(clock: Clock) -> None:
    """A relay that complains of what was added is brought back to what it bore."""
    ceiling = Ceiling(100, clock)
    ceiling.lower(3)
    clock.advance(600)
    assert ceiling.lower(3)
    clock.advance(599)
    assert ceiling.now == 3


# The pace ----------------------------------------------------------------------------------------


def send(pace: Pace, clock: Clock, *, rate: float, seconds: float) -> None:
    """Send so many a second for a while."""
    for _ in range(int(rate * seconds)):
        pace.turn()
        clock.advance(1 / rate)


def test_nobody_waits_until_a_relay_complains(clock: Clock) -> None:
    """Without a complaint every turn is now."""
    pace = Pace(clock)
    assert {pace.turn() for _ in range(1000)} == {0.0}
    assert pace.limit is None


def test_a_complaint_halves_what_went_out(clock: Clock) -> None:
    """The first limit is half of the rate of the seconds before."""
    pace = Pace(clock)
    send(pace, clock, rate=20, seconds=25)
    assert pace.complain()
    assert pace.limit == pytest.approx(10, rel=0.05)


def test_another_complaint_halves_the_limit(clock: Clock) -> None:
    """A relay that complains again goes down again; a quiet time before doesn't count for nothing."""
    pace = Pace(clock)
    send(pace, clock, rate=20, seconds=10)
    pace.complain()
    clock.advance(5)
    assert pace.complain()
    assert pace.limit == pytest.approx(5, rel=0.1)


def test_complaints_about_mails_under_way_together_are_one(clock: Clock) -> None:
    """Ten connections that are all told to slow down halve the rate once."""
    pace = Pace(clock)
    send(pace, clock, rate=20, seconds=10)
    assert [pace.complain() for _ in range(10)] == [True] + [False] * 9
    assert pace.limit == pytest.approx(10, rel=0.1)


def test_the_rate_comes_back_by_twentieths_until_there_is_no_limit(clock: Clock) -> None:
    """After 100 quiet seconds it is what was complained of, after 300 there is no limit."""
    pace = Pace(clock)
    send(pace, clock, rate=20, seconds=10)
    pace.complain()
    half = pace.limit or 0
    clock.advance(10)
    assert pace.limit == pytest.approx(half * 1.1)
    clock.advance(90)
    assert pace.limit == pytest.approx(half * 2)
    clock.advance(199)
    assert pace.limit is not None
    clock.advance(1)
    assert pace.limit is None


def test_the_rate_never_falls_to_nothing(clock: Clock) -> None:
    """However often a relay complains, a mail goes out every ten seconds."""
    pace = Pace(clock)
    for _ in range(50):
        pace.complain()
        clock.advance(6)
    assert pace.limit == 0.1


def test_turns_are_spread_evenly(clock: Clock) -> None:
    """With a limit of four a second, turns are a quarter of a second apart."""
    pace = Pace(clock)
    send(pace, clock, rate=8, seconds=10)
    pace.complain()
    assert pace.limit == pytest.approx(4, rel=0.1)
    turns = [pace.turn() for _ in range(4)]
    assert turns == pytest.approx([0, 0.25, 0.5, 0.75], rel=0.1)


def test_a_turn_too_far_off_is_not_taken(clock: Clock) -> None:
    """A mail that would wait too long is put off, and takes no one's turn; time brings turns back."""
    pace = Pace(clock)
    pace.complain()
    assert pace.turn() == 0
    waits = [pace.turn() for _ in range(3)]
    assert waits == [pytest.approx(10)] * 3
    assert min(waits) > PATIENCE
    clock.advance(10)
    assert pace.turn() == 0
