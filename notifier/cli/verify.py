"""`notifier verify`: why a request does not verify, found out where the receiver is, without a server."""

import re
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from notifier.cli.program import FAILED, json_option, print_json, printable, usage_error

if TYPE_CHECKING:
    from notifier.channels.signing.diagnosis import Diagnosis
    from notifier.channels.signing.received import Received

MAX_INPUT = 32 * 1024**2
"""Bytes of a request that are read."""
MAX_HEAD = 1024**2

_MARKS = {True: "✓", False: "✗", None: "·"}
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(r"\r?\n")
_START_LINE = re.compile(r"\S+ \S+ HTTP/\S+")
_FIELD = re.compile(r":?[^\s:]+")


def _moment(_context: click.Context, _option: click.Parameter, text: str | None) -> float:
    if text is None:
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("expected RFC 3339, e.g. 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise click.BadParameter("expected a time with its zone, e.g. 2026-01-31T12:00:00Z")
    return moment.timestamp()


@click.command(short_help="Say why a received webhook does not verify.")
@click.argument("request_file", metavar="[FILE|-]", required=False)
@click.option("--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="A header, with --body.")
@click.option("--body", "body_file", metavar="FILE|-", help="The exact body, where FILE has no head.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    envvar="NOTIFIER_VERIFY_SECRET",
    show_envvar=True,
    help="whsec_…, whpk_… or whsk_…; may be given again. The variable keeps it out of the process list.",
)
@click.option(
    "--tolerance",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    help="How far off the clock may be.",
)
@click.option("--now", metavar="TIME", callback=_moment, help="Judge the clock by this time (RFC 3339).")
@json_option
def verify(
    *,
    request_file: str | None,
    headers: tuple[str, ...],
    body_file: str | None,
    secrets: tuple[str, ...],
    tolerance: float,
    now: float,
    as_json: bool,
) -> None:
    """Say why a received webhook does not verify; exit 0 if it does, 1 if not. Nothing leaves this machine.

    FILE is the request as it came: head, blank line, body (- is stdin). Or give the parts, with --header
    for each header and --body.
    """
    from notifier.channels.signing.diagnosis import diagnose

    if not secrets:
        raise usage_error("give the secret to verify with, by --secret or NOTIFIER_VERIFY_SECRET")
    diagnosis = diagnose(_received(request_file, headers, body_file), secrets, now, tolerance)
    _tell(diagnosis, as_json=as_json)
    click.get_current_context().exit(0 if diagnosis.verified else FAILED)


def _tell(diagnosis: "Diagnosis", *, as_json: bool) -> None:
    checks = [(each.check, each.ok, printable(each.message)) for each in diagnosis.checks]
    verdict = printable(diagnosis.verdict)
    if as_json:
        told = [dict(zip(("check", "ok", "message"), each, strict=True)) for each in checks]
        print_json({"verified": diagnosis.verified, "verdict": verdict, "checks": told})
        return
    for name, ok, message in checks:
        click.echo(f"{_MARKS[ok]} {name}: {message}")
    click.echo(f"\n{'Verified' if diagnosis.verified else 'Not verified'}: {verdict}.")


def _received(request_file: str | None, headers: tuple[str, ...], body_file: str | None) -> "Received":
    """Read the request, whole or in parts. What is not understood is a usage error."""
    from notifier.channels.signing.received import Received

    if request_file is not None and body_file is None and not headers:
        fields, body = _taken_apart(request_file)
    elif request_file is None and body_file is not None:
        fields, body = headers, _read(body_file)
    else:
        raise usage_error("give either the request as a FILE, or its --body and each --header")
    return Received(tuple(map(_field, fields)), body)


def _taken_apart(name: str) -> tuple[Sequence[str], bytes]:
    """Read a captured request: the lines of its head but for the first, and its body."""
    raw = _read(name)
    blank = _BLANK_LINE.search(raw)
    if blank is None or blank.start() > MAX_HEAD:
        raise usage_error(f"{name}: expected a request: its head, a blank line, its body")
    lines = _LINE_END.split(raw[: blank.start()].decode("utf-8", "surrogateescape"))
    return (lines[1:] if _START_LINE.fullmatch(lines[0]) else lines), raw[blank.end() :]


def _field(line: str) -> tuple[str, str]:
    """Take a header apart; the white space around its value is none of it (RFC 9110 §5.5)."""
    found = _FIELD.match(line)
    if found is None or line[found.end() : found.end() + 1] != ":":
        raise usage_error(f"expected a header 'name: value', got {printable(line[:80])!r}")
    return found[0], line[found.end() + 1 :].strip(" \t")


def _read(name: str) -> bytes:
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file:
            raw = file.read(MAX_INPUT + 1)
    except OSError as error:
        raise usage_error(f"{name}: {error.strerror}") from None
    if len(raw) > MAX_INPUT:
        raise usage_error(f"{name}: larger than {MAX_INPUT // 1024**2} MiB")
    return raw
