"""A page's position ↔ the opaque text that leads to the next page.

Check digits tell a cursor of ours from one that was altered, made up, or taken from another list.
"""

import base64
import hashlib
import struct

from notifier.web.problems import ProblemError, invalid_parameter

_CHECK = 4
_POSITION, _ID = b"notifier cursor", b"notifier cursor by id"


def write_cursor(position: int) -> str:
    """Write the position of a list that is numbered."""
    return _written(struct.pack(">q", position), _POSITION)


def read_cursor(cursor: str) -> int:
    """Return the position. Raises ProblemError (422) for a text that `write_cursor` didn't write."""
    packed = _read(cursor, _POSITION)
    if len(packed) != struct.calcsize(">q"):
        raise _refused()
    position: int = struct.unpack(">q", packed)[0]
    return position


def write_id_cursor(last: str) -> str:
    """Write the position of a list that is in the order of ids: the last id of the page."""
    return _written(last.encode(), _ID)


def read_id_cursor(cursor: str) -> str:
    """Return the id. Raises ProblemError (422) for a text that `write_id_cursor` didn't write."""
    return _read(cursor, _ID).decode("utf-8", "replace")


def _written(packed: bytes, kind: bytes) -> str:
    return base64.urlsafe_b64encode(packed + _check(packed, kind)).decode()


def _read(cursor: str, kind: bytes) -> bytes:
    try:
        found = base64.b64decode(cursor, altchars=b"-_", validate=True)
    except ValueError:
        found = b""
    packed, check = found[:-_CHECK], found[-_CHECK:]
    # base64 can spell the same bytes in other letters: of all spellings only ours passes.
    if not packed or check != _check(packed, kind) or cursor != _written(packed, kind):
        raise _refused()
    return packed


def _refused() -> ProblemError:
    return invalid_parameter("cursor", "is no next_cursor that this API gave")


def _check(packed: bytes, kind: bytes) -> bytes:
    return hashlib.sha256(kind + packed).digest()[:_CHECK]
