"""The quick way in, over a transport that the test plays: every cut, every order, every way to go away."""

import asyncio
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from support import virtual_time
from support.builders import NOW, event_record

from notifier.config import Config, Server, Size
from notifier.errors import DrainingError, IdempotencyConflictError, StoreUnavailableError
from notifier.ingest import Incoming
from notifier.service import Notifier
from notifier.store.base import Added
from notifier.web.heads import MAX_HEAD
from notifier.web.wire import Connection, Wire

MAX_BODY = 100_000
KEEP_ALIVE = 3600.0
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(number: int = 1, *lines: str, body: bytes | None = None) -> bytes:
    """A plain post of one event, which is known by its number."""
    body = b'{"type":"order.paid","data":{"n":%d}}' % number if body is None else body
    head = ["POST /v1/events HTTP/1.1", "Host: localhost", "Content-Type: application/json", *lines]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


class Intake:
    """Takes events, and stores them when the test says so; `refusal` is raised instead."""

    def __init__(self) -> None:
        self.taken: list[Sequence[Incoming]] = []
        self.storing: list[asyncio.Future[list[Added]]] = []
        self.refusal: Exception | None = None

    def take(self, incoming: Sequence[Incoming]) -> asyncio.Future[list[Added]]:
        """Do as `notifier.intake.Intake` does."""
        if self.refusal is not None:
            raise self.refusal
        self.taken.append(incoming)
        self.storing.append(asyncio.get_running_loop().create_future())
        return self.storing[-1]

    @property
    def numbers(self) -> list[int]:
        """The events that were taken, one a request."""
        return [cast("int", incoming[0].event.data["n"]) for incoming in self.taken]

    async def stored(self, error: Exception | None = None) -> None:
        """Say of the oldest that it is stored, or what went wrong."""
        storing, taken = self.storing.pop(0), self.taken[-1 - len(self.storing)]
        if error is None:
            storing.set_result(
                [Added(event_record(type=each.event.type), (), duplicate=False) for each in taken]
            )
        else:
            storing.set_exception(error)
        await turn()

    async def stored_all(self) -> None:
        """Say that they are stored until no more come."""
        while self.storing:
            await self.stored()


