"""`notifier check`: everything that can be known to be wrong before an event comes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from notifier.cli.client import RefusedError, Server, UnreachableError, named_server_options
from notifier.cli.program import FAILED, Failure, json_option, print_json, printable, read_config, usage_error
from notifier.cli.tables import counted
from notifier.errors import ConfigError, Permanent, StoreError, StoreInUseError, Unavailable

if TYPE_CHECKING:
    from notifier.cli.recent import Recent
    from notifier.config import Config
    from notifier.model import Job
    from notifier.rendering.lint import Break
    from notifier.service import Notifier

_NAMED_EVENTS = 3
"""How many events are named of those that break in the same place."""


class Finding(Struct, frozen=True):
    """What one check found: where (a file, a key, a relay), and what is wrong there; None: nothing is."""

    subject: str
    where: str
    problem: str | None = None
    note: str = ""


class Replayed(Struct, frozen=True):
    """What rendering the latest events again found, and everything that broke."""

    findings: list[Finding]
    breaks: "list[Break]"


Check = Callable[["Notifier"], Awaitable[list[Finding]]]


@click.command(short_help="Find out what is wrong before an event comes.")
@click.option("--offline", is_flag=True, help="Don't try the mail relays.")
@click.option(
    "--against-recent",
    "limit",
    metavar="N",
    type=click.IntRange(1, 10_000),
    help="Render each template for its last N events, and list what would break.",
)
@click.option("--template", metavar="NAME", help="With --against-recent: this template alone.")
@named_server_options
@json_option
def check(*, offline: bool, limit: int | None, template: str | None, server: Server, as_json: bool) -> None:
    """Check the configuration, every template, the store and each relay; exit 1 if anything is wrong.

    With --against-recent, templates are rendered for events that were real. They come from the store, or
    from the server that has it open; with --server from that one.
    """
    from notifier import logs

    if limit is None and (template or server.url):
        raise usage_error(f"--{'template' if template else 'server'} goes with --against-recent")
    logs.configure("error")
    findings, breaks = asyncio.run(_all(server, offline=offline, limit=limit, template=template))
    problems = [finding for finding in findings if finding.problem is not None]
    if as_json:
        lint = {} if limit is None else {"breaks": breaks}
        print_json({"ok": not problems, "problems": problems, "checked": findings} | lint)
    else:
        for finding in findings:
            click.echo(printable(_line(finding)))
    click.get_current_context().exit(FAILED if problems else 0)


def _line(finding: Finding) -> str:
    if finding.problem is not None:
        return f"✗ {finding.where}: {finding.problem}{f' ({finding.note})' if finding.note else ''}"
    return f"✓ {finding.subject}: {finding.where}{f' ({finding.note})' if finding.note else ''}"


async def _all(
    server: Server, *, offline: bool, limit: int | None, template: str | None
) -> "tuple[list[Finding], list[Break]]":
    from notifier.service import Notifier

    try:
        config = read_config(server.config_path)
        notifier = Notifier(config)
    except ConfigError as error:
        return [Finding("configuration", error.key, error.problem)], []
    checks: list[Check] = [_templates, _mail, _store, *(() if offline else (_relays,))]
    findings = [_configuration(server.config_path, config)]
    for each in checks:
        findings += await each(notifier)
    if limit is None:
        return findings, []
    replayed = await _replayed(notifier, server, limit, template)
    return findings + replayed.findings, replayed.breaks


def _configuration(path: Path, config: "Config") -> Finding:
    return Finding("configuration", str(path), note=counted(len(config.routes), "route"))


async def _templates(notifier: "Notifier") -> list[Finding]:
    """Compile every template, and find the ones that routes name, and where they lead."""
    broken = [
        Finding(
            "templates",
            error.template if error.line is None else f"{error.template}:{error.line}",
            error.problem,
        )
        for error in notifier.renderer.check()
    ]
    problems = [*broken, *_missing_templates(notifier), *_bad_destinations(notifier)]
    names = notifier.renderer.names()
    return problems or [Finding("templates", str(notifier.config.templates_path), note=f"{len(names)} found")]


def _missing_templates(notifier: "Notifier") -> Iterator[Finding]:
    names = set(notifier.renderer.names())
    for index, route in enumerate(notifier.config.routes):
        if route.template is not None and route.template not in names:
            problem = f"there is no template {route.template!r} in {notifier.config.templates_path}"
            yield Finding("templates", f"routes[{index}].template", problem)


def _bad_destinations(notifier: "Notifier") -> Iterator[Finding]:
    """Find the destinations that need no event to be known to be none."""
    for index, route in enumerate(notifier.config.routes):
        for key, destination in route.destinations.items():
            if "{" in destination:
                continue
            try:
                notifier.channels[route.channel].lane(destination)
            except Permanent as error:
                yield Finding("routes", f"routes[{index}].{key}", error.message)


async def _mail(notifier: "Notifier") -> list[Finding]:
    """Find the mails that could never go out, and those that nobody could unsubscribe from."""
    config = notifier.config
    mails = [(index, route) for index, route in enumerate(config.routes) if route.channel == "email"]
    found = []
    if mails and not config.channels.email.relays:
        problem = f"is missing: there is no relay to send the mail of {counted(len(mails), 'route')} by"
        found.append(Finding("relays", "channels.email.relays", problem))
    if config.server.public_url is None:
        problem = "nobody can unsubscribe from it: server.public_url is not set"
        found += [
            Finding("routes", f"routes[{index}].category", problem)
            for index, route in mails
            if route.category
        ]
    return found


async def _store(notifier: "Notifier") -> list[Finding]:
    """Open the store. One that a running notifier has open is in order."""
    url = notifier.config.store.url
    try:
        await notifier.store.open(time.time())
    except StoreInUseError:
        return [Finding("store", url, note="in use by a running notifier")]
    except StoreError as error:
        return [Finding("store", "store.url", str(error))]
    await notifier.store.close()
    return [Finding("store", url)]


async def _relays(notifier: "Notifier") -> list[Finding]:
    """Connect to each relay and log in; nothing is sent."""
    from notifier.channels.email import EmailChannel

    email = notifier.channels["email"]
    if not isinstance(email, EmailChannel):
        return []
    try:
        tried = await email.check_relays()
    finally:
        await email.close()
    return [Finding("relay", f"{relay.host}:{relay.port}", problem) for relay, problem in tried]


# Against what was real ---------------------------------------------------------------------------


async def _replayed(notifier: "Notifier", server: Server, limit: int, template: str | None) -> Replayed:
    """Render templates for the latest of their events."""
    names = notifier.renderer.names() if template is None else [template]
    if template is not None and template not in notifier.renderer.names():
        problem = f"there is no such template in {notifier.config.templates_path}"
        return Replayed([Finding("replay", template, problem)], [])
    try:
        recent = await _recent(notifier, server, names, limit)
        return _linted(notifier, recent)
    except (StoreError, RefusedError, UnreachableError, Unavailable) as error:
        return Replayed([Finding("replay", "recent events", str(error))], [])
    except Failure as error:
        return Replayed([Finding("replay", "recent events", error.message)], [])


async def _recent(notifier: "Notifier", server: Server, names: Sequence[str], limit: int) -> "Recent":
    """Get them from the store; where a running notifier has it, or a server is named, from that."""
    from notifier.cli.recent import from_server, from_store

    if server.url is None:
        try:
            await notifier.store.open(time.time())
        except StoreInUseError:
            pass
        else:
            try:
                return await from_store(notifier.store, notifier.config.store.url, names, limit)
            finally:
                await notifier.store.close()
    async with server.client("admin") as client:
        return await from_server(client, names, limit)


def _linted(notifier: "Notifier", recent: "Recent") -> Replayed:
    from notifier.rendering.lint import breaks

    def link(job: "Job") -> str | None:
        base = notifier.config.server.public_url
        return f"{base.rstrip('/')}/unsubscribe/lint" if base and job.category else None

    findings: list[Finding] = []
    broken: list[Break] = []
    for template, deliveries in recent.deliveries.items():
        found = breaks(template, deliveries, notifier.renderer, notifier.channels, link)
        broken += found
        note = f"{counted(len(deliveries), 'recent event')}, from {recent.source}"
        findings += _grouped(found, note) or [Finding("replay", template, note=note)]
    return Replayed(findings, broken)


def _grouped(found: "list[Break]", note: str) -> list[Finding]:
    """One finding for each place that breaks in one way, with the first events that it breaks for."""
    groups: dict[tuple[str, str], list[Break]] = {}
    for each in found:
        groups.setdefault((each.where, each.problem), []).append(each)
    return [
        Finding("replay", where, f"{problem}: {each[0].template} breaks for {_events(each)}", note)
        for (where, problem), each in groups.items()
    ]


def _events(broken: "list[Break]") -> str:
    named = [each.event_id for each in broken[:_NAMED_EVENTS]]
    more = len(broken) - len(named)
    return ", ".join(named) + (f" and {more:,} more" if more else "")
