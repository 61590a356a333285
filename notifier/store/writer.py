"""Group commit: whatever waits is written in one transaction, one fsync for all of it.

There is no timer: a batch is what queued up during the last commit. A caller that is cancelled loses its
answer, never half of its operation: whole transactions run on aiosqlite's thread.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import aiosqlite
import msgspec

from notifier.errors import StoreUnavailableError

MAX_WEIGHT = 4000
"""About how many rows one transaction takes; more waits for the next."""

# At DEBUG it tells every argument of every call, and so what events hold.
logging.getLogger("aiosqlite").setLevel(logging.INFO)

_Result = TypeVar("_Result")
Applied = Sequence[Any]
Apply = Callable[[sqlite3.Connection, Sequence[Any]], Applied]
"""Runs operations inside a transaction: a result each, or the exception that this one alone deserves."""


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


class _Entry(msgspec.Struct, frozen=True):
    """An operation that waits for its transaction, and who waits for it."""

    operation: Any
    weight: int
    future: asyncio.Future[Any]


class _CommitUnknownError(Exception):
    """COMMIT itself failed: the transaction may or may not be on disk."""


class GroupWriter:
    """Takes operations from any task and commits them in batches, in the order they came."""

    def __init__(self, connection: Connection, apply: Apply, weigh: Callable[[Any], int]) -> None:
        self.commits = 0
        self._connection = connection
        self._apply = apply
        self._weigh = weigh
        self._waiting: list[_Entry] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._work(), name="store writer")

    def write(self, operation: Any) -> asyncio.Future[Any]:
        """Have an operation committed and synced; the future has its result or its exception."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._closing or self._task.done():
            future.set_exception(StoreUnavailableError("the store is closed"))
            return future
        try:
            # Weighed here: what can't be is its caller's error, and not the end of the writer.
            weight = self._weigh(operation)
        except Exception as error:
            future.set_exception(error)
            return future
        self._waiting.append(_Entry(operation, weight, future))
        self._wake.set()
        return future

    async def close(self) -> None:
        """Commit what waits, then stop; a caller that is cancelled leaves that going on."""
        self._closing = True
        self._wake.set()
        await asyncio.shield(self._task)

    async def _work(self) -> None:
        while self._waiting or not self._closing:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._write_batch(self._next_batch())

    def _next_batch(self) -> list[_Entry]:
        weight = 0
        for index, entry in enumerate(self._waiting):
            weight += entry.weight
            if weight > MAX_WEIGHT and index:
                batch, self._waiting = self._waiting[:index], self._waiting[index:]
                return batch
        batch, self._waiting = self._waiting, []
        return batch

    async def _write_batch(self, batch: list[_Entry]) -> None:
        operations = [entry.operation for entry in batch]
        try:
            results = await self._connection.run(partial(self._transaction, operations))
        except _CommitUnknownError as error:
            _answer(batch, [StoreUnavailableError(f"the commit failed: {error}")] * len(batch))
        except Exception as error:
            await self._one_at_a_time(batch, error)
        else:
            _answer(batch, results)

    async def _one_at_a_time(self, batch: list[_Entry], error: Exception) -> None:
        """Let a bad operation harm no other: what failed together is tried apart."""
        if len(batch) == 1:
            _answer(batch, [_translated(error)])
            return
        for entry in batch:
            await self._write_batch([entry])

    def _transaction(self, operations: Sequence[Any], database: sqlite3.Connection) -> Applied:
        database.execute("BEGIN IMMEDIATE")
        try:
            results = self._apply(database, operations)
        except BaseException:
            _roll_back(database)
            raise
        self._commit(database)
        return results

    def _commit(self, database: sqlite3.Connection) -> None:
        try:
            database.execute("COMMIT")
        except sqlite3.Error as error:
            _roll_back(database)
            raise _CommitUnknownError(str(error)) from error
        self.commits += 1


def _roll_back(database: sqlite3.Connection) -> None:
    """End the transaction; SQLite may have ended it itself (a full disk, an I/O error)."""
    with contextlib.suppress(sqlite3.Error):
        if database.in_transaction:
            database.execute("ROLLBACK")


def _translated(error: Exception) -> Exception:
    """A fault of the database is the store's; any other is the operation's own."""
    if isinstance(error, sqlite3.IntegrityError) or not isinstance(error, sqlite3.Error):
        return error
    return StoreUnavailableError(f"the store can't write: {error}")


def _answer(batch: list[_Entry], results: Applied) -> None:
    for entry, result in zip(batch, results, strict=True):
        if entry.future.done():
            continue
        if isinstance(result, Exception):
            entry.future.set_exception(result)
        else:
            entry.future.set_result(result)
