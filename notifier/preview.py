"""What an event would cause, before anybody posts it: every verdict, every delivery as it would go out."""

from collections.abc import Mapping
from typing import Any

import msgspec

from notifier.channels import Channel, Content, Message
from notifier.endpoints import shown_headers
from notifier.errors import DeliveryError
from notifier.model import Endpoint, EventRecord, Job
from notifier.rendering import Renderer
from notifier.routing import EXPLAINED, Router, Subscriptions, Verdict
from notifier.store.base import Submission


def preview(
    submission: Submission,
    data: Mapping[str, Any],
    router: Router,
    renderer: Renderer,
    channels: Mapping[str, Channel],
) -> dict[str, Any]:
    """What an event would cause, in JSON's types: every verdict, every delivery in full.

    Of the endpoints, those of the event's tenant; as of the deliveries, `EXPLAINED` at most, and how many
    are not shown. The values of their sensitive headers are hidden.
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
            _delivery(job, event, subscriptions, renderer, channels[job.channel]) for job in shown
        ],
        "deliveries_not_shown": len(submission.jobs) - len(shown),
    }


def _told(kind: str, verdict: Verdict) -> dict[str, Any]:
    return {kind: verdict.name, "matched": verdict.matched, "reason": verdict.reason}


def _delivery(
    job: Job, event: EventRecord, subscriptions: Subscriptions, renderer: Renderer, channel: Channel
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
        return shown | {"message": channel.preview(_message(job, event, endpoint, renderer, channel))}
    except DeliveryError as error:
        return shown | {"error": {"code": error.code, "message": error.message}}


def _message(
    job: Job, event: EventRecord, endpoint: Endpoint | None, renderer: Renderer, channel: Channel
) -> Message:
    """What a channel would be handed, its endpoint's sensitive headers hidden."""
    content = Content()
    if job.template is not None:
        content = renderer.render(
            job.template, channel.parts, event=event, data=event.decoded_data(), job=job, locale=job.locale
        )
    if endpoint is not None:
        endpoint = msgspec.structs.replace(endpoint, headers=shown_headers(endpoint.headers))
    return Message(job=job, event=event, content=content, endpoint=endpoint)
