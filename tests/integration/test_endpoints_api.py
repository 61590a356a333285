"""Endpoints over the HTTP API: real sockets, a real store, and real deliveries to a receiver on loopback."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from support.api import Api, serving
from support.receiver import Receiver, answer

from notifier.channels.signing import verify

PATH = "/v1/admin/endpoints"
DRAFT = {"url": "https://a.example/hooks", "event_types": ["invoice.*"]}
INVOICE = {"type": "invoice.paid", "data": {"total": 12}}
FIELDS = (
    *("id", "tenant", "url", "event_types", "when", "description", "headers", "template", "rate_limit"),
    *("max_in_flight", "state", "state_reason", "state_changed_at", "created_at", "updated_at", "public_key"),
)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A notifier whose webhooks are real, and may go to this machine."""
    async with serving(tmp_path, webhooks_to="127.0.0.0/8") as served:
        yield served


async def created(api: Api, **changes: Any) -> dict[str, Any]:
    """Create an endpoint; return what was answered."""
    status, told = await api.call("POST", PATH, json=DRAFT | changes)
    assert status == 201, told
    found: dict[str, Any] = told
    return found


async def read(api: Api, endpoint: dict[str, Any]) -> dict[str, Any]:
    """Read an endpoint again."""
    status, told = await api.call("GET", f"{PATH}/{endpoint['id']}")
    assert status == 200
    found: dict[str, Any] = told
    return found


async def do(api: Api, endpoint: dict[str, Any], action: str, **call: Any) -> Any:
    """Call what stands below an endpoint."""
    status, told = await api.call("POST", f"{PATH}/{endpoint['id']}/{action}", **call)
    assert status in {200, 202}, told
    return told


def pointers(problem: dict[str, Any]) -> list[str]:
    """Where a problem says the body was at fault."""
    return [fault["pointer"] for fault in problem["errors"]]


# Keeping them ----------------------------------------------------------------------------------------


async def test_an_endpoint_is_created_and_its_secret_told_once(api: Api) -> None:
    """201 with the endpoint as DESIGN has it and 32 random bytes as `whsec_…`; no later read has them."""
    told = await created(api, description="the books", rate_limit=5, max_in_flight=2, tenant="acme")
    secret = told.pop("secret")
    assert secret.startswith("whsec_")
    assert tuple(told) == FIELDS
    assert told["id"].startswith("ep_")
    assert (told["state"], told["state_reason"], told["public_key"]) == ("enabled", None, None)
    assert (told["rate_limit"], told["max_in_flight"], told["tenant"]) == (5, 2, "acme")
    detail = await read(api, told)
    assert {name: detail[name] for name in FIELDS} == told
    assert (detail["pending"], detail["failing_since"]) == (0, None)
    ((life),) = detail["secrets"]
    assert life == {
        "fingerprint": sha256(secret.encode()).hexdigest()[:8],
        "signature": "v1",
        "public_key": None,
        "created_at": told["created_at"],
        "expires_at": None,
    }
    _, page = await api.call("GET", PATH)
    assert page["endpoints"] == [told]
    assert secret not in json.dumps([detail, page])


async def test_a_v1a_endpoint_shows_its_public_key(api: Api) -> None:
    """`signature: v1a` makes an ed25519 key: `whsk_…` once, `whpk_…` in every read."""
    told = await created(api, signature="v1a")
    assert told["secret"].startswith("whsk_")
    assert told["public_key"].startswith("whpk_")
    detail = await read(api, told)
    assert detail["public_key"] == told["public_key"]
    assert [life["signature"] for life in detail["secrets"]] == ["v1a"]


async def test_a_given_secret_is_taken(api: Api) -> None:
    """One that receivers know already goes on signing."""
    secret = "whsec_" + "QUJD" * 8
    assert (await created(api, secret=secret))["secret"] == secret


