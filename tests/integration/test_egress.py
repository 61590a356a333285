"""The way out over real sockets: what kept connections are held to, and what goes through an egress proxy."""

import asyncio
import base64
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.egress_proxy import EgressProxy
from support.names import Addresses, Names
from support.receiver import Receiver, Script, answer, endless, raw, then_close, then_hang, then_reset
from support.smtp_server import CERTIFICATE

from notifier.channels.connections import MOST_KEPT
from notifier.channels.guard import REFUSAL, AddressInfo, Guard, PublicInternet
from notifier.channels.http1 import HttpTransport
from notifier.channels.proxy import parse_proxy
from notifier.channels.transport import Answer, PreparedRequest
from notifier.errors import DeliveryError, Permanent, Transient, Unavailable, Unknown

pytestmark = pytest.mark.both_loops

LOOPBACK = ("127.0.0.0/8",)


@asynccontextmanager
async def opened(
    guard: Guard, *, names: Names | None = None, proxy: str | None = None, resolves: bool = False
) -> AsyncIterator[HttpTransport]:
    """A transport under a guard, through the proxy of that url if there is one."""
    declared = None if proxy is None else parse_proxy(proxy, resolves=resolves)
    transport = HttpTransport(guard, connections=4, resolver=names, proxy=declared)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


def loopback(ports: tuple[int, ...] = ()) -> Guard:
    """A guard that lets connections out to this machine."""
    return Guard(PublicInternet(LOOPBACK, ports))


async def post(transport: HttpTransport, url: str, *, seconds: float = 10) -> Answer:
    """Send a small request."""
    return await transport.send(PreparedRequest.of(url, {"X": "y"}, b"{}"), seconds)


async def failure(transport: HttpTransport, url: str, *, seconds: float = 10) -> DeliveryError:
    """Send a request, and return what was raised."""
    with pytest.raises(DeliveryError) as failed:
        await post(transport, url, seconds=seconds)
    return failed.value


# Kept connections, and the policy as it stands ------------------------------------------------------


async def test_a_kept_connection_is_not_used_against_a_new_policy() -> None:
    """What was allowed when it was connected to and is no longer gets nothing more: it is closed."""
    closed = asyncio.Event()

    async def once(line: Any) -> None:
        await answer()(line)
        await line.gone()
        closed.set()

    guard = loopback()
    async with Receiver(once) as receiver, opened(guard) as transport:
        await post(transport, receiver.url())
        guard.policy = PublicInternet()
        error = await failure(transport, receiver.url())
        await closed.wait()
        assert (len(receiver.requests), receiver.connections) == (1, 1)
    assert isinstance(error, Permanent)
    assert (error.code, error.message, error.timings) == ("blocked_address", REFUSAL, None)
    assert guard.refused == 1


async def test_a_kept_connection_that_a_new_policy_allows_stays() -> None:
    """A policy that changed elsewhere costs no connection."""
    guard = loopback()
    async with Receiver() as receiver, opened(guard) as transport:
        for allowed in (LOOPBACK, ("127.0.0.1/32",), ("0.0.0.0/0",)):
            guard.policy = PublicInternet(allowed)
            await post(transport, receiver.url())
        assert (len(receiver.requests), receiver.connections) == (3, 1)


