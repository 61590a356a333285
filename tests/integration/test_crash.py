"""The installed command, killed with -9 again and again under load: nothing that got its 202 is lost."""

import asyncio
import json
import logging
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from support.database import integrity, rows
from support.program import Program
from support.receiver import Line, Receiver, answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_log = logging.getLogger(__name__)

POSTERS = 32
KILLS = 12
WORKERS = 32
SEED = 20_270_115
SETTLED_WITHIN = 30.0

CONFIG = """
[workers]
concurrency = {workers}
[retry]
schedule = ["50ms", "100ms", "200ms", "400ms", "800ms", "1s", "1s", "1s", "1s", "1s"]
[channels.webhook]
allow_networks = ["127.0.0.1/32"]
[[routes]]
name = "hook"
event = "order.*"
channel = "webhook"
url = "{url}"
"""


class Receipt(NamedTuple):
    """One delivery as it came in: of which job, in which run of the program, with which body."""

    job: str
    run: int
    body: bytes


class Sink(Receiver):
    """Takes everything, now and then a little late, and keeps in which run it came."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(self._script)
        self.run = 0
        self.chance = chance
        self.receipts: list[Receipt] = []
        self._read = 0

    async def _script(self, line: Line) -> None:
        request = self.requests[-1]
        self.receipts.append(Receipt(request.headers["webhook-id"], self.run, request.body))
        if self.chance.random() < 0.1:
            await asyncio.sleep(0.03)  # some receivers take their time: what is killed is in flight
        await answer()(line)

    async def next_run(self) -> None:
        """Read what the ended process still had sent, then count what comes as the next run's."""
        while self._tasks:
            await asyncio.wait({*self._tasks})
        self.run += 1


class Accepted(NamedTuple):
    """What a 202 said of an event."""

    event: str
    jobs: tuple[str, ...]


class App:
    """Posts events under idempotency keys, and posts each until it hears what became of it."""

    def __init__(self) -> None:
        self.accepted: dict[str, Accepted] = {}
        self.stopping = False
        self.unsure = 0
        """How many calls ended without an answer."""
        self.duplicates = 0
        """How many of them had been stored all the same, as the next answer said."""
        self._numbers = count()
        self._news = asyncio.Condition()
        self.down()

    def up(self, url: str) -> None:
        """Post there from now on."""
        self._url.set_result(url)

    def down(self) -> None:
        """Make no more calls until it is up again; those under way stay as they are."""
        self._url: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def answered(self, more: int) -> None:
        """Wait until so many more events are accepted."""
        async with self._news:
            wanted = len(self.accepted) + more
            await self._news.wait_for(lambda: len(self.accepted) >= wanted)

    async def post_on(self) -> None:
        """Post until told to stop: four events by themselves, then four in an array."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            for size in self._sizes():
                keys = [f"key-{next(self._numbers)}" for _ in range(size)]
                await self._keep(keys, await self._insist(session, [event(key) for key in keys]))

    def _sizes(self) -> Iterator[int]:
        while not self.stopping:
            for size in (1, 1, 1, 1, 4):
                if not self.stopping:
                    yield size

    async def _insist(self, session: aiohttp.ClientSession, events: list[Any]) -> list[Any]:
        """Post the same again and again, until it is answered."""
        body = events if len(events) > 1 else events[0]
        while True:
            url = await asyncio.shield(self._url)
            try:
                async with session.post(f"{url}/v1/events", json=body) as response:
                    answers = await response.json()
                    assert response.status == 202, answers
                    return answers if len(events) > 1 else [answers]
            except (aiohttp.ClientError, ConnectionError):
                self.unsure += 1

    async def _keep(self, keys: list[str], answers: list[Any]) -> None:
        async with self._news:
            for key, each in zip(keys, answers, strict=True):
                assert key not in self.accepted
                self.duplicates += each["duplicate"]
                self.accepted[key] = Accepted(each["id"], tuple(job["id"] for job in each["jobs"]))
            self._news.notify_all()


def event(key: str) -> dict[str, Any]:
    """An event that says which it is."""
    return {"type": "order.paid", "data": {"key": key}, "idempotency_key": key}


async def killed_at_random(program: Program, app: App, sink: Sink, chance: random.Random) -> None:
    """Kill it: while it starts, or some way into taking events, or into delivering them."""
    kind = chance.choice(["starting", "accepting", "accepting", "delivering", "delivering"])
    if kind == "starting":
        try:
            async with asyncio.timeout(chance.uniform(0.05, 0.5)):
                app.up(await program.listening())
        except TimeoutError:
            pass
    else:
        app.up(await program.listening())
        if kind == "accepting":
            await app.answered(chance.randint(1, 300))
        else:
            await sink.seen(len(sink.requests) + chance.randint(1, 300))
    app.down()
    program.signal(signal.SIGKILL)
    assert await program.ended() == -signal.SIGKILL


async def settled(url: str) -> None:
    """Wait until no job is waiting or under way. Only asking tells: it is another process."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(SETTLED_WITHIN):
        for status in ("PENDING", "PROCESSING", "PENDING"):
            while await _any(session, url, status):  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.05)