class Behind(asyncio.Protocol):
    """In aiohttp's place: what is handed over, and what comes after."""

    def __init__(self) -> None:
        self.received = b""
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note of the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take note of what comes."""
        assert self.transport is not None
        self.received += data


class Line(asyncio.Transport):
    """A client's connection, as the wire sees it."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.ended: str | None = None
        self.protocol: asyncio.BaseProtocol = wire()
        self.protocol.connection_made(self)

    def send(self, data: bytes) -> None:
        """Send bytes as the client."""
        assert self.reading
        assert isinstance(self.protocol, asyncio.Protocol)
        self.protocol.data_received(data)

    def leave(self) -> None:
        """Go away as the client."""
        self.ended = "lost"
        self.protocol.connection_lost(None)

    @property
    def behind(self) -> bytes | None:
        """What aiohttp was given; None while the connection is the wire's."""
        return self.protocol.received if isinstance(self.protocol, Behind) else None

    @property
    def answers(self) -> list[tuple[int, Any]]:
        """Status and document of every answer so far."""
        return list(self._answers(self.written))

    def _answers(self, text: bytes) -> Iterator[tuple[int, Any]]:
        while text:
            head, _, text = text.partition(b"\r\n\r\n")
            status_line, *lines = head.decode().split("\r\n")
            length = int(dict(line.split(": ") for line in lines)["Content-Length"])
            yield int(status_line.split()[1]), json.loads(text[:length])
            text = text[length:]

    # asyncio's side ------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        """Take what is answered."""
        self.written += data

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self.ended is not None

    def close(self) -> None:
        """Be closed."""
        self.ended = "closed"
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        """Be closed at once."""
        self.ended = "aborted"
        asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        """Read nothing."""
        self.reading = False

    def resume_reading(self) -> None:
        """Read on."""
        self.reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Be another's."""
        self.protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Play the socket."""
        return SimpleNamespace(setsockopt=lambda *_: None) if name == "socket" else default


async def turn() -> None:
    """Let the loop call what is due."""
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.fixture
def intake() -> Intake:
    """What takes the events."""
    return Intake()


@pytest.fixture
async def wire(intake: Intake) -> Wire:
    """A wire before a stand-in for aiohttp."""
    return wired(intake)


def wired(intake: Intake) -> Wire:
    """A wire on the running loop."""
    config = Config(server=Server(max_body=Size(MAX_BODY)))
    notifier = SimpleNamespace(config=config, channels={"webhook": None}, intake=intake, clock=lambda: NOW)
    server = cast("web.Server", Behind)
    return Wire(cast("Notifier", notifier), server, keep_alive=KEEP_ALIVE)


# In pieces and in rows -------------------------------------------------------------------------------


async def test_an_answer_is_written_when_the_event_is_stored(wire: Wire, intake: Intake) -> None:
    """Not before; and with all the headers that aiohttp gives."""
    line = Line(wire)
    line.send(post())
    await turn()
    assert line.written == b""
    await intake.stored()
    head, _, body = line.written.partition(b"\r\n\r\n")
    assert head.decode().split("\r\n")[:3] == [
        "HTTP/1.1 202 Accepted",
        "Content-Type: application/json",
        "X-Content-Type-Options: nosniff",
    ]
    assert (
        f"\r\nContent-Length: {len(body)}\r\nDate: Fri, 15 Jan 2027 08:00:00 GMT\r\nServer: " in head.decode()
    )
    assert line.behind is None


async def test_requests_may_be_cut_anywhere(wire: Wire, intake: Intake) -> None:
    """Two in a row, in two pieces cut at any byte: both are taken, in order, and nothing is handed over."""
    text = post(1) + post(2, "Idempotency-Key: k")
    for cut in range(1, len(text)):
        line = Line(wire)
        intake.taken.clear()
        line.send(text[:cut])
        line.send(text[cut:])
        await intake.stored_all()
        assert (intake.numbers, [status for status, _ in line.answers]) == ([1, 2], [202, 202])
        assert (line.behind, line.reading) == (None, True)


async def test_requests_may_come_byte_by_byte(wire: Wire, intake: Intake) -> None:
    """However slow a client is, it is served as any other."""
    line = Line(wire)
    for byte in post(1) + post(2):
        await intake.stored_all()
        line.send(bytes([byte]))
    await intake.stored_all()
    assert (intake.numbers, len(line.answers), line.behind) == ([1, 2], 2, None)


async def test_a_request_waits_for_the_answer_of_that_before_it(wire: Wire, intake: Intake) -> None:
    """One at a time from each connection; meanwhile nothing more is read than came with it."""
    line = Line(wire)
    line.send(post(1) + post(2))
    line.send(post(3))
    assert (intake.numbers, line.reading) == ([1], False)
    await intake.stored()
    assert (intake.numbers, len(line.answers), line.reading) == ([1, 2], 1, False)
    await intake.stored()
    await intake.stored()
    assert (intake.numbers, len(line.answers), line.reading) == ([1, 2, 3], 3, True)


async def test_a_long_row_of_refused_requests_is_answered(wire: Wire) -> None:
    """As many as come at once, and each with its own problem."""
    line = Line(wire)
    line.send(post(body=b"[]") * 3000)
    assert [status for status, _ in line.answers] == [422] * 3000


async def test_a_body_may_come_in_many_pieces(wire: Wire, intake: Intake) -> None:
    """As large as is allowed; a larger one is aiohttp's from its head on."""
    line, filler = Line(wire), b"x" * (MAX_BODY - 30)
    text = post(body=b'{"type":"t","data":{"n":"%b"}}' % filler)
    for start in range(0, len(text), 999):
        line.send(text[start : start + 999])
    assert intake.taken[0][0].event.data == {"n": filler.decode()}
    larger = post(body=b" " * (MAX_BODY + 1))
    line = Line(wire)
    line.send(larger[:999])
    assert line.behind == larger[:999]