async def test_a_name_is_dialled_anew_when_its_connection_is_no_longer_allowed() -> None:
    """The name leads to an allowed address now: that one gets the request, and not the kept connection."""
    names = Names(moved_test=[["127.0.0.2", "127.0.0.1"]])
    guard = Guard(PublicInternet(["127.0.0.2/32"]))
    async with Receiver(host="127.0.0.2") as first, opened(guard, names=names) as transport:
        second = Receiver(host="127.0.0.1")
        second.port = first.port
        async with second:
            url = f"http://moved.test:{first.port}/"
            await post(transport, url)
            guard.policy = PublicInternet(["127.0.0.1/32"])
            await post(transport, url)
            assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_no_more_connections_are_kept_than_a_process_can_hold() -> None:
    """However many hosts were delivered to: of the idle ones those that waited longest are closed."""
    count = MOST_KEPT + 20
    answers: dict[str, list[Addresses]] = {f"host{number}_test": [["127.0.0.1"]] for number in range(count)}
    names = Names(**answers)
    async with Receiver() as receiver, opened(loopback(), names=names) as transport:
        for number in range(count):
            await post(transport, f"http://host{number}.test:{receiver.port}/")
        assert transport.connections is not None
        assert len(transport.connections.idle) == MOST_KEPT
        await post(transport, f"http://host{count - 1}.test:{receiver.port}/")
        assert receiver.connections == count
        await post(transport, f"http://host0.test:{receiver.port}/")
        assert receiver.connections == count + 1


async def test_names_that_nobody_answers_for_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-ups go on after their deliveries gave up, and keep neither others nor the process's end."""
    answered, look_up = threading.Event(), socket.getaddrinfo

    def resolve(host: Any, *rest: Any) -> Any:
        if host.startswith(b"slow"):
            answered.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answered")
        return look_up("127.0.0.1", *rest)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    try:
        async with Receiver() as receiver, opened(loopback()) as transport:
            slow = [failure(transport, f"http://slow{number}.test/", seconds=0.05) for number in range(12)]
            assert {error.code for error in await asyncio.gather(*slow)} == {"timeout"}
            assert (await post(transport, f"http://good.test:{receiver.port}/")).status == 200
            threads = [each for each in threading.enumerate() if each.name == "webhook-dns"]
            assert len(threads) >= 4
            assert all(each.daemon for each in threads)
    finally:
        answered.set()


async def test_a_policy_that_changes_amid_connecting_counts() -> None:
    """A connection that came about under the old policy carries nothing under the new one."""

    class Changing(Guard):
        def open_socket(self, info: AddressInfo) -> socket.socket:
            made = super().open_socket(info)
            self.policy = PublicInternet()
            return made

    async with Receiver() as receiver, opened(Changing(PublicInternet(LOOPBACK))) as transport:
        error = await failure(transport, receiver.url())
        assert receiver.requests == []
    assert (error.code, error.timings) == ("blocked_address", None)


# Through the proxy ----------------------------------------------------------------------------------


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The TLS of a receiver that goes by `localhost`, whose certificate is trusted."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(CERTIFICATE)
    return tls


def named() -> Names:
    """Names that lead to this machine."""
    here: list[Addresses] = [["127.0.0.1"]]
    return Names(localhost=here, proxy_test=here, other_test=here)


async def test_a_receiver_can_not_hold_a_connection_that_is_done_with(trusted: ssl.SSLContext) -> None:
    """TLS ends with a farewell on both sides; who sends none must not keep a socket of ours open."""
    made: list[socket.socket] = []

    class Noting(Guard):
        def open_socket(self, info: AddressInfo) -> socket.socket:
            made.append(super().open_socket(info))
            return made[-1]

    async def stubborn(line: Any) -> None:
        await answer(headers={"Connection": "close"})(line)
        line.writer.transport.pause_reading()
        try:
            await asyncio.Event().wait()
        finally:
            line.writer.transport.abort()

    guard = Noting(PublicInternet(LOOPBACK))
    async with Receiver(stubborn, tls=trusted) as receiver, opened(guard, names=named()) as transport:
        assert (await post(transport, f"https://localhost:{receiver.port}/")).status == 200
        for _ in range(10):  # turns of the loop, in which it closes what was let go of
            await asyncio.sleep(0)
        assert [each.fileno() for each in made] == [-1]


