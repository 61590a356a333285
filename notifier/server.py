"""One serving process: it listens, says where, and drains when it is told to stop."""

import asyncio
import errno
import gc
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

import structlog
from aiohttp import web

from notifier.config import is_loopback
from notifier.errors import ConfigError, NotifierError
from notifier.service import Notifier
from notifier.web.wire import Wire

BACKLOG = 1024
_CLOSE_WITHIN = 5.0
"""Seconds that requests still being answered get, once the drain is over."""
KEEP_ALIVE = 3630.0
"""Seconds that a connection may be idle: longer than proxies keep one, so that none meets a closed one."""


_Result = TypeVar("_Result")
_log = structlog.get_logger(__name__)


class ListenError(NotifierError):
    """The address can't be listened on."""


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine to its end, on uvloop where that is installed."""
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def check_exposure(host: str, *, keys_asked: bool) -> None:
    """Refuse to serve others without keys. Raises ConfigError."""
    if not keys_asked and not is_loopback(host):
        raise ConfigError("server.host", f"{host!r} is not loopback; set auth.admin_keys to serve others")


def bind(host: str, port: int) -> list[socket.socket]:
    """Take an address without listening on it yet, so that a taken one is known before anything starts.

    Port 0 takes a free one, the same for every address that the host's name stands for. Raises ListenError.
    """
    bare = host.strip("[]")
    try:
        found = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"{host}: no such address to listen on ({error.strerror})") from error
    sockets: list[socket.socket] = []
    problems: list[OSError] = []
    for family, _, _, _, address in dict.fromkeys(found):
        wanted = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_bound(family, (address[0], wanted, *address[2:])))
        except OSError as error:
            problems.append(error)
    taken = [problem for problem in problems if problem.errno == errno.EADDRINUSE]
    if taken or not sockets:
        _close(sockets)
        raise ListenError(_unbindable(host, port, (taken or problems)[0]))
    return sockets


def _bound(family: int, address: tuple[Any, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _close(sockets: Sequence[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _unbindable(host: str, port: int, problem: OSError) -> str:
    if problem.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what listens there, or choose another with --port"
    return f"can't listen on {host}, port {port}: {os.strerror(problem.errno or 0)}"


class StopSignals:
    """SIGTERM and SIGINT: the first asks for a drain, a second ends the process at once."""

    def __init__(self, last_words: Callable[[], object] | None = None) -> None:
        """Listen for them on the running loop; `last_words` is called before the process is ended."""
        self._asked = asyncio.Event()
        self._last_words = last_words
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._receive, number)

    async def wait(self) -> None:
        """Wait for the first."""
        await self._asked.wait()

    def _receive(self, number: signal.Signals) -> None:
        if not self._asked.is_set():
            self._asked.set()
            return
        _log.warning("stopping at once: what is in flight will be tried again", signal=number.name)
        if self._last_words is not None:
            self._last_words()
        # Nothing is waited for: what the store has not committed, no one was told of.
        os._exit(128 + number)


async def serve(
    notifier: Notifier,
    app: web.Application,
    sockets: Sequence[socket.socket],
    *,
    stop: StopSignals,
    on_listening: Callable[[], None],
) -> None:
    """Serve until told to stop, then drain. While it drains it still listens, to answer 503.

    Raises a StoreError where the store can't be opened, ListenError where another was quicker to listen.
    """
    listener = Listener(notifier, app)
    try:
        async with notifier:
            await listener.open(sockets)
            _spare_the_collector()
            on_listening()
            await stop.wait()
            _log.info("draining", drain_timeout=notifier.config.workers.drain_timeout)
        _log.info("stopped")
    finally:
        await listener.close()
        _close(sockets)


class Listener:
    """Answers requests: the wire accepts every connection, and hands over to aiohttp what isn't its own.

    Each connection has one owner at a time: the wire, and once it has handed it over, aiohttp's runner.
    """

    def __init__(self, notifier: Notifier, app: web.Application) -> None:
        """Prepare to answer, by the application what the wire doesn't answer itself."""
        self._notifier = notifier
        self._aiohttp = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=KEEP_ALIVE,
            shutdown_timeout=_CLOSE_WITHIN,
        )
        self._wire: Wire | None = None
        self._listening: list[asyncio.Server] = []

    async def open(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on addresses that are taken. Raises ListenError."""
        await self._aiohttp.setup()
        server = cast("web.Server", self._aiohttp.server)  # there is one from here on
        self._wire = Wire(self._notifier, server, keep_alive=KEEP_ALIVE)
        for each in sockets:
            self._listening.append(await _listen(self._wire, each))

    async def close(self) -> None:
        """Listen no more, and close every connection, those under way once they are answered."""
        for each in self._listening:
            each.close()
        if self._wire is not None:
            await self._wire.close(_CLOSE_WITHIN)
        await self._aiohttp.cleanup()


async def _listen(wire: Wire, bound: socket.socket) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(wire, sock=bound, backlog=BACKLOG)
    except OSError as error:
        host, port, *_ = bound.getsockname()
        raise ListenError(_unbindable(host, port, error)) from error


def _spare_the_collector() -> None:
    """Keep the cycle collector from walking all that lives as long as the process, over and over.

    Reference counts free nearly everything here. By its defaults the collector took a ninth of the time
    under load, in pauses of 40 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
