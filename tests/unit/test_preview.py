"""What an event would cause, shown before anybody posts it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.builders import NOW, SECRET, endpoint, event_record

from notifier.channels import Channel, ChannelContext, FunctionChannel, Message, Receipt
from notifier.channels.signing import verify
from notifier.channels.webhook import WebhookChannel
from notifier.config import Config, Retry, Route
from notifier.model import Endpoint, EndpointState
from notifier.preview import RECIPIENT, preview, specimen
from notifier.rendering import Renderer
from notifier.routing import EXPLAINED, Router
from notifier.store.base import Submission

ORDER = '{"total": 120, "email": "ada@example.com"}'


async def accept(_message: Message) -> Receipt:
    """Never called: a preview sends nothing."""
    raise AssertionError


@pytest.fixture
def channels() -> Mapping[str, Channel]:
    """Email by a function, and webhooks as they are."""
    context = ChannelContext(config=Config(), settings={}, secrets_for=lambda _: [SECRET], clock=lambda: NOW)
    return {"email": FunctionChannel("email", accept, 60), "webhook": WebhookChannel(context)}


ROUTES = (
    Route(name="erp", event="order.*", channel="webhook", url="https://erp.example/hooks"),
    Route(name="big", event="order.*", channel="webhook", url="https://b.example/", when="data.total > 500"),
    Route(name="mail", event="order.*", channel="email", to="{{ data.email }}", template="order"),
    Route(name="welcome", event="user.signup", channel="email", to="a@b.example", template="welcome"),
)


def previewed(
    folder: Path,
    channels: Mapping[str, Channel],
    body: str = ORDER,
    *,
    routes: tuple[Route, ...] = ROUTES,
    endpoints: tuple[Endpoint, ...] = (),
    **changes: Any,
) -> dict[str, Any]:
    """Preview an order."""
    router = Router(routes, Retry(), {name: each.lane for name, each in channels.items()})
    for each in endpoints:
        router.subscriptions.put(each)
    event = event_record(body=body, **changes)
    data = event.decoded_data()
    submission = Submission(event, router.jobs(event, data, (), NOW))
    return preview(submission, data, router, Renderer(folder), channels)


# Routes --------------------------------------------------------------------------------------------


def test_a_preview_gives_every_routes_verdict(tmp_path: Path, channels: Mapping[str, Channel]) -> None:
    """Those that match, and why the others don't."""
    shown = previewed(tmp_path, channels)
    assert shown["event"] == {
        "type": "order.paid",
        "tenant": None,
        "data": {"total": 120, "email": "ada@example.com"},
    }
    assert [(each["route"], each["matched"]) for each in shown["routes"]] == [
        ("erp", True),
        ("big", False),
        ("mail", True),
        ("welcome", False),
    ]
    assert "data.total > 500" in shown["routes"][1]["reason"]
    assert "'user.signup'" in shown["routes"][3]["reason"]


def test_a_preview_shows_what_would_be_sent(tmp_path: Path, channels: Mapping[str, Channel]) -> None:
    """Rendered, as the channel would send it, in JSON's types."""
    (tmp_path / "order").mkdir()
    (tmp_path / "order" / "subject.txt").write_text("Thanks for {{ data.total }}")
    shown = previewed(tmp_path, channels)
    erp, mail = shown["deliveries"]
    assert (erp["route"], erp["message"]["url"]) == ("erp", "https://erp.example/hooks")
    assert mail["destination"] == "ada@example.com"
    assert mail["message"]["content"]["subject"] == "Thanks for 120"
    assert msgspec.json.encode(shown)


def test_a_preview_shows_what_would_fail(tmp_path: Path, channels: Mapping[str, Channel]) -> None:
    """A destination that can't be made out, or a template that is missing: beside what works."""
    erp, mail = previewed(tmp_path, channels, '{"total": 120}')["deliveries"]
    assert "message" in erp
    assert mail["error"]["code"] == "destination_error"
    _, mail = previewed(tmp_path, channels)["deliveries"]
    assert mail["error"] == {"code": "template_error", "message": "order: there is no such template"}


# Endpoints -----------------------------------------------------------------------------------------


def test_a_preview_gives_the_verdict_on_the_tenants_endpoints(
    tmp_path: Path, channels: Mapping[str, Channel]
) -> None:
    """Those that take the event first; what is held for those that are stopped; no other tenant's."""
    endpoints = (
        endpoint(id="ep_1", event_types=("user.*",), tenant="acme"),
        endpoint(id="ep_2", when="data.total > 500", tenant="acme"),
        endpoint(
            id="ep_3",
            state=EndpointState.PAUSED,
            state_reason="paused by an operator: their move",
            tenant="acme",
        ),
        endpoint(id="ep_4", when="data.nothing", tenant="acme"),
        endpoint(id="ep_5", tenant="umbrella"),
        endpoint(id="ep_6"),
    )
    shown = previewed(tmp_path, channels, routes=(), endpoints=endpoints, tenant="acme")
    assert [(each["endpoint"], each["matched"], each["reason"]) for each in shown["endpoints"]] == [
        (
            "ep_3",
            True,
            "'order.paid' matches '*'; paused by an operator: their move: its deliveries are held",
        ),
        ("ep_4", True, "`when` failed: when: 'data.nothing' is undefined"),
        ("ep_2", False, "`when` is false: data.total > 500"),
        ("ep_1", False, "'order.paid' does not match 'user.*'"),
    ]
    assert [each["endpoint"] for each in shown["deliveries"]] == ["ep_3", "ep_4"]
    assert shown["endpoints_not_shown"] == shown["deliveries_not_shown"] == 0


