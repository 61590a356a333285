"""HTTP's quick way in: plain posts of events are read and answered here, all else is aiohttp's.

A post costs a fifth of what it costs through aiohttp, and is answered alike. Heads are understood by
aiohttp's parser (`heads`), bodies, answers and problems by what aiohttp's handler is made of (`events`,
`problems`), so that neither can be understood in two ways.
"""

import asyncio
import socket
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

from notifier.store.base import Added
from notifier.web import problems
from notifier.web.auth import Gate
from notifier.web.events import PATH, Posted, native
from notifier.web.heads import END, Heads
from notifier.web.replies import Headers, Reply

if TYPE_CHECKING:
    from notifier.service import Notifier

_SWEEP_EVERY = 30.0
"""Seconds between looks for connections to close: one timer for all of them, and none for a request."""


class Wire:
    """Accepts every connection, and has it until it is closed or handed over to aiohttp's server."""

    def __init__(self, notifier: "Notifier", server: web.Server, *, keep_alive: float) -> None:
        """Accept for a notifier; `keep_alive` is how many seconds a connection may be idle."""
        config = notifier.config
        self.heads = Heads(Gate(config.auth, config.server.public_url), config.server.max_body)
        self.notifier = notifier
        self.server = server
        self.connections: set[Connection] = set()
        self.closing = False
        self._keep_alive = keep_alive
        self._loop = asyncio.get_running_loop()
        self._sweeping = self._loop.call_later(_SWEEP_EVERY, self._sweep)
        self._none_left = asyncio.Event()
        self._dated = 0
        self._ending = b""

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of a connection."""
        return Connection(self)

    def now(self) -> float:
        """Return the loop's time."""
        return self._loop.time()

    def forget(self, connection: "Connection") -> None:
        """Take note that a connection is closed, or another's."""
        self.connections.discard(connection)
        if self.closing and not self.connections:
            self._none_left.set()

    async def close(self, within: float) -> None:
        """Close what is idle, and the rest once it is answered; after `within` seconds, whatever is left."""
        self.closing = True
        self._sweeping.cancel()
        for each in list(self.connections):
            each.finish()
        if not self.connections:
            return
        try:
            async with asyncio.timeout(within):
                await self._none_left.wait()
        except TimeoutError:
            for each in list(self.connections):
                each.abort()

    def write(self, reply: Reply) -> bytes:
        """Return an answer as HTTP, with the headers that aiohttp gives every answer."""
        head = _head(reply.status, reply.headers)
        now = int(self.notifier.clock())
        if now != self._dated:
            date = formatdate(now, usegmt=True)
            self._dated = now
            self._ending = f"Date: {date}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n".encode()
        return b"%b%d\r\n%b%b" % (head, len(reply.body), self._ending, reply.body)

    def _sweep(self) -> None:
        self._sweeping = self._loop.call_later(_SWEEP_EVERY, self._sweep)
        silent_since = self._loop.time() - self._keep_alive
        for each in list(self.connections):
            each.close_if_silent(silent_since)


class Connection(asyncio.Protocol):
    """One connection: its requests are taken one after the other, each once that before it is answered."""

    __slots__ = (
        "_begun",
        "_held",
        "_missing",
        "_received",
        "_since",
        "_storing",
        "_transport",
        "_unread",
        "_wire",
    )

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._received = b""
        """What has come and isn't taken: whole requests, and the start of one."""
        self._begun = bytearray()
        """The start of a request whose body comes in pieces: put together at once, as crumbs take room."""
        self._missing = 0
        self._storing = False
        """Whether a post is under way, and not answered yet."""
        self._unread = False
        """Whether more is answered than the client reads."""
        self._held = False
        """Whether nothing is read, as more came than can be taken now."""
        self._since = 0.0
        """When the last request was answered, or the body that is awaited was begun."""

    # What the loop calls -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, as aiohttp does."""
        self._transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._since = self._wire.now()
        self._wire.connections.add(self)
        if self._wire.closing:  # it was accepted just before
            transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """End: what is being stored is stored, but nobody is told. What had not come in full is nothing."""
        self._received = b""
        self._begun.clear()
        self._wire.forget(self)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._missing > 0:
            self._begun += data
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = bytes(self._begun)
            self._begun.clear()
        self._received += data
        if not self._storing and not self._unread:
            self._advance()
        elif not self._held:
            self._held = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """Take no more requests from a client that doesn't read its answers."""
        self._unread = True

    def resume_writing(self) -> None:
        """Take requests again."""
        self._unread = False
        if not self._storing:
            self._advance()

    # Requests ------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Take requests for as long as they are there in full, and none has to be waited for."""
        while not self._storing and not self._unread and self._take_next():
            pass

    def _take_next(self) -> bool:
        """Take the next request; return whether it was there in full, and a plain post."""
        received = self._received
        head_end = received.find(END) + len(END)
        if head_end < len(END):
            return self._wait_for(0) if self._wire.heads.may_begin_post(received) else self._hand_over()
        post = self._wire.heads.post(received[:head_end])
        if post is None:
            return self._hand_over()
        length, key = post
        end = head_end + length
        if end > len(received):
            return self._wait_for(end - len(received))
        self._received = received[end:]
        self._store(received[head_end:end], key)
        return True

    def _wait_for(self, missing: int) -> bool:
        """Read on: so many bytes of a body are missing, or, if 0, nobody knows how many of a head."""
        if missing:
            self._begun += self._received
            self._received = b""
            self._missing = missing
            self._since = self._wire.now()
        self._read_on()
        return False

    def _hand_over(self) -> bool:
        """Leave this connection to aiohttp from here on, with all that has come."""
        self._wire.forget(self)
        self._read_on()
        handler = self._wire.server()
        self._transport.set_protocol(handler)
        handler.connection_made(self._transport)
        handler.data_received(self._received)
        return False

    def _read_on(self) -> None:
        if self._held:
            self._held = False
            self._transport.resume_reading()

    def _store(self, body: bytes, key: str | None) -> None:
        posted = None
        try:
            posted = native(body, self._wire.notifier.channels)
            if key is not None:
                posted = posted.with_key([key])
            storing = self._wire.notifier.intake.take(posted.events)
        except Exception as error:
            self._write(_refusal(error, posted))
            return
        self._storing = True
        storing.add_done_callback(partial(self._answer, posted))

    def _answer(self, posted: Posted, storing: asyncio.Future[list[Added]]) -> None:
        self._storing = False
        try:
            reply = posted.accepted(storing.result())
        except Exception as error:
            reply = _refusal(error, posted)
        if self._transport.is_closing():
            return
        self._write(reply)
        if self._wire.closing:
            self._transport.close()
        elif self._received or self._held:
            self._advance()

    def _write(self, reply: Reply) -> None:
        self._since = self._wire.now()
        self._transport.write(self._wire.write(reply))

    # Ends ----------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Close, once what is being stored is answered."""
        if not self._storing:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def close_if_silent(self, since: float) -> None:
        """Close if the client has asked for nothing, or read nothing of what it asked for, since then."""
        if not self._storing and self._since < since:
            self._transport.abort()


def _refusal(error: Exception, posted: Posted | None) -> Reply:
    """Answer why a post isn't taken."""
    return problems.reply(error if posted is None else posted.refused(error), "POST", PATH)


@lru_cache(maxsize=64)
def _head(status: int, headers: Headers) -> bytes:
    """Write the start of an answer's head, which is the same for nearly all of them."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, "Content-Length: "]).encode()
