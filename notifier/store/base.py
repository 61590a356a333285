"""The Store: what every backend promises, and the shapes that cross its border.

Only a store writes. All times are seconds since the epoch. A method that returns has committed and
synced; one that raises `StoreUnavailableError` may or may not have.
"""

from asyncio import Future
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from notifier.model import (
    Addressed,
    Attempt,
    Claim,
    Endpoint,
    EventRecord,
    Job,
    JobError,
    JobState,
    Suppression,
    SuppressionReason,
)

WINDOW_BYTES = 16 * 1024**2
"""How much event data one claim may bring into memory; reaching it ends a claim early."""


class Submission(Struct, frozen=True):
    """An event with the jobs it causes, to be stored together or not at all.

    A job may be claimed as it is made, and so is PROCESSING under the fence 1.
    """

    event: EventRecord
    jobs: tuple[Job, ...]
    claimed_until: float | None = None
    """When the claims on those end."""


class Added(Struct, frozen=True):
    """What stands in the store for a submission. A duplicate's event and jobs are those of the first."""

    event: EventRecord
    jobs: tuple[Job, ...]
    duplicate: bool


class Claimed(Struct, frozen=True):
    """What one claim took, and what it left behind."""

    claims: list[Claim]
    next_due: dict[str, float]
    """When the earliest job that is still PENDING is due, of each lane asked for that has any."""


class Settlement(Struct, frozen=True, kw_only=True):
    """What becomes of a claimed job: the state it goes to, and the attempt to write down, if one was made.

    With `attempt` None and `status` PENDING it is a release: the job was claimed and not tried.
    """

    job_id: str
    claim: int
    status: JobState
    now: float
    next_attempt_at: float | None = None
    error: JobError | None = None
    cause: str | None = None
    """Groups FAILED jobs that failed alike (`retry.cause_of`)."""
    spent: bool = False
    """Whether an attempt of the job's budget is used up."""
    attempt: Attempt | None = None
    destination: str | None = None
    """Set when it was made out only now; what follows is set with it, and written as it stands."""
    lane: str | None = None
    locale: str | None = None
    addressed: Addressed | None = None
    content: bytes | None = None
    """What was sent, where it can't be known whether it arrived: kept until the job is finished or requeued.

    A settle to PENDING without it leaves what is kept as it was; to any other state it forgets that.
    """


