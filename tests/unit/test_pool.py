"""What workers make of a job: every outcome is written down, and nothing that is raised ends a worker."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from support.builders import LANE, NOW, endpoint, event_record, failed_job, job
from support.clock import Clock
from support.stores import claim_just
from support.watched_store import WatchedStore

from notifier.channels import Channel, FunctionChannel, Message, Receipt
from notifier.config import Config, Duration, Retry, Route, Workers
from notifier.dispatch import settler
from notifier.dispatch.deliverer import Deliverer
from notifier.dispatch.lanes import BREAKER_OPEN, PAUSED, RETRY_AFTER, Stop
from notifier.dispatch.limits import UNLIMITED, Limits
from notifier.dispatch.pool import WorkerPool
from notifier.dispatch.queue import FairQueue
from notifier.errors import (
    Bounced,
    DeliveryError,
    Permanent,
    StoreUnavailableError,
    Transient,
    Unavailable,
    Unknown,
)
from notifier.metrics import Metrics
from notifier.model import (
    Attempt,
    Claim,
    Endpoint,
    EventRecord,
    Job,
    JobError,
    JobState,
    Outcome,
    Suppression,
    SuppressionReason,
)
from notifier.rendering import Renderer
from notifier.routing import Router
from notifier.store.base import Submission
from notifier.suppressions import Suppressions
from notifier.unsubscribing import Unsubscribing

pytestmark = pytest.mark.timeout(30)
PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState
UNSUBSCRIBED = SuppressionReason.UNSUBSCRIBED

Deliver = Callable[[Message], Awaitable[Any]]


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[Any]]:
    """What was logged, in place of the terminal."""
    caplog.set_level(logging.CRITICAL)
    with structlog.testing.capture_logs() as entries:
        yield entries


class Told:
    """Stands in for the endpoints: has those that the test puts in, and keeps what it is told of them."""

    def __init__(self) -> None:
        self.known: dict[str, Endpoint] = {}
        self.told: list[tuple[str, str]] = []
        self.fails = False

    def get(self, endpoint_id: str) -> Endpoint | None:
        """Return an endpoint."""
        return self.known.get(endpoint_id)

    async def delivered(self, endpoint_id: str, now: float) -> None:
        """Note a success."""
        self._note(endpoint_id, "delivered", now)

    async def failed(
        self, endpoint_id: str, error: DeliveryError, now: float, *, breaker_opened: bool
    ) -> None:
        """Note a failure, and an opening."""
        self._note(endpoint_id, error.code, now)
        if breaker_opened:
            self._note(endpoint_id, "breaker", now)

    def _note(self, endpoint_id: str, what: str, now: float) -> None:
        assert now == NOW
        if self.fails:
            raise RuntimeError("no news today")
        self.told.append((endpoint_id, what))


class Shop:
    """Workers at a real store, with one channel that does as the test says."""

    def __init__(self, folder: Path, workers: int = 4) -> None:
        self.clock = Clock()
        self.store = WatchedStore(folder / "notifier.db")
        self.queue = FairQueue(capacity=256, workers=workers)
        self.metrics = Metrics()
        self.delivered: list[Message] = []
        self.deliver: Deliver = self.accept
        self.channel = FunctionChannel("webhook", self._deliver, timeout=60)
        self.channels: dict[str, Channel] = {"webhook": self.channel, "email": self.channel}
        self.retries: list[float] = []
        self.endpoints = Told()
        retry = Retry(schedule=(Duration(5), Duration(300)), jitter=0)
        routes = (
            Route(name="erp", event="order.*", channel="webhook", url="{{ data.url }}"),
            Route(name="once", event="mail.*", channel="email", to="{{ data.to }}", on_unknown="fail"),
        )
        self.config = Config(workers=Workers(concurrency=workers), retry=retry, routes=routes)
        self.router = Router(routes, retry, dict.fromkeys(self.channels, self.channel.lane))
        self.suppressions = Suppressions(self.store, self.clock, after=2)
        self.unsubscribing = Unsubscribing("key", "https://notify.example.com")
        self.pool = WorkerPool(
            config=self.config,
            queue=self.queue,
            store=self.store,
            deliverer=self._deliverer(folder),
            router=self.router,
            clock=self.clock,
            random=lambda: 0.5,
            metrics=self.metrics,
            endpoints=self.endpoints,
            suppressions=self.suppressions,
            on_due=lambda _lane, _priority, at: self.retries.append(at),
        )

    def _deliverer(self, folder: Path) -> Deliverer:
        return Deliverer(
            config=self.config,
            store=self.store,
            channels=self.channels,
            router=self.router,
            renderer=Renderer(folder / "templates"),
            endpoints=self.endpoints,
            suppressions=self.suppressions,
            unsubscribing=self.unsubscribing,
        )

    async def _deliver(self, message: Message) -> Receipt:
        self.delivered.append(message)
        receipt: Receipt = await self.deliver(message)
        return receipt

    async def accept(self, _message: Message) -> Receipt:
        """Take it."""
        return Receipt(status_code=204, response="thanks")

    def raises(self, error: BaseException) -> None:
        """Have every delivery raise this."""

        async def deliver(_message: Message) -> None:
            raise error

        self.deliver = deliver

    async def put(self, of: EventRecord | None = None, **changes: Any) -> Claim:
        """Store a job, claim it, and put it before the workers."""
        event = of or event_record()
        made = changes.pop("made", None) or job(event, **changes)
        await self.store.add([Submission(event, (made,))])
        if made.status is FAILED:
            await self.store.requeue(made.id, NOW)
        (taken,) = await claim_just(self.store, made.id)
        claim = Claim(taken.job, event)
        self.queue.put(claim)
        return claim

    async def attempted(self, of: EventRecord | None = None, **changes: Any) -> tuple[Job, list[Attempt]]:
        """Have one job attempted; returns it and its attempts as the store has them then."""
        settled = self.store.calls["settle"]
        claim = await self.put(of, **changes)
        await self.store.called("settle", settled + 1)
        await self.idle()
        return await self.store.job(claim.job.id), await self.store.attempts(claim.job.id)

    async def idle(self) -> None:
        """Wait until no worker is at an attempt, and every outcome is written."""
        left = asyncio.Event()
        self.queue.on_room = lambda _lane: left.set()
        while not all(map(self.queue.is_waiting, self.queue.claims.values())):
            await left.wait()
            left.clear()

    def counted(self, name: str, **labels: str) -> float:
        """The value of a metric."""
        return self.metrics.registry.get_sample_value(f"notifier_{name}_total", labels) or 0


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """Four workers that wait for work; all of them must live to the end."""
    made = Shop(tmp_path)
    await made.store.open(NOW)
    made.pool.start()
    await asyncio.sleep(0)
    yield made
    assert made.pool.dead == 0 or not made.pool._workers
    await made.pool.drain(0)
    await made.store.close()


# Outcomes ------------------------------------------------------------------------------------------


async def test_a_delivered_job_is_completed_with_what_the_receiver_said(shop: Shop) -> None:
    """The job, and one attempt that tells when, how long, and the answer."""
    done, (attempt,) = await shop.attempted()
    assert (done.status, done.attempts, done.error) == (COMPLETED, 1, None)
    assert (attempt.outcome, attempt.status_code, attempt.response) == (Outcome.DELIVERED, 204, "thanks")
    assert attempt.started_at == NOW
    assert 0 <= attempt.duration_ms < 10_000


async def test_a_transient_error_is_tried_again_on_the_schedule(shop: Shop) -> None:
    """The dispatcher hears when; the job keeps its error to show; the attempt is spent."""
    shop.raises(Transient("the receiver answered 503", code="http_503", status_code=503, response="busy"))
    waits, (attempt,) = await shop.attempted()
    assert (waits.status, waits.attempts, waits.next_attempt_at) == (PENDING, 1, NOW + 5)
    assert waits.error == JobError("http_503", "the receiver answered 503")
    assert (attempt.outcome, attempt.status_code, attempt.response) == (Outcome.RETRY, 503, "busy")
    assert shop.retries == [NOW + 5]


async def test_a_permanent_error_fails_the_job(shop: Shop) -> None:
    """At once, and with nothing more to come."""
    shop.raises(Permanent("no such mailbox", code="smtp_550", status_code=550))
    failed, (attempt,) = await shop.attempted()
    assert (failed.status, failed.attempts, failed.next_attempt_at) == (FAILED, 1, None)
    assert (attempt.outcome, attempt.error) == (Outcome.FAILED, JobError("smtp_550", "no such mailbox"))
    assert not shop.retries


async def test_an_unknown_outcome_is_recorded_as_one(shop: Shop) -> None:
    """The receiver may have it."""
    shop.raises(Unknown("no answer came"))
    waits, (attempt,) = await shop.attempted()
    assert (waits.status, attempt.outcome) == (PENDING, Outcome.UNKNOWN)


async def test_the_channel_gets_all_that_it_needs(shop: Shop) -> None:
    """The job and its event as they stand, under the id that stays the same."""
    claim = await shop.put()
    await shop.store.called("settle")
    (message,) = shop.delivered
    assert (message.id, message.job, message.event) == (claim.job.id, claim.job, claim.event)
    assert message.data == {"total": 120}


# Whatever a channel raises -------------------------------------------------------------------------


class OddError(Exception):
    """An error that no one has heard of."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad luck"),
        OddError("bad luck"),
        SystemExit("bad luck"),
        KeyboardInterrupt("bad luck"),
        asyncio.CancelledError("bad luck"),
        StopAsyncIteration("bad luck"),
        RecursionError("bad luck"),
        MemoryError("bad luck"),
        TimeoutError("bad luck"),
        BaseExceptionGroup("bad luck", [KeyboardInterrupt()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_anything_that_a_channel_raises_is_recorded(
    shop: Shop, error: BaseException, logged: list[Any]
) -> None:
    """Its type is the cause, its traceback is in the log, and the worker goes on to the next job."""
    shop.raises(error)
    waits, (attempt,) = await shop.attempted()
    assert waits.status is PENDING
    assert attempt.error is not None
    assert attempt.error.code == type(error).__name__
    assert "bad luck" in attempt.error.message
    assert logged[0]["exc_info"] is error
    shop.deliver = shop.accept
    for _ in range(8):
        done, _ = await shop.attempted()
        assert done.status is COMPLETED
    assert shop.pool.dead == 0


class _NotWords(Exception):  # noqa: N818 - it is no error that anyone means to raise
    """An exception that can't even be told of."""

    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    "error",
    [
        Transient(ValueError("an exception for a message")),  # type: ignore[arg-type]  # as plugins do
        Transient("a header for seconds", retry_after="120"),  # type: ignore[arg-type]
        _NotWords(),
    ],
)
async def test_an_error_that_makes_no_sense_costs_an_attempt_all_the_same(
    shop: Shop, error: Exception
) -> None:
    """What can't be written down is replaced by why; the job isn't tried for ever behind everyone's back."""
    shop.raises(error)
    waits, (attempt,) = await shop.attempted()
    assert (waits.status, waits.attempts) == (PENDING, 1)
    assert attempt.outcome is Outcome.RETRY


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Permanent("a text for a number", status_code="five"), "permanent"),  # type: ignore[arg-type]
        (Permanent("no text", code="\ud800"), "?"),
        (Permanent("a number", code=404), "404"),  # type: ignore[arg-type]
        (Permanent("endless", code="x" * 1000), "x" * 64),
    ],
)
async def test_what_a_channel_says_is_kept_as_far_as_it_can_be(
    shop: Shop, error: DeliveryError, code: str
) -> None:
    """Its meaning counts, whatever its code looks like."""
    shop.raises(error)
    failed, (attempt,) = await shop.attempted()
    assert failed.status is FAILED
    assert failed.error is not None
    assert (failed.error.code, attempt.status_code) == (code, None)


