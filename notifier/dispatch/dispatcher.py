"""Keeps the window filled: takes over what was just committed, and claims from the store what is due.

While a lane has no older due work in the store, its new jobs go from memory straight to the queue. Which
lanes have work in the store, and from when on, stands in the agendas; a sweep fills them at the start,
and whenever something became due that can't be told lane by lane.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import msgspec
import structlog
from msgspec import Struct

from notifier.dispatch.agenda import Agenda
from notifier.dispatch.queue import FairQueue
from notifier.metrics import Metrics
from notifier.model import Claim, EventRecord, Job, JobState, Priority
from notifier.store.base import Store

BATCH = 500
"""Jobs that one claim takes at most."""

_ENOUGH = {Priority.HIGH: 16, Priority.NORMAL: 8, Priority.LOW: 8}
"""The part of the window (1/16, 1/8) whose being free makes it worth to look through the store. What normal
jobs leave to high ones is always enough for those."""
_LEFT_TO_NEW = 4
"""The part (1/4) of what is free that a claim leaves to new jobs, which are taken over meanwhile."""
_LANES_A_CLAIM = 256
_FEW = 4
"""Jobs up to which a lane may take only a few: where it is claimed for, others would get as few."""
_LANES_A_LOOK = 512
_PAUSE = 0.02
"""Seconds between looks at what has become due: what does within them is claimed together."""
_SAFETY_NET = 30.0
"""Seconds after which the store is looked through even if nobody said that anything is due."""
_RETRY_AFTER = 1.0

_log = structlog.get_logger(__name__)


class _Look(Struct):
    """One look through the lanes of a priority: the lane to go on after."""

    after: str = ""


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
        self._agendas = tuple(Agenda() for _ in Priority)
        self._unswept = {priority: _Look() for priority in Priority}
        """The priorities whose lanes in the store are being looked at, and how far that is."""
        self._unknown = set(Priority)
        """Those of which not all lanes have been looked at once: what is new must not pass by what is old."""
        self._sweep_at = 0.0
        """When the safety net is cast next, by the loop's time."""
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
            if job.next_attempt_at <= now and self._can_take_over(job):
                self._handed.append(Claim(job, event))
                self._wake.set()
            else:
                self.due(job.lane, job.priority, job.next_attempt_at)

    def due(self, lane: str, priority: int, at: float) -> None:
        """Take note that a job of a lane, in the store, becomes due at a time."""
        agenda = self._agendas[priority]
        before = agenda.next_time
        agenda.note(lane, at, self._clock())
        if agenda.overflowed:
            self._look_again(Priority(priority))
        if agenda.has_ready or before is None or at < before:
            self._wake.set()

    def sweep(self) -> None:
        """Look through the whole store soon: something became due that can't be told lane by lane."""
        self._unswept = {priority: _Look() for priority in Priority}
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; `run` returns after the round it is in."""
        self._stopping = True
        self._wake.set()

    # The loop ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the window filled until `stop`."""
        self._sweep_at = asyncio.get_running_loop().time() + _SAFETY_NET
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
        """Do some of all that there is to do. False: there is nothing now."""
        took_over = bool(self._handed)
        if took_over:
            # What the store holds has its turn all the same: under load there is always more handed over.
            await self._take_over()
        now = self._clock()
        for priority, agenda in zip(Priority, self._agendas, strict=True):
            agenda.advance(now)
            if agenda.sweep_at is not None and agenda.sweep_at <= now:
                self._look_again(priority)
        looked = await self._look()
        return await self._claim_some() or looked or took_over

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()
        if (now := asyncio.get_running_loop().time()) >= self._sweep_at:
            self._sweep_at = now + _SAFETY_NET
            self.sweep()

    def _until_due(self) -> float:
        """Seconds until there is something to do that nobody will tell of."""
        times = [agenda.next_time for agenda in self._agendas if agenda.next_time is not None]
        return min(_SAFETY_NET, max(_PAUSE, min(times, default=float("inf")) - self._clock()))

    def _room_freed(self, lane: str) -> None:
        for agenda in self._agendas:
            if agenda.unpark(lane) or agenda.has_ready:
                self._wake.set()

    # Taking over ---------------------------------------------------------------------------------

    def _can_take_over(self, job: Job) -> bool:
        if job.priority in self._unknown or self._stopping or self._agendas[job.priority].is_behind(job.lane):
            return False
        return len(self._handed) < self._queue.share(job.lane, job.priority)

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
        claimed = []
        for claim in handed:
            if (fence := fences.get(claim.job.id)) is not None:
                job = msgspec.structs.replace(
                    claim.job, status=JobState.PROCESSING, claim=fence, next_attempt_at=None, updated_at=now
                )
                claimed.append(Claim(job, claim.event))
        self._queue.take_in(claimed)

    # Looking through the store -------------------------------------------------------------------

    def _look_again(self, priority: Priority) -> None:
        """Begin once more with a priority, when its agenda has room."""
        agenda = self._agendas[priority]
        agenda.overflowed, agenda.sweep_at = False, None
        self._unswept[priority] = _Look()

    async def _look(self) -> bool:
        """Put some more lanes that have work in the store on the agenda, of the highest priority unswept."""
        for priority, look in self._unswept.items():
            if not self._agendas[priority].full:
                await self._look_at(priority, look)
                return True
        return False

    async def _look_at(self, priority: Priority, look: _Look) -> None:
        now, agenda = self._clock(), self._agendas[priority]
        found = await self._store.lanes(priority=priority, after=look.after, limit=_LANES_A_LOOK)
        for lane, at in found:
            agenda.note(lane, at, now)
        if self._unswept.get(priority) is not look:
            return  # a sweep was asked for meanwhile, for what this came too early for: it begins again
        if agenda.overflowed:
            agenda.overflowed = False  # not all found room: they are looked at again
        elif len(found) < _LANES_A_LOOK:
            del self._unswept[priority]
            self._unknown.discard(priority)
        else:
            look.after = found[-1][0]

    # Claiming ------------------------------------------------------------------------------------

    def _has_room(self, priority: Priority) -> bool:
        """Whether enough is free to be worth a claim."""
        return self._queue.room(priority) * _ENOUGH[priority] >= self._queue.capacity

    async def _claim_some(self) -> bool:
        """Claim for lanes that are ready and not crowded, of the highest priority that has any."""
        for priority, agenda in zip(Priority, self._agendas, strict=True):
            if not agenda.has_ready or not self._has_room(priority):
                continue
            crowded = partial(self._queue.is_crowded, priority=priority)
            lanes = agenda.choose(_LANES_A_CLAIM, crowded, self._queue.is_held)
            if lanes:
                await self._claim(priority, agenda, lanes)
                return True
        return False

    def _alike(self, lanes: Sequence[str], priority: Priority) -> tuple[list[str], int]:
        """Of these lanes those that may take many, or few, as the first may; and how many each may."""
        shares = {lane: max(1, self._queue.share(lane, priority)) for lane in lanes}
        few = shares[lanes[0]] <= _FEW
        alike = [lane for lane, share in shares.items() if (share <= _FEW) == few]
        return alike, min(shares[lane] for lane in alike)

    async def _claim(self, priority: Priority, agenda: Agenda, lanes: list[str]) -> None:
        now, room = self._clock(), self._queue.room(priority)
        limit = min(BATCH, room - room // _LEFT_TO_NEW)
        lanes, per_lane = self._alike(lanes, priority)
        agenda.begin_claim(lanes)
        self._queue.reserved = limit
        try:
            claimed = await self._store.claim(
                priority=priority,
                lanes=lanes,
                limit=limit,
                per_lane=per_lane,
                now=now,
                until=now + self._claim_timeout,
            )
        except BaseException:
            agenda.give_up_claim()
            raise
        finally:
            self._queue.reserved = 0
        self._queue.take_in(claimed.claims)
        agenda.end_claim(claimed.next_due, {claim.job.lane for claim in claimed.claims}, self._clock())
