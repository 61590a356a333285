"""What operators call about endpoints: webhook subscriptions, their secrets, and what waits for them."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field

from notifier.config import parse_duration
from notifier.endpoints import EndpointChanges, EndpointDraft
from notifier.endpoints.drafts import MAX_DESCRIPTION
from notifier.endpoints.trial import TEST_EVENT
from notifier.errors import Fault
from notifier.model import Endpoint, EndpointState, Event, EventType, JobState
from notifier.store.base import JobFilter
from notifier.web import answers, endpoint_answers
from notifier.web.admin import Moment, Name
from notifier.web.auth import Scope
from notifier.web.calls import JSON, Answer, Call
from notifier.web.cursors import read_id_cursor, write_id_cursor
from notifier.web.problems import invalid
from notifier.web.requests import read_json, read_optional_json, read_query

if TYPE_CHECKING:
    from notifier.service import Notifier

_PATH = "/v1/admin/endpoints"
_ONE = f"{_PATH}/{{id}}"

DurationText = Annotated[
    str,
    Meta(
        description='such as "90s", "5m", "24h" or "7d"',
        extra_json_schema={"pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"},
    ),
]


_SET_APART = {
    "tenant": "can't be changed, as what waits is for this one: create another endpoint",
    "state": f"can't be changed here: POST {_ONE}/pause or {_ONE}/resume does it",
    "secret": f"can't be changed here: POST {_ONE}/rotate does it, and lets the old one sign for a while",
    "signature": f"can't be changed here: POST {_ONE}/rotate does it",
}
"""What an endpoint has and no change of its settings touches, and what does."""


class EndpointQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which endpoints to list, and how many at once."""

    tenant: Annotated[Name, Meta(description="of this tenant alone")] | None = None
    state: Annotated[EndpointState, Meta(description="in this state alone")] | None = None
    limit: Annotated[int, Meta(ge=1, le=500, description="how many at once")] = 50
    cursor: Annotated[str, Meta(description="`next_cursor` of the page before")] | None = None


class PauseRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why an endpoint is paused, in words."""

    reason: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_DESCRIPTION,
                description="why, for those who find it paused; `state_reason` tells it",
            ),
        ]
        | None
    ) = None


class RotateRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The secret to sign with from now on (a new one where it is left out), and how long the others stay."""

    secret: (
        Annotated[str, Meta(max_length=512, description="`whsec_…` or `whsk_…`; null: a new one is made")]
        | None
    ) = None
    signature: Annotated[
        Literal["v1", "v1a"] | None, Meta(description="the kind of a new one; null: the kind there is")
    ] = None
    overlap: Annotated[
        DurationText | None,
        Meta(
            description='how long the old secrets sign beside it, such as "24h"; "0s" ends them at once,'
            " null: as `channels.webhook.rotation_overlap` has it"
        ),
    ] = None


class TestRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The event to try an endpoint with."""

    type: EventType = TEST_EVENT
    data: Annotated[dict[str, Any], Meta(description="the event's data")] = field(default_factory=dict)


class ReplayRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of an endpoint's jobs to requeue: those created from `since` on, and before `until`."""

    since: Annotated[Moment, Meta(description="jobs created from then on (RFC 3339)")]
    until: Annotated[Moment, Meta(description="and before then (RFC 3339); null: until now")] | None = None
    status: Annotated[
        Literal["PENDING", "COMPLETED", "FAILED", "CANCELLED"], Meta(description="jobs in this state")
    ] = "FAILED"
    canary: Annotated[bool, Meta(description="send one first, and the rest only when it completes")] = False
    dry_run: Annotated[bool, Meta(description="change nothing, only count")] = False


_draft = msgspec.json.Decoder(EndpointDraft)
_changes = msgspec.json.Decoder(EndpointChanges)
_pause_request = msgspec.json.Decoder(PauseRequest)
_rotate_request = msgspec.json.Decoder(RotateRequest)
_test_request = msgspec.json.Decoder(TestRequest)
_replay_request = msgspec.json.Decoder(ReplayRequest)


