"""How the installed command ends: what is in flight is finished, the rest costs nothing and comes again."""

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.database import integrity, rows
from support.program import Program
from support.receiver import Line, Receiver, answer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

IN_FLIGHT = 4
"""Half of the workers: the share of the one lane that there is."""
EVENTS = 12


class Gate:
    """A receiver's script: it takes its time until it is opened."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    async def __call__(self, line: Line) -> None:
        """Answer once the gate is open."""
        await self._open.wait()
        await answer()(line)

    def open(self) -> None:
        """Let all through from now on."""
        self._open.set()


def configure(folder: Path, receiver: Receiver, *, drain_timeout: str = "20s") -> Path:
    """Write a configuration that delivers to a receiver on loopback, with eight workers."""
    path = folder / "config.toml"
    path.write_text(
        f"""
        [workers]
        concurrency = {2 * IN_FLIGHT}
        drain_timeout = "{drain_timeout}"
        [retry]
        schedule = ["1h"]
        [channels.webhook]
        timeout = "50s"
        allow_networks = ["127.0.0.1/32"]
        [[routes]]
        name = "hook"
        event = "order.*"
        channel = "webhook"
        url = "{receiver.url()}"
        """
    )
    return path


def serve(folder: Path) -> Program:
    """The installed command, on a port of its own choice."""
    return Program("serve", "--port", "0", cwd=folder)


async def post(url: str, events: int = 1) -> tuple[int, Any, Any]:
    """Post so many events in one call; returns status, headers, and body."""
    body = [{"type": "order.paid", "data": {"number": number}} for number in range(events)]
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/events", json=body) as response:
        return response.status, response.headers, await response.json(content_type=None)


async def loaded(program: Program, receiver: Receiver) -> list[str]:
    """Post events until workers are at all that they may; returns the ids of the jobs."""
    status, _, events = await post(await program.listening(), EVENTS)
    assert status == 202
    await receiver.seen(IN_FLIGHT)
    return [job["id"] for event in events for job in event["jobs"]]


async def draining(program: Program) -> None:
    """Tell it to stop, and wait until it does."""
    program.signal(signal.SIGTERM)
    await program.line('"event": "draining"')


def delivered(receiver: Receiver) -> Counter[str]:
    """How often each job reached the receiver."""
    return Counter(request.headers["webhook-id"] for request in receiver.requests)


def states(folder: Path) -> Counter[tuple[str, int]]:
    """How many jobs are in each state with so many attempts spent, as the file says."""
    return Counter(rows(folder / "notifier.db", "SELECT status, attempts FROM job"))


def attempts(folder: Path) -> int:
    """How many attempts are recorded."""
    ((count,),) = rows(folder / "notifier.db", "SELECT count(*) FROM attempt")
    return int(count)


def files(folder: Path) -> set[str]:
    """What lies in a folder."""
    return {path.name for path in folder.iterdir()}


async def delivered_after_a_restart(folder: Path, receiver: Receiver, jobs: list[str], requests: int) -> None:
    """Start it again on the same file: what was left comes by itself, and all of it ends COMPLETED."""
    async with serve(folder) as program:
        await receiver.seen(requests)
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0
    assert set(delivered(receiver)) == set(jobs)
    assert states(folder) == {("COMPLETED", 1): EVENTS}
    assert integrity(folder / "notifier.db") == ["ok"]


async def test_a_drain_finishes_what_is_in_flight_and_keeps_the_rest(tmp_path: Path) -> None:
    """New events get 503 and when to come again; nothing is delivered twice, nor lost, nor charged for."""
    gate = Gate()
    async with Receiver(gate) as receiver:
        configure(tmp_path, receiver)
        async with serve(tmp_path) as program:
            jobs = await loaded(program, receiver)
            url = await program.listening()
            await draining(program)
            status, headers, problem = await post(url)
            assert (status, problem["status"]) == (503, 503)
            assert int(headers["Retry-After"]) > 0
            gate.open()
            assert await program.ended() == 0
        assert len(receiver.requests) == IN_FLIGHT
        assert states(tmp_path) == {("COMPLETED", 1): IN_FLIGHT, ("PENDING", 0): EVENTS - IN_FLIGHT}
        assert attempts(tmp_path) == IN_FLIGHT
        await delivered_after_a_restart(tmp_path, receiver, jobs, EVENTS)
        assert set(delivered(receiver).values()) == {1}


async def test_a_drain_past_its_time_gives_back_the_rest_without_an_attempt(tmp_path: Path) -> None:
    """It ends on time and with 0; what it cut off is PENDING, due, and has all its attempts left."""
    gate = Gate()
    async with Receiver(gate) as receiver:
        configure(tmp_path, receiver, drain_timeout="200ms")
        async with serve(tmp_path) as program:
            jobs = await loaded(program, receiver)
            await draining(program)
            async with asyncio.timeout(15):
                assert await program.ended() == 0
        assert states(tmp_path) == {("PENDING", 0): EVENTS}
        assert attempts(tmp_path) == 0
        gate.open()
        await delivered_after_a_restart(tmp_path, receiver, jobs, IN_FLIGHT + EVENTS)


async def test_a_second_signal_stops_at_once_and_loses_nothing(tmp_path: Path) -> None:
    """What was in flight is found by the next start, which doesn't wait for its claims to expire."""
    gate = Gate()
    async with Receiver(gate) as receiver:
        configure(tmp_path, receiver)
        async with serve(tmp_path) as program:
            jobs = await loaded(program, receiver)
            await draining(program)
            program.signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                assert await program.ended() == 128 + signal.SIGTERM
        assert attempts(tmp_path) == 0
        gate.open()
        await delivered_after_a_restart(tmp_path, receiver, jobs, IN_FLIGHT + EVENTS)


async def test_a_job_that_waits_for_its_retry_keeps_its_time_over_a_drain(tmp_path: Path) -> None:
    """A restart is no reason to try anything sooner, nor to forget why it failed."""
    async with Receiver(answer(500), answer()) as receiver:
        configure(tmp_path, receiver)
        async with serve(tmp_path) as program:
            assert (await post(await program.listening()))[0] == 202
            await receiver.seen(1)
            program.signal(signal.SIGTERM)
            assert await program.ended() == 0
        query = "SELECT status, attempts, next_attempt_at, error_code FROM job"
        before = rows(tmp_path / "notifier.db", query)
        assert before[0][:2] == ("PENDING", 1)
        async with serve(tmp_path) as program:
            await post(await program.listening())
            await receiver.seen(2)
            program.signal(signal.SIGTERM)
            assert await program.ended() == 0
        assert before[0] in rows(tmp_path / "notifier.db", query)


async def test_an_idle_drain_leaves_one_tidy_file(tmp_path: Path) -> None:
    """Everything is in the database itself when it ends; no log of writes is left to be replayed."""
    async with Receiver() as receiver:
        configure(tmp_path, receiver)
        async with serve(tmp_path) as program:
            await post(await program.listening(), EVENTS)
            await receiver.seen(EVENTS)
            program.signal(signal.SIGTERM)
            assert await program.ended() == 0
    assert states(tmp_path) == {("COMPLETED", 1): EVENTS}
    assert files(tmp_path) == {"config.toml", "notifier.db", "notifier.db.lock"}
