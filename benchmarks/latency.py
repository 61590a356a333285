"""Part `latency`: how long events take to be accepted and to be delivered, at half the peak rate.

The peak is taken in the same round, by a closed load; the half of it arrives as an open load.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from benchmarks import events
from benchmarks.open_loop import ArrivalSink, OpenLoad
from benchmarks.parts import Opened, Part, Plan
from benchmarks.processes import HOST
from benchmarks.results import Column, Figure, Values, value
from benchmarks.serving import EVENTS_PATH, delivered, serving, webhooks
from benchmarks.throughput import Size as ThroughputSize
from benchmarks.throughput import end_to_end
from notifier.bench.figures import percentile

PEAK = "notifier: the peak, a closed load"
HALF = "notifier: half of it, an open load"


class Size(Struct, frozen=True):
    """How much of it."""

    peak: int = 12_000
    """Events of which the peak rate is made."""
    warm_up: int = 2_000
    seconds: float = 10.0
    """How long half the peak rate is kept up."""


QUICK = Size(peak=2_000, warm_up=300, seconds=1.0)


class _Part:
    """What a round's second row must know of its first."""

    def __init__(self, plan: Plan, size: Size) -> None:
        self._plan = plan
        self._size = size
        self._peak = 0.0

    async def peak(self) -> Values:
        """Take the peak rate."""
        size = ThroughputSize(count=self._size.peak, warm_up=self._size.warm_up)
        self._peak = (await end_to_end(self._plan, size))["rate"]
        return {"rate": self._peak}

    async def half(self) -> Values:
        """Keep half of it up, and take each event's times."""
        rate = self._peak / 2
        count = int(rate * self._size.seconds)
        sink = ArrivalSink()
        await sink.open()
        async with serving(webhooks(sink.port), cpus=self._plan.cpus, within=self._plan.folder) as served:
            warming = served.load(self._plan, events.numbered(count))
            await warming.open()
            await delivered(served, warming, sink, self._size.warm_up)
            await warming.close()
            load = OpenLoad(HOST, served.port, path=EVENTS_PATH, connections=self._plan.connections)
            await load.open()
            await load.post(count, rate)
            await sink.reached(self._size.warm_up + count)
            await load.close()
        await sink.close()
        return {"rate": rate, **_times(load, sink, count)}


def _times(load: OpenLoad, sink: ArrivalSink, count: int) -> Values:
    numbers = range(count)
    accepted = [(load.answered[number] - load.meant[number]) * 1000 for number in numbers]
    arrived = [(sink.arrived[number] - load.meant[number]) * 1000 for number in numbers]
    between = [max(0.0, later - sooner) for sooner, later in zip(accepted, arrived, strict=True)]
    told: dict[str, float] = {}
    for name, values in (("accept", accepted), ("deliver", between), ("whole", arrived)):
        ranked = sorted(values)
        told |= {f"{name}_p50": percentile(ranked, 0.5), f"{name}_p99": percentile(ranked, 0.99)}
    return told


@asynccontextmanager
async def _open(plan: Plan) -> AsyncIterator[Opened]:
    part = _Part(plan, plan.size(Size(), QUICK))
    yield Opened({PEAK: part.peak, HALF: part.half})


PART = Part(
    name="latency",
    title="Latency at half the peak rate, in milliseconds",
    columns={
        "rate": Column("events a second"),
        "accept_p50": Column("meant→202 p50", ".1f"),
        "accept_p99": Column("p99", ".1f"),
        "deliver_p50": Column("202→delivered p50", ".1f"),
        "deliver_p99": Column("p99", ".1f"),
        "whole_p50": Column("meant→delivered p50", ".1f"),
        "whole_p99": Column("p99", ".1f"),
    },
    open=_open,
    figures=(
        Figure(
            name="arrival→202 p99 at half the peak rate",
            of=value(HALF, "accept_p99"),
            at_most=10,
            form=".1f",
            unit=" ms",
        ),
        Figure(
            name="arrival→delivered p99 at half the peak rate",
            of=value(HALF, "whole_p99"),
            at_most=50,
            form=".1f",
            unit=" ms",
        ),
    ),
)
