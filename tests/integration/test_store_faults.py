"""What the SQLite store holds when things go wrong: cancelled callers, full disks, rivals, broken files."""

import asyncio
import contextlib
import itertools
import os
import random
import re
import resource
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.builders import (
    NOW,
    born_claimed,
    endpoint,
    event_record,
    failed_job,
    job,
    lost,
    settlement,
    submission,
    suppression,
)
from support.database import OLD_VERSIONS, integrity, make_version, rows, shape
from support.stores import claim_just, claim_of

from notifier.errors import (
    IdempotencyConflictError,
    NotFoundError,
    StoreInUseError,
    StoreTooNewError,
    StoreUnavailableError,
)
from notifier.model import Claim, EndpointState, JobState, Priority, Timings
from notifier.store import open_store, sql
from notifier.store.base import JobFilter, Replay, Submission
from notifier.store.queries import filtered
from notifier.store.schema import SCHEMA_VERSION
from notifier.store.sqlite import SqliteStore

EVERYTHING = JobFilter()
UNTIL = NOW + 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store's file is to be."""
    return tmp_path / "notifier.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    """Open an empty store."""
    opened = SqliteStore(path)
    await opened.open(NOW)
    yield opened
    await opened.close()


def contents(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as another connection sees them."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return {
            name: database.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall()  # noqa: S608 - our own
            for (name,) in tables.fetchall()
        }


async def open_transactions(store: SqliteStore) -> list[bool]:
    """Whether each of the store's connections stands in a transaction."""
    return [await each.run(lambda database: database.in_transaction) for each in store._connections]


async def pragma(store: SqliteStore, connection: int, name: str) -> Any:
    """Ask one of the store's connections for a setting of its own."""
    query = f"PRAGMA {name}"
    return await store._connections[connection].run(lambda database: database.execute(query).fetchone()[0])


# Cancelled callers ---------------------------------------------------------------------------------


async def after_passes(passes: int, work: Awaitable[Any]) -> bool:
    """Cancel work after so many passes of the event loop. Returns whether that came in time."""
    task = asyncio.ensure_future(work)
    for _ in range(passes):
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


class Situation:
    """A store with a job in every state, the same rows each time one is made of the same plan."""

    def __init__(self) -> None:
        self.pending = submission(3, of=event_record(key="pending"))
        self.later = submission(next_attempt_at=NOW + 600)
        self.held = born_claimed(submission(lane="held"))
        self.done = born_claimed(submission(lane="done"))
        self.lost, self.lost_again = (
            born_claimed(submission(lane=lane, template="welcome", channel="email"))
            for lane in ("lost", "lost again")
        )
        self.fresh = submission(3, of=event_record(key="fresh"))
        born_failed = event_record()
        self.failed = Submission(born_failed, (failed_job(born_failed),))
        self.replay = Replay(id="rpl_1", filter=EVERYTHING, canary_job_id="job_1", created_at=NOW)
        self.claim = self._claim(self.held)

        self.again = self._claim(self.lost_again, 2)

    @staticmethod
    def _claim(made: Submission, fence: int = 1) -> Claim:
        return Claim(msgspec.structs.replace(made.jobs[0], claim=fence), made.event)

    async def make(self, path: Path) -> SqliteStore:
        """Open a store and bring it to this situation."""
        store = SqliteStore(path)
        await store.open(NOW)
        await store.add([self.pending, self.later, self.held, self.done, self.failed])
        await store.add([self.lost, self.lost_again])
        await store.settle(settlement(self._claim(self.done), JobState.COMPLETED))
        for each in (self.lost, self.lost_again):
            await store.settle(lost(self._claim(each)))
        await claim_of(store, ["lost again"], now=NOW + 60)
        await store.add_suppression(suppression())
        await store.count_bounce("email", "bob@example.com", NOW)
        await store.add_replay(self.replay)
        await store.add_endpoint(endpoint(id="ep_1"))
        return store


Act = Callable[[SqliteStore, Situation], Awaitable[Any]]

