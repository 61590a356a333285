"""The unsubscribe page in a real browser: without script, on a phone, by keyboard, under its own policy."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect
from support.api import Api, serving
from support.builders import job

pytestmark = pytest.mark.slow

CHROMIUM = "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
LONG = "a-rather-long-name-that-no-phone-has-room-for-in-one-line@a-host-with-a-long-name.example.com"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A notifier that others reach at a public name, without keys."""
    async with serving(tmp_path, public_url="https://mail.example.com/notify") as made:
        yield made


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A real browser."""
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield made
        await made.close()


@pytest.fixture
async def page(browser: Browser, api: Api) -> AsyncIterator[Page]:
    """The page of a link, on a narrow phone that runs no script; nothing may be refused by its policy."""
    context = await browser.new_context(viewport={"width": 320, "height": 640}, java_script_enabled=False)
    made, complaints = await context.new_page(), list[str]()
    made.on("console", lambda message: complaints.append(message.text))
    url = api.notifier.unsubscribing.url(job(channel="email", destination=LONG, category="weekly_news"))
    assert url is not None
    await made.goto(str(api.client.make_url(url.removeprefix("https://mail.example.com"))))
    yield made
    assert complaints == []


async def suppressed(api: Api) -> list[str | None]:
    """The categories that the recipient left, the last first."""
    found = await api.notifier.suppressions.page(limit=10, recipient=LONG)
    return [each.category for each in found.suppressions]


async def fits(page: Page) -> bool:
    """Whether nothing stands out at the side of the screen."""
    box = await page.locator("main").bounding_box()
    buttons = [await each.bounding_box() for each in await page.get_by_role("button").all()]
    assert box is not None
    return box["width"] <= 320 and all(each and each["height"] >= 44 for each in buttons)


async def test_a_button_unsubscribes(api: Api, page: Page) -> None:
    """Nothing happens before it is pressed; then the page says what holds, and offers the rest."""
    await expect(page.get_by_role("heading")).to_have_text("Unsubscribe?")
    assert await suppressed(api) == []
    assert await fits(page)
    await page.get_by_role("button", name="Unsubscribe from weekly news").click()
    await expect(page.get_by_role("heading")).to_have_text("You are unsubscribed")
    await expect(page.get_by_role("status")).to_contain_text(LONG)
    assert await suppressed(api) == ["weekly_news"]
    assert await fits(page)
    await page.get_by_role("button", name="Unsubscribe from everything").click()
    await expect(page.get_by_role("heading")).to_have_text("You are unsubscribed from everything")
    assert await suppressed(api) == [None, "weekly_news"]
    await expect(page.get_by_role("button")).to_have_count(0)


async def test_the_keyboard_does_as_well(api: Api, page: Page) -> None:
    """Tab and Enter, with a ring around what is about to be pressed; a reload changes nothing more."""
    await page.keyboard.press("Tab")
    first = page.get_by_role("button", name="Unsubscribe from weekly news")
    await expect(first).to_be_focused()
    await expect(first).to_have_css("outline-style", "solid")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading")).to_have_text("You are unsubscribed")
    await page.reload()
    assert await suppressed(api) == ["weekly_news"]


async def test_its_style_is_let_in_by_its_policy(page: Page) -> None:
    """And nothing else is: no script, no picture, no font from anywhere."""
    await expect(page.locator("main")).to_have_css("max-width", "480px")
    assert await page.locator("script, img, link, iframe").count() == 0
