"""What a relay taught: how many mails a connection carries, how many connections it takes, how fast.

Pure: the clock is handed in (seconds that only grow), and nothing here waits. A restart forgets it all.
"""

from collections.abc import Callable

Clock = Callable[[], float]

RELAXES_AFTER = 600.0
"""Seconds without a complaint after which a lowered ceiling rises by a step."""
STEPS = 10
"""In how many steps a ceiling comes back from nothing to what is configured, at most."""
PATIENCE = 1.0
"""The longest that a mail waits for its turn, in seconds; one that would wait longer is put off."""

_SPAN = 10.0  # seconds over which the rate is measured, and after which it is raised
_RAISE = 0.05  # of the rate that was complained of
_SLOWEST = 0.1  # mails a second
_UNDER_WAY = 5.0  # seconds in which more complaints are of mails that were sent too fast already


class Ceiling:
    """A number that a relay brings down, and that rises again while it doesn't complain.

    It falls to what the relay was seen to bear, never below 1. For every ten minutes since, a tenth of what
    is configured (at least 1) is added, until it is what is configured.
    """

    def __init__(self, configured: int, clock: Clock) -> None:
        self._configured = configured
        self._clock = clock
        self._low = configured
        self._since = 0.0

    @property
    def now(self) -> int:
        """What is allowed at this time."""
        if self._low == self._configured:
            return self._configured
        steps = int((self._clock() - self._since) // RELAXES_AFTER)
        return min(self._configured, self._low + steps * max(1, self._configured // STEPS))

    def lower(self, borne: int) -> bool:
        """Bring it down to what the relay bore. Returns whether that is news."""
        before = self.now
        self._low, self._since = max(1, min(before, borne)), self._clock()
        return self._low < before


class Pace:
    """How many mails a second a relay takes: any number, until it complains.

    A complaint halves the rate: what was allowed, or else what went out in the seconds before. For every
    ten seconds without another, a twentieth of the rate that was complained of is added; at twice that rate
    there is no limit any more. It never falls below a mail in ten seconds, and complaints within five
    seconds count as one: they are about mails that were under way together.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._complained_of = 0.0
        self._since = 0.0
        self._next = 0.0
        self._span_began = clock()
        self._sent = 0
        self._measured = 0.0

    @property
    def limit(self) -> float | None:
        """Mails a second that are allowed at this time; None: any number."""
        if not self._complained_of:
            return None
        raises = (self._clock() - self._since) // _SPAN
        limit = max(_SLOWEST, self._complained_of * (0.5 + _RAISE * raises))
        return limit if limit < 2 * self._complained_of else None

    def turn(self) -> float:
        """Take the next turn, and say in how many seconds it is; more than PATIENCE: it was not taken."""
        now, limit = self._clock(), self.limit
        wait = max(0.0, self._next - now) if limit else 0.0
        if wait <= PATIENCE:
            self._count(now)
            if limit:
                self._next = now + wait + 1 / limit
        return wait

    def complain(self) -> bool:
        """Take a complaint. Returns whether it counts as a new one."""
        now = self._clock()
        if self._complained_of and now - self._since < _UNDER_WAY:
            return False
        self._complained_of = max(self.limit or self._rate(now), _SLOWEST)
        self._since = self._next = now
        return True

    def _count(self, now: float) -> None:
        if now - self._span_began >= _SPAN:
            self._measured = self._rate(now) if now - self._span_began < 2 * _SPAN else 0.0
            self._span_began, self._sent = now, 0
        self._sent += 1

    def _rate(self, now: float) -> float:
        """Mails a second, over this span or the one before it, whichever was faster."""
        return max(self._measured, self._sent / max(1.0, now - self._span_began))
