"""The way out: guarded, timed connections to receivers, direct or through the declared egress proxy.

A connector of aiohttp's whose every way to a connection leads past the guard. What it overrides was read in
aiohttp 3.14.5 (connector.py), and `pyproject.toml` holds it to 3.14.
"""

import asyncio
import errno
import socket
from collections.abc import Sequence
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.helpers import is_ip_address
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import BadHttpMessage

from notifier.channels.exchange import MOST_ANSWERS, NO_TIMEOUT, Origin, Phase, current
from notifier.channels.guard import AddressInfo, BlockedAddressError, Guard, Policy, new_socket
from notifier.channels.proxy import Proxy, refusal, unreachable
from notifier.errors import DeliveryError, Unavailable

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

MOST_KEPT = 256
"""Idle connections that are kept: each holds a file descriptor, of which a process may have few (1,024)."""
MOST_READ = 2 * 1024**2
"""Bytes of one exchange that are read, whatever they are: twice what the headers of an answer may have."""

_PIECE = 8 * 1024
"""Bytes that are parsed at a time: a read may hold ten thousand answers, which take a second."""
_TRIES = 4
"""How many of a receiver's addresses a proxy is asked for, one after the other."""


class Line(ResponseHandler):
    """A connection that knows where it leads, and by which policy that was last found in order."""

    leads_to: tuple[str | None, int]
    """Address and port; no address where only the proxy knows it."""
    policy: Policy | None = None
    came = 0
    """Bytes that came since it was last handed out."""

    def close(self) -> None:
        """Let go of it at once: TLS would wait half a minute for the farewell of a peer that sends none."""
        self.abort()

    def data_received(self, data: bytes) -> None:
        """Read what came; what is no answer any more, by its size or number, breaks the connection off."""
        self.came += len(data)
        for at in range(0, max(1, len(data)), _PIECE):  # aiohttp gives it nothing, too, to have it go on
            if self.came > MOST_READ or len(self._buffer) > MOST_ANSWERS:
                self._break_off(BadHttpMessage("too much of it"))
                return
            super().data_received(data[at : at + _PIECE])

    def _break_off(self, error: HttpProcessingError) -> None:
        self.set_exception(error)
        if self._payload is not None:  # whoever reads the body would hear nothing of the end
            self._payload.set_exception(error)
        self.abort()


