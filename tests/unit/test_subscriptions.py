"""Subscriptions: which endpoints an event goes to, and the jobs that it causes for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import NOW, endpoint, event_record

from notifier.config import Duration, Retry
from notifier.errors import Permanent, Withdrawn
from notifier.model import Endpoint, EndpointState, EventRecord, Job, JobError, JobState, Priority
from notifier.rendering import Condition
from notifier.routing import Router, Subscriptions, matches
from notifier.routing import subscriptions as subscriptions_module
from notifier.routing.subscriptions import condition

RETRY = Retry(schedule=(Duration(5), Duration(300)))


def subscribed(*endpoints: Endpoint) -> Router:
    """A router without routes, and these endpoints."""
    router = Router((), RETRY, {"webhook": lambda _: "webhook:receiver.example:443"})
    for each in endpoints:
        router.subscriptions.put(each)
    return router


def jobs(router: Router, data: Mapping[str, Any] | None = None, **changes: Any) -> tuple[Job, ...]:
    """The jobs that an event causes."""
    return router.jobs(event_record(**changes), data or {}, (), NOW)


def takers(router: Router, data: Mapping[str, Any] | None = None, **changes: Any) -> list[str | None]:
    """The endpoints that an event goes to."""
    return [each.endpoint for each in jobs(router, data, **changes)]


# Which endpoints -------------------------------------------------------------------------------------


def test_an_endpoint_gets_its_own_tenants_events_alone() -> None:
    """No tenant sees another's; one that belongs to nobody gets what belongs to nobody."""
    router = subscribed(
        endpoint(id="ep_a", tenant="acme"), endpoint(id="ep_b", tenant="umbrella"), endpoint(id="ep_c")
    )
    assert takers(router, tenant="acme") == ["ep_a"]
    assert takers(router, tenant="umbrella") == ["ep_b"]
    assert takers(router) == ["ep_c"]
    assert takers(router, tenant="initech") == []


def test_an_endpoint_gets_an_event_once_however_many_patterns_take_it() -> None:
    """One event, one endpoint, one job; the oldest endpoint first."""
    late = endpoint(created_at=NOW + 1, event_types=("order.*",))
    early = endpoint(created_at=NOW, event_types=("order.paid", "order.*", "*"))
    assert takers(subscribed(late, early)) == [early.id, late.id]


SEGMENTS = st.sampled_from(["a", "b", "notifier"])
TYPES = st.lists(SEGMENTS, min_size=1, max_size=3).map(".".join)
PATTERNS = st.lists(SEGMENTS | st.just("*"), min_size=1, max_size=3).map(".".join)
TENANTS = st.sampled_from([None, "t1", "t2"])
NAMES = st.sampled_from(["ep_1", "ep_2", "ep_3", "ep_4"])
STEPS = st.lists(
    st.tuples(
        st.just("put"), NAMES, TENANTS, st.lists(PATTERNS, min_size=1, max_size=3, unique=True).map(tuple)
    )
    | st.tuples(st.just("drop"), NAMES, st.none(), st.just(()))
    | st.tuples(st.just("ask"), NAMES, TENANTS, TYPES.map(lambda each: (each,))),
    max_size=30,
)


def naive(endpoints: Mapping[str, Endpoint], tenant: str | None, event_type: str) -> list[str]:
    """Look at every pattern of every endpoint there is."""
    return sorted(
        each.id
        for each in endpoints.values()
        if each.tenant == tenant
        and any(
            matches(pattern, event_type)
            and (pattern.startswith("notifier.") or not event_type.startswith("notifier."))
            for pattern in each.event_types
        )
    )


@given(STEPS)
def test_what_is_found_is_what_a_look_at_every_endpoint_finds(
    steps: list[tuple[str, str, str | None, tuple[str, ...]]],
) -> None:
    """Whatever is put, replaced, dropped and asked in whatever order: the index never forgets or dreams."""
    tried = Subscriptions()
    known: dict[str, Endpoint] = {}
    for step, name, tenant, words in steps:
        if step == "put":
            known[name] = endpoint(id=name, tenant=tenant, event_types=words)
            tried.put(known[name])
        elif step == "drop":
            known.pop(name, None)
            tried.drop(name)
        else:
            assert list(tried.matching(tenant, words[0])) == naive(known, tenant, words[0])
        assert tried.get(name) is known.get(name)
    for tenant in (None, "t1", "t2"):
        for event_type in ("a", "a.b", "notifier.a", "b.a.notifier"):
            assert list(tried.matching(tenant, event_type)) == naive(known, tenant, event_type)
    for name in list(known):
        tried.drop(name)
    assert (tried._tenants, tried._endpoints, tried._remembered) == ({}, {}, 0)


