"""The store against a plain model of what it promises: whatever is done to both, they stay alike."""

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from msgspec import Struct, field
from msgspec.structs import replace
from support.builders import (
    NOW,
    attempt,
    endpoint,
    event_record,
    failed_job,
    job,
    release,
    settlement,
    suppression,
)

from notifier.errors import IdempotencyConflictError, IllegalTransitionError, NotFoundError
from notifier.model import (
    REQUEUEABLE,
    TRANSITIONS,
    Addressed,
    Attempt,
    Claim,
    Endpoint,
    EndpointSecret,
    EndpointState,
    EventRecord,
    Job,
    JobState,
    Priority,
    Suppression,
    SuppressionReason,
    Timings,
)
from notifier.store.base import Added, JobFilter, Settlement, Submission
from notifier.store.sealing import Sealer
from notifier.store.sqlite import SqliteStore

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState
EVERYTHING = JobFilter()
CLAIM_TIMEOUT = 60.0
LANES = "abc"
ENDPOINTS = ["ep_1", "ep_2"]
ADA, BOB = "ada@example.com", "bob@example.com"
CATEGORIES = [None, "news"]

_Result = TypeVar("_Result")


# The model -----------------------------------------------------------------------------------------


class Kept(Struct):
    """A job as the model has it, with what doesn't show in it."""

    job: Job
    attempts: list[Attempt] = field(default_factory=list)
    claimed_until: float = 0.0
    cause: str | None = None
    content: bytes | None = None
    """What was sent of it and may have arrived, to be sent again."""


def born_of(made: Job) -> str | None:
    """What groups a job that was born FAILED."""
    return f"born of {made.channel}, {made.template}" if made.error else None