class Egress(aiohttp.TCPConnector):
    """Connections that the guard agrees to: at most so many at once, kept while they can serve again."""

    def __init__(
        self, guard: Guard, *, connections: int, resolver: AbstractResolver, proxy: Proxy | None = None
    ) -> None:
        super().__init__(limit=connections, resolver=resolver, socket_factory=self._open_socket)
        self._factory = self._new_line  # type: ignore[assignment]  # aiohttp's is a partial
        self._guard = guard
        self._proxy = proxy

    async def _get(self, key: ConnectionKey, traces: list["Trace"]) -> Connection | None:
        """Find a kept connection that can serve: silent since its last answer, and still allowed."""
        while (kept := await super()._get(key, traces)) is not None:
            line = cast("Line", kept.protocol)
            # Something that came while nothing was asked must not be taken for the next answer.
            if not line.should_close and self._is_allowed(line):
                line.came = 0
                return kept
            kept.close()
        return None

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        """Keep a connection, if it can serve again, in place of the one that waits longest."""
        super()._release(key, protocol, should_close=should_close)
        if sum(map(len, self._conns.values())) > MOST_KEPT:
            longest = min(self._conns, key=lambda each: self._conns[each][0][1])
            idle, _ = self._conns[longest].popleft()
            if not self._conns[longest]:
                del self._conns[longest]
            idle.close()

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list["Trace"],  # noqa: ARG002 - as aiohttp calls it
        timeout: aiohttp.ClientTimeout,  # noqa: ARG002, ASYNC109 - the same
    ) -> Line:
        if self._proxy is None:
            line = await self._direct(req)
        else:
            line = await self._tunnel(self._proxy, req)
        if not self._is_allowed(line):  # by what it is connected to, and by a policy that may be new
            line.abort()
            raise self._guard.refusal()
        return line

    def _is_allowed(self, line: Line) -> bool:
        """Whether a connection leads where it may lead as things stand. The answer is remembered."""
        policy = self._guard.policy
        if line.policy is policy:
            return True
        if not self._guard.permits(*line.leads_to):
            return False
        line.policy = policy
        return True

    # Sockets ----------------------------------------------------------------------------------------

    async def _resolve_host(
        self, host: str, port: int, traces: Sequence["Trace"] | None = None
    ) -> list[ResolveResult]:
        """Look a name up. However that fails, it is an OSError: it never leads to a connection."""
        current.get().enter(Phase.DNS)
        try:
            return await super()._resolve_host(host, port, traces)
        except (OSError, aiohttp.ClientError):
            raise
        except Exception as error:
            raise OSError("the look-up failed") from error

    def _open_socket(self, info: AddressInfo) -> socket.socket:
        """Make the socket for an address: the proxy's, or one that the guard agrees to."""
        exchange = current.get()
        if exchange.to_proxy:
            made = new_socket(info)
        else:
            try:
                made = self._guard.open_socket(info)
            except BlockedAddressError:
                exchange.blocked = True
                raise
        exchange.dialled = True
        exchange.enter(Phase.CONNECT)
        return made

    def _new_line(self) -> Line:
        """Make what reads from a connection: aiohttp asks for it once the socket is connected."""
        exchange = current.get()
        if exchange.secure:
            exchange.enter(Phase.TLS)
        return Line(self._loop)

    async def _direct(self, req: aiohttp.ClientRequest) -> Line:
        current.get().secure = req.is_ssl()
        transport, protocol = await self._create_direct_connection(req, [], NO_TIMEOUT)
        line = cast("Line", protocol)
        peer = transport.get_extra_info("peername")
        if peer is None:
            line.abort()
            raise ConnectionResetError(errno.ECONNRESET, "it was reset at once")
        line.leads_to = (peer[0], peer[1])
        return line

    # The proxy --------------------------------------------------------------------------------------

    async def _tunnel(self, proxy: Proxy, req: aiohttp.ClientRequest) -> Line:
        """Connect to a receiver through the proxy, by the first of its addresses that comes about."""
        failures: list[DeliveryError] = []
        for host in await self._targets(proxy, req):
            transport, status = await self._ask(proxy, host, _port_of(req))
            if status // 100 == 2:  # noqa: PLR2004 - the class of success
                line = await self._speak_through(transport, req)
                line.leads_to = (_address(host), _port_of(req))
                return line
            transport.abort()
            failures.append(refusal(status))
            if isinstance(failures[-1], Unavailable):
                break
        raise failures[-1]

    async def _targets(self, proxy: Proxy, req: aiohttp.ClientRequest) -> list[str]:
        """The hosts that the proxy may be asked for: addresses, but for names that are left to it."""
        hosts, port = [req.host], _port_of(req)
        if is_ip_address(req.host) or not proxy.resolves:
            try:
                hosts = [found["host"] for found in await self._resolve_host(req.host, port)]
            except OSError as error:
                raise aiohttp.ClientConnectorDNSError(req.connection_key, error) from error
        allowed = [host for host in hosts if self._guard.permits(_address(host), port)]
        if not allowed:
            raise self._guard.refusal()
        return allowed[:_TRIES]

    async def _ask(self, proxy: Proxy, host: str, port: int) -> tuple[asyncio.Transport, int]:
        """Ask the proxy for a tunnel, on a connection of its own; returns its status. Raises Unavailable."""
        exchange = current.get()
        exchange.to_proxy = True
        try:
            origin = Origin(proxy.url)
            transport, line = await self._create_direct_connection(origin, [], NO_TIMEOUT)
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable() from error
        exchange.to_proxy = False
        try:
            # Like every answer it is read within the parser's bounds on lines and headers.
            line.set_response_params(read_until_eof=True, auto_decompress=False)
            transport.write(proxy.connect_request(host, port))
            head, _ = await line.read()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            transport.abort()
            raise Unavailable("the egress proxy gave no answer", code="proxy_refused") from error
        except BaseException:
            transport.abort()
            raise
        return transport, head.code

    async def _speak_through(self, transport: asyncio.Transport, req: aiohttp.ClientRequest) -> Line:
        """Put what speaks HTTP onto a tunnel, over TLS where the url wants it: by the receiver's own name."""
        if req.is_ssl():
            current.get().enter(Phase.TLS)
            _, secured = await self._start_tls_connection(transport, req, NO_TIMEOUT)
            return cast("Line", secured)
        line = self._new_line()
        transport.set_protocol(line)
        line.connection_made(transport)
        return line


class SystemResolver(AbstractResolver):
    """The system's resolver: names that nobody answers for hold up nothing else.

    A look-up can't be broken off: one that was given up goes on, on a thread that nobody waits for, as long
    as the system sees fit. `most` is how many there are at once; more wait.
    """

    def __init__(self, most: int) -> None:
        self._room = asyncio.Semaphore(most)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Look a name up. Raises OSError."""
        found = await self._looked_up(host.encode("ascii"), port, family)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def _looked_up(self, host: bytes, port: int, family: int) -> Sequence[AddressInfo]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[AddressInfo]] = loop.create_future()

        def look_up() -> None:
            found: Sequence[AddressInfo] | Exception
            try:
                found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
            except Exception as error:
                found = error
            with suppress(RuntimeError):  # the loop ended before this did
                loop.call_soon_threadsafe(self._answered, answer, found)

        await self._room.acquire()
        try:
            Thread(target=look_up, name="webhook-dns", daemon=True).start()
        except BaseException:
            self._room.release()
            raise
        return await answer

    def _answered(
        self, answer: "asyncio.Future[Sequence[AddressInfo]]", found: Sequence[AddressInfo] | Exception
    ) -> None:
        self._room.release()
        if answer.done():  # who asked gave up
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    async def close(self) -> None:
        """Wait for nothing: what is still being looked up ends by itself, or with the process."""


def _address(host: str) -> str | None:
    """The host if it is an address, whatever its spelling, and no name."""
    return host if is_ip_address(host) else None


def _port_of(req: aiohttp.ClientRequest) -> int:
    port = req.port
    if port is None:
        raise aiohttp.InvalidURL(req.url)
    return port
