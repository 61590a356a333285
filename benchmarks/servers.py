"""The servers that peers keep their jobs in: Debian's, each in a throw-away folder on a port of loopback."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.parts import Plan
from benchmarks.processes import AS_NOBODY, HOST, Process, free_port, installed

NEEDS = {"redis-server": "redis-server", "initdb": "postgresql", "postgres": "postgresql"}


@asynccontextmanager
async def redis(plan: Plan) -> AsyncIterator[str]:
    """Run a Redis that syncs its append-only file at each write; gives its url."""
    port = free_port()
    with plan.scratch() as folder:
        options = {
            "bind": HOST,
            "port": str(port),
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "auto-aof-rewrite-percentage": "0",
        }
        given = [word for name, value in options.items() for word in (f"--{name}", value)]
        async with Process(installed("redis-server"), *given, cpus=plan.all_cpus) as process:
            await process.serves(port)
            yield f"redis://{HOST}:{port}/0"


@asynccontextmanager
async def postgresql(plan: Plan) -> AsyncIterator[str]:
    """Run a PostgreSQL as it comes, so synced at each commit, as nobody where we are root; gives its url."""
    port = free_port()
    as_nobody = AS_NOBODY if os.geteuid() == 0 else ()
    with plan.scratch() as folder:
        if as_nobody:
            shutil.chown(folder, "nobody", "nogroup")
        data = folder / "data"
        making = (installed("initdb"), "--auth=trust", "--username=peers", "--no-sync", f"--pgdata={data}")
        async with Process(*as_nobody, *making, cpus=plan.all_cpus, folder=folder) as process:
            await process.succeeded()
        await asyncio.to_thread(os.sync)
        running = (installed("postgres"), "-D", data, "-h", HOST, "-p", str(port), "-k", folder)
        async with Process(
            *as_nobody, *running, cpus=plan.all_cpus, folder=folder, stop=signal.SIGINT
        ) as process:
            await process.serves(port)
            yield f"postgresql://peers@{HOST}:{port}/postgres"


@asynccontextmanager
async def sqlite(plan: Plan) -> AsyncIterator[str]:
    """Give the path of a SQLite file that is not there yet."""
    with plan.scratch() as folder:
        yield str(folder / "jobs.db")
