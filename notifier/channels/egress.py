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
from aiohttp.helpers import is_ip_address

from notifier.channels.dials import Phase, current
from notifier.channels.guard import AddressInfo, BlockedAddressError, Guard, new_socket
from notifier.channels.line import Line
from notifier.channels.origins import Origin
from notifier.channels.proxy import Proxy, refusal, unreachable
from notifier.errors import DeliveryError, Unavailable

if TYPE_CHECKING:
    from aiohttp.tracing import Trace

_TRIES = 4
"""How many of a receiver's addresses a proxy is asked for, one after the other."""
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
"""What aiohttp is told to keep to: the caller's deadline is the only one."""


class ProxyLine(Line):
    """A connection to the egress proxy: once it has said yes or no, what comes is not its own any more."""

    def on_headers_complete(self) -> None:
        """Take a status for the whole answer: a tunnel has neither body nor end (RFC 9110 §9.3.6)."""
        super().on_headers_complete()
        self._whole = self._status is not None

    def _take_unasked(self, data: bytes) -> None:
        if not self.served:
            super()._take_unasked(data)


class Egress(aiohttp.TCPConnector):
    """Dials connections that the guard agrees to. They are kept, and counted, by whoever has them dialled."""

    def __init__(self, guard: Guard, *, resolver: AbstractResolver, proxy: Proxy | None = None) -> None:
        super().__init__(limit=0, resolver=resolver, socket_factory=self._open_socket)
        self._factory = self._new_line  # type: ignore[assignment]  # aiohttp's makes its own protocol
        self._guard = guard
        self._proxy = proxy

    async def dial(self, origin: Origin) -> Line:
        """Connect to an origin, as the current `Dial` is told of.

        Raises BlockedAddressError, aiohttp.ClientError, OSError, and Unavailable or Transient where a proxy
        is the cause.
        """
        if self._proxy is None:
            line = await self._direct(origin)
        else:
            line = await self._tunnel(self._proxy, origin)
        if not self.is_allowed(line):  # by what it is connected to, and by a policy that may be new
            line.close()
            raise self._guard.refusal()
        return line

    def is_allowed(self, line: Line) -> bool:
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
        dial = current.get()
        if dial.to_proxy:
            made = new_socket(info)
        else:
            try:
                made = self._guard.open_socket(info)
            except BlockedAddressError:
                dial.blocked = True
                raise
        dial.dialled = True
        dial.enter(Phase.CONNECT)
        return made

    def _new_line(self) -> Line:
        """Make what reads from a connection: aiohttp asks for it once the socket is connected."""
        dial = current.get()
        if dial.to_proxy:
            return ProxyLine(self._loop)
        if dial.secure:
            dial.enter(Phase.TLS)
        return Line(self._loop)

    async def _direct(self, origin: Origin) -> Line:
        current.get().secure = origin.is_ssl()
        transport, line = await self._connected(origin)
        peer = transport.get_extra_info("peername")
        if peer is None:
            line.close()
            raise ConnectionResetError(errno.ECONNRESET, "it was reset at once")
        line.leads_to = (peer[0], peer[1])
        return line

    async def _connected(self, origin: Origin) -> tuple[asyncio.Transport, Line]:
        transport, protocol = await self._create_direct_connection(origin, [], _NO_TIMEOUT)
        return transport, cast("Line", protocol)

    # The proxy --------------------------------------------------------------------------------------

    async def _tunnel(self, proxy: Proxy, origin: Origin) -> Line:
        """Connect to a receiver through the proxy, by the first of its addresses that comes about."""
        failures: list[DeliveryError] = []
        for host in await self._targets(proxy, origin):
            transport, status = await self._ask(proxy, host, _port_of(origin))
            if status // 100 == 2:  # noqa: PLR2004 - the class of success
                line = await self._speak_through(transport, origin)
                line.leads_to = (_address(host), _port_of(origin))
                return line
            transport.abort()
            failures.append(refusal(status))
            if isinstance(failures[-1], Unavailable):
                break
        raise failures[-1]

    async def _targets(self, proxy: Proxy, origin: Origin) -> list[str]:
        """The hosts that the proxy may be asked for: addresses, but for names that are left to it."""
        hosts, port = [origin.host], _port_of(origin)
        if is_ip_address(origin.host) or not proxy.resolves:
            try:
                hosts = [found["host"] for found in await self._resolve_host(origin.host, port)]
            except OSError as error:
                raise aiohttp.ClientConnectorDNSError(origin.connection_key, error) from error
        allowed = [host for host in hosts if self._guard.permits(_address(host), port)]
        if not allowed:
            raise self._guard.refusal()
        return allowed[:_TRIES]

    async def _ask(self, proxy: Proxy, host: str, port: int) -> tuple[asyncio.Transport, int]:
        """Ask the proxy for a tunnel, on a connection of its own; returns its status. Raises Unavailable."""
        dial = current.get()
        dial.to_proxy = True
        try:
            transport, line = await self._connected(Origin(proxy.url))
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable() from error
        dial.to_proxy = False
        try:
            answer = await line.ask(proxy.connect_request(host, port))
        except DeliveryError as error:
            transport.abort()
            raise Unavailable("the egress proxy gave no answer", code="proxy_refused") from error
        except BaseException:
            transport.abort()
            raise
        return transport, answer.status

    async def _speak_through(self, transport: asyncio.Transport, origin: Origin) -> Line:
        """Put what speaks HTTP onto a tunnel, over TLS where the url wants it: by the receiver's own name."""
        if origin.is_ssl():
            current.get().enter(Phase.TLS)
            _, secured = await self._start_tls_connection(transport, origin, _NO_TIMEOUT)
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


def _port_of(origin: Origin) -> int:
    port = origin.port
    if port is None:
        raise aiohttp.InvalidURL(origin.url)
    return port
