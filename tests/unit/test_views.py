"""The Inbox's pages: what they show, and that nothing of what they show can run, load or forge anything."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from notifier.dashboard.defuse import defuse
from notifier.dashboard.views import PREFIX, build_dashboard
from notifier.inbox import Hook, Inbox, Mail, Note

HOSTILE = '"><script>alert(1)</script>'
MAIL = Mail(
    sender="n@example.com",
    recipients=("ada@example.com",),
    raw=f"Subject: {HOSTILE}\r\nContent-Type: text/html\r\n\r\n<p>Hi</p>{HOSTILE}".encode(),
    subject=HOSTILE,
)
HOOK = Hook(
    method="POST",
    url=f"https://crm.example.com/{HOSTILE}",
    headers=(("webhook-id", "job_1"), ("X-Odd", HOSTILE)),
    body=b'{"n":1.10000000000000000000001,"x":"</pre><script>"}',
    problem=None,
)
NOTE = Note(
    channel="sms",
    destination=HOSTILE,
    job_id="job_1",
    event_type="a.b",
    data=b'{"a":1}',
    content={"text": HOSTILE, "html": None},
)
Client = TestClient[web.Request, web.Application]


@pytest.fixture
def inbox() -> Inbox:
    """One message of each kind."""
    made = Inbox()
    for message in (MAIL, HOOK, NOTE):
        made.add(message, 1_800_000_000.0)
    return made


@pytest.fixture
async def client(inbox: Inbox) -> AsyncIterator[Client]:
    """The pages, mounted and served."""
    app = web.Application()
    app.add_subapp(PREFIX, build_dashboard(inbox))
    async with TestClient(TestServer(app)) as made:
        yield made


async def text_of(client: Client, path: str) -> str:
    """Read a page that is there."""
    async with client.get(f"{PREFIX}{path}") as response:
        assert response.status == 200
        return await response.text()


async def test_the_list_shows_every_message(client: Client) -> None:
    """The newest first, with its kind, and whether a signature verified."""
    page = await text_of(client, "/inbox")
    places = [page.index(f'href="{PREFIX}/inbox/{number}"') for number in (3, 2, 1)]
    assert places == sorted(places)
    assert "signature verified" in page
    assert "to ada@example.com" in page


@pytest.mark.parametrize(
    "path", ["/inbox", "/inbox/rows", "/inbox/1", "/inbox/2", "/inbox/3"], ids=lambda path: path
)
async def test_what_is_shown_is_escaped(client: Client, path: str) -> None:
    """No subject, url, header, body or destination becomes markup of the page."""
    page = await text_of(client, path)
    assert HOSTILE not in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/inbox",
        "/inbox/rows",
        "/inbox/1",
        "/inbox/1/html",
        "/inbox/1/raw",
        "/inbox.json",
        "/static/style.css",
    ],
    ids=lambda path: path,
)
async def test_every_answer_is_guarded(client: Client, path: str) -> None:
    """A policy that lets nothing in but our own, no sniffing, no referrer elsewhere, no early look-ups."""
    async with client.get(f"{PREFIX}{path}") as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors" in policy
        assert "script-src 'unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["X-DNS-Prefetch-Control"] == "off"


async def test_a_mails_html_is_sandboxed_by_its_own_policy_too(client: Client) -> None:
    """Opened outside its frame, it still runs no script and loads nothing."""
    async with client.get(f"{PREFIX}/inbox/1/html") as response:
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("sandbox; default-src 'none'; ")
        assert HOSTILE in await response.text()
    assert 'sandbox=""' in await text_of(client, "/inbox/1")


async def test_a_webhooks_body_is_indented_and_otherwise_as_it_came(client: Client) -> None:
    """Numbers keep every digit."""
    page = await text_of(client, "/inbox/2")
    assert "1.10000000000000000000001,\n" in page
    assert "✓ signature verified" in page


async def test_a_signature_that_does_not_verify_says_why(client: Client, inbox: Inbox) -> None:
    """The reason stands on the page and in the JSON."""
    inbox.add(Hook(method="POST", url="http://a/", headers=(), body=b"\xff", problem="too old"), 0.0)
    assert "signature not verified: too old" in await text_of(client, "/inbox/4")
    async with client.get(f"{PREFIX}/inbox.json") as response:
        newest = (await response.json())["messages"][0]
    assert newest["signature"] == {"verified": False, "problem": "too old"}


async def test_the_json_holds_everything(client: Client) -> None:
    """A script reads kinds, contents and verdicts."""
    async with client.get(f"{PREFIX}/inbox.json") as response:
        assert response.content_type == "application/json"
        note, hook, mail = (await response.json())["messages"]
    assert (note["kind"], note["channel"], note["data"]) == ("message", "sms", {"a": 1})
    assert (hook["kind"], hook["signature"]["verified"]) == ("webhook", True)
    assert (mail["kind"], mail["to"], mail["subject"]) == ("email", ["ada@example.com"], HOSTILE)
    assert mail["received_at"] == "2027-01-15T08:00:00.000Z"


async def test_raw_sources_are_plain_text(client: Client) -> None:
    """A mail's bytes, a request's lines and a message's data, as text that no browser interprets."""
    for number, start in ((1, "Subject: "), (2, "POST https://"), (3, '{"a":1}')):
        async with client.get(f"{PREFIX}/inbox/{number}/raw") as response:
            assert response.content_type == "text/plain"
            assert (await response.text()).startswith(start)


