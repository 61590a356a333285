"""`notifier jobs`: what an operator looks up and mends, through the admin API of a running server."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from notifier.cli.client import Server, server_options
from notifier.cli.program import json_option, print_json, printable, usage_error

STATES = ("PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED")
_FILTERS = {
    "channel": "On this channel.",
    "event_type": "Caused by events of this type.",
    "route": "Made by this route.",
    "endpoint": "For this endpoint.",
    "destination": "For exactly this address.",
    "tenant": "Of this tenant.",
    "cause": "That failed for this cause (see `notifier jobs failures`).",
    "created_after": "Created after this time (RFC 3339).",
    "created_before": "Created before this time (RFC 3339).",
}

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _narrowing_options(function: _Function) -> _Function:
    """Add an option for every way to narrow jobs of one state down."""
    for name, meaning in reversed(_FILTERS.items()):
        function = click.option(f"--{name.replace('_', '-')}", name, help=meaning)(function)
    return function


def _filter_options(function: _Function) -> _Function:
    """Add an option for every way to narrow jobs down."""
    function = _narrowing_options(function)
    states = click.Choice(STATES, case_sensitive=False)
    return click.option("--status", type=states, help="In this state.")(function)


def _server_and_output(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every command here; `server` and `as_json` reach the function."""
    return server_options(json_option(function))


@click.group(short_help="Look at jobs; requeue or cancel them.")
def jobs() -> None:
    """Look at jobs, and requeue or cancel them. Needs an admin key where keys are configured."""


@jobs.command("list")
@_filter_options
@click.option("--limit", default=50, show_default=True, help="How many.")
@click.option("--cursor", help="Go on from where the last page ended.")
@_server_and_output
def list_(
    *,
    limit: int,
    cursor: str | None,
    server: Server,
    as_json: bool,
    **narrowed: str | None,
) -> None:
    """List jobs, the newest first."""
    params = _given(narrowed | {"limit": str(limit), "cursor": cursor})
    page = _get(server, "/v1/admin/jobs", params)
    if as_json:
        print_json(page)
        return
    _print_table(
        ("ID", "STATUS", "CHANNEL", "DESTINATION", "TRIES", "CREATED", "ERROR"), map(_job_row, page["jobs"])
    )
    if page["next_cursor"]:
        click.echo(f"more with --cursor {page['next_cursor']}", err=True)


@jobs.command()
@click.argument("job")
@_server_and_output
def show(job: str, server: Server, as_json: bool) -> None:
    """Show one JOB with its event and every attempt."""
    found = _get(server, f"/v1/admin/jobs/{_segment(job)}")
    if as_json:
        print_json(found)
        return
    _print_fields(found["job"])
    click.echo("\nevent")
    _print_fields(found["event"], indent="  ")
    click.echo(f"\nattempts ({len(found['attempts'])})")
    _print_table(("NO", "STARTED", "TOOK", "OUTCOME", "CODE", "SAID"), map(_attempt_row, found["attempts"]))


@jobs.command()
@click.argument("job")
@_server_and_output
def why(job: str, server: Server, as_json: bool) -> None:
    """Say what a JOB waits for, and until when."""
    answer = _get(server, f"/v1/admin/jobs/{_segment(job)}/why")
    if as_json:
        print_json(answer)
    else:
        _print_fields(answer)


@jobs.command()
@_narrowing_options
@click.option("--limit", default=50, show_default=True, help="How many groups to print.")
@_server_and_output
def failures(limit: int, server: Server, as_json: bool, **narrowed: str | None) -> None:
    """List what made jobs fail, the most frequent cause first."""
    found = _get(server, "/v1/admin/failures", _given(narrowed))
    if as_json:
        print_json(found)
        return
    groups = found["failures"]
    _print_table(
        ("COUNT", "CHANNEL", "CODE", "CAUSE", "LAST SEEN", "MESSAGE"), map(_group_row, groups[:limit])
    )


@jobs.command()
@click.argument("job", nargs=-1)
@_filter_options
@click.option("--canary", is_flag=True, help="Send one first, and the rest only when it is delivered.")
@click.option("--dry-run", is_flag=True, help="Only count what would be requeued.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@_server_and_output
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
    wanted = _given(narrowed)
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
    click.echo(_requeued(answer, canary=canary, dry_run=dry_run))


@jobs.command()
@click.argument("job", nargs=-1, required=True)
@_server_and_output
def cancel(job: tuple[str, ...], server: Server, as_json: bool) -> None:
    """Withdraw each JOB that is PENDING."""
    _change_each(server, job, "cancel", as_json=as_json)


def _get(server: Server, path: str, params: dict[str, str] | None = None) -> Any:
    async def get() -> Any:
        async with server.client("admin") as client:
            return await client.get(path, params)

    return asyncio.run(get())


def _change_each(server: Server, names: Sequence[str], action: str, *, as_json: bool) -> None:
    async def change() -> None:
        async with server.client("admin") as client:
            for name in names:
                job = await client.post(f"/v1/admin/jobs/{_segment(name)}/{action}")
                if as_json:
                    click.echo(msgspec.json.encode(job))
                else:
                    click.echo(f"{job['id']}  {job['status']}")

    asyncio.run(change())


def _requeue_matching(server: Server, wanted: dict[str, str], *, canary: bool, dry_run: bool) -> Any:
    body = msgspec.json.encode({**wanted, "canary": canary, "dry_run": dry_run})

    async def post() -> Any:
        async with server.client("admin") as client:
            return await client.post("/v1/admin/jobs/requeue", body)

    return asyncio.run(post())


def _confirm(server: Server, wanted: dict[str, str]) -> None:
    matched = _requeue_matching(server, wanted, canary=False, dry_run=True)["matched"]
    click.confirm(f"Requeue {matched:,} {wanted['status']} jobs?", abort=True, err=True)


def _requeued(answer: Any, *, canary: bool, dry_run: bool) -> str:
    if dry_run:
        return f"{answer['matched']:,} match; nothing was changed"
    words = f"{answer['requeued']:,} of {answer['matched']:,} requeued"
    return f"{words}; the rest follow when that one is delivered" if canary else words


def _given(options: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


def _segment(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _job_row(job: Any) -> tuple[object, ...]:
    error = f"{job['error']['code']}: {job['error']['message']}" if job["error"] else ""
    tries = f"{job['attempts']}/{job['max_attempts']}"
    return job["id"], job["status"], job["channel"], job["destination"], tries, job["created_at"], error


def _attempt_row(attempt: Any) -> tuple[object, ...]:
    error = attempt["error"]["message"] if attempt["error"] else None
    said = ": ".join(filter(None, (error, attempt["response"])))
    took = f"{attempt['duration_ms']:.0f} ms"
    return attempt["number"], attempt["started_at"], took, attempt["outcome"], attempt["status_code"], said


def _group_row(group: Any) -> tuple[object, ...]:
    return tuple(group[name] for name in ("count", "channel", "code", "cause", "last_seen", "message"))


def _text(value: object) -> str:
    if value is None:
        return ""
    return printable(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _print_fields(fields: dict[str, Any], indent: str = "") -> None:
    """Print what is set, a line each."""
    for name, value in fields.items():
        if value is not None:
            click.echo(f"{indent}{name:<16} {_text(value)}")


def _print_table(heads: Sequence[str], rows: Any) -> None:
    """Print a table on a terminal; lines with tabs between the cells elsewhere."""
    cells = [[_text(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        # What one copies to name a job or a cause stays whole, however narrow the terminal is.
        table.add_column(head, no_wrap=head in {"ID", "CAUSE"}, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)
