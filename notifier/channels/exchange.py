"""One request and its answer on one kept connection, put together from aiohttp's own parts.

`ClientSession` is made of the same connector, protocol and parser, but builds things around each request
that a delivery has no use for: cookies, redirects, proxies, traces, a task that writes, more timers. They
were half of its time. All that is used here beyond aiohttp's documented interface was read in
aiohttp 3.14.5, and `pyproject.toml` holds it to 3.14.
"""

import asyncio
import http
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from enum import IntEnum
from functools import cached_property, lru_cache
from time import monotonic

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http import RawResponseMessage, StreamWriter
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import StreamReader
from yarl import URL

from notifier.model import Timings

KEPT_BODY = 1024
"""Bytes of a response's body that are kept."""
READ_BODY = 64 * 1024
"""Bytes of a response's body that are read so that the connection can serve again; past them it is closed."""
MOST_ANSWERS = 100
"""Informational answers that are taken before the one that counts."""
NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
"""What aiohttp is told to keep to: the caller's deadline is the only one."""

_LARGE_REQUEST = 1024 * 1024
_PIECE = 256 * 1024


class Origin(aiohttp.ClientRequest):
    """Where requests go, in the words of aiohttp's connector: one for all urls of a scheme, host and port."""

    def __init__(self, url: URL) -> None:
        """Take the url of an origin. Certificates name hosts without the dot that a full name may end in."""
        super().__init__(hdrs.METH_POST, url, server_hostname=(url.raw_host or "").rstrip("."))

    @cached_property
    def connection_key(self) -> ConnectionKey:
        """What their kept connections are found by."""
        return super().connection_key


class Route:
    """A url as a request needs it: the origin to connect to, and how the request begins."""

    __slots__ = ("begins", "origin")

    def __init__(self, url: URL, origin: Origin) -> None:
        self.origin = origin
        self.begins = f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n"

    def request(self, headers: Mapping[str, str], body: bytes) -> bytes:
        """The bytes of a POST. Raises ValueError for a header that is not plain text: it could be two."""
        if not _is_plain("".join([*headers, *headers.values()])):
            raise ValueError("a header holds what is not printable ASCII")
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        return f"{self.begins}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Routes:
    """Finds the routes to urls, and keeps them: the same urls come again and again."""

    def __init__(self) -> None:
        self.to = lru_cache(maxsize=4096)(self._to)
        self._origin = lru_cache(maxsize=1024)(Origin)

    def _to(self, url: str) -> Route:
        """Raises aiohttp.InvalidURL for a url that is not http, or not text that a request line can hold."""
        parsed = URL(url, encoded=True)
        if parsed.scheme not in {"http", "https"} or not parsed.raw_host or " " in url or not _is_plain(url):
            raise aiohttp.InvalidURL(url)
        return Route(parsed, self._origin(parsed.origin()))


class Phase(IntEnum):
    """What an exchange spends its time on, in turn."""

    QUEUE = 0
    """Waiting for a place among the connections."""
    DNS = 1
    CONNECT = 2
    TLS = 3
    WAIT = 4
    BODY = 5


