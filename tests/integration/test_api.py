"""The HTTP API over real sockets, on a real notifier with a real store."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.api import KEYS, Api, serving

from notifier.config import Route
from notifier.errors import Permanent, StoreUnavailableError

ORDER = {"type": "order.paid", "data": {"total": 12}}
ERP = "https://erp.example.com/hooks"
CLOUD = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "data": {"total": 12}}

CHUNKED = (
    b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture(params=["served", "embedded"])
async def api(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """A notifier without keys, as it ships; and one in another program, which serves it by aiohttp alone."""
    async with serving(tmp_path, max_body=10_000, embedded=request.param == "embedded") as served:
        yield served


@pytest.fixture
async def keyed(tmp_path: Path) -> AsyncIterator[Api]:
    """A notifier that asks for keys."""
    async with serving(tmp_path, auth=KEYS) as served:
        yield served


def later(**ahead: float) -> str:
    """A time from now, as an app writes it."""
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


async def failed_job(api: Api, **event: Any) -> str:
    """Post an order whose webhook fails for good; return its job's id."""
    api.script.errors[ERP] = Permanent("gone", code="http_410", status_code=410, response="no more")
    _, told = await api.post(ORDER | event)
    await api.settled()
    job_id: str = told["jobs"][0]["id"]
    return job_id


# Events in -------------------------------------------------------------------------------------------


async def test_an_event_is_accepted_with_its_jobs(api: Api) -> None:
    """One event answers 202 with its id and the jobs it caused; and it is delivered."""
    status, told = await api.post(ORDER)
    assert status == 202
    assert told["id"].startswith("evt_")
    (job,) = told.pop("jobs")
    assert told == {"id": told["id"], "type": "order.paid", "duplicate": False}
    assert job.pop("id").startswith("job_")
    assert job == {"channel": "webhook", "destination": ERP, "status": "PENDING"}
    await api.settled()


async def test_an_array_answers_with_an_array(api: Api) -> None:
    """Each event of an array is answered in its place; one that nobody wants has no jobs."""
    status, told = await api.post([ORDER, {"type": "unheard.of", "data": {}}])
    assert (status, [one["type"] for one in told]) == (202, ["order.paid", "unheard.of"])
    assert [len(one["jobs"]) for one in told] == [1, 0]
    assert (await api.post([ORDER]))[1][0]["type"] == "order.paid"


async def test_an_explicit_delivery_stands_beside_the_routes(api: Api) -> None:
    """`deliver` causes a job of its own."""
    _, told = await api.post(ORDER | {"deliver": [{"channel": "webhook", "url": "https://other.example"}]})
    assert {job["destination"] for job in told["jobs"]} == {ERP, "https://other.example"}


async def test_an_app_is_told_no_query_of_a_routes_url(tmp_path: Path) -> None:
    """It may hold a secret of whoever configured it; of what the app itself asked for, it may see all."""
    own, routed = "https://other.example/?mine=1", f"{ERP}?token=hush"
    route = Route(name="erp", event="order.*", channel="webhook", url=routed)
    async with serving(tmp_path, auth=KEYS, routes=(route,)) as served:
        body = ORDER | {"deliver": [{"channel": "webhook", "url": own}]}
        _, told = await served.call("POST", "/v1/events", key="ingest-key", json=body)
        _, read = await served.call("GET", f"/v1/events/{told['id']}", key="ingest-key")
        for answer in (told, read):
            assert {job["destination"] for job in answer["jobs"]} == {ERP, own}
        _, listed = await served.call("GET", "/v1/admin/jobs", key="admin-key")
        assert {job["destination"] for job in listed["jobs"]} == {routed, own}


async def test_a_delivery_that_routing_refuses_is_pointed_at_in_its_event(api: Api) -> None:
    """What only the channels know to be wrong points into the array too, and the whole array is refused."""
    pigeon = {**ORDER, "deliver": [{"channel": "pigeon", "to": "roof"}]}
    status, problem = await api.post([ORDER, pigeon])
    assert (status, problem["errors"][0]["pointer"]) == (422, "/1/deliver/0/channel")
    status, problem = await api.post(pigeon)
    assert (status, problem["errors"][0]["pointer"]) == (422, "/deliver/0/channel")
    assert await api.stored() == (0, 0)


