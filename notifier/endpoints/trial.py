"""Test-sends: one real, signed delivery to an endpoint outside the queue, and its whole exchange told.

Nothing of it is stored, nothing is tried again, and it says nothing of the endpoint's health.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import structlog
from msgspec import Struct
from msgspec.structs import replace

from notifier.channels import Channel, Message, Receipt
from notifier.channels.webhook import Exchanged, text_of
from notifier.endpoints.headers import shown_headers
from notifier.errors import DeliveryError, Transient
from notifier.model import Endpoint, EventRecord, Job, JobError, Timings, new_id
from notifier.rendering import Renderer
from notifier.retry import printable
from notifier.routing import without_query
from notifier.routing.jobs import blank, born

TEST_EVENT = "notifier.test"
"""The type of what is sent where nothing else is asked for."""

_log = structlog.get_logger(__name__)


class TrialRequest(Struct, frozen=True):
    """A request as it went out, the values of the endpoint's sensitive headers hidden."""

    method: str
    url: str
    headers: dict[str, str]
    body: str


class TrialResponse(Struct, frozen=True):
    """A response as it came back: the start of its body, as text."""

    status_code: int | None
    headers: dict[str, str]
    body: str


class Trial(Struct, frozen=True, kw_only=True):
    """What came of a test-send. Without a request, none could be made; `error` says why."""

    delivered: bool
    request: TrialRequest | None = None
    response: TrialResponse | None = None
    error: JobError | None = None
    timings: Timings | None = None


@runtime_checkable
class Exchanging(Protocol):
    """A channel that tells all that went over the wire."""

    async def exchange(self, message: Message) -> Exchanged:
        """Deliver one message once; raise DeliveryError where no request can be made of it."""


class Trials:
    """Sends test events by the webhook channel, within the time that any delivery has."""

    def __init__(self, channel: Channel, renderer: Renderer, clock: Callable[[], float]) -> None:
        self._channel = channel
        self._renderer = renderer
        self._clock = clock

    async def send(self, endpoint: Endpoint, event: EventRecord) -> Trial:
        """Deliver an event to an endpoint once, whatever the endpoint's state. A failure is no exception."""
        try:
            message = self._message(endpoint, event)
            if isinstance(self._channel, Exchanging):
                return _exchanged(await self._channel.exchange(message), endpoint)
            return _received(await self._delivered(message))
        except DeliveryError as error:
            return _failed(error)
        except Exception as error:
            _log.exception("a test-send raised", endpoint=endpoint.id)
            return _failed(Transient(f"{type(error).__name__}: {error}", code=type(error).__name__))

    async def _delivered(self, message: Message) -> Receipt:
        """Deliver by a channel that stands in for webhooks, and tells what came of it alone."""
        seconds = self._channel.timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._channel.deliver(message)
        except TimeoutError:
            raise Transient(f"no end within {seconds or 0:g} s", code="timeout") from None

    def _message(self, endpoint: Endpoint, event: EventRecord) -> Message:
        """Make the message as for a job of the queue. Raises TemplateError."""
        job = _job(endpoint, event, self._clock())
        if endpoint.template is None:
            return Message(job=job, event=event, endpoint=endpoint)
        content = self._renderer.render(
            endpoint.template, self._channel.parts, event=event, data=event.decoded_data(), job=job
        )
        return Message(job=job, event=event, content=content, endpoint=endpoint)


def _job(endpoint: Endpoint, event: EventRecord, now: float) -> Job:
    """The job that would have been, under an id that no job has: a receiver takes it for no repeat."""
    job = blank(
        channel="webhook",
        destination=without_query(endpoint.url),
        lane=endpoint.lane,
        endpoint=endpoint.id,
        template=endpoint.template,
        max_attempts=1,
    )
    return replace(born(job, event, now), id=new_id("test", now))


def _exchanged(done: Exchanged, endpoint: Endpoint) -> Trial:
    own = {name.lower(): value for name, value in shown_headers(endpoint.headers).items()}
    request = TrialRequest(
        method="POST",
        url=done.request.url,
        headers={name: own.get(name.lower(), value) for name, value in done.request.headers.items()},
        body=text_of(done.request.body),
    )
    response = timings = None
    if done.answer is not None:
        headers = _combined(done.answer.headers())
        response = TrialResponse(done.answer.status, headers, text_of(done.answer.body))
        timings = done.answer.timings
    if done.error is None:
        return Trial(delivered=True, request=request, response=response, timings=timings)
    timings = timings or done.error.timings
    return replace(_failed(done.error), request=request, response=response, timings=timings)


def _combined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by name; one that stands several times is written as one line (RFC 9110 §5.3)."""
    combined: dict[str, str] = {}
    for name, value in headers:
        combined[name] = f"{combined[name]}, {value}" if name in combined else value
    return combined


def _received(receipt: Receipt) -> Trial:
    response = TrialResponse(receipt.status_code, {}, receipt.response or "")
    return Trial(delivered=True, response=response, timings=receipt.timings)


def _failed(error: DeliveryError) -> Trial:
    response = None
    if error.status_code is not None:
        response = TrialResponse(error.status_code, {}, error.response or "")
    told = JobError(error.code, printable(error.message))
    return Trial(delivered=False, response=response, error=told, timings=error.timings)
