"""One request and its answer on a kept connection: what is read as the answer, and what serves again."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.lines import new_line
from support.names import Names
from support.receiver import Line, Receiver, Script, answer, endless, raw, then_close, then_hang, then_reset

from notifier.channels.guard import AddressInfo, Guard, PublicInternet
from notifier.channels.http1 import HttpTransport
from notifier.channels.line import MOST_ANSWERS
from notifier.channels.line import Line as Kept
from notifier.channels.transport import Answer, PreparedRequest
from notifier.errors import DeliveryError, Permanent, Transient, Unknown
from notifier.model import Timings

pytestmark = pytest.mark.both_loops

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = 20_000_000
LOOPBACK = ("127.0.0.0/8",)


@asynccontextmanager
async def opened(*, connections: int = 1) -> AsyncIterator[HttpTransport]:
    """A transport that reaches loopback, over one connection at a time."""
    transport = HttpTransport(Guard(PublicInternet(LOOPBACK)), connections=connections)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


async def post(transport: HttpTransport, url: str, *, size: int = 2, seconds: float = 10) -> Answer:
    """Send a body of so many bytes."""
    return await transport.send(PreparedRequest.of(url, {"X": "y"}, b"x" * size), seconds)


async def said_twice(*scripts: Script) -> tuple[list[tuple[int, bytes]], int]:
    """What two requests got from a receiver that follows the scripts, and over how many connections."""
    async with Receiver(*scripts) as receiver, opened() as transport:
        answers = [await post(transport, receiver.url()) for _ in range(2)]
        return [(got.status, got.body) for got in answers], receiver.connections


def idle(transport: HttpTransport) -> list[Kept]:
    """The connections that wait for their next request."""
    assert transport.connections is not None
    return transport.connections.idle


def free(transport: HttpTransport) -> bool:
    """Whether no request holds a place among the connections."""
    assert transport.connections is not None
    return transport.connections._free == transport._most and not transport.connections.under_way


# What is the answer ---------------------------------------------------------------------------------


async def test_informational_answers_are_not_the_answer() -> None:
    """However many come first, by themselves or with it, the final answer counts; the connection stays."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n"

    async def one_by_one(line: Line) -> None:
        for piece in (b"HTTP/1.1 100 Continue\r\n\r\n", hints, OK):
            await line.write(piece)
            await asyncio.sleep(0)

    got, connections = await said_twice(raw(hints + hints + OK), one_by_one)
    assert got == [(200, b"ok"), (200, b"ok")]
    assert connections == 1


@pytest.mark.parametrize(
    "body",
    [b"0\r\n\r\n", b"1\r\no\r\n1;ext=1\r\nk\r\n0\r\n\r\n", b"2\r\nok\r\n0\r\nTrailer: x\r\n\r\n"],
    ids=["empty", "pieces", "trailer"],
)
async def test_a_chunked_answer_is_read_to_its_end(body: bytes) -> None:
    """Its chunks are put together, and what comes after the last belongs to it: the connection stays."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def in_two(line: Line) -> None:
        await line.write(head + body[:1])
        await asyncio.sleep(0)
        await line.write(body[1:])

    got, connections = await said_twice(in_two, answer(201))
    assert got == [(200, b"ok" if b"k" in body else b""), (201, b"")]
    assert connections == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_ends_with_its_head(status: int) -> None:
    """Whatever length such an answer claims, nothing more is waited for (RFC 9112 §6.3)."""
    head = f"HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n".encode()
    got, connections = await said_twice(raw(head), answer(200))
    assert [status for status, _ in got] == [status, 200]
    assert connections == 1


@pytest.mark.parametrize(
    ("head", "connections"),
    [
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", 2),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n", 2),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 2\r\n\r\n", 2),
    ],
    ids=["1.0", "1.0 kept", "close", "both"],
)
async def test_an_answer_says_whether_its_connection_stays(head: bytes, connections: int) -> None:
    """HTTP/1.0 closes and HTTP/1.1 stays unless it says otherwise, whatever the peer does."""
    got, used = await said_twice(raw(head + b"ok"))
    assert got == [(200, b"ok")] * 2
    assert used == connections


async def test_a_body_that_ends_with_its_connection() -> None:
    """Without a length the body is all that comes; HTTP/1.0 receivers answer so."""
    got, connections = await said_twice(then_close(b"HTTP/1.0 200 OK\r\n\r\nok"))
    assert got == [(200, b"ok")] * 2
    assert connections == 2


@pytest.mark.parametrize("head", [b"H", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 200 OK\r\nX: y\r\n"])
async def test_half_a_head_is_no_answer(head: bytes) -> None:
    """A connection that ends amid the head gives no answer: nobody knows what it would have been."""
    async with Receiver(then_close(head)) as receiver, opened() as transport:
        with pytest.raises(Unknown) as failed:
            await post(transport, receiver.url())
        assert failed.value.code == "connection_lost"
        assert len(receiver.requests) == 1


async def test_a_kept_connection_lost_after_an_informational_answer_is_not_tried_again() -> None:
    """The receiver had begun with the request: sending it twice would be a repeat."""
    async with Receiver(answer(), then_close(b"HTTP/1.1 102 Processing\r\n\r\n")) as receiver:
        async with opened() as transport:
            await post(transport, receiver.url())
            with pytest.raises(Unknown):
                await post(transport, receiver.url())
        assert len(receiver.requests) == 2


async def test_a_peer_that_speaks_first_is_no_http_receiver() -> None:
    """A greeting on a new connection is taken for what it is: the peer's answer, and no HTTP."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp.example ESMTP\r\n")
        while await reader.read(65536):
            pass

    async with serving(greet) as url, opened() as transport:
        with pytest.raises(Transient) as failed:
            await post(transport, url)
    assert failed.value.code == "bad_response"


