"""`notifier endpoints`: webhook subscriptions, through the admin API of a running server."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click
import msgspec

from notifier.cli.client import Server, only_server_options
from notifier.cli.jobs import STATES, requeued
from notifier.cli.moments import MOMENT
from notifier.cli.program import (
    FAILED,
    ask_first,
    json_option,
    print_json,
    printable,
    usage_error,
    yes_option,
)
from notifier.cli.send import json_object, read_file
from notifier.cli.tables import (
    counted,
    given,
    print_fields,
    print_table,
    segment,
    timings_line,
)

_PATH = "/v1/admin/endpoints"
_CLEARABLE = ("when", "description", "headers", "template", "rate-limit", "max-in-flight")

_Function = TypeVar("_Function", bound=Callable[..., Any])


def server_and_output(function: Callable[..., None]) -> Callable[..., None]:
    """Add what every command here takes. An endpoint's is the only `--url` there is."""
    return only_server_options(json_option(function))


def _settings_options(function: _Function) -> _Function:
    """Add an option for everything that an endpoint may be given, its url apart."""
    for option in reversed(
        (
            click.option(
                "--event-type",
                "event_types",
                metavar="PATTERN",
                multiple=True,
                help='Events it gets: a type, or segments with * ("order.*"). May be repeated.',
            ),
            click.option("--when", metavar="EXPRESSION", help="A Jinja2 expression that must hold."),
            click.option("--description", help="What it is, for people."),
            click.option(
                "--header",
                "headers",
                metavar="'NAME: VALUE'",
                multiple=True,
                help="A header to send with each delivery. May be repeated.",
            ),
            click.option("--template", help="The template that makes the payload."),
            click.option("--rate-limit", type=float, help="Deliveries a second."),
            click.option("--max-in-flight", type=int, help="Deliveries at the same time."),
        )
    ):
        function = option(function)
    return function


def _secret_options(default: str) -> Callable[[_Function], _Function]:
    """Add `--secret` and `--signature`, saying what the latter is where it is left out."""
    secret = click.option(
        "--secret",
        metavar="SECRET|@FILE",
        help="Sign with this whsec_… or whsk_…, or the one in a file (@- is stdin).  [default: a new one]",
    )
    signature = click.option(
        "--signature", type=click.Choice(("v1", "v1a")), help=f"The kind of a new one.  [default: {default}]"
    )
    return lambda function: secret(signature(function))


@click.group(short_help="Keep webhook subscriptions: create, change, pause, rotate, test.")
def endpoints() -> None:
    """Keep webhook subscriptions in a running server. Needs an admin key where keys are configured."""


@endpoints.command("list")
@click.option("--tenant", help="Of this tenant.")
@click.option("--state", type=click.Choice(("enabled", "paused", "disabled")), help="In this state.")
@click.option("--limit", default=50, show_default=True, help="How many.")
@click.option("--cursor", help="Go on from where the last page ended.")
@server_and_output
def list_(*, limit: int, server: Server, as_json: bool, **narrowed: str | None) -> None:
    """List endpoints, the newest first."""
    page = server.ask("GET", _PATH, params=given(narrowed) | {"limit": str(limit)})
    if as_json:
        print_json(page)
        return
    print_table(("ID", "STATE", "EVENTS", "URL", "TENANT", "REASON"), map(_row, page["endpoints"]))
    if page["next_cursor"]:
        click.echo(f"more with --cursor {page['next_cursor']}", err=True)


@endpoints.command(short_help="Show one.")
@click.argument("endpoint")
@server_and_output
def show(endpoint: str, server: Server, as_json: bool) -> None:
    """Show one ENDPOINT: its settings, how many jobs wait for it, and until when its secrets live."""
    found = server.ask("GET", _at(endpoint))
    if as_json:
        print_json(found)
        return
    live, waits = found.pop("secrets"), found.pop("waiting_for")
    _print_endpoint(found)
    if waits is not None:
        until = f", until {waits['until']}" if waits["until"] else ""
        click.echo(printable(f"\nwaiting for {waits['reason']}{until}: {waits['detail']}"))
    _print_secrets(live)


@endpoints.command(short_help="Create one; prints its secret.")
@click.argument("url", metavar="URL")
@click.option("--tenant", help="It gets this tenant's events; without one, those of no tenant. For good.")
@_settings_options
@_secret_options("v1")
@server_and_output
def create(*, server: Server, as_json: bool, **settings: Any) -> None:
    """Create an endpoint that gets events at URL, and print its secret, which is shown this once."""
    if not settings["event_types"]:
        raise usage_error("say which events it gets with --event-type, which may be repeated")
    made = server.ask("POST", _PATH, _body(settings))
    _tell_once(made, as_json=as_json)


