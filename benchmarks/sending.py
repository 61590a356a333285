"""`python -m benchmarks.sending`: mails a second to Postfix's smtp-sink, through our relays and without.

Beside them Postfix's own smtp-source. All on kept connections, as many each; measures take turns within a
round, and ratios are made within one. What is measured runs on CPU 0, the sink on CPU 1.
"""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median
from time import perf_counter

import click
import msgspec
import uvloop
from msgspec import Struct

from benchmarks.measures import Run
from benchmarks.processes import Measured
from benchmarks.report import machine, table
from benchmarks.senders import HOST, MAIL

PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin"
_SENDING, _SINK = {0}, {1}
_POLL = 0.01


class Size(Struct, frozen=True):
    """How much of it."""

    count: int = 20_000
    warm_up: int = 2_000
    connections: int = 10


QUICK = Size(count=1_000, warm_up=100)


@asynccontextmanager
async def _sink() -> AsyncIterator[int]:
    """Run smtp-sink, and give its port."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
    async with Measured(_program("smtp-sink"), *as_nobody, f"{HOST}:{port}", "128", cpus=_SINK):
        while not _listens(port):  # noqa: ASYNC110 - it says nothing that could be waited for
            await asyncio.sleep(_POLL)
        yield port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _program(name: str) -> str:
    path = shutil.which(name, path=PLACES)
    if path is None:
        raise click.ClickException(
            f"{name} is missing: `bash .ci/setup test` installs Debian's package postfix"
        )
    return path


async def _ours(role: str, size: Size) -> Run:
    given = map(str, (size.connections, size.count, size.warm_up))
    async with _sink() as port:
        command = (sys.executable, "-m", "benchmarks.senders", role, str(port), *given)
        async with Measured(*command, cpus=_SENDING) as process:
            return msgspec.json.decode(await process.output(), type=Run)


async def _pool(size: Size) -> Run:
    return await _ours("pool", size)


async def _aiosmtplib(size: Size) -> Run:
    return await _ours("aiosmtplib", size)


async def _smtp_source(size: Size) -> Run:
    """Its connections are made within the time that is measured, which is its whole life."""
    options = ("-d", "-s", size.connections, "-m", size.count, "-l", len(MAIL))
    async with _sink() as port:
        spent, began = os.times(), perf_counter()
        command = (_program("smtp-source"), *map(str, options), f"{HOST}:{port}")
        async with Measured(*command, cpus=_SENDING) as process:
            await process.output()
            seconds, after = perf_counter() - began, os.times()
        cpu = after.children_user + after.children_system - spent.children_user - spent.children_system
        return Run(count=size.count, seconds=seconds, cpu=cpu)


MEASURES: dict[str, Callable[[Size], Awaitable[Run]]] = {
    "through the relays of the email channel": _pool,
    "bare aiosmtplib": _aiosmtplib,
    "smtp-source (in C)": _smtp_source,
}


@click.command()
@click.option(
    "--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each is measured."
)
@click.option("--quick", is_flag=True, help="Less of everything, once: to see that it runs.")
def main(rounds: int, quick: bool) -> None:
    """Measure, and print a table in Markdown."""
    size, rounds = (QUICK, 1) if quick else (Size(), rounds)
    told = uvloop.run(_rounds(size, rounds))
    bare = told["bare aiosmtplib"]
    rows = [
        (
            name,
            _spread([run.rate for run in runs], ",.0f"),
            _spread([run.cost for run in runs], ",.0f"),
            _spread([run.rate / other.rate for run, other in zip(runs, bare, strict=True)], ".2f"),
        )
        for name, runs in told.items()
    ]
    click.echo(", ".join(f"{name} {value}" for name, value in machine().items()) + ".\n")
    click.echo(f"{size.count} mails of {len(MAIL)} bytes over {size.connections} connections.\n")
    click.echo(table(("mails to smtp-sink", "a second", "µs CPU each", "÷ aiosmtplib"), rows))


async def _rounds(size: Size, rounds: int) -> dict[str, list[Run]]:
    told: dict[str, list[Run]] = {name: [] for name in MEASURES}
    for number in range(1, rounds + 1):
        for name, measure in MEASURES.items():
            told[name].append(run := await measure(size))
            click.echo(f"round {number}/{rounds}: {name}: {run.rate:,.0f}/s", err=True)
    return told


def _spread(values: list[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
