"""The page behind a mail's link and the one click of RFC 8058, over HTTP as people and mail servers come."""

import io
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, FormData, MultipartWriter
from support.api import KEYS, Api, serving
from support.builders import job

from notifier.errors import StoreUnavailableError
from notifier.model import Job, Suppression

PUBLIC = "https://mail.example.com"
ONE_CLICK = b"List-Unsubscribe=One-Click"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A notifier without keys that others reach at a public name."""
    async with serving(tmp_path, public_url=PUBLIC) as made:
        yield made


def link(api: Api, made: Job | None = None) -> str:
    """The path of a link, as a mail server that follows it asks for it."""
    made = made or job(channel="email", destination="Ada <Ada@example.com>", category="weekly-news")
    url = api.notifier.unsubscribing.url(made)
    assert url is not None
    return url.removeprefix(api.notifier.config.server.public_url or "")


async def suppressed(api: Api) -> list[Suppression]:
    """Who is left alone now."""
    return (await api.notifier.suppressions.page(limit=10)).suppressions


def harmless(answer: ClientResponse) -> None:
    """A page that runs, loads, frames and tells nothing."""
    assert answer.content_type == "text/html"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert "Set-Cookie" not in answer.headers


# The page --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_to_look_changes_nothing(api: Api, method: str) -> None:
    """Scanners follow every link of a mail: they see a page with a button, and press none."""
    for _ in range(2):
        answer = await api.answer(method, link(api), headers={"Host": "mail.example.com"})
        assert answer.status == 200
        harmless(answer)
    assert await suppressed(api) == []
    if method == "GET":
        page = await answer.text()
        assert "ada@example.com" in page
        assert "Unsubscribe from weekly news" in page
        assert "Unsubscribe from everything" in page
        assert re.search(r'<form method="post">', page)
        assert "<script" not in page


async def test_the_button_unsubscribes_from_the_category(api: Api) -> None:
    """And pressed again it is the same; the page then says how things stand."""
    browser = {"Origin": PUBLIC, "Sec-Fetch-Site": "same-origin", **FORM}
    for _ in range(2):
        answer = await api.answer("POST", link(api), data=b"from=category", headers=browser)
        assert answer.status == 200
        harmless(answer)
        assert "You are unsubscribed</h1>" in await answer.text()
    (kept,) = await suppressed(api)
    assert (kept.channel, kept.recipient, kept.category, kept.reason, kept.detail) == (
        "email",
        "ada@example.com",
        "weekly-news",
        "unsubscribed",
        "on the page",
    )
    assert "You are unsubscribed</h1>" in await (await api.answer("GET", link(api))).text()


async def test_the_other_button_unsubscribes_from_everything(api: Api) -> None:
    """Whatever the category is, and also for one who had left that before."""
    await api.answer("POST", link(api), data=b"from=category", headers=FORM)
    answer = await api.answer("POST", link(api), data=b"from=everything", headers=FORM)
    assert "You are unsubscribed from everything</h1>" in await answer.text()
    assert [each.category for each in await suppressed(api)] == [None, "weekly-news"]
    page = await (await api.answer("GET", link(api))).text()
    assert "You are unsubscribed from everything</h1>" in page
    assert "<form" not in page


# The one click ---------------------------------------------------------------------------------------


def multipart() -> MultipartWriter:
    """A one-click as multipart/form-data, which RFC 8058 §3.1 takes too."""
    writer = MultipartWriter("form-data")
    part = writer.append("One-Click")
    part.set_content_disposition("form-data", name="List-Unsubscribe")
    return writer


@pytest.mark.parametrize("host", ["mail.example.com", "notifier.internal:8080", "127.0.0.1"])
async def test_one_click_unsubscribes_by_whatever_name_a_proxy_calls(api: Api, host: str) -> None:
    """A mail server posts with neither key nor cookie; it is answered 200, and never sent elsewhere."""
    answer = await api.answer("POST", link(api), data=ONE_CLICK, headers={"Host": host, **FORM})
    assert answer.status == 200
    (kept,) = await suppressed(api)
    assert (kept.category, kept.detail) == ("weekly-news", "one click")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (multipart, {}),
        (lambda: FormData({"List-Unsubscribe": "One-Click"}, charset="utf-8"), {}),
        (lambda: ONE_CLICK + b"\r\n", FORM),
        (lambda: ONE_CLICK, {"Content-Type": "text/plain"}),
        (lambda: b"\x1f\x8b garbage", {**FORM, "Content-Encoding": "gzip"}),
        (lambda: b"--x\r\nbroken", {"Content-Type": "multipart/form-data; boundary=x"}),
        (lambda: b"", {}),
    ],
)
async def test_one_click_is_heard_however_it_is_written(api: Api, body: Any, headers: dict[str, str]) -> None:
    """Not to be heard makes complaints of unsubscriptions: the link alone says all."""
    answer = await api.answer("POST", link(api), data=body(), headers=headers)
    assert answer.status == 200
    assert [each.category for each in await suppressed(api)] == ["weekly-news"]


async def test_a_suppressed_recipient_gets_no_more_of_it(api: Api) -> None:
    """What the workers ask is what the click left behind."""
    made = job(channel="email", destination="ada@example.com", category="weekly-news")
    await api.answer("POST", link(api, made), data=ONE_CLICK, headers=FORM)
    found = await api.notifier.store.suppressed("email", "ada@example.com", "weekly-news")
    assert found is not None
    assert found.job_id == made.id


# What is none of ours --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_link_that_is_none_of_ours_is_not_found(api: Api, method: str) -> None:
    """Altered, cut short, made up, or signed by another notifier: a page says so, and nothing changes."""
    good = link(api)
    head = {"Host": "mail.example.com", **FORM}
    for path in (good[:-1], good + "A", "/unsubscribe/x", f"/unsubscribe/{'A' * 5000}", good[:20] + "%00"):
        answer = await api.answer(method, path, data=ONE_CLICK if method == "POST" else None, headers=head)
        assert answer.status == 404
        harmless(answer)
        assert "This link doesn’t work" in await answer.text()
    assert await suppressed(api) == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_nothing_else_can_be_done_with_a_link(api: Api, method: str) -> None:
    """It unsubscribes, and that is all."""
    assert (await api.answer(method, link(api))).status == 405


async def test_too_long_a_body_is_refused_unread(api: Api) -> None:
    """A link is known to many: it must cost little whatever is posted to it."""
    body = io.BytesIO(b"x" * (api.notifier.config.server.max_body + 1))
    assert (await api.answer("POST", link(api), data=body, headers=FORM)).status == 413
    assert await suppressed(api) == []


async def test_while_the_store_is_away_one_is_asked_to_try_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A click is never taken for heard before it is kept: 503, for a mail server to come again."""

    async def away(*_: object) -> None:
        raise StoreUnavailableError("no disk")

    for name in ("suppressed", "add_suppression"):
        monkeypatch.setattr(api.notifier.store, name, away)
    for method in ("GET", "POST"):
        answer = await api.answer(method, link(api))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        harmless(answer)
        assert "Nothing has been changed yet" in await answer.text()


