"""The header fields of a mail: encoded as they need it, folded where they may be, injected into never."""

import binascii
import re
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from notifier.channels.address import CACHED, Address
from notifier.channels.mime.lines import ENCODED_LINE, LINE, LONGEST_LINE, folded, runs
from notifier.errors import Permanent

ENCODED_WORD = 75
"""The length that no encoded word may pass (RFC 2047 §2)."""

_OURS = frozenset(
    {"from", "to", "cc", "bcc", "subject", "date", "message-id", "mime-version", "auto-submitted"}
    | {"content-type", "content-transfer-encoding", "content-disposition", "content-id", "dkim-signature"}
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
_NOBODY = "undisclosed-recipients:;"

# RFC 2047 §5 (3) as every word may stand in a phrase; `_` is a space.
_Q_CODES = {
    byte: chr(byte) if chr(byte).isalnum() or chr(byte) in "!*+-/" else f"={byte:02X}" for byte in range(128)
}
_Q_CODES[ord(" ")] = "_"
# RFC 2231 §7 `attribute-char`: what a parameter takes as it is.
_PARAMETER_CODES = {
    byte: chr(byte) if chr(byte).isalnum() or chr(byte) in "!#$&+-.^_`{|}~" else f"%{byte:02X}"
    for byte in range(128)
}
_CHARSET = "utf-8''"
# What needs a backslash is better encoded: not every program takes those away.
_PLAIN_PARAMETER = re.compile(r"[ !#-\[\]-~]{1,60}")


@lru_cache(CACHED)
def mailbox_field(name: str, address: Address) -> str:
    """Write a header that holds one mailbox."""
    return _mailboxes(name, (address,))


def mailbox_list_fields(to: tuple[Address, ...], cc: tuple[Address, ...]) -> list[str]:
    """Write To and Cc; a mail that says of no one that it is for them says just that (RFC 5322 §3.6.3)."""
    if not to and not cc:
        return [f"To: {_NOBODY}"]
    return [
        mailbox_field(name, addresses[0]) if len(addresses) == 1 else _mailboxes(name, addresses)
        for name, addresses in (("To", to), ("Cc", cc))
        if addresses
    ]


def _mailboxes(name: str, addresses: tuple[Address, ...]) -> str:
    words: list[str] = []
    for address in addresses:
        refuse_injection(name, "".join(address))
        if words:
            words[-1] += ","
        room = ENCODED_WORD if words else ENCODED_LINE - len(name) - 2
        words += _phrase(address.name, first=room)
        words.append(f"<{address.spec}>" if address.name else address.spec)
    return folded(name, words, ENCODED_LINE)


def _phrase(text: str, first: int) -> list[str]:
    """Write a display name as RFC 5322 §3.2.5 has it: atoms, a quoted string, or encoded words."""
    if not text:
        return []
    if len(text) > _LONGEST_PLAIN_WORD or not _PRINTABLE.fullmatch(text) or "=?" in text:
        return _encoded_words(text, first)
    if _ATOMS.fullmatch(text):
        return [text]
    return ['"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"']


def text_field(name: str, text: str) -> str:
    """Write a header of free text: as it is where that is legal, else in encoded words."""
    if not text:
        return f"{name}: "
    if _SPACED_WORDS.fullmatch(text) and "=?" not in text:
        if len(name) + 2 + len(text) <= LINE:
            return f"{name}: {text}"
        words = text.split(" ")
        if max(map(len, words)) <= _LONGEST_PLAIN_WORD:
            return folded(name, words, LINE)
    refuse_injection(name, text)
    return folded(name, _encoded_words(text, first=ENCODED_LINE - len(name) - 2), ENCODED_LINE)


def further_field(name: str, value: str) -> str:
    """Write a header that the mail has beside its own: `List-*` and the like go out verbatim."""
    if not _HEADER_NAME.fullmatch(name):
        code = "header_injection" if _FORBIDDEN.search(name) else "invalid_header"
        raise Permanent(f"{name!r} is no header name", code=code)
    if name.lower() in _OURS:
        raise Permanent(f"the header {name} is made here and can't be given", code="invalid_header")
    return _verbatim_field(name, value) if _VERBATIM.fullmatch(name) else text_field(name, value)


def _verbatim_field(name: str, value: str) -> str:
    if not value.strip() or not _PRINTABLE.fullmatch(value):
        refuse_injection(name, value)
        raise Permanent(f"the header {name} takes printable ASCII alone", code="invalid_header")
    if len(name) + 2 + len(value) > LONGEST_LINE:
        raise Permanent(f"the header {name} is longer than a line may be", code="header_too_long")
    return f"{name}: {value}"


@lru_cache(CACHED)
def date_field(date: int) -> str:
    """Write the Date, of seconds since the epoch: that of a second is that of many mails."""
    return f"Date: {format_datetime(datetime.fromtimestamp(date, UTC))}"


def message_id_field(message_id: str) -> str:
    """Write the Message-ID, which is never folded."""
    if len(message_id) > LONGEST_LINE - 12 or not _MESSAGE_ID.fullmatch(message_id):
        refuse_injection("Message-ID", message_id)
        raise Permanent(f"{message_id[:320]!r} is no Message-ID: expected <id@domain>", code="invalid_header")
    return f"Message-ID: {message_id}"


def parameter_field(name: str, value: str, parameter: str, text: str) -> str:
    """Write a header with one parameter, its text of any kind and length (RFC 2231)."""
    refuse_injection(name, text)
    words = [f"{word};" for word in (value, *_parameter(parameter, text))]
    words[-1] = words[-1].removesuffix(";")
    return folded(name, words, ENCODED_LINE)


def _parameter(name: str, text: str) -> list[str]:
    if _PLAIN_PARAMETER.fullmatch(text) and "=?" not in text:
        return [f'{name}="{text}"']
    codes = [_PARAMETER_CODES.get(ord(character)) or _percent(character) for character in text]
    room = ENCODED_LINE - len(f" {name}*999*=;")
    if sum(map(len, codes)) + len(_CHARSET) <= room:
        return [f"{name}*={_CHARSET}{''.join(codes)}"]
    pieces = ["".join(run) for run in runs(codes, room - len(_CHARSET), room)]
    pieces[0] = _CHARSET + pieces[0]
    return [f"{name}*{number}*={piece}" for number, piece in enumerate(pieces)]


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


def refuse_injection(name: str, value: str) -> None:
    """Raise Permanent `header_injection` for a value that could end its line."""
    if _FORBIDDEN.search(value):
        raise Permanent(f"the header {name} holds a line break or NUL", code="header_injection")


def _encoded_words(text: str, first: int) -> list[str]:
    """Write any text as RFC 2047 words, none split within a character, the first no longer than `first`."""
    quoted = [_q(character) for character in text]
    size = len(text.encode())
    if sum(map(len, quoted)) <= 4 * ((size + 2) // 3):
        return [f"=?utf-8?q?{''.join(run)}?=" for run in runs(quoted, first - 12, ENCODED_WORD - 12)]
    room, rest = ((width - 12) // 4 * 3 for width in (first, ENCODED_WORD))
    shared = runs([character.encode() for character in text], room, rest)
    return [f"=?utf-8?b?{binascii.b2a_base64(b''.join(run), newline=False).decode()}?=" for run in shared]


def _q(character: str) -> str:
    code = _Q_CODES.get(ord(character))
    return code if code is not None else "".join(f"={byte:02X}" for byte in character.encode())
