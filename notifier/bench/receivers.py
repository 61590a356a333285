"""Who takes what is delivered: webhooks, and mails. They look for an event's number, and answer at once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from notifier.bench.events import MARK, SLOT
from notifier.bench.wire import Line

LOOPBACK = "127.0.0.1"
RECEIVERS = 8
"""How many there are of a kind: each has a lane of its own, and one lane may not take all workers."""

Arrived = Callable[[int], None]
"""Told the number of an event whose delivery arrived."""

_BACKLOG = 1024
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_CRLF = b"\r\n"
_DOT = b"\r\n.\r\n"
_EHLO = b"250-localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 104857600\r\n"
_REPLIES: Mapping[bytes, bytes] = {
    b"EHLO": _EHLO,
    b"DATA": b"354 Go ahead\r\n",
    b"QUIT": b"221 2.0.0 Bye\r\n",
}
_ACCEPTED = b"250 2.0.0 Ok\r\n"


def number_in(message: bytes) -> int | None:
    """Find the number of the event that a delivery is about."""
    at = message.find(MARK)
    digits = message[at + len(MARK) : at + len(MARK) + len(SLOT)]
    return int(digits) if at >= 0 and digits.isdigit() else None


@asynccontextmanager
async def listening(make: Callable[[], Line], ports: int) -> AsyncIterator[list[int]]:
    """Listen on so many free ports of loopback, and make a line of each connection; gives the ports."""
    loop = asyncio.get_running_loop()
    lines: list[Line] = []
    servers: list[asyncio.Server] = []

    def connected() -> Line:
        lines.append(make())
        return lines[-1]

    try:
        servers += [await loop.create_server(connected, LOOPBACK, 0, backlog=_BACKLOG) for _ in range(ports)]
        yield [each.sockets[0].getsockname()[1] for each in servers]
    finally:
        for server in servers:
            server.close()
        for line in lines:
            line.drop()
        await asyncio.sleep(0)  # by then they are closed


@asynccontextmanager
async def webhooks(arrived: Arrived) -> AsyncIterator[list[int]]:
    """Take webhooks on `RECEIVERS` ports of loopback; gives the ports."""
    async with listening(lambda: _Hooks(arrived), RECEIVERS) as ports:
        yield ports


class _Hooks(Line):
    def __init__(self, arrived: Arrived) -> None:
        super().__init__()
        self._arrived = arrived

    def message(self, message: bytes) -> None:
        self.transport.write(_OK)
        if (number := number_in(message)) is not None:
            self._arrived(number)


class Mails:
    """An SMTP server on loopback that accepts everything it is told."""

    def __init__(self, arrived: Arrived) -> None:
        self.arrived = arrived
        self.port = 0
        self.busy = 0

    async def sessions_busy(self) -> float:
        """How many sessions have a mail under way."""
        return self.busy

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen on a free port."""
        async with listening(lambda: _Session(self), 1) as (self.port,):
            yield


class _Session(Line):
    """RFC 5321 as far as a client that does nothing wrong can tell."""

    def __init__(self, mails: Mails) -> None:
        super().__init__()
        self._mails = mails
        self._in_mail = False
        self._in_content = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(b"220 localhost ESMTP\r\n")

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._set_busy(busy=False)

    def end_of(self, data: bytes) -> int:
        """A message is a command, or the content of a mail."""
        end = _DOT if self._in_content else _CRLF
        return data.find(end) + len(end) if end in data else 0

    def message(self, message: bytes) -> None:
        if self._in_content:
            self._take(message)
        else:
            self._obey(message[:4].upper())

    def _obey(self, verb: bytes) -> None:
        if verb == b"MAIL":
            self._set_busy(busy=True)
        self._in_content = verb == b"DATA"
        self.transport.write(_REPLIES.get(verb, _ACCEPTED))
        if verb == b"QUIT":
            self.transport.close()

    def _take(self, content: bytes) -> None:
        self._in_content = False
        self._set_busy(busy=False)
        self.transport.write(_ACCEPTED)
        if (number := number_in(content)) is not None:
            self._mails.arrived(number)

    def _set_busy(self, *, busy: bool) -> None:
        self._mails.busy += busy - self._in_mail
        self._in_mail = busy
