"""The measured server: a real `notifier serve`, in a process of its own that ends with the measurement."""

import asyncio
import contextlib
import os
import re
import sys
from collections import deque
from pathlib import Path
from typing import Self

from notifier.bench import BenchError
from notifier.bench.receivers import LOOPBACK
from notifier.bench.usage import Usage, usage_of

_LISTENING = "listening on "
_STARTS_WITHIN = 60.0
_IN_FLIGHT = re.compile(rb"^notifier_deliveries_in_flight (\S+)", re.MULTILINE)
_LAST_WORDS = 400


class Child:
    """`notifier serve` on the `config.toml` of a folder. `port` is where it listens."""

    def __init__(self, folder: Path) -> None:
        self.port = 0
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._said: deque[str] = deque(maxlen=5)
        self._listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start it. Raises BenchError where it doesn't listen."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "notifier", "serve", "--log-level", "warning"),
            cwd=self._folder,
            # Nothing of a real one's set-up reaches it but what stands in the folder.
            env={name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us alone
        )
        try:
            self._reading = asyncio.create_task(self._read())
            async with asyncio.timeout(_STARTS_WITHIN):
                self.port = await self._listening
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    @property
    def usage(self) -> Usage | None:
        """What it has used so far."""
        return usage_of(self._running.pid)

    @property
    def last_words(self) -> str:
        """The last it said, if it said anything."""
        return f" (the server: {self._said[-1][:_LAST_WORDS]})" if self._said else ""

    async def in_flight(self) -> float:
        """How many deliveries it has under way just now."""
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        host = f"{LOOPBACK}:{self.port}"
        try:
            writer.write(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            found = _IN_FLIGHT.search(await reader.read(-1))
        finally:
            writer.close()
        if found is None:
            raise BenchError(f"the server does not tell how many deliveries are in flight{self.last_words}")
        return float(found[1])

    @property
    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None  # noqa: S101 - it is asked of one that was started
        return self._process

    async def _read(self) -> None:
        stream = self._running.stderr
        assert stream is not None  # noqa: S101 - it is a pipe
        async for raw in stream:
            line = raw.decode(errors="replace").rstrip()
            if line.startswith(_LISTENING) and not self._listening.done():
                self._listening.set_result(int(line.rpartition(":")[2]))
            else:
                self._said.append(line)
        if not self._listening.done():
            self._listening.set_exception(BenchError(f"the server did not start{self.last_words}"))

    async def _end(self) -> None:
        """At once: there is nothing to keep."""
        with contextlib.suppress(ProcessLookupError):
            self._running.kill()
        await self._running.wait()
        if self._reading is not None:
            await self._reading
