"""The embedded store: one SQLite file in WAL mode, owned by one process, one writer with group commit."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from notifier.errors import (
    IdempotencyConflictError,
    IllegalTransitionError,
    NotFoundError,
    StoreTooNewError,
    StoreUnavailableError,
)
from notifier.model import REQUEUEABLE, Attempt, Claim, EventRecord, Job, JobState
from notifier.retry import cause_of
from notifier.store import rows, sql
from notifier.store.base import (
    WINDOW_BYTES,
    Added,
    FailureGroup,
    JobFilter,
    JobPage,
    Replay,
    Settlement,
    Submission,
)
from notifier.store.lock import FileLock
from notifier.store.rows import json_text, micros
from notifier.store.writer import Connection, GroupWriter

SCHEMA_VERSION = 1
_LANES_A_SCAN = 256
_ROWS_A_STATEMENT = 64
_ROWS_A_PRUNE = 20_000
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

_NEW: tuple[str | None, Any] = (None, None)
"""The fingerprint and first event of a key that was never seen."""

_sql = sql.load("sqlite.sql")
_Result = TypeVar("_Result")
Work = Callable[[sqlite3.Connection], Any]


class _Add(msgspec.Struct):
    submissions: Sequence[Submission]


class _Settle(msgspec.Struct):
    settlement: Settlement


class _Run(msgspec.Struct):
    """Any other write: a function of the database, run inside the batch's transaction."""

    work: Work


def _weigh(operation: _Add | _Settle | _Run) -> int:
    """About how many rows an operation writes."""
    return len(operation.submissions) if isinstance(operation, _Add) else 1


