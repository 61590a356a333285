"""The page behind the link of a mail, and the one click of RFC 8058: for recipients and their mail servers.

Nothing is asked of whoever comes but the link itself, which is signed. To read it changes nothing; to post
to it unsubscribes, and does nothing else.
"""

import base64
import hashlib
from email.utils import parseaddr
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import jinja2
import structlog
from aiohttp import web
from markupsafe import Markup
from msgspec import Struct, structs

from notifier.errors import StoreError
from notifier.unsubscribing import PATH, Unsubscription
from notifier.web.auth import Scope
from notifier.web.calls import Answer, Call
from notifier.web.problems import RETRY_AFTER

if TYPE_CHECKING:
    from notifier.service import Notifier

_HTML = Path(__file__).parent / "html"
_STYLE = (_HTML / "unsubscribe.css").read_text("utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    # The link is a right to act: no one else is told of it.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}
_TITLES = {
    "ask": "Unsubscribe?",
    "done": "You are unsubscribed",
    "nothing": "You are unsubscribed from everything",
    "unknown": "This link doesn’t work",
    "later": "That didn’t work just now",
}
_FORM = "application/x-www-form-urlencoded"
_EVERYTHING = b"from=everything"

_log = structlog.get_logger(__name__)


class UnsubscribeForm(Struct, frozen=True, rename={"from_": "from", "list_unsubscribe": "List-Unsubscribe"}):
    """What is posted: a mail server's one click, or a button of the page."""

    list_unsubscribe: Literal["One-Click"] = "One-Click"
    from_: Literal["category", "everything"] = "category"


class UnsubscribePages:
    """The page of one notifier."""

    def __init__(self, notifier: "Notifier") -> None:
        self._notifier = notifier
        name, address = parseaddr(notifier.config.channels.email.from_)
        self._sender = name or address
        self._page = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HTML),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
        ).get_template("unsubscribe.html")

    async def show(self, request: web.Request) -> web.Response:
        """Show what the link would unsubscribe from, and the buttons that do it."""
        wanted = self._notifier.unsubscribing.read(request.match_info["token"])
        if wanted is None:
            return self._answer("unknown", status=404)
        try:
            found = await self._notifier.suppressions.covering(wanted)
        except StoreError:
            return self._try_again()
        if found is None:
            return self._answer("ask", wanted)
        return self._answer("nothing" if found.category is None else "done", wanted)

    async def unsubscribe(self, request: web.Request) -> web.Response:
        """Unsubscribe: of the category, or of everything where the page's second button says so.

        Whatever else is posted is taken for the one click: not to be heard is worse than to be heard early.
        """
        wanted = self._notifier.unsubscribing.read(request.match_info["token"])
        if wanted is None:
            return self._answer("unknown", status=404)
        body = await request.read() if request.content_type == _FORM else b""
        everything = _EVERYTHING in body.split(b"&")
        detail = "on the page" if b"from=" in body else "one click"
        try:
            await self._notifier.suppressions.unsubscribe(wanted, everything=everything, detail=detail)
        except StoreError:
            return self._try_again()
        _log.info(
            "a recipient unsubscribed", job=wanted.job_id, category=wanted.category, everything=everything
        )
        return self._answer("nothing" if everything else "done", wanted)

    def _try_again(self) -> web.Response:
        answer = self._answer("later", status=503)
        answer.headers["Retry-After"] = RETRY_AFTER
        return answer

    def _answer(self, state: str, wanted: Unsubscription | None = None, *, status: int = 200) -> web.Response:
        text = self._page.render(
            state=state,
            title=_TITLES[state],
            style=Markup(_STYLE),  # noqa: S704 - a file of ours
            sender=self._sender,
            recipient="" if wanted is None else wanted.recipient,
            kind="" if wanted is None else wanted.category.replace("-", " ").replace("_", " "),
        )
        return web.Response(
            status=status, text=text, content_type="text/html", charset="utf-8", headers=_HEADERS
        )


def calls(notifier: "Notifier") -> list[Call]:
    """Return the calls of this part of the API."""
    pages = UnsubscribePages(notifier)
    page = {
        200: Answer("The page.", None, "text/html"),
        404: Answer("A page that says that the link is none of ours.", None, "text/html"),
        503: Answer("A page that asks to try again.", None, "text/html"),
    }
    return [
        Call(
            method="GET",
            path=PATH + "{token}",
            name="showUnsubscribe",
            summary="Show a recipient what a mail's link unsubscribes from; changes nothing",
            scope=Scope.LINK,
            handler=pages.show,
            answers=page,
        ),
        Call(
            method="POST",
            path=PATH + "{token}",
            name="unsubscribe",
            summary="Unsubscribe by a mail's link: one click (RFC 8058), or a button of the page",
            scope=Scope.LINK,
            handler=pages.unsubscribe,
            body={_FORM: UnsubscribeForm, "multipart/form-data": UnsubscribeForm},
            body_required=False,
            answers=page,
            problems=(413,),
        ),
    ]


def below_public_path(calls: list[Call], public_url: str | None) -> list[Call]:
    """Return the calls once more below the public url's path, for a proxy that passes it on whole."""
    path = "" if public_url is None else urlsplit(public_url).path.rstrip("/")
    return [structs.replace(call, path=path + call.path) for call in calls] if path else []