async def test_http_goes_through_a_tunnel_too() -> None:
    """The proxy is asked for the checked address, and sees nothing of the request; the tunnel is kept."""
    names = named()
    async with Receiver(answer(200, b"ok")) as receiver, EgressProxy() as proxy:
        async with opened(loopback(), names=names, proxy=proxy.url()) as transport:
            url = f"http://other.test:{receiver.port}/hook"
            assert [(await post(transport, url)).body for _ in range(2)] == [b"ok", b"ok"]
        [asked] = proxy.asked
        assert (asked.method, asked.authority) == ("CONNECT", f"127.0.0.1:{receiver.port}")
        assert asked.headers == {"host": asked.authority}
        assert [got.headers["host"] for got in receiver.requests] == [f"other.test:{receiver.port}"] * 2
        assert receiver.connections == 1
    assert names.asked == ["other.test"]


async def test_https_speaks_tls_with_the_receiver_inside(trusted: ssl.SSLContext) -> None:
    """The receiver's certificate is checked by the url's name, though the tunnel was asked for by address."""
    shown: list[object] = []
    trusted.sni_callback = lambda _socket, name, _context: shown.append(name)
    async with Receiver(answer(200, b"ok"), tls=trusted) as receiver, EgressProxy() as proxy:
        async with opened(loopback(), names=named(), proxy=proxy.url()) as transport:
            first = await post(transport, f"https://localhost:{receiver.port}/")
            await post(transport, f"https://localhost:{receiver.port}/")
            await post(transport, f"https://localhost.:{receiver.port}/")
            wrong = await failure(transport, f"https://other.test:{receiver.port}/")
        assert {asked.authority for asked in proxy.asked} == {f"127.0.0.1:{receiver.port}"}
        assert len(proxy.asked) == 3
        assert len(receiver.requests) == 3
    assert shown == ["localhost", "localhost", "other.test"]
    assert (wrong.code, wrong.lane_fault) == ("tls_failed", True)
    assert min(first.timings.dns, first.timings.connect, first.timings.tls, first.timings.wait) > 0


async def test_names_can_be_left_to_the_proxy(trusted: ssl.SSLContext) -> None:
    """With `proxy_resolves` the proxy is asked by name, and nothing but its own name is looked up here."""
    names = Names(proxy_test=[["127.0.0.1"]])
    async with Receiver(tls=trusted) as receiver, EgressProxy() as proxy:
        guard = Guard(PublicInternet(allow_ports=[receiver.port]))
        url = proxy.url(host="proxy.test")
        async with opened(guard, names=names, proxy=url, resolves=True) as transport:
            await post(transport, f"https://localhost:{receiver.port}/")
        assert [asked.authority for asked in proxy.asked] == [f"localhost:{receiver.port}"]
        assert len(receiver.requests) == 1
    assert names.asked == ["proxy.test"]


async def test_an_ipv6_address_is_named_in_brackets() -> None:
    """The proxy is asked for `[address]:port`."""
    asked_for = "[2606:4700::1111]:443"
    async with EgressProxy({}, then_close(b"HTTP/1.1 403 Forbidden\r\n\r\n")) as proxy:
        names = Names(six_test=[["2606:4700::1111"]])
        async with opened(Guard(PublicInternet()), names=names, proxy=proxy.url()) as transport:
            await failure(transport, "https://six.test/")
        assert [asked.authority for asked in proxy.asked] == [asked_for]


async def test_the_login_is_shown_to_the_proxy_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It goes to the proxy as Basic credentials, percent-decoded; no receiver, log or error gets it."""
    caplog.set_level(logging.DEBUG)
    async with Receiver() as receiver, EgressProxy() as proxy:
        url = proxy.url(login="user:p%40ss%3Aword@")
        async with opened(loopback(), proxy=url) as transport:
            await post(transport, receiver.url())
        [asked], [got] = proxy.asked, receiver.requests
    assert asked.headers["proxy-authorization"] == "Basic " + base64.b64encode(b"user:p@ss:word").decode()
    assert not [name for name in got.headers if "auth" in name]
    assert "ss:word" not in caplog.text
    assert "word" not in repr(parse_proxy(url, resolves=False))


async def test_a_kept_tunnel_closed_under_us_is_tried_again_at_once() -> None:
    """What holds for a receiver's connections holds through the proxy."""
    async with Receiver(answer(), then_close(b""), answer()) as receiver, EgressProxy() as proxy:
        async with opened(loopback(), proxy=proxy.url()) as transport:
            for _ in range(2):
                await post(transport, receiver.url())
        assert [got.connection for got in receiver.requests] == [1, 1, 2]
        assert len(proxy.asked) == 2


