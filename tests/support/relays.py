"""Relays to a scripted server, and mails to send by them."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.smtp_server import SmtpServer

from notifier.channels.relays import Relays
from notifier.channels.smtp import Envelope
from notifier.config import Duration, Relay
from notifier.errors import DeliveryError

CONTENT = b"Subject: Hello\r\n\r\n.dots\r\n..\r\nHello\r\n"
ENVELOPE = Envelope("no-reply@example.com", "ada@example.org", CONTENT)
OTHER = ENVELOPE._replace(recipient="grace@example.net")
BRIEF = dict.fromkeys(("connect_timeout", "timeout", "dot_timeout"), Duration(0.3))
"""Timeouts for servers that never answer."""


def relay_to(server: SmtpServer | int, **changes: Any) -> Relay:
    """The configuration of a relay that is this server, or nothing at this port."""
    port = server if isinstance(server, int) else server.port
    fields: dict[str, Any] = {"host": "127.0.0.1", "port": port, "tls": "none"}
    fields |= dict.fromkeys(("connect_timeout", "timeout", "data_timeout", "dot_timeout"), Duration(5))
    return Relay(**(fields | changes))


@contextlib.asynccontextmanager
async def relays_to(*relays: Relay, **options: Any) -> AsyncIterator[Relays]:
    """Relays that take leave in the end."""
    relays_ = Relays(relays, **options)
    try:
        yield relays_
    finally:
        await relays_.close()


async def fault_of(relays: Relays, envelope: Envelope = ENVELOPE) -> DeliveryError:
    """What sending one mail raises."""
    with pytest.raises(DeliveryError) as caught:
        await relays.send(envelope)
    return caught.value


async def warm(relays: Relays, server: SmtpServer) -> None:
    """Send a mail, so that a connection is kept."""
    before = len(server.mails)
    await relays.send(ENVELOPE)
    await server.until(lambda: len(server.mails) == before + 1)
