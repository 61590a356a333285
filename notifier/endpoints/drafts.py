"""What an endpoint may be made of, and all that is wrong with what somebody asked for, at once."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from notifier.channels.signing import Version, parse_secret
from notifier.config import EVENT_PATTERN
from notifier.endpoints.headers import MAX_HEADERS, header_faults
from notifier.errors import ConfigError, Fault, InvalidEndpointError, Permanent
from notifier.model import Tenant
from notifier.routing import MAX_DESTINATION, LaneOf, condition
from notifier.routing.destinations import lane_by

MAX_PATTERNS = 100
MAX_PATTERN = 128
"""Characters, as many as an event's type has."""
MAX_WHEN = 2048
MAX_DESCRIPTION = 512
MAX_RATE = 1_000_000
MAX_IN_FLIGHT = 10_000

_NO_TEXT_HOLDS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

Url = Annotated[
    str,
    Meta(
        description="Where to deliver; `http` or `https`, without user name and password.",
        extra_json_schema={"minLength": 1, "maxLength": MAX_DESTINATION, "format": "uri"},
    ),
]
EventTypes = Annotated[
    tuple[str, ...],
    Meta(
        description="Which events: types, or segments with `*` (`order.*`); `*` alone takes every app's.",
        extra_json_schema={"minItems": 1, "maxItems": MAX_PATTERNS, "uniqueItems": True},
    ),
]
When = Annotated[
    str,
    Meta(description="A Jinja2 expression that must hold.", extra_json_schema={"maxLength": MAX_WHEN}),
]
Description = Annotated[
    str, Meta(description="What it is, for people.", extra_json_schema={"maxLength": MAX_DESCRIPTION})
]
Headers = Annotated[
    dict[str, str],
    Meta(
        description="Sent with each delivery. `(hidden)` keeps the value there is.",
        extra_json_schema={"maxProperties": MAX_HEADERS},
    ),
]
Template = Annotated[str, Meta(description="Makes the payload.")]
RateLimit = Annotated[
    float,
    Meta(description="Deliveries a second.", extra_json_schema={"exclusiveMinimum": 0, "maximum": MAX_RATE}),
]
InFlight = Annotated[
    int,
    Meta(
        description="Deliveries at the same time.",
        extra_json_schema={"minimum": 1, "maximum": MAX_IN_FLIGHT},
    ),
]


