"""The words of the domain: events, jobs, attempts, and the one table of what a job's state may become.

Times are seconds since the Unix epoch, UTC, as floats. Knows nothing of how anything is stored or sent.
"""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from itertools import chain
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

MAX_DATA_DEPTH = 64
"""How deep `data` may nest: JSON that goes deeper is refused before it is read."""
MAX_RECIPIENTS = 100
"""How many a route or a delivery may go to, those of `to`, `cc` and `bcc` together."""
CATEGORY = r"^[a-z0-9][a-z0-9_-]{0,63}\Z"
"""What the name of a category looks like; for `match`."""

EventType = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.\-/]{1,128}\Z", description="e.g. `user.signup`")]
Tenant = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,128}\Z", description="whose event this is")]
IdempotencyKey = Annotated[
    str,
    Meta(pattern=r"^[\x20-\x7e]{1,512}\Z", description="the same key never causes a second event"),
]
Destination = Annotated[str, Meta(min_length=1, max_length=2048)]
Recipients = Destination | Annotated[list[Destination], Meta(min_length=1, max_length=MAX_RECIPIENTS)]
"""One recipient, or several: each string is one."""
Category = Annotated[str, Meta(pattern=CATEGORY, description="what recipients can unsubscribe from")]


class JobState(StrEnum):
    """Where a job stands (DESIGN: the table of states)."""

    PENDING = "PENDING"
    """Waits for its `next_attempt_at`: a first try, a retry, or a scheduled delivery."""
    PROCESSING = "PROCESSING"
    """Claimed by a live process: a worker has it, or it waits in memory for one."""
    COMPLETED = "COMPLETED"
    """The receiver took it."""
    FAILED = "FAILED"
    """A permanent error, or the attempts are used up; kept until an operator requeues it."""
    CANCELLED = "CANCELLED"
    """An operator withdrew it, or its recipient is suppressed."""


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.PENDING: frozenset({JobState.PROCESSING, JobState.CANCELLED}),
    JobState.PROCESSING: frozenset(
        {JobState.COMPLETED, JobState.PENDING, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.COMPLETED: frozenset({JobState.PENDING}),
    JobState.FAILED: frozenset({JobState.PENDING}),
    JobState.CANCELLED: frozenset({JobState.PENDING}),
}

REQUEUEABLE = frozenset(JobState) - {JobState.PROCESSING}
"""The states an operator may requeue from; a PENDING job becomes due now. Only its worker ends PROCESSING."""
CANCELLABLE = frozenset({JobState.PENDING})
"""The states an operator may cancel from; one that is claimed, and not begun, is let go of first."""


class Priority(IntEnum):
    """What goes first. A lower number never waits behind a higher one."""

    HIGH = 0
    NORMAL = 1
    LOW = 2

    @classmethod
    def named(cls, name: str) -> "Priority":
        """Turn `high`, `normal` or `low` into its rank."""
        return cls[name.upper()]


class Outcome(StrEnum):
    """What became of one attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Delivery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One delivery that an event asks for by itself, beside those its routes cause."""

    channel: Annotated[str, Meta(min_length=1, max_length=64, description="`email`, `webhook`, a plugin's")]
    to: Recipients | None = None
    """Whom it goes to, for every channel but `webhook`: a delivery each."""
    # Unset, and not null, so that what was posted before there were these has the same fingerprint still.
    cc: Recipients | UnsetType = UNSET
    """Who else the mail goes to, and is told to; for `email` alone."""
    bcc: Recipients | UnsetType = UNSET
    """Who else the mail goes to, which no one is told; for `email` alone."""
    url: Destination | None = None
    """The receiver's address, for `webhook`."""
    template: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    locale: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_\-]{1,35}\Z")] | None = None
    category: Category | UnsetType = UNSET
    """What kind of mail it is to its recipients, who can unsubscribe from it; for `email` alone."""
    priority: Annotated[str, Meta(pattern=r"^(high|normal|low)\Z")] = "normal"

    @property
    def recipients(self) -> int:
        """How many it goes to."""
        given = (self.to, self.cc, self.bcc)
        return sum(1 if isinstance(each, str) else len(each) for each in given if each)


