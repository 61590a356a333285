"""A whole notifier in this process: what it takes it delivers, what keeps it from that it says."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.builders import NOW, event
from support.clock import Clock

from notifier import intake
from notifier.channels import Channel, ChannelContext, FunctionChannel, Message, Receipt
from notifier.config import Config, Duration, Retry, Route, Workers
from notifier.errors import (
    DrainingError,
    InvalidEventError,
    NotFoundError,
    StoreInUseError,
    StoreUnavailableError,
    Transient,
)
from notifier.ingest import from_event
from notifier.model import Event, Job, JobState
from notifier.service import Notifier, Overrides
from notifier.store.base import JobFilter
from notifier.store.sqlite import SqliteStore

pytestmark = pytest.mark.timeout(30)
PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState
ROUTES = (Route(name="erp", event="order.*", channel="webhook", url="https://erp.example/hooks"),)


class Receiver:
    """Plays every channel: takes what comes, when its gate is open."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.errors: list[Exception] = []
        self.open = asyncio.Event()
        self.open.set()
        self._news = asyncio.Condition()

    async def deliver(self, message: Message) -> Receipt:
        """Take one message."""
        async with self._news:
            self.taken.append(message.id)
            self._news.notify_all()
        await self.open.wait()
        if self.errors:
            raise self.errors.pop()
        return Receipt(status_code=200)

    async def seen(self, count: int) -> list[str]:
        """Wait until so many deliveries began; returns their ids."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.taken) >= count)
        return self.taken

    def channels(self, _context: Callable[[str], ChannelContext]) -> dict[str, Channel]:
        """Every channel there is."""
        return {name: FunctionChannel(name, self.deliver, 60) for name in ("webhook", "email")}


def configured(folder: Path, *, drain_timeout: float = 5) -> Config:
    """A configuration with one webhook route, and its store in a folder."""
    return Config(
        workers=Workers(concurrency=4, drain_timeout=Duration(drain_timeout)),
        retry=Retry(schedule=(Duration(60),), jitter=0),
        routes=ROUTES,
        directory=folder,
    )


@pytest.fixture
def receiver() -> Receiver:
    """A receiver that takes everything."""
    return Receiver()


@pytest.fixture
async def notifier(tmp_path: Path, receiver: Receiver) -> AsyncIterator[Notifier]:
    """A notifier that runs, and drains in the end."""
    async with Notifier(configured(tmp_path), Overrides(channels=receiver.channels)) as made:
        yield made
        receiver.open.set()


async def ticks() -> None:
    """Let whatever is ready run, and what that makes ready."""
    for _ in range(10):
        await asyncio.sleep(0)


async def reopened(folder: Path) -> SqliteStore:
    """The store as the next process finds it."""
    store = SqliteStore(folder / "notifier.db")
    await store.open(NOW)
    return store


async def only_job(store: Any) -> Job:
    """The one job there is."""
    page = await store.jobs(JobFilter(), limit=2)
    (job,) = page.jobs
    assert isinstance(job, Job)
    return job


# Events in -----------------------------------------------------------------------------------------


async def test_an_event_is_delivered_by_the_route_it_matches(tmp_path: Path, receiver: Receiver) -> None:
    """In this process, without HTTP: submitted, on disk, delivered, recorded."""
    async with Notifier(configured(tmp_path), Overrides(channels=receiver.channels)) as notifier:
        added = await notifier.submit(event())
        assert await receiver.seen(1) == [added.jobs[0].id]
    store = await reopened(tmp_path)
    assert (await only_job(store)).status is COMPLETED
    await store.close()


async def test_a_repeated_event_is_delivered_once(notifier: Notifier, receiver: Receiver) -> None:
    """The same key with the same event gets the first answer."""
    first = await notifier.submit(event(idempotency_key="k"))
    again = await notifier.submit(event(idempotency_key="k"))
    other = await notifier.submit(event(idempotency_key="l"))
    assert (again.duplicate, again.event.id) == (True, first.event.id)
    assert notifier.metrics.registry.get_sample_value("notifier_events_duplicate_total") == 1
    assert sorted(await receiver.seen(2)) == sorted([first.jobs[0].id, other.jobs[0].id])


@pytest.mark.parametrize("steps", range(8))
async def test_a_caller_cancelled_in_the_middle_gets_its_event_delivered(
    notifier: Notifier, receiver: Receiver, steps: int
) -> None:
    """Wherever its cancellation hits: what reached the disk is delivered, what didn't leaves nothing."""
    posting = asyncio.create_task(notifier.submit(event()))
    for _ in range(steps):
        await asyncio.sleep(0)
    posting.cancel()
    await asyncio.wait([posting])
    await notifier.store.ping()
    if await notifier.store.count(JobFilter()):
        await receiver.seen(1)


