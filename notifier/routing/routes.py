"""A route of the configuration, its Jinja2 compiled, and the jobs it makes of events."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from notifier.config import Duration, Route
from notifier.errors import ConfigError, Permanent
from notifier.model import EventRecord, Job, JobError, Priority
from notifier.rendering import Condition, Text
from notifier.retry import printable
from notifier.routing.destinations import LaneOf, lane_by
from notifier.routing.jobs import new_job
from notifier.routing.patterns import matches
from notifier.routing.verdicts import Verdict, by_condition

_LOCALE = re.compile(r"[A-Za-z0-9_-]{1,35}")


class CompiledRoute:
    """A route, its Jinja2 compiled. Raises ConfigError naming the key that can't be."""

    def __init__(
        self, route: Route, index: int, schedule: Sequence[Duration], lanes: Mapping[str, LaneOf]
    ) -> None:
        key = f"routes[{index}]"
        if route.channel not in lanes:
            raise ConfigError(f"{key}.channel", f"no channel {route.channel!r}; there are: {listed(lanes)}")
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
        lane = lane_by(self.lane_of, destination)
        locale = self.locale.render(event, data) if self.locale else ""
        return destination, lane, locale if _LOCALE.fullmatch(locale) else None

    def job(self, event: EventRecord, data: Mapping[str, Any], now: float) -> Job | None:
        """The job that an event of a type it takes causes; None where its `when` is false."""
        route, error = self.route, None
        destination, lane, locale = None, route.channel, None
        try:
            if not self.wants(event, data):
                return None
            destination, lane, locale = self.made_out(event, data)
        except Permanent as raised:
            error = JobError(raised.code, printable(raised.message))
        return new_job(
            event,
            now,
            channel=route.channel,
            destination=destination,
            lane=lane,
            error=error,
            route=route.name,
            template=route.template,
            locale=locale,
            priority=self.priority,
            max_attempts=self.max_attempts,
        )

    def verdict(self, event: EventRecord, data: Mapping[str, Any]) -> Verdict:
        """Whether it takes an event, and why not."""
        name, pattern = self.route.name, self.route.event
        if not matches(pattern, event.type):
            return Verdict(name, matched=False, reason=f"{event.type!r} does not match {pattern!r}")
        matching = f"{event.type!r} matches {pattern!r}"
        return by_condition(name, matching, self.route.when, lambda: self.wants(event, data))


def listed(lanes: Mapping[str, LaneOf]) -> str:
    """The channels there are, for a message about one there is not."""
    return ", ".join(sorted(lanes)) or "none"
