"""The Inbox in a real browser: what the printed curl line causes is seen, and hostile mail does nothing."""

import asyncio
import shlex
import smtplib
import time
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from typing import Self

import pytest
from playwright.async_api import Browser, Error, Page, expect
from support.browser import launched
from support.program import Program

REPOSITORY = Path(__file__).parents[2]
SECOND = 1000.0
pytestmark = pytest.mark.slow


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    """`notifier dev` with the configuration that ships, listening."""
    async with Program("dev", "--port", "0", cwd=REPOSITORY) as made:
        await made.listening()
        yield made


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A real browser."""
    async with launched() as made:
        yield made


@pytest.fixture
async def page(browser: Browser, program: Program) -> Page:
    """The Inbox at the address that was printed, once it is live."""
    made = await browser.new_page()
    await made.goto((await program.line("Inbox")).split()[-1])
    await expect(made.locator("#live")).to_have_text("live")
    return made


async def paste(program: Program) -> float:
    """Run the very curl line that was printed; returns when its answer came."""
    command = shlex.split(await program.line("curl -sS"))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert b'"status":"PENDING"' in out
    return time.monotonic()


async def mail(program: Program, message: EmailMessage) -> None:
    """Send a mail to the catcher, as any program may."""
    host, port = (await program.line("(SMTP")).split()[1].split(":")

    def send() -> None:
        with smtplib.SMTP(host, int(port), local_hostname="localhost") as smtp:
            smtp.send_message(message)

    await asyncio.to_thread(send)


class Beacon:
    """Counts who connects to it, and hangs up."""

    def __init__(self) -> None:
        self.reached = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._count, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _count(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached += 1
        writer.close()


def hostile_mail(beacon: str) -> EmailMessage:
    """A mail that tries every way to run something, or to reach the beacon."""
    message = EmailMessage()
    message["From"] = "evil@example.com"
    message["To"] = "ada@example.com"
    message["Subject"] = (
        "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    )
    message.set_content("text")
    message.add_alternative(
        f"""<html><head>
        <base href="{beacon}/base/">
        <meta http-equiv="refresh" content="0; url={beacon}/refresh">
        <link rel="preconnect" href="{beacon}"><link rel="dns-prefetch" href="{beacon}">
        <link rel="prefetch" href="{beacon}/prefetch"><link rel="preload" as="image" href="{beacon}/preload">
        <link rel="modulepreload" href="{beacon}/module"><link rel="prerender" href="{beacon}/prerender">
        <link rel="stylesheet" href="{beacon}/link.css"><link rel="icon" href="{beacon}/icon">
        <style>@import "{beacon}/import.css"; body {{ background: url({beacon}/background) }}
        @font-face {{ font-family: f; src: url({beacon}/font) }} p {{ font-family: f }}</style>
        </head><body onload="top.document.title='owned'" background="{beacon}/body">
        <p id="seen">seen</p><img src="{beacon}/img" srcset="{beacon}/srcset 2x">
        <script src="{beacon}/js"></script>
        <script>top.document.title = 'owned'; new Image().src = '{beacon}/inline'</script>
        <iframe src="{beacon}/frame"></iframe>
        <iframe srcdoc="<script>top.document.title='owned'</script>"></iframe>
        <object data="{beacon}/object"></object><embed src="{beacon}/embed">
        <video src="{beacon}/video" poster="{beacon}/poster" autoplay></video>
        <audio src="{beacon}/audio"></audio>
        <svg><image href="{beacon}/svg"/><use href="{beacon}/use#a"/></svg>
        <form action="{beacon}/form"><button id="submit">go</button></form>
        <a id="link" href="{beacon}/link">go</a><a id="blank" target="_blank" href="{beacon}/blank">go</a>
        <a id="top" target="_top" href="{beacon}/top">go</a>
        </body></html>""",
        subtype="html",
    )
    return message


async def test_the_printed_curl_line_shows_a_mail_and_a_signed_webhook(page: Page, program: Program) -> None:
    """Within a second both stand in the list that is open, and both can be read in full."""
    began = await paste(program)
    left = SECOND - (time.monotonic() - began) * 1000
    await expect(page.locator(".rows li")).to_have_count(2, timeout=left)
    await expect(page.get_by_text("signature verified")).to_be_visible()

    await page.get_by_text("Welcome, Ada!").click()
    rendered = page.frame_locator("iframe").get_by_role("heading", name="Welcome, Ada!")
    await expect(rendered).to_be_visible()
    await expect(page.locator("details", has_text="Text").locator("pre")).to_contain_text("Welcome, Ada!")
    await page.get_by_text("Headers", exact=True).click()
    await expect(page.get_by_role("row", name="Message-ID")).to_be_visible()
    await page.get_by_role("link", name="Raw source").click()
    await expect(page.locator("body")).to_contain_text("MIME-Version: 1.0")

    await page.go_back()
    await page.get_by_role("link", name="All messages").click()
    await page.get_by_text("POST https://crm.example.com/hooks").click()
    await expect(page.get_by_text("✓ signature verified")).to_be_visible()
    await expect(page.locator("pre")).to_contain_text('"email": "ada@example.com"')
    await expect(page.get_by_role("row", name="webhook-signature")).to_contain_text("v1,")


async def test_the_inbox_is_used_by_keyboard_alone(page: Page, program: Program) -> None:
    """Tab and Enter reach every message and button, and the focus survives the list's renewal."""
    await paste(program)
    await expect(page.locator(".rows li")).to_have_count(2)
    first = page.locator(".rows a").first
    await first.focus()
    aimed = await first.get_attribute("href")
    await paste(program)
    await expect(page.locator(".rows li")).to_have_count(4)
    assert await page.evaluate("document.activeElement.getAttribute('href')") == aimed
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**{aimed}")
    await page.get_by_role("button", name="Delete").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".rows li")).to_have_count(3)
    await page.get_by_role("button", name="Clear").focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Nothing caught yet.")).to_be_visible()


async def test_a_hostile_mail_runs_nothing_and_reaches_nothing(page: Page, program: Program) -> None:
    """No script, image, hint, frame, link or form of a mail so much as connects to anything."""
    async with Beacon() as beacon:
        await mail(program, hostile_mail(beacon.url))
        await page.locator(".rows a").first.click()
        frame = page.frame_locator("iframe")
        for button in ("#link", "#blank", "#top", "#submit"):
            await expect(frame.locator("#seen")).to_be_visible()
            await frame.locator(button).click(no_wait_after=True)
            await page.reload(wait_until="networkidle")
        assert "/dashboard/inbox/" in page.url
        assert await page.locator("h1").inner_text() == await page.evaluate("document.title.split(' · ')[0]")
        assert len(page.context.pages) == 1
        assert beacon.reached == 0
        # And the beacon does see a browser that comes.
        with pytest.raises(Error):
            await page.goto(beacon.url)
        assert beacon.reached > 0


async def test_nothing_of_a_page_is_refused_by_its_own_policy(page: Page, program: Program) -> None:
    """Lists and messages raise no complaint in the browser's console."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await paste(program)
    await expect(page.locator(".rows li")).to_have_count(2)
    for number in (1, 2):
        await page.goto(f"{await program.listening()}/dashboard/inbox/{number}")
        await expect(page.locator("h1")).to_be_visible()
    assert complaints == []