async def test_sensitive_headers_are_hidden(api: Api) -> None:
    """Values that may be credentials are never shown; handed back as they are shown, they stay."""
    headers = {"Authorization": "Bearer hunter2", "X-Shop": "one"}
    told = await created(api, headers=headers)
    assert told["headers"] == {"Authorization": "(hidden)", "X-Shop": "one"}
    _, changed = await api.call("PATCH", f"{PATH}/{told['id']}", json={"headers": told["headers"]})
    assert "hunter2" not in json.dumps([told, changed, await read(api, told)])
    assert api.notifier.endpoints.find(told["id"]).headers == headers


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"event_types": ["a"]}, "/url"),
        ({"url": "https://a.example"}, "/event_types"),
        (DRAFT | {"url": "ftp://a.example"}, "/url"),
        (DRAFT | {"url": "https://user:pw@a.example"}, "/url"),
        (DRAFT | {"event_types": []}, "/event_types"),
        (DRAFT | {"event_types": ["a", "b c"]}, "/event_types/1"),
        (DRAFT | {"colour": "red"}, "/colour"),
        (DRAFT | {"when": "data.total >"}, "/when"),
        (DRAFT | {"template": "nowhere"}, "/template"),
        (DRAFT | {"rate_limit": 0}, "/rate_limit"),
        (DRAFT | {"max_in_flight": 0}, "/max_in_flight"),
        (DRAFT | {"headers": {"Host": "b"}}, "/headers/Host"),
        (DRAFT | {"secret": "hunter2"}, "/secret"),
        (DRAFT | {"signature": "v2"}, "/signature"),
        (DRAFT | {"signature": "v1a", "secret": "whsec_" + "QUJD" * 8}, "/signature"),
        (DRAFT | {"signature": "v1a", "secret": "hunter2"}, "/secret"),
    ],
)
async def test_an_endpoint_that_cannot_be_is_refused(api: Api, body: dict[str, Any], pointer: str) -> None:
    """422 points at the fault, repeats no secret, and nothing is kept."""
    status, problem = await api.call("POST", PATH, json=body)
    assert (status, pointers(problem)) == (422, [pointer])
    assert "hunter2" not in json.dumps(problem)
    assert (await api.call("GET", PATH))[1] == {"endpoints": [], "next_cursor": None}


async def test_an_endpoint_says_what_holds_up_what_waits_for_it(api: Api) -> None:
    """The screen that one looks at first: paused by whom; and nothing while all is well."""
    made = await created(api)
    _, told = await api.call("GET", f"{PATH}/{made['id']}")
    assert told["waiting_for"] is None
    await api.call("POST", f"{PATH}/{made['id']}/pause", json={"reason": "moving house"})
    _, told = await api.call("GET", f"{PATH}/{made['id']}")
    assert told["waiting_for"]["reason"] == "endpoint_paused"
    assert "moving house" in told["waiting_for"]["detail"]


async def test_a_job_of_a_deleted_endpoint_is_not_requeued(api: Api) -> None:
    """There is nothing to deliver it to: 409, and `why` says so."""
    made = await created(api)
    await api.call("POST", f"{PATH}/{made['id']}/pause")
    _, event = await api.call("POST", "/v1/events", json=INVOICE)
    job_id = event["jobs"][0]["id"]
    await api.call("DELETE", f"{PATH}/{made['id']}")
    status, problem = await api.call("POST", f"/v1/admin/jobs/{job_id}/requeue")
    assert status == 409
    assert "was deleted" in problem["detail"]
    _, why = await api.call("GET", f"/v1/admin/jobs/{job_id}/why")
    assert why["reason"] == "endpoint_deleted"


async def test_what_was_delivered_stays_so_when_its_endpoint_is_deleted(api: Api) -> None:
    """`why` doesn't take back what the receiver took."""
    async with Receiver(answer()) as receiver:
        made = await created(api, url=receiver.url())
        _, event = await api.call("POST", "/v1/events", json=INVOICE)
        await api.settled()
    await api.call("DELETE", f"{PATH}/{made['id']}")
    _, why = await api.call("GET", f"/v1/admin/jobs/{event['jobs'][0]['id']}/why")
    assert why["reason"] == "completed"


async def test_endpoints_are_listed_in_pages(api: Api) -> None:
    """Newest first, every one once, whatever comes and goes meanwhile; the last page leads nowhere."""
    ids = [(await created(api))["id"] for _ in range(5)]
    _, page = await api.call("GET", f"{PATH}?limit=2")
    assert [each["id"] for each in page["endpoints"]] == [ids[4], ids[3]]
    await created(api)
    await api.call("DELETE", f"{PATH}/{ids[3]}")
    seen = []
    while page["next_cursor"]:
        _, page = await api.call("GET", PATH, params={"limit": "2", "cursor": page["next_cursor"]})
        seen += [each["id"] for each in page["endpoints"]]
    assert seen == [ids[2], ids[1], ids[0]]


