"""What probes and scrapers call. Liveness never touches the store; readiness does."""

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from notifier.web import answers
from notifier.web.auth import Scope
from notifier.web.calls import Answer, Call
from notifier.web.problems import RETRY_AFTER, ProblemError, ProblemFault

if TYPE_CHECKING:
    from notifier.service import Notifier

READY_WITHIN = 5.0
"""Seconds that the checks of readiness may take; longer counts as not ready."""


class Health:
    """The calls of probes."""

    def __init__(self, notifier: "Notifier") -> None:
        self.notifier = notifier

    async def live(self, _request: web.Request) -> web.Response:
        """Answer that the event loop turns."""
        return answers.respond(answers.Health("alive"))

    async def ready(self, _request: web.Request) -> web.Response:
        """Answer whether events are taken and delivered; if not, why not."""
        problems = await self._problems()
        if problems:
            raise ProblemError(
                503,
                "It can't take or deliver events as it should.",
                kind="not-ready",
                errors=[ProblemFault(detail=problem) for problem in problems],
                headers={"Retry-After": RETRY_AFTER},
            )
        return answers.respond(answers.Health("ready"))

    async def _problems(self) -> list[str]:
        if self.notifier.draining:
            return ["draining: it stops, and takes no more events"]
        try:
            async with asyncio.timeout(READY_WITHIN):
                return await self.notifier.problems()
        except TimeoutError:
            return [f"the checks took longer than {READY_WITHIN:g} s"]

    async def metrics(self, _request: web.Request) -> web.Response:
        """Answer the metrics in Prometheus's text format."""
        body = generate_latest(self.notifier.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def calls(notifier: "Notifier") -> list[Call]:
    """Return the calls of this part of the API."""
    health = Health(notifier)
    return [
        Call(
            method="GET",
            path="/livez",
            name="live",
            summary="Say that the process lives",
            scope=Scope.OPEN,
            handler=health.live,
            answers={200: Answer("It lives.", answers.Health)},
        ),
        Call(
            method="GET",
            path="/readyz",
            name="ready",
            summary="Say whether events are taken and delivered",
            scope=Scope.OPEN,
            handler=health.ready,
            answers={200: Answer("It is ready.", answers.Health)},
            problems=(503,),
        ),
        Call(
            method="GET",
            path="/metrics",
            name="metrics",
            summary="Read the metrics (Prometheus)",
            scope=Scope.OPEN,
            handler=health.metrics,
            answers={200: Answer("The metrics.", None, "text/plain")},
        ),
    ]
