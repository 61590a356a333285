"""What an outcome means for a job: which state next, and when. Pure: time and chance are handed in."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct

from notifier.config import Retry
from notifier.errors import DeliveryError, Permanent, Transient, Unavailable, Unknown, Withdrawn
from notifier.model import Job, JobError, JobState, Outcome

MAX_MESSAGE = 1000
"""Characters of an error's message that are kept."""
MAX_CODE = 64
"""Characters of an error's code that are kept."""

_PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_ANSWERED = re.compile(r"[\w.\[\]:-]{1,255}:\d{1,5} answered \d{3}")
_MASKS = (
    (re.compile(r"[\w.+-]+@[\w.-]+"), "<address>"),
    (re.compile(r"\b\w+://\S+"), "<url>"),
    (re.compile(r"\b[0-9a-f-]{16,}\b|\b(?=[\w-]*\d[\w-]*\d)(?=[\d-]*[A-Za-z_])[\w-]{8,}\b"), "<id>"),
    (re.compile(r"(?<![A-Za-z\[\d])(?<!line )\d+(?:\.\d+)*"), "<n>"),
)


class Decision(Struct, frozen=True, kw_only=True):
    """Where a job goes after one attempt, and how that attempt is recorded."""

    status: JobState
    outcome: Outcome
    spent: bool
    next_attempt_at: float | None = None
    error: JobError | None = None
    cause: str | None = None


DELIVERED = Decision(status=JobState.COMPLETED, outcome=Outcome.DELIVERED, spent=True)
"""What every receipt means."""


def decide(
    error: DeliveryError,
    job: Job,
    *,
    schedule: Sequence[float],
    retry: Retry,
    now: float,
    random: Callable[[], float],
    paused_until: float = 0.0,
    on_unknown: Literal["retry", "fail"] = "retry",
) -> Decision:
    """Decide what an attempt that ended with an error means; what ended with a receipt is `DELIVERED`.

    `schedule` holds the seconds to wait after the 1st, 2nd … spent attempt, `random` gives 0 ≤ x < 1
    for jitter, and `paused_until` is when the lane goes on where the provider was at fault. `on_unknown` says
    whether what may have arrived is tried again.
    """
    why = JobError(printable(str(error.code), MAX_CODE), printable(error.message))
    if isinstance(error, Unavailable):
        return _again(Outcome.RETRY, max(now, paused_until), why, spent=False)
    if isinstance(error, Withdrawn):
        return Decision(status=JobState.CANCELLED, outcome=Outcome.FAILED, spent=False, error=why)
    spent = job.attempts + 1
    given_up = isinstance(error, Unknown) and on_unknown == "fail"
    if isinstance(error, Permanent) or given_up or spent > len(schedule):
        outcome = Outcome.UNKNOWN if isinstance(error, Unknown) else Outcome.FAILED
        return _failed(outcome, why, job)
    delay = jittered(schedule[spent - 1], retry.jitter, random)
    if isinstance(error, Transient) and error.retry_after is not None:
        delay = max(delay, min(error.retry_after, retry.retry_after_cap))
    outcome = Outcome.UNKNOWN if isinstance(error, Unknown) else Outcome.RETRY
    return _again(outcome, now + delay, why, spent=True)


def _again(outcome: Outcome, at: float, why: JobError, *, spent: bool) -> Decision:
    return Decision(status=JobState.PENDING, outcome=outcome, spent=spent, next_attempt_at=at, error=why)


def _failed(outcome: Outcome, why: JobError, job: Job) -> Decision:
    cause = cause_of(job.channel, why, job.template)
    return Decision(status=JobState.FAILED, outcome=outcome, spent=True, error=why, cause=cause)


def jittered(delay: float, jitter: float, random: Callable[[], float]) -> float:
    """Spread a delay evenly over ± `jitter` of itself: what failed together must not return together."""
    return delay * (1 + jitter * (2 * random() - 1))


def pause_after(faults: int) -> float:
    """Seconds that a lane waits after so many provider faults in a row (from 1)."""
    return _PAUSES[min(faults, len(_PAUSES)) - 1]


def mask(message: str) -> str:
    """Blank out what differs between failures of one cause: addresses, urls, ids, numbers.

    Which receiver answered what stays: each is a cause of its own, and is to be told apart.
    """
    if _ANSWERED.fullmatch(message):
        return message
    for pattern, stands_in in _MASKS:
        message = pattern.sub(stands_in, message)
    return message


def cause_of(channel: str, error: JobError, template: str | None) -> str:
    """Name what failures have in common: 12 hex digits, the same for all that failed alike."""
    alike = "\0".join((channel, error.code, mask(error.message), template or ""))
    return hashlib.sha256(alike.encode()).hexdigest()[:12]


def printable(text: str, limit: int = MAX_MESSAGE) -> str:
    """Text that any store and page can take: no NUL, no lone surrogates, at most `limit` characters."""
    text = text[:limit]
    if text.isascii() and "\0" not in text:
        return text  # nearly every answer: half the cost
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
