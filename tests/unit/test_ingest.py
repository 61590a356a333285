"""What is understood of a posted body, and what a refusal points at."""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from notifier.errors import Fault, InvalidEventError
from notifier.ingest import MAX_DELAY, MAX_EVENTS, Incoming, from_event, parse_json, with_key
from notifier.model import MAX_DATA_DEPTH, Delivery, Event

NOW = 1_800_000_000.0


def posted(**fields: Any) -> bytes:
    """An event as an app would post it; each test names the fields it is about."""
    return json.dumps({"type": "order.paid", "data": {"total": 12}, **fields}).encode()


def understood(body: bytes) -> Incoming:
    """The one event in a body."""
    events, is_array = parse_json(body, now=NOW)
    assert not is_array
    return events[0]


def pointers(body: bytes) -> list[str]:
    """Where a body's faults are."""
    with pytest.raises(InvalidEventError) as caught:
        parse_json(body, now=NOW)
    assert all(fault.detail for fault in caught.value.faults)
    return [fault.pointer for fault in caught.value.faults]


def faults_of(body: bytes) -> list[Fault]:
    """A body's faults; none where it is understood."""
    try:
        parse_json(body, now=NOW)
    except InvalidEventError as error:
        return error.faults
    return []


def nested(levels: int) -> bytes:
    """An event whose data nests so deep, the data itself being the first level."""
    return b'{"type":"t","data":' + b'{"a":' * (levels - 1) + b"{}" + b"}" * levels


def test_every_field_is_understood() -> None:
    """All that DESIGN allows an event to say arrives as it was said."""
    event = understood(
        posted(
            tenant="acme",
            idempotency_key="order 7",
            deliver_at="2027-01-15T10:00:00+02:00",
            deliver=[{"channel": "email", "to": "ada@example.com", "template": "welcome"}],
        )
    ).event
    assert event == Event(
        type="order.paid",
        data={"total": 12},
        tenant="acme",
        idempotency_key="order 7",
        deliver_at=datetime(2027, 1, 15, 8, tzinfo=UTC),
        deliver=[Delivery(channel="email", to="ada@example.com", template="welcome")],
    )


def test_the_text_of_data_is_kept_as_posted() -> None:
    """White space, the order of keys and the digits of numbers survive in `raw`."""
    text = b'{ "b" : 1.50,\n"a":12345678901234567890123, "c":"\\u00e9"}'
    assert bytes(understood(b'{"type":"t","data":' + text + b"}").raw) == text


def test_an_array_says_that_it_was_one() -> None:
    """Two events in an array come in order, and an array of one is still an array."""
    events, is_array = parse_json(b" \n[" + posted(type="a") + b"," + posted(type="b") + b"]", now=NOW)
    assert ([one.event.type for one in events], is_array) == (["a", "b"], True)
    assert parse_json(b"[" + posted() + b"]", now=NOW)[1] is True