WRITES: dict[str, Act] = {
    "add": lambda store, at: store.add([at.fresh, at.pending]),
    "claim": lambda store, at: store.claim(
        priority=Priority.NORMAL, lanes=[at.pending.jobs[0].lane], limit=2, per_lane=2, now=NOW, until=UNTIL
    ),
    "add_claimed": lambda store, at: store.add([born_claimed(at.fresh), at.pending]),
    "settle": lambda store, at: store.settle(settlement(at.claim, JobState.COMPLETED)),
    "settle_and_keep": lambda store, at: store.settle(lost(at.claim)),
    "settle_and_keep_anew": lambda store, at: store.settle(lost(at.again, b"another")),
    "settle_and_forget": lambda store, at: store.settle(settlement(at.again, JobState.COMPLETED)),
    "requeue_and_forget": lambda store, at: store.requeue(at.lost.jobs[0].id, NOW + 1),
    "cancel_and_forget": lambda store, at: store.cancel(at.lost.jobs[0].id, NOW + 1),
    "add_suppression": lambda store, _: store.add_suppression(suppression(category="news")),
    "drop_suppression": lambda store, _: store.drop_suppression("email", "ada@example.com", None),
    "count_bounce": lambda store, _: store.count_bounce("email", "bob@example.com", NOW + 1),
    "forget_bounces": lambda store, _: store.forget_bounces("email", "bob@example.com"),
    "renew": lambda store, at: store.renew([(at.claim.job.id, 1)], UNTIL + 60),
    "rescue": lambda store, _: store.rescue(UNTIL),
    "requeue": lambda store, at: store.requeue(at.failed.jobs[0].id, NOW + 1),
    "cancel": lambda store, at: store.cancel(at.later.jobs[0].id, NOW + 1),
    "requeue_some": lambda store, _: store.requeue_some(EVERYTHING, now=NOW + 1, limit=9),
    "cancel_some": lambda store, _: store.cancel_some(EVERYTHING, now=NOW + 1, limit=9),
    "add_endpoint": lambda store, _: store.add_endpoint(endpoint(id="ep_2")),
    "save_endpoint": lambda store, at: store.save_endpoint(
        endpoint(id="ep_1", state=EndpointState.DISABLED), [at.fresh]
    ),
    "drop_endpoint": lambda store, _: store.drop_endpoint("ep_1"),
    "add_replay": lambda store, _: store.add_replay(
        Replay(id="rpl_2", filter=EVERYTHING, canary_job_id="job_2", created_at=NOW)
    ),
    "drop_replay": lambda store, _: store.drop_replay("rpl_1"),
    "prune": lambda store, _: store.prune(completed_before=UNTIL, failed_before=UNTIL, limit=9),
    "setting": lambda store, _: store.setting("name", "value"),
    "checkpoint": lambda store, _: store.checkpoint(),
    "ping": lambda store, _: store.ping(),
}

READS: dict[str, Act] = {
    "event": lambda store, at: store.event(at.pending.event.id),
    "job": lambda store, at: store.job(at.claim.job.id),
    "attempts": lambda store, at: store.attempts(at.done.jobs[0].id),
    "jobs": lambda store, _: store.jobs(EVERYTHING, limit=3),
    "count": lambda store, _: store.count(EVERYTHING),
    "counts": lambda store, _: store.counts(),
    "failures": lambda store, _: store.failures(EVERYTHING),
    "replays": lambda store, _: store.replays(),
    "endpoints": lambda store, _: store.endpoints(),
    "kept_content": lambda store, at: store.kept_content(at.lost.jobs[0].id),
    "recent": lambda store, _: store.recent("welcome", 9),
    "suppressed": lambda store, _: store.suppressed("email", "ada@example.com", "news"),
    "suppressions": lambda store, _: store.suppressions(limit=9),
    "lanes": lambda store, _: store.lanes(priority=Priority.NORMAL, after="", limit=9),
}


def passes() -> Iterator[int]:
    """At which pass of the loop to cancel: the first few, each of them, then ever farther apart."""
    return itertools.chain(range(6), (2**power for power in itertools.count(3)))


@pytest.mark.parametrize("act", WRITES.values(), ids=WRITES)
async def test_a_cancelled_write_happens_whole_or_not_at_all(act: Act, tmp_path: Path) -> None:
    """Wherever its caller was cancelled, no transaction stays open, and the store goes on."""
    situation = Situation()
    reference = await situation.make(tmp_path / "reference.db")
    before = contents(reference.path)
    await act(reference, situation)
    await reference.close()
    allowed = (before, contents(reference.path))
    for count in passes():
        store = await situation.make(tmp_path / f"{count}.db")
        cancelled = await after_passes(count, act(store, situation))
        await store.ping()
        assert contents(store.path) in allowed
        assert not any(await open_transactions(store))
        await store.close()
        if not cancelled:
            break


@pytest.mark.parametrize("act", READS.values(), ids=READS)
async def test_a_cancelled_read_leaves_nothing_behind(act: Act, path: Path) -> None:
    """The next reader gets its own answer, and the writer is not held up."""
    situation = Situation()
    store = await situation.make(path)
    expected = await act(store, situation)
    for count in passes():
        cancelled = await after_passes(count, act(store, situation))
        assert await act(store, situation) == expected
        assert not any(await open_transactions(store))
        if not cancelled:
            break
    assert len(await store.add([situation.fresh])) == 1
    await store.close()


async def test_a_cancelled_open_lets_go_of_the_file(tmp_path: Path) -> None:
    """Wherever it was cancelled, the next may open the file, and finds it whole."""
    for count in passes():
        path = tmp_path / f"{count}.db"
        store = SqliteStore(path)
        cancelled = await after_passes(count, store.open(NOW))
        if cancelled:
            with pytest.raises(StoreUnavailableError):
                await store.ping()
        await store.close()
        successor = SqliteStore(path)
        assert await successor.open(NOW) == 0
        await successor.add([submission()])
        await successor.close()
        if not cancelled:
            break