class Exchange:
    """What happens to one request. Whoever gets it a connection notes in it what became of that."""

    __slots__ = (
        "_phase",
        "_since",
        "_spent",
        "blocked",
        "body",
        "connected",
        "dialled",
        "head",
        "heard",
        "received",
        "secure",
        "sent",
        "to_proxy",
    )

    def __init__(self) -> None:
        self._phase = Phase.QUEUE
        self._since = monotonic()
        self._spent = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        self.sent = 0
        """Bytes of the request that were given to the system."""
        self.received = 0
        """Bytes of the answer's body that were read."""
        self.blocked = False
        """Whether an address was refused."""
        self.dialled = False
        """Whether a socket was made."""
        self.secure = False
        """Whether TLS follows once a socket is connected."""
        self.to_proxy = False
        """Whether it is the egress proxy that is being connected to."""
        self.connected = False
        self.heard = False
        """Whether a status and headers came: the answer's, or of one that is only informational."""
        self.head: RawResponseMessage | None = None
        """The answer's status and headers, once they are in."""
        self.body = b""
        """The first KiB of the answer's body, or what has come of it."""

    @property
    def reused(self) -> bool:
        """Whether it got a connection that had served before."""
        return self.connected and not self.dialled

    @property
    def queued(self) -> bool:
        """Whether it still waits for a place among the connections."""
        return self._phase is Phase.QUEUE

    def enter(self, phase: Phase) -> None:
        """Begin a phase: the time until now was the one's before."""
        now = monotonic()
        self._spent[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def timings(self) -> Timings:
        """Where the time went until now."""
        self.enter(self._phase)
        _, dns, connect, tls, wait, body = self._spent
        return Timings(
            dns=dns,
            connect=connect,
            tls=tls,
            wait=wait,
            body=body,
            sent=max(0, self.sent),
            received=self.received,
        )

    def again(self) -> "Exchange":
        """Begin anew on another connection, and go on counting."""
        self.enter(Phase.QUEUE)
        fresh = Exchange()
        fresh._spent, fresh.sent = self._spent, self.sent
        return fresh

    async def run(self, connector: aiohttp.BaseConnector, origin: Origin, request: bytes) -> None:
        """Send a request and read its answer; keep the connection if it can serve again.

        Raises what aiohttp's parts do (ClientError, HttpProcessingError, OSError), and DeliveryError. If
        `head` is in by then, it stands. To be run under a deadline of the caller's: it has none.
        """
        current.set(self)
        connection = await connector.connect(origin, [], NO_TIMEOUT)
        self.connected = True
        whole = False
        try:
            whole = await self._converse(_protocol_of(connection), request)
        finally:
            self._let_go(connection, whole=whole)

    async def _converse(self, protocol: ResponseHandler, request: bytes) -> bool:
        """Returns whether both the request and the answer went over whole."""
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        self.enter(Phase.WAIT)
        upload = self._send(protocol, request)
        try:
            content = await self._read_head(protocol)
            await self._read_body(content)
            return content.is_eof() and (upload is None or upload.done())
        finally:
            if upload is not None:
                upload.cancel()

    def _send(self, protocol: ResponseHandler, request: bytes) -> asyncio.Task[None] | None:
        """Write a request: at one go, or by a task if it is large: its answer may come before its end."""
        if len(request) > _LARGE_REQUEST:
            return asyncio.create_task(self._upload(protocol, request))
        transport = protocol.transport
        # Of a connection that is closing, whoever reads from it hears why.
        if transport is not None and not transport.is_closing():
            transport.write(request)
            self.sent += len(request)
        return None

    async def _upload(self, protocol: ResponseHandler, request: bytes) -> None:
        writer = StreamWriter(protocol, asyncio.get_running_loop())
        rest = memoryview(request)
        with suppress(OSError):  # whoever reads from the connection hears that it broke
            for at in range(0, len(rest), _PIECE):
                piece = rest[at : at + _PIECE]
                self.sent += len(piece)
                await writer.write(piece)
            await writer.drain()

    async def _read_head(self, protocol: ResponseHandler) -> StreamReader:
        for _ in range(MOST_ANSWERS):
            head, content = await protocol.read()
            self.heard = True
            # Informational answers come before the one that counts; none follows 101 (RFC 9110 §15.2).
            if head.code // 100 != 1 or head.code == http.HTTPStatus.SWITCHING_PROTOCOLS:
                self.head = head
                self.enter(Phase.BODY)
                return content
        raise BadHttpMessage("too many informational answers")

    async def _read_body(self, content: StreamReader) -> None:
        while self.received <= READ_BODY and (chunk := await content.readany()):
            self.received += len(chunk)
            self.body += chunk[: KEPT_BODY - len(self.body)]

    def _let_go(self, connection: aiohttp.connector.Connection, *, whole: bool) -> None:
        """Keep a connection for the next request, if its last exchange was whole and left nothing over."""
        protocol = _protocol_of(connection)
        if protocol.transport is not None and (unsent := protocol.transport.get_write_buffer_size()):
            self.sent -= unsent
            protocol.abort()  # closing would wait for the peer to take the rest, for ever if it doesn't
        if whole and _can_serve_again(protocol):
            connection.release()
        else:
            connection.close()


current: ContextVar[Exchange] = ContextVar("current_exchange")
"""The exchange that a connection is being found for."""


def _protocol_of(connection: aiohttp.connector.Connection) -> ResponseHandler:
    protocol = connection.protocol
    if protocol is None:
        raise aiohttp.ClientConnectionError("the connection was let go of")
    return protocol


def _can_serve_again(protocol: ResponseHandler) -> bool:
    """Whether nothing is left over on a connection; then its parser is taken off.

    Without a parser whatever comes by itself is put aside, and shows in `should_close`.
    """
    transport, parser = protocol.transport, protocol._parser  # noqa: SLF001 - aiohttp 3.14.5, client_proto.py
    if transport is None or parser is None:
        return False
    try:
        begun = parser.feed_eof()  # the head that another message has begun with, or nothing
    except Exception:
        return False
    protocol._parser = None  # noqa: SLF001 - as before a connection's first request
    return begun is None


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable()
