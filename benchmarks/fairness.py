"""Part `fairness`: what some lanes' trouble does to the others.

Healthy endpoints get events at a steady rate, and each one's time from its `202` to its arrival is taken.
Beside them waits, in turn: nothing; a backlog for a receiver that hangs, and one for one that answers 500;
ten thousand lanes in back-off.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from msgspec import Struct

from benchmarks.parts import Opened, Part, Plan
from benchmarks.processes import HOST, Process
from benchmarks.results import Column, Figure, Values, ratio
from benchmarks.serving import EVENTS_PATH, Setup, serving
from notifier.bench.figures import percentile

_CONFIG = """
[server]
port = 0
max_body = "8MiB"

[channels.webhook]
allow_networks = ["127.0.0.1/32"]

[[routes]]
event = "hanging.*"
channel = "webhook"
url = "http://127.0.0.1:{hanging}/hook"

[[routes]]
event = "broken.*"
channel = "webhook"
url = "http://127.0.0.1:{broken}/hook"
"""
_ARRAY = 1000
_POLL = 0.05


class Size(Struct, frozen=True):
    """How much of everything."""

    seconds: float = 20.0
    rate: int = 200
    """Healthy events a second."""
    healthy: int = 20
    """Healthy endpoints."""
    hanging: int = 100_000
    broken: int = 1_000
    lanes: int = 10_000


QUICK = Size(seconds=3.0, rate=100, healthy=5, hanging=2_000, broken=100, lanes=200)


class Receivers:
    """Three receivers on loopback: one is well and notes when what arrived, one hangs, one answers 500."""

    def __init__(self) -> None:
        self.arrived: dict[int, float] = {}
        self.refused = 0
        self.ports: dict[str, int] = {}
        self._runners: list[web.AppRunner] = []

    async def open(self) -> None:
        """Listen."""
        for name, handler in (("well", self._take), ("hanging", self._hang), ("broken", self._refuse)):
            app = web.Application()
            app.router.add_post("/hook", handler)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, HOST, 0, backlog=1024).start()
            self._runners.append(runner)
            self.ports[name] = runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening."""
        for runner in self._runners:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        now = perf_counter()
        number = msgspec.json.decode(await request.read())["data"]["number"]
        self.arrived[number] = now
        return web.Response(status=204)

    async def _hang(self, _request: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response(status=204)

    async def _refuse(self, _request: web.Request) -> web.Response:
        self.refused += 1
        return web.Response(status=500)


class Bench:
    """A `notifier serve` with its healthy endpoints, and whoever talks to it."""

    def __init__(self, size: Size, receivers: Receivers, http: aiohttp.ClientSession, base: str) -> None:
        self.size = size
        self.receivers = receivers
        self._http = http
        self._base = base
        self._number = 0

    async def call(self, path: str, body: Any) -> Any:
        """POST, and return what is answered."""
        async with self._http.post(
            self._base + path, data=msgspec.json.encode(body), headers=_JSON
        ) as answer:
            told = await answer.json()
            assert answer.ok, told
            return told

    async def endpoint(self, event_type: str, port: int) -> None:
        """Subscribe a receiver."""
        body = {"url": f"http://{HOST}:{port}/hook", "event_types": [event_type]}
        await self.call("/v1/admin/endpoints", body)

    async def post_many(self, event_types: Sequence[str]) -> None:
        """Post events, a thousand a call."""
        for start in range(0, len(event_types), _ARRAY):
            chunk = event_types[start : start + _ARRAY]
            await self.call(EVENTS_PATH, [{"type": each, "data": {}} for each in chunk])

    async def healthy_times(self) -> list[float]:
        """Post healthy events at the steady rate; returns the milliseconds from each 202 to the arrival."""
        loop, accepted = asyncio.get_running_loop(), dict[int, float]()
        begun, first = loop.time(), self._number
        count = int(self.size.seconds * self.size.rate)

        async def post(number: int) -> None:
            event = {"type": f"well.{number % self.size.healthy}", "data": {"number": number}}
            await self.call(EVENTS_PATH, event)
            accepted[number] = perf_counter()

        posting = []
        for index in range(count):
            await asyncio.sleep(max(0.0, begun + index / self.size.rate - loop.time()))
            posting.append(asyncio.create_task(post(first + index)))
        await asyncio.gather(*posting)
        self._number += count
        arrived = self.receivers.arrived
        while not accepted.keys() <= arrived.keys():  # noqa: ASYNC110 - there is nothing to wait on from outside
            await asyncio.sleep(_POLL)
        return [max(0.0, arrived[number] - at) * 1000 for number, at in accepted.items()]


_JSON = {"Content-Type": "application/json"}
Prepare = Callable[[Bench], Awaitable[None]]


async def nothing(_bench: Bench) -> None:
    """Nothing waits."""


async def trouble(bench: Bench) -> None:
    """A backlog for a receiver that hangs, and one for a receiver that answers 500."""
    await bench.post_many(["hanging.up"] * bench.size.hanging)
    await bench.post_many(["broken.down"] * bench.size.broken)


async def many_lanes(bench: Bench) -> None:
    """So many endpoints, each with a job in back-off after two attempts that were answered 500."""
    for start in range(0, bench.size.lanes, 64):
        numbers = range(start, min(start + 64, bench.size.lanes))
        await asyncio.gather(
            *(bench.endpoint(f"lane.{number}", bench.receivers.ports["broken"]) for number in numbers)
        )
    await bench.post_many([f"lane.{number}" for number in range(bench.size.lanes)])
    while bench.receivers.refused < 2 * bench.size.lanes:  # noqa: ASYNC110 - nothing to wait on from outside
        await asyncio.sleep(_POLL)


CALM = "nothing waits"
TROUBLE = "a hanging and a broken receiver's backlogs"
MANY = "thousands of lanes in back-off"
SITUATIONS: dict[str, Prepare] = {CALM: nothing, TROUBLE: trouble, MANY: many_lanes}


@asynccontextmanager
async def _open(plan: Plan) -> AsyncIterator[Opened]:
    size = plan.size(Size(), QUICK)
    rows = {name: partial(_run, plan, size, prepare) for name, prepare in SITUATIONS.items()}
    note = (
        f"{size.rate} events a second to {size.healthy} healthy endpoints, for {size.seconds:.0f} s; "
        f"{size.hanging:,} and {size.broken:,} jobs in the backlogs, {size.lanes:,} lanes in back-off"
    )
    yield Opened(rows, [note])


async def _run(plan: Plan, size: Size, prepare: Prepare) -> Values:
    async with _serving(plan, size) as (bench, process):
        await prepare(bench)
        spent = process.cpu
        times = sorted(await bench.healthy_times())
        return {
            "p50": percentile(times, 0.5),
            "p99": percentile(times, 0.99),
            "cost": (process.cpu - spent) / len(times) * 1e6,
        }


@asynccontextmanager
async def _serving(plan: Plan, size: Size) -> AsyncIterator[tuple[Bench, Process]]:
    receivers = Receivers()
    await receivers.open()
    setup = Setup(_CONFIG.format(**receivers.ports), {})
    async with (
        serving(setup, cpus=plan.all_cpus, within=plan.folder) as served,
        aiohttp.ClientSession() as http,
    ):
        bench = Bench(size, receivers, http, f"http://{HOST}:{served.port}")
        for number in range(size.healthy):
            await bench.endpoint(f"well.{number}", receivers.ports["well"])
        yield bench, served.process
    await receivers.close()


PART = Part(
    name="fairness",
    title="Healthy endpoints beside others' trouble",
    columns={
        "p50": Column("202→arrival p50, ms", ".2f"),
        "p99": Column("p99, ms", ".2f"),
        "cost": Column("µs CPU each"),
    },
    open=_open,
    figures=(
        Figure(name="p99 beside two receivers' backlogs ÷ calm", of=ratio(TROUBLE, CALM, "p99"), at_most=2),
        Figure(name="p99 beside lanes in back-off ÷ calm", of=ratio(MANY, CALM, "p99"), at_most=2),
    ),
    rounds=2,
)