class SqliteStore:
    """A `Store` in one file. Keeps every promise of `base.Store`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = FileLock(self.path)
        self._connections: list[Connection] = []
        self._writer: GroupWriter | None = None
        self._event_seq = 0
        self._job_seq = 0
        self._scanned: dict[int, str] = {}
        self._pruned_jobs = 0
        self._pruned_events = 0

    # Opening and closing -------------------------------------------------------------------------

    async def open(self, now: float) -> int:
        """See `Store.open`."""
        self._lock.take()
        try:
            writing = await self._connect(*_WRITER_PRAGMAS)
            rescued = await writing.run(lambda database: self._prepare(database, now))
            await self._connect("PRAGMA query_only = ON")
            await self._connect()
        except sqlite3.Error as error:
            await self.close()
            raise StoreUnavailableError(f"{self.path}: {error}") from error
        except BaseException:
            await self.close()
            raise
        self._writer = GroupWriter(writing, self._apply, _weigh)
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
        ((version,),) = database.execute("PRAGMA user_version").fetchall()
        if version > SCHEMA_VERSION:
            raise StoreTooNewError(
                f"{self.path}: written by a newer notifier (schema {version}, known: {SCHEMA_VERSION})"
            )
        if version == 0:
            script = sql.script("sqlite_schema.sql")
            database.executescript(f"BEGIN;\n{script}\nPRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;")
        self._event_seq, self._job_seq = _read(database, "last_seqs")
        everyone = {"now": micros(now), "before": 2**62}
        return database.execute(_sql["rescue"], everyone).rowcount

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
        await self._write(lambda database: database.execute(_sql["ping"]))
        await self._read(lambda database: database.execute("SELECT 1").fetchone())

    # The two ways in -----------------------------------------------------------------------------

    async def _submit(self, operation: _Add | _Settle | _Run) -> Any:
        if self._writer is None:
            raise StoreUnavailableError(f"{self.path}: the store is not open")
        return await self._writer.write(operation)

    async def _write(self, work: Work) -> Any:
        return await self._submit(_Run(work))

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

    def _apply(self, database: sqlite3.Connection, operations: Sequence[Any]) -> list[Any]:
        """Run a batch inside its transaction: adds as one set, settles as another, the rest in order."""
        results: dict[int, Any] = {}
        adds = [(index, each) for index, each in enumerate(operations) if isinstance(each, _Add)]
        settles = [(index, each) for index, each in enumerate(operations) if isinstance(each, _Settle)]
        if adds:
            added = _Adding(self, database).add_all([each.submissions for _, each in adds])
            results.update(zip((index for index, _ in adds), added, strict=True))
        if settles:
            settled = _settle_all(database, [each.settlement for _, each in settles])
            results.update(zip((index for index, _ in settles), settled, strict=True))
        for index, each in enumerate(operations):
            if isinstance(each, _Run):
                results[index] = _own_fault(each.work, database)
        return [results[index] for index in range(len(operations))]

    # What apps cause -----------------------------------------------------------------------------

    async def add(self, submissions: Sequence[Submission]) -> list[Added]:
        """See `Store.add`."""
        added: list[Added] = await self._submit(_Add(submissions))
        return added

    def next_seqs(self, events: int, jobs: int) -> tuple[range, range]:
        """Reserve row numbers. Only the writer's thread calls this; a gap after a rollback is harmless."""
        first_event, first_job = self._event_seq + 1, self._job_seq + 1
        self._event_seq += events
        self._job_seq += jobs
        return range(first_event, first_event + events), range(first_job, first_job + jobs)

    async def event(self, event_id: str) -> tuple[EventRecord, list[Job]]:
        """See `Store.event`."""
        return await self._read(lambda database: _event_with_jobs(database, event_id))

    # What workers do -----------------------------------------------------------------------------

    async def claim(
        self,
        *,
        priority: int,
        limit: int,
        per_lane: int,
        now: float,
        until: float,
        exclude: Collection[str] = (),
        only: Collection[str] | None = None,
    ) -> list[Claim]:
        """See `Store.claim`."""

        def claim(database: sqlite3.Connection) -> str:
            # Made anew each time: this runs once more where the batch it stood in has failed.
            claiming = _Claiming(
                scanned=self._scanned,
                priority=priority,
                limit=limit,
                per_lane=per_lane,
                exclude=exclude,
                only=only,
                now=micros(now),
                until=micros(until),
            )
            return claiming.run(database)

        return rows.claims_from(await self._write(claim))

    async def claim_these(self, job_ids: Sequence[str], *, now: float, until: float) -> dict[str, int]:
        """See `Store.claim_these`."""

        def claim(database: sqlite3.Connection) -> dict[str, int]:
            found = _read(database, "claimable", ids=json_text(job_ids), now=micros(now))
            _mark_claimed(database, [seq for seq, _, _ in found], micros(now), micros(until))
            return {job_id: fence for _, job_id, fence in found}

        claimed: dict[str, int] = await self._write(claim)
        return claimed

    async def settle(self, settlement: Settlement) -> bool:
        """See `Store.settle`."""
        settled: bool = await self._submit(_Settle(settlement))
        return settled

    async def renew(self, claims: Sequence[tuple[str, int]], until: float) -> None:
        """See `Store.renew`."""
        values = {"claims": json_text(claims), "until": micros(until)}
        await self._write(lambda database: database.execute(_sql["renew"], values))

    async def rescue(self, now: float) -> int:
        """See `Store.rescue`."""
        values = {"now": micros(now), "before": micros(now)}
        count: int = await self._write(lambda database: database.execute(_sql["rescue"], values).rowcount)
        return count

    async def next_due(self, after: float) -> float | None:
        """See `Store.next_due`."""
        values = {"after": micros(after)}
        (due,) = await self._read(lambda database: database.execute(_sql["next_due"], values).fetchone())
        return rows.maybe_seconds(due)

    # What operators do ---------------------------------------------------------------------------

    async def job(self, job_id: str) -> Job:
        """See `Store.job`."""
        return await self._read(lambda database: _job(database, job_id))

    async def attempts(self, job_id: str) -> list[Attempt]:
        """See `Store.attempts`."""
        found = await self._read(
            lambda database: database.execute(_sql["attempts"], {"id": job_id}).fetchall()
        )
        return [rows.attempt_from(text) for (text,) in found]

    async def jobs(self, wanted: JobFilter, *, limit: int, before: int | None = None) -> JobPage:
        """See `Store.jobs`."""
        query, values = _filtered("jobs", wanted)
        values |= {"limit": limit + 1, "before": 2**62 if before is None else before}
        found = await self._read(lambda database: database.execute(query, values).fetchall())
        more = len(found) > limit
        return JobPage(
            [rows.job_from(text) for _, text in found[:limit]], found[limit - 1][0] if more else None
        )

    async def count(self, wanted: JobFilter) -> int:
        """See `Store.count`."""
        query, values = _filtered("count", wanted)
        count: int = await self._read(lambda database: database.execute(query, values).fetchone()[0])
        return count

    async def counts(self) -> dict[JobState, int]:
        """See `Store.counts`."""
        found = await self._read(lambda database: _read(database, "counts"))
        total = found.pop("all")
        return {
            JobState.COMPLETED: total - sum(found.values()),
            **{JobState(name): count for name, count in found.items()},
        }

    async def failures(self, wanted: JobFilter) -> list[FailureGroup]:
        """See `Store.failures`."""
        query, values = _filtered("failures", wanted)
        found = await self._read(lambda database: database.execute(query, values).fetchall())
        return [rows.failure_from(text) for (text,) in found]

    async def requeue(self, job_id: str, now: float) -> Job:
        """See `Store.requeue`."""

        def requeue(database: sqlite3.Connection) -> Job:
            seq = _seq_in_state(database, job_id, REQUEUEABLE, "requeued")
            database.execute(_sql["requeue"], {"seqs": json_text([seq]), "now": micros(now)})
            return _job(database, job_id)

        job: Job = await self._write(requeue)
        return job

    async def cancel(self, job_id: str, now: float) -> Job:
        """See `Store.cancel`."""

        def cancel(database: sqlite3.Connection) -> Job:
            _seq_in_state(database, job_id, {JobState.PENDING}, "cancelled")
            database.execute(_sql["cancel"], {"id": job_id, "now": micros(now)})
            return _job(database, job_id)

        job: Job = await self._write(cancel)
        return job

    async def requeue_some(self, wanted: JobFilter, *, now: float, limit: int) -> list[str]:
        """See `Store.requeue_some`."""
        query, values = _filtered("some_seqs", wanted)

        def requeue(database: sqlite3.Connection) -> list[str]:
            found = msgspec.json.decode(database.execute(query, values | {"limit": limit}).fetchone()[0])
            seqs = json_text([seq for seq, _ in found])
            database.execute(_sql["requeue"], {"seqs": seqs, "now": micros(now)})
            return [job_id for _, job_id in found]

        requeued: list[str] = await self._write(requeue)
        return requeued

    async def add_replay(self, replay: Replay) -> None:
        """See `Store.add_replay`."""
        values = {
            "id": replay.id,
            "filter": json_text(replay.filter),
            "canary_job_id": replay.canary_job_id,
            "created_at": micros(replay.created_at),
        }
        await self._write(lambda database: database.execute(_sql["add_replay"], values))

    async def replays(self) -> list[Replay]:
        """See `Store.replays`."""
        found = await self._read(lambda database: database.execute(_sql["replays"]).fetchall())
        return [rows.replay_from(text) for (text,) in found]

    async def drop_replay(self, replay_id: str) -> None:
        """See `Store.drop_replay`."""
        await self._write(lambda database: database.execute(_sql["drop_replay"], {"id": replay_id}))

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
        found = _read(database, "old_jobs", after=self._pruned_jobs, scan=_ROWS_A_PRUNE, **cutoffs)
        self._pruned_jobs, jobs = _going(found, limit)
        wanted = {"seqs": json_text(jobs)}
        emptied = _read(database, "events_of_jobs", **wanted)
        database.execute(_sql["delete_attempts"], wanted)
        database.execute(_sql["delete_jobs"], wanted)
        before = cutoffs["completed_before"]
        found = _read(database, "old_events", after=self._pruned_events, scan=_ROWS_A_PRUNE, before=before)
        self._pruned_events, unrouted = _going(found, limit)
        database.execute(_sql["delete_events"], {"seqs": json_text([*emptied, *unrouted])})
        return len(jobs), not self._pruned_jobs and not self._pruned_events

    async def checkpoint(self) -> None:
        """Move the WAL into the database, on a connection of its own so that no commit waits for it."""
        await self._run_on(2, lambda database: database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone())

    async def setting(self, name: str, default: str) -> str:
        """See `Store.setting`."""

        def keep(database: sqlite3.Connection) -> str:
            database.execute(_sql["keep_setting"], {"name": name, "value": default})
            kept: str = database.execute(_sql["setting"], {"name": name}).fetchone()[0]
            return kept

        value: str = await self._write(keep)
        return value


