"""What a channel is, and the registry that the `@channel` decorator fills.

A channel takes one `Message` and returns a `Receipt` or raises `Transient` or `Permanent`. It knows
nothing of the store, of retries, or of other jobs.
"""

import asyncio
import importlib
import inspect
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import msgspec
import structlog
from msgspec import Struct, field

from notifier.config import Config
from notifier.errors import ConfigError, Permanent, Transient
from notifier.model import Endpoint, EventRecord, Job, Timings

ENTRY_POINT_GROUP = "notifier.channels"
ALL_PARTS = frozenset({"subject", "html", "text", "payload", "attachments"})
DEFAULT_TIMEOUT = 60.0

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_log = structlog.get_logger(__name__)


class Attachment(Struct, frozen=True, kw_only=True):
    """A file that goes with a mail."""

    filename: str
    media_type: str
    """`type/subtype`."""
    content: bytes
    inline: str | None = None
    """The name that the HTML shows it by, as `cid:NAME`; None: it is attached."""


class Content(Struct, frozen=True, kw_only=True):
    """What the job's template made; a part that its folder lacks (or that no one asked for) is None."""

    subject: str | None = None
    html: str | None = None
    text: str | None = None
    payload: str | None = None
    attachments: tuple[Attachment, ...] = ()


class Message(Struct, frozen=True, kw_only=True):
    """All that a channel needs to deliver one job."""

    job: Job
    event: EventRecord
    content: Content = field(default_factory=Content)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The table `[channels.NAME]` of the configuration."""
    kept: bytes | None = None
    """What an earlier attempt sent whose outcome is unknown: to be sent again as it is."""
    unsubscribe_url: str | None = None
    """Where the recipient can unsubscribe from the job's category (RFC 8058); None where there is no way."""
    endpoint: Endpoint | None = None
    """The subscription as it stands now, for a job that one caused: its url, headers and secrets count."""

    @property
    def id(self) -> str:
        """The job's id: the same in every attempt, so that a receiver can tell a repeat."""
        return self.job.id

    @property
    def destination(self) -> str:
        """Whom it is for. A job is only ever attempted once its destination is made out."""
        return self.job.destination or ""

    @property
    def data(self) -> dict[str, Any]:
        """The event's data as Python values."""
        return self.event.decoded_data()


class Receipt(Struct, frozen=True, kw_only=True):
    """The receiver took it. What it answered is kept on the attempt."""

    status_code: int | None = None
    response: str | None = None
    timings: Timings | None = None
    via: str | None = None
    """What it went by, where there is a choice."""


@runtime_checkable
class Channel(Protocol):
    """A way to deliver."""

    parts: frozenset[str]
    """Which parts of a template are rendered for it (`ALL_PARTS`)."""

    @property
    def timeout(self) -> float | None:
        """Seconds after which the worker gives an attempt up; None where `deliver` keeps to its own time."""

    def lane(self, destination: str) -> str:
        """Name the lane that this destination shares with others; raise Permanent if it is none at all."""

    async def open(self) -> None:
        """Get ready to deliver."""

    async def deliver(self, message: Message) -> Receipt:
        """Deliver one message; raise Transient or Permanent to say what an error means."""

    def preview(self, message: Message) -> dict[str, Any]:
        """What `deliver` would send, in JSON's types; nothing is sent."""

    async def close(self) -> None:
        """Let go of connections."""


class ChannelContext(Struct, frozen=True, kw_only=True):
    """What a channel is built from."""

    config: Config
    settings: Mapping[str, Any]
    secrets_for: Callable[[Job], Sequence[str]]
    """The Standard Webhooks secrets (`whsec_…`, `whsk_…`) that sign a job which no endpoint caused."""
    clock: Callable[[], float]


Deliver = Callable[[Message], Awaitable[Receipt]]
Factory = Callable[[ChannelContext], Channel]
_Registered = TypeVar("_Registered", bound=Deliver | Factory)

_factories: dict[str, Factory] = {}