async def test_a_kept_tunnel_is_held_to_the_policy_as_it_stands() -> None:
    """A tunnel to what is no longer allowed carries nothing more, and no other is asked for."""
    guard = loopback()
    async with Receiver() as receiver, EgressProxy() as proxy:
        async with opened(guard, proxy=proxy.url()) as transport:
            await post(transport, receiver.url())
            guard.policy = PublicInternet()
            assert (await failure(transport, receiver.url())).code == "blocked_address"
        assert (len(receiver.requests), len(proxy.asked)) == (1, 1)


async def test_an_answer_of_another_version_and_with_a_length_is_one() -> None:
    """Old proxies say HTTP/1.0, and some give their empty answer a length."""
    for established in (
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ):
        async with (
            Receiver() as receiver,
            EgressProxy(established=established) as proxy,
            opened(loopback(), proxy=proxy.url()) as transport,
        ):
            for _ in range(2):
                assert (await post(transport, receiver.url())).status == 200


# What the guard refuses is not asked for ------------------------------------------------------------


@pytest.mark.parametrize("resolves", [False, True])
@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0", "1.1.1.1:22"),  # noqa: S104 - to refuse
        *("[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[fd00:ec2::254]", "[2002:7f00:1::]"),
        "named.test:22",
    ],
)
async def test_what_is_refused_is_refused_before_the_proxy_is_asked(host: str, resolves: bool) -> None:
    """Literals and ports are judged here, whoever looks names up: the proxy isn't even connected to."""
    names = Names(named_test=[["1.1.1.1"]])
    guard = Guard(PublicInternet())
    async with EgressProxy() as proxy:
        async with opened(guard, names=names, proxy=proxy.url(), resolves=resolves) as transport:
            error = await failure(transport, f"http://{host}/")
        assert proxy.connections == 0
    assert isinstance(error, Permanent)
    assert (error.code, error.message, error.timings) == ("blocked_address", REFUSAL, None)
    assert guard.refused == 1


@pytest.mark.parametrize("host", ["127.1", "2130706433", "127.0.0.01", "0177.0.0.1"])
async def test_no_odd_spelling_of_an_address_is_left_to_the_proxy(host: str) -> None:
    """What a proxy's resolver would take for an address is no name."""
    async with EgressProxy() as proxy:
        async with opened(loopback(), proxy=proxy.url(), resolves=True) as transport:
            error = await failure(transport, f"http://{host}/")
        assert proxy.connections == 0
    assert error.code == "invalid_destination"


async def test_only_the_allowed_of_several_addresses_is_asked_for() -> None:
    """A refused address beside an allowed one is not named to the proxy; alone it is refused."""
    names = Names(mixed_test=[["10.0.0.1", "::1", "127.0.0.1"]], rebound_test=[["127.0.0.1"], ["10.0.0.1"]])
    guard = Guard(PublicInternet(["127.0.0.1/32"]))
    async with Receiver() as receiver, EgressProxy() as proxy:
        async with opened(guard, names=names, proxy=proxy.url()) as transport:
            await post(transport, f"http://mixed.test:{receiver.port}/")
            await post(transport, f"http://rebound.test:{receiver.port}/")
            error = await failure(transport, "http://rebound.test/")
        assert [asked.authority for asked in proxy.asked] == [f"127.0.0.1:{receiver.port}"] * 2
    assert error.code == "blocked_address"


