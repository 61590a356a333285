"""HTML to the text that stands beside it in a mail, for templates that bring none of their own."""

import re
from collections.abc import Callable

from notifier.channels.markup import Tag, pieces

_DROPPED = frozenset({"head", "script", "style", "template", "title"})
# Each starts a line of its own; a paragraph also keeps a blank line around it.
_BLOCKS = frozenset(
    {"address", "article", "aside", "center", "dd", "div", "dl", "dt", "fieldset", "figcaption", "footer"}
    | {"form", "header", "main", "nav", "section", "tbody", "tfoot", "thead", "tr"}
)
_PARAGRAPHS = frozenset({"blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul"})
_APART = _BLOCKS | _PARAGRAPHS
_MAY_BE_HIDDEN = frozenset({"div", "span", "table"})
"""Only tags that have to be closed count as hidden."""
_OF_INTEREST = _MAY_BE_HIDDEN | {"a", "img", "ol"}
"""The tags whose attributes count."""
_UNDERLINES = {"h1": "=", "h2": "-"}
_RULE = "-" * 40
_QUOTE = "> "
_LONGEST_UNDERLINE = 78
_DEEPEST = 12
"""How many lists and quotations within one another are indented."""

LONGEST = 256 * 1024
"""Characters of HTML that are read: far more than anyone does."""

_SPACE = re.compile(r"[ \t\r\n\f\xa0]+")
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
# What mails pad their preheaders with.
_INVISIBLE = dict.fromkeys(map(ord, "\xad\u034f\u200b\ufeff"))


def text_from_html(html: str) -> str:
    """Turn HTML into readable text that ends with a line end.

    Links become `text (url)`, lists have bullets or numbers, table rows become lines with their cells
    apart, headings stand alone; scripts, styles and what is hidden are dropped. Bad HTML costs layout,
    never content, and no more time than other HTML.
    """
    reader = _Reader()
    for piece in pieces(html[:LONGEST], _OF_INTEREST):
        reader.read(piece)
    return reader.page.text()


class _Page:
    """Lines being written: margins at their left, at most one blank line between them."""

    def __init__(self) -> None:
        self.margins: list[str] = []
        self._lines: list[str] = []
        self._line: list[str] = []
        self._inked = False
        """Whether anything can be seen on the line."""
        self._lead: str | None = None
        """The margin of the next line alone, where a bullet hangs in it."""
        self._gap: str | None = None
        """The blank line that is due before the next text, with the margin that it has."""
        self._cell_due = False

    def text(self) -> str:
        self.end_line()
        return "\n".join(self._lines).strip("\n") + "\n"

    def write(self, text: str) -> None:
        """Go on with the line; space at its start, and a second one, is dropped."""
        if not self._line or self._line[-1].endswith(" "):
            text = text.removeprefix(" ")
        if self._cell_due and text.strip():
            self._part_cells()
            text = text.lstrip()
        self.write_as_is(text)

    def write_as_is(self, text: str) -> None:
        """Go on with the line, every space kept."""
        if text:
            self._line.append(text)
            self._inked = self._inked or not text.isspace()

    def _part_cells(self) -> None:
        while self._line[-1].isspace():
            self._line.pop()
        self._line[-1] = self._line[-1].rstrip()
        self._line.append(" | ")
        self._cell_due = False

    def end_line(self) -> None:
        """End the line, if anything stands on it."""
        if self._inked:
            self.break_line()
        self._line.clear()
        self._inked = self._cell_due = False

    def break_line(self) -> None:
        """End the line, even an empty one."""
        if self._gap is not None and self._lines:
            self._lines.append(self._gap)
        self._gap = None
        self._lines.append((self._margin() + "".join(self._line)).rstrip())
        self._line.clear()
        self._inked = self._cell_due = False

    def end_paragraph(self) -> None:
        """End the line, and keep the next one apart."""
        self.end_line()
        margin = "".join(self.margins).rstrip()
        self._gap = margin if self._gap is None else min(self._gap, margin, key=len)

    def end_cell(self) -> None:
        """Keep apart what follows on the same line, if anything does."""
        self._cell_due = self._inked

    def indent(self, margin: str) -> None:
        """Begin every line with this; where there is no more room, go on without."""
        if len(self.margins) < _DEEPEST:
            self.margins.append(margin)

    def hang(self, bullet: str) -> None:
        """Indent by a bullet, which stands before the next line alone."""
        self._lead = "".join(self.margins) + bullet
        self.indent(" " * len(bullet))

    def dedent(self, depth: int) -> None:
        """Go back to so many margins; a bullet that nothing came to stand at is gone."""
        del self.margins[depth:]
        self._lead = None

    def underline(self, mark: str) -> None:
        """Draw a line below the last one."""
        self.end_line()
        width = len(self._lines[-1]) - len("".join(self.margins)) if self._lines else 0
        self.write(mark * min(width, _LONGEST_UNDERLINE))
        self.end_line()

    def _margin(self) -> str:
        if self._lead is None:
            return "".join(self.margins)
        lead, self._lead = self._lead, None
        return lead


