"""Notifier, the composition root: builds the parts, starts and stops them in order, takes events in."""

import asyncio
import random as chance
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import structlog
from msgspec import Struct, structs

from notifier import channels, explain
from notifier.channels import Channel, ChannelContext
from notifier.channels.signing import new_secret
from notifier.config import Config, load_config
from notifier.dispatch.deliverer import Deliverer
from notifier.dispatch.dispatcher import Dispatcher
from notifier.dispatch.limits import LaneLimits
from notifier.dispatch.pool import WorkerPool
from notifier.dispatch.queue import FairQueue
from notifier.endpoints import Endpoints
from notifier.endpoints.trial import TEST_EVENT, Trial, Trials
from notifier.errors import (
    DeliveryError,
    DrainingError,
    EndpointDeletedError,
    Permanent,
    StoreError,
)
from notifier.ingest import Incoming, from_event
from notifier.intake import Intake, record_of
from notifier.metrics import Metrics
from notifier.model import Claim, Endpoint, Event, Job, JobState, Priority
from notifier.preview import preview
from notifier.rendering import Renderer
from notifier.replays import Replays, Requeued
from notifier.routing import Router
from notifier.store import Store, open_store
from notifier.store.base import Added, JobFilter, Settlement
from notifier.suppressions import Suppressions
from notifier.unsubscribing import Unsubscribing, new_key
from notifier.upkeep import Chore, Upkeep

_WEBHOOK_SECRET = "webhook_secret"  # noqa: S105 - the name of a setting, not a secret
_UNSUBSCRIBE_KEY = "unsubscribe_key"
_LEAST_HELD, _HELD_A_WORKER, _MOST_HELD = 256, 128, 8192
"""How many jobs are held in memory at most: at the least, for each worker, and ever. What a burst brings
within that is never read back from the store."""
_ENDPOINTS_EVERY = 30.0
"""Seconds between looks for endpoints' secrets whose overlap is over, and for what the store owes them."""

_log = structlog.get_logger(__name__)


class Overrides(Struct, frozen=True, kw_only=True):
    """What a program that embeds a notifier may put in place of its parts."""

    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""
    random: Callable[[], float] = chance.random
    """0 ≤ x < 1, for the jitter of retries."""
    channels: Callable[[Callable[[str], ChannelContext]], dict[str, Channel]] = channels.build
    """Builds every channel by name."""


