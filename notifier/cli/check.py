"""`notifier check`: everything that can be known to be wrong before an event comes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from notifier.cli.program import FAILED, config_option, json_option, print_json, printable, read_config
from notifier.errors import ConfigError, Permanent, StoreError, StoreInUseError

if TYPE_CHECKING:
    from notifier.config import Config
    from notifier.service import Notifier


class Finding(Struct, frozen=True):
    """What one check found: where (a file, a key, a relay), and what is wrong there; None: nothing is."""

    subject: str
    where: str
    problem: str | None = None
    note: str = ""


Check = Callable[["Notifier"], Awaitable[list[Finding]]]


@click.command(short_help="Find out what is wrong before an event comes.")
@click.option("--offline", is_flag=True, help="Don't try the mail relays.")
@config_option
@json_option
def check(*, offline: bool, config_path: Path, as_json: bool) -> None:
    """Check the configuration, every template, the store and each relay; exit 1 if anything is wrong."""
    from notifier import logs

    logs.configure("error")
    findings = asyncio.run(_check(config_path, offline=offline))
    problems = [finding for finding in findings if finding.problem is not None]
    if as_json:
        print_json({"ok": not problems, "problems": problems, "checked": findings})
    else:
        for finding in findings:
            click.echo(printable(_line(finding)))
    click.get_current_context().exit(FAILED if problems else 0)


def _line(finding: Finding) -> str:
    if finding.problem is not None:
        return f"✗ {finding.where}: {finding.problem}"
    return f"✓ {finding.subject}: {finding.where}{f' ({finding.note})' if finding.note else ''}"


async def _check(path: Path, *, offline: bool) -> list[Finding]:
    from notifier.service import Notifier

    try:
        config = read_config(path)
        notifier = Notifier(config)
    except ConfigError as error:
        return [Finding("configuration", error.key, error.problem)]
    checks: list[Check] = [_templates, _store] if offline else [_templates, _store, _relays]
    findings = [_configuration(path, config)]
    for each in checks:
        findings += await each(notifier)
    return findings


def _configuration(path: Path, config: "Config") -> Finding:
    return Finding("configuration", str(path), note=f"{len(config.routes)} routes")


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
        if "{" in route.destination:
            continue
        try:
            notifier.channels[route.channel].lane(route.destination)
        except Permanent as error:
            key = "to" if route.url is None else "url"
            yield Finding("routes", f"routes[{index}].{key}", error.message)


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
