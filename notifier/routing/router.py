"""All that an event causes: the jobs of its routes, of its own `deliver`, and of the endpoints."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import structs

from notifier.config import Duration, Retry, Route
from notifier.errors import Fault, InvalidEventError, Permanent
from notifier.model import Delivery, EventRecord, Job, Priority
from notifier.routing.destinations import LaneOf, lane_by
from notifier.routing.jobs import blank, born
from notifier.routing.patterns import matches
from notifier.routing.recipients import Recipient, addressed, distinct, places
from notifier.routing.routes import CompiledRoute, listed
from notifier.routing.subscriptions import Subscriptions
from notifier.routing.verdicts import Verdict

_REMEMBERED_TYPES = 1024


class Router:
    """The routes of one configuration and the endpoints' subscriptions.

    `lanes` gives for each channel the lane of a destination. `subscriptions` holds what the registry of
    endpoints puts there.
    """

    def __init__(self, routes: Sequence[Route], retry: Retry, lanes: Mapping[str, LaneOf]) -> None:
        self.subscriptions = Subscriptions()
        self._lanes = lanes
        self._default_schedule = retry.schedule
        self._max_attempts = len(retry.schedule) + 1
        self._routes = {
            route.name: CompiledRoute(route, index, self._schedule_of(route), lanes)
            for index, route in enumerate(routes)
        }
        self._by_type: dict[str, tuple[CompiledRoute, ...]] = {}

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

    def on_unknown(self, name: str | None) -> Literal["retry", "fail"]:
        """What becomes of a route's job of which it can't be known whether it arrived."""
        route = self.route(name)
        return route.on_unknown if route else "retry"

    def jobs(
        self, event: EventRecord, data: Mapping[str, Any], deliver: Sequence[Delivery], now: float
    ) -> tuple[Job, ...]:
        """The jobs that an event causes. Raises InvalidEventError for what is wrong with its `deliver`.

        A route whose `when` or destination can't be made out causes a job that is born FAILED, and so does
        an endpoint's `when`.
        """
        jobs: list[Job] = []
        for route in self._matching(event.type):
            jobs += route.jobs(event, data, now)
        if deliver:
            jobs += self._asked_for(event, deliver, now)
        jobs += self.subscriptions.jobs(event, data, now=now, max_attempts=self._max_attempts)
        return tuple(jobs)

    def resolve(self, job: Job, event: EventRecord, data: Mapping[str, Any]) -> Job:
        """Make out the destination of a job that was born without; returns the job with it.

        Its lane, its locale and whom it is addressed to are made out with it. Raises Permanent:
        `unknown_route` where the configuration has none of that name and channel any more,
        `unknown_recipient` where the route no longer has the one it is for, `condition_false` where its
        `when` turns out not to hold, and what a job can be born FAILED with; Withdrawn where its endpoint is
        gone, or its recipient is another job's.
        """
        if job.endpoint is not None:
            destination, lane, locale = self.subscriptions.resolve(job.endpoint, event, data)
            return structs.replace(job, destination=destination, lane=lane, locale=locale)
        found = self._routes.get(job.route or "")
        if found is None or found.route.channel != job.channel:
            problem = f"the configuration has no route {job.route!r} by {job.channel} any more"
            raise Permanent(problem, code="unknown_route")
        return found.resolve(job, event, data)

    def explain(self, event: EventRecord, data: Mapping[str, Any]) -> list[Verdict]:
        """For every route, whether it takes the event, and why not.

        A route whose `when` fails counts as matched: it causes a job, which is born FAILED.
        """
        return [each.verdict(event, data) for each in self._routes.values()]

    def _matching(self, event_type: str) -> tuple[CompiledRoute, ...]:
        found = self._by_type.get(event_type)
        if found is None:
            if len(self._by_type) >= _REMEMBERED_TYPES:
                self._by_type.clear()
            found = tuple(each for each in self._routes.values() if matches(each.route.event, event_type))
            self._by_type[event_type] = found
        return found

    def _asked_for(self, event: EventRecord, deliver: Sequence[Delivery], now: float) -> list[Job]:
        """The jobs of `deliver`, whose destinations are taken literally."""
        jobs: list[Job] = []
        faults: list[Fault] = []
        for index, delivery in enumerate(deliver):
            try:
                recipients = _recipients(delivery, f"/deliver/{index}", self._lanes)
            except InvalidEventError as error:
                faults += error.faults
            else:
                jobs += self._asked(event, delivery, recipients, now)
        if faults:
            raise InvalidEventError(faults)
        return jobs

    def _asked(
        self, event: EventRecord, delivery: Delivery, recipients: Sequence[Recipient], now: float
    ) -> Iterator[Job]:
        told = addressed(delivery.channel, recipients)
        for recipient in recipients:
            job = blank(
                channel=delivery.channel,
                destination=recipient.destination,
                lane=recipient.lane,
                template=delivery.template,
                locale=delivery.locale,
                category=delivery.category or None,
                addressed=told,
                priority=Priority.named(delivery.priority),
                max_attempts=self._max_attempts,
            )
            yield born(job, event, now)


def _recipients(delivery: Delivery, pointer: str, lanes: Mapping[str, LaneOf]) -> list[Recipient]:
    """Whom an explicit delivery goes to. Raises InvalidEventError for what is no channel or recipient."""
    lane_of = lanes.get(delivery.channel)
    if lane_of is None:
        problem = f"no channel {delivery.channel!r}; there are: {listed(lanes)}"
        raise InvalidEventError([Fault(f"{pointer}/channel", problem)])
    found: list[Recipient] = []
    faults: list[Fault] = []
    for place, step, destination in places(delivery):
        try:
            found.append(Recipient(place, destination, lane_by(lane_of, destination)))
        except Permanent as error:
            faults.append(Fault(pointer + step, error.message))
    if faults:
        raise InvalidEventError(faults)
    return distinct(delivery.channel, found)
