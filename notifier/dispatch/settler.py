"""Outcomes on their way into the store: workers go on meanwhile, and what was delivered is not forgotten."""

import asyncio
from collections.abc import Callable
from functools import partial

import structlog
from msgspec import Struct

from notifier.dispatch.queue import FairQueue
from notifier.errors import StoreError
from notifier.metrics import Metrics
from notifier.model import Claim, Job
from notifier.store.base import Settlement, Store

_BACKOFF = (0.05, 0.2, 1.0, 5.0)
"""Seconds between tries while the store takes nothing; the last for all further ones."""

_log = structlog.get_logger(__name__)


class Landed(Struct, frozen=True):
    """An attempt that is over: the claim it was made under, the job as it was tried, what to write down."""

    claim: Claim
    job: Job
    settlement: Settlement
    started: float
    """Seconds since the epoch."""
    duration: float
    """Seconds."""


class Settler:
    """Has outcomes written down. A claim is held, and renewed, until that is done.

    Of `most` that are being written it is `behind`: more would be sent again if the process were killed.
    `otherwise` says what to write where a channel's words can't be.
    """

    def __init__(
        self,
        store: Store,
        queue: FairQueue,
        *,
        most: int,
        metrics: Metrics,
        otherwise: Callable[[Landed, Exception], Settlement],
        on_due: Callable[[str, int, float], None],
    ) -> None:
        self._store = store
        self._queue = queue
        self._most = most
        self._metrics = metrics
        self._otherwise = otherwise
        self._on_due = on_due
        self._writing: set[asyncio.Future[bool]] = set()
        self._insisting: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    def write(self, landed: Landed) -> None:
        """Have an outcome written down, however long the store takes."""
        writing = self._store.settle(landed.settlement)
        self._writing.add(writing)
        writing.add_done_callback(partial(self._written, landed))

    @property
    def behind(self) -> bool:
        """Whether so much is being written that nothing more should be begun."""
        return len(self._writing) + len(self._insisting) >= self._most

    async def catch_up(self) -> None:
        """Wait until it is no longer behind."""
        while self.behind:
            self._ended.clear()
            await self._ended.wait()

    async def drain(self, seconds: float) -> None:
        """Wait for what is being written; what the store refuses for so long is given up."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._writing or self._insisting:
            if self._writing:
                await asyncio.wait(self._writing)  # the store has an answer to each
                continue
            done, late = await asyncio.wait(
                self._insisting, timeout=max(0.0, end - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                for each in late:
                    each.cancel()
                await asyncio.gather(*late, return_exceptions=True)

    def _written(self, landed: Landed, writing: asyncio.Future[bool]) -> None:
        self._writing.discard(writing)
        self._ended.set()
        error = writing.exception()
        if error is None:
            self._end(landed, landed.settlement, held=writing.result())
        elif isinstance(error, Exception):
            insisting = asyncio.create_task(self._insist(landed, error), name="settle")
            self._insisting.add(insisting)
            insisting.add_done_callback(self._insisted)

    def _insisted(self, insisting: asyncio.Task[None]) -> None:
        self._insisting.discard(insisting)
        self._ended.set()

    async def _insist(self, landed: Landed, error: Exception) -> None:
        """Try again until it is written, or can't be."""
        tries, settlement = 0, landed.settlement
        while True:
            if isinstance(error, StoreError):
                self._metrics.errors.labels("settle").inc()
                _log.error("an outcome could not be written; trying again", job=landed.job.id, exc_info=error)
                await asyncio.sleep(_BACKOFF[min(tries, len(_BACKOFF) - 1)])
                tries += 1
            elif settlement is landed.settlement:
                settlement = self._otherwise(landed, error)
            else:
                self._metrics.errors.labels("worker").inc()
                _log.error("a job's outcome is lost; it comes again", job=landed.job.id, exc_info=error)
                self._queue.settled(landed.claim)
                return
            try:
                held = await self._store.settle(settlement)
            except Exception as again:
                error = again
            else:
                self._end(landed, settlement, held=held)
                return

    def _end(self, landed: Landed, settlement: Settlement, *, held: bool) -> None:
        if not held:
            self._metrics.stale.inc()
            _log.warning("outcome refused: the claim is no longer held", job=landed.job.id)
        elif settlement.next_attempt_at is not None:
            self._on_due(landed.job.lane, landed.job.priority, settlement.next_attempt_at)
        self._queue.settled(landed.claim)
