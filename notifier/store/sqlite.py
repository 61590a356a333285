"""The embedded store: one SQLite file in WAL mode, owned by one process, one writer with group commit."""

import asyncio
import sqlite3
from asyncio import Future
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from notifier.errors import (
    IdempotencyConflictError,
    IllegalTransitionError,
    NotFoundError,
    StoreUnavailableError,
)
from notifier.model import (
    CANCELLABLE,
    REQUEUEABLE,
    Attempt,
    Endpoint,
    EventRecord,
    Job,
    JobState,
    Suppression,
    SuppressionReason,
)
from notifier.store import kept, rows, schema, suppressions
from notifier.store.adding import Adding
from notifier.store.base import (
    Added,
    Claimed,
    FailureGroup,
    JobFilter,
    JobPage,
    Replay,
    Settlement,
    Submission,
    SuppressionPage,
)
from notifier.store.claiming import Claiming
from notifier.store.endpoints import all_endpoints, check_endpoint, endpoint_values
from notifier.store.lock import FileLock
from notifier.store.queries import (
    SQL,
    event_with_jobs,
    filtered,
    job_of,
    read,
    seq_in_state,
)
from notifier.store.resealing import seal_anew, tidy
from notifier.store.rows import json_text, micros
from notifier.store.sealing import Sealer
from notifier.store.settling import settle_all
from notifier.store.writer import Apply, Connection, GroupWriter

_ROWS_A_PRUNE = 2_000
"""Rows that one transaction looks at for what may go: two milliseconds that everybody else waits."""
_PAGE_BYTES = 4096
_PRAGMAS = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16384",
)
_WRITER_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    # Upkeep checkpoints off the commit path; this is the bound for when it can't keep up.
    "PRAGMA wal_autocheckpoint = 20000",
    "PRAGMA journal_size_limit = 67108864",
)

_Result = TypeVar("_Result")
Work = Callable[[sqlite3.Connection], Any]


