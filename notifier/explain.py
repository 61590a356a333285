"""Answers to "why?": what a job waits for."""

from msgspec import Struct

from notifier.dispatch.limits import lane_may_take, room_for
from notifier.dispatch.queue import FairQueue, Lane
from notifier.model import Job, JobState, rfc3339


class Why(Struct, frozen=True, kw_only=True):
    """What a job waits for: a stable `reason`, the time it waits until if one is known, and words."""

    status: JobState
    reason: str
    detail: str
    until: float | None = None


def why(job: Job, queue: FairQueue, *, now: float, draining: bool) -> Why:
    """Say what stands between a job and its delivery."""
    if job.status in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}:
        return _finished(job)
    if job.status is JobState.PENDING and job.next_attempt_at is not None and job.next_attempt_at > now:
        return _waits_for_time(job, job.next_attempt_at, queue.lane(job.lane))
    if draining:
        return Why(status=job.status, reason="stopping", detail="The notifier is stopping; it goes on after.")
    if job.status is JobState.PROCESSING:
        claim = queue.claims.get((job.id, job.claim))
        if claim is None:
            detail = "A worker elsewhere holds it; should that be gone, it comes again when its claim ends."
            return Why(status=job.status, reason="in_flight", detail=detail)
        if not queue.is_waiting(claim):
            return Why(status=job.status, reason="in_flight", detail="An attempt is under way.")
    return _waits_its_turn(job, queue)


def _finished(job: Job) -> Why:
    detail = {
        JobState.COMPLETED: "The receiver took it.",
        JobState.CANCELLED: "It was withdrawn. Requeue it to have it delivered after all.",
        JobState.FAILED: "It failed for good. Mend the cause, then requeue it.",
    }[job.status]
    if job.error is not None:
        detail = f"{detail} Last error: {job.error.code}: {job.error.message}"
    return Why(status=job.status, reason=job.status.value.lower(), detail=detail)


def _waits_for_time(job: Job, until: float, lane: Lane | None) -> Why:
    # Within a second: those in flight with the one that paused it failed a little later.
    if lane is not None and lane.paused_until is not None and until < lane.paused_until + 1:
        return _paused(job, lane)
    if job.error is None and not job.attempts:
        detail = f"It is scheduled for {rfc3339(until)}."
        return Why(status=job.status, reason="scheduled", detail=detail, until=until)
    last = f" Last error: {job.error.code}: {job.error.message}" if job.error else ""
    detail = f"Attempt {job.attempts + 1} of {job.max_attempts} comes at {rfc3339(until)}.{last}"
    return Why(status=job.status, reason="backoff", detail=detail, until=until)


def _paused(job: Job, lane: Lane) -> Why:
    return Why(
        status=job.status,
        reason="lane_paused",
        detail=f"Lane {lane.name} waits, at no cost to its jobs: {lane.pause_reason}",
        until=lane.paused_until,
    )


def _waits_its_turn(job: Job, queue: FairQueue) -> Why:
    lane = queue.lane(job.lane)
    if lane is not None and lane.paused_until is not None:
        return _paused(job, lane)
    free = queue.workers - queue.busy
    if not room_for(job.priority, free, queue.workers):
        detail = f"All {queue.workers} workers are at other attempts, or kept for jobs of higher priority."
        return Why(status=job.status, reason="no_worker", detail=detail)
    busy = sum(lane.in_flight[: job.priority + 1]) if lane else 0
    if not lane_may_take(busy, free):
        detail = f"Lane {job.lane} has {busy} attempts under way, its share while {free} workers are free."
        return Why(status=job.status, reason="lane_limit", detail=detail)
    return Why(status=job.status, reason="due", detail="It is due and about to be attempted.")