# What is not the next request's answer --------------------------------------------------------------

FORGED = b"HTTP/1.1 299 Forged\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    "more",
    [FORGED, FORGED * 3, FORGED[:20], b"H", FORGED[:-1], b"junk"],
    ids=["answer", "answers", "half", "letter", "nearly", "junk"],
)
async def test_what_comes_with_an_answer_is_not_the_next_one(more: bytes) -> None:
    """An answer with anything behind it stands, but its connection serves no more."""
    got, connections = await said_twice(raw(OK + more), answer(200, b"own"))
    assert got == [(200, b"ok"), (200, b"own")]
    assert connections == 2


@pytest.mark.parametrize("more", [FORGED, b"junk", FORGED[:20]], ids=["answer", "junk", "half"])
async def test_what_comes_unasked_is_not_the_next_answer(more: bytes) -> None:
    """What arrives on a connection while it is idle ends it."""
    written: list[Line] = []

    async def keep(line: Line) -> None:
        written.append(line)
        await line.write(OK)

    async with Receiver(keep, answer(200, b"own")) as receiver, opened() as transport:
        await post(transport, receiver.url())
        [kept] = idle(transport)
        await written[0].write(more)
        await kept.gone
        assert not idle(transport)
        assert (await post(transport, receiver.url())).body == b"own"
        assert receiver.connections == 2


# Which connections serve again ----------------------------------------------------------------------


async def test_as_many_connections_as_requests_at_once() -> None:
    """However many requests there are, no more connections are made than may be, and none is wasted."""
    async with Receiver(answer(200, b"ok")) as receiver, opened(connections=4) as transport:
        for _ in range(10):
            await asyncio.gather(*[post(transport, receiver.url(f"/{number}")) for number in range(8)])
        assert len(receiver.requests) == 80
        assert receiver.connections == 4
        assert free(transport)