def _going(found: tuple[int | None, bool, list[int]], limit: int) -> tuple[int, list[int]]:
    """Take up to `limit` of the rows that may go, and where to look on: 0, the head, after the last."""
    last, once_round, seqs = found
    if len(seqs) > limit:
        return seqs[limit - 1], seqs[:limit]
    return 0 if once_round or last is None else last, seqs


def _own_fault(work: Work, database: sqlite3.Connection) -> Any:
    """Run one operation; an error that is not the database's concerns only who asked for it.

    Such an error is raised before the operation writes anything, so the batch goes on.
    """
    try:
        return work(database)
    except (NotFoundError, IllegalTransitionError) as error:
        return error


def _read(database: sqlite3.Connection, query: str, **values: Any) -> Any:
    """Run a query that answers one JSON text."""
    return msgspec.json.decode(database.execute(_sql[query], values).fetchone()[0])


def _filtered(query: str, wanted: JobFilter) -> tuple[str, dict[str, Any]]:
    """Put a filter's conditions into a query, and its values beside it."""
    values = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}
    conditions = "\n".join(_sql[f"where_{name}"] for name in values)
    if (status := values.pop("status", None)) is not None:
        # In the text, not as a value: SQLite uses an index of one state only where it can see the state.
        conditions = conditions.replace("{status}", JobState(status).value)
    for name in ("created_after", "created_before", "updated_before"):
        if name in values:
            values[name] = micros(values[name])
    return _sql[query].replace("{conditions}", conditions), values


