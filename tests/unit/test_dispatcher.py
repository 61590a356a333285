"""The way of due jobs from a real store to the window: from memory where that is safe, else by claiming."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.builders import NOW, event_record, job, settlement, submission
from support.clock import Clock
from support.watched_store import WatchedStore

from notifier.dispatch import agenda
from notifier.dispatch import dispatcher as module
from notifier.dispatch.dispatcher import Dispatcher
from notifier.dispatch.lanes import PAUSED, Lane, Stop
from notifier.dispatch.limits import UNLIMITED, Held, Limits
from notifier.dispatch.queue import FairQueue
from notifier.metrics import Metrics
from notifier.model import Claim, Job, JobError, JobState, Priority
from notifier.store.base import Submission

HIGH, NORMAL, LOW = Priority
pytestmark = pytest.mark.timeout(30)


class Dispatch:
    """A dispatcher between a real store and a real queue; the test plays app and workers."""

    def __init__(self, folder: Path, *, capacity: int = 256, workers: int = 16) -> None:
        self.clock = Clock()
        self.store = WatchedStore(folder / "notifier.db")
        self.queue = FairQueue(capacity=capacity, workers=workers)
        self.metrics = Metrics()
        self.dispatcher = Dispatcher(
            self.store, self.queue, clock=self.clock, claim_timeout=60, metrics=self.metrics
        )
        self.most_held = 0
        self._put, self.queue._put = self.queue._put, self._watch  # type: ignore[method-assign]  # to see how full it gets
        self._running: asyncio.Task[None] | None = None

    def _watch(self, claim: Claim, lane: Lane) -> None:
        self._put(claim, lane)
        self.most_held = max(self.most_held, len(self.queue.claims))

    async def begin(self) -> None:
        """Set it going, and wait until it has looked through the store once."""
        seen = self.store.calls["lanes"]
        self._running = asyncio.create_task(self.dispatcher.run())
        await self.store.called("lanes", seen + len(Priority))
        await self.at_rest()

    async def at_rest(self) -> None:
        """Wait until it does nothing: no call to the store comes while others make their way through it."""
        before = None
        while before != self.store.calls:
            before = self.store.calls.copy()
            for _ in range(5):
                await self.store.ping()

    async def end(self) -> None:
        """Stop it."""
        self.dispatcher.stop()
        if self._running is not None:
            await self._running

    async def post(self, *submissions: Submission) -> None:
        """Store, claiming what may be claimed as it is made, as the intake does."""
        claimed = [self.dispatcher.claim_new(each, self.clock()) for each in submissions]
        self.dispatcher.stored(await self.store.add(claimed))

    async def next(self) -> Claim:
        """Take what comes next, as a worker does."""
        claim = await self.queue.get()
        assert claim is not None
        return claim

    async def work(self, jobs: int) -> list[Claim]:
        """Take and finish so many jobs, one after the other."""
        taken = []
        for _ in range(jobs):
            taken.append(await self.next())
            self.queue.done(taken[-1])
        return taken

    def hold(self, jobs: int, priority: Priority = HIGH) -> list[Claim]:
        """Fill the window with jobs that are in flight for good, each of a lane of its own."""
        event = event_record()
        claims = [
            Claim(job(event, lane=f"held-{number}", priority=priority, claim=1), event)
            for number in range(jobs)
        ]
        for each in claims:
            self.queue.put(each)
        return claims


@pytest.fixture
async def dispatch(tmp_path: Path) -> AsyncIterator[Dispatch]:
    """One that is not yet going, on an empty store."""
    made = Dispatch(tmp_path)
    await made.store.open(NOW)
    yield made
    await made.end()
    await made.store.close()


def ids(claims: list[Claim]) -> list[str]:
    """The ids of their jobs."""
    return [claim.job.id for claim in claims]


def one(**changes: Any) -> tuple[Submission, Job]:
    """A submission of one job, and that job."""
    made = submission(**changes)
    return made, made.jobs[0]


# From memory ---------------------------------------------------------------------------------------


async def test_a_new_job_goes_from_memory_to_the_worker(dispatch: Dispatch) -> None:
    """It is claimed as it is stored, and nothing is read back; the claim is as the store has it."""
    await dispatch.begin()
    before = dispatch.store.calls.copy()
    posted, job_ = one()
    await dispatch.post(posted)
    claim = await dispatch.next()
    stored = await dispatch.store.job(job_.id)
    assert claim.event is posted.event
    assert claim.job == stored
    assert stored.status is JobState.PROCESSING
    assert dispatch.store.calls - before == {"add": 1}


async def test_a_duplicates_claims_are_dropped(dispatch: Dispatch) -> None:
    """What was not stored after all leaves its place in the window to others."""
    await dispatch.begin()
    for _ in range(1000):
        claimed = dispatch.dispatcher.claim_new(one()[0], NOW)
        assert claimed.jobs[0].status is JobState.PROCESSING
        dispatch.dispatcher.not_stored([claimed])
    assert not dispatch.queue.claims


async def test_claims_that_may_not_be_stored_are_given_back(dispatch: Dispatch) -> None:
    """After a commit of unknown result: if they are there, they are due again at once."""
    refused: list[tuple[list[str], float]] = []
    dispatch.queue.on_refused = lambda claims, until: refused.append((ids([*claims]), until))
    await dispatch.begin()
    posted, job_ = one()
    dispatch.dispatcher.perhaps_stored([dispatch.dispatcher.claim_new(posted, NOW)])
    assert refused == [([job_.id], 0.0)]
    assert not dispatch.queue.claims


async def test_jobs_that_were_born_failed_are_left_alone(dispatch: Dispatch) -> None:
    """There is nothing to deliver."""
    await dispatch.begin()
    await dispatch.post(one(status=JobState.FAILED, error=JobError("http_410", "gone"))[0])
    await dispatch.at_rest()
    assert not dispatch.queue.claims
    assert dispatch.store.calls["claim"] == 0


async def test_what_was_there_before_the_start_is_found(dispatch: Dispatch) -> None:
    """Of every priority, the highest first."""
    await dispatch.store.keep(*(one(priority=priority, lane="a")[0] for priority in (LOW, NORMAL, HIGH)))
    await dispatch.begin()
    assert [claim.job.priority for claim in await dispatch.work(3)] == [HIGH, NORMAL, LOW]


async def test_what_comes_in_without_end_keeps_nothing_in_the_store_waiting(dispatch: Dispatch) -> None:
    """A retry that falls due while new jobs keep coming is claimed beside them."""
    await dispatch.begin()
    posted, retried = one(lane="old")
    await dispatch.store.keep(posted)
    dispatch.dispatcher.due("old", NORMAL, NOW)
    for _ in range(100):
        await dispatch.post(one(lane="new")[0])
        if retried.id in ids(await dispatch.work(1)):
            break
    else:
        pytest.fail("the retry waited for all that was newer")


# The window is full --------------------------------------------------------------------------------


async def test_a_lane_that_outgrows_the_window_is_caught_up(dispatch: Dispatch) -> None:
    """What found no room stays in the store and comes as room is freed: all of it, each job once."""
    await dispatch.begin()
    posted = [one() for _ in range(1000)]
    for start in range(0, 1000, 100):
        await dispatch.post(*(each for each, _ in posted[start : start + 100]))
    taken = ids(await dispatch.work(1000))
    assert sorted(taken) == sorted(job_.id for _, job_ in posted)
    assert dispatch.most_held <= dispatch.queue.capacity


async def test_a_lane_that_is_caught_up_is_served_from_memory_again(dispatch: Dispatch) -> None:
    """Falling behind is not for good."""
    await dispatch.begin()
    await dispatch.post(*(one()[0] for _ in range(400)))
    await dispatch.work(400)
    await dispatch.at_rest()
    before = dispatch.store.calls.copy()
    await dispatch.post(one()[0])
    await dispatch.work(1)
    await dispatch.at_rest()
    assert dispatch.store.calls - before == {"add": 1}


async def test_the_window_never_exceeds_its_capacity(dispatch: Dispatch) -> None:
    """With 20,000 jobs waiting, in lanes and priorities of every size, and all of them are delivered."""
    lanes = [*["big"] * 10, *["middle"] * 4, *(f"small-{number}" for number in range(6))]
    for batch in range(20):
        posted = [
            submission(50, lane=lane, priority=Priority(number % 3), of=event_record())
            for number, lane in enumerate(lanes)
        ]
        await dispatch.store.add(posted)
        if batch == 0:
            await dispatch.begin()
    dispatch.dispatcher.sweep()
    taken = ids(await dispatch.work(20_000))
    assert len(set(taken)) == 20_000
    assert dispatch.most_held <= dispatch.queue.capacity


async def test_a_claim_leaves_room_for_what_is_on_its_way(dispatch: Dispatch) -> None:
    """New jobs that are being stored have their place in the window already: a claim takes the rest."""
    await dispatch.begin()
    await dispatch.store.keep(*(one(lane=f"old-{number}")[0] for number in range(400)))
    claimed = [dispatch.dispatcher.claim_new(one(lane=f"new-{number}")[0], NOW) for number in range(200)]
    dispatch.dispatcher.sweep()
    await dispatch.store.called("claim")
    await dispatch.at_rest()
    dispatch.dispatcher.stored(await dispatch.store.add(claimed))
    assert dispatch.most_held <= dispatch.queue.capacity


async def test_jobs_on_their_way_fit_with_those_in_the_window(dispatch: Dispatch) -> None:
    """What is being stored counts as if it were there."""
    await dispatch.begin()
    dispatch.hold(dispatch.queue.capacity - 3)
    more = [one(lane=f"new-{number}", priority=HIGH)[0] for number in range(8)]
    await asyncio.gather(*(dispatch.post(each) for each in more))
    await dispatch.at_rest()
    assert dispatch.most_held <= dispatch.queue.capacity


async def test_jobs_handed_over_during_a_claim_from_the_store_fit_with_what_it_brings(
    dispatch: Dispatch,
) -> None:
    """What that claim may bring counts as if it were there; and yet there is room for new jobs beside it."""
    await dispatch.begin()
    added: list[int] = []

    async def post_more() -> None:
        dispatch.store.before.pop("claim")
        await dispatch.post(*(one(lane=f"new-{number}")[0] for number in range(200)))
        added.append(len(dispatch.queue.claims))

    dispatch.store.before["claim"] = post_more
    await dispatch.store.keep(*(one(lane=f"old-{number}")[0] for number in range(400)))
    dispatch.dispatcher.sweep()
    await dispatch.store.called("claim")
    await dispatch.at_rest()
    assert dispatch.most_held <= dispatch.queue.capacity
    assert added[0] > 10
    assert len(set(ids(await dispatch.work(600)))) == 600


@pytest.mark.parametrize("held", [200, 210, 216, 220])
async def test_it_rests_while_a_priority_has_no_room(dispatch: Dispatch, held: int) -> None:
    """A window nearly full of jobs that take their time is looked at again when one leaves, not before."""
    await dispatch.store.keep(one(priority=LOW, lane="low")[0])
    dispatch.hold(held)
    await asyncio.wait_for(dispatch.begin(), 5)
    before = dispatch.store.calls.copy()
    for _ in range(50):
        await dispatch.store.ping()
    assert dispatch.store.calls == before


async def test_low_comes_when_there_is_room_for_it(dispatch: Dispatch) -> None:
    """A low job that found the window full is delivered once others have left."""
    dispatch.hold(210)
    _, job_ = posted = one(priority=LOW, lane="low")
    await dispatch.store.keep(posted[0])
    await dispatch.begin()
    assert job_.id in ids(await dispatch.work(211))


async def test_a_due_high_job_is_claimed_though_the_window_is_full_of_normal(dispatch: Dispatch) -> None:
    """The part that normal leaves to high is enough to look for high jobs in the store."""
    number = 0
    while dispatch.queue.room(NORMAL):
        dispatch.queue.put(Claim(job(lane=f"lane-{number}", claim=1), event_record()))
        number += 1
    _, job_ = posted = one(priority=HIGH, lane="high")
    await dispatch.store.keep(posted[0])
    await dispatch.begin()
    assert (await dispatch.next()).job.id == job_.id


# One lane's trouble is its own ---------------------------------------------------------------------


async def test_a_dead_lanes_backlog_keeps_no_other_lane_waiting(dispatch: Dispatch) -> None:
    """Thousands of due jobs of a lane that hangs: a new job of any other is handed out next, each time."""
    await dispatch.store.keep(*(submission(100, lane="dead") for _ in range(50)))
    await dispatch.begin()
    for _ in range(8):
        assert (await dispatch.next()).job.lane == "dead"
    for number in range(30):
        posted, job_ = one(lane=f"alive-{number % 3}")
        await dispatch.post(posted)
        claim = await dispatch.next()
        assert claim.job.id == job_.id
        dispatch.queue.done(claim)
    assert dispatch.most_held <= dispatch.queue.capacity // 2 + 1


async def test_a_dead_lanes_backlog_is_not_claimed_again_and_again(dispatch: Dispatch) -> None:
    """While its part of the window is full, its lane costs the store nothing."""
    await dispatch.store.keep(*(submission(100, lane="dead") for _ in range(10)))
    await dispatch.begin()
    for _ in range(8):
        await dispatch.next()
    before = dispatch.store.calls.copy()
    for _ in range(10):
        await dispatch.post(one(lane="alive")[0])
        await dispatch.work(1)
    await dispatch.at_rest()
    assert dispatch.store.calls - before == {"add": 10}


async def test_many_lanes_that_are_behind_take_turns(dispatch: Dispatch) -> None:
    """With more lanes than one claim can serve, each backlogged beyond it, none waits for others to end."""
    await dispatch.begin()
    held = dispatch.hold(dispatch.queue.capacity)
    names = [f"lane-{number}" for number in range(300)]
    for _ in range(4):
        await dispatch.post(*(one(lane=name)[0] for name in names))
    for _ in held:
        dispatch.queue.done(await dispatch.next())
    rounds = Counter(claim.job.lane for claim in await dispatch.work(700))
    assert set(rounds) == set(names)


async def test_lanes_known_to_be_behind_are_bounded(
    dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past a number of lanes the whole store is looked through instead; nothing is lost by it."""
    monkeypatch.setattr(agenda, "FULL", 10)
    await dispatch.begin()
    held = dispatch.hold(dispatch.queue.capacity)
    posted = [one(lane=f"lane-{number}") for number in range(50)]
    await dispatch.post(*(each for each, _ in posted))
    await dispatch.at_rest()
    assert all(len(each) <= 20 for each in dispatch.dispatcher._agendas)
    taken = ids(await dispatch.work(len(held) + 50))
    assert {job_.id for _, job_ in posted} <= set(taken)