class EndpointCalls:
    """The calls below `/v1/admin/endpoints`."""

    def __init__(self, notifier: "Notifier") -> None:
        self.notifier = notifier
        self.max_body = notifier.config.server.max_body

    async def create(self, request: web.Request) -> web.Response:
        """Keep a new endpoint, and answer its secret, this once."""
        draft = await read_json(request, _draft, self.max_body)
        _check_kind(draft.secret, "v1a" if draft.signature == "v1a" else None)
        endpoint, secret = await self.notifier.endpoints.create(draft)
        return answers.respond(endpoint_answers.endpoint_created(endpoint, secret), 201)

    async def list(self, request: web.Request) -> web.Response:
        """Answer a page of endpoints, newest first."""
        query = read_query(request, EndpointQuery)
        before = None if query.cursor is None else read_id_cursor(query.cursor)
        meant = [each for each in self.notifier.endpoints.all() if _meant(each, query, before)]
        meant.sort(key=lambda each: each.id, reverse=True)
        page = meant[: query.limit]
        following = write_id_cursor(page[-1].id) if len(meant) > len(page) else None
        return answers.respond(
            endpoint_answers.EndpointList(list(map(endpoint_answers.endpoint_answer, page)), following)
        )

    async def show(self, request: web.Request) -> web.Response:
        """Answer an endpoint, what waits for it, and the life of its secrets."""
        endpoint = self._found(request)
        pending = await self.notifier.store.count(JobFilter(endpoint=endpoint.id, status=JobState.PENDING))
        trouble, now = self.notifier.trouble(endpoint), self.notifier.clock()
        return answers.respond(endpoint_answers.endpoint_detail(endpoint, pending, trouble, now))

    async def change(self, request: web.Request) -> web.Response:
        """Change what is given; null clears."""
        changes = await read_json(request, _changes, self.max_body, known=_SET_APART)
        changed = await self.notifier.endpoints.change(_id(request), changes)
        return answers.respond(endpoint_answers.endpoint_answer(changed))

    async def delete(self, request: web.Request) -> web.Response:
        """Let an endpoint go, and cancel what waits for it."""
        cancelled = await self.notifier.endpoints.delete(_id(request))
        return answers.respond(endpoint_answers.EndpointDeleted(_id(request), cancelled))

    async def pause(self, request: web.Request) -> web.Response:
        """Hold what comes for an endpoint."""
        wanted = await read_optional_json(request, _pause_request, self.max_body)
        paused = await self.notifier.endpoints.pause(_id(request), wanted.reason)
        return answers.respond(endpoint_answers.endpoint_answer(paused))

    async def resume(self, request: web.Request) -> web.Response:
        """Deliver what was held, and what comes."""
        resumed = await self.notifier.endpoints.resume(_id(request))
        return answers.respond(endpoint_answers.endpoint_answer(resumed))

    async def rotate(self, request: web.Request) -> web.Response:
        """Sign with a new secret too, which is answered this once; the others end by themselves."""
        wanted = await read_optional_json(request, _rotate_request, self.max_body)
        _check_kind(wanted.secret, wanted.signature)
        endpoint, secret = await self.notifier.endpoints.rotate(
            _id(request),
            secret=wanted.secret,
            signature=wanted.signature or endpoint_answers.signature_of(self._found(request).secrets[0]),
            overlap=None if wanted.overlap is None else _seconds(wanted.overlap, "/overlap"),
        )
        return answers.respond(endpoint_answers.endpoint_rotated(endpoint, secret, self.notifier.clock()))

    async def test(self, request: web.Request) -> web.Response:
        """Deliver a test event now, and answer the whole exchange."""
        wanted = await read_optional_json(request, _test_request, self.max_body)
        trial = await self.notifier.test_endpoint(_id(request), Event(type=wanted.type, data=wanted.data))
        return answers.respond(endpoint_answers.trial_answer(trial))

    async def requeue(self, request: web.Request) -> web.Response:
        """Requeue the endpoint's jobs since a time."""
        wanted = await read_json(request, _replay_request, self.max_body)
        meant = JobFilter(
            endpoint=self._found(request).id,
            status=JobState(wanted.status),
            created_after=wanted.since.timestamp(),
            created_before=None if wanted.until is None else wanted.until.timestamp(),
        )
        done = await self.notifier.requeue_matching(meant, canary=wanted.canary, dry_run=wanted.dry_run)
        return answers.respond(answers.RequeuedAnswer(done.matched, done.requeued), 202)

    def _found(self, request: web.Request) -> Endpoint:
        return self.notifier.endpoints.find(_id(request))


def _id(request: web.Request) -> str:
    return request.match_info["id"]


def _meant(endpoint: Endpoint, query: EndpointQuery, before: str | None) -> bool:
    return (
        (query.tenant is None or endpoint.tenant == query.tenant)
        and (query.state is None or endpoint.state is query.state)
        and (before is None or endpoint.id < before)
    )


def _check_kind(secret: str | None, signature: str | None) -> None:
    """Refuse a secret of another kind than what is asked for: one of the two is a mistake."""
    if secret is None or signature is None:
        return
    try:
        made = endpoint_answers.kind_of(secret)
    except ValueError:
        return  # it is no secret, which the registry says in its own words
    if made != signature:
        problem = f"the secret that is given makes {made} signatures: give one of the two, or another secret"
        raise invalid([Fault("/signature", problem)])