def _job(database: sqlite3.Connection, job_id: str) -> Job:
    found = database.execute(_sql["job"], {"id": job_id}).fetchone()
    if found is None:
        raise NotFoundError("job", job_id)
    return rows.job_from(found[0])


def _event_with_jobs(database: sqlite3.Connection, event_id: str) -> tuple[EventRecord, list[Job]]:
    found = database.execute(_sql["event_by_id"], {"id": event_id}).fetchone()
    if found is None:
        raise NotFoundError("event", event_id)
    jobs = database.execute(_sql["jobs_of_event"], {"id": event_id}).fetchall()
    return rows.event_from(found[0]), [rows.job_from(text) for (text,) in jobs]


def _seq_in_state(
    database: sqlite3.Connection, job_id: str, allowed: Collection[JobState], action: str
) -> int:
    found = database.execute(_sql["state_of_job"], {"id": job_id}).fetchone()
    if found is None:
        raise NotFoundError("job", job_id)
    seq, status = msgspec.json.decode(found[0], type=tuple[int, JobState])
    if status not in allowed:
        raise IllegalTransitionError(job_id, status, action)
    return seq


def _settle_all(database: sqlite3.Connection, settlements: Sequence[Settlement]) -> list[bool]:
    values = [rows.settlement_values(each) for each in settlements]
    stale = set(_read(database, "stale", settlements=json_text(values)))
    firsts: dict[str, int] = {}
    for index, each in enumerate(settlements):
        if index not in stale and firsts.setdefault(each.job_id, index) != index:
            stale.add(index)  # settled earlier in this very batch
    live = sorted(firsts.values())
    attempts = []
    for index in live:
        settled = settlements[index]
        if settled.attempt is not None:
            attempts.append(rows.attempt_values(settled, settled.attempt))
        if settled.destination is not None:  # before the state: a COMPLETED job has a destination
            made_out = {"id": settled.job_id, "destination": settled.destination, "lane": settled.lane}
            database.execute(_sql["make_out"], made_out)
    database.execute(_sql["settle"], {"settlements": json_text([values[index] for index in live])})
    _insert_rows(database, "insert_attempts", attempts)
    return [index not in stale for index in range(len(values))]


