"""One connection that speaks HTTP/1.1: a request is written at one go, and one future gets its answer.

Answers are parsed by httptools (llhttp, the parser of Node.js): for one of seven headers it takes 1.2 µs, and
aiohttp's, which makes a message and a stream of each, 5.7 µs.
"""

import asyncio
from time import monotonic
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from notifier.channels.guard import Policy
from notifier.channels.origins import Origin
from notifier.channels.transport import Answer
from notifier.errors import DeliveryError, Transient, Unknown
from notifier.model import Timings

KEPT_BODY = 1024
"""Bytes of a response's body that are kept."""
READ_BODY = 64 * 1024
"""Bytes of a response's body that are read so that the connection can serve again; past them it is closed."""
MOST_READ = 2 * 1024**2
"""Bytes of one answer that are read, whatever they are."""
MOST_ANSWERS = 100
"""Answers that are taken for one request, the informational ones before it among them."""
MOST_HEADERS, MOST_HEADER = 128, 8 * 1024
"""How many headers an answer may have, and bytes that each may have."""
MOST_HEAD = 128 * 1024
"""Bytes that may come before an answer's body begins."""
NOTHING = Timings()
"""What a request has cost before it is written to a kept connection."""

_LARGE_REQUEST = 1024 * 1024
_PIECE = 256 * 1024
_SWITCHING_PROTOCOLS = 101
_INFORMATIONAL = 1

_LOST = (
    "connection_lost",
    "the connection was lost before the answer came",
    "the connection was lost before the request was sent",
)
_LATE = ("timeout", "no answer came in time", "the request could not be sent in time")
"""The code of what went wrong, and what it is where all of a request was sent, and where not."""


class Owner(Protocol):
    """Who has lines, and hears of each that it is free or gone."""

    def ended(self, line: "Line", *, keep: bool) -> None:
        """Take a line back whose exchange is over; it is to be closed if it can't serve again."""

    def lost(self, line: "Line") -> None:
        """Let go of an idle line: it is closed."""


