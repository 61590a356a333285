"""Ctrl-C in a program that works in turns: never lost, and never in the way of closing up."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any

import click
import pytest

from notifier.cli.input import Input
from notifier.cli.loop import TurnLoop


class Resource:
    """Something that is opened and closed on the loop."""

    def __init__(self) -> None:
        self.open = False

    async def __aenter__(self) -> None:
        await asyncio.sleep(0)
        self.open = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.sleep(0)
        self.open = False


async def interrupted_at_the_end() -> str:
    """Be interrupted when all is done."""
    signal.raise_signal(signal.SIGINT)
    return "done"


async def interrupted_while_it_waits() -> None:
    """Be interrupted while something is waited for, for ever."""
    asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
    await asyncio.Event().wait()


async def interrupted_and_tells_it_otherwise() -> None:
    """Take the interruption for another failure, as a library may."""
    try:
        await interrupted_while_it_waits()
    except asyncio.CancelledError:
        raise ConnectionError from None


@pytest.mark.parametrize(
    "work", [interrupted_at_the_end, interrupted_while_it_waits, interrupted_and_tells_it_otherwise]
)
def test_an_interrupted_turn_ends_in_a_keyboard_interrupt(
    work: Callable[[], Coroutine[Any, Any, object]],
) -> None:
    """Whatever the work makes of it; and what is open is closed on the same loop after."""
    resource = Resource()
    before = signal.getsignal(signal.SIGINT)
    with TurnLoop() as loop, pytest.raises(KeyboardInterrupt), loop.entered(resource):
        loop.run(work())
    assert not resource.open
    assert signal.getsignal(signal.SIGINT) is before


def test_between_turns_ctrl_c_comes_at_once() -> None:
    """Nothing is waited for."""
    with TurnLoop() as loop:
        assert loop.run(asyncio.sleep(0, "result")) == "result"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert loop.run(asyncio.sleep(0, "again")) == "again"


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    """Its size is known, its reads are bounded, and the end reads as nothing."""
    file = tmp_path / "events"
    file.write_bytes(b"abcdef")
    with Input(str(file)) as stream:
        assert stream.size == 6
        assert [stream.read1(4) for _ in range(3)] == [b"abcd", b"ef", b""]


def test_a_pipe_gives_what_it_has(tmp_path: Path) -> None:
    """A read returns what was written so far; how much will come, nobody knows."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = os.open(pipe, os.O_RDWR)
    with Input(str(pipe)) as stream:
        assert stream.size is None
        os.write(writing, b"a")
        assert stream.read1(10) == b"a"
    os.close(writing)


def test_a_signal_that_comes_before_a_read_keeps_it_from_blocking(tmp_path: Path) -> None:
    """Even one that was noticed by nobody yet: the read looks for it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = os.open(pipe, os.O_RDWR)
    handled: list[int] = []

    def handle(number: int, _frame: object) -> None:
        handled.append(number)
        os.write(writing, b"late")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with Input(str(pipe)) as stream:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stream.read1(10) == b"late"
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.close(writing)
    assert handled == [signal.SIGUSR1]


def test_a_file_that_is_not_there_is_a_usage_error() -> None:
    """It is named."""
    with pytest.raises(click.UsageError, match="/nowhere: No such file"):
        Input("/nowhere")
