"""What is a plain post of events and what isn't, and that aiohttp's parser is of the same mind."""

import asyncio
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from notifier.config import Auth
from notifier.web.auth import Gate
from notifier.web.heads import END, MAX_HEAD, Heads

MAX_BODY = 1000
LINE = "POST /v1/events HTTP/1.1"
HEAD = (LINE, "Host: localhost", "Content-Type: application/json", "Content-Length: 5")


def written(*lines: str) -> bytes:
    """A head of these lines."""
    return "\r\n".join(lines).encode("latin-1") + END


def heads(auth: Auth | None = None) -> Heads:
    """What tells heads apart, on the running loop."""
    return Heads(Gate(auth or Auth()), MAX_BODY)


def alone(head: bytes, auth: Auth | None = None) -> tuple[int, str | None] | None:
    """What is said of a head that is the first to come."""

    async def asked() -> tuple[int, str | None] | None:
        return heads(auth).post(head)

    return asyncio.run(asked())


@pytest.mark.parametrize(
    "line",
    [
        "User-Agent: curl/8.0",
        "Connection: keep-alive",
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "X-Whatever:",
        "Cookie: a=b",
        "Origin: http://localhost:3000",
    ],
)
def test_a_plain_post_is_known(line: str) -> None:
    """Whatever else its head says that changes nothing about how it is answered."""
    assert alone(written(*HEAD, line)) == (5, None)
    assert alone(written(LINE, line, *HEAD[1:])) == (5, None)


@pytest.mark.parametrize(
    "kind", ["APPLICATION/json", "application/json; charset=UTF-8", "application/json;charset=utf-8"]
)
@pytest.mark.parametrize("name", ["Content-Length", "content-length"])
def test_usual_spellings_are_known(kind: str, name: str) -> None:
    """As clients of several languages write them."""
    assert alone(written(LINE, "host: localhost", f"content-type: {kind}", f"{name}: 0")) == (0, None)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("Idempotency-Key: order 7", "order 7"),
        ("idempotency-key:  k  ", "k"),
        ('Idempotency-Key: "a\\"b"', '"a\\"b"'),
        ("Idempotency-Key:", ""),
    ],
)
def test_the_key_is_told(line: str, key: str) -> None:
    """As it stands, without the white space around it; what it means, others know."""
    assert alone(written(*HEAD, line)) == (5, key)


@pytest.mark.parametrize(
    "head",
    [
        written("GET /v1/events HTTP/1.1", *HEAD[1:]),
        written("POST /v1/events HTTP/1.0", *HEAD[1:]),
        written("POST /v1/events?x=1 HTTP/1.1", *HEAD[1:]),
        written("POST /v1/admin/preview HTTP/1.1", *HEAD[1:]),
        written("POST  /v1/events HTTP/1.1", *HEAD[1:]),
        written("", *HEAD),
        written(LINE),
        written(*HEAD[:-1]),
        written(LINE, *HEAD[2:]),
        written(LINE, HEAD[1], HEAD[3]),
        written(LINE, "Host: evil.example", *HEAD[2:]),
        written(LINE, HEAD[1], "Content-Type: text/plain", HEAD[3]),
        written(LINE, HEAD[1], "Content-Type: application/json; charset=latin-1", HEAD[3]),
        *(
            written(*HEAD, line)
            for line in (
                "Host: localhost",
                "Content-Type: application/json",
                "Content-Length: 5",
                "Content-Length: 6",
                "Content-Length : 5",
                "Transfer-Encoding: chunked",
                "Transfer-Encoding: identity",
                "transfer-encoding:\tchunked",
                "Content-Encoding: gzip",
                "Content-Encoding: identity",
                "Expect: 100-continue",
                "Connection: close",
                "Connection: keep-alive, close",
                "Proxy-Connection: close",
                "Connection: Upgrade\r\nUpgrade: websocket",
                "Upgrade: h2c",
                "ce-id: 1",
                "Origin: https://evil.example",
                "Sec-Fetch-Site: cross-site",
                "Idempotency-Key: a\r\nIdempotency-Key: b",
                "IDEMPOTENCY-KEY: a",
                "X: a\r\n b",
                " X: a",
                "X: a\nb",
                "X: a\rb",
                "X: a\x00b",
                "X: caf\xe9",
                "X: a\tb",
                "no colon",
                ": no name",
                "na me: x",
                "na(me: x",
                "X: " + "x" * MAX_HEAD,
                "\r\n".join(f"x{number}: y" for number in range(100)),
            )
        ),
        written(*HEAD[:-1], f"Content-Length: {MAX_BODY + 1}"),
        *(
            written(*HEAD[:-1], f"Content-Length: {length}")
            for length in ("-1", "+5", "5 5", "0x5", "5_0", "", "9" * 20)
        ),
    ],
)
def test_all_else_is_not(head: bytes) -> None:
    """What is malformed, refused, elsewhere, too large or merely unusual: aiohttp has a word for each."""
    assert alone(head) is None


