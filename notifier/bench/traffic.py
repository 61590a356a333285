"""What goes through a real server between our two ends: flat out, and then at half of that rate."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

from msgspec import Struct

from notifier.bench import BenchError
from notifier.bench.child import Child
from notifier.bench.figures import Latency, Spread, percentile
from notifier.bench.load import Load
from notifier.bench.turns import Turns
from notifier.bench.usage import Usage, usage_of
from notifier.bench.verdict import Busy, Limit, Places

_LOOKS = 3
"""How often in a turn it is looked how many places are taken."""

_SOON = 0.01
_NOTHING_FOR = 30.0
"""Seconds in which nothing gets through, until there is nothing to measure."""


class Look(NamedTuple):
    """Something that only so many deliveries can have at once; `taken` asks how many have it."""

    limit: Limit
    places: int
    taken: Callable[[], Awaitable[float]]


class Peak(Struct, frozen=True, kw_only=True):
    """What went through as fast as it could."""

    rate: Spread
    """Events a second."""
    cpu_us: float | None
    """Microseconds of the server's CPU for each; None: the system doesn't tell."""
    server: Busy | None
    load: Busy | None
    accept_ms: float
    """How long a request took to be answered."""
    places: tuple[Places, ...]


class _Turn(Struct, frozen=True, kw_only=True):
    seconds: float
    accept: list[float]
    deliver: list[float]
    server: Usage | None
    load: Usage | None
    taken: list[float]
    """What each look found, on average."""

    def busy(self, used: Usage | None) -> Busy | None:
        return None if used is None else Busy(used.cpu / self.seconds, used.waited / self.seconds)


class Traffic:
    """A load on a server; `looks` is what is looked at meanwhile."""

    def __init__(self, child: Child, load: Load, looks: Sequence[Look] = ()) -> None:
        self._child = child
        self._load = load
        self._looks = looks

    async def flat_out(self, turns: Turns, window: int) -> Peak:
        """Have no more than so many events under way, and see how many get through. Raises BenchError."""
        self._load.flat_out(window)
        taken = await turns.take(self._turn)
        await self._load.land()
        counts = [len(self._timed(each)) * self._load.events_each for each in taken]
        accepted = sorted(each for turn in taken for each in turn.accept)
        rate = Spread.of([count / each.seconds for count, each in zip(counts, taken, strict=True)])
        return Peak(
            rate=rate,
            cpu_us=_cost(taken, counts),
            server=_median([each.busy(each.server) for each in taken]),
            load=_median([each.busy(each.load) for each in taken]),
            accept_ms=percentile(accepted, 0.5) * 1e3 if accepted else 0.0,
            places=tuple(
                Places(look.limit, look.places, fmean(turn.taken[number] for turn in taken))
                for number, look in enumerate(self._looks)
            ),
        )

    async def steady(self, turns: Turns, rate: float) -> Latency:
        """Post so many a second, and see how long each takes. Raises BenchError."""
        self._load.steady(rate)
        taken = await turns.take(self._turn)
        await self._load.land()
        return Latency.of([each for turn in taken for each in self._timed(turn)])

    async def _something(self, began: float) -> None:
        """However short a turn is, it ends with something to count. Raises BenchError."""
        timed = self._load.deliver_seconds if self._load.arrives else self._load.accept_seconds
        while not timed:
            if perf_counter() - began > _NOTHING_FOR:
                raise BenchError(f"nothing got through within {_NOTHING_FOR:.0f} s")
            await self._load.watch(_SOON)

    def _timed(self, turn: _Turn) -> list[float]:
        return turn.deliver if self._load.arrives else turn.accept

    async def _turn(self, seconds: float) -> _Turn:
        load, child = self._load, self._child
        load.reset()
        began, server, own = perf_counter(), child.usage, usage_of(os.getpid())
        found = [0.0] * len(self._looks)
        for _ in range(_LOOKS):
            await load.watch(seconds / _LOOKS)
            for number, look in enumerate(self._looks):
                found[number] += await look.taken() / _LOOKS
        await self._something(began)
        return _Turn(
            seconds=perf_counter() - began,
            accept=load.accept_seconds,
            deliver=load.deliver_seconds,
            server=_between(server, child.usage),
            load=_between(own, usage_of(os.getpid())),
            taken=found,
        )


@asynccontextmanager
async def serving(folder: Path, set_up: Callable[[Path], None]) -> AsyncIterator[Child]:
    """Run a server in a folder of its own, which is set up for it and removed after it.

    What goes wrong meanwhile is told with the last that it said.
    """
    with TemporaryDirectory(prefix="server-", dir=folder) as name:
        set_up(Path(name))
        async with Child(Path(name)) as child:
            try:
                yield child
            except BenchError as error:
                raise BenchError(f"{error}{child.last_words}") from error


def _between(before: Usage | None, after: Usage | None) -> Usage | None:
    return None if before is None or after is None else after - before


def _median(each: Sequence[Busy | None]) -> Busy | None:
    known = [busy for busy in each if busy is not None]
    if not known:
        return None
    return Busy(median(busy.ran for busy in known), median(busy.waited for busy in known))


def _cost(turns: Sequence[_Turn], counts: Sequence[int]) -> float | None:
    costs = [
        turn.server.cpu / count * 1e6
        for turn, count in zip(turns, counts, strict=True)
        if turn.server is not None and count
    ]
    return median(costs) if costs else None
