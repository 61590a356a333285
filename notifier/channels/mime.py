"""Mail to bytes, at the same arguments the same ones, so that a retry can be equal.

Written out here because the standard library takes a millisecond a mail, and folds what it must not.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import TypeVar

from notifier.channels.address import CACHED, Address
from notifier.errors import Permanent

CRLF = "\r\n"
LINE = 78
"""The length that a line should keep to, without its CRLF (RFC 5322 §2.1.1)."""
ENCODED_LINE = 76
"""The same for a header line with an encoded word (RFC 2047 §2), and for quoted-printable and base64."""
LONGEST_LINE = 998
"""The length that no line may pass (RFC 5322 §2.1.1)."""
ENCODED_WORD = 75
"""The length that no encoded word may pass (RFC 2047 §2)."""

_Piece = TypeVar("_Piece", str, bytes)

_OURS = frozenset(
    {"from", "to", "subject", "date", "message-id", "mime-version", "auto-submitted", "content-type"}
)
# What other programs read letter by letter: neither encoded nor folded.
_VERBATIM = re.compile(r"list-.*|references|in-reply-to|.*-id", re.IGNORECASE)
_MESSAGE_ID = re.compile(r"<[!-;=?-~]+@[!-;=?-~]+>")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")
_FORBIDDEN = re.compile(r"[\r\n\0]")
_SPACED_WORDS = re.compile(r"[!-~]+(?: [!-~]+)*")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?: [A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*")
_PRINTABLE = re.compile(r"[ -~]*")
_LONGEST_PLAIN_WORD = 60

_SEVEN_BIT = re.compile(rf"(?:[\t -~]{{0,{LINE}}}\n)*")
_LITERAL = bytes({*range(32, 127), 9, 10, 13} - {ord("=")})
_SPACE_AT_END = re.compile(rb"[ \t]\r\n")
_LONG_SPACE_AT_END = re.compile(rb"(?m)^([^\r]{74,})(=20|=09)\r$")

# RFC 2047 §5 (3) as every word may stand in a phrase; `_` is a space.
_Q_CODES = {
    byte: chr(byte) if chr(byte).isalnum() or chr(byte) in "!*+-/" else f"={byte:02X}" for byte in range(128)
}
_Q_CODES[ord(" ")] = "_"


def compose(
    sender: Address,
    recipient: Address,
    *,
    subject: str,
    html: str | None,
    text: str | None,
    message_id: str,
    date: float,
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Build one mail, ready for SMTP's DATA but for its dots.

    `message_id` has its angle brackets; `date` is in seconds since the epoch; `headers` are further ones
    (`List-*`, `References`, `In-Reply-To` and those that end in `-ID` go out verbatim). Both bodies make a
    multipart/alternative, text first; one makes a mail of that kind alone. In a body every line end
    becomes CRLF and the last line is ended; all else arrives as it is.

    Raises Permanent: `header_injection` (CR, LF or NUL in a header), `invalid_header`, `header_too_long`,
    `invalid_text` (not Unicode: a lone surrogate), `no_body`.
    """
    try:
        head = [
            _mailbox_field("From", sender),
            _mailbox_field("To", recipient),
            _unstructured_field("Subject", subject),
            f"Date: {format_datetime(datetime.fromtimestamp(int(date), UTC))}",
            f"Message-ID: {_checked_message_id(message_id)}",
            "MIME-Version: 1.0",
            "Auto-Submitted: auto-generated",
            *(_further_field(name, value) for name, value in headers),
        ]
        parts = [_part(kind, body) for kind, body in (("plain", text), ("html", html)) if body is not None]
        return CRLF.join(head).encode() + b"\r\n" + _body(parts, message_id)
    except UnicodeEncodeError as error:
        raise Permanent(f"the mail is not Unicode text: {error.reason}", code="invalid_text") from error


def _body(parts: list[bytes], message_id: str) -> bytes:
    if not parts:
        raise Permanent("the mail has neither HTML nor text", code="no_body")
    if len(parts) == 1:
        return parts[0]
    boundary = _boundary(message_id, parts)
    mark = b"\r\n--" + boundary.encode()
    head = f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n'.encode()
    return head + b"".join(mark + b"\r\n" + part for part in parts) + mark + b"--\r\n"


def _boundary(message_id: str, parts: list[bytes]) -> str:
    """Derive what stands between the parts; `=_` is never quoted-printable or base64 (RFC 2045 §6.7)."""
    seed = message_id
    while True:
        boundary = "=_" + hashlib.blake2b(seed.encode(), digest_size=16).hexdigest()
        if not any(boundary.encode() in part for part in parts):
            return boundary
        seed = boundary


# Bodies ------------------------------------------------------------------------------------------


def _part(kind: str, body: str) -> bytes:
    encoding, data = _encoded_body(body)
    head = f'Content-Type: text/{kind}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    return head.encode() + data


