"""The installed command as a real process: started, waited for by what it prints, signalled, ended.

async with Program("serve", "--port", "0", cwd=folder) as program:
    url = await program.listening()
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

COMMAND = Path(sys.executable).with_name("notifier")
_LINE = 1024**2
_LISTENING = "listening on "


class Program:
    """One run of `notifier`. What it prints is kept in `lines` (stderr) as it comes."""

    def __init__(self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._args = args
        self.cwd = cwd or Path.cwd()
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
        self._env |= env or {}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._more = asyncio.Condition()
        self._all_read = False

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            COMMAND,
            *self._args,
            cwd=self.cwd,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process."""
        assert self._process is not None
        return self._process

    async def line(self, words: str) -> str:
        """Wait until stderr has a line with these words, and return it."""
        async with self._more:
            await self._more.wait_for(lambda: self._all_read or any(words in line for line in self.lines))
        found = next((line for line in self.lines if words in line), None)
        assert found is not None, f"it ended without {words!r}: {self.lines}"
        return found

    async def listening(self) -> str:
        """Wait until it listens; returns its address."""
        return (await self.line(_LISTENING)).removeprefix(_LISTENING)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it has ended; returns its exit code."""
        assert self._reading is not None
        await self._reading
        return await self.process.wait()

    async def output(self) -> str:
        """Wait until it has ended; returns its stdout."""
        assert self.process.stdout is not None
        out = await self.process.stdout.read()
        await self.ended()
        return out.decode()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self._more:
                self.lines.append(line.decode().rstrip("\n"))
                self._more.notify_all()
        async with self._more:
            self._all_read = True
            self._more.notify_all()
