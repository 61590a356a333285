"""What `notifier bench` makes of its numbers, and the two ends that it measures between."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter

import pytest
from click.testing import CliRunner

from notifier.bench import BenchError
from notifier.bench.child import Child
from notifier.bench.disk import check_room
from notifier.bench.events import DATA, MARK, SLOT, array, event
from notifier.bench.figures import Latency, Spread, percentile
from notifier.bench.load import Load
from notifier.bench.receivers import LOOPBACK, RECEIVERS, Mails, listening, number_in, webhooks
from notifier.bench.stage import set_up
from notifier.bench.turns import TURNS, Plan
from notifier.bench.usage import cores, usage_of
from notifier.bench.verdict import Busy, Facts, Limit, Places, judge, reckoned
from notifier.bench.wire import Line, message_end, request
from notifier.cli import main
from notifier.config import Config, load_config, parse_config
from notifier.ingest import parse_json

# Figures -----------------------------------------------------------------------------------------

HUNDRED = [*map(float, range(1, 101))]


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [
        ([7.0], 0.99, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        *[
            (HUNDRED, share, found)
            for share, found in ((0, 1), (0.01, 1), (0.99, 99), (0.995, 100), (1, 100))
        ],
    ],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], share: float, found: float) -> None:
    """By the nearest rank: nothing is made up between two values, nor beyond the last."""
    assert percentile(values, share) == found


def test_figures_are_told_with_what_they_lie_between() -> None:
    """A median with its least and most; times in milliseconds, however they came in."""
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Latency.of([0.004, 0.001, 0.002]) == Latency(2.0, 4.0, 3)


@pytest.mark.parametrize("make", [lambda: Spread.of([]), lambda: Spread.of([0.0]), lambda: Latency.of([])])
def test_nothing_measured_is_no_figure(make: Callable[[], object]) -> None:
    """It says what to do instead of dividing by nought."""
    with pytest.raises(BenchError, match="--seconds"):
        make()


# What limits -------------------------------------------------------------------------------------

IDLE = Busy(0.2, 0.05)


def facts(
    server: Busy | None = IDLE,
    load: Busy | None = IDLE,
    *,
    sync_ms: float = 0.2,
    places: tuple[Places, ...] = (),
    gain: float = 0.0,
) -> Facts:
    """A thousand a second, each request answered in 10 ms, on two cores."""
    return Facts(
        rate=1000.0,
        server=server,
        load=load,
        cores=2,
        sync_ms=sync_ms,
        accept_ms=10.0,
        places=places,
        array_gain=gain,
    )


WORKERS_FULL = Places(Limit.WORKERS, 64, 60.0)
SESSIONS_FULL = Places(Limit.CONNECTIONS, 10, 9.6)


@pytest.mark.parametrize(
    ("given", "limit", "said"),
    [
        (facts(Busy(0.97, 0.02), Busy(0.9, 0.1)), Limit.CORE, "one core busy (97%)"),
        (facts(Busy(0.97, 0.02), sync_ms=9.0), Limit.CORE, "the server"),
        (facts(Busy(0.5, 0.4)), Limit.MACHINE, "the server runs 50% of the time, and waits another 40%"),
        (facts(load=Busy(0.95, 0.0)), Limit.LOAD, "95%"),
        (facts(load=Busy(0.5, 0.45)), Limit.MACHINE, "the load runs 50%"),
        (facts(sync_ms=5.0), Limit.DISK, "a sync takes 5 ms, an answer 10 ms"),
        (facts(places=(WORKERS_FULL,)), Limit.WORKERS, "60 of 64 workers are taken, 60 ms by each"),
        (facts(places=(SESSIONS_FULL, WORKERS_FULL)), Limit.CONNECTIONS, "10 of 10 connections"),
        (facts(sync_ms=30.0, places=(WORKERS_FULL,)), Limit.DISK, "30 of the 60 ms"),
        (facts(places=(Places(Limit.WORKERS, 64, 20.0),)), Limit.UNKNOWN, "not busy (20%)"),
        (facts(Busy(0.4, 0.3)), Limit.MACHINE, "the server runs 40%"),
        (facts(load=Busy(0.4, 0.3), sync_ms=5.0), Limit.DISK, "a sync"),
        (facts(None, None), Limit.UNKNOWN, "does not tell"),
        (facts(None, None, places=(WORKERS_FULL,)), Limit.WORKERS, "60 of 64"),
    ],
)
def test_the_limit_is_what_is_used_up(given: Facts, limit: Limit, said: str) -> None:
    """The server's core before anything that waits for it; then cores, the load, places, and the disk."""
    verdict = judge(given)
    assert verdict.limit is limit
    assert said in verdict.because
    assert verdict.helps