async def test_what_was_claimed_too_late_for_its_lane_is_pending_again(shop: Shop) -> None:
    """Until the lane goes on, and without an attempt spent."""
    shop.queue.stop(LANE, Stop(PAUSED, "the relay is down", NOW + 30), 30)
    shop.queue.put = lambda claim: shop.queue.take_in([claim])  # type: ignore[method-assign]  # as the dispatcher
    claim = await shop.put()
    await shop.store.called("settle")
    job_ = await shop.store.job(claim.job.id)
    assert (job_.status, job_.attempts, job_.next_attempt_at) == (PENDING, 0, NOW + 30)
    assert not shop.delivered


@pytest.mark.parametrize("given", ["250 OK", 250.5, 2**70, -1, True])
async def test_a_receipt_is_a_delivery_whatever_its_code(shop: Shop, given: Any) -> None:
    """What was taken must not be sent again because its receipt can't be written down."""

    async def deliver(_message: Message) -> Receipt:
        return Receipt(status_code=given)

    shop.deliver = deliver
    done, (attempt,) = await shop.attempted()
    assert (done.status, attempt.status_code) == (COMPLETED, None)


async def test_a_channel_that_cancels_itself_costs_no_worker(shop: Shop) -> None:
    """Only a drain ends a worker; a cancellation that a channel aims at its own task is its failure."""

    async def deliver(_message: Message) -> Receipt:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return Receipt()

    shop.deliver = deliver
    waits, _ = await shop.attempted()
    assert (waits.status, waits.attempts, shop.pool.dead) == (PENDING, 1, 0)


