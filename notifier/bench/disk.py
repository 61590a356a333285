"""What the disk under the store does: one synced append, and durable commits through the real store."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from msgspec import Raw, Struct

from notifier.bench import BenchError
from notifier.bench.events import DATA
from notifier.bench.figures import Latency, Spread
from notifier.bench.turns import Turns
from notifier.model import EventRecord, new_id
from notifier.store import Store, file_url, open_store
from notifier.store.base import Submission

BLOCK = 4096
"""Bytes of one append."""
AT_ONCE = 64
"""How many events are on their way to the store where many arrive at once."""
_BYTES_A_SECOND = 16 * 1024**2
"""How fast the disk may fill while it is measured, with room to spare."""
_KEPT_FREE = 256 * 1024**2

_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # not every system has the first


class Commits(Struct, frozen=True):
    """Durable commits of one event each: how many a second, and how long one takes."""

    rate: Spread
    latency: Latency


def check_room(folder: Path, seconds: float) -> None:
    """See that there is room for what so many seconds of measuring write. Raises BenchError, OSError.

    The disk is somebody's store's: to fill it would stop them.
    """
    needed, free = int(seconds * _BYTES_A_SECOND) + _KEPT_FREE, shutil.disk_usage(folder).free
    if free < needed:
        raise BenchError(
            f"{folder}: {free / 1024**2:,.0f} MiB are free, and {needed / 1024**2:,.0f} may be needed: "
            "make room, or give fewer --seconds"
        )


async def fsyncs(folder: Path, turns: Turns) -> Latency:
    """Append to a file and sync it, over and over. Raises OSError."""
    file = os.open(folder / "fsync", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    async def work(seconds: float) -> list[float]:
        await asyncio.sleep(0)  # so that it can be cancelled between turns
        return _appended(file, seconds)

    try:
        return Latency.of([each for turn in await turns.take(work) for each in turn])
    finally:
        os.close(file)
        (folder / "fsync").unlink()


def _appended(file: int, seconds: float) -> list[float]:
    block, spent, now = os.urandom(BLOCK), [], perf_counter()
    until = now + seconds
    while now < until:
        began = now
        os.write(file, block)
        _sync(file)
        now = perf_counter()
        spent.append(now - began)
    return spent


async def commits(folder: Path, turns: Turns, *, at_once: int) -> Commits:
    """Have so many events at once stored durably, by a store of its own. Raises StoreError."""
    store = open_store(file_url(folder / f"commits-{at_once}.db"), folder)
    await store.open(time.time())
    try:
        taken = await turns.take(lambda seconds: _committed(store, seconds, at_once))
    finally:
        await store.close()
    rates = [len(spent) / seconds for spent, seconds in taken]
    return Commits(Spread.of(rates), Latency.of([each for spent, _ in taken for each in spent]))


async def _committed(store: Store, seconds: float, at_once: int) -> tuple[list[float], float]:
    """How long each commit took, and all of them together."""
    spent: list[float] = []
    began = perf_counter()

    async def commit() -> None:
        now = perf_counter()
        while now < began + seconds:
            before = now
            await store.add([Submission(_event(), ())])
            now = perf_counter()
            spent.append(now - before)

    await asyncio.gather(*(commit() for _ in range(at_once)))
    return spent, perf_counter() - began


def _event() -> EventRecord:
    now = time.time()
    return EventRecord(id=new_id("evt", now), type="bench.commit", data=Raw(DATA), created_at=now)
