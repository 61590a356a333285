"""What must be done now and then: renew and rescue claims, prune, checkpoint, send on canaried requeues.

Each chore runs by itself; one that raises is logged and counted, and goes on at its next turn.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from msgspec import Struct

from notifier.config import Config
from notifier.dispatch.queue import FairQueue
from notifier.metrics import Metrics
from notifier.replays import Replays
from notifier.store.base import Store

_PRUNE_AT_ONCE = 500
_RENEW_AT_ONCE = 500
_TROUBLED = 3
"""Failures in a row after which a chore is worth an operator's attention."""

_log = structlog.get_logger(__name__)


class Chore(Struct):
    """Something to do every so many seconds."""

    name: str
    every: float
    do: Callable[[], Awaitable[object]]
    failures: int = 0


class Upkeep:
    """The chores of one notifier."""

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        queue: FairQueue,
        replays: Replays,
        clock: Callable[[], float],
        metrics: Metrics,
        on_rescued: Callable[[], None],
    ) -> None:
        self._config = config
        self._store = store
        self._queue = queue
        self._clock = clock
        self._metrics = metrics
        self._on_rescued = on_rescued
        self._tasks: list[asyncio.Task[None]] = []
        third = config.workers.claim_timeout / 3
        self.chores = [
            Chore("claims", third, self.keep_claims),
            Chore("prune", 60.0, self.prune),
            Chore("checkpoint", 1.0, store.checkpoint),
            Chore("replays", 1.0, replays.advance),
        ]

    def start(self) -> None:
        """Begin; every chore has its first turn after its interval."""
        self._tasks = [asyncio.create_task(self._repeat(each), name=each.name) for each in self.chores]

    async def stop(self) -> None:
        """End every chore; one in the middle of a store's transaction loses only its answer."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def problems(self) -> list[str]:
        """What an operator should know: chores that died, or fail turn after turn."""
        dead = [f"upkeep '{task.get_name()}' is dead" for task in self._tasks if task.done()]
        failing = [
            f"upkeep '{each.name}' failed {each.failures} times in a row"
            for each in self.chores
            if each.failures >= _TROUBLED
        ]
        return dead + failing

    async def _repeat(self, chore: Chore) -> None:
        while True:
            await asyncio.sleep(chore.every)
            try:
                await chore.do()
                chore.failures = 0
            except Exception:
                chore.failures += 1
                self._metrics.errors.labels(f"upkeep_{chore.name}").inc()
                # Once with its traceback: a chore of every second would bury all else under it.
                first = chore.failures == 1
                _log.error(
                    "upkeep failed; it goes on", chore=chore.name, failures=chore.failures, exc_info=first
                )

    async def keep_claims(self) -> None:
        """Renew what this process holds, then give back what nobody renewed."""
        now = self._clock()
        held = [*self._queue.claims]
        for start in range(0, len(held), _RENEW_AT_ONCE):
            claims = held[start : start + _RENEW_AT_ONCE]
            await self._store.renew(claims, now + self._config.workers.claim_timeout)
        rescued = await self._store.rescue(now)
        if rescued:
            _log.warning("claims expired; their jobs are tried again", jobs=rescued)
            self._on_rescued()

    async def prune(self) -> None:
        """Delete what retention no longer keeps, in small batches so that nobody waits for it."""
        now = self._clock()
        retention = self._config.retention
        pruned = 1
        while pruned:
            pruned = await self._store.prune(
                completed_before=now - retention.completed,
                failed_before=now - retention.failed,
                limit=_PRUNE_AT_ONCE,
            )
