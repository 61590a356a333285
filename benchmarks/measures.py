"""What is measured, each as one run of one fresh process on an empty store.

The load and the sink are in this process; what is measured is in the other.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import aiohttp
import msgspec
from msgspec import Struct

from benchmarks import events
from benchmarks.processes import NOTIFIER, Measured
from benchmarks.wire import Load, Sink

HOST = "127.0.0.1"
EVENTS_PATH = "/v1/events"
_ARRAY = 1000
_ARRAY_CONNECTIONS = 4
_POLL = 0.005


class Plan(Struct, frozen=True, kw_only=True):
    """How much is measured, and where."""

    count: int
    warm_up: int
    connections: int
    cpus: Collection[int]
    """Where the measured process runs."""
    folder: Path | None = None
    """Where stores are made; None: the system's place for temporary files."""


class Run(Struct, frozen=True, kw_only=True):
    """One run: what was done in how long, and what the measured process used for it."""

    count: int
    seconds: float
    cpu: float
    """Seconds of CPU of the measured process."""
    peak: int = 0
    """The most memory it held, in bytes; 0 where that isn't of interest."""

    @property
    def rate(self) -> float:
        """How many a second."""
        return self.count / self.seconds

    @property
    def cost(self) -> float:
        """Microseconds of CPU for each."""
        return self.cpu / self.count * 1e6


Measure = Callable[[Plan], Awaitable[Run]]


async def wire_server(plan: Plan) -> Run:
    """The load against the wire's own sink: the most that the load can do."""
    return await _loaded("sink", plan)


async def wire_client(plan: Plan) -> Run:
    """The wire's own load against the sink: the most that the sink can do."""
    return await _sunk("load", plan)


async def bare_server(plan: Plan) -> Run:
    """A bare aiohttp server that answers 202, stores nothing."""
    return await _loaded("server", plan)


async def bare_client(plan: Plan) -> Run:
    """A bare, tuned aiohttp client."""
    return await _sunk("client", plan)


async def accept(plan: Plan) -> Run:
    """Events that nobody wants, one by one: accepted, stored, synced."""
    return await _accepted(plan, events.event(events.UNWANTED))


async def accept_scheduled(plan: Plan) -> Run:
    """Events with a job each that is due tomorrow, one by one: routed, stored, synced."""
    return await _accepted(plan, events.later())


async def accept_arrays(plan: Plan) -> Run:
    """Events that nobody wants, a thousand a request."""
    requests = max(8, plan.count * 3 // _ARRAY)
    async with _serving(plan, Sink()) as (process, port):
        load = Load(HOST, port, events.array(_ARRAY), path=EVENTS_PATH, connections=_ARRAY_CONNECTIONS)
        return await _timed(process, load, requests, warm_up=max(4, requests // 10), each=_ARRAY)


async def end_to_end(plan: Plan) -> Run:
    """Accepted one by one, rendered, signed, delivered and recorded: until the last one is COMPLETED."""
    sink = Sink()
    await sink.open()
    async with _serving(plan, sink) as (process, port):
        load = Load(HOST, port, events.BODY, path=EVENTS_PATH, connections=plan.connections)
        await load.open()
        await _through(load, sink, port, plan.warm_up)
        began, spent = perf_counter(), process.cpu
        await _through(load, sink, port, plan.count)
        seconds, cpu = perf_counter() - began, process.cpu - spent
        await load.close()
        assert sink.count == plan.warm_up + plan.count, "delivered more than once"
        assert not await _any_in(port, "FAILED"), "not all were delivered"
        run = Run(count=plan.count, seconds=seconds, cpu=cpu, peak=process.resident("VmHWM"))
    await sink.close()
    return run


async def _through(load: Load, sink: Sink, port: int, count: int) -> None:
    """Post so many; return once all of them are delivered, and recorded as such."""
    wanted = sink.count + count
    await load.post(count)
    await sink.reached(wanted)
    while await _any_in(port, "PROCESSING") or await _any_in(port, "PENDING"):  # noqa: ASYNC110
        await asyncio.sleep(_POLL)  # from outside there is nothing to wait on


async def _any_in(port: int, status: str) -> bool:
    url = f"http://{HOST}:{port}/v1/admin/jobs?status={status}&limit=1"
    async with aiohttp.request("GET", url) as response:
        return bool((await response.json())["jobs"])


async def _accepted(plan: Plan, body: bytes) -> Run:
    async with _serving(plan, Sink()) as (process, port):
        load = Load(HOST, port, body, path=EVENTS_PATH, connections=plan.connections)
        return await _timed(process, load, plan.count, warm_up=plan.warm_up)


async def _loaded(role: str, plan: Plan) -> Run:
    """Load one of the bare servers."""
    async with _bare(role, plan=plan) as process:
        port = await process.listening()
        load = Load(HOST, port, events.BODY, path=EVENTS_PATH, connections=plan.connections)
        return await _timed(process, load, plan.count, warm_up=plan.warm_up)


async def _sunk(role: str, plan: Plan) -> Run:
    """Let one of the bare clients post to the sink."""
    sink = Sink()
    await sink.open()
    url = f"http://{HOST}:{sink.port}/hook"
    async with _bare(role, url, str(plan.count), str(plan.warm_up), plan=plan) as process:
        run = msgspec.json.decode(await process.output(), type=Run)
    await sink.close()
    return run


def _bare(*args: str, plan: Plan) -> Measured:
    return Measured(sys.executable, "-m", "benchmarks.bare", *args, cpus=plan.cpus)


async def _timed(process: Measured, load: Load, count: int, *, warm_up: int, each: int = 1) -> Run:
    await load.open()
    await load.post(warm_up)
    spent = process.cpu
    seconds = await load.post(count)
    cpu = process.cpu - spent
    await load.close()
    return Run(count=count * each, seconds=seconds, cpu=cpu, peak=process.resident("VmHWM"))


@asynccontextmanager
async def _serving(plan: Plan, sink: Sink) -> AsyncIterator[tuple[Measured, int]]:
    """Run `notifier serve` on an empty store; its one route leads to the sink."""
    with TemporaryDirectory(prefix="notifier-bench-", dir=plan.folder) as name:
        folder = Path(name)
        prepare(folder, sink.port or 9)
        async with Measured(NOTIFIER, "serve", "--log-level", "warning", cpus=plan.cpus, folder=folder) as it:
            yield it, await it.listening()


def prepare(folder: Path, port: int) -> None:
    """Write the configuration and the template into a folder; webhooks go to a port of loopback."""
    (folder / "config.toml").write_text(events.CONFIG.format(port=port, timeout="15s"))
    template = folder / "templates" / "order"
    template.mkdir(parents=True)
    (template / "payload.json").write_text(events.PAYLOAD)
