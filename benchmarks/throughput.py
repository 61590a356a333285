"""Part `throughput`: accepting and delivering on one core, beside what aiohttp itself can do there.

Each run is one fresh process on an empty store. The load and the sink are in this process.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter

from msgspec import Struct

from benchmarks import events
from benchmarks.parts import Opened, Part, Plan
from benchmarks.processes import HOST, Process
from benchmarks.results import Column, Figure, Round, Values, ratio
from benchmarks.serving import EVENTS_PATH, Served, delivered, hook, serving, webhooks
from benchmarks.timing import Took, read_took
from benchmarks.wire import Load, Sink

SERVER = "bare aiohttp server, answering 202"
CLIENT = "bare tuned aiohttp client"
ACCEPT = "notifier: accepted, with a job each for tomorrow"
ACCEPT_UNWANTED = "notifier: accepted, wanted by nobody"
ARRAYS = "notifier: accepted by arrays of 1,000, with a job each for tomorrow"
ARRAYS_UNWANTED = "notifier: accepted by arrays of 1,000, wanted by nobody"
END_TO_END = "notifier: accepted, rendered, signed, delivered, recorded"
WIRE_SERVER = "the load by itself, against the sink"
WIRE_CLIENT = "the sink by itself, against the load"

_ARRAY = 1000
_ARRAY_CONNECTIONS = 4


class Size(Struct, frozen=True):
    """How many events a run is made of."""

    count: int = 20_000
    warm_up: int = 2_000


QUICK = Size(count=2_000, warm_up=300)


@asynccontextmanager
async def _open(plan: Plan) -> AsyncIterator[Opened]:
    size = plan.size(Size(), QUICK)
    rows: dict[str, Callable[[Plan, Size], Awaitable[Values]]] = {
        SERVER: partial(_bare_server, "server"),
        CLIENT: partial(_bare_client, "client"),
        ACCEPT_UNWANTED: partial(_accepted, events.event(events.UNWANTED)),
        ACCEPT: partial(_accepted, events.later()),
        ARRAYS_UNWANTED: partial(_accepted_by_array, events.event(events.UNWANTED)),
        ARRAYS: partial(_accepted_by_array, events.later()),
        END_TO_END: end_to_end,
        WIRE_SERVER: partial(_bare_server, "sink"),
        WIRE_CLIENT: partial(_bare_client, "load"),
    }
    yield Opened({row: partial(measure, plan, size) for row, measure in rows.items()})


async def end_to_end(plan: Plan, size: Size) -> Values:
    """Accepted one by one, rendered, signed, delivered and recorded: until the last one is COMPLETED."""
    sink = Sink()
    await sink.open()
    async with serving(webhooks(sink.port), cpus=plan.cpus, within=plan.folder) as served:
        load = served.load(plan, events.BODY)
        await load.open()
        await delivered(served, load, sink, size.warm_up)
        values = await _timed(served.process, partial(delivered, served, load, sink, size.count), size.count)
        await load.close()
        assert sink.count == size.warm_up + size.count, "delivered more than once"
        assert not await served.any_in("FAILED"), "not all were delivered"
        values["peak"] = served.process.resident("VmHWM")
    await sink.close()
    return values


async def _accepted(body: bytes, plan: Plan, size: Size) -> Values:
    async with _discarding(plan) as served:
        load = served.load(plan, body)
        return await _posted(served.process, load, count=size.count, warm_up=size.warm_up)


async def _accepted_by_array(event: bytes, plan: Plan, size: Size) -> Values:
    requests = max(8, size.count * 3 // _ARRAY)
    async with _discarding(plan) as served:
        load = served.load(plan, events.array(event, _ARRAY), _ARRAY_CONNECTIONS)
        warm_up = max(4, requests // 10)
        return await _posted(served.process, load, count=requests, warm_up=warm_up, each=_ARRAY)


@asynccontextmanager
async def _discarding(plan: Plan) -> AsyncIterator[Served]:
    """Serve what is only accepted: nothing is ever sent to the port."""
    async with serving(webhooks(9), cpus=plan.cpus, within=plan.folder) as served:
        yield served


async def _bare_server(role: str, plan: Plan, size: Size) -> Values:
    async with _bare(role, plan=plan) as process:
        port = await process.listening()
        load = Load(HOST, port, events.BODY, path=EVENTS_PATH, connections=plan.connections)
        return await _posted(process, load, count=size.count, warm_up=size.warm_up)


async def _bare_client(role: str, plan: Plan, size: Size) -> Values:
    sink = Sink()
    await sink.open()
    async with _bare(role, hook(sink.port), str(size.count), str(size.warm_up), plan=plan) as process:
        took = read_took(await process.output())
    await sink.close()
    return took.values


def _bare(*args: str, plan: Plan) -> Process:
    command = (sys.executable, "-m", "benchmarks.bare", *args)
    return Process(*command, cpus=plan.cpus, talks=args[0] in {"client", "load"})


async def _posted(process: Process, load: Load, *, count: int, warm_up: int, each: int = 1) -> Values:
    await load.open()
    await load.post(warm_up)
    values = await _timed(process, partial(load.post, count), count * each)
    await load.close()
    values["peak"] = process.resident("VmHWM")
    return values


async def _timed(process: Process, work: Callable[[], Awaitable[object]], count: int) -> dict[str, float]:
    began, spent = perf_counter(), process.cpu
    await work()
    return Took(count=count, seconds=perf_counter() - began, cpu=process.cpu - spent).values


def both(run: Round) -> float:
    """What a bare server and a bare client could do on one core, taking turns: the end-to-end yardstick."""
    return 1 / (1 / run[SERVER]["rate"] + 1 / run[CLIENT]["rate"])


def _both_costs(run: Round) -> float:
    return run[SERVER]["cost"] + run[CLIENT]["cost"]


PART = Part(
    name="throughput",
    title="Accepting and delivering, one process on one core",
    columns={
        "rate": Column("a second"),
        "cost": Column("µs CPU each"),
        "peak": Column("peak MiB"),
    },
    open=_open,
    figures=(
        Figure(name="accepted ÷ bare server", of=ratio(ACCEPT, SERVER), at_least=0.7),
        Figure(name="accepted, wanted by nobody ÷ bare server", of=ratio(ACCEPT_UNWANTED, SERVER)),
        Figure(
            name="end to end ÷ 1/(1/bare server + 1/bare client)",
            of=lambda run: run[END_TO_END]["rate"] / both(run),
            at_least=0.55,
        ),
        Figure(
            name="end to end by CPU: (bare server + bare client) ÷ end to end",
            of=lambda run: _both_costs(run) / run[END_TO_END]["cost"],
        ),
        Figure(name="accepted by array ÷ one by one", of=ratio(ARRAYS, ACCEPT), at_least=4),
        Figure(
            name="accepted by array ÷ one by one, wanted by nobody",
            of=ratio(ARRAYS_UNWANTED, ACCEPT_UNWANTED),
        ),
    ),
)
