"""The seam between a prepared webhook request and the wire: one request and a deadline in, one answer out.

Knows nothing of jobs, events or signatures; a leaner transport can stand beside the aiohttp one.
"""

import asyncio
import io
import os
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache, partial
from time import monotonic
from typing import Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from msgspec import Struct
from msgspec.structs import replace
from multidict import istr
from yarl import URL

from notifier.channels.guard import AddressInfo, BlockedAddressError, OpenSocket, only
from notifier.errors import DeliveryError, Permanent, Transient, Unknown

KEPT_BODY = 1024
"""Bytes of a response's body that are kept."""
READ_BODY = 64 * 1024
"""Bytes of a response's body that are read so that the connection can serve again; past them it is closed."""

_LARGE_REQUEST = 1024 * 1024
_RESOLVER_THREADS = 32
_parsed = lru_cache(maxsize=4096)(partial(URL, encoded=True))
_timeout = lru_cache(maxsize=64)(lambda total: aiohttp.ClientTimeout(total=total))


class PreparedRequest(Struct, frozen=True):
    """A POST, ready to be sent as it is. `url` is absolute, checked and encoded."""

    url: str
    headers: dict[str, str]
    body: bytes


class Timings(Struct, frozen=True):
    """Where the time of one exchange went, in seconds."""

    connect: float
    """Name look-up, TCP and TLS; next to nothing on a connection that is used again."""
    wait: float
    """From the connection to the response's headers."""
    body: float


class Answer(Struct, frozen=True):
    """What the receiver said. `body` is its first KiB, undecompressed, or what of it came in time."""

    status: int
    retry_after: str | None
    body: bytes
    timings: Timings


class Transport(Protocol):
    """A way to get requests to receivers."""

    async def open(self) -> None:
        """Get ready to send, on the running loop."""

    async def send(self, request: PreparedRequest, deadline_seconds: float) -> Answer:
        """Send one request and return what came back, whatever its status.

        The deadline covers everything, from the name look-up to the last byte of the response. Raises
        Transient with the code `timeout`, `dns_failed`, `connect_failed`, `tls_failed`,
        `connection_lost` or `bad_response` (Unknown where the request was under way and no answer
        came), or Permanent with `blocked_address` or `invalid_destination`.
        """

    async def close(self) -> None:
        """Let go of connections."""


class _Exchange:
    """What happened to one request on its way, noted by the guard and the connector."""

    __slots__ = ("blocked", "connected_at", "dialled")

    def __init__(self) -> None:
        self.blocked = False
        self.dialled = False
        self.connected_at: float | None = None

    @property
    def reused(self) -> bool:
        """Whether it got a connection that had served before."""
        return self.connected_at is not None and not self.dialled


_exchange: ContextVar[_Exchange] = ContextVar("_exchange")


class AiohttpTransport:
    """Sends by aiohttp, over kept connections, to addresses that `open_socket` agrees to.

    `open_socket` makes the socket for an address or raises BlockedAddressError; `connections` bounds how
    many requests are under way; `resolver` stands in for the system's (it is closed by its owner).
    """

    def __init__(
        self, open_socket: OpenSocket, *, connections: int, resolver: AbstractResolver | None = None
    ) -> None:
        self._open_socket = open_socket
        self._connections = connections
        self._given_resolver = resolver
        self._resolver: AbstractResolver | None = None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the client, on the running loop."""
        self._resolver = self._given_resolver or _Resolver(min(self._connections, _RESOLVER_THREADS))
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=self._connections, resolver=self._resolver, socket_factory=self._dial),
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._resolver is not None and self._resolver is not self._given_resolver:
            await self._resolver.close()

    async def send(self, request: PreparedRequest, deadline_seconds: float) -> Answer:
        """Send one request; see `Transport.send`.

        A kept connection that the receiver closed before it answered is common (it closes idle ones just
        as we write), so the request is sent once more at once, under the same id and deadline.
        """
        began = monotonic()
        try:
            return await self._send(request, deadline_seconds)
        except _StaleConnectionError:
            left = deadline_seconds - (monotonic() - began)
            return await self._send(request, max(left, 0.001), last=True)

    async def _send(self, request: PreparedRequest, seconds: float, *, last: bool = False) -> Answer:
        exchange = _Exchange()
        _exchange.set(exchange)
        began = monotonic()
        try:
            response = await self._post(request, seconds)
        except (aiohttp.ClientError, TimeoutError) as error:
            if not last and exchange.reused and _nothing_was_read(error):
                raise _StaleConnectionError from error
            raise _meaning(error, exchange) from error
        return await self._read(response, began, exchange.connected_at or began)

    async def _post(self, request: PreparedRequest, seconds: float) -> aiohttp.ClientResponse:
        if self._session is None:
            raise Transient("the transport is closed", code="connect_failed")
        return await self._session.post(
            _parsed(request.url),
            headers=request.headers,
            data=_payload(request.body),
            allow_redirects=False,
            timeout=_timeout(seconds),
        )

    async def _read(self, response: aiohttp.ClientResponse, began: float, connected_at: float) -> Answer:
        answered_at = monotonic()
        body = await _body(response)
        return Answer(
            response.status,
            response.headers.get("Retry-After"),
            body,
            Timings(connected_at - began, answered_at - connected_at, monotonic() - answered_at),
        )

    def _dial(self, info: AddressInfo) -> socket.socket:
        """Make the socket for an address, noting for `_meaning` whether any was let out."""
        exchange = _exchange.get()
        try:
            made = self._open_socket(info)
        except BlockedAddressError:
            exchange.blocked = True
            raise
        exchange.dialled = True
        return made


class CatcherTransport:
    """Sends every request to a catcher on this machine instead, and can reach nothing else.

    A request for `https://example.com/hooks?x=1` goes to `http://HOST:PORT/https/example.com:443/hooks?x=1`.
    `address` is the catcher's numeric host, and port.
    """

    def __init__(self, address: tuple[str, int], *, connections: int = 64) -> None:
        self._address = address
        self._inner = AiohttpTransport(only(*address), connections=connections)

    async def open(self) -> None:
        """Get ready to send, on the running loop."""
        await self._inner.open()

    async def send(self, request: PreparedRequest, deadline_seconds: float) -> Answer:
        """Hand one request to the catcher; see `Transport.send`."""
        return await self._inner.send(replace(request, url=self._caught(request.url)), deadline_seconds)

    async def close(self) -> None:
        """Let go of connections."""
        await self._inner.close()

    def _caught(self, url: str) -> str:
        aimed = _parsed(url)
        host, port = self._address
        path = f"/{aimed.scheme}/{aimed.host_subcomponent}:{aimed.port}{aimed.raw_path}"
        caught = URL.build(
            scheme="http", host=host, port=port, path=path, query_string=aimed.raw_query_string, encoded=True
        )
        return str(caught)


class _StaleConnectionError(Exception):
    """A kept connection turned out to be closed before anything of an answer came."""


class _Request(aiohttp.ClientRequest):
    """A request that carries the headers it is given, beside Host and Content-Length."""

    DEFAULT_HEADERS: dict[istr, str] = {}  # noqa: RUF012 - aiohttp's own attribute, never written to


class _Connector(aiohttp.TCPConnector):
    """Notes when a request gets its connection."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        _exchange.get().connected_at = monotonic()
        return connection


