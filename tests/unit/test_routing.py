"""Routing: which jobs an event causes, and what becomes of those that can't be made out."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import NOW, event_record, job

from notifier.config import Duration, Retry, Route
from notifier.errors import ConfigError, Fault, InvalidEventError, Permanent
from notifier.model import Delivery, EventRecord, Job, JobState, Priority
from notifier.routing import MAX_DESTINATION, LaneOf, Router, matches

DEFAULT = Retry(schedule=(Duration(5), Duration(300)))


def email_lane(destination: str) -> str:
    """As the email channel has it: by domain."""
    _, at, domain = destination.rpartition("@")
    if not at:
        raise Permanent(f"{destination!r} is no address", code="invalid_destination")
    return f"email:{domain}"


def broken_lane(_destination: str) -> str:
    """A registered channel with a fault in it."""
    raise RuntimeError("oh\0no")


def curt_lane(_destination: str) -> str:
    """A registered channel that refuses without a code."""
    raise Permanent("not that one")


LANES: Mapping[str, LaneOf] = {
    "email": email_lane,
    "webhook": lambda url: f"webhook:{url.split('/')[2]}:443",
    "sms": lambda _destination: "sms",
    "broken": broken_lane,
    "curt": curt_lane,
}


def route(**changes: Any) -> Route:
    """A route by sms that takes everything."""
    fields = {"name": "r", "event": "*", "channel": "sms", "to": "+15550100"} | changes
    return Route(**fields)


def router(*routes: Route) -> Router:
    """A router with the lanes above and a default schedule of two delays."""
    return Router(routes, DEFAULT, LANES)


def jobs(
    *routes: Route,
    event: EventRecord | None = None,
    data: dict[str, Any] | None = None,
    deliver: Sequence[Delivery] = (),
) -> tuple[Job, ...]:
    """The jobs that these routes make of an event."""
    return router(*routes).jobs(event or event_record(), data or {}, deliver, NOW)


# Which routes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "event_type", "expected"),
    [
        ("order.paid", "order.paid", True),
        ("order.paid", "order.refunded", False),
        ("order.paid", "order.paid.late", False),
        ("order.*", "order.paid", True),
        ("order.*", "order", False),
        ("order.*", "order.item.added", False),
        ("*.paid", "order.paid", True),
        ("order.*.added", "order.item.added", True),
        ("*.*", "order.paid", True),
        ("*.*", "order", False),
        ("*", "order.item.added", True),
        ("*", "order", True),
        ("order-1/x_y", "order-1/x_y", True),
        ("order", "orders", False),
    ],
)
def test_a_pattern_takes_exact_types_and_stars_for_segments(
    pattern: str, event_type: str, expected: bool
) -> None:
    """`*` is exactly one segment between dots, and alone it is everything."""
    assert matches(pattern, event_type) is expected


SEGMENT = st.text("ab-/_", min_size=1, max_size=2)


@given(
    st.lists(SEGMENT | st.just("*"), min_size=1, max_size=4).map(".".join),
    st.lists(SEGMENT, min_size=1, max_size=4).map(".".join),
)
def test_patterns_match_as_a_naive_reference_does(pattern: str, event_type: str) -> None:
    """The same answers as a regular expression made of the pattern, with and without what is remembered."""
    expression = ".*" if pattern == "*" else re.escape(pattern).replace(r"\*", r"[^.]+")
    expected = re.fullmatch(expression, event_type) is not None
    assert matches(pattern, event_type) is expected
    routing = router(route(event=pattern))
    event = event_record(type=event_type)
    for _ in range(2):
        assert bool(routing.jobs(event, {}, (), NOW)) is expected


def test_every_matching_route_causes_a_job_in_the_order_of_the_file() -> None:
    """An event goes to all who want it."""
    made = jobs(
        route(name="a", event="order.*"),
        route(name="b", event="user.*"),
        route(name="c"),
        event=event_record(type="order.paid"),
    )
    assert [each.route for each in made] == ["a", "c"]


def test_what_is_remembered_of_event_types_is_bounded() -> None:
    """Types come from whoever posts: a flood of new ones fills no memory, and still matches."""
    routing = router(route(event="order.*"))
    for number in range(3000):
        assert len(routing.jobs(event_record(type=f"order.{number}"), {}, (), NOW)) == 1
    assert len(routing._by_type) <= 1024


def test_when_decides() -> None:
    """A route whose `when` is false causes no job."""
    large = route(when="data.total > 100")
    assert len(jobs(large, data={"total": 101})) == 1
    assert jobs(large, data={"total": 100}) == ()


# What a job holds ------------------------------------------------------------------------------------


def test_a_job_holds_what_its_event_and_route_say() -> None:
    """All of it, so that a job can be delivered without looking at the configuration again."""
    event = event_record(type="user.signup", tenant="acme")
    (made,) = jobs(
        route(
            name="welcome",
            channel="email",
            to=" {{ data.email }} ",
            template="welcome",
            locale="{{ data.lang }}",
            priority="high",
            retry=(Duration(1),),
        ),
        event=event,
        data={"email": "ada@example.com", "lang": "fr-CA"},
    )
    assert made == Job(
        id=made.id,
        event_id=event.id,
        event_type="user.signup",
        tenant="acme",
        channel="email",
        destination="ada@example.com",
        lane="email:example.com",
        status=JobState.PENDING,
        created_at=NOW,
        updated_at=NOW,
        next_attempt_at=NOW,
        max_attempts=2,
        route="welcome",
        template="welcome",
        locale="fr-CA",
        priority=Priority.HIGH,
    )
    assert made.id.startswith("job_")


def test_ids_differ() -> None:
    """Two jobs of one event at one moment are two."""
    first, second = jobs(route(name="a"), route(name="b"))
    assert first.id != second.id


def test_a_webhook_route_goes_to_its_url() -> None:
    """A literal is taken as it stands, and may hold what Jinja2 would trip over."""
    (made,) = jobs(route(channel="webhook", to=None, url="https://crm.example/a?b=%20#}"))
    assert (made.destination, made.lane) == ("https://crm.example/a?b=%20#}", "webhook:crm.example:443")


@pytest.mark.parametrize(("later", "expected"), [(60, NOW + 60), (-60, NOW), (None, NOW)])
def test_a_job_waits_for_deliver_at(later: float | None, expected: float) -> None:
    """It is due then, or at once where that is past."""
    event = event_record(deliver_at=None if later is None else NOW + later)
    (made,) = jobs(route(), event=event)
    assert (made.status, made.next_attempt_at) == (JobState.PENDING, expected)


@pytest.mark.parametrize(
    ("locale", "expected"),
    [("fr_CA", "fr_CA"), ("", None), ("../../etc", None), ("x" * 36, None), ("français", None)],
)
def test_a_locale_that_is_none_is_left_out(locale: str, expected: str | None) -> None:
    """It comes from people's profiles: whatever stands there, the plain template goes out."""
    (made,) = jobs(route(locale="{{ data.lang }}"), data={"lang": locale})
    assert (made.status, made.locale) == (JobState.PENDING, expected)