async def test_a_body_in_crumbs_takes_no_more_memory_than_it_is_large(wire: Wire) -> None:
    """Who sends it two bytes at a time can't make of each some fifty."""
    line, text = Line(wire), post(body=b" " * MAX_BODY)
    crumbs = [text[start : start + 2] for start in range(0, len(text) - 2, 2)]
    tracemalloc.start()
    try:
        for each in crumbs:
            line.send(bytes(bytearray(each)))
        assert tracemalloc.get_traced_memory()[0] < 2 * MAX_BODY
    finally:
        tracemalloc.stop()


async def test_an_array_is_answered_with_an_array(wire: Wire, intake: Intake) -> None:
    """Of as many."""
    line = Line(wire)
    line.send(post(body=b'[{"type":"a","data":{}},{"type":"b","data":{}}]'))
    await intake.stored()
    ((status, told),) = line.answers
    assert (status, [one["type"] for one in told]) == (202, ["a", "b"])


# Whatever isn't plain --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        GET,
        post(1, "Expect: 100-continue"),
        post(1, "Transfer-Encoding: chunked"),
        post(1, "Connection: close"),
        post(1, "Host: localhost"),
        post(1, "X: " + "x" * MAX_HEAD),
        post(1).replace(b"localhost", b"evil.example"),
        b"G",
        b"\x16\x03\x01",
        b"\r\n" + post(1),
        b"POST /v1/events HTTP/1.1\r\nno colon\r\nHost",
    ],
)
async def test_all_else_is_handed_over_with_all_its_bytes(wire: Wire, intake: Intake, text: bytes) -> None:
    """By the first byte or the last, at the start of a connection or after other requests; and for good."""
    line = Line(wire)
    line.send(text)
    assert line.behind == text
    line.send(post(2))
    assert line.behind == text + post(2)
    later = Line(wire)
    later.send(post(3) + text)
    later.send(b"more")
    assert isinstance(later.protocol, Connection)
    await intake.stored()
    assert (later.behind, later.reading) == (text + b"more", True)
    assert (intake.numbers, len(later.answers), wire.connections) == ([3], 1, set())


async def test_the_start_of_a_request_is_waited_with(wire: Wire) -> None:
    """Until it is a head, or too long for one."""
    line = Line(wire)
    line.send(post()[:60])
    assert isinstance(line.protocol, Connection)
    line.send(b"x" * MAX_HEAD)
    assert line.behind == post()[:60] + b"x" * MAX_HEAD


# What goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (post(body=b"{}"), "/type"),
        (post(body=b""), ""),
        (post(body=b'[{"type":"t","data":{}},{"type":"t"}]'), "/1/data"),
        (post(1, "Idempotency-Key:"), ""),
    ],
)
async def test_what_is_not_understood_is_refused(
    wire: Wire, intake: Intake, text: bytes, pointer: str
) -> None:
    """With a pointer to the fault; the connection goes on."""
    line = Line(wire)
    line.send(text)
    ((status, problem),) = line.answers
    assert (status, problem["errors"][0]["pointer"]) == (422, pointer)
    line.send(post())
    await intake.stored()
    assert [status for status, _ in line.answers] == [422, 202]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (IdempotencyConflictError("k", 0), 422, "urn:notifier:problem:idempotency-conflict"),
        (StoreUnavailableError("disk full"), 503, "urn:notifier:problem:store-unavailable"),
        (RuntimeError("hunter2"), 500, "about:blank"),
    ],
)
async def test_what_fails_later_is_told(
    wire: Wire, intake: Intake, error: Exception, status: int, kind: str
) -> None:
    """As a problem document, and the connection goes on."""
    line = Line(wire)
    line.send(post(1) + post(2))
    await intake.stored(error)
    await intake.stored()
    (first, problem), (second, _) = line.answers
    assert (first, problem["type"], second) == (status, kind, 202)
    assert "hunter2" not in json.dumps(problem)
    assert (b"Retry-After: " in line.written) == (status == 503)


