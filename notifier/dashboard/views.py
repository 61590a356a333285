"""The Inbox: what `notifier dev` caught, as pages and as JSON.

Everything shown was written by someone else: pages are escaped, their policy lets only this server's own
style and script in, and a mail's HTML is shown in a frame that may run and load nothing at all.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from aiohttp import hdrs, web

from notifier.dashboard.defuse import defuse
from notifier.dashboard.mail import read_mail
from notifier.inbox import Caught, Hook, Inbox, Mail, Note
from notifier.model import rfc3339

PREFIX = "/dashboard"

_HERE = Path(__file__).parent
_PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_MAIL_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": under that, a browser hides the origin of the page's own forms too.
    "Referrer-Policy": "same-origin",
    "X-DNS-Prefetch-Control": "off",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_HEARTBEAT = 15.0
"""Seconds between signs of life on a stream, which also find out that its reader left."""


def build_dashboard(inbox: Inbox) -> web.Application:
    """Build the pages, to be mounted at `PREFIX` of an application that guards who may see them."""
    pages = InboxPages(inbox)
    app = web.Application()
    app.router.add_get("/inbox", pages.list)
    app.router.add_get("/inbox/rows", pages.rows)
    app.router.add_get("/inbox/stream", pages.stream)
    app.router.add_get("/inbox.json", pages.as_json)
    app.router.add_post("/inbox/clear", pages.clear)
    app.router.add_get(r"/inbox/{number:\d{1,9}}", pages.one)
    app.router.add_get(r"/inbox/{number:\d{1,9}}/html", pages.html)
    app.router.add_get(r"/inbox/{number:\d{1,9}}/raw", pages.raw)
    app.router.add_post(r"/inbox/{number:\d{1,9}}/delete", pages.delete)
    app.router.add_static("/static", _HERE / "static")
    app.on_response_prepare.append(_guard)
    app.on_shutdown.append(pages.end_streams)
    return app


class InboxPages:
    """The pages of one inbox."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._streams: set[asyncio.Future[None]] = set()
        self._html = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "html"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._html.filters["time"] = rfc3339

    async def list(self, _request: web.Request) -> web.Response:
        """Show what was caught, the newest first."""
        return self._page("inbox.html", caught=list(self._inbox))

    async def rows(self, _request: web.Request) -> web.Response:
        """Answer the list alone, for the page to put in place of its own."""
        return self._page("rows.html", caught=list(self._inbox))

    async def one(self, request: web.Request) -> web.Response:
        """Show one message."""
        caught = self._caught(request)
        message = caught.message
        if isinstance(message, Mail):
            return self._page("email.html", caught=caught, mail=read_mail(message.raw))
        if isinstance(message, Hook):
            return self._page("webhook.html", caught=caught, body=_pretty(message.body))
        return self._page("message.html", caught=caught, data=_pretty(message.data))

    async def html(self, request: web.Request) -> web.Response:
        """Answer a mail's HTML, defused, under a policy that lets it do nothing."""
        message = self._caught(request).message
        html = read_mail(message.raw).html if isinstance(message, Mail) else None
        if html is None:
            raise web.HTTPNotFound
        policy = {"Content-Security-Policy": _MAIL_POLICY}
        body = _encoded(defuse(html))
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=policy)

    async def raw(self, request: web.Request) -> web.Response:
        """Answer a message's bytes, as text."""
        message = self._caught(request).message
        body = message.raw if isinstance(message, Mail) else _source(message)
        return web.Response(body=body, content_type="text/plain", charset="utf-8")

    async def as_json(self, _request: web.Request) -> web.Response:
        """Answer everything as JSON, for scripts."""
        messages = [_as_json(caught) for caught in self._inbox]
        return web.Response(body=msgspec.json.encode({"messages": messages}), content_type="application/json")

    async def delete(self, request: web.Request) -> web.Response:
        """Forget one message."""
        _demand_same_origin(request)
        self._inbox.remove(int(request.match_info["number"]))
        raise web.HTTPSeeOther(f"{PREFIX}/inbox")

    async def clear(self, request: web.Request) -> web.Response:
        """Forget all messages."""
        _demand_same_origin(request)
        self._inbox.clear()
        raise web.HTTPSeeOther(f"{PREFIX}/inbox")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Tell a page each time that something changed (server-sent events)."""
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
        await response.prepare(request)
        telling = asyncio.ensure_future(self._tell(response))
        self._streams.add(telling)
        try:
            await asyncio.wait([telling])
        finally:
            self._streams.discard(telling)
            telling.cancel()
        return response

    async def end_streams(self, _app: web.Application) -> None:
        """End what would otherwise last as long as its reader likes."""
        for task in self._streams:
            task.cancel()

    async def _tell(self, response: web.StreamResponse) -> None:
        """Write an event now and at every change, until the reader is gone."""
        version = -1
        with contextlib.suppress(ConnectionResetError):
            while True:
                words = b": still here\n\n"
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_HEARTBEAT):
                        version = await self._inbox.changed(version)
                    words = b"data: %d\n\n" % version
                await response.write(words)

    def _caught(self, request: web.Request) -> Caught:
        caught = self._inbox.get(int(request.match_info["number"]))
        if caught is None:
            raise web.HTTPNotFound
        return caught

    def _page(self, name: str, **values: Any) -> web.Response:
        html = self._html.get_template(name).render(prefix=PREFIX, **values)
        return web.Response(body=_encoded(html), content_type="text/html", charset="utf-8")


async def _guard(_request: web.Request, response: web.StreamResponse) -> None:
    """Put the headers on that keep what is shown from doing anything."""
    response.headers.update(_HEADERS)
    response.headers.setdefault("Content-Security-Policy", _PAGE_POLICY)


def _demand_same_origin(request: web.Request) -> None:
    """Refuse a form that another site's page sent (Fetch Metadata; Origin where a browser lacks it)."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        allowed = site in {"same-origin", "none"}
    else:
        allowed = request.headers.get(hdrs.ORIGIN, str(request.url.origin())) == str(request.url.origin())
    if not allowed:
        raise web.HTTPForbidden