async def test_a_paused_lanes_new_jobs_come_when_it_resumes(dispatch: Dispatch) -> None:
    """They stay in the store meanwhile."""
    await dispatch.begin()
    dispatch.queue.stop("a", Stop(PAUSED, "the relay is down", NOW + 3600), 3600)
    posted = [one(lane="a") for _ in range(3)]
    await dispatch.post(*(each for each, _ in posted))
    await dispatch.at_rest()
    assert not dispatch.queue.claims
    lane = dispatch.queue.lane("a")
    assert lane is not None
    dispatch.queue._resume(lane)
    assert ids(await dispatch.work(3)) == [job_.id for _, job_ in posted]


# When it is time -----------------------------------------------------------------------------------


async def test_a_scheduled_job_comes_when_it_is_due_and_not_before(dispatch: Dispatch) -> None:
    """Whether it was stored before the start or after, and by the injected clock alone."""
    old, new = one(next_attempt_at=NOW + 3600), one(next_attempt_at=NOW + 7200)
    await dispatch.store.keep(old[0])
    await dispatch.begin()
    await dispatch.post(new[0])
    dispatch.clock.advance(3599.9)
    dispatch.dispatcher.sweep()
    await dispatch.at_rest()
    assert not dispatch.queue.claims
    dispatch.clock.advance(0.1)
    dispatch.dispatcher._wake.set()
    assert ids(await dispatch.work(1)) == [old[1].id]
    dispatch.clock.advance(3600)
    dispatch.dispatcher._wake.set()
    assert ids(await dispatch.work(1)) == [new[1].id]


