"""`notifier preview`: what an event would cause, without a server and without sending or storing anything."""

from pathlib import Path
from typing import Any

import click

from notifier.cli.program import config_option, json_option, print_json, printable, read_config, usage_error
from notifier.cli.send import event_text, read_file


@click.command(short_help="Show what an event would cause; send nothing.")
@click.argument("event_type", metavar="[TYPE]", required=False)
@click.option("--data", metavar="JSON|@FILE", help="The event's data: a JSON object, or @ and a file's name.")
@click.option("--tenant", help="Whose event it is.")
@click.option("--file", "file", metavar="FILE|-", help="A whole event as JSON (- is stdin).")
@config_option
@json_option
def preview(
    *,
    event_type: str | None,
    data: str | None,
    tenant: str | None,
    file: str | None,
    config_path: Path,
    as_json: bool,
) -> None:
    """Show what an event of TYPE would cause: which routes match and why, and each message in full."""
    if (event_type is None) == (file is None):
        raise usage_error("give either a TYPE or --file")
    body = read_file(file) if file else event_text({"type": event_type, "data": data, "tenant": tenant})
    shown = _previewed(config_path, body)
    if as_json:
        print_json(shown)
    else:
        _tell(shown)


def _previewed(config_path: Path, body: bytes) -> dict[str, Any]:
    from notifier import logs
    from notifier.errors import Fault, InvalidEventError
    from notifier.ingest import parse_json
    from notifier.service import Notifier

    logs.configure("error")
    notifier = Notifier(read_config(config_path))
    events, is_array = parse_json(body)
    if is_array:
        raise InvalidEventError([Fault("", "expected one event, not an array")])
    return notifier.preview(events[0])


def _tell(shown: dict[str, Any]) -> None:
    for verdict in shown["routes"]:
        mark = "✓" if verdict["matched"] else "✗"
        click.echo(printable(f"{mark} {verdict['route']}: {verdict['reason']}"))
    if not shown["deliveries"]:
        click.echo("\nNothing would be sent.")
    for delivery in shown["deliveries"]:
        click.echo()
        click.echo(printable(f"── {delivery['channel']} → {delivery['destination'] or '(none)'}"))
        _tell_delivery(delivery)


def _tell_delivery(delivery: dict[str, Any]) -> None:
    if error := delivery.get("error"):
        click.echo(printable(f"   would fail: {error['code']}: {error['message']}"))
        return
    for name, part in delivery["message"].items():
        _tell_part(name, part)


def _tell_part(name: str, part: object) -> None:
    """Print one part of a message; a text of several lines stands below its name."""
    if isinstance(part, dict):
        for inner, value in part.items():
            _tell_part(f"{name}.{inner}", value)
    elif isinstance(part, str) and "\n" in part:
        click.echo(f"   {name}:")
        for line in part.splitlines():
            click.echo(f"     {printable(line)}")
    elif part is not None:
        click.echo(f"   {name}: {printable(str(part))}")