class JobFilter(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs an operator means. Fields that are None don't narrow; all given must hold."""

    status: JobState | None = None
    channel: str | None = None
    event_type: str | None = None
    route: str | None = None
    endpoint: str | None = None
    destination: str | None = None
    tenant: str | None = None
    cause: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    updated_before: float | None = None


class JobPage(Struct, frozen=True):
    """Jobs, newest first, and the position to go on from (None at the end)."""

    jobs: list[Job]
    next_position: int | None


class SuppressionPage(Struct, frozen=True):
    """Suppressions, the last added first, and the position to go on from (None at the end)."""

    suppressions: list[Suppression]
    next_position: int | None


class FailureGroup(Struct, frozen=True, kw_only=True):
    """FAILED jobs that failed alike. `message` is one of theirs, unmasked."""

    cause: str
    channel: str
    code: str
    message: str
    template: str | None
    count: int
    first_seen: float
    last_seen: float
    sample_job_ids: list[str]


class Replay(Struct, frozen=True, kw_only=True):
    """A requeue by filter that waits for its canary to complete."""

    id: str
    filter: JobFilter
    canary_job_id: str
    created_at: float


class Store(Protocol):
    """Where events, jobs and attempts are kept."""

    async def open(self, now: float) -> int:
        """Take ownership, bring the schema up to date, return how many orphaned claims were given back.

        Raises StoreInUseError, StoreTooNewError, StoreSealedError (then nothing is changed), or
        StoreUnavailableError.
        """

    async def close(self) -> None:
        """Finish what was handed in, and let go."""

    async def ping(self) -> None:
        """Raise StoreUnavailableError unless reads and the writer work."""

    # What apps cause -----------------------------------------------------------------------------

    def add(self, submissions: Sequence[Submission]) -> Future[list[Added]]:
        """Store all submissions or none, and sync. One `Added` each, in order.

        An event whose idempotency key is known with the same fingerprint is a duplicate and stores
        nothing. The future raises IdempotencyConflictError where the fingerprint differs; this itself raises
        nothing. Whoever cancels the future does not call back what it stands for.
        """

    async def event(self, event_id: str) -> tuple[EventRecord, list[Job]]:
        """Return an event and its jobs. Raises NotFoundError."""

    # What workers do -----------------------------------------------------------------------------

    async def claim(
        self, *, priority: int, lanes: Sequence[str], limit: int, per_lane: int, now: float, until: float
    ) -> Claimed:
        """Claim due PENDING jobs of one priority, of just these lanes, until `until`.

        `limit` in all, `per_lane` of one lane; ends early at `WINDOW_BYTES` of data. In the order given, an
        equal part of each lane is taken first, then again of those that have more. A lane of which more is
        due now has `next_due` at or before `now`.
        """

    async def lanes(self, *, priority: int, after: str, limit: int) -> list[tuple[str, float]]:
        """Return the next lanes after `after` by name that have PENDING jobs of one priority.

        Each comes with the earliest `next_attempt_at` of them. Fewer than `limit`: there are no more.
        """

    def settle(self, settlement: Settlement) -> Future[bool]:
        """Write down what became of a claimed job. False: the claim is no longer ours, nothing is changed.

        What was handed in before is written before, save events to be added, of which many may wait. This
        itself raises nothing.
        """

    async def kept_content(self, job_id: str) -> bytes | None:
        """Return what an attempt of unknown outcome sent; None where nothing is kept (`Job.kept`)."""

    async def suppressed(self, channel: str, recipient: str, category: str | None) -> Suppression | None:
        """Return why nothing of a category may be sent to a recipient; None: it may.

        The suppression of everything goes before that of the category. Without a category, only the former
        counts.
        """

    async def count_bounce(self, channel: str, recipient: str, now: float) -> int:
        """Count one more refusal for good; returns how many there were since the last that was forgotten."""

    async def forget_bounces(self, channel: str, recipient: str) -> None:
        """Count a recipient's refusals from nothing again. Costs no write where none was counted."""

    async def renew(self, claims: Sequence[tuple[str, int]], until: float) -> None:
        """Extend claims (job id, fence) that are still held."""

    async def rescue(self, now: float) -> int:
        """Give back jobs whose claim has expired; returns how many."""

    # What operators do ---------------------------------------------------------------------------

    async def job(self, job_id: str) -> Job:
        """Return a job. Raises NotFoundError."""

    async def attempts(self, job_id: str) -> list[Attempt]:
        """Return every attempt of a job, oldest first."""

    async def jobs(self, wanted: JobFilter, *, limit: int, before: int | None = None) -> JobPage:
        """Return a page of jobs, newest first, from before a position."""

    async def count(self, wanted: JobFilter) -> int:
        """Count the jobs that a filter means."""

    async def counts(self) -> dict[JobState, int]:
        """Count all jobs by state."""

    async def failures(self, wanted: JobFilter) -> list[FailureGroup]:
        """Group FAILED jobs by cause, the largest group first."""

    async def recent(self, template: str, limit: int) -> list[tuple[Job, EventRecord]]:
        """Return the newest jobs of a template with their events, the newest first.

        Of the jobs of one event that differ only in whom they go to, the newest.
        """

    async def add_suppression(self, suppression: Suppression) -> bool:
        """Send nothing more to a recipient. False: that was so already, and stands as it was."""

    async def drop_suppression(self, channel: str, recipient: str, category: str | None) -> bool:
        """Forget the suppression of just this category, or of everything. False: there was none."""

    async def suppressions(
        self,
        *,
        limit: int,
        channel: str | None = None,
        recipient: str | None = None,
        reason: SuppressionReason | None = None,
        after: int | None = None,
    ) -> SuppressionPage:
        """Return a page of suppressions, the last added first, from after a position.

        What is None doesn't narrow; a recipient is meant exactly as it is kept.
        """

    async def requeue(self, job_id: str, now: float) -> Job:
        """Make a job PENDING, due now, its attempts unspent, nothing that was sent kept.

        Raises NotFoundError, IllegalTransitionError.
        """

    async def cancel(self, job_id: str, now: float) -> Job:
        """Withdraw a PENDING job. Raises NotFoundError, IllegalTransitionError."""

    async def requeue_some(self, wanted: JobFilter, *, now: float, limit: int) -> list[str]:
        """Requeue up to `limit` of the requeueable jobs a filter means, oldest first; returns their ids."""

    async def cancel_some(self, wanted: JobFilter, *, now: float, limit: int) -> int:
        """Cancel up to `limit` of the PENDING jobs a filter means, oldest first; returns how many."""

    async def add_endpoint(self, endpoint: Endpoint) -> None:
        """Keep a new endpoint. Its url, headers and secrets are sealed where there is a key."""

    async def endpoints(self) -> list[Endpoint]:
        """Return every endpoint, oldest first."""

    async def save_endpoint(self, endpoint: Endpoint, events: Sequence[Submission] = ()) -> None:
        """Replace an endpoint as a whole, and store what its change caused: both or neither.

        Raises NotFoundError; IdempotencyConflictError as `add` does.
        """

    async def drop_endpoint(self, endpoint_id: str) -> None:
        """Forget an endpoint, if it is there; its jobs stay."""

    async def add_replay(self, replay: Replay) -> None:
        """Remember a requeue that waits for its canary."""

    async def replays(self) -> list[Replay]:
        """Return the requeues that wait, oldest first."""

    async def drop_replay(self, replay_id: str) -> None:
        """Forget a requeue that waits no longer."""

    async def prune(self, *, completed_before: float, failed_before: float, limit: int) -> int:
        """Delete up to `limit` finished jobs, and events that are left without jobs; returns how many jobs.

        An event that never had a job goes as its `created_at` passes `completed_before`; counted bounces, as
        the last of them passes `failed_before`.
        """

    async def checkpoint(self) -> None:
        """Do what the backend needs now and then to stay quick."""

    async def setting(self, name: str, default: str, *, secret: bool = False) -> str:
        """Return a kept value, keeping `default` the first time it is asked for.

        One that is asked for as a secret, always or never, is as safe as an endpoint's secrets.
        """
