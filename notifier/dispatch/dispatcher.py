"""Keeps the window filled: takes over what was just committed, and claims from the store what is due.

While a lane has no older due work in the store, its new jobs go from memory straight to the queue. Lanes
known to have more in the store are `behind`, and are caught up as they get room.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice

import msgspec
import structlog

from notifier.dispatch.queue import FairQueue
from notifier.metrics import Metrics
from notifier.model import Claim, EventRecord, Job, JobState, Priority
from notifier.store.base import WINDOW_BYTES, Store

BATCH = 500
"""Jobs that one claim takes at most."""

_ENOUGH = {Priority.HIGH: 16, Priority.NORMAL: 8, Priority.LOW: 8}
"""The part of the window (1/16, 1/8) whose being free makes it worth to look through the store. What normal
jobs leave to high ones is always enough for those."""
_LANES_AT_ONCE = 256
_MAX_BEHIND = 10_000
_SWEEP_PAUSE = 0.02
_SAFETY_NET = 30.0
"""Seconds after which the store is looked through even if nobody said that anything is due."""
_RETRY_AFTER = 1.0

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Feeds one queue from one store."""

    def __init__(
        self,
        store: Store,
        queue: FairQueue,
        *,
        clock: Callable[[], float],
        claim_timeout: float,
        metrics: Metrics,
    ) -> None:
        self.failing = False
        """Whether the last round raised; `/readyz` says so."""
        self._store = store
        self._queue = queue
        self._clock = clock
        self._claim_timeout = claim_timeout
        self._metrics = metrics
        self._handed: list[Claim] = []
        self._behind: tuple[dict[str, None], ...] = tuple({} for _ in Priority)
        self._unswept = set(Priority)
        self._due_at: float | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        queue.on_room = self._room_freed

    # What others tell it -------------------------------------------------------------------------

    def offer(self, event: EventRecord, jobs: Sequence[Job]) -> None:
        """Take note of jobs that were just committed."""
        now = self._clock()
        for job in jobs:
            if job.status is not JobState.PENDING or job.next_attempt_at is None:
                continue
            if job.next_attempt_at > now:
                self.due(job.next_attempt_at)
            elif self._can_take_over(job):
                self._handed.append(Claim(job, event))
            else:
                self._fall_behind(job.priority, job.lane)
        self._wake.set()

    def due(self, at: float) -> None:
        """Take note that a job in the store becomes due at a time."""
        if self._due_at is None or at < self._due_at:
            self._due_at = at
            self._wake.set()

    def sweep(self) -> None:
        """Look through the whole store soon: something became due that can't be told lane by lane."""
        self._unswept.update(Priority)
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; `run` returns after the round it is in."""
        self._stopping = True
        self._wake.set()

    # The loop ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the window filled until `stop`."""
        while not self._stopping:
            try:
                if not await self._round():
                    await self._wait(self._until_due())
                self.failing = False
            except Exception:
                self.failing = True
                self._metrics.errors.labels("dispatcher").inc()
                _log.exception("the dispatcher failed to claim; it goes on", retry_in=_RETRY_AFTER)
                self.sweep()
                await asyncio.sleep(_RETRY_AFTER)

    async def _round(self) -> bool:
        """Do the most pressing thing. False: there is nothing to do now."""
        if self._handed:
            await self._take_over()
            return True
        if any(map(self._can_sweep, Priority)):
            await self._sweep()
            return True
        return await self._catch_up()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            self._due_at = None
            self.sweep()
        finally:
            self._wake.clear()

    def _until_due(self) -> float:
        if self._due_at is None:
            return _SAFETY_NET
        return min(_SAFETY_NET, max(_SWEEP_PAUSE, self._due_at - self._clock()))

    def _room_freed(self) -> None:
        if self._unswept or any(self._behind):
            self._wake.set()

    # Taking over ---------------------------------------------------------------------------------

    def _can_take_over(self, job: Job) -> bool:
        if job.priority in self._unswept or self._stopping or job.lane in self._behind[job.priority]:
            return False
        return len(self._handed) < self._queue.share(job.lane, job.priority)

    def _fall_behind(self, priority: int, lane: str) -> None:
        self._behind[priority].setdefault(lane)
        if len(self._behind[priority]) > _MAX_BEHIND:
            self._behind[priority].clear()
            self._unswept.add(Priority(priority))

    async def _take_over(self) -> None:
        """Claim what was handed over; what meanwhile was claimed or cancelled otherwise is dropped."""
        handed = self._handed[:BATCH]
        now = self._clock()
        try:
            fences = await self._store.claim_these(
                [claim.job.id for claim in handed], now=now, until=now + self._claim_timeout
            )
        finally:
            # Not before: until it is in the window, what was handed over takes up room all the same.
            del self._handed[: len(handed)]
        for claim in handed:
            if (fence := fences.get(claim.job.id)) is not None:
                job = msgspec.structs.replace(
                    claim.job, status=JobState.PROCESSING, claim=fence, next_attempt_at=None, updated_at=now
                )
                self._queue.put(Claim(job, claim.event))

    # Claiming ------------------------------------------------------------------------------------

    def _has_room(self, priority: Priority) -> bool:
        """Whether enough is free to be worth a claim."""
        return self._queue.room(priority) * _ENOUGH[priority] >= self._queue.capacity

    def _can_sweep(self, priority: Priority) -> bool:
        return priority in self._unswept and self._has_room(priority)

    async def _sweep(self) -> None:
        """Claim due jobs of all lanes; then ask when the next become due."""
        begun = self._clock()
        self._due_at = None
        for priority in filter(self._can_sweep, Priority):
            await self._sweep_one(priority)
        # Since the beginning: what became due meanwhile may have come too late for its claim.
        if (due := await self._store.next_due(begun)) is not None:
            self.due(due)

    async def _sweep_one(self, priority: Priority) -> None:
        self._unswept.discard(priority)
        crowded = self._queue.crowded(priority)
        limit = min(BATCH, self._queue.room(priority))
        per_lane = max(1, limit // 2)
        claims = await self._claim(priority, limit, per_lane, exclude=crowded)
        full = (lane for lane, count in _by_lane(claims).items() if count >= per_lane)
        for lane in (*crowded, *full):
            self._fall_behind(priority, lane)
        if _cut_short(claims, limit):
            self._unswept.add(priority)

    async def _catch_up(self) -> bool:
        """Claim for lanes that are behind and have room again, the highest priority first."""
        for priority in Priority:
            behind = self._behind[priority]
            ready = (lane for lane in behind if not self._queue.is_crowded(lane, priority))
            lanes = [*islice(ready, _LANES_AT_ONCE)]
            limit = min(BATCH, self._queue.room(priority))
            if lanes and limit and (priority is Priority.HIGH or self._has_room(priority)):
                await self._catch_up_lanes(priority, lanes, limit)
                return True
        return False

    async def _catch_up_lanes(self, priority: int, lanes: Sequence[str], limit: int) -> None:
        """Claim for some lanes that are behind; those served, and still behind, are last in turn then."""
        behind = self._behind[priority]
        per_lane = max(1, min(self._queue.share(lane, priority) for lane in lanes))
        claims = await self._claim(priority, limit, per_lane, only=lanes)
        served, cut_short = _by_lane(claims), _cut_short(claims, limit)
        for lane in served if cut_short else lanes:
            behind.pop(lane, None)
            if cut_short or served[lane] >= per_lane:
                self._fall_behind(priority, lane)

    async def _claim(
        self,
        priority: int,
        limit: int,
        per_lane: int,
        *,
        exclude: Sequence[str] = (),
        only: Sequence[str] | None = None,
    ) -> list[Claim]:
        now = self._clock()
        claims = await self._store.claim(
            priority=priority,
            limit=limit,
            per_lane=per_lane,
            exclude=exclude,
            only=only,
            now=now,
            until=now + self._claim_timeout,
        )
        for claim in claims:
            self._queue.put(claim)
        return claims


def _by_lane(claims: Sequence[Claim]) -> Counter[str]:
    """How many each lane gave."""
    return Counter(claim.job.lane for claim in claims)


def _cut_short(claims: Sequence[Claim], limit: int) -> bool:
    """Whether a claim ended for want of room, not of due jobs."""
    size = sum(len(memoryview(claim.event.data)) for claim in claims)
    return len(claims) >= limit or size >= WINDOW_BYTES