async def test_a_failing_look_up_asks_the_proxy_for_nothing() -> None:
    """A name that can't be looked up here is not left to the proxy unless that is wanted."""
    names = Names(broken_test=[RuntimeError("?")], empty_test=[[]])
    async with EgressProxy() as proxy:
        async with opened(loopback(), names=names, proxy=proxy.url()) as transport:
            for name in ("broken", "empty", "unknown"):
                error = await failure(transport, f"http://{name}.test/")
                assert (error.code, error.lane_fault) == ("dns_failed", True)
        assert proxy.connections == 0


# When the proxy is at fault, and when it is not -----------------------------------------------------


def status(code: int) -> Script:
    """Answer with a status and close."""
    return then_close(f"HTTP/1.1 {code} Scripted\r\nContent-Length: 4\r\n\r\nwhy?".encode())


@pytest.mark.parametrize(
    ("script", "code", "kind", "lane_fault"),
    [
        (status(403), "proxy_denied", Transient, True),
        (status(502), "connect_failed", Transient, True),
        (status(503), "connect_failed", Transient, True),
        (status(504), "connect_failed", Transient, True),
        (status(407), "proxy_refused", Unavailable, False),
        (status(500), "proxy_refused", Unavailable, False),
        (status(429), "proxy_refused", Unavailable, False),
        (status(302), "proxy_refused", Unavailable, False),
        (status(101), "proxy_refused", Unavailable, False),
        (then_close(b""), "proxy_refused", Unavailable, False),
        (then_reset(b""), "proxy_refused", Unavailable, False),
        (then_close(b"HTTP/1.1 200"), "proxy_refused", Unavailable, False),
        (then_hang(b"220 smtp.example ESMTP\r\n"), "proxy_refused", Unavailable, False),
        (endless(b"HTTP/1.1 200 OK\r\nX: ", b"h" * 65536), "proxy_refused", Unavailable, False),
        (endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000), "proxy_refused", Unavailable, False),
    ],
)
async def test_what_a_proxy_says_instead(
    script: Script, code: str, kind: type[DeliveryError], lane_fault: bool
) -> None:
    """What is about one receiver costs attempts; a proxy at fault costs none. None goes around it."""
    async with Receiver() as receiver, EgressProxy({}, script) as proxy:
        async with opened(loopback(), proxy=proxy.url(login="user:hunter2@")) as transport:
            error = await failure(transport, receiver.url())
            assert (error.code, type(error), error.lane_fault) == (code, kind, lane_fault)
            assert error.timings is not None
            assert (error.status_code, error.response) == (None, None)
            await post(transport, receiver.url())  # the next tunnel is none the worse for it
        assert len(receiver.requests) == 1
    for text in ("hunter2", "user", "127.0.0.1", "why?"):
        assert text not in error.message


async def test_the_next_address_is_asked_for_where_one_is_out_of_reach() -> None:
    """A proxy without IPv6, say, gets a receiver's other address, up to four; then the last answer counts."""
    names = Names(two_test=[["127.0.0.9", "127.0.0.1"]], many_test=[[f"127.0.1.{n}" for n in range(9)]])
    async with Receiver() as receiver, EgressProxy({}, status(503), status(403)) as proxy:
        async with opened(loopback(), names=names, proxy=proxy.url()) as transport:
            error = await failure(transport, f"http://two.test:{receiver.port}/")
            assert error.code == "proxy_denied"
            proxy.script(status(502))
            proxy.leads[f"127.0.0.9:{receiver.port}"] = (receiver.host, receiver.port)
            await post(transport, f"http://two.test:{receiver.port}/")
            proxy.script(*[status(502)] * 9)
            assert (await failure(transport, "http://many.test/")).code == "connect_failed"
        assert len(proxy.asked) == 2 + 2 + 4