async def test_a_worker_cancelled_from_outside_ends_and_gives_its_job_back(shop: Shop) -> None:
    """A program that ends without a drain cancels all tasks: a worker that went on would hang it."""
    begun = asyncio.Event()

    async def deliver(_message: Message) -> Receipt:
        begun.set()
        await asyncio.Event().wait()
        return Receipt()

    shop.deliver = deliver
    claim = await shop.put()
    await begun.wait()
    for worker in shop.pool._workers:
        worker.cancel()
    await asyncio.wait(shop.pool._workers)
    given_back = await shop.store.job(claim.job.id)
    assert (given_back.status, given_back.attempts) == (PENDING, 0)
    await shop.pool.drain(0)


async def test_a_channel_that_ends_like_a_generator_costs_no_worker(shop: Shop) -> None:
    """GeneratorExit from a channel is an exception like any other."""
    shop.raises(GeneratorExit())
    waits, _ = await shop.attempted()
    assert (waits.status, waits.attempts, shop.pool.dead) == (PENDING, 1, 0)


@pytest.mark.parametrize("answer", [None, "ok", 204, {"status": "sent"}])
async def test_a_channel_that_returns_no_receipt_is_taken_at_its_word(shop: Shop, answer: Any) -> None:
    """It returned, so it delivered."""

    async def deliver(_message: Message) -> Any:
        return answer

    shop.channel.deliver = deliver  # type: ignore[assignment, method-assign]  # what a class may do
    done, (attempt,) = await shop.attempted()
    assert done.status is COMPLETED
    assert (attempt.status_code, attempt.response) == (None, None)


async def test_a_receipt_with_bytes_for_a_text_counts_as_delivered(shop: Shop) -> None:
    """A receiver that has it must not get it again because its answer was of the wrong type."""

    async def deliver(_message: Message) -> Receipt:
        return Receipt(response=b"queued")  # type: ignore[arg-type]

    shop.deliver = deliver
    done, (attempt,) = await shop.attempted()
    assert done.status is COMPLETED
    assert attempt.response is not None
    assert "queued" in attempt.response


async def test_a_response_is_kept_to_its_first_kib(shop: Shop) -> None:
    """And made to be stored: no NUL, no lone surrogate."""

    async def deliver(_message: Message) -> Receipt:
        return Receipt(response="\0\ud800" + "x" * 5000)

    shop.deliver = deliver
    _, (attempt,) = await shop.attempted()
    assert attempt.response == "\ufffd?" + "x" * 1022


