"""Requeues of many jobs by filter: in batches, and behind a canary where that was asked for."""

from collections.abc import Callable

import msgspec
import structlog
from msgspec import Struct

from notifier.errors import NotFoundError
from notifier.model import JobState, new_id
from notifier.store.base import JobFilter, Replay, Store

_AT_ONCE = 500

_log = structlog.get_logger(__name__)


class Requeued(Struct, frozen=True):
    """How many jobs a filter meant, and how many of them are PENDING now."""

    matched: int
    requeued: int


class Replays:
    """Requeues by filter on one store."""

    def __init__(self, store: Store, clock: Callable[[], float], on_requeued: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_requeued = on_requeued

    async def requeue(self, wanted: JobFilter, *, canary: bool = False, dry_run: bool = False) -> Requeued:
        """Requeue the jobs that a filter means, as they stand now.

        Without a status the filter means FAILED jobs. With `canary` the oldest goes first, and the rest
        only once it is COMPLETED; should it fail, they stay as they are. With `dry_run` they are only
        counted.
        """
        now = self._clock()
        wanted = msgspec.structs.replace(
            wanted, status=wanted.status or JobState.FAILED, updated_before=wanted.updated_before or now
        )
        matched = await self._store.count(wanted)
        if dry_run or not matched:
            return Requeued(matched, 0)
        if not canary:
            return Requeued(matched, await self._requeue_all(wanted))
        return Requeued(matched, await self._send_canary(wanted, now))

    async def _send_canary(self, wanted: JobFilter, now: float) -> int:
        first = await self._store.requeue_some(wanted, now=now, limit=1)
        for job_id in first:
            replay = Replay(id=new_id("rpl", now), filter=wanted, canary_job_id=job_id, created_at=now)
            await self._store.add_replay(replay)
        self._on_requeued()
        return len(first)

    async def _requeue_all(self, wanted: JobFilter) -> int:
        total = 0
        while moved := await self._store.requeue_some(wanted, now=self._clock(), limit=_AT_ONCE):
            total += len(moved)
            self._on_requeued()
        return total

    async def advance(self) -> None:
        """Send on the replays whose canary completed; drop those whose canary did not."""
        for replay in await self._store.replays():
            await self._advance(replay)

    async def _advance(self, replay: Replay) -> None:
        status = await self._canary_status(replay)
        if status in {JobState.PENDING, JobState.PROCESSING}:
            return
        if status is JobState.COMPLETED:
            count = await self._requeue_all(replay.filter)
            _log.info("canary completed; the rest is requeued", replay=replay.id, jobs=count)
        else:
            _log.warning("canary did not complete; the rest stays", replay=replay.id, canary=status)
        await self._store.drop_replay(replay.id)

    async def _canary_status(self, replay: Replay) -> JobState | None:
        try:
            return (await self._store.job(replay.canary_job_id)).status
        except NotFoundError:
            return None
