"""Group commit: whatever waits is written in one transaction, one fsync for all of it.

There is no timer: a batch is what queued up during the last commit. A caller that is cancelled loses its
answer, never half of its operation: whole transactions run on aiosqlite's thread.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

import aiosqlite
import msgspec

from notifier.errors import StoreUnavailableError

MAX_WEIGHT = 1000
"""About how many rows one transaction takes; more waits for the next. Larger ones cost no less a row
(measured), and who comes meanwhile would wait longer."""
_URGENT_WEIGHT = 750
"""How much of that what is urgent may take up, so that the rest gets on too."""

# At DEBUG it tells every argument of every call, and so what events hold.
logging.getLogger("aiosqlite").setLevel(logging.INFO)

# Without it, sqlite3 looks long for how to bind a None: 0.3 µs instead of 0.1, and a delivery has a dozen.
sqlite3.register_adapter(type(None), {}.get)  # type: ignore[arg-type]  # of None it makes None

_Result = TypeVar("_Result")
Apply = Callable[[sqlite3.Connection, list[Any]], Sequence[Any]]
"""Runs some operations inside a transaction: a result each, or the exception that this one alone deserves."""


class Connection(aiosqlite.Connection):
    """aiosqlite's connection and thread, made to run a whole function as one call."""

    async def connect(self) -> None:
        """Connect. Where that fails, the thread has ended by the time the error is raised."""
        self._thread.daemon = True  # a store that nobody closed must not keep the process from ending
        try:
            await self
        except BaseException:
            await asyncio.to_thread(self._thread.join)
            raise

    async def run(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Call `work` with the raw connection on its thread."""
        result: _Result = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result

    def hand_over(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Have `work` called so, and hear nothing of it: a future and a task's waking less than `run`."""
        self._tx.put_nowait((None, partial(work, self._conn)))


class _Entry(msgspec.Struct, frozen=True):
    """An operation that waits for its transaction, what runs it, and who waits for it."""

    apply: Apply
    operation: Any
    weight: int
    future: asyncio.Future[Any]


class _CommitUnknownError(Exception):
    """COMMIT itself failed: the transaction may or may not be on disk."""


class GroupWriter:
    """Takes operations from any task and commits them in batches.

    In each batch what is urgent comes first, and all else in the order in which it was handed in.
    """

    def __init__(self, connection: Connection) -> None:
        self.commits = 0
        self.commit_seconds = 0.0
        """How long they took in all, from COMMIT to its being synced."""
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._urgent: deque[_Entry] = deque()
        self._waiting: deque[_Entry] = deque()
        self._apart: deque[_Entry] = deque()
        """What failed together with others, to be tried alone before anything else."""
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def write(
        self, apply: Apply, operation: Any, weight: int = 1, *, urgent: bool = False
    ) -> asyncio.Future[Any]:
        """Have an operation committed and synced; the future has its result or its exception.

        Those that stand together and have the same `apply` are run in one call of it. `weight` is about how
        many rows it writes.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreUnavailableError("the store is closed"))
            return future
        (self._urgent if urgent else self._waiting).append(_Entry(apply, operation, weight, future))
        if self._idle.is_set():
            self._idle.clear()
            # Not at once: what else comes in this turn of the loop is written with it.
            self._loop.call_soon(self._write_next)
        return future

    async def close(self) -> None:
        """Commit what waits, then stop; a caller that is cancelled leaves that going on."""
        self._closing = True
        await self._idle.wait()

    # On the event loop ---------------------------------------------------------------------------

    def _write_next(self) -> None:
        if batch := self._next_batch():
            self._connection.hand_over(partial(self._write_batch, batch))
        else:
            self._idle.set()

    def _next_batch(self) -> list[_Entry]:
        if self._apart:
            return [self._apart.popleft()]
        batch = _taken(self._urgent, _URGENT_WEIGHT)
        return batch + _taken(self._waiting, MAX_WEIGHT - sum(entry.weight for entry in batch))

    def _written(self, batch: list[_Entry], outcome: Sequence[Any] | BaseException) -> None:
        if not isinstance(outcome, BaseException):
            results = outcome
        elif len(batch) > 1 and not isinstance(outcome, _CommitUnknownError):
            # A bad operation harms no other: what failed together is tried apart.
            self._apart.extend(batch)
            batch = results = []
        else:
            results = [_translated(outcome)] * len(batch)
        self._write_next()
        _answer(batch, results)

    # On the connection's thread ------------------------------------------------------------------

    def _write_batch(self, batch: list[_Entry], database: sqlite3.Connection) -> None:
        outcome: Sequence[Any] | BaseException
        try:
            outcome = self._transaction(batch, database)
        except BaseException as error:
            outcome = error
        self._loop.call_soon_threadsafe(self._written, batch, outcome)

    def _transaction(self, batch: list[_Entry], database: sqlite3.Connection) -> Sequence[Any]:
        database.execute("BEGIN IMMEDIATE")
        results: list[Any] = []
        try:
            for apply, entries in groupby(batch, attrgetter("apply")):
                results += apply(database, [entry.operation for entry in entries])
        except BaseException:
            _roll_back(database)
            raise
        self._commit(database)
        return results

    def _commit(self, database: sqlite3.Connection) -> None:
        begun = time.perf_counter()
        try:
            database.execute("COMMIT")
        except sqlite3.Error as error:
            _roll_back(database)
            raise _CommitUnknownError(str(error)) from error
        self.commits += 1
        self.commit_seconds += time.perf_counter() - begun


def _taken(waiting: deque[_Entry], room: int) -> list[_Entry]:
    """Take as many of the first as there is room for, and at least one."""
    taken: list[_Entry] = []
    while waiting and (waiting[0].weight <= room or not taken):
        entry = waiting.popleft()
        room -= entry.weight
        taken.append(entry)
    return taken


def _roll_back(database: sqlite3.Connection) -> None:
    """End the transaction; SQLite may have ended it itself (a full disk, an I/O error)."""
    with contextlib.suppress(sqlite3.Error):
        if database.in_transaction:
            database.execute("ROLLBACK")


def _translated(error: BaseException) -> BaseException:
    """A fault of the database is the store's; any other is the operation's own."""
    if isinstance(error, _CommitUnknownError):
        return StoreUnavailableError(f"the commit failed: {error}")
    if isinstance(error, sqlite3.IntegrityError) or not isinstance(error, sqlite3.Error):
        return error
    return StoreUnavailableError(f"the store can't write: {error}")


def _answer(batch: list[_Entry], results: Sequence[Any]) -> None:
    for entry, result in zip(batch, results, strict=True):
        if entry.future.done():
            continue
        if isinstance(result, BaseException):
            entry.future.set_exception(result)
        else:
            entry.future.set_result(result)