async def test_a_destination_that_cannot_be_made_out_is_born_failed(api: Api) -> None:
    """The event is taken all the same; that job is FAILED, and a duplicate tells the same."""
    signup = {"type": "user.signup", "data": {"name": "Ada"}, "idempotency_key": "k"}
    _, first = await api.post(signup)
    assert [(job["status"], job["destination"]) for job in first["jobs"]] == [("FAILED", None)]
    _, again = await api.post(signup)
    assert again == first | {"duplicate": True}


async def test_the_same_key_returns_the_first_answer(api: Api) -> None:
    """A repeat tells what the first told, whatever has become of the jobs since, and causes nothing."""
    order = ORDER | {"idempotency_key": "order 7"}
    _, first = await api.post(order)
    await api.settled()
    status, again = await api.post(b'{"idempotency_key":"order 7", "data":{"total":12}, "type":"order.paid"}')
    assert (status, again) == (202, first | {"duplicate": True})
    assert await api.stored() == (1, 1)


async def test_the_same_key_with_another_event_is_refused(api: Api) -> None:
    """422 points at the key, with its place in an array, and nothing of that array is stored."""
    await api.post(ORDER | {"idempotency_key": "k"})
    other = {"type": "order.paid", "data": {"total": 13}, "idempotency_key": "k"}
    status, problem = await api.post(other)
    assert (status, problem["type"]) == (422, "urn:notifier:problem:idempotency-conflict")
    assert [fault["pointer"] for fault in problem["errors"]] == ["/idempotency_key"]
    _, problem = await api.post([ORDER, other])
    assert [fault["pointer"] for fault in problem["errors"]] == ["/1/idempotency_key"]
    assert await api.stored() == (1, 1)


async def test_the_header_is_as_good_as_the_field(api: Api) -> None:
    """`Idempotency-Key`, bare or as a quoted string, means what the field means."""
    _, first = await api.post(ORDER | {"idempotency_key": 'k"1'})
    for header in ('k"1', '"k\\"1"'):
        _, again = await api.post(ORDER, Idempotency_Key=header)
        assert again == first | {"duplicate": True}


@pytest.mark.parametrize(
    ("body", "key"),
    [([ORDER], "k"), (ORDER | {"idempotency_key": "a"}, "b"), (ORDER, ""), (ORDER, "k" * 513)],
)
async def test_a_header_key_that_cannot_be_meant_is_refused(api: Api, body: Any, key: str) -> None:
    """One key can't be that of an array, nor differ from the one within, nor be none."""
    status, problem = await api.post(body, Idempotency_Key=key)
    assert (status, len(problem["errors"])) == (422, 1)
    assert await api.stored() == (0, 0)


