"""What the outcomes of attempts make of an endpoint: failing, recovered, disabled. Pure."""

import msgspec
from msgspec import Struct

from notifier.errors import DeliveryError, TemplateError, Transient, Unavailable, Withdrawn
from notifier.model import Endpoint, EndpointState, rfc3339

GONE = 410
"""RFC 9110 §15.5.11: the receiver wants no more of it."""

_UNREACHABLE = "blocked_address"


class Turn(Struct, frozen=True):
    """What an endpoint becomes, and what is to be reported of it, if anything."""

    endpoint: Endpoint
    kind: str | None = None
    """`failing`, `recovered`, `disabled`."""
    reason: str = ""
    since: float | None = None
    """When the first attempt failed of those that nothing came through since."""
    error: DeliveryError | None = None
    """What the last attempt failed with, if it failed."""


def after_success(endpoint: Endpoint) -> Turn | None:
    """What becomes of an endpoint whose receiver took something; None: nothing changes."""
    since = endpoint.failing_since
    if endpoint.state is EndpointState.DISABLED or (since is None and not endpoint.reported):
        return None
    well = msgspec.structs.replace(endpoint, failing_since=None, reported=False)
    return Turn(
        well, "recovered" if endpoint.reported else None, "its receiver takes deliveries again", since
    )


def after_failure(
    endpoint: Endpoint,
    error: DeliveryError,
    now: float,
    disable_after: float,
    *,
    breaker_opened: bool = False,
) -> Turn | None:
    """What becomes of an endpoint that an attempt failed of; None: nothing changes.

    `disable_after` is how many seconds everything may fail, `breaker_opened` whether its lane's breaker
    opened by this. Only what its receiver did counts.
    """
    if endpoint.state is EndpointState.DISABLED or not _is_receivers(error):
        return None
    since = endpoint.failing_since
    if error.status_code == GONE:
        return _disabled(endpoint, "the receiver answered 410 Gone", now, error)
    if since is not None and endpoint.state is EndpointState.ENABLED and now - since >= disable_after:
        return _disabled(endpoint, f"everything failed since {rfc3339(since)}", now, error)
    if breaker_opened and not endpoint.reported:
        return _failing(endpoint, now, error)
    return Turn(msgspec.structs.replace(endpoint, failing_since=now)) if since is None else None


def _failing(endpoint: Endpoint, now: float, error: DeliveryError) -> Turn:
    since = now if endpoint.failing_since is None else endpoint.failing_since
    failing = msgspec.structs.replace(endpoint, failing_since=since, reported=True)
    reason = "too many of its deliveries failed; they wait, and one at a time is tried"
    return Turn(failing, "failing", reason, since, error)


def _disabled(endpoint: Endpoint, reason: str, now: float, error: DeliveryError) -> Turn:
    since = now if endpoint.failing_since is None else endpoint.failing_since
    disabled = msgspec.structs.replace(
        endpoint,
        state=EndpointState.DISABLED,
        state_reason=reason,
        state_changed_at=now,
        updated_at=now,
        failing_since=since,
    )
    return Turn(disabled, "disabled", reason, since, error)


def _is_receivers(error: DeliveryError) -> bool:
    """Whether the receiver answered so, or could not be reached.

    Not its fault: a template, a `when`, a secret or a payload of ours, an egress proxy that is down.
    """
    if isinstance(error, (TemplateError, Withdrawn, Unavailable)):
        return False
    return isinstance(error, Transient) or error.status_code is not None or error.code == _UNREACHABLE
