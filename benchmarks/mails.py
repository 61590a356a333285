"""Part `mails`: how many mails are assembled on one core, beside the standard library.

Both make the same mail of the same content, taking turns within a round; then what inlining styles, making
text from HTML, signing, and a file cost on top.
"""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address as LibraryAddress
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from benchmarks.parts import Opened, Part, Plan
from benchmarks.results import Column, Figure, Values, ratio
from notifier.channels import Attachment
from notifier.channels.address import Address
from notifier.channels.dkim import Signer
from notifier.channels.mime import Letter, compose
from notifier.channels.plaintext import text_from_html
from notifier.channels.styles import inlined
from notifier.config import DkimSection

COUNT = 20_000
QUICK = 500
OF_THE_SLOW = 20
"""How many times fewer mails are enough of what takes a millisecond."""

_ROW = '<tr><td style="padding: 8px 0; color: #1f2937">{}</td><td align="right">{},00 €</td></tr>\n'
_SHEET = "p { margin: 0 0 16px } h1 { color: #111827 } @media (max-width: 480px) { h1 { font-size: 23px } }"

OURS = "notifier: assembled"
LIBRARY = "assembled by the standard library"
PREPARED = "notifier: the same, its styles inlined and its text made"
ED25519 = "notifier: the same, signed with ed25519"
RSA = "notifier: the same, signed with RSA of 2,048 bits"
WITH_FILE = "notifier: the same, with a file of 100 kB"

Work = Callable[[Letter], object]


def letters(count: int) -> list[Letter]:
    """Mails with about 1.5 KB of HTML and its text, each to someone else; a few words are not ASCII."""
    return [_letter(number) for number in range(count)]


def _letter(number: int) -> Letter:
    rows = "".join(
        _ROW.format(what, 10 + number % 90) for what in ("Assam", "Darjeeling", "Grüner Tee", "Kanne")
    )
    html = (
        f"<!doctype html>\n<html lang=de><head><meta charset=utf-8><style>{_SHEET}</style></head>\n<body>\n"
        f"<h1>Danke, Ada!</h1>\n"
        f"<p>Ihre Bestellung {number} ist unterwegs und sollte in zwei bis drei Tagen bei Ihnen sein.</p>\n"
        f"<table width=600>{rows}</table>\n<p>Den Weg des Pakets sehen Sie unter <a href="
        f'"https://shop.example.com/orders/{number}/track?token=4f1c2a9be07d4f3f">Sendung {number}</a>.</p>\n'
        + "<p>Fragen? Schreiben Sie uns, wir helfen gern weiter, von Montag bis Freitag.</p>\n" * 8
        + "</body></html>\n"
    )
    return Letter(
        sender=Address("Example", "no-reply", "example.com"),
        to=(Address("Ada Lovelace", f"ada{number}", "example.org"),),
        subject=f"Ihre Bestellung {number} ist unterwegs",
        html=html,
        text=text_from_html(html),
        message_id=f"<job_{number:032x}@example.com>",
        date=1_800_000_000.0 + number,
        headers=(
            ("List-Unsubscribe", f"<https://notify.example.com/unsubscribe/{number:080x}>"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ),
    )


def by_library(letter: Letter) -> bytes:
    """The same mail as the standard library makes it."""
    made = EmailMessage(policy=policy.SMTP)
    made["From"] = _library_address(letter.sender)
    made["To"] = _library_address(letter.to[0])
    made["Subject"] = letter.subject
    made["Date"] = format_datetime(datetime.fromtimestamp(letter.date, UTC))
    made["Message-ID"] = letter.message_id
    made["Auto-Submitted"] = "auto-generated"
    for name, value in letter.headers:
        made[name] = value
    made.set_content(letter.text or "")
    made.add_alternative(letter.html or "", subtype="html")
    return made.as_bytes()


def _library_address(address: Address) -> LibraryAddress:
    return LibraryAddress(address.name, address.local, address.domain)


def _check(letter: Letter) -> None:
    """Hold that both say the same, so that the same work is measured."""
    ours, theirs = (
        BytesParser(policy=policy.default).parsebytes(made) for made in (compose(letter), by_library(letter))
    )
    for kind in ("plain", "html"):
        bodies = [mail.get_body((kind,)) for mail in (ours, theirs)]
        first, second = (part.get_content().splitlines() for part in bodies if part is not None)
        assert first == second
    assert all(ours[name] == theirs[name] for name in ("From", "To", "Subject", "Date", "Message-ID"))


def works(folder: Path) -> dict[str, tuple[Work, int]]:
    """What is measured, and how many times fewer mails of it are enough."""
    rsa = _signer(folder, generate_private_key(65537, 2048))
    ed25519 = _signer(folder, Ed25519PrivateKey.generate())
    file = Attachment(filename="Rechnung.pdf", media_type="application/pdf", content=os.urandom(100_000))
    return {
        OURS: (compose, 1),
        LIBRARY: (by_library, OF_THE_SLOW),
        PREPARED: (_prepared, OF_THE_SLOW),
        ED25519: (lambda letter: ed25519.signed(compose(letter)), 4),
        RSA: (lambda letter: rsa.signed(compose(letter)), OF_THE_SLOW),
        WITH_FILE: (
            lambda letter: compose(msgspec.structs.replace(letter, attachments=(file,))),
            OF_THE_SLOW,
        ),
    }


def _prepared(letter: Letter) -> bytes:
    html = inlined(letter.html or "", "order")
    return compose(msgspec.structs.replace(letter, html=html, text=text_from_html(html)))


def _signer(folder: Path, key: Ed25519PrivateKey | RSAPrivateKey) -> Signer:
    file = folder / type(key).__name__
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Signer(DkimSection(selector="s1", key_file=str(file)), folder, "example.com")


@asynccontextmanager
async def _open(plan: Plan) -> AsyncIterator[Opened]:
    mails = letters(plan.size(COUNT, QUICK))
    _check(mails[0])
    note = (
        f"{len(mails[0].html or ''):,} characters of HTML, {len(mails[0].text or ''):,} of text, "
        f"{len(compose(mails[0])):,} bytes of mail"
    )
    with TemporaryDirectory(prefix="notifier-bench-") as name:
        measured = works(Path(name))
        rows = {
            row: partial(_rate, work, mails[: len(mails) // fewer]) for row, (work, fewer) in measured.items()
        }
        yield Opened(rows, [note])


async def _rate(work: Work, some: Sequence[Letter]) -> Values:
    """How many a second of CPU time."""
    began = process_time()
    for letter in some:
        work(letter)
    return {"rate": len(some) / (process_time() - began)}


PART = Part(
    name="mails",
    title="Mails assembled, on one core",
    columns={"rate": Column("a second of CPU")},
    open=_open,
    figures=tuple(
        Figure(name=f"{row} ÷ standard library", of=ratio(row, LIBRARY), form=".1f")
        for row in (OURS, PREPARED, ED25519, RSA, WITH_FILE)
    ),
)
