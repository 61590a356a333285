"""How structs cross into SQL and back: JSON arrays of columns, and times as whole microseconds."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from notifier.model import Addressed, Attempt, Claim, EventRecord, Job, JobError, JobState, Outcome, Timings
from notifier.store.base import FailureGroup, JobFilter, Replay, Settlement

encode = msgspec.json.encode


def micros(moment: float) -> int:
    """Seconds to the microseconds that the database holds."""
    return round(moment * 1_000_000)


def maybe_micros(moment: float | None) -> int | None:
    """The same, for a time that may be unset."""
    return None if moment is None else micros(moment)


def seconds(stored: int) -> float:
    """Microseconds back to seconds."""
    return stored / 1_000_000


def maybe_seconds(stored: int | None) -> float | None:
    """The same, for a time that may be unset."""
    return None if stored is None else seconds(stored)


def json_text(value: Any) -> str:
    """A value as the JSON text that a set-wise statement takes."""
    return encode(value).decode()


def _maybe_error(code: str | None, message: str | None) -> JobError | None:
    return None if code is None else JobError(code, message or "")


class EventRow(Struct, frozen=True, array_like=True):
    """The columns of `event_columns`, in order."""

    id: str
    type: str
    data: str
    created_at: int
    tenant: str | None
    idempotency_key: str | None
    fingerprint: str | None
    deliver_at: int | None

    def record(self) -> EventRecord:
        """The event that this row holds."""
        return EventRecord(
            id=self.id,
            type=self.type,
            data=Raw(self.data.encode()),
            created_at=seconds(self.created_at),
            tenant=self.tenant,
            idempotency_key=self.idempotency_key,
            fingerprint=self.fingerprint,
            deliver_at=maybe_seconds(self.deliver_at),
        )


class JobRow(Struct, frozen=True, array_like=True):
    """The columns of `job_columns`, in order."""

    id: str
    event_id: str
    event_type: str
    tenant: str | None
    channel: str
    route: str | None
    endpoint: str | None
    destination: str | None
    template: str | None
    locale: str | None
    lane: str
    priority: int
    status: JobState
    attempts: int
    max_attempts: int
    next_attempt_at: int | None
    claim: int
    error_code: str | None
    error_message: str | None
    created_at: int
    updated_at: int
    category: str | None
    addressed: Addressed | None
    kept: int

    def job(self) -> Job:
        """The job that this row holds."""
        return Job(
            id=self.id,
            event_id=self.event_id,
            event_type=self.event_type,
            tenant=self.tenant,
            channel=self.channel,
            route=self.route,
            endpoint=self.endpoint,
            destination=self.destination,
            template=self.template,
            locale=self.locale,
            lane=self.lane,
            priority=self.priority,
            status=self.status,
            attempts=self.attempts,
            max_attempts=self.max_attempts,
            next_attempt_at=maybe_seconds(self.next_attempt_at),
            claim=self.claim,
            error=_maybe_error(self.error_code, self.error_message),
            created_at=seconds(self.created_at),
            updated_at=seconds(self.updated_at),
            category=self.category,
            addressed=self.addressed,
            kept=bool(self.kept),
        )


class _TimingsRow(Struct, frozen=True, array_like=True):
    """What the column `timings` holds: microseconds, then bytes."""

    dns: int
    connect: int
    tls: int
    wait: int
    body: int
    sent: int
    received: int

    def timings(self) -> Timings:
        return Timings(
            dns=seconds(self.dns),
            connect=seconds(self.connect),
            tls=seconds(self.tls),
            wait=seconds(self.wait),
            body=seconds(self.body),
            sent=self.sent,
            received=self.received,
        )


class _AttemptRow(Struct, frozen=True, array_like=True):
    started_at: int
    duration_us: int
    outcome: Outcome
    status_code: int | None
    error_code: str | None
    error_message: str | None
    response: str | None
    timings: _TimingsRow | None
    via: str | None

    def attempt(self) -> Attempt:
        return Attempt(
            started_at=seconds(self.started_at),
            duration_ms=self.duration_us / 1000,
            outcome=self.outcome,
            status_code=self.status_code,
            error=_maybe_error(self.error_code, self.error_message),
            response=self.response,
            timings=None if self.timings is None else self.timings.timings(),
            via=self.via,
        )


class _FailureRow(Struct, frozen=True, array_like=True):
    cause: str
    channel: str
    code: str
    message: str
    template: str | None
    count: int
    first_seen: int
    last_seen: int
    sample_job_ids: list[str]


class _ReplayRow(Struct, frozen=True, array_like=True):
    id: str
    filter: str
    canary_job_id: str
    created_at: int


class _ClaimedRow(Struct, frozen=True, array_like=True):
    """The columns of `claimed`, in order.

    Says again what `JobRow` and `EventRow` say: every claim reads it, and one flat row, without what the
    claim knows already, is read in three quarters of the time.
    """

    id: str
    channel: str
    route: str | None
    endpoint: str | None
    destination: str | None
    template: str | None
    locale: str | None
    lane: str
    attempts: int
    max_attempts: int
    claim: int
    error_code: str | None
    error_message: str | None
    created_at: int
    category: str | None
    addressed: Addressed | None
    kept: int
    event_id: str
    event_type: str
    event_data: str
    event_created_at: int
    tenant: str | None
    idempotency_key: str | None
    fingerprint: str | None
    deliver_at: int | None

    def claimed(self, priority: int, now: float) -> Claim:
        """The claim on this job, which was made just now."""
        job = Job(
            id=self.id,
            event_id=self.event_id,
            event_type=self.event_type,
            tenant=self.tenant,
            channel=self.channel,
            route=self.route,
            endpoint=self.endpoint,
            destination=self.destination,
            template=self.template,
            locale=self.locale,
            lane=self.lane,
            priority=priority,
            status=JobState.PROCESSING,
            attempts=self.attempts,
            max_attempts=self.max_attempts,
            claim=self.claim,
            error=_maybe_error(self.error_code, self.error_message),
            created_at=seconds(self.created_at),
            updated_at=now,
            category=self.category,
            addressed=self.addressed,
            kept=bool(self.kept),
        )
        event = EventRecord(
            id=self.event_id,
            type=self.event_type,
            data=Raw(self.event_data.encode()),
            created_at=seconds(self.event_created_at),
            tenant=self.tenant,
            idempotency_key=self.idempotency_key,
            fingerprint=self.fingerprint,
            deliver_at=maybe_seconds(self.deliver_at),
        )
        return Claim(job, event)


_claimed = msgspec.json.Decoder(list[_ClaimedRow])
_job_and_event = msgspec.json.Decoder(tuple[JobRow, EventRow])
_job = msgspec.json.Decoder(JobRow)
_event = msgspec.json.Decoder(EventRow)
_attempt = msgspec.json.Decoder(_AttemptRow)
_failure = msgspec.json.Decoder(_FailureRow)
_replay = msgspec.json.Decoder(_ReplayRow)


def claims_from(text: str, priority: int, now: int) -> list[Claim]:
    """Read what the query `claimed` answers to a claim of one priority, made at a time in microseconds."""
    claimed_at = seconds(now)
    return [row.claimed(priority, claimed_at) for row in _claimed.decode(text)]


def job_and_event_from(text: str) -> tuple[Job, EventRecord]:
    """Read a job's columns and its event's."""
    job, event = _job_and_event.decode(text)
    return job.job(), event.record()


def job_from(text: str) -> Job:
    """Read a job's columns."""
    return _job.decode(text).job()