async def test_endpoints_are_filtered(api: Api) -> None:
    """By tenant and by state; a parameter that isn't understood is named."""
    acme, other = await created(api, tenant="acme"), await created(api)
    await do(api, other, "pause")
    for query, meant in (("tenant=acme", acme), ("state=paused", other), ("state=Enabled", acme)):
        _, page = await api.call("GET", f"{PATH}?{query}")
        assert [each["id"] for each in page["endpoints"]] == [meant["id"]]
    assert (await api.call("GET", f"{PATH}?tenant=acme&state=paused"))[1]["endpoints"] == []
    for query in ("state=off", "limit=0", "cursor=x", "colour=red"):
        status, problem = await api.call("GET", f"{PATH}?{query}")
        assert (status, problem["errors"][0]["parameter"]) == (422, query.partition("=")[0])


async def test_a_change_touches_what_it_names(api: Api) -> None:
    """PATCH: what is given changes, null clears, what is left out stays; a fault changes nothing."""
    told = await created(api, description="old", when="data.total > 1", rate_limit=3)
    path = f"{PATH}/{told['id']}"
    _, changed = await api.call("PATCH", path, json={"description": "new", "when": None})
    assert (changed["description"], changed["when"], changed["rate_limit"]) == ("new", None, 3)
    for body, pointer in (
        ({"colour": 1}, "/colour"),
        ({"url": "nowhere"}, "/url"),
        ({"tenant": "b"}, "/tenant"),
    ):
        status, problem = await api.call("PATCH", path, json={"description": "newer"} | body)
        assert (status, pointers(problem)) == (422, [pointer])
    assert (await read(api, told))["description"] == "new"


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("tenant", "create another"),
        ("state", "/pause or"),
        ("secret", "/rotate"),
        ("signature", "/rotate"),
        ("descripton", "did you mean 'description'?"),
    ],
)
async def test_what_no_change_touches_says_what_does(api: Api, field: str, said: str) -> None:
    """PATCH with what is set once, or elsewhere, leads to where that is; a slip of the pen to the field."""
    told = await created(api)
    status, problem = await api.call("PATCH", f"{PATH}/{told['id']}", json={field: "x"})
    assert (status, pointers(problem)) == (422, [f"/{field}"])
    assert said in problem["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("method", "below", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {}),
        ("DELETE", "", None),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/rotate", None),
        ("POST", "/test", None),
        ("POST", "/requeue", {"since": "2026-01-01T00:00:00Z"}),
    ],
)
async def test_an_endpoint_that_is_not_there_is_a_404(api: Api, method: str, below: str, body: Any) -> None:
    """Every call below an unknown id says so, and so it does once an endpoint is deleted."""
    gone = await created(api)
    assert await api.call("DELETE", f"{PATH}/{gone['id']}") == (200, {"id": gone["id"], "cancelled": 0})
    for endpoint_id in ("ep_1", gone["id"]):
        status, problem = await api.call(method, f"{PATH}/{endpoint_id}{below}", json=body)
        assert (status, problem["type"]) == (404, "urn:notifier:problem:not-found")


# What comes for them ---------------------------------------------------------------------------------


async def test_a_paused_endpoint_holds_what_comes(api: Api) -> None:
    """Pause, with words or without; what comes is PENDING and counted; resumed, it is delivered."""
    async with Receiver(answer()) as receiver:
        told = await created(api, url=receiver.url())
        assert (await do(api, told, "pause"))["state_reason"] == "paused by an operator"
        paused = await do(api, told, "pause", json={"reason": "moving house"})
        assert paused["state"] == "paused"
        _, event = await api.post(INVOICE)
        ((job),) = event["jobs"]
        assert (await read(api, told))["pending"] == 1
        _, why = await api.call("GET", f"/v1/admin/jobs/{job['id']}/why")
        assert "paused by an operator" in why["detail"]
        assert receiver.requests == []
        resumed = await do(api, told, "resume")
        assert (resumed["state"], resumed["state_reason"]) == ("enabled", None)
        await receiver.seen(1)
        await api.settled()
    assert (await read(api, told))["pending"] == 0


async def test_a_deleted_endpoint_takes_what_waits_with_it(api: Api) -> None:
    """DELETE cancels its jobs and says how many; what comes later is not for it."""
    told = await created(api)
    await do(api, told, "pause")
    for _ in range(3):
        await api.post(INVOICE)
    assert await api.call("DELETE", f"{PATH}/{told['id']}") == (200, {"id": told["id"], "cancelled": 3})
    _, page = await api.call("GET", f"/v1/admin/jobs?endpoint={told['id']}")
    assert [job["status"] for job in page["jobs"]] == ["CANCELLED"] * 3
    assert (await api.post(INVOICE))[1]["jobs"] == []