def _encoded_body(body: str) -> tuple[str, bytes]:
    """Choose what the body can travel in: as it is if it is short lines of ASCII, else what is shorter."""
    lines = body.replace(CRLF, "\n").replace("\r", "\n")
    if not lines.endswith("\n"):
        lines += "\n"
    data = lines.replace("\n", CRLF).encode()
    if _SEVEN_BIT.fullmatch(lines):
        return "7bit", data
    # Each such byte takes two more in quoted-printable; base64 takes a third more of everything.
    if len(data.translate(None, _LITERAL)) * 6 > len(data):
        return "base64", _base64(data)
    return "quoted-printable", _quoted_printable(data)


def _base64(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", b"\r\n")


def _quoted_printable(data: bytes) -> bytes:
    encoded = binascii.b2a_qp(data, istext=True)
    if _SPACE_AT_END.search(data):
        # binascii escapes a space at the end of a line without counting the two characters that it adds.
        encoded = _LONG_SPACE_AT_END.sub(rb"\1=\r\n\2\r", encoded)
    return encoded


# Headers -----------------------------------------------------------------------------------------


@lru_cache(CACHED)
def _mailbox_field(name: str, address: Address) -> str:
    for piece in address:
        _refuse_injection(name, piece)
    spec = f"<{address.spec}>" if address.name else address.spec
    words = _phrase(address.name, first=ENCODED_LINE - len(name) - 2)
    return _folded(name, [*words, spec], ENCODED_LINE)


def _phrase(text: str, first: int) -> list[str]:
    """Write a display name as RFC 5322 §3.2.5 has it: atoms, a quoted string, or encoded words."""
    if not text:
        return []
    if len(text) > _LONGEST_PLAIN_WORD or not _PRINTABLE.fullmatch(text) or "=?" in text:
        return _encoded_words(text, first)
    if _ATOMS.fullmatch(text):
        return [text]
    return ['"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"']


def _unstructured_field(name: str, text: str) -> str:
    _refuse_injection(name, text)
    if not text:
        return f"{name}: "
    if _SPACED_WORDS.fullmatch(text) and "=?" not in text:
        if len(name) + 2 + len(text) <= LINE:
            return f"{name}: {text}"
        words = text.split(" ")
        if max(map(len, words)) <= _LONGEST_PLAIN_WORD:
            return _folded(name, words, LINE)
    return _folded(name, _encoded_words(text, first=ENCODED_LINE - len(name) - 2), ENCODED_LINE)


def _further_field(name: str, value: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        code = "header_injection" if _FORBIDDEN.search(name) else "invalid_header"
        raise Permanent(f"{name!r} is no header name", code=code)
    if name.lower() in _OURS:
        raise Permanent(f"the header {name} is made here and can't be given", code="invalid_header")
    return _verbatim_field(name, value) if _VERBATIM.fullmatch(name) else _unstructured_field(name, value)


def _verbatim_field(name: str, value: str) -> str:
    _refuse_injection(name, value)
    if not value.strip() or not _PRINTABLE.fullmatch(value):
        raise Permanent(f"the header {name} takes printable ASCII alone", code="invalid_header")
    if len(name) + 2 + len(value) > LONGEST_LINE:
        raise Permanent(f"the header {name} is longer than a line may be", code="header_too_long")
    return f"{name}: {value}"


def _checked_message_id(message_id: str) -> str:
    _refuse_injection("Message-ID", message_id)
    if len(message_id) > LONGEST_LINE - 12 or not _MESSAGE_ID.fullmatch(message_id):
        raise Permanent(f"{message_id[:320]!r} is no Message-ID: expected <id@domain>", code="invalid_header")
    return message_id


def _refuse_injection(name: str, value: str) -> None:
    if _FORBIDDEN.search(value):
        raise Permanent(f"the header {name} holds a line break or NUL", code="header_injection")


def _folded(name: str, words: list[str], width: int) -> str:
    """Put words on lines no wider than `width` where they fit (RFC 5322 §2.2.3)."""
    lines = [f"{name}: {words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += " " + word
        else:
            lines.append(" " + word)
    return CRLF.join(lines)


def _encoded_words(text: str, first: int) -> list[str]:
    """Write any text as RFC 2047 words, none split within a character, the first no longer than `first`."""
    quoted = [_q(character) for character in text]
    size = len(text.encode())
    if sum(map(len, quoted)) <= 4 * ((size + 2) // 3):
        return [f"=?utf-8?q?{''.join(run)}?=" for run in _runs(quoted, first - 12, ENCODED_WORD - 12)]
    room, rest = ((width - 12) // 4 * 3 for width in (first, ENCODED_WORD))
    runs = _runs([character.encode() for character in text], room, rest)
    return [f"=?utf-8?b?{binascii.b2a_base64(b''.join(run), newline=False).decode()}?=" for run in runs]


def _q(character: str) -> str:
    code = _Q_CODES.get(ord(character))
    return code if code is not None else "".join(f"={byte:02X}" for byte in character.encode())


def _runs(pieces: list[_Piece], first: int, rest: int) -> list[list[_Piece]]:
    """Share pieces out into runs that are no longer than `first` and, after that, `rest`."""
    runs: list[list[_Piece]] = [[]]
    room = first
    for piece in pieces:
        if len(piece) > room and runs[-1]:
            runs.append([])
            room = rest
        runs[-1].append(piece)
        room -= len(piece)
    return runs
