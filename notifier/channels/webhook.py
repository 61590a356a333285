"""Webhooks as Standard Webhooks 1.0 has them: the request is made and signed here, and its answer judged.

How it gets to the receiver is the transport's business; whether it is tried again is `retry`'s.
"""

import re
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from importlib.metadata import version
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any

from msgspec import Struct
from yarl import URL

from notifier.channels import ChannelContext, Message, Receipt, channel
from notifier.channels.guard import Guard
from notifier.channels.signing import Key, parse_secret, sign
from notifier.channels.transport import AiohttpTransport, Answer, PreparedRequest, Transport
from notifier.config import Config
from notifier.errors import ConfigError, Permanent, Transient
from notifier.model import rfc3339

MAX_URL = 2048

_PLAIN_HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": f"Notifier/{version('notifier')}",
    "Accept": "*/*",
}
_HONOURS_RETRY_AFTER = frozenset({429, 503})
_SECONDS = re.compile(r"[0-9]{1,9}")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_AUTHORITY = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*:[^\[\]]*\]|[^:\[\]]*)(:[0-9]{0,5})?", re.ASCII)
_keys = lru_cache(maxsize=4096)(parse_secret)


class Target(Struct, frozen=True):
    """Where a destination leads: its url as it is sent, and the lane it shares with all on that host."""

    url: str
    lane: str

    @property
    def receiver(self) -> str:
        """Its host and port."""
        return self.lane.removeprefix("webhook:")


@channel("webhook")
class WebhookChannel:
    """Delivers by a signed POST. `transport` stands in for the guarded HTTP client where one is given."""

    parts = frozenset({"payload"})
    timeout = None  # the transport's deadline covers all of it

    def __init__(self, context: ChannelContext, *, transport: Transport | None = None) -> None:
        settings = context.config.channels.webhook
        _check_secrets(context.config)
        self._secrets_for = context.secrets_for
        self._clock = context.clock
        self._deadline = float(settings.timeout)
        self._transport = transport or AiohttpTransport(
            Guard(settings.allow_networks).open_socket, connections=context.config.workers.concurrency
        )

    def lane(self, destination: str) -> str:
        """`webhook:host:port` of a url. Raises Permanent (`invalid_destination`) saying what is wrong."""
        return target(destination).lane

    async def open(self) -> None:
        """Get the transport ready."""
        await self._transport.open()

    async def deliver(self, message: Message) -> Receipt:
        """Send the signed request; a 2xx is a receipt, all else is raised (see `judge`)."""
        answer = await self._transport.send(self.prepare(message), self._deadline)
        return judge(answer, self._clock, target(message.destination).receiver)

    def preview(self, message: Message) -> dict[str, Any]:
        """The exact request that `deliver` would send now."""
        request = self.prepare(message)
        return {
            "method": "POST",
            "url": request.url,
            "headers": dict(request.headers),
            "body": request.body.decode(),
        }

    async def close(self) -> None:
        """Close the transport."""
        await self._transport.close()

    def prepare(self, message: Message) -> PreparedRequest:
        """Make the request for a message, signed for this second.

        Raises Permanent: `invalid_destination`, `invalid_secret`, or `invalid_payload`.
        """
        body, timestamp = body_of(message), int(self._clock())
        headers = {
            **_PLAIN_HEADERS,
            "webhook-id": message.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(message.id, timestamp, body, self._keys_for(message)),
        }
        return PreparedRequest(target(message.destination).url, headers, body)

    def _keys_for(self, message: Message) -> list[Key]:
        try:
            return [_keys(secret) for secret in self._secrets_for(message.job)]
        except ValueError as error:
            raise Permanent(f"the signing secret can't be used: {error}", code="invalid_secret") from None


def body_of(message: Message) -> bytes:
    """The payload that the template made, or `{"type","timestamp","data"}` with the data as it was posted.

    Raises Permanent (`invalid_payload`) for a payload that is no Unicode text.
    """
    if message.content.payload is None:
        event = message.event
        head = f'{{"type":"{event.type}","timestamp":"{rfc3339(event.created_at)}","data":'
        return b"".join((head.encode(), event.data, b"}"))
    try:
        return message.content.payload.encode()
    except UnicodeEncodeError as error:
        raise Permanent(f"the payload is not Unicode text: {error.reason}", code="invalid_payload") from None