class _Resolver(AbstractResolver):
    """The system's resolver, on threads of its own: names that nobody answers for hold up nothing else."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="webhook-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(
            socket.getaddrinfo,
            host.encode("ascii"),
            port,
            family,
            socket.SOCK_STREAM,
            0,
            socket.AI_ADDRCONFIG,
        )
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _payload(body: bytes) -> bytes | io.BytesIO:
    """What aiohttp is given to send: bytes it writes at one go, a file piece by piece."""
    return body if len(body) <= _LARGE_REQUEST else io.BytesIO(body)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """Read what is kept of a body. The status is in: what goes wrong now doesn't change the verdict."""
    kept, read = b"", 0
    try:
        while read <= READ_BODY:
            chunk = await response.content.readany()
            if not chunk:
                return kept
            read += len(chunk)
            kept += chunk[: KEPT_BODY - len(kept)]
    except (aiohttp.ClientError, TimeoutError):
        pass
    finally:
        if not response.closed:
            response.close()
    return kept


def _nothing_was_read(error: Exception) -> bool:
    """Whether a connection broke before anything of an answer came over it."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)
    return isinstance(error, ConnectionError | aiohttp.ClientOSError)


def _meaning(error: aiohttp.ClientError | TimeoutError, exchange: _Exchange) -> DeliveryError:
    """Say what a failed exchange means for the job. No message holds an address or a url."""
    if exchange.connected_at is None:
        return _before_connection(error, exchange)
    if isinstance(error, TimeoutError):
        return Unknown("no answer came in time", code="timeout")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        return Transient(f"the answer can't be read: {_http_reason(error)}", code="bad_response")
    return Unknown("the connection was lost before the answer came", code="connection_lost")


def _before_connection(error: aiohttp.ClientError | TimeoutError, exchange: _Exchange) -> DeliveryError:
    # With several addresses aiohttp's error is of any or of all of them; what the guard noted is exact.
    if exchange.blocked and not exchange.dialled:
        return Permanent("the address is not allowed", code="blocked_address")
    if isinstance(error, aiohttp.InvalidURL):
        return Permanent("the url can't be used", code="invalid_destination")
    if isinstance(error, TimeoutError):
        return Transient("no connection came about in time", code="timeout")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Transient("the host name can't be resolved", code="dns_failed")
    if isinstance(error, aiohttp.ClientSSLError):
        return Transient(f"TLS failed: {_tls_reason(error)}", code="tls_failed")
    return Transient(f"no connection: {_os_reason(error)}", code="connect_failed")


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return (
        cause.reason.replace("_", " ").lower()
        if isinstance(cause, ssl.SSLError)
        else "the handshake broke off"
    )


def _os_reason(error: Exception) -> str:
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number else "it broke off"


def _http_reason(error: aiohttp.ClientResponseError | aiohttp.ClientPayloadError) -> str:
    """What is wrong with an answer, without the receiver's own bytes, which aiohttp puts after a colon."""
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return text.partition(":")[0].strip().lower() or "it is not HTTP"
