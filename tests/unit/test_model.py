"""The words of the domain: what a job's state may become, ids, and times as text."""

import itertools
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import NOW, event_record

from notifier.model import (
    REQUEUEABLE,
    TRANSITIONS,
    Delivery,
    Event,
    JobState,
    Outcome,
    Priority,
    new_id,
    rfc3339,
)

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState

moments = st.floats(min_value=0, max_value=4_102_444_800)


# States --------------------------------------------------------------------------------------------


def test_the_table_of_transitions_is_the_one_that_the_design_promises() -> None:
    """Every state leads exactly where DESIGN §2 says, and nowhere else."""
    assert {
        PENDING: {PROCESSING, CANCELLED},
        PROCESSING: {COMPLETED, PENDING, FAILED, CANCELLED},
        COMPLETED: {PENDING},
        FAILED: {PENDING},
        CANCELLED: {PENDING},
    } == TRANSITIONS


def test_no_state_leads_to_itself_and_none_is_a_dead_end() -> None:
    """An operator can always do something about a job."""
    assert all(leads_to for leads_to in TRANSITIONS.values())
    assert all(state not in leads_to for state, leads_to in TRANSITIONS.items())


def test_only_a_job_that_no_worker_holds_can_be_requeued() -> None:
    """Requeueing a PROCESSING job would send it twice at once."""
    assert set(JobState) - {PROCESSING} == REQUEUEABLE


def test_states_and_outcomes_are_written_as_the_api_writes_them() -> None:
    """The words in the database, in JSON and in the design are the same ones."""
    assert msgspec.json.encode(list(JobState)) == (
        b'["PENDING","PROCESSING","COMPLETED","FAILED","CANCELLED"]'
    )
    assert msgspec.json.encode(list(Outcome)) == b'["delivered","retry","failed","unknown"]'


def test_a_higher_priority_is_a_lower_number() -> None:
    """Claims go by number, from 0."""
    assert [Priority.named(name) for name in ("high", "normal", "low")] == [0, 1, 2]


# Ids -----------------------------------------------------------------------------------------------


@given(moments)
def test_an_id_is_prefixed_opaque_and_safe_to_sign(now: float) -> None:
    """`webhook-id` is signed as `id.timestamp.body`: a dot within the id would blur where it ends."""
    assert re.fullmatch(r"job_[0-9a-f]{32}", new_id("job", now))


@given(moments, st.floats(min_value=0.001, max_value=1e9))
def test_ids_sort_by_the_time_they_were_made(now: float, later: float) -> None:
    """A millisecond between them is enough."""
    assert new_id("evt", now) < new_id("evt", now + later + 0.001)


def test_ids_of_one_instant_differ() -> None:
    """A thousand events posted in one array all get their own."""
    assert len({new_id("evt", NOW) for _ in range(10_000)}) == 10_000


# Times ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (NOW, "2027-01-15T08:00:00.000Z"),
        (NOW + 0.5, "2027-01-15T08:00:00.500Z"),
        (951_782_399.999, "2000-02-28T23:59:59.999Z"),
    ],
)
def test_a_time_is_written_as_rfc_3339_in_utc_with_milliseconds(moment: float, written: str) -> None:
    """RFC 3339 §5.6, always with `Z`, always the same width, so that text sorts as time does."""
    assert rfc3339(moment) == written


@given(moments)
def test_a_written_time_reads_back_to_the_millisecond(moment: float) -> None:
    """Nothing is lost but what lies below a millisecond; a time counts as its nearest microsecond."""
    lost = moment - datetime.fromisoformat(rfc3339(moment)).timestamp()
    assert -0.000_001 < lost < 0.001_001


# Events --------------------------------------------------------------------------------------------


def decoded(**fields: Any) -> Event:
    """An event as the API reads it."""
    return msgspec.json.decode(msgspec.json.encode({"type": "a", "data": {}} | fields), type=Event)


@pytest.mark.parametrize("kind", ["a", "user.signup", "Order_1/eu-west.paid", "x" * 128])
def test_an_event_type_of_the_allowed_letters_is_taken(kind: str) -> None:
    """1 to 128 of `A-Za-z0-9_.-/` (DESIGN §4.3)."""
    assert decoded(type=kind).type == kind


@pytest.mark.parametrize("kind", ["", "x" * 129, "a b", "a\n", "naïve", "a*"])
def test_any_other_event_type_is_refused(kind: str) -> None:
    """Among them one with a line break at its end, which `$` would let pass."""
    with pytest.raises(msgspec.ValidationError, match="type"):
        decoded(type=kind)


@pytest.mark.parametrize(
    "fields",
    [
        {"data": []},
        {"data": None},
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 513},
        {"idempotency_key": "k\n"},
        {"tenant": "a b"},
        {"deliver_at": "2027-01-15T08:00:00"},
        {"deliver": [{"channel": "email", "to": ""}]},
        {"deliver": [{"channel": "email", "to": "a@b.example", "priority": "urgent"}]},
        {"deliver": [{"channel": "email", "to": "a@b.example", "cc": None}]},
        {"deliver": [{"channel": "email", "to": []}]},
        {"deliver": [{"channel": "email", "to": ["a@b.example"] * 101}]},
        {"deliver": [{"channel": "email", "to": "a@b.example", "category": "Not One"}]},
        {"deliver": [{"channel": "email", "to": "a@b.example", "from": "c@b.example"}]},
        {"surprise": 1},
    ],
)
def test_an_event_that_breaks_a_rule_is_refused(fields: dict[str, Any]) -> None:
    """What isn't understood is refused, unknown fields and times without a zone among it."""
    with pytest.raises(msgspec.ValidationError):
        decoded(**fields)


def test_a_delivery_has_one_recipient_or_several() -> None:
    """A string is one; a list, cc and bcc are more; where nothing was said of them, nothing is kept."""
    several = Delivery(
        channel="email", to=["a@b.example", "c@b.example"], cc="d@b.example", bcc=["e@b.example"]
    )
    assert several.recipients == 4
    alone = Delivery(channel="email", to="a@b.example")
    assert alone.recipients == 1
    assert not {"cc", "bcc", "category"} & msgspec.to_builtins(alone).keys()


def test_an_event_keeps_its_data_as_it_was_posted() -> None:
    """The JSON text stands byte for byte, and reads as Python values where they are wanted."""
    record = event_record(body='{ "b": 1.0,\n "a": 12345678901234567890 }')
    assert bytes(record.data) == b'{ "b": 1.0,\n "a": 12345678901234567890 }'
    assert record.decoded_data() == {"b": 1.0, "a": 12345678901234567890}


def test_deliver_at_in_any_zone_is_the_same_moment() -> None:
    """`deliver_at` carries its zone; none is assumed."""
    there = datetime(2027, 1, 15, 9, 0, tzinfo=timezone(timedelta(hours=1)))
    assert decoded(deliver_at="2027-01-15T09:00:00+01:00").deliver_at == there
    assert there == datetime.fromtimestamp(NOW, UTC)


def test_the_states_pass_through_every_pair_only_as_the_table_has_it() -> None:
    """Of 25 pairs, nine are legal: a tenth is a decision to be made here, not in passing."""
    pairs = itertools.product(JobState, JobState)
    assert sum(after in TRANSITIONS[before] for before, after in pairs) == 9
