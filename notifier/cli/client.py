"""Talks to a running server over HTTP. What is not success is an error that carries the server's words."""

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import aiohttp
import click
import msgspec
from msgspec import Struct, field

from notifier.cli.program import Failure, config_option, read_config
from notifier.errors import NotifierError

if TYPE_CHECKING:
    from notifier.config import Config

TIMEOUT = 60.0
"""Seconds that one call may take."""

_Result = TypeVar("_Result")
Scope = Literal["ingest", "admin"]


class Pointed(Struct, frozen=True):
    """One fault of a body, as the server's problem document lists it."""

    pointer: str = ""
    detail: str = ""


class Problem(Struct, frozen=True):
    """A problem document (RFC 9457), as far as one needs it here."""

    title: str = ""
    detail: str = ""
    errors: list[Pointed] = field(default_factory=list)


class RefusedError(NotifierError):
    """The server answered, and not with success. `retry_after` is in seconds, where it said so."""

    def __init__(self, status: int, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(f"the server answered {status}: {_worded(problem)}{_advice(status)}")
        self.status = status
        self.problem = problem
        self.retry_after = retry_after


class UnreachableError(NotifierError):
    """Nobody answered at the server's address."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"no answer from {url} ({reason}): start it with `notifier serve`, or name another with --url"
        )
        self.url = url


def _worded(problem: Problem) -> str:
    words = problem.detail or problem.title or "no reason given"
    faults = "; ".join(f"{fault.pointer or 'the body'}: {fault.detail}" for fault in problem.errors)
    return f"{words} ({faults})" if faults and faults not in words else words


def _advice(status: int) -> str:
    advice = {
        401: "; give a key with --key or NOTIFIER_KEY",
        403: "; give another key with --key or NOTIFIER_KEY",
    }
    return advice.get(status, "")


class Client:
    """The HTTP API of one server. `async with` it; it belongs to one event loop."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
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

    async def _call(self, method: str, path: str, **request: Any) -> Any:
        if self._session is None:
            raise RuntimeError("the client is not open")
        try:
            async with self._session.request(
                method, self.url + path, allow_redirects=False, **request
            ) as response:
                return _answer(response, await response.read())
        except aiohttp.InvalidURL:
            raise Failure(
                f"{self.url!r} is no address: expected something like http://127.0.0.1:8080"
            ) from None
        except TimeoutError:
            raise UnreachableError(self.url, f"timed out after {TIMEOUT:.0f} s") from None
        except aiohttp.ClientError as error:
            raise UnreachableError(self.url, _reason(error)) from error


def _answer(response: aiohttp.ClientResponse, body: bytes) -> Any:
    if response.ok and response.status < 300:  # noqa: PLR2004 - RFC 9110 §15.3
        try:
            return msgspec.json.decode(body)
        except msgspec.DecodeError:
            raise Failure(f"{response.url.origin()} answered, but not as a notifier does") from None
    raise RefusedError(response.status, _problem(response.reason, body), _retry_after(response))


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
        """Make a client; the configuration is read only for what no option gives. Raises ConfigError."""
        if self.url is not None and self.key is not None:
            return Client(self.url, self.key)
        if self.url is not None and not self.config_path.exists():
            return Client(self.url, None)
        config = read_config(self.config_path)
        return Client(self.url or configured_url(config), self.key or _configured_key(config, scope))

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | msgspec.Raw | None = None,
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


def server_options(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Add `--url`, `--key` and `--config`, which reach the function together as `server`."""

    @wraps(function)
    def call(*, url: str | None, key: str | None, config_path: Path, **options: Any) -> _Result:
        return function(server=Server(config_path, url, key), **options)

    url = click.option("--url", help="The server's address.  [default: from the configuration]")
    key = click.option(
        "--key",
        envvar="NOTIFIER_KEY",
        show_envvar=True,
        help="An API key.  [default: from the configuration]",
    )
    return url(key(config_option(call)))
