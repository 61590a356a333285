"""DKIM: a signature in front of a mail, by which others know that the sender's domain sent it (RFC 6376).

Written out here on `cryptography`: it takes a third of a millisecond where pure Python takes seven, and the
same mail gets the same signature.
"""

import binascii
import hashlib
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from notifier.channels.address import read_address
from notifier.config import DkimSection
from notifier.errors import ConfigError, Permanent

SIGNED = (
    *("From", "To", "Cc", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"),
    *("List-ID", "List-Unsubscribe", "List-Unsubscribe-Post"),
)
"""The headers that are signed where they are there; RFC 8058 §4 wants the last two among them."""
SHORTEST_RSA = 1024
"""Bits that a key must have (RFC 8301 §3.2); 2048 is what it should have."""

_KEY = "channels.email.dkim"
_LINE = 72
_SELECTOR = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*")
_NEXT_FIELD = re.compile(rb"\r\n(?![ \t])")
_SPACE = re.compile(rb"[ \t]+")

PrivateKey = RSAPrivateKey | Ed25519PrivateKey


class Signer:
    """Signs mails as one domain, headers and body in their relaxed form."""

    def __init__(self, section: DkimSection, directory: Path, sender_domain: str) -> None:
        """Read the key; a relative path counts from `directory`. Raises ConfigError."""
        if not _SELECTOR.fullmatch(section.selector):
            raise ConfigError(f"{_KEY}.selector", f"{section.selector!r} is no selector: expected a DNS name")
        self._key = _read_key(directory / section.key_file)
        self._algorithm, self._sign = _ways(self._key)
        self._domain = _checked_domain(section.domain) if section.domain else sender_domain
        self._selector = section.selector

    @property
    def record(self) -> tuple[str, str]:
        """The DNS name that receivers look the key up at, and the TXT record that belongs there."""
        if isinstance(self._key, RSAPrivateKey):
            public = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        else:
            public = self._key.public_key().public_bytes_raw()
        kind = self._algorithm.partition("-")[0]
        return (
            f"{self._selector}._domainkey.{self._domain}",
            f"v=DKIM1; k={kind}; p={b64encode(public).decode()}",
        )

    def signed(self, mail: bytes) -> bytes:
        """Put a signature before a mail, which has CRLF line ends. The same mail gets the same one.

        From is signed once more than it is there, so that no second one can be added.
        """
        head, _, body = mail.partition(b"\r\n\r\n")
        fields = _fields(head + b"\r\n")
        names = [name for name in SIGNED if name.lower().encode() in fields]
        unsigned = self._signature_field(["From", *names], _body_hash(body))
        about = [fields[name.lower().encode()] for name in names]
        # A header that isn't there adds nothing to the hash (RFC 6376 §5.4.2): the second From.
        proof = self._sign(b"".join([*about, _relaxed(unsigned).removesuffix(b"\r\n")]))
        return unsigned + _wrapped(b64encode(proof)) + b"\r\n" + mail

    def _signature_field(self, names: list[str], body_hash: str) -> bytes:
        tags = f"v=1; a={self._algorithm}; c=relaxed/relaxed; d={self._domain};\r\n s={self._selector};"
        lines = ["h="]
        for name in names:
            if len(lines[-1]) + len(name) >= _LINE:
                lines.append("")
            lines[-1] += f"{name}:"
        listed = "\r\n  ".join(lines).removesuffix(":")
        return f"DKIM-Signature: {tags}\r\n {listed};\r\n bh={body_hash};\r\n b=".encode()


def _ways(key: PrivateKey) -> tuple[str, Callable[[bytes], bytes]]:
    """The algorithm's name, and what signs with it; RFC 8463 §3 has ed25519 sign the SHA-256."""
    if isinstance(key, RSAPrivateKey):
        return "rsa-sha256", lambda data: key.sign(data, PKCS1v15(), SHA256())
    return "ed25519-sha256", lambda data: key.sign(hashlib.sha256(data).digest())


# Canonical form (RFC 6376 §3.4) ------------------------------------------------------------------


def _fields(head: bytes) -> dict[bytes, bytes]:
    """Each header in its relaxed form, by its name in lower case; every one we sign is there once."""
    relaxed = (_relaxed(field) for field in _NEXT_FIELD.split(head.removesuffix(b"\r\n")))
    return {field.partition(b":")[0]: field for field in relaxed}


def _relaxed(field: bytes) -> bytes:
    name, _, value = field.partition(b":")
    unfolded = _SPACE.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ")
    return name.strip().lower() + b":" + unfolded + b"\r\n"


def _body_hash(body: bytes) -> str:
    relaxed = _SPACE.sub(b" ", body).replace(b" \r\n", b"\r\n").rstrip(b"\r\n ")
    return b64encode(hashlib.sha256(relaxed + b"\r\n" if relaxed else b"").digest()).decode()


def _wrapped(proof: bytes) -> bytes:
    return b"\r\n  ".join(proof[at : at + _LINE] for at in range(0, len(proof), _LINE))


# Keys --------------------------------------------------------------------------------------------


def _read_key(path: Path) -> PrivateKey:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unusable(f"can't be read: {error}") from error
    key = _parsed(content)
    if isinstance(key, RSAPrivateKey) and key.key_size < SHORTEST_RSA:
        raise _unusable(f"holds an RSA key of {key.key_size} bits: 2048 is right, {SHORTEST_RSA} the least")
    return key


def _parsed(content: bytes) -> PrivateKey:
    """Take PEM, or the 32 bytes of an ed25519 key in base64, as other DKIM programs write it."""
    try:
        if b"-----BEGIN" not in content:
            return Ed25519PrivateKey.from_private_bytes(b64decode(content.strip(), validate=True))
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm, binascii.Error) as error:
        raise _unusable("holds no private key, or an encrypted one: expected PEM, RSA or ed25519") from error
    if not isinstance(key, RSAPrivateKey | Ed25519PrivateKey):
        raise _unusable("holds a key that DKIM has no use for: expected RSA or ed25519")
    return key


def _unusable(problem: str) -> ConfigError:
    return ConfigError(f"{_KEY}.key_file", problem)


def _checked_domain(domain: str) -> str:
    try:
        return read_address(f"dkim@{domain}").domain
    except Permanent as error:
        raise ConfigError(f"{_KEY}.domain", f"{domain!r} is no domain") from error
