"""Links by which a recipient unsubscribes (RFC 8058): each carries, signed, from what and who.

They never expire: who finds an old mail may want no more of its kind. Knows nothing of HTTP.
"""

import base64
import hmac
import secrets

import msgspec
from msgspec import Struct

from notifier.model import Job
from notifier.routing import key_of

PATH = "/unsubscribe/"
"""What stands between the public url and the token."""

_PURPOSE = b"notifier unsubscribe 1\0"
_SIGNATURE = 32
_LONGEST = 16 * 1024


class Unsubscription(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a link lets whoever holds it do: have nothing more of a category sent to a recipient."""

    channel: str
    recipient: str
    """Its key, as in suppressions."""
    category: str
    job_id: str
    """The job whose message held the link."""


_decoder = msgspec.json.Decoder(Unsubscription)


class Unsubscribing:
    """Writes links for jobs, and reads them again. `key` signs them; without a public url there are none."""

    def __init__(self, key: str, public_url: str | None) -> None:
        self.key = key
        self._start = None if public_url is None else public_url.rstrip("/") + PATH

    @property
    def offered(self) -> bool:
        """Whether links can be made at all: others can reach this server."""
        return self._start is not None

    def url(self, job: Job) -> str | None:
        """The link for a job's recipient; None where there is none: no public url, or no category."""
        if self._start is None or job.category is None or job.destination is None:
            return None
        recipient = key_of(job.channel, job.destination)
        return self._start + self.token(Unsubscription(job.channel, recipient, job.category, job.id))

    def token(self, wanted: Unsubscription) -> str:
        """Write what a link carries: an HMAC-SHA256 and JSON, in base64url without padding."""
        text = msgspec.json.encode(wanted)
        return base64.urlsafe_b64encode(self._signature(text) + text).rstrip(b"=").decode()

    def read(self, token: str) -> Unsubscription | None:
        """Return what a token carries; None for one that isn't ours, to the letter.

        How long it takes tells nothing of how near a forged one comes.
        """
        signed = _decoded(token)
        signature, text = signed[:_SIGNATURE], signed[_SIGNATURE:]
        if not text or not hmac.compare_digest(signature, self._signature(text)):
            return None
        return _decoder.decode(text)

    def _signature(self, text: bytes) -> bytes:
        return hmac.digest(self.key.encode(), _PURPOSE + text, "sha256")


def new_key() -> str:
    """A key that nobody can guess."""
    return secrets.token_urlsafe(32)


def _decoded(token: str) -> bytes:
    """Decode base64url; nothing where it is none, or is written in another way than ours."""
    if len(token) > _LONGEST or not token.isascii():
        return b""
    try:
        found = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""
    # Several texts decode to the same bytes: the last letter has bits that count for nothing.
    return found if base64.urlsafe_b64encode(found).rstrip(b"=").decode() == token else b""
