"""What `notifier dev` caught, in memory: the newest messages, bounded in number and in bytes."""

import asyncio
from collections import deque
from collections.abc import Iterator
from itertools import count

from msgspec import Struct

MAX_MESSAGES = 500
MAX_BYTES = 64 * 1024**2
"""Bytes of all caught messages together."""


class Mail(Struct, frozen=True, kw_only=True, tag="email", tag_field="kind"):
    """A mail as it came over SMTP: the envelope, and the message's bytes."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    subject: str = ""

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.raw)


class Hook(Struct, frozen=True, kw_only=True, tag="webhook", tag_field="kind"):
    """A webhook's request as its receiver would have got it; `url` is the receiver's."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    problem: str | None
    """Why its signature does not verify; None: it does."""

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers)


class Note(Struct, frozen=True, kw_only=True, tag="message", tag_field="kind"):
    """What a plugin's channel would have been handed."""

    channel: str
    destination: str
    job_id: str
    event_type: str
    data: bytes
    """The event's data as JSON text."""
    content: dict[str, str | None]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.data) + sum(len(part) for part in self.content.values() if part)


class Caught(Struct, frozen=True):
    """A message with its number, from 1, and when it came, in seconds since the epoch."""

    number: int
    at: float
    message: Mail | Hook | Note


class Inbox:
    """The newest caught messages. Whoever waits for more is woken."""

    def __init__(self, *, max_messages: int = MAX_MESSAGES, max_bytes: int = MAX_BYTES) -> None:
        self._caught: deque[Caught] = deque()
        self._numbers = count(1)
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._size = 0
        self._version = 0
        self._changed = asyncio.Event()

    def __iter__(self) -> Iterator[Caught]:
        """Go through all, the newest first."""
        return reversed(self._caught)

    def __len__(self) -> int:
        return len(self._caught)

    def add(self, message: Mail | Hook | Note, at: float) -> Caught:
        """Take a message in; the oldest make room for it."""
        caught = Caught(next(self._numbers), at, message)
        self._caught.append(caught)
        self._size += message.size
        while len(self._caught) > self._max_messages or (self._size > self._max_bytes and len(self) > 1):
            self._size -= self._caught.popleft().message.size
        self._tell()
        return caught

    def get(self, number: int) -> Caught | None:
        """Return a message by its number; None when it is gone, or never was."""
        return next((caught for caught in self._caught if caught.number == number), None)

    def remove(self, number: int) -> None:
        """Forget one message."""
        self._keep(deque(caught for caught in self._caught if caught.number != number))

    def clear(self) -> None:
        """Forget all."""
        self._keep(deque())

    async def changed(self, since: int) -> int:
        """Wait until it is no longer as it was at version `since` (0: empty, new); return its version now."""
        while self._version == since:
            await self._changed.wait()
        return self._version

    def _keep(self, kept: deque[Caught]) -> None:
        self._caught = kept
        self._size = sum(caught.message.size for caught in kept)
        self._tell()

    def _tell(self) -> None:
        self._version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
