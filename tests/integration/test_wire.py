"""The quick way in, over real sockets: it answers as aiohttp alone does, and ends as it should."""

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.api import KEYS, Api, serving

from notifier.config import Auth
from notifier.store.base import Added, Submission

MAX_BODY = 10_000
LINE = "POST /v1/events HTTP/1.1"
HOST = "Host: localhost"
JSON = "Content-Type: application/json"
ORDER = b'{"type":"order.paid","data":{"total":12}}'
LAST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
WITHIN = 20.0
"""Seconds for an answer, which always comes."""

briefly = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class Both(NamedTuple):
    """Two notifiers alike: one is served as the program does it, the other by aiohttp alone."""

    served: Api
    embedded: Api
    loop: asyncio.AbstractEventLoop

    @property
    def ports(self) -> list[int]:
        """Where they listen."""
        return [port for each in self[:2] if (port := each.client.port) is not None]


@contextmanager
def running(directory: Path, auth: Auth) -> Iterator[Both]:
    """Serve both from a thread of their own, as Hypothesis calls from this one."""
    begun: Future[Both] = Future()
    over: list[Callable[[], object]] = []

    async def serve() -> None:
        end, loop = asyncio.Event(), asyncio.get_running_loop()
        over.append(partial(loop.call_soon_threadsafe, end.set))
        async with AsyncExitStack() as stack:
            served, embedded = [
                await stack.enter_async_context(
                    serving(directory / name, auth=auth, max_body=MAX_BODY, embedded=name == "embedded")
                )
                for name in ("served", "embedded")
            ]
            begun.set_result(Both(served, embedded, loop))
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield begun.result(timeout=WITHIN)
    finally:
        over[0]()
        thread.join(timeout=WITHIN)


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """A pair that asks for no keys."""
    with running(tmp_path_factory.mktemp("keyless"), Auth()) as both:
        yield both


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """A pair that asks for keys."""
    with running(tmp_path_factory.mktemp("keyed"), KEYS) as both:
        yield both


# The same answers ------------------------------------------------------------------------------------


def written(lines: Sequence[str], body: bytes = b"") -> bytes:
    """A request of these lines."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def post(body: bytes, *lines: str) -> bytes:
    """A plain post, but for its further lines."""
    return written([LINE, HOST, JSON, *lines, f"Content-Length: {len(body)}"], body)


def exchange(port: int, text: bytes) -> list[bytes]:
    """Send a request, then another; return all that is answered, with ids and dates made alike."""
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN) as client:
        client.sendall(text)
        answers = client.makefile("rb")
        told = list(until_final(answers.readline, answers.read))
        if told and b" 413 " not in told[-1]:  # the rest of what's too large is yet to come
            try:
                client.sendall(LAST)
                told.append(answers.read())
            except ConnectionError:
                told.append(b"")
    return [alike(each) for each in told]


def until_final(readline: Callable[[], bytes], read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Read one answer, and the interim ones before it."""
    while status := readline():
        head = [status]
        while (line := readline()) not in {b"\r\n", b""}:
            head.append(line)
        length = next((int(line[15:]) for line in head if line.startswith(b"Content-Length:")), 0)
        yield b"".join(head) + read(length)
        if not status.startswith(b"HTTP/1.1 1"):
            return


def alike(answer: bytes) -> bytes:
    """Put one name in place of what differs by its nature."""
    answer = re.sub(rb"\b(evt|job)_\w+", rb"\1_ID", answer)
    return re.sub(rb"\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n", b"\r\nDate: NOW\r\n", answer)


def hold(both: Both, text: bytes) -> list[bytes]:
    """Hold the two to the same answers; return them."""
    told = [exchange(port, text) for port in both.ports]
    assert told[0] == told[1]
    assert told[0]
    return told[0]


