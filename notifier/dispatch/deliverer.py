"""One attempt at one job, up to its channel: whom it is for by now, whether they want it, what it says."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Protocol

import msgspec

from notifier.channels import Channel, Content, Message, Receipt
from notifier.config import Config
from notifier.errors import Permanent, StoreError, Transient, Unavailable, Withdrawn
from notifier.model import Claim, Endpoint, Job
from notifier.rendering import Renderer
from notifier.routing import Router
from notifier.store.base import Store
from notifier.suppressions import Suppressions
from notifier.unsubscribing import Unsubscribing

_NOTHING = Content()


class KnownEndpoints(Protocol):
    """The endpoints, as far as a delivery needs them."""

    def get(self, endpoint_id: str) -> Endpoint | None:
        """Return an endpoint as it stands now; None for one that is gone."""


class Deliverer:
    """Delivers claimed jobs, one at a time and once each. What goes wrong is raised, as channels do."""

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        channels: Mapping[str, Channel],
        router: Router,
        renderer: Renderer,
        endpoints: KnownEndpoints,
        suppressions: Suppressions,
        unsubscribing: Unsubscribing,
    ) -> None:
        self._config = config
        self._store = store
        self._channels = channels
        self._router = router
        self._renderer = renderer
        self._endpoints = endpoints
        self._suppressions = suppressions
        self._unsubscribing = unsubscribing

    def made_out(self, claim: Claim) -> Job:
        """The job as it is now: with its endpoint's template, and a destination that it was born without.

        Raises Withdrawn where its endpoint is gone, and Permanent where the destination can't be made out.
        """
        job = claim.job
        endpoint = self._endpoint_of(job)
        if endpoint is not None and endpoint.template != job.template:
            job = msgspec.structs.replace(job, template=endpoint.template)
        if job.destination is not None:
            return job
        return self._router.resolve(job, claim.event, claim.event.decoded_data())

    def deliver(self, job: Job, claim: Claim) -> Awaitable[Receipt]:
        """Deliver, within the channel's time. What goes wrong is raised here, or by what is returned."""
        channel = self._channels.get(job.channel)
        if channel is None:
            raise Permanent(f"no channel {job.channel!r} is registered any more", code="unknown_channel")
        if job.kept or self._suppressions.concern(job):
            return self._deliver_if_wanted(job, claim, channel)
        return _timed(channel, self._message(job, claim, channel))

    async def _deliver_if_wanted(self, job: Job, claim: Claim, channel: Channel) -> Receipt:
        """Deliver what the store must be asked about first: who wants none, and what was sent before."""
        await self._suppressions.check(job)
        kept = await self._kept(job) if job.kept else None
        return await _timed(channel, self._message(job, claim, channel, kept))

    def _endpoint_of(self, job: Job) -> Endpoint | None:
        """The subscription that a job is for, as it stands now. Raises Withdrawn where it is gone."""
        if job.endpoint is None:
            return None
        endpoint = self._endpoints.get(job.endpoint)
        if endpoint is None:
            raise Withdrawn("its endpoint was deleted", code="endpoint_deleted")
        return endpoint

    def _message(self, job: Job, claim: Claim, channel: Channel, kept: bytes | None = None) -> Message:
        unsubscribe_url = self._unsubscribing.url(job)
        return Message(
            job=job,
            event=claim.event,
            content=self._content(job, claim, channel, unsubscribe_url) if kept is None else _NOTHING,
            settings=self._config.channels.others.get(job.channel, {}),
            kept=kept,
            unsubscribe_url=unsubscribe_url,
            endpoint=self._endpoint_of(job),
        )

    async def _kept(self, job: Job) -> bytes | None:
        """What was sent of a job before. Raises Unavailable (`store_unavailable`) where it can't be read."""
        try:
            return await self._store.kept_content(job.id)
        except StoreError as error:
            problem = f"what was sent before can't be read: {error}"
            raise Unavailable(problem, code="store_unavailable") from error

    def _content(self, job: Job, claim: Claim, channel: Channel, unsubscribe_url: str | None) -> Content:
        if job.template is None:
            return _NOTHING
        return self._renderer.render(
            job.template,
            channel.parts,
            event=claim.event,
            data=claim.event.decoded_data(),
            job=job,
            locale=job.locale,
            unsubscribe_url=unsubscribe_url,
        )


def _timed(channel: Channel, message: Message) -> Awaitable[Receipt]:
    """Have a message delivered; one whose channel doesn't keep the time itself, within that."""
    seconds = channel.timeout
    return channel.deliver(message) if seconds is None else _deliver_within(seconds, channel, message)


async def _deliver_within(seconds: float, channel: Channel, message: Message) -> Receipt:
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            return await channel.deliver(message)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise Transient(f"no end within {seconds:g} s", code="timeout") from error
