"""Standard Webhooks 1.0 signatures (`v1`, HMAC-SHA256): secrets, signing, and why a request does not verify.

Knows nothing of HTTP beyond the three headers, nor of where secrets are kept.
"""

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping

from notifier.errors import NotifierError

PREFIX = "whsec_"
TOLERANCE = 300
"""Seconds that a request's clock may be off, either way, as the reference libraries have it."""
MIN_KEY, MAX_KEY = 24, 64
"""Bytes that a key may have (Standard Webhooks 1.0, §signature scheme)."""

_NEW_KEY = 32
_TIMESTAMP = re.compile(r"[0-9]{1,12}")

Key = hmac.HMAC
"""An HMAC that has taken in the key and nothing else: each signature starts from a copy."""


class SignatureError(NotifierError):
    """A request that does not verify; the message says why."""


def new_secret() -> str:
    """Make a secret of 32 random bytes, `whsec_<base64>`."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_NEW_KEY)).decode()


def parse_secret(secret: str) -> Key:
    """Make a key of `whsec_<base64>`; the padding may be missing, as the reference library allows.

    Raises ValueError saying what was expected, and never what stood there.
    """
    if not secret.startswith(PREFIX):
        raise ValueError(f"expected a secret that starts with {PREFIX}")
    text = secret.removeprefix(PREFIX).rstrip("=")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"expected base64 after {PREFIX}") from None
    if not MIN_KEY <= len(key) <= MAX_KEY:
        raise ValueError(f"expected a secret of {MIN_KEY} to {MAX_KEY} bytes, got {len(key)}")
    return hmac.new(key, digestmod="sha256")


def sign(message_id: str, timestamp: int, body: bytes, keys: Iterable[Key]) -> str:
    """Make the value of `webhook-signature`: one `v1,<base64>` a key, space separated.

    `timestamp` is in whole seconds since the epoch. `message_id` holds no `.` (the caller's ids don't).
    """
    head = f"{message_id}.{timestamp}.".encode()
    return " ".join([_signature(key, head, body) for key in keys])


def _signature(key: Key, head: bytes, body: bytes) -> str:
    mac = key.copy()
    mac.update(head)
    mac.update(body)
    return "v1," + base64.b64encode(mac.digest()).decode()


def verify(
    headers: Mapping[str, str], body: bytes, secret: str, now: float, tolerance: float = TOLERANCE
) -> None:
    """Check a received request as any Standard Webhooks library would.

    Header names in any case; `now` in seconds since the epoch. Raises SignatureError with the reason, and
    ValueError for a secret that is none.
    """
    key = parse_secret(secret)
    known = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = _header(known, "webhook-id"), _header(known, "webhook-timestamp")
    offered = _header(known, "webhook-signature").split(" ")
    _check_time(timestamp, now, tolerance)
    candidates = [entry for entry in offered if entry.startswith("v1,")]
    if not candidates:
        raise SignatureError("webhook-signature holds no v1 signature")
    wanted = sign(message_id, int(timestamp), body, [key]).encode()
    if not any(hmac.compare_digest(wanted, entry.encode()) for entry in candidates):
        raise SignatureError("no signature matches: another secret, or the body, id or timestamp was changed")


def _header(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise SignatureError(f"the header {name} is missing")
    return value


def _check_time(timestamp: str, now: float, tolerance: float) -> None:
    if not _TIMESTAMP.fullmatch(timestamp):
        raise SignatureError("webhook-timestamp is not a number of seconds")
    off = int(timestamp) - now
    if off < -tolerance:
        raise SignatureError(f"webhook-timestamp is {-off:.0f} s old, more than {tolerance:.0f} s")
    if off > tolerance:
        raise SignatureError(f"webhook-timestamp is {off:.0f} s ahead, more than {tolerance:.0f} s")
