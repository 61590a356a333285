"""The webhook channel against real sockets: what goes out, what may come back, and where nothing may go."""

import asyncio
import gzip
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from standardwebhooks.webhooks import Webhook
from support.builders import NOW, event_record, job
from support.names import Addresses, Names
from support.receiver import Receiver, Script, answer, endless, raw, then_close, then_hang, then_reset

from notifier.channels import ChannelContext, Content, Message, Receipt
from notifier.channels.guard import REFUSAL, Guard, PublicInternet
from notifier.channels.http1 import CatcherTransport, HttpTransport
from notifier.channels.transport import PreparedRequest, Transport
from notifier.channels.webhook import WebhookChannel
from notifier.config import Channels, Config, Duration, WebhookSection, Workers
from notifier.errors import DeliveryError, Permanent, Transient, Unknown
from notifier.model import Endpoint, EndpointSecret

pytestmark = pytest.mark.both_loops

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
LOOPBACK = ("127.0.0.0/8",)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def channel(
    *, seconds: float = 10, allow: tuple[str, ...] = LOOPBACK, transport: Transport | None = None
) -> AsyncIterator[WebhookChannel]:
    """An opened webhook channel that may deliver to loopback."""
    section = WebhookSection(timeout=Duration(seconds), allow_networks=allow)
    config = Config(channels=Channels(webhook=section), workers=Workers(concurrency=8))
    context = ChannelContext(config=config, settings={}, secrets_for=lambda _job: [SECRET], clock=time.time)
    made = WebhookChannel(context, transport=transport)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


def guarded(resolver: Names, allow: tuple[str, ...] = (), ports: tuple[int, ...] = ()) -> HttpTransport:
    """The real transport with a scripted resolver."""
    return HttpTransport(Guard(PublicInternet(allow, ports)), connections=8, resolver=resolver)


def message(url: str, *, payload: str | None = None) -> Message:
    """A message for a receiver."""
    record = event_record()
    return Message(job=job(record, destination=url), event=record, content=Content(payload=payload))


async def deliver(*scripts: Script, seconds: float = 10) -> Receipt:
    """Deliver one message to a receiver that follows the scripts."""
    async with Receiver(*scripts) as receiver, channel(seconds=seconds) as webhook:
        return await webhook.deliver(message(receiver.url()))


def endpoint(url: str, **changes: Any) -> Endpoint:
    """A subscription of a receiver."""
    fields: dict[str, Any] = {
        "id": "ep_1",
        "url": url,
        "event_types": ("*",),
        "secrets": (EndpointSecret(OTHER, NOW),),
        **dict.fromkeys(("created_at", "updated_at", "state_changed_at"), NOW),
    }
    return Endpoint(**(fields | changes))


def to(subscription: Endpoint) -> Message:
    """A message of a job that an endpoint caused while its url was another."""
    return replace(message("https://old.example/"), endpoint=subscription)


async def refused(
    url: str, transport: Transport | None = None, *, by_endpoint: bool = False
) -> DeliveryError:
    """Deliver to a url under the guard as it ships, and return what was raised."""
    async with channel(allow=(), transport=transport) as webhook:
        with pytest.raises(DeliveryError) as raised:
            await (webhook.deliver(to(endpoint(url))) if by_endpoint else route_and_deliver(webhook, url))
        return raised.value


async def route_and_deliver(webhook: WebhookChannel, url: str) -> None:
    """Do with a url what routing and a worker do."""
    webhook.lane(url)
    await webhook.deliver(message(url))


# What goes out --------------------------------------------------------------------------------------


