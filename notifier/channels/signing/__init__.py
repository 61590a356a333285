"""Standard Webhooks 1.0 signatures, `v1` (HMAC-SHA256) and `v1a` (ed25519): made, and verified.

Knows nothing of HTTP beyond the three headers, nor of where secrets are kept.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from notifier.channels.signing.keys import (
    SECRET_PREFIX,
    Key,
    Version,
    new_secret,
    parse_secret,
    parse_verifier,
    public_key,
)
from notifier.errors import NotifierError

__all__ = [
    "MAX_SIGNATURES",
    "SECRET_PREFIX",
    "TOLERANCE",
    "Key",
    "SignatureError",
    "Stamp",
    "Version",
    "check_time",
    "new_secret",
    "parse_secret",
    "parse_verifier",
    "public_key",
    "read_id",
    "read_signatures",
    "read_stamp",
    "read_timestamp",
    "sign",
    "verify",
]

TOLERANCE = 300
"""Seconds that a request's clock may be off, either way, as the reference libraries have it."""
MAX_SIGNATURES = 100
"""How many signatures of one request are looked at: each costs a look at the whole body."""

_TIMESTAMP = re.compile(r"[0-9]{1,12}")

Headers = Iterable[tuple[str, str]]


class SignatureError(NotifierError):
    """A request that does not verify; the message says why."""


class Stamp(NamedTuple):
    """What the three headers of a request hold, as it was written there."""

    id: str
    timestamp: str
    signatures: tuple[str, ...]

    @property
    def head(self) -> bytes:
        """What is signed before the body. Bytes that are no text (a server's surrogates) are themselves."""
        return f"{self.id}.{self.timestamp}.".encode("utf-8", "surrogateescape")

    def of(self, version: Version) -> list[str]:
        """The signatures of one version; those of others, known or not, are skipped."""
        return [each for each in self.signatures if each.startswith(f"{version},")]


def sign(message_id: str, timestamp: int, body: bytes, keys: Iterable[Key]) -> str:
    """Make the value of `webhook-signature`: one `v1,<base64>` or `v1a,<base64>` a key, space separated.

    `timestamp` is in whole seconds since the epoch; the newest key comes first. `message_id` holds no `.`
    (the caller's ids don't): it could be read as another id and timestamp.
    """
    head = f"{message_id}.{timestamp}.".encode()
    return " ".join([key.sign(head, body) for key in keys])


def verify(
    headers: Mapping[str, str], body: bytes, secret: str, now: float, tolerance: float = TOLERANCE
) -> None:
    """Check a received request as any Standard Webhooks library would.

    Header names in any case; `secret` is `whsec_…`, `whpk_…` or `whsk_…`; `now` and `tolerance` are in
    seconds. Raises SignatureError with the reason, and ValueError for a secret that is none.
    """
    key = parse_verifier(secret)
    stamp = read_stamp(headers.items())
    check_time(stamp.timestamp, now, tolerance)
    offered = stamp.of(key.version)
    if not offered:
        raise SignatureError(f"webhook-signature holds no {key.version} signature")
    if not key.accepts(offered, stamp.head, body):
        raise SignatureError("no signature matches: another secret, or the body, id or timestamp was changed")


def read_stamp(headers: Headers) -> Stamp:
    """Read the three headers. Raises SignatureError naming the first that is missing or malformed."""
    fields = list(headers)
    return Stamp(read_id(fields), read_timestamp(fields), read_signatures(fields))


def read_id(headers: Headers) -> str:
    """Read `webhook-id`. Raises SignatureError."""
    return _only(headers, "webhook-id")


def read_timestamp(headers: Headers) -> str:
    """Read `webhook-timestamp`, whole seconds in plain digits. Raises SignatureError."""
    text = _only(headers, "webhook-timestamp")
    if not _TIMESTAMP.fullmatch(text):
        raise SignatureError("webhook-timestamp is not a number of seconds")
    return text


def read_signatures(headers: Headers) -> tuple[str, ...]:
    """Read `webhook-signature`, what stands between its spaces. Raises SignatureError."""
    signatures = tuple(_only(headers, "webhook-signature").split(" "))
    if len(signatures) > MAX_SIGNATURES:
        raise SignatureError(f"webhook-signature holds more than {MAX_SIGNATURES} signatures")
    return signatures


def check_time(timestamp: str, now: float, tolerance: float) -> None:
    """Let a timestamp through that is off by no more than `tolerance` seconds. Raises SignatureError."""
    off = int(timestamp) - now
    if off < -tolerance:
        raise SignatureError(f"webhook-timestamp is {-off:.0f} s old, more than {tolerance:.0f} s")
    if off > tolerance:
        raise SignatureError(f"webhook-timestamp is {off:.0f} s ahead, more than {tolerance:.0f} s")


def _only(headers: Headers, name: str) -> str:
    """Take the one value of a header: of two, receiver and verifier might each see another."""
    values = [value for each, value in headers if each.lower() == name]
    if len(values) > 1:
        raise SignatureError(f"the header {name} stands there {len(values)} times")
    if not values or not values[0]:
        raise SignatureError(f"the header {name} is missing")
    return values[0]
