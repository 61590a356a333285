"""An event loop for a program that works in turns: reads, which block, and calls, which are awaited."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import FrameType
from typing import Any, Self, TypeVar

_Result = TypeVar("_Result")


class TurnLoop:
    """Runs one coroutine at a time. Ctrl-C is a KeyboardInterrupt, whenever it comes.

    `asyncio.Runner.run` makes a cancellation of it, which is lost when the work is done just then; left to
    itself it would break the loop off in its middle, and nothing could be closed any more.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._task: asyncio.Task[Any] | None = None
        self._interrupted = False

    def __enter__(self) -> Self:
        self._loop = self._runner.get_loop()
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)
        self._runner.close()

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run to its end. Raises KeyboardInterrupt where Ctrl-C came, whatever the work made of it."""
        task: asyncio.Task[_Result] = self._loop.create_task(work)
        self._task = task
        try:
            result = self._loop.run_until_complete(task)
        except BaseException:
            self._task = None
            self._raise_if_interrupted()
            raise
        self._task = None
        self._raise_if_interrupted()
        return result

    @contextmanager
    def entered(self, resource: AbstractAsyncContextManager[object]) -> Iterator[None]:
        """Hold an asynchronous resource open, in turns of its own."""
        self.run(resource.__aenter__())
        try:
            yield
        finally:
            self.run(resource.__aexit__(None, None, None))

    def _raise_if_interrupted(self) -> None:
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt from None

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        if self._task is None:
            raise KeyboardInterrupt
        self._interrupted = True
        # By way of the loop, which wakes it too: this runs between any two steps of whatever it is doing.
        self._loop.call_soon_threadsafe(self._task.cancel)