def _pretty(body: bytes) -> str:
    """Indent JSON, its numbers and names exactly as they came; what is no JSON is shown as it is."""
    with contextlib.suppress(msgspec.DecodeError):
        body = msgspec.json.format(body, indent=2)
    return body.decode("utf-8", "replace")


def _source(message: Hook | Note) -> bytes:
    if isinstance(message, Note):
        return message.data
    lines = [f"{message.method} {message.url}", *(f"{name}: {value}" for name, value in message.headers)]
    return _encoded("\n".join(lines)) + b"\n\n" + message.body


def _as_json(caught: Caught) -> dict[str, Any]:
    head = {"number": caught.number, "received_at": rfc3339(caught.at)}
    match caught.message:
        case Mail() as mail:
            return head | _mail_as_json(mail)
        case Hook() as hook:
            return head | _hook_as_json(hook)
        case Note() as note:
            return head | _note_as_json(note)


def _mail_as_json(mail: Mail) -> dict[str, Any]:
    read = read_mail(mail.raw)
    return {
        "kind": "email",
        "from": _clean(mail.sender),
        "to": [_clean(recipient) for recipient in mail.recipients],
        "subject": _clean(read.subject),
        "html": _clean(read.html),
        "text": _clean(read.text),
        "headers": [[_clean(name), _clean(value)] for name, value in read.headers],
        "raw": mail.raw.decode("utf-8", "replace"),
    }


def _hook_as_json(hook: Hook) -> dict[str, Any]:
    return {
        "kind": "webhook",
        "method": hook.method,
        "url": hook.url,
        "headers": [[_clean(name), _clean(value)] for name, value in hook.headers],
        "body": hook.body.decode("utf-8", "replace"),
        "signature": {"verified": hook.problem is None, "problem": hook.problem},
    }


def _note_as_json(note: Note) -> dict[str, Any]:
    return {
        "kind": "message",
        "channel": note.channel,
        "destination": note.destination,
        "job_id": note.job_id,
        "event_type": note.event_type,
        "content": note.content,
        "data": msgspec.Raw(note.data),
    }


def _encoded(text: str) -> bytes:
    """UTF-8, whatever stands in the text: headers may hold bytes that are none."""
    return text.encode("utf-8", "replace")


def _clean(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "replace").decode()
