"""The seam between a signed webhook and the wire: one request and a deadline in, one answer out.

Knows nothing of jobs, events or signatures, nor of how requests get anywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from msgspec import Struct

from notifier.model import Timings

MAX_HEADERS = 8 * 1024
"""Bytes of an answer's headers that are shown."""


class PreparedRequest(Struct, frozen=True):
    """A POST, ready to be sent as it is. `url` is absolute, checked and encoded."""

    url: str
    head: bytes
    """Its headers, a line each; `Host` and `Content-Length` are the transport's to add."""
    body: bytes

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str], body: bytes) -> Self:
        """Make one of headers by name. Raises ValueError for what is not plain text: it could be two."""
        return cls(url, header_lines(headers).encode(), body)

    @property
    def headers(self) -> dict[str, str]:
        """The headers by name, as they are sent."""
        lines = self.head.decode().split("\r\n")[:-1]
        return {name: value for name, _, value in (line.partition(": ") for line in lines)}


class Answer(Struct, frozen=True):
    """What the receiver said. `body` is its first KiB, undecompressed, or what of it came in time."""

    status: int
    body: bytes
    timings: Timings
    raw_headers: Sequence[tuple[bytes, bytes]] = ()

    @property
    def retry_after(self) -> str | None:
        """What stands in its `Retry-After`, if it has one."""
        values = [value for name, value in self.raw_headers if name.lower() == b"retry-after"]
        return _text(values[0]) if values else None

    def headers(self) -> list[tuple[str, str]]:
        """The headers as text, in the order they came; those past 8 KiB in all are left out."""
        shown, size = [], 0
        for name, value in self.raw_headers:
            size += len(name) + len(value) + len(": \r\n")
            if size > MAX_HEADERS:
                break
            shown.append((_text(name), _text(value)))
        return shown


class Transport(Protocol):
    """A way to get requests to receivers."""

    async def open(self) -> None:
        """Get ready to send, on the running loop."""

    async def send(self, request: PreparedRequest, deadline_seconds: float) -> Answer:
        """Send one request and return what came back, whatever its status.

        The deadline covers everything, from the name look-up to the last byte of the response; it may be
        passed by a tenth of a second. Cancelling it closes the connection. Raises Transient with the code
        `timeout`, `dns_failed`, `connect_failed`, `tls_failed`, `connection_lost` or `bad_response` (Unknown
        where the request was under way and no answer came), Permanent with `blocked_address` or
        `invalid_destination`, or what the egress proxy is the cause of: Transient `proxy_denied`, Unavailable
        `proxy_unreachable` or `proxy_refused`.
        """

    async def close(self) -> None:
        """Let go of connections."""


def header_lines(headers: Mapping[str, str]) -> str:
    """Write headers, a line each. Raises ValueError for what is not plain text: it could be two."""
    if not is_plain("".join([*headers, *headers.values()])):
        raise ValueError("a header holds what is not printable ASCII")
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


def is_plain(text: str) -> bool:
    """Whether a text is printable ASCII alone, so that no line of it can be two."""
    return text.isascii() and text.isprintable()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").replace("\0", "\ufffd")
