"""What a backlog of a million jobs costs: little memory, no slower start, and nobody else's time."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from support.builders import event_record, submission
from support.program import Program
from support.receiver import Receiver, answer, then_hang

from notifier.model import JobState
from notifier.store.base import JobFilter, Submission
from notifier.store.sqlite import SqliteStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),  # the million rows alone take half a minute
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc"),
]

_log = logging.getLogger(__name__)

BACKLOG = 1_000_000
EVENTS_A_CALL = 5_000
DATA = '{"note":"' + "x" * 480 + '"}'

READY_WITHIN = 3.0
RESIDENT = 150 * 1024**2
DELIVERIES = 5_000
"""Some five claim windows: more has then come and gone than is ever held."""
PROMPTLY = 2.0

CONFIG = """
[channels.webhook]
allow_networks = ["127.0.0.1/32"]

[[routes]]
event = "fresh"
channel = "webhook"
url = "{fresh}"
"""


class Backlog(NamedTuple):
    """A folder with a store that has a million jobs due, and the receivers they are for."""

    folder: Path
    answering: Receiver
    fresh: Receiver


async def _fill(path: Path, urls: list[str]) -> None:
    """Add the jobs as the service would, an event each, in turn to each url."""
    store = SqliteStore(path)
    await store.open(time.time())
    places = itertools.cycle(urls)
    for _ in range(BACKLOG // EVENTS_A_CALL):
        await store.add([_submission(next(places)) for _ in range(EVENTS_A_CALL)])
    assert await store.count(JobFilter(status=JobState.PENDING)) == BACKLOG
    await store.close()


def _submission(url: str) -> Submission:
    return submission(
        of=event_record(type="backlog", body=DATA, created_at=time.time()),
        route=None,
        destination=url,
        lane=_lane(url),
    )


def _lane(url: str) -> str:
    return f"webhook:{url.removeprefix('http://').partition('/')[0]}"


@pytest.fixture
async def backlog(tmp_path: Path) -> AsyncIterator[Backlog]:
    """A million due jobs, half of them for a receiver that answers, half for one that never does."""
    async with Receiver(answer()) as answering, Receiver(then_hang(b"")) as hanging, Receiver() as fresh:
        await _fill(tmp_path / "notifier.db", [answering.url(), hanging.url()])
        (tmp_path / "config.toml").write_text(CONFIG.format(fresh=fresh.url()))
        yield Backlog(tmp_path, answering, fresh)


async def test_a_million_waiting_jobs_cost_neither_memory_nor_time(backlog: Backlog) -> None:
    """A start on it takes under 3 s, working it off under 150 MiB, and new events of other lanes overtake."""
    began = time.perf_counter()
    async with Program("serve", "--port", "0", cwd=backlog.folder) as program:
        url = await program.listening()
        ready = time.perf_counter() - began
        await backlog.answering.seen(DELIVERIES)
        prompt = await _delivered_within(url, backlog.fresh)
        resident = _resident(program.process.pid)
    _log.info("ready in %.2f s, %d MiB, a new event delivered in %.3f s", ready, resident >> 20, prompt)
    assert ready < READY_WITHIN
    assert resident < RESIDENT
    assert prompt < PROMPTLY


async def _delivered_within(url: str, receiver: Receiver) -> float:
    """Post an event for a receiver; returns the seconds until it came there."""
    began = time.perf_counter()
    posted = aiohttp.request("POST", f"{url}/v1/events", json={"type": "fresh", "data": {}})
    async with asyncio.timeout(60), posted as response:
        assert response.status == 202
        await receiver.seen(1)
    return time.perf_counter() - began


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