async def test_a_caller_cancelled_before_its_commit_gets_its_event_delivered(
    notifier: Notifier, receiver: Receiver
) -> None:
    """The commit comes when no one waits for it any more; the dispatcher hears of it all the same."""
    store = notifier.store
    assert isinstance(store, SqliteStore)
    busy, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(_database: object) -> None:
        loop.call_soon_threadsafe(busy.set)
        go_on.wait(10)

    holding = asyncio.create_task(store._write(hold))
    await busy.wait()
    posting = asyncio.create_task(notifier.submit(event()))
    await asyncio.sleep(0)
    posting.cancel()
    await asyncio.wait([posting])
    assert posting.cancelled()
    go_on.set()
    await holding
    (taken,) = await receiver.seen(1)
    assert (await only_job(store)).id == taken


async def test_a_cancelled_caller_behind_many_others_gets_its_event_delivered(
    notifier: Notifier, receiver: Receiver
) -> None:
    """However late the commit comes, its job isn't given back before, to be held until its claim ends."""
    store = notifier.store
    assert isinstance(store, SqliteStore)
    await notifier.submit(event())
    await receiver.seen(1)
    await ticks()  # by then it is known that nothing older waits
    busy, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold(_database: object) -> None:
        loop.call_soon_threadsafe(busy.set)
        go_on.wait(10)

    holding = asyncio.create_task(store._write(hold))
    await busy.wait()
    others = [asyncio.create_task(notifier.submit(Event(type="nobody.wants", data={}))) for _ in range(1000)]
    posting = asyncio.create_task(notifier.submit(event()))
    await asyncio.sleep(0)
    posting.cancel()
    await asyncio.wait([posting])
    await ticks()
    go_on.set()
    await asyncio.gather(holding, *others)
    async with asyncio.timeout(5):
        await receiver.seen(2)
    assert notifier.dispatcher._coming == 0