def test_an_array_is_bounded() -> None:
    """An array holds 1 to 1,000 events."""
    one = posted()
    assert len(parse_json(b"[" + b",".join([one] * MAX_EVENTS) + b"]")[0]) == MAX_EVENTS
    assert pointers(b"[" + b",".join([one] * (MAX_EVENTS + 1)) + b"]") == [""]
    assert pointers(b"[]") == [""]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"null",
        b"12",
        b'"text"',
        b"{",
        posted() + b"x",
        b"[",
        b"[}",
        b"\xef\xbb\xbf" + posted(),
        posted().decode().encode("utf-16"),
        b'{"type":"t","data":{"a":NaN}}',
        b'{"type":"t","data":{"a":Infinity}}',
        b'{"type":"t","data":{"a":01}}',
        b'{"type":"t","data":{"a":1,}}',
        b"{'type':'t','data':{}}",
        b'{"type":"t","data":{"a":"\x01"}}',
        b'{"type":"t","data":{"a":"\\ud800 alone"}}',
        b'{"type":"t","data":{"a":"\\udc00 alone"}}',
        b'{"type":"\xff","data":{}}',
        b'{"\xff":1,"type":"t","data":{}}',
    ],
)
def test_what_is_no_json_object_is_refused_as_a_whole(body: bytes) -> None:
    """A body that isn't JSON in UTF-8, or is no object, is at fault as a whole."""
    assert pointers(body) == [""]


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"type": 1}, "/type"),
        ({"type": ""}, "/type"),
        ({"type": "a b"}, "/type"),
        ({"type": "a\n"}, "/type"),
        ({"type": "a" * 129}, "/type"),
        ({"type": None}, "/type"),
        ({"data": []}, "/data"),
        ({"data": "x"}, "/data"),
        ({"data": None}, "/data"),
        ({"colour": "red"}, "/colour"),
        ({"a/b~c": 1}, "/a~1b~0c"),
        ({"tenant": "two words"}, "/tenant"),
        ({"tenant": ""}, "/tenant"),
        ({"idempotency_key": ""}, "/idempotency_key"),
        ({"idempotency_key": "é"}, "/idempotency_key"),
        ({"idempotency_key": "k" * 513}, "/idempotency_key"),
        ({"deliver_at": "tomorrow"}, "/deliver_at"),
        ({"deliver_at": 1_800_000_000}, "/deliver_at"),
        ({"deliver_at": "2027-01-15T10:00:00"}, "/deliver_at"),
        ({"deliver_at": "2027-13-15T10:00:00Z"}, "/deliver_at"),
        ({"deliver_at": "9999-12-31T23:59:59-23:59"}, "/deliver_at"),
        ({"deliver_at": "0001-01-01T00:00:00+23:00"}, "/deliver_at"),
        ({"deliver": {}}, "/deliver"),
        ({"deliver": [{"channel": "sms", "to": "1"}] * 101}, "/deliver"),
        ({"deliver": [{"channel": "sms", "to": "1"}, {"to": "2"}]}, "/deliver/1/channel"),
        ({"deliver": [{"channel": "sms", "to": "1", "cc": "2"}]}, "/deliver/0/cc"),
        ({"deliver": [{"channel": "sms", "to": 1}]}, "/deliver/0/to"),
        ({"deliver": [{"channel": "sms"}]}, "/deliver/0/to"),
        ({"deliver": [{"channel": "sms", "to": "1", "url": "http://a"}]}, "/deliver/0/url"),
        ({"deliver": [{"channel": "webhook"}]}, "/deliver/0/url"),
        ({"deliver": [{"channel": "webhook", "url": "https://a", "to": "b"}]}, "/deliver/0/to"),
        ({"deliver": [{"channel": "email", "to": "a@b.example"}]}, "/deliver/0/template"),
        ({"deliver": [{"channel": "sms", "to": "1", "priority": "urgent"}]}, "/deliver/0/priority"),
        ({"deliver": [{"channel": "sms", "to": "1", "locale": "../x"}]}, "/deliver/0/locale"),
    ],
)
def test_a_fault_is_pointed_at(changes: dict[str, Any], pointer: str) -> None:
    """The pointer leads to the very value that is wrong, in one event and in an array alike."""
    body = posted(**changes)
    assert pointers(body) == [pointer]
    assert pointers(b"[" + posted() + b"," + body + b"]") == [f"/1{pointer}"]


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ("emial", "no channel 'emial'; did you mean 'email'?"),
        ("fax", "no channel 'fax'; there are: email, sms"),
    ],
)
def test_a_channel_that_is_not_there_is_told_before_what_it_would_need(channel: str, said: str) -> None:
    """Where the channels are known; the one that was meant is suggested, or all are named."""
    body = posted(deliver=[{"channel": "sms", "to": "1"}, {"channel": channel, "url": "https://a"}])
    with pytest.raises(InvalidEventError) as caught:
        parse_json(body, now=NOW, channels=("sms", "email"))
    assert caught.value.faults == [Fault("/deliver/1/channel", said)]


@pytest.mark.parametrize("field", ["type", "data"])
@pytest.mark.parametrize("end", [b"", b"x"])
def test_a_missing_field_is_pointed_at(field: str, end: bytes) -> None:
    """What is required and isn't there is named where it should stand, whatever else is wrong."""
    body = json.loads(posted())
    del body[field]
    assert pointers(json.dumps(body).encode() + end) == [f"/{field}"]


