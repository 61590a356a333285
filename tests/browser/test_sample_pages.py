"""The sample mails in a real browser: readable on a phone and on a desk, by light and by dark."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page
from support.browser import launched
from support.sample_mails import SAMPLES, Sample, channel, sent

PHONE, DESK = 375, 1280
pytestmark = pytest.mark.slow

FONT_SIZES = """[...document.querySelectorAll('p, td, th, a')]
    .map(element => parseFloat(getComputedStyle(element).fontSize))"""
CONTRASTS = """() => {
    const parse = text => text.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => [r, g, b].map(each => each / 255)
        .map(each => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
        .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
        const [one, other] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        found.push([contrast, walker.currentNode.textContent]);
    }
    return found;
}"""
"""The contrast of every text that is seen to what is behind it (WCAG 2.2 §1.4.3)."""


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """A real browser."""
    async with launched() as made:
        yield made


async def pages(browser: Browser, width: int, **options: Any) -> AsyncIterator[tuple[Sample, Page]]:
    """Each sample's HTML as it goes out, in a window of this width."""
    for sample in SAMPLES:
        page = await browser.new_page(viewport={"width": width, "height": 800}, **options)
        await page.set_content(sent(sample, channel())["html"])
        yield sample, page
        await page.close()


@pytest.mark.parametrize("width", [320, PHONE])
async def test_they_are_read_on_a_phone_without_scrolling_sideways(browser: Browser, width: int) -> None:
    """Nothing is wider than the screen, no text is smaller than 13 px, and a button fills a thumb."""
    async for sample, page in pages(browser, width):
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, sample.name
        assert min(await page.evaluate(FONT_SIZES)) >= 13, sample.name
        for button in await page.locator(".action a").all():
            box = await button.bounding_box()
            assert box is not None
            assert box["height"] >= 44, sample.name


async def test_they_are_600_px_wide_on_a_desk(browser: Browser) -> None:
    """The sheet stands in the middle and takes no more."""
    async for sample, page in pages(browser, DESK):
        box = await page.locator(".sheet").bounding_box()
        assert box is not None
        assert (box["x"], box["width"]) == ((DESK - 600) / 2, 600), sample.name


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_stands_out(browser: Browser, scheme: str) -> None:
    """By light and by dark, each text has the contrast that WCAG asks for, and the dark page is dark."""
    async for sample, page in pages(browser, PHONE, color_scheme=scheme):
        contrasts = await page.evaluate(CONTRASTS)
        assert len(contrasts) > 4
        assert min(contrasts)[0] >= 4.5, (sample.name, min(contrasts))
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(244, 245, 247)") == (scheme == "light")


async def test_they_are_heard_as_they_are_meant(browser: Browser) -> None:
    """One heading, a language, a title; layout is no table to a screen reader, the preheader is unseen."""
    async for sample, page in pages(browser, PHONE):
        assert await page.get_by_role("heading", level=1).count() == 1
        assert await page.evaluate("document.documentElement.lang") == ("fr" if sample.locale else "en")
        assert await page.title()
        assert await page.get_by_role("article").get_attribute("aria-label") == await page.title()
        for table in await page.get_by_role("table").all():
            headers = table.get_by_role("rowheader").or_(table.get_by_role("columnheader"))
            assert await headers.count(), sample.name
        assert not await page.locator(".preheader").is_visible()
        leaving = page.get_by_role("link", name="abonner" if sample.locale else "Unsubscribe")
        assert await leaving.count() == (sample.unsubscribe_url is not None)


async def test_they_load_nothing(browser: Browser) -> None:
    """Neither an image, nor a font, nor a sheet comes from anywhere: reading is reported to no one."""
    context = await browser.new_context()
    loaded: list[str] = []
    context.on("request", lambda request: loaded.append(request.url))
    page = await context.new_page()
    for sample in SAMPLES:
        await page.set_content(sent(sample, channel())["html"], wait_until="networkidle")
    assert loaded == []
    await page.set_content('<img src="http://127.0.0.1:9/x.png">')
    assert loaded == ["http://127.0.0.1:9/x.png"]