async def test_it_wakes_by_itself_when_a_job_becomes_due(tmp_path: Path) -> None:
    """Nobody has to tell it that time has passed."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    dispatch = Dispatch(tmp_path)
    dispatch.dispatcher._clock = lambda: NOW + loop.time() - begun
    await dispatch.store.open(NOW)
    await dispatch.store.keep(one(next_attempt_at=NOW + 0.1)[0])
    await dispatch.begin()
    assert not dispatch.queue.claims
    await dispatch.work(1)
    assert loop.time() - begun >= 0.1
    await dispatch.end()
    await dispatch.store.close()


async def test_a_retried_job_comes_when_its_delay_is_over(dispatch: Dispatch) -> None:
    """What a worker settled to a later time is claimed anew then, under a new fence."""
    await dispatch.begin()
    await dispatch.post(one()[0])
    claim = await dispatch.next()
    await dispatch.store.settle(settlement(claim, JobState.PENDING, next_attempt_at=NOW + 5))
    dispatch.queue.done(claim)
    dispatch.dispatcher.due(claim.job.lane, NORMAL, NOW + 5)
    await dispatch.at_rest()
    assert not dispatch.queue.claims
    dispatch.clock.advance(5)
    dispatch.dispatcher.sweep()
    again = await dispatch.next()
    assert again.job.id == claim.job.id
    assert (again.job.claim, again.job.attempts) == (2, 1)


async def test_a_job_that_becomes_due_during_a_sweep_is_not_overlooked(dispatch: Dispatch) -> None:
    """Due only once the sweep has looked at its lane, it comes all the same."""

    async def time_passes() -> None:
        dispatch.store.after.pop("lanes", None)
        dispatch.clock.advance(10)

    await dispatch.store.keep(one(priority=HIGH, next_attempt_at=NOW + 5)[0])
    dispatch.store.after["lanes"] = time_passes
    await dispatch.begin()
    async with asyncio.timeout(5):
        await dispatch.work(1)


async def test_a_job_that_comes_in_during_a_claim_of_its_lane_is_not_overlooked(dispatch: Dispatch) -> None:
    """The claim looked before it was there, and said that its lane has nothing more."""
    late, late_job = one(lane="a")

    async def post() -> None:
        dispatch.store.after.pop("claim", None)
        await dispatch.post(late)

    await dispatch.store.keep(one(lane="a")[0])
    dispatch.store.after["claim"] = post
    await dispatch.begin()
    async with asyncio.timeout(5):
        assert (await dispatch.work(2))[1].job.id == late_job.id


async def test_ten_thousand_lanes_that_wait_cost_nothing(dispatch: Dispatch) -> None:
    """Lanes in back-off are looked at once, at the start; then each when its own time has come."""
    await dispatch.store.keep(
        *(one(lane=f"lane-{number}", next_attempt_at=NOW + 60 + number)[0] for number in range(10_000))
    )
    await dispatch.begin()
    before = dispatch.store.calls.copy()
    dispatch.clock.advance(62)
    dispatch.dispatcher.due("lane-0", NORMAL, dispatch.clock())
    await dispatch.post(one(lane="alive")[0])
    assert Counter(claim.job.lane for claim in await dispatch.work(4)) == Counter(
        ["alive", "lane-0", "lane-1", "lane-2"]
    )
    await dispatch.at_rest()
    assert dispatch.store.calls - before == {"add": 1, "claim": 1}


async def test_a_look_through_the_store_keeps_no_new_job_waiting(dispatch: Dispatch) -> None:
    """Once all is known, the safety net is cast beside the way from memory."""
    await dispatch.begin()
    looking, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        looking.set()
        await go_on.wait()

    posted, job_ = one(lane="a")
    dispatch.store.before["lanes"] = hold
    dispatch.dispatcher.sweep()
    await looking.wait()
    await dispatch.post(posted)
    assert ids(await dispatch.work(1)) == [job_.id]
    go_on.set()


async def test_a_sweep_asked_for_during_another_is_made(dispatch: Dispatch) -> None:
    """The one under way may have looked before there was what it is asked for, even at its beginning."""
    await dispatch.begin()
    posted, job_ = one(lane="a", priority=HIGH)

    async def requeue() -> None:
        dispatch.store.after.pop("lanes")
        await dispatch.store.add([posted])
        dispatch.dispatcher.sweep()

    dispatch.store.after["lanes"] = requeue
    dispatch.dispatcher.sweep()
    async with asyncio.timeout(5):
        assert ids(await dispatch.work(1)) == [job_.id]


async def test_a_held_lanes_backlog_waits_in_the_store(dispatch: Dispatch) -> None:
    """It isn't claimed, and comes when the lane is resumed."""
    held = Limits(held=Held("endpoint_paused", "an operator paused it"))
    limits = {"a": held}
    dispatch.queue._limits_of = lambda lane: limits.get(lane, UNLIMITED)
    await dispatch.store.keep(*(one(lane="a")[0] for _ in range(5)))
    await dispatch.begin()
    await dispatch.post(one(lane="a")[0], one(lane="b")[0])
    assert [claim.job.lane for claim in await dispatch.work(1)] == ["b"]
    await dispatch.at_rest()
    assert dispatch.store.calls["claim"] == 0
    limits.clear()
    dispatch.queue.refresh("a")
    dispatch.dispatcher.due("a", NORMAL, NOW)
    assert len(await dispatch.work(6)) == 6