async def test_two_header_keys_are_refused(api: Api) -> None:
    """Of two different keys beside one event, neither is taken."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b"), ("Content-Type", "application/json")]
    answer = await api.client.post("/v1/events", data=json.dumps(ORDER), headers=headers)
    assert answer.status == 422


async def test_cloudevents_come_in_three_modes(api: Api) -> None:
    """One source and id is one event, whichever mode it comes in and comes again in."""
    structured = {"Content-Type": "application/cloudevents+json; charset=UTF-8"}
    status, first = await api.call("POST", "/v1/events", data=json.dumps(CLOUD), headers=structured)
    assert (status, first["duplicate"], len(first["jobs"])) == (202, False, 1)
    batch = {"Content-Type": "application/cloudevents-batch+json"}
    _, told = await api.call("POST", "/v1/events", data=json.dumps([CLOUD]), headers=batch)
    assert told == [first | {"duplicate": True}]
    binary = {f"ce-{name}": str(value) for name, value in CLOUD.items() if name != "data"}
    binary["Content-Type"] = "application/json"
    _, told = await api.call("POST", "/v1/events", data=b'{"total":12}', headers=binary)
    assert told == first | {"duplicate": True}


async def test_a_cloudevent_at_fault_is_pointed_at(api: Api) -> None:
    """Faults and conflicts of a CloudEvent name its own attributes."""
    structured = {"Content-Type": "application/cloudevents+json"}
    wrong = json.dumps(CLOUD | {"specversion": "2.0"})
    status, problem = await api.call("POST", "/v1/events", data=wrong, headers=structured)
    assert (status, problem["errors"][0]["pointer"]) == (422, "/specversion")
    await api.call("POST", "/v1/events", data=json.dumps(CLOUD), headers=structured)
    changed = json.dumps(CLOUD | {"data": {}})
    status, problem = await api.call("POST", "/v1/events", data=changed, headers=structured)
    assert (status, problem["errors"][0]["pointer"]) == (422, "/id")


async def test_a_binary_cloudevent_may_have_no_body_and_must_be_json(api: Api) -> None:
    """Binary mode: no data at all is fine, data that isn't JSON is of an unsupported type."""
    headers = {f"ce-{name}": str(value) for name, value in CLOUD.items() if name != "data"}
    status, told = await api.call("POST", "/v1/events", headers=headers)
    assert (status, (await api.call("GET", f"/v1/events/{told['id']}"))[1]["data"]) == (202, {})
    status, _ = await api.call(
        "POST", "/v1/events", data=b"<a/>", headers=headers | {"Content-Type": "text/xml"}
    )
    assert status == 415


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"", [""]),
        (b"not json", [""]),
        (b"[]", [""]),
        (b'"\xff"', [""]),
        (b"[" * 5000, [""]),
        (b'{"type":"t","data":' + b'{"a":' * 70 + b"1" + b"}" * 71, ["/data"]),
        (b'{"type":"t","data":{"n":1e999}}', ["/data/n"]),
        (b'{"data":{}}', ["/type"]),
        (b'{"type":"t"}', ["/data"]),
        (b'{"type":"a b","data":{}}', ["/type"]),
        (b'{"type":"t","data":{},"colour":1}', ["/colour"]),
        (b'[{"type":"order.paid","data":{}},{"type":"t","data":1},{}]', ["/1/data", "/2/type", "/2/data"]),
        (b'{"type":"t","data":{},"deliver":[{"channel":"webhook"}]}', ["/deliver/0/url"]),
        (b'{"type":"t","data":{},"deliver":[{"channel":"pigeon","to":"x"}]}', ["/deliver/0/channel"]),
    ],
)
async def test_a_body_at_fault_is_pointed_at_and_leaves_nothing(
    api: Api, body: bytes, pointers: list[str]
) -> None:
    """422 with a pointer for each fault; not even the good events of an array are stored."""
    status, problem = await api.post(body)
    assert (status, [fault["pointer"] for fault in problem["errors"]]) == (422, pointers)
    assert await api.stored() == (0, 0)


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", 415),
        ({"Content-Type": "nonsense"}, b"{}", 415),
        ({"Content-Type": "application/json; charset=latin-1"}, b"{}", 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, gzip.compress(b"{}"), 415),
        ({"Content-Type": "application/json", "Content-Encoding": "br"}, b"{}", 415),
        ({"Content-Type": "application/json"}, b" " * 10_001, 413),
    ],
)
async def test_a_body_of_a_wrong_kind_or_size_leaves_nothing(
    api: Api, headers: dict[str, str], body: bytes, status: int
) -> None:
    """415 and 413 come as problems too, before anything is read into an event."""
    answered, problem = await api.call("POST", "/v1/events", data=body, headers=headers)
    assert (answered, problem["status"]) == (status, status)
    assert await api.stored() == (0, 0)


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", ';charset="UTF-8"'])
async def test_json_in_utf8_is_understood(api: Api, charset: str) -> None:
    """The charset may be said or left out."""
    status, _ = await api.post(ORDER, Content_Type=f"application/json{charset}")
    assert status == 202


async def test_a_body_of_unknown_length_is_bounded(api: Api) -> None:
    """A chunked body is cut off at the limit as well."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 1000

    headers = {"Content-Type": "application/json"}
    assert (await api.call("POST", "/v1/events", data=chunks(), headers=headers))[0] == 413


async def test_draining_answers_503_and_says_when_to_come_again(api: Api) -> None:
    """While it stops it takes no events, isn't ready, and lives."""
    api.notifier.intake.draining = True
    answer = await api.answer("POST", "/v1/events", json=ORDER)
    assert (answer.status, (await answer.json(content_type=None))["type"]) == (
        503,
        "urn:notifier:problem:draining",
    )
    assert int(answer.headers["Retry-After"]) > 0
    assert (await api.call("GET", "/readyz"))[0] == 503
    assert (await api.call("GET", "/livez"))[0] == 200