def judge(answer: Answer, clock: Callable[[], float], receiver: str = "the receiver") -> Receipt:
    """Say what an answer means: 2xx is a receipt. Errors name the receiver: each is a cause.

    Raises Permanent for 410 Gone, and Transient for everything else, redirects too: nothing is followed,
    and a receiver that moved is mended by its operator. 429 and 503 may say how long to wait.
    """
    status, response = answer.status, text_of(answer.body)
    if 200 <= status < 300:  # noqa: PLR2004 - the class of success, RFC 9110 §15.3
        return Receipt(status_code=status, response=response)
    code, problem = f"http_{status}", f"{receiver} answered {status}"
    if status == 410:  # noqa: PLR2004 - Gone, RFC 9110 §15.5.11
        raise Permanent(problem, code=code, status_code=status, response=response)
    wait = retry_after(answer.retry_after, clock()) if status in _HONOURS_RETRY_AFTER else None
    raise Transient(problem, code=code, status_code=status, response=response, retry_after=wait)


def text_of(body: bytes) -> str:
    """The start of a response as text that any store takes: no NUL, what is no UTF-8 replaced."""
    return body.decode("utf-8", "replace").replace("\0", "\ufffd")


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a `Retry-After` header, in either form (RFC 9110 §10.2.3); None if it is none."""
    if value is None or _SECONDS.fullmatch(value):
        return None if value is None else float(value)
    try:
        moment = parsedate_to_datetime(value)
        # The obsolete form names no zone; an HTTP date is always UTC.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=4096)
def target(destination: str) -> Target:
    """Read a destination strictly. Raises Permanent (`invalid_destination`) saying what is wrong.

    The message never repeats the url, which may hold secrets.
    """
    tail = _check_text(destination)
    try:
        url = URL(destination)
    except ValueError:
        raise _invalid("its host or port can't be read") from None
    host = url.raw_host or ""
    if not host or not url.port:
        raise _invalid("it has no host" if not host else "its port must be 1 to 65535")
    if ":" in host:
        _check_ipv6(host)
    else:
        _check_name(host.removesuffix("."), rooted=host.endswith("."))
    shared = (url.host_subcomponent or "").removesuffix(".")
    return Target(_as_given(url, tail), f"webhook:{shared}:{url.port}")


def _as_given(url: URL, tail: str) -> str:
    """The url with path and query just as they were given: a signed url would not survive being tidied."""
    if not tail.isascii():
        return str(url.with_fragment(None))
    return f"{url.origin()}{'' if tail.startswith('/') else '/'}{tail}"


def _check_text(destination: str) -> str:
    """Let through a url that is in order as far as its text goes; returns its path and query."""
    if len(destination) > MAX_URL:
        raise _invalid(f"it is longer than {MAX_URL} characters")
    if not destination.isprintable() or " " in destination or "\\" in destination:
        raise _invalid("it holds white space, a backslash or a control character")
    found = _AUTHORITY.match(destination)
    if found is None:
        raise _invalid("it must start with http:// or https://")
    if "@" in found[1]:
        raise _invalid("it must not hold a user name or password")
    if not _HOST_AND_PORT.fullmatch(found[1]):
        raise _invalid("its host or port can't be read")
    return destination[found.end() :].partition("#")[0]


def _check_ipv6(host: str) -> None:
    if "%" in host:
        raise _invalid("its host must not hold a zone")
    try:
        IPv6Address(host)
    except AddressValueError:
        raise _invalid("its host is not an IPv6 address") from None


def _check_name(host: str, *, rooted: bool) -> None:
    """Let through a name or a plain IPv4 address, and no other spelling of an address.

    What ends in a number is an IPv4 address to every resolver (WHATWG URL §3.5), `0x7f.1` and `127.1` too.
    """
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):  # noqa: PLR2004 - RFC 1035 §2.3.4
        raise _invalid("its host is no name")
    if not _NUMBER.fullmatch(labels[-1]):
        return
    try:
        IPv4Address(host)
    except AddressValueError:
        raise _invalid("its host is no plain IPv4 address") from None
    if rooted:
        raise _invalid("its host is no plain IPv4 address")


def _invalid(problem: str) -> Permanent:
    return Permanent(f"not a url that can be delivered to: {problem}", code="invalid_destination")


def _check_secrets(config: Config) -> None:
    """Find a bad secret before anything is signed with it. Raises ConfigError naming its key."""
    kept = {"channels.webhook.secret": config.channels.webhook.secrets}
    kept |= {f"routes[{index}].secret": route.secrets for index, route in enumerate(config.routes)}
    for key, secrets in kept.items():
        for secret in secrets:
            try:
                parse_secret(secret)
            except ValueError as error:
                raise ConfigError(key, str(error)) from None