@pytest.mark.parametrize("call", ["claim", "add"])
@pytest.mark.parametrize("stopped", [True, False])
async def test_what_is_claimed_of_a_lane_as_it_is_stopped_goes_back(
    dispatch: Dispatch, call: str, *, stopped: bool
) -> None:
    """It takes up no room for as long as its lane waits, and is PENDING for whoever asks."""
    limits: dict[str, Limits] = {}
    dispatch.queue._limits_of = lambda lane: limits.get(lane, UNLIMITED)
    refused: list[tuple[int, float]] = []
    dispatch.queue.on_refused = lambda claims, until: refused.append((len(claims), until))
    await dispatch.begin()

    async def stop() -> None:
        dispatch.store.before.pop(call)
        if stopped:
            dispatch.queue.stop("a", Stop(PAUSED, "the relay is down", NOW + 3600), 3600)
        else:
            limits["a"] = Limits(held=Held("endpoint_paused", "an operator paused it"))
            dispatch.queue.refresh("a")

    dispatch.store.before[call] = stop
    if call == "claim":
        dispatch.store.before.pop(call)
        await dispatch.store.keep(*(one(lane="a")[0] for _ in range(20)))
        dispatch.store.before[call] = stop
        dispatch.dispatcher.due("a", NORMAL, NOW)
    else:
        await dispatch.post(*(one(lane="a")[0] for _ in range(20)))
    await dispatch.store.called(call)
    await dispatch.at_rest()
    assert refused == [(20, NOW + 3600 if stopped else 0.0)]
    assert not dispatch.queue.claims


