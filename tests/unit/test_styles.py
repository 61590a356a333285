"""Style sheets on their way into the elements: what moves, what stays, and that nothing is ever loaded."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from notifier.channels import styles
from notifier.channels.styles import MOST_TAGS, inlined
from notifier.errors import Permanent, TemplateError

SHEET = "<style>p { color: red }</style>"


def test_rules_move_to_the_elements_they_are_about() -> None:
    """A rule becomes a `style` attribute that keeps what the element said itself, and leaves the sheet."""
    html = inlined("<style>.a { color: red; margin: 0 }</style><p class=a style='color: blue'>x</p>", "t")
    assert '<p class="a" style="margin: 0;color: blue">x</p>' in html
    assert ".a" not in html


def test_what_only_a_sheet_can_say_stays_in_it() -> None:
    """Dark mode, phone width and hovering are kept for the clients that heed them."""
    sheet = "@media (prefers-color-scheme: dark) { p { color: #fff !important } } a:hover { color: red }"
    html = inlined(f"<style>{sheet} p {{ color: black }}</style><p>x", "t")
    assert "prefers-color-scheme: dark" in html
    assert "a:hover" in html
    assert '<p style="color: black;">' in html


def test_a_page_without_a_sheet_is_left_as_it_is() -> None:
    """Nothing is parsed and written anew for nothing."""
    html = "<P CLASS=a>x &copy; <style-guide>"
    assert inlined(html, "t") is html


def test_comments_and_links_arrive_whole() -> None:
    """Conditional comments for Outlook, query strings and cid: stay what they are."""
    html = inlined(
        SHEET
        + '<!--[if mso]><table><![endif]--><a href="https://x.example/?a=1&amp;b=é">é</a><img src="cid:l">',
        "t",
    )
    assert "<!--[if mso]><table><![endif]-->" in html
    assert '<a href="https://x.example/?a=1&amp;b=é">é</a><img src="cid:l">' in html


def test_nothing_is_read_or_fetched(tmp_path: Path) -> None:
    """A sheet that is linked to or imported, as a file or from elsewhere, has no effect at all."""
    (tmp_path / "x.css").write_text("p { color: green }")
    file = (tmp_path / "x.css").as_uri()
    for url in (file, str(tmp_path / "x.css"), "http://127.0.0.1:9/x.css", "//127.0.0.1:9/x.css"):
        html = inlined(f"<link rel=stylesheet href={url}><style>@import '{url}';</style>{SHEET}<p>x", "t")
        assert "green" not in html
        assert '<p style="color: red;">x</p>' in html


def test_what_can_not_be_inlined_names_its_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library raises, a panic among it, is for good and says whose sheet it is."""

    class Panic(BaseException):
        """As the library raises where its own code gives up."""

    class Broken:
        """An inliner that fails."""

        def inline(self, _html: str) -> str:
            raise Panic("index out of bounds")

    monkeypatch.setattr(styles, "_inliner", Broken)
    with pytest.raises(TemplateError, match="welcome: its style sheets") as caught:
        inlined(SHEET, "welcome")
    assert isinstance(caught.value, Permanent)
    assert caught.value.template == "welcome"


@pytest.mark.parametrize(
    "page",
    [
        "<div>" * 100_000,
        "<b>" * (MOST_TAGS - 1),
        "".join(f"<b id={n}>" for n in range(MOST_TAGS // 2)) + "<p>" * (MOST_TAGS // 2 - 1),
        "".join(f"<b id={n}><p>" for n in range(MOST_TAGS // 2 - 1)) + "</b>" * MOST_TAGS,
        "<svg>" + "<g>" * (MOST_TAGS - 2),
        "<table>" * (MOST_TAGS - 1),
        "<a><p>" * (MOST_TAGS // 2 - 1) + "</a>" * MOST_TAGS,
    ],
)
def test_no_nesting_ends_the_process(page: str) -> None:
    """What nests deeper than the inliner's stack goes is left alone: it would take the process down."""
    program = (
        "import sys; from notifier.channels.styles import inlined; print(len(inlined(sys.stdin.read(), 't')))"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], input=SHEET + page, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) >= len(page)


def test_a_page_of_too_many_tags_keeps_its_sheet() -> None:
    """Beyond `MOST_TAGS` the sheet goes out as it stands, which most clients heed too."""
    assert len(re.findall("color", inlined(SHEET + "<p>" * (MOST_TAGS - 1), "t"))) == MOST_TAGS - 1
    page = SHEET + "<p>" * MOST_TAGS
    assert inlined(page, "t") is page