async def test_a_cancelled_close_can_be_done_again(tmp_path: Path) -> None:
    """What was handed in is written and answered all the same, and the file is let go of in the end."""
    for count in passes():
        path = tmp_path / f"{count}.db"
        store = SqliteStore(path)
        await store.open(NOW)
        adding = [asyncio.ensure_future(store.add([submission()])) for _ in range(3)]
        await asyncio.sleep(0)
        cancelled = await after_passes(count, store.close())
        await store.close()
        assert [len(added) for added in await asyncio.gather(*adding)] == [1, 1, 1]
        successor = SqliteStore(path)
        await successor.open(NOW)
        assert await successor.count(EVERYTHING) == 3
        await successor.close()
        if not cancelled:
            break


async def test_a_storm_of_cancellations_leaves_every_event_whole_or_absent(store: SqliteStore) -> None:
    """Posters hang up at any moment: an event has all its jobs or does not exist, and no one else minds."""
    chance = random.Random(7)  # noqa: S311 - a test's dice
    made = [submission(3) for _ in range(300)]
    tasks = [asyncio.ensure_future(store.add([each])) for each in made]
    for task in chance.sample(tasks, 200):
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    await store.ping()
    for each, answer in zip(made, answers, strict=True):
        try:
            _, jobs = await store.event(each.event.id)
        except NotFoundError:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert jobs == list(each.jobs)
    assert not any(await open_transactions(store))


# Batches -------------------------------------------------------------------------------------------


async def test_what_waits_is_committed_together(store: SqliteStore) -> None:
    """500 adds at once cost a few commits, not 500: that is what makes an fsync for each batch affordable."""
    traced: list[str] = []
    writing = store._connections[0]
    await writing.run(lambda database: database.set_trace_callback(traced.append))
    before = store.commits
    await asyncio.gather(*(store.add([submission()]) for _ in range(500)))
    assert await store.count(EVERYTHING) == 500
    assert traced.count("COMMIT") == store.commits - before <= 3


async def test_what_is_handed_in_is_written_in_that_order(store: SqliteStore) -> None:
    """A settle that comes after a rescue is too late, and one before it is not, though one commit has all."""
    made = [born_claimed(submission()) for _ in range(2)]
    await store.add(made)
    first, second = (Claim(each.jobs[0], each.event) for each in made)
    loop, begun, gate = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> bool:
        loop.call_soon_threadsafe(begun.set)
        return gate.wait()

    holding = asyncio.ensure_future(store._write(hold))
    await begun.wait()
    before = store.commits
    early = store.settle(settlement(first, JobState.COMPLETED))
    rescuing = asyncio.ensure_future(store.rescue(UNTIL))
    await asyncio.sleep(0)
    late = store.settle(settlement(second, JobState.COMPLETED))
    gate.set()
    assert await early
    assert await rescuing == 1
    assert not await late
    await holding
    assert store.commits - before == 2


async def test_adds_wait_for_no_settles(store: SqliteStore) -> None:
    """However many wait to be settled, what is added goes with the next transaction."""
    held = born_claimed(submission(3000))
    await store.add([held])
    settling = [store.settle(settlement(Claim(each, held.event), JobState.COMPLETED)) for each in held.jobs]
    adding = store.add([submission()])
    await adding
    assert not all(each.done() for each in settling)
    assert await asyncio.gather(*settling) == [True] * 3000


async def test_settles_get_on_beside_any_number_of_adds(store: SqliteStore) -> None:
    """A flood of events does not keep what was delivered from being written down."""
    held = born_claimed(submission())
    await store.add([held])
    adding = [store.add([submission() for _ in range(500)]) for _ in range(6)]
    assert await store.settle(settlement(Claim(held.jobs[0], held.event), JobState.COMPLETED))
    assert not all(each.done() for each in adding)
    await asyncio.gather(*adding)


async def test_one_settle_that_is_too_late_harms_none_beside_it(store: SqliteStore) -> None:
    """Those that hold are written in the same commit, whatever they come to, each with its attempt."""
    held = born_claimed(submission(6))
    await store.add([held])
    claims = [Claim(each, held.event) for each in held.jobs]
    before = store.commits
    answers = await asyncio.gather(
        *(store.settle(settlement(each, JobState.COMPLETED)) for each in claims[:2]),
        store.settle(settlement(claims[2], JobState.COMPLETED, fence=7)),
        store.settle(settlement(claims[0], JobState.FAILED)),
        store.settle(settlement(claims[3], JobState.FAILED)),
        store.settle(settlement(claims[4], JobState.PENDING)),
    )
    assert answers == [True, True, False, False, True, True]
    assert store.commits - before == 1
    assert [len(await store.attempts(each.job.id)) for each in claims] == [1, 1, 0, 1, 1, 0]


async def test_commits_and_their_time_are_counted(store: SqliteStore) -> None:
    """What `notifier bench` tells of the disk."""
    commits, seconds = store.commits, store.commit_seconds
    await store.add([submission()])
    assert store.commits == commits + 1
    assert store.commit_seconds > seconds


