"""What one call of the API is: the same table answers requests and writes the OpenAPI document."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from msgspec import Struct, field

from notifier.web.auth import Scope

JSON = "application/json"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Answer(Struct, frozen=True):
    """One way a call ends as it should: what the answer says, and its type (None: text)."""

    description: str
    type: Any = None
    media_type: str = JSON
    others: tuple[str, ...] = ()
    """Further media types that it comes in, as text, where a request's `Accept` asks for one."""


class Header(Struct, frozen=True):
    """A request header that a call understands."""

    name: str
    description: str
    pattern: str


class Call(Struct, frozen=True, kw_only=True):
    """One call: how it is reached, who may make it, what goes in and what comes out."""

    method: str
    path: str
    name: str
    """Its `operationId`."""
    summary: str
    scope: Scope
    handler: Handler
    answers: Mapping[int, Answer]
    problems: tuple[int, ...] = ()
    """The statuses it fails with, beside those that every call may."""
    query: type[Struct] | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    """Media type → type of the body."""
    body_required: bool = True
    """Whether there must be a body at all; where not, its absence means its defaults."""
    headers: tuple[Header, ...] = ()
