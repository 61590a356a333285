"""The catcher behind `notifier dev`: every delivery goes to this machine's own inbox, whatever is configured.

A real SMTP server and a real HTTP server take what the real channels send, so that what is seen is what
a recipient would get.
"""

import asyncio
import os
import re
import tomllib
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from weakref import WeakSet

import msgspec
from aiohttp import hdrs, web
from aiosmtpd.smtp import SMTP, Envelope, Session

from notifier import channels
from notifier.channels import Channel, ChannelContext, Message
from notifier.channels.capture import CaptureChannel
from notifier.channels.http1 import CatcherTransport
from notifier.channels.signing import SECRET_PREFIX, SignatureError, verify
from notifier.channels.transport import Transport
from notifier.channels.webhook import WebhookChannel
from notifier.config import Auth, Config, Relay, Server, StoreSection
from notifier.dashboard.mail import read_mail
from notifier.inbox import Hook, Inbox, Mail
from notifier.store import file_url

LOOPBACK = "127.0.0.1"
MAX_MESSAGE = 32 * 1024**2
"""Bytes of one message that the catchers take."""

_REMEMBERED = 10_000
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_UNSET = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Catcher:
    """A mail server and a webhook receiver on loopback that put all they get into an inbox."""

    def __init__(self, inbox: Inbox, clock: Callable[[], float]) -> None:
        self.inbox = inbox
        self.smtp_port = self.webhook_port = 0
        self._clock = clock
        self._secrets: OrderedDict[str, Sequence[str]] = OrderedDict()
        self._smtp: asyncio.Server | None = None
        self._sessions: WeakSet[SMTP] = WeakSet()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen, on free ports."""
        loop = asyncio.get_running_loop()
        self._smtp = await loop.create_server(self._session, LOOPBACK, 0)
        self.smtp_port = self._smtp.sockets[0].getsockname()[1]
        app = web.Application(client_max_size=MAX_MESSAGE)
        app.router.add_route("*", "/{path:.*}", self._catch_hook)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, 0).start()
        self._runner = runner
        self.webhook_port = runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening, and drop whoever is still connected."""
        if self._smtp is not None:
            self._smtp.close()
            for session in self._sessions:
                if session.transport is not None:
                    session.transport.close()
            await self._smtp.wait_closed()
        if self._runner is not None:
            await self._runner.cleanup()

    def channels(self, context: Callable[[str], ChannelContext]) -> dict[str, Channel]:
        """Build every channel so that what it delivers is caught here (an `Overrides.channels`)."""
        built = channels.build(context)
        for name, original in built.items():
            if name == "webhook":
                built[name] = self._caught_webhooks(context(name))
            elif name != "email":  # whose relay is this catcher, by `caught`
                built[name] = CaptureChannel(name, original, self.inbox, self._clock)
        return built

    def _caught_webhooks(self, context: ChannelContext) -> Channel:
        return _CaughtWebhooks(context, CatcherTransport((LOOPBACK, self.webhook_port)), self._remember)

    def _remember(self, message_id: str, secrets: Sequence[str]) -> None:
        self._secrets[message_id] = secrets
        if len(self._secrets) > _REMEMBERED:
            self._secrets.popitem(last=False)

    def _session(self) -> SMTP:
        # With the host's name left to itself, aiosmtpd would look it up, and off this machine.
        session = SMTP(
            self,
            hostname="localhost",
            ident="Notifier",
            enable_SMTPUTF8=True,
            data_size_limit=MAX_MESSAGE,
            loop=asyncio.get_running_loop(),
        )
        self._sessions.add(session)
        return session

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Take a mail in (aiosmtpd calls this)."""
        raw = envelope.original_content or b""
        mail = Mail(
            sender=envelope.mail_from or "<>",
            recipients=tuple(envelope.rcpt_tos),
            raw=raw,
            subject=read_mail(raw).subject,
        )
        self.inbox.add(mail, self._clock())
        return "250 2.0.0 Caught"

    async def _catch_hook(self, request: web.Request) -> web.Response:
        aimed = original_url(request.raw_path)
        if aimed is None:
            return web.Response(status=404, text="This catches what `notifier dev` delivers.\n")
        body = await request.read()
        host = aimed.split("/")[2]
        headers = [(name, host if name == hdrs.HOST else value) for name, value in request.headers.items()]
        hook = Hook(
            method=request.method,
            url=aimed,
            headers=tuple(headers),
            body=body,
            problem=self._signature_problem(request.headers, body),
        )
        self.inbox.add(hook, self._clock())
        return web.Response(status=204)

    def _signature_problem(self, headers: Mapping[str, str], body: bytes) -> str | None:
        secrets = self._secrets.get(headers.get("webhook-id", ""))
        if not secrets:
            return "webhook-id names no job of this notifier"
        try:
            for secret in secrets:  # while one is rotated, a receiver may know any of them
                verify(headers, body, secret, self._clock())
        except (SignatureError, ValueError) as error:
            return str(error)
        return None


class _CaughtWebhooks(WebhookChannel):
    """The webhook channel, which tells what signs each message so that the catcher can verify it."""

    def __init__(
        self, context: ChannelContext, transport: Transport, told: Callable[[str, Sequence[str]], None]
    ) -> None:
        super().__init__(context, transport=transport)
        self._told = told

    def secrets_of(self, message: Message) -> Sequence[str]:
        """See `WebhookChannel.secrets_of`."""
        secrets = super().secrets_of(message)
        self._told(message.id, secrets)
        return secrets


def original_url(path: str) -> str | None:
    """Tell which url was meant by a path that CatcherTransport made; None if it made none such.

    `/https/example.com:443/hooks?x=1` is `https://example.com/hooks?x=1`.
    """
    parts = path.split("/", 3)
    if len(parts) < 4 or parts[1] not in _DEFAULT_PORTS or not parts[2]:  # noqa: PLR2004 - "", scheme, host, rest
        return None
    _, scheme, authority, rest = parts
    return f"{scheme}://{authority.removesuffix(_DEFAULT_PORTS[scheme])}/{rest}"


def caught(config: Config, catcher: Catcher, directory: Path, port: int | None) -> Config:
    """Change a configuration so that it stays on loopback, keeps nothing, needs no key, mails the catcher."""
    relay = Relay(host=LOOPBACK, port=catcher.smtp_port, tls="none")
    # Nobody verifies a signature in the inbox, and the key is where the server is.
    email = msgspec.structs.replace(config.channels.email, relays=(relay,), dkim=None)
    server = Server(
        host=LOOPBACK,
        port=config.server.port if port is None else port,
        max_body=config.server.max_body,
    )
    return msgspec.structs.replace(
        config,
        server=server,
        auth=Auth(),
        store=StoreSection(url=file_url(directory / "dev.db")),
        channels=msgspec.structs.replace(config.channels, email=email),
    )


def stand_ins(text: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Make up the environment variables that a configuration asks for and nobody set.

    Each gets a webhook secret, which is as good a password or key as any where nothing is ever reached.
    """
    with suppress(tomllib.TOMLDecodeError):
        names = _names(tomllib.loads(text))
        return {name: _made_up(name) for name in sorted(names) if name not in environ}
    return {}


def _names(value: Any) -> set[str]:
    if isinstance(value, str):
        return set(_UNSET.findall(value))
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return {name for item in items for name in _names(item)}
    return set()


def _made_up(name: str) -> str:
    return SECRET_PREFIX + b64encode(sha256(name.encode()).digest()).decode()
