"""What an endpoint may be made of: every rule, each fault at its place, and what is never shown again."""

import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import SECRET
from support.registry import draft, template_problem

from notifier.channels.signing import new_secret
from notifier.channels.targets import target
from notifier.endpoints import HIDDEN, EndpointChanges, EndpointDraft, shown_headers
from notifier.endpoints.drafts import Rules, check
from notifier.errors import InvalidEndpointError

RULES = Rules(lambda url: target(url).lane, template_problem)


def faults(**changes: Any) -> dict[str, str]:
    """What is wrong with a draft, by pointer."""
    try:
        check(msgspec.structs.asdict(draft(**changes)), RULES)
    except InvalidEndpointError as error:
        return dict(error.faults)
    return {}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"url": "http://[2606:4700::1111]:8080/hooks?token=s3cret"},
        {"url": "https://a.example/" + "x" * 2030},
        {"event_types": ("*", "a.*", "a-b/c_d", "notifier.endpoint.*")},
        {"event_types": tuple(f"t{number}" for number in range(100))},
        {"tenant": "acme:eu#7"},
        {"when": "data.total > 100 and tenant != 'x'"},
        {"description": "Ünïcode\nin two lines" + "." * 490},
        {"headers": {"X-Team": "blue", "Authorization": "Bearer s3cret", "x-empty": ""}},
        {"headers": {f"x-{number}": "y" * 4096 for number in range(32)}},
        {"template": "slim"},
        {"rate_limit": 0.001, "max_in_flight": 1},
        {"rate_limit": 1e6, "max_in_flight": 10_000},
        {"secret": SECRET},
        {"secret": new_secret("v1a"), "signature": "v1"},
    ],
)
def test_what_is_in_order_passes(changes: dict[str, Any]) -> None:
    """Nothing is refused that can be delivered by."""
    assert faults(**changes) == {}


@pytest.mark.parametrize(
    ("changes", "pointer", "says"),
    [
        ({"url": "ftp://a.example/"}, "/url", "http:// or https://"),
        ({"url": "https://user:pw@a.example/"}, "/url", "user name or password"),
        ({"url": "https://a.example/" + "x" * 2031}, "/url", "too long"),
        ({"url": ""}, "/url", "empty"),
        ({"url": "https://a.example/\x00"}, "/url", "control character"),
        ({"event_types": ()}, "/event_types", "1 to 100"),
        ({"event_types": tuple(f"t{n}" for n in range(101))}, "/event_types", "got 101"),
        ({"event_types": ("a", "b c")}, "/event_types/1", "order.*"),
        ({"event_types": ("a..b",)}, "/event_types/0", "order.*"),
        ({"event_types": ("x" * 129,)}, "/event_types/0", "1 to 128 characters"),
        ({"event_types": ("a", "b", "a")}, "/event_types/2", "more than once"),
        ({"tenant": "a b"}, "/tenant", "without spaces"),
        ({"tenant": ""}, "/tenant", "1 to 128"),
        ({"when": "data.total >"}, "/when", "is no Jinja2 expression"),
        ({"when": "dta.total > 1"}, "/when", "did you mean 'data'?"),
        ({"when": "1 or " * 500}, "/when", "at most 2048"),
        ({"when": "'\ud800' == 1"}, "/when", "surrogate"),
        ({"description": "x" * 513}, "/description", "at most 512 characters, got 513"),
        ({"description": "a\x00b"}, "/description", "control character"),
        ({"template": "nope"}, "/template", "no such template"),
        ({"rate_limit": 0.0}, "/rate_limit", "more than 0"),
        ({"rate_limit": float("nan")}, "/rate_limit", "more than 0"),
        ({"rate_limit": 1e6 + 1}, "/rate_limit", "at most"),
        ({"max_in_flight": 0}, "/max_in_flight", "1 to 10000"),
        ({"max_in_flight": 10_001}, "/max_in_flight", "1 to 10000"),
        ({"secret": "hunter2"}, "/secret", "whsec_ or whsk_"),
        ({"secret": "whsec_c2hvcnQ="}, "/secret", "24 to 64 bytes"),
        ({"headers": {f"x-{n}": "" for n in range(33)}}, "/headers", "at most 32"),
        ({"headers": {"X/Y~": "a"}}, "/headers/X~1Y~0", "a header's name"),
        ({"headers": {"": "a"}}, "/headers/", "a header's name"),
        ({"headers": {"x" * 129: "a"}}, "/headers/" + "x" * 128, "a header's name"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "/headers/x-a", "more than once"),
        ({"headers": {"x-a": "a\r\nx-evil: 1"}}, "/headers/x-a", "printable ASCII"),
        ({"headers": {"x-a": "é"}}, "/headers/x-a", "printable ASCII"),
        ({"headers": {"x-a": " a"}}, "/headers/x-a", "no space at either end"),
        ({"headers": {"x-a": "y" * 4097}}, "/headers/x-a", "up to 4096"),
        ({"headers": {"authorization": HIDDEN}}, "/headers/authorization", "there is none of this name"),
    ],
)
def test_what_is_not_is_told_by_its_place(changes: dict[str, Any], pointer: str, says: str) -> None:
    """By the JSON pointer of the fault, and what was expected."""
    found = faults(**changes)
    assert list(found) == [pointer]
    assert says in found[pointer]


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "connection",
        "Keep-Alive",
        "TE",
        "trailer",
        "Upgrade",
        "Expect",
        "Content-Digest",
        "Proxy-Authorization",
        "proxy-connection",
        "webhook-id",
        "Webhook-Signature",
    ],
)
def test_headers_that_are_the_notifiers_to_say_are_refused(name: str) -> None:
    """What frames the request, speaks of the connection, or says who sent it."""
    assert faults(headers={name: "x"}) == {
        f"/headers/{name}": "can't be set: it is the notifier's own to say"
    }


