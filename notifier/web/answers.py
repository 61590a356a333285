"""What the API answers, as JSON: one type a thing, made from the model's."""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta, Raw, Struct

from notifier.model import Attempt, EventRecord, Job, JobError, JobState, Outcome, Timings, rfc3339
from notifier.retry import mask
from notifier.routing import without_query
from notifier.store.base import Added, FailureGroup
from notifier.web.calls import JSON
from notifier.web.replies import Headers, Reply

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, description="RFC 3339, UTC")]

_encoder = msgspec.json.Encoder()
_HEADERS: Headers = (("Content-Type", JSON), ("X-Content-Type-Options", "nosniff"))


class ErrorAnswer(Struct, frozen=True):
    """Why an attempt did not deliver: `code` groups, `message` explains."""

    code: str
    message: str


class JobSummary(Struct, frozen=True):
    """A job as the answer to a posted event names it."""

    id: str
    channel: str
    destination: str | None
    status: JobState


class Accepted(Struct, frozen=True):
    """A posted event that is stored; of a duplicate, the first answer again."""

    id: str
    type: str
    duplicate: bool
    jobs: list[JobSummary]


class JobAnswer(Struct, frozen=True):
    """A job; `attempts` counts those spent since the last requeue."""

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
    category: str | None
    status: JobState
    attempts: int
    max_attempts: int
    next_attempt_at: Time | None
    error: ErrorAnswer | None
    created_at: Time
    updated_at: Time


class TimingsAnswer(Struct, frozen=True):
    """Where the time of one exchange went, and how much went over the wire.

    A connection that is used again spends none on name look-up, connecting and TLS.
    """

    dns_ms: float
    connect_ms: float
    tls_ms: float
    wait_ms: float
    body_ms: float
    bytes_sent: int
    bytes_received: int


class AttemptAnswer(Struct, frozen=True):
    """One try of one job; `response` is the first KiB of what the receiver said."""

    number: int
    started_at: Time
    duration_ms: float
    outcome: Outcome
    status_code: int | None
    error: ErrorAnswer | None
    response: str | None
    timings: TimingsAnswer | None
    via: Annotated[str | None, Meta(description="what it went by: the mail relay's `host:port`")]


class EventAnswer(Struct, frozen=True):
    """An event, its data exactly as it was posted."""

    id: str
    type: str
    data: Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
    tenant: str | None
    idempotency_key: str | None
    deliver_at: Time | None
    created_at: Time


class EventWithJobs(EventAnswer, frozen=True):
    """An event and the jobs it caused."""

    jobs: list[JobAnswer]


class JobDetail(Struct, frozen=True):
    """A job, its event, and every attempt, the oldest first."""

    job: JobAnswer
    event: EventAnswer
    attempts: list[AttemptAnswer]


class JobList(Struct, frozen=True):
    """A page of jobs, newest first; `next_cursor` leads on, and is null at the end."""

    jobs: list[JobAnswer]
    next_cursor: str | None


class WhyAnswer(Struct, frozen=True):
    """What a job waits for: a stable word, until when if that is known, and a sentence."""

    job_id: str
    status: JobState
    reason: str
    until: Time | None
    detail: str


class SecretAnswer(Struct, frozen=True):
    """What signs the webhooks that have no secret of their own (Standard Webhooks, `whsec_…`)."""

    secret: str


class RequeuedAnswer(Struct, frozen=True):
    """How many jobs a filter means, and how many of them were requeued."""

    matched: int
    requeued: int


class FailureAnswer(Struct, frozen=True):
    """FAILED jobs that failed alike; `message` is masked of what differs between them."""

    cause: str
    channel: str
    code: str
    message: str
    template: str | None
    count: int
    first_seen: Time
    last_seen: Time
    sample_job_ids: list[str]


class Failures(Struct, frozen=True):
    """Every cause of FAILED jobs, the largest group first."""

    failures: list[FailureAnswer]


class Health(Struct, frozen=True):
    """That all is well."""

    status: str