async def test_a_delivery_arrives_signed() -> None:
    """The receiver gets one POST that the reference library verifies, and nothing that wasn't asked for."""
    async with Receiver(answer(202, b"thanks")) as receiver, channel() as webhook:
        sent = message(receiver.url("/hook?x=%2F"))
        receipt = await webhook.deliver(sent)
        [got] = receiver.requests
    assert (receipt.status_code, receipt.response) == (202, "thanks")
    assert (got.method, got.target) == ("POST", "/hook?x=%2F")
    assert got.headers["webhook-id"] == sent.job.id
    assert set(got.headers) == {
        "host",
        "accept",
        "user-agent",
        "content-type",
        "content-length",
        "content-digest",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
    Webhook(SECRET).verify(got.body, got.headers)


async def test_a_large_payload_arrives_whole() -> None:
    """A payload past a MiB arrives as it was signed, and no warning is made of it."""
    async with Receiver() as receiver, channel() as webhook:
        await webhook.deliver(message(receiver.url(), payload='"' + "ü" * 1_500_000 + '"'))
        [got] = receiver.requests
    assert len(got.body) == 3_000_002
    Webhook(SECRET).verify(got.body, got.headers)


async def test_the_environment_sends_it_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies and passwords that the environment names are not used."""
    async with Receiver() as proxy, Receiver() as receiver, channel() as webhook:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        monkeypatch.setenv("http_proxy", proxy.url())
        await webhook.deliver(message(receiver.url()))
        assert proxy.connections == 0
        assert len(receiver.requests) == 1


async def test_cookies_are_not_kept() -> None:
    """What a receiver sets is not sent back: deliveries have no memory."""
    script = answer(200, headers={"Set-Cookie": "a=b; Path=/"})
    async with Receiver(script) as receiver, channel() as webhook:
        for _ in range(2):
            await webhook.deliver(message(receiver.url()))
        assert all("cookie" not in got.headers for got in receiver.requests)


async def test_an_endpoints_delivery_goes_by_what_the_endpoint_says() -> None:
    """Its present url, headers and secrets make the request, whatever the job was made for."""
    secrets = (EndpointSecret(OTHER, NOW), EndpointSecret(SECRET, NOW, expires_at=time.time() + 60))
    async with Receiver() as receiver, channel() as webhook:
        subscription = endpoint(receiver.url("/in?t=1"), headers={"X-Team": "shop"}, secrets=secrets)
        await webhook.deliver(to(subscription))
        [got] = receiver.requests
    assert (got.target, got.headers["x-team"]) == ("/in?t=1", "shop")
    for secret in (OTHER, SECRET):
        Webhook(secret).verify(got.body, got.headers)


async def test_a_test_send_tells_the_whole_exchange() -> None:
    """The request as it went out, the answer with its headers, and what a delivery would have raised."""
    script = answer(503, b"busy", {"Retry-After": "7", "X-Reason": "ü", "X-Reason-2": "b"})
    async with Receiver(answer(200, b"ok"), script) as receiver, channel() as webhook:
        good, bad = [await webhook.exchange(to(endpoint(receiver.url()))) for _ in range(2)]
        sent = receiver.requests
    assert good.answer is not None
    assert (good.answer.status, good.answer.body, good.error) == (200, b"ok", None)
    assert bad.answer is not None
    assert bad.answer.headers() == [
        ("Content-Length", "4"),
        ("Retry-After", "7"),
        ("X-Reason", "ü"),
        ("X-Reason-2", "b"),
    ]
    assert isinstance(bad.error, Transient)
    assert (bad.error.code, bad.error.retry_after, bad.error.timings) == ("http_503", 7, bad.answer.timings)
    for shown, got in zip((good, bad), sent, strict=True):
        assert shown.request.url == receiver.url()
        assert {
            name.lower(): value for name, value in shown.request.headers.items()
        }.items() <= got.headers.items()
        assert shown.request.body == got.body


async def test_a_test_send_without_an_answer_tells_why() -> None:
    """Where nothing came back there is the request, and the error with where the time went."""
    async with Receiver(then_close(b"")) as receiver, channel() as webhook:
        told = await webhook.exchange(to(endpoint(receiver.url())))
    assert told.answer is None
    assert isinstance(told.error, Unknown)
    assert told.error.timings is not None


async def test_a_test_send_is_guarded_like_any_delivery(victim: Receiver) -> None:
    """It is no way around the guard, and tells no more of what it refused; a bad url makes no request."""
    async with channel(allow=()) as webhook:
        told = await webhook.exchange(to(endpoint(victim.url())))
        assert told.answer is None
        assert isinstance(told.error, Permanent)
        assert (told.error.code, told.error.message, told.error.timings) == ("blocked_address", REFUSAL, None)
        with pytest.raises(Permanent) as failed:
            await webhook.exchange(to(endpoint("http://0177.0.0.1/")))
        assert failed.value.code == "invalid_destination"


async def test_only_so_much_of_an_answers_headers_is_told() -> None:
    """Of 60 KB of headers the first 8 KiB are kept for a test-send."""
    script = answer(200, b"", {f"X-{number}": "v" * 1000 for number in range(60)})
    async with Receiver(script) as receiver, channel() as webhook:
        told = await webhook.exchange(message(receiver.url()))
    assert told.answer is not None
    assert [name for name, _ in told.answer.headers()] == ["Content-Length", *(f"X-{n}" for n in range(8))]


# Connections ----------------------------------------------------------------------------------------


async def test_a_connection_is_kept_for_the_next_delivery() -> None:
    """Deliveries to one receiver, failed ones too, share a connection."""
    async with Receiver(answer(200, b"x" * 60_000), answer(500, b"no"), answer(204)) as receiver:
        async with channel() as webhook:
            await webhook.deliver(message(receiver.url()))
            with pytest.raises(Transient):
                await webhook.deliver(message(receiver.url()))
            await webhook.deliver(message(receiver.url()))
        assert [got.connection for got in receiver.requests] == [1, 1, 1]


@pytest.mark.parametrize("stale", [then_close(b""), then_reset(b"")], ids=["closed", "reset"])
async def test_a_kept_connection_closed_under_us_is_tried_again_at_once(stale: Script) -> None:
    """A receiver that closes a kept connection as we write gets the same request on a new one."""
    async with Receiver(answer(), stale, answer()) as receiver, channel() as webhook:
        await webhook.deliver(message(receiver.url()))
        await webhook.deliver(message(receiver.url()))
        _, lost, again = receiver.requests
    assert (lost.connection, again.connection) == (1, 2)
    assert lost.headers == again.headers
    assert lost.body == again.body


async def test_it_is_tried_again_only_once() -> None:
    """A receiver that closes every connection is not sent the request a third time."""
    async with Receiver(answer(), then_close(b"")) as receiver, channel() as webhook:
        await webhook.deliver(message(receiver.url()))
        with pytest.raises(Unknown) as failed:
            await webhook.deliver(message(receiver.url()))
        assert failed.value.code == "connection_lost"
        assert len(receiver.requests) == 3


async def test_two_connections_closed_under_us_end_the_attempt() -> None:
    """The second is a new one, whatever else is kept; that it is closed too is left to the schedule."""
    scripts = (answer(), answer(), then_close(b""))
    async with Receiver(*scripts) as receiver, channel() as webhook:
        await asyncio.gather(*[webhook.deliver(message(receiver.url())) for _ in range(2)])
        assert receiver.connections == 2
        with pytest.raises(Unknown) as failed:
            await webhook.deliver(message(receiver.url()))
        assert failed.value.code == "connection_lost"
        assert (len(receiver.requests), receiver.connections) == (4, 3)


async def test_a_kept_connection_that_began_to_answer_is_not_tried_again() -> None:
    """Once something of an answer came, the request was taken in and is not sent twice."""
    async with Receiver(answer(), then_close(b"HTTP/1.1 200 OK\r\nX-Half: ")) as receiver:
        async with channel() as webhook:
            await webhook.deliver(message(receiver.url()))
            with pytest.raises(Unknown):
                await webhook.deliver(message(receiver.url()))
        assert len(receiver.requests) == 2


@pytest.mark.parametrize("lost", [then_close(b""), then_reset(b"")], ids=["closed", "reset"])
async def test_a_new_connection_lost_before_the_answer_is_unknown(lost: Script) -> None:
    """The receiver may have the request: that is said, and the request is not sent again by ourselves."""
    async with Receiver(lost) as receiver, channel() as webhook:
        with pytest.raises(Unknown) as failed:
            await webhook.deliver(message(receiver.url()))
        assert failed.value.code == "connection_lost"
        assert len(receiver.requests) == 1


async def test_cancelling_a_delivery_lets_go_of_its_connection() -> None:
    """A delivery that is cancelled closes its connection and leaves the channel in order."""
    async with Receiver(then_hang(b""), answer()) as receiver, channel() as webhook:
        hanging = asyncio.create_task(webhook.deliver(message(receiver.url())))
        await receiver.seen(1)
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        await webhook.deliver(message(receiver.url()))
        assert [got.connection for got in receiver.requests] == [1, 2]


# What receivers do ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is an answer like any other: its target stays untouched, even on the same receiver."""
    async with Receiver() as target:
        with pytest.raises(Transient) as failed:
            await deliver(answer(status, b"over there", {"Location": target.url()}))
        assert target.connections == 0
    assert (failed.value.code, failed.value.response) == (f"http_{status}", "over there")


async def test_gone_fails_for_good() -> None:
    """410 is permanent."""
    with pytest.raises(Permanent) as failed:
        await deliver(answer(410, b"gone"))
    assert (failed.value.code, failed.value.status_code) == ("http_410", 410)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("90", 90, 90), ("{date}", 80, 91)],
    ids=["seconds", "date"],
)
async def test_retry_after_reaches_the_error(value: str, least: float, most: float) -> None:
    """A receiver may say how long to wait in seconds or by a date."""
    wait = value.format(date=formatdate(time.time() + 90, usegmt=True))
    with pytest.raises(Transient) as failed:
        await deliver(answer(429, b"slow down", {"Retry-After": wait}))
    assert failed.value.retry_after is not None
    assert least <= failed.value.retry_after <= most


