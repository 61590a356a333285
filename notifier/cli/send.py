"""`notifier send`: one event, or a file of them that can be sent again without harm."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from notifier.cli.client import Server, named_server_options
from notifier.cli.program import FAILED, json_option, print_json, printable, usage_error
from notifier.cli.tables import counted
from notifier.errors import NotifierError

if TYPE_CHECKING:
    from notifier.cli.bulk import Tally


@click.command(short_help="Send one event, or a file of them, to a server.")
@click.argument("event_type", metavar="[TYPE]", required=False)
@click.option("--data", metavar="JSON|@FILE", help="The event's data: a JSON object, or @ and a file's name.")
@click.option("--tenant", help="Whose event it is.")
@click.option("--idempotency-key", help="Sent twice with the same key, it is one event.")
@click.option("--deliver-at", metavar="TIME", help="Not before then (RFC 3339).")
@click.option("--file", "file", metavar="FILE|-", help="Events to send, one JSON object a line (- is stdin).")
@click.option(
    "--retry-for",
    default=60.0,
    show_default=True,
    help="With --file: seconds to wait for a server that is away.",
)
@named_server_options
@json_option
def send(
    *,
    server: Server,
    event_type: str | None,
    file: str | None,
    retry_for: float,
    as_json: bool,
    **fields: str | None,
) -> None:
    """Send one event of TYPE, or every line of a file, to a running server.

    A line without an idempotency key gets one made of its text and its number, so an interrupted run is
    simply run again: what the server has already is answered as a duplicate, and causes nothing twice.
    """
    if (event_type is None) == (file is None):
        raise usage_error("give either a TYPE or --file")
    if file is None:
        _send_one(server, {"type": event_type, **fields}, as_json=as_json)
        return
    if given := [name for name, value in fields.items() if value is not None]:
        raise usage_error(f"--{given[0].replace('_', '-')} goes with a TYPE, not with --file")
    click.get_current_context().exit(_send_file(server, file, retry_for=retry_for, as_json=as_json))


def _send_one(server: Server, fields: dict[str, Any], *, as_json: bool) -> None:
    import asyncio

    body = event_text(fields)

    async def post() -> Any:
        async with server.client("ingest") as client:
            return await client.post("/v1/events", body)

    answer = asyncio.run(post())
    if as_json:
        print_json(answer)
    else:
        _tell(answer)


def event_text(fields: dict[str, Any]) -> bytes:
    """Make an event's JSON of its fields; `data` is JSON text or `@file`, kept exactly as written."""
    import msgspec

    data = json_object(fields.get("data") or "{}")
    given = {name: value for name, value in fields.items() if value is not None}
    return msgspec.json.encode(given | {"data": msgspec.Raw(data)})


def json_object(text: str) -> bytes:
    """Return the JSON of `--data`, which is an object or `@` and a file's name; else it is a usage error."""
    import msgspec

    from notifier.faults import UNREADABLE, faults_of

    data = read_file(text[1:]) if text.startswith("@") else text.encode()
    try:
        msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except UNREADABLE as error:
        (fault,) = faults_of(error, text=data)
        raise usage_error(f"--data is not a JSON object: {fault.detail}") from None
    return data


def read_file(name: str) -> bytes:
    """Read a whole file, `-` being stdin. A file that can't be read is a usage error."""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise usage_error(f"{name}: {error.strerror}") from None


def _tell(answer: Any) -> None:
    state = "known already" if answer["duplicate"] else "accepted"
    click.echo(f"{answer['id']}  {state}, {counted(len(answer['jobs']), 'job')}")
    for job in answer["jobs"]:
        destination = printable(job["destination"] or "(no destination)")
        click.echo(f"  {job['id']}  {job['status']}  {job['channel']} → {destination}")


def _send_file(server: Server, name: str, *, retry_for: float, as_json: bool) -> int:
    from notifier.cli.bulk import Bulk, Tally, batches
    from notifier.cli.input import Input
    from notifier.cli.loop import TurnLoop

    tally = Tally()
    client = server.client("ingest")
    bulk = Bulk(client, tally, retry_for=retry_for)
    try:
        with (
            Input(name) as stream,
            _Progress(stream.size) as progress,
            TurnLoop() as loop,
            loop.entered(client),
        ):
            for batch in batches(stream):
                loop.run(bulk.send(batch))
                _report_refused(tally, as_json=as_json)
                progress.show(batch.end, tally)
    except (NotifierError, KeyboardInterrupt):
        click.echo("not all was sent: run the same command again, nothing is accepted twice", err=True)
        raise
    finally:
        _report_refused(tally, as_json=as_json)
        _sum_up(tally, as_json=as_json)
    return FAILED if tally.refused else 0


def _report_refused(tally: "Tally", *, as_json: bool) -> None:
    """Name each refused line as soon as it is known: nothing is kept, however many there are."""
    import msgspec

    for refusal in tally.take_refusals():
        if as_json:
            click.echo(msgspec.json.encode(refusal))
        else:
            click.echo(printable(str(refusal)), err=True)


def _sum_up(tally: "Tally", *, as_json: bool) -> None:
    import msgspec

    totals = {"accepted": tally.accepted, "duplicates": tally.duplicates, "refused": tally.refused}
    if as_json:
        click.echo(msgspec.json.encode(totals))
        return
    click.echo(
        f"{counted(tally.accepted, 'event')} accepted, {counted(tally.duplicates, 'duplicate')}, "
        f"{tally.refused:,} refused"
    )


class _Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, size: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=size)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, position: int, tally: "Tally") -> None:
        """Show how far it is, in bytes, and what came of it."""
        sent = tally.accepted + tally.duplicates
        words = f"{counted(sent, 'event')}" + (f", {tally.refused:,} refused" if tally.refused else "")
        self._bar.update(self._task, completed=position, description=words)
