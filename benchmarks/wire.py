"""Both ends of the wire, as cheap as Python gets: prebuilt bytes, nothing parsed but where a message ends.

Meant to cost so little that only what stands between them shows. Not HTTP implementations: they know the
peers of these benchmarks, which frame by `Content-Length`.
"""

import asyncio
from abc import ABC, abstractmethod
from time import perf_counter

from benchmarks.processes import HOST
from notifier.bench.wire import Line

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_ACCEPTED = (b"HTTP/1.1 202", b"HTTP/1.1 200")


class WireError(Exception):
    """A peer said what no benchmark expects."""


def request(path: str, host: str, body: bytes) -> bytes:
    """A POST of JSON, ready to be written."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


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
        self._server = await loop.create_server(lambda: _SinkLine(self), HOST, 0, backlog=1024)
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

    def took(self, message: bytes) -> None:  # noqa: ARG002 - looked at by a sink that wants to know more
        """Count a request."""
        self.count += 1
        if self._wanted is not None and self.count >= self._wanted[0]:
            self._wanted[1].set_result(perf_counter())
            self._wanted = None


class _SinkLine(Line):
    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def message(self, message: bytes) -> None:
        self.transport.write(_OK)
        self._sink.took(message)


class Posting(ABC):
    """Connections to a server over which a load posts; the first that breaks, or is refused, ends it."""

    def __init__(self, host: str, port: int, *, connections: int) -> None:
        self._address = (host, port)
        self._connections = connections
        self._lines: list[Line] = []
        self._unanswered = 0
        self._done: asyncio.Future[float] | None = None

    async def open(self) -> None:
        """Connect."""
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            _, line = await loop.create_connection(self.new_line, *self._address)
            self._lines.append(line)

    async def close(self) -> None:
        """Close every connection."""
        lines, self._lines = self._lines, []
        for line in lines:
            line.transport.close()

    @abstractmethod
    def new_line(self) -> Line:
        """Make what speaks on one more connection."""

    def failed(self, problem: str) -> None:
        """End it."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(WireError(problem))

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return bool(self._lines)

    def _begin(self, count: int) -> asyncio.Future[float]:
        """Await so many answers; the future ends with when the last was here, or raises WireError."""
        self._unanswered = count
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    def _is_accepted(self, answer: bytes) -> bool:
        """Count an answer; one that is neither 200 nor 202 ends it."""
        if not answer.startswith(_ACCEPTED):
            self.failed(f"answered {answer[:1024]!r}")
            return False
        self._unanswered -= 1
        if not self._unanswered and self._done is not None and not self._done.done():
            self._done.set_result(perf_counter())
        return True


class PostingLine(Line):
    """One of these connections."""

    def __init__(self, posting: Posting) -> None:
        super().__init__()
        self._posting = posting

    def connection_lost(self, error: Exception | None) -> None:
        """Fail, unless it was closed on purpose."""
        if self._posting.is_open:
            self._posting.failed(f"the connection was lost: {error}")


class Load(Posting):
    """A closed loop: so many connections, each posting the same bytes again as soon as it is answered."""

    def __init__(self, host: str, port: int, body: bytes, *, path: str, connections: int) -> None:
        super().__init__(host, port, connections=connections)
        self._request = request(path, f"{host}:{port}", body)
        self._unsent = 0

    async def post(self, count: int) -> float:
        """Post so many requests; returns the seconds it took until all were answered.

        Raises WireError for an answer that is neither 200 nor 202, or a connection that breaks.
        """
        done, self._unsent = self._begin(count), count
        began = perf_counter()
        for line in self._lines:
            self._go_on(line)
        return await done - began

    def new_line(self) -> Line:
        """See `Posting`."""
        return _LoadLine(self)

    def answered(self, line: Line, answer: bytes) -> None:
        """Take an answer; its connection posts once more, while there is something left to post."""
        if self._is_accepted(answer):
            self._go_on(line)

    def _go_on(self, line: Line) -> None:
        if self._unsent:
            self._unsent -= 1
            line.transport.write(self._request)


class _LoadLine(PostingLine):
    def __init__(self, load: Load) -> None:
        super().__init__(load)
        self._load = load

    def message(self, message: bytes) -> None:
        self._load.answered(self, message)
