"""Queries and cursors: what is understood of them, and which parameter a refusal names."""

from datetime import UTC, datetime
from typing import get_args, get_type_hints

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from notifier.model import REQUEUEABLE, JobState
from notifier.store.base import JobFilter
from notifier.web.admin import JobQuery, RequeueRequest
from notifier.web.cursors import read_cursor, read_id_cursor, write_cursor, write_id_cursor
from notifier.web.endpoints import EndpointQuery
from notifier.web.problems import ProblemError
from notifier.web.requests import read_query


def query(text: str) -> JobQuery:
    """What is understood of a query of the job list."""
    return read_query(make_mocked_request("GET", f"/v1/admin/jobs?{text}"), JobQuery)


def test_every_filter_is_understood() -> None:
    """Each parameter of DESIGN's table reaches the store's filter."""
    wanted = query(
        "status=FAILED&channel=email&event_type=user.signup&route=welcome&endpoint=ep_1&destination=123"
        "&tenant=acme&cause=abc&created_after=2026-01-02T03:04:05Z&created_before=2026-01-02T03:04:05%2B02:00"
        "&limit=500&cursor=x"
    )
    assert wanted.filter(wanted.status) == JobFilter(
        status=JobState.FAILED,
        channel="email",
        event_type="user.signup",
        route="welcome",
        endpoint="ep_1",
        destination="123",
        tenant="acme",
        cause="abc",
        created_after=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp(),
        created_before=datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC).timestamp(),
    )
    assert (wanted.limit, wanted.cursor) == (500, "x")


def test_an_empty_query_means_all() -> None:
    """Nothing given narrows nothing, and a page is 50 jobs."""
    assert (query("").filter(), query("").limit) == (JobFilter(), 50)


def test_a_number_that_is_described_is_a_number() -> None:
    """Words about a parameter, for the API's document, change nothing about what it takes."""
    request = make_mocked_request("GET", "/v1/admin/endpoints?limit=7")
    assert read_query(request, EndpointQuery).limit == 7


def test_a_plus_left_unescaped_is_still_an_offset() -> None:
    """`+01:00` comes as a space when nobody escaped it."""
    assert query("created_after=2026-01-02T03:04:05+01:00") == query(
        "created_after=2026-01-02T03:04:05%2B01:00"
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("colour=red", "colour"),
        ("status=lost", "status"),
        ("status=", "status"),
        ("status=null", "status"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=-1", "limit"),
        ("limit=ten", "limit"),
        ("limit=1e2", "limit"),
        ("limit=5.0", "limit"),
        ("limit=", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-01-02T03:04:05", "created_after"),
        ("created_after=1767323045", "created_after"),
        ("channel=", "channel"),
        ("tenant=a&tenant=b", "tenant"),
        ("destination=" + "d" * 2049, "destination"),
    ],
)
def test_a_parameter_at_fault_is_named(text: str, name: str) -> None:
    """What isn't understood of a query is a 422 that says which parameter."""
    with pytest.raises(ProblemError) as caught:
        query(text)
    assert caught.value.status == 422
    assert [error.parameter for error in caught.value.errors] == [name]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limit=0", "expected a whole number, at least 1"),
        ("limit=ten", "expected a whole number"),
        ("status=lost", 'expected "PENDING", "PROCESSING", "COMPLETED", "FAILED" or "CANCELLED"'),
        ("created_after=2h", 'expected a time with its zone (RFC 3339), such as "2026-01-31T12:00:00Z"'),
        ("chanel=email", "unknown parameter; did you mean 'channel'?"),
    ],
)
def test_a_query_at_fault_is_told_what_was_expected(text: str, said: str) -> None:
    """In words of its own: nothing of bodies, fields or Python."""
    with pytest.raises(ProblemError) as caught:
        query(text)
    assert [error.detail for error in caught.value.errors] == [said]


@pytest.mark.parametrize("status", ["FAILED", "failed", "Failed"])
def test_a_state_is_understood_in_any_letters(status: str) -> None:
    """What answers write in capitals may be asked for in small ones."""
    assert query(f"status={status}").status is JobState.FAILED


@given(st.integers(min_value=-(2**63), max_value=2**63 - 1))
def test_a_cursor_leads_back_to_its_position(position: int) -> None:
    """Whatever position a store gives, its cursor is read back as it, and is fit for a URL."""
    cursor = write_cursor(position)
    assert read_cursor(cursor) == position
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.integers(min_value=0, max_value=2**63 - 1), st.data())
def test_an_altered_cursor_is_refused(position: int, data: st.DataObject) -> None:
    """Change any one character of a cursor, and it is no cursor."""
    cursor = write_cursor(position)
    at = data.draw(st.integers(0, len(cursor) - 1))
    other = data.draw(st.sampled_from("ABCZaz019-_=.+ é").filter(lambda char: char != cursor[at]))
    with pytest.raises(ProblemError):
        read_cursor(cursor[:at] + other + cursor[at + 1 :])


@pytest.mark.parametrize("cursor", ["", "1", "AAAAAAAAAAAAAAAA", "é", "AAAA" * 100])
def test_a_made_up_cursor_is_refused(cursor: str) -> None:
    """What this API never gave names the parameter at fault."""
    with pytest.raises(ProblemError) as caught:
        read_cursor(cursor)
    assert caught.value.errors[0].parameter == "cursor"


def test_a_cursor_of_one_list_is_none_of_another() -> None:
    """Lists in the order of ids have cursors of their own, which lead back to an id and nowhere else."""
    assert read_id_cursor(write_id_cursor("ep_01")) == "ep_01"
    with pytest.raises(ProblemError):
        read_id_cursor(write_cursor(1))
    with pytest.raises(ProblemError):
        read_cursor(write_id_cursor("12345678"))


def test_a_requeue_takes_every_state_that_can_be_requeued() -> None:
    """The request's states are the model's requeueable ones, no more and no less."""
    assert {JobState(name) for name in get_args(get_type_hints(RequeueRequest)["status"])} == REQUEUEABLE
