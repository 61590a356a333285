"""What apps call: post events, and read what became of them."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiohttp import web
from msgspec import Struct

from notifier import cloudevents
from notifier.errors import Fault, IdempotencyConflictError, InvalidEventError
from notifier.ingest import Incoming, parse_json, with_key
from notifier.model import Event
from notifier.store.base import Added
from notifier.web import answers
from notifier.web.auth import Scope
from notifier.web.calls import JSON, Answer, Call, Header
from notifier.web.problems import ProblemError, ProblemFault, invalid
from notifier.web.replies import Reply
from notifier.web.requests import media_type, read_body, unsupported

if TYPE_CHECKING:
    from notifier.service import Notifier

PATH = "/v1/events"
KEY_HEADER = "Idempotency-Key"
EVENT_BODIES: Mapping[str, Any] = {JSON: Event, cloudevents.STRUCTURED: cloudevents.CloudEvent}

_SF_STRING = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


class Posted(Struct, frozen=True):
    """The events of one request, and how they came."""

    events: list[Incoming]
    is_array: bool
    key_field: str = "idempotency_key"
    """Where in the body an event's idempotency key stands."""

    def with_key(self, values: Iterable[str]) -> "Posted":
        """Put the header's key to the one event it can mean. Raises InvalidEventError, ProblemError."""
        keys = {_bare(value) for value in values}
        if self.is_array or len(keys) > 1:
            problem = f"{KEY_HEADER} is one key for one event; in an array each has its own idempotency_key"
            raise invalid([Fault("", problem)])
        return Posted([with_key(self.events[0], keys.pop())], False, self.key_field)

    def accepted(self, added: Sequence[Added]) -> Reply:
        """Answer the events once they are stored."""
        told = [answers.accepted(one) for one in added]
        return answers.reply(told if self.is_array else told[0], 202)

    def refused(self, error: Exception) -> Exception:
        """Return why they aren't taken, with pointers to where it stands in this body."""
        if isinstance(error, IdempotencyConflictError):
            return _conflict(error, self)
        if isinstance(error, InvalidEventError):
            return invalid(_placed(error, self))
        return error


class Events:
    """The calls below `/v1/events`."""

    def __init__(self, notifier: "Notifier") -> None:
        self.notifier = notifier
        self.max_body = notifier.config.server.max_body

    async def post(self, request: web.Request) -> web.Response:
        """Take events: answered once they are stored and synced, all of them or none."""
        posted = await read_events(request, self.max_body, self.notifier.channels)
        try:
            added = await self.notifier.ingest(posted.events)
        except (IdempotencyConflictError, InvalidEventError) as error:
            raise posted.refused(error) from None
        return posted.accepted(added).response()

    async def show(self, request: web.Request) -> web.Response:
        """Answer an event and its jobs."""
        event, jobs = await self.notifier.store.event(request.match_info["id"])
        return answers.respond(answers.event_with_jobs(event, jobs))


async def read_events(request: web.Request, limit: int, channels: Collection[str]) -> Posted:
    """Read the events of a request, native or CloudEvents. Raises ProblemError or InvalidEventError.

    `channels` are those that an event may name.
    """
    kind = media_type(request)
    if kind == cloudevents.STRUCTURED:
        posted = Posted(cloudevents.parse_structured(await read_body(request, limit)), False, "id")
    elif kind == cloudevents.BATCH:
        posted = Posted(cloudevents.parse_batch(await read_body(request, limit)), True, "id")
    elif cloudevents.is_binary(request.headers):
        posted = await _read_binary(request, kind, limit)
    elif kind == JSON:
        posted = native(await read_body(request, limit), channels)
    else:
        raise unsupported(kind, JSON, cloudevents.STRUCTURED, cloudevents.BATCH)
    return posted.with_key(request.headers.getall(KEY_HEADER)) if KEY_HEADER in request.headers else posted


def native(body: bytes, channels: Collection[str]) -> Posted:
    """Read a body of our own JSON. Raises InvalidEventError."""
    return Posted(*parse_json(body, channels=channels))


async def _read_binary(request: web.Request, kind: str, limit: int) -> Posted:
    body = await read_body(request, limit)
    if body and not cloudevents.is_json(kind):
        raise unsupported(kind, JSON)
    return Posted(cloudevents.parse_binary(request.headers, body), False, "id")


def _bare(value: str) -> str:
    """Take a key out of the quotes that draft-ietf-httpapi-idempotency-key-header puts it in."""
    quoted = _SF_STRING.fullmatch(value)
    return value if quoted is None else re.sub(r"\\(.)", r"\1", quoted[1])


def _placed(error: InvalidEventError, posted: Posted) -> list[Fault]:
    """Point at faults that were found only in the light of the configuration."""
    place = f"/{error.index}" if posted.is_array and error.index is not None else ""
    return [Fault(place + fault.pointer, fault.detail) for fault in error.faults]


def _conflict(error: IdempotencyConflictError, posted: Posted) -> ProblemError:
    pointer = f"/{error.index}/{posted.key_field}" if posted.is_array else f"/{posted.key_field}"
    fault = ProblemFault(pointer=pointer, detail="was used before with another event")
    return ProblemError(422, f"The {error}.", kind="idempotency-conflict", errors=[fault])


def calls(notifier: "Notifier") -> list[Call]:
    """Return the calls of this part of the API."""
    events = Events(notifier)
    return [
        Call(
            method="POST",
            path=PATH,
            name="postEvents",
            summary="Post one event, or 1 to 1,000 in an array: all are stored, or none",
            scope=Scope.INGEST,
            handler=events.post,
            body={
                JSON: Event | list[Event],
                cloudevents.STRUCTURED: cloudevents.CloudEvent,
                cloudevents.BATCH: list[cloudevents.CloudEvent],
            },
            headers=(Header(KEY_HEADER, "The key of the one event in the body.", r"^[\x20-\x7e]{1,512}$"),),
            answers={202: Answer("Stored and synced.", answers.Accepted | list[answers.Accepted])},
            problems=(413, 415, 422, 503),
        ),
        Call(
            method="GET",
            path="/v1/events/{id}",
            name="getEvent",
            summary="Read an event and what became of its jobs",
            scope=Scope.INGEST,
            handler=events.show,
            answers={200: Answer("The event and its jobs.", answers.EventWithJobs)},
            problems=(404, 503),
        ),
    ]
