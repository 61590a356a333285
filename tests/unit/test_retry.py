"""What an outcome means for a job: where it goes, when it is tried again, what its failure is grouped by."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import NOW, job

from notifier.config import Duration, Retry
from notifier.errors import DeliveryError, Permanent, TemplateError, Transient, Unavailable, Unknown
from notifier.model import TRANSITIONS, JobError, JobState, Outcome
from notifier.retry import (
    DELIVERED,
    MAX_MESSAGE,
    Decision,
    cause_of,
    decide,
    jittered,
    mask,
    pause_after,
    printable,
)

SCHEDULE = (5.0, 300.0, 1800.0)
RETRY = Retry(jitter=0.2, retry_after_cap=Duration(3600))
NO_JITTER = 0.5
"""The random number at which a delay is just what the schedule says."""


def after(error: DeliveryError, *, attempts: int = 0, random: float = NO_JITTER, **changes: Any) -> Decision:
    """Decide about a job that has spent so many attempts before this one."""
    pause = changes.pop("pause", 0.0)
    schedule = changes.pop("schedule", SCHEDULE)
    return decide(
        error,
        job(attempts=attempts, **changes),
        schedule=schedule,
        retry=RETRY,
        now=NOW,
        random=lambda: random,
        paused_until=NOW + pause,
    )


# Where a job goes ----------------------------------------------------------------------------------


def test_a_delivered_job_is_completed() -> None:
    """It is over: nothing is scheduled, no error is kept, the attempt is spent."""
    assert Decision(status=JobState.COMPLETED, outcome=Outcome.DELIVERED, spent=True) == DELIVERED


@pytest.mark.parametrize(("attempts", "delay"), [*enumerate(SCHEDULE)])
def test_each_failed_attempt_waits_its_own_delay(attempts: int, delay: float) -> None:
    """After the 1st, 2nd … failed attempt a job waits the 1st, 2nd … delay of the schedule."""
    decision = after(Transient("the receiver answered 503", code="http_503"), attempts=attempts)
    assert decision == Decision(
        status=JobState.PENDING,
        outcome=Outcome.RETRY,
        spent=True,
        next_attempt_at=NOW + delay,
        error=JobError("http_503", "the receiver answered 503"),
    )


def test_past_the_last_delay_a_job_is_failed() -> None:
    """A schedule of three delays makes four attempts; the fourth failure is for good, and has a cause."""
    decision = after(Transient("no"), attempts=len(SCHEDULE))
    assert decision.status is JobState.FAILED
    assert decision.outcome is Outcome.FAILED
    assert decision.next_attempt_at is None
    assert decision.cause is not None


def test_an_empty_schedule_makes_one_attempt() -> None:
    """With no delay to wait, the first failure is the last."""
    assert after(Transient("no"), schedule=()).status is JobState.FAILED


@pytest.mark.parametrize(
    "error",
    [
        Permanent("no such mailbox", code="smtp_550", status_code=550),
        TemplateError("'data.name' is undefined", template="welcome/body.html", line=3),
    ],
)
def test_a_permanent_error_fails_at_once(error: Permanent) -> None:
    """However many attempts are left, and with the attempt it took spent."""
    decision = after(error)
    assert decision.status is JobState.FAILED
    assert decision.outcome is Outcome.FAILED
    assert decision.spent
    assert decision.error == JobError(error.code, error.message)


@pytest.mark.parametrize("attempts", [0, len(SCHEDULE), 50])
def test_a_providers_fault_costs_no_attempt(attempts: int) -> None:
    """The job waits as long as its lane does, even where its attempts are used up."""
    decision = after(Unavailable("the relay refuses the login"), attempts=attempts, pause=30.0)
    assert decision.status is JobState.PENDING
    assert decision.next_attempt_at == NOW + 30
    assert not decision.spent


def test_an_unknown_outcome_is_tried_again_and_says_so() -> None:
    """The receiver may have it: the attempt is recorded as unknown, the job retried as any other."""
    decision = after(Unknown("the connection broke after the body was sent"))
    assert decision.status is JobState.PENDING
    assert decision.outcome is Outcome.UNKNOWN
    assert decision.spent


def test_an_unknown_outcome_that_was_the_last_stays_unknown() -> None:
    """The job is FAILED, but its last attempt isn't recorded as one that surely didn't arrive."""
    decision = after(Unknown("no answer"), attempts=len(SCHEDULE))
    assert decision.status is JobState.FAILED
    assert decision.outcome is Outcome.UNKNOWN


@given(
    error=st.sampled_from([Transient("a"), Unknown("b"), Unavailable("c"), Permanent("d")]),
    attempts=st.integers(0, 10),
    schedule=st.lists(st.floats(0, 1e6), max_size=8),
    random=st.floats(0, 1, exclude_max=True),
)
def test_a_decision_is_always_one_that_the_store_can_keep(
    error: DeliveryError, attempts: int, schedule: list[float], random: float
) -> None:
    """A legal transition; a time exactly while PENDING, a cause exactly when FAILED, never a time gone by."""
    decision = after(error, attempts=attempts, schedule=schedule, random=random)
    assert decision.status in TRANSITIONS[JobState.PROCESSING]
    assert (decision.status is JobState.PENDING) == (decision.next_attempt_at is not None)
    assert (decision.status is JobState.FAILED) == (decision.cause is not None)
    assert decision.error is not None
    assert decision.next_attempt_at is None or decision.next_attempt_at >= NOW


# When ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "wait"),
    [
        pytest.param(60.0, 60.0, id="longer than the schedule"),
        pytest.param(1.0, 5.0, id="sooner than the schedule"),
        pytest.param(86_400.0, 3600.0, id="longer than the cap"),
        pytest.param(math.inf, 3600.0, id="for ever"),
        pytest.param(math.nan, 5.0, id="not a number"),
        pytest.param(-1.0, 5.0, id="in the past"),
    ],
)
def test_retry_after_only_ever_lengthens_a_wait_and_only_to_the_cap(asked: float, wait: float) -> None:
    """A receiver is heard, but can neither be hammered at its wish nor hold a job for ever."""
    assert after(Transient("slow down", retry_after=asked)).next_attempt_at == NOW + wait


def test_retry_after_grants_no_further_attempt() -> None:
    """What is used up is used up."""
    assert after(Transient("later", retry_after=60), attempts=len(SCHEDULE)).status is JobState.FAILED


@given(delay=st.floats(0, 1e6), jitter=st.floats(0, 1), random=st.floats(0, 1, exclude_max=True))
def test_jitter_stays_within_its_part_of_the_delay(delay: float, jitter: float, random: float) -> None:
    """A delay moves by at most ± `jitter` of itself."""
    spread = jittered(delay, jitter, lambda: random)
    assert delay * (1 - jitter) * (1 - 1e-9) <= spread <= delay * (1 + jitter) * (1 + 1e-9)


def test_jitter_reaches_both_ends() -> None:
    """What failed together is spread over the whole range, early and late."""
    assert jittered(100, 0.2, lambda: 0.0) == pytest.approx(80)
    assert jittered(100, 0.2, lambda: 0.999999) == pytest.approx(120, rel=1e-5)


def test_a_lane_at_fault_waits_longer_each_time_up_to_a_minute() -> None:
    """The first pause is short, a long outage is looked at once a minute."""
    pauses = [pause_after(faults) for faults in range(1, 20)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (1.0, 60.0)


# What failures have in common ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no mailbox ada@example.com here", "no mailbox grace.hopper+x@mail.example.org here"),
        ("https://a.example/hooks?id=7 is gone", "http://b.example:8443/ is gone"),
        ("message 20240517 was refused", "message 7 was refused"),
        ("job_0191f3c2a4bb9d1e refused", "job_01ffffffffffffffffff refused"),
        ("no user 1b4e28ba-2fa1-11d2-883f here", "no user 6ba7b810-9dad-11d1-80b4 here"),
        ("rejected d2e1a72fcca58-7abc1si2f.12 - gsmtp", "rejected af79cd13be357-7c5a8b1si12.9 - gsmtp"),
        ("4Xk2Zq1T9Bz3 was not queued", "3B2F81C0D2 was not queued"),
        ("no end within 15 s", "no end within 30 s"),
        ("10.0.0.1 is not reachable", "10.99.3.200 is not reachable"),
    ],
)
def test_failures_that_differ_in_their_particulars_have_one_cause(one: str, other: str) -> None:
    """Addresses, urls, ids and numbers don't tell one cause from another."""
    assert mask(one) == mask(other)
    assert cause_of("email", JobError("x", one), None) == cause_of("email", JobError("x", other), None)


