"""When a breaker opens, for how long, and what closes it."""

import pytest

from notifier.config import BreakerSection, Duration
from notifier.dispatch.breaker import Breaker

RULES = BreakerSection(
    failures=3,
    window=Duration(60),
    window_attempts=10,
    window_failed=0.8,
    open_for=(Duration(30), Duration(60)),
)


def opened(rules: BreakerSection = RULES) -> Breaker:
    """One that has just opened, at 0."""
    breaker = Breaker(rules)
    while breaker.failed(0.0) is None:
        pass
    return breaker


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    """And not before; a success in between begins the count anew."""
    breaker = Breaker(RULES)
    assert [breaker.failed(now) for now in (0, 1)] == [None, None]
    breaker.succeeded(2)
    assert [breaker.failed(now) for now in (3, 4, 5)] == [None, None, 30]
    assert breaker.tripped
    assert not breaker.half_open


def test_it_opens_when_most_of_a_window_failed() -> None:
    """Though a success now and then keeps the failures from being in a row."""
    breaker = Breaker(BreakerSection(failures=1000, window_attempts=10, open_for=(Duration(30),)))
    breaker.failed(0)
    breaker.succeeded(1)
    assert [breaker.failed(now) for now in range(2, 10)] == [None] * 7 + [30]


def test_a_window_of_which_enough_came_through_opens_nothing() -> None:
    """A receiver that takes half of what it is sent is not let alone."""
    breaker = Breaker(BreakerSection(failures=1000, window_attempts=10, open_for=(Duration(30),)))
    for now in range(0, 100, 2):
        assert breaker.failed(now) is None
        breaker.succeeded(now + 1)


def test_what_left_the_window_counts_no_more() -> None:
    """Failures of an hour ago say nothing of now."""
    breaker = Breaker(BreakerSection(failures=1000, window_attempts=10, open_for=(Duration(30),)))
    assert {breaker.failed(now) for now in range(9)} == {None}
    assert {breaker.failed(now) for now in range(3600, 3609)} == {None}
    assert breaker.failed(3610) == 30


def test_while_it_is_open_those_under_way_change_nothing() -> None:
    """Ten that fail together open it once."""
    breaker = opened()
    assert [breaker.failed(now) for now in (1, 2, 3)] == [None, None, None]
    assert breaker.openings == 1


def test_a_failure_when_half_open_opens_it_again_for_longer() -> None:
    """Up to the last of its times, which then stays."""
    breaker = opened()
    pauses = []
    for now in (30, 90, 150):
        breaker.waited()
        assert breaker.half_open
        pauses.append(breaker.failed(now))
    assert pauses == [60, 60, 60]


def test_a_success_when_half_open_closes_it() -> None:
    """There is nothing left to remember, and it takes as many failures as ever to open it again."""
    breaker = opened()
    breaker.waited()
    assert breaker.succeeded(31)
    assert not breaker.tripped
    assert [breaker.failed(now) for now in (32, 33, 34)] == [None, None, 30]


def test_a_success_is_not_all_there_is_while_the_window_holds_failures() -> None:
    """They may yet be most of it; once they are out of it the breaker can be forgotten."""
    breaker = Breaker(RULES)
    breaker.failed(0)
    assert not breaker.succeeded(1)
    assert breaker.succeeded(61)


@pytest.mark.parametrize("failures", [1, 100, 10_000])
def test_without_times_to_stay_open_it_never_opens(failures: int) -> None:
    """`open_for = []` turns it off."""
    breaker = Breaker(BreakerSection(failures=1, open_for=()))
    assert {breaker.failed(now) for now in range(failures)} == {None}


def test_a_lane_that_fails_for_a_year_takes_no_more_memory() -> None:
    """The window is kept in steps, not attempt by attempt."""
    breaker = Breaker(BreakerSection(failures=10**9, window_attempts=10**9))
    for number in range(100_000):
        breaker.failed(number / 1000)
    assert len(breaker._steps) <= 13
