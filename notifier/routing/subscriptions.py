"""Which endpoints want an event, however many others there are, and the jobs it causes for them."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

from msgspec import Struct, field

from notifier.errors import ConfigError, Permanent, Withdrawn
from notifier.model import Endpoint, EndpointState, EventRecord, Job, JobError
from notifier.rendering import Condition
from notifier.retry import printable
from notifier.routing.jobs import blank, born
from notifier.routing.patterns import OPERATIONAL, endpoint_matches
from notifier.routing.verdicts import Verdict, by_condition

EXPLAINED = 200
"""How many endpoints an explanation goes through."""

_CHANNEL = "webhook"
_COMPILED = 65_536
"""Different conditions that are kept compiled, at about 3 KB each. Were they fewer than the endpoints of a
tenant have, every event would compile all of them anew, which takes seconds."""
_REMEMBERED = 1_000_000
_PATTERNS_TOLD = 5


class Explained(Struct, frozen=True):
    """Verdicts on one tenant's endpoints, those that take the event first; how many others there are."""

    verdicts: list[Verdict]
    left_out: int


class _Subscribers(Struct):
    """The endpoints of one tenant."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    by_pattern: dict[str, set[str]] = field(default_factory=dict)
    """The ids of those that have a pattern."""
    stars: set[str] = field(default_factory=set)
    """The patterns that may take more than one type; any other is found by the type itself."""
    remembered: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By event type, the ids of those that take it, the oldest first."""


class Subscriptions:
    """What endpoints subscribe to, in memory. An event's cost hangs on its own tenant's endpoints alone."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}
        self._tenants: dict[str | None, _Subscribers] = {}
        self._remembered = 0

    def get(self, endpoint_id: str) -> Endpoint | None:
        """The endpoint of an id."""
        return self._endpoints.get(endpoint_id)

    def put(self, endpoint: Endpoint) -> None:
        """Take an endpoint in, or in place of what it was before."""
        known = self._endpoints.get(endpoint.id)
        alike = known is not None and (known.tenant, known.event_types) == (
            endpoint.tenant,
            endpoint.event_types,
        )
        if not alike:
            self.drop(endpoint.id)
            self._enter(endpoint)
        self._endpoints[endpoint.id] = self._tenants[endpoint.tenant].endpoints[endpoint.id] = endpoint

    def _enter(self, endpoint: Endpoint) -> None:
        subscribers = self._tenants.setdefault(endpoint.tenant, _Subscribers())
        self._forget(subscribers)
        for pattern in endpoint.event_types:
            subscribers.by_pattern.setdefault(pattern, set()).add(endpoint.id)
            if "*" in pattern:
                subscribers.stars.add(pattern)

    def drop(self, endpoint_id: str) -> None:
        """Let an endpoint go, if it is there."""
        endpoint = self._endpoints.pop(endpoint_id, None)
        if endpoint is None:
            return
        subscribers = self._tenants[endpoint.tenant]
        self._forget(subscribers)
        del subscribers.endpoints[endpoint_id]
        for pattern in set(endpoint.event_types):
            subscribers.by_pattern[pattern].discard(endpoint_id)
            if not subscribers.by_pattern[pattern]:
                del subscribers.by_pattern[pattern]
                subscribers.stars.discard(pattern)
        if not subscribers.endpoints:
            del self._tenants[endpoint.tenant]

    # What is remembered --------------------------------------------------------------------------

    def matching(self, tenant: str | None, event_type: str) -> tuple[str, ...]:
        """The ids of a tenant's endpoints that take an event type, the oldest first."""
        subscribers = self._tenants.get(tenant)
        if subscribers is None:
            return ()
        found = subscribers.remembered.get(event_type)
        if found is None:
            found = _looked_up(subscribers, event_type)
            self._remember(subscribers, event_type, found)
        return found

    def _remember(self, subscribers: _Subscribers, event_type: str, found: tuple[str, ...]) -> None:
        """Types come from whoever posts: what is kept of them is bounded over all tenants."""
        if self._remembered > _REMEMBERED:
            for each in self._tenants.values():
                each.remembered.clear()
            self._remembered = 0
        subscribers.remembered[event_type] = found
        self._remembered += 1 + len(found)

    def _forget(self, subscribers: _Subscribers) -> None:
        self._remembered -= sum(1 + len(each) for each in subscribers.remembered.values())
        subscribers.remembered.clear()

    # What an event causes ------------------------------------------------------------------------

    def jobs(
        self, event: EventRecord, data: Mapping[str, Any], *, now: float, max_attempts: int
    ) -> list[Job]:
        """The jobs that an event causes for endpoints; one whose `when` fails is born FAILED."""
        jobs: list[Job] = []
        for endpoint_id in self.matching(event.tenant, event.type):
            endpoint = self._endpoints[endpoint_id]
            if _refusal(endpoint, event, data) is None:
                job = _job(endpoint, event, data, now, max_attempts)
                if job is not None:
                    jobs.append(job)
        return jobs

    def resolve(
        self, endpoint_id: str, event: EventRecord, data: Mapping[str, Any]
    ) -> tuple[str, str, str | None]:
        """Make out the destination, lane and locale of a job that was born FAILED.

        Raises Withdrawn where the endpoint is gone, Permanent (`condition_false`, `condition_error`).
        """
        endpoint = self._endpoints.get(endpoint_id)
        if endpoint is None:
            raise Withdrawn(f"the endpoint {endpoint_id} was deleted")
        if not _wants(endpoint, event, data):
            raise Permanent(f"`when` is false: {endpoint.when}", code="condition_false")
        return without_query(endpoint.url), endpoint.lane, None

    def explain(self, event: EventRecord, data: Mapping[str, Any], *, limit: int = EXPLAINED) -> Explained:
        """For the endpoints of the event's tenant, whether they take it, and why not; `limit` of them."""
        subscribers = self._tenants.get(event.tenant)
        if subscribers is None:
            return Explained([], 0)
        fitting = self.matching(event.tenant, event.type)
        apart = set(fitting)
        verdicts = [_verdict(subscribers.endpoints[each], event, data, fits=True) for each in fitting]
        verdicts.sort(key=lambda verdict: not verdict.matched)
        rest = (each for each in subscribers.endpoints.values() if each.id not in apart)
        verdicts += [_verdict(each, event, data, fits=False) for each in islice(rest, limit)]
        return Explained(verdicts[:limit], max(0, len(subscribers.endpoints) - limit))


