"""What the outcomes of attempts make of an endpoint, and what operators are told of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from support.builders import NOW
from support.registry import Registry
from support.watched_store import WatchedStore

from notifier.config import Duration, WebhookSection
from notifier.errors import (
    DeliveryError,
    Permanent,
    StoreUnavailableError,
    TemplateError,
    Transient,
    Unavailable,
    Unknown,
    Withdrawn,
)
from notifier.model import Endpoint, EndpointState, rfc3339

ENABLED, PAUSED, DISABLED = EndpointState
DAY = 86400.0
REFUSED = Transient("the receiver answered 503", code="http_503", status_code=503, lane_fault=True)
GONE = Permanent("the receiver answered 410", code="http_410", status_code=410)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry on an open store; everything may fail for five days."""
    store = WatchedStore(tmp_path / "notifier.db")
    await store.open(NOW)
    made = Registry(store, WebhookSection(disable_after=Duration(5 * DAY)))
    await made.endpoints.load()
    yield made
    await store.close()


async def fail(registry: Registry, endpoint: Endpoint, error: DeliveryError = REFUSED) -> Endpoint:
    """An attempt fails now; returns how the endpoint stands."""
    await registry.endpoints.failed(endpoint.id, error, registry.clock())
    return registry.endpoints.find(endpoint.id)


async def trip(registry: Registry, endpoint: Endpoint) -> Endpoint:
    """An attempt fails, and the lane's breaker opens."""
    await registry.endpoints.failed(endpoint.id, REFUSED, registry.clock(), breaker_opened=True)
    return registry.endpoints.find(endpoint.id)


async def deliver(registry: Registry, endpoint: Endpoint) -> Endpoint:
    """An attempt succeeds now."""
    await registry.endpoints.delivered(endpoint.id, registry.clock())
    return registry.endpoints.find(endpoint.id)


# A streak of failures --------------------------------------------------------------------------------


async def test_a_success_of_one_that_is_well_costs_nothing(registry: Registry) -> None:
    """No write, no change: that is how nearly every attempt ends."""
    made = await registry.made()
    for _ in range(3):
        assert await deliver(registry, made) is made
    assert registry.store.calls["save_endpoint"] == 0


async def test_a_streak_is_written_when_it_begins_and_when_it_ends(registry: Registry) -> None:
    """Once each, however many attempts fail in between; nothing is reported of it."""
    made = await registry.made()
    for _ in range(5):
        failing = await fail(registry, made)
        registry.clock.advance(60)
    assert failing.failing_since == NOW
    assert registry.store.calls["save_endpoint"] == 1
    assert (await registry.stored())[0].failing_since == NOW
    assert (await deliver(registry, made)).failing_since is None
    assert registry.store.calls["save_endpoint"] == 2
    assert (await registry.stored())[0].failing_since is None
    assert registry.kinds() == []
    assert registry.endpoints.find(made.id).updated_at == NOW


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (REFUSED, True),
        (Transient("400", code="http_400", status_code=400), True),
        (Transient("no name", code="dns_error"), True),
        (Unknown("no answer"), True),
        (Permanent("refused", code="blocked_address"), True),
        (TemplateError("broken", template="slim"), False),
        (Permanent("no secret", code="invalid_secret"), False),
        (Permanent("no text", code="invalid_payload"), False),
        (Permanent("`when` failed", code="condition_error"), False),
        (Withdrawn("deleted"), False),
        (Unavailable("the proxy is down"), False),
    ],
)
async def test_only_what_the_receiver_does_counts(
    registry: Registry, error: DeliveryError, counts: bool
) -> None:
    """A template of ours that breaks says nothing about its receiver."""
    made = await registry.made()
    assert ((await fail(registry, made, error)).failing_since is not None) is counts


# Disabled --------------------------------------------------------------------------------------------


async def test_a_receiver_that_is_gone_is_disabled_at_once(registry: Registry) -> None:
    """By 410; that is stored, told to the lanes, and reported, in one transaction."""
    made = await registry.made(
        url="https://receiver.example/hooks?token=s3cret", tenant="acme", description="ERP"
    )
    disabled = await fail(registry, made, GONE)
    assert (disabled.state, disabled.state_reason) == (DISABLED, "the receiver answered 410 Gone")
    assert (disabled.state_changed_at, disabled.updated_at) == (NOW, NOW)
    assert registry.changes[-1] == disabled == (await registry.stored())[0]
    ((kind, data),) = registry.told()
    assert kind == "disabled"
    assert data == {
        "endpoint": {
            "id": made.id,
            "url": "https://receiver.example/hooks",
            "name": "ERP",
            "description": "ERP",
            "tenant": "acme",
            "event_types": ["order.*"],
            "state": "disabled",
            "state_reason": "the receiver answered 410 Gone",
        },
        "since": rfc3339(NOW),
        "reason": "the receiver answered 410 Gone",
        "error": {"code": "http_410", "message": "the receiver answered 410"},
    }
    assert registry.events[0].event.tenant == "acme"
    assert await registry.reported() == ["disabled"]


