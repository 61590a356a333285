"""Makes a mail's HTML safe to look at, where a policy and a sandbox alone are not enough.

They let nothing run, and no request out; yet a browser still connects ahead of some requests before it
finds that they are forbidden: for hints, for frames, and for links that lead the frame itself elsewhere.
"""

import re

_CONNECTING = re.compile(
    r"<(?=(?:link|meta|base|iframe|frame|frameset|object|embed|portal|fencedframe)[\s/>])", re.IGNORECASE
)
_DOCTYPE = re.compile(r"\s*<!doctype[^>]*>", re.IGNORECASE)
_LINKS_OPEN_POPUPS = '<base target="_blank">'
"""A popup is what the sandbox forbids before anything is connected to."""


def defuse(html: str) -> str:
    """Rename the tags that make a browser connect, and have links do what the sandbox forbids.

    A tag's name directly follows its `<` (WHATWG HTML §13.2.5.6), so no spelling of one gets by. What is
    replaced in a comment or a text by mistake is only seen by those who look for it.
    """
    html = _CONNECTING.sub("<x-", html)
    doctype = _DOCTYPE.match(html)
    start = doctype.end() if doctype else 0
    return html[:start] + _LINKS_OPEN_POPUPS + html[start:]
