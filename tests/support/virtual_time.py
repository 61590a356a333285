"""An event loop whose time stands still until the test lets it pass: hours of timers in a moment."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop with a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self.now

    @property
    def next_timer(self) -> float | None:
        """When the next timer is due, or None where none is set."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # it has no other name
        return min((each.when() for each in scheduled if not each.cancelled()), default=None)


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine on a loop of virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