def respond(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer a value as JSON."""
    together = _HEADERS if headers is None else (*_HEADERS, *headers.items())
    return reply(value, status, together).response()


def reply(value: Any, status: int, headers: Headers = _HEADERS) -> Reply:
    """Answer a value as JSON, whoever writes it."""
    return Reply(status, headers, _encoder.encode(value))


def accepted(added: Added) -> Accepted:
    """Answer a posted event. A duplicate's jobs are shown as they were born, as in the first answer."""
    jobs = [JobSummary(job.id, job.channel, _told(job), _first_status(job)) for job in added.jobs]
    return Accepted(added.event.id, added.event.type, added.duplicate, jobs)


def _told(job: Job) -> str | None:
    """Tell an app a destination: of a url that a route gave, without its query, which may hold a secret."""
    if job.route is None or job.destination is None or "://" not in job.destination:
        return job.destination
    return without_query(job.destination)


def _first_status(job: Job) -> JobState:
    """Say how a job was born: FAILED where its destination couldn't be made out, else PENDING.

    Whether it was claimed at once, an app need not know, and a duplicate's jobs no longer tell.
    """
    return JobState.FAILED if job.destination is None else JobState.PENDING


def job_answer(job: Job) -> JobAnswer:
    """Answer a job."""
    return JobAnswer(
        id=job.id,
        event_id=job.event_id,
        event_type=job.event_type,
        tenant=job.tenant,
        channel=job.channel,
        route=job.route,
        endpoint=job.endpoint,
        destination=job.destination,
        template=job.template,
        locale=job.locale,
        category=job.category,
        status=job.status,
        attempts=job.attempts,
        max_attempts=job.max_attempts,
        next_attempt_at=maybe_time(job.next_attempt_at),
        error=error_answer(job.error),
        created_at=rfc3339(job.created_at),
        updated_at=rfc3339(job.updated_at),
    )


def attempt_answer(number: int, attempt: Attempt) -> AttemptAnswer:
    """Answer an attempt; `number` counts from 1."""
    return AttemptAnswer(
        number=number,
        started_at=rfc3339(attempt.started_at),
        duration_ms=round(attempt.duration_ms, 3),
        outcome=attempt.outcome,
        status_code=attempt.status_code,
        error=error_answer(attempt.error),
        response=attempt.response,
        timings=timings_answer(attempt.timings),
        via=attempt.via,
    )


def timings_answer(timings: Timings | None) -> TimingsAnswer | None:
    """Answer where the time went, in milliseconds; None where nothing was measured."""
    if timings is None:
        return None
    return TimingsAnswer(
        dns_ms=_milliseconds(timings.dns),
        connect_ms=_milliseconds(timings.connect),
        tls_ms=_milliseconds(timings.tls),
        wait_ms=_milliseconds(timings.wait),
        body_ms=_milliseconds(timings.body),
        bytes_sent=timings.sent,
        bytes_received=timings.received,
    )


def event_answer(event: EventRecord) -> EventAnswer:
    """Answer an event."""
    return EventAnswer(
        id=event.id,
        type=event.type,
        data=event.data,
        tenant=event.tenant,
        idempotency_key=event.idempotency_key,
        deliver_at=maybe_time(event.deliver_at),
        created_at=rfc3339(event.created_at),
    )


def event_with_jobs(event: EventRecord, jobs: list[Job]) -> EventWithJobs:
    """Answer an app's event and its jobs."""
    told = msgspec.structs.asdict(event_answer(event))
    shown = [msgspec.structs.replace(job, destination=_told(job)) for job in jobs]
    return EventWithJobs(**told, jobs=[job_answer(job) for job in shown])


def failure_answer(group: FailureGroup) -> FailureAnswer:
    """Answer a group of failures."""
    return FailureAnswer(
        cause=group.cause,
        channel=group.channel,
        code=group.code,
        message=mask(group.message),
        template=group.template,
        count=group.count,
        first_seen=rfc3339(group.first_seen),
        last_seen=rfc3339(group.last_seen),
        sample_job_ids=group.sample_job_ids,
    )


def error_answer(error: JobError | None) -> ErrorAnswer | None:
    """Answer why something was not delivered; None where it was."""
    return None if error is None else ErrorAnswer(error.code, error.message)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def maybe_time(moment: float | None) -> str | None:
    """Write a time that may be unset."""
    return None if moment is None else rfc3339(moment)
