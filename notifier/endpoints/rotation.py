"""How an endpoint's secrets follow one another: the new one signs at once, the old ones for a while."""

import math

import msgspec

from notifier.errors import Fault, InvalidEndpointError
from notifier.model import Endpoint, EndpointSecret, rfc3339

MAX_SECRETS = 5
"""How many sign at the same time: each makes every request longer."""
MAX_OVERLAP = 366 * 86400.0
"""Seconds."""


def rotated(endpoint: Endpoint, secret: str, *, overlap: float, now: float) -> Endpoint:
    """Let a new secret sign; those there are go on for `overlap` seconds, or for less where it is set.

    Raises InvalidEndpointError.
    """
    live = endpoint.live_secrets(now)
    _check(live, secret, overlap, now)
    ends = now + overlap
    old = (
        EndpointSecret(each.secret, each.created_at, min(ends, each.expires_at or ends))
        for each in live
        if overlap > 0
    )
    return msgspec.structs.replace(endpoint, secrets=(EndpointSecret(secret, now), *old), updated_at=now)


def _check(live: tuple[EndpointSecret, ...], secret: str, overlap: float, now: float) -> None:
    if not (math.isfinite(overlap) and 0 <= overlap <= MAX_OVERLAP):
        raise InvalidEndpointError([Fault("/overlap", "expected seconds, from 0 to 366 days of them")])
    if any(each.secret == secret for each in live):
        raise InvalidEndpointError([Fault("/secret", "signs already")])
    if len(live) >= MAX_SECRETS and overlap > 0:
        first = min((each.expires_at for each in live if each.expires_at is not None), default=now)
        raise InvalidEndpointError(
            [
                Fault(
                    "/overlap",
                    f"{len(live)} secrets sign already, the most that can; one ends at {rfc3339(first)},"
                    " and an overlap of 0 ends them all",
                )
            ]
        )
