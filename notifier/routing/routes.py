"""A route of the configuration, its Jinja2 compiled, and the jobs it makes of events."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import structs

from notifier.config import Duration, Route, several
from notifier.errors import ConfigError, Permanent, Withdrawn
from notifier.model import Addressed, EventRecord, Job, JobError, JobState, Priority
from notifier.rendering import Condition, Text
from notifier.retry import printable
from notifier.routing.destinations import LaneOf, lane_by
from notifier.routing.jobs import blank, born
from notifier.routing.patterns import matches
from notifier.routing.recipients import Place, Recipient, addressed, distinct
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
        self.recipients = dict(_recipients(route, key))
        self.locale = Text(route.locale, f"{key}.locale") if route.locale else None
        self.when = Condition(route.when, f"{key}.when") if route.when else None
        self._blank = blank(
            channel=route.channel,
            destination=None,
            lane=route.channel,
            max_attempts=len(schedule) + 1,
            priority=Priority.named(route.priority),
            route=route.name,
            template=route.template,
            category=route.category,
        )
        self._literal = all(each.is_literal for each in (*self.recipients.values(), self.locale) if each)
        self._ready: list[Job] | None = None
        """Its jobs but for their event, of a route that is literal, once they were made out."""

    def wants(self, event: EventRecord, data: Mapping[str, Any]) -> bool:
        """Whether its `when` holds. Raises Permanent where that can't be said."""
        return self.when is None or self.when.holds(event, data)

    def jobs(self, event: EventRecord, data: Mapping[str, Any], now: float) -> list[Job]:
        """The jobs that an event of a type it takes causes, one a recipient; none where its `when` is false.

        What keeps a recipient from being made out is its job's error, which is born FAILED.
        """
        try:
            if self.when is not None and not self.when.holds(event, data):
                return []
            blanks = self._blanks(event, data) if self._ready is None else self._ready
        except Permanent as error:
            failed = [Recipient(place, None, self.route.channel, error) for place in self.recipients]
            blanks = self._without_event(failed, None)
        return [born(each, event, now) for each in blanks]

    def _blanks(self, event: EventRecord, data: Mapping[str, Any]) -> list[Job]:
        """Its jobs but for their event. Raises Permanent where the locale can't be made out."""
        locale = self._locale_of(event, data)
        blanks = self._without_event(distinct(self.route.channel, self._found(event, data)), locale)
        if self._literal and all(each.error is None for each in blanks):
            self._ready = blanks
        return blanks

    def _without_event(self, found: Sequence[Recipient], locale: str | None) -> list[Job]:
        told = addressed(self.route.channel, found)
        return [self._job(each, told, locale) for each in found]

    def resolve(self, job: Job, event: EventRecord, data: Mapping[str, Any]) -> Job:
        """Make out the recipient that a job of its own was born without; returns the job with it.

        Raises Permanent (`condition_false`, `unknown_recipient`, and what a job can be born FAILED with);
        Withdrawn (`duplicate_recipient`) where another job's is the same now.
        """
        if not self.wants(event, data):
            raise Permanent(f"`when` is false: {self.route.when}", code="condition_false")
        found = self._found(event, data)
        wanted = self._wanted(job, found)
        return structs.replace(
            job,
            destination=wanted.destination,
            lane=wanted.lane,
            locale=self._locale_of(event, data),
            addressed=addressed(self.route.channel, distinct(self.route.channel, found)),
        )

    def _wanted(self, job: Job, found: Sequence[Recipient]) -> Recipient:
        """The recipient at a job's place, the first where it has none."""
        place = job.addressed.place if job.addressed is not None else None
        wanted = next((each for each in found if place in (None, str(each.place))), None)
        if wanted is None:
            problem = f"the route {self.route.name!r} has no {place} any more"
            raise Permanent(problem, code="unknown_recipient")
        if wanted.error is not None:
            raise wanted.error
        if wanted not in distinct(self.route.channel, found):
            problem = f"who is {place} stands before it in the route already"
            raise Withdrawn(problem, code="duplicate_recipient")
        return wanted

    def _found(self, event: EventRecord, data: Mapping[str, Any]) -> list[Recipient]:
        return [self._made_out(place, text, event, data) for place, text in self.recipients.items()]

    def _made_out(self, place: Place, text: Text, event: EventRecord, data: Mapping[str, Any]) -> Recipient:
        try:
            destination = text.render(event, data)
            return Recipient(place, destination, lane_by(self.lane_of, destination))
        except Permanent as error:
            return Recipient(place, None, self.route.channel, error)

    def _locale_of(self, event: EventRecord, data: Mapping[str, Any]) -> str | None:
        locale = self.locale.render(event, data) if self.locale else ""
        return locale if _LOCALE.fullmatch(locale) else None

    def _job(self, recipient: Recipient, told: Addressed | None, locale: str | None) -> Job:
        if recipient.error is None:
            return structs.replace(
                self._blank,
                destination=recipient.destination,
                lane=recipient.lane,
                locale=locale,
                addressed=told,
            )
        return structs.replace(
            self._blank,
            status=JobState.FAILED,
            error=JobError(recipient.error.code, printable(recipient.error.message)),
            locale=locale,
            addressed=self._placed(recipient.place, told),
        )

    def _placed(self, place: Place, told: Addressed | None) -> Addressed | None:
        """Note which of several recipients a job is for that has none yet."""
        if len(self.recipients) == 1:
            return None
        return structs.replace(told or Addressed(), place=str(place))

    def verdict(self, event: EventRecord, data: Mapping[str, Any]) -> Verdict:
        """Whether it takes an event, and why not."""
        name, pattern = self.route.name, self.route.event
        if not matches(pattern, event.type):
            return Verdict(name, matched=False, reason=f"{event.type!r} does not match {pattern!r}")
        matching = f"{event.type!r} matches {pattern!r}"
        return by_condition(name, matching, self.route.when, lambda: self.wants(event, data))


def _recipients(route: Route, key: str) -> Iterator[tuple[Place, Text]]:
    """Where a route goes, its Jinja2 compiled. Raises ConfigError."""
    for field in ("url", "to", "cc", "bcc"):
        given: str | tuple[str, ...] | None = getattr(route, field)
        for number, source in enumerate(several(given)):
            place = Place(field, number)
            yield place, Text(source, f"{key}.{field if isinstance(given, str) else place}")


def listed(lanes: Mapping[str, LaneOf]) -> str:
    """The channels there are, for a message about one there is not."""
    return ", ".join(sorted(lanes)) or "none"