async def test_a_store_that_cannot_say_answers_503(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit whose result is unknown is no success and no refusal, but a reason to ask again."""

    async def unknown(*_: Any) -> None:
        raise StoreUnavailableError("disk I/O error")

    monkeypatch.setattr(api.notifier.store, "add", lambda given: asyncio.ensure_future(unknown(given)))
    answer = await api.answer("POST", "/v1/events", json=ORDER)
    assert (answer.status, "Retry-After" in answer.headers) == (503, True)


async def test_what_nobody_expected_ends_one_request_alone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 500 reveals nothing, and the next request is served."""

    async def broken(*_: Any) -> None:
        raise RuntimeError("password=hunter2")

    with monkeypatch.context() as patched:
        patched.setattr(api.notifier.store, "add", lambda given: asyncio.ensure_future(broken(given)))
        answer = await api.answer("POST", "/v1/events", json=ORDER)
    assert answer.status == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "hunter2" not in await answer.text()
    assert (await api.post(ORDER))[0] == 202


# Events, read ----------------------------------------------------------------------------------------


async def test_an_event_is_read_with_its_data_as_posted(api: Api) -> None:
    """Every digit of `data` comes back, and what became of the jobs with it."""
    text = b'{"type":"order.paid","data":{"total": 1.50, "n":12345678901234567890123},"tenant":"acme"}'
    _, told = await api.post(text)
    await api.settled()
    answer = await api.answer("GET", f"/v1/events/{told['id']}")
    assert b'"data":{"total": 1.50, "n":12345678901234567890123},' in await answer.read()
    event = json.loads(await answer.read())
    assert (event["id"], event["type"], event["tenant"]) == (told["id"], "order.paid", "acme")
    assert (event["idempotency_key"], event["deliver_at"]) == (None, None)
    assert [(job["id"], job["status"]) for job in event["jobs"]] == [(told["jobs"][0]["id"], "COMPLETED")]


async def test_times_are_rfc3339_in_utc(api: Api) -> None:
    """Whatever offset `deliver_at` was posted with, times are answered in UTC."""
    _, told = await api.post(ORDER | {"deliver_at": "2020-01-02T03:04:05+02:00"})
    _, event = await api.call("GET", f"/v1/events/{told['id']}")
    assert event["deliver_at"] == "2020-01-02T01:04:05.000Z"
    assert event["created_at"].endswith("Z")


@pytest.mark.parametrize("wanted", ["evt_0", "%00", "%ff", "a%2Fb", "é", "x" * 500])
@pytest.mark.parametrize("path", ["/v1/events/{}", "/v1/admin/jobs/{}", "/v1/admin/jobs/{}/why"])
async def test_what_is_not_there_is_a_404(api: Api, path: str, wanted: str) -> None:
    """An id of any shape that names nothing is a problem document and no more."""
    status, problem = await api.call("GET", path.format(wanted))
    assert (status, problem["status"]) == (404, 404)


# Operators -------------------------------------------------------------------------------------------


async def test_jobs_are_listed_newest_first_page_by_page(api: Api) -> None:
    """Cursors lead through every job once, newest first, and end in null."""
    _, told = await api.post([ORDER] * 5)
    seen: list[str] = []
    query = "limit=2"
    while query:
        status, page = await api.call("GET", f"/v1/admin/jobs?{query}")
        assert status == 200
        assert len(page["jobs"]) <= 2
        seen += [job["id"] for job in page["jobs"]]
        query = f"limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert seen == [one["jobs"][0]["id"] for one in reversed(told)]


async def test_jobs_are_filtered(api: Api) -> None:
    """Each filter narrows, and together they must all hold."""
    await failed_job(api, tenant="acme")
    await api.post({"type": "user.signup", "data": {"email": "ada@example.com", "name": "Ada"}})
    await api.settled()

    async def count(query: str) -> int:
        status, page = await api.call("GET", f"/v1/admin/jobs?{query}")
        assert status == 200
        return len(page["jobs"])

    assert await count("") == 2
    for query in (
        "status=FAILED",
        "status=COMPLETED",
        "channel=webhook",
        "event_type=user.signup",
        "route=erp",
        f"destination={ERP}",
        "tenant=acme",
        f"status=FAILED&created_after={later(hours=-1)}",
    ):
        assert await count(query.replace("+", "%2B")) == 1, query
    for query in ("status=CANCELLED", "channel=email&tenant=acme", "endpoint=ep_1", "cause=none"):
        assert await count(query) == 0, query
    assert await count(f"created_before={later(hours=-1)}".replace("+", "%2B")) == 0


@pytest.mark.parametrize(
    ("query", "name"),
    [("colour=red", "colour"), ("limit=501", "limit"), ("cursor=AAAA", "cursor"), ("status=lost", "status")],
)
async def test_a_query_at_fault_names_its_parameter(api: Api, query: str, name: str) -> None:
    """A parameter that is unknown, out of range or altered is a 422 naming it."""
    status, problem = await api.call("GET", f"/v1/admin/jobs?{query}")
    assert (status, [error["parameter"] for error in problem["errors"]]) == (422, [name])


async def test_a_job_is_shown_with_its_event_and_attempts(api: Api) -> None:
    """A FAILED job tells why, in its own error and in every attempt, across a requeue."""
    job_id = await failed_job(api)
    await api.call("POST", f"/v1/admin/jobs/{job_id}/requeue")
    await api.settled()
    status, shown = await api.call("GET", f"/v1/admin/jobs/{job_id}")
    assert (status, shown["event"]["data"]) == (200, {"total": 12})
    error = {"code": "http_410", "message": "gone"}
    assert (shown["job"]["status"], shown["job"]["error"], shown["job"]["attempts"]) == ("FAILED", error, 1)
    assert ", ".join(shown["job"]) == (
        "id, event_id, event_type, tenant, channel, route, endpoint, destination, template, locale, "
        "category, status, attempts, max_attempts, next_attempt_at, error, created_at, updated_at"
    )
    assert [attempt["number"] for attempt in shown["attempts"]] == [1, 2]
    first = shown["attempts"][0]
    assert (first["outcome"], first["status_code"], first["error"], first["response"]) == (
        "failed",
        410,
        error,
        "no more",
    )
    assert first["duration_ms"] >= 0


async def test_a_job_says_what_it_waits_for(api: Api) -> None:
    """`why` of a scheduled job names the time."""
    at = later(hours=1)
    _, told = await api.post(ORDER | {"deliver_at": at})
    job_id = told["jobs"][0]["id"]
    status, why = await api.call("GET", f"/v1/admin/jobs/{job_id}/why")
    assert (status, why["job_id"], why["status"], why["reason"]) == (200, job_id, "PENDING", "scheduled")
    waits_until = datetime.fromisoformat(why["until"])
    assert abs(waits_until - datetime.fromisoformat(at)) < timedelta(seconds=1)
    assert why["detail"]


async def test_a_failed_job_is_requeued(api: Api) -> None:
    """Requeue answers with the job PENDING, its attempts unspent; mended, it is delivered."""
    job_id = await failed_job(api)
    api.script.errors.clear()
    status, job = await api.call("POST", f"/v1/admin/jobs/{job_id}/requeue")
    assert (status, job["id"], job["status"], job["attempts"]) == (200, job_id, "PENDING", 0)
    await api.settled()
    assert (await api.call("GET", f"/v1/admin/jobs/{job_id}"))[1]["job"]["status"] == "COMPLETED"


async def test_a_waiting_job_is_cancelled_once(api: Api) -> None:
    """Cancel withdraws a PENDING job; a second time its state doesn't allow it."""
    _, told = await api.post(ORDER | {"deliver_at": later(hours=1)})
    path = f"/v1/admin/jobs/{told['jobs'][0]['id']}/cancel"
    status, job = await api.call("POST", path)
    assert (status, job["status"], job["next_attempt_at"]) == (200, "CANCELLED", None)
    status, problem = await api.call("POST", path)
    assert (status, problem["type"]) == (409, "urn:notifier:problem:illegal-transition")


async def test_a_job_that_waits_for_a_worker_is_cancelled(api: Api) -> None:
    """One that is held in memory, and not begun, is withdrawn like one that waits in the store."""
    gate = api.script.gates[ERP] = asyncio.Event()
    _, told = await api.post([ORDER] * api.notifier.config.workers.concurrency)
    await api.script.begun.get()
    path = f"/v1/admin/jobs/{told[-1]['jobs'][0]['id']}"
    assert (await api.call("GET", path))[1]["job"]["status"] == "PROCESSING"
    status, job = await api.call("POST", f"{path}/cancel")
    assert (status, job["status"]) == (200, "CANCELLED")
    gate.set()
    await api.settled(len(told))
    detail = (await api.call("GET", path))[1]
    assert (detail["job"]["status"], detail["attempts"]) == ("CANCELLED", [])


async def test_a_job_in_flight_is_neither_requeued_nor_cancelled(api: Api) -> None:
    """409 while PROCESSING: only its worker ends that."""
    api.script.gates[ERP] = asyncio.Event()
    await api.post(ORDER)
    job_id = await api.script.begun.get()
    for action in ("requeue", "cancel"):
        assert (await api.call("POST", f"/v1/admin/jobs/{job_id}/{action}"))[0] == 409
    assert (await api.call("GET", f"/v1/admin/jobs/{job_id}/why"))[1]["reason"] == "in_flight"


async def test_jobs_are_requeued_by_filter(api: Api) -> None:
    """A dry run counts, a canary sends one, and without either all that match go."""
    api.script.errors[ERP] = Permanent("gone")
    await api.post([ORDER] * 3)
    await api.settled(3)
    path = "/v1/admin/jobs/requeue"
    assert await api.call("POST", path, json={"dry_run": True}) == (202, {"matched": 3, "requeued": 0})
    assert await api.call("POST", path, json={"channel": "email"}) == (202, {"matched": 0, "requeued": 0})
    canary = {"route": "erp", "canary": True}
    assert await api.call("POST", path, json=canary) == (202, {"matched": 3, "requeued": 1})
    await api.settled()
    api.script.errors.clear()
    everything = {"created_after": later(hours=-1), "destination": ERP}
    assert await api.call("POST", path, json=everything) == (202, {"matched": 3, "requeued": 3})
    await api.settled(3)
    assert len((await api.call("GET", "/v1/admin/jobs?status=COMPLETED"))[1]["jobs"]) == 3


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ([], ""),
        ({"status": "PROCESSING"}, "/status"),
        ({"status": None}, "/status"),
        ({"colour": "red"}, "/colour"),
        ({"dry_run": "yes"}, "/dry_run"),
        ({"channel": ""}, "/channel"),
        ({"created_before": "2026-01-01"}, "/created_before"),
    ],
)
async def test_a_requeue_that_is_not_understood_requeues_nothing(api: Api, body: Any, pointer: str) -> None:
    """What an operator misspells must not come to mean everything."""
    job_id = await failed_job(api)
    status, problem = await api.call("POST", "/v1/admin/jobs/requeue", json=body)
    assert (status, problem["errors"][0]["pointer"]) == (422, pointer)
    assert (await api.call("GET", f"/v1/admin/jobs/{job_id}"))[1]["job"]["status"] == "FAILED"
    status, _ = await api.call("POST", "/v1/admin/jobs/requeue", data=b"{}")
    assert status == 415


