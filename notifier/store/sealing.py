"""What the store seals of what it keeps, so that a copy of its file tells no secret.

AES-256-GCM (NIST SP 800-38D), a fresh 96-bit nonce each time, under keys that the configuration holds and
the file does not. A sealed text is bound to its place: moved to another, it does not open.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from notifier.config import SECRET_KEY
from notifier.errors import ConfigError, StoreSealedError

_MARK = "sealed:"
_KEY_BYTES = 32
_NONCE_BYTES = 12


def is_sealed(kept: str) -> bool:
    """Whether a text as it is kept is sealed, under whatever key."""
    return kept.startswith(_MARK)


class _Key:
    """One key, and the name that goes with what it sealed."""

    def __init__(self, key: bytes) -> None:
        self.id = hashlib.sha256(b"notifier key id:" + key).hexdigest()[:8]
        self.cipher = AESGCM(key)

    def bound_to(self, place: str, owner: str) -> bytes:
        return f"{self.id}:{place}:{owner}".encode()


class Sealer:
    """Seals with its first key, and opens with any of them. Without keys all stays in the clear.

    A sealed text reads `sealed:KEY ID:BASE64`, of the nonce and the ciphertext with its tag. `place` is the
    kind of what is sealed, `owner` whose it is: together they name the one place where it opens.
    """

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        made = [_Key(key) for key in keys]
        self._keys = {key.id: key for key in made}
        self._first = made[0] if made else None

    @classmethod
    def from_config(cls, secret_key: str) -> Self:
        """Read `store.secret_key`. Raises ConfigError, which doesn't tell what stands there."""
        return cls([_key_from(text.strip()) for text in secret_key.split(",")] if secret_key else [])

    def seal(self, text: str, place: str, owner: str) -> str:
        """Seal a text, or leave it in the clear where there is no key."""
        if self._first is None:
            if text.startswith(_MARK):
                raise ValueError("what looks sealed can't be kept in the clear")
            return text
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._first.cipher.encrypt(nonce, text.encode(), self._first.bound_to(place, owner))
        return f"{_MARK}{self._first.id}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, kept: str, place: str, owner: str) -> str:
        """Return the text that was sealed for this place; one in the clear is taken only without keys.

        Raises StoreSealedError where no key fits, or where it was changed or moved.
        """
        if not kept.startswith(_MARK):
            if self._first is not None:
                raise StoreSealedError(f"the {place} of {owner} stands in the clear, and was sealed")
            return kept
        key_id, _, encoded = kept.removeprefix(_MARK).partition(":")
        if (key := self._keys.get(key_id)) is None:
            raise StoreSealedError(
                f"the store's secrets are sealed under the key {key_id!r}, which store.secret_key "
                f"({SECRET_KEY} in the environment) lacks: add it there again, after the key that is to seal"
            )
        try:
            sealed = _decoded(encoded)
            nonce, ciphertext = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
            return key.cipher.decrypt(nonce, ciphertext, key.bound_to(place, owner)).decode()
        except (ValueError, InvalidTag):
            raise StoreSealedError(
                f"the {place} of {owner}, sealed under the key {key_id!r}, was changed or moved since"
            ) from None

    def renewed(self, kept: str, place: str, owner: str) -> str | None:
        """Seal anew what is in the clear, or not under the first key; None: it is as it should be.

        Raises StoreSealedError as `open` does.
        """
        if self._first is not None and not kept.startswith(_MARK):
            return self.seal(kept, place, owner)
        text = self.open(kept, place, owner)
        if self._first is None or kept.startswith(f"{_MARK}{self._first.id}:"):
            return None
        return self.seal(text, place, owner)


def _key_from(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            "store.secret_key",
            f"expected one or more keys of {_KEY_BYTES} bytes in base64, separated by commas, there or in "
            f"{SECRET_KEY} of the environment; `openssl rand -base64 {_KEY_BYTES}` makes one",
        )
    return key


def _decoded(encoded: str) -> bytes:
    """Bytes from base64 in the one spelling that `seal` writes. Raises ValueError for any other."""
    sealed = base64.b64decode(encoded, validate=True)
    if base64.b64encode(sealed).decode() != encoded:
        raise ValueError("not the spelling of these bytes")
    return sealed