@pytest.mark.parametrize(
    "path", ["/inbox/9", "/inbox/9/html", "/inbox/2/html", "/inbox/x", "/static/../mail.py"]
)
async def test_what_is_not_there_is_a_404(client: Client, path: str) -> None:
    """A message that is gone, HTML of what is no mail, a file that is no page's."""
    async with client.get(f"{PREFIX}{path}") as response:
        assert response.status == 404


async def post(client: Client, path: str, **headers: str) -> ClientResponse:
    """Send a form."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(f"{PREFIX}{path}", headers=named, allow_redirects=False)


async def test_messages_can_be_deleted_and_cleared(client: Client, inbox: Inbox) -> None:
    """The page's own forms lead back to the list."""
    response = await post(client, "/inbox/2/delete", Sec_Fetch_Site="same-origin")
    assert (response.status, response.headers["Location"]) == (303, f"{PREFIX}/inbox")
    assert [caught.number for caught in inbox] == [3, 1]
    await post(client, "/inbox/clear", Origin=str(client.make_url("/").origin()))
    assert len(inbox) == 0
    assert "Nothing caught yet" in await text_of(client, "/inbox")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://localhost:1"},
        {"Origin": "null"},
    ],
    ids=str,
)
async def test_no_other_pages_form_changes_anything(
    client: Client, inbox: Inbox, headers: dict[str, str]
) -> None:
    """Another site's, or another port's, is refused."""
    for path in ("/inbox/clear", "/inbox/1/delete"):
        assert (await post(client, path, **headers)).status == 403
    assert len(inbox) == 3


async def test_a_page_is_told_of_every_change(client: Client, inbox: Inbox) -> None:
    """The stream speaks at once, and again when a message comes or goes."""
    async with client.get(f"{PREFIX}/inbox/stream") as response:
        assert response.content_type == "text/event-stream"
        first = await response.content.readuntil(b"\n\n")
        inbox.add(NOTE, 0.0)
        second = await response.content.readuntil(b"\n\n")
        inbox.clear()
        third = await response.content.readuntil(b"\n\n")
    assert [first, second, third] == [b"data: 3\n\n", b"data: 4\n\n", b"data: 5\n\n"]


async def test_stopping_ends_the_streams(inbox: Inbox) -> None:
    """A page that is left open holds no shutdown up."""
    app = web.Application()
    app.add_subapp(PREFIX, build_dashboard(inbox))
    async with TestClient(TestServer(app)) as client, client.get(f"{PREFIX}/inbox/stream") as response:
        await response.content.readuntil(b"\n\n")
        async with asyncio.timeout(5):
            await client.server.close()
        assert await response.content.read() == b""


@pytest.mark.parametrize(
    ("html", "defused"),
    [
        ("<p>Hi</p>", '<base target="_blank"><p>Hi</p>'),
        ("\n<!DOCTYPE html>\n<p>", '\n<!DOCTYPE html><base target="_blank">\n<p>'),
        ("<LINK rel=preconnect>", '<base target="_blank"><x-LINK rel=preconnect>'),
        ("<iframe\nsrc=x></iframe>", '<base target="_blank"><x-iframe\nsrc=x></iframe>'),
        ("<meta/http-equiv=refresh>", '<base target="_blank"><x-meta/http-equiv=refresh>'),
        ("<linked> a < link <frames>", '<base target="_blank"><linked> a < link <frames>'),
    ],
)
def test_tags_that_connect_are_renamed(html: str, defused: str) -> None:
    """Whatever a browser takes for such a tag means nothing any more; the rest, and the doctype, stay."""
    assert defuse(html) == defused