async def test_a_slow_lane_is_claimed_as_it_can_send(dispatch: Dispatch) -> None:
    """Of a backlog at one a second no more than two are in the window at any time."""
    now = 0.0
    dispatch.queue.timer = lambda: now
    dispatch.queue._limits_of = lambda lane: Limits(rate=1) if lane == "slow" else UNLIMITED
    await dispatch.store.keep(*(one(lane="slow")[0] for _ in range(100)))
    await dispatch.begin()
    for _ in range(10):
        await dispatch.work(1)
        await dispatch.at_rest()
        assert len(dispatch.queue.claims) <= 2
        lane = dispatch.queue.lane("slow")
        assert lane is not None
        assert lane.waking is not None
        now += 1
        lane.waking.cancel()
        dispatch.queue._awake(lane)


async def test_lanes_that_may_send_only_much_later_leave_the_window_to_others(dispatch: Dispatch) -> None:
    """More lanes at one an hour than there is room, each with a backlog: what is new goes at once."""
    dispatch.queue._limits_of = lambda lane: Limits(rate=1 / 3600) if "slow" in lane else UNLIMITED
    await dispatch.store.keep(*(submission(3, lane=f"slow-{number}") for number in range(400)))
    await dispatch.begin()
    await dispatch.work(400)
    await dispatch.at_rest()
    assert not dispatch.queue.claims
    before = dispatch.store.calls.copy()
    await dispatch.post(one(lane="alive")[0])
    assert (await dispatch.work(1))[0].job.lane == "alive"
    await dispatch.at_rest()
    assert (dispatch.store.calls - before)["claim"] == 0


