"""What is done now and then: each chore by itself, and none that fails ends it or goes unnoticed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.builders import NOW, born_claimed, event_record, settlement, submission
from support.clock import Clock
from support.stores import claim_just
from support.watched_store import WatchedStore

from notifier.config import Config, Duration, Retention, Workers
from notifier.dispatch.queue import FairQueue
from notifier.errors import NotFoundError
from notifier.metrics import Metrics
from notifier.model import Claim, Job, JobState
from notifier.replays import Replays
from notifier.store.base import JobFilter, Submission
from notifier.upkeep import Chore, Upkeep

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState
pytestmark = pytest.mark.timeout(30)


class House:
    """Upkeep of a real store, its chores done when the test says."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.store = WatchedStore(folder / "notifier.db")
        self.queue = FairQueue(capacity=256, workers=4)
        self.metrics = Metrics()
        self.rescued = 0
        self.replays = Replays(self.store, self.clock, lambda: None)
        self.upkeep = Upkeep(
            config=Config(
                workers=Workers(claim_timeout=Duration(60)),
                retention=Retention(completed=Duration(100), failed=Duration(1000)),
            ),
            store=self.store,
            queue=self.queue,
            replays=self.replays,
            clock=self.clock,
            metrics=self.metrics,
            on_rescued=self._rescued,
        )

    def _rescued(self) -> None:
        self.rescued += 1

    async def claimed(self, *, held: bool) -> Claim:
        """Claim a new job for a minute; `held` in the window, or by a worker that is gone."""
        posted = born_claimed(submission(), self.clock() + 60)
        await self.store.add([posted])
        claim = Claim(posted.jobs[0], posted.event)
        if held:
            self.queue.put(claim)
        return claim

    async def finished(self, state: JobState) -> Job:
        """A job that ends in a state, now."""
        claim = await self.claimed(held=False)
        assert await self.store.settle(settlement(claim, state, now=self.clock()))
        return claim.job

    async def state(self, job: Job) -> JobState | None:
        """Where a job stands; None where it is no more."""
        try:
            return (await self.store.job(job.id)).status
        except NotFoundError:
            return None


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A house whose chores haven't begun."""
    made = House(tmp_path)
    await made.store.open(NOW)
    yield made
    await made.upkeep.stop()
    await made.store.close()


# Claims --------------------------------------------------------------------------------------------


async def test_what_this_process_holds_stays_claimed(house: House) -> None:
    """An attempt may take longer than a claim: it is renewed as long as it is held."""
    claim = await house.claimed(held=True)
    for _ in range(5):
        house.clock.advance(50)
        await house.upkeep.keep_claims()
    assert await house.state(claim.job) is PROCESSING
    assert await house.store.settle(settlement(claim, COMPLETED))
    assert house.rescued == 0


async def test_what_nobody_renews_is_given_back(house: House) -> None:
    """A claim of a worker that is gone expires, and the dispatcher is told; not a moment sooner."""
    claim = await house.claimed(held=False)
    house.clock.advance(59.9)
    await house.upkeep.keep_claims()
    assert await house.state(claim.job) is PROCESSING
    house.clock.advance(0.1)
    await house.upkeep.keep_claims()
    assert await house.state(claim.job) is PENDING
    assert house.rescued == 1


async def test_a_pause_of_the_whole_process_costs_no_claim(house: House) -> None:
    """After a suspended machine wakes, what is held is renewed before what has expired is given back."""
    claim = await house.claimed(held=True)
    house.clock.advance(9999)
    await house.upkeep.keep_claims()
    assert await house.state(claim.job) is PROCESSING


# Retention -----------------------------------------------------------------------------------------


async def test_finished_jobs_go_when_their_time_is_over(house: House) -> None:
    """COMPLETED ones after theirs, FAILED and CANCELLED ones after the longer one; what waits never goes."""
    done, failed = await house.finished(COMPLETED), await house.finished(FAILED)
    waits = submission(next_attempt_at=NOW + 9e6)
    cancelled = submission()
    await house.store.add([waits, cancelled])
    await house.store.cancel(cancelled.jobs[0].id, NOW)
    jobs = [done, failed, cancelled.jobs[0], waits.jobs[0]]
    expected = {
        100: [COMPLETED, FAILED, CANCELLED, PENDING],
        101: [None, FAILED, CANCELLED, PENDING],
        1001: [None, None, None, PENDING],
    }
    for seconds, states in expected.items():
        house.clock.now = NOW + seconds
        await house.upkeep.prune()
        assert [await house.state(each) for each in jobs] == states