class Event(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an app posts: something happened; routes and `deliver` say whom to tell."""

    type: EventType
    data: dict[str, Any]
    tenant: Tenant | None = None
    idempotency_key: IdempotencyKey | None = None
    deliver_at: Annotated[datetime, Meta(tz=True, description="not before then (RFC 3339)")] | None = None
    deliver: Annotated[list[Delivery], Meta(max_length=100)] = field(default_factory=list)


class EventRecord(Struct, frozen=True, kw_only=True):
    """An accepted event as it is kept. `data` is the JSON text exactly as it was posted."""

    id: str
    type: str
    data: msgspec.Raw
    created_at: float
    tenant: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    """Hex SHA-256 of what was posted, kept with an idempotency key to tell a repeat from a conflict."""
    deliver_at: float | None = None

    def decoded_data(self) -> dict[str, Any]:
        """`data` as Python values."""
        return _data.decode(self.data)


_data = msgspec.json.Decoder(dict[str, Any])


class Addressed(Struct, frozen=True, kw_only=True):
    """Whom a mail says it is for; its job brings it to one recipient. Who is bcc is never among them."""

    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    place: str | None = None
    """Of a job whose destination is not made out: which of its route's recipients it is for, as `cc[1]`."""


class JobError(Struct, frozen=True):
    """Why a job's last attempt did not deliver: `code` groups, `message` explains."""

    code: str
    message: str


class Job(Struct, frozen=True, kw_only=True):
    """One delivery: one event × one destination on one channel."""

    id: str
    event_id: str
    event_type: str
    channel: str
    destination: str | None
    """None while it could not be made out: such a job is born FAILED, and made out anew when requeued."""
    lane: str
    status: JobState
    created_at: float
    updated_at: float
    max_attempts: int
    tenant: str | None = None
    route: str | None = None
    """The route's name; None for a delivery that the event asked for itself."""
    endpoint: str | None = None
    template: str | None = None
    locale: str | None = None
    category: str | None = None
    """What kind of mail it is to its recipient, who can unsubscribe from just that."""
    addressed: Addressed | None = None
    """None: to the recipient alone."""
    priority: int = Priority.NORMAL
    attempts: int = 0
    """Attempts spent since the last requeue."""
    next_attempt_at: float | None = None
    """Set exactly while PENDING."""
    error: JobError | None = None
    claim: int = 0
    """The fence: grows with every claim, requeue and cancel; a settle under an older number is refused."""
    kept: bool = False
    """Whether the store keeps what an attempt of unknown outcome sent, to send just that again."""


class Timings(Struct, frozen=True, kw_only=True):
    """Where the time of one exchange went, in seconds, and how much went over the wire."""

    dns: float = 0.0
    """Name look-up; none on a connection that is used again, as for `connect` and `tls`."""
    connect: float = 0.0
    tls: float = 0.0
    wait: float = 0.0
    """From the request's being sent to the response's headers."""
    body: float = 0.0
    sent: int = 0
    """Bytes of the request, its head included."""
    received: int = 0
    """Bytes of the response's body that were read."""


class Attempt(Struct, frozen=True, kw_only=True):
    """One try of one job, never changed once written. Its number is its place among the job's attempts."""

    started_at: float
    duration_ms: float
    outcome: Outcome
    status_code: int | None = None
    error: JobError | None = None
    response: str | None = None
    """The first KiB of what the receiver said, as text."""
    timings: Timings | None = None
    """None for channels that don't measure, and where nothing was sent."""
    via: str | None = None
    """What it went by, where there is a choice: the mail relay's `host:port`."""


class SuppressionReason(StrEnum):
    """Why nothing more is sent to someone."""

    UNSUBSCRIBED = "unsubscribed"
    BOUNCED = "bounced"
    """Their mail server refused them for good."""
    COMPLAINED = "complained"
    MANUAL = "manual"


class Suppression(Struct, frozen=True, kw_only=True):
    """That nothing more is sent to a recipient on a channel: of one category, or at all."""

    channel: str
    recipient: str
    """As `suppressions.key_of` spells it: a mail address in lower case."""
    category: str | None = None
    """None: of every category, and what has none."""
    reason: SuppressionReason
    detail: str | None = None
    job_id: str | None = None
    """The job that led to it, if one did."""
    created_at: float


class EndpointState(StrEnum):
    """Whether an endpoint is delivered to; what comes for one that is not is held as PENDING."""

    ENABLED = "enabled"
    PAUSED = "paused"
    """An operator stopped it for a while."""
    DISABLED = "disabled"
    """The notifier stopped it: its receiver is gone (410), or failed everything for too long."""


class EndpointSecret(Struct, frozen=True):
    """What signs an endpoint's deliveries: `whsec_…` (v1) or `whsk_…` (v1a), until `expires_at` if set."""

    secret: str
    created_at: float
    expires_at: float | None = None

    def __repr__(self) -> str:
        """Tell nothing: what is printed ends in logs."""
        return "EndpointSecret(…)"


class Endpoint(Struct, frozen=True, kw_only=True):
    """A webhook subscription: which events go to a url, how they are signed, and how fast."""

    id: str
    url: str
    event_types: tuple[str, ...]
    """Patterns, as routes have them."""
    created_at: float
    updated_at: float
    state_changed_at: float
    tenant: str | None = None
    """It gets this tenant's events and no others; None: the events that have no tenant."""
    when: str | None = None
    description: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    rate_limit: float | None = None
    """Deliveries a second."""
    max_in_flight: int | None = None
    state: EndpointState = EndpointState.ENABLED
    state_reason: str | None = None
    """Who or what stopped it, in words."""
    secrets: tuple[EndpointSecret, ...] = ()
    """The newest first; the others are being rotated out."""
    failing_since: float | None = None
    """When the first attempt failed of those that nothing has come through since."""
    reported: bool = False
    """Whether operators were told that it fails (`notifier.endpoint.failing`)."""
    deleted: bool = False
    """Whether it only still stands because its jobs are being cancelled."""

    def __repr__(self) -> str:
        """Tell which one it is and no more: headers, secrets and a url's query must not end in logs."""
        return f"Endpoint({self.id})"

    def live_secrets(self, now: float) -> tuple[EndpointSecret, ...]:
        """The secrets that still sign at a time, the newest first."""
        return tuple(each for each in self.secrets if each.expires_at is None or each.expires_at > now)

    @property
    def lane(self) -> str:
        """The lane of its jobs, which it shares with nobody."""
        return f"endpoint:{self.id}"


class Claim(Struct, frozen=True):
    """A worker's time-limited right to one job; `job.claim` is its fence."""

    job: Job
    event: EventRecord


def new_id(prefix: str, now: float) -> str:
    """Make an opaque, time-ordered id: `prefix_`, 12 hex digits of milliseconds, 20 of randomness."""
    return f"{prefix}_{int(now * 1000).to_bytes(6).hex()}{_token()}"


def _tokens() -> list[str]:
    """20 hex digits of the system's randomness, 256 times: asked for in bulk, by one system call."""
    digits = secrets.token_hex(10 * 256)
    return [digits[start : start + 20] for start in range(0, len(digits), 20)]


# Endless, and one call into C for each id: a Python function around it would cost more than its work.
_token = chain.from_iterable(iter(_tokens, None)).__next__


def rfc3339(moment: float) -> str:
    """Write a time as RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