async def test_one_that_failed_everything_for_too_long_is_disabled(registry: Registry) -> None:
    """At the first failed attempt after that, and not before."""
    made = await registry.made()
    await fail(registry, made)
    registry.clock.advance(5 * DAY - 1)
    assert (await fail(registry, made)).state is ENABLED
    registry.clock.advance(1)
    disabled = await fail(registry, made)
    assert (disabled.state, disabled.state_reason) == (DISABLED, f"everything failed since {rfc3339(NOW)}")
    assert registry.kinds() == ["disabled"]


async def test_one_success_begins_the_days_anew(registry: Registry) -> None:
    """It failed everything, or it didn't."""
    made = await registry.made()
    await fail(registry, made)
    registry.clock.advance(3 * DAY)
    await deliver(registry, made)
    await fail(registry, made)
    registry.clock.advance(3 * DAY)
    assert (await fail(registry, made)).state is ENABLED


async def test_what_is_still_under_way_changes_nothing_of_a_disabled_one(registry: Registry) -> None:
    """Attempts that had begun end this way and that; only an operator enables it again."""
    made = await registry.made()
    disabled = await fail(registry, made, GONE)
    assert await fail(registry, made, GONE) is disabled
    assert await trip(registry, made) is disabled
    assert await deliver(registry, made) is disabled
    assert registry.kinds() == ["disabled"]


async def test_resuming_begins_with_a_clean_sheet(registry: Registry) -> None:
    """The days that it failed don't disable it again at the next failure."""
    made = await registry.made()
    await trip(registry, made)
    registry.clock.advance(5 * DAY)
    await fail(registry, made)
    resumed = await registry.endpoints.resume(made.id)
    assert (resumed.state, resumed.failing_since) == (ENABLED, None)
    again = await fail(registry, made)
    assert (again.state, again.failing_since) == (ENABLED, NOW + 5 * DAY)
    assert registry.kinds() == ["failing", "disabled"]
    await deliver(registry, made)
    assert registry.kinds() == ["failing", "disabled", "recovered"]


async def test_what_was_gone_and_is_back_is_told_of(registry: Registry) -> None:
    """Whoever heard that it was disabled is to hear that it takes deliveries again; once."""
    made = await registry.made()
    await fail(registry, made, GONE)
    await registry.endpoints.resume(made.id)
    for _ in range(2):
        await deliver(registry, made)
    assert registry.kinds() == ["disabled", "recovered"]


async def test_a_report_says_what_went_wrong_and_never_null_for_a_name(registry: Registry) -> None:
    """What a mail to whoever minds it is made of."""
    made = await registry.made()
    await trip(registry, made)
    ((_, data),) = registry.told()
    assert data["error"] == {"code": REFUSED.code, "message": REFUSED.message}
    assert data["endpoint"]["name"] == made.url


async def test_a_paused_one_is_disabled_by_410_alone(registry: Registry) -> None:
    """The operator who paused it knows that it fails; that it is gone, nobody knew."""
    made = await registry.made()
    await fail(registry, made)
    await registry.endpoints.pause(made.id)
    registry.clock.advance(6 * DAY)
    assert (await fail(registry, made)).state is PAUSED
    assert (await fail(registry, made, GONE)).state is DISABLED
    assert await registry.endpoints.pause(made.id) == registry.endpoints.find(made.id)


async def test_another_url_is_another_receiver(registry: Registry) -> None:
    """The days that the old one failed don't count against it."""
    made = await registry.made()
    await fail(registry, made)
    moved = await registry.changed(made, url="https://new.example/hooks")
    assert moved.failing_since is None
    registry.clock.advance(6 * DAY)
    assert (await fail(registry, made)).state is ENABLED


# Reported --------------------------------------------------------------------------------------------


async def test_a_breaker_that_opens_is_reported_once_until_it_recovers(registry: Registry) -> None:
    """Failing, recovered, failing: each once, with since when, and what it is about."""
    made = await registry.made()
    await fail(registry, made)
    registry.clock.advance(60)
    for _ in range(3):
        failing = await trip(registry, made)
    assert failing.reported
    assert registry.kinds() == ["failing"]
    registry.clock.advance(60)
    for _ in range(3):
        await deliver(registry, made)
    assert registry.kinds() == ["failing", "recovered"]
    assert [data["since"] for _, data in registry.told()] == [rfc3339(NOW)] * 2
    assert [data["endpoint"]["state"] for _, data in registry.told()] == ["enabled"] * 2
    await trip(registry, made)
    assert registry.kinds() == await registry.reported() == ["failing", "recovered", "failing"]


async def test_what_was_reported_is_remembered_over_a_restart(registry: Registry) -> None:
    """The next process neither repeats it nor forgets that it recovers."""
    made = await registry.made()
    await trip(registry, made)
    after = Registry(registry.store)
    await after.endpoints.load()
    await trip(after, made)
    assert after.kinds() == []
    await deliver(after, made)
    assert after.kinds() == ["recovered"]


