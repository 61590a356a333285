"""Dispatch as a whole in hours of virtual time: apps, workers, operators and receivers do whatever they like.

A whole notifier on a real store, with nothing but its channel and its time put in its place. What is played
comes from a seed. While it plays, no lane's limits are ever exceeded and nothing goes out that is held; once
all is well again, every job that was accepted has come to its end, without the help of a safety net.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog
from msgspec import Struct
from support.builders import NOW, event_record, job
from support.virtual_time import VirtualLoop, run
from support.watched_store import WatchedStore

from notifier import service
from notifier.channels import FunctionChannel, Message, Receipt
from notifier.config import BreakerSection, Config, Duration, Lanes, Retry, Workers
from notifier.dispatch import dispatcher
from notifier.dispatch.lanes import Lane
from notifier.endpoints.drafts import EndpointChanges, EndpointDraft
from notifier.errors import (
    EndpointDeletedError,
    IllegalTransitionError,
    NotFoundError,
    Permanent,
    StoreUnavailableError,
    Transient,
    Unavailable,
)
from notifier.model import Claim, Job, JobState, Priority
from notifier.service import Notifier, Overrides
from notifier.store.base import JobFilter, Submission

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState
LANES = ("free", "mail", "slow", "narrow", "burst")
MOODS = ("well", "well", "down", "picky", "busy", "broken", "wrong", "mixed")
HOURS = 3600.0
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that is played is worth a word on the terminal."""
    caplog.set_level(logging.CRITICAL)
    with structlog.testing.capture_logs():
        yield


class LateStore(WatchedStore):
    """A store that takes its time, before and after it does something; it knows whether it does."""

    def __init__(self, path: str | Path, seed: int) -> None:
        super().__init__(path)
        self.chance = Random(seed)  # noqa: S311 - it is to be the same each time
        self.late = False
        self.resent: set[str] = set()
        self.under_way = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def requeue_some(self, wanted: JobFilter, *, now: float, limit: int) -> list[str]:
        """Keep in mind which jobs began anew."""
        moved = await super().requeue_some(wanted, now=now, limit=limit)
        self.resent.update(moved)
        return moved

    async def requeue(self, job_id: str, now: float) -> Job:
        """Keep in mind that this job begins anew."""
        self.resent.add(job_id)
        return await super().requeue(job_id, now)

    def _submit(self, *operation: Any, **kind: Any) -> asyncio.Future[Any]:
        submit = super()._submit
        return asyncio.ensure_future(self._counted(lambda: submit(*operation, **kind)))

    async def _run_on(self, which: int, work: Any) -> Any:
        run_on = super()._run_on
        return await self._counted(lambda: run_on(which, work))

    async def _counted(self, call: Callable[[], Awaitable[Any]]) -> Any:
        await self._rest()
        self.under_way += 1
        self.idle.clear()
        try:
            return await call()
        finally:
            self.under_way -= 1
            if not self.under_way:
                self.idle.set()
            await self._rest()

    async def _rest(self) -> None:
        if self.late and self.chance.random() < 0.3:
            await asyncio.sleep(self.chance.choice((0.01, 0.2, 1.0)))


class Allowance(Struct):
    """What a lane may send just now, reckoned apart from all that is tested."""

    rate: float | None
    burst: float
    tokens: float
    at: float
    most: float
    flying: int = 0

    def change(self, rate: float | None, burst: float, most: float, now: float) -> None:
        """Change it."""
        self._fill(now)
        fresh = self.rate is None or self.tokens >= self.burst  # after a quiet while
        self.rate, self.burst, self.most = rate, burst, most
        self.tokens = burst if fresh else min(self.tokens, burst)

    def take(self, now: float) -> None:
        """Send one; it must be allowed."""
        self._fill(now)
        self.flying += 1
        assert self.flying <= self.most
        if self.rate is not None:
            self.tokens -= 1
            assert self.tokens >= -1e-3 * max(1.0, self.rate), self

    def _fill(self, now: float) -> None:
        if self.rate is not None:
            self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now


