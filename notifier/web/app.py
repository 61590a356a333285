"""The web application: every call behind one gate, every error one shape."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.typedefs import Middleware

from notifier.web import admin, endpoints, events, health, openapi, suppressions, unsubscribe
from notifier.web.auth import Gate, Scope
from notifier.web.calls import Call, Handler
from notifier.web.problems import ProblemError, respond

if TYPE_CHECKING:
    from notifier.service import Notifier

_PROTOCOL = {
    # Nothing is inflated: a compressed body is refused by its header, whatever the coding.
    "auto_decompress": False,
    # A filter may hold a long destination, each of its letters written as %XX.
    "max_line_size": 64 * 1024,
}


def build_app(notifier: "Notifier") -> web.Application:
    """Build the application that serves a notifier, which its caller starts and stops."""
    public_url = notifier.config.server.public_url
    gate = Gate(notifier.config.auth, public_url)
    # A further part of the API has its `calls` here, and is then routed, guarded and documented.
    calls = [*events.calls(notifier), *admin.calls(notifier), *endpoints.calls(notifier)]
    calls += suppressions.calls(notifier)
    links = unsubscribe.calls(notifier)
    calls += [*links, *health.calls(notifier)]
    calls += openapi.calls(calls, keys_asked=gate.keys_asked)
    # Pages for people are a subapp that the caller adds; what has no scope here is admin's.
    scopes = {call.handler: call.scope for call in calls}
    app = web.Application(
        client_max_size=notifier.config.server.max_body,
        middlewares=[_door(gate, scopes)],
        handler_args=_PROTOCOL,
    )
    for call in (*calls, *unsubscribe.below_public_path(links, public_url)):
        _route(app, call)
    return app


def _door(gate: Gate, scopes: Mapping[Handler, Scope]) -> Middleware:
    """Make the one middleware: it lets a request in, and answers whatever goes wrong behind it."""

    @web.middleware
    async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            gate.admit(request, _scope(request, scopes))
            return await handler(request)
        except web.HTTPRedirection:
            raise
        except Exception as error:
            return respond(error, request)

    return door


def _scope(request: web.Request, scopes: Mapping[Handler, Scope]) -> Scope:
    """Say what a request needs: nothing where it leads nowhere, admin where nothing else is said."""
    if request.match_info.http_exception is not None:
        return Scope.OPEN
    return scopes.get(request.match_info.handler, Scope.ADMIN)


def _route(app: web.Application, call: Call) -> None:
    app.router.add_route(call.method, call.path, call.handler, expect_handler=_expect)
    if call.method == hdrs.METH_GET:
        app.router.add_route(hdrs.METH_HEAD, call.path, call.handler, expect_handler=_expect)


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Meet `Expect` (RFC 9110 §10.1.1), which aiohttp asks about before any middleware runs."""
    if request.version < HttpVersion11:
        return None
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        return respond(ProblemError(417, "Nothing but 100-continue can be expected."), request)
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
    return None
