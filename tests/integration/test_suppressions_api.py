"""Suppressions over the admin API: added one by one and in bulk, found, taken out whole, and dropped."""

import csv
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientPayloadError
from support.api import KEYS, Api, serving

from notifier.errors import StoreUnavailableError

PATH = "/v1/admin/suppressions"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A notifier that asks for keys."""
    async with serving(tmp_path, auth=KEYS) as made:
        yield made


async def ask(api: Api, method: str, path: str = PATH, **kwargs: Any) -> tuple[int, Any]:
    """Make a call as an operator."""
    return await api.call(method, path, key="admin-key", **kwargs)


async def listed(api: Api, **query: str) -> list[tuple[str, str | None, str]]:
    """Who is suppressed, from what, and why, the newest first."""
    status, page = await ask(api, "GET", params=query)
    assert status == 200
    return [(each["recipient"], each["category"], each["reason"]) for each in page["suppressions"]]


async def test_one_is_added_found_and_dropped(api: Api) -> None:
    """Written in any way; added twice, it stands as it was first."""
    status, told = await ask(api, "POST", json={"recipient": "Ada <Ada@Example.com>", "detail": "by phone"})
    assert status == 200
    assert told == {
        "channel": "email",
        "recipient": "ada@example.com",
        "category": None,
        "reason": "manual",
        "detail": "by phone",
        "job_id": None,
        "created_at": told["created_at"],
        "added": True,
    }
    status, again = await ask(api, "POST", json={"recipient": "ada@example.com", "reason": "complained"})
    assert (status, again["added"]) == (200, False)
    assert await listed(api, recipient="ADA@example.com") == [("ada@example.com", None, "manual")]
    query = {"recipient": "ADA@example.com"}
    assert await ask(api, "DELETE", params=query) == (
        200,
        {"channel": "email", "recipient": "ADA@example.com", "category": None},
    )
    status, problem = await ask(api, "DELETE", params=query)
    assert (status, problem["type"]) == (404, "urn:notifier:problem:not-found")
    assert await listed(api) == []


async def test_a_category_is_dropped_by_itself(api: Api) -> None:
    """What is suppressed altogether stays so."""
    await ask(
        api, "POST", json=[{"recipient": "a@b.example"}, {"recipient": "a@b.example", "category": "news"}]
    )
    status, _ = await ask(api, "DELETE", params={"recipient": "a@b.example", "category": "news"})
    assert status == 200
    assert await listed(api) == [("a@b.example", None, "manual")]


async def test_many_are_added_at_once(api: Api) -> None:
    """An array for an array, each new or not; the list of another provider keeps its dates."""
    drafts = [
        {"recipient": f"{n}@example.com", "reason": "bounced", "created_at": "2025-01-02T03:04:05Z"}
        for n in range(1000)
    ]
    status, told = await ask(api, "POST", json=drafts)
    assert (status, len(told)) == (200, 1000)
    assert all(each["added"] and each["created_at"] == "2025-01-02T03:04:05.000Z" for each in told)
    status, told = await ask(api, "POST", json=drafts[:2])
    assert [each["added"] for each in told] == [False, False]


async def test_pages_lead_on(api: Api) -> None:
    """The newest first, by reason and by channel, as far as there are any."""
    drafts = [{"recipient": f"{n}@example.com", "reason": ("manual", "complained")[n % 2]} for n in range(5)]
    await ask(api, "POST", json=drafts)
    seen: list[str] = []
    query = {"limit": "2", "reason": "manual", "channel": "email"}
    while True:
        _, page = await ask(api, "GET", params=query)
        seen += [each["recipient"][0] for each in page["suppressions"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == ["4", "2", "0"]
    assert await listed(api, channel="webhook") == []


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"recipient": "nobody"}, ["/recipient"]),
        (
            [{"recipient": "a@b.example"}, {"recipient": "x"}, {"recipient": "y"}],
            ["/1/recipient", "/2/recipient"],
        ),
        ({"recipient": "a@b.example", "channel": "pigeon"}, ["/channel"]),
        ({"recipient": "https://a.example", "channel": "webhook"}, ["/channel"]),
        ({"recipient": "a@b.example", "reason": "bored"}, ["/reason"]),
        ({"recipient": "a@b.example", "category": "Not One"}, ["/category"]),
        ({"recipient": "a@b.example", "created_at": "1969-01-01T00:00:00Z"}, ["/created_at"]),
        ({"recipient": "a@b.example", "surprise": 1}, ["/surprise"]),
        ({}, ["/recipient"]),
        ([], [""]),
        ([{"recipient": "a@b.example"}] * 1001, [""]),
    ],
)
async def test_what_can_not_be_suppressed_changes_nothing(api: Api, body: Any, pointers: list[str]) -> None:
    """Every fault is pointed at, and none of an array is kept."""
    status, problem = await ask(api, "POST", json=body)
    assert status == 422
    assert [fault["pointer"] for fault in problem["errors"]] == pointers
    assert await listed(api) == []


async def test_a_time_to_come_is_now(api: Api) -> None:
    """Clocks of two machines differ."""
    _, told = await ask(api, "POST", json={"recipient": "a@b.example", "created_at": "2999-01-01T00:00:00Z"})
    assert not told["created_at"].startswith("2999")


@pytest.mark.parametrize("query", [{"reason": "bored"}, {"limit": "0"}, {"cursor": "x"}, {"surprise": "1"}])
async def test_a_query_that_is_not_understood_is_refused(api: Api, query: dict[str, str]) -> None:
    """It names the parameter."""
    status, problem = await ask(api, "GET", params=query)
    assert (status, problem["errors"][0]["parameter"]) == (422, next(iter(query)))


async def test_only_operators_see_who_left(api: Api) -> None:
    """An app's key is not enough."""
    for method in ("GET", "POST", "DELETE"):
        status, _ = await api.call(method, PATH, key="ingest-key")
        assert status == 403