class EndpointDraft(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint as it is asked for. Its types are checked where it is read, all else by `check`."""

    url: Url
    event_types: EventTypes
    tenant: str | None = None
    when: When | None = None
    description: Description | None = None
    headers: Headers = field(default_factory=dict)
    template: Template | None = None
    rate_limit: RateLimit | None = None
    max_in_flight: InFlight | None = None
    secret: str | None = None
    """`whsec_…` or `whsk_…`; one is made where there is none."""
    signature: Version = "v1"
    """Which kind of secret is made."""

    def __repr__(self) -> str:
        """Tell nothing of the secret and the headers: what is printed ends in logs."""
        return f"EndpointDraft(event_types={self.event_types!r}, tenant={self.tenant!r}, …)"


class EndpointChanges(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to become different about an endpoint: what is left out stays, null clears.

    `headers` are replaced as a whole. The tenant never changes: what waits is for the one it has.
    """

    url: Url | UnsetType = UNSET
    event_types: EventTypes | UnsetType = UNSET
    when: When | UnsetType | None = UNSET
    description: Description | UnsetType | None = UNSET
    headers: Headers | UnsetType | None = UNSET
    template: Template | UnsetType | None = UNSET
    rate_limit: RateLimit | UnsetType | None = UNSET
    max_in_flight: InFlight | UnsetType | None = UNSET

    def __repr__(self) -> str:
        """Tell no values: headers hold credentials."""
        return f"EndpointChanges({', '.join(self.given)})"

    @property
    def given(self) -> dict[str, Any]:
        """The fields that are set, by name."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}


class Rules(Struct, frozen=True):
    """What only other parts can say about an endpoint."""

    lane_of: LaneOf
    """The webhook channel's: raises Permanent for a url that can't be delivered to."""
    check_template: Callable[[str], str | None]
    """What is wrong with a template's name, if anything."""


def check(given: Mapping[str, Any], rules: Rules) -> None:
    """Hold what is given of an endpoint, by field, to every rule; None is a field that is left open.

    Raises InvalidEndpointError with all faults, each with its JSON pointer (RFC 6901).
    """
    values = {name: value for name, value in given.items() if value is not None and name in _CHECKS}
    faults = [fault for name, value in values.items() for fault in _CHECKS[name](value, rules)]
    if faults:
        raise InvalidEndpointError(faults)


def text_fault(text: str, limit: int) -> str | None:
    """What is wrong with a text for people, if anything."""
    if len(text) > limit:
        return f"expected at most {limit} characters, got {len(text)}"
    if _NO_TEXT_HOLDS.search(text):
        return "holds a control character, or half of a surrogate pair"
    return None


def _url(url: str, rules: Rules) -> Iterator[Fault]:
    try:
        lane_by(rules.lane_of, url)
    except Permanent as error:
        yield Fault("/url", error.message)


def _event_types(patterns: Collection[str], _rules: Rules) -> Iterator[Fault]:
    if not 1 <= len(patterns) <= MAX_PATTERNS:
        yield Fault("/event_types", f"expected 1 to {MAX_PATTERNS} event types, got {len(patterns)}")
        return
    seen: set[str] = set()
    for index, pattern in enumerate(patterns):
        if len(pattern) > MAX_PATTERN or not EVENT_PATTERN.fullmatch(pattern):
            problem = (
                f'expected an event type, or segments with * ("order.*"), of 1 to {MAX_PATTERN} characters'
            )
            yield Fault(f"/event_types/{index}", problem)
        elif pattern in seen:
            yield Fault(f"/event_types/{index}", f"{pattern!r} stands more than once")
        seen.add(pattern)


def _tenant(tenant: str, _rules: Rules) -> Iterator[Fault]:
    try:
        msgspec.convert(tenant, Tenant)
    except msgspec.ValidationError:
        yield Fault("/tenant", "expected 1 to 128 printable ASCII characters, without spaces")


def _when(when: str, _rules: Rules) -> Iterator[Fault]:
    if problem := text_fault(when, MAX_WHEN):
        yield Fault("/when", problem)
        return
    try:
        condition(when)
    except ConfigError as error:
        yield Fault("/when", error.problem)


def _description(description: str, _rules: Rules) -> Iterator[Fault]:
    if problem := text_fault(description, MAX_DESCRIPTION):
        yield Fault("/description", problem)


def _headers(headers: Mapping[str, str], _rules: Rules) -> Iterator[Fault]:
    return header_faults(headers)


def _template(template: str, rules: Rules) -> Iterator[Fault]:
    if problem := rules.check_template(template):
        yield Fault("/template", problem)


def _rate_limit(rate: float, _rules: Rules) -> Iterator[Fault]:
    if not 0 < rate <= MAX_RATE:
        yield Fault("/rate_limit", f"expected deliveries a second, more than 0 and at most {MAX_RATE}")


def _max_in_flight(number: int, _rules: Rules) -> Iterator[Fault]:
    if not 1 <= number <= MAX_IN_FLIGHT:
        yield Fault("/max_in_flight", f"expected 1 to {MAX_IN_FLIGHT} deliveries at the same time")


def _secret(secret: str, _rules: Rules) -> Iterator[Fault]:
    try:
        parse_secret(secret)
    except ValueError as error:
        yield Fault("/secret", str(error))


_CHECKS: Mapping[str, Callable[[Any, Rules], Iterator[Fault]]] = {
    "url": _url,
    "event_types": _event_types,
    "tenant": _tenant,
    "when": _when,
    "description": _description,
    "headers": _headers,
    "template": _template,
    "rate_limit": _rate_limit,
    "max_in_flight": _max_in_flight,
    "secret": _secret,
}
