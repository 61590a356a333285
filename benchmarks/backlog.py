"""Part `backlog`: what a million waiting jobs cost in speed, memory, time to start, and CPU while idle.

Half of them are due within a month, in a thousand lanes; half have been due for an hour, in a hundred lanes
that are held, since their endpoints are paused. The store is made once and copied for each run.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter, time

import msgspec
from msgspec import Struct

from benchmarks import events
from benchmarks.parts import Opened, Part, Plan
from benchmarks.processes import HOST
from benchmarks.results import Column, Figure, Values, ratio, value
from benchmarks.serving import Served, delivered, hook, serving, webhooks
from benchmarks.wire import Sink
from notifier.model import Endpoint, EndpointState, EventRecord, Job, JobState, new_id
from notifier.store import file_url, open_store
from notifier.store.base import Store, Submission

EMPTY = "notifier: empty store"
FULL = "notifier: beside the backlog"

_DUE_LATER_LANES = 1_000
_HELD_LANES = 100
_DUE = 10
"""Jobs that are due for the sink as the process starts."""
_ADDED_AT_ONCE = 1_000
_MONTH = 30 * 86_400
_DATA = msgspec.Raw(msgspec.json.encode(msgspec.json.decode(events.BODY)["data"]))


class Size(Struct, frozen=True):
    """How much of everything."""

    backlog: int = 1_000_000
    count: int = 20_000
    """Events posted for the rate."""
    warm_up: int = 2_000
    idle_seconds: float = 20.0


QUICK = Size(backlog=20_000, count=2_000, warm_up=300, idle_seconds=2.0)


@asynccontextmanager
async def _open(plan: Plan) -> AsyncIterator[Opened]:
    size = plan.size(Size(), QUICK)
    sink = Sink()
    await sink.open()
    with plan.scratch() as empty, plan.scratch() as full:
        plan.tell(f"backlog: making a store with {size.backlog:,} jobs")
        await _fill(empty, 0, sink.port)
        await _fill(full, size.backlog, sink.port)
        rows = {EMPTY: empty, FULL: full}
        notes = [f"the backlog is of {size.backlog:,} jobs, {_stored(full):,.0f} MiB of store"]
        yield Opened({row: partial(_measure, plan, size, sink, each) for row, each in rows.items()}, notes)
    await sink.close()


async def _measure(plan: Plan, size: Size, sink: Sink, store: Path) -> Values:
    """Start, deliver what is due, idle, then go as fast as it can."""
    before = sink.count
    began = _Stopwatch()
    async with serving(
        webhooks(sink.port), cpus=plan.cpus, within=plan.folder, store=store, starting=began.start
    ) as served:
        listens = began.seconds
        delivers = await sink.reached(before + 1) - began.at
        await sink.reached(before + _DUE)
        await served.none_in("PROCESSING")
        values = {"listens": listens, "delivers": delivers, **await _idled(served, size.idle_seconds)}
        values |= await _rushed(plan, size, sink, served)
    assert sink.count == before + _DUE + size.warm_up + size.count, "delivered more than once"
    return values


class _Stopwatch:
    """When a process was started."""

    at = 0.0

    def start(self) -> None:
        """It is started now."""
        self.at = perf_counter()

    @property
    def seconds(self) -> float:
        """How long ago that was."""
        return perf_counter() - self.at


async def _idled(served: Served, seconds: float) -> dict[str, float]:
    """Leave it alone; the share of one core that it took meanwhile, in percent, and its memory."""
    began, spent = perf_counter(), served.process.cpu
    await asyncio.sleep(seconds)
    share = (served.process.cpu - spent) / (perf_counter() - began)
    return {"idle_cpu": share * 100, "idle": served.process.resident()}


async def _rushed(plan: Plan, size: Size, sink: Sink, served: Served) -> dict[str, float]:
    """Deliver events as fast as it can; the rate, and the most memory that the process ever held.

    Timed until the sink has all: to ask whether all are recorded takes a look at every job that waits.
    """
    load = served.load(plan, events.BODY)
    await load.open()
    await delivered(served, load, sink, size.warm_up)
    began, wanted = perf_counter(), sink.count + size.count
    await load.post(size.count)
    rate = size.count / (await sink.reached(wanted) - began)
    await load.close()
    await served.none_in("PROCESSING")
    return {"rate": rate, "peak": served.process.resident("VmHWM")}


def _stored(folder: Path) -> float:
    """MiB of files."""
    return sum(file.stat().st_size for file in folder.iterdir()) / 1024**2


async def _fill(folder: Path, backlog: int, port: int) -> None:
    """Make a store with so many jobs that wait, and a few that are due for the sink."""
    store = open_store(file_url(folder / "notifier.db"), folder)
    await store.open(time())
    paused = [_paused(number) for number in range(_HELD_LANES)] if backlog else []
    for endpoint in paused:
        await store.add_endpoint(endpoint)
    await _add_all(store, _waiting(backlog, paused))
    await store.add([_submission(time(), hook(port), f"webhook:{HOST}:{port}") for _ in range(_DUE)])
    await store.close()


async def _add_all(store: Store, submissions: Iterator[Submission]) -> None:
    while some := list(islice(submissions, _ADDED_AT_ONCE)):
        added: Awaitable[object] = store.add(some)
        await added


def _waiting(count: int, paused: list[Endpoint]) -> Iterator[Submission]:
    """In turn a job of a far day, and one that an endpoint's pause holds."""
    chance = random.Random(7)  # noqa: S311 - the same backlog every time
    now = time()
    for number in range(count):
        if number % 2:
            endpoint = paused[number // 2 % len(paused)]
            yield _submission(now - 3600, endpoint.url, endpoint.lane, endpoint.id)
        else:
            host = f"receiver-{chance.randrange(_DUE_LATER_LANES)}.example"
            due = now + chance.uniform(86_400, _MONTH)
            yield _submission(due, f"https://{host}/hook", f"webhook:{host}:443")


def _submission(due: float, url: str, lane: str, endpoint: str | None = None) -> Submission:
    now = time()
    event = EventRecord(id=new_id("evt", now), type=events.ROUTED, data=_DATA, created_at=now)
    job = Job(
        id=new_id("job", now),
        event_id=event.id,
        event_type=event.type,
        channel="webhook",
        destination=url,
        lane=lane,
        endpoint=endpoint,
        template="order",
        status=JobState.PENDING,
        created_at=now,
        updated_at=now,
        next_attempt_at=due,
        max_attempts=8,
    )
    return Submission(event, (job,))


def _paused(number: int) -> Endpoint:
    now = time()
    return Endpoint(
        id=new_id("ep", now),
        url=f"https://paused-{number}.example/hook",
        event_types=("paused.*",),
        created_at=now,
        updated_at=now,
        state_changed_at=now,
        state=EndpointState.PAUSED,
    )


PART = Part(
    name="backlog",
    title="Beside a backlog",
    columns={
        "rate": Column("end to end a second"),
        "listens": Column("start to listening, s", ".2f"),
        "delivers": Column("start to first delivery, s", ".2f"),
        "idle_cpu": Column("idle, % of a core", ".2f"),
        "idle": Column("idle MiB"),
        "peak": Column("peak MiB"),
    },
    open=_open,
    figures=(
        Figure(name="end to end beside a backlog ÷ empty store", of=ratio(FULL, EMPTY), at_least=0.9),
        Figure(name="memory, idle", of=value(EMPTY, "idle"), at_most=70, form=".0f", unit=" MiB"),
        Figure(name="memory at peak rate", of=value(EMPTY, "peak"), at_most=150, form=".0f", unit=" MiB"),
        Figure(name="memory with a backlog", of=value(FULL, "peak"), at_most=150, form=".0f", unit=" MiB"),
        Figure(
            name="start to first delivery with a backlog", of=value(FULL, "delivers"), at_most=2, unit=" s"
        ),
        Figure(name="CPU while idle, of a core", of=value(EMPTY, "idle_cpu"), at_most=0.5, unit=" %"),
        Figure(
            name="CPU while idle beside a backlog, of a core",
            of=value(FULL, "idle_cpu"),
            at_most=0.5,
            unit=" %",
        ),
    ),
)