@endpoints.command(short_help="Change one.")
@click.argument("endpoint")
@click.option("--url", metavar="URL", help="Deliver there.")
@_settings_options
@click.option(
    "--clear", multiple=True, type=click.Choice(_CLEARABLE), help="Do without this. May be repeated."
)
@server_and_output
def update(*, endpoint: str, clear: tuple[str, ...], server: Server, as_json: bool, **settings: Any) -> None:
    """Change what the options name of an ENDPOINT, and nothing else.

    The headers are replaced as a whole; the value `(hidden)` keeps the one that a header has.
    """
    cleared = {name.replace("-", "_"): None for name in clear}
    changes = _body(settings)
    if not changes and not cleared:
        raise usage_error("say what to change, e.g. with --url, --event-type or --clear")
    if both := sorted(changes.keys() & cleared.keys()):
        raise usage_error(f"{both[0].replace('_', '-')} is both set and cleared")
    changed = server.ask("PATCH", _at(endpoint), {**changes, **cleared})
    if as_json:
        print_json(changed)
    else:
        _print_endpoint(changed)


@endpoints.command(short_help="Delete one, cancelling what waits for it.")
@click.argument("endpoint")
@yes_option
@server_and_output
def delete(endpoint: str, yes: bool, server: Server, as_json: bool) -> None:
    """Delete an ENDPOINT, and cancel the jobs that wait for it."""
    if not yes and sys.stdin.isatty():
        _confirm_delete(server.ask("GET", _at(endpoint)))
    deleted = server.ask("DELETE", _at(endpoint))
    if as_json:
        print_json(deleted)
    else:
        click.echo(f"{deleted['id']}  deleted, {counted(deleted['cancelled'], 'job')} cancelled")


@endpoints.command(short_help="Hold what comes for one.")
@click.argument("endpoint")
@click.option("--reason", help="Why, for those who find it paused.")
@server_and_output
def pause(endpoint: str, reason: str | None, server: Server, as_json: bool) -> None:
    """Hold what comes for an ENDPOINT until it is resumed; nothing is lost."""
    _put(server, endpoint, "pause", None if reason is None else {"reason": reason}, as_json=as_json)


@endpoints.command(short_help="Deliver again, what was held first.")
@click.argument("endpoint")
@server_and_output
def resume(endpoint: str, server: Server, as_json: bool) -> None:
    """Deliver to an ENDPOINT that was paused or disabled, what was held for it first."""
    _put(server, endpoint, "resume", None, as_json=as_json)


@endpoints.command(short_help="Give one a new secret.")
@click.argument("endpoint")
@_secret_options("the kind there is")
@click.option(
    "--overlap",
    metavar="DURATION",
    help='How long the old secrets go on signing beside it, e.g. "24h".  [default: the server\'s]',
)
@server_and_output
def rotate(*, endpoint: str, server: Server, as_json: bool, overlap: str | None, **secret: Any) -> None:
    """Give an ENDPOINT a new secret, which is shown this once; the old ones sign too until they end."""
    rotated = server.ask("POST", f"{_at(endpoint)}/rotate", _body({"overlap": overlap, **secret}))
    _tell_once(rotated, as_json=as_json)


@endpoints.command(short_help="Deliver a test event now, and show the answer.")
@click.argument("endpoint")
@click.option("--type", "event_type", help="The event's type.  [default: notifier.test]")
@click.option("--data", metavar="JSON|@FILE", help="The event's data: a JSON object, or @ and a file's name.")
@server_and_output
def test(*, endpoint: str, event_type: str | None, data: str | None, server: Server, as_json: bool) -> None:
    """Deliver a test event to an ENDPOINT now, and show the request and its answer; exit 1 if it failed.

    It is signed as any other, goes out even while the endpoint is paused, and doesn't count as one.
    """
    body: dict[str, Any] = {} if event_type is None else {"type": event_type}
    if data is not None:
        body["data"] = msgspec.Raw(json_object(data))
    trial = server.ask("POST", f"{_at(endpoint)}/test", body)
    if as_json:
        print_json(trial)
    else:
        _tell_trial(trial)
    click.get_current_context().exit(0 if trial["delivered"] else FAILED)


@endpoints.command(short_help="Deliver again what one did not get.")
@click.argument("endpoint")
@click.option(
    "--since",
    metavar="TIME|AGO",
    type=MOMENT,
    required=True,
    help='Jobs since then: RFC 3339, or e.g. "2h" ago.',
)
@click.option("--until", metavar="TIME|AGO", type=MOMENT, help="Jobs before then.")
@click.option(
    "--status",
    type=click.Choice(tuple(state for state in STATES if state != "PROCESSING"), case_sensitive=False),
    default="FAILED",
    show_default=True,
    help="In this state.",
)
@click.option("--canary", is_flag=True, help="Send one first, and the rest only when it is delivered.")
@click.option("--dry-run", is_flag=True, help="Only count what would be requeued.")
@yes_option
@server_and_output
def requeue(
    *,
    endpoint: str,
    since: str,
    until: str | None,
    status: str,
    canary: bool,
    dry_run: bool,
    yes: bool,
    server: Server,
    as_json: bool,
) -> None:
    """Deliver to an ENDPOINT again: make its jobs since a time PENDING and due now."""
    path = f"{_at(endpoint)}/requeue"
    wanted = given({"since": since, "until": until, "status": status.upper()})
    if not (dry_run or yes) and sys.stdin.isatty():
        matched = server.ask("POST", path, {**wanted, "dry_run": True})["matched"]
        ask_first(f"Requeue {counted(matched, wanted['status'] + ' job')}?")
    answer = server.ask("POST", path, {**wanted, "canary": canary, "dry_run": dry_run})
    if as_json:
        print_json(answer)
    else:
        click.echo(requeued(answer, canary=canary, dry_run=dry_run))


