"""A lane's circuit breaker: a receiver in trouble is let alone for a while, then tried with one attempt.

Three rules. It opens after so many failures in a row, or once most of a window's attempts failed. It
stays open for a time that grows with every opening in a row. Then one attempt at a time is let through:
a success closes it, a failure opens it again. Pure: time is handed in, in seconds of any steady clock.
"""

from collections import deque

from notifier.config import BreakerSection

_STEPS = 12
"""Parts that the window moves on by."""


class Breaker:
    """The breaker of one lane, from its first failure on: before that there is nothing to remember."""

    def __init__(self, rules: BreakerSection) -> None:
        self.half_open = False
        """Whether it lets one attempt through at a time."""
        self.openings = 0
        """How often it opened in a row, without a success since."""
        self._rules = rules
        self._in_a_row = 0
        self._steps: deque[list[float]] = deque()
        """Of each step of the window: when it began, its attempts, and how many of them failed."""

    @property
    def tripped(self) -> bool:
        """Whether it has opened and not closed since."""
        return self.openings > 0

    def failed(self, now: float) -> float | None:
        """Count a failure. Where that opens it: for how many seconds; else None."""
        self._count(now, failed=1)
        self._in_a_row += 1
        if self.tripped and not self.half_open:
            return None  # it was under way when the breaker opened
        if not self._rules.open_for or not (self.half_open or self._has_had_enough()):
            return None
        self.openings += 1
        self.half_open = False
        return self._rules.open_for[min(self.openings, len(self._rules.open_for)) - 1]

    def waited(self) -> None:
        """Its time is over: from now on it lets one attempt through at a time."""
        self.half_open = self.tripped

    def succeeded(self, now: float) -> bool:
        """Count a success, which closes it. Returns whether there is nothing left to remember."""
        self._in_a_row = 0
        if self.tripped:
            self.openings, self.half_open = 0, False
            self._steps.clear()
        self._count(now, failed=0)
        return not any(failed for _, _, failed in self._steps)

    def _has_had_enough(self) -> bool:
        if self._in_a_row >= self._rules.failures:
            return True
        attempts = sum(step[1] for step in self._steps)
        failed = sum(step[2] for step in self._steps)
        return attempts >= self._rules.window_attempts and failed >= attempts * self._rules.window_failed

    def _count(self, now: float, *, failed: int) -> None:
        step = self._rules.window / _STEPS
        while self._steps and self._steps[0][0] <= now - self._rules.window:
            self._steps.popleft()
        if not self._steps or now - self._steps[-1][0] >= step:
            self._steps.append([now, 0, 0])
        self._steps[-1][1] += 1
        self._steps[-1][2] += failed
