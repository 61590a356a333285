"""The words for what could not be decoded: where, what was expected, and what might have been meant."""

import re
from typing import Any

import msgspec
import pytest

from notifier.endpoints import EndpointDraft
from notifier.errors import Fault
from notifier.faults import UNREADABLE, choices, faults_of
from notifier.model import Event
from notifier.web.admin import RequeueRequest
from notifier.web.endpoints import EndpointQuery, ReplayRequest

TIME = 'expected a time with its zone (RFC 3339), such as "2026-01-31T12:00:00Z"'


def found(wanted: Any, body: bytes) -> list[Fault]:
    """Where the faults of a body are, and what is said of them."""
    with pytest.raises(UNREADABLE) as caught:
        msgspec.json.decode(body, type=wanted)
    return faults_of(caught.value, wanted=wanted, text=body)


@pytest.mark.parametrize(
    ("wanted", "body", "pointer", "said"),
    [
        (EndpointDraft, b"", "", "is empty: expected a JSON object"),
        (Event | list[Event], b" ", "", "is empty: expected a JSON object or a JSON array"),
        (EndpointDraft, b'{"url', "", "JSON is malformed: it ends too early"),
        (EndpointDraft, b"url", "", "JSON is malformed: invalid character (byte 0)"),
        (EndpointDraft, b"[]", "", "expected an object, got an array"),
        (EndpointDraft, b'{"rate_limit":"5"}', "/rate_limit", "expected a number or null, got a text"),
        (
            EndpointDraft,
            b'{"max_in_flight":1.5}',
            "/max_in_flight",
            "expected a whole number or null, got a decimal number",
        ),
        (EndpointDraft, b'{"event_types":["a",1]}', "/event_types/1", "expected a text, got a whole number"),
        (
            EndpointDraft,
            b'{"headers":{"a":true}}',
            "/headers",
            "a value in it: expected a text, got true or false",
        ),
        (EndpointDraft, b'{"signature":"v2"}', "/signature", 'expected "v1" or "v1a"'),
        (EndpointDraft, b'{"urls":"a"}', "/urls", "unknown field; did you mean 'url'?"),
        (EndpointDraft, b'{"colour":"a"}', "/colour", "unknown field"),
        (ReplayRequest, b'{"since":"2h"}', "/since", TIME),
        (ReplayRequest, b'{"since":"2026-01-01T00:00:00"}', "/since", TIME),
        (ReplayRequest, b'{"since":3}', "/since", f"{TIME}, got a whole number"),
        (RequeueRequest, b'{"canary":1}', "/canary", "expected true or false, got a whole number"),
        (RequeueRequest, b'{"channel":""}', "/channel", "expected at least 1 character"),
        (RequeueRequest, b'{"channel":"%b"}' % (b"a" * 257), "/channel", "expected at most 256 characters"),
        (Event, b'{"deliver_at":1}', "/deliver_at", f"{TIME}, got a whole number"),
        (
            Event,
            b'{"deliver":[{"chanel":"email"}]}',
            "/deliver/0/chanel",
            "unknown field; did you mean 'channel'?",
        ),
        (Event, b'{"deliver":[{"to":"a"}]}', "/deliver/0/channel", "is missing"),
        (Event, b'{"type":"a b"}', "/type", "expected 1 to 128 of A-Z a-z 0-9 _ . - /"),
    ],
)
def test_a_fault_is_told_in_words_for_people(wanted: Any, body: bytes, pointer: str, said: str) -> None:
    """What was expected, what came, and the nearest name that is known; no type of Python's."""
    assert found(wanted, body) == [(pointer, said)]
    assert not re.search(r"`|\b(str|int|float|bool|datetime)\b", said)


def test_all_that_is_missing_is_told_at_once() -> None:
    """Whoever left out two fields need not try three times."""
    assert found(EndpointDraft, b"{}") == [("/url", "is missing"), ("/event_types", "is missing")]
    assert found(EndpointDraft, b'{"event_types":["a"]}') == [("/url", "is missing")]


def test_a_field_that_is_known_not_to_be_taken_has_words_of_its_own() -> None:
    """Why, instead of "unknown"."""
    error = msgspec.ValidationError("Object contains unknown field `tenant`")
    told = faults_of(error, wanted=EndpointDraft, known={"tenant": "can't be changed"})
    assert told == [Fault("/tenant", "can't be changed")]


def test_the_words_that_a_field_takes_are_known() -> None:
    """Those of an enumeration and of a literal, optional or not; a free text has none."""
    assert choices(EndpointQuery, "state") == ("enabled", "paused", "disabled")
    assert set(choices(RequeueRequest, "status")) == {"PENDING", "COMPLETED", "FAILED", "CANCELLED"}
    assert choices(RequeueRequest, "channel") == choices(RequeueRequest, "nowhere") == ()
