"""What the parts of the SQLite store share: its queries by name, and how sets go in and come out."""

import sqlite3
from collections.abc import Collection
from typing import Any

import msgspec

from notifier.errors import IllegalTransitionError, NotFoundError
from notifier.model import EventRecord, Job, JobState
from notifier.store import rows, sql
from notifier.store.base import JobFilter
from notifier.store.rows import micros

SQL = sql.load("sqlite.sql")

_ROWS_A_STATEMENT = 32
"""More cost no less a row (measured), and SQLite keeps the program of each number of rows that occurs."""


def read(database: sqlite3.Connection, query: str, **values: Any) -> Any:
    """Run a query that answers one JSON text."""
    return msgspec.json.decode(database.execute(SQL[query], values).fetchone()[0])


class Insert:
    """A query that inserts many rows a statement, not one: see the head of sqlite.sql."""

    def __init__(self, query: str) -> None:
        self._head = SQL[query]
        self._width = self._head[self._head.index("(") :].count(",") + 1
        self._texts: dict[int, str] = {}

    def run(self, database: sqlite3.Connection, values: list[Any]) -> None:
        """Insert rows, whose values stand one after the other."""
        step = _ROWS_A_STATEMENT * self._width
        for start in range(0, len(values), step):
            some = values[start : start + step]
            database.execute(self._texts.get(len(some)) or self._text(len(some)), some)

    def _text(self, values: int) -> str:
        """The statement for so many values, made once: SQLite's program is found by it."""
        row = f"({','.join('?' * self._width)})"
        text = self._texts[values] = f"{self._head} {','.join([row] * (values // self._width))}"
        return text


def filtered(query: str, wanted: JobFilter) -> tuple[str, dict[str, Any]]:
    """Put a filter's conditions into a query, and its values beside it."""
    values = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value is not None}
    conditions = "\n".join(SQL[f"where_{name}"] for name in values)
    if (status := values.pop("status", None)) is not None:
        # In the text, not as a value: SQLite uses an index of one state only where it can see the state.
        conditions = conditions.replace("{status}", JobState(status).value)
    for name in ("created_after", "created_before", "updated_before"):
        if name in values:
            values[name] = micros(values[name])
    return SQL[query].replace("{conditions}", conditions), values


def job_of(database: sqlite3.Connection, job_id: str) -> Job:
    """Read a job. Raises NotFoundError."""
    found = database.execute(SQL["job"], {"id": job_id}).fetchone()
    if found is None:
        raise NotFoundError("job", job_id)
    return rows.job_from(found[0])


def event_with_jobs(database: sqlite3.Connection, event_id: str) -> tuple[EventRecord, list[Job]]:
    """Read an event and its jobs. Raises NotFoundError."""
    found = database.execute(SQL["event_by_id"], {"id": event_id}).fetchone()
    if found is None:
        raise NotFoundError("event", event_id)
    jobs = database.execute(SQL["jobs_of_event"], {"id": event_id}).fetchall()
    return rows.event_from(found[0]), [rows.job_from(text) for (text,) in jobs]


def seq_in_state(
    database: sqlite3.Connection, job_id: str, allowed: Collection[JobState], action: str
) -> int:
    """Find a job's row number. Raises NotFoundError, or IllegalTransitionError by its state."""
    found = database.execute(SQL["state_of_job"], {"id": job_id}).fetchone()
    if found is None:
        raise NotFoundError("job", job_id)
    seq, status = msgspec.json.decode(found[0], type=tuple[int, JobState])
    if status not in allowed:
        raise IllegalTransitionError(job_id, status, action)
    return seq