class Play:
    """One play: the notifier, and everybody around it."""

    def __init__(self, folder: Path, seed: int, *, faults: bool) -> None:
        self.chance = Random(seed)  # noqa: S311 - it is to be the same each time
        self.faults = faults
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.accepted: dict[str, Job] = {}
        self.endpoints: list[str] = []
        self.deleted: set[str] = set()
        self.moods: dict[str, str] = {}
        self.spent: Counter[str] = Counter()
        self.allowances: dict[str, Allowance] = {}
        self.handed_out: dict[str, float] = {}
        config = Config(
            directory=folder,
            workers=Workers(concurrency=4, claim_timeout=Duration(60)),
            retry=Retry(schedule=tuple(map(Duration, (5, 30, 120, 600))), retry_after_cap=Duration(900)),
            breaker=BreakerSection(failures=3, window_attempts=8, open_for=tuple(map(Duration, (10, 60)))),
            lanes=(
                Lanes(lane="slow", rate_limit=0.5),
                Lanes(lane="burst", rate_limit=2, burst=5, max_in_flight=3),
                Lanes(lane="narrow", max_in_flight=1),
            ),
        )
        channel = FunctionChannel("webhook", self.deliver, timeout=60)
        self.notifier = Notifier(
            config,
            Overrides(clock=self.clock, random=self.chance.random, channels=lambda _: {"webhook": channel}),
        )
        self.store: LateStore = self.notifier.store  # type: ignore[assignment]  # see `played`
        self.queue = self.notifier.queue
        self.queue.capacity, self.queue.timer = 24, loop.time
        self._hand_out, self.queue._hand_out = self.queue._hand_out, self.watch  # type: ignore[method-assign]
        self._landed, self.queue.landed = self.queue.landed, self.landed  # type: ignore[method-assign]
        self.notifier.upkeep.chores = [each for each in self.notifier.upkeep.chores if each.name == "claims"]

    def clock(self) -> float:
        """Seconds since the epoch."""
        return NOW + self.loop.now

    # What may go out -----------------------------------------------------------------------------

    def watch(self, lane: Lane, priority: int) -> Claim:
        """See a job go to a worker: its lane must allow it."""
        claim = self._hand_out(lane, priority)
        assert lane.stop is None
        assert self.queue.limits(lane.name).held is None
        if lane.breaker is not None and lane.breaker.tripped:
            assert sum(lane.in_flight) == 1
        self.allowance(lane.name).take(self.loop.now)
        self.handed_out[claim.job.id] = self.loop.now
        assert len(self.queue.claims) <= self.queue.capacity
        return claim

    def landed(self, claim: Claim) -> None:
        """See a worker finish with a job."""
        self.allowance(claim.job.lane).flying -= 1
        self._landed(claim)

    def allowance(self, lane: str) -> Allowance:
        """The allowance of a lane, which nothing was ever taken of when it is first asked for."""
        if lane not in self.allowances:
            limits = self.queue.limits(lane)
            self.allowances[lane] = Allowance(None, 0, 0, 0, float("inf"))
            self.allow(lane, limits.rate, limits.burst, limits.max_in_flight)
        return self.allowances[lane]

    def allow(self, lane: str, rate: float | None, burst: float | None, most: int | None) -> None:
        """What a lane is allowed from now on."""
        whole = max(1.0, rate or 0) if burst is None else burst
        self.allowance(lane).change(rate, whole, float("inf") if most is None else most, self.loop.now)

    async def deliver(self, message: Message) -> Receipt:
        """Play the receiver of a job's lane, in the mood that it is in."""
        lane = message.job.lane
        known = self.queue.lane(lane)
        assert known is not None
        assert known.stop is None or self.handed_out[message.id] == self.loop.now
        mood = self.moods.get(lane, "well")
        if mood == "mixed":
            mood = self.chance.choice(MOODS)
        self.spent[message.id] += mood != "broken"
        await asyncio.sleep(self.chance.choice((0.0, 0.01, 0.3, 2.0, 90.0 if mood == "down" else 1.0)))
        if mood == "broken":
            raise Unavailable("the relay is down")
        if mood == "down":
            raise Transient("no connection", lane_fault=True)
        if mood == "busy":
            raise Transient("busy", retry_after=self.chance.choice((1.0, 20.0, 5000.0)), lane_fault=True)
        if mood == "picky":
            raise Transient("not this one")
        if mood == "wrong":
            raise Permanent("never")
        return Receipt(status_code=200)

    # What people do ------------------------------------------------------------------------------

    def lane(self) -> tuple[str, str | None]:
        """A lane, and the endpoint that it is of, if it is."""
        if self.endpoints and self.chance.random() < 0.5:
            endpoint = self.chance.choice(self.endpoints)
            return f"endpoint:{endpoint}", endpoint
        return self.chance.choice(LANES), None

    async def post(self) -> None:
        """An app posts events, most of them to one lane."""
        made = []
        for _ in range(self.chance.choice((1, 1, 1, 3, 30))):
            lane, endpoint = self.lane()
            event = event_record(created_at=self.clock())
            priority = self.chance.choice([*Priority])
            at = self.clock() + self.chance.choice((0.0, 0.0, 0.0, 0.0, 7.0, 500.0))
            made.append(
                Submission(
                    event,
                    tuple(
                        job(
                            event,
                            lane=lane,
                            endpoint=endpoint,
                            priority=priority,
                            next_attempt_at=at,
                            max_attempts=5,
                        )
                        for _ in range(self.chance.choice((1, 1, 2)))
                    ),
                )
            )
        dispatcher = self.notifier.dispatcher
        claimed = [dispatcher.claim_new(each, self.notifier.clock()) for each in made]
        added = await self.store.add(claimed)
        self.accepted |= {job.id: job for each in added for job in each.jobs}
        dispatcher.stored(added)

    async def subscribe(self) -> None:
        """An operator makes an endpoint."""
        draft = EndpointDraft(
            url="https://receiver.example/hooks",
            event_types=("nothing",),
            rate_limit=self.chance.choice((None, None, 0.2, 3.0)),
            max_in_flight=self.chance.choice((None, None, 1, 3)),
        )
        if len(self.endpoints) < 4:
            endpoint, _ = await self.notifier.endpoints.create(draft)
            self.endpoints.append(endpoint.id)

    async def change(self) -> None:
        """An operator changes an endpoint's limits."""
        if self.endpoints:
            endpoint = self.chance.choice(self.endpoints)
            rate = self.chance.choice((None, 0.01, 1.0, 5.0))
            most = self.chance.choice((None, 1, 2))
            changes = EndpointChanges(rate_limit=rate, max_in_flight=most)
            await self.notifier.endpoints.change(endpoint, changes)

    async def pause(self) -> None:
        """An operator pauses an endpoint."""
        if self.endpoints:
            await self.notifier.endpoints.pause(self.chance.choice(self.endpoints))

    async def resume(self) -> None:
        """An operator resumes an endpoint."""
        if self.endpoints:
            await self.notifier.endpoints.resume(self.chance.choice(self.endpoints))

    async def delete(self) -> None:
        """An operator deletes an endpoint."""
        if self.endpoints and self.chance.random() < 0.3:
            endpoint = self.chance.choice(self.endpoints)
            self.endpoints.remove(endpoint)
            self.deleted.add(endpoint)
            await self.notifier.endpoints.delete(endpoint)

    async def requeue(self) -> None:
        """An operator sends a job once more."""
        if self.accepted:
            await self.notifier.requeue(self.chance.choice([*self.accepted]))

    async def requeue_all(self) -> None:
        """An operator sends all that failed once more."""
        await self.notifier.requeue_matching(JobFilter(status=FAILED))

    async def cancel(self) -> None:
        """An operator withdraws a job."""
        if self.accepted:
            await self.notifier.cancel(self.chance.choice([*self.accepted]))

    async def turn(self) -> None:
        """A receiver changes its mood."""
        self.moods[self.lane()[0]] = self.chance.choice(MOODS)

    async def trouble(self) -> None:
        """The store fails a few calls, if this is played."""
        if self.faults:
            self.store.failing[self.chance.choice(("claim", "lanes", "settle"))] += 1

    async def forget(self) -> None:
        """So many lanes come by that those which aren't needed are forgotten."""
        self.queue._forget_past()

    async def act(self) -> None:
        """Somebody does something."""
        deeds: list[Callable[[], Any]] = (
            [self.post] * 8 + [self.turn] * 3 + [self.change, self.pause, self.resume] * 2
        )
        deeds += [
            self.subscribe,
            self.delete,
            self.requeue,
            self.requeue_all,
            self.cancel,
            self.trouble,
            self.forget,
        ]
        refused = (NotFoundError, IllegalTransitionError, EndpointDeletedError, StoreUnavailableError)
        with suppress(*refused):
            await self.chance.choice(deeds)()

    # Time ----------------------------------------------------------------------------------------

    async def at_rest(self) -> None:
        """Let everything be done that can be done now."""
        calm = 0
        while calm < 6:
            await self.store.idle.wait()
            await asyncio.sleep(0)
            calm = calm + 1 if self.store.idle.is_set() else 0

    async def time_passes(self, seconds: float) -> None:
        """Let so much time pass, timer by timer."""
        end = self.loop.now + seconds
        while (at := self.loop.next_timer) is not None and at <= end:
            self.loop.now = max(self.loop.now, at)
            await self.at_rest()
        self.loop.now = end
        await self.at_rest()

    async def play(self, steps: int) -> None:
        """Have people act, at once or one after the other."""
        self.store.late = True
        acting: list[asyncio.Task[None]] = []
        for _ in range(steps):
            acting += [asyncio.create_task(self.act()) for _ in range(self.chance.choice((1, 1, 2, 4)))]
            await self.time_passes(self.chance.choice((0.0, 0.0, 0.1, 1.0, 5.0, 40.0)))
        await self.time_passes(60.0)
        self.store.late = False
        await asyncio.gather(*acting)

    async def recover(self) -> None:
        """All is well from now on, and nobody does anything any more."""
        self.moods.clear()
        self.store.failing.clear()
        for each in self.endpoints:
            await self.notifier.endpoints.resume(each)
            await self.notifier.endpoints.change(each, EndpointChanges(rate_limit=20))

    async def unfinished(self) -> list[Job]:
        """The jobs that have not come to their end."""
        found = [await self.store.job(each) for each in self.accepted]
        return [each for each in found if each.status in {PENDING, PROCESSING}]


