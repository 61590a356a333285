"""CloudEvents 1.0 in its three modes, and what of one becomes an event."""

import base64
import json
from typing import Any

import pytest
from multidict import CIMultiDict

from notifier import cloudevents
from notifier.errors import InvalidEventError
from notifier.ingest import Incoming
from notifier.model import Event

SAID = {"specversion": "1.0", "id": "A234-1234", "source": "/shop/1", "type": "order.paid"}


def structured(**changes: Any) -> Incoming:
    """A CloudEvent in structured mode; a change to `...` leaves an attribute out."""
    return cloudevents.parse_structured(text(**changes))[0]


def text(**changes: Any) -> bytes:
    """A CloudEvent in the JSON format."""
    together = {**SAID, "data": {"total": 12}, **changes}
    return json.dumps({name: value for name, value in together.items() if value is not ...}).encode()


def binary(body: bytes = b'{"total": 12}', /, **changes: str) -> Incoming:
    """A CloudEvent in binary mode."""
    headers = CIMultiDict({f"Ce-{name}": value for name, value in (SAID | changes).items() if value})
    return cloudevents.parse_binary(headers, body)[0]


def test_source_and_id_are_the_idempotency_key() -> None:
    """One event per source and id: the two are joined by a space, which no source can hold."""
    assert structured().event == Event(
        type="order.paid", data={"total": 12}, idempotency_key="/shop/1 A234-1234"
    )
    assert structured().fingerprint is not None


def test_the_three_modes_say_the_same() -> None:
    """Structured, batched and binary, one CloudEvent is one event with one fingerprint."""
    batched = cloudevents.parse_batch(b"[" + text() + b"," + text(id="B") + b"]")
    assert [one.event.idempotency_key for one in batched] == ["/shop/1 A234-1234", "/shop/1 B"]
    assert structured().event == batched[0].event == binary().event
    assert structured().fingerprint == batched[0].fingerprint == binary().fingerprint


def test_attributes_that_are_not_kept_are_read_all_the_same() -> None:
    """Subject, time, schema and extensions are allowed; `tenant` is the tenant; null is as good as none."""
    event = structured(
        subject="7",
        time="2026-01-02T03:04:05Z",
        dataschema="https://schemas.example/order",
        datacontenttype="application/vnd.order+json; charset=utf-8",
        tenant="acme",
        traceparent="00-1-2-01",
        sampled=True,
        partition=None,
    ).event
    assert (event.tenant, event.data) == ("acme", {"total": 12})


@pytest.mark.parametrize("changes", [{"data": ...}, {"data": None}])
def test_a_cloudevent_may_have_no_data(changes: dict[str, Any]) -> None:
    """Without data, or with null, the event's data is an empty object."""
    assert (structured(**changes).event.data, bytes(structured(**changes).raw)) == ({}, b"{}")
    assert binary(b"").event.data == {}


def test_base64_data_is_read_when_it_holds_json() -> None:
    """`data_base64` is another way to write the same object."""
    encoded = base64.b64encode(b'{"total": 12}').decode()
    made = structured(data=..., data_base64=encoded)
    assert (made.event, bytes(made.raw)) == (structured().event, b'{"total": 12}')


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"specversion": "0.3"}, "/specversion"),
        ({"specversion": ...}, "/specversion"),
        ({"id": ...}, "/id"),
        ({"id": None}, "/id"),
        ({"id": ""}, "/id"),
        ({"id": "é"}, "/id"),
        ({"id": "i" * 506}, "/id"),
        ({"source": "/two words"}, "/source"),
        ({"source": ...}, "/source"),
        ({"type": "no spaces"}, "/type"),
        ({"tenant": 5}, "/tenant"),
        ({"tenant": "two words"}, "/tenant"),
        ({"time": "yesterday"}, "/time"),
        ({"subject": ""}, "/subject"),
        ({"data": [1]}, "/data"),
        ({"data": "text"}, "/data"),
        ({"datacontenttype": "text/xml"}, "/datacontenttype"),
        ({"data_base64": "e30="}, "/data_base64"),
        ({"data": ..., "data_base64": "!"}, "/data_base64"),
        ({"data": ..., "data_base64": "é"}, "/data_base64"),
        ({"data": ..., "data_base64": "MTI="}, "/data_base64"),
        ({"Upper": "x"}, "/Upper"),
        ({"under_score": "x"}, "/under_score"),
    ],
)
def test_a_fault_is_pointed_at(changes: dict[str, Any], pointer: str) -> None:
    """The pointer leads to the attribute at fault, in structured mode and in a batch."""
    for body, prefix in ((text(**changes), ""), (b"[" + text() + b"," + text(**changes) + b"]", "/1")):
        parse = cloudevents.parse_batch if prefix else cloudevents.parse_structured
        with pytest.raises(InvalidEventError) as caught:
            parse(body)
        assert [fault.pointer for fault in caught.value.faults] == [f"{prefix}{pointer}"]


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b'{"id":"\xff"}'])
def test_what_is_no_cloudevent_is_refused(body: bytes) -> None:
    """Neither mode takes what isn't JSON of its shape; a batch isn't empty."""
    with pytest.raises(InvalidEventError):
        cloudevents.parse_structured(body)
    with pytest.raises(InvalidEventError):
        cloudevents.parse_batch(body)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("plain", "plain"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ('"quoted \\"so\\""', 'quoted "so"'),
        ('"a%20b"', "a b"),
        ("100%", "100%"),
        ("%FF", "\ufffd"),
        ("\udcff", "\ufffd"),
        ("\udcc3\udca9", "é"),
    ],
)
def test_header_values_are_unquoted_then_percent_decoded(sent: str, meant: str) -> None:
    """HTTP binding §3.1.3.2, with its own example; what isn't UTF-8 is never mistaken for something else."""
    assert cloudevents.header_value(sent) == meant


@pytest.mark.parametrize(
    "changes", [{"specversion": ""}, {"id": "%C3%A9"}, {"source": "a%20b"}, {"time": "x"}]
)
def test_a_header_at_fault_is_named(changes: dict[str, str]) -> None:
    """Binary mode's attributes are held to the same rules, and named as in structured mode."""
    with pytest.raises(InvalidEventError) as caught:
        binary(**changes)
    assert [fault.pointer for fault in caught.value.faults] == [f"/{next(iter(changes))}"]


@pytest.mark.parametrize("body", [b"[1]", b"{", b'{"a":"\xff"}'])
def test_a_binary_body_is_the_data(body: bytes) -> None:
    """In binary mode a fault of the body is one of the data."""
    with pytest.raises(InvalidEventError) as caught:
        binary(body)
    assert caught.value.faults[0].pointer.startswith("/data")


def test_binary_mode_is_told_by_any_required_attribute() -> None:
    """One of its headers is enough, so that a forgotten one is named and not overlooked."""
    assert cloudevents.is_binary(CIMultiDict({"CE-Id": "1"}))
    assert not cloudevents.is_binary(CIMultiDict({"Content-Type": "application/json", "ce-other": "1"}))
