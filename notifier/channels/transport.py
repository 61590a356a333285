"""The seam between a prepared webhook request and the wire: one request and a deadline in, one answer out.

Knows nothing of jobs, events or signatures; a leaner transport can stand beside the aiohttp one.
"""

import asyncio
import os
import ssl
from functools import lru_cache, partial
from typing import Protocol

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver
from aiohttp.http import HttpProcessingError
from msgspec import Struct
from msgspec.structs import replace
from yarl import URL

from notifier.channels.egress import Egress, SystemResolver
from notifier.channels.exchange import Exchange, Routes
from notifier.channels.guard import REFUSAL, BlockedAddressError, Guard, Only
from notifier.channels.proxy import Proxy, unreachable
from notifier.errors import DeliveryError, Permanent, Transient, Unknown
from notifier.model import Timings

MAX_HEADERS = 8 * 1024
"""Bytes of an answer's headers that are shown."""

_LOOK_UPS_EACH, _MOST_LOOK_UPS = 4, 512
"""Name look-ups that there may be for each connection, and in all: some outlive their delivery."""
_parsed = lru_cache(maxsize=4096)(partial(URL, encoded=True))


class PreparedRequest(Struct, frozen=True):
    """A POST, ready to be sent as it is. `url` is absolute, checked and encoded."""

    url: str
    headers: dict[str, str]
    body: bytes


class Answer(Struct, frozen=True):
    """What the receiver said. `body` is its first KiB, undecompressed, or what of it came in time."""

    status: int
    retry_after: str | None
    body: bytes
    timings: Timings
    raw_headers: tuple[tuple[bytes, bytes], ...] = ()

    def headers(self) -> list[tuple[str, str]]:
        """The headers as text, in the order they came; those past 8 KiB in all are left out."""
        shown, size = [], 0
        for name, value in self.raw_headers:
            size += len(name) + len(value) + len(": \r\n")
            if size > MAX_HEADERS:
                break
            shown.append((name.decode("utf-8", "replace"), value.decode("utf-8", "replace")))
        return shown


class Transport(Protocol):
    """A way to get requests to receivers."""

    async def open(self) -> None:
        """Get ready to send, on the running loop."""

    async def send(self, request: PreparedRequest, deadline_seconds: float) -> Answer:
        """Send one request and return what came back, whatever its status.

        The deadline covers everything, from the name look-up to the last byte of the response. Raises
        Transient with the code `timeout`, `dns_failed`, `connect_failed`, `tls_failed`,
        `connection_lost` or `bad_response` (Unknown where the request was under way and no answer
        came), Permanent with `blocked_address` or `invalid_destination`, or what the egress proxy is
        the cause of: Transient `proxy_denied`, Unavailable `proxy_unreachable` or `proxy_refused`.
        """

    async def close(self) -> None:
        """Let go of connections."""


_Failure = aiohttp.ClientError | HttpProcessingError | OSError


class AiohttpTransport:
    """Sends by aiohttp, over kept connections, to addresses that the guard agrees to.

    `connections` bounds how many requests are under way; `resolver` stands in for the system's (it is
    closed by its owner). With a `proxy` nothing is connected to but that.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        connections: int,
        resolver: AbstractResolver | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._guard = guard
        self._connections = connections
        self._proxy = proxy
        self._given_resolver = resolver
        self._resolver: AbstractResolver | None = None
        self._egress: Egress | None = None
        self._routes = Routes()

    async def open(self) -> None:
        """Make the connector, on the running loop."""
        self._resolver = self._given_resolver or SystemResolver(
            min(self._connections * _LOOK_UPS_EACH, _MOST_LOOK_UPS)
        )
        self._egress = Egress(
            self._guard, connections=self._connections, resolver=self._resolver, proxy=self._proxy
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._egress is not None:
            await self._egress.close()
            self._egress = None
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
                    exchange = exchange.again()
                    await self._run(exchange, request)
        except DeliveryError as error:
            error.timings = exchange.timings()
            raise
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            # Once the status is in, what goes wrong doesn't change the verdict.
            if exchange.head is None:
                raise _meaning(error, exchange) from error
        return _answer(exchange)

    async def _run(self, exchange: Exchange, request: PreparedRequest) -> None:
        if self._egress is None:
            raise Transient("the transport is closed", code="connect_failed")
        route = self._routes.to(request.url)
        await exchange.run(self._egress, route.origin, route.request(request.headers, request.body))


class CatcherTransport:
    """Sends every request to a catcher on this machine instead, and can reach nothing else.

    A request for `https://example.com/hooks?x=1` goes to `http://HOST:PORT/https/example.com:443/hooks?x=1`.
    `address` is the catcher's numeric host, and port.
    """

    def __init__(self, address: tuple[str, int], *, connections: int = 64) -> None:
        self._address = address
        self._inner = AiohttpTransport(Guard(Only(*address)), connections=connections)

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


def _answer(exchange: Exchange) -> Answer:
    head = exchange.head
    if head is None:
        raise RuntimeError("an exchange ended with neither an answer nor an error")
    return Answer(
        head.code,
        head.headers.get(hdrs.RETRY_AFTER),
        exchange.body,
        exchange.timings(),
        head.raw_headers,
    )


def _was_stale(exchange: Exchange, error: aiohttp.ClientError | OSError) -> bool:
    """Whether a connection that had served before broke before anything of an answer came over it."""
    if not exchange.reused or exchange.heard:
        return False
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return isinstance(error.message, str)
    return isinstance(error, ConnectionError | aiohttp.ClientOSError)


def _meaning(error: _Failure, exchange: Exchange) -> DeliveryError:
    """Say what a failed exchange means for the job. No message holds an address or a url.

    Of a refused address it isn't even told how long that took.
    """
    if isinstance(error, BlockedAddressError) or (exchange.blocked and not exchange.dialled):
        # With several addresses aiohttp's error is of any or of all of them; what was noted is exact.
        return Permanent(REFUSAL, code="blocked_address")
    if isinstance(error, aiohttp.InvalidURL):
        return Permanent("the url can't be used", code="invalid_destination")
    made = _after_connection(error) if exchange.connected else _before_connection(error, exchange)
    made.timings = exchange.timings()
    return made


def _after_connection(error: _Failure) -> DeliveryError:
    if isinstance(error, TimeoutError):
        return Unknown("no answer came in time", code="timeout", lane_fault=True)
    if isinstance(error, HttpProcessingError):
        problem = f"the answer can't be read: {_http_reason(error)}"
        return Transient(problem, code="bad_response", lane_fault=True)
    return Unknown("the connection was lost before the answer came", code="connection_lost", lane_fault=True)


def _before_connection(error: _Failure, exchange: Exchange) -> DeliveryError:
    if exchange.to_proxy:
        return unreachable()
    code, problem = _why_unconnected(error)
    # Who waited for a place among the connections knows nothing of the receiver.
    return Transient(problem, code=code, lane_fault=not exchange.queued)


def _why_unconnected(error: _Failure) -> tuple[str, str]:
    if isinstance(error, TimeoutError):
        return "timeout", "no connection came about in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns_failed", "the host name can't be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls_failed", f"TLS failed: {_tls_reason(error)}"
    return "connect_failed", f"no connection: {_os_reason(error)}"


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
