"""From a mail's header to a cancelled job: what a recipient's mail server does, against `notifier dev`."""

import asyncio
import email
import shutil
from collections.abc import AsyncIterator, Callable
from email.message import Message
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.program import Program

pytestmark = pytest.mark.slow

TEMPLATES = Path(__file__).parents[2] / "templates"
CONFIG = """
[server]
port = 0
public_url = "https://mail.example.com"
[[routes]]
event = "news.*"
channel = "email"
to = ["{{ data.email }}"]
bcc = "archive@example.com"
template = "welcome"
category = "weekly-news"
"""
EVENT = {"type": "news.weekly", "data": {"email": "Ada <ada@example.com>", "name": "Ada"}}


class Here:
    """The API of a running program."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    async def get(self, path: str) -> Any:
        """Read JSON."""
        async with self.session.get(self.url + path) as answer:
            return await answer.json()

    async def until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """Ask until what is answered holds."""
        async with asyncio.timeout(20):
            told = await self.get(path)
            while not holds(told):
                told = await self.get(path)
        return told

    async def post(self) -> dict[str, Any]:
        """Post an event, and wait until all its jobs are finished; returns them by destination."""
        async with self.session.post(f"{self.url}/v1/events", json=EVENT) as answer:
            event = await answer.json()
        told = await self.until(
            f"/v1/events/{event['id']}",
            lambda told: all(job["status"] in {"COMPLETED", "CANCELLED"} for job in told["jobs"]),
        )
        return {job["destination"]: job for job in told["jobs"]}

    async def mails(self) -> list[Message]:
        """Every mail that was caught."""
        caught = await self.get("/dashboard/inbox.json")
        raws = []
        for each in caught["messages"]:
            async with self.session.get(f"{self.url}/dashboard/inbox/{each['number']}/raw") as answer:
                raws.append(await answer.read())
        return [email.message_from_bytes(raw) for raw in raws]


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    """`notifier dev` with a route of a category."""
    shutil.copytree(TEMPLATES, tmp_path / "templates")
    (tmp_path / "config.toml").write_text(CONFIG)
    async with Program("dev", cwd=tmp_path) as program, aiohttp.ClientSession() as session:
        yield Here(await program.listening(), session)


async def test_one_click_ends_a_category_for_one_recipient(here: Here) -> None:
    """The header's link, posted to as RFC 8058 has it; the next mail goes to the others alone."""
    first = await here.post()
    assert {job["status"] for job in first.values()} == {"COMPLETED"}
    mails = await here.mails()
    assert {mail["To"] for mail in mails} == {"Ada <ada@example.com>"}
    assert not any("archive@example.com" in value for mail in mails for value in mail.values())
    links = {mail["Message-ID"].partition("@")[0]: mail["List-Unsubscribe"].strip("<>") for mail in mails}
    ada = links["<" + first["Ada <ada@example.com>"]["id"]]
    assert ada.startswith(f"{here.url}/unsubscribe/")
    assert {mail["List-Unsubscribe-Post"] for mail in mails} == {"List-Unsubscribe=One-Click"}
    async with here.session.get(ada) as page:
        assert page.status == 200
    assert {job["status"] for job in (await here.post()).values()} == {"COMPLETED"}
    form = aiohttp.FormData({"List-Unsubscribe": "One-Click"})
    async with here.session.post(ada, data=form, allow_redirects=False) as answer:
        assert answer.status == 200
    last = await here.post()
    assert last["archive@example.com"]["status"] == "COMPLETED"
    cancelled = last["Ada <ada@example.com>"]
    assert (cancelled["status"], cancelled["error"]["code"], cancelled["category"]) == (
        "CANCELLED",
        "suppressed",
        "weekly-news",
    )
    assert len(await here.mails()) == 5