# The whole list --------------------------------------------------------------------------------------


async def export(api: Api, accept: str, **query: str) -> bytes:
    """Take the list out."""
    answer = await api.answer("GET", PATH, key="admin-key", headers={"Accept": accept}, params=query)
    assert (answer.status, answer.content_type) == (200, accept.partition(";")[0])
    assert "attachment" in answer.headers["Content-Disposition"]
    return await answer.read()


async def test_the_whole_list_is_taken_out_as_ndjson(api: Api) -> None:
    """More than a page of it, each line as the API lists it, narrowed as a list is."""
    drafts = [{"recipient": f"{n}@example.com", "reason": "complained"} for n in range(999)]
    await ask(api, "POST", json=[*drafts, {"recipient": "a@b.example"}])
    lines = [json.loads(line) for line in (await export(api, "application/x-ndjson")).splitlines()]
    assert len(lines) == 1000
    _, page = await ask(api, "GET")
    assert lines[:50] == page["suppressions"]
    assert len((await export(api, "application/x-ndjson", reason="manual")).splitlines()) == 1


async def test_the_whole_list_is_taken_out_as_csv(api: Api) -> None:
    """RFC 4180 with a line of names; what a spreadsheet would take for a formula is marked as text."""
    await ask(
        api,
        "POST",
        json=[
            {"recipient": "=cmd!a0@example.com", "detail": 'said: "no, never"\nagain'},
            {"recipient": "a@b.example", "category": "news"},
        ],
    )
    text = (await export(api, "text/csv")).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(each["recipient"], each["category"], each["detail"]) for each in rows] == [
        ("a@b.example", "news", ""),
        ("'=cmd!a0@example.com", "", 'said: "no, never"\nagain'),
    ]
    assert text.startswith("channel,recipient,category,reason,detail,job_id,created_at\r\n")


async def test_an_empty_list_is_a_file_too(api: Api) -> None:
    """With its names, or with nothing."""
    assert (await export(api, "text/csv; charset=utf-8")).count(b"\r\n") == 1
    assert await export(api, "application/x-ndjson") == b""


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/json, text/csv", "text/html"])
async def test_json_is_answered_where_no_file_is_asked_for(api: Api, accept: str) -> None:
    """As every other call does."""
    status, page = await ask(api, "GET", headers={"Accept": accept})
    assert (status, page) == (200, {"suppressions": [], "next_cursor": None})


async def test_a_list_that_breaks_off_is_no_list(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first page it is a problem; later the connection ends in the middle, never as if whole."""
    await ask(api, "POST", json=[{"recipient": f"{n}@example.com"} for n in range(600)])
    page, left = api.notifier.store.suppressions, [1]

    async def failing(**asked: Any) -> Any:
        if not left:
            raise StoreUnavailableError("no disk")
        left.pop()
        return await page(**asked)

    monkeypatch.setattr(api.notifier.store, "suppressions", failing)
    with pytest.raises(ClientPayloadError):
        await export(api, "text/csv")
    status, problem = await ask(api, "GET", headers={"Accept": "text/csv"})
    assert (status, problem["type"]) == (503, "urn:notifier:problem:store-unavailable")