class Line(asyncio.Protocol):
    """A connection, where it leads, and what goes over it: one request at a time."""

    origin: Origin
    """What it was dialled for."""
    leads_to: tuple[str | None, int]
    """Address and port; no address where only the proxy knows it."""
    policy: Policy | None = None
    """The policy by which that was last found in order."""
    owner: Owner | None = None
    until = 0.0
    """By when the exchange that is under way must be over, in the loop's time."""
    idle_since = 0.0
    """The same, for one that waits for its next request."""
    served = False
    """Whether an answer came over it before."""
    went_stale = False
    """Whether it had served before and was lost before anything of an answer came: its peer may have closed
    it for its age, and never read the request."""
    transport: asyncio.Transport | None = None

    _answer: asyncio.Future[Answer] | None = None
    _rest = memoryview(b"")
    _paused = False
    _early = b""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        # What Node.js, browsers and aiohttp let pass too: receivers are what they are.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done once the connection is closed."""
        self._begin(NOTHING)

    def _begin(self, before: Timings) -> None:
        self._before = before
        self._asked_at = monotonic()
        self._head_at: float | None = None
        self._sent = self._came = self._received = self._begun = 0
        self._status: int | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._told = self._headers
        self._body = b""
        self._keeps = self._whole = False
        self._problem: str | None = None

    # An exchange ------------------------------------------------------------------------------------

    def ask(self, request: bytes, before: Timings = NOTHING) -> asyncio.Future[Answer]:
        """Write a request; the future ends with its answer, or the DeliveryError that says what went wrong.

        `before` is what it cost to get so far. Whoever stops waiting must `give_up`.
        """
        self._begin(before)
        answer = self._answer = self._loop.create_future()
        transport = self.transport
        if transport is None:
            self._fail(self._unanswered(*_LOST))
        # Of a connection that is closing, `connection_lost` says why.
        elif not transport.is_closing():
            if len(request) > _LARGE_REQUEST:
                self._rest = memoryview(request)
                self._write_rest()
            else:
                transport.write(request)
                self._sent = len(request)
            if self._early:
                self.data_received(self._early)
        return answer

    def give_up(self, answer: asyncio.Future[Answer]) -> None:
        """Close the connection, if it is still this answer that is waited for."""
        if self._answer is answer:
            self._stop()
            self._let_go()

    def expire(self) -> None:
        """End the exchange: its time is over. Once the status is in, that stands."""
        self._end_early(self._unanswered(*_LATE))

    def close(self) -> None:
        """Let go of it at once: TLS would wait half a minute for the farewell of a peer that sends none."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def is_open(self) -> bool:
        """Whether something can be written to it."""
        return self.transport is not None and not self.transport.is_closing()

    def timings(self) -> Timings:
        """Where the time of the exchange went until now, with what was spent before."""
        now, before = monotonic(), self._before
        head_at = now if self._head_at is None else self._head_at
        return Timings(
            dns=before.dns,
            connect=before.connect,
            tls=before.tls,
            wait=before.wait + head_at - self._asked_at,
            body=before.body + now - head_at,
            sent=before.sent + self._sent,
            received=self._received,
        )

    def _finish(self, *, keep: bool) -> None:
        """Hand the answer over; the line serves again if all of the request went out."""
        answer, whole = self._stop()
        whole = whole and not self._early  # who spoke first may be about to answer once more
        if not answer.done():
            answer.set_result(Answer(cast("int", self._status), self._body, self.timings(), self._told))
        self.served = True
        if self.owner is not None:
            self.owner.ended(self, keep=keep and whole)

    def _fail(self, error: DeliveryError) -> None:
        answer, _ = self._stop()
        error.timings = self.timings()
        if not answer.done():
            answer.set_exception(error)
        self._let_go()

    def _end_early(self, error: DeliveryError) -> None:
        """End before the answer did: with what came of it, if its status is in."""
        if self._status is None:
            self._fail(error)
        else:
            self._finish(keep=False)

    def _unanswered(self, code: str, problem: str, unsent_problem: str) -> DeliveryError:
        """No answer came. Whether the receiver has the request is unknown only if all of it went out."""
        if self._sent and not self._unsent:
            return Unknown(problem, code=code, lane_fault=True)
        return Transient(unsent_problem, code=code, lane_fault=True)

    @property
    def _unsent(self) -> int:
        """Bytes of the request that the system didn't take, as far as can be told."""
        waiting = 0 if self.transport is None else self.transport.get_write_buffer_size()
        return waiting + len(self._rest)

    def _stop(self) -> tuple[asyncio.Future[Answer], bool]:
        """Wait for the answer no more, nor write what is left; returns it, and whether all was written."""
        answer, self._answer = self._answer, None
        unsent = self._unsent
        if unsent:
            self._sent = max(0, self._sent + len(self._rest) - unsent)
            self._rest = memoryview(b"")
        return cast("asyncio.Future[Answer]", answer), not unsent

    def _let_go(self) -> None:
        if self.owner is not None:
            self.owner.ended(self, keep=False)

    # The connection ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read what came, up to the end of the answer, or to where it is none any more."""
        parser = self._parser
        if self._answer is None or parser is None:
            self._take_unasked(data)
            return
        self._came += len(data)
        try:
            parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:  # what comes after a 101 is not HTTP
            self._end_early(_unreadable(self._problem or str(error)))
            return
        if self._whole:
            self._finish(keep=self._keeps)
        elif self._is_too_much():
            self._end_early(_unreadable("too much of it"))

    def _is_too_much(self) -> bool:
        """Whether what came is no answer any more, by its size."""
        most = MOST_HEAD if self._status is None else MOST_READ
        return self._came > most or self._received > READ_BODY

    def _take_unasked(self, data: bytes) -> None:
        """Keep what a peer says before it is asked for the first time: it may be all that it says.

        What comes on a line that served must not be taken for the next answer.
        """
        if self.served:
            self.close()
        else:
            self._early += data

    def pause_writing(self) -> None:
        """Wait with the rest of a large request."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on with it."""
        self._paused = False
        self._write_rest()

    def _write_rest(self) -> None:
        while self._rest and not self._paused and self.transport is not None:
            piece, self._rest = self._rest[:_PIECE], self._rest[_PIECE:]
            self._sent += len(piece)
            self.transport.write(piece)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - both mean the same
        """End the exchange that was under way."""
        self.transport = self._parser = None  # the parser holds on to the line
        self.gone.set_result(None)
        if self._answer is not None:
            self.went_stale = self.served and not self._came
            self._end_early(self._unanswered(*_LOST))
        elif self.owner is not None:
            self.owner.lost(self)

    # What the parser finds --------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Stop at what follows the answer, or at a flood of informational ones."""
        self._begun += 1
        if self._status is not None or self._begun > MOST_ANSWERS:
            self._stop_parsing("too many informational answers")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._headers.append((name, value))
        if len(self._headers) > MOST_HEADERS or len(value) > MOST_HEADER:
            self._stop_parsing("too much of a head")

    def on_headers_complete(self) -> None:
        """Take the status, unless it is that of an informational answer (RFC 9110 §15.2)."""
        parser = cast("HttpResponseParser", self._parser)
        headers, self._headers = self._headers, []
        status = parser.get_status_code()
        if status // 100 != _INFORMATIONAL or status == _SWITCHING_PROTOCOLS:
            self._status, self._told, self._keeps = status, headers, parser.should_keep_alive()
            self._head_at = monotonic()

    def on_body(self, piece: bytes) -> None:
        """Take a part of the body, and keep its start."""
        self._received += len(piece)
        if len(self._body) < KEPT_BODY:
            self._body += piece[: KEPT_BODY - len(self._body)]

    def on_message_complete(self) -> None:
        """Notice the end of the answer."""
        self._whole = self._status is not None

    def _stop_parsing(self, problem: str) -> None:
        self._problem = problem
        raise HttpParserError(problem)


def _unreadable(reason: str) -> Transient:
    """What is wrong with an answer is said without any of its bytes."""
    problem = f"the answer can't be read: {reason.strip().lower() or 'it is not HTTP'}"
    return Transient(problem, code="bad_response", lane_fault=True)