async def test_outcomes_at_the_same_time_report_once(registry: Registry) -> None:
    """Sixty-four workers whose attempts at one receiver end together."""
    made = await registry.made()
    now = registry.clock()
    await asyncio.gather(*(registry.endpoints.failed(made.id, REFUSED, now) for _ in range(64)))
    assert registry.store.calls["save_endpoint"] == 1
    tripped = partial(registry.endpoints.failed, made.id, REFUSED, now, breaker_opened=True)
    await asyncio.gather(*(tripped() for _ in range(64)))
    await asyncio.gather(*(registry.endpoints.delivered(made.id, now) for _ in range(64)))
    await asyncio.gather(*(registry.endpoints.failed(made.id, GONE, now) for _ in range(64)))
    assert registry.kinds() == await registry.reported() == ["failing", "recovered", "disabled"]


async def test_an_endpoint_that_is_unknown_or_deleted_is_nobodys_health(registry: Registry) -> None:
    """Attempts end after their endpoint was deleted: nothing is raised, nothing is written."""
    made = await registry.made()
    await registry.endpoints.delete(made.id)
    for endpoint_id in (made.id, "ep_x"):
        await registry.endpoints.failed(endpoint_id, GONE, NOW)
        await registry.endpoints.failed(endpoint_id, REFUSED, NOW, breaker_opened=True)
        await registry.endpoints.delivered(endpoint_id, NOW)
    assert (registry.kinds(), await registry.stored()) == ([], [])


# No loops --------------------------------------------------------------------------------------------


async def test_endpoints_that_would_report_each_other_cause_no_more_reports(registry: Registry) -> None:
    """What is reported of an endpoint that takes reports causes jobs for the route alone.

    Every report that an endpoint is sent is about one that is sent none. So the chain from a failure to a
    report to a failure is two links long at most, however often either of them fails and recovers.
    """
    watchers = [await registry.made(event_types=("notifier.endpoint.*",)) for _ in range(3)]
    for _ in range(5):
        for each in watchers:
            await trip(registry, each)
            await deliver(registry, each)
    jobs = [job for each in registry.events for job in each.jobs]
    assert len(registry.events) == len(jobs) == 30
    assert {job.route for job in jobs} == {"ops"}
    plain = await registry.made()
    await trip(registry, plain)
    assert [job.endpoint for job in registry.events[-1].jobs if job.endpoint] == [
        each.id for each in sorted(watchers, key=lambda each: each.id)
    ]


# The store fails -------------------------------------------------------------------------------------

Outcome = Callable[[Registry, Endpoint], Awaitable[Endpoint]]


async def gone(registry: Registry, endpoint: Endpoint) -> Endpoint:
    """An attempt is answered with 410."""
    return await fail(registry, endpoint, GONE)


@pytest.mark.parametrize(("outcome", "kinds"), [(gone, ["disabled"]), (trip, ["failing"]), (fail, [])])
async def test_what_the_store_can_not_take_is_said_again_by_the_next_outcome(
    registry: Registry, outcome: Outcome, kinds: list[str]
) -> None:
    """Nothing is raised at the worker, nothing changes meanwhile, and nothing is reported twice."""
    made = await registry.made()
    registry.store.failing["save_endpoint"] = 1
    assert await outcome(registry, made) == made
    assert registry.kinds() == []
    registry.clock.advance(2)
    changed = await outcome(registry, made)
    assert changed != made
    assert [changed] == await registry.stored()
    assert registry.kinds() == await registry.reported() == kinds


async def test_a_store_that_fails_is_not_asked_by_every_attempt(registry: Registry) -> None:
    """Each would cost a transaction that fails, and a look at what stands."""
    made = await registry.made()
    registry.store.failing["save_endpoint"] = 100
    for _ in range(50):
        await registry.endpoints.failed(made.id, GONE, registry.clock())
    assert registry.store.failing["save_endpoint"] == 99
    registry.clock.advance(-3600)
    await registry.endpoints.failed(made.id, GONE, registry.clock())
    assert registry.store.failing["save_endpoint"] == 98


async def test_a_report_whose_commit_is_unknown_is_neither_lost_nor_made_twice(registry: Registry) -> None:
    """It turns out to be stored: it is handed on, and the next outcome finds nothing to do."""

    async def unsaid() -> None:
        registry.store.after.clear()
        raise StoreUnavailableError("the commit's outcome is unknown")

    made = await registry.made()
    registry.store.after["save_endpoint"] = unsaid
    assert (await fail(registry, made, GONE)).state is DISABLED
    assert registry.kinds() == ["disabled"]
    registry.clock.advance(2)
    await fail(registry, made, GONE)
    assert registry.kinds() == await registry.reported() == ["disabled"]


async def test_a_report_that_can_not_be_made_harms_no_worker(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is raised on the way is logged; the endpoint is as it was."""

    def broken(*_: object) -> None:
        raise RuntimeError("no")

    made = await registry.made()
    monkeypatch.setattr(registry.endpoints._kept, "_submission", broken)
    assert await fail(registry, made, GONE) == made
