"""The load: events posted over kept connections, each timed until it is answered and until it arrives."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from time import perf_counter

from msgspec import Struct

from notifier.bench import BenchError
from notifier.bench.receivers import LOOPBACK
from notifier.bench.wire import Line, Request

_ACCEPTED = b"HTTP/1.1 202"
_TICK = 0.001
"""Seconds between looks at what is due, at a steady rate."""
_ARRIVES_WITHIN = 60.0
"""Seconds that what was posted may take to arrive, at the end."""


class _Flight(Struct):
    """A request on its way: when it was due, when it was answered, when what it caused arrived."""

    due: float
    answered: float = 0.0
    arrived: float = 0.0


class Load:
    """Posts requests in turn, over connections that carry one at a time.

    `events_each` is how many events a request brings. With `arrives`, it causes a delivery, which `arrived`
    is told of. `accept_seconds` and `deliver_seconds` (from the answer to the arrival) grow until `reset`.
    """

    def __init__(self, *, arrives: bool, events_each: int = 1) -> None:
        self.arrives = arrives
        self.events_each = events_each
        self.accept_seconds: list[float] = []
        self.deliver_seconds: list[float] = []
        self._requests: Sequence[Request] = ()
        self._numbers = count()
        self._flights: dict[int, _Flight] = {}
        self._posts: list[_Post] = []
        self._idle: deque[_Post] = deque()
        self._window = 0
        self._due: deque[float] = deque()
        self._ticking: asyncio.TimerHandle | None = None
        self._landed = asyncio.Event()
        self._over = asyncio.Event()
        self._problem = ""

    # For whoever measures ------------------------------------------------------------------------

    @asynccontextmanager
    async def connected(
        self, port: int, requests: Sequence[Request], *, connections: int
    ) -> AsyncIterator[None]:
        """Be connected to a server on loopback that is to get these requests."""
        loop = asyncio.get_running_loop()
        self._requests = requests
        try:
            for _ in range(connections):
                _, post = await loop.create_connection(lambda: _Post(self), LOOPBACK, port)
                self._posts.append(post)
            self._idle.extend(self._posts)
            yield
        finally:
            self._stop()
            self._over.set()
            for each in self._posts:
                each.transport.close()

    def flat_out(self, window: int) -> None:
        """Post as fast as it is answered, but have no more than so many events under way."""
        self._window = window
        self._pump()

    def steady(self, rate: float) -> None:
        """Post so many requests a second. One that finds no connection free is late, which counts."""
        self._tick(rate, perf_counter())

    async def watch(self, seconds: float) -> None:
        """Let it go on for a while. Raises BenchError as soon as anything goes wrong."""
        await _within(seconds, self._over)
        if self._problem:
            raise BenchError(self._problem)

    async def land(self) -> None:
        """Post nothing more, and wait until all that was posted has arrived. Raises BenchError."""
        self._stop()
        if self._flights and not self._over.is_set():
            self._landed.clear()
            await _within(_ARRIVES_WITHIN, self._landed)
        await self.watch(0)
        if self._flights:
            raise BenchError(f"{len(self._flights):,} events did not arrive within {_ARRIVES_WITHIN:.0f} s")

    def reset(self) -> None:
        """Forget what was timed so far."""
        self.accept_seconds, self.deliver_seconds = [], []

    def arrived(self, number: int) -> None:
        """What the request of a number caused has arrived; a second time counts for nothing."""
        flight = self._flights.get(number)
        if flight is None or flight.arrived:
            return
        flight.arrived = perf_counter()
        if flight.answered:
            self._end(number, flight)
            self._pump()

    def fail(self, problem: str) -> None:
        """End the measurement: nothing that comes now means anything."""
        if not self._over.is_set():
            self._problem = problem
            self._over.set()
            self._landed.set()

    # For the connections -------------------------------------------------------------------------

    def answered(self, post: "_Post", number: int, answer: bytes) -> None:
        """Take the answer to a request; its connection is free for the next."""
        if not answer.startswith(_ACCEPTED):
            self.fail(_told(answer))
            return
        flight = self._flights[number]
        flight.answered = perf_counter()
        self.accept_seconds.append(flight.answered - flight.due)
        if flight.arrived or not self.arrives:
            self._end(number, flight)
        self._idle.append(post)
        self._pump()

    # Inside --------------------------------------------------------------------------------------

    def _stop(self) -> None:
        self._window = 0
        self._due.clear()
        if self._ticking is not None:
            self._ticking.cancel()

    def _end(self, number: int, flight: _Flight) -> None:
        del self._flights[number]
        if self.arrives:
            # The answer may be read after what it caused: both were under way at once.
            self.deliver_seconds.append(max(0.0, flight.arrived - flight.answered))
        if not self._flights:
            self._landed.set()

    def _pump(self) -> None:
        while self._idle and (due := self._next()):
            number = next(self._numbers)
            self._flights[number] = _Flight(due)
            self._idle.popleft().send(number, self._requests[number % len(self._requests)])

    def _next(self) -> float:
        """When the next request was due; 0: there is none."""
        if self._due:
            return self._due.popleft()
        return perf_counter() if len(self._flights) < self._window else 0.0

    def _tick(self, rate: float, last: float) -> None:
        """Note what became due since the last tick, and post it."""
        now = perf_counter()
        more = int((now - last) * rate)
        # When each was due, and not now: what this tick is late by counts too.
        self._due.extend([last + number / rate for number in range(1, more + 1)])
        loop = asyncio.get_running_loop()
        self._ticking = loop.call_later(_TICK, self._tick, rate, last + more / rate)
        self._pump()


class _Post(Line):
    """A connection that carries one request at a time."""

    def __init__(self, load: Load) -> None:
        super().__init__()
        self._load = load
        self._number = 0

    def send(self, number: int, request: Request) -> None:
        self._number = number
        self.transport.write(request.numbered(number))

    def message(self, message: bytes) -> None:
        self._load.answered(self, self._number, message)

    def connection_lost(self, error: Exception | None) -> None:
        self._load.fail(f"the connection to the server was lost{f': {error}' if error else ''}")


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _told(answer: bytes) -> str:
    head, _, body = answer.decode(errors="replace").partition("\r\n\r\n")
    return f"the server answered {head.partition(chr(13))[0].removeprefix('HTTP/1.1 ')}: {body[:300]}"
