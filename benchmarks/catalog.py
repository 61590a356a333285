"""The peers, and the settings that each is tried with on two cores before the best one is measured."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from msgspec import Struct, field

from benchmarks.parts import Plan
from benchmarks.servers import postgresql, redis, sqlite

_SYNC = ("jinja2", "msgspec", "pycurl")
_ASYNC = ("aiohttp", "jinja2", "msgspec", "uvloop")


class Setting(Struct, frozen=True):
    """How a peer's workers are run."""

    name: str
    command: Sequence[str]
    """The program of the peer's environment, and what it is given."""
    processes: int = 1
    """How many of the command: of a peer that has no parent process for its workers."""
    concurrency: int = 0
    """For the peer's module, where the command takes none."""


class Peer(Struct, frozen=True, kw_only=True):
    """One peer; its program is `benchmarks/peers/MODULE.py`, which says what is and isn't fair about it."""

    name: str
    module: str
    packages: Sequence[str]
    store: Callable[[Plan], AbstractAsyncContextManager[str]]
    settings: Sequence[Setting]
    prepare: Sequence[str] = field(default_factory=tuple)
    """Run once on a fresh store."""


def _celery(pool: str, concurrency: int) -> Setting:
    options = f"--loglevel=ERROR --pool={pool} --concurrency={concurrency}"
    options += " --without-gossip --without-mingle --without-heartbeat"
    return Setting(
        f"{concurrency} {pool}", ("celery", "--app=benchmarks.peers.celery", "worker", *options.split())
    )


def _dramatiq(threads: int) -> Setting:
    command = ("dramatiq", "benchmarks.peers.dramatiq", "--processes=2", f"--threads={threads}")
    return Setting(f"2 processes × {threads} threads", command)


def _arq(jobs: int) -> Setting:
    command = ("arq", "benchmarks.peers.arq.WorkerSettings")
    return Setting(f"2 processes × {jobs} jobs", command, processes=2, concurrency=jobs)


def _taskiq(tasks: int) -> Setting:
    options = f"--workers=2 --max-async-tasks={tasks} --ack-type=when_saved --log-level=ERROR"
    return Setting(
        f"2 processes × {tasks} tasks",
        ("taskiq", "worker", "benchmarks.peers.taskiq:broker", *options.split()),
    )


def _procrastinate(jobs: int) -> Setting:
    options = f"--app=benchmarks.peers.procrastinate.app worker --concurrency={jobs}"
    return Setting(f"2 processes × {jobs} jobs", ("procrastinate", *options.split()), processes=2)


def _huey(workers: int, kind: str) -> Setting:
    options = f"--workers={workers} --worker-type={kind} --delay=0.005 --max-delay=0.02 --quiet --no-periodic"
    return Setting(
        f"{workers} {kind} workers", ("huey_consumer", "benchmarks.peers.huey.huey", *options.split())
    )


_HUEY = (_huey(2, "process"), _huey(4, "process"), _huey(16, "thread"))

PEERS = (
    Peer(
        name="Celery on Redis",
        module="celery",
        packages=("celery[redis]", *_SYNC),
        store=redis,
        settings=(_celery("prefork", 2), _celery("prefork", 4), _celery("threads", 16)),
    ),
    Peer(
        name="dramatiq on Redis",
        module="dramatiq",
        packages=("dramatiq[redis]", *_SYNC),
        store=redis,
        settings=(_dramatiq(8), _dramatiq(2), _dramatiq(32)),
    ),
    Peer(
        name="arq on Redis",
        module="arq",
        packages=("arq", *_ASYNC),
        store=redis,
        settings=(_arq(10), _arq(64)),
    ),
    Peer(
        name="taskiq on Redis",
        module="taskiq",
        packages=("taskiq", "taskiq-redis", *_ASYNC),
        store=redis,
        settings=(_taskiq(64), _taskiq(16)),
    ),
    Peer(
        name="procrastinate on PostgreSQL",
        module="procrastinate",
        packages=("procrastinate", "psycopg[binary]", *_ASYNC),
        store=postgresql,
        settings=(_procrastinate(16), _procrastinate(4)),
        prepare=("procrastinate", "--app=benchmarks.peers.procrastinate.app", "schema", "--apply"),
    ),
    Peer(
        name="huey on SQLite",
        module="huey",
        packages=("huey", "redis", *_SYNC),
        store=sqlite,
        settings=_HUEY,
    ),
    Peer(
        name="huey on Redis",
        module="huey",
        packages=("huey", "redis", *_SYNC),
        store=redis,
        settings=_HUEY,
    ),
)
