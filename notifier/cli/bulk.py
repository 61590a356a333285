"""Sends a stream of events in arrays: a bad line stops no other, a server that is away is waited for.

Memory stays flat however long the stream is.
"""

import asyncio
import codecs
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from notifier.cli.client import Client, Pointed, RefusedError, UnreachableError
from notifier.faults import UNREADABLE, faults_of

BATCH = 500
"""Events in one array; the server takes up to 1,000."""
BATCH_BYTES = 512 * 1024
"""Bytes in one array: half of what a server takes as it comes (`server.max_body`)."""
MAX_LINE = 16 * 1024**2
"""Bytes of one line; a longer one is refused unread, so that memory stays flat."""

_READ = 256 * 1024
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 15.0
_BODY_AT_FAULT = frozenset({400, 413, 422})
_TOO_MANY, _SERVER_AT_FAULT = 429, 500


class Readable(Protocol):
    """A binary stream that can answer with what it has."""

    def read1(self, size: int, /) -> bytes:
        """Read at least one byte and at most `size`; nothing at the end."""


class Line(Struct, frozen=True):
    """One event as it will be posted, and the number of the line it came from, from 1."""

    number: int
    text: bytes


class Refusal(Struct, frozen=True):
    """A line that was not accepted, and why; pointers count from the event."""

    line: int
    errors: list[Pointed]

    def __str__(self) -> str:
        """Write it as one line of text."""
        reasons = "; ".join(f"{e.pointer}: {e.detail}" if e.pointer else e.detail for e in self.errors)
        return f"line {self.line}: {reasons}"


class Batch(Struct):
    """Lines to send together, lines that can't be sent at all, and how many bytes are read with them."""

    end: int
    lines: list[Line] = msgspec.field(default_factory=list)
    refusals: list[Refusal] = msgspec.field(default_factory=list)
    size: int = 0

    def take(self, entry: Line | Refusal | None) -> None:
        """Add a line; a blank one (None) is nothing."""
        if isinstance(entry, Line):
            self.lines.append(entry)
            self.size += len(entry.text)
        elif entry is not None:
            self.refusals.append(entry)

    @property
    def full(self) -> bool:
        """Whether it should be sent before anything is added."""
        return len(self.lines) + len(self.refusals) >= BATCH or self.size >= BATCH_BYTES


class Tally:
    """What became of the lines so far."""

    def __init__(self) -> None:
        self.accepted = self.duplicates = self.refused = 0
        self._refusals: list[Refusal] = []

    def count(self, answers: Sequence[Any]) -> None:
        """Count the server's answers to one array."""
        duplicates = sum(1 for answer in answers if answer["duplicate"])
        self.duplicates += duplicates
        self.accepted += len(answers) - duplicates

    def refuse(self, line: int, errors: list[Pointed]) -> None:
        """Count one refused line."""
        self.refused += 1
        self._refusals.append(Refusal(line, errors))

    def take_refusals(self) -> list[Refusal]:
        """Hand over the refusals since the last call, in the order of their lines."""
        taken, self._refusals = self._refusals, []
        return sorted(taken, key=lambda refusal: refusal.line)


def batches(stream: Readable) -> Iterator[Batch]:
    """Cut a stream of NDJSON into batches; what a slow writer wrote so far is not held back for more."""
    number = 0
    for end, texts in _reads(stream):
        batch = Batch(end)
        for text in texts:
            number += 1
            batch.take(_prepared(number, text))
            if batch.full:
                yield batch
                batch = Batch(end)
        if batch.lines or batch.refusals:
            yield batch


def _reads(stream: Readable) -> Iterator[tuple[int, list[bytes]]]:
    """Answer with the lines that each read completes, and with how many bytes are read by then."""
    end, rest, skipping = 0, b"", False
    while chunk := stream.read1(_READ):
        end += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        if skipping and lines:
            lines, skipping = lines[1:], False
        if len(rest) > MAX_LINE or skipping:
            lines, rest, skipping = ([*lines, rest] if not skipping else lines), b"", True
        yield end, lines
    if rest and not skipping:
        yield end, [rest]


