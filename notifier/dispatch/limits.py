"""How much one lane, and one priority, may take of what all share; and what a lane is held to by itself.

The first needs no number set by anyone. A lane may hold no more than what is left free (dynamic
thresholds: Choudhury & Hahne, IEEE/ACM ToN 6(2), 1998): alone it gets half of everything, and n lanes
that hang leave 1/(n+1) to the others. A priority leaves a part to those above it.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from msgspec import Struct

from notifier.config import Lanes
from notifier.model import Endpoint, EndpointState, rfc3339

_RESERVED = (0.0, 1 / 16, 1 / 4)
"""What each priority leaves, high to low."""
_INSTANT = 1e-8
SOON = 1.0
"""Seconds ahead that the window holds of a lane with a rate: what may go only later waits in the store."""
_AHEAD = 2
"""Times its cap in flight that the window holds of a lane."""


def lane_may_take(taken: int, free: int) -> bool:
    """Whether a lane that has `taken` of something may take one more while `free` are left."""
    return taken < free


def left_by(priority: int, total: int) -> int:
    """How many of `total` a priority leaves to those above it."""
    return int(total * _RESERVED[priority])


def room_for(priority: int, free: int, total: int) -> int:
    """How many of `total` a priority may still take while `free` are left."""
    return max(0, free - left_by(priority, total))


class Held(Struct, frozen=True):
    """Why nothing of a lane goes out until an operator says so: a stable word, and a sentence."""

    reason: str
    detail: str


class Limits(Struct, frozen=True):
    """What one lane is held to, beside its fair share. None: nothing."""

    rate: float | None = None
    """Attempts a second."""
    burst: float | None = None
    """Attempts that may go at once after a quiet while; None: those of one second, and at least one."""
    max_in_flight: int | None = None
    held: Held | None = None

    @property
    def most_held(self) -> float:
        """How many of its jobs, in flight or not, the window has use for: more would only lie there."""
        if self.held is not None:
            return 0
        return math.inf if self.max_in_flight is None else _AHEAD * self.max_in_flight

    @property
    def most_at_first(self) -> float:
        """The same of a lane that was quiet."""
        return (
            self.most_held if self.rate is None else min(self.most_held, int(self.whole + SOON * self.rate))
        )

    @property
    def whole(self) -> float:
        """Attempts that may go at once after a quiet while, where there is a rate."""
        return max(1.0, (self.rate or 0.0) if self.burst is None else self.burst)

    def bucket(self, now: float) -> "Bucket | None":
        """The bucket that keeps its rate, full; `now` in the seconds of any steady clock."""
        if self.rate is None:
            return None
        return Bucket(self.rate, self.whole, now)


UNLIMITED = Limits()
LimitsOf = Callable[[str], Limits]
"""Says what the lane of a name is held to."""


class LaneLimits:
    """What every lane is held to: by its endpoint, else by the first of `[[lanes]]` that names it."""

    def __init__(self, lanes: Sequence[Lanes] = ()) -> None:
        self._configured = [(each, Limits(each.rate_limit, each.burst, each.max_in_flight)) for each in lanes]
        self._endpoints: dict[str, Limits] = {}
        self.configured = lru_cache(maxsize=4096)(self._look_up)

    def __call__(self, lane: str) -> Limits:
        """Say what the lane of a name is held to."""
        return self._endpoints.get(lane) or self.configured(lane)

    def _look_up(self, lane: str) -> Limits:
        return next((limits for each, limits in self._configured if each.names(lane)), UNLIMITED)

    def put(self, endpoint: Endpoint) -> None:
        """Take in an endpoint as it stands now."""
        if endpoint.deleted:
            self._endpoints.pop(endpoint.lane, None)
            return
        beside = self.configured(endpoint.lane)
        own_rate = endpoint.rate_limit is not None
        self._endpoints[endpoint.lane] = Limits(
            rate=endpoint.rate_limit if own_rate else beside.rate,
            burst=None if own_rate else beside.burst,
            max_in_flight=beside.max_in_flight if endpoint.max_in_flight is None else endpoint.max_in_flight,
            held=_held(endpoint),
        )


def _held(endpoint: Endpoint) -> Held | None:
    if endpoint.state is EndpointState.ENABLED:
        return None
    why = f" ({endpoint.state_reason})" if endpoint.state_reason else ""
    since = rfc3339(endpoint.state_changed_at)
    return Held(
        f"endpoint_{endpoint.state}",
        f"Endpoint {endpoint.id} is {endpoint.state}{why} since {since}; its jobs wait until it is resumed "
        f"(notifier endpoints resume {endpoint.id}).",
    )


class Bucket:
    """A token bucket: in any t seconds it gives at most `burst + rate * t`."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until one may be taken; 0: now."""
        seconds = (1 - self.left(now)) / self._rate
        # One that was slept to its end is over, whatever the rounding: a timer would be set again and again.
        return seconds if seconds > _INSTANT else 0.0

    def until_soon(self, now: float) -> float:
        """Seconds until there is at least one `soon`."""
        return max(0.0, (1 - self.left(now)) / self._rate - SOON)

    def soon(self, now: float) -> int:
        """How many may be taken within `SOON`, those that may now among them."""
        return int(self.left(now) + SOON * self._rate)

    def is_full(self, now: float) -> bool:
        """Whether there is nothing to remember: a new one would be the same."""
        return self.left(now) >= self._burst

    def take(self, now: float) -> None:
        """Take one; only where `wait` is 0."""
        self._fill(now)
        self._tokens -= 1

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)

    def left(self, now: float) -> float:
        """How many may be taken at once."""
        self._fill(now)
        return self._tokens

    def begin_with(self, tokens: float) -> None:
        """Hold no more than so many to begin with."""
        self._tokens = min(self._tokens, tokens)
