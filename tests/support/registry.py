"""A registry of endpoints on a real store, with all that it tells others."""

from collections.abc import Mapping, Sequence
from typing import Any

from support.builders import NOW, event_record
from support.clock import Clock
from support.watched_store import WatchedStore

from notifier.channels.targets import target
from notifier.config import Retry, Route, WebhookSection
from notifier.endpoints import EndpointChanges, EndpointDraft, Endpoints
from notifier.ingest import from_event
from notifier.model import Endpoint, Event, Job, JobState
from notifier.routing import Router
from notifier.store.base import JobFilter, Submission

URL = "https://receiver.example/hooks"


def draft(**changes: Any) -> EndpointDraft:
    """What somebody asks for who wants every order."""
    return EndpointDraft(**({"url": URL, "event_types": ("order.*",)} | changes))


def template_problem(name: str) -> str | None:
    """There is one template."""
    return None if name == "slim" else "there is no such template"


class Registry:
    """`Endpoints`, what it is made of, and what it said: `changes`, `events`."""

    def __init__(self, store: WatchedStore, config: WebhookSection | None = None) -> None:
        self.store = store
        self.clock = Clock()
        routes = (Route(name="ops", event="notifier.*.*", channel="webhook", url="https://ops.example/"),)
        self.router = Router(routes, Retry(), {"webhook": lambda url: target(url).lane})
        self.changes: list[Endpoint] = []
        self.events: list[Submission] = []
        self.endpoints = Endpoints(
            store,
            self.clock,
            self.router,
            lane_of=lambda url: target(url).lane,
            check_template=template_problem,
            submission=self._submission,
            config=config or WebhookSection(),
            on_change=self.changes.append,
            on_events=self.events.extend,
        )

    def _submission(self, event: Event) -> Submission:
        incoming = from_event(event, now=self.clock())
        record = event_record(
            type=event.type, tenant=event.tenant, data=incoming.raw, created_at=self.clock()
        )
        return Submission(record, self.router.jobs(record, event.data, (), self.clock()))

    async def made(self, **changes: Any) -> Endpoint:
        """An endpoint that was asked for."""
        endpoint, _ = await self.endpoints.create(draft(**changes))
        return endpoint

    async def changed(self, endpoint: Endpoint, **changes: Any) -> Endpoint:
        """An endpoint after a change."""
        return await self.endpoints.change(endpoint.id, EndpointChanges(**changes))

    async def stored(self) -> list[Endpoint]:
        """What another process would find."""
        return await self.store.endpoints()

    def told(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The operational events that were handed on: their types, without what all begin with, and data."""
        return [
            (each.event.type.removeprefix("notifier.endpoint."), each.event.decoded_data())
            for each in self.events
        ]

    def kinds(self) -> list[str]:
        """Which operational events were handed on."""
        return [kind for kind, _ in self.told()]

    async def reported(self) -> list[str]:
        """The operational events that are in the store, by the jobs that they caused for the route."""
        page = await self.store.jobs(JobFilter(route="ops"), limit=100)
        return [job.event_type.removeprefix("notifier.endpoint.") for job in reversed(page.jobs)]

    async def keep(self, count: int, **changes: Any) -> list[Job]:
        """Events that were taken, with the jobs they cause."""
        records = [event_record(**changes) for _ in range(count)]
        submissions = [Submission(each, self.router.jobs(each, {}, (), NOW)) for each in records]
        await self.store.keep(*submissions)
        return [job for each in submissions for job in each.jobs]

    async def count(self, endpoint: Endpoint, status: JobState) -> int:
        """How many of an endpoint's jobs are in a state."""
        return await self.store.count(JobFilter(endpoint=endpoint.id, status=status))


def ids(endpoints: Sequence[Endpoint]) -> list[str]:
    """The ids of endpoints."""
    return [each.id for each in endpoints]