async def test_failures_are_grouped_by_cause(api: Api) -> None:
    """Failures that differ only in numbers and names are one cause, its message masked."""
    for number in (1, 2):
        api.script.errors[ERP] = Permanent(f"order {number} is unknown to ada{number}@example.com", code="no")
        await api.post(ORDER)
        await api.settled()
    status, told = await api.call("GET", "/v1/admin/failures")
    (group,) = told["failures"]
    assert (status, group["channel"], group["code"], group["count"]) == (200, "webhook", "no", 2)
    assert group["message"] == "order <n> is unknown to <address>"
    assert len(group["sample_job_ids"]) == 2
    _, page = await api.call("GET", f"/v1/admin/jobs?cause={group['cause']}")
    assert len(page["jobs"]) == 2
    assert (await api.call("GET", "/v1/admin/failures?channel=email"))[1] == {"failures": []}
    assert (await api.call("GET", "/v1/admin/failures?limit=1"))[0] == 422


async def test_a_preview_sends_and_stores_nothing(api: Api) -> None:
    """A preview tells of every route and delivery; afterwards nothing is there."""
    signup = {"type": "user.signup", "data": {"email": "ada@example.com", "name": "Ada"}}
    status, told = await api.call("POST", "/v1/admin/preview", json=signup)
    assert status == 200
    assert {verdict["route"]: verdict["matched"] for verdict in told["routes"]} == {
        "erp": False,
        "welcome": True,
    }
    (delivery,) = told["deliveries"]
    assert (delivery["channel"], delivery["destination"]) == ("email", "ada@example.com")
    assert "Hello Ada" in json.dumps(delivery["message"])
    assert await api.stored() == (0, 0)
    assert (await api.call("POST", "/v1/admin/preview", json=[signup]))[0] == 422
    assert (await api.call("POST", "/v1/admin/preview", json={"type": 1}))[0] == 422