BODIES = (
    ORDER,
    b" " + ORDER + b"\r\n",
    b"[" + ORDER + b"," + ORDER + b"]",
    b'{"type":"order.paid","data":{"total":12},"idempotency_key":"inside"}',
    b'{"type":"order.paid","data":{"total":13},"idempotency_key":"inside"}',
    b'[{"type":"order.paid","data":{}},{"type":"order.paid","data":{"total":14},"idempotency_key":"inside"}]',
    b'{"type":"notifier.test","data":{}}',
    b'{"type":"user.signup","data":{}}',
    b'{"type":"t","data":{},"deliver":[{"channel":"pigeon","to":"x"}]}',
    b'{"type":"t","data":{},"type":"u"}',
    b'{"type":"t"}',
    b"[]",
    b"",
    b"\xff",
    b'{"type":"t","data":{"x":"' + b"x" * 5000 + b'"}}',
    b'"' + b"x" * MAX_BODY + b'"',
)
EXTRA = (
    *("Idempotency-Key: a", "idempotency-key: b", 'Idempotency-Key: "a"', "Idempotency-Key: inside"),
    *("Idempotency-Key:", "IDEMPOTENCY-KEY: c", "Idempotency-Key: " + "k" * 513, "Idempotency-Key: caf\xe9"),
    *(
        "User-Agent: test",
        "Accept-Encoding: gzip, deflate, br",
        "Connection: keep-alive",
        "Connection: close",
    ),
    *("Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Content-Encoding: gzip"),
    *(
        "Content-Encoding: identity",
        "Expect: 100-continue",
        "Expect: more",
        "Upgrade: h2c",
        "Host: localhost",
    ),
    *("Connection: Upgrade\r\nUpgrade: websocket", "Content-Length: 5", "Content-Type: application/json"),
    *("ce-id: 1", "ce-specversion: 1.0", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"),
    *(
        "Authorization: Bearer ingest-key",
        "Authorization: Bearer nobody",
        "X: caf\xe9",
        "X: a\r\n b",
        "X: a\nb",
    ),
    *("X: a\x00b", "no colon", "X : y", "X: " + "x" * 5000, "X: " + "x" * 9000, " X: y"),
)
REQUEST_LINES = (
    *("POST /v1/events?x=1 HTTP/1.1", "POST /v1/events HTTP/1.0", "POST /v1/events/ HTTP/1.1"),
    *("POST http://localhost/v1/events HTTP/1.1", "PUT /v1/events HTTP/1.1", "post /v1/events HTTP/1.1"),
    *(
        "POST /v1/events HTTP/2.0",
        "GET /v1/events HTTP/1.1",
        "\r\nPOST /v1/events HTTP/1.1",
        "POST /v1/events",
    ),
)
HOSTS = ("host: 127.0.0.1:8080", "Host: evil.example", "Host:", "X-Host: localhost")
KINDS = (
    *("content-type: Application/JSON", "Content-Type: application/json; charset=UTF-8", "X: no type"),
    *(
        "Content-Type: application/json; charset=latin-1",
        "Content-Type: text/plain",
        "Content-Type: nonsense",
    ),
    *("Content-Type: application/cloudevents+json", "Content-Type: application/cloudevents-batch+json"),
)
LENGTHS = ("content-length: {}", "Content-Length: 0{}", "Content-Length: +{}", "Content-Length:{}", "X: {}")


def mostly(usual: str, *others: str) -> st.SearchStrategy[str]:
    """The usual, one time in two."""
    return st.one_of(st.just(usual), st.sampled_from(others))


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is all there, with any of its parts odd."""
    body = draw(st.sampled_from(BODIES))
    lines = [
        draw(mostly(HOST, *HOSTS)),
        draw(mostly(JSON, *KINDS)),
        draw(mostly("Content-Length: {}", *LENGTHS)).format(len(body)),
        *draw(st.lists(st.sampled_from(EXTRA), max_size=3)),
    ]
    return written([draw(mostly(LINE, *REQUEST_LINES)), *draw(st.permutations(lines))], body)


@pytest.mark.parametrize("extra", [(), *((line,) for line in EXTRA)], ids=lambda lines: repr(lines)[:40])
@pytest.mark.parametrize("body", BODIES[:3], ids=["one", "spaced", "array"])
def test_one_odd_line_is_answered_alike(keyless: Both, extra: tuple[str, ...], body: bytes) -> None:
    """Each line beside an otherwise plain post."""
    hold(keyless, post(body, *extra))


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body)[:40])
@pytest.mark.parametrize("extra", [(), ("Idempotency-Key: inside",), ("Idempotency-Key: other",)])
def test_every_body_is_answered_alike(keyless: Both, body: bytes, extra: tuple[str, ...]) -> None:
    """Good, at fault, in conflict or too large, with a key beside it or not, and the second time too."""
    hold(keyless, post(body, *extra))
    hold(keyless, post(body, *extra))


@given(requests())
@example(post(ORDER))
@briefly
def test_odd_requests_are_answered_alike(keyless: Both, text: bytes) -> None:
    """Whatever is odd about them, and however much."""
    hold(keyless, text)


@given(requests())
@example(post(ORDER, "Authorization: Bearer ingest-key"))
@briefly
def test_odd_requests_are_answered_alike_where_keys_are_asked_for(keyed: Both, text: bytes) -> None:
    """The gate is the same for both."""
    hold(keyed, text)


@pytest.mark.parametrize("key", ["ingest-key", "admin-key", "ingest-ke", "ingest-key2", " ingest-key ", ""])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Basic"])
def test_keys_open_alike(keyed: Both, scheme: str, key: str) -> None:
    """By either way in, the same keys post, again and again."""
    for _ in range(2):
        told = hold(keyed, post(ORDER, f"Authorization: {scheme} {key}"))
        opens = scheme != "Basic" and key.strip() in {"ingest-key", "admin-key"}
        assert told[0].startswith(b"HTTP/1.1 202 " if opens else b"HTTP/1.1 401 ")


def test_requests_in_a_row_are_answered_alike(keyless: Both) -> None:
    """All sent at once, plain ones and others: answered in order, and to the last."""
    text = (
        post(ORDER)
        + post(b"[]")
        + post(ORDER, "Idempotency-Key: row") * 2
        + LAST.replace(b"close", b"keep-alive")
    )
    told = []
    for port in keyless.ports:
        with socket.create_connection(("127.0.0.1", port), timeout=WITHIN) as client:
            client.sendall(text + post(ORDER) + LAST)
            told.append(alike(client.makefile("rb").read()))
    assert told[0] == told[1]
    statuses = re.findall(rb"HTTP/1.1 (\d{3}) ", told[0])
    assert statuses == [b"202", b"422", b"202", b"202", b"200", b"202", b"200"]


def test_draining_is_answered_alike(tmp_path: Path) -> None:
    """503, and when to come again; on connections from before as well."""
    with running(tmp_path, Auth()) as both:
        clients = [socket.create_connection(("127.0.0.1", port), timeout=WITHIN) for port in both.ports]
        told: list[list[bytes]] = [[], []]
        for draining in (False, True):
            for api in (both.served, both.embedded):
                both.loop.call_soon_threadsafe(partial(setattr, api.notifier.intake, "draining", draining))
            for client, answers in zip(clients, told, strict=True):
                client.sendall(post(ORDER))
                with client.makefile("rb") as file:
                    answers += [alike(each) for each in until_final(file.readline, file.read)]
        for client in clients:
            client.close()
    assert told[0] == told[1]
    assert [answer.split()[1] for answer in told[0]] == [b"202", b"503"]
    assert b"\r\nRetry-After: 5\r\n" in told[0][1]


# Its ends --------------------------------------------------------------------------------------------


async def test_what_is_under_way_is_answered_when_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle connection is closed at once, one with a request under way once that is answered."""
    begun = asyncio.Event()
    stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with serving(tmp_path) as api:
        add = api.notifier.store.add

        async def late(submissions: Sequence[Submission]) -> list[Added]:
            begun.set()
            await stored
            return await add(submissions)

        monkeypatch.setattr(
            api.notifier.store, "add", lambda submissions: asyncio.ensure_future(late(submissions))
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", api.client.port)
        writer.write(post(ORDER))
        await begun.wait()
        closing = asyncio.create_task(api.client.server.close())
        assert await idle.read() == b""
        assert not closing.done()
        stored.set_result(None)
        assert (await reader.read()).startswith(b"HTTP/1.1 202 Accepted\r\n")
        await closing
        for each in (writer, idle_writer):
            each.close()
            await each.wait_closed()