async def test_a_delivery_tells_where_its_time_went(api: Api) -> None:
    """The attempt of a job has timings, in milliseconds and bytes."""
    async with Receiver(answer(200, b"thanks")) as receiver:
        await created(api, url=receiver.url())
        _, event = await api.post(INVOICE)
        await receiver.seen(1)
        await api.settled()
    _, detail = await api.call("GET", f"/v1/admin/jobs/{event['jobs'][0]['id']}")
    ((attempt),) = detail["attempts"]
    timings = attempt["timings"]
    assert timings["connect_ms"] > 0
    assert timings["wait_ms"] > 0
    assert (timings["tls_ms"], timings["bytes_received"]) == (0, 6)
    assert timings["bytes_sent"] > 100


def moment(**ago: float) -> str:
    """A time that has passed, as an operator writes it."""
    return (datetime.now(UTC) - timedelta(**ago)).isoformat()


async def failed(api: Api, receiver: Receiver) -> dict[str, Any]:
    """An endpoint with two jobs that failed for good."""
    told = await created(api, url=receiver.url())
    for number in (1, 2):
        await api.post(INVOICE)
        await receiver.seen(number)
        await api.settled()
    return told


async def test_what_failed_since_is_requeued(api: Api) -> None:
    """FAILED jobs of this endpoint alone, within the times; a dry run only counts."""
    async with Receiver(answer(500), answer(500), answer()) as receiver:
        told, other = await failed(api, receiver), await created(api, event_types=["other"])
        window = {"since": moment(hours=1)}
        assert await do(api, told, "requeue", json=window | {"dry_run": True}) == {
            "matched": 2,
            "requeued": 0,
        }
        nothing = {"matched": 0, "requeued": 0}
        assert await do(api, other, "requeue", json=window) == nothing
        assert await do(api, told, "requeue", json=window | {"until": moment(minutes=30)}) == nothing
        assert await do(api, told, "requeue", json={"since": moment(hours=-1)}) == nothing
        assert await do(api, told, "requeue", json=window | {"status": "cancelled"}) == nothing
        assert await do(api, told, "requeue", json=window) == {"matched": 2, "requeued": 2}
        await receiver.seen(4)
        await api.settled(2)
    _, page = await api.call("GET", f"/v1/admin/jobs?endpoint={told['id']}&status=COMPLETED")
    assert len(page["jobs"]) == 2


async def test_a_canary_goes_first(api: Api) -> None:
    """With `canary`, one is requeued and the other stays until that one is delivered."""
    async with Receiver(answer(500), answer(500), answer(500)) as receiver:
        told = await failed(api, receiver)
        asked = {"since": moment(hours=1), "canary": True}
        assert await do(api, told, "requeue", json=asked) == {"matched": 2, "requeued": 1}
        await receiver.seen(3)
        await api.settled()
    assert len(receiver.requests) == 3


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/since"),
        ({"since": "yesterday"}, "/since"),
        ({"since": "2026-01-01T00:00:00"}, "/since"),
        ({"since": "2026-01-01T00:00:00Z", "status": "PROCESSING"}, "/status"),
        ({"since": "2026-01-01T00:00:00Z", "channel": "email"}, "/channel"),
    ],
)
async def test_a_requeue_that_is_not_understood_is_refused(
    api: Api, body: dict[str, Any], pointer: str
) -> None:
    """It needs a time with its offset, and takes no filter beside those it has."""
    told = await created(api)
    status, problem = await api.call("POST", f"{PATH}/{told['id']}/requeue", json=body)
    assert (status, pointers(problem)) == (422, [pointer])


# Secrets ---------------------------------------------------------------------------------------------


async def test_a_rotated_secret_signs_beside_the_old(api: Api) -> None:
    """The new one is told once; both verify until the overlap ends, and its end is told."""
    async with Receiver(answer()) as receiver:
        told = await created(api, url=receiver.url())
        rotated = await do(api, told, "rotate", json={"overlap": "2h"})
        assert rotated["secret"] != told["secret"]
        newest, old = rotated["secrets"]
        assert newest["expires_at"] is None
        until = datetime.fromisoformat(old["expires_at"]) - datetime.fromisoformat(newest["created_at"])
        assert until == timedelta(hours=2)
        await api.post(INVOICE)
        (delivered,) = await receiver.seen(1)
        await api.settled()
    for secret in (told["secret"], rotated["secret"]):
        Webhook(secret).verify(delivered.body, delivered.headers)
    assert rotated["secret"] not in json.dumps(await read(api, told))


