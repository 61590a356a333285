"""HTTP as far as the two ends of a measurement need it: where a message ends. Bytes, and nothing parsed.

So cheap that what stands between the two ends shows, and not they. Both know whom they talk to: a notifier
says how long each of its messages is.
"""

import asyncio
from typing import cast

from msgspec import Struct

from notifier.bench import BenchError
from notifier.bench.events import SLOT

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


class Request(Struct, frozen=True):
    """A POST that is made already, but for a number within."""

    before: bytes
    after: bytes

    def numbered(self, number: int) -> bytes:
        """The bytes to send."""
        return b"%b%0*d%b" % (self.before, len(SLOT), number, self.after)


def request(path: str, host: str, body: bytes, key: str | None = None) -> Request:
    """Make a POST of JSON that has the slot for a number; `key` is what it shows as a bearer."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body)}", *([] if key is None else [f"Authorization: Bearer {key}"])]
    before, _, after = ("\r\n".join(lines).encode() + _HEAD_END + body).partition(SLOT)
    return Request(before, after)


class Line(asyncio.Protocol):
    """A connection that waits until a message is whole; of HTTP, where nothing else is said."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._rest = b""
        self._made = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast("asyncio.Transport", transport)
        self._made = True

    def drop(self) -> None:
        """Break the connection off, if it was made yet."""
        if self._made:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._rest:
            data = self._rest + data
        while data and (end := self.end_of(data)):
            self.message(data[:end])
            data = data[end:]
        self._rest = data

    def end_of(self, data: bytes) -> int:
        """Where the first message of some bytes ends; 0 while it isn't all there."""
        return message_end(data)

    def message(self, message: bytes) -> None:
        """Take one whole message."""
        raise NotImplementedError


def message_end(data: bytes) -> int:
    """Where the first message of some bytes ends; 0 while it isn't all there.

    Raises BenchError for a message that doesn't say how long it is.
    """
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        return 0
    head = data[: head_end + 2].lower()
    at = head.find(_LENGTH)
    if at < 0:
        raise BenchError(f"a message without a length: {data[:200]!r}")
    begin = at + len(_LENGTH)
    end = head_end + len(_HEAD_END) + int(head[begin : head.index(b"\r", begin)])
    return end if len(data) >= end else 0