def test_a_literal_destination_is_made_out_once() -> None:
    """Whatever events come; each has a job of its own all the same, and `when` still decides."""
    asked: list[str] = []

    def lane_of(destination: str) -> str:
        asked.append(destination)
        return "sms"

    routing = Router([route(when="data.total > 1", locale="de")], DEFAULT, {"sms": lane_of})
    events = [event_record(type=f"order.{n}", tenant=f"t{n}", deliver_at=NOW + n) for n in range(3)]
    made = [routing.jobs(each, {"total": n}, (), NOW + 1) for n, each in enumerate(events)]
    assert made[:2] == [(), ()]
    (last,) = made[2]
    (again,) = routing.jobs(events[1], {"total": 2}, (), NOW + 9)
    assert asked == ["+15550100"]
    assert [(each.event_id, each.event_type, each.tenant) for each in (last, again)] == [
        (each.id, each.type, each.tenant) for each in (events[2], events[1])
    ]
    assert [(each.created_at, each.next_attempt_at) for each in (last, again)] == [
        (NOW + 1, NOW + 2),
        (NOW + 9, NOW + 9),
    ]
    assert {(each.destination, each.lane, each.locale) for each in (last, again)} == {
        ("+15550100", "sms", "de")
    }


def test_a_literal_destination_that_was_refused_is_asked_for_again() -> None:
    """What a channel can't read at one time, it may at another: no refusal is kept."""
    refusals = [RuntimeError("not yet")]

    def lane_of(_destination: str) -> str:
        if refusals:
            raise refusals.pop()
        return "sms"

    routing = Router([route()], DEFAULT, {"sms": lane_of})
    made = [routing.jobs(event_record(), {}, (), NOW)[0] for _ in range(3)]
    assert [each.status for each in made] == [JobState.FAILED, JobState.PENDING, JobState.PENDING]


def test_what_hangs_on_an_event_is_made_out_for_each() -> None:
    """One of two recipients, or the locale alone, is enough."""
    routing = router(
        route(to=("+15550100", "{{ data.to }}")),
        route(name="words", locale="{{ data.lang }}"),
    )
    for to, lang in (("1", "de"), ("2", "fr")):
        first, second, words = routing.jobs(event_record(), {"to": to, "lang": lang}, (), NOW)
        assert [first.destination, second.destination, words.locale] == ["+15550100", to, lang]