async def test_only_the_first_kib_is_kept() -> None:
    """Of a long answer the first KiB is kept, as text without NUL, and its connection serves again."""
    async with Receiver(answer(200, b"\0\xff" + b"x" * 5000)) as receiver, channel() as webhook:
        for _ in range(2):
            receipt = await webhook.deliver(message(receiver.url()))
        assert receipt.response == "\ufffd\ufffd" + "x" * 1022
        assert receiver.connections == 1


async def test_a_gzip_bomb_stays_packed() -> None:
    """A compressed answer is kept as the bytes it is: nothing is unpacked."""
    bomb = gzip.compress(bytes(50_000_000))
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
    receipt = await deliver(answer(200, bomb, headers))
    assert receipt.response is not None
    assert receipt.response.startswith("\x1f\ufffd\x08")
    assert len(receipt.response) <= 1024


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["until close", "by length", "chunked"],
)
async def test_an_endless_body_is_cut_off(head: bytes) -> None:
    """A body without end is read to the cap and its connection closed, long before the deadline."""
    piece = b"10000\r\n" + b"z" * 65536 + b"\r\n" if b"chunked" in head else b"z" * 65536
    async with Receiver(endless(head, piece), answer()) as receiver, channel(seconds=60) as webhook:
        receipt = await webhook.deliver(message(receiver.url()))
        await webhook.deliver(message(receiver.url()))
        assert receipt.response == "z" * 1024
        assert receiver.connections == 2