async def test_a_batch_is_bounded(store: SqliteStore) -> None:
    """Ten calls of a thousand events are not one transaction: who comes later need not wait for all."""
    before = store.commits
    await asyncio.gather(*(store.add([submission() for _ in range(1000)]) for _ in range(10)))
    assert store.commits - before > 1
    assert await store.count(EVERYTHING) == 10_000


async def test_a_conflict_costs_its_batch_nothing(store: SqliteStore) -> None:
    """Two adds of one batch, one of them in conflict: one commit, and each has its own answer."""
    await store.add([submission(of=event_record(key="k"))])
    before = store.commits
    refused, added = await asyncio.gather(
        store.add([submission(of=event_record(key="k", body="{}"))]),
        store.add([submission()]),
        return_exceptions=True,
    )
    assert isinstance(refused, IdempotencyConflictError)
    assert isinstance(added, list)
    assert store.commits - before == 1


@pytest.mark.parametrize(
    "bad",
    [
        lambda store: store.add([submission(of=event_record(body="{}", data=msgspec.Raw(b"\xff")))]),
        lambda store: store.add([submission(status="LOST")]),
        lambda store: store.add([submission(attempts=-1)]),
        lambda store: store.add_replay(Replay(id="r", filter=EVERYTHING, canary_job_id="", created_at=NOW)),
        lambda store: store.setting("name", None),
        lambda store: store.requeue_some(EVERYTHING, now=NOW, limit="many"),
    ],
    ids=["text", "check", "range", "unique", "null", "type"],
)
async def test_a_failing_batch_is_tried_again_one_by_one(
    store: SqliteStore, bad: Callable[[SqliteStore], Awaitable[Any]]
) -> None:
    """Whatever is wrong with one operation, those beside it are written, and the writer lives."""
    await store.add_replay(Replay(id="r", filter=EVERYTHING, canary_job_id="", created_at=NOW))
    good = [submission() for _ in range(4)]
    answers = await asyncio.gather(
        store.add([good[0]]),
        bad(store),
        store.add([good[1]]),
        store.setting("kept", "value"),
        store.add(good[2:]),
        return_exceptions=True,
    )
    assert isinstance(answers[1], Exception)
    assert [len(answers[index]) for index in (0, 2, 4)] == [1, 1, 2]  # type: ignore[arg-type]  # lists all
    assert answers[3] == "value"
    assert await store.count(EVERYTHING) == 4
    assert not any(await open_transactions(store))
    await store.ping()


# Full disks ----------------------------------------------------------------------------------------


def bulky(key: str | None = None) -> Submission:
    """An event of a quarter of a MiB."""
    body = msgspec.json.encode({"text": "x" * 2**18}).decode()
    return submission(of=event_record(key=key, body=body))


async def test_a_full_disk_is_said_and_survived(store: SqliteStore, path: Path) -> None:
    """What did not fit was not stored; reads go on; and once there is room, so do writes."""
    await store.add([submission()])
    before = contents(path)
    pages = await pragma(store, 0, "page_count")
    await pragma(store, 0, f"max_page_count = {pages + 4}")
    answers = await asyncio.gather(store.add([bulky("k")]), store.add([bulky()]), return_exceptions=True)
    assert [type(each) for each in answers] == [StoreUnavailableError] * 2
    assert "full" in str(answers[0])
    assert contents(path) == before
    assert await store.count(EVERYTHING) == 1
    assert not any(await open_transactions(store))
    await pragma(store, 0, "max_page_count = 1000000")
    (added,) = await store.add([bulky("k")])
    assert not added.duplicate
    assert await store.count(EVERYTHING) == 2


async def test_a_small_write_beside_one_that_does_not_fit_is_stored(store: SqliteStore) -> None:
    """A nearly full disk still takes what it can."""
    await store.add([submission()])
    await pragma(store, 0, f"max_page_count = {await pragma(store, 0, 'page_count') + 4}")
    small = submission()
    refused, added = await asyncio.gather(store.add([bulky()]), store.add([small]), return_exceptions=True)
    assert isinstance(refused, StoreUnavailableError)
    assert isinstance(added, list)
    assert (await store.event(small.event.id))[1] == list(small.jobs)


@contextlib.contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Refuse this process to write beyond so many bytes into any file, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_commit_that_fails_is_unknown_and_its_key_resolves_it(store: SqliteStore, path: Path) -> None:
    """The error says that nobody knows; to post again under the same key makes one event, not two."""
    await store.add([submission()])
    log = path.with_name(path.name + "-wal")
    again = bulky("k")
    with files_no_longer_than(log.stat().st_size + 8192), pytest.raises(StoreUnavailableError):
        await store.add([again])
    assert not any(await open_transactions(store))
    (added,) = await store.add([again])
    assert added.event.id == again.event.id
    assert await store.count(EVERYTHING) == 2
    assert len(contents(path)["event"]) == 2


async def test_a_full_disk_shows_before_anyone_posts(store: SqliteStore, path: Path) -> None:
    """A ping writes a page, so readiness fails with the disk; it changes nothing, and passes again after."""
    await store.add([submission()])
    before = contents(path)
    log = path.with_name(path.name + "-wal")
    with files_no_longer_than(log.stat().st_size), pytest.raises(StoreUnavailableError):
        await store.ping()
    await store.ping()
    assert contents(path) == before


