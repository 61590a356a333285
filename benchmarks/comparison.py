"""Part `peers`: the same work, end to end, by what a Python user would pick instead.

All sides get the whole machine in turn: workers, stores, producer or load, and sink, on two cores.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import msgspec
from msgspec import Struct

from benchmarks.catalog import PEERS, Peer, Setting
from benchmarks.environments import Environment, made
from benchmarks.parts import Measure, Opened, Part, Plan
from benchmarks.processes import ROOT, EndedError, Process, on_cpus, while_alive
from benchmarks.results import Column, Figure, Round, Values
from benchmarks.servers import NEEDS
from benchmarks.serving import hook
from benchmarks.throughput import Size as OurSize
from benchmarks.throughput import end_to_end
from benchmarks.wire import Sink

OURS = "notifier"
_HANGS_AFTER = 90.0


class Size(Struct, frozen=True):
    """How much a run is."""

    seconds: float = 5.0
    """How long each run is to take, judged by the trials,"""
    trial: int = 1_500
    """which are of so many events."""
    warm_up: int = 500
    settings: int | None = None
    """How many of a peer's settings are tried at most."""


QUICK = Size(seconds=0.5, trial=150, warm_up=20, settings=1)


class Candidate(Struct, frozen=True):
    """A peer in its environment, with one of its settings."""

    peer: Peer
    environment: Environment
    setting: Setting

    @property
    def name(self) -> str:
        """Which it is."""
        return f"{self.peer.name}, {self.setting.name}"

    def command(self, command: Sequence[str], plan: Plan, env: Mapping[str, str]) -> Process:
        """One of the environment's commands."""
        name, *given = command
        python = self.environment.program("python")
        return Process(python, self.environment.program(name), *given, cpus=plan.all_cpus, env=env)

    def producer(self, plan: Plan, env: Mapping[str, str]) -> Process:
        """What enqueues."""
        command = (self.environment.program("python"), "-m", "benchmarks.peers", self.peer.module)
        return Process(*command, cpus=plan.all_cpus, env=env, talks=True)


Rates = Mapping[Candidate, float]
"""Of one peer: events a second, by setting that was tried."""


@asynccontextmanager
async def _open(plan: Plan) -> AsyncIterator[Opened]:
    size = plan.size(Size(), QUICK)
    whole = msgspec.structs.replace(plan, cpus=plan.all_cpus, other_cpus=plan.all_cpus)
    with on_cpus(plan.all_cpus), TemporaryDirectory(prefix="notifier-bench-") as folder:
        environments = await _environments(Path(folder), whole)
        trials = [await _trial(_candidates(peer, environments, size), whole, size) for peer in PEERS]
        ours = (await _ours(whole, size.trial))["rate"]
        rows: dict[str, Measure] = {OURS: partial(_ours, whole, _count(ours, size))}
        for rates in trials:
            best = max(rates, key=lambda each: rates[each])
            rows[best.name] = partial(_run, best, whole, size.warm_up, _count(rates[best], size))
        yield Opened(rows, [*map(_told, trials), _versions(environments)])


async def _environments(folder: Path, plan: Plan) -> dict[str, Environment]:
    packages = {peer.module: peer.packages for peer in PEERS}
    plan.tell(f"peers: making virtual environments for {', '.join(packages)}")
    return {module: await made(folder / module, each, plan.all_cpus) for module, each in packages.items()}


def _candidates(peer: Peer, environments: Mapping[str, Environment], size: Size) -> list[Candidate]:
    return [Candidate(peer, environments[peer.module], each) for each in peer.settings[: size.settings]]


async def _trial(candidates: Sequence[Candidate], plan: Plan, size: Size) -> Rates:
    rates = {each: (await _run(each, plan, size.warm_up, size.trial))["rate"] for each in candidates}
    plan.tell(f"peers, trials: {_told(rates)}")
    return rates


async def _ours(plan: Plan, count: int) -> Values:
    return {"rate": (await end_to_end(plan, OurSize(count=count, warm_up=max(1, count // 10))))["rate"]}


def _count(rate: float, size: Size) -> int:
    """How many events take about as long as a run should."""
    return max(50, round(rate * size.seconds))


async def _run(candidate: Candidate, plan: Plan, warm_up: int, count: int) -> Values:
    """Events a second, from the first that is enqueued until all are delivered and recorded."""
    async with AsyncExitStack() as stack:
        setting, sink = candidate.setting, Sink()
        await sink.open()
        stack.push_async_callback(sink.close)
        env = {
            "BENCH_STORE": await stack.enter_async_context(candidate.peer.store(plan)),
            "BENCH_HOOK": hook(sink.port),
            "BENCH_CONCURRENCY": str(setting.concurrency),
            "PYTHONPATH": str(ROOT),
        }
        if candidate.peer.prepare:
            async with candidate.command(candidate.peer.prepare, plan, env) as preparing:
                await preparing.succeeded()
        workers = [candidate.command(setting.command, plan, env) for _ in range(setting.processes)]
        producer = candidate.producer(plan, env)
        for process in (*workers, producer):
            await stack.enter_async_context(process)
        timing = asyncio.wait_for(_timed(producer, sink, warm_up, count), _HANGS_AFTER)
        try:
            return {"rate": await while_alive(timing, *workers)}
        except TimeoutError:
            raise EndedError("\n".join(["too slow:", *(each.log for each in (producer, *workers))])) from None


async def _timed(producer: Process, sink: Sink, warm_up: int, count: int) -> float:
    await _through(producer, sink, warm_up, warm_up)
    began = perf_counter()
    await _through(producer, sink, count, warm_up + count)
    return count / (perf_counter() - began)


async def _through(producer: Process, sink: Sink, count: int, total: int) -> None:
    await producer.ask(f"enqueue {count}")
    await sink.reached(total)
    await producer.ask(f"recorded {total}")


def _told(rates: Rates) -> str:
    """The trials of one peer in words."""
    peer = next(iter(rates)).peer.name
    each = ", ".join(f"{candidate.setting.name} {rate:,.0f}" for candidate, rate in rates.items())
    return f"{peer}, events a second in the trials: {each}"


def _versions(environments: Mapping[str, Environment]) -> str:
    wanted = sorted({name.partition("[")[0] for peer in PEERS for name in peer.packages})
    found = {
        name: sorted({each.versions[name] for each in environments.values() if name in each.versions})
        for name in wanted
    }
    told = ", ".join(f"{name} {' and '.join(versions)}" for name, versions in found.items())
    return f"versions in the peers' environments: {told}, Python {sys.version.split()[0]}"


def _best_peer(run: Round) -> float:
    return max(values["rate"] for row, values in run.items() if row != OURS)


PART = Part(
    name="peers",
    title="End to end beside other task queues, two cores each in turn",
    columns={"rate": Column("events a second")},
    open=_open,
    figures=(
        Figure(
            name="end to end ÷ the best peer",
            of=lambda run: run[OURS]["rate"] / _best_peer(run),
            at_least=2.5,
        ),
    ),
    needs=NEEDS,
)
