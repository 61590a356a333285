"""Deadlines of all that is under way, kept by one timer."""

import asyncio
from math import inf
from typing import Generic, Protocol, TypeVar

AT_LEAST = 0.1
"""Seconds between two looks at what is late: by as much may a deadline be passed."""

_TICK = 0.001
"""What a loop's timers are exact to: uvloop's may ring that much early."""


class Dated(Protocol):
    """What must end in time."""

    until: float
    """By when, in the loop's time."""

    def expire(self) -> None:
        """End it: it is late."""


_Dated = TypeVar("_Dated", bound=Dated)


class Deadlines(Generic[_Dated]):
    """Expires what is late. A timer for each would cost more than all else that its request is kept by.

    Usually all have as much time, so that the one timer is set to the oldest's, and seldom moved.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._due = inf
        self.under_way: set[_Dated] = set()
        self.forget = self.under_way.discard
        """Watch over one no longer: it ended."""

    def watch(self, dated: _Dated) -> None:
        """Expire it once it is late, unless it is forgotten before."""
        self.under_way.add(dated)
        if dated.until < self._due:
            self._set(dated.until)

    def close(self) -> None:
        """Watch over nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer, self._due = None, inf
        now = self._loop.time()
        for late in [each for each in self.under_way if each.until <= now + _TICK]:
            self.forget(late)
            late.expire()
        if self.under_way:
            self._set(max(now + AT_LEAST, min(each.until for each in self.under_way)))