@asynccontextmanager
async def serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """The url of a server that takes in next to nothing by itself, and closes what it was connected to."""

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.append(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await handle(reader, writer)
        writer.transport.abort()

    handling: list[asyncio.Task[None] | None] = []
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server = await asyncio.start_server(handled, sock=listener, limit=1024)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.close()
        for task in handling:
            if task is not None:
                task.cancel()
        await asyncio.gather(*filter(None, handling))


class Cramped(Guard):
    """Makes sockets that hold little of what is to be sent."""

    def open_socket(self, info: AddressInfo) -> socket.socket:
        """A socket with next to no buffer."""
        made = super().open_socket(info)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return made


@pytest.mark.parametrize("size", [900_000, LARGE], ids=["at one go", "piece by piece"])
async def test_an_answer_before_the_whole_request_was_sent(size: int) -> None:
    """It counts, at once; the connection, on which the request still stands, is closed."""
    gone = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await answered.wait()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
        gone.set()

    answered = asyncio.Event()
    transport = HttpTransport(Cramped(PublicInternet(LOOPBACK)), connections=1)
    await transport.open()
    async with serving(refuse) as url:
        got = await post(transport, url, size=size)
        assert (got.status, got.body) == (413, b"no")
        assert free(transport)
        assert not idle(transport)
        answered.set()
        await gone.wait()
    await transport.close()


@pytest.mark.parametrize("size", [2, 900_000, LARGE])
async def test_a_request_of_any_size_arrives_whole_and_leaves_its_connection(size: int) -> None:
    """What is sent piece by piece arrives as what is sent at one go does."""
    async with Receiver(answer(200, b"ok")) as receiver, opened() as transport:
        for _ in range(2):
            assert (await post(transport, receiver.url(), size=size)).body == b"ok"
        assert [len(got.body) for got in receiver.requests] == [size, size]
        assert receiver.connections == 1


async def test_requests_go_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a receiver whose certificate is trusted, small and large ones, over one connection."""
    pem = Path(__file__).parent.parent / "support" / "self_signed.pem"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=pem))
    async with Receiver(answer(200, b"ok"), tls=tls) as receiver, opened() as transport:
        for size in (2, 900_000, LARGE, 2):
            assert (await post(transport, receiver.url(), size=size)).body == b"ok"
        assert [len(got.body) for got in receiver.requests] == [2, 900_000, LARGE, 2]
        assert receiver.connections == 1


# What ends amid it ----------------------------------------------------------------------------------

HALF_BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"


@pytest.mark.parametrize("size", [2, LARGE])
@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nX: ", HALF_BODY], ids=["", "head", "body"])
async def test_cancelling_closes_the_connection_and_frees_its_place(begun: bytes, size: int) -> None:
    """Whatever has come of the answer, the only connection there may be is free for the next request."""
    closed = asyncio.Event()

    async def hang(line: Line) -> None:
        await then_hang(begun)(line)
        closed.set()

    async with Receiver(hang, answer(200, b"ok")) as receiver, opened() as transport:
        sending = asyncio.create_task(post(transport, receiver.url(), size=size))
        await receiver.seen(1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert free(transport)
        await closed.wait()
        assert (await post(transport, receiver.url())).body == b"ok"
        assert receiver.connections == 2


async def test_cancelling_amid_a_request_closes_the_connection() -> None:
    """The rest of a large request is not sent, and nothing of it is left behind."""
    begun = asyncio.Event()

    async def read_a_little(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        begun.set()
        await asyncio.Event().wait()

    transport = HttpTransport(Cramped(PublicInternet(LOOPBACK)), connections=1)
    await transport.open()
    async with serving(read_a_little) as url:
        sending = asyncio.create_task(post(transport, url, size=LARGE))
        await begun.wait()
        before = asyncio.all_tasks()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.sleep(0)
        assert free(transport)
        assert len(asyncio.all_tasks()) == len(before) - 1
    await transport.close()


@pytest.mark.parametrize(("begun", "status"), [(b"", None), (HALF_BODY, 200)], ids=["head", "body"])
async def test_the_deadline_frees_the_place(begun: bytes, status: int | None) -> None:
    """A request that ran out of time leaves the only connection there may be to the next one."""
    async with Receiver(then_hang(begun), answer()) as receiver, opened() as transport:
        if status is None:
            with pytest.raises(Unknown):
                await post(transport, receiver.url(), seconds=0.1)
        else:
            assert (await post(transport, receiver.url(), seconds=0.1)).status == status
        assert free(transport)
        assert (await post(transport, receiver.url())).status == 200


# What is never sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\r\nHost: b", "a\nb", "a\rb", "a\0b", "a\tb", "a\x7f", "ü", "\ud800"])
async def test_no_header_can_hold_another(text: str) -> None:
    """A header's name or value that is more than plain text is an error, and nothing is connected to."""
    async with Receiver() as receiver, opened() as transport:
        for headers in ({"X": text}, {text: "x"}):
            with pytest.raises(ValueError, match="printable"):
                await transport.send(PreparedRequest.of(receiver.url(), headers, b""), 5)
        assert receiver.connections == 0
        assert free(transport)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/a\nb", "/a\0", "/ü", "/a?b=\r\n"])
async def test_no_url_can_hold_a_header(path: str) -> None:
    """A url that a request line can't hold is refused for good, and nothing is connected to."""
    async with Receiver() as receiver, opened() as transport:
        with pytest.raises(Permanent) as failed:
            await post(transport, receiver.url(path))
        assert failed.value.code == "invalid_destination"
        assert receiver.connections == 0


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "ws://127.0.0.1/", "unix:///tmp/x", "/only/a/path"])
async def test_only_http_is_spoken(url: str) -> None:
    """Another scheme, or none, is refused for good."""
    async with opened() as transport:
        with pytest.raises(Permanent) as failed:
            await post(transport, url)
    assert failed.value.code == "invalid_destination"