# What can't be made out ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"to": "{{ data.phone }}"}, "destination_error", "routes[0].to, line 1: 'data.phone' is undefined"),
        ({"locale": "{{ data.lang }}"}, "destination_error", "routes[0].locale, line 1: 'data.lang' is"),
        ({"when": "data.total > 1"}, "condition_error", "routes[0].when, line 1: 'data.total' is undefined"),
        ({"when": "data.text > 1"}, "condition_error", "not supported between"),
        ({"to": "{{ data.empty }}"}, "invalid_destination", "is empty"),
        ({"to": "{{ data.null }}"}, "destination_error", "null"),
        ({"to": "{{ data.long }}"}, "invalid_destination", "too long"),
        ({"to": "a{{ data.nul }}"}, "invalid_destination", "control character"),
        ({"to": "a{{ data.lines }}b"}, "invalid_destination", "control character"),
        ({"channel": "email"}, "invalid_destination", "'+15550100' is no address"),
        ({"channel": "broken"}, "invalid_destination", "RuntimeError: oh\ufffdno"),
        ({"channel": "curt"}, "invalid_destination", "not that one"),
    ],
)
def test_a_job_that_can_not_be_made_out_is_born_failed_and_its_siblings_go_out(
    changes: dict[str, Any], code: str, message: str
) -> None:
    """Its error names the key and the variable; neither its siblings nor the event suffer."""
    data = {
        "text": "x",
        "empty": " \n",
        "null": None,
        "long": "1" * (MAX_DESTINATION + 1),
        "nul": "\0",
        "lines": "\r\nBcc: eve@example.com\r\n",
    }
    failed, sibling = jobs(route(**changes), route(name="sibling"), data=data)
    assert failed.error is not None
    assert failed.error.code == code
    assert message in failed.error.message
    assert (failed.status, failed.destination, failed.next_attempt_at) == (JobState.FAILED, None, None)
    assert failed.lane == failed.channel
    assert (failed.attempts, failed.max_attempts) == (0, 3)
    assert (sibling.status, sibling.error, sibling.destination) == (JobState.PENDING, None, "+15550100")


def test_what_an_event_says_is_never_run_as_a_template() -> None:
    """An address that looks like Jinja2 is an odd address, no more."""
    (made,) = jobs(route(to="{{ data.to }}"), data={"to": "{{ event.id }}"})
    assert made.destination == "{{ event.id }}"


# Deliveries that events ask for ----------------------------------------------------------------------


def test_an_explicit_delivery_is_taken_literally() -> None:
    """Beside the routes' jobs, with the default schedule, and nothing in it run as a template."""
    event = event_record(deliver_at=NOW + 60, tenant="acme")
    delivery = Delivery(
        channel="email",
        to="{{x}}@example.com",
        template="not-checked-here",
        locale="de",
        priority="low",
    )
    routed, asked = jobs(route(), event=event, deliver=[delivery])
    assert routed.route == "r"
    assert asked == Job(
        id=asked.id,
        event_id=event.id,
        event_type=event.type,
        tenant="acme",
        channel="email",
        destination="{{x}}@example.com",
        lane="email:example.com",
        status=JobState.PENDING,
        created_at=NOW,
        updated_at=NOW,
        next_attempt_at=NOW + 60,
        max_attempts=3,
        template="not-checked-here",
        locale="de",
        priority=Priority.LOW,
    )


def test_an_explicit_webhook_goes_to_its_url() -> None:
    """Without any route."""
    (asked,) = jobs(deliver=[Delivery(channel="webhook", url="https://a.example/x")])
    assert (asked.destination, asked.lane, asked.route) == (
        "https://a.example/x",
        "webhook:a.example:443",
        None,
    )


def test_all_that_is_wrong_with_explicit_deliveries_is_told_at_once() -> None:
    """Each fault by its pointer; one bad delivery refuses the event, whatever its routes say."""
    deliver = [
        Delivery(channel="pigeon", to="roof"),
        Delivery(channel="email", to="ada@example.com", template="t"),
        Delivery(channel="email", to="nobody", template="t"),
        Delivery(channel="webhook", url="nonsense"),
        Delivery(channel="sms", to="  "),
        Delivery(channel="sms", to="1\0"),
        Delivery(channel="broken", to="x"),
    ]
    with pytest.raises(InvalidEventError) as raised:
        jobs(route(), deliver=deliver)
    known = "broken, curt, email, sms, webhook"
    assert raised.value.faults[:2] == [
        Fault("/deliver/0/channel", f"no channel 'pigeon'; there are: {known}"),
        Fault("/deliver/2/to", "'nobody' is no address"),
    ]
    assert [fault.pointer for fault in raised.value.faults[2:]] == [
        "/deliver/3/url",
        "/deliver/4/to",
        "/deliver/5/to",
        "/deliver/6/to",
    ]


