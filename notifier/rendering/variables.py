"""What templates, destinations and conditions get to see: plain data alone."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from notifier.model import EventRecord, Job

Variables = Mapping[str, Any]


def event_variables(event: EventRecord, data: Mapping[str, Any]) -> dict[str, Any]:
    """What templates, destinations and conditions know of an event."""
    return {
        "event": {
            "id": event.id,
            "type": event.type,
            "created_at": datetime.fromtimestamp(event.created_at, UTC),
            "tenant": event.tenant,
        },
        "data": data,
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