async def test_a_channel_that_never_ends_is_given_up(shop: Shop) -> None:
    """After its time the attempt is over, and recorded as a timeout."""
    shop.channel.timeout = 0.01
    cancelled = asyncio.Event()

    async def deliver(_message: Message) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    shop.deliver = deliver
    waits, (attempt,) = await shop.attempted()
    assert cancelled.is_set()
    assert (waits.status, attempt.outcome) == (PENDING, Outcome.RETRY)
    assert attempt.error == JobError("timeout", "no end within 0.01 s")


async def test_a_channel_may_keep_its_own_time(shop: Shop) -> None:
    """One that names no time delivers like any other."""
    shop.channel.timeout = None
    done, _ = await shop.attempted()
    assert done.status is COMPLETED


@pytest.mark.parametrize("seconds", [60, None])
async def test_a_timeout_of_the_channels_own_is_not_told_as_ours(shop: Shop, seconds: float | None) -> None:
    """A connection that timed out says so, and doesn't claim that the channel's whole time was over."""
    shop.channel.timeout = seconds
    shop.raises(TimeoutError("Connect call failed"))
    _, (attempt,) = await shop.attempted()
    assert attempt.error == JobError("TimeoutError", "TimeoutError: Connect call failed")


async def test_a_job_of_a_channel_that_is_gone_fails(shop: Shop) -> None:
    """A plugin was uninstalled: the operator is told which; the job can be requeued when it is back."""
    failed, (attempt,) = await shop.attempted(channel="sms")
    assert failed.status is FAILED
    assert attempt.error == JobError("unknown_channel", "no channel 'sms' is registered any more")


# Templates and destinations ------------------------------------------------------------------------


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A template's folder, empty."""
    folder = tmp_path / "templates" / "welcome"
    folder.mkdir(parents=True)
    return folder


async def test_a_template_that_lacks_a_variable_fails_its_job_at_once(shop: Shop, template: Path) -> None:
    """With the file, the line and the variable's name; nothing is sent, and siblings go out."""
    (template / "subject.txt").write_text("Welcome")
    (template / "body.html").write_text("<p>Hello</p>\n\n<p>{{ data.name }}</p>\n")
    event = event_record()
    failed, (attempt,) = await shop.attempted(event, template="welcome")
    assert (failed.status, failed.attempts) == (FAILED, 1)
    assert attempt.outcome is Outcome.FAILED
    assert failed.error is not None
    assert failed.error.code == "template_error"
    assert failed.error.message.startswith("welcome/body.html, line 3: ")
    assert "data.name" in failed.error.message
    assert not shop.delivered
    sibling, _ = await shop.attempted(event_record())
    assert sibling.status is COMPLETED


@pytest.mark.parametrize("name", ["nowhere", "../secrets", "layouts/base"])
async def test_a_template_that_is_missing_fails_its_job_at_once(shop: Shop, name: str) -> None:
    """The error names it."""
    failed, _ = await shop.attempted(template=name)
    assert failed.status is FAILED
    assert failed.error == JobError("template_error", f"{name}: there is no such template")


async def test_a_broken_template_fails_its_job_with_the_line(shop: Shop, template: Path) -> None:
    """A mistake in Jinja2's own grammar is pointed at as well."""
    (template / "payload.json").write_text('{"a": 1,\n "b": {{ data.total }\n}')
    failed, _ = await shop.attempted(template="welcome")
    assert failed.error is not None
    assert failed.error.message.startswith("welcome/payload.json, line 2: ")


async def test_what_a_template_made_reaches_the_channel(shop: Shop, template: Path) -> None:
    """Rendered anew for each attempt, from the event's data."""
    (template / "body.txt").write_text("{{ data.total }} for {{ job.destination }}")
    await shop.attempted(template="welcome")
    assert shop.delivered[0].content.text == "120 for https://receiver.example/hooks"


async def test_a_destination_made_out_only_now_is_written_down(shop: Shop) -> None:
    """A job that was born FAILED and is requeued finds its destination, and keeps it."""
    event = event_record(body='{"url": "https://found.example/hooks"}')
    done, _ = await shop.attempted(event, made=failed_job(event))
    assert (done.status, done.destination) == (COMPLETED, "https://found.example/hooks")
    assert shop.delivered[0].destination == "https://found.example/hooks"


async def test_a_job_whose_destination_is_made_out_late_keeps_to_the_limits_of_its_lane(shop: Shop) -> None:
    """Thousands may be requeued at once when what they failed of is mended."""
    shop.queue._limits_of = lambda lane: Limits(max_in_flight=1) if lane == "webhook" else UNLIMITED
    go_on, begun, most = asyncio.Event(), 0, 0

    async def deliver(_message: Message) -> None:
        nonlocal begun, most
        begun += 1
        most = max(most, begun)
        await go_on.wait()
        begun -= 1

    shop.deliver = deliver
    for _ in range(3):
        event = event_record(body='{"url": "https://found.example/hooks"}')
        await shop.put(event, made=failed_job(event))
    await shop.store.ping()
    go_on.set()
    await shop.store.called("settle", 3)
    assert most == 1
    await shop.idle()
    assert not shop.queue.claims


async def test_a_destination_that_still_can_not_be_made_out_fails_again(shop: Shop) -> None:
    """Once, with the reason, and without an attempt at nowhere."""
    event = event_record()
    failed, _ = await shop.attempted(event, made=failed_job(event))
    assert (failed.status, failed.destination) == (FAILED, None)
    assert failed.error is not None
    assert failed.error.code == "destination_error"
    assert not shop.delivered


