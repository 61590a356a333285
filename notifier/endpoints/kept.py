"""The endpoints in memory, each as the store has it: nothing changes there unless it was committed.

Where a commit's outcome is unknown, the store is asked what stands before anything else is said or done.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec
import structlog

from notifier.endpoints.health import Turn
from notifier.endpoints.reports import report
from notifier.errors import NotFoundError, StoreUnavailableError
from notifier.model import Endpoint, EndpointState, Event
from notifier.routing import Subscriptions
from notifier.store.base import JobFilter, Store, Submission

_CANCELLED_AT_ONCE = 500

_Result = TypeVar("_Result")
Judge = Callable[[Endpoint], Turn | None]
"""Says what an endpoint is to become; None: it stays as it is."""

_log = structlog.get_logger(__name__)


class KeptEndpoints:
    """Endpoints in the store, in memory and in the router's subscriptions; see `Endpoints`."""

    def __init__(
        self,
        store: Store,
        subscriptions: Subscriptions,
        *,
        submission: Callable[[Event], Submission],
        on_change: Callable[[Endpoint], None],
        on_events: Callable[[Sequence[Submission]], None],
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._submission = submission
        self._on_change = on_change
        self._on_events = on_events
        self._endpoints: dict[str, Endpoint] = {}
        self._leaving: dict[str, Endpoint] = {}
        self._doubtful: set[str] = set()
        self._clearing = asyncio.Lock()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._under_way: set[asyncio.Task[Any]] = set()

    async def load(self) -> None:
        """Take in what the store has. Raises a StoreError."""
        for each in await self._store.endpoints():
            self._keep(each)

    def get(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint as it was last known; None for one that is unknown or deleted."""
        return self._endpoints.get(endpoint_id)

    def find(self, endpoint_id: str) -> Endpoint:
        """The endpoint as it stands. Raises NotFoundError, StoreUnavailableError while that is unknown."""
        if endpoint_id in self._doubtful:
            raise StoreUnavailableError("it is not known yet whether the endpoint's last change was stored")
        endpoint = self._endpoints.get(endpoint_id)
        if endpoint is None:
            raise NotFoundError("endpoint", endpoint_id)
        return endpoint

    def all(self) -> list[Endpoint]:
        """Every endpoint, the oldest first. Raises StoreUnavailableError as `find` does, for any of them."""
        if self._doubtful:
            raise StoreUnavailableError("it is not known yet whether an endpoint's last change was stored")
        return list(self._endpoints.values())

    # Changed -------------------------------------------------------------------------------------

    async def add(self, endpoint: Endpoint) -> None:
        """Add a new endpoint. Raises StoreUnavailableError: then it is gone again, as soon as that can be."""
        await self._to_the_end(self._write(endpoint, self._store.add_endpoint(endpoint)))

    async def change(self, endpoint_id: str, judge: Judge) -> Endpoint:
        """Change an endpoint by what `judge` says of it, one change after the other.

        Raises NotFoundError, StoreUnavailableError, and what `judge` does.
        """
        return await self._to_the_end(self._take_turn(endpoint_id, judge))

    async def _take_turn(self, endpoint_id: str, judge: Judge) -> Endpoint:
        async with self._lock(endpoint_id):
            await self.clear_doubts()
            present = self.find(endpoint_id)
            turn = judge(present)
            if turn is None:
                return present
            event = report(turn)
            events = () if event is None else (self._submission(event),)
            await self._write(turn.endpoint, self._store.save_endpoint(turn.endpoint, events), events)
            return turn.endpoint

    # Deleted -------------------------------------------------------------------------------------

    async def delete(self, endpoint_id: str, clock: Callable[[], float]) -> int:
        """Delete an endpoint and cancel what waits for it; returns how many jobs.

        Raises NotFoundError, StoreUnavailableError: then another call goes on with it.
        """
        return await self._to_the_end(self._delete(endpoint_id, clock))

    async def _delete(self, endpoint_id: str, clock: Callable[[], float]) -> int:
        async with self._lock(endpoint_id):
            await self.clear_doubts()
            if endpoint_id not in self._leaving:
                leaving = msgspec.structs.replace(self.find(endpoint_id), deleted=True, updated_at=clock())
                await self._write(leaving, self._store.save_endpoint(leaving))
            return await self._finish(endpoint_id, clock)

    async def finish_deletions(self, clock: Callable[[], float]) -> None:
        """Go on with the deletions that were cut short. Raises a StoreError."""
        for endpoint_id in list(self._leaving):
            async with self._lock(endpoint_id):
                if endpoint_id in self._leaving:
                    await self._finish(endpoint_id, clock)

    async def _finish(self, endpoint_id: str, clock: Callable[[], float]) -> int:
        """Cancel what waits, batch by batch, and forget the endpoint once nothing does."""
        total, waiting = 0, JobFilter(endpoint=endpoint_id)
        while count := await self._store.cancel_some(waiting, now=clock(), limit=_CANCELLED_AT_ONCE):
            total += count
        await self._store.drop_endpoint(endpoint_id)
        if (gone := self._leaving.pop(endpoint_id, None)) is not None:
            self._on_change(gone)
        return total

    # Written -------------------------------------------------------------------------------------

    def _lock(self, endpoint_id: str) -> asyncio.Lock:
        """The endpoint's own lock: the store commits the changes of many at once."""
        return self._locks.setdefault(endpoint_id, asyncio.Lock())

    async def _to_the_end(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Do it all, even if the caller is cancelled: what the store committed has to stand in memory."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone, and then nobody else asks for it

    async def _write(
        self, endpoint: Endpoint, writing: Awaitable[None], events: Sequence[Submission] = ()
    ) -> None:
        """Keep an endpoint once it is written. Where that fails, the store is asked what stands now."""
        try:
            await writing
        except Exception:
            self._doubtful.add(endpoint.id)
            await self._try_to_clear_doubts()
            if events and self._endpoints.get(endpoint.id) == endpoint:
                self._on_events(events)
            raise
        self._keep(endpoint)
        if events:
            self._on_events(events)

    def _keep(self, endpoint: Endpoint) -> None:
        """Take an endpoint into memory as the store has it."""
        if endpoint.deleted:
            self._leaving[endpoint.id] = endpoint
            self._endpoints.pop(endpoint.id, None)
            self._subscriptions.drop(endpoint.id)
            self._on_change(_held(endpoint))
        else:
            self._endpoints[endpoint.id] = endpoint
            self._subscriptions.put(endpoint)
            self._on_change(endpoint)

    # In doubt ------------------------------------------------------------------------------------

    async def _try_to_clear_doubts(self) -> None:
        try:
            await self.clear_doubts()
        except Exception:
            _log.exception("whether endpoints were changed is not known yet", endpoints=len(self._doubtful))

    async def clear_doubts(self) -> None:
        """Take over what the store has of endpoints that may have been changed. Raises a StoreError."""
        async with self._clearing:
            if not self._doubtful:
                return
            doubtful = set(self._doubtful)
            stored = {each.id: each for each in await self._store.endpoints() if each.id in doubtful}
            for endpoint_id in doubtful:
                await self._take_over(endpoint_id, stored.get(endpoint_id))
                self._doubtful.discard(endpoint_id)

    async def _take_over(self, endpoint_id: str, stored: Endpoint | None) -> None:
        if stored is None:
            return
        if endpoint_id in self._endpoints or stored.deleted:
            self._keep(stored)
        else:  # its making was answered with an error: whoever asked for it may ask again
            await self._store.drop_endpoint(endpoint_id)


def _held(leaving: Endpoint) -> Endpoint:
    """How one that is being deleted is told to others: no worker is to take what is about to be cancelled."""
    return msgspec.structs.replace(
        leaving,
        deleted=False,
        state=EndpointState.PAUSED,
        state_reason="it is being deleted",
        state_changed_at=leaving.updated_at,
    )
