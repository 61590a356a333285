"""HTML taken apart: as the standard library has it where it is well-formed, and never lost where it isn't."""

from html import escape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.channels.markup import Tag, pieces

Seen = list[Tag | str]


class Library(HTMLParser):
    """What the standard library makes of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.seen: Seen = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an opening tag."""
        self.seen.append(Tag(tag, {name: value or "" for name, value in attrs}, closing=False))

    def handle_endtag(self, tag: str) -> None:
        """Note a closing tag."""
        self.seen.append(Tag(tag, {}, closing=True))

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.seen.append(data)


def joined(seen: Seen) -> Seen:
    """The same with neighbouring texts as one."""
    whole: Seen = []
    for piece in seen:
        if isinstance(piece, str) and whole and isinstance(whole[-1], str):
            whole[-1] += piece
        else:
            whole.append(piece)
    return whole


def by_library(html: str) -> Seen:
    """What the standard library makes of a page."""
    library = Library()
    library.feed(html)
    library.close()
    return joined(library.seen)


names = st.sampled_from(["p", "a", "table", "h1", "x-y", "br"])
values = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20)
texts = values.map(escape)
opening = st.builds(
    lambda name, key, value: f'<{name} {key}="{escape(value)}">',
    names,
    st.sampled_from(["href", "style", "data-x"]),
    values,
)
closing = names.map(lambda name: f"</{name}>")
comments = st.text("ab <>!-", max_size=10).map(lambda text: f"<!-- {text.replace('--', '').strip('->')} -->")


@given(st.lists(st.one_of(texts, opening, closing, comments)).map("".join))
def test_well_formed_pages_are_read_as_the_standard_library_reads_them(html: str) -> None:
    """Tags, attributes and text are the same, references resolved, comments gone."""
    assert joined(list(pieces(html))) == by_library(html)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<A HREF=x Hidden>", [Tag("a", {"href": "x", "hidden": ""}, closing=False)]),
        ("<a title='a > b' x=\"'\">", [Tag("a", {"title": "a > b", "x": "'"}, closing=False)]),
        ("<br/>x<br />", [Tag("br", {}, closing=False), "x", Tag("br", {}, closing=False)]),
        ("a < b <3 c>d", ["a < b <3 c>d"]),
        ("<!doctype html><?xml x?></3>x<!-->y<!--[if mso]>no<![endif]-->z", ["xyz"]),
        (
            "<style>p > a { }</STYLE >x",
            [Tag("style", {}, closing=False), Tag("style", {}, closing=True), "x"],
        ),
        ("<script>if (a<b) '</p>'", [Tag("script", {}, closing=False)]),
    ],
)
def test_pages_are_read_as_browsers_read_them(html: str, expected: Seen) -> None:
    """Case, quotes, empty elements, comments of every kind, and what is no HTML inside HTML."""
    assert joined(list(pieces(html))) == expected


@pytest.mark.parametrize(
    "html",
    ["<p>kept <a href='", "<p>kept <a", "<p>kept<!-- ", "<p x='>kept<p>", "kept<!-- > -- > </", "<!-- >kept"],
)
def test_what_is_never_closed_costs_no_content(html: str) -> None:
    """Neither an open tag, nor a quote, nor a comment takes the rest of the page with it."""
    assert "kept" in "".join(piece for piece in pieces(html) if isinstance(piece, str))


def test_attributes_are_read_where_they_are_of_interest() -> None:
    """Reading them takes longer than the rest of a tag; where it ends doesn't depend on it."""
    html = "<td title='a > b'>x<a href='y > z'>"
    first, text, second = pieces(html, {"a"})
    assert (first, text) == (Tag("td", {}, closing=False), "x")
    assert second == Tag("a", {"href": "y > z"}, closing=False)
