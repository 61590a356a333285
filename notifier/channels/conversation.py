"""What goes to and fro on an SMTP connection: bytes out, replies in, in time. Sessions know what it means."""

import asyncio
from math import inf

from notifier.channels.deadlines import Deadlines
from notifier.channels.replies import Reply

KEPT_RESPONSE = 1024
"""How many bytes of what a server says are kept."""
MOST_HEARD = 32 * 1024
"""Bytes of one reply that are listened to."""


class Conversation(asyncio.Protocol):
    """A connection that is ready for mails.

    Whatever ends it while replies are waited for, those that came count. What is said unasked ends it: it
    would be taken for the answer to what is asked next.
    """

    def __init__(self, transport: asyncio.Transport, deadlines: "Deadlines[Conversation]") -> None:
        """Take an open connection over from whoever spoke on it so far."""
        self.problem: Exception = ConnectionError("the connection was lost")
        """Why it ended."""
        self.until = inf
        """By when the next reply must be there, in the loop's time."""
        self._loop = asyncio.get_running_loop()
        self._deadlines = deadlines
        self._transport = transport
        self._waiting: asyncio.Future[list[Reply]] | None = None
        self._replies: list[Reply] = []
        self._wanted = 0
        self._seconds = inf
        self._lines: list[bytes] = []
        self._rest = b""
        self._heard = 0
        self._writable: asyncio.Future[None] | None = None
        transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether something can be said."""
        return not self._transport.is_closing()

    def ask(self, said: bytes, wanted: int, seconds: float) -> asyncio.Future[list[Reply]]:
        """Say something that so many replies are due to, each within so many seconds.

        The future ends with them, or with those that came before the connection ended; then `problem` says
        why. Whoever stops waiting must `close`.
        """
        waiting = self.listen(wanted)
        if self._waiting is not None:
            self.hurry(seconds)
            self._transport.write(said)
        return waiting

    def listen(self, wanted: int) -> asyncio.Future[list[Reply]]:
        """Wait for so many replies to what is said from now on, for as long as it takes."""
        self._replies, self._wanted, self._heard = [], wanted, 0
        self._waiting = waiting = self._loop.create_future()
        if self._transport.is_closing():
            self._end()
        return waiting

    def hurry(self, seconds: float) -> None:
        """Give each reply that is still due so many seconds from now on."""
        self._seconds, self.until = seconds, self._loop.time() + seconds
        self._deadlines.watch(self)

    def say(self, said: bytes) -> None:
        """Send a part of something, or what is left of it."""
        if not self._transport.is_closing():
            self._transport.write(said)

    async def drained(self) -> None:
        """Wait until more can be said, or it has ended."""
        if self._writable is not None:
            await self._writable

    def expire(self) -> None:
        """End it: no reply came in time."""
        self._give_up(TimeoutError())

    def close(self) -> None:
        """Close at once: what is still to be sent must not be, once we have given it up."""
        self._end()
        self._transport.abort()

    def _give_up(self, problem: Exception) -> None:
        self.problem = problem
        self.close()

    def _end(self) -> None:
        """Hand over what was heard; nothing more is waited for."""
        self._deadlines.forget(self)
        self.resume_writing()
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(self._replies)

    # The connection ------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take the replies that are whole."""
        if self._waiting is None:
            self.close()
            return
        before = len(self._replies)
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._heard += len(data)
        for line in lines:
            if not self._takes(line):
                self._give_up(ConnectionError(f"it answered what is no SMTP: {storable(line)!r}"))
                return
        if len(self._replies) == self._wanted and not self._rest:
            self._end()
        elif len(self._replies) == self._wanted:
            self.close()
        elif self._heard > MOST_HEARD:
            self._give_up(ConnectionError("it answered too much"))
        elif len(self._replies) > before:
            self.until = self._loop.time() + self._seconds

    def _takes(self, line: bytes) -> bool:
        """Take a line of a reply, RFC 5321 §4.2. False: it is none, or no reply is due any more."""
        code = line[:3]
        if len(code) < 3 or not code.isdigit() or len(self._replies) == self._wanted:  # noqa: PLR2004 - RFC
            return False
        self._lines.append(line[4:].strip())
        if line[3:4] != b"-":
            self._replies.append(Reply(int(code), storable(b"\n".join(self._lines))))
            self._lines.clear()
        return True

    def eof_received(self) -> None:
        """Close it: the server has nothing more to say."""

    def connection_lost(self, error: Exception | None) -> None:
        """Take note that it ended."""
        if error is not None and self._waiting is not None:
            self.problem = error
        self._end()

    def pause_writing(self) -> None:
        """Wait with what is still to be said."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Go on with it."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)


def storable(said: bytes) -> str:
    """Keep what every store can: the first KiB, as Unicode, without NUL."""
    return said[:KEPT_RESPONSE].decode("utf-8", "replace").replace("\0", "\ufffd")
