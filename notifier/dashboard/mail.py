"""A mail's bytes → what a page shows of it. The bytes may be anything; reading them never fails."""

from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from typing import Any, TypeAlias

from msgspec import Struct

Part: TypeAlias = "Message[Any, Any]"


class ReadMail(Struct, frozen=True, kw_only=True):
    """A mail as a person reads it; a body that it lacks is None."""

    headers: tuple[tuple[str, str], ...]
    subject: str
    html: str | None
    text: str | None
    attachments: tuple[str, ...]

    def header(self, name: str) -> str:
        """Return a header's first value, or nothing."""
        return next((value for known, value in self.headers if known.lower() == name), "")


def read_mail(raw: bytes) -> ReadMail:
    """Read a mail, as well as its bytes allow."""
    mail = message_from_bytes(raw)
    headers = tuple((name, _decoded(value)) for name, value in mail.raw_items())
    leaves = [part for part in mail.walk() if not part.is_multipart()]
    shown = [part for part in leaves if part.get_content_disposition() != "attachment"]
    return ReadMail(
        headers=headers,
        subject=next((value for name, value in headers if name.lower() == "subject"), ""),
        html=_first(shown, "text/html"),
        text=_first(shown, "text/plain"),
        attachments=tuple(_file_name(part) for part in leaves if part not in shown),
    )


def _first(parts: list[Part], kind: str) -> str | None:
    return next((_content(part) for part in parts if part.get_content_type() == kind), None)


def _content(part: Part) -> str:
    payload = part.get_payload(decode=True)
    content = payload if isinstance(payload, bytes) else b""
    try:
        return content.decode(part.get_content_charset("utf-8"), "replace")
    except (LookupError, ValueError):
        return content.decode("utf-8", "replace")


def _decoded(value: object) -> str:
    """Unfold a header and decode its encoded words (RFC 2047); one that is broken is shown as it stands."""
    unfolded = str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    unfolded = " ".join(unfolded.split())
    try:
        return str(make_header(decode_header(unfolded)))
    except (HeaderParseError, LookupError, ValueError):
        return unfolded


def _file_name(part: Part) -> str:
    return _decoded(part.get_filename("unnamed"))
