"""`notifier suppressions`: whom nothing is sent to, through the admin API of a running server."""

import asyncio
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click
import msgspec

from notifier.cli.client import Server
from notifier.cli.lists import REASONS, Import, Tally, entries
from notifier.cli.program import FAILED, print_json, printable, usage_error
from notifier.cli.tables import counted, given, print_table, server_and_output

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_PATH = "/v1/admin/suppressions"
FORMATS = {"csv": "text/csv", "ndjson": "application/x-ndjson"}

_channel = click.option("--channel", default="email", show_default=True, help="On this channel.")
_category = click.option("--category", help="Of this category alone.  [default: everything]")
_format = click.option("--format", "form", type=click.Choice(tuple(FORMATS)), help="How the file is written.")


@click.group(short_help="Keep the list of whom nothing is sent to.")
def suppressions() -> None:
    """Keep the list of whom nothing is sent to. Needs an admin key where keys are configured."""


@suppressions.command("list")
@click.option("--channel", help="On this channel.")
@click.option("--recipient", help="This one, however it is written.")
@click.option("--reason", type=click.Choice(REASONS), help="For this reason.")
@click.option("--limit", default=50, show_default=True, help="How many.")
@click.option("--cursor", help="Go on from where the last page ended.")
@server_and_output
def list_(*, limit: int, server: Server, as_json: bool, **narrowed: str | None) -> None:
    """List whom nothing is sent to, the last added first."""
    page = server.ask("GET", _PATH, params=given(narrowed) | {"limit": str(limit)})
    if as_json:
        print_json(page)
        return
    heads = ("CHANNEL", "RECIPIENT", "CATEGORY", "REASON", "SINCE", "DETAIL")
    print_table(heads, map(_row, page["suppressions"]))
    if page["next_cursor"]:
        click.echo(f"more with --cursor {page['next_cursor']}", err=True)


@suppressions.command(short_help="Send someone nothing more.")
@click.argument("recipient", nargs=-1, required=True)
@_channel
@_category
@click.option(
    "--reason", type=click.Choice(REASONS), default="manual", show_default=True, help="Why, in one word."
)
@click.option("--detail", help="Why, for those who find it.")
@server_and_output
def add(*, recipient: tuple[str, ...], server: Server, as_json: bool, **said: str | None) -> None:
    """Send each RECIPIENT nothing more: of a category, or at all."""
    told = server.ask("POST", _PATH, [{"recipient": each, **given(said)} for each in recipient])
    if as_json:
        print_json(told)
        return
    for each in told:
        state = "suppressed" if each["added"] else "was suppressed already"
        click.echo(printable(f"{each['recipient']}  {state}{_of(each['category'])}"))


@suppressions.command(short_help="Send to someone again.")
@click.argument("recipient")
@_channel
@_category
@server_and_output
def drop(*, recipient: str, server: Server, as_json: bool, **said: str | None) -> None:
    """Send to a RECIPIENT again. Jobs that were cancelled meanwhile stay so until they are requeued.

    What is suppressed altogether and what is of one category alone are dropped each by itself.
    """
    told = server.ask("DELETE", _PATH, params={"recipient": recipient, **given(said)})
    if as_json:
        print_json(told)
    else:
        click.echo(printable(f"{told['recipient']}  is sent to again{_of(told['category'])}"))


@suppressions.command(short_help="Write the whole list to a file.")
@click.option("--channel", help="On this channel.")
@click.option("--reason", type=click.Choice(REASONS), help="For this reason.")
@click.option("-o", "--output", metavar="FILE", help="The file to write.  [default: stdout]")
@_format
@server_and_output
def export(
    *, output: str | None, form: str | None, server: Server, as_json: bool, **narrowed: str | None
) -> None:
    """Write the whole list as CSV (which spreadsheets read) or NDJSON, for `import` and others to read.

    A cell that a spreadsheet would take for a formula has ' before it, which `import` takes off.
    """
    wanted = FORMATS["ndjson" if as_json else form or _by_name(output) or "csv"]

    async def write(target: BinaryIO) -> None:
        async with server.client("admin") as client:
            async for chunk in client.download(_PATH, accept=wanted, params=given(narrowed)):
                target.write(chunk)

    with _opened(output) as target:
        asyncio.run(write(target))


def _opened(output: str | None) -> "AbstractContextManager[BinaryIO]":
    if output in (None, "-"):
        return nullcontext(sys.stdout.buffer)
    try:
        return Path(output or "").open("wb")
    except OSError as error:
        raise usage_error(f"{output}: {error.strerror}") from None


@suppressions.command("import", short_help="Add a whole list from a file.")
@click.argument("file", metavar="FILE|-")
@_format
@_channel
@_category
@click.option(
    "--reason",
    type=click.Choice(REASONS),
    default="manual",
    show_default=True,
    help="Why, in one word, where the file doesn't say.",
)
@server_and_output
def import_(*, file: str, form: str | None, server: Server, as_json: bool, **otherwise: str | None) -> None:
    """Add everyone in FILE (- is stdin): what `export` wrote, another provider's CSV, or a plain list.

    A CSV has a line of names, among them `recipient` or `email`; one without is a list of addresses, one a
    line. What the file doesn't say, the options do. Whoever is on the list already stays there as before,
    so an interrupted run is simply run again.
    """
    tally = asyncio.run(Import(server, given(otherwise)).run(entries(file, form or _by_name(file))))
    _report(tally, as_json=as_json)
    click.get_current_context().exit(FAILED if tally.refusals else 0)


def _report(tally: Tally, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(tally))
        return
    for refusal in tally.refusals:
        click.echo(printable(f"line {refusal.line}: {refusal.problem}"), err=True)
    refused = len(tally.refusals)
    click.echo(
        f"{counted(tally.added, 'suppression')} added, {tally.known:,} known already, {refused:,} refused"
    )


def _by_name(name: str | None) -> str | None:
    """The format that a file's name says."""
    ending = Path(name or "").suffix.lower()
    return {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson"}.get(ending)


def _of(category: str | None) -> str:
    return "" if category is None else f" (of {category} alone)"


def _row(suppression: Any) -> tuple[object, ...]:
    names = ("channel", "recipient", "category", "reason", "created_at", "detail")
    return tuple(suppression[name] for name in names)
