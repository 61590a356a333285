"""A scripted egress proxy on loopback: it takes CONNECT, and leads where the test says.

async with EgressProxy({"203.0.113.7:443": (receiver.host, receiver.port)}) as proxy:
    ...  # deliver with `channels.webhook.proxy` = proxy.url()
    assert [asked.authority for asked in proxy.asked] == ["203.0.113.7:443"]
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import NamedTuple, Self

from support.receiver import Line, Script

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n"


class Asked(NamedTuple):
    """One request to the proxy; header names in lower case."""

    method: str
    authority: str
    headers: dict[str, str]


class EgressProxy:
    """Answers CONNECT by the next of `scripts`, all later ones by leading to the host and port of `leads`.

    What `leads` doesn't name is led to where it says.
    """

    def __init__(
        self,
        leads: Mapping[str, tuple[str, int]] | None = None,
        *scripts: Script,
        established: bytes = ESTABLISHED,
    ) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.host = "127.0.0.1"
        self.port = 0
        self.leads = dict(leads or {})
        self._scripts = list(scripts)
        self._established = established
        self._tasks: set[asyncio.Task[None]] = set()

    def url(self, login: str = "", host: str = "127.0.0.1") -> str:
        """What `channels.webhook.proxy` is set to; `login` ends in an @."""
        return f"http://{login}{host}:{self.port}"

    def script(self, *scripts: Script) -> None:
        """Answer what comes next by these."""
        self._scripts.extend(scripts)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0)
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
                await self._answer(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, authority, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        self.asked.append(Asked(method, authority, headers))
        if self._scripts:
            await self._scripts.pop(0)(Line(reader, writer))
        else:
            await self._lead(authority, reader, writer)

    async def _lead(self, authority: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = authority.rpartition(":")
        where = self.leads.get(authority, (host.strip("[]"), int(port)))
        far_reader, far_writer = await asyncio.open_connection(*where)
        writer.write(self._established)
        try:
            await asyncio.gather(_pour(reader, far_writer), _pour(far_reader, writer))
        finally:
            far_writer.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    writer.close()