async def _any(session: aiohttp.ClientSession, url: str, status: str) -> bool:
    query = {"status": status, "limit": "1"}
    async with session.get(f"{url}/v1/admin/jobs", params=query) as response:
        return bool((await response.json())["jobs"])


async def survived(folder: Path) -> tuple[App, Sink, list[Program]]:
    """Load it, kill it again and again, then let it finish and end as it should."""
    chance = random.Random(SEED)  # noqa: S311 - the same kills each time, as far as that goes
    app, runs = App(), []
    async with Sink(random.Random(SEED)) as sink:  # noqa: S311
        (folder / "config.toml").write_text(CONFIG.format(url=sink.url(), workers=WORKERS))
        posters = [asyncio.create_task(app.post_on()) for _ in range(POSTERS)]
        for _ in range(KILLS):
            async with Program("serve", "--port", "0", cwd=folder) as program:
                runs.append(program)
                await killed_at_random(program, app, sink, chance)
            await sink.next_run()
        async with Program("serve", "--port", "0", cwd=folder) as program:
            url = await program.listening()
            app.up(url)
            app.stopping = True
            await asyncio.gather(*posters)
            await settled(url)
            program.signal(signal.SIGTERM)
            assert await program.ended() == 0
    return app, sink, runs


async def test_nothing_accepted_is_lost_however_often_it_is_killed(tmp_path: Path) -> None:
    """Every 202 is delivered under the ids it named; nothing comes twice but what was in flight at a kill."""
    app, sink, runs = await survived(tmp_path)
    path = tmp_path / "notifier.db"
    _log.info(
        "accepted %d events over %d kills; %d calls unanswered, %d of their events stored; %d deliveries",
        len(app.accepted),
        len(runs),
        app.unsure,
        app.duplicates,
        len(sink.receipts),
    )
    assert integrity(path) == ["ok"]
    _check_events(path, app)
    _check_deliveries(app, sink)
    _check_duplicates(path, sink)
    assert any("in flight when the last process ended" in line for run in runs for line in run.lines)
    assert app.unsure > 0


def _check_events(path: Path, app: App) -> None:
    """The store holds just what was accepted, under the same ids, all of it delivered."""
    stored = {
        key: Accepted(event_id, tuple(json.loads(jobs)))
        for key, event_id, jobs in rows(
            path,
            """
            SELECT event.idempotency_key, event.id, json_group_array(job.id)
            FROM event JOIN job ON job.event_seq = event.seq GROUP BY event.seq
            """,
        )
    }
    assert stored == app.accepted
    assert Counter(rows(path, "SELECT status, attempts, error_code FROM job")) == {
        ("COMPLETED", 1, None): len(app.accepted)
    }


def _check_deliveries(app: App, sink: Sink) -> None:
    """Everything accepted came, as what it is, and nothing else did."""
    told = {job: key for key, accepted in app.accepted.items() for job in accepted.jobs}
    came = {receipt.job: json.loads(receipt.body)["data"]["key"] for receipt in sink.receipts}
    assert came == told


def _check_duplicates(path: Path, sink: Sink) -> None:
    """A job comes again only after a kill, only where no outcome was written, and only so many.

    As many as work, and as many whose outcomes are being written.
    """
    came: dict[str, list[int]] = defaultdict(list)
    for receipt in sink.receipts:
        came[receipt.job].append(receipt.run)
    assert all(len(set(runs)) == len(runs) for runs in came.values()), "twice in one run"
    cut_off = Counter(run for runs in came.values() for run in runs[:-1])
    assert all(jobs <= 2 * WORKERS for jobs in cut_off.values())
    assert Counter(rows(path, "SELECT job_id, outcome FROM attempt")) == {
        (job, "delivered"): 1 for job in came
    }
