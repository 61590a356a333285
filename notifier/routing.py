"""Which jobs an event causes: by the routes of the configuration, and by its own `deliver`. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from notifier.config import Duration, Retry, Route
from notifier.errors import ConfigError, Fault, InvalidEventError, Permanent
from notifier.model import Delivery, EventRecord, Job, JobError, JobState, Priority, new_id
from notifier.rendering import Condition, Text
from notifier.retry import printable

LaneOf = Callable[[str], str]
"""Takes a destination, returns its lane; raises Permanent for what is no destination at all."""

MAX_DESTINATION = 2048
"""Characters, as for the destinations that events bring themselves."""

_REMEMBERED_TYPES = 1024
_NO_DESTINATION_HOLDS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_LOCALE = re.compile(r"[A-Za-z0-9_-]{1,35}")


class Verdict(Struct, frozen=True):
    """Whether a route takes an event, and why not."""

    route: str
    matched: bool
    reason: str


def matches(pattern: str, event_type: str) -> bool:
    """Whether a route's `event` takes an event type: `*` stands for one segment, alone for everything."""
    if pattern in ("*", event_type):
        return True
    wanted, given = pattern.split("."), event_type.split(".")
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


class _CompiledRoute:
    """A route, its Jinja2 compiled. Raises ConfigError naming the key that can't be."""

    def __init__(
        self, route: Route, index: int, schedule: Sequence[Duration], lanes: Mapping[str, LaneOf]
    ) -> None:
        key = f"routes[{index}]"
        if route.channel not in lanes:
            raise ConfigError(f"{key}.channel", f"no channel {route.channel!r}; there are: {_listed(lanes)}")
        self.route = route
        self.lane_of = lanes[route.channel]
        self.priority = Priority.named(route.priority)
        self.max_attempts = len(schedule) + 1
        self.destination = Text(route.destination, f"{key}.{'url' if route.url else 'to'}")
        self.locale = Text(route.locale, f"{key}.locale") if route.locale else None
        self.when = Condition(route.when, f"{key}.when") if route.when else None

    def wants(self, event: EventRecord, data: Mapping[str, Any]) -> bool:
        """Whether its `when` holds. Raises Permanent where that can't be said."""
        return self.when is None or self.when.holds(event, data)

    def made_out(self, event: EventRecord, data: Mapping[str, Any]) -> tuple[str, str, str | None]:
        """Destination, lane and locale of an event's job. Raises Permanent where they can't be made out."""
        destination = self.destination.render(event, data)
        lane = _lane(destination, self.lane_of)
        locale = self.locale.render(event, data) if self.locale else ""
        return destination, lane, locale if _LOCALE.fullmatch(locale) else None


def _lane(destination: str, lane_of: LaneOf) -> str:
    """The lane of a destination. Raises Permanent for one that nothing could be sent to.

    Whatever else a channel raises is a refusal too: a fault of one channel must not cost an event its others.
    """
    if not destination.strip():
        raise Permanent("the destination is empty", code="invalid_destination")
    if len(destination) > MAX_DESTINATION or _NO_DESTINATION_HOLDS.search(destination):
        problem = "the destination is too long, or holds a control character"
        raise Permanent(problem, code="invalid_destination")
    try:
        return lane_of(destination)
    except Permanent as error:
        code = error.code if error.code != Permanent.code else "invalid_destination"
        raise Permanent(error.message, code=code) from error
    except Exception as error:
        problem = f"the channel can't read it: {type(error).__name__}: {error}"
        raise Permanent(problem, code="invalid_destination") from error


def _listed(lanes: Mapping[str, LaneOf]) -> str:
    return ", ".join(sorted(lanes)) or "none"


