"""A job as it is born: PENDING, or FAILED where it can't be made out."""

from notifier.model import Addressed, EventRecord, Job, JobError, JobState, Priority, new_id


def new_job(
    event: EventRecord,
    now: float,
    *,
    channel: str,
    destination: str | None,
    lane: str,
    max_attempts: int,
    priority: Priority = Priority.NORMAL,
    error: JobError | None = None,
    route: str | None = None,
    endpoint: str | None = None,
    template: str | None = None,
    locale: str | None = None,
    category: str | None = None,
    addressed: Addressed | None = None,
) -> Job:
    """A new job of an event: PENDING, or FAILED where there is an error already."""
    return Job(
        id=new_id("job", now),
        event_id=event.id,
        event_type=event.type,
        tenant=event.tenant,
        channel=channel,
        route=route,
        endpoint=endpoint,
        destination=destination,
        template=template,
        locale=locale,
        category=category,
        addressed=addressed,
        lane=lane,
        priority=priority,
        status=JobState.PENDING if error is None else JobState.FAILED,
        max_attempts=max_attempts,
        next_attempt_at=max(now, event.deliver_at or now) if error is None else None,
        error=error,
        created_at=now,
        updated_at=now,
    )
