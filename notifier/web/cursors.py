"""A page's position ↔ the opaque text that leads to the next page."""

import base64
import hashlib
import struct

from notifier.web.problems import invalid_parameter

_CHECK = 4


def write_cursor(position: int) -> str:
    """Write a position; its check digits tell a cursor of ours from one that was altered or made up."""
    packed = struct.pack(">q", position)
    return base64.urlsafe_b64encode(packed + _check(packed)).decode()


def read_cursor(cursor: str) -> int:
    """Return the position. Raises ProblemError (422) for a text that `write_cursor` didn't write."""
    try:
        found = base64.b64decode(cursor, altchars=b"-_", validate=True)
    except ValueError:
        found = b""
    packed, check = found[:-_CHECK], found[-_CHECK:]
    if len(packed) != struct.calcsize(">q") or check != _check(packed):
        raise invalid_parameter("cursor", "is no next_cursor that this API gave")
    position: int = struct.unpack(">q", packed)[0]
    return position


def _check(packed: bytes) -> bytes:
    return hashlib.sha256(b"notifier cursor" + packed).digest()[:_CHECK]
