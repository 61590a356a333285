"""Events and jobs into the SQLite store: one batch of adds inside its transaction."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from notifier.errors import IdempotencyConflictError
from notifier.model import Job, JobState
from notifier.retry import cause_of
from notifier.store import rows
from notifier.store.base import Added, Submission
from notifier.store.queries import Insert, event_with_jobs, read
from notifier.store.rows import json_text

_Known = dict[str, tuple[str | None, Any]]
"""The fingerprint and first event of each idempotency key: its id in the store, or its submission here."""

_EVENTS = Insert("insert_events")
_JOBS = Insert("insert_jobs")
_WHOLE_JOBS = Insert("insert_whole_jobs")


class Adding:
    """Adds batches of calls, and numbers their rows. Only the writer's thread calls it."""

    def __init__(self) -> None:
        self.event_seq = 0
        """The last row number that was given; a gap after a rollback is harmless."""
        self.job_seq = 0

    def add_all(
        self, database: sqlite3.Connection, calls: Sequence[Sequence[Submission]]
    ) -> list[list[Added] | IdempotencyConflictError]:
        """Insert what is new of each call; a call with a conflict inserts nothing."""
        known = _known_keys(database, calls)
        fresh: list[Submission] = []
        answers = [_answered(database, call, known, fresh) for call in calls]
        self._insert(database, fresh)
        return answers

    def _insert(self, database: sqlite3.Connection, fresh: Iterable[Submission]) -> None:
        events: list[Any] = []
        jobs: list[Any] = []
        whole: list[Any] = []
        for each in fresh:
            self.event_seq += 1
            events += rows.event_values(self.event_seq, each.event)
            for job in each.jobs:
                self.job_seq += 1
                values = rows.job_values(self.job_seq, self.event_seq, job, each.claimed_until)
                if job.error is None and job.category is None and job.addressed is None:
                    jobs += values
                else:
                    whole += values + rows.more_job_values(job, _cause(job))
        _EVENTS.run(database, events)
        _JOBS.run(database, jobs)
        _WHOLE_JOBS.run(database, whole)


def _known_keys(database: sqlite3.Connection, calls: Iterable[Sequence[Submission]]) -> _Known:
    """What the store has seen of the keys of these calls."""
    keys = [key for call in calls for each in call if (key := each.event.idempotency_key)]
    if not keys:
        return {}
    found = read(database, "known_keys", keys=json_text(keys))
    return {key: (fingerprint, event_id) for key, fingerprint, event_id in found}


def _answered(
    database: sqlite3.Connection, call: Sequence[Submission], known: _Known, fresh: list[Submission]
) -> list[Added] | IdempotencyConflictError:
    """Answer a call, and put its new events to the fresh ones and their keys to those known."""
    answers: list[Added] = []
    new: list[Submission] = []
    own: _Known = {}
    for index, each in enumerate(call):
        event = each.event
        if key := event.idempotency_key:
            if found := own.get(key) or known.get(key):
                fingerprint, first = found
                if fingerprint != event.fingerprint:
                    return IdempotencyConflictError(key, index)
                answers.append(_duplicate(database, first))
                continue
            own[key] = (event.fingerprint, each)
        new.append(each)
        answers.append(Added(event, each.jobs, duplicate=False))
    known.update(own)
    fresh += new
    return answers


def _duplicate(database: sqlite3.Connection, first: str | Submission) -> Added:
    """The first event under a key: one of this very batch, or one that the store holds."""
    if isinstance(first, Submission):
        return Added(first.event, first.jobs, duplicate=True)
    event, jobs = event_with_jobs(database, first)
    return Added(event, tuple(jobs), duplicate=True)


def _cause(job: Job) -> str | None:
    """The cause of a job that is born FAILED."""
    return (
        cause_of(job.channel, job.error, job.template)
        if job.status is JobState.FAILED and job.error
        else None
    )
