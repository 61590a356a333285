"""`notifier jobs`: what an operator looks up and mends, through the admin API of a running server."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from notifier.cli.client import Server
from notifier.cli.moments import MOMENT
from notifier.cli.program import ask_first, print_json, usage_error, yes_option
from notifier.cli.tables import (
    counted,
    given,
    print_fields,
    print_table,
    segment,
    server_and_output,
    timings_line,
)

STATES = ("PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED")
_FILTERS = {
    "channel": "On this channel.",
    "event_type": "Caused by events of this type.",
    "route": "Made by this route.",
    "endpoint": "For this endpoint.",
    "destination": "For exactly this address.",
    "tenant": "Of this tenant.",
    "cause": "That failed for this cause (see `notifier jobs failures`).",
}
_TIMES = {
    "created_after": 'Created since then: RFC 3339, or e.g. "2h" ago.',
    "created_before": "Created before then.",
}

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _narrowing_options(function: _Function) -> _Function:
    """Add an option for every way to narrow jobs of one state down."""
    for name, meaning in reversed(_TIMES.items()):
        time = click.option(
            f"--{name.replace('_', '-')}", name, metavar="TIME|AGO", type=MOMENT, help=meaning
        )
        function = time(function)
    for name, meaning in reversed(_FILTERS.items()):
        function = click.option(f"--{name.replace('_', '-')}", name, help=meaning)(function)
    return function


def _filter_options(function: _Function) -> _Function:
    """Add an option for every way to narrow jobs down."""
    function = _narrowing_options(function)
    states = click.Choice(STATES, case_sensitive=False)
    return click.option("--status", type=states, help="In this state.")(function)


@click.group(short_help="Look at jobs; requeue or cancel them.")
def jobs() -> None:
    """Look at jobs, and requeue or cancel them. Needs an admin key where keys are configured."""


@jobs.command("list")
@_filter_options
@click.option("--limit", default=50, show_default=True, help="How many.")
@click.option("--cursor", help="Go on from where the last page ended.")
@server_and_output
def list_(
    *,
    limit: int,
    cursor: str | None,
    server: Server,
    as_json: bool,
    **narrowed: str | None,
) -> None:
    """List jobs, the newest first."""
    params = given(narrowed | {"limit": str(limit), "cursor": cursor})
    page = server.ask("GET", "/v1/admin/jobs", params=params)
    if as_json:
        print_json(page)
        return
    print_table(
        ("ID", "STATUS", "CHANNEL", "DESTINATION", "TRIES", "CREATED", "ERROR"), map(_job_row, page["jobs"])
    )
    if page["next_cursor"]:
        click.echo(f"more with --cursor {page['next_cursor']}", err=True)


@jobs.command()
@click.argument("job")
@server_and_output
def show(job: str, server: Server, as_json: bool) -> None:
    """Show one JOB with its event and every attempt."""
    found = server.ask("GET", f"/v1/admin/jobs/{segment(job)}")
    if as_json:
        print_json(found)
        return
    print_fields(found["job"])
    click.echo("\nevent")
    print_fields(found["event"], indent="  ")
    click.echo(f"\nattempts ({len(found['attempts'])})")
    if found["attempts"]:
        heads = ("NO", "STARTED", "TOOK", "OUTCOME", "CODE", "VIA", "SAID")
        print_table(heads, map(_attempt_row, found["attempts"]), always_headed=True)
    _print_timings(found["attempts"])


def _print_timings(attempts: Sequence[Any]) -> None:
    """Say where the time of each attempt went, of those that were measured."""
    rows = [(each["number"], timings_line(each["timings"])) for each in attempts if each["timings"]]
    if rows:
        click.echo("\ntimings")
        print_table(("NO", "SPENT"), rows, always_headed=True)


@jobs.command()
@click.argument("job")
@server_and_output
def why(job: str, server: Server, as_json: bool) -> None:
    """Say what a JOB waits for, and until when."""
    answer = server.ask("GET", f"/v1/admin/jobs/{segment(job)}/why")
    if as_json:
        print_json(answer)
    else:
        print_fields(answer)


@jobs.command()
@_narrowing_options
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How many groups to print.",
)
@server_and_output
def failures(limit: int, server: Server, as_json: bool, **narrowed: str | None) -> None:
    """List what made jobs fail, the most frequent cause first."""
    found = server.ask("GET", "/v1/admin/failures", params=given(narrowed))
    if as_json:
        print_json(found)
        return
    groups = found["failures"]
    print_table(
        ("COUNT", "CHANNEL", "CODE", "CAUSE", "LAST SEEN", "MESSAGE", "JOB"),
        map(_group_row, groups[:limit]),
    )


@jobs.command()
@click.argument("job", nargs=-1)
@_filter_options
@click.option("--canary", is_flag=True, help="Send one first, and the rest only when it is delivered.")
@click.option("--dry-run", is_flag=True, help="Only count what would be requeued.")
@yes_option
@server_and_output
def requeue(
    *,
    job: tuple[str, ...],
    canary: bool,
    dry_run: bool,
    yes: bool,
    server: Server,
    as_json: bool,
    **narrowed: str | None,
) -> None:
    """Make jobs PENDING and due now: each JOB named, or all FAILED ones that the options mean."""
    wanted = given(narrowed)
    if bool(job) == bool(wanted):
        raise usage_error("name each JOB, or say which with options such as --cause")
    if job and (canary or dry_run):
        raise usage_error("--canary and --dry-run go with a filter, not with a JOB")
    if job:
        _change_each(server, job, "requeue", as_json=as_json)
        return
    wanted.setdefault("status", "FAILED")
    if not (dry_run or yes) and sys.stdin.isatty():
        _confirm(server, wanted)
    answer = _requeue_matching(server, wanted, canary=canary, dry_run=dry_run)
    if as_json:
        print_json(answer)
        return
    click.echo(requeued(answer, canary=canary, dry_run=dry_run))


@jobs.command()
@click.argument("job", nargs=-1, required=True)
@server_and_output
def cancel(job: tuple[str, ...], server: Server, as_json: bool) -> None:
    """Withdraw each JOB that no worker has begun."""
    _change_each(server, job, "cancel", as_json=as_json)


def _change_each(server: Server, names: Sequence[str], action: str, *, as_json: bool) -> None:
    async def change() -> None:
        async with server.client("admin") as client:
            for name in names:
                job = await client.post(f"/v1/admin/jobs/{segment(name)}/{action}")
                if as_json:
                    click.echo(msgspec.json.encode(job))
                else:
                    click.echo(f"{job['id']}  {job['status']}")

    asyncio.run(change())


def _requeue_matching(server: Server, wanted: dict[str, str], *, canary: bool, dry_run: bool) -> Any:
    return server.ask("POST", "/v1/admin/jobs/requeue", {**wanted, "canary": canary, "dry_run": dry_run})


def _confirm(server: Server, wanted: dict[str, str]) -> None:
    matched = _requeue_matching(server, wanted, canary=False, dry_run=True)["matched"]
    ask_first(f"Requeue {counted(matched, wanted['status'] + ' job')}?")


def requeued(answer: Any, *, canary: bool, dry_run: bool) -> str:
    """Say what a requeue by filter did."""
    if dry_run:
        return f"{answer['matched']:,} match; nothing was changed"
    words = f"{answer['requeued']:,} of {answer['matched']:,} requeued"
    more_to_come = canary and answer["requeued"] < answer["matched"]
    return f"{words}; the rest follow when that one is delivered" if more_to_come else words


def _job_row(job: Any) -> tuple[object, ...]:
    error = f"{job['error']['code']}: {job['error']['message']}" if job["error"] else ""
    tries = f"{job['attempts']}/{job['max_attempts']}"
    return job["id"], job["status"], job["channel"], job["destination"], tries, job["created_at"], error


def _attempt_row(attempt: Any) -> tuple[object, ...]:
    error = attempt["error"]["message"] if attempt["error"] else None
    said = ": ".join(filter(None, (error, attempt["response"])))
    took = f"{attempt['duration_ms']:.0f} ms"
    who = (attempt["outcome"], attempt["status_code"], attempt["via"])
    return (attempt["number"], attempt["started_at"], took, *who, said)


def _group_row(group: Any) -> tuple[object, ...]:
    """Make a row of a cause, with one of its jobs to look at."""
    said = tuple(group[name] for name in ("count", "channel", "code", "cause", "last_seen", "message"))
    return (*said, next(iter(group["sample_job_ids"]), ""))
