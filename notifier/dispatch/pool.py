"""The workers: each takes a claim, has it delivered, and writes down what became of it.

A job's failure is its own: whatever a template or a channel raises is recorded on that job, and the
worker goes on.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import msgspec
import structlog

from notifier.channels import Receipt
from notifier.config import Config
from notifier.dispatch.deliverer import Deliverer, KnownEndpoints
from notifier.dispatch.health import LaneHealth
from notifier.dispatch.queue import FairQueue
from notifier.dispatch.settler import Landed, Settler
from notifier.errors import DeliveryError, StoreError, Transient, Unknown, Withdrawn
from notifier.metrics import Metrics
from notifier.model import Attempt, Claim, Job, JobError, JobState
from notifier.retry import DELIVERED, Decision, decide, mask, printable
from notifier.routing import Router
from notifier.store.base import Settlement, Store
from notifier.suppressions import Suppressions

_LARGEST_CODE = 999_999

_log = structlog.get_logger(__name__)


class Subscribers(KnownEndpoints, Protocol):
    """The endpoints, as far as a worker knows them. Times are seconds since the epoch."""

    async def delivered(self, endpoint_id: str, now: float) -> None:
        """Take note that its receiver took something."""

    async def failed(
        self, endpoint_id: str, error: DeliveryError, now: float, *, breaker_opened: bool
    ) -> None:
        """Take note that an attempt of it failed, and whether that opened its lane's breaker."""


