"""A request as it came, and what can be said of its headers and body before any secret is known."""

import re
from base64 import b64decode
from hashlib import sha256, sha512

from msgspec import Struct

from notifier.channels.signing import SignatureError, read_id, read_signatures, read_timestamp
from notifier.channels.signing.keys import SIZES

_DIGEST = re.compile(r"(?:^|,)[ \t]*([a-z0-9-]+)=:([A-Za-z0-9+/=]*):")
_DIGESTS = {"sha-256": sha256, "sha-512": sha512}
_MILLISECONDS = re.compile(r"[0-9]{13}")
_LENGTH = re.compile(r"[0-9]{1,15}")
_SHOWN = 100


class Received(Struct, frozen=True):
    """A request as it came: its headers in order, and the exact bytes of its body."""

    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Every value of a header, by its name in lower case."""
        return [value for each, value in self.headers if each.lower() == name]

    def fits_digest(self, body: bytes) -> bool | None:
        """Hold a body against `Content-Digest` (RFC 9530 §2); None where that has no digest that is known."""
        found = _DIGEST.findall(", ".join(self.values("content-digest")))
        known = [(_DIGESTS[name], text) for name, text in found if name in _DIGESTS]
        return all(_decoded(text) == digest(body).digest() for digest, text in known) if known else None

    @property
    def told_length(self) -> int | None:
        """How many bytes its own `Content-Length` gives its body; None where it gives none."""
        told = self.values("content-length")
        return int(told[0]) if len(told) == 1 and _LENGTH.fullmatch(told[0]) else None


class Check(Struct, frozen=True):
    """One thing looked at: in order, not in order, or (None) not there to be looked at."""

    check: str
    ok: bool | None
    message: str


def look(received: Received) -> list[Check]:
    """Look at each of the three headers, and hold the body against what the request itself says of it."""
    checks = []
    for name, look_at in _HEADERS.items():
        try:
            checks.append(Check(name, *look_at(received)))
        except SignatureError as error:
            checks.append(Check(name, False, str(error)))
    return [*checks, _length(received), _digest(received)]


def _id(received: Received) -> tuple[bool, str]:
    return True, read_id(received.headers)[:_SHOWN]


def _timestamp(received: Received) -> tuple[bool, str]:
    if any(map(_MILLISECONDS.fullmatch, received.values("webhook-timestamp"))):
        return False, "it is in milliseconds: expected whole seconds since 1970"
    return True, read_timestamp(received.headers)


def _signatures(received: Received) -> tuple[bool, str]:
    """Name the versions that were used, or what is wrong with the first signature that is none."""
    signatures = read_signatures(received.headers)
    for each in signatures:
        if problem := _malformed(each):
            return False, problem
    versions = [each.partition(",")[0][:_SHOWN] for each in signatures]
    told = [version if version in SIZES else f"{version} (unknown: skipped)" for version in versions]
    return True, ", ".join(told)


_HEADERS = {"webhook-id": _id, "webhook-timestamp": _timestamp, "webhook-signature": _signatures}


def _malformed(signature: str) -> str | None:
    """Say what is wrong with one signature; those of unknown versions may be as they like."""
    version, comma, text = signature.partition(",")
    if not comma:
        return "expected version,base64 for each signature, one space between them"
    size = SIZES.get(version)
    if size is None:
        return None
    if not text:
        return f"nothing stands right after the comma of a {version} signature: no space belongs there"
    if re.fullmatch(rf"[0-9a-fA-F]{{{2 * size}}}", text):
        return f"a {version} signature is in hex: expected base64"
    raw = _decoded(text)
    if raw is None:
        return f"a {version} signature is not base64 (several stand apart by one space)"
    return None if len(raw) == size else f"a {version} signature has {len(raw)} bytes: expected {size}"


def _length(received: Received) -> Check:
    size, told = len(received.body), received.values("content-length")
    if not told:
        return Check("content-length", None, f"not there; the body has {size:,} bytes")
    if told == [str(size)]:
        return Check("content-length", True, f"{size:,} bytes")
    return Check("content-length", False, f"{told[0][:_SHOWN]}, and the body has {size:,} bytes")


def _digest(received: Received) -> Check:
    fits = received.fits_digest(received.body)
    message = {
        None: "not there, in sha-256 or sha-512: nothing tells whether the body is as it was sent",
        True: "the body is as it was sent",
        False: "the body is not as it was sent",
    }[fits]
    return Check("content-digest", fits, message)


def _decoded(text: str) -> bytes | None:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        return None
