"""A mail before it is bytes, and how it becomes them."""

from collections.abc import Sequence

from msgspec import Struct

from notifier.channels import Attachment
from notifier.channels.address import Address
from notifier.channels.mime.fields import (
    date_field,
    further_field,
    mailbox_field,
    mailbox_list_fields,
    message_id_field,
    text_field,
)
from notifier.channels.mime.lines import CRLF
from notifier.channels.mime.parts import attachment_part, multipart, text_part
from notifier.errors import Permanent


class Letter(Struct, frozen=True, kw_only=True):
    """A mail before it is bytes; of its bodies one may be None."""

    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()
    subject: str
    html: str | None
    text: str | None
    attachments: Sequence[Attachment] = ()
    message_id: str
    """With its angle brackets."""
    date: float
    headers: Sequence[tuple[str, str]] = ()
    """Further ones; `List-*`, `References`, `In-Reply-To` and those that end in `-ID` go out verbatim."""


def compose(letter: Letter) -> bytes:
    """Build a mail, ready for SMTP's DATA but for its dots.

    Two bodies make a multipart/alternative, text first; what the HTML shows goes with it as
    multipart/related, all other attachments follow in a multipart/mixed; a part alone stands by itself.
    In a body every line end becomes CRLF and the last line is ended; all else arrives as it is.

    Raises Permanent: `header_injection` (CR, LF or NUL in a header or a file's name), `invalid_header`,
    `header_too_long`, `invalid_text` (not Unicode: a lone surrogate), `invalid_attachment`, `no_body`.
    """
    try:
        return CRLF.join(_head(letter)).encode() + b"\r\n" + _content(letter)
    except UnicodeEncodeError as error:
        raise Permanent(f"the mail is not Unicode text: {error.reason}", code="invalid_text") from error


def _head(letter: Letter) -> list[str]:
    return [
        mailbox_field("From", letter.sender),
        *mailbox_list_fields(letter.to, letter.cc),
        text_field("Subject", letter.subject),
        date_field(int(letter.date)),
        message_id_field(letter.message_id),
        "MIME-Version: 1.0",
        "Auto-Submitted: auto-generated",
        *(further_field(name, value) for name, value in letter.headers),
    ]


def _content(letter: Letter) -> bytes:
    if letter.html is None and letter.text is None:
        raise Permanent("the mail has neither HTML nor text", code="no_body")
    bodies = [] if letter.text is None else [text_part("plain", letter.text)]
    if letter.html is not None:
        bodies.append(_page(letter, letter.html))
    content = multipart("alternative", bodies, seed=letter.message_id)
    if not letter.attachments:
        return content
    attached = [each for each in letter.attachments if not _is_shown(each, letter)]
    return multipart("mixed", [content, *map(attachment_part, attached)], seed=letter.message_id)


def _page(letter: Letter, html: str) -> bytes:
    """Make the HTML, with the images that it shows."""
    page = text_part("html", html)
    shown = [each for each in letter.attachments if _is_shown(each, letter)]
    names = [each.inline for each in shown]
    if len(set(names)) < len(names):
        raise Permanent("two inline attachments have the same name", code="invalid_attachment")
    parts = [page, *map(attachment_part, shown)]
    return multipart("related", parts, seed=letter.message_id, root="text/html")


def _is_shown(attachment: Attachment, letter: Letter) -> bool:
    return attachment.inline is not None and letter.html is not None