def test_an_event_costs_a_look_at_its_own_tenants_endpoints_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand endpoints of others are not looked at, and a type is looked up once."""
    looks: list[str] = []

    def watched(pattern: str, event_type: str) -> bool:
        looks.append(pattern)
        return matches(pattern, event_type)

    monkeypatch.setattr(subscriptions_module, "endpoint_matches", watched)
    tried = Subscriptions()
    template = endpoint(event_types=("order.*", "user.*"))
    for number in range(100_000):
        tried.put(msgspec.structs.replace(template, id=f"ep_{number:06}", tenant=f"tenant-{number // 2:05}"))
    for _ in range(3):
        assert tried.matching("tenant-31415", "order.paid") == ("ep_062830", "ep_062831")
    assert sorted(looks) == ["order.*", "user.*"]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types come from whoever posts: a flood of new ones fills no memory, and still finds its endpoints."""
    monkeypatch.setattr(subscriptions_module, "_REMEMBERED", 100)
    tried = Subscriptions()
    for number in range(4):
        tried.put(endpoint(id=f"ep_{number}", tenant="acme" if number else None))
    for number in range(1000):
        assert len(tried.matching("acme", f"order.{number}")) == 3
        assert len(tried.matching(None, f"order.{number}")) == 1
        assert tried._remembered <= 104
    kept = [each for one in tried._tenants.values() for each in one.remembered.values()]
    assert sum(1 + len(each) for each in kept) == tried._remembered


# The notifier's own events ---------------------------------------------------------------------------


def report(about: Endpoint, **changes: Any) -> dict[str, Any]:
    """The data of an operational event."""
    subject = {"id": about.id, "event_types": list(about.event_types)} | changes
    return {"endpoint": subject, "since": None, "reason": "…"}


FAILING = "notifier.endpoint.failing"


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", False),
        ("*.*.*", False),
        ("*.endpoint.failing", False),
        ("notifier.endpoint.*", True),
        ("notifier.*.*", True),
        (FAILING, True),
    ],
)
def test_operational_events_come_to_those_alone_who_name_them(pattern: str, expected: bool) -> None:
    """Who asks for everything means everything of theirs, not that another endpoint is down."""
    router = subscribed(endpoint(event_types=(pattern,)))
    assert bool(jobs(router, report(endpoint()), type=FAILING)) is expected


def test_an_endpoint_is_never_told_about_itself() -> None:
    """It would be told that it can't be told anything."""
    itself = endpoint(event_types=("notifier.endpoint.*",))
    other = endpoint(event_types=("notifier.endpoint.*",))
    data = {"endpoint": {"id": itself.id}}
    router = subscribed(itself, other)
    assert takers(router, data, type=FAILING) == [other.id]
    (verdict,) = [
        each
        for each in router.subscriptions.explain(event_record(type=FAILING), data).verdicts
        if each.name == itself.id
    ]
    assert (verdict.matched, verdict.reason) == (False, "an endpoint is told nothing about itself")


def test_a_report_about_an_endpoint_that_takes_reports_goes_to_no_endpoint() -> None:
    """So no report ever causes another, whatever fails and recovers how often: there is no loop to be in."""
    first = endpoint(id="ep_1", event_types=("notifier.endpoint.*",))
    second = endpoint(id="ep_2", event_types=("order.*", "notifier.endpoint.failing"))
    plain = endpoint(id="ep_3", event_types=("order.*",))
    router = subscribed(first, second, plain)
    assert takers(router, report(first), type=FAILING) == []
    assert takers(router, report(second), type=FAILING) == []
    assert takers(router, report(plain), type=FAILING) == [first.id, second.id]
    explained = router.subscriptions.explain(event_record(type=FAILING), report(second))
    assert "goes by routes alone" in explained.verdicts[0].reason


@pytest.mark.parametrize("data", [{}, {"endpoint": "ep_1"}, {"endpoint": {"id": 7, "event_types": [1]}}])
def test_odd_data_of_an_operational_type_harms_nobody(data: dict[str, Any]) -> None:
    """An app may post such a type itself, with whatever in it."""
    router = subscribed(endpoint(event_types=("notifier.*.*",)))
    assert len(jobs(router, data, type=FAILING)) == 1


# What a job holds ------------------------------------------------------------------------------------


def test_a_job_holds_what_its_event_and_endpoint_say() -> None:
    """In the endpoint's own lane, by the default schedule; the url's query, which may be secret, left out."""
    taker = endpoint(
        url="https://receiver.example/hooks?token=s3cret#top", template="slim", tenant="acme", when="data.big"
    )
    event = event_record(tenant="acme", deliver_at=NOW + 60)
    (made,) = subscribed(taker).jobs(event, {"big": True}, (), NOW)
    assert made == Job(
        id=made.id,
        event_id=event.id,
        event_type="order.paid",
        tenant="acme",
        channel="webhook",
        endpoint=taker.id,
        destination="https://receiver.example/hooks",
        lane=f"endpoint:{taker.id}",
        status=JobState.PENDING,
        created_at=NOW,
        updated_at=NOW,
        next_attempt_at=NOW + 60,
        max_attempts=3,
        template="slim",
        priority=Priority.NORMAL,
    )