def _seconds(duration: str, pointer: str) -> float:
    try:
        return parse_duration(duration)
    except ValueError as error:
        raise invalid([Fault(pointer, str(error))]) from None


def calls(notifier: "Notifier") -> list[Call]:
    """Return the calls of this part of the API."""
    endpoints = EndpointCalls(notifier)
    return [*_reading(endpoints), *_keeping(endpoints), *_holding(endpoints), *_proving(endpoints)]


def _call(**said: Any) -> Call:
    return Call(scope=Scope.ADMIN, **said)


def _reading(endpoints: EndpointCalls) -> list[Call]:
    return [
        _call(
            method="GET",
            path=_PATH,
            name="listEndpoints",
            summary="List endpoints, newest first",
            handler=endpoints.list,
            query=EndpointQuery,
            answers={200: Answer("A page of endpoints.", endpoint_answers.EndpointList)},
            problems=(422, 503),
        ),
        _call(
            method="GET",
            path=_ONE,
            name="getEndpoint",
            summary="Read an endpoint, how many jobs wait for it, and the life of its secrets",
            handler=endpoints.show,
            answers={200: Answer("The endpoint.", endpoint_answers.EndpointDetail)},
            problems=(404, 503),
        ),
    ]


def _keeping(endpoints: EndpointCalls) -> list[Call]:
    return [
        _call(
            method="POST",
            path=_PATH,
            name="createEndpoint",
            summary="Keep a webhook subscription; its secret is told this once",
            handler=endpoints.create,
            body={JSON: EndpointDraft},
            answers={201: Answer("The endpoint, with its secret.", endpoint_answers.EndpointCreated)},
            problems=(413, 415, 422, 503),
        ),
        _call(
            method="PATCH",
            path=_ONE,
            name="changeEndpoint",
            summary="Change what is given of an endpoint; null clears, what is left out stays",
            handler=endpoints.change,
            body={JSON: EndpointChanges},
            answers={200: Answer("The endpoint as it is now.", endpoint_answers.EndpointAnswer)},
            problems=(404, 413, 415, 422, 503),
        ),
        _call(
            method="DELETE",
            path=_ONE,
            name="deleteEndpoint",
            summary="Delete an endpoint, and cancel what waits for it",
            handler=endpoints.delete,
            answers={200: Answer("How many jobs are cancelled.", endpoint_answers.EndpointDeleted)},
            problems=(404, 503),
        ),
    ]


def _holding(endpoints: EndpointCalls) -> list[Call]:
    return [
        _call(
            method="POST",
            path=f"{_ONE}/pause",
            name="pauseEndpoint",
            summary="Hold what comes for an endpoint until it is resumed",
            handler=endpoints.pause,
            body={JSON: PauseRequest},
            body_required=False,
            answers={200: Answer("The endpoint, paused.", endpoint_answers.EndpointAnswer)},
            problems=(404, 413, 415, 422, 503),
        ),
        _call(
            method="POST",
            path=f"{_ONE}/resume",
            name="resumeEndpoint",
            summary="Deliver to an endpoint again, what was held for it first",
            handler=endpoints.resume,
            answers={200: Answer("The endpoint, enabled.", endpoint_answers.EndpointAnswer)},
            problems=(404, 503),
        ),
        _call(
            method="POST",
            path=f"{_ONE}/requeue",
            name="requeueEndpoint",
            summary="Requeue an endpoint's jobs since a time",
            handler=endpoints.requeue,
            body={JSON: ReplayRequest},
            answers={202: Answer("How many are meant, and how many are requeued.", answers.RequeuedAnswer)},
            problems=(404, 413, 415, 422, 503),
        ),
    ]


def _proving(endpoints: EndpointCalls) -> list[Call]:
    return [
        _call(
            method="POST",
            path=f"{_ONE}/rotate",
            name="rotateEndpoint",
            summary="Give an endpoint a new secret, told this once; the others sign too until they end",
            handler=endpoints.rotate,
            body={JSON: RotateRequest},
            body_required=False,
            answers={200: Answer("The endpoint, with its new secret.", endpoint_answers.EndpointRotated)},
            problems=(404, 413, 415, 422, 503),
        ),
        _call(
            method="POST",
            path=f"{_ONE}/test",
            name="testEndpoint",
            summary="Deliver a test event to an endpoint now, signed, outside the queue",
            handler=endpoints.test,
            body={JSON: TestRequest},
            body_required=False,
            answers={
                200: Answer("The exchange, whether or not it was delivered.", endpoint_answers.TrialAnswer)
            },
            problems=(404, 413, 415, 422, 503),
        ),
    ]