# What goes in --------------------------------------------------------------------------------------


def _at(endpoint: str) -> str:
    return f"{_PATH}/{segment(endpoint)}"


def _body(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make the body of the options that were given."""
    body = {name: value for name, value in settings.items() if value not in (None, ())}
    if "headers" in body:
        body["headers"] = _headers(body["headers"])
    if (secret := body.get("secret", "")).startswith("@"):
        body["secret"] = read_file(secret[1:]).decode("utf-8", "replace").strip()
    return body


def _headers(lines: Sequence[str]) -> dict[str, str]:
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise usage_error(f"--header {line!r} is no header: expected 'Name: value'")
        headers[name.strip()] = value.strip()
    return headers


def _confirm_delete(found: Any) -> None:
    waiting = "1 job waits" if found["pending"] == 1 else f"{found['pending']:,} jobs wait"
    subject = printable(f"{found['id']} ({_bare(found['url'])})")
    ask_first(f"Delete {subject}? {waiting} for it, to be cancelled.")


# What comes out ------------------------------------------------------------------------------------


def _row(endpoint: Any) -> tuple[object, ...]:
    events, url = ", ".join(endpoint["event_types"]), _bare(endpoint["url"])
    return endpoint["id"], endpoint["state"], events, url, endpoint["tenant"], endpoint["state_reason"]


def _print_endpoint(endpoint: Mapping[str, Any]) -> None:
    """Print what an endpoint is set to."""
    print_fields({name: value for name, value in endpoint.items() if name != "headers" or value})


def _bare(url: str) -> str:
    """Leave out a url's query, which may hold secrets and needs room."""
    bare, mark, _ = url.partition("?")
    return f"{bare}?…" if mark else bare


def _put(
    server: Server, endpoint: str, action: str, body: Mapping[str, Any] | None, *, as_json: bool
) -> None:
    """Pause or resume an endpoint, and say how it stands, or that it stood so before."""
    before = None if as_json else server.ask("GET", _at(endpoint))
    now = server.ask("POST", f"{_at(endpoint)}/{action}", body)
    if before is None:
        print_json(now)
        return
    reason = f": {now['state_reason']}" if now["state_reason"] else ""
    same = before["state_changed_at"] == now["state_changed_at"]
    already = " already, nothing was changed" if same else ""
    click.echo(printable(f"{now['id']}  {now['state']}{already}{reason}"))


def _tell_once(made: Any, *, as_json: bool) -> None:
    """Print an endpoint with its new secret."""
    if as_json:
        print_json(made)
        return
    live = made.pop("secrets", [])
    _print_endpoint(made)
    if len(live) > 1:
        _print_secrets(live)
    # Of a key pair the receiver gets the public half; the secret one is shown for whoever keeps a copy.
    given = "it" if made.get("public_key") is None else "public_key, and never the secret,"
    click.echo(f"the secret won't be shown again: give {given} to the receiver now", err=True)


def _print_secrets(live: Sequence[Any]) -> None:
    """Say of each live secret since and until when it signs; the secrets themselves nobody is told."""
    click.echo(f"\nsecrets ({len(live)})")
    fields = ("fingerprint", "signature", "created_at", "expires_at", "public_key")
    print_table(
        ("FINGERPRINT", "SIGNATURE", "CREATED", "EXPIRES", "PUBLIC KEY"),
        ([each[name] for name in fields] for each in live),
        always_headed=True,
    )


def _tell_trial(trial: Any) -> None:
    if request := trial["request"]:
        _print_message(f"{request['method']} {request['url']}", request)
    if response := trial["response"]:
        _print_message(f"answered {response['status_code'] or ''}".rstrip(), response)
    error = trial["error"]
    click.echo(printable(f"failed: {error['code']}: {error['message']}") if error else "delivered")
    if trial["timings"]:
        click.echo(timings_line(trial["timings"]))


def _print_message(head: str, message: Any) -> None:
    """Print a request or a response: its head, its headers, and its body."""
    click.echo(printable(head))
    for name, value in message["headers"].items():
        click.echo(printable(f"  {name}: {value}"))
    if message["body"]:
        click.echo()
    for line in message["body"].splitlines():
        click.echo(f"  {printable(line)}")
    click.echo()