# Where the time and the bytes go --------------------------------------------------------------------

DEADLINE = 0.2
"""Seconds that what hangs is given."""


async def timed(
    url: str,
    *,
    resolver: Names | None = None,
    seconds: float = 10,
    size: int = 2,
    kind: type[Guard] = Guard,
) -> Timings:
    """The timings of one request on a new connection, whether or not it got an answer."""
    guard = kind(PublicInternet(LOOPBACK))
    transport = HttpTransport(guard, connections=1, resolver=resolver)
    await transport.open()
    try:
        return (await post(transport, url, size=size, seconds=seconds)).timings
    except DeliveryError as error:
        return error.timings or Timings()
    finally:
        await transport.close()


def held_up(timings: Timings) -> str:
    """The part that took as good as all the time there was; no other may have taken half as much."""
    parts = {name: getattr(timings, name) for name in ("dns", "connect", "tls", "wait", "body")}
    longest = max(parts, key=lambda name: parts[name])
    assert sum(parts.values()) < 20 * DEADLINE
    assert parts[longest] > 0.9 * DEADLINE
    assert sum(parts.values()) - parts[longest] < parts[longest] / 2
    return longest


async def test_a_look_up_that_hangs_is_told_as_that() -> None:
    """A name that nobody answers for takes the time of the look-up."""
    names = Names()
    names.hangs.add("slow.test")
    assert held_up(await timed("http://slow.test/", resolver=names, seconds=DEADLINE)) == "dns"


async def test_a_connection_that_never_comes_about_is_told_as_that() -> None:
    """A host that lets packets vanish takes the time of connecting."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):
            url = f"http://127.0.0.1:{address[1]}/"
            assert held_up(await timed(url, seconds=DEADLINE)) == "connect"


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Take all that comes, and say nothing."""
    while await reader.read(65536):
        pass


async def test_a_handshake_that_hangs_is_told_as_that() -> None:
    """A host that takes the connection and says nothing takes the time of TLS, of https alone."""
    async with serving(silence) as url:
        assert held_up(await timed(url.replace("http:", "https:"), seconds=DEADLINE)) == "tls"
        assert held_up(await timed(url, seconds=DEADLINE)) == "wait"


async def test_an_answer_that_hangs_is_told_as_that() -> None:
    """The time until the headers is waiting, early hints or not; what comes after is the body."""
    async with Receiver(then_hang(b"HTTP/1.1 103 Early Hints\r\n\r\n")) as receiver:
        assert held_up(await timed(receiver.url(), seconds=DEADLINE)) == "wait"
    async with Receiver(then_hang(HALF_BODY)) as receiver:
        timings = await timed(receiver.url(), seconds=DEADLINE)
        assert held_up(timings) == "body"
        assert timings.received == len(b"half")


async def test_a_kept_connection_costs_no_connecting() -> None:
    """The first exchange has all its parts, the next on its connection only waiting and the body."""
    names = Names(named_test=[["127.0.0.1"]])
    transport = HttpTransport(Guard(PublicInternet(LOOPBACK)), connections=1, resolver=names)
    await transport.open()
    async with Receiver(answer(200, b"thanks")) as receiver:
        url = f"http://named.test:{receiver.port}/"
        first, second = [(await post(transport, url)).timings for _ in range(2)]
        sizes = [got.size for got in receiver.requests]
    await transport.close()
    assert min(first.dns, first.connect, first.wait, second.wait) > 0
    assert first.tls == second.dns == second.connect == second.tls == 0
    assert [first.sent, second.sent] == sizes
    assert first.received == second.received == len(b"thanks")


async def test_what_is_sent_again_goes_over_a_new_connection() -> None:
    """A receiver that was started anew has lost all that were kept: one attempt doesn't meet two of them."""
    connections, both = 0, asyncio.Barrier(2)

    async def serve_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"xx")
        if connections <= 2:
            await both.wait()
        writer.write(OK)
        await reader.read(1)  # and is closed

    async with serving(serve_once) as url, opened(connections=2) as transport:
        await asyncio.gather(post(transport, url), post(transport, url))
        assert len(idle(transport)) == 2
        assert (await post(transport, url)).status == 200
        assert connections == 3