def test_all_that_is_wrong_is_told_at_once() -> None:
    """One round of mending is enough."""
    found = faults(
        url="nonsense",
        event_types=("a b", "c d"),
        when="data.",
        headers={"host": "x", "x y": "z"},
        rate_limit=-1.0,
        secret="no",
    )
    assert list(found) == [
        "/url",
        "/event_types/0",
        "/event_types/1",
        "/when",
        "/headers/host",
        "/headers/x y",
        "/rate_limit",
        "/secret",
    ]


def test_a_fault_repeats_neither_the_url_nor_a_secret() -> None:
    """They end in logs and on screens."""
    found = faults(url="https://u:s3cret@a.example/?s3cret", secret="s3cret", headers={"x-a": "s3cret\n"})
    assert len(found) == 3
    assert "s3cret" not in str(found)


def test_changes_tell_left_out_from_cleared() -> None:
    """Null clears, nothing stays as it was, and what can't be without a value takes no null."""
    changes = msgspec.json.decode(b'{"when":null,"rate_limit":5}', type=EndpointChanges)
    assert changes.given == {"when": None, "rate_limit": 5.0}
    for refused in (b'{"url":null}', b'{"event_types":null}', b'{"tenant":"acme"}', b'{"state":"enabled"}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(refused, type=EndpointChanges)


def test_what_is_printed_of_a_draft_tells_no_secret() -> None:
    """It ends in logs."""
    asked = draft(secret=SECRET, headers={"authorization": "s3cret"}, url="https://a.example/?s3cret")
    assert "s3cret" not in repr(asked)
    assert SECRET not in repr(asked)
    assert "s3cret" not in repr(EndpointChanges(headers={"authorization": "s3cret"}))


def test_the_schema_says_what_is_held() -> None:
    """The OpenAPI document is made of these types."""
    schema = msgspec.json.schema(EndpointDraft)["$defs"]["EndpointDraft"]["properties"]
    assert schema["event_types"]["maxItems"] == 100
    assert schema["url"]["maxLength"] == 2048


# What is never shown ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("Authorization", True),
        ("Cookie", True),
        ("X-Api-Key", True),
        ("x-auth", True),
        ("X-Access-Token", True),
        ("X-Client-Secret", True),
        ("X-Password", True),
        ("X-Hub-Signature-256", True),
        ("X-Pass", True),
        ("X-Passphrase", True),
        ("X-Credentials", True),
        ("X-Session-Id", True),
        ("X-JWT", True),
        ("X-Team", False),
        ("Content-Type", False),
    ],
)
def test_headers_that_may_hold_credentials_are_hidden(name: str, hidden: bool) -> None:
    """By their names; the others are shown."""
    assert shown_headers({name: "value"}) == {name: HIDDEN if hidden else "value"}


@given(
    st.sampled_from(["authorization", "cookie", "token", "key", "secret", "password", "auth", "signature"]),
    st.text(string.ascii_letters + "-", max_size=8),
    st.text(string.ascii_letters + "-", max_size=8),
)
def test_no_spelling_of_a_sensitive_name_is_shown(word: str, before: str, after: str) -> None:
    """Wherever in a name it stands, in whatever case."""
    for name in (before + word + after, before + word.upper() + after, before + word.title() + after):
        assert shown_headers({name: "value"})[name] == HIDDEN