async def test_no_batch_is_written_twice_because_its_commit_failed(store: SqliteStore, path: Path) -> None:
    """All of that batch are told that nobody knows: to try them one by one might send things twice."""
    await store.add([submission()])
    log = path.with_name(path.name + "-wal")
    before = store.commits
    with files_no_longer_than(log.stat().st_size + 1024):
        answers = await asyncio.gather(*(store.add([submission()]) for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in answers] == [StoreUnavailableError] * 5
    assert store.commits == before
    await store.ping()
    assert await store.count(EVERYTHING) in {1, 6}
    await store.add([submission()])


# One owner -----------------------------------------------------------------------------------------

OPEN_AND_REPORT = """
import asyncio, sys
from notifier.errors import StoreError
from notifier.store.sqlite import SqliteStore

async def main():
    store = SqliteStore(sys.argv[1])
    try:
        await store.open(0.0)
    except StoreError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return
    print("open", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def started(program: str, *arguments: str | Path) -> asyncio.subprocess.Process:
    """Start a Python program in a process of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )


async def line_of(process: asyncio.subprocess.Process) -> str:
    """The next line that a process writes."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def test_a_second_store_on_one_file_is_refused(store: SqliteStore, path: Path) -> None:
    """The message names the file and its owner; the first goes on, and the refused one can try later."""
    rival = SqliteStore(path)
    with pytest.raises(StoreInUseError, match=re.escape(str(path))):
        await rival.open(NOW)
    await store.add([submission()])
    await store.close()
    assert await rival.open(NOW) == 0
    assert await rival.count(EVERYTHING) == 1
    await rival.close()


async def test_a_second_process_is_refused(store: SqliteStore, path: Path) -> None:
    """It learns which file, and the process id of who has it."""
    await store.ping()
    process = await started(OPEN_AND_REPORT, path)
    said = await line_of(process)
    assert said.startswith(f"StoreInUseError: {path}: ")
    assert f"process {os.getpid()}" in said
    assert await process.wait() == 0


async def test_another_name_for_the_file_is_the_same_file(store: SqliteStore, path: Path) -> None:
    """A symbolic link opens no back door to a second owner."""
    await store.ping()
    link = path.with_name("link.db")
    link.symlink_to(path)
    with pytest.raises(StoreInUseError):
        await SqliteStore(link).open(NOW)


async def test_a_killed_owner_leaves_no_lock_behind(path: Path) -> None:
    """However it died, the next process takes over at once, with nothing to clean up by hand."""
    process = await started(OPEN_AND_REPORT, path)
    assert await line_of(process) == "open"
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    store = SqliteStore(path)
    await store.open(NOW)
    await store.close()


ADD_FOR_EVER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from notifier.store.sqlite import SqliteStore
from support.builders import submission

async def post(store):
    while True:
        made = submission(3)
        await store.add([made])
        print(made.event.id, flush=True)

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open(0.0)
    await asyncio.gather(*(post(store) for _ in range(8)))

asyncio.run(main())
"""


async def test_what_was_answered_outlives_a_kill(path: Path) -> None:
    """Killed while it writes: every event that was answered is there, and every one there is whole."""
    process = await started(ADD_FOR_EVER, path, Path(__file__).parent.parent)
    answered = [await line_of(process) for _ in range(100)]
    process.kill()
    answered += (await process.communicate())[0].decode().split("\n")[:-1]
    store = SqliteStore(path)
    await store.open(NOW)
    for event_id in answered:
        assert len((await store.event(event_id))[1]) == 3
    await store.close()
    kept = contents(path)
    assert len(kept["job"]) == 3 * len(kept["event"])


# Files that are not what they should be ------------------------------------------------------------


def bytes_of(path: Path) -> bytes:
    """What a file holds."""
    return path.read_bytes()


def overwritten(path: Path, data: bytes) -> bytes:
    """Make this all that a file holds."""
    path.write_bytes(data)
    return data


async def test_a_newer_schema_is_left_alone(path: Path) -> None:
    """An older program refuses the file in words, changes nothing, and does not keep the lock."""
    store = SqliteStore(path)
    await store.open(NOW)
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    for _ in range(2):
        with pytest.raises(StoreTooNewError, match=re.escape(str(path))):
            await SqliteStore(path).open(NOW)


