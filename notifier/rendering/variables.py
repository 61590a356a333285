"""What templates, destinations and conditions get to see: plain data alone."""

from collections.abc import Container, Mapping
from datetime import UTC, datetime
from typing import Any

from notifier.model import EventRecord, Job

Variables = Mapping[str, Any]


def complete(
    variables: dict[str, Any], wanted: Container[str] | None, event: EventRecord, job: Job | None = None
) -> None:
    """Add `event` and `job`, where they are `wanted` and not there yet. None: who knows what is wanted."""
    if "event" not in variables and (wanted is None or "event" in wanted):
        variables["event"] = event_variables(event)
    if job is not None and "job" not in variables and (wanted is None or "job" in wanted):
        variables["job"] = job_variables(job)


def event_variables(event: EventRecord) -> dict[str, Any]:
    """What templates, destinations and conditions know of an event but for its data."""
    return {
        "id": event.id,
        "type": event.type,
        "created_at": datetime.fromtimestamp(event.created_at, UTC),
        "tenant": event.tenant,
    }


def job_variables(job: Job) -> dict[str, Any]:
    """What templates know of the job they are rendered for."""
    return {
        "id": job.id,
        "channel": job.channel,
        "destination": job.destination,
        "route": job.route,
        "endpoint": job.endpoint,
        "template": job.template,
        "locale": job.locale,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "created_at": datetime.fromtimestamp(job.created_at, UTC),
    }