class Notifier:
    """A dispatcher: give it events, and it delivers what they cause.

    Use it as `async with Notifier.from_config("config.toml") as notifier: await notifier.submit(event)`.
    """

    def __init__(self, config: Config, overrides: Overrides | None = None) -> None:
        overrides = overrides or Overrides()
        channels.load(config)
        self.config = config
        self.clock = overrides.clock
        self.metrics = Metrics()
        self._webhook_secrets = config.channels.webhook.secrets or (new_secret(),)
        self.store: Store = open_store(config.store.url, config.directory, config.store.secret_key)
        self.suppressions = Suppressions(self.store, self.clock, config.channels.email.suppress_after)
        self.unsubscribing = Unsubscribing(new_key(), config.server.public_url)
        self.renderer = Renderer(
            config.templates_path,
            max_attachment=config.channels.email.max_attachment,
            max_message=config.channels.email.max_message,
        )
        self.channels = overrides.channels(self._context)
        self._lane_of = {name: each.lane for name, each in self.channels.items()}
        self.router = Router(config.routes, config.retry, self._lane_of)
        self._limits = LaneLimits(config.lanes)
        self.queue = self._make_queue()
        self.dispatcher = Dispatcher(
            self.store,
            self.queue,
            clock=self.clock,
            claim_timeout=config.workers.claim_timeout,
            metrics=self.metrics,
        )
        self.intake = Intake(self.store, self.router, self.dispatcher, clock=self.clock, metrics=self.metrics)
        self.endpoints = self._make_endpoints()
        self.pool = self._make_pool(overrides.random)
        self.replays = Replays(self.store, self.clock, self.dispatcher.sweep)
        self.upkeep = self._make_upkeep()
        self._dispatching: asyncio.Task[None] | None = None

    def _make_queue(self) -> FairQueue:
        workers = self.config.workers.concurrency
        capacity = min(max(_LEAST_HELD, _HELD_A_WORKER * workers), _MOST_HELD)
        queue = FairQueue(capacity=capacity, workers=workers, limits_of=self._limits)
        self.metrics.held.set_function(lambda: len(queue.claims))
        self.metrics.in_flight.set_function(lambda: queue.busy)
        return queue

    def _make_endpoints(self) -> Endpoints:
        return Endpoints(
            self.store,
            self.clock,
            self.router,
            lane_of=self._lane_of.get("webhook", _no_webhooks),
            check_template=self._template_problem,
            submission=self.intake.operational,
            config=self.config.channels.webhook,
            on_change=self._endpoint_changed,
            on_events=self.intake.stored,
        )

    def _make_pool(self, random: Callable[[], float]) -> WorkerPool:
        return WorkerPool(
            config=self.config,
            queue=self.queue,
            store=self.store,
            deliverer=self._make_deliverer(),
            router=self.router,
            clock=self.clock,
            random=random,
            metrics=self.metrics,
            endpoints=self.endpoints,
            suppressions=self.suppressions,
            on_due=self.dispatcher.due,
        )

    def _make_deliverer(self) -> Deliverer:
        return Deliverer(
            config=self.config,
            store=self.store,
            channels=self.channels,
            router=self.router,
            renderer=self.renderer,
            endpoints=self.endpoints,
            suppressions=self.suppressions,
            unsubscribing=self.unsubscribing,
        )

    def _make_upkeep(self) -> Upkeep:
        upkeep = Upkeep(
            config=self.config,
            store=self.store,
            queue=self.queue,
            replays=self.replays,
            clock=self.clock,
            metrics=self.metrics,
            on_rescued=self.dispatcher.sweep,
        )
        upkeep.chores.append(
            Chore("endpoints", _ENDPOINTS_EVERY, lambda: self.endpoints.forget_expired(self.clock()))
        )
        return upkeep

    @classmethod
    def from_config(cls, path: str | Path = "config.toml", overrides: Overrides | None = None) -> Self:
        """Build one from a configuration file. Raises ConfigError naming the file or key at fault."""
        return cls(load_config(path), overrides)

    def _context(self, name: str) -> ChannelContext:
        return ChannelContext(
            config=self.config,
            settings=self.config.channels.others.get(name, {}),
            secrets_for=self.secrets_for,
            clock=self.clock,
        )

    def secrets_for(self, job: Job) -> tuple[str, ...]:
        """The secrets that sign a job's webhook: its route's, or the common ones."""
        route = self.router.route(job.route) if job.route is not None else None
        return (route.secrets if route else ()) or self._webhook_secrets

    @property
    def webhook_secret(self) -> str:
        """Signs what has no secret of its own. One that isn't configured is the store's, once it is open."""
        return self._webhook_secrets[0]

    @property
    def draining(self) -> bool:
        """Whether it is stopping, and takes no more events."""
        return self.intake.draining

    # Start and stop ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the store and the channels, and begin to deliver. Raises a StoreError."""
        rescued = await self.store.open(self.clock())
        try:
            if not self.config.channels.webhook.secrets:
                kept = await self.store.setting(_WEBHOOK_SECRET, self.webhook_secret, secret=True)
                self._webhook_secrets = (kept,)
            self.unsubscribing.key = await self.store.setting(
                _UNSUBSCRIBE_KEY, self.unsubscribing.key, secret=True
            )
            await self.endpoints.load()
            for each in self.channels.values():
                await each.open()
        except BaseException:
            await self._close()
            raise
        if rescued:
            _log.warning(
                "jobs were in flight when the last process ended; they are tried again", jobs=rescued
            )
        self.pool.start()
        self.upkeep.start()
        self._dispatching = asyncio.create_task(self.dispatcher.run(), name="dispatcher")

    async def stop(self) -> None:
        """Drain: take and claim nothing more, finish what is in flight up to `drain_timeout`, then close."""
        self.dispatcher.stop()
        await self.intake.drain()
        if self._dispatching is not None:
            await asyncio.wait([self._dispatching])
            self._dispatching = None
        await self.pool.drain(self.config.workers.drain_timeout)
        await self.upkeep.stop()
        await self._close()

    async def _close(self) -> None:
        for name, each in self.channels.items():
            try:
                await each.close()
            except Exception:
                _log.exception("a channel failed to close", channel=name)
        await self.store.close()

    # Events in -----------------------------------------------------------------------------------

    async def submit(self, event: Event) -> Added:
        """Take one event: it is on disk when this returns, with the jobs it causes.

        Raises InvalidEventError, IdempotencyConflictError, DrainingError, or StoreUnavailableError (then
        nothing is known; the same idempotency key resolves it).
        """
        return (await self.ingest([from_event(event, now=self.clock())]))[0]

    async def ingest(self, incoming: Sequence[Incoming]) -> list[Added]:
        """Take validated events, all or none; the answers are in their order. Raises as `submit` does."""
        # Whoever stops waiting doesn't keep the intake from hearing what became of it.
        return await asyncio.shield(self.intake.take(incoming))

    # Endpoints -----------------------------------------------------------------------------------

    def _endpoint_changed(self, endpoint: Endpoint) -> None:
        """Hold an endpoint's lane to what it is held to now; what waited for it goes on, if it may."""
        self._limits.put(endpoint)
        self.pool.give_back(self.queue.refresh(endpoint.lane))
        if self._dispatching is not None and not self.queue.is_held(endpoint.lane):
            for priority in Priority:
                self.dispatcher.due(endpoint.lane, priority, self.clock())

    async def test_endpoint(self, endpoint_id: str, event: Event | None = None) -> Trial:
        """Deliver an event to an endpoint now, outside the queue, whatever the endpoint's state.

        Without an event it is a `notifier.test`; its tenant is the endpoint's. Nothing is stored. Raises
        NotFoundError, InvalidEventError, DrainingError.
        """
        endpoint = self.endpoints.find(endpoint_id)
        if self.draining:
            raise DrainingError("stopping: nothing new is delivered")
        event = structs.replace(event or Event(type=TEST_EVENT, data={}), tenant=endpoint.tenant)
        now = self.clock()
        trials = Trials(self.channels["webhook"], self.renderer, self.clock)
        return await trials.send(endpoint, record_of(from_event(event, now=now), now))

    def _template_problem(self, name: str) -> str | None:
        """Why a template can't make the payload of a webhook; None: it can."""
        try:
            parts = self.renderer.parts_of(name)
        except DeliveryError as error:
            return error.message
        return None if "payload" in parts else f"{name} has no payload.json, which webhooks are made of"

    # Operators -----------------------------------------------------------------------------------

    async def requeue(self, job_id: str) -> Job:
        """Make a job PENDING, due now.

        Raises NotFoundError, EndpointDeletedError, IllegalTransitionError while PROCESSING.
        """
        endpoint = (await self.store.job(job_id)).endpoint
        if endpoint is not None and self.endpoints.get(endpoint) is None:
            raise EndpointDeletedError(job_id, endpoint)
        job = await self.store.requeue(job_id, self.clock())
        self.dispatcher.due(job.lane, job.priority, self.clock())
        return job

    async def cancel(self, job_id: str) -> Job:
        """Withdraw a job that no worker has begun. Raises NotFoundError, IllegalTransitionError."""
        job = await self.store.job(job_id)
        claim = self.queue.withdraw(job_id, job.claim)
        if claim is None or not await self.store.settle(_cancelled(claim, self.clock())):
            return await self.store.cancel(job_id, self.clock())
        return await self.store.job(job_id)

    async def requeue_matching(
        self, wanted: JobFilter, *, canary: bool = False, dry_run: bool = False
    ) -> Requeued:
        """Requeue by filter; see `Replays.requeue`."""
        return await self.replays.requeue(wanted, canary=canary, dry_run=dry_run)

    async def why(self, job_id: str) -> explain.Why:
        """What a job waits for, and until when. Raises NotFoundError."""
        job = await self.store.job(job_id)
        gone = job.endpoint is not None and self.endpoints.get(job.endpoint) is None
        if gone and job.status is not JobState.COMPLETED:
            return explain.orphaned(job)
        return explain.why(job, self.queue, now=self.clock(), draining=self.draining)

    def trouble(self, endpoint: Endpoint) -> explain.Trouble | None:
        """What holds up everything that waits for an endpoint just now; None: nothing does."""
        return explain.trouble(endpoint.lane, self.queue)

    def preview(self, incoming: Incoming) -> dict[str, Any]:
        """What an event would cause, in JSON's types; nothing is sent or stored. Raises InvalidEventError."""
        submission = self.intake.submission(incoming)
        data = incoming.event.data
        return preview(
            submission,
            data,
            self.router,
            self.renderer,
            self.channels,
            unsubscribe_url=self.unsubscribing.url,
        )

    async def problems(self) -> list[str]:
        """What keeps this notifier from doing its work; empty: it is ready."""
        found = self.upkeep.problems()
        if self.draining:
            found.append("stopping")
        if self._dispatching is None or self._dispatching.done():
            found.append("the dispatcher is not running")
        elif self.dispatcher.failing:
            found.append("the dispatcher can't claim")
        if self.pool.dead:
            found.append(f"{self.pool.dead} of {self.config.workers.concurrency} workers are dead")
        try:
            await self.store.ping()
        except StoreError as error:
            found.append(str(error))
        return found


def _cancelled(claim: Claim, now: float) -> Settlement:
    """That a job is withdrawn which was claimed, and not begun."""
    job = claim.job
    return Settlement(job_id=job.id, claim=job.claim, status=JobState.CANCELLED, now=now, error=job.error)


def _no_webhooks(_url: str) -> str:
    raise Permanent("no channel 'webhook' is registered", code="unknown_channel")
