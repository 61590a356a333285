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
from functools import cached_property, lru_cache, partial
from time import monotonic

import aiohttp
from aiohttp import hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http import RawResponseMessage, StreamWriter
from aiohttp.streams import StreamReader
from yarl import URL

KEPT_BODY = 1024
"""Bytes of a response's body that are kept."""
READ_BODY = 64 * 1024
"""Bytes of a response's body that are read so that the connection can serve again; past them it is closed."""

_LARGE_REQUEST = 1024 * 1024
_PIECE = 256 * 1024
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


class Origin(aiohttp.ClientRequest):
    """Where requests go, in the words of aiohttp's connector: one for all urls of a scheme, host and port."""

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
        self._origin = lru_cache(maxsize=1024)(partial(Origin, hdrs.METH_POST))

    def _to(self, url: str) -> Route:
        """Raises aiohttp.InvalidURL for a url that is not http, or not text that a request line can hold."""
        parsed = URL(url, encoded=True)
        if parsed.scheme not in {"http", "https"} or not parsed.raw_host or " " in url or not _is_plain(url):
            raise aiohttp.InvalidURL(url)
        return Route(parsed, self._origin(parsed.origin()))


class Exchange:
    """What happens to one request. Its owner notes in it what became of the sockets that were asked for."""

    __slots__ = ("began", "blocked", "body", "connected_at", "dialled", "head", "heard_at")

    def __init__(self) -> None:
        self.began = monotonic()
        self.blocked = False
        """Whether an address was refused."""
        self.dialled = False
        """Whether a socket was made."""
        self.connected_at: float | None = None
        self.heard_at: float | None = None
        """When the last status and headers came: the answer's, or of one that is only informational."""
        self.head: RawResponseMessage | None = None
        """The answer's status and headers, once they are in."""
        self.body = b""
        """The first KiB of the answer's body, or what has come of it."""

    @property
    def reused(self) -> bool:
        """Whether it got a connection that had served before."""
        return self.connected_at is not None and not self.dialled

    async def run(self, connector: aiohttp.TCPConnector, origin: Origin, request: bytes) -> None:
        """Send a request and read its answer; keep the connection if it can serve again.

        Raises what aiohttp's parts do (ClientError, HttpProcessingError, OSError). If `head` is in by
        then, it stands. To be run under a deadline of the caller's: it has none.
        """
        connection = await self._connect(connector, origin)
        whole = False
        try:
            whole = await self._converse(_protocol_of(connection), request)
        finally:
            _let_go(connection, whole=whole)

    async def _connect(self, connector: aiohttp.TCPConnector, origin: Origin) -> aiohttp.connector.Connection:
        while True:
            connection = await connector.connect(origin, [], _NO_TIMEOUT)
            if self.dialled or not _protocol_of(connection).should_close:
                self.connected_at = monotonic()
                return connection
            # Something came while nothing was asked: it must not be taken for the answer to this request.
            connection.close()

    async def _converse(self, protocol: ResponseHandler, request: bytes) -> bool:
        """Returns whether both the request and the answer went over whole."""
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        upload = _send(protocol, request)
        try:
            content = await self._read_head(protocol)
            await self._read_body(content)
            return content.is_eof() and (upload is None or upload.done())
        finally:
            if upload is not None:
                upload.cancel()

    async def _read_head(self, protocol: ResponseHandler) -> StreamReader:
        while True:
            head, content = await protocol.read()
            self.heard_at = monotonic()
            # Informational answers come before the one that counts; none follows 101 (RFC 9110 §15.2).
            if head.code // 100 != 1 or head.code == http.HTTPStatus.SWITCHING_PROTOCOLS:
                self.head = head
                return content

    async def _read_body(self, content: StreamReader) -> None:
        read = 0
        while read <= READ_BODY and (chunk := await content.readany()):
            read += len(chunk)
            self.body += chunk[: KEPT_BODY - len(self.body)]


def _protocol_of(connection: aiohttp.connector.Connection) -> ResponseHandler:
    protocol = connection.protocol
    if protocol is None:
        raise aiohttp.ClientConnectionError("the connection was let go of")
    return protocol


def _send(protocol: ResponseHandler, request: bytes) -> asyncio.Task[None] | None:
    """Write a request: at one go, or by a task if it is large, since its answer may come before its end."""
    if len(request) > _LARGE_REQUEST:
        return asyncio.create_task(_upload(protocol, request))
    transport = protocol.transport
    # Of a connection that is closing, whoever reads from it hears why.
    if transport is not None and not transport.is_closing():
        transport.write(request)
    return None


async def _upload(protocol: ResponseHandler, request: bytes) -> None:
    writer = StreamWriter(protocol, asyncio.get_running_loop())
    rest = memoryview(request)
    with suppress(OSError):  # whoever reads from the connection hears that it broke
        for at in range(0, len(rest), _PIECE):
            await writer.write(rest[at : at + _PIECE])
        await writer.drain()


def _let_go(connection: aiohttp.connector.Connection, *, whole: bool) -> None:
    """Keep a connection for the next request, if its last exchange was whole and left nothing over."""
    protocol = _protocol_of(connection)
    if protocol.transport is not None and protocol.transport.get_write_buffer_size():
        protocol.abort()  # closing would wait for the peer to take the rest, for ever if it doesn't
    if whole and _can_serve_again(protocol):
        connection.release()
    else:
        connection.close()


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
