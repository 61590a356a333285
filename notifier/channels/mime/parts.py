"""The parts of a mail as bytes, each from its Content-Type on: bodies, attachments, and what joins them."""

import binascii
import hashlib
import re
from collections.abc import Sequence

from notifier.channels import Attachment
from notifier.channels.mime.fields import parameter_field
from notifier.channels.mime.lines import CRLF, ENCODED_LINE, LINE
from notifier.errors import Permanent

_SEVEN_BIT = re.compile(rf"(?:[\t -~]{{0,{LINE}}}\n)*")
_LITERAL = bytes({*range(32, 127), 9, 10, 13} - {ord("=")})
_LONG_SPACE_AT_END = re.compile(rb"(?m)^([^\r]{74,})(=20|=09)\r$")
_BASE64_LINE = ENCODED_LINE // 4 * 3
"""Bytes that one line of base64 holds."""

_WORD = r"[A-Za-z0-9!#$&^_.+\-]{1,127}"
_MEDIA_TYPE = re.compile(rf"{_WORD}/{_WORD}")
_WHOLE_MESSAGES = ("multipart/", "message/")
_INLINE_NAME = re.compile(r"[A-Za-z0-9._@+\-]{1,128}")


def text_part(kind: str, body: str) -> bytes:
    """Make a `text/…` part. Line ends become CRLF and the last line is ended; all else is kept."""
    encoding, data = _encoded_text(body)
    head = f'Content-Type: text/{kind}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    return head.encode() + data


def attachment_part(attachment: Attachment) -> bytes:
    """Make the part of a file. Raises Permanent `invalid_attachment`, `header_injection`, `invalid_text`."""
    _check(attachment)
    head = [
        _type_field(attachment),
        parameter_field("Content-Disposition", _disposition(attachment), "filename", attachment.filename),
        "Content-Transfer-Encoding: base64",
    ]
    if attachment.inline is not None:
        head.append(f"Content-ID: <{attachment.inline}>")
    return CRLF.join([*head, "", ""]).encode() + _base64(attachment.content)


def _check(attachment: Attachment) -> None:
    if not attachment.filename.strip():
        raise _invalid("an attachment has no file name")
    if not _MEDIA_TYPE.fullmatch(attachment.media_type):
        raise _invalid(f"{attachment.media_type[:320]!r} is no media type: expected type/subtype")
    if attachment.media_type.lower().startswith(_WHOLE_MESSAGES):
        # RFC 2045 §6.4: these may not be in base64, and no relay may be trusted with anything else.
        raise _invalid(f"{attachment.media_type} can't be attached: say application/octet-stream")
    if attachment.inline is not None and not _INLINE_NAME.fullmatch(attachment.inline):
        raise _invalid(f"{attachment.inline[:320]!r} is no name for cid: expected letters, digits and ._@+-")


def _invalid(problem: str) -> Permanent:
    return Permanent(problem, code="invalid_attachment")


def _type_field(attachment: Attachment) -> str:
    """Name the type; of text also what it is written in, for that is else taken for ASCII."""
    if attachment.media_type.lower().startswith("text/") and _is_utf8(attachment.content):
        return f'Content-Type: {attachment.media_type};\r\n charset="utf-8"'
    return f"Content-Type: {attachment.media_type}"


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _disposition(attachment: Attachment) -> str:
    return "attachment" if attachment.inline is None else "inline"


def multipart(kind: str, parts: Sequence[bytes], *, seed: str, root: str | None = None) -> bytes:
    """Join parts; a single one needs no joining. `root` is the media type that a `related` begins with."""
    if len(parts) == 1:
        return parts[0]
    boundary = _boundary(f"{kind} {seed}", parts)
    mark = b"\r\n--" + boundary.encode()
    about = f' type="{root}";\r\n' if root else ""
    head = f'Content-Type: multipart/{kind};\r\n{about} boundary="{boundary}"\r\n'.encode()
    return b"".join([head, *(piece for part in parts for piece in (mark, b"\r\n", part)), mark, b"--\r\n"])


def _boundary(seed: str, parts: Sequence[bytes]) -> str:
    """Derive what stands between the parts; `=_` is never quoted-printable or base64 (RFC 2045 §6.7)."""
    while True:
        boundary = "=_" + hashlib.blake2b(seed.encode(), digest_size=16).hexdigest()
        if not any(boundary.encode() in part for part in parts):
            return boundary
        seed = boundary


# Encodings ---------------------------------------------------------------------------------------


def _encoded_text(body: str) -> tuple[str, bytes]:
    """Choose what text can travel in: as it is if it is short lines of ASCII, else what is shorter."""
    lines = body.replace(CRLF, "\n").replace("\r", "\n")
    if not lines.endswith("\n"):
        lines += "\n"
    data = lines.replace("\n", CRLF).encode()
    if data.isascii() and _SEVEN_BIT.fullmatch(lines):
        return "7bit", data
    # Each such byte takes two more in quoted-printable; base64 takes a third more of everything.
    if len(data.translate(None, _LITERAL)) * 6 > len(data):
        return "base64", _base64(data)
    return "quoted-printable", _quoted_printable(data)


def _base64(data: bytes) -> bytes:
    line, step = binascii.b2a_base64, _BASE64_LINE
    lines = [line(data[at : at + step], newline=False) for at in range(0, len(data), step)]
    return b"\r\n".join([*lines, b""])


def _quoted_printable(data: bytes) -> bytes:
    encoded = binascii.b2a_qp(data, istext=True)
    if b" \r\n" in data or b"\t\r\n" in data:
        # binascii escapes a space at the end of a line without counting the two characters that it adds.
        encoded = _LONG_SPACE_AT_END.sub(rb"\1=\r\n\2\r", encoded)
    return encoded