class SqliteStore:
    """A `Store` in one file. Keeps every promise of `base.Store`."""

    def __init__(self, path: str | Path, sealer: Sealer | None = None) -> None:
        self.path = Path(path)
        self._sealer = sealer or Sealer()
        self._lock = FileLock(self.path)
        self._connections: list[Connection] = []
        self._writer: GroupWriter | None = None
        self._adding = Adding()
        self._known = suppressions.Known()
        self._pruned_jobs = 0
        self._pruned_events = 0

    # Opening and closing -------------------------------------------------------------------------

    async def open(self, now: float) -> int:
        """See `Store.open`."""
        self._lock.take()
        try:
            # Before SQLite makes it for everyone to read; its log takes after it.
            self.path.touch(mode=0o600)
            writing = await self._connect(*_WRITER_PRAGMAS)
            rescued = await writing.run(lambda database: self._prepare(database, now))
            reading = await self._connect("PRAGMA query_only = ON")
            await reading.run(self._known.read)
            await self._connect()
        except (sqlite3.Error, OSError) as error:
            await self.close()
            raise StoreUnavailableError(f"{self.path}: {error}") from error
        except BaseException:
            await self.close()
            raise
        self._writer = GroupWriter(writing)
        return rescued

    async def _connect(self, *pragmas: str) -> Connection:
        connection = Connection(
            lambda: sqlite3.connect(
                self.path, isolation_level=None, cached_statements=512, check_same_thread=False
            ),
            iter_chunk_size=64,
        )
        await connection.connect()
        self._connections.append(connection)
        await connection.run(
            lambda database: [database.execute(each).fetchall() for each in (*_PRAGMAS, *pragmas)]
        )
        return connection

    def _prepare(self, database: sqlite3.Connection, now: float) -> int:
        """One transaction; where it fails, closing the connection rolls it back."""
        schema.begin(database, self.path)
        seal_anew(database, self._sealer)
        self._adding.event_seq, self._adding.job_seq = read(database, "last_seqs")
        everyone = {"now": micros(now), "before": 2**62}
        rescued = database.execute(SQL["rescue"], everyone).rowcount
        database.execute("COMMIT")
        tidy(database)
        return rescued

    async def close(self) -> None:
        """See `Store.close`."""
        if self._writer is not None:
            await self._writer.close()
            self._writer = None
        for connection in reversed(self._connections):
            await connection.close()
        self._connections.clear()
        self._lock.release()

    async def ping(self) -> None:
        """See `Store.ping`."""
        # It changes nothing, yet writes a page, as a full disk would not let it.
        await self._write(lambda database: database.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}"))
        await self._read(lambda database: database.execute("SELECT 1").fetchone())

    # The two ways in -----------------------------------------------------------------------------

    def _submit(self, apply: Apply, operation: Any, weight: int = 1, *, urgent: bool = False) -> Future[Any]:
        if self._writer is not None:
            return self._writer.write(apply, operation, weight, urgent=urgent)
        future = asyncio.get_running_loop().create_future()
        future.set_exception(StoreUnavailableError(f"{self.path}: the store is not open"))
        return future

    async def _write(self, work: Work) -> Any:
        return await self._submit(_run_all, work)

    async def _read(self, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        return await self._run_on(1, work)

    async def _run_on(self, which: int, work: Callable[[sqlite3.Connection], _Result]) -> _Result:
        if self._writer is None:
            raise StoreUnavailableError(f"{self.path}: the store is not open")
        try:
            return await self._connections[which].run(work)
        except sqlite3.Error as error:
            raise StoreUnavailableError(f"{self.path}: {error}") from error

    @property
    def commits(self) -> int:
        """How many transactions were committed since the store was opened."""
        return self._writer.commits if self._writer else 0

    @property
    def commit_seconds(self) -> float:
        """How long those took in all, from COMMIT to its being synced."""
        return self._writer.commit_seconds if self._writer else 0.0

    # What apps cause -----------------------------------------------------------------------------

    def add(self, submissions: Sequence[Submission]) -> Future[list[Added]]:
        """See `Store.add`."""
        return self._submit(self._adding.add_all, submissions, len(submissions), urgent=True)

    async def event(self, event_id: str) -> tuple[EventRecord, list[Job]]:
        """See `Store.event`."""
        return await self._read(lambda database: event_with_jobs(database, event_id))

    # What workers do -----------------------------------------------------------------------------

    async def claim(
        self, *, priority: int, lanes: Sequence[str], limit: int, per_lane: int, now: float, until: float
    ) -> Claimed:
        """See `Store.claim`."""
        at = micros(now)

        def claim(database: sqlite3.Connection) -> tuple[str, dict[str, float]]:
            # Made anew each time: this runs once more where the batch it stood in has failed.
            claiming = Claiming(
                priority=priority, limit=limit, per_lane=per_lane, now=at, until=micros(until)
            )
            return claiming.run(database, lanes)

        claimed, next_due = await self._write(claim)
        return Claimed(rows.claims_from(claimed, priority, at), next_due)

    async def lanes(self, *, priority: int, after: str, limit: int) -> list[tuple[str, float]]:
        """See `Store.lanes`."""
        found = await self._read(
            lambda database: read(database, "lanes", priority=priority, after=after, limit=limit)
        )
        return [(lane, rows.seconds(due)) for lane, due in found]

    def settle(self, settlement: Settlement) -> Future[bool]:
        """See `Store.settle`."""
        content = settlement.content
        # Of what it keeps, each page is a row.
        weight = 1 + len(content) // _PAGE_BYTES if isinstance(content, bytes) else 1
        return self._submit(settle_all, settlement, weight)

    async def kept_content(self, job_id: str) -> bytes | None:
        """See `Store.kept_content`."""
        return await self._read(lambda database: kept.content_of(database, job_id))

    async def suppressed(self, channel: str, recipient: str, category: str | None) -> Suppression | None:
        """See `Store.suppressed`."""
        if self._knows_nothing_of(recipient):
            return None
        return await self._read(
            lambda database: suppressions.covering(database, channel, recipient, category)
        )

    def _knows_nothing_of(self, recipient: str) -> bool:
        return self._writer is not None and recipient not in self._known

    async def count_bounce(self, channel: str, recipient: str, now: float) -> int:
        """See `Store.count_bounce`."""
        self._known.add(recipient)
        count: int = await self._write(
            lambda database: suppressions.count_bounce(database, channel, recipient, now)
        )
        return count

    async def forget_bounces(self, channel: str, recipient: str) -> None:
        """See `Store.forget_bounces`. Asked for at every delivery: a look costs no sync."""
        if not self._knows_nothing_of(recipient) and await self._read(
            lambda database: suppressions.has_bounced(database, channel, recipient)
        ):
            await self._write(lambda database: suppressions.forget_bounces(database, channel, recipient))

    async def renew(self, claims: Sequence[tuple[str, int]], until: float) -> None:
        """See `Store.renew`."""
        values = {"claims": json_text(claims), "until": micros(until)}
        await self._write(lambda database: database.execute(SQL["renew"], values))

    async def rescue(self, now: float) -> int:
        """See `Store.rescue`."""
        values = {"now": micros(now), "before": micros(now)}
        count: int = await self._write(lambda database: database.execute(SQL["rescue"], values).rowcount)
        return count

    # What operators do ---------------------------------------------------------------------------

    async def job(self, job_id: str) -> Job:
        """See `Store.job`."""
        return await self._read(lambda database: job_of(database, job_id))

    async def attempts(self, job_id: str) -> list[Attempt]:
        """See `Store.attempts`."""
        found = await self._read(
            lambda database: database.execute(SQL["attempts"], {"id": job_id}).fetchall()
        )
        return [rows.attempt_from(text) for (text,) in found]

    async def jobs(self, wanted: JobFilter, *, limit: int, before: int | None = None) -> JobPage:
        """See `Store.jobs`."""
        query, values = filtered("jobs", wanted)
        values |= {"limit": limit + 1, "before": 2**62 if before is None else before}
        found = await self._read(lambda database: database.execute(query, values).fetchall())
        more = len(found) > limit
        return JobPage(
            [rows.job_from(text) for _, text in found[:limit]], found[limit - 1][0] if more else None
        )

    async def count(self, wanted: JobFilter) -> int:
        """See `Store.count`."""
        query, values = filtered("count", wanted)
        count: int = await self._read(lambda database: database.execute(query, values).fetchone()[0])
        return count

    async def counts(self) -> dict[JobState, int]:
        """See `Store.counts`."""
        found = await self._read(lambda database: read(database, "counts"))
        total = found.pop("all")
        return {
            JobState.COMPLETED: total - sum(found.values()),
            **{JobState(name): count for name, count in found.items()},
        }

    async def failures(self, wanted: JobFilter) -> list[FailureGroup]:
        """See `Store.failures`."""
        query, values = filtered("failures", wanted)
        found = await self._read(lambda database: database.execute(query, values).fetchall())
        return [rows.failure_from(text) for (text,) in found]

    async def recent(self, template: str, limit: int) -> list[tuple[Job, EventRecord]]:
        """See `Store.recent`."""
        values = {"template": template, "limit": limit}
        found = await self._read(lambda database: database.execute(SQL["recent"], values).fetchall())
        return [rows.job_and_event_from(text) for (text,) in found]

    async def requeue(self, job_id: str, now: float) -> Job:
        """See `Store.requeue`."""

        def requeue(database: sqlite3.Connection) -> Job:
            seq = seq_in_state(database, job_id, REQUEUEABLE, "requeued")
            _move(database, "requeue", json_text([seq]), now)
            return job_of(database, job_id)

        job: Job = await self._write(requeue)
        return job

    async def cancel(self, job_id: str, now: float) -> Job:
        """See `Store.cancel`."""

        def cancel(database: sqlite3.Connection) -> Job:
            seq = seq_in_state(database, job_id, CANCELLABLE, "cancelled")
            _move(database, "cancel", json_text([seq]), now)
            return job_of(database, job_id)

        job: Job = await self._write(cancel)
        return job

    async def requeue_some(self, wanted: JobFilter, *, now: float, limit: int) -> list[str]:
        """See `Store.requeue_some`."""
        query, values = filtered("some_seqs", wanted)

        def requeue(database: sqlite3.Connection) -> list[str]:
            found = msgspec.json.decode(database.execute(query, values | {"limit": limit}).fetchone()[0])
            _move(database, "requeue", json_text([seq for seq, _ in found]), now)
            return [job_id for _, job_id in found]

        requeued: list[str] = await self._write(requeue)
        return requeued

    async def cancel_some(self, wanted: JobFilter, *, now: float, limit: int) -> int:
        """See `Store.cancel_some`."""
        query, values = filtered("some_pending", wanted)

        def cancel(database: sqlite3.Connection) -> int:
            (seqs,) = database.execute(query, values | {"limit": limit}).fetchone()
            return _move(database, "cancel", seqs, now)

        cancelled: int = await self._write(cancel)
        return cancelled

    async def add_suppression(self, suppression: Suppression) -> bool:
        """See `Store.add_suppression`."""
        self._known.add(suppression.recipient)
        added: bool = await self._write(lambda database: suppressions.add(database, suppression))
        return added

    async def drop_suppression(self, channel: str, recipient: str, category: str | None) -> bool:
        """See `Store.drop_suppression`."""
        dropped: bool = await self._write(
            lambda database: suppressions.drop(database, channel, recipient, category)
        )
        return dropped

    async def suppressions(
        self,
        *,
        limit: int,
        channel: str | None = None,
        recipient: str | None = None,
        reason: SuppressionReason | None = None,
        after: int | None = None,
    ) -> SuppressionPage:
        """See `Store.suppressions`."""
        narrowed = {"channel": channel, "recipient": recipient, "reason": reason}
        return await self._read(
            lambda database: suppressions.page(database, narrowed, limit=limit, after=after)
        )

    async def add_endpoint(self, endpoint: Endpoint) -> None:
        """See `Store.add_endpoint`."""
        values = endpoint_values(endpoint, self._sealer)
        await self._write(lambda database: database.execute(SQL["add_endpoint"], values))

    async def endpoints(self) -> list[Endpoint]:
        """See `Store.endpoints`."""
        return await self._read(lambda database: all_endpoints(database, self._sealer))

    async def save_endpoint(self, endpoint: Endpoint, events: Sequence[Submission] = ()) -> None:
        """See `Store.save_endpoint`."""
        values = endpoint_values(endpoint, self._sealer)

        def save(database: sqlite3.Connection) -> None:
            check_endpoint(database, endpoint.id)
            (added,) = self._adding.add_all(database, [events])
            if isinstance(added, IdempotencyConflictError):
                raise added
            database.execute(SQL["save_endpoint"], values)

        await self._write(save)

    async def drop_endpoint(self, endpoint_id: str) -> None:
        """See `Store.drop_endpoint`."""
        await self._write(lambda database: database.execute(SQL["drop_endpoint"], {"id": endpoint_id}))

    async def add_replay(self, replay: Replay) -> None:
        """See `Store.add_replay`."""
        values = {
            "id": replay.id,
            "filter": json_text(replay.filter),
            "canary_job_id": replay.canary_job_id,
            "created_at": micros(replay.created_at),
        }
        await self._write(lambda database: database.execute(SQL["add_replay"], values))

    async def replays(self) -> list[Replay]:
        """See `Store.replays`."""
        found = await self._read(lambda database: database.execute(SQL["replays"]).fetchall())
        return [rows.replay_from(text) for (text,) in found]

    async def drop_replay(self, replay_id: str) -> None:
        """See `Store.drop_replay`."""
        await self._write(lambda database: database.execute(SQL["drop_replay"], {"id": replay_id}))

    async def prune(self, *, completed_before: float, failed_before: float, limit: int) -> int:
        """See `Store.prune`. Looks at rows oldest first, some a transaction, until it finds any to delete."""
        cutoffs = {
            "completed_before": micros(completed_before),
            "failed_before": micros(failed_before),
            "newest": micros(max(completed_before, failed_before)),
        }
        while True:
            pruned, once_round = await self._write(lambda database: self._prune(database, cutoffs, limit))
            if pruned or once_round:
                return int(pruned)

    def _prune(self, database: sqlite3.Connection, cutoffs: dict[str, int], limit: int) -> tuple[int, bool]:
        """Delete some; returns how many jobs, and whether all rows old enough have been looked at."""
        found = read(database, "old_jobs", after=self._pruned_jobs, scan=_ROWS_A_PRUNE, **cutoffs)
        self._pruned_jobs, jobs = _going(found, limit)
        wanted = {"seqs": json_text(jobs)}
        emptied = read(database, "events_of_jobs", **wanted)
        database.execute(SQL["delete_attempts"], wanted)
        database.execute(SQL["delete_jobs"], wanted)
        before = cutoffs["completed_before"]
        found = read(database, "old_events", after=self._pruned_events, scan=_ROWS_A_PRUNE, before=before)
        self._pruned_events, unrouted = _going(found, limit)
        database.execute(SQL["delete_events"], {"seqs": json_text([*emptied, *unrouted])})
        database.execute(SQL["delete_bounces"], {"before": cutoffs["failed_before"], "limit": limit})
        return len(jobs), not self._pruned_jobs and not self._pruned_events

    async def checkpoint(self) -> None:
        """Move the WAL into the database, on a connection of its own so that no commit waits for it."""
        await self._run_on(2, lambda database: database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())

    async def setting(self, name: str, default: str, *, secret: bool = False) -> str:
        """See `Store.setting`."""
        new = self._sealer.seal(default, "setting", name) if secret else default

        def keep(database: sqlite3.Connection) -> str:
            database.execute(SQL["keep_setting"], {"name": name, "value": new, "secret": int(secret)})
            kept: str = database.execute(SQL["setting"], {"name": name}).fetchone()[0]
            return kept

        value: str = await self._write(keep)
        return self._sealer.open(value, "setting", name) if secret else value


def _move(database: sqlite3.Connection, query: str, seqs: str, now: float) -> int:
    """Requeue or cancel jobs (row numbers, as JSON), and forget what is kept of them; returns how many."""
    kept.forget(database, seqs)
    return database.execute(SQL[query], {"seqs": seqs, "now": micros(now)}).rowcount


def _going(found: tuple[int | None, bool, list[int]], limit: int) -> tuple[int, list[int]]:
    """Take up to `limit` of the rows that may go, and where to look on: 0, the head, after the last."""
    last, once_round, seqs = found
    if len(seqs) > limit:
        return seqs[limit - 1], seqs[:limit]
    return 0 if once_round or last is None else last, seqs


def _run_all(database: sqlite3.Connection, works: Sequence[Work]) -> list[Any]:
    """Run any other writes: functions of the database, inside the batch's transaction."""
    return [_own_fault(work, database) for work in works]


def _own_fault(work: Work, database: sqlite3.Connection) -> Any:
    """Run one operation; an error that is not the database's concerns only who asked for it.

    Such an error is raised before the operation writes anything, so the batch goes on.
    """
    try:
        return work(database)
    except (NotFoundError, IllegalTransitionError, IdempotencyConflictError) as error:
        return error
