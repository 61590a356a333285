"""What sends mails to a server as fast as it can, each a process: the notifier's relays, and bare aiosmtplib.

`python -m benchmarks.senders pool PORT CONNECTIONS COUNT WARM_UP`, or `aiosmtplib …`; prints what it took.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import uvloop
from aiosmtplib import SMTP

from benchmarks.processes import HOST
from benchmarks.timing import print_took
from notifier.channels.relays import Relays
from notifier.channels.smtp import Envelope
from notifier.config import Relay

WAITING = 3
"""How many mails are on their way for each of our connections: workers know of none."""

HEAD = b"""\
From: Example <no-reply@example.com>\r
To: Ada Lovelace <ada@example.org>\r
Subject: Your order is on its way\r
Date: Tue, 1 Sep 2026 12:00:00 +0000\r
Message-ID: <job_0123456789abcdef@example.com>\r
MIME-Version: 1.0\r
Content-Type: text/plain; charset=utf-8\r
\r
"""
TEXT = "Thank you for your order. It will be with you in two or three days.\n" * 20
MAIL = HEAD + TEXT.replace("\n", "\r\n").encode()
"""Of 1.6 KB."""

Send = Callable[[], Awaitable[object]]


async def pool(port: int, connections: int, count: int, warm_up: int) -> None:
    """Send through the relays, as the email channel does."""
    relay = Relay(host=HOST, port=port, tls="none", connections=connections, messages=count + warm_up)
    relays = Relays([relay])
    envelope = Envelope("no-reply@example.com", "ada@example.org", MAIL)

    async def send() -> None:
        await relays.send(envelope)

    await _timed([send] * (connections * WAITING), count, warm_up)
    await relays.close()


async def aiosmtplib(port: int, connections: int, count: int, warm_up: int) -> None:
    """Send over as many connections that are kept open, with nothing around them."""
    async with AsyncExitStack() as stack:
        clients = [SMTP(hostname=HOST, port=port, start_tls=False, timeout=60) for _ in range(connections)]
        for client in clients:
            await stack.enter_async_context(client)
        await _timed([_sender(client) for client in clients], count, warm_up)


def _sender(client: SMTP) -> Send:
    async def send() -> None:
        await client.sendmail("no-reply@example.com", ["ada@example.org"], MAIL)

    return send


async def _timed(senders: list[Send], count: int, warm_up: int) -> None:
    await _sent(senders, warm_up)
    await print_took(lambda: _sent(senders, count), count)


async def _sent(senders: list[Send], count: int) -> None:
    numbers = iter(range(count))

    async def work(send: Send) -> None:
        for _ in numbers:
            await send()

    await asyncio.gather(*map(work, senders))


def main() -> None:
    """Be one of the two."""
    roles: dict[str, Callable[..., Any]] = {"pool": pool, "aiosmtplib": aiosmtplib}
    role, *given = sys.argv[1:]
    uvloop.run(roles[role](*map(int, given)))


if __name__ == "__main__":
    main()