async def test_a_lane_that_may_take_few_has_others_take_no_fewer(dispatch: Dispatch) -> None:
    """Of a backlog beside it as much is claimed at once as if it were alone."""
    dispatch.queue._limits_of = lambda lane: Limits(rate=1) if lane == "slow" else UNLIMITED
    await dispatch.begin()
    await dispatch.store.keep(*(submission(100, lane=lane) for lane in ("slow", "fast")))
    before = dispatch.store.calls.copy()
    dispatch.dispatcher.sweep()
    await dispatch.at_rest()
    assert Counter(claim.job.lane for claim in dispatch.queue.claims.values())["fast"] >= 64
    assert (dispatch.store.calls - before)["claim"] <= 4


# When the store fails ------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a failed dispatcher try again without the wait."""
    monkeypatch.setattr(module, "_RETRY_AFTER", 0.0)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("call", ["claim", "lanes"])
async def test_a_claim_that_fails_is_survived(dispatch: Dispatch, call: str) -> None:
    """It is counted, and tried again until the store is back."""
    dispatch.store.failing[call] = 3
    _, job_ = posted = one()
    await dispatch.store.keep(posted[0])
    await dispatch.begin()
    assert ids(await dispatch.work(1)) == [job_.id]
    assert dispatch.metrics.registry.get_sample_value("notifier_errors_total", {"part": "dispatcher"}) == 3