async def test_a_destination_of_a_channel_that_is_gone_is_recorded_too(shop: Shop) -> None:
    """A job that was born FAILED, of a channel that its route no longer has, fails again with the reason."""
    event = event_record(body='{"url": "https://found.example/hooks"}')
    failed, (attempt,) = await shop.attempted(event, made=failed_job(event, channel="sms"))
    assert (failed.status, failed.attempts) == (FAILED, 1)
    assert attempt.error is not None
    assert "sms" in attempt.error.message


async def test_anything_that_making_out_a_destination_raises_is_recorded(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of a plugin's lane, or of our own, is that job's alone."""

    def resolve(*_: object) -> None:
        raise KeyError("bad luck")

    monkeypatch.setattr(shop.router, "resolve", resolve)
    event = event_record()
    waits, (attempt,) = await shop.attempted(event, made=failed_job(event))
    assert (waits.status, waits.attempts) == (PENDING, 1)
    assert attempt.error == JobError("KeyError", "KeyError: 'bad luck'")


# The provider's fault ------------------------------------------------------------------------------


async def test_a_providers_fault_pauses_the_lane_and_spends_no_attempt(shop: Shop) -> None:
    """The job comes again when the pause is over; meanwhile the lane's others aren't even tried."""
    shop.raises(Unavailable("the relay is down", code="relay_down"))
    waits, (attempt,) = await shop.attempted(lane="relay")
    assert (waits.status, waits.attempts, waits.next_attempt_at) == (PENDING, 0, NOW + 1)
    assert attempt.outcome is Outcome.RETRY
    lane = shop.queue.lane("relay")
    assert lane is not None
    assert lane.stop is not None
    assert (lane.stop.reason, lane.stop.until) == (PAUSED, NOW + 1)
    assert "the relay is down" in lane.stop.detail
    await shop.put(lane="relay")
    shop.deliver = shop.accept
    done, _ = await shop.attempted(lane="another")
    assert done.status is COMPLETED
    assert len(shop.delivered) == 2


async def test_a_fault_that_lasts_pauses_longer_each_time(shop: Shop) -> None:
    """Until the provider answers; then the count begins anew."""
    shop.raises(Unavailable("the relay is down"))
    pauses = []
    for _ in range(3):
        waits, _ = await shop.attempted(lane="relay")
        assert waits.next_attempt_at is not None
        pauses.append(waits.next_attempt_at - NOW)
        resume(shop.queue, "relay")
    assert pauses == [1, 2, 5]
    shop.raises(Permanent("no such mailbox"))
    await shop.attempted(lane="relay")
    shop.raises(Unavailable("the relay is down"))
    waits, _ = await shop.attempted(lane="relay")
    assert waits.next_attempt_at == NOW + 1


def resume(queue: FairQueue, name: str) -> None:
    """End a pause now."""
    lane = queue.lane(name)
    assert lane is not None
    queue._resume(lane)


# The receiver's trouble, and its lane's ------------------------------------------------------------


async def test_retry_after_stops_the_whole_lane(shop: Shop) -> None:
    """The job that was told to wait has spent its attempt; the others wait as long and spend none."""
    shop.raises(Transient("erp answered 503", code="http_503", retry_after=120))
    waits, _ = await shop.attempted(lane="erp")
    assert (waits.attempts, waits.next_attempt_at) == (1, NOW + 120)
    lane = shop.queue.lane("erp")
    assert lane is not None
    assert lane.stop == Stop(
        RETRY_AFTER, "The receiver asked lane erp to wait for 120 s (Retry-After).", NOW + 120
    )
    await shop.put(lane="erp")
    assert len(shop.delivered) == 1


async def test_retry_after_is_capped(shop: Shop) -> None:
    """No receiver stops its lane for a year."""
    shop.raises(Transient("erp answered 503", code="http_503", retry_after=1e9))
    waits, _ = await shop.attempted(lane="erp")
    assert waits.next_attempt_at == NOW + 3600


async def test_a_lane_in_trouble_is_let_alone_after_so_many_failures(shop: Shop) -> None:
    """Its breaker opens at the tenth; what waits in the window goes back, and has spent nothing."""
    shop.raises(Transient("erp answered 500", code="http_500", lane_fault=True))
    for _ in range(9):
        await shop.attempted(lane="erp")
    assert shop.queue.lane("erp") is not None
    stuck = asyncio.Event()

    async def refuse_later(_message: Message) -> None:
        await stuck.wait()
        raise Transient("erp answered 500", code="http_500", lane_fault=True)

    shop.deliver = refuse_later
    settled = shop.store.calls["settle"]
    tried = [await shop.put(lane="erp") for _ in range(2)]
    waiting = [await shop.put(lane="erp") for _ in range(3)]
    stuck.set()
    await shop.store.called("settle", settled + 5)
    await shop.idle()
    assert [(await shop.store.job(each.job.id)).attempts for each in tried] == [1, 1]
    for each in waiting:
        held_back = await shop.store.job(each.job.id)
        assert (held_back.status, held_back.attempts, held_back.next_attempt_at) == (PENDING, 0, NOW + 30)
    lane = shop.queue.lane("erp")
    assert lane is not None
    assert lane.stop is not None
    assert lane.stop.reason == BREAKER_OPEN


async def test_what_is_wrong_with_one_job_opens_no_breaker(shop: Shop) -> None:
    """A receiver that refuses one event as it is may well take the next."""
    shop.raises(Transient("erp answered 422", code="http_422"))
    for _ in range(30):
        await shop.attempted(lane="erp")
    assert shop.queue.lane("erp") is None


# Mail ----------------------------------------------------------------------------------------------


def unknown(content: bytes | None = b"the mail") -> Unknown:
    """A loss after all was sent."""
    error = Unknown("no answer to the final dot", code="timeout", via="relay:25")
    error.content = content
    return error


def mail(**changes: Any) -> dict[str, Any]:
    """What makes a job one of mail."""
    return {"channel": "email", "destination": "ada@example.com", "lane": "email:example.com"} | changes


async def test_a_suppressed_recipient_gets_nothing(shop: Shop) -> None:
    """The job is CANCELLED with that cause, and no attempt is made of it."""
    await shop.suppressions.add(
        [Suppression(channel="email", recipient="ada@example.com", reason=UNSUBSCRIBED, created_at=NOW)]
    )
    gone, attempts = await shop.attempted(**mail())
    assert gone.status is CANCELLED
    assert gone.error is not None
    assert gone.error.code == "suppressed"
    assert attempts == []
    assert not shop.delivered


async def test_bounces_suppress_an_address_at_their_count(shop: Shop) -> None:
    """At the second of two; whoever it is then sent to is left alone."""
    shop.raises(Bounced("550 no such mailbox", code="recipient_refused", status_code=550))
    failed, _ = await shop.attempted(**mail())
    assert failed.status is FAILED
    await shop.attempted(**mail())
    gone, _ = await shop.attempted(**mail())
    assert gone.status is CANCELLED
    assert len(shop.delivered) == 2


async def test_what_may_have_arrived_is_sent_again_as_it_was(shop: Shop) -> None:
    """The very bytes, though its template was changed meanwhile; once they arrived nothing is kept."""
    shop.raises(unknown())
    waits, (attempt,) = await shop.attempted(**mail())
    assert (waits.status, waits.kept, attempt.outcome, attempt.via) == (
        PENDING,
        True,
        Outcome.UNKNOWN,
        "relay:25",
    )
    shop.deliver = shop.accept
    shop.clock.advance(60)
    (taken,) = await claim_just(shop.store, waits.id, now=shop.clock(), until=NOW + 999)
    claim = Claim(msgspec.structs.replace(taken.job, template="gone"), taken.event)
    settled = shop.store.calls["settle"]
    shop.queue.put(claim)
    await shop.store.called("settle", settled + 1)
    assert shop.delivered[-1].kept == b"the mail"
    assert (await shop.store.job(waits.id)).status is COMPLETED
    assert await shop.store.kept_content(waits.id) is None


async def test_what_was_sent_before_and_can_not_be_read_costs_no_attempt(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is at fault, and not the mail: nothing is made anew in its place."""

    async def away(_job_id: str) -> None:
        raise StoreUnavailableError("no disk")

    monkeypatch.setattr(shop.store, "kept_content", away, raising=False)
    shop.raises(unknown())
    waits, _ = await shop.attempted(**mail())
    (claim,) = await claim_just(shop.store, waits.id, now=NOW + 60, until=NOW + 999)
    settled = shop.store.calls["settle"]
    shop.queue.put(claim)
    await shop.store.called("settle", settled + 1)
    still = await shop.store.job(waits.id)
    assert (still.status, still.attempts, still.kept) == (PENDING, 1, True)
    assert still.error is not None
    assert still.error.code == "store_unavailable"
    assert len(shop.delivered) == 1


async def test_a_route_may_have_it_that_nothing_is_sent_twice(shop: Shop) -> None:
    """`on_unknown = "fail"`: what may have arrived is FAILED, and its outcome says why."""
    shop.raises(unknown())
    failed, (attempt,) = await shop.attempted(**mail(route="once"))
    assert failed.status is FAILED
    assert attempt.outcome is Outcome.UNKNOWN


async def test_a_mail_of_a_category_has_a_way_to_unsubscribe(shop: Shop, template: Path) -> None:
    """The template and the channel get the same link; without a category there is none."""
    (template / "body.txt").write_text("{{ unsubscribe_url }}")
    await shop.attempted(**mail(category="news", template=template.name))
    (message,) = shop.delivered
    assert message.unsubscribe_url is not None
    assert message.unsubscribe_url.startswith("https://notify.example.com/unsubscribe/")
    assert message.content.text == message.unsubscribe_url
    await shop.attempted(**mail())
    assert shop.delivered[-1].unsubscribe_url is None


# Endpoints -----------------------------------------------------------------------------------------


async def test_an_endpoints_job_goes_out_as_the_endpoint_stands_now(shop: Shop, template: Path) -> None:
    """Whatever its url or template was when the event came in."""
    (template / "payload.json").write_text("{{ data | tojson }}")
    now = shop.endpoints.known["ep_1"] = endpoint(id="ep_1", template=template.name)
    done, _ = await shop.attempted(lane=now.lane, endpoint="ep_1", template="gone")
    assert done.status is COMPLETED
    (message,) = shop.delivered
    assert message.endpoint == now
    assert message.content.payload is not None
    assert shop.endpoints.told == [("ep_1", "delivered")]


async def test_a_job_whose_endpoint_was_deleted_is_withdrawn(shop: Shop) -> None:
    """It is CANCELLED, and nothing was tried."""
    gone, attempts = await shop.attempted(lane="endpoint:ep_1", endpoint="ep_1")
    assert (gone.status, gone.error) == (CANCELLED, JobError("endpoint_deleted", "its endpoint was deleted"))
    assert attempts == []
    assert not shop.delivered


async def test_an_endpoint_hears_how_its_attempts_went(shop: Shop) -> None:
    """Every outcome, and once that its breaker opened."""
    now = shop.endpoints.known["ep_1"] = endpoint(id="ep_1")
    shop.raises(Transient("erp answered 500", code="http_500", lane_fault=True))
    for _ in range(10):
        await shop.attempted(lane=now.lane, endpoint="ep_1")
    assert shop.endpoints.told == [("ep_1", "http_500")] * 10 + [("ep_1", "breaker")]


async def test_an_endpoint_changed_meanwhile_hears_nothing_of_an_attempt_before(shop: Shop) -> None:
    """That its old url is gone must not disable it at its new one."""
    was = shop.endpoints.known["ep_1"] = endpoint(id="ep_1")

    async def change(_message: Message) -> None:
        shop.endpoints.known["ep_1"] = msgspec.structs.replace(was, updated_at=NOW + 1)
        raise Permanent("erp answered 410", code="http_410", status_code=410)

    shop.deliver = change
    gone, _ = await shop.attempted(lane=was.lane, endpoint="ep_1")
    assert gone.status is FAILED
    assert shop.endpoints.told == []


async def test_an_endpoint_that_can_not_be_told_changes_no_outcome(shop: Shop) -> None:
    """What was delivered is COMPLETED: it would be sent twice else."""
    now = shop.endpoints.known["ep_1"] = endpoint(id="ep_1")
    shop.endpoints.fails = True
    done, _ = await shop.attempted(lane=now.lane, endpoint="ep_1")
    assert done.status is COMPLETED
    assert shop.counted("errors", part="endpoint") == 1


# Writing it down -----------------------------------------------------------------------------------


async def test_an_outcome_is_written_however_often_the_store_fails(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was delivered isn't forgotten, and isn't sent again."""
    monkeypatch.setattr(settler, "_BACKOFF", (0.0,))
    shop.store.failing["settle"] = 7
    done, attempts = await shop.attempted()
    assert done.status is COMPLETED
    assert len(attempts) == len(shop.delivered) == 1
    assert shop.counted("errors", part="settle") == 7


async def test_workers_go_on_while_outcomes_are_written(shop: Shop) -> None:
    """To fewer than twice as many jobs as there are workers: a kill would have all of them sent again."""
    go_on = asyncio.Event()

    async def wait() -> None:
        await go_on.wait()

    shop.store.before["settle"] = wait
    workers = len(shop.pool._workers)
    for _ in range(3 * workers):
        await shop.put()
    for _ in range(20):
        await shop.store.ping()
    assert workers < len(shop.delivered) < 2 * workers
    assert len(shop.queue.claims) == 3 * workers
    go_on.set()
    await shop.idle()
    assert len(shop.delivered) == 3 * workers
    assert (await shop.store.counts())[COMPLETED] == 3 * workers


async def test_an_end_waits_for_what_is_being_written(shop: Shop) -> None:
    """Though its time is up: what was delivered would be sent again else."""
    writing, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        writing.set()
        await go_on.wait()

    shop.store.before["settle"] = slowly
    claim = await shop.put()
    await writing.wait()
    ending = asyncio.create_task(shop.pool.drain(0))
    await shop.store.ping()
    assert not ending.done()
    go_on.set()
    await ending
    assert (await shop.store.job(claim.job.id)).status is COMPLETED


async def test_a_stale_outcome_is_refused_and_counted(shop: Shop) -> None:
    """A worker that was paused past its claim overwrites nothing of what came after."""
    gate = asyncio.Event()

    async def deliver(_message: Message) -> None:
        await gate.wait()

    shop.deliver = deliver
    claim = await shop.put()
    assert await shop.store.rescue(NOW + 61) == 1
    (second,) = await claim_just(shop.store, claim.job.id, now=NOW + 61, until=NOW + 121)
    gate.set()
    await shop.store.called("settle")
    await shop.idle()
    assert shop.counted("settles_refused") == 1
    assert await shop.store.attempts(claim.job.id) == []
    held = await shop.store.job(claim.job.id)
    assert (held.status, held.claim) == (PROCESSING, second.job.claim)


async def test_attempts_are_counted_by_channel_and_outcome(shop: Shop) -> None:
    """What `/metrics` tells of deliveries."""
    await shop.attempted()
    shop.raises(Permanent("no"))
    await shop.attempted()
    assert shop.counted("attempts", channel="webhook", outcome="delivered") == 1
    assert shop.counted("attempts", channel="webhook", outcome="failed") == 1


# The end -------------------------------------------------------------------------------------------


async def test_a_drain_finishes_what_is_in_flight_and_gives_back_the_rest(shop: Shop) -> None:
    """In flight is delivered; what no worker had begun is PENDING, due now, and has spent nothing."""
    gate, both = asyncio.Event(), asyncio.Event()

    async def deliver(_message: Message) -> None:
        if len(shop.delivered) == 2:
            both.set()
        await gate.wait()

    shop.deliver = deliver
    claims = [await shop.put() for _ in range(10)]
    await both.wait()
    drained = asyncio.create_task(shop.pool.drain(30))
    await shop.store.called("settle", 8)
    gate.set()
    await drained
    jobs = [await shop.store.job(claim.job.id) for claim in claims]
    assert [each.status for each in jobs] == [COMPLETED] * 2 + [PENDING] * 8
    assert all((each.attempts, each.next_attempt_at) == (0, NOW) for each in jobs[2:])
    assert not shop.queue.claims


@pytest.mark.parametrize("store_fails", [False, True])
async def test_a_drain_whose_time_is_over_keeps_what_was_delivered(shop: Shop, *, store_fails: bool) -> None:
    """That the endpoint is still being told is no reason to send it again; a store that is gone ends it."""
    telling = asyncio.Event()

    async def delivered(_endpoint_id: str, _now: float) -> None:
        telling.set()
        await asyncio.Event().wait()

    subscriber = endpoint()
    shop.endpoints.known[subscriber.id] = subscriber
    shop.endpoints.delivered = delivered  # type: ignore[method-assign,assignment]  # it takes its time
    claim = await shop.put(endpoint=subscriber.id, lane=subscriber.lane, route=None)
    await telling.wait()
    shop.store.failing["settle"] = 100 if store_fails else 0
    await shop.pool.drain(0)
    expected = (PROCESSING, 0) if store_fails else (COMPLETED, 1)
    assert (
        (await shop.store.job(claim.job.id)).status,
        len(await shop.store.attempts(claim.job.id)),
    ) == expected


async def test_a_drain_gives_many_jobs_back_in_few_commits(shop: Shop) -> None:
    """A full window is released before anyone loses patience."""
    shop.queue.stop("a", Stop(PAUSED, "down", NOW + 3600), 3600)
    for _ in range(100):
        await shop.put(lane="a")
    before = shop.store.commits
    await shop.pool.drain(0)
    assert shop.store.commits - before <= 3
    assert (await shop.store.counts())[PENDING] == 100


async def test_what_a_drain_cuts_off_spends_no_attempt(shop: Shop) -> None:
    """Past its time the rest is given back, and keeps the error of its last real attempt."""

    async def deliver(_message: Message) -> None:
        await asyncio.Event().wait()

    shop.deliver = deliver
    claim = await shop.put()
    await shop.pool.drain(0.01)
    released = await shop.store.job(claim.job.id)
    assert (released.status, released.attempts, released.next_attempt_at) == (PENDING, 0, NOW)
    assert await shop.store.attempts(claim.job.id) == []


async def test_an_outcome_being_written_when_time_is_up_counts(shop: Shop) -> None:
    """A job that was delivered isn't given back behind its settlement."""

    async def time_is_up() -> None:
        shop.store.after.pop("settle")
        for worker in shop.pool._workers:
            worker.cancel()
        await asyncio.sleep(0)

    shop.store.after["settle"] = time_is_up
    claim = await shop.put()
    await shop.store.called("settle")
    await shop.pool.drain(0)
    assert (await shop.store.job(claim.job.id)).status is COMPLETED


@pytest.mark.parametrize(("route", "status"), [(None, PENDING), ("once", FAILED)])
async def test_what_may_have_arrived_when_time_is_up_is_told_as_such(
    shop: Shop, route: str | None, status: JobState
) -> None:
    """A restart while a relay takes its time sends the mail as it was, or not again, as the route says."""
    begun = given_up_late(shop)
    claim = await shop.put(**mail(route=route))
    await begun.wait()
    await shop.pool.drain(0)
    assert (await shop.store.job(claim.job.id)).status is status
    assert await shop.store.kept_content(claim.job.id) == (None if route else b"the mail")


async def test_a_worker_whose_channel_tells_of_its_end_ends_all_the_same(shop: Shop) -> None:
    """A program that ends without a drain cancels all tasks, and waits for them."""
    begun = given_up_late(shop)
    await shop.put(**mail())
    await begun.wait()
    for worker in shop.pool._workers:
        worker.cancel()
    await asyncio.wait_for(asyncio.wait(shop.pool._workers), 5)
    await shop.pool.drain(0)


def given_up_late(shop: Shop) -> asyncio.Event:
    """Have deliveries never end, and tell when given up that the mail may be there; set once one began."""
    begun = asyncio.Event()

    async def deliver(_message: Message) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise unknown() from error

    shop.deliver = deliver
    return begun


async def test_a_drain_ends_though_the_store_is_gone(shop: Shop) -> None:
    """What can't be given back comes again at the next start; the process ends all the same."""
    shop.queue.stop("a", Stop(PAUSED, "down", NOW + 3600), 3600)
    claims = [await shop.put(lane="a") for _ in range(3)]
    shop.store.failing["settle"] = 3
    await shop.pool.drain(0)
    assert {(await shop.store.job(claim.job.id)).status for claim in claims} == {PROCESSING}
    assert not shop.pool._workers


async def test_a_worker_that_dies_is_counted_as_dead(tmp_path: Path) -> None:
    """Nothing is known that could end one; should it happen, it shows."""
    shop = Shop(tmp_path)
    await shop.store.open(NOW)
    shop.pool.start()
    victim = shop.pool._workers[0]
    victim.cancel()
    await asyncio.wait([victim])
    assert shop.pool.dead == 1
    await shop.pool.drain(0)
    await shop.store.close()
