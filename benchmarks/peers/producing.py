"""The producer of each peer: enqueues as many events as it is told to, and tells when all are recorded.

It is told on stdin, a line each: `enqueue COUNT`, `recorded COUNT`; it answers `done`.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator

from benchmarks.peers.work import Event, events

_AT_ONCE = 64
_POLL = 0.005


def produce(enqueue: Callable[[Event], object], recorded: Callable[[], int]) -> None:
    """Serve until stdin ends: events are enqueued one after the other."""
    enqueued = 0
    for line in sys.stdin:
        word, number = line.split()
        if word == "enqueue":
            for event in events(int(number), enqueued):
                enqueue(event)
            enqueued += int(number)
        else:
            while recorded() < int(number):
                time.sleep(_POLL)
        print("done", flush=True)


async def produce_async(
    enqueue: Callable[[Event], Awaitable[object]], recorded: Callable[[], Awaitable[int]]
) -> None:
    """Serve until stdin ends: events are enqueued 64 at a time, as by as many requests of an app."""
    enqueued = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, number = line.split()
        if word == "enqueue":
            left = events(int(number), enqueued)
            await asyncio.gather(*(_enqueue_all(enqueue, left) for _ in range(_AT_ONCE)))
            enqueued += int(number)
        else:
            while await recorded() < int(number):  # noqa: ASYNC110 - a count is all there is
                await asyncio.sleep(_POLL)
        print("done", flush=True)


async def _enqueue_all(enqueue: Callable[[Event], Awaitable[object]], left: Iterator[Event]) -> None:
    for event in left:
        await enqueue(event)
