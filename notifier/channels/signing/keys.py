"""The keys of Standard Webhooks 1.0: the forms they are written in, and what each kind signs and verifies.

An error says what was expected and never what stood there: that may be a secret.
"""

import hmac
import secrets
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Iterable
from hashlib import sha256
from typing import Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SECRET_PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX = "whsec_", "whsk_", "whpk_"
"""How a secret (v1), a private and a public key (v1a) begin (Standard Webhooks 1.0, §signature scheme)."""
MIN_SECRET, MAX_SECRET = 24, 64
"""Bytes that a `whsec_` secret may have (the same §)."""
SIZES = {"v1": 32, "v1a": 64}
"""Bytes of a signature, by version: HMAC-SHA256 (RFC 2104) and ed25519 (RFC 8032 §5.1.6)."""

Version = Literal["v1", "v1a"]

_SEED = 32  # of an ed25519 key, RFC 8032 §5.1.5; its public half is as long
_NEW = 32
_BLOCK = sha256().block_size
_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


class SymmetricKey:
    """Signs and verifies `v1`, by HMAC-SHA256."""

    version: Version = "v1"

    def __init__(self, secret: bytes) -> None:
        # HMAC is a hash within a hash (RFC 2104 §2). Here both have taken in the key and nothing else, and
        # each signature starts from copies: that takes 0.9 µs, where a copied `hmac.HMAC` takes 1.5.
        block = (secret if len(secret) <= _BLOCK else sha256(secret).digest()).ljust(_BLOCK, b"\0")
        self._inner, self._outer = sha256(block.translate(_INNER)), sha256(block.translate(_OUTER))

    def sign(self, head: bytes, body: bytes) -> str:
        """Make the signature `v1,<base64>` of `id.timestamp.` and the body."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(head)
        inner.update(body)
        outer.update(inner.digest())
        return "v1," + _encoded(outer.digest())

    def accepts(self, signatures: Iterable[str], head: bytes, body: bytes) -> bool:
        """Tell whether any of the signatures is this key's, in constant time for each."""
        wanted = self.sign(head, body).encode()
        return any(hmac.compare_digest(wanted, each.encode()) for each in signatures if each.isascii())


class PublicKey:
    """Verifies `v1a`, by ed25519."""

    version: Version = "v1a"

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    def accepts(self, signatures: Iterable[str], head: bytes, body: bytes) -> bool:
        """Tell whether any of the signatures was made with the private key that this one belongs to."""
        signed = head + body
        return any(self._made(each, signed) for each in signatures)

    def _made(self, signature: str, signed: bytes) -> bool:
        try:
            raw = b64decode(signature.removeprefix("v1a,"), validate=True)
            self._key.verify(raw, signed)
        except (ValueError, InvalidSignature):
            return False
        # base64 has unused bits: of all spellings of a signature only the one that is sent passes.
        return signature == "v1a," + _encoded(raw)


class PrivateKey:
    """Signs and verifies `v1a`, by ed25519."""

    version: Version = "v1a"

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = key.public_key()
        self.accepts = PublicKey(self._public).accepts

    @property
    def public(self) -> str:
        """What its receivers verify with, `whpk_<base64>`."""
        return PUBLIC_PREFIX + _encoded(self._public.public_bytes_raw())

    def sign(self, head: bytes, body: bytes) -> str:
        """Make the signature `v1a,<base64>` of `id.timestamp.` and the body."""
        return "v1a," + _encoded(self._key.sign(head + body))


Key = SymmetricKey | PrivateKey
Verifier = SymmetricKey | PrivateKey | PublicKey


def new_secret(version: Version = "v1") -> str:
    """Make a secret of 32 random bytes: `whsec_<base64>` for v1, `whsk_<base64>` (a seed) for v1a."""
    return (SECRET_PREFIX if version == "v1" else PRIVATE_PREFIX) + _encoded(secrets.token_bytes(_NEW))


def public_key(secret: str) -> str | None:
    """Tell what receivers verify with, `whpk_…`, for a `whsk_…` secret; None for a `whsec_…` one.

    Raises ValueError for a secret that is none.
    """
    key = parse_secret(secret)
    return key.public if isinstance(key, PrivateKey) else None


def parse_secret(text: str) -> Key:
    """Make a key that signs of `whsec_<base64>` or `whsk_<base64>`; the base64 may lack its padding.

    A private key is its seed of 32 bytes, as the reference library has it, or seed and public key in one, as
    other senders write it. Raises ValueError saying what was expected, and never what stood there.
    """
    if text.startswith(SECRET_PREFIX):
        return _symmetric(_decoded(text, SECRET_PREFIX))
    if text.startswith(PRIVATE_PREFIX):
        return _private(_decoded(text, PRIVATE_PREFIX))
    raise ValueError(f"expected a secret that starts with {SECRET_PREFIX} or {PRIVATE_PREFIX}")


def parse_verifier(text: str) -> Verifier:
    """Make a key that verifies of a secret or of a public key, `whpk_<base64>`. Raises as `parse_secret`."""
    if not text.startswith(PUBLIC_PREFIX):
        return parse_secret(text)
    raw = _decoded(text, PUBLIC_PREFIX)
    if len(raw) != _SEED:
        raise ValueError(f"expected a public key of {_SEED} bytes, got {len(raw)}")
    return PublicKey(Ed25519PublicKey.from_public_bytes(raw))


def is_whole(text: str) -> bool:
    """Tell whether the base64 of a secret or key ends where a byte ends, as it does unless it was cut."""
    encoded = text.partition("_")[2].rstrip("=")
    try:
        raw = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return False
    return _encoded(raw).rstrip("=") == encoded


def _symmetric(raw: bytes) -> SymmetricKey:
    if not MIN_SECRET <= len(raw) <= MAX_SECRET:
        raise ValueError(f"expected a secret of {MIN_SECRET} to {MAX_SECRET} bytes, got {len(raw)}")
    return SymmetricKey(raw)


def _private(raw: bytes) -> PrivateKey:
    if len(raw) not in (_SEED, 2 * _SEED):
        raise ValueError(
            f"expected a private key of {_SEED} bytes, or {2 * _SEED} with its public one, got {len(raw)}"
        )
    key = Ed25519PrivateKey.from_private_bytes(raw[:_SEED])
    if raw[_SEED:] not in (b"", key.public_key().public_bytes_raw()):
        raise ValueError("expected a private key whose second half is its public key")
    return PrivateKey(key)


def _decoded(text: str, prefix: str) -> bytes:
    encoded = text.removeprefix(prefix).rstrip("=")
    try:
        return b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError(f"expected base64 after {prefix}") from None


def _encoded(raw: bytes) -> str:
    return b2a_base64(raw, newline=False).decode()