@pytest.mark.parametrize(
    ("data", "pointer"),
    [
        (b'{"a":[1,{"b/c":1e999}]}', "/data/a/1/b~1c"),
        (b'{"a":{"b":"\xff"}}', "/data/a/b"),
        (b'{"a":{"\xff":1}}', "/data/a"),
        (b'{"a":' + b"1" * 5000 + b"}", "/data/a"),
    ],
)
def test_what_cannot_be_decoded_within_data_is_pointed_at(data: bytes, pointer: str) -> None:
    """Data is free, but must be decodable: the smallest value that isn't is named."""
    assert pointers(b'{"type":"t","data":' + data + b"}") == [pointer]


def test_the_depth_of_data_is_bounded() -> None:
    """Data nests 64 levels and no more, however deep a text goes on."""
    assert understood(nested(MAX_DATA_DEPTH)).event.type == "t"
    assert pointers(nested(MAX_DATA_DEPTH + 1)) == ["/data"]
    assert pointers(nested(100_000))[0] in {"", "/data"}
    assert pointers(b"[" * 100_000) == [""]


def test_wide_data_is_not_deep() -> None:
    """Many brackets side by side are no depth."""
    assert understood(posted(data={"rows": [[{}] for _ in range(500)]})).event.data["rows"][499] == [{}]


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"a","type":"b","data":{}}',
        b'{"type":"a","data":{"n":1e5},"dat\\u0061":{}}',
        b'{"data":0,"type":"a","data":{}}',
        b'{"type":"a","tenant":"t","data":1,"idempotency_key":"k","data":{}}',
        b'{"type":"abc","type":"a","data":{"b":[1,2,3]}}',
        b'{"type":"a","data":{"\xff":1e999},"data":{}}',
    ],
)
def test_a_field_that_stands_twice_is_refused(body: bytes) -> None:
    """Of two values of one field nobody can tell which is meant, however its name is spelt."""
    assert pointers(body)[0] in {"/type", "/data"}


def test_a_repeated_field_may_be_as_deep_as_it_likes() -> None:
    """Of two data the first was never held to its depth: it is refused all the same, however deep it is."""
    for depth in range(500, 1000):
        assert pointers(b'{"type":"a","data":' + b"[" * depth + b"]" * depth + b',"data":{}}')


def test_a_fields_name_within_data_is_no_repetition() -> None:
    """Data may use the names of an event's own fields."""
    assert understood(posted(data={"type": "x", "data": {"type": "y"}})).event.type == "order.paid"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"type":"a b","tenant":"two words","data":{}}', "/type"),
        (b'{"tenant":"two words","type":"a b","data":{}}', "/tenant"),
        (b'{"type":"a b","colour":1,"data":{}}', "/type"),
        (b'{"type":"a b","data":{}', "/type"),
    ],
)
def test_of_several_faults_the_first_is_told(body: bytes, pointer: str) -> None:
    """In the order of the text, however often that type was refused before."""
    assert pointers(body) == pointers(body) == [pointer]


def test_all_events_of_an_array_are_judged() -> None:
    """An array's refusal tells of every event that is at fault."""
    assert pointers(b"[" + posted(type=1) + b"," + posted() + b",7]") == ["/0/type", "/2"]


def test_a_time_gone_by_is_allowed_and_one_too_far_is_not() -> None:
    """`deliver_at` may lie in the past (it is due now), and 366 days ahead at most."""

    def at(seconds: float) -> bytes:
        return posted(deliver_at=datetime.fromtimestamp(seconds, UTC).isoformat())

    assert understood(at(NOW - 1e6)).event.deliver_at is not None
    assert understood(at(NOW + MAX_DELAY)).event.deliver_at is not None
    assert pointers(at(NOW + MAX_DELAY + 1)) == ["/deliver_at"]


def test_the_fingerprint_is_of_what_is_said_not_of_how() -> None:
    """Order and white space don't change it, the key isn't in it, and any value changes it."""
    one = understood(b'{"type":"t","data":{"a":1,"b":[2]},"idempotency_key":"k"}')
    same = understood(b'{"idempotency_key": "other", "data": {"b": [2], "a": 1}, "type": "t"}')
    other = understood(b'{"type":"t","data":{"a":1,"b":[3]},"idempotency_key":"k"}')
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert understood(posted()).fingerprint is None