class _Reader:
    """Writes a page as tags go by; keeps no tree."""

    def __init__(self) -> None:
        self.page = _Page()
        self._dropping: list[str] = []
        self._lists: list[tuple[int | None, int]] = []
        """Of each open list: the next number, and how many margins it stands in."""
        self._quotes: list[int] = []
        self._link: tuple[str, list[str]] | None = None
        """Where the open link leads, and what it shows."""
        self._preformatted = 0

    def read(self, piece: Tag | str) -> None:
        """Go on with a tag or some text."""
        if isinstance(piece, str):
            self._read_text(piece)
        elif piece.closing:
            self._close(piece.name)
        else:
            self._open(piece.name, piece.attributes)

    def _open(self, tag: str, attributes: dict[str, str]) -> None:
        if self._dropping == ["head"] and tag == "body":
            self._dropping.clear()
        if self._dropping:
            if tag == self._dropping[-1]:
                self._dropping.append(tag)
        elif _is_dropped(tag, attributes):
            self._dropping.append(tag)
        else:
            self._space(tag)
            _OPENERS.get(tag, _nothing)(self, attributes)

    def _close(self, tag: str) -> None:
        if self._dropping:
            if tag == self._dropping[-1]:
                self._dropping.pop()
            return
        if closer := _CLOSERS.get(tag):
            closer(self)
        self._space(tag)

    def _read_text(self, text: str) -> None:
        if self._dropping:
            return
        if not text.isascii():
            text = text.translate(_INVISIBLE)
        if self._preformatted:
            self._write_preformatted(text)
        else:
            self.write(text)

    def write(self, text: str) -> None:
        """Go on with some text, its space as HTML has it."""
        text = _SPACE.sub(" ", text)
        if self._link is not None:
            self._link[1].append(text)
        self.page.write(text)

    def _space(self, tag: str) -> None:
        if tag not in _APART:
            return
        nested = tag in {"ul", "ol"} and bool(self._lists)
        if tag in _PARAGRAPHS and not nested:
            self.page.end_paragraph()
        else:
            self.page.end_line()

    def _write_preformatted(self, text: str) -> None:
        if self._link is not None:
            self._link[1].append(text)
        first, *more = text.replace("\r\n", "\n").split("\n")
        self.page.write_as_is(first)
        for line in more:
            self.page.break_line()
            self.page.write_as_is(line)

    def count_preformatted(self, step: int) -> None:
        """Keep every space from here on, or no more."""
        self._preformatted = max(0, self._preformatted + step)

    def rule(self) -> None:
        """Draw a line by itself."""
        self.page.end_paragraph()
        self.page.write(_RULE)
        self.page.end_paragraph()

    def open_link(self, attributes: dict[str, str]) -> None:
        """Begin a link."""
        self.close_link()  # as HTML has it: a link never stands in another
        self._link = attributes.get("href", "").strip(), []

    def close_link(self) -> None:
        """End the link, with where it leads if it doesn't show that."""
        if self._link is None:
            return
        url, written = self._link
        self._link = None
        shown = _SPACE.sub(" ", "".join(written)).strip()
        if not url or url.lower().startswith(("#", "javascript:")):
            return
        url = url.removeprefix("mailto:")
        if url.rstrip("/") != shown.rstrip("/"):
            self.page.write(f" ({url})" if shown else url)

    def open_list(self, first: int | None) -> None:
        """Begin a list, numbered from `first` or with bullets."""
        self._lists.append((first, len(self.page.margins)))

    def close_list(self) -> None:
        """End the list."""
        self.close_item()
        if self._lists:
            self._lists.pop()

    def open_item(self) -> None:
        """Begin an item."""
        self.close_item()
        if not self._lists:
            self.open_list(None)
        number, depth = self._lists[-1]
        if number is not None:
            self._lists[-1] = (number + 1, depth)
        self.page.hang("- " if number is None else f"{number}. ")

    def close_item(self) -> None:
        """End the item."""
        self.page.end_line()
        if self._lists:
            self.page.dedent(self._lists[-1][1])

    def open_quote(self) -> None:
        """Begin a quotation."""
        self._quotes.append(len(self.page.margins))
        self.page.indent(_QUOTE)

    def close_quote(self) -> None:
        """End the quotation."""
        self.page.end_line()
        if self._quotes:
            self.page.dedent(self._quotes.pop())


def _is_dropped(tag: str, attributes: dict[str, str]) -> bool:
    """Whether the element is not for reading."""
    if tag not in _MAY_BE_HIDDEN or not attributes:
        return tag in _DROPPED
    return "hidden" in attributes or _HIDDEN.search(attributes.get("style", "")) is not None


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 1


def _nothing(_reader: _Reader, _attributes: dict[str, str]) -> None:
    pass


# Not the reader's own: with methods bound to it, each page would be left to the garbage collector.
_OPENERS: dict[str, Callable[[_Reader, dict[str, str]], None]] = {
    "a": _Reader.open_link,
    "blockquote": lambda reader, _: reader.open_quote(),
    "br": lambda reader, _: reader.page.break_line(),
    "hr": lambda reader, _: reader.rule(),
    "img": lambda reader, attributes: reader.write(attributes.get("alt", "")),
    "li": lambda reader, _: reader.open_item(),
    "ol": lambda reader, attributes: reader.open_list(_number(attributes.get("start", ""))),
    "pre": lambda reader, _: reader.count_preformatted(1),
    "ul": lambda reader, _: reader.open_list(None),
}
_CLOSERS: dict[str, Callable[[_Reader], None]] = {
    "a": _Reader.close_link,
    "blockquote": _Reader.close_quote,
    "h1": lambda reader: reader.page.underline(_UNDERLINES["h1"]),
    "h2": lambda reader: reader.page.underline(_UNDERLINES["h2"]),
    "li": _Reader.close_item,
    "ol": _Reader.close_list,
    "pre": lambda reader: reader.count_preformatted(-1),
    "td": lambda reader: reader.page.end_cell(),
    "th": lambda reader: reader.page.end_cell(),
    "ul": _Reader.close_list,
}
