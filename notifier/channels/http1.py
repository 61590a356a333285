"""The transport of webhooks: HTTP/1.1 over kept connections, and what stands in for it while developing."""

import asyncio
from functools import lru_cache, partial

import aiohttp
from aiohttp.abc import AbstractResolver
from msgspec.structs import replace
from yarl import URL

from notifier.channels.connections import Connections
from notifier.channels.dials import Dial
from notifier.channels.egress import Egress, SystemResolver
from notifier.channels.guard import Guard, Only
from notifier.channels.line import NOTHING, Line
from notifier.channels.mishaps import meaning
from notifier.channels.origins import Origin, Ways
from notifier.channels.proxy import Proxy
from notifier.channels.transport import Answer, PreparedRequest
from notifier.errors import DeliveryError, Transient

_LOOK_UPS_EACH, _MOST_LOOK_UPS = 4, 512
"""Name look-ups that there may be for each connection, and in all: some outlive their delivery."""
_parsed = lru_cache(maxsize=4096)(partial(URL, encoded=True))


class HttpTransport:
    """Sends over kept connections, to addresses that the guard agrees to.

    `connections` bounds how many requests are under way; `resolver` stands in for the system's (it is
    closed by its owner). With a `proxy` nothing is connected to but that.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        connections: int,
        resolver: AbstractResolver | None = None,
        proxy: Proxy | None = None,
    ) -> None:
        self._guard = guard
        self._most = connections
        self._proxy = proxy
        self._given_resolver = resolver
        self._resolver: AbstractResolver | None = None
        self._ways = Ways()
        self.connections: Connections | None = None
        """While it is open."""

    async def open(self) -> None:
        """Make what connects, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._resolver = self._given_resolver or SystemResolver(
            min(self._most * _LOOK_UPS_EACH, _MOST_LOOK_UPS)
        )
        egress = Egress(self._guard, resolver=self._resolver, proxy=self._proxy)
        self.connections = Connections(egress, most=self._most)

    async def close(self) -> None:
        """Close every connection."""
        if self.connections is not None:
            closing, self.connections = self.connections, None
            await closing.close()
        if self._resolver is not None and self._resolver is not self._given_resolver:
            await self._resolver.close()

    async def send(self, request: PreparedRequest, deadline_seconds: float) -> Answer:
        """Send one request; see `Transport.send`.

        A kept connection that the receiver closed before it answered is common (it closes idle ones just
        as we write), so the request is sent once more at once, under the same id and deadline: over a new
        one, as a receiver that was started anew has lost them all.
        """
        connections = self.connections
        if connections is None:
            raise Transient("the transport is closed", code="connect_failed")
        way = self._ways.to(request.url)
        wire, until = way.bytes_of(request), self._loop.time() + deadline_seconds
        before, again = NOTHING, False
        while True:
            line = None if again else connections.take(way.origin, until)
            if line is None:
                dial = Dial(before)
                line = await _connected(connections, way.origin, until, dial, anew=again)
                before = dial.timings()
            answer = line.ask(wire, before)
            try:
                return await answer
            except Transient:
                if again or not line.went_stale:
                    raise
                before, again = line.timings(), True
            except asyncio.CancelledError:
                line.give_up(answer)
                raise


async def _connected(
    connections: Connections, origin: Origin, until: float, dial: Dial, *, anew: bool
) -> Line:
    """Find a connection that isn't there yet; `anew`: one that never served."""
    try:
        async with asyncio.timeout_at(until):
            return await connections.connect(origin, until, dial, anew=anew)
    except DeliveryError as error:
        error.timings = dial.timings()
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise meaning(error, dial) from error


class CatcherTransport:
    """Sends every request to a catcher on this machine instead, and can reach nothing else.

    A request for `https://example.com/hooks?x=1` goes to `http://HOST:PORT/https/example.com:443/hooks?x=1`.
    `address` is the catcher's numeric host, and port.
    """

    def __init__(self, address: tuple[str, int], *, connections: int = 64) -> None:
        self._address = address
        self._inner = HttpTransport(Guard(Only(*address)), connections=connections)

    async def open(self) -> None:
        """Get ready to send, on the running loop."""
        await self._inner.open()

    async def send(self, request: PreparedRequest, deadline_seconds: float) -> Answer:
        """Hand one request to the catcher; see `Transport.send`."""
        return await self._inner.send(replace(request, url=self._caught(request.url)), deadline_seconds)

    async def close(self) -> None:
        """Let go of connections."""
        await self._inner.close()

    def _caught(self, url: str) -> str:
        aimed = _parsed(url)
        host, port = self._address
        path = f"/{aimed.scheme}/{aimed.host_subcomponent}:{aimed.port}{aimed.raw_path}"
        caught = URL.build(
            scheme="http", host=host, port=port, path=path, query_string=aimed.raw_query_string, encoded=True
        )
        return str(caught)