def test_a_key_beside_the_body_counts_as_one_within() -> None:
    """The header's key gives the same event and fingerprint as the field's."""
    inside = understood(posted(idempotency_key="k"))
    assert with_key(understood(posted()), "k").event == inside.event
    assert with_key(understood(posted()), "k").fingerprint == inside.fingerprint
    assert with_key(inside, "k") == inside


@pytest.mark.parametrize("key", ["other", "", "é", "k" * 513])
def test_a_key_beside_the_body_that_contradicts_or_is_none_is_refused(key: str) -> None:
    """Two different keys can't both be meant, and a header is held to the field's rule."""
    with pytest.raises(InvalidEventError):
        with_key(understood(posted(idempotency_key="k")), key)
    if key != "other":
        with pytest.raises(InvalidEventError):
            with_key(understood(posted()), key)


def test_an_event_made_in_process_equals_a_posted_one() -> None:
    """`from_event` gives what posting the same JSON gives."""
    at = datetime.now(UTC) + timedelta(days=1)
    event = Event(type="order.paid", data={"total": 12}, idempotency_key="k", deliver_at=at)
    made, read = from_event(event), parse_json(posted(idempotency_key="k", deliver_at=at.isoformat()))[0][0]
    assert (made.event, made.fingerprint) == (read.event, read.fingerprint)
    assert json.loads(bytes(made.raw)) == {"total": 12}


def test_data_made_in_process_may_be_whatever_json_can_say() -> None:
    """Times and the like are written as JSON, and the event's data is what was written."""
    made = from_event(Event(type="t", data={"at": datetime(2026, 1, 2, tzinfo=UTC), "nothing": None}))
    assert made.event.data == {"at": "2026-01-02T00:00:00Z", "nothing": None}


def _circle() -> dict[str, Any]:
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    return circle


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "a b"},
        {"type": 7},
        {"data": [1]},
        {"data": {"a": object()}},
        {"data": {"a": float("nan")}},
        {"data": {"a": [float("inf")]}},
        {"data": {"a": "\ud800"}},
        {"data": _circle()},
        {"data": json.loads("[" * 64 + "]" * 64) and {"a": json.loads("[" * 64 + "]" * 64)}},
        {"deliver_at": datetime(2027, 1, 1)},  # noqa: DTZ001 - the very fault
        {"deliver": [Delivery(channel="webhook", to="x")]},
    ],
)
def test_an_event_made_in_process_is_held_to_the_same_rules(changes: dict[str, Any]) -> None:
    """What couldn't be posted can't be submitted either, and nothing but InvalidEventError comes of it."""
    with pytest.raises(InvalidEventError):
        from_event(Event(**({"type": "t", "data": {}} | changes)))


@given(st.binary(max_size=200))
def test_any_bytes_are_understood_or_refused(body: bytes) -> None:
    """No body makes anything but events or an InvalidEventError."""
    assert faults_of(body) is not None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["type", "data", "tenant", "deliver", "deliver_at", "x"]), _json))
def test_any_json_is_understood_or_refused(body: dict[str, Any]) -> None:
    """No JSON makes anything but events or an InvalidEventError whose pointers are RFC 6901's."""
    faults = faults_of(json.dumps(body).encode())
    assert all(not fault.pointer or fault.pointer.startswith("/") for fault in faults)


# As a plain reading has it ---------------------------------------------------------------------------


class _Pairs(list[tuple[str, Any]]):
    """An object as it stands, its repeated fields and all."""


