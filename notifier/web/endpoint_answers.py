"""What the API answers of endpoints, as JSON. A secret stands in the one answer that first tells it."""

from hashlib import sha256
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from notifier.endpoints import public_key, shown_headers
from notifier.endpoints.trial import Trial, TrialRequest, TrialResponse
from notifier.explain import Trouble
from notifier.model import Endpoint, EndpointSecret, EndpointState, rfc3339
from notifier.web.answers import ErrorAnswer, Time, TimingsAnswer, error_answer, maybe_time, timings_answer


class EndpointAnswer(Struct, frozen=True):
    """A webhook subscription. Header values that may hold a credential are shown as `(hidden)`."""

    id: Annotated[str, Meta(description="`ep_…`")]
    tenant: Annotated[
        str | None, Meta(description="it gets this tenant's events and no others; null: those of no tenant")
    ]
    url: Annotated[str, Meta(description="where events are delivered")]
    event_types: Annotated[list[str], Meta(description="which events: types, or segments with `*`")]
    when: Annotated[str | None, Meta(description="a Jinja2 expression that must hold")]
    description: Annotated[str | None, Meta(description="what it is, for people")]
    headers: Annotated[dict[str, str], Meta(description="sent with each delivery")]
    template: Annotated[str | None, Meta(description="makes the payload; null: type, timestamp and data")]
    rate_limit: Annotated[float | None, Meta(description="deliveries a second, at most")]
    max_in_flight: Annotated[int | None, Meta(description="deliveries at the same time, at most")]
    state: Annotated[
        EndpointState,
        Meta(description="`paused` by an operator, `disabled` by the notifier: what comes is held meanwhile"),
    ]
    state_reason: Annotated[str | None, Meta(description="who or what stopped it, in words")]
    state_changed_at: Time
    created_at: Time
    updated_at: Time
    public_key: Annotated[
        str | None, Meta(description="what receivers verify `v1a` signatures with (`whpk_…`); null for `v1`")
    ]


class EndpointList(Struct, frozen=True):
    """A page of endpoints, newest first; `next_cursor` leads on, and is null at the end."""

    endpoints: list[EndpointAnswer]
    next_cursor: str | None


class EndpointCreated(EndpointAnswer, frozen=True):
    """A new endpoint with its secret, which is told this once."""

    secret: str


class SecretState(Struct, frozen=True):
    """A secret that signs: since when and, where it is being rotated out, until when."""

    fingerprint: Annotated[
        str, Meta(description="tells secrets apart: the first 8 hex digits of the secret's SHA-256")
    ]
    signature: Annotated[str, Meta(description="`v1` or `v1a`")]
    public_key: Annotated[str | None, Meta(description="`whpk_…`, for `v1a`")]
    created_at: Time
    expires_at: Annotated[Time | None, Meta(description="when it signs no longer; null: the newest one")]


class TroubleAnswer(Struct, frozen=True):
    """What holds up everything that waits for an endpoint: a stable word, a sentence, until when if known."""

    reason: str
    detail: str
    until: Time | None


class EndpointDetail(EndpointAnswer, frozen=True):
    """An endpoint, how many of its jobs wait and for what, and the secrets that sign for it, newest first."""

    failing_since: Annotated[
        Time | None,
        Meta(description="when the first attempt failed of those that nothing came through since"),
    ]
    pending: Annotated[int, Meta(description="how many of its jobs wait")]
    waiting_for: Annotated[
        TroubleAnswer | None, Meta(description="what holds all of them up just now; null: nothing does")
    ]
    secrets: list[SecretState]


class EndpointRotated(EndpointAnswer, frozen=True):
    """An endpoint with its new secret, which is told this once, and until when the others sign beside it."""

    secret: str
    secrets: list[SecretState]


class EndpointDeleted(Struct, frozen=True):
    """An endpoint that is gone, and how many jobs that waited for it are CANCELLED."""

    id: str
    cancelled: Annotated[int, Meta(description="how many jobs waited for it")]


class TrialAnswer(Struct, frozen=True):
    """A test-send, its whole exchange; `request` is null where none could be made."""

    delivered: bool
    request: TrialRequest | None
    response: TrialResponse | None
    error: ErrorAnswer | None
    timings: TimingsAnswer | None


def endpoint_answer(endpoint: Endpoint) -> EndpointAnswer:
    """Answer an endpoint, without its secrets."""
    return EndpointAnswer(
        id=endpoint.id,
        tenant=endpoint.tenant,
        url=endpoint.url,
        event_types=list(endpoint.event_types),
        when=endpoint.when,
        description=endpoint.description,
        headers=shown_headers(endpoint.headers),
        template=endpoint.template,
        rate_limit=endpoint.rate_limit,
        max_in_flight=endpoint.max_in_flight,
        state=endpoint.state,
        state_reason=endpoint.state_reason,
        state_changed_at=rfc3339(endpoint.state_changed_at),
        created_at=rfc3339(endpoint.created_at),
        updated_at=rfc3339(endpoint.updated_at),
        public_key=next((public_key(each.secret) for each in endpoint.secrets), None),
    )


def endpoint_created(endpoint: Endpoint, secret: str) -> EndpointCreated:
    """Answer a new endpoint with its secret."""
    return EndpointCreated(**_fields(endpoint), secret=secret)


def endpoint_detail(endpoint: Endpoint, pending: int, trouble: Trouble | None, now: float) -> EndpointDetail:
    """Answer an endpoint with what is asked of the store: `pending`, how many of its jobs wait."""
    since = maybe_time(endpoint.failing_since)
    waits = None if trouble is None else _trouble(trouble)
    return EndpointDetail(
        **_fields(endpoint),
        failing_since=since,
        pending=pending,
        waiting_for=waits,
        secrets=_live(endpoint, now),
    )


def _trouble(trouble: Trouble) -> TroubleAnswer:
    return TroubleAnswer(trouble.reason, trouble.detail, maybe_time(trouble.until))


def endpoint_rotated(endpoint: Endpoint, secret: str, now: float) -> EndpointRotated:
    """Answer an endpoint whose newest secret is this one."""
    return EndpointRotated(**_fields(endpoint), secret=secret, secrets=_live(endpoint, now))


def _fields(endpoint: Endpoint) -> dict[str, Any]:
    return msgspec.structs.asdict(endpoint_answer(endpoint))


def _live(endpoint: Endpoint, now: float) -> list[SecretState]:
    return [_secret_state(each) for each in endpoint.live_secrets(now)]


def signature_of(secret: EndpointSecret) -> Literal["v1", "v1a"]:
    """Say which kind of signature an endpoint's secret makes."""
    return kind_of(secret.secret)


def kind_of(secret: str) -> Literal["v1", "v1a"]:
    """Say which kind of signature a secret's text makes. Raises ValueError for a text that is none."""
    return "v1" if public_key(secret) is None else "v1a"


def _secret_state(secret: EndpointSecret) -> SecretState:
    return SecretState(
        fingerprint=sha256(secret.secret.encode()).hexdigest()[:8],
        signature=signature_of(secret),
        public_key=public_key(secret.secret),
        created_at=rfc3339(secret.created_at),
        expires_at=maybe_time(secret.expires_at),
    )


def trial_answer(trial: Trial) -> TrialAnswer:
    """Answer a test-send."""
    return TrialAnswer(
        delivered=trial.delivered,
        request=trial.request,
        response=trial.response,
        error=error_answer(trial.error),
        timings=timings_answer(trial.timings),
    )
