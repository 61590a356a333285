"""What one attempt's outcome means for its lane."""

from collections.abc import Iterator

import pytest
from support.builders import NOW, event_record, job

from notifier.channels import Receipt
from notifier.config import BreakerSection, Config, Duration, Retry
from notifier.dispatch.health import WELL, LaneHealth
from notifier.dispatch.lanes import BREAKER_OPEN, PAUSED, RETRY_AFTER
from notifier.dispatch.queue import FairQueue
from notifier.errors import Permanent, Transient, Unavailable, Withdrawn
from notifier.model import Claim

TROUBLE = Transient("erp answered 500", code="http_500", lane_fault=True)


class Ward:
    """One lane's health, and the queue it acts on."""

    def __init__(self) -> None:
        config = Config(
            breaker=BreakerSection(failures=3, open_for=(Duration(30), Duration(60))),
            retry=Retry(retry_after_cap=Duration(600)),
        )
        self.queue = FairQueue(capacity=64, workers=4)
        self.health = LaneHealth(self.queue, config, lambda: NOW)

    @property
    def reason(self) -> str | None:
        """Why the lane is stopped."""
        lane = self.queue.lane("erp")
        return lane.stop.reason if lane is not None and lane.stop is not None else None

    def resume(self) -> None:
        """Let its stop be over."""
        lane = self.queue.lane("erp")
        assert lane is not None
        self.queue._resume(lane)


@pytest.fixture
async def ward() -> Ward:
    """A lane that nothing is known of, on a running loop."""
    return Ward()


def failures(ward: Ward, times: int) -> Iterator[bool]:
    """Have so many attempts fail; says after each whether it was told that the breaker opened."""
    for _ in range(times):
        yield ward.health.note("erp", TROUBLE).breaker_opened


async def test_what_goes_well_stops_nothing_and_leaves_nothing(ward: Ward) -> None:
    """A lane without trouble isn't even remembered."""
    assert ward.health.note("erp", Receipt()) == WELL
    assert ward.health.note("erp", Permanent("no")) == WELL
    assert ward.health.note("erp", Transient("erp answered 422")) == WELL
    assert ward.queue.lane("erp") is None


async def test_the_breaker_opens_once_a_streak(ward: Ward) -> None:
    """That it opens again after a probe is no news; after a success it is."""
    assert [*failures(ward, 3)] == [False, False, True]
    assert ward.reason == BREAKER_OPEN
    ward.resume()
    verdict = ward.health.note("erp", TROUBLE)
    assert (verdict.until, verdict.breaker_opened) == (NOW + 60, False)
    ward.resume()
    ward.health.note("erp", Receipt())
    assert [*failures(ward, 3)] == [False, False, True]


async def test_an_opening_gives_back_what_no_worker_has_begun(ward: Ward) -> None:
    """It is due again when the breaker lets the next through."""
    waiting = Claim(job(lane="erp", claim=1), event_record())
    ward.queue.put(waiting)
    ward.health.note("erp", TROUBLE)
    ward.health.note("erp", TROUBLE)
    verdict = ward.health.note("erp", TROUBLE)
    assert (verdict.withdrawn, verdict.until) == ((waiting,), NOW + 30)


async def test_retry_after_stops_a_lane_and_a_longer_breaker_counts(ward: Ward) -> None:
    """Of both the one that ends later."""
    asked = Transient("erp answered 503", code="http_503", lane_fault=True, retry_after=10)
    assert ward.health.note("erp", asked).until == NOW + 10
    assert ward.reason == RETRY_AFTER
    ward.health.note("erp", asked)
    verdict = ward.health.note("erp", asked)
    assert (verdict.until, verdict.breaker_opened) == (NOW + 30, True)
    assert ward.reason == BREAKER_OPEN


async def test_no_receiver_stops_its_lane_for_longer_than_the_cap(ward: Ward) -> None:
    """`retry.retry_after_cap`."""
    assert ward.health.note("erp", Transient("later", retry_after=1e12)).until == NOW + 600


@pytest.mark.parametrize("asked", [float("nan"), -1.0, 0.0])
async def test_a_time_that_is_none_stops_nothing(ward: Ward, asked: float) -> None:
    """A plugin may take its number from anywhere; a timer set to NaN would never end."""
    ward.health.note("erp", Transient("busy", retry_after=asked))
    assert ward.reason is None


async def test_those_in_flight_when_a_provider_failed_are_one_fault(ward: Ward) -> None:
    """They make no longer pause, and wait as long as the others."""
    down = Unavailable("the relay is down")
    assert [ward.health.note("erp", down).until for _ in range(3)] == [NOW + 1] * 3
    assert ward.reason == PAUSED
    ward.resume()
    assert ward.health.note("erp", down).until == NOW + 2


async def test_a_provider_that_says_how_long_is_taken_at_its_word(ward: Ward) -> None:
    """Up to the cap: a relay that throttles knows when it takes more."""
    assert ward.health.note("erp", Unavailable("slow down", retry_after=42)).until == NOW + 42
    ward.resume()
    assert ward.health.note("erp", Unavailable("slow down", retry_after=1e9)).until == NOW + 600


async def test_what_nobody_was_asked_about_tells_nothing_of_a_provider(ward: Ward) -> None:
    """A recipient who is left alone between two faults makes the pause after the second no shorter."""
    down = Unavailable("the relay is down")
    ward.health.note("erp", down)
    ward.resume()
    assert ward.health.note("erp", Withdrawn("they unsubscribed", code="suppressed")) == WELL
    assert ward.health.note("erp", down).until == NOW + 2


async def test_a_success_under_way_closes_an_open_breaker(ward: Ward) -> None:
    """The lane goes on at once."""
    assert [*failures(ward, 3)][-1]
    ward.health.note("erp", Receipt())
    assert ward.reason is None