async def test_a_dripping_body_ends_with_the_deadline() -> None:
    """A body that comes byte by byte is given up at the deadline; the status that came is what counts."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"
    receipt = await deliver(endless(head, b"d", pause=0.02), seconds=0.3)
    assert receipt.status_code == 200
    assert receipt.response is not None
    assert set(receipt.response) == {"d"}


async def test_a_body_broken_off_keeps_the_status() -> None:
    """A connection reset amid the body doesn't make a delivered request undelivered."""
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    receipt = await deliver(then_reset(half))
    assert receipt.status_code == 200
    receipt = await deliver(then_close(half))
    assert (receipt.status_code, receipt.response) == (200, "half")


async def test_dripping_headers_end_with_the_deadline() -> None:
    """Headers that come byte by byte don't outlast the one deadline."""
    with pytest.raises(Unknown) as failed:
        await deliver(endless(b"HTTP/1.1 200 OK\r\nX: ", b"h", pause=0.02), seconds=0.3)
    assert failed.value.code == "timeout"


async def test_a_hanging_receiver_ends_with_the_deadline() -> None:
    """No answer by the deadline is a timeout of which nobody knows whether it arrived."""
    with pytest.raises(Unknown) as failed:
        await deliver(then_hang(b""), seconds=0.2)
    assert (failed.value.code, failed.value.status_code) == ("timeout", None)