async def test_a_preview_shows_what_would_fail(api: Api) -> None:
    """A destination or template that can't be rendered shows its error beside what works."""
    _, told = await api.call("POST", "/v1/admin/preview", json={"type": "user.signup", "data": {}})
    (delivery,) = told["deliveries"]
    assert (delivery["destination"], delivery["error"]["code"]) == (None, "destination_error")


# Who gets in -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/events", "ingest"),
        ("GET", "/v1/events/evt_1", "ingest"),
        ("GET", "/v1/admin/jobs", "admin"),
        ("GET", "/v1/admin/jobs/job_1", "admin"),
        ("GET", "/v1/admin/jobs/job_1/why", "admin"),
        ("POST", "/v1/admin/jobs/job_1/requeue", "admin"),
        ("POST", "/v1/admin/jobs/job_1/cancel", "admin"),
        ("POST", "/v1/admin/jobs/requeue", "admin"),
        ("GET", "/v1/admin/failures", "admin"),
        ("GET", "/v1/admin/webhook-secret", "admin"),
        ("POST", "/v1/admin/preview", "admin"),
        ("POST", "/v1/admin/endpoints", "admin"),
        ("GET", "/v1/admin/endpoints", "admin"),
        ("GET", "/v1/admin/endpoints/ep_1", "admin"),
        ("PATCH", "/v1/admin/endpoints/ep_1", "admin"),
        ("DELETE", "/v1/admin/endpoints/ep_1", "admin"),
        ("POST", "/v1/admin/endpoints/ep_1/pause", "admin"),
        ("POST", "/v1/admin/endpoints/ep_1/resume", "admin"),
        ("POST", "/v1/admin/endpoints/ep_1/rotate", "admin"),
        ("POST", "/v1/admin/endpoints/ep_1/test", "admin"),
        ("POST", "/v1/admin/endpoints/ep_1/requeue", "admin"),
        ("GET", "/livez", "open"),
        ("GET", "/readyz", "open"),
        ("GET", "/metrics", "open"),
        ("GET", "/openapi.json", "open"),
    ],
)
async def test_every_call_asks_for_its_scope(keyed: Api, method: str, path: str, scope: str) -> None:
    """Ingest keys can't reach admin; nobody without a key reaches either; probes need none."""
    statuses = [
        (await keyed.answer(method, path, key=key)).status
        for key in (None, "wrong", "ingest-key", "admin-key")
    ]
    refused = {"open": [], "ingest": [401, 401], "admin": [401, 401, 403]}[scope]
    assert statuses[: len(refused)] == refused
    assert not {401, 403} & set(statuses[len(refused) :])


