"""Webhooks as Standard Webhooks 1.0 has them: the request is made and signed here, and its answer judged.

How it gets to the receiver is the transport's business; whether it is tried again is `retry`'s.
"""

import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from msgspec import Struct

from notifier.channels import ChannelContext, Message, Receipt, channel
from notifier.channels.guard import Guard, PublicInternet
from notifier.channels.http1 import HttpTransport
from notifier.channels.proxy import Proxy, parse_proxy
from notifier.channels.signing import Key, parse_secret, sign
from notifier.channels.targets import target
from notifier.channels.transport import Answer, PreparedRequest, Transport, header_lines
from notifier.config import Config, WebhookSection
from notifier.errors import ConfigError, DeliveryError, Permanent, Transient
from notifier.model import rfc3339

_PLAIN_HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": f"Notifier/{version('notifier')}",
    "Accept": "*/*",
}
_PLAIN_LINES = header_lines(_PLAIN_HEADERS)
_OURS = frozenset(
    {
        "connection",
        "content-digest",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS_START = ("webhook-", "proxy-")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: [\x20-\x7e]*")  # RFC 9110 §5.5, §5.6.2, ASCII alone
_HONOURS_RETRY_AFTER = frozenset({429, 502, 503, 504})
_ABOUT_THE_REQUEST = frozenset({400, 409, 413, 415, 422})
"""What a receiver in good health answers to a request that it doesn't like."""
_SECONDS = re.compile(r"[0-9]{1,9}")
_keys = lru_cache(maxsize=4096)(parse_secret)


class Exchanged(Struct, frozen=True):
    """All of one exchange: what was sent, what came back, and what a delivery would have raised."""

    request: PreparedRequest
    answer: Answer | None
    error: DeliveryError | None


@channel("webhook")
class WebhookChannel:
    """Delivers by a signed POST. `transport` stands in for the guarded HTTP client where one is given.

    Raises ConfigError for a secret or a proxy that can't be used.
    """

    parts = frozenset({"payload"})
    timeout = None  # the transport's deadline covers all of it

    def __init__(self, context: ChannelContext, *, transport: Transport | None = None) -> None:
        settings = context.config.channels.webhook
        _check_secrets(context.config)
        proxy = _declared_proxy(settings)
        self.guard = Guard(PublicInternet(settings.allow_networks, settings.allow_ports))
        self._secrets_for = context.secrets_for
        self._clock = context.clock
        self._deadline = float(settings.timeout)
        self._transport = transport or HttpTransport(
            self.guard, connections=context.config.workers.concurrency, proxy=proxy
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
        return judge(answer, self._clock, _url_of(message))

    async def exchange(self, message: Message) -> Exchanged:
        """Send the signed request, and tell all of what came of it: for test-sends.

        Raises Permanent where no request can be made, as `prepare` does.
        """
        request = self.prepare(message)
        answer = None
        try:
            answer = await self._transport.send(request, self._deadline)
            judge(answer, self._clock, _url_of(message))
        except DeliveryError as error:
            return Exchanged(request, answer, error)
        return Exchanged(request, answer, None)

    def preview(self, message: Message) -> dict[str, Any]:
        """The exact request that `deliver` would send now."""
        request = self.prepare(message)
        return {
            "method": "POST",
            "url": request.url,
            "headers": request.headers,
            "body": request.body.decode(),
        }

    async def close(self) -> None:
        """Close the transport."""
        await self._transport.close()

    def prepare(self, message: Message) -> PreparedRequest:
        """Make the request for a message, signed for this second; its endpoint counts as it stands now.

        Raises Permanent: `invalid_destination`, `invalid_secret`, `invalid_headers` or `invalid_payload`.
        """
        body, timestamp, name = body_of(message), int(self._clock()), message.id
        signature = sign(name, timestamp, body, self._keys_for(message))
        head = (
            f"{_lines_of(message)}Content-Digest: {content_digest(body)}\r\nwebhook-id: {name}\r\n"
            f"webhook-timestamp: {timestamp}\r\nwebhook-signature: {signature}\r\n"
        )
        return PreparedRequest(target(_url_of(message)).url, head.encode(), body)

    def secrets_of(self, message: Message) -> Sequence[str]:
        """The secrets that sign a message now: its endpoint's that are not rotated out, or its route's."""
        if message.endpoint is None:
            return self._secrets_for(message.job)
        return [each.secret for each in message.endpoint.live_secrets(self._clock())]

    def _keys_for(self, message: Message) -> list[Key]:
        try:
            keys = [_keys(secret) for secret in self.secrets_of(message)]
        except ValueError as error:
            raise Permanent(f"the signing secret can't be used: {error}", code="invalid_secret") from None
        if not keys:
            raise Permanent("there is no secret to sign with", code="invalid_secret")
        return keys


def _url_of(message: Message) -> str:
    return message.destination if message.endpoint is None else message.endpoint.url


def _lines_of(message: Message) -> str:
    """The headers that are the same in all requests to an endpoint, or in all that none caused."""
    if message.endpoint is None or not message.endpoint.headers:
        return _PLAIN_LINES
    return _lines_with(tuple(message.endpoint.headers.items()))


@lru_cache(maxsize=4096)
def _lines_with(custom: tuple[tuple[str, str], ...]) -> str:
    """The headers of every request with an endpoint's own in their place; what frames and signs one stays.

    Raises Permanent (`invalid_headers`) for one that can't be sent, without its value.
    """
    taken = {name.lower() for name, _ in custom}
    headers = {name: value for name, value in _PLAIN_HEADERS.items() if name.lower() not in taken}
    for name, value in custom:
        if not _HEADER.fullmatch(f"{name}: {value}"):
            raise Permanent("a header of the endpoint is not plain text", code="invalid_headers")
        if not is_ours(name):
            headers[name] = value
    return header_lines(headers)


def is_ours(name: str) -> bool:
    """Whether a header is the sender's own to set, so that no endpoint's headers change it.

    It speaks of the connection (RFC 9110 §7.6.1), frames the request, or is made for each anew.
    """
    return name.lower() in _OURS or name.lower().startswith(_OURS_START)


def content_digest(body: bytes) -> str:
    """The value of `Content-Digest` (RFC 9530): it tells a receiver a changed body from a wrong secret."""
    return f"sha-256=:{b64encode(sha256(body).digest()).decode()}:"


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


def judge(answer: Answer, clock: Callable[[], float], url: str | None = None) -> Receipt:
    """Say what an answer means: 2xx is a receipt. Errors name the receiver by its url: each is a cause.

    Raises Permanent for 410 Gone, and Transient for everything else, redirects too: nothing is followed,
    and a receiver that moved is mended by its operator. 429, 502, 503 and 504 may say how long to wait. What
    a receiver in good health would not answer is a fault of its lane.
    """
    status, response = answer.status, text_of(answer.body) if answer.body else ""
    if 200 <= status < 300:  # noqa: PLR2004 - the class of success, RFC 9110 §15.3
        return Receipt(status_code=status, response=response, timings=answer.timings)
    receiver = "the receiver" if url is None else target(url).receiver
    gone = status == 410  # noqa: PLR2004 - Gone, RFC 9110 §15.5.11
    kind = Permanent if gone else Transient
    raise kind(
        f"{receiver} answered {status}",
        code=f"http_{status}",
        status_code=status,
        response=response,
        retry_after=retry_after(answer.retry_after, clock()) if status in _HONOURS_RETRY_AFTER else None,
        lane_fault=not gone and status not in _ABOUT_THE_REQUEST,
        timings=answer.timings,
    )


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


def _declared_proxy(settings: WebhookSection) -> Proxy | None:
    """Read the proxy that deliveries go through. Raises ConfigError, which never shows its password."""
    if settings.proxy is None:
        return None
    try:
        return parse_proxy(settings.proxy, resolves=settings.proxy_resolves)
    except ValueError as error:
        raise ConfigError("channels.webhook.proxy", str(error)) from None