class Router:
    """The routes of one configuration; `lanes` gives for each channel the lane of a destination."""

    def __init__(self, routes: Sequence[Route], retry: Retry, lanes: Mapping[str, LaneOf]) -> None:
        self._lanes = lanes
        self._default_schedule = retry.schedule
        self._routes = {
            route.name: _CompiledRoute(route, index, self._schedule_of(route), lanes)
            for index, route in enumerate(routes)
        }
        self._by_type: dict[str, tuple[_CompiledRoute, ...]] = {}

    def _schedule_of(self, route: Route) -> tuple[Duration, ...]:
        return self._default_schedule if route.retry is None else route.retry

    def route(self, name: str | None) -> Route | None:
        """The route of a name, if the configuration has it."""
        found = self._routes.get(name or "")
        return found.route if found else None

    def schedule(self, name: str | None) -> tuple[Duration, ...]:
        """Seconds to wait after each failed attempt of a route's job."""
        route = self.route(name)
        return self._schedule_of(route) if route else self._default_schedule

    def jobs(
        self, event: EventRecord, data: Mapping[str, Any], deliver: Sequence[Delivery], now: float
    ) -> tuple[Job, ...]:
        """The jobs that an event causes. Raises InvalidEventError for what is wrong with its `deliver`.

        A route whose `when` or destination can't be made out causes a job that is born FAILED.
        """
        asked = self._asked_for(event, deliver, now) if deliver else ()
        routed = (self._routed(each, event, data, now) for each in self._matching(event.type))
        return (*(job for job in routed if job is not None), *asked)

    def resolve(self, job: Job, event: EventRecord, data: Mapping[str, Any]) -> tuple[str, str, str | None]:
        """Make out the destination, lane and locale of a job that was born without.

        Raises Permanent: `unknown_route` where the configuration has none of that name and channel any more,
        `condition_false` where its `when` turns out not to hold, and what a job can be born FAILED with.
        """
        found = self._routes.get(job.route or "")
        if found is None or found.route.channel != job.channel:
            problem = f"the configuration has no route {job.route!r} by {job.channel} any more"
            raise Permanent(problem, code="unknown_route")
        if not found.wants(event, data):
            raise Permanent(f"`when` is false: {found.route.when}", code="condition_false")
        return found.made_out(event, data)

    def explain(self, event: EventRecord, data: Mapping[str, Any]) -> list[Verdict]:
        """For every route, whether it takes the event, and why not.

        A route whose `when` fails counts as matched: it causes a job, which is born FAILED.
        """
        return [self._verdict(each, event, data) for each in self._routes.values()]

    def _verdict(self, each: _CompiledRoute, event: EventRecord, data: Mapping[str, Any]) -> Verdict:
        name, pattern, when = each.route.name, each.route.event, each.route.when
        if not matches(pattern, event.type):
            return Verdict(name, matched=False, reason=f"{event.type!r} does not match {pattern!r}")
        try:
            if not each.wants(event, data):
                return Verdict(name, matched=False, reason=f"`when` is false: {when}")
        except Permanent as error:
            return Verdict(name, matched=True, reason=f"`when` failed: {error.message}")
        and_so = f", and `when` is true: {when}" if when else ""
        return Verdict(name, matched=True, reason=f"{event.type!r} matches {pattern!r}{and_so}")

    def _matching(self, event_type: str) -> tuple[_CompiledRoute, ...]:
        found = self._by_type.get(event_type)
        if found is None:
            if len(self._by_type) >= _REMEMBERED_TYPES:
                self._by_type.clear()
            found = tuple(each for each in self._routes.values() if matches(each.route.event, event_type))
            self._by_type[event_type] = found
        return found

    def _routed(
        self, each: _CompiledRoute, event: EventRecord, data: Mapping[str, Any], now: float
    ) -> Job | None:
        route, error = each.route, None
        destination, lane, locale = None, route.channel, None
        try:
            if not each.wants(event, data):
                return None
            destination, lane, locale = each.made_out(event, data)
        except Permanent as raised:
            error = JobError(raised.code, printable(raised.message))
        return _job(
            event,
            now,
            channel=route.channel,
            destination=destination,
            lane=lane,
            error=error,
            route=route.name,
            template=route.template,
            locale=locale,
            priority=each.priority,
            max_attempts=each.max_attempts,
        )

    def _asked_for(self, event: EventRecord, deliver: Sequence[Delivery], now: float) -> list[Job]:
        """The jobs of `deliver`, whose destinations are taken literally."""
        jobs: list[Job] = []
        faults: list[Fault] = []
        for index, delivery in enumerate(deliver):
            fault = _fault_of(delivery, f"/deliver/{index}", self._lanes)
            if fault is not None:
                faults.append(fault)
            else:
                jobs.append(self._asked(event, delivery, now))
        if faults:
            raise InvalidEventError(faults)
        return jobs

    def _asked(self, event: EventRecord, delivery: Delivery, now: float) -> Job:
        destination = delivery.destination or ""
        return _job(
            event,
            now,
            channel=delivery.channel,
            destination=destination,
            lane=_lane(destination, self._lanes[delivery.channel]),
            template=delivery.template,
            locale=delivery.locale,
            priority=Priority.named(delivery.priority),
            max_attempts=len(self._default_schedule) + 1,
        )


def _job(
    event: EventRecord,
    now: float,
    *,
    channel: str,
    destination: str | None,
    lane: str,
    max_attempts: int,
    priority: Priority,
    error: JobError | None = None,
    route: str | None = None,
    template: str | None = None,
    locale: str | None = None,
) -> Job:
    """A new job of an event: PENDING, or FAILED where there is an error already."""
    return Job(
        id=new_id("job", now),
        event_id=event.id,
        event_type=event.type,
        tenant=event.tenant,
        channel=channel,
        route=route,
        destination=destination,
        template=template,
        locale=locale,
        lane=lane,
        priority=priority,
        status=JobState.PENDING if error is None else JobState.FAILED,
        max_attempts=max_attempts,
        next_attempt_at=max(now, event.deliver_at or now) if error is None else None,
        error=error,
        created_at=now,
        updated_at=now,
    )


def _fault_of(delivery: Delivery, pointer: str, lanes: Mapping[str, LaneOf]) -> Fault | None:
    """Whether an explicit delivery has a channel that there is, and a destination that it takes."""
    lane_of = lanes.get(delivery.channel)
    if lane_of is None:
        return Fault(f"{pointer}/channel", f"no channel {delivery.channel!r}; there are: {_listed(lanes)}")
    try:
        _lane(delivery.destination or "", lane_of)
    except Permanent as error:
        return Fault(f"{pointer}/{'to' if delivery.url is None else 'url'}", error.message)
    return None
