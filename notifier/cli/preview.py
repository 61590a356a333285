"""`notifier preview`: a template as it would go out, or all that an event would cause. Nothing is stored.

It works from the configuration alone; endpoints live in a running server, which it asks where it is told to.
"""

import os
from typing import TYPE_CHECKING, Any

import click
import msgspec

from notifier.cli.client import Server, named_server_options
from notifier.cli.parts import print_part
from notifier.cli.program import Failure, json_option, print_json, printable, read_config, usage_error
from notifier.cli.send import event_text, json_object, read_file

if TYPE_CHECKING:
    from notifier.config import Config


@click.command(short_help="Show a template, or what an event would cause; send nothing.")
@click.argument("name", metavar="[TEMPLATE|TYPE]", required=False)
@click.option("--template", "as_template", is_flag=True, help="What is named is a template,")
@click.option("--event", "as_event", is_flag=True, help="or a type of events, whatever templates there are.")
@click.option("--data", metavar="JSON|FILE", help="The event's data: a JSON object, or a file (also @FILE).")
@click.option("--tenant", help="Whose event it is.")
@click.option("--locale", help="Template: in this language, such as fr-CA.")
@click.option("--category", help="Template: as mail that its reader can unsubscribe from, by a made-up link.")
@click.option(
    "--open/--no-open",
    "open_page",
    default=None,
    help="Template: show HTML and text side by side in a browser.  [default: on a terminal with a display]",
)
@click.option(
    "--eml", metavar="FILE", help="Template: write the mail, exactly as it would be sent (- is stdout)."
)
@click.option(
    "--send-to",
    metavar="ADDRESS",
    help="Template: send it there now by the configured relays, past the queue.",
)
@click.option("--file", "file", metavar="FILE|-", help="Event: a whole one as JSON (- is stdin).")
@click.option("--live", is_flag=True, help="Event: ask the running server, which knows the endpoints.")
@named_server_options
@json_option
def preview(
    *,
    name: str | None,
    as_template: bool,
    as_event: bool,
    data: str | None,
    tenant: str | None,
    file: str | None,
    live: bool,
    server: Server,
    as_json: bool,
    **of_template: Any,
) -> None:
    """Show a TEMPLATE as it would go out, or what an event of TYPE would cause, each message in full.

    A name that has a folder among the templates is a template, unless --event or an option for events says
    otherwise. It is rendered for a made-up event that holds --data; what it lacks is named with file, line
    and variable, exit code 1.

    An event is matched against the configuration, which needs no server, and knows its routes alone.
    Endpoints are kept by a running server: with --live (or --server) it is that server that tells, of
    routes and endpoints.
    """
    if (name is None) == (file is None):
        raise usage_error("give either a TEMPLATE, a TYPE or --file")
    given = None if data is None else _data(data)
    asked = live or server.url is not None
    if as_template and (as_event or asked or file):
        raise usage_error("--template goes with none of --event, --file, --live and --server")
    if name is not None and not (as_event or asked):
        config = read_config(server.config_path)
        if as_template or _has_template(config, name):
            _show_template(config, name, given or b"{}", tenant=tenant, as_json=as_json, **of_template)
            return
    if wrong := [option for option, value in of_template.items() if value is not None]:
        option = {"open_page": "open"}.get(wrong[0], wrong[0].replace("_", "-"))
        raise usage_error(f"--{option} goes with a template, which {name or file!r} is not")
    text = {"type": name, "data": None if given is None else given.decode(), "tenant": tenant}
    _show_event(server, read_file(file) if file else event_text(text), asked=asked, as_json=as_json)


def _data(text: str) -> bytes:
    """Return the JSON object that `--data` is, or names."""
    if text.startswith("@") or text.lstrip()[:1] in {"{", "["}:
        return json_object(text)
    if not os.path.isfile(text):  # noqa: PTH113 - a name that can't be one is none here, and no error
        raise usage_error(f"--data: {text[:80]!r} is neither a JSON object nor a file")
    return json_object(f"@{text}")


def _has_template(config: "Config", name: str) -> bool:
    from notifier.errors import TemplateError
    from notifier.rendering import Renderer

    try:
        Renderer(config.templates_path).parts_of(name)
    except TemplateError:
        return False
    return True


def _show_template(config: "Config", name: str, data: bytes, **options: Any) -> None:
    from notifier.cli.specimen import Wanted, show

    if not _has_template(config, name):
        raise Failure(f"there is no template {name!r} in {config.templates_path}")
    click.get_current_context().exit(show(config, Wanted(template=name, data=msgspec.Raw(data), **options)))


def _show_event(server: Server, body: bytes, *, asked: bool, as_json: bool) -> None:
    shown = server.ask("POST", "/v1/admin/preview", msgspec.Raw(body)) if asked else _previewed(server, body)
    if as_json:
        print_json(shown)
        return
    _tell(shown)
    if not asked:
        click.echo("\nroutes alone; --live asks the running server, for its endpoints too", err=True)


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
        print_part(name, part, indent="   ")