def _insert_rows(database: sqlite3.Connection, query: str, values: Sequence[tuple[Any, ...]]) -> None:
    """Insert many rows a statement, not one: see the head of sqlite.sql."""
    for start in range(0, len(values), _ROWS_A_STATEMENT):
        chunk = values[start : start + _ROWS_A_STATEMENT]
        row = f"({','.join('?' * len(chunk[0]))})"
        flat = [value for each in chunk for value in each]
        database.execute(f"{_sql[query]} {','.join([row] * len(chunk))}", flat)


def _mark_claimed(database: sqlite3.Connection, seqs: Sequence[int], now: int, until: int) -> None:
    database.execute(_sql["claim"], {"seqs": json_text(seqs), "now": now, "until": until})


class _Adding:
    """One batch of adds inside its transaction."""

    def __init__(self, store: SqliteStore, database: sqlite3.Connection) -> None:
        self.store = store
        self.database = database
        self.fresh: list[Submission] = []

    def add_all(self, calls: Sequence[Sequence[Submission]]) -> list[list[Added] | IdempotencyConflictError]:
        """Insert what is new of each call; a call with a conflict inserts nothing."""
        known = self._known_keys(calls)
        answers = [self._one_call(call, known) for call in calls]
        self._insert()
        return answers

    def _known_keys(self, calls: Sequence[Sequence[Submission]]) -> dict[str, tuple[str | None, Any]]:
        """Fingerprint and first event of each idempotency key that the store has seen."""
        keys = [each.event.idempotency_key for call in calls for each in call if each.event.idempotency_key]
        if not keys:
            return {}
        found = _read(self.database, "known_keys", keys=json_text(keys))
        return {key: (fingerprint, event_id) for key, fingerprint, event_id in found}

    def _one_call(
        self, call: Sequence[Submission], known: dict[str, tuple[str | None, Any]]
    ) -> list[Added] | IdempotencyConflictError:
        answers: list[Added] = []
        fresh: list[Submission] = []
        own: dict[str, tuple[str | None, Any]] = {}
        for index, submission in enumerate(call):
            key = submission.event.idempotency_key
            fingerprint, first = (own.get(key) or known.get(key, _NEW)) if key else _NEW
            if key and first is not None and fingerprint != submission.event.fingerprint:
                return IdempotencyConflictError(key, index)
            if first is not None:
                answers.append(self._duplicate(first))
                continue
            if key:
                own[key] = (submission.event.fingerprint, submission)
            fresh.append(submission)
            answers.append(Added(submission.event, submission.jobs, duplicate=False))
        known.update(own)
        self.fresh += fresh
        return answers

    def _duplicate(self, first: str | Submission) -> Added:
        """The first event under a key: one of this very batch, or one that the store holds."""
        if isinstance(first, Submission):
            return Added(first.event, first.jobs, duplicate=True)
        event, jobs = _event_with_jobs(self.database, first)
        return Added(event, tuple(jobs), duplicate=True)

    def _insert(self) -> None:
        jobs = sum(len(each.jobs) for each in self.fresh)
        event_seqs, job_seqs = self.store.next_seqs(len(self.fresh), jobs)
        numbers = iter(job_seqs)
        event_values = []
        job_values = []
        for seq, submission in zip(event_seqs, self.fresh, strict=True):
            event_values.append(rows.event_values(seq, submission.event))
            job_values += [rows.job_values(next(numbers), seq, job, _cause(job)) for job in submission.jobs]
        _insert_rows(self.database, "insert_events", event_values)
        _insert_rows(self.database, "insert_jobs", job_values)