async def test_a_key_with_stray_bytes_is_simply_unknown(keyed: Api) -> None:
    """Bytes that aren't UTF-8 in a header are no reason to fall over."""
    reader, writer = await asyncio.open_connection(keyed.client.host, keyed.client.port)
    writer.write(b"GET /v1/admin/jobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
    assert await reader.readline() == b"HTTP/1.1 401 Unauthorized\r\n"
    writer.close()


async def test_without_keys_only_local_names_are_answered(api: Api) -> None:
    """A rebound name gets a 403 from every call, and from paths that lead nowhere."""
    for path in ("/v1/admin/jobs", "/livez", "/openapi.json", "/nowhere"):
        status, problem = await api.call("GET", path, headers={"Host": "evil.example"})
        assert (status, problem["type"]) == (403, "urn:notifier:problem:not-local")
    assert (await api.post(ORDER, Origin="https://evil.example"))[0] == 403
    assert await api.stored() == (0, 0)


# Around the calls ------------------------------------------------------------------------------------


async def test_paths_that_lead_nowhere_are_problems_too(api: Api) -> None:
    """404 for an unknown path, 405 with `Allow` for a known one, each a problem document."""
    answer = await api.answer("GET", "/v1/nowhere")
    assert (answer.status, answer.content_type) == (404, "application/problem+json")
    answer = await api.answer("PUT", "/v1/events")
    assert (answer.status, answer.content_type) == (405, "application/problem+json")
    assert answer.headers["Allow"] == "POST"
    answer = await api.answer("DELETE", "/v1/admin/jobs")
    assert answer.headers["Allow"] == "GET, HEAD"


async def test_what_can_be_read_has_a_head(api: Api) -> None:
    """HEAD answers as GET does, without the body (RFC 9110 §9.3.2)."""
    answer = await api.answer("HEAD", "/livez")
    assert (answer.status, await answer.read()) == (200, b"")


async def test_expectations_are_met_or_refused(api: Api) -> None:
    """`Expect: 100-continue` is met; any other is a 417 problem."""
    assert (await api.post(ORDER, Expect="100-continue"))[0] == 202
    status, problem = await api.call("GET", "/livez", headers={"Expect": "the-unexpected"})
    assert (status, problem["status"]) == (417, 417)


@pytest.mark.parametrize(
    "request_text",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nNo colon\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
)
async def test_malformed_http_is_a_400(api: Api, request_text: bytes) -> None:
    """What isn't HTTP is answered and the connection closed; the next one is served."""
    reader, writer = await asyncio.open_connection(api.client.host, api.client.port)
    writer.write(request_text)
    assert b" 400 " in await reader.readline()
    await reader.read()
    writer.close()
    assert (await api.call("GET", "/livez"))[0] == 200


async def test_a_client_that_goes_away_leaves_nothing(api: Api) -> None:
    """A body that never ends in full is no event."""
    _, writer = await asyncio.open_connection(api.client.host, api.client.port)
    writer.write(
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'Content-Length: 40\r\n\r\n{"type":"order.paid","data":{}}'
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await api.call("GET", "/livez"))[0] == 200
    assert await api.stored() == (0, 0)


async def test_probes_and_metrics(api: Api) -> None:
    """A running notifier is alive and ready, and counts what it accepted."""
    await api.post(ORDER)
    assert await api.call("GET", "/livez") == (200, {"status": "alive"})
    assert await api.call("GET", "/readyz") == (200, {"status": "ready"})
    answer = await api.answer("GET", "/metrics")
    assert answer.content_type == "text/plain"
    assert "notifier_events_accepted_total 1.0" in await answer.text()


async def test_readiness_tells_what_is_wrong_and_liveness_does_not_care(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails makes it not ready, with the reason; a check that hangs counts as one that fails."""

    async def failing() -> None:
        raise StoreUnavailableError("the disk is full")

    monkeypatch.setattr(api.notifier.store, "ping", failing)
    status, problem = await api.call("GET", "/readyz")
    assert (status, problem["errors"]) == (503, [{"detail": "the disk is full"}])

    monkeypatch.setattr(api.notifier.store, "ping", asyncio.Event().wait)
    monkeypatch.setattr("notifier.web.health.READY_WITHIN", 0.01)
    status, problem = await api.call("GET", "/readyz")
    assert (status, problem["type"]) == (503, "urn:notifier:problem:not-ready")
    assert await api.call("GET", "/livez") == (200, {"status": "alive"})


async def test_the_document_describes_every_call(keyed: Api) -> None:
    """Each route that is served stands in `/openapi.json`, with its scope where it asks for one."""
    status, document = await keyed.call("GET", "/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")
    app = keyed.client.server.app  # type: ignore[attr-defined]  # a TestServer has one
    served = {(route.method, route.resource.canonical) for route in app.router.routes()}
    described = {(method.upper(), path) for path, calls in document["paths"].items() for method in calls}
    assert {pair for pair in served if pair[0] != "HEAD"} == described
    assert document["paths"]["/v1/admin/jobs"]["get"]["security"] == [{"key": []}]
    assert "security" not in document["paths"]["/livez"]["get"]
