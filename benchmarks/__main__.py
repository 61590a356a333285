"""`python -m benchmarks`: every part in turn, then tables, JSON and a plot; see README.md."""

import os
from pathlib import Path

import click
import uvloop

from benchmarks import backlog, claims, comparison, fairness, latency, mails, sending, throughput
from benchmarks.machine import machine
from benchmarks.parts import Part, Plan, run
from benchmarks.processes import program
from benchmarks.report import markdown, to_json
from benchmarks.results import Report

PARTS: dict[str, Part] = {
    each.name: each
    for each in (
        throughput.PART,
        comparison.PART,
        sending.PART,
        backlog.PART,
        latency.PART,
        fairness.PART,
        claims.PART,
        mails.PART,
    )
}
_ROUNDS = 5


@click.command()
@click.option("--quick", is_flag=True, help="One round, and less of everything: to see that it runs.")
@click.option(
    "--only", type=click.Choice(list(PARTS)), multiple=True, help="Just this part; may be repeated."
)
@click.option("--rounds", type=click.IntRange(1), help="How often each is measured.  [default: 5; quick: 1]")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder for report.md, report.json and report.svg.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where stores are made; a real disk.  [default: the system's temporary folder]",
)
@click.option("--unpinned", is_flag=True, help="Leave it to the kernel which process runs on which CPU.")
def main(
    *,
    quick: bool,
    only: tuple[str, ...],
    rounds: int | None,
    out: Path | None,
    folder: Path | None,
    unpinned: bool,
) -> None:
    """Measure, and print tables in Markdown. With --out, keep them, every single run, and a plot."""
    parts = [PARTS[name] for name in only or PARTS]
    _check(parts, plots=out is not None)
    measured_cpus, other_cpus = _cpus(pinned=not unpinned)
    plan = Plan(
        rounds=rounds or (1 if quick else _ROUNDS),
        quick=quick,
        cpus=measured_cpus,
        other_cpus=other_cpus,
        folder=folder,
        tell=lambda words: click.echo(words, err=True),
    )
    os.sched_setaffinity(0, other_cpus)
    report = uvloop.run(_measured(parts, plan))
    click.echo(markdown(report), nl=False)
    if out is not None:
        _write(report, out)
    if any(result.failed for result in report.results):
        raise click.ClickException("not all parts could be measured")


def _check(parts: list[Part], *, plots: bool) -> None:
    """Say what is missing before an hour goes by without it."""
    needed = {name: package for part in parts for name, package in part.needs.items()}
    missing = {name: package for name, package in needed.items() if program(name) is None}
    if missing:
        told = ", ".join(f"{name} (Debian package {package})" for name, package in missing.items())
        packages = " ".join(sorted(set(missing.values())))
        raise click.ClickException(
            f"not installed: {told}. Install them with `apt-get install {packages}`, "
            "or name the parts that need none of them with --only"
        )
    if plots:
        try:
            import matplotlib  # noqa: F401, ICN001 - only whether it is there
        except ImportError:
            raise click.ClickException("the plot needs matplotlib: pip install -e '.[bench]'") from None


def _cpus(*, pinned: bool) -> tuple[set[int], set[int]]:
    """Where the measured process runs, and where what loads it and receives from it."""
    every = sorted(os.sched_getaffinity(0))
    if not pinned or len(every) == 1:
        return set(every), set(every)
    return {every[0]}, {every[1]}


async def _measured(parts: list[Part], plan: Plan) -> Report:
    results = [await run(part, plan) for part in parts]
    setting = {
        "rounds": str(plan.rounds),
        "connections": str(plan.connections),
        "measured process on CPUs": " ".join(map(str, sorted(plan.cpus))),
        "load and sink on CPUs": " ".join(map(str, sorted(plan.other_cpus))),
    }
    return Report(machine=machine(), setting=setting, results=results)


def _write(report: Report, out: Path) -> None:
    from benchmarks.plot import plot

    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(markdown(report))
    (out / "report.json").write_bytes(to_json(report))
    plot(report, out / "report.svg")


if __name__ == "__main__":
    main()