def _looked_up(subscribers: _Subscribers, event_type: str) -> tuple[str, ...]:
    found = set(subscribers.by_pattern.get(event_type, ()))
    for pattern in subscribers.stars:
        if endpoint_matches(pattern, event_type):
            found |= subscribers.by_pattern[pattern]
    return tuple(sorted(found))  # an id begins with the time it was made


def _refusal(endpoint: Endpoint, event: EventRecord, data: Mapping[str, Any]) -> str | None:
    """Why an endpoint is not told what the notifier reports of endpoints, though it asked for its type.

    A report that causes reports could go on for ever, and one about a thousand endpoints that all listen
    would cause a million: so one about an endpoint that takes reports itself goes by routes alone. What an
    endpoint is told is then always about one that is told nothing.
    """
    if not event.type.startswith(OPERATIONAL):
        return None
    subject = data.get("endpoint")
    if not isinstance(subject, Mapping):
        return None
    if subject.get("id") == endpoint.id:
        return "an endpoint is told nothing about itself"
    types = subject.get("event_types")
    if isinstance(types, (list, tuple)) and any(str(each).startswith(OPERATIONAL) for each in types):
        return "what is reported of an endpoint that takes such reports itself goes by routes alone"
    return None


def _job(
    endpoint: Endpoint, event: EventRecord, data: Mapping[str, Any], now: float, max_attempts: int
) -> Job | None:
    error = None
    try:
        if not _wants(endpoint, event, data):
            return None
    except Permanent as raised:
        error = JobError(raised.code, printable(raised.message))
    job = blank(
        channel=_CHANNEL,
        endpoint=endpoint.id,
        destination=without_query(endpoint.url) if error is None else None,
        lane=endpoint.lane,
        template=endpoint.template,
        max_attempts=max_attempts,
        error=error,
    )
    return born(job, event, now)


def without_query(url: str) -> str:
    """A url as it may be shown and logged: its query may hold a secret."""
    return url.partition("#")[0].partition("?")[0]


# Conditions --------------------------------------------------------------------------------------


@lru_cache(maxsize=_COMPILED)
def condition(source: str) -> Condition:
    """Compile an endpoint's `when`, once for all that have the same. Raises ConfigError for what is none."""
    return Condition(source, "when")


def _wants(endpoint: Endpoint, event: EventRecord, data: Mapping[str, Any]) -> bool:
    """Whether its `when` holds. Raises Permanent (`condition_error`) where that can't be said.

    Compiled as it is needed: a hundred thousand at the start would take minutes.
    """
    if endpoint.when is None:
        return True
    try:
        compiled = condition(endpoint.when)
    except ConfigError as error:  # an older version took it
        raise Permanent(str(error), code="condition_error") from None
    return compiled.holds(event, data)


# Verdicts ----------------------------------------------------------------------------------------


def _verdict(endpoint: Endpoint, event: EventRecord, data: Mapping[str, Any], *, fits: bool) -> Verdict:
    if not fits:
        return Verdict(endpoint.id, matched=False, reason=_does_not_fit(endpoint, event.type))
    if (refusal := _refusal(endpoint, event, data)) is not None:
        return Verdict(endpoint.id, matched=False, reason=refusal)
    pattern = next(each for each in endpoint.event_types if endpoint_matches(each, event.type))
    matching = f"{event.type!r} matches {pattern!r}"
    found = by_condition(endpoint.id, matching, endpoint.when, lambda: _wants(endpoint, event, data))
    if not found.matched or endpoint.state is EndpointState.ENABLED:
        return found
    stopped = endpoint.state_reason or f"it is {endpoint.state}"
    return Verdict(found.name, matched=True, reason=f"{found.reason}; {stopped}: its deliveries are held")


def _does_not_fit(endpoint: Endpoint, event_type: str) -> str:
    told = ", ".join(map(repr, endpoint.event_types[:_PATTERNS_TOLD]))
    others = len(endpoint.event_types) - _PATTERNS_TOLD
    return f"{event_type!r} does not match {told}" + (f" or {others} others" if others > 0 else "")
