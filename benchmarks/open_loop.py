"""An open load: events arrive at a fixed rate, whether or not those before them have been answered.

Each one's time counts from when it was meant to arrive, so that what waited for a stalled server shows it.
"""

import asyncio
from collections import deque
from time import perf_counter

from benchmarks import events
from benchmarks.wire import Posting, PostingLine, Sink, request
from notifier.bench.wire import Line

_TICK = 0.001
"""What a timer can do: arrivals are up to so much later than they were meant, at our own cost."""


class ArrivalSink(Sink):
    """A sink that notes when the webhook of which event arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: dict[int, float] = {}
        """By number of the event, in seconds of `perf_counter`."""

    def took(self, message: bytes) -> None:
        """Note the first arrival of each."""
        self.arrived.setdefault(events.number_of(message), perf_counter())
        super().took(message)


class OpenLoad(Posting):
    """Numbered events, posted over as many connections as it takes, up to a limit."""

    def __init__(self, host: str, port: int, *, path: str, connections: int) -> None:
        super().__init__(host, port, connections=connections)
        self._path = path
        self._host = f"{host}:{port}"
        self._idle: deque[_OpenLine] = deque()
        self._waiting: deque[int] = deque()
        self.meant: dict[int, float] = {}
        """By number, when each was meant to be posted, in seconds of `perf_counter`;"""
        self.answered: dict[int, float] = {}
        """and when its `202` was here."""

    async def post(self, count: int, rate: float) -> None:
        """Post the events from 0 on at so many a second; returns once all are answered. Raises WireError."""
        done = self._begin(count)
        began, sent = perf_counter(), 0
        while sent < count and not done.done():
            due = min(count, int((perf_counter() - began) * rate) + 1)
            for number in range(sent, due):
                self.meant[number] = began + number / rate
                self._arrive(number)
            sent = due
            await asyncio.sleep(_TICK)
        await done

    def new_line(self) -> Line:
        """See `Posting`."""
        line = _OpenLine(self)
        self._idle.append(line)
        return line

    def took(self, line: "_OpenLine", answer: bytes) -> None:
        """Note an answer; its connection takes who waited longest."""
        if not self._is_accepted(answer):
            return
        self.answered[line.number] = perf_counter()
        if self._waiting:
            self._post(line, self._waiting.popleft())
        else:
            self._idle.append(line)

    def _arrive(self, number: int) -> None:
        if self._idle:
            self._post(self._idle.popleft(), number)
        else:
            self._waiting.append(number)

    def _post(self, line: "_OpenLine", number: int) -> None:
        line.number = number
        line.transport.write(request(self._path, self._host, events.numbered(number)))


class _OpenLine(PostingLine):
    """A connection with at most one request under way, that of an event's `number`."""

    number = -1

    def __init__(self, load: OpenLoad) -> None:
        super().__init__(load)
        self._load = load

    def message(self, message: bytes) -> None:
        """Take the answer."""
        self._load.took(self, message)
