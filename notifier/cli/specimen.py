"""One template as it would go out: on the terminal, in a browser, in a file, or sent to someone at once."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import Raw, Struct, field

from notifier.cli.parts import print_part
from notifier.cli.program import FAILED, Failure, print_json, printable, usage_error
from notifier.errors import DeliveryError, Permanent, TemplateError, Transient, Unknown

if TYPE_CHECKING:
    from notifier.channels import Channel, Message, Receipt
    from notifier.config import Config
    from notifier.preview import Specimen
    from notifier.service import Notifier

_EXAMPLE = "https://notifier.example"


class Wanted(Struct, frozen=True, kw_only=True):
    """What is to be shown of which template, and what is to be done with it."""

    template: str
    data: Raw
    tenant: str | None = None
    locale: str | None = None
    category: str | None = None
    open_page: bool | None = None
    """None: where it would be seen."""
    eml: str | None = None
    send_to: str | None = None
    as_json: bool = False


class Shown(Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    template: str
    locale: str | None
    mail: dict[str, Any] | None = None
    payload: str | None = None
    problems: list[dict[str, Any]] = field(default_factory=list)
    sent: dict[str, Any] | None = None


def show(config: "Config", wanted: Wanted) -> int:
    """Show a template, and do with it what is wanted; returns the exit code."""
    from notifier import logs
    from notifier.service import Notifier

    logs.configure("error")
    notifier = Notifier(config)
    email = notifier.channels["email"]
    if wanted.send_to is not None:
        _check_recipient(email, wanted.send_to)
    made = _specimen(notifier, wanted)
    if made.problems:
        return _tell_problems(wanted, made.problems)
    try:
        mail = email.preview(made.message) if _is_mail(wanted, made.message) else None
    except DeliveryError as error:
        return _tell_problems(wanted, [error])
    if wanted.eml is not None and mail is not None:
        _write(wanted.eml, mail["raw"].encode())
    sent = None if wanted.send_to is None else asyncio.run(_sent(email, made.message))
    _tell(wanted, made.message, mail, sent)
    if mail is not None and _opens(wanted):
        _open(mail["raw"].encode())
    return FAILED if isinstance(sent, DeliveryError) else 0


def _check_recipient(email: "Channel", address: str) -> None:
    try:
        email.lane(address)
    except Permanent as error:
        raise usage_error(f"--send-to: {error.message}") from None


def _specimen(notifier: "Notifier", wanted: Wanted) -> "Specimen":
    from notifier.preview import MADE_UP, RECIPIENT, specimen

    base = (notifier.config.server.public_url or _EXAMPLE).rstrip("/")
    return specimen(
        notifier.renderer,
        wanted.template,
        wanted.data,
        now=time.time(),
        recipient=wanted.send_to or RECIPIENT,
        locale=wanted.locale,
        tenant=wanted.tenant,
        category=wanted.category,
        unsubscribe_url=None if wanted.category is None else f"{base}/unsubscribe/{MADE_UP}",
    )


def _is_mail(wanted: Wanted, message: "Message") -> bool:
    """Whether the template makes a mail, or is to: one for webhooks alone has none of a mail's parts."""
    content = message.content
    asked = wanted.eml is not None or wanted.send_to is not None
    return asked or any(part is not None for part in (content.subject, content.html, content.text))


# Done with it ------------------------------------------------------------------------------------


def _write(name: str, mail: bytes) -> None:
    if name == "-":
        sys.stdout.buffer.write(mail)
        return
    try:
        Path(name).write_bytes(mail)
    except OSError as error:
        raise Failure(f"{name}: {error.strerror}") from None


async def _sent(email: "Channel", message: "Message") -> "Receipt | DeliveryError":
    """Send it, as a worker would. A failure is what came of it, and no exception."""
    await email.open()
    limit = asyncio.timeout(email.timeout)
    try:
        async with limit:
            return await email.deliver(message)
    except DeliveryError as error:
        return error
    except TimeoutError:
        return Transient(f"no end within {email.timeout or 0:g} s", code="timeout")
    finally:
        await email.close()


