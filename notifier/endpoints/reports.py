"""The operational events: what the notifier itself tells of an endpoint, by the ordinary routes."""

from notifier.endpoints.health import Turn
from notifier.model import Event, rfc3339
from notifier.routing import OPERATIONAL, without_query


def report(turn: Turn) -> Event | None:
    """The event `notifier.endpoint.failing`, `.recovered` or `.disabled` of a turn; None: nothing to tell."""
    if turn.kind is None:
        return None
    endpoint = turn.endpoint
    subject = {
        "id": endpoint.id,
        "url": without_query(endpoint.url),
        "name": endpoint.description or without_query(endpoint.url),
        "description": endpoint.description,
        "tenant": endpoint.tenant,
        "event_types": list(endpoint.event_types),
        "state": str(endpoint.state),
        "state_reason": endpoint.state_reason,
    }
    since = None if turn.since is None else rfc3339(turn.since)
    error = None if turn.error is None else {"code": turn.error.code, "message": turn.error.message}
    data = {"endpoint": subject, "since": since, "reason": turn.reason, "error": error}
    return Event(type=f"{OPERATIONAL}endpoint.{turn.kind}", tenant=endpoint.tenant, data=data)
