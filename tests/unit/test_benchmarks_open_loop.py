"""The benchmarks' open load: each event's time counts from when it was meant to be posted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks import events
from benchmarks.open_loop import ArrivalSink, OpenLoad
from benchmarks.wire import WireError
from notifier.bench.wire import Line

HOST = "127.0.0.1"


class Taking(Line):
    """A connection that tells the server of each request."""

    def __init__(self, server: "Server") -> None:
        super().__init__()
        self.server = server

    def message(self, _message: bytes) -> None:
        """Wait to be answered."""
        self.server.waiting.put_nowait(self)


class Server:
    """Takes requests on loopback, and answers only when it is told to."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.waiting: asyncio.Queue[Taking] = asyncio.Queue()

    async def answers(self, count: int) -> None:
        """Answer so many requests, each once it is here."""
        for _ in range(count):
            (await self.waiting.get()).transport.write(self.answer)


@asynccontextmanager
async def loaded(answer: bytes) -> AsyncIterator[tuple[Server, OpenLoad]]:
    """A server, and a load on it over a single connection."""
    server = Server(answer)
    listening = await asyncio.get_running_loop().create_server(lambda: Taking(server), HOST, 0)
    async with listening:
        load = OpenLoad(HOST, listening.sockets[0].getsockname()[1], path="/", connections=1)
        await load.open()
        yield server, load
        await load.close()


def test_an_event_keeps_its_size_and_tells_its_number() -> None:
    """A numbered event is as long as any other, and what is rendered of it still has the number."""
    assert len(events.numbered(42)) == events.SIZE
    assert events.number_of(events.numbered(42)) == 42
    assert events.number_of(b'{"order": "ord_0000000042"}') == 42


async def test_what_waits_for_a_connection_counts_from_when_it_was_meant_to_go() -> None:
    """With one connection that is answered late, the second event's time holds the first one's wait."""
    async with loaded(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n") as (server, load):
        posting = asyncio.create_task(load.post(2, rate=1000.0))
        await server.answers(2)
        await posting
    assert load.meant[1] - load.meant[0] == pytest.approx(0.001)
    assert load.answered[1] - load.meant[1] > load.answered[0] - load.meant[1]


async def test_an_answer_that_is_no_acceptance_ends_it() -> None:
    """A load that is refused is no measurement."""
    async with loaded(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n") as (server, load):
        posting = asyncio.create_task(load.post(1, rate=1000.0))
        await server.answers(1)
        with pytest.raises(WireError, match="503"):
            await posting


async def test_a_sink_notes_the_first_arrival_of_each() -> None:
    """An event that arrives twice arrived when it came first."""
    sink = ArrivalSink()
    sink.took(events.numbered(7))
    first = sink.arrived[7]
    sink.took(events.numbered(7))
    assert (sink.arrived, sink.count) == ({7: first}, 2)
