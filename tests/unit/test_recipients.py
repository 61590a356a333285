"""Recipients: one job each, whoever stands in several places once, and each made out by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from support.builders import NOW, event_record

from notifier.channels.address import read_address
from notifier.config import Retry, Route
from notifier.errors import ConfigError, InvalidEventError, Permanent, Withdrawn
from notifier.ingest import parse_json
from notifier.model import Addressed, Delivery, Job, JobState
from notifier.routing import LaneOf, Router, key_of

LANES: Mapping[str, LaneOf] = {
    "email": lambda destination: f"email:{read_address(destination).domain}",
    "webhook": lambda _url: "webhook",
    "sms": lambda _destination: "sms",
}


HUNDRED = ['"c@b.example"'] * 100


def route(**changes: Any) -> Route:
    """A route by mail that takes everything."""
    fields = {"name": "r", "event": "*", "channel": "email", "to": "ada@example.com", "template": "t"}
    return Route(**(fields | changes))


def router(*routes: Route) -> Router:
    """A router of these routes, with real mail addresses."""
    return Router(routes, Retry(schedule=()), LANES)


def jobs(made: Route, data: dict[str, Any] | None = None) -> tuple[Job, ...]:
    """The jobs that a route makes of an event."""
    return router(made).jobs(event_record(), data or {}, (), NOW)


def asked(*deliver: Delivery) -> tuple[Job, ...]:
    """The jobs that explicit deliveries cause."""
    return router().jobs(event_record(), {}, deliver, NOW)


def destinations(made: Sequence[Job]) -> list[str | None]:
    """Whom jobs are for."""
    return [each.destination for each in made]


# One job each ----------------------------------------------------------------------------------------


def test_a_route_makes_a_job_for_every_recipient() -> None:
    """Each of `to`, `cc` and `bcc` is a template; each job knows whom the mail is addressed to, Bcc apart."""
    made = jobs(
        route(
            to=("{{ data.email }}", "Bob <bob@example.org>"),
            cc="{{ data.manager }}",
            bcc=("audit@example.net",),
            category="invoices",
        ),
        {"email": "Ada <ada@example.com>", "manager": "eve@example.com"},
    )
    assert destinations(made) == [
        "Ada <ada@example.com>",
        "Bob <bob@example.org>",
        "eve@example.com",
        "audit@example.net",
    ]
    told = Addressed(to=("Ada <ada@example.com>", "Bob <bob@example.org>"), cc=("eve@example.com",))
    assert [each.addressed for each in made] == [told] * 4
    assert {each.category for each in made} == {"invoices"}
    assert [each.lane for each in made] == [
        "email:example.com",
        "email:example.org",
        "email:example.com",
        "email:example.net",
    ]
    assert len({each.id for each in made}) == 4


def test_one_recipient_alone_is_addressed_by_itself() -> None:
    """Also where it is a list of one, and where all the others are the same."""
    for alone in (route(), route(to=("ada@example.com",)), route(cc="ADA@example.com")):
        (made,) = jobs(alone)
        assert (made.destination, made.addressed) == ("ada@example.com", None)


def test_with_a_bcc_the_header_still_names_who_is_written_to() -> None:
    """Who is bcc gets a mail to the others, and stands in it nowhere."""
    made = jobs(route(bcc="audit@example.net"))
    assert destinations(made) == ["ada@example.com", "audit@example.net"]
    assert [each.addressed for each in made] == [Addressed(to=("ada@example.com",))] * 2


def test_who_stands_in_several_places_gets_one_mail() -> None:
    """However the address is written; the first place counts, and who is written to is no secret copy."""
    made = jobs(
        route(
            to=("Ada <ada@example.com>", "bob@bücher.example"),
            cc=("ADA@EXAMPLE.COM", "bob@xn--bcher-kva.example", "eve@example.com"),
            bcc=("eve@example.com", "ada@example.com"),
        )
    )
    assert destinations(made) == ["Ada <ada@example.com>", "bob@bücher.example", "eve@example.com"]
    assert made[0].addressed == Addressed(
        to=("Ada <ada@example.com>", "bob@bücher.example"), cc=("eve@example.com",)
    )


def test_any_channel_takes_a_list() -> None:
    """A job each; who else gets it is a matter of mails."""
    made = jobs(route(channel="sms", to=("+1555", " +1555", "+1666"), template=None))
    assert destinations(made) == ["+1555", "+1666"]
    assert [each.addressed for each in made] == [None, None]


def test_explicit_deliveries_take_lists_too() -> None:
    """As routes do, taken literally, in the order to, cc, bcc."""
    made = asked(
        Delivery(
            channel="email",
            to=["ada@example.com", "ADA@example.com"],
            cc="{{x}}@example.com",
            bcc=["eve@example.com"],
            template="t",
            category="news",
        )
    )
    assert destinations(made) == ["ada@example.com", "{{x}}@example.com", "eve@example.com"]
    told = Addressed(to=("ada@example.com",), cc=("{{x}}@example.com",))
    assert [(each.addressed, each.category) for each in made] == [(told, "news")] * 3


def test_a_wrong_recipient_of_a_delivery_is_pointed_at() -> None:
    """Every one of them, by its place in its list."""
    with pytest.raises(InvalidEventError) as raised:
        asked(
            Delivery(channel="email", to="ada@example.com", template="t"),
            Delivery(
                channel="email", to=["ada@example.com", "nobody"], cc="no", bcc=["b@c", "\0"], template="t"
            ),
        )
    assert [fault.pointer for fault in raised.value.faults] == [
        "/deliver/1/to/1",
        "/deliver/1/cc",
        "/deliver/1/bcc/1",
    ]


@pytest.mark.parametrize(
    ("delivery", "pointer"),
    [
        ('{"channel":"sms","to":"1","cc":"2"}', "/deliver/0/cc"),
        ('{"channel":"sms","to":"1","bcc":["2"]}', "/deliver/0/bcc"),
        ('{"channel":"sms","to":"1","category":"x"}', "/deliver/0/category"),
        ('{"channel":"webhook","url":"https://a.example","cc":"2"}', "/deliver/0/cc"),
        ('{"channel":"webhook","to":["https://a.example"]}', "/deliver/0/url"),
        ('{"channel":"email","to":"a@b.example","template":"t","category":"A B"}', "/deliver/0/category"),
        (
            f'{{"channel":"email","template":"t","to":["a@b.example"],"cc":[{",".join(HUNDRED)}]}}',
            "/deliver/0",
        ),
    ],
)
def test_what_a_delivery_can_not_have_is_refused(delivery: str, pointer: str) -> None:
    """Only mails have copies and categories; a hundred recipients are the most, over all lists."""
    body = f'{{"type":"t","data":{{}},"deliver":[{delivery}]}}'
    with pytest.raises(InvalidEventError) as raised:
        parse_json(body.encode(), now=NOW)
    assert raised.value.faults[0].pointer == pointer


# What can't be made out ------------------------------------------------------------------------------


def test_a_recipient_that_can_not_be_made_out_is_a_failed_job_of_its_own() -> None:
    """The others go out; the mail names those that are known."""
    made = jobs(
        route(to=("ada@example.com", "{{ data.boss }}"), cc=("nobody", "eve@example.com")), {"email": 1}
    )
    assert [each.status for each in made] == [
        JobState.PENDING,
        JobState.FAILED,
        JobState.FAILED,
        JobState.PENDING,
    ]
    told = Addressed(to=("ada@example.com",), cc=("eve@example.com",))
    assert made[0].addressed == made[3].addressed == told
    assert [made[1].addressed, made[2].addressed] == [
        Addressed(to=told.to, cc=told.cc, place="to[1]"),
        Addressed(to=told.to, cc=told.cc, place="cc[0]"),
    ]
    assert made[1].error is not None
    assert made[1].error.message.startswith("routes[0].to[1], line 1: 'data.boss' is undefined")
    assert made[2].error is not None
    assert made[2].error.code == "invalid_destination"


def test_what_keeps_all_recipients_from_being_made_out_fails_each() -> None:
    """So that each can be requeued once `when` or the locale is mended."""
    for changes in ({"when": "data.x > 1"}, {"locale": "{{ data.x }}"}):
        made = jobs(route(to=("ada@example.com", "bob@example.com"), **changes))
        assert [each.status for each in made] == [JobState.FAILED] * 2
        assert [each.addressed and each.addressed.place for each in made] == ["to[0]", "to[1]"]


def test_a_requeued_job_is_made_out_for_that_very_recipient() -> None:
    """With the lane, the locale and the addresses that the mended route gives."""
    event, data = event_record(), {"email": "ada@example.com"}
    before = route(to=("{{ data.email }}", "{{ data.boss }}"), cc=("{{ data.aide }}",))
    _, boss, aide = router(before).jobs(event, data, (), NOW)
    mended = router(route(to=before.to, cc=("aide@example.net",), locale="fr"))
    resolved = mended.resolve(aide, event, data)
    assert (resolved.id, resolved.destination, resolved.lane, resolved.locale) == (
        aide.id,
        "aide@example.net",
        "email:example.net",
        "fr",
    )
    assert resolved.addressed == Addressed(to=("ada@example.com",), cc=("aide@example.net",))
    with pytest.raises(Permanent) as raised:
        mended.resolve(boss, event, data)
    assert raised.value.code == "destination_error"


def test_a_requeued_job_whose_recipient_the_route_lost_fails() -> None:
    """It must go to no one else."""
    event = event_record()
    _, born = router(route(cc="{{ data.aide }}")).jobs(event, {}, (), NOW)
    with pytest.raises(Permanent) as raised:
        router(route()).resolve(born, event, {})
    assert raised.value.code == "unknown_recipient"
    assert "cc[0]" in raised.value.message


def test_a_requeued_job_whose_recipient_is_anothers_is_withdrawn() -> None:
    """Whoever stands in two places now had, or has, its mail from the first."""
    event = event_record()
    _, born = router(route(cc="{{ data.aide }}")).jobs(event, {}, (), NOW)
    with pytest.raises(Withdrawn) as raised:
        router(route(cc="Ada <ADA@example.com>")).resolve(born, event, {})
    assert raised.value.code == "duplicate_recipient"


def test_a_list_that_took_the_place_of_a_string_is_made_out_by_its_first() -> None:
    """A job that was born of one recipient alone has no place among several."""
    event = event_record()
    (born,) = router(route(to="{{ data.email }}")).jobs(event, {}, (), NOW)
    assert born.addressed is None
    mended = router(route(to=("ada@example.com", "bob@example.com")))
    assert mended.resolve(born, event, {}).destination == "ada@example.com"


def test_a_broken_template_is_told_by_its_place() -> None:
    """In the list that it stands in."""
    with pytest.raises(ConfigError) as raised:
        router(route(bcc=("a@b.example", "{{ data.")))
    assert raised.value.key == "routes[0].bcc[1]"


# Keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "destination", "expected"),
    [
        ("email", "Ada <Ada@Example.COM>", "ada@example.com"),
        ("email", "ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("email", " Not One ", "not one"),
        ("sms", " +1 555 ", "+1 555"),
        ("sms", "CaseMatters", "CaseMatters"),
    ],
)
def test_a_recipient_is_known_by_its_key(channel: str, destination: str, expected: str) -> None:
    """Of mail, the address alone in lower case; elsewhere, what stands there."""
    assert key_of(channel, destination) == expected
