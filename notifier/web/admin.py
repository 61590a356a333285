"""What operators call: find what failed and why, mend it, requeue it."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from notifier.errors import Fault
from notifier.model import JobState, rfc3339
from notifier.store.base import JobFilter
from notifier.web import answers
from notifier.web.auth import Scope
from notifier.web.calls import JSON, Answer, Call
from notifier.web.cursors import read_cursor, write_cursor
from notifier.web.events import EVENT_BODIES, read_events
from notifier.web.problems import invalid
from notifier.web.requests import read_json, read_query

if TYPE_CHECKING:
    from notifier.service import Notifier

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Destination = Annotated[str, Meta(min_length=1, max_length=2048)]
Moment = Annotated[datetime, Meta(tz=True)]


class Narrowing(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs are meant: all that is given must hold."""

    channel: Name | None = None
    event_type: Name | None = None
    route: Name | None = None
    endpoint: Name | None = None
    destination: Destination | None = None
    tenant: Name | None = None
    cause: Name | None = None
    created_after: Moment | None = None
    created_before: Moment | None = None

    def filter(self, status: JobState | None = None) -> JobFilter:
        """Return what the store understands."""
        return JobFilter(
            status=status,
            channel=self.channel,
            event_type=self.event_type,
            route=self.route,
            endpoint=self.endpoint,
            destination=self.destination,
            tenant=self.tenant,
            cause=self.cause,
            created_after=_seconds(self.created_after),
            created_before=_seconds(self.created_before),
        )