@pytest.mark.parametrize("version", OLD_VERSIONS)
async def test_an_old_store_is_brought_up_to_date(path: Path, version: int) -> None:
    """All that it held is there, what was under way is given back, and it is a store like any other."""
    make_version(version, path)
    store = SqliteStore(path)
    assert await store.open(NOW + 100) == 1
    event, jobs = await store.event("evt_1")
    assert (event.tenant, event.idempotency_key, bytes(event.data)) == ("acme", "k-1", b'{"total":120}')
    assert [(each.id, each.status, each.next_attempt_at) for each in jobs] == [
        ("job_1", JobState.COMPLETED, None),
        ("job_2", JobState.PENDING, NOW + 60),
    ]
    assert (await store.job("job_3")).next_attempt_at == NOW + 100
    assert [group.cause for group in await store.failures(EVERYTHING)] == ["c4"]
    assert [(each.outcome, each.response, each.via) for each in await store.attempts("job_1")] == [
        ("retry", "later", None),
        ("delivered", "thanks", None),
    ]
    assert [each.filter for each in await store.replays()] == [JobFilter(status=JobState.FAILED)]
    assert await store.setting("plain", "another") == "value"
    await check_as_any_other(store)
    await store.close()
    assert integrity(path) == ["ok"]


async def check_as_any_other(store: SqliteStore) -> None:
    """What was stored before is sent, kept, found and suppressed like what is stored now."""
    (_, mail) = (await store.event("evt_1"))[1]
    assert (mail.category, mail.addressed, mail.kept) == (None, None, False)
    (claim,) = await claim_just(store, mail.id, now=NOW + 60, until=NOW + 120)
    assert await store.settle(lost(claim))
    assert await store.kept_content(mail.id) == b"the mail"
    assert [job.id for job, _ in await store.recent("paid", 9)] == [mail.id]
    assert await store.suppressed("email", "ada@example.com", None) is None
    assert await store.count_bounce("email", "ada@example.com", NOW) == 1
    await store.add([submission()])


async def test_a_store_of_version_2_keeps_its_endpoints_and_timings(path: Path) -> None:
    """What came with that version is as it was."""
    make_version(2, path)
    store = SqliteStore(path)
    await store.open(NOW + 100)
    (kept,) = await store.endpoints()
    assert (kept.id, kept.state, kept.headers) == ("ep_1", EndpointState.PAUSED, {"X-Key": "h-1"})
    assert [each.timings for each in await store.attempts("job_1")] == [
        None,
        Timings(dns=0.001, connect=0.002, tls=0.003, wait=0.1, body=0.005, sent=300, received=6),
    ]
    await store.close()


@pytest.mark.parametrize("version", OLD_VERSIONS)
async def test_a_store_brought_up_to_date_is_as_a_new_one(path: Path, version: int) -> None:
    """Tables, columns, checks, keys and indexes are the same, so that both are read and tested as one."""
    make_version(version, path)
    new = path.with_name("new.db")
    for each in (path, new):
        store = SqliteStore(each)
        await store.open(NOW)
        await store.close()
    assert shape(path) == shape(new)