class WorkerPool:
    """A fixed number of workers on one queue."""

    def __init__(
        self,
        *,
        config: Config,
        queue: FairQueue,
        store: Store,
        deliverer: Deliverer,
        router: Router,
        clock: Callable[[], float],
        random: Callable[[], float],
        metrics: Metrics,
        endpoints: Subscribers,
        suppressions: Suppressions,
        on_due: Callable[[str, int, float], None],
    ) -> None:
        self._config = config
        self._queue = queue
        self._store = store
        self._deliverer = deliverer
        self._router = router
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._endpoints = endpoints
        self._suppressions = suppressions
        self._health = LaneHealth(queue, config, clock)
        self._on_due = on_due
        self._settler = Settler(
            store,
            queue,
            most=config.workers.concurrency,
            metrics=metrics,
            otherwise=self._otherwise,
            on_due=on_due,
        )
        self._giving_back: set[asyncio.Task[None]] = set()
        self._workers: list[asyncio.Task[None]] = []
        queue.on_refused = self.give_back

    def start(self) -> None:
        """Set the workers to work."""
        self._workers = [
            asyncio.create_task(self._work(), name=f"worker {number}")
            for number in range(self._config.workers.concurrency)
        ]

    @property
    def dead(self) -> int:
        """How many workers ended though nobody asked them to."""
        return sum(worker.done() for worker in self._workers)

    async def drain(self, seconds: float) -> None:
        """Give back what no worker has begun, wait for what is in flight, then give back the rest too.

        What is given back is PENDING and due at once, and has spent no attempt.
        """
        await self._release_all(self._queue.close())
        if self._workers:
            clock = asyncio.get_running_loop().time
            end = clock() + seconds
            _, late = await asyncio.wait(self._workers, timeout=seconds)
            for worker in late:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
            await self._settler.drain(max(0.0, end - clock()))
            await asyncio.gather(*self._giving_back, return_exceptions=True)
            self._workers.clear()
            await self._release_all(self._queue.close())

    def give_back(self, claims: Sequence[Claim], until: float = 0.0) -> None:
        """Give jobs back that no worker has begun, without an attempt spent; none is due before `until`."""
        if claims:
            task = asyncio.create_task(self._release_all(claims, until), name="give back")
            self._giving_back.add(task)
            task.add_done_callback(self._giving_back.discard)

    # One worker ----------------------------------------------------------------------------------

    async def _work(self) -> None:
        own = cast("asyncio.Task[None]", asyncio.current_task())
        # A channel may tell of a cancellation what it means for its job: that is written down first.
        while not own.cancelling() and (claim := await self._queue.get()) is not None:
            try:
                moved = await self._attempt(claim)
            except asyncio.CancelledError:
                self._queue.landed(claim)
                await self._release(claim)
                self._queue.settled(claim)
                raise
            except Exception:
                self._metrics.errors.labels("worker").inc()
                _log.exception("a worker failed; its job comes again when its claim ends", job=claim.job.id)
                self._queue.done(claim)
                continue
            if moved is not None:
                self._queue.done(claim)
                self._queue.take_in([moved])
                continue
            self._queue.landed(claim)
            if self._settler.behind:
                await self._settler.catch_up()

    async def _attempt(self, claim: Claim) -> Claim | None:
        """Try one job once, and write down what came of it.

        Returns the claim if it is to wait its turn in another lane first.
        """
        started, clock = self._clock(), time.perf_counter()
        job, answer = await self._answer(claim)
        if answer is None:
            return Claim(msgspec.structs.replace(claim.job, lane=job.lane), claim.event)
        duration = time.perf_counter() - clock
        breaker_opened = False
        try:
            verdict = self._health.note(job.lane, answer)
            if verdict.withdrawn:
                self.give_back(verdict.withdrawn, verdict.until)
            breaker_opened = verdict.breaker_opened
            settlement = self._settlement(claim, job, answer, started, duration, until=verdict.until)
            landed = Landed(claim, job, settlement, started, duration)
        except Exception as error:
            # A channel may raise what can't be told, such as a message that is no text.
            landed = Landed(
                claim, claim.job, self._failed(claim, error, started, duration), started, duration
            )
        try:
            if job.endpoint is not None:
                await self._tell_endpoint(job.endpoint, answer, started, breaker_opened=breaker_opened)
            if self._suppressions.concern(job):
                await self._suppressions.note(job, answer)
        finally:  # a worker that is cancelled there has delivered all the same
            self._settler.write(landed)
        return None

    async def _answer(self, claim: Claim) -> tuple[Job, Receipt | DeliveryError | None]:
        """Deliver. Whatever is raised on the way is the job's failure, save that we are being stopped.

        None: its destination was made out only now, and is of a lane with limits of its own.
        """
        job = claim.job
        try:
            job = self._deliverer.made_out(claim)
            if job.lane != claim.job.lane:
                return job, None
            receipt = await self._deliverer.deliver(job, claim)
            # A channel that returns no receipt is taken at its word.
            return job, receipt if isinstance(receipt, Receipt) else Receipt()
        except DeliveryError as error:
            return job, error
        except BaseException as error:
            if _is_a_stop(error):
                raise
            return job, _failure(error, job)

    # What became of it ---------------------------------------------------------------------------

    async def _tell_endpoint(
        self, endpoint_id: str, answer: Receipt | DeliveryError, started: float, *, breaker_opened: bool
    ) -> None:
        """Tell an endpoint. What goes wrong there must not change what became of the job."""
        endpoint = self._endpoints.get(endpoint_id)
        # One that was changed meanwhile (its url, say) has nothing to do with how this went.
        if endpoint is None or endpoint.updated_at > started:
            return
        try:
            if isinstance(answer, DeliveryError):
                now = self._clock()
                await self._endpoints.failed(endpoint.id, answer, now, breaker_opened=breaker_opened)
            else:
                await self._endpoints.delivered(endpoint.id, self._clock())
        except Exception:
            self._metrics.errors.labels("endpoint").inc()
            _log.exception("an endpoint's health could not be noted", endpoint=endpoint.id)

    def _failed(self, claim: Claim, error: Exception, started: float, duration: float) -> Settlement:
        """What to write down where what a channel said can't be: that it said something of the kind."""
        failure = _failure(error, claim.job)
        return self._settlement(claim, claim.job, failure, started, duration, until=0.0)

    def _otherwise(self, landed: Landed, error: Exception) -> Settlement:
        return self._failed(landed.claim, error, landed.started, landed.duration)

    def _settlement(
        self,
        claim: Claim,
        job: Job,
        answer: Receipt | DeliveryError,
        started: float,
        duration: float,
        *,
        until: float,
    ) -> Settlement:
        """What to write down. A destination is written with it when it was made out only now."""
        now = self._clock()
        decision = self._decision(job, answer, now, until)
        self._metrics.attempts.add(job.channel, decision.outcome, duration)
        if decision.status is JobState.FAILED and decision.error is not None:
            log_failed(job, decision.error)
        made_out = claim.job.destination is None
        return Settlement(
            job_id=job.id,
            claim=claim.job.claim,
            status=decision.status,
            now=now,
            next_attempt_at=decision.next_attempt_at,
            error=decision.error,
            cause=decision.cause,
            spent=decision.spent,
            attempt=None if isinstance(answer, Withdrawn) else _attempt(decision, answer, started, duration),
            content=answer.content if isinstance(answer, Unknown) else None,
            destination=job.destination if made_out else None,
            lane=job.lane if made_out else None,
            locale=job.locale if made_out else None,
            addressed=job.addressed if made_out else None,
        )

    def _decision(self, job: Job, answer: Receipt | DeliveryError, now: float, until: float) -> Decision:
        if isinstance(answer, Receipt):
            return DELIVERED
        return decide(
            answer,
            job,
            schedule=self._router.schedule(job.route),
            retry=self._config.retry,
            now=now,
            random=self._random,
            paused_until=until,
            on_unknown=self._router.on_unknown(job.route),
        )

    async def _release(self, claim: Claim, until: float = 0.0) -> None:
        """Give a job back without spending an attempt; it is not due before `until`."""
        now = self._clock()
        job = claim.job
        release = Settlement(
            job_id=job.id,
            claim=job.claim,
            status=JobState.PENDING,
            now=now,
            next_attempt_at=max(now, until),
            error=job.error,
        )
        try:
            if await self._store.settle(release):
                self._on_due(job.lane, job.priority, max(now, until))
        except StoreError:
            _log.exception("a job could not be given back; it is when its claim ends", job=job.id)

    async def _release_all(self, claims: Sequence[Claim], until: float = 0.0) -> None:
        """Give jobs back, all at once: together they cost the store one transaction."""
        await asyncio.gather(*(self._release(claim, until) for claim in claims))