class FunctionChannel:
    """A channel made of one registered coroutine function."""

    def __init__(self, name: str, function: Deliver, timeout: float | None) -> None:
        self.parts = ALL_PARTS
        self.name = name
        self.function = function
        self.timeout = timeout

    def lane(self, destination: str) -> str:
        """All of a registered channel is one lane: nobody knows better what its destinations share."""
        if not destination.strip():
            raise Permanent("the destination is empty", code="invalid_destination")
        return self.name

    async def open(self) -> None:
        """Nothing to get ready."""

    async def deliver(self, message: Message) -> Receipt:
        """Call the function, in a task of its own: one that cancels itself must not cancel its worker.

        One that returns nothing is taken at its word.
        """
        answer = await asyncio.create_task(self._called(message))
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Receipt) else Receipt()

    async def _called(self, message: Message) -> Receipt | BaseException:
        """Call it; what would end the event loop if a task raised it is returned instead."""
        try:
            return await self.function(message)
        except (KeyboardInterrupt, SystemExit) as error:
            return error
        except GeneratorExit as error:
            raise Transient("it raised GeneratorExit", code="GeneratorExit") from error

    def preview(self, message: Message) -> dict[str, Any]:
        """The destination and what the template made: what a function does with them, only it knows."""
        return {"destination": message.destination, "content": msgspec.to_builtins(message.content)}

    async def close(self) -> None:
        """Nothing to let go of."""


def channel(name: str, *, timeout: float = DEFAULT_TIMEOUT) -> Callable[[_Registered], _Registered]:
    """Register a way to deliver, under the name that routes use.

    Decorates an `async def deliver(message: Message) -> Receipt`, or a class that takes a
    `ChannelContext` and is a `Channel`. `timeout` is in seconds, for functions. Raises ConfigError for
    a name that is taken or is not lower-case letters, digits, `-` and `_`.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError("channel", f"{name!r} is no channel name: lower-case letters, digits, - and _")

    def register(registered: _Registered) -> _Registered:
        known = _factories.get(name)
        if known is not None and _origin(known) != _origin(registered):
            raise ConfigError("channel", f"{name!r} is registered twice")
        _factories[name] = _factory(name, registered, timeout)
        return registered

    return register


def _factory(name: str, registered: Any, timeout: float) -> Factory:
    if inspect.isclass(registered):
        return cast("Factory", registered)
    if not inspect.iscoroutinefunction(registered):
        raise ConfigError("channel", f"{name!r} must be an async function or a class")

    def build(_context: ChannelContext) -> Channel:
        return FunctionChannel(name, registered, timeout)

    build.__wrapped__ = registered  # type: ignore[attr-defined]
    return build


def _origin(registered: Any) -> tuple[str, str]:
    """Where it was defined, so that a module imported twice does not quarrel with itself."""
    definition = inspect.unwrap(registered)
    return (definition.__module__, definition.__qualname__)


def load(config: Config) -> None:
    """Import the built-in channels, the modules in `plugins`, and what installed packages offer.

    Modules are also looked for beside the configuration file. Raises ConfigError naming what could not
    be imported.
    """
    for module in ("notifier.channels.webhook", "notifier.channels.email"):
        importlib.import_module(module)
    _look_beside(config)
    for index, module in enumerate(config.plugins):
        _import(f"plugins[{index}]", lambda module=module: importlib.import_module(module))  # type: ignore[misc]
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        _import(f"entry point {entry.name}", entry.load)
    _check_names(config)


def _look_beside(config: Config) -> None:
    import sys

    beside = os.fspath(config.directory)
    if config.plugins and beside not in sys.path:
        sys.path.append(beside)


def _import(key: str, load_it: Callable[[], object]) -> None:
    try:
        load_it()
    except ConfigError:
        raise
    except Exception as error:
        _log.debug("plugin failed to import", key=key, exc_info=True)
        raise ConfigError(key, f"can't be imported: {type(error).__name__}: {error}") from error


def _check_names(config: Config) -> None:
    known = ", ".join(sorted(_factories))
    for index, route in enumerate(config.routes):
        if route.channel not in _factories:
            raise ConfigError(f"routes[{index}].channel", f"no channel {route.channel!r}; there are: {known}")
    for name in config.channels.others:
        if name not in _factories:
            raise ConfigError(f"channels.{name}", f"no channel {name!r}; there are: {known}")


def build(context: Callable[[str], ChannelContext]) -> dict[str, Channel]:
    """Build every registered channel; `context` is asked for each by name."""
    return {name: factory(context(name)) for name, factory in _factories.items()}
