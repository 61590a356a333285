"""The processes that are measured: started on their CPUs, awaited, and asked what they used."""

import asyncio
import os
import signal
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

NOTIFIER = Path(sys.executable).with_name("notifier")
ROOT = Path(__file__).resolve().parent.parent
_LISTENING = "listening on "
_TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def on_cpus(cpus: Collection[int]) -> Iterator[None]:
    """Run on these CPUs for a while; what is started meanwhile stays on them, with all its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Measured:
    """One process, killed at the end if it hasn't ended by itself."""

    def __init__(self, *command: str | Path, cpus: Collection[int], folder: Path = ROOT) -> None:
        self._command = command
        self._cpus = cpus
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._log: list[str] = []
        self._draining: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        with on_cpus(self._cpus):
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        await self.process.wait()
        if self._draining is not None:
            await self._draining

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process."""
        assert self._process is not None
        return self._process

    async def listening(self) -> int:
        """Wait until it listens; returns its port. Raises RuntimeError with what it said if it doesn't."""
        assert self.process.stderr is not None
        async for raw in self.process.stderr:
            line = raw.decode().rstrip()
            if line.startswith(_LISTENING):
                self._draining = asyncio.create_task(self._drain(self.process.stderr))
                return int(line.rpartition(":")[2])
            self._log.append(line)
        raise RuntimeError("\n".join(["it does not listen:", *self._log]))

    async def output(self) -> bytes:
        """Wait until it has ended; returns what it printed. Raises RuntimeError if it failed."""
        out, err = await self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(err.decode())
        return out

    @property
    def cpu(self) -> float:
        """Seconds of CPU it has used, in all its threads."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident(self, which: str = "VmRSS") -> int:
        """Bytes of memory it holds now, or the most it ever held (`VmHWM`)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(f"{which}:"))
        return int(line.split()[1]) * 1024

    async def _drain(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            self._log.append(line.decode().rstrip())
