"""HTML as its tags and text go by, in time that grows with its length alone, whatever it holds.

The standard library's parser looks for what is never closed over and over: a hundred kilobytes take minutes.
"""

import re
from collections.abc import Collection, Iterator
from html import unescape
from typing import NamedTuple

_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
_MARK = re.compile(r"[\"'>]")
_ATTRIBUTE = re.compile(r"([^\s/>=]+)(?:\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s>]*))?")
_ASIDE = re.compile(r"<[!?]|</[^a-zA-Z]")
_RAW = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style", "title")}
# Python refuses to read numbers of thousands of digits; Unicode ends far below.
_HUGE_REFERENCE = re.compile(r"&#(?:\d{9,}|[xX][0-9a-fA-F]{9,});?", re.ASCII)


class Tag(NamedTuple):
    """An opening or a closing tag; names are in lower case."""

    name: str
    attributes: dict[str, str]
    closing: bool


def pieces(html: str, attributes_of: Collection[str] | None = None) -> Iterator[Tag | str]:
    """Take HTML apart into its tags and its text, comments and the like left out.

    With `attributes_of`, attributes are read of the tags with these names alone, and all others have none.

    What browsers forgive is forgiven. What is never closed costs no content: a tag without an end is text,
    a comment without one ends as a tag does, and so does a quoted value.
    """
    return _Scan(html, attributes_of).pieces()


class _Scan:
    """One way through a page. What was looked for in vain once is not looked for again."""

    def __init__(self, html: str, attributes_of: Collection[str] | None) -> None:
        self._html = html
        self._attributes_of = attributes_of
        self._at = 0
        self._last_end = html.rfind(">")
        self._last_comment_end = html.rfind("-->")
        self._quotes_count = True

    def pieces(self) -> Iterator[Tag | str]:
        """All of it, from here on."""
        while True:
            start = self._html.find("<", self._at)
            if start < 0 or start > self._last_end:
                break
            if start > self._at:
                yield _unescaped(self._html[self._at : start])
            if marked := self._marked(start):
                yield marked
        if rest := self._html[self._at :]:
            yield _unescaped(rest)

    def _marked(self, start: int) -> Tag | str | None:
        """What begins with `<`: a tag, something left out, or that character itself."""
        if found := _TAG.match(self._html, start):
            return self._tag(found)
        if _ASIDE.match(self._html, start):
            self._at = self._aside_end(start)
            return None
        self._at = start + 1
        return "<"

    def _tag(self, found: re.Match[str]) -> Tag:
        begin, name, closing = found.end(), found[2].lower(), bool(found[1])
        attributes = {}
        if self._html[begin] == ">":  # as nearly all are
            self._at = begin + 1
        else:
            self._at = self._tag_end(begin)
            if self._attributes_of is None or name in self._attributes_of:
                attributes = _attributes(self._html[begin : self._at - 1])
        if name in _RAW and not closing:
            self._skip_raw(name)
        return Tag(name, attributes, closing)

    def _tag_end(self, at: int) -> int:
        """Where a tag ends: after the first `>` that no quotes are around."""
        begin = at
        while self._quotes_count:
            found = _MARK.search(self._html, at)
            if found is not None and found[0] == ">":
                return found.end()
            closed = self._html.find(found[0], found.end()) if found else -1
            self._quotes_count = 0 <= closed < self._last_end
            at = closed + 1
        return self._html.index(">", begin) + 1

    def _aside_end(self, start: int) -> int:
        if self._html.startswith("<!--", start) and start + 2 <= self._last_comment_end:
            return self._html.index("-->", start + 2) + 3
        return self._html.index(">", start) + 1

    def _skip_raw(self, name: str) -> None:
        """Leave out what a browser would not read as HTML, up to where it ends."""
        found = _RAW[name].search(self._html, self._at)
        self._at = found.start() if found else len(self._html)


def _attributes(text: str) -> dict[str, str]:
    return {name.lower(): _unescaped(_unquoted(value)) for name, value in _ATTRIBUTE.findall(text)}


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] in "\"'" and value[-1] == value[0]
    return value[1:-1] if quoted else value


def _unescaped(text: str) -> str:
    return unescape(_HUGE_REFERENCE.sub("\ufffd", text)) if "&" in text else text