def _prepared(number: int, text: bytes) -> Line | Refusal | None:
    """Make a line ready to post. Its key holds its number: a line that stands twice is meant twice."""
    if len(text) > MAX_LINE:
        return Refusal(number, [Pointed(detail=f"longer than {MAX_LINE // 1024**2} MiB")])
    text = text.removeprefix(codecs.BOM_UTF8).strip() if number == 1 else text.strip()
    if not text:
        return None
    try:
        fields = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except UNREADABLE as error:
        (fault,) = faults_of(error, text=text)
        return Refusal(number, [Pointed(detail=f"not a JSON object: {fault.detail}")])
    if bytes(fields.get("idempotency_key", b"null")) != b"null":
        return Line(number, text)
    key = hashlib.sha256(b"%d:%b" % (number, text)).hexdigest()
    return Line(number, msgspec.json.encode({**fields, "idempotency_key": key}))


class Bulk:
    """Posts batches to one server and tallies what became of them."""

    def __init__(
        self,
        client: Client,
        tally: Tally,
        *,
        retry_for: float,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`retry_for` is how many seconds the server may be away before that is an error."""
        self._client = client
        self._tally = tally
        self._retry_for = retry_for
        self._sleep = sleep
        self._clock = clock

    async def send(self, batch: Batch) -> None:
        """Post a batch, less the lines that are refused. Raises RefusedError, UnreachableError."""
        for refusal in batch.refusals:
            self._tally.refuse(refusal.line, refusal.errors)
        waiting = [batch.lines] if batch.lines else []
        while waiting:
            waiting.extend(await self._post(waiting.pop()))

    async def _post(self, lines: list[Line]) -> list[list[Line]]:
        """Post lines as one array; returns what is left to post, in parts."""
        try:
            self._tally.count(await self._patiently(lines))
        except RefusedError as error:
            if error.status not in _BODY_AT_FAULT:
                raise
            return self._without_guilty(lines, error)
        return []

    def _without_guilty(self, lines: list[Line], error: RefusedError) -> list[list[Line]]:
        """Refuse the lines that the server points at; where it points at none, look in halves."""
        guilty = _guilty(error, len(lines))
        for index, errors in guilty.items():
            self._tally.refuse(lines[index].number, errors)
        left = [line for index, line in enumerate(lines) if index not in guilty]
        if guilty:
            return [left] if left else []
        half = len(lines) // 2
        return [lines[half:], lines[:half]]

    async def _patiently(self, lines: list[Line]) -> Any:
        body = b"[" + b",".join([line.text for line in lines]) + b"]"
        started, wait = self._clock(), _FIRST_WAIT
        while True:
            try:
                return await self._client.post("/v1/events", body)
            except (UnreachableError, RefusedError) as error:
                pause = _pause(error, wait)
                if pause is None or self._clock() - started + pause > self._retry_for:
                    raise
            await self._sleep(pause)
            wait = min(wait * 2, _LONGEST_WAIT)


def _pause(error: UnreachableError | RefusedError, wait: float) -> float | None:
    """How many seconds to wait before another try, or None where a try can't help."""
    if isinstance(error, UnreachableError):
        return wait * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
    if error.status < _SERVER_AT_FAULT and error.status != _TOO_MANY:
        return None
    return wait if error.retry_after is None else error.retry_after


def _guilty(error: RefusedError, count: int) -> dict[int, list[Pointed]]:
    """Tell which of `count` events the server found fault with; a lone one is at fault by itself."""
    guilty: dict[int, list[Pointed]] = {}
    for fault in error.problem.errors:
        _, _, tail = fault.pointer.partition("/")
        index, slash, rest = tail.partition("/")
        if index.isdecimal() and int(index) < count:
            guilty.setdefault(int(index), []).append(Pointed(f"{slash}{rest}", fault.detail))
    if not guilty and count == 1:
        return {0: [Pointed(detail=error.problem.detail or error.problem.title)]}
    return guilty
