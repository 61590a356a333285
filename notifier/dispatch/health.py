"""What the outcome of one attempt means for all of its lane: whether it waits, why, and until when.

Three things stop a lane: its provider is at fault, its receiver asked for time (`Retry-After`), or its
receiver is in trouble (the breaker). None of them costs the jobs that wait an attempt.
"""

from collections.abc import Callable

import structlog
from msgspec import Struct

from notifier.channels import Receipt
from notifier.config import Config
from notifier.dispatch.lanes import BREAKER_OPEN, PAUSED, RETRY_AFTER, Stop
from notifier.dispatch.queue import FairQueue
from notifier.errors import DeliveryError, Transient, Unavailable, Withdrawn
from notifier.model import Claim
from notifier.retry import mask, pause_after, printable

_log = structlog.get_logger(__name__)


class LaneVerdict(Struct, frozen=True):
    """What became of the lane: until when it is stopped (0: it isn't), and the claims it gives back."""

    until: float = 0.0
    withdrawn: tuple[Claim, ...] = ()
    breaker_opened: bool = False
    """Whether its breaker opened, and had not been open since the last success."""


WELL = LaneVerdict()


class LaneHealth:
    """Judges the lanes of one queue; `clock` is in seconds since the epoch."""

    def __init__(self, queue: FairQueue, config: Config, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._rules = config.breaker
        self._cap = config.retry.retry_after_cap
        self._clock = clock

    def note(self, lane: str, answer: Receipt | DeliveryError) -> LaneVerdict:
        """Take in how an attempt of a lane went."""
        if isinstance(answer, Receipt):
            self._queue.succeeded(lane)
            return WELL
        if isinstance(answer, Withdrawn):
            return WELL  # nobody was asked: it tells nothing of the provider, nor of the receiver
        if isinstance(answer, Unavailable):
            return self._pause(lane, answer)
        self._queue.provider_answered(lane)
        verdict = self._break(lane, answer) if answer.lane_fault else WELL
        asked = answer.retry_after if isinstance(answer, Transient) else None
        if asked is not None and asked > 0:  # which the NaN of a plugin isn't
            return self._wait(lane, min(asked, self._cap), verdict)
        return verdict

    def _pause(self, lane: str, answer: Unavailable) -> LaneVerdict:
        known = self._queue.lane(lane)
        if known is not None and known.stop is not None:
            return LaneVerdict(known.stop.until)  # those in flight when it was stopped don't lengthen it
        faults = self._queue.fault(lane)
        asked = min(answer.retry_after or 0.0, self._cap)
        pause, reason = max(pause_after(faults), asked), printable(answer.message)
        until = self._clock() + pause
        if faults == 1:
            _log.warning("lane paused", lane=lane, seconds=pause, code=answer.code, why=mask(reason))
        detail = f"Lane {lane} waits, at no cost to its jobs: {reason}"
        return LaneVerdict(until, self._stop(lane, Stop(PAUSED, detail, until), pause))

    def _break(self, lane: str, answer: DeliveryError) -> LaneVerdict:
        held = self._queue.remembered(lane)
        seconds = held.failed(self._rules, self._queue.timer())
        if seconds is None or held.breaker is None:
            return WELL
        opened, until = held.breaker.openings == 1, self._clock() + seconds
        reason = printable(answer.message)
        if opened:
            _log.warning("breaker opened", lane=lane, seconds=seconds, code=answer.code, why=mask(reason))
        detail = f"The breaker of lane {lane} is open, at no cost to its jobs; the last failure: {reason}"
        withdrawn = self._stop(lane, Stop(BREAKER_OPEN, detail, until), seconds)
        return LaneVerdict(until, withdrawn, breaker_opened=opened)

    def _wait(self, lane: str, seconds: float, verdict: LaneVerdict) -> LaneVerdict:
        until = self._clock() + seconds
        detail = f"The receiver asked lane {lane} to wait for {seconds:.0f} s (Retry-After)."
        withdrawn = self._stop(lane, Stop(RETRY_AFTER, detail, until), seconds)
        return LaneVerdict(
            max(until, verdict.until), (*verdict.withdrawn, *withdrawn), verdict.breaker_opened
        )

    def _stop(self, lane: str, stop: Stop, seconds: float) -> tuple[Claim, ...]:
        return tuple(self._queue.stop(lane, stop, seconds))