async def test_a_rotation_may_change_the_kind_of_signature(api: Api) -> None:
    """From v1 to v1a: the public key is shown from then on; unless asked, the kind stays as it is."""
    told = await created(api)
    assert (await do(api, told, "rotate"))["secret"].startswith("whsec_")
    rotated = await do(api, told, "rotate", json={"signature": "v1a", "overlap": "24h"})
    assert rotated["secret"].startswith("whsk_")
    assert rotated["public_key"].startswith("whpk_")
    assert [life["signature"] for life in rotated["secrets"]] == ["v1a", "v1", "v1"]
    assert (await do(api, told, "rotate"))["secret"].startswith("whsk_")


async def test_a_rotation_that_cannot_be_is_refused(api: Api) -> None:
    """A duration and a secret are what they are; and no more than five secrets sign at once."""
    told = await created(api)
    path = f"{PATH}/{told['id']}/rotate"
    for body, pointer in (
        ({"overlap": "soon"}, "/overlap"),
        ({"overlap": 3}, "/overlap"),
        ({"secret": "whsec_short"}, "/secret"),
        ({"secret": told["secret"]}, "/secret"),
        ({"secret": "whsec_" + "QUJD" * 8, "signature": "v1a"}, "/signature"),
    ):
        status, problem = await api.call("POST", path, json=body)
        assert (status, pointers(problem)) == (422, [pointer])
    for _ in range(4):
        await do(api, told, "rotate")
    status, problem = await api.call("POST", path)
    assert (status, pointers(problem)) == (422, ["/overlap"])
    assert len((await read(api, told))["secrets"]) == 5


# Trying them -----------------------------------------------------------------------------------------


async def test_a_test_is_a_real_delivery_with_its_whole_exchange(api: Api) -> None:
    """Signed, under an id of its own, with the endpoint's headers; the answer has both sides of it."""
    script = answer(201, b"welcome", {"X-Receiver": "yes"})
    async with Receiver(script) as receiver:
        told = await created(
            api, url=receiver.url("/in?token=7"), headers={"X-Api-Key": "hunter2", "X-Shop": "1"}
        )
        trial = await do(api, told, "test")
        (delivered,) = await receiver.seen(1)
    assert delivered.headers["x-api-key"] == "hunter2"
    Webhook(told["secret"]).verify(delivered.body, delivered.headers)
    assert (trial["delivered"], trial["error"]) == (True, None)
    request, response = trial["request"], trial["response"]
    assert (request["method"], request["url"]) == ("POST", receiver.url("/in?token=7"))
    assert request["body"] == delivered.body.decode()
    assert json.loads(request["body"])["type"] == "notifier.test"
    sent = {name.lower(): value for name, value in request["headers"].items()}
    assert (sent["x-api-key"], sent["x-shop"]) == ("(hidden)", "1")
    verify(sent, delivered.body, told["secret"], datetime.now(UTC).timestamp())
    assert (response["status_code"], response["body"]) == (201, "welcome")
    assert {name.lower(): value for name, value in response["headers"].items()}["x-receiver"] == "yes"
    assert trial["timings"]["bytes_received"] == len(b"welcome")


async def test_a_test_leaves_no_trace(api: Api) -> None:
    """No job, no event, nothing on the endpoint's health, though it fails again and again."""
    async with Receiver(answer(500, b"no")) as receiver:
        told = await created(api, url=receiver.url())
        trials = [await do(api, told, "test") for _ in range(12)]
        assert {trial["error"]["code"] for trial in trials} == {"http_500"}
        assert not any(trial["delivered"] for trial in trials)
        assert trials[0]["response"]["body"] == "no"
    ids = [{k.lower(): v for k, v in trial["request"]["headers"].items()}["webhook-id"] for trial in trials]
    assert len(set(ids)) == 12
    assert await api.stored() == (0, 0)
    assert (await read(api, told))["failing_since"] is None


async def test_a_paused_endpoint_can_be_tested(api: Api) -> None:
    """What one wants to know before it is resumed; a 410 disables nothing."""
    async with Receiver(answer(410)) as receiver:
        told = await created(api, url=receiver.url())
        await do(api, told, "pause")
        assert (await do(api, told, "test"))["response"]["status_code"] == 410
    assert (await read(api, told))["state"] == "paused"