# Why, and anew ---------------------------------------------------------------------------------------


def test_explain_says_of_every_route_why() -> None:
    """Matched; another type; `when` false; `when` failed (which causes a job, born FAILED)."""
    routing = router(
        route(name="all"),
        route(name="other", event="user.*"),
        route(name="large", when="data.total > 100"),
        route(name="small", event="order.*", when="data.total < 100"),
        route(name="vip", when="data.vip"),
    )
    event = event_record(type="order.paid")
    assert [(v.name, v.matched, v.reason) for v in routing.explain(event, {"total": 20})] == [
        ("all", True, "'order.paid' matches '*'"),
        ("other", False, "'order.paid' does not match 'user.*'"),
        ("large", False, "`when` is false: data.total > 100"),
        ("small", True, "'order.paid' matches 'order.*', and `when` is true: data.total < 100"),
        ("vip", True, "`when` failed: routes[4].when: 'data.vip' is undefined"),
    ]
    caused = [each.route for each in routing.jobs(event, {"total": 20}, (), NOW)]
    assert caused == ["all", "small", "vip"]


def test_a_job_born_failed_is_made_out_anew() -> None:
    """After an operator mended the route, a requeued job gets destination, lane and locale."""
    event, data = event_record(), {"mail": "ada@example.com"}
    (born,) = jobs(route(channel="email", to="{{ data.email }}"), event=event, data=data)
    assert born.destination is None
    mended = router(route(channel="email", to="{{ data.mail }}", locale="fr", when="data.mail"))
    made = mended.resolve(born, event, data)
    assert (made.destination, made.lane, made.locale) == ("ada@example.com", "email:example.com", "fr")
    assert (made.id, made.status, made.addressed) == (born.id, born.status, None)


@pytest.mark.parametrize(
    ("routes", "code"),
    [
        ([], "unknown_route"),
        ([route(name="other")], "unknown_route"),
        ([route(channel="email", to="ada@example.com")], "unknown_route"),
        ([route(to="{{ data.phone }}")], "destination_error"),
        ([route(to="{{ '' }}")], "invalid_destination"),
        ([route(when="data.x")], "condition_error"),
        ([route(when="1 > 2")], "condition_false"),
    ],
)
def test_a_job_that_still_can_not_be_made_out_fails_anew(routes: list[Route], code: str) -> None:
    """The route is gone, has gone over to another channel, or is no better than before."""
    born = job(channel="sms", route="r", destination=None)
    with pytest.raises(Permanent) as raised:
        router(*routes).resolve(born, event_record(), {})
    assert raised.value.code == code


def test_schedules_are_the_routes_own_or_the_default() -> None:
    """Also for jobs without a route, and for those whose route is gone."""
    own = (Duration(1), Duration(2), Duration(3))
    routing = router(route(name="own", retry=own), route(name="once", retry=()), route(name="plain"))
    assert routing.schedule("own") == own
    assert routing.schedule("once") == ()
    assert routing.schedule("plain") == routing.schedule(None) == routing.schedule("gone") == DEFAULT.schedule
    assert [each.max_attempts for each in routing.jobs(event_record(), {}, (), NOW)] == [4, 1, 3]


def test_routes_are_found_by_name() -> None:
    """None where there is no such route."""
    wanted = route(name="a")
    routing = router(wanted)
    assert routing.route("a") is wanted
    assert routing.route("b") is None
    assert routing.route(None) is None


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"when": "data.total >"}, "routes[1].when"),
        ({"to": "{{ data.phone"}, "routes[1].to"),
        ({"to": None, "url": "https://{{ dta }}", "channel": "webhook"}, "routes[1].url"),
        ({"locale": "{% if %}"}, "routes[1].locale"),
        ({"channel": "pigeon"}, "routes[1].channel"),
    ],
)
def test_a_route_that_can_not_work_is_told_at_the_start(changes: dict[str, Any], key: str) -> None:
    """By its key in the configuration."""
    with pytest.raises(ConfigError) as raised:
        router(route(), route(**{"name": "second"} | changes))
    assert raised.value.key == key


def test_events_are_told_apart_by_what_their_times_say() -> None:
    """`event.created_at` is a time that a condition can reckon with."""
    moment = datetime(2027, 1, 15, tzinfo=UTC).timestamp()
    night = route(when="event.created_at.hour < 6")
    assert len(jobs(night, event=event_record(created_at=moment))) == 1
    assert jobs(night, event=event_record(created_at=moment + 12 * 3600)) == ()
