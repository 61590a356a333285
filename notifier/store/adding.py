"""Events and jobs into the SQLite store: one batch of adds inside its transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from notifier.errors import IdempotencyConflictError
from notifier.model import Job, JobState
from notifier.retry import cause_of
from notifier.store import rows
from notifier.store.base import Added, Submission
from notifier.store.queries import event_with_jobs, insert_rows, read
from notifier.store.rows import json_text

_NEW: tuple[str | None, Any] = (None, None)
"""The fingerprint and first event of a key that was never seen."""


class Adding:
    """One batch of adds inside its transaction."""

    def __init__(
        self, next_seqs: Callable[[int, int], tuple[range, range]], database: sqlite3.Connection
    ) -> None:
        self.next_seqs = next_seqs
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
        found = read(self.database, "known_keys", keys=json_text(keys))
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
        event, jobs = event_with_jobs(self.database, first)
        return Added(event, tuple(jobs), duplicate=True)

    def _insert(self) -> None:
        jobs = sum(len(each.jobs) for each in self.fresh)
        event_seqs, job_seqs = self.next_seqs(len(self.fresh), jobs)
        numbers = iter(job_seqs)
        event_values = []
        job_values = []
        mails = []
        for seq, submission in zip(event_seqs, self.fresh, strict=True):
            event_values.append(rows.event_values(seq, submission.event))
            for job in submission.jobs:
                values = rows.job_values(next(numbers), seq, job, _cause(job), submission.claimed_until)
                if mail := rows.mail_values(job):
                    mails.append(values + mail)
                else:
                    job_values.append(values)
        insert_rows(self.database, "insert_events", event_values)
        insert_rows(self.database, "insert_jobs", job_values)
        insert_rows(self.database, "insert_mails", mails)


def _cause(job: Job) -> str | None:
    """The cause of a job that is born FAILED."""
    return (
        cause_of(job.channel, job.error, job.template)
        if job.status is JobState.FAILED and job.error
        else None
    )
