"""The processes of a benchmark: started on their CPUs, waited for, asked what they used, and ended."""

import asyncio
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections import deque
from collections.abc import Collection, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

NOTIFIER = Path(sys.executable).with_name("notifier")
ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
"""In front of a command that refuses to be root's."""

_LISTENING = "listening on "
_KEPT_LINES = 200
_ENDS_WITHIN = 30.0
_POLL = 0.01
_TICKS = os.sysconf("SC_CLK_TCK")
_PLACES = ":".join(
    (
        os.environ.get("PATH", ""),
        "/usr/sbin",
        *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
    )
)

_Result = TypeVar("_Result")


class EndedError(Exception):
    """A process failed, or ended while it was needed; says what it printed last."""


def program(name: str) -> str | None:
    """Where an installed program is, looked for where Debian puts servers, too; None if it isn't."""
    return shutil.which(name, path=_PLACES)


def installed(name: str) -> str:
    """Where a program is that the command has seen to be there. Raises EndedError if it went."""
    path = program(name)
    if path is None:
        raise EndedError(f"{name} is not installed")
    return path


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def on_cpus(cpus: Collection[int]) -> Iterator[None]:
    """Run on these CPUs for a while; what is started meanwhile stays on them, with all its threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Process:
    """One process with its children, all of them gone at the end. What it prints is kept for when it fails.

    With `talks`, its stdin and stdout are for `ask` and `output`.
    """

    def __init__(
        self,
        *command: str | Path,
        cpus: Collection[int],
        folder: Path = ROOT,
        env: Mapping[str, str] | None = None,
        talks: bool = False,
        stop: signal.Signals = signal.SIGTERM,
    ) -> None:
        self._command = command
        self._cpus = cpus
        self._folder = folder
        self._env = {**os.environ, **(env or {})}
        self._talks = talks
        self._stop = stop
        self._process: asyncio.subprocess.Process | None = None
        self._log: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reading: asyncio.Task[None] | None = None
        self._port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        with on_cpus(self._cpus):
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._folder,
                env=self._env,
                stdin=PIPE if self._talks else DEVNULL,
                stdout=PIPE,
                stderr=PIPE if self._talks else STDOUT,
                start_new_session=True,
            )
        log = self._process.stderr if self._talks else self._process.stdout
        assert log is not None
        self._reading = asyncio.create_task(self._read(log))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._reading is not None
        if self.process.returncode is None:
            self.process.send_signal(self._stop)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.ended(), _ENDS_WITHIN)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await self._reading

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process."""
        assert self._process is not None
        return self._process

    async def ended(self) -> None:
        """Wait until it has ended: it alone, where asyncio's `wait` waits for who else holds its pipes."""
        while self.process.returncode is None:  # noqa: ASYNC110 - there is nothing else to wait on
            await asyncio.sleep(_POLL)

    @property
    def log(self) -> str:
        """What it printed last."""
        return "\n".join((f"{' '.join(map(str, self._command))} said:", *self._log))

    async def listening(self) -> int:
        """Wait until it says that it listens; returns its port. Raises EndedError if it ends before."""
        return await self._port

    async def serves(self, port: int) -> None:
        """Wait until something takes connections on a port. Raises EndedError if the process ends before."""
        while not _listens(port):
            if self.process.returncode is not None:
                raise EndedError(self.log)
            await asyncio.sleep(_POLL)

    async def ask(self, line: str) -> str:
        """Write a line to it; returns the line that it answers. Raises EndedError if it ends before."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        answer = await self.process.stdout.readline()
        if not answer:
            raise EndedError(self.log)
        return answer.decode().rstrip()

    async def output(self) -> bytes:
        """Wait until it has ended; returns what it printed on stdout. Raises EndedError if it failed."""
        assert self.process.stdout is not None
        out = await self.process.stdout.read()
        await self.succeeded()
        return out

    async def succeeded(self) -> None:
        """Wait until it has ended. Raises EndedError if it failed."""
        assert self._reading is not None
        await self._reading
        if await self.process.wait():
            raise EndedError(self.log)

    @property
    def cpu(self) -> float:
        """Seconds of CPU it has used, in all its threads."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def resident(self, which: str = "VmRSS") -> float:
        """MiB of memory it holds now, or the most it ever held (`VmHWM`)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(f"{which}:"))
        return int(line.split()[1]) / 1024

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for raw in stream:
            line = raw.decode(errors="replace").rstrip()
            self._log.append(line)
            if line.startswith(_LISTENING) and not self._port.done():
                self._port.set_result(int(line.rpartition(":")[2]))
        if not self._port.done():
            self._port.set_exception(EndedError(self.log))
            self._port.exception()  # most processes are never asked for a port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


async def while_alive(work: Coroutine[Any, Any, _Result], *processes: Process) -> _Result:
    """Do some work that needs these processes. Raises EndedError as soon as one of them ends."""
    working = asyncio.ensure_future(work)
    ends = [asyncio.ensure_future(each.ended()) for each in processes]
    try:
        await asyncio.wait([working, *ends], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise EndedError(next(one.log for one, end in zip(processes, ends, strict=True) if end.done()))
        return working.result()
    finally:
        for each in (working, *ends):
            each.cancel()
        await asyncio.gather(working, *ends, return_exceptions=True)