class JobQuery(Narrowing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs to list, and how many at once."""

    status: JobState | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Annotated[str, Meta(description="`next_cursor` of the page before")] | None = None


class RequeueRequest(Narrowing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs to requeue; `canary` sends one first, and the rest only when it completes."""

    status: Literal["PENDING", "COMPLETED", "FAILED", "CANCELLED"] = "FAILED"
    canary: bool = False
    dry_run: bool = False


_requeue_request = msgspec.json.Decoder(RequeueRequest)


class Admin:
    """The calls below `/v1/admin`."""

    def __init__(self, notifier: "Notifier") -> None:
        self.notifier = notifier
        self.max_body = notifier.config.server.max_body

    async def jobs(self, request: web.Request) -> web.Response:
        """Answer a page of jobs, newest first."""
        query = read_query(request, JobQuery)
        before = None if query.cursor is None else read_cursor(query.cursor)
        page = await self.notifier.store.jobs(query.filter(query.status), limit=query.limit, before=before)
        following = None if page.next_position is None else write_cursor(page.next_position)
        return answers.respond(answers.JobList([answers.job_answer(job) for job in page.jobs], following))

    async def job(self, request: web.Request) -> web.Response:
        """Answer a job with its event and every attempt."""
        store = self.notifier.store
        job = await store.job(request.match_info["id"])
        event, _ = await store.event(job.event_id)
        attempts = [answers.attempt_answer(n, one) for n, one in enumerate(await store.attempts(job.id), 1)]
        return answers.respond(
            answers.JobDetail(answers.job_answer(job), answers.event_answer(event), attempts)
        )

    async def why(self, request: web.Request) -> web.Response:
        """Answer what a job waits for."""
        job_id = request.match_info["id"]
        why = await self.notifier.why(job_id)
        until = None if why.until is None else rfc3339(why.until)
        return answers.respond(answers.WhyAnswer(job_id, why.status, why.reason, until, why.detail))

    async def requeue(self, request: web.Request) -> web.Response:
        """Make a job due now, its attempts unspent."""
        return answers.respond(answers.job_answer(await self.notifier.requeue(request.match_info["id"])))

    async def cancel(self, request: web.Request) -> web.Response:
        """Withdraw a job that waits."""
        return answers.respond(answers.job_answer(await self.notifier.cancel(request.match_info["id"])))

    async def requeue_matching(self, request: web.Request) -> web.Response:
        """Requeue all jobs that a filter means."""
        wanted = await read_json(request, _requeue_request, self.max_body)
        done = await self.notifier.requeue_matching(
            wanted.filter(JobState(wanted.status)), canary=wanted.canary, dry_run=wanted.dry_run
        )
        return answers.respond(answers.RequeuedAnswer(done.matched, done.requeued), 202)

    async def failures(self, request: web.Request) -> web.Response:
        """Answer the causes of FAILED jobs, the most frequent first."""
        groups = await self.notifier.store.failures(read_query(request, Narrowing).filter())
        return answers.respond(answers.Failures([answers.failure_answer(group) for group in groups]))

    async def webhook_secret(self, _request: web.Request) -> web.Response:
        """Answer the secret that receivers verify with where no route has its own."""
        return answers.respond(answers.SecretAnswer(self.notifier.webhook_secret))

    async def preview(self, request: web.Request) -> web.Response:
        """Answer what an event would cause; nothing is sent or stored."""
        posted = await read_events(request, self.max_body, self.notifier.channels)
        if posted.is_array:
            raise invalid([Fault("", "expected one event, not an array")])
        return answers.respond(self.notifier.preview(posted.events[0]))


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def calls(notifier: "Notifier") -> list[Call]:
    """Return the calls of this part of the API."""
    admin = Admin(notifier)
    return [*_reading(admin), *_changing(admin), *_explaining(admin)]


def _reading(admin: Admin) -> list[Call]:
    return [
        Call(
            method="GET",
            path="/v1/admin/jobs",
            name="listJobs",
            summary="List jobs, newest first",
            scope=Scope.ADMIN,
            handler=admin.jobs,
            query=JobQuery,
            answers={200: Answer("A page of jobs.", answers.JobList)},
            problems=(422, 503),
        ),
        Call(
            method="GET",
            path="/v1/admin/jobs/{id}",
            name="getJob",
            summary="Read a job with its event and every attempt",
            scope=Scope.ADMIN,
            handler=admin.job,
            answers={200: Answer("The job.", answers.JobDetail)},
            problems=(404, 503),
        ),
        Call(
            method="GET",
            path="/v1/admin/jobs/{id}/why",
            name="whyJob",
            summary="Say what a job waits for, and until when",
            scope=Scope.ADMIN,
            handler=admin.why,
            answers={200: Answer("What it waits for.", answers.WhyAnswer)},
            problems=(404, 503),
        ),
    ]


def _changing(admin: Admin) -> list[Call]:
    return [
        Call(
            method="POST",
            path="/v1/admin/jobs/requeue",
            name="requeueJobs",
            summary="Requeue the jobs that a filter means",
            scope=Scope.ADMIN,
            handler=admin.requeue_matching,
            body={JSON: RequeueRequest},
            answers={202: Answer("How many are meant, and how many are requeued.", answers.RequeuedAnswer)},
            problems=(413, 415, 422, 503),
        ),
        Call(
            method="POST",
            path="/v1/admin/jobs/{id}/requeue",
            name="requeueJob",
            summary="Make a job due now, its attempts unspent",
            scope=Scope.ADMIN,
            handler=admin.requeue,
            answers={200: Answer("The job, PENDING.", answers.JobAnswer)},
            problems=(404, 409, 503),
        ),
        Call(
            method="POST",
            path="/v1/admin/jobs/{id}/cancel",
            name="cancelJob",
            summary="Withdraw a job that waits",
            scope=Scope.ADMIN,
            handler=admin.cancel,
            answers={200: Answer("The job, CANCELLED.", answers.JobAnswer)},
            problems=(404, 409, 503),
        ),
    ]


def _explaining(admin: Admin) -> list[Call]:
    return [
        Call(
            method="GET",
            path="/v1/admin/failures",
            name="listFailures",
            summary="Group FAILED jobs by cause",
            scope=Scope.ADMIN,
            handler=admin.failures,
            query=Narrowing,
            answers={200: Answer("The causes, the most frequent first.", answers.Failures)},
            problems=(422, 503),
        ),
        Call(
            method="GET",
            path="/v1/admin/webhook-secret",
            name="getWebhookSecret",
            summary="Read the secret of webhooks that have none of their own",
            scope=Scope.ADMIN,
            handler=admin.webhook_secret,
            answers={200: Answer("The secret.", answers.SecretAnswer)},
        ),
        Call(
            method="POST",
            path="/v1/admin/preview",
            name="previewEvent",
            summary="Show what an event would cause; nothing is sent or stored",
            scope=Scope.ADMIN,
            handler=admin.preview,
            body=EVENT_BODIES,
            answers={200: Answer("The routes and the deliveries.", dict[str, Any])},
            problems=(413, 415, 422, 503),
        ),
    ]