async def test_draining_refuses(wire: Wire, intake: Intake) -> None:
    """With when to come again."""
    intake.refusal = DrainingError("stopping")
    line = Line(wire)
    line.send(post())
    assert [status for status, _ in line.answers] == [503]
    assert b"Retry-After: " in line.written


async def test_whoever_goes_away_is_told_nothing(wire: Wire, intake: Intake) -> None:
    """What is being stored is stored; what had not come in full, or waits its turn, is nothing."""
    line = Line(wire)
    line.send(post(1) + post(2) + post(3)[:-5])
    line.leave()
    await intake.stored()
    cut_off = Line(wire)
    cut_off.send(post(4)[:-5])
    cut_off.leave()
    assert (intake.numbers, line.written, cut_off.written, wire.connections) == ([1], b"", b"", set())


async def test_a_client_that_does_not_read_is_not_answered_on(wire: Wire, intake: Intake) -> None:
    """No request is taken while answers pile up, and nothing read; it goes on where it was."""
    line = Line(wire)
    connection = cast("Connection", line.protocol)
    line.send(post(1) + post(2))
    connection.pause_writing()
    await intake.stored()
    line.send(post(3))
    assert (intake.numbers, line.reading) == ([1], False)
    connection.resume_writing()
    assert intake.numbers == [1, 2]
    connection.pause_writing()
    connection.resume_writing()
    assert intake.numbers == [1, 2]
    await intake.stored_all()
    assert (intake.numbers, len(line.answers), line.reading) == ([1, 2, 3], 3, True)


# Ends ------------------------------------------------------------------------------------------------


async def test_closing_answers_what_is_under_way(wire: Wire, intake: Intake) -> None:
    """Idle connections, and those with half a request, close at once; the rest once they are answered."""
    idle, half, busy = Line(wire), Line(wire), Line(wire)
    half.send(post()[:-1])
    busy.send(post(1) + post(2))
    closing = asyncio.create_task(wire.close(60))
    await turn()
    assert [idle.ended, half.ended, busy.ended] == ["closed", "closed", None]
    assert Line(wire).ended == "closed"
    await intake.stored()
    await closing
    assert (busy.ended, len(busy.answers), intake.numbers) == ("closed", 1, [1])


def test_closing_waits_so_long_and_no_longer() -> None:
    """What isn't answered by then is cut off."""

    async def work() -> None:
        loop, line = asyncio.get_running_loop(), None
        wire = wired(Intake())
        line = Line(wire)
        line.send(post())
        closing = asyncio.create_task(wire.close(5))
        await turn()
        assert (line.ended, cast("virtual_time.VirtualLoop", loop).next_timer) == (None, 5)
        cast("virtual_time.VirtualLoop", loop).now = 5.0
        await closing
        assert line.ended == "aborted"

    virtual_time.run(work())


def test_silent_connections_are_closed() -> None:
    """Those that asked for nothing for so long, or never end what they began; not those that wait for us."""

    async def work() -> None:
        loop = cast("virtual_time.VirtualLoop", asyncio.get_running_loop())

        async def until(moment: float) -> None:
            while (timer := loop.next_timer) is not None and timer <= moment:
                loop.now = timer
                await turn()
            loop.now = moment

        intake = Intake()
        wire = wired(intake)
        idle, half, busy, answered = Line(wire), Line(wire), Line(wire), Line(wire)
        busy.send(post(1))
        await until(KEEP_ALIVE / 2)
        half.send(post()[:-1])
        answered.send(post(2))
        await until(KEEP_ALIVE - 1)
        assert {each.ended for each in (idle, half, busy, answered)} == {None}
        await intake.stored_all()
        await until(KEEP_ALIVE + 60)
        assert [idle.ended, half.ended, busy.ended, answered.ended] == ["aborted", None, None, None]
        await until(KEEP_ALIVE * 2 - 60)
        assert [half.ended, busy.ended, answered.ended] == ["aborted", None, None]
        await wire.close(0)

    virtual_time.run(work())
