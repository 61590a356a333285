"""Part `claims`: what a claim costs, beside backlogs of other lanes; measured on the store itself."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from statistics import median
from time import perf_counter, time

import msgspec

from benchmarks.parts import Opened, Part, Plan
from benchmarks.results import Column, Values
from notifier.model import EventRecord, Job, JobState, Priority, new_id
from notifier.store import file_url, open_store
from notifier.store.base import Settlement, Store, Submission

_CLAIMED = 16
_TIMES = 200
_BATCH = 500
_LOOK = 512
_DATA = msgspec.Raw(b'{"note":"' + b"x" * 450 + b'"}')


@asynccontextmanager
async def _open(plan: Plan) -> AsyncIterator[Opened]:
    part = plan.size(1, 50)
    jobs, lanes = 100_000 // part, 10_000 // part
    backlogs = {
        "nothing": (0, 1, 0.0),
        f"{jobs:,} due jobs of one lane": (jobs, 1, 0.0),
        f"{lanes:,} lanes in back-off, 10 jobs each": (jobs, lanes, 3600.0),
        f"{lanes:,} lanes that are due, 10 jobs each": (jobs, lanes, 0.0),
    }
    yield Opened({name: partial(_costs, plan, *backlog) for name, backlog in backlogs.items()})


async def _costs(plan: Plan, jobs: int, lanes: int, delay: float) -> Values:
    async with _filled(plan, jobs, lanes, delay) as store:
        claims = [await _claimed(store) for _ in range(_TIMES)]
        looks = [await _looked(store) for _ in range(5)]
        return {"claim": median(claims), "look": median(looks)}


@asynccontextmanager
async def _filled(plan: Plan, jobs: int, lanes: int, delay: float) -> AsyncIterator[Store]:
    with plan.scratch() as folder:
        store = open_store(file_url(folder / "notifier.db"), folder)
        await store.open(time())
        numbers = [number % lanes for number in range(jobs)]
        random.Random(7).shuffle(numbers)  # noqa: S311 - the same order every time
        for start in range(0, jobs, _BATCH):
            await store.add([_one(f"lane-{number}", delay) for number in numbers[start : start + _BATCH]])
        yield store
        await store.close()


def _one(lane: str, delay: float = 0.0) -> Submission:
    now = time()
    event = EventRecord(id=new_id("evt", now), type="order.paid", data=_DATA, created_at=now)
    job = Job(
        id=new_id("job", now),
        event_id=event.id,
        event_type=event.type,
        channel="webhook",
        destination="http://127.0.0.1/hook",
        lane=lane,
        status=JobState.PENDING,
        created_at=now,
        updated_at=now,
        next_attempt_at=now + delay,
        max_attempts=8,
    )
    return Submission(event, (job,))


async def _claimed(store: Store) -> float:
    """Milliseconds of one claim; what it took is settled after."""
    await store.add([_one("well") for _ in range(_CLAIMED)])
    now, began = time(), perf_counter()
    got = await store.claim(
        priority=Priority.NORMAL, lanes=["well"], limit=_CLAIMED, per_lane=_CLAIMED, now=now, until=now + 60
    )
    took = (perf_counter() - began) * 1000
    assert len(got.claims) == _CLAIMED
    for each in got.claims:
        await store.settle(
            Settlement(job_id=each.job.id, claim=each.job.claim, status=JobState.COMPLETED, now=now)
        )
    return took


async def _looked(store: Store) -> float:
    """Milliseconds of a look at every lane that has work, as the dispatcher takes at its start."""
    began, after, found = perf_counter(), "", [("", 0.0)] * _LOOK
    while len(found) == _LOOK:
        found = await store.lanes(priority=Priority.NORMAL, after=after, limit=_LOOK)
        after = found[-1][0] if found else after
    return (perf_counter() - began) * 1000


PART = Part(
    name="claims",
    title="Claims beside what waits",
    columns={
        "claim": Column("a claim of 16 jobs, ms", ".2f"),
        "look": Column("a look at all lanes, ms", ".1f"),
    },
    open=_open,
    rounds=2,
)