def _in_range(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(text)
    return number


def _no_constant(text: str) -> None:
    raise ValueError(text)


def _plain(value: Any) -> Any:
    """A value's objects as dicts, as every parser has them: the last of a repeated field counts."""
    if isinstance(value, _Pairs):
        return {name: _plain(inner) for name, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _depth(value: Any) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def plainly(body: bytes) -> dict[str, Any] | None:
    """What the standard library's parser reads of an event, by DESIGN's rules; None: it is refused."""
    try:
        pairs = json.loads(
            body.decode(), object_pairs_hook=_Pairs, parse_float=_in_range, parse_constant=_no_constant
        )
        event: dict[str, Any] = _plain(pairs)
        json.dumps(pairs, ensure_ascii=False).encode()
    except ValueError:
        return None
    names, tenant = {name for name, _ in pairs}, event.get("tenant")
    in_order = (
        len(names) == len(pairs)
        and {"type", "data"} <= names <= {"type", "data", "tenant"}
        and isinstance(event["data"], dict)
        and _depth(event["data"]) <= MAX_DATA_DEPTH
        and re.fullmatch(r"[a-z.]{1,9}", str(event["type"]))
        and (tenant is None or (isinstance(tenant, str) and re.fullmatch(r"[!-~]{1,9}", tenant)))
    )
    return event if in_order else None


_space = st.sampled_from(["", " ", "\n", "\r\n\t", "         "])
_names = st.sampled_from(['"type"', '"data"', '"tenant"', '"a"', '"dat\\u0061"', '"\\"data\\":"'])
_good = st.sampled_from(
    ["0", "-1.5e300", "9" * 19, "true", "null", '"a"', '"{[{["', '"\\ud83d\\ude00"', '"\\u0000"', '"é"']
)
_odd = st.sampled_from(
    [
        "1e309",
        "-1E+400",
        "01",
        "1" * 400,
        "NaN",
        "1.",
        "tru",
        '"\\ud800"',
        '"\\x"',
        '"\xff"',
        '"\t"',
        '{"\xff":0}',
    ]
)


def _listed(space: str, inner: list[str]) -> str:
    return "[" + f",{space}".join(inner) + "]"


def _object(space: str, members: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{space}{name}{space}:{value}" for name, value in members) + space + "}"


def _objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(_object, _space, st.lists(st.tuples(_names, inner), max_size=3))


def _nesting(leaves: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        leaves,
        lambda inner: st.builds(_listed, _space, st.lists(inner, max_size=3)) | _objects(inner),
        max_leaves=6,
    )


_depths = st.integers(MAX_DATA_DEPTH - 2, MAX_DATA_DEPTH + 1).map(lambda n: '{"a":' + "[" * n + "]" * n + "}")
_data = st.one_of(
    _objects(_nesting(_good)), _objects(_nesting(_good)), _objects(_nesting(_good | _odd)), _depths
)
_types = st.tuples(
    st.sampled_from(['"type"', '"typ\\u0065"']), st.sampled_from(['"t"', '"t"', '"a b"', '"\\u0061"'])
)
_more = st.lists(
    st.tuples(st.just('"tenant"'), st.sampled_from(['"acme"', "null", '"a b"', "0"]))
    | st.tuples(_names, _good | _odd | _data),
    max_size=1,
)


def _body(space: str, members: list[tuple[str, str]], end: str) -> bytes:
    return (_object(space, members) + end).encode().replace("\xff".encode(), b"\xff")


_bodies = st.builds(
    _body,
    _space,
    st.builds(lambda said, data, more: [said, ('"data"', data), *more], _types, _data, _more).flatmap(
        st.permutations
    ),
    _space | st.sampled_from(["", "", "x"]),
)


@given(_bodies)
@settings(max_examples=500)
@example(b'{"type":"t","data":{"a":"\xff"}}')
@example(b'{"type":"t","data":{"a":1e309}}')
@example(b'{"type":"t","data":{"a":"\\ud800"}}')
@example(b'{"type":"t","data":0,"data":{}}')
@example(b'{"type":"t","data":{"data":0,"data":{}}}')
@example(b'{"type":"t","data":' + b'{"a":' * 64 + b"{}" + b"}" * 65)
def test_an_event_is_taken_or_refused_as_a_plain_reading_would(body: bytes) -> None:
    """The short ways that most events take lead where the long one does: to the same data, or a refusal."""
    expected = plainly(body)
    if expected is None:
        assert faults_of(body)
        return
    found = understood(body)
    assert (found.event.type, found.event.data) == (expected["type"], expected["data"])
    assert found.event.tenant == expected.get("tenant")
    assert msgspec.json.decode(found.raw) == expected["data"]
    assert parse_json(b"[ " + body + b" ]", now=NOW)[0] == [found]
