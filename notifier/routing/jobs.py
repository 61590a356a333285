"""A job as it is born: PENDING, or FAILED where it can't be made out."""

from msgspec.structs import replace

from notifier.model import Addressed, EventRecord, Job, JobError, JobState, Priority, new_id

_NOBODYS = Job(
    id="",
    event_id="",
    event_type="",
    channel="",
    destination=None,
    lane="",
    status=JobState.PENDING,
    created_at=0.0,
    updated_at=0.0,
    max_attempts=0,
)


def blank(
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
    """A job without its event: what whoever makes jobs alike can have ready, for `born`."""
    return replace(
        _NOBODYS,
        channel=channel,
        destination=destination,
        lane=lane,
        status=JobState.PENDING if error is None else JobState.FAILED,
        max_attempts=max_attempts,
        route=route,
        endpoint=endpoint,
        template=template,
        locale=locale,
        category=category,
        addressed=addressed,
        priority=priority,
        error=error,
    )


def born(job: Job, event: EventRecord, now: float) -> Job:
    """A job of an event, made of a blank one: PENDING, or FAILED where that has an error already.

    Copying a struct and a few fields costs a fifth of making it of all its fields.
    """
    due = None
    if job.error is None:
        due = now if event.deliver_at is None else max(now, event.deliver_at)
    return replace(
        job,
        id=new_id("job", now),
        event_id=event.id,
        event_type=event.type,
        tenant=event.tenant,
        next_attempt_at=due,
        created_at=now,
        updated_at=now,
    )
