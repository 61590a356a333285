"""Events in: what was understood is routed and stored, and what it causes is handed to the dispatcher.

Knows nothing of where events come from, nor of how anything is delivered.
"""

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
from functools import partial

from notifier.dispatch.dispatcher import Dispatcher
from notifier.dispatch.pool import log_failed
from notifier.errors import DrainingError, Fault, IdempotencyConflictError, InvalidEventError
from notifier.ingest import Incoming, from_event
from notifier.metrics import Metrics
from notifier.model import Event, EventRecord, Job, new_id
from notifier.routing import OPERATIONAL, Router
from notifier.store import Store
from notifier.store.base import Added, Submission

MAX_JOBS = 100_000
"""How many jobs the events of one call may cause together. One event may always cause its own."""


class Intake:
    """Takes events in. `draining` is set to refuse more."""

    def __init__(
        self,
        store: Store,
        router: Router,
        dispatcher: Dispatcher,
        *,
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self.draining = False
        self._store = store
        self._router = router
        self._dispatcher = dispatcher
        self._clock = clock
        self._metrics = metrics
        self._under_way: set[Future[list[Added]]] = set()

    def take(self, incoming: Sequence[Incoming]) -> Future[list[Added]]:
        """Take validated events, all or none; the answers, in their order, come once they are synced.

        Raises InvalidEventError or DrainingError at once, with nothing stored; the future, as `Store.add`'s,
        IdempotencyConflictError or StoreUnavailableError.
        """
        if self.draining:
            raise DrainingError("stopping: no events are taken")
        submissions = self._submissions(incoming)
        adding = self._store.add(submissions)
        self._under_way.add(adding)
        adding.add_done_callback(partial(self._done, submissions))
        return adding

    async def drain(self) -> None:
        """Refuse more, and wait for what is being stored."""
        self.draining = True
        if self._under_way:
            await asyncio.wait(self._under_way)

    def submission(self, incoming: Incoming) -> Submission:
        """An event as it is stored, with the jobs that it causes. Raises InvalidEventError."""
        return self._submission(incoming, self._clock())

    def operational(self, event: Event) -> Submission:
        """An event of the notifier's own, with the jobs that it causes."""
        now = self._clock()
        return self._submission(from_event(event, now=now), now)

    def stored(self, submissions: Sequence[Submission]) -> None:
        """Take note of submissions that were stored otherwise than by `take`."""
        for each in submissions:
            self._count(each.jobs)
        self._dispatcher.stored(submissions)

    # Inside --------------------------------------------------------------------------------------

    def _submissions(self, incoming: Sequence[Incoming]) -> list[Submission]:
        now, jobs = self._clock(), 0
        made: list[Submission] = []
        for index, each in enumerate(incoming):
            try:
                _refuse_reserved(each.event)
                made.append(self._submission(each, now))
            except InvalidEventError as error:
                raise InvalidEventError(error.faults, index) from None
            jobs += len(made[-1].jobs)
            if index and jobs > MAX_JOBS:
                problem = f"with those before it, it causes more than {MAX_JOBS:,} jobs: post fewer at once"
                raise InvalidEventError([Fault("", problem)], index)
        # Only now: places in the window are for what will be stored.
        return [self._dispatcher.claim_new(each, now) for each in made]

    def _submission(self, incoming: Incoming, now: float) -> Submission:
        event, record = incoming.event, record_of(incoming, now)
        return Submission(record, self._router.jobs(record, event.data, event.deliver, now))

    def _done(self, submissions: Sequence[Submission], adding: Future[list[Added]]) -> None:
        self._under_way.discard(adding)
        if adding.cancelled():
            self._dispatcher.perhaps_stored(submissions)
        elif (error := adding.exception()) is None:
            self._took(submissions, adding.result())
        elif isinstance(error, IdempotencyConflictError):
            self._dispatcher.not_stored(submissions)
        else:
            self._dispatcher.perhaps_stored(submissions)

    def _took(self, submissions: Sequence[Submission], added: Sequence[Added]) -> None:
        fresh = [each for each in added if not each.duplicate]
        if len(fresh) < len(added):
            self._repeated([made for made, each in zip(submissions, added, strict=True) if each.duplicate])
        for each in fresh:
            self._count(each.jobs)
        self._dispatcher.stored(fresh)

    def _repeated(self, submissions: Sequence[Submission]) -> None:
        for _ in submissions:
            self._metrics.duplicates.inc()
        self._dispatcher.not_stored(submissions)

    def _count(self, jobs: Sequence[Job]) -> None:
        self._metrics.accepted.inc()
        if not jobs:
            self._metrics.unrouted.inc()
        for job in jobs:
            if job.error is not None:
                log_failed(job, job.error)


def record_of(incoming: Incoming, now: float) -> EventRecord:
    """The event as it is kept."""
    event = incoming.event
    return EventRecord(
        id=new_id("evt", now),
        type=event.type,
        data=incoming.raw,
        created_at=now,
        tenant=event.tenant,
        idempotency_key=event.idempotency_key,
        fingerprint=incoming.fingerprint,
        deliver_at=event.deliver_at.timestamp() if event.deliver_at else None,
    )


def _refuse_reserved(event: Event) -> None:
    """What tells of the notifier itself is believed, so nobody else may say it. Raises InvalidEventError."""
    if event.type.startswith(OPERATIONAL):
        raise InvalidEventError([Fault("/type", f"{OPERATIONAL} begins the notifier's own events alone")])
