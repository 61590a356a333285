"""Answers to "why?": what a job waits for."""

from msgspec import Struct

from notifier.dispatch.lanes import Lane, Stop
from notifier.dispatch.limits import lane_may_take, room_for
from notifier.dispatch.queue import FairQueue
from notifier.model import Job, JobState, rfc3339


class Why(Struct, frozen=True, kw_only=True):
    """What a job waits for: a stable `reason`, the time it waits until if one is known, and words."""

    status: JobState
    reason: str
    detail: str
    until: float | None = None


class Trouble(Struct, frozen=True, kw_only=True):
    """What holds up all that waits in a lane: a stable `reason`, words, and until when if that is known."""

    reason: str
    detail: str
    until: float | None = None


def trouble(lane_name: str, queue: FairQueue) -> Trouble | None:
    """Say what holds up all of a lane, beside its fair share; None: nothing does."""
    if (held := queue.limits(lane_name).held) is not None:
        return Trouble(reason=held.reason, detail=held.detail)
    lane = queue.lane(lane_name)
    if lane is None:
        return None
    return _stopped(lane.stop) if lane.stop is not None else _limited(lane, queue.timer())


def orphaned(job: Job) -> Why:
    """Say of a job that its endpoint was deleted before it was delivered."""
    detail = f"Its endpoint {job.endpoint} was deleted: nothing more is delivered to it."
    return Why(status=job.status, reason="endpoint_deleted", detail=detail)


def why(job: Job, queue: FairQueue, *, now: float, draining: bool) -> Why:
    """Say what stands between a job and its delivery."""
    if job.status is JobState.PENDING:
        return _pending(job, queue, now=now, draining=draining)
    if job.status is not JobState.PROCESSING:
        return _finished(job, queue)
    if draining:
        return _stopping(job)
    claim = queue.claims.get((job.id, job.claim))
    if claim is None:
        detail = "A worker elsewhere holds it; should that be gone, it comes again when its claim ends."
        return Why(status=job.status, reason="in_flight", detail=detail)
    if not queue.is_waiting(claim):
        return Why(status=job.status, reason="in_flight", detail="An attempt is under way.")
    return _waits_its_turn(job, queue)


def _pending(job: Job, queue: FairQueue, *, now: float, draining: bool) -> Why:
    if queue.is_held(job.lane):
        return _waits_its_turn(job, queue)
    if job.next_attempt_at is not None and job.next_attempt_at > now:
        return _waits_for_time(job, job.next_attempt_at, queue.lane(job.lane))
    return _stopping(job) if draining else _waits_its_turn(job, queue)


def _stopping(job: Job) -> Why:
    return Why(status=job.status, reason="stopping", detail="The notifier is stopping; it goes on after.")


def _finished(job: Job, queue: FairQueue) -> Why:
    detail = {
        JobState.COMPLETED: "The receiver took it.",
        JobState.CANCELLED: "It was withdrawn. Requeue it to have it delivered after all.",
        JobState.FAILED: "It failed for good. Mend the cause, then requeue it.",
    }[job.status]
    if job.error is not None:
        detail = f"{detail} Last error: {job.error.code}: {job.error.message}"
    held = queue.limits(job.lane).held
    if held is not None and job.status is JobState.FAILED:
        detail = f"{detail} {held.detail}"
    return Why(status=job.status, reason=job.status.value.lower(), detail=detail)


def _waits_for_time(job: Job, until: float, lane: Lane | None) -> Why:
    # Within a second: those in flight with the one that stopped it failed a little later.
    if lane is not None and lane.stop is not None and until < lane.stop.until + 1:
        return _about(job, _stopped(lane.stop))
    if job.error is None and not job.attempts:
        detail = f"It is scheduled for {rfc3339(until)}."
        return Why(status=job.status, reason="scheduled", detail=detail, until=until)
    last = f" Last error: {job.error.code}: {job.error.message}" if job.error else ""
    detail = f"Attempt {job.attempts + 1} of {job.max_attempts} comes at {rfc3339(until)}.{last}"
    return Why(status=job.status, reason="backoff", detail=detail, until=until)


def _stopped(stop: Stop) -> Trouble:
    return Trouble(reason=stop.reason, detail=stop.detail, until=stop.until)


def _about(job: Job, trouble: Trouble) -> Why:
    return Why(status=job.status, reason=trouble.reason, detail=trouble.detail, until=trouble.until)


def _waits_its_turn(job: Job, queue: FairQueue) -> Why:
    """Say what keeps a due job: its lane's stop or limits first, then what all lanes share."""
    if (found := trouble(job.lane, queue)) is not None:
        return _about(job, found)
    lane, free = queue.lane(job.lane), queue.workers - queue.busy
    if not room_for(job.priority, free, queue.workers):
        detail = f"All {queue.workers} workers are at other attempts, or kept for jobs of higher priority."
        return Why(status=job.status, reason="no_worker", detail=detail)
    busy = sum(lane.in_flight[: job.priority + 1]) if lane else 0
    if not lane_may_take(busy, free):
        detail = f"Lane {job.lane} has {busy} attempts under way, its share while {free} workers are free."
        return Why(status=job.status, reason="lane_limit", detail=detail)
    return Why(status=job.status, reason="due", detail="It is due and about to be attempted.")


def _limited(lane: Lane, now: float) -> Trouble | None:
    """What a lane is held to that keeps its jobs just now."""
    if lane.breaker is not None and lane.breaker.tripped:
        tried = "is under way" if lane.flying else "comes next"
        detail = f"Lane {lane.name} is tried with one attempt at a time, which {tried}."
        return Trouble(reason="breaker_half_open", detail=detail)
    if lane.flying >= lane.most_in_flight:
        detail = f"Lane {lane.name} has {lane.flying} attempts under way, as many as it may."
        return Trouble(reason="max_in_flight", detail=detail)
    if lane.bucket is not None and lane.bucket.wait(now):
        detail = f"Lane {lane.name} goes at {lane.limits.rate:g} attempts a second."
        return Trouble(reason="rate_limit", detail=detail)
    return None
