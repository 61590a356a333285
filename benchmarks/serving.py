"""`notifier serve` in a folder of its own, and what is asked of it over HTTP."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from msgspec import Struct

from benchmarks import events
from benchmarks.parts import Plan
from benchmarks.processes import HOST, NOTIFIER, Process
from benchmarks.wire import Load, Sink

EVENTS_PATH = "/v1/events"
_POLL = 0.01

_WEBHOOKS = """
[server]
port = 0

[channels.webhook]
allow_networks = ["127.0.0.1/32"]
secret = "{secret}"

[[routes]]
event = "order.*"
channel = "webhook"
url = "{hook}"
template = "order"
"""
"""Everything else is as it comes: 64 workers, `synchronous=FULL`."""


class Setup(Struct, frozen=True):
    """What is written into the folder before the process starts."""

    config: str
    templates: Mapping[str, str]
    """By path below `templates/`."""


def webhooks(port: int) -> Setup:
    """One route: every event of `events.ROUTED` is a signed webhook to a port of loopback."""
    config = _WEBHOOKS.format(secret=events.SECRET, hook=hook(port))
    return Setup(config, {"order/payload.json": events.PAYLOAD})


def hook(port: int) -> str:
    """The url of a receiver on loopback."""
    return f"http://{HOST}:{port}/hook"


class Served(Struct, frozen=True):
    """A process that serves, and where."""

    process: Process
    port: int

    def load(self, plan: Plan, body: bytes, connections: int | None = None) -> Load:
        """A closed load of one event after the other, not connected yet."""
        return Load(HOST, self.port, body, path=EVENTS_PATH, connections=connections or plan.connections)

    async def none_in(self, *statuses: str) -> None:
        """Wait until no job is in any of these states."""
        while any([await self.any_in(status) for status in statuses]):  # noqa: ASYNC110
            await asyncio.sleep(_POLL)  # from outside there is nothing to wait on

    async def any_in(self, status: str) -> bool:
        """Whether any job is in a state."""
        url = f"http://{HOST}:{self.port}/v1/admin/jobs?status={status}&limit=1"
        async with aiohttp.request("GET", url) as response:
            return bool((await response.json())["jobs"])


@asynccontextmanager
async def serving(
    setup: Setup,
    *,
    cpus: Collection[int],
    within: Path | None,
    store: Path | None = None,
    starting: Callable[[], None] = lambda: None,
) -> AsyncIterator[Served]:
    """Run `notifier serve` on an empty store, or on a copy of a folder that has one.

    `starting` is called when everything is ready but the process.
    """
    with TemporaryDirectory(prefix="notifier-bench-", dir=within) as name:
        folder = Path(name)
        _prepare(folder, setup)
        if store is not None:
            await asyncio.to_thread(_copied, store, folder)
        starting()
        command = (NOTIFIER, "serve", "--log-level", "warning")
        async with Process(*command, cpus=cpus, folder=folder) as process:
            yield Served(process, await process.listening())


def _prepare(folder: Path, setup: Setup) -> None:
    (folder / "config.toml").write_text(setup.config)
    for path, text in setup.templates.items():
        file = folder / "templates" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


async def delivered(served: Served, load: Load, sink: Sink, count: int) -> None:
    """Post so many events; return once all of them are delivered, and recorded as such.

    What the sink has is COMPLETED once it is not PROCESSING: were it due again, the sink would get too many.
    """
    wanted = sink.count + count
    await load.post(count)
    await sink.reached(wanted)
    await served.none_in("PROCESSING")


def _copied(store: Path, folder: Path) -> None:
    """Copy a store, down to the disk, so that writing it out does not disturb what is measured."""
    shutil.copytree(store, folder, dirs_exist_ok=True)
    for file in folder.iterdir():
        if file.is_file():
            with file.open("rb") as copied:
                os.fsync(copied.fileno())
