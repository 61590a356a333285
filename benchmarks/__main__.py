"""`python -m benchmarks`: every measure in turn, round after round, then a table; see README.md."""

import os
from pathlib import Path

import click
import msgspec
import uvloop

from benchmarks import measures
from benchmarks.measures import Measure, Plan, Run
from benchmarks.report import Report, report, tables, to_json

MEASURES: dict[str, tuple[str, Measure]] = {
    "bare_server": ("bare aiohttp server, answering 202", measures.bare_server),
    "bare_client": ("bare tuned aiohttp client", measures.bare_client),
    "accept": ("accepted, an event nobody wants", measures.accept),
    "accept_scheduled": ("accepted, with a job for tomorrow", measures.accept_scheduled),
    "accept_arrays": ("accepted by arrays of 1,000", measures.accept_arrays),
    "end_to_end": ("accepted, rendered, signed, delivered, recorded", measures.end_to_end),
    "wire_server": ("the load by itself, against the sink", measures.wire_server),
    "wire_client": ("the sink by itself, against the load", measures.wire_client),
}
FULL = Plan(count=20_000, warm_up=2_000, connections=64, cpus={0})
QUICK = msgspec.structs.replace(FULL, count=4_000, warm_up=500)
_OTHER_CPU = {1}


@click.command()
@click.option("--rounds", type=click.IntRange(1), help="How often each is measured.  [default: 5; quick: 1]")
@click.option("--quick", is_flag=True, help="Less of everything: about half a minute, to see that it runs.")
@click.option("--unpinned", is_flag=True, help="Leave it to the kernel which process runs on which CPU.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where stores are made; a real disk.  [default: the system's temporary folder]",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write JSON.")
def main(rounds: int | None, quick: bool, unpinned: bool, folder: Path | None, out: Path | None) -> None:
    """Measure, and print tables in Markdown."""
    plan = msgspec.structs.replace(QUICK if quick else FULL, folder=folder)
    if unpinned or (os.cpu_count() or 1) < 2:
        plan = msgspec.structs.replace(plan, cpus=os.sched_getaffinity(0))
    else:
        os.sched_setaffinity(0, _OTHER_CPU)
    told = uvloop.run(_measured(plan, rounds or (1 if quick else 5)))
    click.echo(tables(told, {name: title for name, (title, _) in MEASURES.items()}))
    if out is not None:
        out.write_bytes(to_json(told))


async def _measured(plan: Plan, rounds: int) -> Report:
    done = [await _round(plan, f"{number}/{rounds}") for number in range(1, rounds + 1)]
    setting: dict[str, str | int] = {
        "rounds": rounds,
        "events": plan.count,
        "warm-up": plan.warm_up,
        "connections": plan.connections,
        "measured process on CPUs": " ".join(map(str, sorted(plan.cpus))),
        "load and sink on CPUs": " ".join(map(str, sorted(os.sched_getaffinity(0)))),
    }
    return report(done, setting)


async def _round(plan: Plan, which: str) -> dict[str, Run]:
    runs = {}
    for name, (title, measure) in MEASURES.items():
        runs[name] = run = await measure(plan)
        click.echo(f"round {which}: {title}: {run.rate:,.0f}/s, {run.cost:,.0f} µs of CPU each", err=True)
    return runs


if __name__ == "__main__":
    main()
