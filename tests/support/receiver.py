"""A scripted HTTP receiver on loopback: raw asyncio, so that it can misbehave in any way.

async with Receiver(answer(503), answer(200)) as receiver:
    ...  # post to receiver.url("/hook"); the first request gets 503, all later ones 200
    await receiver.seen(2)
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Self


class Received(NamedTuple):
    """One request as it came in; header names in lower case, connections numbered from 1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    size: int
    """Bytes in all, head and body."""


class Line(NamedTuple):
    """The connection that a script answers on."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def write(self, data: bytes) -> None:
        """Write and wait until the peer takes it."""
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the peer closes its side."""
        while await self.reader.read(65536):
            pass

    def close(self) -> None:
        """Close as an orderly server does."""
        self.writer.close()

    def reset(self) -> None:
        """Break the connection off: the peer gets a reset."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Line], Awaitable[None]]


def answer(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Script:
    """Answer properly, and keep the connection."""
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return raw("\r\n".join([*lines, "", ""]).encode() + body)


def raw(data: bytes) -> Script:
    """Write these bytes, whatever they are, and keep the connection."""

    async def script(line: Line) -> None:
        await line.write(data)

    return script


def then_close(data: bytes) -> Script:
    """Write these bytes and close."""

    async def script(line: Line) -> None:
        await line.write(data)
        line.close()

    return script


def then_reset(data: bytes) -> Script:
    """Write these bytes and break off."""

    async def script(line: Line) -> None:
        await line.write(data)
        line.reset()

    return script


def then_hang(data: bytes) -> Script:
    """Write these bytes and nothing more, until the peer gives up."""

    async def script(line: Line) -> None:
        await line.write(data)
        await line.gone()

    return script


def endless(head: bytes, piece: bytes, *, pause: float = 0.0) -> Script:
    """Write `head`, then `piece` again and again, until the peer gives up; `pause` in seconds."""

    async def script(line: Line) -> None:
        await line.write(head)
        while True:
            await line.write(piece)
            await asyncio.sleep(pause)

    return script


class Receiver:
    """Listens on a free port; each request is answered by the next script, all later ones by the last."""

    def __init__(self, *scripts: Script, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.host = host
        self.port = 0
        self._scripts = list(scripts) or [answer()]
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()

    def url(self, path: str = "/hook") -> str:
        """The address to post to."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}{path}"

    async def seen(self, count: int) -> list[Received]:
        """Wait until so many requests came in, and return them."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)
        return self.requests

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._converse(Line(reader, writer), self.connections)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, line: Line, connection: int) -> None:
        while not line.writer.is_closing():
            request = await _read_request(line.reader, connection)
            async with self._news:
                self.requests.append(request)
                self._news.notify_all()
            await self._scripts[min(len(self.requests), len(self._scripts)) - 1](line)


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Received:
    raw_head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = raw_head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body, connection, len(raw_head) + len(body))
