"""Requeues of many jobs: counted first, behind a canary where that is asked for, and in batches."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.builders import NOW, settlement, submission
from support.clock import Clock
from support.stores import claim_just
from support.watched_store import WatchedStore

from notifier.errors import StoreUnavailableError
from notifier.model import Job, JobError, JobState
from notifier.replays import Replays, Requeued
from notifier.store.base import JobFilter

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState
ALL_FAILED = JobFilter()
MENDED_AT = NOW + 3600


class Office:
    """An operator's replays on a real store, an hour after things failed."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock(MENDED_AT)
        self.store = WatchedStore(folder / "notifier.db")
        self.told = 0
        self.replays = Replays(self.store, self.clock, self._tell)

    def _tell(self) -> None:
        self.told += 1

    async def failed(self, count: int, **changes: Any) -> list[Job]:
        """Store so many jobs, and have all of them fail."""
        posted = submission(count, **changes)
        await self.store.add([posted])
        await self.settle(posted.jobs, FAILED)
        return [*posted.jobs]

    async def settle(self, jobs: Sequence[Job], state: JobState, now: float = NOW) -> None:
        """Attempt PENDING jobs, and have every attempt end in a state."""
        claims = await claim_just(self.store, *(each.id for each in jobs), now=now, until=now + 60)
        outcomes = [settlement(claim, state, now=now) for claim in claims]
        assert all(await asyncio.gather(*map(self.store.settle, outcomes)))

    async def states(self, jobs: Sequence[Job]) -> list[JobState]:
        """Where jobs stand."""
        return [(await self.store.job(each.id)).status for each in jobs]

    async def later(self, seconds: float = 1.0) -> None:
        """Let upkeep have its turn, after a while."""
        self.clock.advance(seconds)
        await self.replays.advance()


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """An office with an empty store."""
    made = Office(tmp_path)
    await made.store.open(NOW)
    yield made
    await made.store.close()


# All at once ---------------------------------------------------------------------------------------


async def test_a_dry_run_counts_and_changes_nothing(office: Office) -> None:
    """Not even with a canary asked for."""
    jobs = await office.failed(5)
    for canary in (False, True):
        assert await office.replays.requeue(ALL_FAILED, dry_run=True, canary=canary) == Requeued(5, 0)
    assert await office.states(jobs) == [FAILED] * 5
    assert await office.store.replays() == []
    assert office.told == 0


async def test_without_a_status_failed_jobs_are_meant(office: Office) -> None:
    """What was delivered isn't sent again because someone forgot a word."""
    done = submission()
    await office.store.add([done])
    await office.settle(done.jobs, COMPLETED)
    jobs = await office.failed(3)
    assert await office.replays.requeue(ALL_FAILED) == Requeued(3, 3)
    assert await office.states([*jobs, *done.jobs]) == [PENDING] * 3 + [COMPLETED]
    assert office.told == 1


async def test_a_filter_means_just_what_it_says(office: Office) -> None:
    """Other jobs stay as they are."""
    erp = await office.failed(2, route="erp")
    crm = await office.failed(2, route="crm")
    assert await office.replays.requeue(JobFilter(route="crm")) == Requeued(2, 2)
    assert await office.states([*erp, *crm]) == [FAILED] * 2 + [PENDING] * 2


@pytest.mark.parametrize("canary", [False, True])
async def test_a_filter_that_means_nothing_requeues_nothing(office: Office, canary: bool) -> None:
    """And leaves no replay behind."""
    assert await office.replays.requeue(JobFilter(route="nobody"), canary=canary) == Requeued(0, 0)
    assert await office.store.replays() == []


async def test_many_jobs_are_requeued_in_batches(office: Office) -> None:
    """So that no one waits behind one huge transaction; all are due now, and none is taken twice."""
    for _ in range(3):
        await office.failed(400)
    assert await office.replays.requeue(ALL_FAILED) == Requeued(1200, 1200)
    assert office.store.calls["requeue_some"] == 4
    assert await office.store.counts() == dict.fromkeys(JobState, 0) | {PENDING: 1200}
    assert office.told == 3


async def test_jobs_of_a_state_that_requeueing_does_not_leave_are_requeued_once(office: Office) -> None:
    """PENDING jobs become due now; having been so, they are not met again and again."""
    await office.store.add([submission(700, next_attempt_at=NOW + 9e6)])
    assert await office.replays.requeue(JobFilter(status=PENDING)) == Requeued(700, 700)


async def test_jobs_that_fail_while_others_are_requeued_stay(office: Office) -> None:
    """The filter means those that had failed when the operator asked."""
    await office.failed(3)
    late = submission(2)
    await office.store.add([late])

    async def fail_meanwhile() -> None:
        office.store.before.pop("requeue_some")
        office.clock.advance(1)
        await office.settle(late.jobs, FAILED, now=office.clock())

    office.store.before["requeue_some"] = fail_meanwhile
    assert await office.replays.requeue(ALL_FAILED) == Requeued(3, 3)
    assert await office.states(late.jobs) == [FAILED] * 2


