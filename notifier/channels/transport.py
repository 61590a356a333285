"""The seam between a prepared webhook request and the wire: one request and a deadline in, one answer out.

Knows nothing of jobs, events or signatures; a leaner transport can stand beside the aiohttp one.
"""

import asyncio
import os
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import lru_cache, partial
from time import monotonic
from typing import Protocol

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http import HttpProcessingError
from msgspec import Struct
from msgspec.structs import replace
from yarl import URL

from notifier.channels.exchange import Exchange, Routes
from notifier.channels.guard import AddressInfo, BlockedAddressError, OpenSocket, only
from notifier.errors import DeliveryError, Permanent, Transient, Unknown

_RESOLVER_THREADS = 32
_parsed = lru_cache(maxsize=4096)(partial(URL, encoded=True))


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


_Failure = aiohttp.ClientError | HttpProcessingError | OSError
_exchange: ContextVar[Exchange] = ContextVar("_exchange")


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
        self._connector: aiohttp.TCPConnector | None = None
        self._routes = Routes()

    async def open(self) -> None:
        """Make the connector, on the running loop."""
        self._resolver = self._given_resolver or _Resolver(min(self._connections, _RESOLVER_THREADS))
        self._connector = aiohttp.TCPConnector(
            limit=self._connections, resolver=self._resolver, socket_factory=self._dial
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._connector is not None:
            await self._connector.close()
            self._connector = None
        if self._resolver is not None and self._resolver is not self._given_resolver:
            await self._resolver.close()

    async def send(self, request: PreparedRequest, deadline_seconds: float) -> Answer:
        """Send one request; see `Transport.send`.

        A kept connection that the receiver closed before it answered is common (it closes idle ones just
        as we write), so the request is sent once more at once, under the same id and deadline.
        """
        exchange = Exchange()
        try:
            async with asyncio.timeout(deadline_seconds):
                try:
                    await self._run(exchange, request)
                except (aiohttp.ClientError, OSError) as error:
                    if not _was_stale(exchange, error):
                        raise
                    exchange = Exchange()
                    await self._run(exchange, request)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            # Once the status is in, what goes wrong doesn't change the verdict.
            if exchange.head is None:
                raise _meaning(error, exchange) from error
        return _answer(exchange)

    async def _run(self, exchange: Exchange, request: PreparedRequest) -> None:
        if self._connector is None:
            raise Transient("the transport is closed", code="connect_failed")
        _exchange.set(exchange)
        route = self._routes.to(request.url)
        await exchange.run(self._connector, route.origin, route.request(request.headers, request.body))

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


def _answer(exchange: Exchange) -> Answer:
    head = exchange.head
    if head is None:
        raise RuntimeError("an exchange ended with neither an answer nor an error")
    connected_at = exchange.connected_at or exchange.began
    answered_at = exchange.heard_at or connected_at
    return Answer(
        head.code,
        head.headers.get(hdrs.RETRY_AFTER),
        exchange.body,
        Timings(connected_at - exchange.began, answered_at - connected_at, monotonic() - answered_at),
    )


def _was_stale(exchange: Exchange, error: aiohttp.ClientError | OSError) -> bool:
    """Whether a connection that had served before broke before anything of an answer came over it."""
    if not exchange.reused or exchange.heard_at is not None:
        return False
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)
    return isinstance(error, ConnectionError | aiohttp.ClientOSError)


def _meaning(error: _Failure, exchange: Exchange) -> DeliveryError:
    """Say what a failed exchange means for the job. No message holds an address or a url."""
    if exchange.connected_at is None:
        return _before_connection(error, exchange)
    if isinstance(error, TimeoutError):
        return Unknown("no answer came in time", code="timeout")
    if isinstance(error, HttpProcessingError):
        return Transient(f"the answer can't be read: {_http_reason(error)}", code="bad_response")
    return Unknown("the connection was lost before the answer came", code="connection_lost")


def _before_connection(error: _Failure, exchange: Exchange) -> DeliveryError:
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


def _http_reason(error: HttpProcessingError) -> str:
    """What is wrong with an answer, without the receiver's own bytes, which aiohttp puts after a colon."""
    return error.message.partition(":")[0].strip().lower() or "it is not HTTP"
