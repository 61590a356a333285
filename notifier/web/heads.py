"""Which requests are plain posts of events, by their heads, as aiohttp's own parser and the gate see them."""

import asyncio
import re
from functools import lru_cache

from aiohttp import hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, RawRequestMessage

from notifier import cloudevents
from notifier.web.auth import Gate, Scope
from notifier.web.calls import JSON
from notifier.web.events import KEY_HEADER, PATH
from notifier.web.problems import ProblemError

END = b"\r\n\r\n"
MAX_HEAD = 4096
"""Bytes; what apps send is a tenth of it."""
_MAX_HEADERS = 100
"""Fewer than the 128 that aiohttp takes, so that none is too many for it alone."""
_SHAPES = 1000
"""How many shapes are remembered: 4 MiB at the very most, 300 KB with an app's usual heads."""

_REQUEST_LINE = f"POST {PATH} HTTP/1.1\r\n".encode()
_PLAIN = re.compile(re.escape(_REQUEST_LINE) + rb"(?:[!-9;-~]+:[ -~]*\r\n)+\r\n")
"""Lines of printable ASCII, each a field of its own (no folding): such a head has one end, for everybody."""
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *([0-9]{1,9})\r\n")
_KEY = re.compile(rb"\r\n[Ii]dempotency-[Kk]ey:([ -~]*)\r\n")
_KEY_HINT = b"dempotency-"
_JSON = frozenset({JSON, f"{JSON}; charset=utf-8", f"{JSON};charset=utf-8"})
_UNUSUAL = (hdrs.TRANSFER_ENCODING, hdrs.CONTENT_ENCODING, hdrs.EXPECT, hdrs.UPGRADE, KEY_HEADER)
"""What a shape must not have: it changes what the body is or how it's answered, or stands there twice."""


class Heads:
    """Tells plain posts of events that the gate lets in from everything else.

    A head's shape is the head without its `Content-Length` and `Idempotency-Key`, in which alone an app's
    requests differ. Whether a shape is a plain post's is asked of aiohttp's parser, whose word on a head
    is thus the only one, and of the gate, once: both look at nothing but the head. It is then remembered by
    all of the shape's bytes, an `Authorization` among them: to find one by trying is to try keys whole.
    """

    def __init__(self, gate: Gate, max_body: int) -> None:
        self._gate = gate
        self._max_body = max_body
        self._loop = asyncio.get_running_loop()
        self._protocol = BaseProtocol(self._loop)  # which the payloads that a parser makes want
        # To judge a head costs 8 µs, 14 where keys are asked for; to know it again costs 1.3.
        self._is_plain = lru_cache(maxsize=_SHAPES)(self._judge)

    def post(self, head: bytes) -> tuple[int, str | None] | None:
        """Return the length of a plain post's body, and its header's idempotency key; None for all else.

        `head` ends with the first `END` that was received.
        """
        if len(head) > MAX_HEAD:
            return None
        key = None
        if _KEY_HINT in head and (keyed := _KEY.search(head)):
            key = keyed[1].strip(b" ").decode("ascii")
            head = _without(head, keyed)
        measured = _LENGTH.search(head)
        if measured is None or not self._is_plain(_without(head, measured)):
            return None
        length = int(measured[1])
        return (length, key) if length <= self._max_body else None

    def may_begin_post(self, start: bytes) -> bool:
        """Whether what has come of a head may become that of a plain post."""
        if len(start) <= len(_REQUEST_LINE):
            return _REQUEST_LINE.startswith(start)
        return len(start) <= MAX_HEAD and start.startswith(_REQUEST_LINE) and self._parses(start)

    def _judge(self, shape: bytes) -> bool:
        if not _PLAIN.fullmatch(shape):
            return False
        message = self._parsed(shape.removesuffix(b"\r\n") + b"Content-Length: 1" + END)
        return message is not None and _is_usual(message) and self._is_admitted(message)

    def _is_admitted(self, message: RawRequestMessage) -> bool:
        try:
            self._gate.admit(message, Scope.INGEST)
        except ProblemError:
            return False
        return True

    def _parses(self, start: bytes) -> bool:
        try:
            self._parser().feed_data(start)
        except HttpProcessingError:
            return False
        return True

    def _parsed(self, head: bytes) -> RawRequestMessage | None:
        try:
            messages, _, _ = self._parser().feed_data(head)
        except HttpProcessingError:
            return None
        return messages[0][0] if messages else None

    def _parser(self) -> HttpRequestParser:
        """Make a parser as strict as that of aiohttp's server, for one head."""
        return HttpRequestParser(self._protocol, self._loop, MAX_HEAD, max_headers=_MAX_HEADERS)


def _is_usual(message: RawRequestMessage) -> bool:
    """Whether a head asks for nothing but that its body be taken as JSON, and the next request after it."""
    headers = message.headers
    return (
        headers.get(hdrs.CONTENT_TYPE, "").lower() in _JSON
        and not message.should_close
        and not any(name in headers for name in _UNUSUAL)
        and not cloudevents.is_binary(headers)
    )


def _without(head: bytes, line: re.Match[bytes]) -> bytes:
    """Take a line out of a head; the match has the line breaks before and after it."""
    start, end = line.span()
    return head[:start] + head[end - 2 :]