async def test_a_receiver_that_never_takes_the_body_ends_with_the_deadline() -> None:
    """A large request that the receiver stops reading is given up at the deadline."""
    stalled = asyncio.Event()

    async def never_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stalled.wait()
        writer.close()

    server = await asyncio.start_server(never_read, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    try:
        async with channel(seconds=0.3) as webhook:
            with pytest.raises(Transient) as failed:
                await webhook.deliver(message(f"http://127.0.0.1:{port}/", payload="x" * 20_000_000))
        assert failed.value.code == "timeout"
    finally:
        stalled.set()
        server.close()


async def test_the_second_try_shares_the_deadline() -> None:
    """What is sent again on a new connection has only what is left of the time."""
    async with Receiver(answer(), then_close(b""), then_hang(b"")) as receiver:
        async with channel(seconds=0.3) as webhook:
            await webhook.deliver(message(receiver.url()))
            with pytest.raises(Unknown) as failed:
                await webhook.deliver(message(receiver.url()))
        assert failed.value.code == "timeout"


async def test_60_kb_of_headers_are_taken() -> None:
    """Many headers, each of sane length, are no reason to doubt an answer."""
    headers = {f"X-{number}": "v" * 1000 for number in range(60)}
    assert (await deliver(answer(200, b"ok", headers))).response == "ok"


@pytest.mark.parametrize(
    "script",
    [
        answer(200, b"ok", {"X-Long": "v" * 60_000}),
        answer(200, b"ok", {f"X-{number}": "v" for number in range(5000)}),
        endless(b"HTTP/1.1 200 OK\r\nX: ", b"h" * 65536),
        endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
        then_hang(b"220 smtp.example ESMTP\r\n"),
        then_hang(b"\x16\x03\x01\x02\x00" * 20),
        answer(200, b"ok", {"Content-Length": "-1"}),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        raw(b"HTTP/1.1 2000 OK\r\n\r\n"),
    ],
    ids=["long header", "many", "endless", "endless many", "smtp", "tls", "length", "both", "status"],
)
async def test_what_is_no_sane_http_is_a_bad_response(script: Script) -> None:
    """Headers past the limits and bytes that are no HTTP end the attempt at once, with a reason."""
    with pytest.raises(Transient) as failed:
        await deliver(script, seconds=60)
    assert failed.value.code == "bad_response"
    assert "\n" not in failed.value.message
    assert "vvv" not in failed.value.message


async def test_an_upgrade_is_no_success() -> None:
    """101 is not a 2xx, and the connection is not used for anything."""
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\njunk"
    with pytest.raises(Transient) as failed:
        await deliver(raw(switch))
    assert failed.value.code == "http_101"


async def test_informational_answers_are_passed_over() -> None:
    """Early hints before the answer are not the answer."""
    assert (await deliver(raw(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + OK))).status_code == 200


async def test_nobody_listening_is_a_failed_connection() -> None:
    """A refused connection is told as that, without the address."""
    async with Receiver() as receiver:
        url = receiver.url()
    async with channel() as webhook:
        with pytest.raises(Transient) as failed:
            await webhook.deliver(message(url))
    assert failed.value.code == "connect_failed"
    assert "refused" in failed.value.message
    assert "127.0.0.1" not in failed.value.message


async def test_tls_to_a_receiver_that_speaks_none() -> None:
    """A receiver without TLS behind an https url is told as that."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with channel() as webhook:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(Transient, match="wrong version number") as failed:
            await webhook.deliver(message(url))
    server.close()
    assert failed.value.code == "tls_failed"


async def test_an_untrusted_certificate_is_refused() -> None:
    """No request goes to a receiver whose certificate nobody vouches for; the reason is told."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(Path(__file__).parent.parent / "support" / "self_signed.pem")
    async with Receiver(tls=tls) as receiver, channel() as webhook:
        with pytest.raises(Transient, match="self-signed certificate") as failed:
            await webhook.deliver(message(receiver.url()))
        assert receiver.requests == []
    assert failed.value.code == "tls_failed"


async def test_a_name_that_nobody_knows() -> None:
    """A failing look-up is a Transient, and nothing is connected to."""
    error = await refused("http://nowhere.test/", guarded(Names()))
    assert isinstance(error, Transient)
    assert error.code == "dns_failed"


# Where nothing may go -------------------------------------------------------------------------------

HOSTILE = [
    # Plain, and in other spellings of the same address
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1:0{port}/",
    "http://127.255.255.254:{port}/",
    "http://0.0.0.0:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7F.0x0.0x0.0x1:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0177.00.00.01:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://0:{port}/",
    "http://00000000000000000177.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.0.0.1..:{port}/",
    "http://127.0.0.01:{port}/",
    "http://127.000.000.001:{port}/",
    "http://383.0.0.1:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://127%2e0%2e0%2e1:{port}/",
    "http://１２７.０.０.１:{port}/",
    "http://127。0。0。1:{port}/",
    "http://127．0．0．1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://१२७.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "hTTp://127.0.0.1:{port}",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:\\\\127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}",
    "https://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}?@example.com/",
    # IPv6, and IPv4 carried in it
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:{port}/",
    "http://[::]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::7f00:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::FFFF:0x7f.1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b:1::127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::80ff:fffe]:{port}/",
    "http://[fec0::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fe80::1%lo]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[::1]%25:{port}/",
    "http://[127.0.0.1]:{port}/",
    # Names of this machine
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://localhost..:{port}/",
    "http://ｌｏｃａｌｈｏｓｔ:{port}/",
    "http://loc\u00adalhost:{port}/",
    "http://ⓛocalhost:{port}/",
    "http://sub.localhost:{port}/",
    # Userinfo and confusion about where the host ends
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://example.com%40127.0.0.1:{port}/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://example.com／@127.0.0.1:{port}/",
    "http://example.com＠127.0.0.1:{port}/",
    "http://127.0.0.1\\.example.com:{port}/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://1.1.1.1 &@127.0.0.1:{port}# @3.3.3.3/",
    "http://127.0.0.1:{port}:80/",
    "http://127.0.0.1%00.example.com:{port}/",
    "http://127.0.0.1\0.example.com:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1\r\nHost: example.com:{port}/",
    "\nhttp://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\uff03@example.com/",
    # Names whose owner points them here
    "http://nat64.test:{port}/",
    "http://teredo.test:{port}/",
    "http://zone.test:{port}/",
    "http://word.test:{port}/",
    "http://octal.test:{port}/",
    "http://nothing.test:{port}/",
    "http://mapped.test:{port}/",
    "http://private.test:{port}/",
    "http://both.test:{port}/",
    "http://xn--test-.private.test:{port}/",
]


def hostile_names() -> Names:
    """A resolver whose names all lead to this machine, one way or the other."""
    here: list[Addresses] = [["127.0.0.1"]]
    names = Names(private_test=here, mapped_test=[["::ffff:127.0.0.1"]], both_test=[["::1", "127.0.0.1"]])
    names.answers |= {
        "localhost": [["127.0.0.1", "::1"]],
        "sub.localhost": here,
        "nat64.test": [["64:ff9b::7f00:1", "64:ff9b:1::7f00:1"]],
        "teredo.test": [["2001:0:7f00:1::80ff:fffe", "2002:7f00:1::1"]],
        "zone.test": [["fe80::1%lo", "::1%lo"]],
        "word.test": [["localhost"]],
        "octal.test": [["0177.0.0.1", "2130706433", "0x7f.1", "127.1"]],
        "nothing.test": [[]],
    }
    return names


@pytest.fixture
async def victim() -> AsyncIterator[Receiver]:
    """A receiver on loopback that no hostile url may reach."""
    async with Receiver() as receiver:
        yield receiver
        assert receiver.connections == 0


@pytest.mark.parametrize("by_endpoint", [False, True], ids=["route", "endpoint"])
@pytest.mark.parametrize("url", HOSTILE)
async def test_no_spelling_reaches_this_machine(url: str, by_endpoint: bool, victim: Receiver) -> None:
    """However a route's or an endpoint's url spells it, loopback is not connected to; the job fails."""
    transport = guarded(hostile_names(), ports=(victim.port,))
    error = await refused(url.format(port=victim.port), transport, by_endpoint=by_endpoint)
    assert error.code in {"blocked_address", "invalid_destination", "dns_failed"}
    assert isinstance(error, Permanent) or error.code == "dns_failed"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"])
async def test_the_guard_is_on_as_it_ships(host: str, victim: Receiver) -> None:
    """With no configuration, the system's resolver and aiohttp's own dialling lead to no local address."""
    error = await refused(f"http://{host}:{victim.port}/")
    assert isinstance(error, Permanent)
    assert error.code == "blocked_address"


OTHER_PORTS = [
    "http://1.1.1.1:22/",
    "http://8.8.8.8:25/",
    "https://8.8.8.8:444/",
    "http://9.9.9.9:81/",
    "http://9.9.9.9:08080/",
    "http://1.1.1.1:65535/",
    "http://[2606:4700::1111]:6379/",
    "https://[2a00:1450:4001::8]:8443/",
    "http://public.test:3306/",
    "https://public.test.:9200/",
    "http://PUBLIC.test:11211/",
    "http://other-port.test:5432/",
]


@pytest.mark.parametrize("by_endpoint", [False, True], ids=["route", "endpoint"])
@pytest.mark.parametrize("url", OTHER_PORTS)
async def test_no_other_port_is_reached(url: str, by_endpoint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of public addresses only the ports of the web are connected to, and those that are named."""
    made: list[object] = []
    monkeypatch.setattr("notifier.channels.guard.new_socket", made.append)
    names = Names(public_test=[["1.1.1.1", "2606:4700::1111"]])
    names.answers["other-port.test"] = [["8.8.8.8"]]
    error = await refused(url, guarded(names, ports=(8444,)), by_endpoint=by_endpoint)
    assert isinstance(error, Permanent)
    assert error.code == "blocked_address"
    assert made == []


async def test_a_refusal_reveals_nothing() -> None:
    """Open or closed, by address or port, literal or name: the same error, with no address and no time."""
    async with Receiver() as receiver:
        urls = [f"http://127.0.0.1:{receiver.port}/", "http://10.1.2.3:9/", "http://private.test/"]
        urls += ["http://8.8.8.8:22/", "http://8.8.8.8:9/", "https://private.test/"]
        errors = [await refused(url, guarded(hostile_names())) for url in urls]
    said = {
        (error.code, error.message, error.response, error.status_code, error.timings, error.lane_fault)
        for error in errors
    }
    assert said == {("blocked_address", REFUSAL, None, None, None, False)}


async def test_refusals_are_counted() -> None:
    """What the guard refused shows on the channel, for whoever counts."""
    async with channel(allow=()) as webhook:
        for url in ("http://127.0.0.1/", "http://10.0.0.1/", "http://8.8.8.8:22/"):
            with pytest.raises(Permanent):
                await webhook.deliver(message(url))
        assert webhook.guard.refused == 3


@pytest.mark.parametrize(
    "failure",
    [
        *(OSError("broken"), socket.gaierror(socket.EAI_AGAIN, "again"), TimeoutError(), UnicodeError("?")),
        *(ValueError("?"), RuntimeError("?"), KeyError("host"), StopAsyncIteration(), []),
    ],
    ids=repr,
)
async def test_a_failing_look_up_never_leads_to_a_connection(failure: Addresses, victim: Receiver) -> None:
    """However a look-up fails, once or again and again, nothing is connected to; the job is tried again."""
    transport = guarded(Names(broken_test=[failure]), LOOPBACK)
    async with channel(transport=transport) as webhook:
        for _ in range(2):
            with pytest.raises(Transient) as failed:
                await webhook.deliver(message(f"http://broken.test:{victim.port}/"))
            expected = "timeout" if isinstance(failure, TimeoutError) else "dns_failed"
            assert (failed.value.code, failed.value.lane_fault) == (expected, True)


async def test_a_look_up_that_fails_after_one_that_did_not(victim: Receiver) -> None:
    """A name that was led somewhere before is not led there again by a look-up that fails."""
    names = Names(flaky_test=[["127.0.0.2"], OSError("broken")])
    transport = guarded(names, LOOPBACK)
    async with Receiver(host="127.0.0.2") as receiver, channel(transport=transport) as webhook:
        await webhook.deliver(message(f"http://flaky.test:{receiver.port}/"))
        with pytest.raises(Transient) as failed:
            await webhook.deliver(message(f"http://flaky.test:{victim.port}/"))
        assert failed.value.code == "dns_failed"
        assert len(receiver.requests) == 1


async def test_a_name_that_is_rebound_between_look_ups(victim: Receiver) -> None:
    """A name that led somewhere allowed and now leads here is refused on the connection it leads to."""
    names = Names(rebound_test=[["127.0.0.2"], ["127.0.0.1"]])
    transport = guarded(names, ("127.0.0.2/32",))
    async with Receiver(host="127.0.0.2") as allowed, channel(transport=transport) as webhook:
        await webhook.deliver(message(f"http://rebound.test:{allowed.port}/"))
        with pytest.raises(Permanent) as failed:
            await webhook.deliver(message(f"http://rebound.test:{victim.port}/"))
    assert failed.value.code == "blocked_address"
    assert names.asked == ["rebound.test", "rebound.test"]


@pytest.mark.parametrize("order", [1, -1], ids=["blocked first", "blocked last"])
async def test_of_several_addresses_only_the_allowed_one_is_used(order: int) -> None:
    """A refused address beside an allowed one is passed over, whichever comes first."""
    async with Receiver(host="127.0.0.2") as allowed, Receiver() as blocked:
        addresses = ["127.0.0.1", "127.0.0.2", "::1"][::order]
        transport = guarded(Names(mixed_test=[addresses]), ("127.0.0.2/32",))
        async with channel(transport=transport) as webhook:
            await webhook.deliver(message(f"http://mixed.test:{allowed.port}/"))
            with pytest.raises(Transient) as failed:
                await webhook.deliver(message(f"http://mixed.test:{blocked.port}/"))
        assert blocked.connections == 0
        assert len(allowed.requests) == 1
    assert failed.value.code == "connect_failed"


async def test_an_allowed_network_is_delivered_to() -> None:
    """What `allow_networks` names is delivered to, by literal and by name; its neighbour is not."""
    async with Receiver(host="127.0.0.2") as receiver, channel(allow=("127.0.0.2/32",)) as webhook:
        await webhook.deliver(message(receiver.url()))
        with pytest.raises(Permanent):
            await webhook.deliver(message(receiver.url().replace("127.0.0.2", "127.0.0.3")))
        assert len(receiver.requests) == 1


async def test_a_name_of_the_system_is_delivered_to_where_allowed() -> None:
    """The system's resolver finds a name, and the address it leads to is judged like any other."""
    async with Receiver() as receiver, channel(allow=("127.0.0.1/32",)) as webhook:
        await webhook.deliver(message(f"http://localhost:{receiver.port}/"))
        assert len(receiver.requests) == 1


# The catcher ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com/hooks?x=%2F&y", "/https/example.com:443/hooks?x=%2F&y"),
        ("http://example.com", "/http/example.com:80/"),
        ("http://10.0.0.1:8080/a%20b", "/http/10.0.0.1:8080/a%20b"),
        ("https://[2606:4700::1111]/", "/https/[2606:4700::1111]:443/"),
        ("http://example.com//evil.test/../x", "/http/example.com:80//evil.test/../x"),
    ],
)
async def test_the_catcher_gets_every_request(url: str, target: str) -> None:
    """Whatever a url says, the request goes to the catcher, signed as it would have been."""
    async with Receiver() as catcher:
        transport = CatcherTransport((catcher.host, catcher.port))
        async with channel(allow=(), transport=transport) as webhook:
            receipt = await webhook.deliver(message(url))
        [got] = catcher.requests
    assert receipt.status_code == 200
    assert got.target == target
    Webhook(SECRET).verify(got.body, got.headers)


async def test_the_catcher_reaches_nothing_else(victim: Receiver) -> None:
    """A request that leads past the catcher, even on this machine, is refused."""
    async with Receiver() as catcher:
        transport = CatcherTransport((catcher.host, catcher.port))
        await transport.open()
        with pytest.raises(Permanent):
            await transport._inner.send(PreparedRequest.of(victim.url(), {}, b"{}"), 5)
        await transport.close()


async def test_a_closed_channel_delivers_nothing() -> None:
    """A delivery after closing fails as one that can be tried again, and a channel closes twice in peace."""
    async with Receiver() as receiver, channel() as webhook:
        await webhook.close()
        with pytest.raises(Transient):
            await webhook.deliver(message(receiver.url()))
