"""An answer as plain values, so that it is the same whoever writes it: aiohttp, or the wire."""

from typing import NamedTuple

from aiohttp import web

Headers = tuple[tuple[str, str], ...]


class Reply(NamedTuple):
    """What is answered, before it is HTTP: what every answer has (length, date, server) is its writer's."""

    status: int
    headers: Headers
    body: bytes

    def response(self) -> web.Response:
        """Return it as aiohttp writes it."""
        return web.Response(status=self.status, headers=self.headers, body=self.body)
