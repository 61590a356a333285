"""The SQLite store, its calls told to the test: to wait for one, to count them, to have one fail or pause."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from notifier.errors import StoreUnavailableError
from notifier.store.base import Submission
from notifier.store.sqlite import SqliteStore

WATCHED = frozenset(
    {
        "add",
        "claim",
        "lanes",
        "settle",
        "renew",
        "rescue",
        "prune",
        "requeue_some",
        "cancel_some",
        "add_endpoint",
        "save_endpoint",
        "drop_endpoint",
        "endpoints",
    }
)

Hook = Callable[[], Awaitable[None]]


class WatchedStore(SqliteStore):
    """A store that does all that it does, and says so."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.calls: Counter[str] = Counter()
        """How often each was called, and did not fail."""
        self.failing: Counter[str] = Counter()
        """How many of the next calls are to fail, before they do anything."""
        self.before: dict[str, Hook] = {}
        """Run before a call does anything."""
        self.after: dict[str, Hook] = {}
        """Run when a call is done, before its caller hears."""
        self._news = asyncio.Condition()

    def __getattribute__(self, name: str) -> Any:
        """Put the watch around the methods that are watched."""
        found = super().__getattribute__(name)
        return self._watched(name, found) if name in WATCHED else found

    def _watched(
        self, name: str, method: Callable[..., Awaitable[Any]]
    ) -> Callable[..., asyncio.Future[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.failing[name]:
                self.failing[name] -= 1
                raise StoreUnavailableError(f"no {name} today")
            if name in self.before:
                await self.before[name]()
            result = await method(*args, **kwargs)
            if name in self.after:
                await self.after[name]()
            async with self._news:
                self.calls[name] += 1
                self._news.notify_all()
            return result

        return lambda *args, **kwargs: asyncio.ensure_future(call(*args, **kwargs))

    async def called(self, name: str, times: int = 1) -> None:
        """Wait until it was called so many times in all."""
        async with self._news:
            await self._news.wait_for(lambda: self.calls[name] >= times)

    async def keep(self, *submissions: Submission) -> None:
        """Store them in one go, a thousand jobs a transaction at most."""
        for start in range(0, len(submissions), 1000):
            await self.add(submissions[start : start + 1000])