# Behind a canary -----------------------------------------------------------------------------------


async def test_a_canary_goes_alone(office: Office) -> None:
    """The oldest of them; while it is on its way the rest stays FAILED."""
    jobs = await office.failed(5)
    assert await office.replays.requeue(ALL_FAILED, canary=True) == Requeued(5, 1)
    await office.later()
    assert await office.states(jobs) == [PENDING] + [FAILED] * 4
    assert office.told == 1


async def test_the_rest_follows_a_canary_that_completed(office: Office) -> None:
    """By itself, once; new failures since then aren't taken along."""
    jobs = await office.failed(5)
    await office.replays.requeue(ALL_FAILED, canary=True)
    await office.settle(jobs[:1], COMPLETED, now=MENDED_AT)
    office.clock.advance(10)
    late = submission()
    await office.store.add([late])
    await office.settle(late.jobs, FAILED, now=office.clock())
    await office.later()
    assert await office.states([*jobs, *late.jobs]) == [COMPLETED] + [PENDING] * 4 + [FAILED]
    assert await office.store.replays() == []
    assert office.told == 2


@pytest.mark.parametrize("end", [FAILED, CANCELLED])
async def test_the_rest_stays_when_the_canary_does_not_complete(office: Office, end: JobState) -> None:
    """Whatever was mended wasn't, or the operator thought better of it; nothing goes out later either."""
    jobs = await office.failed(5)
    await office.replays.requeue(ALL_FAILED, canary=True)
    if end is FAILED:
        await office.settle(jobs[:1], FAILED, now=MENDED_AT)
    else:
        await office.store.cancel(jobs[0].id, MENDED_AT)
    await office.later()
    assert await office.store.replays() == []
    await office.store.requeue(jobs[0].id, office.clock())
    await office.settle(jobs[:1], COMPLETED, now=office.clock())
    await office.later()
    assert await office.states(jobs) == [COMPLETED] + [FAILED] * 4


async def test_a_canary_that_is_retried_is_waited_for(office: Office) -> None:
    """A first attempt that failed transiently decides nothing."""
    jobs = await office.failed(2)
    await office.replays.requeue(ALL_FAILED, canary=True)
    await office.settle(jobs[:1], PENDING, now=MENDED_AT)
    await office.later()
    assert await office.states(jobs) == [PENDING, FAILED]
    assert len(await office.store.replays()) == 1


async def test_a_canary_survives_a_restart(office: Office, tmp_path: Path) -> None:
    """The next process knows what waits for it, and what for."""
    erp = await office.failed(3, route="erp")
    crm = await office.failed(1, route="crm")
    await office.replays.requeue(JobFilter(route="erp"), canary=True)
    await office.settle(erp[:1], COMPLETED, now=MENDED_AT)
    await office.store.close()
    successor = Office(tmp_path)
    await successor.store.open(MENDED_AT)
    await successor.later()
    assert await successor.states([*erp, *crm]) == [COMPLETED, PENDING, PENDING, FAILED]
    await successor.store.close()


async def test_a_replay_asked_for_while_others_are_looked_at_is_not_forgotten(office: Office) -> None:
    """It waits in the store, wherever upkeep happens to be."""
    jobs = await office.failed(2)
    await office.replays.advance()
    await asyncio.gather(office.replays.advance(), office.replays.requeue(ALL_FAILED, canary=True))
    await office.settle(jobs[:1], COMPLETED, now=MENDED_AT)
    await office.later()
    assert await office.states(jobs) == [COMPLETED, PENDING]


async def test_a_replay_that_the_store_interrupts_goes_on_at_its_next_turn(office: Office) -> None:
    """It isn't dropped before all of it is requeued."""
    for _ in range(2):
        await office.failed(400)
    await office.replays.requeue(ALL_FAILED, canary=True)
    (replay,) = await office.store.replays()
    await office.settle([await office.store.job(replay.canary_job_id)], COMPLETED, now=MENDED_AT)

    async def fail_from_now_on() -> None:
        office.store.after.pop("requeue_some")
        office.store.failing["requeue_some"] = 1

    office.store.after["requeue_some"] = fail_from_now_on
    with pytest.raises(StoreUnavailableError):
        await office.later()
    await office.later()
    assert await office.store.counts() == dict.fromkeys(JobState, 0) | {PENDING: 799, COMPLETED: 1}
    assert await office.store.replays() == []


async def test_a_requeued_job_starts_over(office: Office) -> None:
    """All attempts are its own again; its last error stays to be seen until it is delivered."""
    (job,) = await office.failed(1)
    await office.replays.requeue(ALL_FAILED)
    again = await office.store.job(job.id)
    assert (again.attempts, again.next_attempt_at) == (0, MENDED_AT)
    assert again.error == JobError("http_503", "the receiver answered 503")