async def played(folder: Path, seed: int, *, faults: bool) -> None:
    """Play, recover, and look."""
    play = Play(folder, seed, faults=faults)
    changed = play.notifier._endpoint_changed

    def heard(endpoint: Any) -> None:
        if endpoint.deleted:
            play.allow(endpoint.lane, None, None, None)
        else:
            play.allow(endpoint.lane, endpoint.rate_limit, None, endpoint.max_in_flight)
        changed(endpoint)

    play.notifier.endpoints._kept._on_change = heard
    async with play.notifier:
        await play.play(60)
        await play.recover()
        for _ in range(40):
            await play.time_passes(HOURS / 10)
            if not await play.unfinished():
                break
        left = await play.unfinished()
        assert not left, [(each, (await play.notifier.why(each.id)).reason) for each in left[:5]]
        assert not play.queue.claims
        assert play.queue.busy == 0
        for each in set(play.accepted) - play.store.resent:
            assert (await play.store.job(each)).attempts == play.spent[each]
        assert not any(task.done() for task in play.notifier.pool._workers)


@pytest.mark.parametrize("seed", range(5))
def test_every_job_comes_to_its_end(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was done meanwhile; without a safety net, as nothing was lost that it is there for."""
    monkeypatch.setattr(dispatcher, "_SAFETY_NET", 1e9)
    monkeypatch.setattr(service, "open_store", lambda *_: LateStore(tmp_path / "notifier.db", seed))
    run(played(tmp_path, seed, faults=False))


@pytest.mark.parametrize("seed", range(100, 103))
def test_every_job_comes_to_its_end_though_the_store_fails(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of the dispatcher and the workers that fail are made up for."""
    monkeypatch.setattr(service, "open_store", lambda *_: LateStore(tmp_path / "notifier.db", seed))
    run(played(tmp_path, seed, faults=True))
