"""What aiohttp does by itself, and what the wire's own two ends do: the yardsticks, each a process.

`python -m benchmarks.bare server` answers 202 to `POST /v1/events`; `client URL COUNT WARM_UP` posts the
same body as fast as it can and prints what it took; `load` and `sink` do the same with the wire's ends.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import uvloop
from aiohttp import web
from yarl import URL

from benchmarks.events import BODY
from benchmarks.processes import HOST
from benchmarks.timing import print_took
from benchmarks.wire import Load, Sink

CONNECTIONS = 64


async def server() -> None:
    """Serve until killed: read the body, answer 202 with a small JSON body."""

    async def accept(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=202, body=b'{"id":"evt_0"}', content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/events", accept)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, backlog=1024)
    await site.start()
    _listening(runner.addresses[0][1])
    await asyncio.Event().wait()


async def client(url: str, count: int, warm_up: int) -> None:
    """Post by a client that is tuned as far as aiohttp lets it be."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        target = URL(url)
        headers = {"Content-Type": "application/json"}

        async def post_one() -> None:
            async with session.post(target, data=BODY, headers=headers, allow_redirects=False) as response:
                await response.read()

        await _posted(post_one, warm_up)
        await print_took(lambda: _posted(post_one, count), count)


async def _posted(post_one: Callable[[], Awaitable[None]], count: int) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for _ in numbers:
            await post_one()

    await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))


async def load(url: str, count: int, warm_up: int) -> None:
    """Post by the wire's own load."""
    target = URL(url)
    assert target.host is not None
    assert target.port is not None
    posting = Load(target.host, target.port, BODY, path=target.path, connections=CONNECTIONS)
    await posting.open()
    await posting.post(warm_up)
    await print_took(lambda: posting.post(count), count)
    await posting.close()


async def sink() -> None:
    """Serve by the wire's own sink until killed."""
    made = Sink()
    await made.open()
    _listening(made.port)
    await asyncio.Event().wait()


def _listening(port: int) -> None:
    print(f"listening on http://{HOST}:{port}", file=sys.stderr, flush=True)


def main() -> None:
    """Be one of the four."""
    roles: dict[str, Callable[..., Any]] = {"server": server, "client": client, "load": load, "sink": sink}
    role, *given = sys.argv[1:]
    uvloop.run(roles[role](*(int(each) if each.isdigit() else each for each in given)))


if __name__ == "__main__":
    main()
