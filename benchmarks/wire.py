"""Both ends of the wire, as cheap as Python gets: prebuilt bytes, nothing parsed but where a message ends.

Meant to cost so little that only what stands between them shows. Not HTTP implementations: they know the
peers of these benchmarks, which frame by `Content-Length` and spell it so.
"""

import asyncio
from time import perf_counter
from typing import cast

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\nContent-Length: "
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ACCEPTED = (b"HTTP/1.1 202", b"HTTP/1.1 200")


class WireError(Exception):
    """A peer said what no benchmark expects."""


def request(path: str, host: str, body: bytes) -> bytes:
    """A POST of JSON, ready to be written."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def message_end(data: bytes) -> int:
    """Where the first message of `data` ends, or 0 while it isn't all there."""
    head = data.find(_HEAD_END)
    if head < 0:
        return 0
    at = data.find(_LENGTH, 0, head)
    if at < 0:
        raise WireError(f"no length in {data[:head]!r}")
    end = head + 4 + int(data[at + 18 : data.find(b"\r\n", at + 18)])
    return end if len(data) >= end else 0


class Sink:
    """Answers every request with 200 and counts it. `reached` waits for a count."""

    def __init__(self) -> None:
        self.count = 0
        self.port = 0
        self._wanted: tuple[int, asyncio.Future[float]] | None = None
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen on a free port of loopback."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _SinkLine(self), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def reached(self, count: int) -> float:
        """Wait until so many requests came in all; returns when that was, by `perf_counter`."""
        if self.count >= count:
            return perf_counter()
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._wanted = (count, future)
        return await future

    def took(self, data: bytes) -> None:  # noqa: ARG002 - looked at by a sink that wants to know more
        """Count a request, which `data` begins with."""
        self.count += 1
        if self._wanted is not None and self.count >= self._wanted[0]:
            self._wanted[1].set_result(perf_counter())
            self._wanted = None


class Line(asyncio.Protocol):
    """A connection that keeps what is not yet a whole message."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take each message that is whole."""
        if self.rest:
            data = self.rest + data
        while data and (end := message_end(data)):
            self.message(data)
            data = data[end:]
        self.rest = data

    def message(self, data: bytes) -> None:
        """Take the message at the start of `data`."""
        raise NotImplementedError


class _SinkLine(Line):
    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def message(self, data: bytes) -> None:
        self.transport.write(_OK)
        self._sink.took(data)


class Load:
    """A closed loop: so many connections, each posting the same bytes again as soon as it is answered."""

    def __init__(self, host: str, port: int, body: bytes, *, path: str, connections: int) -> None:
        self._address = (host, port)
        self._request = request(path, f"{host}:{port}", body)
        self._connections = connections
        self._lines: list[_LoadLine] = []
        self._unsent = 0
        self._unanswered = 0
        self._done: asyncio.Future[float] | None = None

    async def open(self) -> None:
        """Connect."""
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            _, line = await loop.create_connection(lambda: _LoadLine(self), *self._address)
            self._lines.append(line)

    async def close(self) -> None:
        """Close every connection."""
        lines, self._lines = self._lines, []
        for line in lines:
            line.transport.close()

    async def post(self, count: int) -> float:
        """Post so many requests; returns the seconds it took until all were answered.

        Raises WireError for an answer that is neither 200 nor 202, or a connection that breaks.
        """
        self._unsent = self._unanswered = count
        self._done = asyncio.get_running_loop().create_future()
        began = perf_counter()
        for line in self._lines:
            self.go_on(line)
        return await self._done - began

    def go_on(self, line: "_LoadLine") -> None:
        """Let a connection post once more, while there is something left to post."""
        if self._unsent:
            self._unsent -= 1
            line.transport.write(self._request)

    def answered(self, line: "_LoadLine", data: bytes) -> None:
        """Count an answer."""
        if not data.startswith(ACCEPTED):
            self.failed(f"answered {data[:1024]!r}")
            return
        self._unanswered -= 1
        self.go_on(line)
        if not self._unanswered and self._done is not None and not self._done.done():
            self._done.set_result(perf_counter())

    def failed(self, problem: str) -> None:
        """End it."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(WireError(problem))

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return bool(self._lines)


class _LoadLine(Line):
    def __init__(self, load: Load) -> None:
        super().__init__()
        self._load = load

    def message(self, data: bytes) -> None:
        self._load.answered(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._load.is_open:
            self._load.failed(f"the connection was lost: {error}")
