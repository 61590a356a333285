"""Answers to "why?", in each situation that a job can be in."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.builders import LANE, NOW, event_record, job

from notifier.config import BreakerSection
from notifier.dispatch.lanes import BREAKER_OPEN, PAUSED, Stop
from notifier.dispatch.limits import Held, Limits
from notifier.dispatch.queue import FairQueue
from notifier.explain import Trouble, Why, trouble, why
from notifier.model import Claim, Job, JobError, JobState, Priority, rfc3339

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState
REFUSED = JobError("http_503", "the receiver answered 503")


@pytest.fixture
async def queue() -> AsyncIterator[FairQueue]:
    """A queue before four workers, on a running loop."""
    made = FairQueue(capacity=256, workers=4)
    yield made
    made.close()


def ask(asked: Job, queue: FairQueue, *, draining: bool = False) -> Why:
    """Ask about a job now."""
    return why(asked, queue, now=NOW, draining=draining)


def held(queue: FairQueue, **changes: Any) -> Job:
    """A claimed job, in the window."""
    claimed = job(status=PROCESSING, claim=1, **changes)
    queue.put(Claim(claimed, event_record()))
    return claimed


async def busy(queue: FairQueue, lanes: list[str], **changes: Any) -> None:
    """Set a worker to a job of each lane."""
    for lane in lanes:
        held(queue, lane=lane, **changes)
        await queue.get()


# Finished ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "error", "says"),
    [
        (COMPLETED, None, "The receiver took it."),
        (FAILED, REFUSED, "Last error: http_503: the receiver answered 503"),
        (CANCELLED, None, "Requeue it"),
        (CANCELLED, REFUSED, "Last error: http_503"),
    ],
)
def test_a_finished_job_waits_for_nothing(
    queue: FairQueue, state: JobState, error: JobError | None, says: str
) -> None:
    """It says what it is, and what went wrong last; the same while the notifier stops."""
    for draining in (False, True):
        answer = ask(job(status=state, error=error), queue, draining=draining)
        assert (answer.status, answer.reason, answer.until) == (state, state.lower(), None)
        assert says in answer.detail


# It is not time yet --------------------------------------------------------------------------------


def test_a_scheduled_job_waits_for_its_time(queue: FairQueue) -> None:
    """It was never tried, and says when it will be."""
    at = NOW + 3600
    assert ask(job(next_attempt_at=at), queue) == Why(
        status=PENDING, reason="scheduled", detail=f"It is scheduled for {rfc3339(at)}.", until=at
    )


def test_a_retried_job_waits_for_its_backoff(queue: FairQueue) -> None:
    """It says which attempt is next, of how many, and why the last one failed."""
    answer = ask(job(next_attempt_at=NOW + 300, attempts=2, max_attempts=8, error=REFUSED), queue)
    assert (answer.reason, answer.until) == ("backoff", NOW + 300)
    assert answer.detail.startswith("Attempt 3 of 8 comes at ")
    assert answer.detail.endswith("Last error: http_503: the receiver answered 503")


def test_a_job_that_comes_later_is_not_told_of_the_drain(queue: FairQueue) -> None:
    """That the notifier stops isn't what it waits for."""
    assert ask(job(next_attempt_at=NOW + 300), queue, draining=True).reason == "scheduled"


async def test_a_job_of_a_paused_lane_waits_for_the_lane(queue: FairQueue) -> None:
    """Due or not, it says until when, what is wrong with the provider, and that it costs no attempt."""
    queue.stop(LANE, Stop(PAUSED, "the relay is down", NOW + 60), 60)
    for waiting in (
        job(next_attempt_at=NOW + 60, error=REFUSED),
        job(next_attempt_at=NOW + 60.2, error=REFUSED),
        job(next_attempt_at=NOW),
        held(queue),
    ):
        answer = ask(waiting, queue)
        assert (answer.reason, answer.until) == ("lane_paused", NOW + 60)
        assert answer.detail == "the relay is down"


async def test_a_job_due_long_after_a_pause_does_not_wait_for_it(queue: FairQueue) -> None:
    """A lane that is paused for a minute is no reason for what is scheduled for next week."""
    queue.stop(LANE, Stop(PAUSED, "the relay is down", NOW + 60), 60)
    assert ask(job(next_attempt_at=NOW + 9e5), queue).reason == "scheduled"


async def test_a_pause_of_another_lane_is_no_reason(queue: FairQueue) -> None:
    """One lane's trouble is its own."""
    queue.stop("elsewhere", Stop(PAUSED, "the relay is down", NOW + 60), 60)
    assert ask(job(), queue).reason == "due"


# It is time, and yet -------------------------------------------------------------------------------


def test_a_due_job_of_a_notifier_that_stops_waits_for_the_next(queue: FairQueue) -> None:
    """It goes on after the restart."""
    assert ask(job(), queue, draining=True).reason == "stopping"


async def test_a_job_being_attempted_is_in_flight(queue: FairQueue) -> None:
    """Nothing stands between it and its delivery."""
    claimed = held(queue)
    await queue.get()
    assert ask(claimed, queue).reason == "in_flight"


