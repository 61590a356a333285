"""An open load: events arrive at a fixed rate, whether or not those before them have been answered.

Each one's time counts from when it was meant to arrive, so that what waited for a stalled server shows it.
"""

import asyncio
from collections import deque
from time import perf_counter

from benchmarks import events
from benchmarks.wire import ACCEPTED, Line, Sink, WireError, request

_TICK = 0.001
"""What a timer can do: arrivals are up to so much later than they were meant, at our own cost."""


class ArrivalSink(Sink):
    """A sink that notes when the webhook of which event arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: dict[int, float] = {}
        """By number of the event, in seconds of `perf_counter`."""

    def took(self, data: bytes) -> None:
        """Note the first arrival of each."""
        self.arrived.setdefault(events.number_of(data), perf_counter())
        super().took(data)


class OpenLoad:
    """Numbered events, posted over as many connections as it takes, up to a limit."""

    def __init__(self, host: str, port: int, *, path: str, connections: int) -> None:
        self._address = (host, port)
        self._path = path
        self._connections = connections
        self._lines: list[_OpenLine] = []
        self._idle: deque[_OpenLine] = deque()
        self._waiting: deque[int] = deque()
        self._unanswered = 0
        self._done: asyncio.Future[None] | None = None
        self.meant: dict[int, float] = {}
        """By number, when each was meant to be posted, in seconds of `perf_counter`;"""
        self.answered: dict[int, float] = {}
        """and when its `202` was here."""

    async def open(self) -> None:
        """Connect."""
        loop = asyncio.get_running_loop()
        for _ in range(self._connections):
            _, line = await loop.create_connection(lambda: _OpenLine(self), *self._address)
            self._lines.append(line)
        self._idle.extend(self._lines)

    async def close(self) -> None:
        """Close every connection."""
        lines, self._lines = self._lines, []
        for line in lines:
            line.transport.close()

    async def post(self, count: int, rate: float) -> None:
        """Post the events from 0 on at so many a second; returns once all are answered. Raises WireError."""
        self._done = asyncio.get_running_loop().create_future()
        self._unanswered = count
        began, sent = perf_counter(), 0
        while sent < count and not self._done.done():
            due = min(count, int((perf_counter() - began) * rate) + 1)
            for number in range(sent, due):
                self.meant[number] = began + number / rate
                self._arrive(number)
            sent = due
            await asyncio.sleep(_TICK)
        await self._done

    def _arrive(self, number: int) -> None:
        if self._idle:
            self._idle.popleft().post(self._request(number), number)
        else:
            self._waiting.append(number)

    def _request(self, number: int) -> bytes:
        host, port = self._address
        return request(self._path, f"{host}:{port}", events.numbered(number))

    def took(self, line: "_OpenLine", data: bytes) -> None:
        """Note an answer; its connection takes who waited longest."""
        if not data.startswith(ACCEPTED):
            self.failed(f"answered {data[:1024]!r}")
            return
        self.answered[line.number] = perf_counter()
        self._unanswered -= 1
        if self._waiting:
            number = self._waiting.popleft()
            line.post(self._request(number), number)
        else:
            self._idle.append(line)
        if not self._unanswered and self._done is not None:
            self._done.set_result(None)

    def failed(self, problem: str) -> None:
        """End it."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(WireError(problem))

    @property
    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return bool(self._lines)


class _OpenLine(Line):
    """A connection with at most one request under way."""

    number = -1

    def __init__(self, load: OpenLoad) -> None:
        super().__init__()
        self._load = load

    def post(self, made: bytes, number: int) -> None:
        """Post an event."""
        self.number = number
        self.transport.write(made)

    def message(self, data: bytes) -> None:
        """Take the answer."""
        self._load.took(self, data)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail, unless it was closed on purpose."""
        if self._load.is_open:
            self._load.failed(f"the connection was lost: {error}")
