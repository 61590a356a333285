"""Talks to a running server over HTTP. What is not success is an error that carries the server's words."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp
import click
import msgspec
from click.core import ParameterSource
from msgspec import UNSET, Struct, UnsetType, field

from notifier.cli.program import Failure, config_option, read_config
from notifier.errors import NotifierError

if TYPE_CHECKING:
    from notifier.config import Config

TIMEOUT = 60.0
"""Seconds that one call may take."""

_THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})

_Result = TypeVar("_Result")
Scope = Literal["ingest", "admin"]


class Pointed(Struct, frozen=True):
    """One fault of a body or (with `parameter`) of a query, as the server's problem document lists it."""

    pointer: str = ""
    detail: str = ""
    parameter: str | UnsetType = UNSET


class Problem(Struct, frozen=True):
    """A problem document (RFC 9457), as far as one needs it here."""

    title: str = ""
    detail: str = ""
    errors: list[Pointed] = field(default_factory=list)


class RefusedError(NotifierError):
    """The server answered, and not with success.

    `retry_after` is in seconds, where it said so; `unkeyed` says why no key was sent, where one is at hand.
    """

    def __init__(
        self, status: int, problem: Problem, retry_after: float | None = None, unkeyed: str | None = None
    ) -> None:
        super().__init__(f"the server answered {status}: {_worded(problem)}{_advice(status, unkeyed)}")
        self.status = status
        self.problem = problem
        self.retry_after = retry_after


class UnreachableError(NotifierError):
    """Nobody answered at the server's address."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"no answer from {url} ({reason}): start it with `notifier serve`, or name another with --server"
        )
        self.url = url


def _worded(problem: Problem) -> str:
    faults = "; ".join(f"{_place(fault)}: {fault.detail}" for fault in problem.errors)
    return faults or problem.detail or problem.title or "no reason given"


def _place(fault: Pointed) -> str:
    """Name the option that what is at fault was given by, or else its place in what was sent."""
    if fault.parameter is not UNSET:
        return _given_options().get(fault.parameter, f"the parameter {fault.parameter}")
    _, _, rest = fault.pointer.partition("/")
    name, slash, _ = rest.partition("/")
    option = _given_options().get(name)
    if option is None:
        return fault.pointer or "the body"
    return f"{option} ({fault.pointer})" if slash else option


def _given_options() -> dict[str, str]:
    """How the running command's options were given, each by the name of the field that it becomes."""
    context = click.get_current_context(silent=True)
    if context is None:
        return {}
    names: dict[str, str] = {}
    for each in context.command.params:
        if each.name and context.get_parameter_source(each.name) is not ParameterSource.DEFAULT:
            argument = (each.metavar or each.name.upper()).strip("[]")
            shown = max(each.opts, key=len) if isinstance(each, click.Option) else argument
            # An event's own type is `type` in its JSON; `--type` and TYPE keep clear of Python's word.
            names |= {each.name: shown, each.name.removeprefix("event_"): shown}
    return names


def _advice(status: int, unkeyed: str | None) -> str:
    advice = {
        401: f"; {unkeyed}" if unkeyed else "; give a key with --key or NOTIFIER_KEY",
        403: "; give another key with --key or NOTIFIER_KEY",
    }
    return advice.get(status, "")


