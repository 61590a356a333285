"""A real notifier behind its real HTTP API on loopback, its channels scripted by the test."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from support.served import Served

from notifier import channels
from notifier.channels import Channel, ChannelContext, FunctionChannel, Message, Receipt
from notifier.config import (
    Auth,
    Channels,
    Config,
    Retry,
    Route,
    Server,
    Size,
    StoreSection,
    WebhookSection,
    Workers,
)
from notifier.errors import DeliveryError
from notifier.service import Notifier, Overrides
from notifier.store.base import Settlement
from notifier.web.app import build_app

KEYS = Auth(ingest_keys=("ingest-key",), admin_keys=("admin-key",))
ROUTES = (
    Route(name="erp", event="order.*", channel="webhook", url="https://erp.example.com/hooks"),
    Route(name="welcome", event="user.signup", channel="email", to="{{ data.email }}", template="welcome"),
)


class Script:
    """What the channels do: deliver, unless the destination is given an error or a gate to wait at."""

    def __init__(self) -> None:
        self.errors: dict[str, DeliveryError] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.delivered: list[Message] = []

    async def deliver(self, message: Message) -> Receipt:
        """Do as the destination's script says."""
        await self.begun.put(message.id)
        if gate := self.gates.get(message.destination):
            await gate.wait()
        if error := self.errors.get(message.destination):
            raise error
        self.delivered.append(message)
        return Receipt(status_code=200, response="thanks")

    def channels(self, _context: Callable[[str], ChannelContext]) -> dict[str, Channel]:
        """The two built-in names, both played by this script."""
        return {name: FunctionChannel(name, self.deliver, 60) for name in ("webhook", "email")}


class Api:
    """One served notifier, and what a test asks of it."""

    def __init__(self, notifier: Notifier, script: Script, client: "TestClient[Any, Any]") -> None:
        self.notifier = notifier
        self.script = script
        self.client = client
        self._settled: asyncio.Queue[Settlement] = asyncio.Queue()
        self._settle, notifier.store.settle = notifier.store.settle, self._signal  # type: ignore[method-assign]  # to wait for

    def _signal(self, settlement: Settlement) -> asyncio.Future[bool]:
        done = self._settle(settlement)
        done.add_done_callback(lambda _: self._settled.put_nowait(settlement))
        return done

    async def settled(self, count: int = 1) -> None:
        """Wait until so many more outcomes are written down."""
        for _ in range(count):
            await self._settled.get()

    async def call(self, method: str, path: str, *, key: str | None = None, **kwargs: Any) -> tuple[int, Any]:
        """Make a call; return its status and its JSON."""
        answer = await self.answer(method, path, key=key, **kwargs)
        return answer.status, await answer.json(content_type=None)

    async def answer(
        self, method: str, path: str, *, key: str | None = None, **kwargs: Any
    ) -> ClientResponse:
        """Make a call; return its answer, read."""
        headers = dict(kwargs.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        answer = await self.client.request(method, path, headers=headers, **kwargs)
        await answer.read()
        return answer

    async def post(self, body: Any, **headers: str) -> tuple[int, Any]:
        """Post events as JSON."""
        named = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.call("POST", "/v1/events", data=text, headers=named)

    async def stored(self) -> tuple[float | None, int]:
        """How many events were ever accepted, and how many jobs there are."""
        accepted = self.notifier.metrics.registry.get_sample_value("notifier_events_accepted_total")
        return accepted, sum((await self.notifier.store.counts()).values())


@asynccontextmanager
async def serving(
    directory: Path,
    *,
    auth: Auth | None = None,
    max_body: int = 1024**2,
    webhooks_to: str | None = None,
    public_url: str | None = None,
    routes: tuple[Route, ...] = ROUTES,
    embedded: bool = False,
) -> AsyncIterator[Api]:
    """Serve a notifier that keeps its store and templates in `directory`, reached by others at `public_url`.

    Its channels are scripted, unless real webhooks are let out to the network `webhooks_to`. It is served
    as the program does, or by aiohttp alone, as one that is embedded.
    """
    template = directory / "templates" / "welcome"
    template.mkdir(parents=True, exist_ok=True)
    (template / "subject.txt").write_text("Welcome, {{ data.name }}")
    (template / "body.html").write_text("<p>Hello {{ data.name }}</p>")
    config = Config(
        server=Server(max_body=Size(max_body), public_url=public_url),
        auth=auth or Auth(),
        store=StoreSection(url="sqlite:///notifier.db"),
        workers=Workers(concurrency=4),
        retry=Retry(schedule=()),
        routes=routes,
        channels=Channels(webhook=WebhookSection(allow_networks=(webhooks_to,) if webhooks_to else ())),
        directory=directory,
    )
    script = Script()
    overrides = Overrides(channels=channels.build if webhooks_to else script.channels)
    async with Notifier(config, overrides) as notifier:
        app = build_app(notifier)
        async with TestClient(TestServer(app) if embedded else Served(notifier, app)) as client:
            yield Api(notifier, script, client)
        for gate in script.gates.values():
            gate.set()