def test_arrays_are_advised_where_they_spare_the_core() -> None:
    """And only by as much as they were measured to."""
    busy = Busy(0.97, 0.0)
    assert judge(facts(busy, gain=4.12)).helps.startswith("to post arrays (4.1 times")
    assert "arrays" not in judge(facts(busy, gain=0.9)).helps
    assert "arrays" not in judge(facts(sync_ms=5.0, gain=4.0)).helps


def test_real_receivers_are_reckoned_with() -> None:
    """64 at once, 200 ms each: 320 a second; never more than this machine does with instant ones."""
    by_time = {each.takes_ms: each.at_most for each in reckoned("webhook", 64, measured=1000.0)}
    assert by_time == {50: 1000.0, 200: 320.0, 1000: 64.0}


def test_a_process_is_told_what_it_used() -> None:
    """In all its threads, ended ones too; a process that isn't there is not known."""
    used = usage_of(os.getpid())
    assert used is not None
    assert used.cpu == pytest.approx(time.process_time(), abs=0.5)
    assert usage_of(2**22 + 1) is None
    assert cores() >= 1


# Time --------------------------------------------------------------------------------------------


class Told:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.seconds = 0.0

    def begin(self, what: str) -> None:
        """See `Watcher`."""
        self.begun.append(what)

    def advance(self, seconds: float) -> None:
        """See `Watcher`."""
        self.seconds += seconds


async def test_the_seconds_are_shared_out_and_the_warm_up_is_not_counted() -> None:
    """All turns together take what was planned; the first turn's result is dropped."""
    told, done = Told(), []

    async def work(seconds: float) -> int:
        done.append(seconds)
        return len(done)

    plan = Plan(60.0, {"a": 1.0, "b": 3.0}, told)
    assert await plan.turns("a").take(work) == [*range(2, 2 + TURNS)]
    assert sum(done) == pytest.approx(15.0)
    await plan.turns("b").take(work)
    assert told.begun == ["a", "b"]
    assert told.seconds == pytest.approx(60.0)


def test_too_small_a_disk_is_not_filled(tmp_path: Path) -> None:
    """What it would write is known before; somebody's store is on that disk."""
    check_room(tmp_path, 0.0)
    with pytest.raises(BenchError, match="MiB are free"):
        check_room(tmp_path, 1e9)


# What the measured server runs with --------------------------------------------------------------

SECRETS = ("p4ss", "hook-secret", "key-of-an-admin", "key-of-an-app", "mx.example.com", "proxy.example.com")


USERS = """
plugins = ["never_imported"]
[server]
host = "0.0.0.0"
max_body = "2MiB"
public_url = "https://notify.example.com"
[auth]
admin_keys = ["key-of-an-admin"]
ingest_keys = ["key-of-an-app"]
[workers]
concurrency = 7
claim_timeout = "1500ms"
[retry]
schedule = []
[breaker]
open_for = ["5s"]
[channels.webhook]
timeout = "3s"
proxy = "http://u:p4ss@proxy.example.com:3128"
[channels.email]
inline_css = false
[channels.email.dkim]
selector = "s1"
key_file = "nowhere.pem"
[[channels.email.relays]]
host = "mx.example.com"
username = "u"
password = "p4ss"
connections = 3
[[lanes]]
lane = "webhook:*"
rate_limit = 1
[[routes]]
event = "*"
channel = "webhook"
url = "https://mx.example.com/"
secret = "hook-secret"
"""
"""A configuration that has something to lose."""


