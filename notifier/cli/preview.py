"""`notifier preview`: what an event would cause, without sending or storing anything.

It works from the configuration alone; endpoints live in a running server, which it asks where it is told to.
"""

from typing import Any

import click
import msgspec

from notifier.cli.client import Server, server_options
from notifier.cli.program import json_option, print_json, printable, read_config, usage_error
from notifier.cli.send import event_text, read_file


@click.command(short_help="Show what an event would cause; send nothing.")
@click.argument("event_type", metavar="[TYPE]", required=False)
@click.option("--data", metavar="JSON|@FILE", help="The event's data: a JSON object, or @ and a file's name.")
@click.option("--tenant", help="Whose event it is.")
@click.option("--file", "file", metavar="FILE|-", help="A whole event as JSON (- is stdin).")
@click.option("--server", "ask", is_flag=True, help="Ask the running server, which knows the endpoints too.")
@server_options
@json_option
def preview(
    *,
    event_type: str | None,
    data: str | None,
    tenant: str | None,
    file: str | None,
    ask: bool,
    server: Server,
    as_json: bool,
) -> None:
    """Show what an event of TYPE would cause: what matches and why, and each message in full.

    By itself it reads the configuration, needs no server, and knows its routes alone. Endpoints are kept
    by a running server: with --server (or --url) it is that server that tells, of routes and endpoints.
    """
    if (event_type is None) == (file is None):
        raise usage_error("give either a TYPE or --file")
    body = read_file(file) if file else event_text({"type": event_type, "data": data, "tenant": tenant})
    asked = ask or server.url is not None
    shown = server.ask("POST", "/v1/admin/preview", msgspec.Raw(body)) if asked else _previewed(server, body)
    if as_json:
        print_json(shown)
        return
    _tell(shown)
    if not asked:
        click.echo("\nroutes alone; --server asks the running server, for its endpoints too", err=True)


def _previewed(server: Server, body: bytes) -> dict[str, Any]:
    from notifier import logs
    from notifier.errors import Fault, InvalidEventError
    from notifier.ingest import parse_json
    from notifier.service import Notifier

    logs.configure("error")
    notifier = Notifier(read_config(server.config_path))
    events, is_array = parse_json(body)
    if is_array:
        raise InvalidEventError([Fault("", "expected one event, not an array")])
    return notifier.preview(events[0])


def _tell(shown: dict[str, Any]) -> None:
    for verdict in shown["routes"]:
        _tell_verdict(verdict)
    for verdict in shown.get("endpoints", ()):
        _tell_verdict(verdict)
    _tell_left_out(shown, "endpoints")
    if not shown["deliveries"]:
        click.echo("\nNothing would be sent.")
    for delivery in shown["deliveries"]:
        click.echo()
        click.echo(printable(f"── {delivery['channel']} → {delivery['destination'] or '(none)'}"))
        _tell_delivery(delivery)
    _tell_left_out(shown, "deliveries")


def _tell_verdict(verdict: dict[str, Any]) -> None:
    mark = "✓" if verdict["matched"] else "✗"
    name = verdict.get("route") or verdict.get("endpoint")
    click.echo(printable(f"{mark} {name}: {verdict['reason']}"))


def _tell_left_out(shown: dict[str, Any], kind: str) -> None:
    if left_out := shown.get(f"{kind}_not_shown"):
        click.echo(f"… and {left_out:,} other {kind}")


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