@pytest.mark.parametrize("state", EndpointState)
def test_an_endpoint_that_is_stopped_still_gets_its_jobs(state: EndpointState) -> None:
    """They are held, PENDING, until it is resumed; nothing is dropped."""
    (made,) = jobs(subscribed(endpoint(state=state)))
    assert (made.status, made.next_attempt_at) == (JobState.PENDING, NOW)


def test_when_decides() -> None:
    """A false `when` causes no job."""
    router = subscribed(endpoint(when="data.total > 100"))
    assert len(jobs(router, {"total": 101})) == 1
    assert jobs(router, {"total": 100}) == ()


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("data.total > 1", "when, line 1: 'data.total' is undefined"),
        ("data.total >", "is no Jinja2 expression"),
    ],
)
def test_a_when_that_fails_gives_a_job_that_is_born_failed(when: str, says: str) -> None:
    """Its sibling and the event don't suffer; it stays in its lane, and what was wrong can be seen."""
    broken, sibling = endpoint(id="ep_1", when=when), endpoint(id="ep_2")
    failed, other = jobs(subscribed(broken, sibling))
    assert isinstance(failed.error, JobError)
    assert (failed.error.code, failed.status) == ("condition_error", JobState.FAILED)
    assert says in failed.error.message
    assert (failed.destination, failed.next_attempt_at, failed.lane) == (None, None, "endpoint:ep_1")
    assert other.status is JobState.PENDING


def test_a_condition_that_can_not_be_compiled_any_more_fails_its_own_job_alone() -> None:
    """It was taken where the stack was less deep, say: events go on to all the others."""
    condition.cache_clear()
    bad, good = endpoint(when="(" * 1000 + "1" + ")" * 1000), endpoint(created_at=NOW + 1)
    failed, fine = jobs(subscribed(bad, good))
    assert failed.error is not None
    assert (failed.endpoint, failed.error.code) == (bad.id, "condition_error")
    assert (fine.endpoint, fine.error) == (good.id, None)


def test_many_different_conditions_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand endpoints, each with its own: an event finds them compiled by the one before it."""
    compiled: list[str] = []

    class Noted(Condition):
        def __init__(self, source: str, _key: str) -> None:
            compiled.append(source)

        def holds(self, _event: EventRecord, _data: Mapping[str, Any]) -> bool:
            return True

    monkeypatch.setattr(subscriptions_module, "Condition", Noted)
    condition.cache_clear()
    router = subscribed(*(endpoint(when=f"data.x == {number}") for number in range(10_000)))
    assert len(jobs(router)) == len(jobs(router)) == len(compiled) == 10_000
    condition.cache_clear()


def test_equal_conditions_are_compiled_once() -> None:
    """Thousands of endpoints with the same `when` cost one."""
    assert condition("data.total == 31415") is condition("data.total == 31415")


# Anew ------------------------------------------------------------------------------------------------


def resolved(endpoints: Sequence[Endpoint], data: Mapping[str, Any]) -> tuple[str | None, str, str | None]:
    """Make out anew what was born FAILED for want of `data.total`, by endpoints as they stand now."""
    event: EventRecord = event_record()
    (born,) = subscribed(endpoint(id="ep_1", when="data.total > 1")).jobs(event, {}, (), NOW)
    made = subscribed(*endpoints).resolve(born, event, data)
    return made.destination, made.lane, made.locale


def test_a_job_born_failed_is_made_out_anew() -> None:
    """After an operator mended the `when`, by the endpoint as it stands now."""
    mended = endpoint(id="ep_1", url="https://new.example/hooks?x=1", when="not data.total is defined")
    assert resolved([mended], {}) == ("https://new.example/hooks", "endpoint:ep_1", None)


def test_a_job_whose_endpoint_is_gone_is_withdrawn() -> None:
    """Nobody is to get it any more."""
    with pytest.raises(Withdrawn) as raised:
        resolved([endpoint(id="ep_2")], {})
    assert raised.value.code == "withdrawn"


@pytest.mark.parametrize(
    ("when", "code"), [("data.total > 1", "condition_error"), ("1 > 2", "condition_false")]
)
def test_a_job_that_still_can_not_be_made_out_fails_anew(when: str, code: str) -> None:
    """The `when` is no better than before, or turns out not to hold."""
    with pytest.raises(Permanent) as raised:
        resolved([endpoint(id="ep_1", when=when)], {})
    assert raised.value.code == code
