"""Whether a relay is at fault and rests, or only one mail is that it can't stand. Knows no connections."""

from collections import OrderedDict

import structlog

from notifier.channels.pacing import Clock
from notifier.channels.replies import About
from notifier.channels.smtp import RelayFault, where
from notifier.config import Relay

RESTS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds that a relay is left alone after the 1st, 2nd … fault in a row."""
LOGIN_REST = 60.0
"""The same after a refused login: too many of those lock an account."""

_SUSPECTED_FOR = 3600.0  # seconds
_SUSPECTS = 1000

_log = structlog.get_logger(__name__)


class Standing:
    """Whether a relay is at fault, or only thought so because of one mail that it can't stand.

    A fault before the relay knew whom a mail is for is the relay's. One after that is taken for the relay's
    too, at no cost to the mail, but the relay rests only when two in a row have it; and a mail that has it
    once more, though others to other recipients were taken in between, has it by itself.
    """

    def __init__(self, relay: Relay, clock: Clock) -> None:
        self._relay = relay
        self._clock = clock
        self._fault: RelayFault | None = None
        self._faults = 0
        self._rests_until = 0.0
        self._taken = 0
        self._refused_at = -1
        self._suspects: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def refuse_while_resting(self) -> None:
        """Raise the last fault while it is fresh. After that one mail at a time tries the relay again."""
        if self._fault is None:
            return
        left = self._rests_until - self._clock()
        if left > 0:
            raise self._fault.again(left)
        self._rests_until = self._clock() + self._rest

    def took(self) -> None:
        """Take note that it took a mail."""
        self._taken += 1
        self.answered()

    def answered(self) -> None:
        """Take note that it works."""
        if self._fault is not None:
            _log.info("relay works again", relay=where(self._relay))
        self._fault, self._faults = None, 0

    def is_the_mails(self, fault: RelayFault, recipient: str) -> bool:
        """Take note of a fault; returns whether it is the mail's own, for others don't have it."""
        if not (fault.phase.of_mail and fault.meaning and fault.meaning.about is About.PROVIDER):
            if fault.rests:
                self._let_rest(fault)
            return False
        if self._was_suspected(recipient):
            self.answered()
            return True
        if self._refused_at == self._taken:
            self._let_rest(fault)
        self._refused_at = self._taken
        return False

    def _was_suspected(self, recipient: str) -> bool:
        """Whether this recipient's mail was refused before, and others were taken since."""
        now = self._clock()
        known = self._suspects.pop(recipient, None)
        if known is not None and now - known[1] < _SUSPECTED_FOR and self._taken > known[0]:
            return True
        self._suspects[recipient] = (self._taken, now)
        if len(self._suspects) > _SUSPECTS:
            self._suspects.popitem(last=False)
        return False

    @property
    def _rest(self) -> float:
        if self._fault is not None and self._fault.code == "relay_auth":
            return LOGIN_REST
        return RESTS[min(self._faults, len(RESTS)) - 1]

    def _let_rest(self, fault: RelayFault) -> None:
        if self._fault is None:
            _log.warning("relay at fault", relay=where(self._relay), code=fault.code, problem=fault.problem)
        self._fault = fault
        self._faults += 1
        fault.wait = self._rest
        self._rests_until = self._clock() + fault.wait
