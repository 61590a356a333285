"""Runs → tables: medians with their spread, ratios within each round, and which machine it was."""

import os
import platform
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import msgspec
from msgspec import Struct

from benchmarks.measures import Run

_LIBRARIES = ("aiohttp", "aiosqlite", "jinja2", "msgspec", "uvloop", "yarl")

Round = Mapping[str, Run]
"""One run of each measure, by name."""


class Spread(Struct, frozen=True):
    """What several rounds came to."""

    median: float
    least: float
    most: float


class Figure(Struct, frozen=True, kw_only=True):
    """A ratio that is aimed for."""

    name: str
    of: Callable[[Round], float]
    aim: float | None = None


class Report(Struct, frozen=True, kw_only=True):
    """All of one call of the benchmarks, as it is written to JSON."""

    machine: dict[str, str]
    setting: dict[str, str | int]
    rates: dict[str, Spread]
    """A second."""
    costs: dict[str, Spread]
    """Microseconds of CPU of the measured process for each."""
    peaks: dict[str, Spread]
    """The most memory of the measured process, in MiB."""
    ratios: dict[str, Spread]
    rounds: Sequence[Round]


def both(run: Round) -> float:
    """What a bare server and a bare client could do on one core, taking turns: the end-to-end yardstick."""
    return 1 / (1 / run["bare_server"].rate + 1 / run["bare_client"].rate)


FIGURES = (
    Figure(
        name="accepted ÷ bare server",
        of=lambda run: run["accept"].rate / run["bare_server"].rate,
    ),
    Figure(
        name="accepted with a job each ÷ bare server",
        of=lambda run: run["accept_scheduled"].rate / run["bare_server"].rate,
    ),
    Figure(
        name="end to end ÷ 1/(1/bare server + 1/bare client)",
        of=lambda run: run["end_to_end"].rate / both(run),
        aim=0.35,
    ),
    Figure(
        name="the same by CPU: (bare server + bare client) ÷ end to end",
        of=lambda run: (run["bare_server"].cost + run["bare_client"].cost) / run["end_to_end"].cost,
    ),
    Figure(
        name="accepted by array ÷ one by one",
        of=lambda run: run["accept_arrays"].rate / run["accept"].rate,
    ),
)


def report(rounds: Sequence[Round], setting: dict[str, str | int]) -> Report:
    """Sum up rounds that each ran every measure."""
    names = list(rounds[0])
    return Report(
        machine=machine(),
        setting=setting,
        rates={name: _spread([each[name].rate for each in rounds]) for name in names},
        costs={name: _spread([each[name].cost for each in rounds]) for name in names},
        peaks={
            name: _spread([each[name].peak / 1024**2 for each in rounds])
            for name in names
            if rounds[0][name].peak
        },
        ratios={figure.name: _spread([figure.of(each) for each in rounds]) for figure in FIGURES},
        rounds=rounds,
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def machine() -> dict[str, str]:
    """Which kind of machine this is, and what is installed on it; nothing that names it."""
    told = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    return told | {name: version(name) for name in _LIBRARIES}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def tables(told: Report, titles: Mapping[str, str]) -> str:
    """The report in Markdown."""
    rates = [
        (titles[name], *_whole(spread), *_whole(told.costs[name]), _peak(told, name))
        for name, spread in told.rates.items()
    ]
    aims = {figure.name: figure.aim for figure in FIGURES}
    ratios = [
        (name, *_hundredths(spread), "–" if (aim := aims[name]) is None else f"{aim:.2f}")
        for name, spread in told.ratios.items()
    ]
    facts = ", ".join(f"{name} {value}" for name, value in told.machine.items())
    setting = ", ".join(f"{name} {value}" for name, value in told.setting.items())
    spread = ("median", "least", "most")
    cost = ("µs CPU each", "least", "most")
    return "\n\n".join(
        (
            f"{facts}.",
            f"{setting}.",
            table(("a second", *spread, *cost, "peak MiB"), rates),
            table(("ratio within a round", *spread, "aim"), ratios),
        )
    )


def _peak(told: Report, name: str) -> str:
    return f"{told.peaks[name].median:.0f}" if name in told.peaks else "–"


def _whole(spread: Spread) -> tuple[str, str, str]:
    return f"{spread.median:,.0f}", f"{spread.least:,.0f}", f"{spread.most:,.0f}"


def _hundredths(spread: Spread) -> tuple[str, str, str]:
    return f"{spread.median:.2f}", f"{spread.least:.2f}", f"{spread.most:.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join((line(head), f"|{rule}|", *map(line, rows)))


def to_json(told: Report) -> bytes:
    """The report as JSON."""
    return msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n"
