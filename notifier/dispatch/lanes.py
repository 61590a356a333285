"""One lane as the claim window knows it: what waits and flies, and all that may hold it up."""

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf

from msgspec import Struct

from notifier.config import BreakerSection
from notifier.dispatch.breaker import Breaker
from notifier.dispatch.limits import UNLIMITED, Limits
from notifier.model import Claim, Priority

PAUSED = "lane_paused"
RETRY_AFTER = "retry_after"
BREAKER_OPEN = "breaker_open"
"""Why a lane waits: its provider is at fault; its receiver asked for time; its receiver is in trouble."""

_PROBES = 2
"""Jobs held of a lane whose breaker has opened: one to try it with, and the next."""
_PRIORITIES = len(Priority)


class Stop(Struct, frozen=True):
    """That a lane waits, at no cost to its jobs: a stable word, a sentence, and until when."""

    reason: str
    detail: str
    until: float
    """Seconds since the epoch, for people."""


class Lane:
    """What the window knows of one lane. Counts are by priority."""

    def __init__(self, name: str, limits: Limits, now: float) -> None:
        self.name = name
        self.waiting: tuple[deque[Claim], ...] = tuple([deque() for _ in range(_PRIORITIES)])
        self.held = [0] * _PRIORITIES
        self.in_flight = [0] * _PRIORITIES
        self.faults = 0
        """The provider's faults in a row."""
        self.stop: Stop | None = None
        self.resuming: asyncio.TimerHandle | None = None
        self.waking: asyncio.TimerHandle | None = None
        """Set while a timer runs to the time of its next attempt by its rate."""
        self.breaker: Breaker | None = None
        self.limits = limits
        self.bucket = limits.bucket(now)
        self.most_held = inf
        """How many of its jobs, in flight or not, the window has use for."""
        self.unlimited = True
        """Whether nothing but its share holds it up: what most lanes are, and are quicker for."""
        if limits != UNLIMITED:
            self._look()

    def hold_to(self, limits: Limits, now: float) -> None:
        """Change what it is held to."""
        before, self.limits = self.bucket, limits
        self.bucket = limits.bucket(now)
        if self.bucket is not None and before is not None:
            self.bucket.begin_with(before.left(now))  # new limits are no new burst
        self._look()

    def failed(self, rules: BreakerSection, now: float) -> float | None:
        """Count a failure of its receiver; where that opens its breaker, return for how many seconds."""
        if self.breaker is None:
            self.breaker = Breaker(rules)
        seconds = self.breaker.failed(now)
        self._look()
        return seconds

    def succeeded(self, now: float) -> None:
        """Count a success: it has no faults, and its breaker closes."""
        self.faults = 0
        if self.breaker is not None and self.breaker.succeeded(now):
            self.breaker = None
        self._look()

    def forget_waking(self) -> None:
        """Let no timer run to the time of its next attempt any more."""
        if self.waking is not None:
            self.waking.cancel()
            self.waking = None

    def set_no_timer(self) -> None:
        """Let no timer run at all: nothing goes out any more."""
        self.forget_waking()
        if self.resuming is not None:
            self.resuming.cancel()

    def resumed(self) -> None:
        """What it waited for is over."""
        self.stop = self.resuming = None
        if self.breaker is not None:
            self.breaker.waited()
        self._look()

    @property
    def flying(self) -> int:
        """Its attempts under way."""
        return sum(self.in_flight)

    @property
    def most_in_flight(self) -> float:
        """How many attempts may be under way at once, beside its fair share."""
        if self.breaker is not None and self.breaker.tripped:
            return 1
        return inf if self.limits.max_in_flight is None else self.limits.max_in_flight

    def may_go(self, now: float) -> bool:
        """Whether one more of its jobs may be handed out, as far as the lane itself is concerned."""
        if self.unlimited:
            return self.stop is None
        if self.stop is not None or self.limits.held is not None or self.flying >= self.most_in_flight:
            return False
        return self.bucket is None or not self.bucket.wait(now)

    def wants(self, now: float) -> float:
        """How many more of its jobs the window has use for."""
        more = self.most_held - sum(self.held)
        if self.bucket is not None:
            more = min(more, self.bucket.soon(now) - sum(map(len, self.waiting)))
        return max(0, more)

    def has_enough(self, now: float) -> bool:
        """Whether that is less than it holds: more can wait until a job leaves it, or its rate allows."""
        if sum(self.held) * 2 > self.most_held:
            return True
        if self.bucket is None:
            return False
        soon = self.bucket.soon(now)
        return not soon or sum(map(len, self.waiting)) * 2 > soon

    def too_early(self, now: float) -> float:
        """Seconds until its rate allows the next attempt; 0 where it waits for something else."""
        if self.bucket is None or self.stop is not None or not any(self.waiting):
            return 0.0
        return self.bucket.wait(now)

    def too_early_for_more(self, now: float) -> float:
        """Seconds until its rate has use for one of its jobs; 0 where it has, or one waits already."""
        return 0.0 if self.bucket is None or any(self.waiting) else self.bucket.until_soon(now)

    @property
    def in_use(self) -> bool:
        """Whether it holds jobs or is stopped: such a lane can't be forgotten."""
        return any(self.held) or self.stop is not None or self.waking is not None

    def is_idle(self, timer: Callable[[], float]) -> bool:
        """Whether nothing is left that must be remembered. `timer` is a steady clock, in seconds."""
        if self.in_use or self.faults or self.breaker is not None:
            return False
        return self.bucket is None or self.bucket.is_full(timer())

    def _look(self) -> None:
        """Take note of what follows from its limits and its breaker."""
        tripped = self.breaker is not None and self.breaker.tripped
        self.most_held = min(self.limits.most_held, _PROBES) if tripped else self.limits.most_held
        self.unlimited = self.limits == UNLIMITED and self.breaker is None