async def test_a_proxy_that_is_not_there() -> None:
    """Refused, unknown, or silent at the door: it is unreachable, and no job pays for it."""
    async with Receiver() as receiver:
        async with EgressProxy() as gone:
            pass
        for url in (gone.url(), gone.url(host="nowhere.test")):
            async with opened(loopback(), names=Names(), proxy=url) as transport:
                error = await failure(transport, receiver.url())
            assert (error.code, type(error), error.lane_fault) == ("proxy_unreachable", Unavailable, False)
            assert str(gone.port) not in error.message
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        with full, socket.create_connection(full.getsockname()):
            url = f"http://127.0.0.1:{full.getsockname()[1]}"
            async with opened(loopback(), proxy=url) as transport:
                error = await failure(transport, receiver.url(), seconds=0.2)
        assert (error.code, type(error)) == ("proxy_unreachable", Unavailable)
        assert receiver.connections == 0


async def test_a_receiver_that_hangs_behind_the_proxy_is_the_one_at_fault() -> None:
    """A proxy that still tries to reach it at the deadline does its work: the attempt is spent."""
    async with EgressProxy({}, then_hang(b"")) as proxy, opened(loopback(), proxy=proxy.url()) as transport:
        error = await failure(transport, "http://127.0.0.1:9/", seconds=0.2)
    assert (error.code, type(error), error.lane_fault) == ("timeout", Transient, True)
    async with (
        Receiver(then_hang(b"")) as receiver,
        EgressProxy() as proxy,
        opened(loopback(), proxy=proxy.url()) as transport,
    ):
        assert isinstance(await failure(transport, receiver.url(), seconds=0.2), Unknown)


@pytest.mark.parametrize("amid", ["tunnel", "tls"])
async def test_cancelling_amid_a_tunnel_closes_it(amid: str) -> None:
    """Nothing is left of a connection that was being made."""
    gone = asyncio.Event()

    async def hang(line: Any) -> None:
        if amid == "tls":
            await line.write(b"HTTP/1.1 200 OK\r\n\r\n")
        waiting.set()
        await line.gone()
        gone.set()

    waiting = asyncio.Event()
    async with EgressProxy({}, hang) as proxy, opened(loopback(), proxy=proxy.url()) as transport:
        sending = asyncio.create_task(post(transport, "https://127.0.0.1:9/"))
        await waiting.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await gone.wait()


async def test_what_a_proxy_says_beyond_its_answer_is_not_the_receivers() -> None:
    """An answer that came before the question is not taken for one."""
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    proxy = EgressProxy({}, raw(b"HTTP/1.1 200 OK\r\n\r\n" + forged))
    async with proxy, opened(loopback(), proxy=proxy.url()) as transport:
        error = await failure(transport, "http://127.0.0.1:9/", seconds=0.2)
    assert isinstance(error, Unknown)


def test_a_socket_is_only_made_for_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a proxy declared, every socket of a run of deliveries leads to it."""
    dialled: list[tuple[str, int]] = []

    def noting(make: Callable[[AddressInfo], socket.socket]) -> Callable[[AddressInfo], socket.socket]:
        def made(info: AddressInfo) -> socket.socket:
            dialled.append(info[4][:2])
            return make(info)

        return made

    async def run() -> int:
        async with Receiver() as receiver, EgressProxy() as proxy:
            async with opened(loopback(), names=named(), proxy=proxy.url(host="proxy.test")) as transport:
                await post(transport, receiver.url())
                await post(transport, f"http://other.test:{receiver.port}/")
                await failure(transport, "http://127.0.0.1:9/")
                await failure(transport, "http://10.0.0.1/")
            return proxy.port

    monkeypatch.setattr("notifier.channels.egress.new_socket", noting(lambda info: socket.socket(*info[:3])))
    monkeypatch.setattr("notifier.channels.guard.new_socket", noting(lambda info: socket.socket(*info[:3])))
    port = asyncio.run(run())
    assert set(dialled) == {("127.0.0.1", port)}