def _cause(job: Job) -> str | None:
    """The cause of a job that is born FAILED."""
    return (
        cause_of(job.channel, job.error, job.template)
        if job.status is JobState.FAILED and job.error
        else None
    )


class _Claiming(msgspec.Struct, kw_only=True):
    """One claim inside its transaction: which lanes have due work, then an equal part of each."""

    scanned: dict[int, str]
    """Where the look at each priority's lanes goes on; kept by the store between claims."""
    priority: int
    limit: int
    per_lane: int
    exclude: Collection[str]
    only: Collection[str] | None
    now: int
    until: int
    taken: list[int] = msgspec.field(default_factory=list)
    size: int = 0
    last: str | None = None

    def run(self, database: sqlite3.Connection) -> str:
        """Claim, and return the JSON text of the query `claimed`."""
        if self.only is not None:
            self._take(database, [lane for lane in dict.fromkeys(self.only) if lane not in self.exclude])
        elif database.execute(_sql["is_any_due"], {"now": self.now}).fetchone()[0]:
            rounds = self._once_round(database, self.scanned.get(self.priority, ""))
            cuts = (self._take(database, lanes) for lanes in rounds)
            self.scanned[self.priority] = next(filter(None, cuts), "")
        text: str = database.execute(_sql["claimed"], {"seqs": json_text(self.taken)}).fetchone()[0]
        return text

    def _once_round(self, database: sqlite3.Connection, start: str) -> Iterator[list[str]]:
        """All lanes with due work, some at a time: those after `start`, then those up to it."""
        for after, end in ((start, None), ("", start)) if start else (("", None),):
            last: str | None = after
            while last is not None and (end is None or last < end):
                last, lanes = self._due_lanes(database, last)
                yield [lane for lane in lanes if end is None or lane <= end]

    def _due_lanes(self, database: sqlite3.Connection, after: str) -> tuple[str | None, list[str]]:
        """Return the next lanes with due work, and the last one looked at (None: there are no more)."""
        last, lanes = _read(
            database,
            "due_lanes",
            priority=self.priority,
            after=after,
            scan=_LANES_A_SCAN,
            exclude=json_text(list(self.exclude)),
            now=self.now,
        )
        return last, lanes

    def _take(self, database: sqlite3.Connection, lanes: Sequence[str]) -> str | None:
        """Take an equal part of each lane, then again of those that have more.

        Where room ran out, returns the lane to go on after: the last served, so that none is passed over.
        """
        left = self.per_lane
        while lanes and left:
            part = min(left, max(1, (self.limit - len(self.taken)) // len(lanes)))
            found = self._due_of_lanes(database, lanes, part)
            fitting = self._fitting(found)
            _mark_claimed(database, [seq for _, seq, _ in fitting], self.now, self.until)
            if len(fitting) < len(found):
                return self.last or found[0][0]
            counts = Counter(lane for lane, _, _ in found)
            lanes = [lane for lane, count in counts.items() if count == part]
            left -= part
        return None

    def _due_of_lanes(
        self, database: sqlite3.Connection, lanes: Sequence[str], part: int
    ) -> list[tuple[str, int, int]]:
        """Return lane, row number and bytes of data of each lane's first due jobs."""
        found: list[tuple[str, int, int]] = _read(
            database,
            "due_of_lanes",
            lanes=json_text(lanes),
            priority=self.priority,
            now=self.now,
            per_lane=part,
        )
        return found

    def _fitting(self, found: Sequence[tuple[str, int, int]]) -> Sequence[tuple[str, int, int]]:
        """As many of these as there is room for, now taken."""
        for index, (lane, seq, size) in enumerate(found):
            if len(self.taken) >= self.limit or self.size >= WINDOW_BYTES:
                return found[:index]
            self.taken.append(seq)
            self.size += size
            self.last = lane
        return found