class Model:
    """The Store's promises in as few words as they can be said."""

    def __init__(self) -> None:
        self.events: dict[str, EventRecord] = {}
        self.jobs: dict[str, Kept] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.suppressions: list[Suppression] = []
        self.bounces: list[float] = []

    def in_state(self, *states: JobState) -> list[Kept]:
        """The jobs in any of these states, oldest first."""
        return [kept for kept in self.jobs.values() if kept.job.status in states]

    def jobs_of(self, event_id: str) -> tuple[Job, ...]:
        """The jobs of an event, in their order."""
        return tuple(kept.job for kept in self.jobs.values() if kept.job.event_id == event_id)

    def add(self, call: Sequence[Submission]) -> list[Added] | IdempotencyConflictError:
        """Keep all of a call or nothing."""
        known = {event.idempotency_key: event for event in self.events.values() if event.idempotency_key}
        jobs: dict[str, tuple[Job, ...]] = {}
        answers, fresh = [], []
        for index, each in enumerate(call):
            key = each.event.idempotency_key
            first = known.get(key) if key else None
            if key and first and first.fingerprint != each.event.fingerprint:
                return IdempotencyConflictError(key, index)
            if first:
                found = jobs.get(first.id, self.jobs_of(first.id))
                answers.append(Added(first, found, duplicate=True))
                continue
            if key:
                known[key] = each.event
            jobs[each.event.id] = each.jobs
            fresh.append(each)
            answers.append(Added(each.event, each.jobs, duplicate=False))
        for each in fresh:
            self.events[each.event.id] = each.event
            until = each.claimed_until or 0.0
            self.jobs |= {made.id: Kept(made, cause=born_of(made), claimed_until=until) for made in each.jobs}
        return answers

    def due(self, now: float, priority: Priority, lanes: Collection[str]) -> dict[str, list[float]]:
        """When the jobs of each lane were due that a claim may take, longest first."""
        found: dict[str, list[float]] = {}
        for kept in self.in_state(PENDING):
            at = kept.job.next_attempt_at
            if at is not None and at <= now and kept.job.priority == priority and kept.job.lane in lanes:
                found.setdefault(kept.job.lane, []).append(at)
        return {lane: sorted(times) for lane, times in found.items()}

    def claim(self, job_id: str, now: float) -> Job:
        """Hand a job to a worker."""
        kept = self.jobs[job_id]
        kept.claimed_until = now + CLAIM_TIMEOUT
        self._move(kept, PROCESSING, now, claim=kept.job.claim + 1, next_attempt_at=None)
        return kept.job

    def holds(self, job_id: str, fence: int) -> bool:
        """Whether a claim is still its worker's."""
        kept = self.jobs.get(job_id)
        return kept is not None and kept.job.status is PROCESSING and kept.job.claim == fence

    def settle(self, outcome: Settlement) -> bool:
        """Write down what became of a claim, if it is still held."""
        if not self.holds(outcome.job_id, outcome.claim):
            return False
        kept = self.jobs[outcome.job_id]
        if outcome.status is not PENDING:
            kept.content = None
        elif outcome.content is not None:
            kept.content = outcome.content
        made_out = {name: getattr(outcome, name) for name in ("destination", "locale", "addressed")}
        self._move(
            kept,
            outcome.status,
            outcome.now,
            next_attempt_at=outcome.next_attempt_at,
            attempts=kept.job.attempts + outcome.spent,
            error=outcome.error,
            **(made_out if outcome.destination is not None else {}),
        )
        kept.cause = outcome.cause
        if outcome.attempt:
            kept.attempts.append(outcome.attempt)
        return True

    def give_back(self, now: float, *, expired_by: float) -> int:
        """Return claims that ran out by a moment; how many there were."""
        lost = [kept for kept in self.in_state(PROCESSING) if kept.claimed_until <= expired_by]
        for kept in lost:
            self._move(kept, PENDING, now, next_attempt_at=now)
        return len(lost)

    def requeue(self, job_id: str, now: float) -> Job:
        """Make a job due now, with nothing spent."""
        kept = self._allowed(job_id, REQUEUEABLE, "requeued")
        kept.cause = kept.content = None
        claim = kept.job.claim + 1
        return self._move(kept, PENDING, now, next_attempt_at=now, attempts=0, claim=claim)

    def cancel(self, job_id: str, now: float) -> Job:
        """Withdraw a job that waits."""
        kept = self._allowed(job_id, {PENDING}, "cancelled")
        kept.content = None
        return self._move(kept, CANCELLED, now, next_attempt_at=None, claim=kept.job.claim + 1)

    def save_endpoint(self, changed: Endpoint, events: Sequence[Submission]) -> str:
        """Replace an endpoint and keep what that caused: nothing is said, or why it can't be."""
        if changed.id not in self.endpoints:
            return str(NotFoundError("endpoint", changed.id))
        added = self.add(events)
        if isinstance(added, IdempotencyConflictError):
            return str(added)
        self.endpoints[changed.id] = changed
        return ""

    def suppress(self, added: Suppression) -> bool:
        """Send nothing more to someone, unless that is so already."""
        new = self.suppression_of(added.recipient, added.category) is None
        if new:
            self.suppressions.append(added)
        return new

    def suppression_of(self, recipient: str, category: str | None) -> Suppression | None:
        """The very one of a recipient and a category."""
        of = [each for each in self.suppressions if (each.recipient, each.category) == (recipient, category)]
        return of[0] if of else None

    def recent(self, template: str, limit: int) -> list[tuple[Job, EventRecord]]:
        """The newest job of each event and locale, the newest first."""
        newest: dict[tuple[str, str | None], Job] = {}
        for kept in reversed(self.jobs.values()):
            if kept.job.template == template:
                newest.setdefault((kept.job.event_id, kept.job.locale), kept.job)
        return [(each, self.events[each.event_id]) for each in newest.values()][:limit]

    def old(self, completed_before: float, failed_before: float) -> set[str]:
        """The jobs that may be pruned."""
        by_state = {COMPLETED: completed_before, FAILED: failed_before, CANCELLED: failed_before}
        return {
            kept.job.id
            for kept in self.in_state(*by_state)
            if kept.job.updated_at < by_state[kept.job.status]
        }

    def forget(self, job_ids: Iterable[str], completed_before: float) -> None:
        """Drop pruned jobs, the events that lost their last one, and old events that never had any."""
        orphans = {self.jobs.pop(job_id).job.event_id for job_id in job_ids}
        for event in list(self.events.values()):
            old = event.id in orphans or event.created_at < completed_before
            if old and not self.jobs_of(event.id):
                del self.events[event.id]

    def _allowed(self, job_id: str, states: Collection[JobState], action: str) -> Kept:
        if job_id not in self.jobs:
            raise NotFoundError("job", job_id)
        kept = self.jobs[job_id]
        if kept.job.status not in states:
            raise IllegalTransitionError(job_id, kept.job.status, action)
        return kept

    def _move(self, kept: Kept, state: JobState, now: float, **changes: Any) -> Job:
        changes["kept"] = kept.content is not None
        legal = state in TRANSITIONS[kept.job.status]
        assert legal or kept.job.status is state is PENDING, f"{kept.job.status} became {state}"
        kept.job = replace(kept.job, status=state, updated_at=now, **changes)
        return kept.job


