"""What would go out, before anything does: all that an event would cause, or a template by itself."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from notifier.channels import ALL_PARTS, Channel, Content, Message
from notifier.endpoints import shown_headers
from notifier.errors import DeliveryError, TemplateError
from notifier.model import Endpoint, EventRecord, Job, JobState, new_id
from notifier.rendering import Renderer
from notifier.routing import EXPLAINED, Router, Subscriptions, Verdict
from notifier.store.base import Submission

RECIPIENT = "recipient@example.com"
"""Whom a template is shown for where nobody is named."""
MADE_UP = "preview"
"""The type of the event that a template is shown for, and the token of its link to unsubscribe."""


# A template ------------------------------------------------------------------------------------------


class Specimen(Struct, frozen=True, kw_only=True):
    """A template rendered for an event that nobody posted, and why it is not whole."""

    message: Message
    problems: list[TemplateError]


def specimen(
    renderer: Renderer,
    template: str,
    data: Raw,
    *,
    now: float,
    recipient: str = RECIPIENT,
    locale: str | None = None,
    tenant: str | None = None,
    category: str | None = None,
    unsubscribe_url: str | None = None,
) -> Specimen:
    """Render every part of a template for a made-up event and job, which no store knows.

    `data` is the event's, a JSON object. Each part is made by itself, so that what is wrong with one hides
    nothing of the others. Raises Unavailable.
    """
    event = EventRecord(id=new_id("evt", now), type=MADE_UP, data=data, created_at=now, tenant=tenant)
    job = Job(
        id=new_id("test", now),
        event_id=event.id,
        event_type=event.type,
        tenant=tenant,
        channel="email",
        destination=recipient,
        lane=MADE_UP,
        template=template,
        locale=locale,
        category=category,
        status=JobState.PROCESSING,
        max_attempts=1,
        created_at=now,
        updated_at=now,
    )
    content, problems = _by_parts(renderer, template, job, event, unsubscribe_url)
    message = Message(job=job, event=event, content=content, unsubscribe_url=unsubscribe_url)
    return Specimen(message=message, problems=problems)


def _by_parts(
    renderer: Renderer, template: str, job: Job, event: EventRecord, unsubscribe_url: str | None
) -> tuple[Content, list[TemplateError]]:
    content, data = Content(), event.decoded_data()
    problems: dict[str, TemplateError] = {}
    for part in sorted(ALL_PARTS, reverse=True):  # the subject first
        try:
            made = renderer.render(
                template,
                {part},
                event=event,
                data=data,
                job=job,
                locale=job.locale,
                unsubscribe_url=unsubscribe_url,
            )
        except TemplateError as error:
            problems.setdefault(str(error), error)
        else:
            content = msgspec.structs.replace(content, **{part: getattr(made, part)})
    return content, list(problems.values())


# An event --------------------------------------------------------------------------------------------


def no_link(_job: Job) -> None:
    """No way to unsubscribe from anything."""


def preview(
    submission: Submission,
    data: Mapping[str, Any],
    router: Router,
    renderer: Renderer,
    channels: Mapping[str, Channel],
    *,
    unsubscribe_url: Callable[[Job], str | None] = no_link,
) -> dict[str, Any]:
    """What an event would cause, in JSON's types: every verdict, every delivery in full.

    Of the endpoints, those of the event's tenant; as of the deliveries, `EXPLAINED` at most, and how many
    are not shown. The values of their sensitive headers are hidden. `unsubscribe_url` says by which link a
    job's recipient could unsubscribe.
    """
    event, subscriptions = submission.event, router.subscriptions
    subscribed = subscriptions.explain(event, data)
    shown = submission.jobs[:EXPLAINED]
    return {
        "event": {"type": event.type, "tenant": event.tenant, "data": dict(data)},
        "routes": [_told("route", verdict) for verdict in router.explain(event, dict(data))],
        "endpoints": [_told("endpoint", verdict) for verdict in subscribed.verdicts],
        "endpoints_not_shown": subscribed.left_out,
        "deliveries": [
            _delivery(
                job,
                event,
                subscriptions,
                renderer,
                channels[job.channel],
                unsubscribe_url=unsubscribe_url(job),
            )
            for job in shown
        ],
        "deliveries_not_shown": len(submission.jobs) - len(shown),
    }


def _told(kind: str, verdict: Verdict) -> dict[str, Any]:
    return {kind: verdict.name, "matched": verdict.matched, "reason": verdict.reason}


def _delivery(
    job: Job,
    event: EventRecord,
    subscriptions: Subscriptions,
    renderer: Renderer,
    channel: Channel,
    *,
    unsubscribe_url: str | None,
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "channel": job.channel,
        "route": job.route,
        "endpoint": job.endpoint,
        "destination": job.destination,
        "template": job.template,
    }
    if job.error is not None:
        return shown | {"error": msgspec.to_builtins(job.error)}
    try:
        endpoint = subscriptions.get(job.endpoint or "")
        message = _message(job, event, endpoint, renderer, channel, unsubscribe_url=unsubscribe_url)
        return shown | {"message": channel.preview(message)}
    except DeliveryError as error:
        return shown | {"error": {"code": error.code, "message": error.message}}


def _message(
    job: Job,
    event: EventRecord,
    endpoint: Endpoint | None,
    renderer: Renderer,
    channel: Channel,
    *,
    unsubscribe_url: str | None,
) -> Message:
    """What a channel would be handed, its endpoint's sensitive headers hidden."""
    content = Content()
    if job.template is not None:
        content = renderer.render(
            job.template,
            channel.parts,
            event=event,
            data=event.decoded_data(),
            job=job,
            locale=job.locale,
            unsubscribe_url=unsubscribe_url,
        )
    if endpoint is not None:
        endpoint = msgspec.structs.replace(endpoint, headers=shown_headers(endpoint.headers))
    return Message(job=job, event=event, content=content, endpoint=endpoint, unsubscribe_url=unsubscribe_url)