def log_failed(job: Job, error: JobError) -> None:
    """Tell an operator of a job that is FAILED now. Whom it was for, and what was said of them, is masked."""
    _log.warning(
        "job failed",
        job=job.id,
        channel=job.channel,
        route=job.route,
        code=error.code,
        why=mask(error.message),
    )


def _is_a_stop(error: BaseException) -> bool:
    """Whether it is the worker that is to end, and no channel that failed."""
    if isinstance(error, asyncio.CancelledError):
        return _is_to_end()
    return isinstance(error, GeneratorExit)


def _is_to_end() -> bool:
    """Whether the task that asks was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failure(error: BaseException, job: Job) -> Transient:
    """What an exception means that says nothing of its meaning: its type is the cause."""
    name = type(error).__name__
    try:
        told = f"{name}: {error}"
        _log.error("an attempt raised", channel=job.channel, job=job.id, exc_info=error)
    except BaseException as second:  # its own text raises
        told = f"{name}, which can't be told: {type(second).__name__}"
        _log.error("an attempt raised", channel=job.channel, job=job.id, error=told)
    return Transient(told, code=name)


def _attempt(decision: Decision, answer: Receipt | DeliveryError, started: float, duration: float) -> Attempt:
    response = answer.response
    return Attempt(
        started_at=started,
        duration_ms=duration * 1000,
        outcome=decision.outcome,
        status_code=_status_code(answer.status_code),
        error=decision.error,
        response=None if response is None else printable(str(response), 1024),
        timings=answer.timings,
        via=answer.via,
    )


def _status_code(given: object) -> int | None:
    """A receiver's code as it can be kept: a channel may hand in anything, and was heard all the same."""
    return given if type(given) is int and 0 <= given <= _LARGEST_CODE else None