async def test_what_was_sent_twice_counts_twice() -> None:
    """Of a request that was sent again on another connection, all the time and bytes are told."""
    async with Receiver(answer(), then_close(b""), answer()) as receiver, opened() as transport:
        await post(transport, receiver.url())
        timings = (await post(transport, receiver.url())).timings
        _, lost, again = receiver.requests
    assert timings.sent == lost.size + again.size
    assert timings.connect > 0


@pytest.mark.parametrize("size", [900_000, LARGE], ids=["at one go", "piece by piece"])
async def test_a_request_counts_as_far_as_it_got(size: int) -> None:
    """What the receiver never took was not sent."""

    async def read_a_little(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readexactly(1000)
        await asyncio.Event().wait()

    async with serving(read_a_little) as url:
        assert 1000 <= (await timed(url, size=size, seconds=DEADLINE, kind=Cramped)).sent < 500_000
    async with Receiver() as receiver:
        timings = await timed(receiver.url(), size=size)
        assert timings.sent == receiver.requests[0].size


async def test_a_refused_connection_is_timed_and_nothing_was_sent() -> None:
    """Failed exchanges tell how far they got."""
    async with Receiver() as receiver:
        url = receiver.url()
    timings = await timed(url)
    assert timings.connect > 0
    assert (timings.tls, timings.wait, timings.sent) == (0, 0, 0)


# Hostile receivers ----------------------------------------------------------------------------------

FLAT = 2_000_000
"""Bytes that an exchange may take in memory, its receiver's included, whatever comes."""

HEAD = b"HTTP/1.1 200 OK\r\n"
PIECE = b"z" * 65536
CHUNK = b"10000\r\n" + PIECE + b"\r\n"
PACKED = gzip.compress(bytes(30_000_000))


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (answer(200, PACKED, {"Content-Encoding": "gzip"}), None),
        (answer(200, PACKED, {"Content-Encoding": "deflate"}), None),
        (answer(200, PACKED, {"Transfer-Encoding": "gzip"}), "bad_response"),
        (endless(HEAD + b"\r\n", PIECE), None),
        (endless(HEAD + b"Content-Length: 99999999999\r\n\r\n", PIECE), None),
        (endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", CHUNK), None),
        (endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1;" + PIECE), "any"),
        (endless(HEAD + b"Content-Length: 9999\r\n\r\n", b"d", pause=0.02), None),
        (endless(HEAD + b"X: ", PIECE), "bad_response"),
        (endless(HEAD, b"X: y\r\n" * 1000), "bad_response"),
        (endless(b"", b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 500), "bad_response"),
        (endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", pause=0.001), "bad_response"),
        (endless(b"", b"\r\n" * 5000), "bad_response"),
        (endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", PIECE), None),
        (endless(b"", b"h", pause=0.02), "any"),
        (answer(200, b"ok", {f"X-{number}": "v" * 1000 for number in range(60)}), None),
        (then_reset(HALF_BODY), None),
        (then_reset(b"HTTP/1.1 200 OK\r\nX: "), "connection_lost"),
        (then_reset(b""), "connection_lost"),
        (then_hang(b""), "timeout"),
    ],
    ids=[
        *("gzip", "deflate", "gzip in transfer", "endless", "endless by length", "endless chunks"),
        *("endless chunk head", "slow body", "endless header", "endless headers", "endless hints"),
        *(
            "hints one by one",
            "endless blank lines",
            "endless chunk extension",
            "slow head",
            "60 KB of headers",
            "reset in body",
            "reset in head",
            "reset",
            "silence",
        ),
    ],
)
async def test_whatever_comes_time_is_bounded_and_memory_flat(script: Script, code: str | None) -> None:
    """No answer takes longer than the deadline, nor more memory than a few buffers."""
    async with Receiver(script) as receiver, opened() as transport:
        tracemalloc.start()
        began = time.monotonic()
        try:
            assert (await post(transport, receiver.url(), seconds=0.5)).status == 200
            assert code in {None, "any"}
        except DeliveryError as error:
            assert code in {error.code, "any"}  # noqa: PT017 - an answer is as good
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert time.monotonic() - began < 2
        assert peak < FLAT
        assert free(transport)


@pytest.mark.parametrize("first", [b"", OK], ids=["before the answer", "behind it"])
async def test_a_flood_of_answers_is_not_read_to_its_end(first: bytes) -> None:
    """Each costs far more to read than to send: past a hundred, or past the answer, no more are looked at."""
    line, _ = new_line()
    answered = line.ask(b"")
    line.data_received(first + b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000)
    assert line._begun == (2 if first else MOST_ANSWERS + 1)
    assert (answered.exception() is None) == bool(first)