@pytest.mark.parametrize("receiver", ["127.0.0.1:18400", "erp.example.com:443", "[2001:db8::1]:8443"])
def test_who_answered_what_is_not_masked(receiver: str) -> None:
    """An operator is to see which receiver it is."""
    assert mask(f"{receiver} answered 500") == f"{receiver} answered 500"


def test_failures_that_differ_in_kind_have_different_causes() -> None:
    """Channel, code, template and words each tell causes apart."""
    error = JobError("smtp_550", "no such mailbox")
    causes = {
        cause_of("email", error, None),
        cause_of("webhook", error, None),
        cause_of("email", JobError("smtp_551", "no such mailbox"), None),
        cause_of("email", JobError("smtp_550", "the mailbox is full"), None),
        cause_of("email", error, "welcome"),
    }
    assert len(causes) == 5


def test_a_cause_is_twelve_hex_digits_and_the_same_in_every_process() -> None:
    """Operators filter by it, so it must outlive a restart."""
    assert cause_of("email", JobError("smtp_550", "no"), "welcome") == "704189b7568e"


# What is kept of a message -------------------------------------------------------------------------


@given(st.text(st.characters(), max_size=3 * MAX_MESSAGE), st.integers(0, 2 * MAX_MESSAGE))
def test_whatever_was_raised_can_be_stored_and_shown(text: str, limit: int) -> None:
    """No NUL, no lone surrogate, no more than the limit."""
    kept = printable(text, limit)
    assert "\0" not in kept
    assert len(kept.encode("utf-8").decode("utf-8")) <= limit


def test_a_plain_message_is_kept_as_it_is() -> None:
    """Words of any script come through."""
    assert printable("le répertoire n’existe pas: 没有") == "le répertoire n’existe pas: 没有"


def test_a_long_message_is_cut() -> None:
    """An error that brings a whole page with it is kept to its start."""
    decision = after(Transient("x" * 10 * MAX_MESSAGE))
    assert decision.error == JobError("transient", "x" * MAX_MESSAGE)
