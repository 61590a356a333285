"""The backends whose stores are tested alike, and how a test brings jobs to where it wants them.

A backend joins by one line in `BACKENDS`.
"""

from collections.abc import Sequence
from typing import Any

from support.builders import NOW, born_claimed, settlement, submission

from notifier.model import Claim, Job, JobState, Priority
from notifier.store import Store
from notifier.store.base import Claimed, Submission

BACKENDS = {"sqlite": "sqlite:///notifier.db"}

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState
UNTIL = NOW + 60


async def put(store: Store, *submissions: Submission) -> list[Job]:
    """Store submissions one by one, and return all their jobs."""
    for each in submissions:
        await store.add([each])
    return [each for submission in submissions for each in submission.jobs]


async def claim_of(store: Store, lanes: Sequence[str], limit: int = 100, **asked: Any) -> Claimed:
    """Claim what is due of normal priority in these lanes, without a bound that the test doesn't name."""
    whole: dict[str, Any] = {"priority": Priority.NORMAL, "per_lane": 100, "now": NOW} | asked
    return await store.claim(lanes=lanes, limit=limit, until=whole["now"] + 60, **whole)


async def take(store: Store, limit: int = 100, **asked: Any) -> list[Claim]:
    """Claim what is due of normal priority, in every lane there is unless the test names some."""
    if "lanes" not in asked:
        priority = asked.get("priority", Priority.NORMAL)
        asked["lanes"] = [lane for lane, _ in await store.lanes(priority=priority, after="", limit=1000)]
    return (await claim_of(store, limit=limit, **asked)).claims


async def take_one(store: Store, *, now: float = NOW, **changes: Any) -> Claim:
    """Store one job and claim it."""
    await put(store, submission(**changes))
    (claim,) = await take(store, now=now)
    return claim


async def claim_just(store: Store, *job_ids: str, now: float = NOW, until: float = UNTIL) -> list[Claim]:
    """Claim these jobs, in this order. Of their lanes, nothing else may be due."""
    jobs = [await store.job(each) for each in job_ids]
    taken = await store.claim(
        priority=jobs[0].priority,
        lanes=[each.lane for each in jobs],
        limit=1000,
        per_lane=1000,
        now=now,
        until=until,
    )
    claims = {claim.job.id: claim for claim in taken.claims}
    assert claims.keys() == set(job_ids)
    return [claims[each] for each in job_ids]


async def finish(store: Store, state: JobState, *, now: float = NOW, **changes: Any) -> Job:
    """Bring a new job to a state by the ways that lead there."""
    made = submission(**changes)
    (job,) = await put(store, made if state in {PENDING, CANCELLED} else born_claimed(made, UNTIL))
    if state is CANCELLED:
        return await store.cancel(job.id, now)
    if state not in {PENDING, PROCESSING}:
        assert await store.settle(settlement(Claim(job, made.event), state, now=now))
    return await store.job(job.id)


def ids(jobs: Sequence[Job] | Sequence[Claim]) -> list[str]:
    """The ids of jobs, claimed or not, in their order."""
    return [each.job.id if isinstance(each, Claim) else each.id for each in jobs]


def lanes(claims: Sequence[Claim]) -> list[str]:
    """The lanes of claimed jobs, in their order."""
    return [claim.job.lane for claim in claims]
