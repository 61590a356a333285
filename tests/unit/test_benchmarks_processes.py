"""The processes of a benchmark: started, asked, watched while they are needed, and gone at the end."""

import asyncio
import os
import select
import sys

import pytest

from benchmarks.catalog import PEERS, Peer
from benchmarks.processes import ROOT, EndedError, Process, free_port, program, while_alive

ECHO = "import sys\nfor line in sys.stdin: print(line.strip().upper(), flush=True)"
SLEEPS = "import threading; threading.Event().wait()"


def python(code: str, *, talks: bool = False) -> Process:
    """A process that runs some Python."""
    return Process(sys.executable, "-c", code, cpus={0}, talks=talks)


async def test_a_process_is_asked_line_by_line() -> None:
    """A line in, a line out."""
    async with python(ECHO, talks=True) as process:
        assert await process.ask("one") == "ONE"
        assert await process.ask("two") == "TWO"


async def test_its_output_is_had_once_it_has_ended() -> None:
    """What it printed on stdout, and not what it logged."""
    async with python("import sys; print('out'); print('log', file=sys.stderr)", talks=True) as process:
        assert await process.output() == b"out\n"


@pytest.mark.parametrize("talks", [False, True])
async def test_what_it_said_is_told_when_it_fails(talks: bool) -> None:
    """An error holds what the process printed, so that nobody has to run it again to learn why."""
    async with python("raise SystemExit('no such server')", talks=talks) as process:
        with pytest.raises(EndedError, match="no such server"):
            await process.succeeded()


async def test_one_that_never_listens_says_why() -> None:
    """A server that ends before it listens fails the wait for its port."""
    async with python("raise SystemExit('the port is taken')") as process:
        with pytest.raises(EndedError, match="the port is taken"):
            await process.listening()
    async with python("raise SystemExit('no configuration')") as process:
        with pytest.raises(EndedError, match="no configuration"):
            await process.serves(free_port())


async def test_its_port_is_read_from_what_it_says() -> None:
    """`listening on http://HOST:PORT`, as `notifier serve` says it."""
    async with python(f"print('listening on http://127.0.0.1:4242', flush=True); {SLEEPS}") as process:
        assert await process.listening() == 4242


async def test_work_ends_as_soon_as_a_process_that_it_needs_does() -> None:
    """Waiting for a worker that is gone would be waiting for ever."""
    async with python(SLEEPS) as lives, python("raise SystemExit('out of memory')") as dies:
        with pytest.raises(EndedError, match="out of memory"):
            await while_alive(asyncio.Event().wait(), lives, dies)


async def test_work_that_is_done_gives_its_result() -> None:
    """As long as all live, only the work counts."""
    async with python(SLEEPS) as process:
        assert await while_alive(asyncio.sleep(0, "done"), process) == "done"


async def test_its_children_are_gone_with_it() -> None:
    """A worker's children, which it never heard of, end with it."""
    spawned = f"subprocess.Popen([sys.executable, '-c', '{SLEEPS}']).pid"
    async with python(
        f"import subprocess, sys; print({spawned}, flush=True)\n{SLEEPS}", talks=True
    ) as process:
        child = os.pidfd_open(int(await process.ask("")))
        assert not _has_ended(child, within=0)
    assert _has_ended(child, within=10)
    os.close(child)


def _has_ended(pidfd: int, within: float) -> bool:
    """Whether a process has ended, or does within some seconds."""
    return bool(select.select([pidfd], [], [], within)[0])


def test_a_program_that_is_not_there_is_not_found() -> None:
    """So that the benchmarks can say which package to install."""
    assert program("no-such-program-anywhere") is None
    assert program("sh") is not None


@pytest.mark.parametrize("peer", PEERS, ids=[peer.name for peer in PEERS])
def test_each_peer_has_its_program_and_settings_to_try(peer: Peer) -> None:
    """Its module stands under benchmarks/peers, and no setting is tried twice."""
    assert (ROOT / "benchmarks" / "peers" / f"{peer.module}.py").is_file()
    assert len({setting.name for setting in peer.settings}) == len(peer.settings) > 0