# What is done to both ------------------------------------------------------------------------------


class Wish(Struct, frozen=True):
    """A job to be made: where, how urgent, due in how many seconds; or one that is born FAILED or claimed.

    `mail` is what makes it one of a mail.
    """

    lane: str
    priority: Priority
    delay: int
    born: JobState
    mail: dict[str, Any]

    def job(self, event: EventRecord) -> Job:
        """Make it out for an event."""
        where: dict[str, Any] = {"lane": self.lane, **self.mail}
        if self.born is FAILED:
            return failed_job(event, **where)
        where["priority"] = self.priority
        if self.born is PROCESSING:
            return job(event, status=PROCESSING, claim=1, **where)
        return job(event, next_attempt_at=event.created_at + self.delay, **where)


class Post(Struct, frozen=True):
    """An event to be posted, with the jobs it causes."""

    key: str | None
    body: str
    wishes: list[Wish]

    def submission(self, now: float) -> Submission:
        """Accept it at a moment."""
        event = event_record(key=self.key, body=self.body, created_at=now)
        jobs = tuple(wish.job(event) for wish in self.wishes)
        claimed = any(each.status is PROCESSING for each in jobs)
        return Submission(event, jobs, now + CLAIM_TIMEOUT if claimed else None)


class Ending(Struct, frozen=True):
    """What a worker comes to; no state is a release."""

    state: JobState | None
    spent: bool
    delay: int
    content: bytes | None
    made_out: bool
    """Whether it is a destination that the job did not have; one without any always gets one."""

    def settlement(self, claim: Claim, now: float) -> Settlement:
        """Say it of a claim."""
        if self.state is None:
            return release(claim, now=now, next_attempt_at=now + self.delay)
        changes: dict[str, Any] = {"now": now, "spent": self.spent, "content": self.content}
        if self.made_out or claim.job.destination is None:
            changes |= {"destination": "https://found.example", "lane": claim.job.lane}
        if self.state is PENDING:
            changes["next_attempt_at"] = now + self.delay
        if self.spent:
            timings = Timings(wait=float(self.delay), sent=self.delay)
            changes["attempt"] = attempt(timings=timings, via=f"mx:{self.delay}")
        return settlement(claim, self.state, **changes)


mails: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.fixed_dictionaries(
    {
        "channel": st.just("email"),
        "template": st.sampled_from(["welcome", "receipt"]),
        "locale": st.sampled_from([None, "fr"]),
        "category": st.sampled_from(CATEGORIES),
        "addressed": st.sampled_from([None, Addressed(to=(ADA, BOB)), Addressed(to=(ADA,), cc=(BOB,))]),
    }
)
wishes = st.builds(
    Wish,
    lane=st.sampled_from(["a", "a", "a", *LANES]),
    priority=st.sampled_from([Priority.NORMAL, Priority.NORMAL, Priority.HIGH]),
    delay=st.sampled_from([0, 0, 0, -5, 10, 90]),
    born=st.sampled_from([PENDING, PENDING, PENDING, PROCESSING, FAILED]),
    mail=mails,
)
posts = st.builds(
    Post,
    key=st.none() | st.sampled_from("xyz"),
    body=st.sampled_from(["{}", '{"total":1}']),
    wishes=st.lists(wishes, max_size=5),
)
calls = st.lists(posts, min_size=1, max_size=3)
contents = st.sampled_from([None, None, b"", b"the mail"])
endings = st.builds(
    Ending,
    state=st.sampled_from([PENDING, PENDING, COMPLETED, COMPLETED, FAILED, CANCELLED, None]),
    spent=st.sampled_from([True, True, False]),
    delay=st.sampled_from([0, 0, 5, 90]),
    content=contents,
    made_out=st.booleans(),
)
recipients = st.sampled_from([ADA, BOB])
filters = st.builds(
    JobFilter,
    status=st.none() | st.sampled_from(JobState),
    route=st.none() | st.sampled_from(["erp", "nobody"]),
)