async def test_what_a_recipient_is_called_is_no_html(api: Api) -> None:
    """Addresses come from anyone."""
    made = job(channel="email", destination='"<b>x</b>"@example.com', category="weekly-news")
    page = await (await api.answer("GET", link(api, made))).text()
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<b>x" not in page


# Where it stands -------------------------------------------------------------------------------------


async def test_it_works_below_a_path_whether_a_proxy_strips_it_or_not(tmp_path: Path) -> None:
    """`public_url = "https://example.com/notify"`: either way the same link is answered."""
    async with serving(tmp_path, public_url="https://example.com/notify") as api:
        stripped = link(api)
        for path in (stripped, f"/notify{stripped}"):
            assert (await api.answer("GET", path, headers={"Host": "example.com"})).status == 200
            answer = await api.answer("POST", path, data=ONE_CLICK, headers={"Host": "example.com", **FORM})
            assert answer.status == 200


async def test_it_needs_no_key_where_the_rest_does(tmp_path: Path) -> None:
    """Recipients have none."""
    async with serving(tmp_path, auth=KEYS, public_url=PUBLIC) as api:
        path = link(api)
        assert (await api.answer("GET", path)).status == 200
        assert (await api.answer("POST", path, data=ONE_CLICK, headers=FORM)).status == 200
        assert (await api.answer("GET", "/v1/admin/suppressions")).status == 401


async def test_the_public_name_opens_nothing_else(api: Api) -> None:
    """Without keys, everything but links stays on this machine."""
    for path in ("/v1/admin/suppressions", "/livez", "/openapi.json"):
        assert (await api.answer("GET", path, headers={"Host": "mail.example.com"})).status == 403


async def test_links_outlive_the_process(tmp_path: Path) -> None:
    """The key is the store's: a mail of last year still unsubscribes."""
    async with serving(tmp_path, public_url=PUBLIC) as api:
        path = link(api)
    async with serving(tmp_path, public_url=PUBLIC) as api:
        assert (await api.answer("GET", path)).status == 200