@pytest.mark.parametrize(
    ("authorization", "known"),
    [
        ("Bearer ingest-key", True),
        ("bearer admin-key", True),
        ("Bearer ingest-ke", False),
        ("Basic ingest-key", False),
    ],
)
def test_the_gate_decides_who_posts(authorization: str, known: bool) -> None:
    """A key of either scope may, by whatever name the server is called."""
    auth = Auth(ingest_keys=("ingest-key",), admin_keys=("admin-key",))
    head = written(LINE, "Host: notifier.example", *HEAD[2:], f"Authorization: {authorization}")
    assert (alone(head, auth) is not None) == known
    assert alone(written(*HEAD), auth) is None


async def test_a_shape_is_judged_once() -> None:
    """Another length or another key is no other shape; another word of any other kind is."""
    known = heads()
    assert [known.post(written(*HEAD[:-1], f"Content-Length: {length}")) for length in (5, 70)] == [
        (5, None),
        (70, None),
    ]
    assert known.post(written(*HEAD, "Idempotency-Key: k")) == (5, "k")
    assert known.post(written(*HEAD[:-1], f"Content-Length: {MAX_BODY + 1}")) is None
    assert known._is_plain.cache_info().currsize == 1
    assert known.post(written(*HEAD, "X: y")) == (5, None)
    assert known._is_plain.cache_info().currsize == 2


async def test_what_is_remembered_is_bounded() -> None:
    """Heads without number leave no more than a thousand shapes behind."""
    known = heads()
    for number in range(1100):
        known.post(written(*HEAD, f"X-Request-Id: {number}"))
    assert known._is_plain.cache_info().currsize == 1000


async def test_the_start_of_a_head_is_waited_with_for_as_long_as_it_may_become_one() -> None:
    """At its first byte that can't belong to one, it is known not to be."""
    known = heads()
    whole = written(*HEAD)
    assert all(known.may_begin_post(whole[:end]) for end in range(len(whole)))
    for start in (b"G", b"POST /v1/eventz", b"\r\nPOST", b"\x16\x03\x01", b"POST /v1/events HTTP/1.1\nHost"):
        assert not known.may_begin_post(start)
    assert not known.may_begin_post(whole[:-2] + b"bad header\r\nX")
    assert not known.may_begin_post(whole[:-2] + b"X: " + b"x" * MAX_HEAD)


NAMES = (
    *("Content-Length", "content-length", "CONTENT-LENGTH", "Content-Length ", "X-Content-Length"),
    *("Idempotency-Key", "idempotency-key", "Connection", "Transfer-Encoding", "Host", "Content-Type"),
    *("X", " X", ""),
)
VALUES = (
    *(
        "5",
        "0",
        "12",
        "05",
        " 5 ",
        "\t5",
        "5, 5",
        "5\x00",
        "localhost",
        "chunked",
        "close",
        "application/json",
    ),
    *("k", "é", "", "k\r\nContent-Length: 7", "k\n", "k\r", "x\r\n y"),
)
lines = st.builds(
    "{}{}{}".format, st.sampled_from(NAMES), st.sampled_from([":", ": ", " : ", ""]), st.sampled_from(VALUES)
)


@given(st.lists(lines, max_size=4), st.integers(0, 4))
def test_what_is_known_is_understood_alike_by_aiohttp(extra: list[str], place: int) -> None:
    """Same length, same key, and the next request where this one's body ends: nothing can be smuggled."""
    given_lines = [*HEAD[1:]]
    given_lines[place:place] = extra
    head = written(LINE, *given_lines)
    head = head[: head.find(END) + len(END)]

    async def both() -> None:
        post = heads().post(head)
        if post is None:
            return
        length, key = post
        (first, payload), (second, _) = parsed(
            head + b"x" * length + written("GET /livez HTTP/1.1", "Host: b")
        )
        assert await payload.read() == b"x" * length
        assert (first.method, first.path, first.should_close) == ("POST", "/v1/events", False)
        assert first.headers.getall("Idempotency-Key", []) == ([] if key is None else [key])
        assert second.path == "/livez"

    asyncio.run(both())


def parsed(text: bytes) -> Any:
    """What aiohttp's server understands of a text; it fails the test if that is nothing."""
    loop = asyncio.get_running_loop()
    try:
        return HttpRequestParser(BaseProtocol(loop), loop, 2**16, max_line_size=2**16).feed_data(text)[0]
    except HttpProcessingError as error:
        pytest.fail(f"aiohttp refuses it: {error}")
