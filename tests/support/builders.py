"""Small builders of events, jobs and settlements, so that a test names only what it is about.

The times of what they build hang on `NOW`, which never moves.
"""

import hashlib
from typing import Any

import msgspec

from notifier.model import (
    Attempt,
    Claim,
    Endpoint,
    EndpointSecret,
    Event,
    EventRecord,
    Job,
    JobError,
    JobState,
    Outcome,
    Priority,
    Suppression,
    SuppressionReason,
    new_id,
)
from notifier.store.base import Settlement, Submission

NOW = 1_800_000_000.0
"""The moment at which every test's clock starts (seconds since the epoch)."""

LANE = "webhook:receiver.example:443"
SECRET = "whsec_bm90IGEgc2VjcmV0LCBub3QgYSBzZWNyZXQh"
"""Signs what the endpoints of tests send."""


def event(**changes: Any) -> Event:
    """An event as an app posts it."""
    return Event(**({"type": "order.paid", "data": {"total": 120}} | changes))


def event_record(*, key: str | None = None, body: str = '{"total":120}', **changes: Any) -> EventRecord:
    """An accepted event. With an idempotency `key`, its fingerprint is that of its `body`."""
    created_at = changes.get("created_at", NOW)
    fields: dict[str, Any] = {
        "id": new_id("evt", created_at),
        "type": "order.paid",
        "data": msgspec.Raw(body.encode()),
        "created_at": created_at,
        "idempotency_key": key,
        "fingerprint": hashlib.sha256(body.encode()).hexdigest() if key else None,
    }
    return EventRecord(**(fields | changes))


def job(of: EventRecord | None = None, **changes: Any) -> Job:
    """A PENDING webhook job of an event, due when it was created unless `next_attempt_at` says otherwise."""
    of = of or event_record()
    fields: dict[str, Any] = {
        "id": new_id("job", of.created_at),
        "event_id": of.id,
        "event_type": of.type,
        "tenant": of.tenant,
        "channel": "webhook",
        "destination": "https://receiver.example/hooks",
        "lane": LANE,
        "route": "erp",
        "status": JobState.PENDING,
        "created_at": of.created_at,
        "updated_at": of.created_at,
        "max_attempts": 8,
        "priority": Priority.NORMAL,
    }
    fields |= changes
    if fields["status"] is JobState.PENDING:
        fields.setdefault("next_attempt_at", of.created_at)
    return Job(**fields)


def endpoint(**changes: Any) -> Endpoint:
    """An enabled endpoint that takes every event without a tenant."""
    created_at = changes.get("created_at", NOW)
    fields: dict[str, Any] = {
        "id": new_id("ep", created_at),
        "url": "https://receiver.example/hooks",
        "event_types": ("*",),
        "created_at": created_at,
        "updated_at": created_at,
        "state_changed_at": created_at,
        "secrets": (EndpointSecret(SECRET, created_at),),
    }
    return Endpoint(**(fields | changes))


def failed_job(of: EventRecord | None = None, **changes: Any) -> Job:
    """A job that was born FAILED: its destination could not be made out."""
    error = JobError("template_error", "routes.erp.to, line 1: 'data.email' is missing")
    return job(of, **({"status": JobState.FAILED, "destination": None, "error": error} | changes))


def submission(jobs: int = 1, *, of: EventRecord | None = None, **changes: Any) -> Submission:
    """An event with so many jobs, every one of them with the same `changes`."""
    of = of or event_record()
    return Submission(of, tuple(job(of, **changes) for _ in range(jobs)))


def born_claimed(made: Submission, until: float = NOW + 60) -> Submission:
    """The same, with every one of its jobs that is PENDING claimed as it is made."""
    claimed = {"status": JobState.PROCESSING, "claim": 1, "next_attempt_at": None}
    jobs = (
        msgspec.structs.replace(each, **claimed) if each.status is JobState.PENDING else each
        for each in made.jobs
    )
    return Submission(made.event, tuple(jobs), until)


def attempt(outcome: Outcome = Outcome.DELIVERED, **changes: Any) -> Attempt:
    """One try that took a quarter of a second."""
    fields: dict[str, Any] = {"started_at": NOW, "duration_ms": 250.0, "outcome": outcome}
    if outcome is Outcome.DELIVERED:
        fields |= {"status_code": 200, "response": "thanks"}
    else:
        fields |= {"status_code": 503, "error": JobError("http_503", "the receiver answered 503")}
    return Attempt(**(fields | changes))


def settlement(claim: Claim, status: JobState, *, fence: int | None = None, **changes: Any) -> Settlement:
    """What a worker makes of a claim that ends in `status`: one spent attempt, and what goes with it.

    `fence` stands in for the claim's own.
    """
    delivered = status is JobState.COMPLETED
    outcomes = {JobState.COMPLETED: Outcome.DELIVERED, JobState.PENDING: Outcome.RETRY}
    fields: dict[str, Any] = {
        "job_id": claim.job.id,
        "claim": claim.job.claim if fence is None else fence,
        "status": status,
        "now": NOW + 1,
        "spent": True,
        "attempt": attempt(outcomes.get(status, Outcome.FAILED)),
        "error": None if delivered else JobError("http_503", "the receiver answered 503"),
        "next_attempt_at": NOW + 60 if status is JobState.PENDING else None,
        "cause": "a503a503a503" if status is JobState.FAILED else None,
    }
    return Settlement(**(fields | changes))


def lost(claim: Claim, content: bytes = b"the mail", **changes: Any) -> Settlement:
    """A claim of which nobody knows whether it arrived: tried again, and what was sent is kept for that."""
    error = JobError("unknown", "the connection broke after all was sent")
    tried = attempt(Outcome.UNKNOWN, error=error)
    fields: dict[str, Any] = {"content": content, "error": error, "attempt": tried}
    return settlement(claim, JobState.PENDING, **(fields | changes))


def suppression(**changes: Any) -> Suppression:
    """That someone is sent no mail at all any more."""
    fields: dict[str, Any] = {
        "channel": "email",
        "recipient": "ada@example.com",
        "reason": SuppressionReason.MANUAL,
        "created_at": NOW,
    }
    return Suppression(**(fields | changes))


def release(claim: Claim, **changes: Any) -> Settlement:
    """Give a claim back untried: nothing spent, due now."""
    return settlement(
        claim,
        JobState.PENDING,
        **({"spent": False, "attempt": None, "error": None, "next_attempt_at": NOW + 1} | changes),
    )