def event_from(text: str) -> EventRecord:
    """Read an event's columns."""
    return _event.decode(text).record()


def attempt_from(text: str) -> Attempt:
    """Read an attempt's columns."""
    return _attempt.decode(text).attempt()


def failure_from(text: str) -> FailureGroup:
    """Read a group of failures."""
    row = _failure.decode(text)
    return FailureGroup(
        cause=row.cause,
        channel=row.channel,
        code=row.code,
        message=row.message,
        template=row.template,
        count=row.count,
        first_seen=seconds(row.first_seen),
        last_seen=seconds(row.last_seen),
        sample_job_ids=row.sample_job_ids,
    )


def replay_from(text: str) -> Replay:
    """Read a replay."""
    row = _replay.decode(text)
    return Replay(
        id=row.id,
        filter=msgspec.json.decode(row.filter, type=JobFilter),
        canary_job_id=row.canary_job_id,
        created_at=seconds(row.created_at),
    )


def event_values(seq: int, event: EventRecord) -> tuple[Any, ...]:
    """The values of `insert_events`, in order."""
    return (
        seq,
        event.id,
        event.type,
        str(event.data, "utf-8"),
        event.tenant,
        event.idempotency_key,
        event.fingerprint,
        maybe_micros(event.deliver_at),
        micros(event.created_at),
    )


def job_values(seq: int, event_seq: int, job: Job, claimed_until: float | None) -> tuple[Any, ...]:
    """The values of `insert_jobs`, in order."""
    created_at = micros(job.created_at)
    return (
        seq,
        job.id,
        event_seq,
        job.channel,
        job.route,
        job.endpoint,
        job.destination,
        job.template,
        job.locale,
        job.lane,
        int(job.priority),
        str(job.status),
        job.attempts,
        job.max_attempts,
        maybe_micros(job.next_attempt_at),
        job.claim,
        maybe_micros(claimed_until) if job.status is JobState.PROCESSING else None,
        created_at,
        created_at if job.updated_at == job.created_at else micros(job.updated_at),
    )


def more_job_values(job: Job, cause: str | None) -> tuple[Any, ...]:
    """What `insert_whole_jobs` takes after those: all that most jobs are born without."""
    error = job.error
    return (
        error.code if error else None,
        error.message if error else None,
        cause,
        job.category,
        None if job.addressed is None else json_text(job.addressed),
    )


def completion_values(settled: Settlement) -> tuple[str, int, int]:
    """What the query `complete` takes of a settlement, in order."""
    return settled.job_id, settled.claim, micros(settled.now)


def settlement_values(settled: Settlement) -> tuple[Any, ...]:
    """What the query `settle` takes of a settlement, in order."""
    error = settled.error
    return (
        settled.job_id,
        settled.claim,
        settled.status,
        micros(settled.now),
        maybe_micros(settled.next_attempt_at),
        error.code if error else None,
        error.message if error else None,
        settled.cause,
        int(settled.spent),
    )


def attempt_values(settled: Settlement, attempt: Attempt) -> tuple[Any, ...]:
    """What the query `insert_attempts` takes, in order."""
    error = attempt.error
    return (
        settled.job_id,
        settled.claim,
        micros(attempt.started_at),
        round(attempt.duration_ms * 1000),
        str(attempt.outcome),
        attempt.status_code,
        error.code if error else None,
        error.message if error else None,
        attempt.response,
        None if attempt.timings is None else _timings_text(attempt.timings),
        attempt.via,
    )


def _timings_text(timings: Timings) -> str:
    """Timings as the column holds them: whole numbers in a row, as short as can be."""
    whole = (
        micros(timings.dns),
        micros(timings.connect),
        micros(timings.tls),
        micros(timings.wait),
        micros(timings.body),
        timings.sent,
        timings.received,
    )
    return json_text(whole)