@pytest.mark.parametrize("version", OLD_VERSIONS)
async def test_a_store_that_can_not_be_brought_up_to_date_stays_as_it_was(
    path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last statement fails: not even the first has happened, and the older program could go on."""
    make_version(version, path)
    before = (contents(path), shape(path))
    script = sql.script
    monkeypatch.setattr(sql, "script", lambda file: script(file) + "DROP TABLE nowhere;")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=rf"{re.escape(str(path))}.*nowhere"):
            await SqliteStore(path).open(NOW)
    assert (contents(path), shape(path)) == before
    assert rows(path, "PRAGMA user_version") == [(version,)]


@pytest.mark.parametrize("version", OLD_VERSIONS)
async def test_a_cancelled_step_to_a_new_version_is_whole_or_not_at_all(version: int, tmp_path: Path) -> None:
    """Wherever the first start of a new program is cut short, the next one finds a store it can open."""
    for count in passes():
        path = tmp_path / f"{count}.db"
        make_version(version, path)
        store = SqliteStore(path)
        cancelled = await after_passes(count, store.open(NOW))
        await store.close()
        successor = SqliteStore(path)
        await successor.open(NOW)
        assert await successor.count(EVERYTHING) == 4
        await successor.close()
        if not cancelled:
            break


async def test_a_file_that_is_no_database_is_refused_and_kept(path: Path) -> None:
    """The message names the file; whatever it holds is still there."""
    before = overwritten(path, b"this is my diary, not a database\n" * 300)
    with pytest.raises(StoreUnavailableError, match=rf"{re.escape(str(path))}.*not a database"):
        await SqliteStore(path).open(NOW)
    assert bytes_of(path) == before


async def test_a_damaged_database_is_said_to_be_damaged(path: Path) -> None:
    """Pages that were overwritten end in an error that names the file, in opening it or in using it."""
    store = SqliteStore(path)
    await store.open(NOW)
    await store.add([submission() for _ in range(500)])
    await store.close()
    whole = bytes_of(path)
    overwritten(path, whole[:4096] + b"\xa5" * (len(whole) - 4096))
    damaged = SqliteStore(path)
    with pytest.raises(StoreUnavailableError, match=re.escape(str(path))):  # noqa: PT012 - in either
        await damaged.open(NOW)
        await damaged.count(EVERYTHING)
    await damaged.close()


@pytest.mark.parametrize("place", ["missing/notifier.db", "file/notifier.db", "folder"])
async def test_a_place_where_no_file_can_be_is_named(tmp_path: Path, place: str) -> None:
    """No such folder, a file in place of one, or a folder in place of the file."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreUnavailableError, match=re.escape(str(tmp_path / place))):
        await SqliteStore(tmp_path / place).open(NOW)


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    """As `touch` or a volume mount may leave it."""
    overwritten(path, b"")
    store = open_store("sqlite:///notifier.db", path.parent)
    assert await store.open(NOW) == 0
    await store.close()


# What is in force ----------------------------------------------------------------------------------


async def test_commits_are_synced(store: SqliteStore) -> None:
    """WAL with synchronous=FULL (2): a 202 survives a power cut, not only a crash of this program."""
    assert await pragma(store, 0, "journal_mode") == "wal"
    assert await pragma(store, 0, "synchronous") == 2
    assert await pragma(store, 0, "foreign_keys") == 1


async def test_readers_can_not_write(store: SqliteStore) -> None:
    """The connection that answers the API is `query_only`: only the writer's batches change anything."""
    await store.add([submission()])
    assert await pragma(store, 1, "query_only") == 1
    with pytest.raises(StoreUnavailableError, match="readonly"):
        await store._read(lambda database: database.execute("DELETE FROM job"))
    assert await store.count(EVERYTHING) == 1


@pytest.mark.parametrize(
    "broken",
    [
        "status = 'LOST'",
        "status = 'COMPLETED'",
        "status = 'PROCESSING', next_attempt_at = NULL",
        "status = 'FAILED', next_attempt_at = NULL",
        "next_attempt_at = NULL",
        "next_attempt_at = 'soon'",
        "claimed_until = 1",
        "cause = 'x'",
        "priority = 3",
        "attempts = -1",
        "error_code = 'x'",
        "event_seq = 999",
        "kept = 2",
        "kept = 1, status = 'CANCELLED', next_attempt_at = NULL",
    ],
)
async def test_the_database_refuses_what_a_state_can_not_be(store: SqliteStore, broken: str) -> None:
    """A fault in this program, or a hand at the file, can't leave a job in no state at all."""
    await store.add([submission()])
    statement = f"UPDATE job SET {broken}"  # noqa: S608 - the cases above
    with pytest.raises(sqlite3.IntegrityError):
        await store._write(lambda database: database.execute(statement))


# Cost ----------------------------------------------------------------------------------------------

QUERIES = sql.load("sqlite.sql")
OF_THE_WORKERS = (
    "due_of_lanes",
    "lanes",
    "next_due_of_lanes",
    "claim",
    "claimed",
    "stale_or_kept",
    "complete",
    "settle",
    "renew",
    "rescue",
    "known_keys",
    "event_by_id",
    "jobs_of_event",
    "job",
    "attempts",
    "state_of_job",
    "requeue",
    "cancel",
    "mark_kept",
    "keep_content",
    "forget_content",
    "unmark_kept",
    "kept_content",
    "suppressed",
    "has_bounced",
    "forget_bounces",
    "delete_bounces",
    "recent",
    "events_of_jobs",
    "delete_attempts",
    "delete_jobs",
    "delete_events",
    "old_jobs",
    "old_events",
)
TABLES = {"job", "due", "later", "event", "attempt", "kept", "suppression", "bounce"}


async def plan(store: SqliteStore, query: str) -> list[str]:
    """How SQLite goes about a query."""
    values = dict.fromkeys(re.findall(r":(\w+)", query))
    explain = f"EXPLAIN QUERY PLAN {query}"
    rows = await store._connections[0].run(lambda database: database.execute(explain, values).fetchall())
    return [row[3] for row in rows]


@pytest.mark.parametrize("name", OF_THE_WORKERS)
async def test_no_query_of_the_workers_scans_a_table(store: SqliteStore, name: str) -> None:
    """Each finds its rows by an index, however many others there are."""
    steps = await plan(store, QUERIES[name])
    assert steps
    assert not [step for step in steps if step.startswith("SCAN") and step.split()[1] in TABLES]


async def test_what_waits_is_counted_without_a_look_at_its_events(store: SqliteStore) -> None:
    """Counting a million jobs reads one index, unless what is asked for stands in the event."""
    query, _ = filtered("count", JobFilter(status=JobState.PENDING))
    assert [step for step in await plan(store, query) if " event " in step] == []
    query, _ = filtered("count", JobFilter(status=JobState.PENDING, tenant="acme"))
    (found,) = [step for step in await plan(store, query) if " event " in step]
    assert found.startswith("SEARCH event USING INTEGER PRIMARY KEY")


async def test_failures_are_found_among_the_failed(store: SqliteStore) -> None:
    """The groups of causes are made from the index of FAILED jobs, not from all jobs."""
    query = QUERIES["failures"].replace("{conditions}", "")
    (found,) = [step for step in await plan(store, query) if re.match(r"(SCAN|SEARCH) job\b", step)]
    assert "USING INDEX job_failed" in found


async def test_what_waits_for_an_endpoint_is_found_among_nothing_else(store: SqliteStore) -> None:
    """To cancel it costs no look at what waits for others, nor at what was delivered."""
    query, _ = filtered("some_pending", JobFilter(endpoint="ep_1", status=JobState.PENDING))
    (found,) = [step for step in await plan(store, query) if re.match(r"(SCAN|SEARCH) job\b", step)]
    assert "USING INDEX job_by_endpoint" in found


async def test_a_recipients_suppressions_are_found_among_no_others(store: SqliteStore) -> None:
    """However long the list is, to look one address up reads none but its own."""
    conditions = "\n".join(QUERIES[f"suppressions_{name}"] for name in ("recipient", "channel", "reason"))
    query = QUERIES["suppressions"].replace("{conditions}", conditions)
    (found,) = [step for step in await plan(store, query) if "suppression" in step]
    assert "(recipient=? AND channel=?" in found


async def test_a_delivery_to_who_never_bounced_costs_no_write(store: SqliteStore) -> None:
    """It is asked for at every delivery of a mail."""
    await store.ping()
    before = store.commits
    await store.forget_bounces("email", "ada@example.com")
    assert store.commits == before


async def test_what_is_large_to_keep_is_not_all_one_transaction(store: SqliteStore) -> None:
    """A relay that breaks off many large mails at once does not have everybody else wait for all of them."""
    await store.add([submission(8, lane="lost")])
    claimed = await store.claim(
        priority=Priority.NORMAL, lanes=["lost"], limit=8, per_lane=8, now=NOW, until=UNTIL
    )
    before = store.commits
    assert all(await asyncio.gather(*(store.settle(lost(each, bytes(2**22))) for each in claimed.claims)))
    assert store.commits - before >= 2


async def test_settles_of_one_kept_job_are_written_at_the_first_go(store: SqliteStore) -> None:
    """One that holds, one under the same claim, and one that is too late: told apart within their batch."""
    await store.add([submission(2, lane="lost")])
    asked: dict[str, Any] = {"priority": Priority.NORMAL, "lanes": ["lost"], "limit": 2, "per_lane": 2}
    first = (await store.claim(**asked, now=NOW, until=UNTIL)).claims
    for each in first:
        await store.settle(lost(each))
    second = (await store.claim(**asked, now=UNTIL, until=UNTIL + 60)).claims
    before = store.commits
    outcomes = [
        [settlement(each, JobState.COMPLETED), lost(each), settlement(each, JobState.FAILED, fence=1)]
        for each in second
    ]
    outcomes[1][:2] = outcomes[1][1::-1]
    answers = await asyncio.gather(*(store.settle(each) for of_job in outcomes for each in of_job))
    assert answers == [True, False, False] * 2
    assert store.commits - before == 1
    assert [await store.kept_content(each.job.id) for each in second] == [None, b"the mail"]


async def test_a_mail_that_can_not_be_kept_leaves_its_job_claimed(store: SqliteStore, path: Path) -> None:
    """There is no room for it: the settle fails as a whole, and holds once there is room."""
    await store.add([submission(lane="lost")])
    claimed = await store.claim(
        priority=Priority.NORMAL, lanes=["lost"], limit=1, per_lane=1, now=NOW, until=UNTIL
    )
    outcome = lost(claimed.claims[0], bytes(2**18))
    before = contents(path)
    await pragma(store, 0, f"max_page_count = {await pragma(store, 0, 'page_count') + 4}")
    with pytest.raises(StoreUnavailableError, match="full"):
        await store.settle(outcome)
    assert contents(path) == before
    await pragma(store, 0, "max_page_count = 1000000")
    assert await store.settle(outcome)
    assert await store.kept_content(outcome.job_id) == bytes(2**18)


@pytest.mark.parametrize("spread", [1, 400], ids=["one lane", "400 lanes"])
async def test_a_claim_costs_no_more_as_the_backlog_grows(tmp_path: Path, spread: int) -> None:
    """Ten times the jobs in the same lanes: the same work to claim some and to look for the next."""
    short, long = [await steps_of_a_claim(tmp_path / f"{size}.db", size, spread) for size in (1000, 10_000)]
    assert long < short * 1.5


async def steps_of_a_claim(path: Path, size: int, spread: int) -> int:
    """Hundreds of steps that SQLite's machine takes to claim 50 of so many jobs."""
    store = SqliteStore(path)
    await store.open(NOW)
    for start in range(0, size, 1000):
        event = event_record()
        jobs = [job(event, lane=f"lane-{number % spread:03}") for number in range(start, start + 1000)]
        await store.add([Submission(event, tuple(jobs))])
    steps = itertools.count()
    for connection in store._connections[:2]:
        await connection.run(lambda database: database.set_progress_handler(lambda: next(steps) and 0, 100))
    lanes = [lane for lane, _ in await store.lanes(priority=Priority.NORMAL, after="", limit=256)]
    claimed = await store.claim(
        priority=Priority.NORMAL, lanes=lanes, limit=50, per_lane=50, now=NOW, until=UNTIL
    )
    assert len(claimed.claims) == 50
    await store.close()
    return next(steps)