class Client:
    """The HTTP API of one server. `async with` it; it belongs to one event loop.

    `unkeyed` says why there is no key, for when the server asks for one.
    """

    def __init__(self, url: str, key: str | None, unkeyed: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._unkeyed = unkeyed
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=aiohttp.ClientTimeout(total=TIMEOUT)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """Read. Raises RefusedError, UnreachableError."""
        return await self.call("GET", path, params=params)

    async def post(self, path: str, body: bytes = b"") -> Any:
        """Send JSON text, return the decoded answer. Raises RefusedError, UnreachableError."""
        return await self.call("POST", path, body)

    async def call(
        self, method: str, path: str, body: bytes = b"", params: Mapping[str, str] | None = None
    ) -> Any:
        """Make any call; `body` is JSON text. Raises RefusedError, UnreachableError."""
        headers = {"Content-Type": "application/json"} if body else {}
        return await self._call(method, path, data=body or None, headers=headers, params=dict(params or {}))

    async def download(
        self, path: str, *, accept: str, params: Mapping[str, str] | None = None
    ) -> AsyncIterator[bytes]:
        """Read what may be longer than memory, as it comes. Raises RefusedError, UnreachableError."""
        patience = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
        async with self._asked(
            "GET", path, headers={"Accept": accept}, params=dict(params or {}), timeout=patience
        ) as response:
            if response.status != HTTPStatus.OK or response.content_type != accept:
                _answer(response, await response.read(), self._unkeyed)
                raise Failure(f"{response.url.origin()} has no such list: it may be of an older version")
            async for chunk in response.content.iter_any():
                yield chunk

    async def _call(self, method: str, path: str, **request: Any) -> Any:
        async with self._asked(method, path, **request) as response:
            return _answer(response, await response.read(), self._unkeyed)

    @asynccontextmanager
    async def _asked(self, method: str, path: str, **request: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a call, and have whatever keeps its answer from coming be an error of ours."""
        if self._session is None:
            raise RuntimeError("the client is not open")
        try:
            async with self._session.request(
                method, self.url + path, allow_redirects=False, **request
            ) as response:
                yield response
        except aiohttp.InvalidURL:
            raise Failure(
                f"{self.url!r} is no address: expected something like http://127.0.0.1:8080"
            ) from None
        except TimeoutError:
            raise UnreachableError(self.url, f"timed out after {TIMEOUT:.0f} s") from None
        except aiohttp.ClientError as error:
            raise UnreachableError(self.url, _reason(error)) from error


def _answer(response: aiohttp.ClientResponse, body: bytes, unkeyed: str | None) -> Any:
    if response.ok and response.status < 300:  # noqa: PLR2004 - RFC 9110 §15.3
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError:
            raise Failure(f"{response.url.origin()} answered, but not as a notifier does") from None
    raise RefusedError(response.status, _problem(response.reason, body), _retry_after(response), unkeyed)


def _problem(reason: str | None, body: bytes) -> Problem:
    try:
        return msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        return Problem(title=reason or "")


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Delay in seconds (RFC 9110 §10.2.3); the form with a date is not used by this server."""
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _reason(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        return os.strerror(error.os_error.errno).lower()
    return str(error) or type(error).__name__


class Server(Struct, frozen=True):
    """Where the server is and what opens it, as options, environment and configuration say together."""

    config_path: Path
    url: str | None
    key: str | None

    def client(self, scope: Scope) -> Client:
        """Make a client; the configuration is read only for what no option gives. Raises ConfigError.

        A key of the configuration is for its own server: no other is ever sent it.
        """
        if self.url is not None and (self.key is not None or not self.config_path.exists()):
            return Client(self.url, self.key)
        config = read_config(self.config_path)
        key = self.key or _configured_key(config, scope)
        if self.url is None or _serves(config, self.url) or key is None:
            return Client(self.url or configured_url(config), key)
        own = f"the key in {self.config_path} is for {configured_url(config)} alone"
        return Client(self.url, None, f"{own}: give this server's with --key or NOTIFIER_KEY")

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | msgspec.Raw | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Any:
        """Make one call of the admin API and wait for its answer. Raises as `client` and its calls do.

        `body` is made JSON; a Raw is JSON already.
        """
        text = b"" if body is None else msgspec.json.encode(body)

        async def call() -> Any:
            async with self.client("admin") as client:
                return await client.call(method, path, text, params)

        return asyncio.run(call())


def configured_url(config: "Config") -> str:
    """Where a server with this configuration is reached from the same machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.server.host, config.server.host)  # noqa: S104
    return address(host, config.server.port)


def address(host: str, port: int) -> str:
    """Write an HTTP address; an IPv6 host goes into brackets (RFC 3986 §3.2.2)."""
    bare = host.strip("[]")
    return f"http://[{bare}]:{port}" if ":" in bare else f"http://{bare}:{port}"


def _configured_key(config: "Config", scope: Scope) -> str | None:
    admin, ingest = config.auth.admin_keys, config.auth.ingest_keys
    keys = (*ingest, *admin) if scope == "ingest" else admin
    return keys[0] if keys else None


def _serves(config: "Config", url: str) -> bool:
    """Whether a server of this configuration is reached by a url, as far as the configuration says."""
    public = config.server.public_url
    if public is not None and _origin(url) == _origin(public):
        return True
    scheme, host, port = _origin(configured_url(config))
    return _origin(url) == (scheme, host, port or _origin(url)[2])  # port 0 leaves open which it is


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return what says which server a url is of; the names of this machine are one (RFC 6454 §4)."""
    parts = urlsplit(url)
    host = "localhost" if parts.hostname in _THIS_MACHINE else parts.hostname
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, host, default if parts.port is None else parts.port


def _address_of(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """Complete an address that lacks its `http://`. What can be none is a usage error."""
    if text is None:
        return None
    url = text if "://" in text else f"http://{text}"
    try:
        scheme, host, _ = _origin(url)
    except ValueError:
        scheme, host = "", None
    if scheme not in {"http", "https"} or not host:
        raise click.BadParameter(f"{text!r} is no address: expected something like http://127.0.0.1:8080")
    return url


def named_server_options(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Add `--server` (or `--url`), `--key` and `--config`, which reach the function together as `server`."""
    return _options(function, "--server", "--url")


def only_server_options(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Add `--server`, `--key` and `--config`: for commands whose `--url` is a receiver's."""
    return _options(function, "--server")


def _options(function: Callable[..., _Result], *names: str) -> Callable[..., _Result]:
    @wraps(function)
    def call(*, server_url: str | None, server_key: str | None, config_path: Path, **options: Any) -> _Result:
        return function(server=Server(config_path, server_url, server_key), **options)

    url = click.option(
        *names,
        "server_url",
        metavar="URL",
        callback=_address_of,
        help="The notifier's address.  [default: from the configuration]",
    )
    key = click.option(
        "--key",
        "server_key",
        envvar="NOTIFIER_KEY",
        show_envvar=True,
        help="An API key.  [default: from the configuration, for its own server alone]",
    )
    return url(key(config_option(call)))