def staged(folder: Path) -> Config:
    """What a server runs with that is measured on the user's configuration."""
    set_up(folder, parse_config(USERS), key="made-up", hooks=[1, 2], relay=3)
    return load_config(folder / "config.toml", {})


def test_settings_that_make_a_difference_are_kept(tmp_path: Path) -> None:
    """Workers, schedules, limits and the number of connections are the user's."""
    config, made = parse_config(USERS), staged(tmp_path)
    assert (made.workers, made.retry, made.breaker) == (config.workers, config.retry, config.breaker)
    assert made.server.max_body == 2 * 1024**2
    assert made.channels.webhook.timeout == config.channels.webhook.timeout
    assert made.channels.email.relays[0].connections == 3
    assert not made.channels.email.inline_css


def test_where_settings_lead_is_not_kept(tmp_path: Path) -> None:
    """Addresses, keys and secrets are the measurement's own, and nothing of the user's stands anywhere."""
    made = staged(tmp_path)
    text = (tmp_path / "config.toml").read_text()
    assert not [secret for secret in SECRETS if secret in text]
    assert (made.server.host, made.server.port) == (LOOPBACK, 0)
    assert made.auth.ingest_keys == ("made-up",)
    hooks = [f"http://{LOOPBACK}:1/hook", f"http://{LOOPBACK}:2/hook"]
    assert [route.url for route in made.routes if route.url] == hooks
    (relay,) = made.channels.email.relays
    assert (relay.host, relay.port, relay.tls) == (LOOPBACK, 3, "none")
    assert b"PRIVATE KEY" in (tmp_path / "dkim.pem").read_bytes()
    assert not made.plugins
    assert not made.lanes


async def test_a_server_that_does_not_start_is_told_with_its_own_words(tmp_path: Path) -> None:
    """As where a library is missing, or a port can't be had."""
    (tmp_path / "config.toml").write_text("nope = 1")
    with pytest.raises(BenchError, match=r"did not start \(the server: notifier: nope: unknown key"):
        async with Child(tmp_path):
            pass


# The two ends ------------------------------------------------------------------------------------


def test_events_are_understood_and_about_500_bytes() -> None:
    """What is posted is what the server takes, alone and in arrays."""
    one = event("webhook", 3)
    assert 450 <= len(one) <= 650
    assert DATA.count(SLOT) == 1
    (incoming,), _ = parse_json(one)
    assert incoming.event.type == "bench.webhook.3"
    many, is_array = parse_json(array(event("webhook", 0, later=True), 5))
    assert is_array
    assert all(each.event.deliver_at for each in many)


def test_a_request_carries_its_number() -> None:
    """The bytes change nowhere but there."""
    made = request("/v1/events", "h:1", event("email", 0), key="k")
    sent = made.numbered(42)
    assert len(sent) == message_end(sent)
    assert number_in(sent) == 42
    assert b"\r\nAuthorization: Bearer k\r\n" in sent


@pytest.mark.parametrize(
    ("message", "number"), [(MARK + b"000000000007", 7), (b"nothing", None), (MARK + b"x", None)]
)
def test_only_what_is_marked_has_a_number(message: bytes, number: int | None) -> None:
    """Whoever else posts to a receiver is answered, and counts for nothing."""
    assert number_in(message) == number


def test_a_message_ends_where_it_says() -> None:
    """However its header is spelled; a piece of one is waited for, and one without a length is refused."""
    whole = b"HTTP/1.1 202 Accepted\r\nCONTENT-LENGTH: 2\r\n\r\n{}"
    assert message_end(whole + b"HTTP") == len(whole)
    assert message_end(whole[:-1]) == 0
    assert message_end(whole[:30]) == 0
    with pytest.raises(BenchError, match="length"):
        message_end(b"HTTP/1.1 202 Accepted\r\n\r\n{}")


class Server(Line):
    """Answers every request so, and has what it caused arrive at once."""

    def __init__(self, text: bytes, load: Load) -> None:
        super().__init__()
        self._text = text
        self._load = load

    def message(self, message: bytes) -> None:
        """See `Line`."""
        self.transport.write(self._text)
        if (number := number_in(message)) is not None:
            self._load.arrived(number)