def _opens(wanted: Wanted) -> bool:
    """Whether to open a browser: where it is told to, or nothing else is asked for and it would be seen."""
    if wanted.open_page is not None:
        return wanted.open_page
    if wanted.as_json or wanted.eml or wanted.send_to or not sys.stdout.isatty():
        return False
    if sys.platform in {"darwin", "win32"}:
        return True
    has_display = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return has_display and "SSH_CONNECTION" not in os.environ


def _open(mail: bytes) -> None:
    """Show a mail in a browser, which reads the file when this process may be gone."""
    import tempfile
    import webbrowser

    from notifier.cli.page import page

    with tempfile.NamedTemporaryFile(prefix="notifier-preview-", suffix=".html", delete=False) as file:
        file.write(page(mail).encode())
    if not webbrowser.open(Path(file.name).as_uri()):
        click.echo(f"no browser could be opened: {file.name} is the page", err=True)


# Said of it --------------------------------------------------------------------------------------


def _tell_problems(wanted: Wanted, problems: "list[TemplateError] | list[DeliveryError]") -> int:
    if wanted.as_json:
        told = [_problem(error) for error in problems]
        print_json(Shown(template=wanted.template, locale=wanted.locale, problems=told))
        return FAILED
    for error in problems:
        click.echo(printable(f"✗ {error}"), err=True)
    if any(isinstance(error, TemplateError) and error.variable for error in problems):
        click.echo("--data says what the event holds", err=True)
    return FAILED


def _problem(error: DeliveryError) -> dict[str, Any]:
    if not isinstance(error, TemplateError):
        return {"code": error.code, "problem": error.message}
    return {
        "code": error.code,
        "file": error.template,
        "line": error.line,
        "variable": error.variable,
        "problem": error.problem,
    }


def _tell(
    wanted: Wanted,
    message: "Message",
    mail: dict[str, Any] | None,
    sent: "Receipt | DeliveryError | None",
) -> None:
    if wanted.as_json:
        print_json(_shown(wanted, message, mail, sent))
        return
    if wanted.eml != "-":
        click.echo(printable(f"── {wanted.template} → {message.destination}"))
        if mail is not None:
            _tell_mail(mail)
        print_part("payload", message.content.payload)
    if sent is not None:
        click.echo(printable(_answer(sent, message.destination)), err=isinstance(sent, DeliveryError))


def _tell_mail(mail: dict[str, Any]) -> None:
    """Print a mail as its reader's program reads it."""
    from notifier.dashboard.mail import read_mail

    read = read_mail(mail["raw"].encode())
    for name, value in read.headers:
        click.echo(printable(f"{name}: {value}"))
    for each in mail["attachments"]:
        shown = f", shown as cid:{each['inline']}" if each["inline"] else ""
        click.echo(
            printable(f"attached: {each['filename']} ({each['media_type']}, {each['size']:,} bytes{shown})")
        )
    print_part("text", read.text)
    print_part("html", read.html)


def _answer(sent: "Receipt | DeliveryError", recipient: str) -> str:
    """Say what became of a mail, and what the relay answered."""
    relay = sent.via or "the relay"
    said = " ".join(filter(None, (str(sent.status_code or ""), sent.response)))
    if not isinstance(sent, DeliveryError):
        return f"sent to {recipient}: {relay} answered {said or 'nothing'}"
    state = "perhaps sent" if isinstance(sent, Unknown) else "not sent"
    answered = f"; {relay} answered {said}" if said and said not in sent.message else ""
    return f"{state} to {recipient}: {sent.code}: {sent.message}{answered}"


def _shown(
    wanted: Wanted,
    message: "Message",
    mail: dict[str, Any] | None,
    sent: "Receipt | DeliveryError | None",
) -> Shown:
    return Shown(
        template=wanted.template,
        locale=wanted.locale,
        mail=mail,
        payload=message.content.payload,
        sent=None if sent is None else _outcome(sent),
    )


def _outcome(sent: "Receipt | DeliveryError") -> dict[str, Any]:
    failed = {"code": sent.code, "message": sent.message} if isinstance(sent, DeliveryError) else None
    return {
        "status_code": sent.status_code,
        "response": sent.response,
        "via": sent.via,
        "error": failed,
    }
