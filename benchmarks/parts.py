"""What a part of the benchmarks is, and how its rows take turns."""

import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from msgspec import Struct, field

from benchmarks.results import Column, Figure, Measured, Result, Round, Values, measured

_Size = TypeVar("_Size")

Measure = Callable[[], Awaitable[Values]]
"""Takes one run of one row."""

Tell = Callable[[str], None]
"""Tells whoever waits how far it is."""


class Plan(Struct, frozen=True, kw_only=True):
    """How much is measured, and where."""

    rounds: int
    quick: bool
    cpus: Collection[int]
    """Where what is measured runs,"""
    other_cpus: Collection[int]
    """and where what loads it and what it sends to."""
    folder: Path | None
    """Where stores are made; None: the system's place for temporary files."""
    tell: Tell
    connections: int = 64

    @property
    def all_cpus(self) -> set[int]:
        """The whole machine."""
        return {*self.cpus, *self.other_cpus}

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder where stores are made, gone afterwards with all that is in it."""
        with TemporaryDirectory(prefix="notifier-bench-", dir=self.folder) as name:
            yield Path(name)

    def size(self, full: _Size, quick: _Size) -> _Size:
        """Which of the two sizes is wanted."""
        return quick if self.quick else full


class Opened(Struct, frozen=True):
    """A part that is ready: its rows in the order they take turns, and what is said below its table."""

    rows: Mapping[str, Measure]
    notes: Sequence[str] = ()


class Part(Struct, frozen=True, kw_only=True):
    """One table: rows that take turns, round after round."""

    name: str
    title: str
    columns: Mapping[str, Column]
    open: Callable[[Plan], AbstractAsyncContextManager[Opened]]
    figures: Sequence[Figure] = ()
    needs: Mapping[str, str] = field(default_factory=dict)
    """Programs, and the Debian packages they come with."""
    rounds: int | None = None
    """At most so many, where one takes long and no aim hangs on it."""


async def run(part: Part, plan: Plan) -> Result:
    """Measure a part, round after round. What goes wrong ends it, and is told in the result."""
    rounds: list[Round] = []
    notes: Sequence[str] = ()
    failed = ""
    count = min(plan.rounds, part.rounds or plan.rounds)
    began = time.monotonic()
    try:
        async with part.open(plan) as opened:
            notes = opened.notes
            for number in range(1, count + 1):
                one = await _round(part, opened.rows, f"round {number}/{count}", plan.tell)
                rounds.append(one)
    except Exception as error:
        failed = f"{type(error).__name__}: {error}"
        plan.tell(f"{part.name} failed after {len(rounds)} rounds: {failed}")
    plan.tell(f"{part.name}: {time.monotonic() - began:.0f} s in all")
    return Result(
        name=part.name,
        title=part.title,
        columns=part.columns,
        rounds=rounds,
        figures=_figures(part, rounds),
        notes=notes,
        failed=failed,
    )


def _figures(part: Part, rounds: Sequence[Round]) -> list[Measured]:
    return [measured(figure, rounds) for figure in part.figures] if rounds else []


async def _round(part: Part, rows: Mapping[str, Measure], which: str, tell: Tell) -> Round:
    told: dict[str, Values] = {}
    for row, measure in rows.items():
        told[row] = values = await measure()
        words = (f"{part.columns[name].head} {one:{part.columns[name].form}}" for name, one in values.items())
        tell(f"{part.name}, {which}: {row}: {', '.join(words)}")
    return told