def said(change: Callable[[], Job]) -> Job | str:
    """What a change answers: the job, or why not."""
    try:
        return change()
    except (IllegalTransitionError, NotFoundError) as error:
        return str(error)


class StoreMachine(RuleBasedStateMachine):
    """Does the same to the store and to the model, and compares."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.model = Model()
        self.crashes = 0
        self.keys: list[bytes] = []
        self.fences: Counter[str] = Counter()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self.store = self._opened("0")

    def teardown(self) -> None:
        """Compare all there is to compare once more, and let go."""
        try:
            self._compare_everything()
        finally:
            self.run(self.store.close())
            self.runner.close()
            shutil.rmtree(self.folder)

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Do something to the store."""
        return self.runner.run(work)

    def _opened(self, name: str) -> SqliteStore:
        store = SqliteStore(self.folder / name / "notifier.db", Sealer(self.keys))
        store.path.parent.mkdir(exist_ok=True)
        given_back = self.run(store.open(self.now))
        assert given_back == self.model.give_back(self.now, expired_by=float("inf"))
        return store

    @initialize(target=claims, together=st.lists(calls, min_size=2, max_size=4))
    def begin(self, together: list[list[Post]]) -> Any:
        """Begin in the middle of things: some jobs are there, and some of them are claimed."""
        self._add(together)
        return self._claim(Priority.NORMAL, 3, 3, list(LANES))

    # Time ------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([10, 60]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds

    # Apps ------------------------------------------------------------------------------------------

    @rule(target=claims, together=st.lists(calls, min_size=1, max_size=4))
    def add(self, together: list[list[Post]]) -> Any:
        """Calls that arrive at once are written in one batch, and answered as if one after the other.

        What is claimed as it is made is its poster's, unless there was such an event before.
        """
        return multiple(*self._add(together))

    def _add(self, together: list[list[Post]]) -> list[Claim]:
        submitted = [[post.submission(self.now) for post in call] for call in together]
        expected = [self.model.add(call) for call in submitted]
        new: list[Claim] = []
        for answer, wanted in zip(self.run(self._added(submitted)), expected, strict=True):
            if isinstance(wanted, IdempotencyConflictError):
                assert isinstance(answer, IdempotencyConflictError)
                assert (answer.key, answer.index) == (wanted.key, wanted.index)
                continue
            assert answer == wanted
            made = [(job, each.event) for each in wanted if not each.duplicate for job in each.jobs]
            new += [Claim(job, event) for job, event in made if job.status is PROCESSING]
        return new

    async def _added(self, together: list[list[Submission]]) -> list[list[Added] | BaseException]:
        return await asyncio.gather(*map(self.store.add, together), return_exceptions=True)

    # Workers ---------------------------------------------------------------------------------------

    @rule(
        target=claims,
        priority=st.sampled_from([Priority.NORMAL, Priority.NORMAL, Priority.HIGH]),
        limit=st.sampled_from([20, 20, 3, 2, 1, 0]),
        per_lane=st.sampled_from([10, 1, 2]),
        lanes=st.just(list(LANES)) | st.lists(st.sampled_from(LANES), max_size=4),
    )
    def claim(self, priority: Priority, limit: int, per_lane: int, lanes: list[str]) -> Any:
        """A claim takes what is due, the longest due of each lane, and says when each one's next is."""
        return self._claim(priority, limit, per_lane, lanes)

    def _claim(self, priority: Priority, limit: int, per_lane: int, lanes: list[str]) -> Any:
        due = self.model.due(self.now, priority, lanes)
        claimed = self.run(
            self.store.claim(
                priority=priority,
                lanes=lanes,
                limit=limit,
                per_lane=per_lane,
                now=self.now,
                until=self.now + CLAIM_TIMEOUT,
            )
        )
        self._check_claims(claimed.claims, due, limit, per_lane)
        later = self.model.due(float("inf"), priority, lanes)
        assert claimed.next_due == {lane: times[0] for lane, times in later.items()}
        return multiple(*claimed.claims)

    def _check_claims(
        self, claimed: list[Claim], due: dict[str, list[float]], limit: int, per_lane: int
    ) -> None:
        """They are as many as can be, the longest due of each lane; the model claims them too."""
        assert len(claimed) == min(limit, sum(min(per_lane, len(times)) for times in due.values()))
        by_lane: dict[str, list[float | None]] = {}
        for each in claimed:
            before = self.model.jobs[each.job.id].job
            by_lane.setdefault(before.lane, []).append(before.next_attempt_at)
            assert each.job == self.model.claim(each.job.id, self.now)
            assert each.event == self.model.events[each.job.event_id]
        for lane, times in by_lane.items():
            assert len(times) <= per_lane
            assert sorted(filter(None, times)) == due[lane][: len(times)]

    @rule(claim=claims, ending=endings)
    def settle(self, claim: Claim, ending: Ending) -> None:
        """A settle holds exactly while its claim does; no state is a release."""
        self._settle([ending.settlement(claim, self.now)])

    @rule(
        first=consumes(claims),
        second=claims,
        wanted=st.tuples(endings, endings, endings),
        again=st.booleans(),
    )
    def settle_together(self, first: Claim, second: Claim, wanted: tuple[Ending, ...], again: bool) -> None:
        """Settles that arrive at once are answered as if one after the other, two of one claim too."""
        claims = (first, second, first) if again else (first, second)
        each = zip(wanted, claims, strict=False)
        self._settle([ending.settlement(claim, self.now) for ending, claim in each])

    def _settle(self, outcomes: list[Settlement]) -> None:
        async def settle() -> list[bool]:
            return await asyncio.gather(*map(self.store.settle, outcomes))

        assert self.run(settle()) == [self.model.settle(outcome) for outcome in outcomes]
        for outcome in outcomes:
            self._compare_content(outcome.job_id)

    def _compare_content(self, job_id: str) -> None:
        expected = self.model.jobs[job_id].content if job_id in self.model.jobs else None
        assert self.run(self.store.kept_content(job_id)) == expected

    @rule(claim=claims)
    def renew(self, claim: Claim) -> None:
        """A claim that is held lives on; a lost one stays lost."""
        until = self.now + CLAIM_TIMEOUT
        self.run(self.store.renew([(claim.job.id, claim.job.claim)], until))
        if self.model.holds(claim.job.id, claim.job.claim):
            self.model.jobs[claim.job.id].claimed_until = until

    @rule()
    def rescue(self) -> None:
        """Claims that ran out by now are given back, to the very moment."""
        rescued = self.run(self.store.rescue(self.now))
        assert rescued == self.model.give_back(self.now, expired_by=self.now)

    # Operators -------------------------------------------------------------------------------------

    @rule(data=st.data(), action=st.sampled_from(["requeue", "cancel"]))
    def change(self, data: st.DataObject, action: str) -> None:
        """A job is requeued or cancelled where its state allows it, and is what the answer says."""
        job_id = data.draw(st.sampled_from(["job_0", *self.model.jobs]))
        change = {"requeue": self.store.requeue, "cancel": self.store.cancel}[action]
        expected = {"requeue": self.model.requeue, "cancel": self.model.cancel}[action]
        assert said(lambda: self.run(change(job_id, self.now))) == said(lambda: expected(job_id, self.now))
        self._compare_content(job_id)

    @rule(template=st.sampled_from(["welcome", "receipt"]), limit=st.integers(1, 4))
    def recent(self, template: str, limit: int) -> None:
        """The newest jobs of a template, and their events."""
        assert self.run(self.store.recent(template, limit)) == self.model.recent(template, limit)

    @rule(wanted=filters, limit=st.integers(1, 4))
    def requeue_some(self, wanted: JobFilter, limit: int) -> None:
        """The oldest that a filter means, and only those that no worker holds."""
        states = JobState if wanted.status is None else [wanted.status]
        meant = [
            kept.job.id
            for kept in self.model.in_state(*states)
            if kept.job.status is not PROCESSING and wanted.route in {None, kept.job.route}
        ]
        requeued = self.run(self.store.requeue_some(wanted, now=self.now, limit=limit))
        assert requeued == meant[:limit]
        for job_id in requeued:
            self.model.requeue(job_id, self.now)

    @rule(wanted=filters, limit=st.integers(1, 4))
    def cancel_some(self, wanted: JobFilter, limit: int) -> None:
        """The oldest that a filter means, of those that are PENDING."""
        meant = [
            kept.job.id
            for kept in self.model.in_state(PENDING)
            if wanted.status in {None, PENDING} and wanted.route in {None, kept.job.route}
        ]
        assert self.run(self.store.cancel_some(wanted, now=self.now, limit=limit)) == len(meant[:limit])
        for job_id in meant[:limit]:
            self.model.cancel(job_id, self.now)

    @rule(data=st.data(), events=st.lists(posts, max_size=2))
    def save_endpoint(self, data: st.DataObject, events: list[Post]) -> None:
        """An endpoint is made, or replaced with what that caused: both or neither."""
        endpoint_id = data.draw(st.sampled_from(ENDPOINTS))
        state = data.draw(st.sampled_from(EndpointState))
        secret = EndpointSecret(f"whsec_{self.now}", self.now, data.draw(st.sampled_from([None, self.now])))
        changed = endpoint(id=endpoint_id, state=state, secrets=(secret,), updated_at=self.now)
        submitted = [post.submission(self.now) for post in events]
        assert self.run(self._save(changed, submitted)) == self.model.save_endpoint(changed, submitted)
        if endpoint_id not in self.model.endpoints:
            self.run(self.store.add_endpoint(changed))
            self.model.endpoints[endpoint_id] = changed

    async def _save(self, changed: Endpoint, events: list[Submission]) -> str:
        try:
            await self.store.save_endpoint(changed, events)
        except (NotFoundError, IdempotencyConflictError) as error:
            return str(error)
        return ""

    @rule(endpoint_id=st.sampled_from(ENDPOINTS))
    def drop_endpoint(self, endpoint_id: str) -> None:
        """An endpoint is forgotten, if it is there."""
        self.run(self.store.drop_endpoint(endpoint_id))
        self.model.endpoints.pop(endpoint_id, None)

    @rule(
        recipient=recipients,
        category=st.sampled_from(CATEGORIES),
        reason=st.sampled_from(SuppressionReason),
    )
    def suppress(self, recipient: str, category: str | None, reason: SuppressionReason) -> None:
        """A suppression is added, or stands already and stays as it was."""
        added = suppression(recipient=recipient, category=category, reason=reason, created_at=self.now)
        assert self.run(self.store.add_suppression(added)) == self.model.suppress(added)

    @rule(recipient=recipients, category=st.sampled_from(CATEGORIES))
    def drop_suppression(self, recipient: str, category: str | None) -> None:
        """A suppression is dropped, if it is there."""
        found = self.model.suppression_of(recipient, category)
        dropped = self.run(self.store.drop_suppression("email", recipient, category))
        assert dropped == (found is not None)
        if found:
            self.model.suppressions.remove(found)

    @rule(recipient=recipients, category=st.sampled_from([*CATEGORIES, "offers"]))
    def look_up(self, recipient: str, category: str | None) -> None:
        """Who is suppressed altogether gets nothing; who is of a category, nothing of that."""
        expected = self.model.suppression_of(recipient, None)
        if expected is None and category is not None:
            expected = self.model.suppression_of(recipient, category)
        assert self.run(self.store.suppressed("email", recipient, category)) == expected

    @rule()
    def bounce(self) -> None:
        """A bounce is counted with those before it."""
        self.model.bounces.append(self.now)
        assert self.run(self.store.count_bounce("email", ADA, self.now)) == len(self.model.bounces)

    @rule()
    def come_through(self) -> None:
        """Bounces are counted from one again."""
        self.run(self.store.forget_bounces("email", ADA))
        self.model.bounces.clear()

    @rule(ages=st.tuples(st.sampled_from([0, 30, 300]), st.sampled_from([0, 30, 300])))
    def prune_all(self, ages: tuple[int, int]) -> None:
        """Called again and again, it leaves nothing that is old enough, and takes nothing else."""
        cutoffs = (self.now - ages[0], self.now - ages[1])
        old = self.model.old(*cutoffs)
        gone = [self._prune(cutoffs, limit=1000) for _ in range(2)]
        assert set().union(*gone) == old

    @rule(limit=st.integers(1, 2))
    def prune_some(self, limit: int) -> None:
        """No more than it was asked to, and nothing that is not old enough."""
        self._prune((self.now, self.now), limit=limit)

    def _prune(self, cutoffs: tuple[float, float], *, limit: int) -> set[str]:
        old = self.model.old(*cutoffs)
        before = set(self.model.jobs)
        count = self.run(self.store.prune(completed_before=cutoffs[0], failed_before=cutoffs[1], limit=limit))
        gone = before - {each.id for each in self._listed()}
        assert count == len(gone) <= limit
        assert gone <= old
        self.model.forget(gone, cutoffs[0])
        if self.model.bounces and self.model.bounces[-1] < cutoffs[1]:
            self.model.bounces.clear()
        return gone

    # Faults ----------------------------------------------------------------------------------------

    @rule()
    def crash(self) -> None:
        """What was committed is in the files: a store opened on a copy of them, unclosed as they are, has it.

        Who was at work has lost its claims.
        """
        self.crashes += 1
        copied = self.folder / str(self.crashes)
        shutil.copytree(self.store.path.parent, copied, ignore=shutil.ignore_patterns("*.lock", "*-shm"))
        left = self.store
        self.store = self._opened(copied.name)
        self.run(left.close())
        self._compare_everything()

    @rule(rotate=st.booleans())
    def restart(self, rotate: bool) -> None:
        """A store that was closed and opened again is the same one, under a first or a new key too."""
        self.run(self.store.close())
        if rotate:
            self.keys = [os.urandom(32), *self.keys[:1]]
        self.store = self._opened(self.store.path.parent.name)

    # What always holds -----------------------------------------------------------------------------

    def _listed(self) -> list[Job]:
        return self.run(self.store.jobs(EVERYTHING, limit=10_000)).jobs

    @invariant()
    def the_jobs_are_those_of_the_model(self) -> None:
        """All of them, in every field, newest first; so are their counts and causes."""
        listed, counts, groups = self.run(self._seen())
        assert listed == [kept.job for kept in reversed(self.model.jobs.values())]
        assert counts == {state: len(self.model.in_state(state)) for state in JobState}
        causes = Counter(kept.cause for kept in self.model.in_state(FAILED))
        assert groups == sorted(causes.values(), reverse=True)

    @invariant()
    def the_lanes_are_those_that_wait(self) -> None:
        """By name, each with its earliest time, and read in pages as well as at once."""
        for priority in Priority:
            waiting = self.model.due(float("inf"), priority, LANES)
            expected = [(lane, times[0]) for lane, times in sorted(waiting.items())]
            assert self.run(self._lanes(priority)) == expected

    async def _lanes(self, priority: Priority) -> list[tuple[str, float]]:
        found = await self.store.lanes(priority=priority, after="", limit=2)
        if len(found) < 2:
            return found
        return found + await self.store.lanes(priority=priority, after=found[-1][0], limit=2)

    async def _seen(self) -> tuple[list[Job], dict[JobState, int], list[int]]:
        page = await self.store.jobs(EVERYTHING, limit=10_000)
        groups = [group.count for group in await self.store.failures(EVERYTHING)]
        return page.jobs, await self.store.counts(), groups

    @invariant()
    def a_job_waits_for_a_time_exactly_while_it_is_pending(self) -> None:
        """And its fence has never gone back: as the model has it, which is as the store has it."""
        for kept in self.model.jobs.values():
            assert (kept.job.next_attempt_at is not None) == (kept.job.status is PENDING)
            assert kept.job.claim >= self.fences[kept.job.id]
            self.fences[kept.job.id] = kept.job.claim

    @invariant()
    def the_endpoints_are_those_of_the_model(self) -> None:
        """In every field, by their id where they are of one age."""
        assert self.run(self.store.endpoints()) == sorted(self.model.endpoints.values(), key=lambda e: e.id)

    @invariant()
    def the_suppressions_are_those_of_the_model(self) -> None:
        """In every field, the last added first, and read in pages as well as at once."""
        assert self.run(self._suppressions()) == self.model.suppressions[::-1]

    async def _suppressions(self) -> list[Suppression]:
        first = await self.store.suppressions(limit=2)
        if first.next_position is None:
            return first.suppressions
        rest = await self.store.suppressions(limit=2, after=first.next_position)
        return first.suppressions + rest.suppressions

    def _compare_everything(self) -> None:
        for kept in self.model.jobs.values():
            self._compare_content(kept.job.id)
            assert self.run(self.store.attempts(kept.job.id)) == kept.attempts
        for event in self.model.events.values():
            assert self.run(self.store.event(event.id)) == (event, list(self.model.jobs_of(event.id)))


StoreMachine.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestStore = StoreMachine.TestCase
pytestmark = pytest.mark.timeout(400)
"""A failure is made small before it is shown: Hypothesis gives that five minutes."""