async def test_an_event_whose_commit_is_of_unknown_result_is_delivered_if_it_is_stored(
    notifier: Notifier, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller hears that nothing is known; what did reach the disk doesn't wait for the next start."""
    add = notifier.store.add

    async def committed_but_unheard(submissions: Any) -> Any:
        await add(submissions)
        raise StoreUnavailableError("the commit's answer was lost")

    monkeypatch.setattr(
        notifier.store, "add", lambda given: asyncio.ensure_future(committed_but_unheard(given))
    )
    with pytest.raises(StoreUnavailableError):
        await notifier.submit(event())
    await receiver.seen(1)


async def test_a_scheduled_event_is_not_delivered_before_its_time(tmp_path: Path, receiver: Receiver) -> None:
    """By the injected clock; until then the job says what it waits for."""
    clock = Clock()
    overrides = Overrides(clock=clock, channels=receiver.channels)
    async with Notifier(configured(tmp_path), overrides) as notifier:
        at = datetime.fromtimestamp(NOW + 3600, UTC)
        added = await notifier.submit(event(deliver_at=at))
        why = await notifier.why(added.jobs[0].id)
        assert (why.reason, why.until) == ("scheduled", NOW + 3600)
        clock.advance(3600)
        now = await notifier.submit(event())
        assert sorted(await receiver.seen(2)) == sorted([added.jobs[0].id, now.jobs[0].id])


async def test_an_event_that_no_one_wants_is_stored_and_counted(notifier: Notifier) -> None:
    """It is no error, but an operator can see that it happens."""
    added = await notifier.submit(Event(type="nobody.asked", data={}))
    assert added.jobs == ()
    assert (await notifier.store.event(added.event.id))[0].type == "nobody.asked"
    assert notifier.metrics.registry.get_sample_value("notifier_events_unrouted_total") == 1


async def test_no_app_speaks_for_the_notifier(notifier: Notifier) -> None:
    """What begins with `notifier.` tells of endpoints, and routes and endpoints take it at its word."""
    with pytest.raises(InvalidEventError) as refused:
        await notifier.submit(Event(type="notifier.endpoint.disabled", data={"endpoint": {"id": "ep_1"}}))
    assert [fault.pointer for fault in refused.value.faults] == ["/type"]
    assert (await notifier.submit(Event(type="notifiers.are.us", data={}))).jobs == ()


async def test_one_call_causes_no_more_jobs_than_memory_holds(
    notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand events for ten thousand endpoints are ten million; one event goes, whatever it causes."""
    monkeypatch.setattr(intake, "MAX_JOBS", 2)
    incoming = [from_event(event()) for _ in range(3)]
    with pytest.raises(InvalidEventError, match="more than 2 jobs") as refused:
        await notifier.ingest(incoming)
    assert refused.value.index == 2
    assert len(await notifier.ingest(incoming[:2])) == 2
    monkeypatch.setattr(intake, "MAX_JOBS", 0)
    assert len((await notifier.submit(event())).jobs) == 1


# Operators -----------------------------------------------------------------------------------------


async def test_a_requeued_job_goes_out_at_once(notifier: Notifier, receiver: Receiver) -> None:
    """One that waits for its retry doesn't wait any longer."""
    receiver.errors.append(Transient("the receiver answered 503"))
    added = await notifier.submit(event())
    await receiver.seen(1)
    while (await notifier.store.job(added.jobs[0].id)).status is not PENDING:
        await notifier.store.ping()
    assert (await notifier.why(added.jobs[0].id)).reason == "backoff"
    await notifier.requeue(added.jobs[0].id)
    assert await receiver.seen(2) == [added.jobs[0].id] * 2


async def test_a_cancelled_job_is_not_delivered(notifier: Notifier, receiver: Receiver) -> None:
    """Withdrawn while it waits for its time, it never goes out."""
    at = datetime.fromtimestamp(notifier.clock() + 3600, UTC)
    added = await notifier.submit(event(deliver_at=at))
    assert (await notifier.cancel(added.jobs[0].id)).status is CANCELLED
    other = await notifier.submit(event())
    assert await receiver.seen(1) == [other.jobs[0].id]


async def test_asking_for_a_job_that_there_is_not_is_an_error(notifier: Notifier) -> None:
    """Each way of asking says so."""
    for ask in (notifier.why, notifier.requeue, notifier.cancel):
        with pytest.raises(NotFoundError):
            await ask("job_nowhere")


# Ready or not --------------------------------------------------------------------------------------


async def test_a_running_notifier_has_no_problems(notifier: Notifier) -> None:
    """Empty means ready."""
    assert await notifier.problems() == []


async def test_a_notifier_that_was_not_started_is_not_ready(tmp_path: Path, receiver: Receiver) -> None:
    """It says that nothing is dispatched, and that the store isn't open."""
    notifier = Notifier(configured(tmp_path), Overrides(channels=receiver.channels))
    problems = await notifier.problems()
    assert "the dispatcher is not running" in problems
    assert any("the store is not open" in problem for problem in problems)


async def killed(task: asyncio.Task[Any] | None) -> None:
    """End a task as nothing but a bug could."""
    assert task is not None
    task.cancel()
    await asyncio.wait([task])


async def test_a_dead_dispatcher_is_a_problem(notifier: Notifier) -> None:
    """Events would be taken and never delivered."""
    await killed(notifier._dispatching)
    assert await notifier.problems() == ["the dispatcher is not running"]


async def test_a_dispatcher_that_can_not_claim_is_a_problem(notifier: Notifier) -> None:
    """As long as its last round failed."""
    notifier.dispatcher.failing = True
    assert await notifier.problems() == ["the dispatcher can't claim"]


async def test_a_dead_worker_is_a_problem(notifier: Notifier) -> None:
    """Fewer deliver than were asked for."""
    await killed(notifier.pool._workers[0])
    assert await notifier.problems() == ["1 of 4 workers are dead"]


async def test_a_dead_chore_is_a_problem(notifier: Notifier) -> None:
    """Claims would expire, or the disk fill up."""
    await killed(notifier.upkeep._tasks[0])
    assert await notifier.problems() == ["upkeep 'claims' is dead"]


async def test_a_store_that_does_not_answer_is_a_problem(
    notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the store's own words."""

    async def ping() -> None:
        raise StoreUnavailableError("notifier.db: the disk is gone")

    monkeypatch.setattr(notifier.store, "ping", ping)
    assert await notifier.problems() == ["notifier.db: the disk is gone"]


# The end -------------------------------------------------------------------------------------------


async def test_a_stop_finishes_what_is_in_flight(tmp_path: Path, receiver: Receiver) -> None:
    """It takes nothing new meanwhile, says so, and ends with the outcome on disk."""
    receiver.open.clear()
    notifier = Notifier(configured(tmp_path), Overrides(channels=receiver.channels))
    await notifier.start()
    await notifier.submit(event())
    await receiver.seen(1)
    stopping = asyncio.create_task(notifier.stop())
    await asyncio.sleep(0)
    assert notifier.draining
    assert "stopping" in await notifier.problems()
    with pytest.raises(DrainingError):
        await notifier.submit(event())
    receiver.open.set()
    await stopping
    store = await reopened(tmp_path)
    assert (await only_job(store)).status is COMPLETED
    await store.close()


async def test_a_stop_past_its_time_spends_no_attempt(tmp_path: Path, receiver: Receiver) -> None:
    """The job is PENDING, due, and has all its attempts left; the next start delivers it."""
    receiver.open.clear()
    config = configured(tmp_path, drain_timeout=0.01)
    async with Notifier(config, Overrides(channels=receiver.channels)) as notifier:
        added = await notifier.submit(event())
        await receiver.seen(1)
    store = await reopened(tmp_path)
    job = await only_job(store)
    assert (job.status, job.attempts) == (PENDING, 0)
    assert await store.attempts(job.id) == []
    await store.close()
    receiver.open.set()
    async with Notifier(config, Overrides(channels=receiver.channels)):
        assert await receiver.seen(2) == [added.jobs[0].id] * 2


async def test_a_second_stop_is_harmless(tmp_path: Path, receiver: Receiver) -> None:
    """A program may stop it by hand inside its `async with`."""
    async with Notifier(configured(tmp_path), Overrides(channels=receiver.channels)) as notifier:
        await notifier.stop()


async def test_a_dead_dispatcher_does_not_keep_it_from_stopping(tmp_path: Path, receiver: Receiver) -> None:
    """Whatever died, the rest is still ended in order."""
    async with Notifier(configured(tmp_path), Overrides(channels=receiver.channels)) as notifier:
        await killed(notifier._dispatching)
        await killed(notifier.pool._workers[0])
        await killed(notifier.upkeep._tasks[0])
    await (await reopened(tmp_path)).close()


async def test_a_channel_that_can_not_open_leaves_the_store_free(tmp_path: Path, receiver: Receiver) -> None:
    """A start that fails halfway holds no lock."""
    notifier = Notifier(configured(tmp_path), Overrides(channels=receiver.channels))

    async def fail() -> None:
        raise OSError("no such device")

    notifier.channels["email"].open = fail  # type: ignore[method-assign]  # a channel's own fault
    with pytest.raises(OSError, match="no such device"):
        await notifier.start()
    await (await reopened(tmp_path)).close()


async def test_a_second_notifier_on_the_same_file_is_refused(
    notifier: Notifier, tmp_path: Path, receiver: Receiver
) -> None:
    """And the first isn't disturbed."""
    second = Notifier(configured(tmp_path), Overrides(channels=receiver.channels))
    with pytest.raises(StoreInUseError, match="in use by another notifier"):
        await second.start()
    await notifier.submit(event())
    await receiver.seen(1)


async def test_the_secret_that_signs_is_the_same_after_a_restart(tmp_path: Path, receiver: Receiver) -> None:
    """Where none is configured the store keeps one; receivers needn't learn a new one each time."""
    secrets: list[str] = []
    for _ in range(2):
        async with Notifier(configured(tmp_path), Overrides(channels=receiver.channels)) as notifier:
            added = await notifier.submit(event())
            secrets.extend(notifier.secrets_for(added.jobs[0]))
    assert secrets[0] == secrets[1]
    assert secrets[0].startswith("whsec_")
