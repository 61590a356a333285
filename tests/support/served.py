"""An application served as the program serves it, for aiohttp's test client."""

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from notifier import server
from notifier.service import Notifier


class Served(TestServer):
    """A test server with the wire before aiohttp; `TestServer` itself is aiohttp alone."""

    def __init__(self, notifier: Notifier, app: web.Application) -> None:
        super().__init__(app)
        self._listener = server.Listener(notifier, app)

    async def start_server(self, loop: asyncio.AbstractEventLoop | None = None, **_: Any) -> None:
        """Listen on a free port of loopback."""
        self._loop = loop
        sockets = server.bind(self.host, 0)
        self.port = sockets[0].getsockname()[1]
        self._root = URL.build(scheme="http", host=self.host, port=self.port)
        await self._listener.open(sockets)

    async def close(self) -> None:
        """Stop listening."""
        await self._listener.close()