def test_a_job_claimed_by_others_is_in_flight_there(queue: FairQueue) -> None:
    """A worker of another process holds it; it isn't said to be about to be attempted here."""
    answer = ask(job(status=PROCESSING, claim=3), queue)
    assert answer.reason == "in_flight"
    assert "when its claim ends" in answer.detail


async def test_a_job_waits_for_a_worker_while_all_are_busy(queue: FairQueue) -> None:
    """Claimed already or still in the store, it says that it is workers that lack."""
    await busy(queue, ["a", "b", "c", "d"])
    for waiting in (job(), held(queue)):
        answer = ask(waiting, queue)
        assert answer.reason == "no_worker"
        assert answer.detail.startswith("All 4 workers are at other attempts")


async def test_a_low_job_does_not_count_on_workers_kept_for_others(queue: FairQueue) -> None:
    """A free worker that a low job never gets is no reason to say that it is about to be attempted."""
    await busy(queue, ["a", "b", "c"])
    assert ask(held(queue, priority=Priority.LOW), queue).reason == "no_worker"
    assert ask(job(priority=Priority.HIGH), queue).reason == "due"


async def test_a_job_waits_for_its_lanes_share(queue: FairQueue) -> None:
    """Its lane has as many attempts under way as it may, while others have workers free."""
    await busy(queue, [LANE, LANE])
    answer = ask(held(queue), queue)
    assert answer.reason == "lane_limit"
    assert answer.detail == f"Lane {LANE} has 2 attempts under way, its share while 2 workers are free."


async def test_a_high_job_does_not_wait_for_what_is_below_it(queue: FairQueue) -> None:
    """Its lane's attempts of lower priority don't count against it."""
    await busy(queue, [LANE, LANE], priority=Priority.LOW)
    assert ask(held(queue, priority=Priority.LOW), queue).reason == "lane_limit"
    assert ask(job(priority=Priority.HIGH), queue).reason == "due"


@pytest.mark.parametrize(
    ("limits", "reason", "detail"),
    [
        (Limits(max_in_flight=1), "max_in_flight", "has 1 attempts under way, as many as it may"),
        (Limits(rate=0.5), "rate_limit", "goes at 0.5 attempts a second"),
        (Limits(held=Held("endpoint_paused", "It is paused.")), "endpoint_paused", "It is paused."),
    ],
)
async def test_a_job_waits_for_what_its_lane_is_held_to(limits: Limits, reason: str, detail: str) -> None:
    """Each limit is named, with its number."""
    queue = FairQueue(capacity=256, workers=4, limits_of=lambda _lane: limits, timer=lambda: 0.0)
    if limits.held is None:
        await busy(queue, [LANE])
    answer = ask(job(), queue)
    assert answer.reason == reason
    assert detail in answer.detail
    queue.close()


def test_a_failed_job_of_a_stopped_endpoint_says_what_to_do_first() -> None:
    """Requeued alone it would only wait."""
    held = Limits(held=Held("endpoint_disabled", "Endpoint ep_1 is disabled."))
    stopped = FairQueue(capacity=256, workers=4, limits_of=lambda _lane: held)
    assert "Endpoint ep_1 is disabled." in ask(job(status=FAILED, error=REFUSED), stopped).detail


async def test_what_holds_up_a_whole_lane_can_be_told(queue: FairQueue) -> None:
    """A stop, a limit, or nothing."""
    assert trouble(LANE, queue) is None
    queue.stop(LANE, Stop(PAUSED, "the relay is down", NOW + 60), 60)
    assert trouble(LANE, queue) == Trouble(reason="lane_paused", detail="the relay is down", until=NOW + 60)
    held = Limits(held=Held("endpoint_paused", "It is paused."))
    stopped = FairQueue(capacity=256, workers=4, limits_of=lambda _lane: held)
    assert trouble(LANE, stopped) == Trouble(reason="endpoint_paused", detail="It is paused.")


async def test_a_job_behind_a_breaker_waits_for_it_and_then_for_the_probe(queue: FairQueue) -> None:
    """Until when it is open; then that one at a time is let through."""
    queue.remembered(LANE).failed(BreakerSection(failures=1), 0.0)
    queue.stop(LANE, Stop(BREAKER_OPEN, "The breaker is open.", NOW + 30), 3600)
    answer = ask(job(), queue)
    assert (answer.reason, answer.until) == ("breaker_open", NOW + 30)
    lane = queue.lane(LANE)
    assert lane is not None
    queue._resume(lane)
    await busy(queue, [LANE])
    answer = ask(job(), queue)
    assert (answer.reason, answer.until) == ("breaker_half_open", None)
    assert "which is under way" in answer.detail


def test_a_due_job_with_nothing_in_its_way_is_about_to_go(queue: FairQueue) -> None:
    """There is nothing to wait for."""
    assert ask(job(), queue) == Why(
        status=PENDING, reason="due", detail="It is due and about to be attempted."
    )
