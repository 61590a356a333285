"""Style sheets in a mail's HTML become `style` attributes, which every mail client heeds."""

import re
from functools import cache

from css_inline import CSSInliner

from notifier.errors import TemplateError

MOST_TAGS = 2500
"""A page of more keeps its style sheets. The inliner's stack grows with the nesting and takes the process
down at its end, at about 8,000; its time can grow with the square. Gmail shows less than this of a mail."""

_SHEET = re.compile(r"<style[\s>/]", re.IGNORECASE)
_TAG = re.compile(r"<[a-zA-Z]")


def inlined(html: str, template: str) -> str:
    """Move what style sheets say onto the elements it is about.

    What can't stand there (`@media`, `:hover`) stays in the sheet. Nothing is read or fetched: sheets that
    are linked to are dropped. Raises TemplateError naming `template`.
    """
    if not _SHEET.search(html) or sum(1 for _ in _TAG.finditer(html)) > MOST_TAGS:
        return html
    try:
        return _inliner().inline(html)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        raise TemplateError(f"its style sheets can't be inlined: {error}", template=template) from error


@cache
def _inliner() -> CSSInliner:
    return CSSInliner(load_remote_stylesheets=False, keep_style_tags=True, remove_inlined_selectors=True)
