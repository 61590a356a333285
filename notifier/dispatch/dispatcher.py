"""Keeps the window filled: claims new jobs as they are made, and from the store what is due.

While a lane has no older due work in the store, its new jobs are claimed in the very transaction that
stores them, and go from memory to the queue. Which lanes have work in the store, and from when on, stands
in the agendas; a sweep fills them at the start, and whenever something became due that can't be told lane
by lane.
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
from notifier.model import Claim, Job, JobState, Priority
from notifier.store.base import Added, Store, Submission

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
        self._coming = 0
        """Jobs that were claimed as they were made, and are being stored just now."""
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

    def claim_new(self, submission: Submission, now: float) -> Submission:
        """Claim those of an event's new jobs that are due and that there is room for; to be stored so.

        What becomes of them is to be told: `stored`, `not_stored` or `perhaps_stored`.
        """
        claimed = [self._claimed_as_made(job, now) for job in submission.jobs]
        if not any(claimed):
            return submission
        jobs = tuple(new or job for new, job in zip(claimed, submission.jobs, strict=True))
        return Submission(submission.event, jobs, now + self._claim_timeout)

    def _claimed_as_made(self, job: Job, now: float) -> Job | None:
        due = job.next_attempt_at is not None and job.next_attempt_at <= now
        if not due or not self._can_take_over(job, now):
            return None
        self._coming += 1
        return msgspec.structs.replace(job, status=JobState.PROCESSING, claim=1, next_attempt_at=None)

    def _can_take_over(self, job: Job, now: float) -> bool:
        if job.priority in self._unknown or self._stopping:
            return False
        if self._agendas[job.priority].is_behind(job.lane, now):
            return False
        return self._coming < self._queue.share(job.lane, job.priority)

    def stored(self, fresh: Sequence[Submission | Added]) -> None:
        """Take note of what was just committed."""
        self._queue.take_in(self._arrived(fresh))
        self._note_pending(fresh)

    def not_stored(self, submissions: Sequence[Submission]) -> None:
        """Take note of what was not committed."""
        self._arrived(submissions)

    def perhaps_stored(self, submissions: Sequence[Submission]) -> None:
        """Take note of what nobody knows of: jobs that were claimed are given back, if they are there."""
        if claims := self._arrived(submissions):
            self._queue.on_refused(claims, 0.0)
        self._note_pending(submissions)

    def _arrived(self, made: Sequence[Submission | Added]) -> list[Claim]:
        """The claims on jobs that were claimed as they were made; they are no longer on their way."""
        claims = [
            Claim(job, each.event) for each in made for job in each.jobs if job.status is JobState.PROCESSING
        ]
        self._coming -= len(claims)
        return claims

    def _note_pending(self, made: Sequence[Submission | Added]) -> None:
        for each in made:
            for job in each.jobs:
                if job.next_attempt_at is not None:
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
        now = self._clock()
        for priority, agenda in zip(Priority, self._agendas, strict=True):
            agenda.advance(now)
            if agenda.sweep_at is not None and agenda.sweep_at <= now:
                self._look_again(priority)
        looked = await self._look()
        return await self._claim_some() or looked

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

    def _room(self, priority: Priority) -> int:
        """How many jobs a claim may take at most: what is being stored just now has its place already."""
        return self._queue.room(priority) - self._coming

    def _has_room(self, priority: Priority) -> bool:
        """Whether enough is free to be worth a claim."""
        return self._room(priority) * _ENOUGH[priority] >= self._queue.capacity

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
        now, room = self._clock(), self._room(priority)
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