@pytest.mark.usefixtures("soon")
async def test_it_says_that_it_fails_while_it_does(dispatch: Dispatch) -> None:
    """From the round that failed to the end of the first that didn't."""
    seen: list[bool] = []

    async def look() -> None:
        seen.append(dispatch.dispatcher.failing)

    await dispatch.store.keep(one()[0])
    dispatch.store.before["claim"] = look
    dispatch.store.failing["claim"] = 2
    await dispatch.begin()
    assert seen == [True]
    assert not dispatch.dispatcher.failing


# The end -------------------------------------------------------------------------------------------


async def test_once_stopped_it_claims_nothing_more(dispatch: Dispatch) -> None:
    """What is offered after stays PENDING in the store."""
    await dispatch.begin()
    await dispatch.end()
    before = dispatch.store.calls.copy()
    _, job_ = posted = one()
    await dispatch.post(posted[0])
    assert dispatch.store.calls - before == {"add": 1}
    assert (await dispatch.store.job(job_.id)).status is JobState.PENDING
    assert not dispatch.queue.claims


async def test_a_stop_during_a_claim_loses_nothing(dispatch: Dispatch) -> None:
    """The round that it is in ends first: what the store gave out is in the window, to be released."""
    await dispatch.store.keep(one()[0])

    async def stop() -> None:
        dispatch.dispatcher.stop()

    dispatch.store.before["claim"] = stop
    await dispatch.dispatcher.run()
    assert len(dispatch.queue.close()) == 1