@asynccontextmanager
async def loaded(load: Load, text: bytes, connections: int) -> AsyncIterator[None]:
    """Have a load connected to such a server."""
    async with (
        listening(lambda: Server(text, load), 1) as (port,),
        load.connected(port, REQUESTS, connections=connections),
    ):
        yield


ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"
REQUESTS = [request("/v1/events", "h", event("webhook", number)) for number in range(RECEIVERS)]


async def test_a_load_times_answers_and_arrivals() -> None:
    """Flat out and at a steady rate: each request once, and an arrival never lies before its answer."""
    load = Load(arrives=True)
    async with loaded(load, ACCEPTED, 4):
        load.flat_out(8)
        await load.watch(0.05)
        await load.land()
        assert len(load.accept_seconds) == len(load.deliver_seconds) > 0
        assert min(load.deliver_seconds) >= 0
        load.reset()
        began = perf_counter()
        load.steady(400.0)
        await load.watch(0.1)
        await load.land()
        assert 0 < len(load.accept_seconds) <= 400 * (perf_counter() - began)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull", "answered 503 .*: full"),
        (b"HTTP/1.1 202 Accepted\r\n\r\n", "was lost: a message without a length"),
    ],
)
async def test_a_load_ends_at_the_first_thing_that_goes_wrong(text: bytes, said: str) -> None:
    """What the server said is told; the rest would mean nothing."""
    load = Load(arrives=False)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # that a protocol raised is told as what it raised
    async with loaded(load, text, 1):
        load.flat_out(1)
        with pytest.raises(BenchError, match=said):
            await load.watch(30.0)
        with pytest.raises(BenchError, match=said):
            await load.land()


async def test_webhooks_are_answered_and_told_of() -> None:
    """Several in one piece, on each of the ports."""
    arrived: list[int] = []
    async with webhooks(arrived.append) as ports:
        assert len(set(ports)) == RECEIVERS
        reader, writer = await asyncio.open_connection(LOOPBACK, ports[-1])
        writer.write(REQUESTS[0].numbered(1) + REQUESTS[0].numbered(2))
        for _ in range(2):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
    assert arrived == [1, 2]


async def test_mails_are_taken_and_told_of() -> None:
    """Commands in one piece or in several; a session is busy from MAIL to the answer to its dot."""
    arrived: list[int] = []
    mails = Mails(arrived.append)
    async with mails.listening():
        reader, writer = await asyncio.open_connection(LOOPBACK, mails.port)

        async def say(text: bytes, code: bytes) -> None:
            writer.write(text)
            while not re.match(rb"\d{3} ", line := await reader.readline()):
                pass
            assert line.startswith(code)

        await say(b"", b"220")
        await say(b"EHLO me\r\n", b"250")
        for number in (5, 6):
            writer.write(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n")
            await say(b"DA", b"250")
            await say(b"TA\r\n", b"250")
            assert (await reader.readline()).startswith(b"354")
            assert await mails.sessions_busy() == 1
            await say(b"Subject: %b%012d\r\n\r\nHi\r\n.\r\n" % (MARK, number), b"250")
            assert await mails.sessions_busy() == 0
        await say(b"QUIT\r\n", b"221")
        assert await reader.read() == b""
        writer.close()
    assert arrived == [5, 6]


# The command's manners ---------------------------------------------------------------------------


def test_too_short_a_measurement_is_a_usage_error() -> None:
    """Exit code 2, and one line that says what would do."""
    result = CliRunner().invoke(main, ["bench", "--seconds", "0.5"])
    assert result.exit_code == 2
    assert "1<=x<=3600" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["sqlite:////proc/notifier.db", "sqlite:///nowhere/notifier.db"])
def test_a_folder_that_takes_nothing_is_one_clear_line(tmp_path: Path, url: str) -> None:
    """Exit code 1, the folder named; nothing is started."""
    (tmp_path / "config.toml").write_text(f'[store]\nurl = "{url}"\n')
    result = CliRunner().invoke(main, ["bench", "--config", str(tmp_path / "config.toml")])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"notifier: /\S+: the store's folder can't be written to: .+\n", result.stderr)