def test_a_preview_is_cut_and_says_so(tmp_path: Path, channels: Mapping[str, Channel]) -> None:
    """Thousands of endpoints make no answer that nobody can read; those that match come first."""
    others = tuple(
        endpoint(id=f"ep_1{number:04}", event_types=("user.signup",)) for number in range(EXPLAINED)
    )
    takers = tuple(endpoint(id=f"ep_2{number:04}") for number in range(EXPLAINED - 1))
    shown = previewed(tmp_path, channels, routes=(), endpoints=(*others, *takers))
    matched = [each["matched"] for each in shown["endpoints"]]
    assert matched == [True] * (EXPLAINED - 1) + [False]
    assert shown["endpoints_not_shown"] == EXPLAINED - 1
    assert (len(shown["deliveries"]), shown["deliveries_not_shown"]) == (EXPLAINED - 1, 0)
    shown = previewed(tmp_path, channels, endpoints=(*others, *takers))
    assert (len(shown["deliveries"]), shown["deliveries_not_shown"]) == (EXPLAINED, 1)


def test_a_preview_shows_an_endpoints_request_as_it_would_go_out(
    tmp_path: Path, channels: Mapping[str, Channel]
) -> None:
    """Its whole url, its template, its headers and the signature, which verifies; credentials hidden."""
    (tmp_path / "slim").mkdir()
    (tmp_path / "slim" / "payload.json").write_text('{"total": {{ data.total }} }')
    taker = endpoint(
        url="https://b.example/hooks?to=7",
        template="slim",
        headers={"X-Team": "blue", "Authorization": "Bearer s3cret", "X-Api-Key": "s3cret"},
    )
    (shown,) = previewed(tmp_path, channels, routes=(), endpoints=(taker,))["deliveries"]
    assert (shown["endpoint"], shown["destination"]) == (taker.id, "https://b.example/hooks")
    message = shown["message"]
    assert (message["method"], message["url"]) == ("POST", "https://b.example/hooks?to=7")
    assert message["body"] == '{"total": 120 }'
    headers = {name.lower(): value for name, value in message["headers"].items()}
    assert (headers["x-team"], headers["authorization"], headers["x-api-key"]) == (
        "blue",
        "(hidden)",
        "(hidden)",
    )
    assert "s3cret" not in str(shown)
    verify(headers, message["body"].encode(), SECRET, NOW)


def test_a_preview_offers_the_way_to_unsubscribe(tmp_path: Path, channels: Mapping[str, Channel]) -> None:
    """As the delivery would: the template's link, and what the channel makes headers of."""
    (tmp_path / "order").mkdir()
    (tmp_path / "order" / "subject.txt").write_text("{{ unsubscribe_url }}")
    router = Router(ROUTES, Retry(), {name: each.lane for name, each in channels.items()})
    event = event_record(body=ORDER)
    submission = Submission(event, router.jobs(event, event.decoded_data(), (), NOW))
    shown = preview(
        submission,
        event.decoded_data(),
        router,
        Renderer(tmp_path),
        channels,
        unsubscribe_url=lambda job: f"https://n.example/unsubscribe/{job.route}",
    )
    subject = shown["deliveries"][1]["message"]["content"]["subject"]
    assert subject == "https://n.example/unsubscribe/mail"


# A template ----------------------------------------------------------------------------------------


def test_a_template_is_shown_for_a_made_up_event(tmp_path: Path) -> None:
    """All its parts, for the data given; the job and the event are there to be written about."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "subject.txt").write_text("{{ data.n }} for {{ job.destination }}")
    (tmp_path / "t" / "body.fr.txt").write_text("{{ event.type }} {{ tenant }} {{ unsubscribe_url }}")
    (tmp_path / "t" / "payload.json").write_text("{{ data | tojson }}")
    made = specimen(
        Renderer(tmp_path),
        "t",
        msgspec.Raw(b'{"n": 1}'),
        now=NOW,
        locale="fr",
        tenant="acme",
        category="news",
        unsubscribe_url="https://n.example/u",
    )
    assert made.problems == []
    assert made.message.content.subject == f"1 for {RECIPIENT}"
    assert made.message.content.text == "preview acme https://n.example/u"
    assert made.message.content.payload == '{"n":1}'
    assert (made.message.job.category, made.message.unsubscribe_url) == ("news", "https://n.example/u")
    assert made.message.id.startswith("test_")


def test_every_part_that_lacks_something_is_named(tmp_path: Path) -> None:
    """The first mistake hides no other part's; what stands in a layout is told once."""
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "subject.txt").write_text("{{ data.name }}")
    (tmp_path / "t" / "body.txt").write_text("\n{{ data.total }}")
    (tmp_path / "t" / "body.html").write_text("<p>")
    made = specimen(Renderer(tmp_path), "t", msgspec.Raw(b"{}"), now=NOW)
    assert [(each.template, each.line, each.variable) for each in made.problems] == [
        ("t/body.txt", 2, "data.total"),
        ("t/subject.txt", 1, "data.name"),
    ]
    assert made.message.content.html == "<p>"