async def test_a_test_takes_an_event(api: Api) -> None:
    """`type` and `data` are sent as they are; through the endpoint's template where it has one."""
    folder = api.notifier.config.templates_path / "slack"
    folder.mkdir()
    (folder / "payload.json").write_text('{"text": {{ data.text | tojson }}}')
    async with Receiver(answer()) as receiver:
        plain = await created(api, url=receiver.url())
        await do(api, plain, "test", json={"type": "invoice.paid", "data": {"total": 3}})
        templated = await created(api, url=receiver.url(), template="slack")
        await do(api, templated, "test", json={"data": {"text": "hi"}})
        failed_trial = await do(api, templated, "test", json={"data": {}})
        first, second = await receiver.seen(2)
    body = json.loads(first.body)
    assert (body["type"], body["data"]) == ("invoice.paid", {"total": 3})
    assert json.loads(second.body) == {"text": "hi"}
    assert (failed_trial["delivered"], failed_trial["request"]) == (False, None)
    assert failed_trial["error"]["code"] == "template_error"
    assert len(receiver.requests) == 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"type": "a b"}, "/type"),
        ({"data": []}, "/data"),
        ({"data": {"a": 1}, "tenant": "acme"}, "/tenant"),
    ],
)
async def test_a_test_that_is_not_understood_is_refused(api: Api, body: dict[str, Any], pointer: str) -> None:
    """Before anything is sent."""
    told = await created(api)
    status, problem = await api.call("POST", f"{PATH}/{told['id']}/test", json=body)
    assert (status, pointers(problem)) == (422, [pointer])


async def test_a_notifier_that_stops_tries_nothing(api: Api) -> None:
    """503 with `Retry-After`, as for events; until then an embedding program can try one too."""
    async with Receiver(answer()) as receiver:
        told = await created(api, url=receiver.url(), tenant="acme")
        assert (await api.notifier.test_endpoint(told["id"])).delivered
        api.notifier.intake.draining = True
        tried = await api.answer("POST", f"{PATH}/{told['id']}/test")
        api.notifier.intake.draining = False
    assert (tried.status, len(receiver.requests)) == (503, 1)
    assert int(tried.headers["Retry-After"]) > 0


async def test_data_that_nests_too_deep_is_refused(api: Api) -> None:
    """As an event's is."""
    told = await created(api)
    text = b'{"data":' + b'{"a":' * 70 + b"1" + b"}" * 71
    json_type = {"Content-Type": "application/json"}
    status, problem = await api.call("POST", f"{PATH}/{told['id']}/test", data=text, headers=json_type)
    assert (status, pointers(problem)) == (422, ["/data"])


async def test_a_test_of_a_forbidden_address_tells_no_more_than_that(tmp_path: Path) -> None:
    """`blocked_address`, the same for what listens and what doesn't; nothing is connected to."""
    async with serving(tmp_path, webhooks_to="192.0.2.0/24") as api, Receiver(answer()) as receiver:
        told = [await created(api, url=url) for url in (receiver.url(), "http://127.0.0.1:1/")]
        trials = [await do(api, each, "test") for each in told]
        assert receiver.requests == []
    assert {trial["error"]["code"] for trial in trials} == {"blocked_address"}
    assert trials[0]["error"] == trials[1]["error"]
    assert not any(trial["response"] for trial in trials)


async def test_what_is_not_json_is_refused(api: Api) -> None:
    """415 for another type, also where the body may be left out."""
    told = await created(api)
    text = {"Content-Type": "text/plain"}
    for method, below in (("POST", "/pause"), ("POST", "/rotate"), ("PATCH", "")):
        status, _ = await api.call(method, f"{PATH}/{told['id']}{below}", data=b"x", headers=text)
        assert status == 415
    status, _ = await api.call("POST", f"{PATH}/{told['id']}/pause", data=b"", headers=text)
    assert status == 200


async def test_endpoints_outlive_a_restart(tmp_path: Path) -> None:
    """What was created, changed and paused is there again, and its secret signs still."""
    async with Receiver(answer()) as receiver:
        async with serving(tmp_path, webhooks_to="127.0.0.0/8") as api:
            told = await created(api, url=receiver.url(), headers={"X-Shop": "1"})
            paused = await do(api, told, "pause", json={"reason": "x"})
            await api.post(INVOICE)
        async with serving(tmp_path, webhooks_to="127.0.0.0/8") as api:
            again = await read(api, told)
            assert {name: again[name] for name in FIELDS} == paused
            assert again["pending"] == 1
            await do(api, told, "resume")
            (delivered,) = await receiver.seen(1)
            await api.settled()
    Webhook(told["secret"]).verify(delivered.body, delivered.headers)