async def test_a_large_prune_is_done_in_batches(house: House) -> None:
    """Others get their turn at the store in between, and all of it goes in one turn of the chore."""
    for _ in range(3):
        posted = submission(400)
        await house.store.add([posted])
        for job in posted.jobs:
            await house.store.cancel(job.id, NOW)
    house.clock.advance(1001)
    await house.upkeep.prune()
    assert sum((await house.store.counts()).values()) == 0
    assert house.store.calls["prune"] >= 3


async def test_events_that_no_one_wanted_go_too(house: House) -> None:
    """They have no job whose end could be waited for."""
    event = event_record()
    await house.store.add([Submission(event, ())])
    house.clock.advance(101)
    await house.upkeep.prune()
    with pytest.raises(NotFoundError):
        await house.store.event(event.id)


# Chores --------------------------------------------------------------------------------------------


class Work:
    """A chore's work that fails when told to, and can be waited for."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.turns = 0
        self._news = asyncio.Condition()

    async def __call__(self) -> None:
        """Do it."""
        async with self._news:
            self.turns += 1
            self._news.notify_all()
        if self.error is not None:
            raise self.error

    async def more(self, turns: int) -> None:
        """Wait for so many turns more, and for what came of them."""
        async with self._news:
            wanted = self.turns + turns + 1
            await self._news.wait_for(lambda: self.turns >= wanted)


def replace_chores(house: House, **works: Work) -> None:
    """Put other chores in place of the real ones, which are always due."""
    house.upkeep.chores[:] = [Chore(name, 0.0, work) for name, work in works.items()]


async def test_every_chore_has_its_turn(house: House) -> None:
    """Claims often enough that none expires, and everything else by itself."""
    chores = {chore.name: chore.every for chore in house.upkeep.chores}
    assert set(chores) == {"claims", "prune", "checkpoint", "replays"}
    assert chores["claims"] <= 60 / 3


async def test_a_chore_that_fails_goes_on_and_is_counted(house: House) -> None:
    """An operator hears of it once it fails turn after turn, and no more when it works again."""
    work = Work()
    work.error = OSError("the disk is full")
    replace_chores(house, prune=work)
    house.upkeep.start()
    await work.more(2)
    assert house.metrics.registry.get_sample_value("notifier_errors_total", {"part": "upkeep_prune"})
    await work.more(2)
    (problem,) = house.upkeep.problems()
    assert problem.startswith("upkeep 'prune' failed ")
    work.error = None
    await work.more(2)
    assert house.upkeep.problems() == []


async def test_one_failure_is_no_problem_yet(house: House) -> None:
    """A store that was busy for once wakes nobody."""
    work = Work()
    replace_chores(house, prune=work)
    house.upkeep.chores[0].failures = 2
    assert house.upkeep.problems() == []
    house.upkeep.chores[0].failures = 3
    assert house.upkeep.problems() == ["upkeep 'prune' failed 3 times in a row"]


async def test_a_chore_that_hangs_holds_up_no_other(house: House) -> None:
    """A prune of hours doesn't let claims expire."""
    claims = Work()

    class Hanging(Work):
        async def __call__(self) -> None:
            await asyncio.Event().wait()

    replace_chores(house, prune=Hanging(), claims=claims)
    house.upkeep.start()
    await claims.more(3)


async def test_a_chore_that_died_is_a_problem(house: House) -> None:
    """Nothing is known that could end one; should it happen, it shows."""
    work = Work()
    work.error = asyncio.CancelledError()
    replace_chores(house, claims=work, prune=Work())
    house.upkeep.start()
    await asyncio.wait([house.upkeep._tasks[0]])
    assert house.upkeep.problems() == ["upkeep 'claims' is dead"]


async def test_stopping_ends_every_chore(house: House) -> None:
    """In the middle of one too; nothing is left running, and nothing is a problem."""
    replace_chores(house, prune=Work(), claims=Work())
    house.upkeep.start()
    tasks = [*house.upkeep._tasks]
    await house.upkeep.stop()
    assert all(task.done() for task in tasks)
    assert house.upkeep.problems() == []


async def test_canaried_requeues_are_sent_on(house: House) -> None:
    """It is upkeep that looks whether a canary has completed."""
    jobs = [await house.finished(FAILED) for _ in range(3)]
    house.clock.advance(10)
    await house.replays.requeue(JobFilter(), canary=True)
    (replay,) = await house.store.replays()
    (claim,) = await claim_just(house.store, replay.canary_job_id, now=NOW + 10, until=NOW + 70)
    assert await house.store.settle(settlement(claim, COMPLETED, now=NOW + 11))
    chore = next(each for each in house.upkeep.chores if each.name == "replays")
    await chore.do()
    assert [await house.state(job) for job in jobs] == [COMPLETED, PENDING, PENDING]
