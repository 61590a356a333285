"""The registry of endpoints: what operators do with them, and that memory and store never part."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from support.builders import NOW, SECRET
from support.registry import URL, Registry, draft, ids
from support.watched_store import WatchedStore

from notifier.channels.signing import parse_secret
from notifier.config import Duration, WebhookSection
from notifier.endpoints import HIDDEN, EndpointChanges
from notifier.errors import InvalidEndpointError, NotFoundError, StoreUnavailableError
from notifier.model import Endpoint, EndpointSecret, EndpointState, JobState

ENABLED, PAUSED, DISABLED = EndpointState
DAY = 86400


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[WatchedStore]:
    """An open store, whose calls can be made to fail."""
    made = WatchedStore(tmp_path / "notifier.db")
    await made.open(NOW)
    yield made
    await made.close()


@pytest.fixture
async def registry(store: WatchedStore) -> Registry:
    """A registry that has loaded an empty store."""
    made = Registry(store)
    await made.endpoints.load()
    return made


async def unsaid() -> None:
    """What a commit says whose outcome nobody can know."""
    raise StoreUnavailableError("the commit's outcome is unknown")


async def reloaded(registry: Registry) -> Registry:
    """The registry of the next process on this store."""
    made = Registry(registry.store)
    made.clock.now = registry.clock.now
    await made.endpoints.load()
    return made


# Made ------------------------------------------------------------------------------------------------


async def test_an_endpoint_is_made_as_it_was_asked_for(registry: Registry) -> None:
    """It is in the store, known to the router, and told of, once; its secret is returned beside it."""
    made, secret = await registry.endpoints.create(
        draft(
            url="https://receiver.example/hooks?token=7",
            tenant="acme",
            when="data.big",
            description="Acme's ERP",
            headers={"Authorization": "Bearer s3cret"},
            template="slim",
            rate_limit=5.0,
            max_in_flight=2,
        )
    )
    assert made == Endpoint(
        id=made.id,
        url="https://receiver.example/hooks?token=7",
        event_types=("order.*",),
        tenant="acme",
        when="data.big",
        description="Acme's ERP",
        headers={"Authorization": "Bearer s3cret"},
        template="slim",
        rate_limit=5.0,
        max_in_flight=2,
        secrets=(EndpointSecret(secret, NOW),),
        created_at=NOW,
        updated_at=NOW,
        state_changed_at=NOW,
    )
    assert made.id.startswith("ep_")
    assert await registry.stored() == registry.endpoints.all() == registry.changes == [made]
    assert registry.endpoints.find(made.id) is registry.endpoints.get(made.id) is made
    assert registry.router.subscriptions.matching("acme", "order.paid") == (made.id,)


@pytest.mark.parametrize(("signature", "prefix"), [("v1", "whsec_"), ("v1a", "whsk_")])
async def test_a_secret_is_made_of_the_kind_asked_for(
    registry: Registry, signature: str, prefix: str
) -> None:
    """Each time another, and one that signs."""
    _, first = await registry.endpoints.create(draft(signature=signature))
    _, second = await registry.endpoints.create(draft(signature=signature))
    assert first.startswith(prefix)
    assert first != second
    parse_secret(first)


async def test_a_secret_that_is_brought_is_kept(registry: Registry) -> None:
    """Who comes from another sender need not tell every receiver."""
    made, secret = await registry.endpoints.create(draft(secret=SECRET))
    assert (secret, made.secrets) == (SECRET, (EndpointSecret(SECRET, NOW),))


async def test_what_can_not_be_is_not_made(registry: Registry) -> None:
    """Nothing is stored, nothing is told."""
    with pytest.raises(InvalidEndpointError) as raised:
        await registry.endpoints.create(draft(url="nonsense", template="nope"))
    assert [fault.pointer for fault in raised.value.faults] == ["/url", "/template"]
    assert (await registry.stored(), registry.changes, registry.endpoints.all()) == ([], [], [])


async def test_endpoints_are_there_after_a_restart(registry: Registry) -> None:
    """In their order, routed to, and told of, so that limits and holds stand before anything is delivered."""
    made = []
    for _ in range(3):
        made.append(await registry.made())
        registry.clock.advance(1)
    await registry.endpoints.pause(made[1].id)
    after = await reloaded(registry)
    assert ids(after.endpoints.all()) == ids(made)
    assert after.endpoints.all() == after.changes == registry.endpoints.all()
    assert set(after.router.subscriptions.matching(None, "order.paid")) == set(ids(made))


# Changed ---------------------------------------------------------------------------------------------


async def test_a_change_changes_what_is_given_and_nothing_else(registry: Registry) -> None:
    """In the store too; null clears; what is routed is by the new patterns."""
    made = await registry.made(when="data.big", rate_limit=5.0, headers={"x-team": "blue"})
    registry.clock.advance(60)
    changed = await registry.changed(made, event_types=("user.*",), when=None, headers=None)
    assert changed == msgspec.structs.replace(
        made, event_types=("user.*",), when=None, headers={}, updated_at=NOW + 60
    )
    assert await registry.stored() == [changed]
    assert registry.changes == [made, changed]
    assert registry.router.subscriptions.matching(None, "order.paid") == ()
    assert registry.router.subscriptions.matching(None, "user.born") == (made.id,)


async def test_a_change_that_changes_nothing_is_not_written(registry: Registry) -> None:
    """Saying again what stands already costs nothing, and moves no time."""
    made = await registry.made()
    registry.clock.advance(60)
    assert await registry.changed(made, url=URL, rate_limit=None) is made
    assert (registry.store.calls["save_endpoint"], registry.changes) == (0, [made])


async def test_hidden_headers_keep_their_values(registry: Registry) -> None:
    """What was read can be handed in again; names may change their case, and the others go."""
    made = await registry.made(headers={"Authorization": "Bearer s3cret", "x-team": "blue", "x-key": "k"})
    changed = await registry.changed(made, headers={"authorization": HIDDEN, "x-team": "red"})
    assert changed.headers == {"authorization": "Bearer s3cret", "x-team": "red"}
    with pytest.raises(InvalidEndpointError) as raised:
        await registry.changed(made, headers={"x-key": HIDDEN})
    assert raised.value.faults[0].pointer == "/headers/x-key"


async def test_a_change_that_can_not_be_changes_nothing(registry: Registry) -> None:
    """All its faults at once, whatever of it was in order."""
    made = await registry.made()
    with pytest.raises(InvalidEndpointError) as raised:
        await registry.changed(made, description="new", url="nonsense", rate_limit=0.0)
    assert [fault.pointer for fault in raised.value.faults] == ["/url", "/rate_limit"]
    assert registry.endpoints.find(made.id) is made
    assert await registry.stored() == [made]


async def test_a_part_that_is_not_changed_is_not_judged_again(registry: Registry) -> None:
    """A template that was deleted meanwhile keeps nobody from mending the url."""
    made = await registry.made(template="slim")
    registry.endpoints._rules = msgspec.structs.replace(
        registry.endpoints._rules, check_template=lambda _: "gone"
    )
    assert (await registry.changed(made, description="new")).description == "new"


async def test_changes_at_the_same_time_all_count(registry: Registry) -> None:
    """None is built on what another is about to replace."""
    made = await registry.made()
    await asyncio.gather(
        registry.changed(made, description="new"),
        registry.changed(made, rate_limit=5.0),
        registry.endpoints.pause(made.id),
        registry.endpoints.rotate(made.id),
    )
    (stored,) = await registry.stored()
    assert stored == registry.endpoints.find(made.id)
    assert (stored.description, stored.rate_limit, stored.state, len(stored.secrets)) == (
        "new",
        5.0,
        PAUSED,
        2,
    )


async def test_endpoints_do_not_wait_for_each_other(registry: Registry) -> None:
    """One whose change takes long holds nobody else up."""
    slow, quick = await registry.made(), await registry.made()
    entered, gate = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        registry.store.before.clear()
        entered.set()
        await gate.wait()

    registry.store.before["save_endpoint"] = wait
    waiting = asyncio.create_task(registry.changed(slow, description="slow"))
    await entered.wait()
    assert (await registry.changed(quick, description="quick")).description == "quick"
    assert not waiting.done()
    gate.set()
    assert (await waiting).description == "slow"


async def test_an_unknown_endpoint_is_told_by_its_id(registry: Registry) -> None:
    """Whatever is asked of it; the hot path gets None."""
    assert registry.endpoints.get("ep_x") is None
    with pytest.raises(NotFoundError, match="no endpoint 'ep_x'"):
        registry.endpoints.find("ep_x")
    for doing in (
        registry.endpoints.change("ep_x", EndpointChanges(description="new")),
        registry.endpoints.pause("ep_x"),
        registry.endpoints.resume("ep_x"),
        registry.endpoints.rotate("ep_x"),
        registry.endpoints.delete("ep_x"),
    ):
        with pytest.raises(NotFoundError):
            await doing


# Paused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "words"),
    [(None, "paused by an operator"), ("their move", "paused by an operator: their move")],
)
async def test_an_endpoint_is_paused_and_resumed(registry: Registry, reason: str | None, words: str) -> None:
    """By whom, why and when stands there; doing it again changes nothing."""
    made = await registry.made()
    registry.clock.advance(60)
    paused = await registry.endpoints.pause(made.id, reason)
    assert (paused.state, paused.state_reason, paused.state_changed_at) == (PAUSED, words, NOW + 60)
    registry.clock.advance(60)
    assert await registry.endpoints.pause(made.id, "again") is paused
    resumed = await registry.endpoints.resume(made.id)
    assert (resumed.state, resumed.state_reason, resumed.state_changed_at) == (ENABLED, None, NOW + 120)
    assert await registry.endpoints.resume(made.id) is resumed
    assert await registry.stored() == [resumed]
    assert registry.changes == [made, paused, resumed]


async def test_a_reason_that_no_one_could_read_is_refused(registry: Registry) -> None:
    """It is shown wherever the endpoint is."""
    made = await registry.made()
    for reason in ("x" * 513, "a\x00b"):
        with pytest.raises(InvalidEndpointError) as raised:
            await registry.endpoints.pause(made.id, reason)
        assert raised.value.faults[0].pointer == "/reason"


# Secrets ---------------------------------------------------------------------------------------------


async def test_a_new_secret_signs_beside_the_old_ones_for_a_while(store: WatchedStore) -> None:
    """For as long as the configuration says, or the caller; then the old ones are forgotten by themselves."""
    registry = Registry(store, WebhookSection(rotation_overlap=Duration(3600)))
    made, first = await registry.endpoints.create(draft())
    endpoint, second = await registry.endpoints.rotate(made.id)
    assert endpoint.secrets == (EndpointSecret(second, NOW), EndpointSecret(first, NOW, NOW + 3600))
    endpoint, third = await registry.endpoints.rotate(made.id, signature="v1a", overlap=60)
    assert third.startswith("whsk_")
    assert [each.expires_at for each in endpoint.secrets] == [None, NOW + 60, NOW + 60]
    await registry.endpoints.forget_expired(NOW + 59)
    assert registry.endpoints.find(made.id) is endpoint
    await registry.endpoints.forget_expired(NOW + 60)
    assert registry.endpoints.find(made.id).secrets == (EndpointSecret(third, NOW),)
    assert await registry.stored() == registry.endpoints.all()


async def test_an_overlap_of_none_ends_the_old_secrets_at_once(registry: Registry) -> None:
    """One that leaked must sign nothing more."""
    made = await registry.made()
    endpoint, secret = await registry.endpoints.rotate(made.id, secret=SECRET, overlap=0)
    assert (secret, endpoint.secrets) == (SECRET, (EndpointSecret(SECRET, NOW),))


async def test_no_more_than_five_secrets_sign(registry: Registry) -> None:
    """The sixth is refused, with the way out: what would be dropped silently is a receiver's only one."""
    made = await registry.made()
    for _ in range(4):
        await registry.endpoints.rotate(made.id)
    with pytest.raises(InvalidEndpointError) as raised:
        await registry.endpoints.rotate(made.id)
    assert raised.value.faults[0].pointer == "/overlap"
    assert len(registry.endpoints.find(made.id).secrets) == 5
    endpoint, _ = await registry.endpoints.rotate(made.id, overlap=0)
    assert len(endpoint.secrets) == 1
    registry.clock.advance(2 * DAY)
    await registry.endpoints.rotate(made.id)


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"secret": "nonsense"}, "/secret"),
        ({"secret": SECRET}, "/secret"),
        ({"overlap": -1.0}, "/overlap"),
        ({"overlap": float("nan")}, "/overlap"),
        ({"overlap": 367.0 * DAY}, "/overlap"),
    ],
)
async def test_a_rotation_that_can_not_be_changes_nothing(
    registry: Registry, asked: dict[str, str | float], pointer: str
) -> None:
    """No secret at all, one that signs already, or no length of time."""
    made = await registry.made(secret=SECRET)
    with pytest.raises(InvalidEndpointError) as raised:
        await registry.endpoints.rotate(made.id, **asked)  # type: ignore[arg-type]  # of several types
    assert [fault.pointer for fault in raised.value.faults] == [pointer]
    assert registry.endpoints.find(made.id) is made


# Deleted ---------------------------------------------------------------------------------------------


async def test_deleting_cancels_what_waits_and_says_how_much(registry: Registry) -> None:
    """In batches; others' jobs stay, nothing more is routed there, and a restart knows nothing of it."""
    made, other = await registry.made(), await registry.made()
    await registry.keep(1201, type="order.paid")
    assert await registry.endpoints.delete(made.id) == 1201
    assert registry.store.calls["cancel_some"] == 4
    assert await registry.count(made, JobState.CANCELLED) == 1201
    assert await registry.count(other, JobState.PENDING) == 1201
    assert registry.endpoints.get(made.id) is None
    assert registry.router.subscriptions.matching(None, "order.paid") == (other.id,)
    assert (registry.changes[-1].id, registry.changes[-1].deleted) == (made.id, True)
    assert await registry.stored() == [other]
    assert registry.events == []
    with pytest.raises(NotFoundError):
        await registry.endpoints.delete(made.id)


async def test_it_is_gone_for_routing_before_its_jobs_are_cancelled(registry: Registry) -> None:
    """Else events that come meanwhile would leave jobs behind."""
    made = await registry.made()
    await registry.keep(1, type="order.paid")
    seen: list[tuple[str, ...]] = []

    async def look() -> None:
        seen.append(registry.router.subscriptions.matching(None, "order.paid"))

    registry.store.before["cancel_some"] = look
    await registry.endpoints.delete(made.id)
    assert seen == [(), ()]


async def test_its_lane_is_held_while_its_jobs_are_cancelled(registry: Registry) -> None:
    """Else workers would take what waited while it was paused, and the answer would not count it."""
    made = await registry.made()
    await registry.endpoints.pause(made.id)
    await registry.keep(1, type="order.paid")
    seen: list[tuple[EndpointState, bool]] = []

    async def look() -> None:
        seen.append((registry.changes[-1].state, registry.changes[-1].deleted))

    registry.store.before["cancel_some"] = registry.store.before["drop_endpoint"] = look
    await registry.endpoints.delete(made.id)
    assert set(seen) == {(EndpointState.PAUSED, False)}
    assert registry.changes[-1].deleted


async def test_a_deletion_that_the_store_cut_short_can_be_gone_on_with(registry: Registry) -> None:
    """By asking again, or by upkeep; meanwhile it is gone all the same."""
    first, second = await registry.made(), await registry.made()
    await registry.keep(600, type="order.paid")
    for each in (first, second):
        registry.store.failing["cancel_some"] = 1
        with pytest.raises(StoreUnavailableError):
            await registry.endpoints.delete(each.id)
        assert registry.endpoints.get(each.id) is None
    assert await registry.endpoints.delete(first.id) == 600
    await registry.endpoints.forget_expired(NOW)
    assert await registry.count(second, JobState.PENDING) == 0
    assert await registry.stored() == []


async def test_a_deletion_that_a_crash_cut_short_is_finished_at_the_start(registry: Registry) -> None:
    """Before anything is delivered or routed."""
    made = await registry.made()
    await registry.keep(600, type="order.paid")
    registry.store.failing["cancel_some"] = 1
    with pytest.raises(StoreUnavailableError):
        await registry.endpoints.delete(made.id)
    after = await reloaded(registry)
    assert after.endpoints.all() == await after.stored() == []
    assert await after.count(made, JobState.CANCELLED) == 600


# The store fails -------------------------------------------------------------------------------------


async def test_what_the_store_refused_changes_nothing_in_memory(registry: Registry) -> None:
    """Nothing is told to anybody, and the next change builds on what stands."""
    made = await registry.made()
    for doing in (
        lambda: registry.changed(made, description="new"),
        lambda: registry.endpoints.pause(made.id),
        lambda: registry.endpoints.rotate(made.id),
        lambda: registry.endpoints.delete(made.id),
    ):
        registry.store.failing["save_endpoint"] = 1
        with pytest.raises(StoreUnavailableError):
            await doing()
        assert registry.endpoints.find(made.id) == made
    assert {each.id for each in registry.changes} == {made.id}
    assert all(each == made for each in registry.changes)
    assert (await registry.changed(made, description="new")).description == "new"


async def test_a_change_whose_commit_is_unknown_stands_as_the_store_has_it(registry: Registry) -> None:
    """Whoever asked is told that it is unknown, and the next look shows what became of it."""
    made = await registry.made()
    registry.store.after["save_endpoint"] = unsaid
    with pytest.raises(StoreUnavailableError):
        await registry.changed(made, event_types=("user.*",))
    assert registry.endpoints.find(made.id).event_types == ("user.*",)
    assert registry.router.subscriptions.matching(None, "user.born") == (made.id,)
    assert registry.changes[-1].event_types == ("user.*",)
    registry.store.after.clear()
    assert (await registry.changed(made, rate_limit=5.0)).event_types == ("user.*",)


async def test_while_it_is_unknown_how_an_endpoint_stands_nothing_is_said_of_it(registry: Registry) -> None:
    """Not what stood before, not what was asked for; once the store can be read again, what is."""
    made, other = await registry.made(), await registry.made()
    registry.store.after["save_endpoint"] = unsaid
    registry.store.failing["endpoints"] = 2
    with pytest.raises(StoreUnavailableError):
        await registry.changed(made, description="new")
    with pytest.raises(StoreUnavailableError, match="not known yet"):
        registry.endpoints.find(made.id)
    with pytest.raises(StoreUnavailableError, match="not known yet"):
        registry.endpoints.all()
    assert registry.endpoints.find(other.id) is other
    assert registry.endpoints.get(made.id) == made
    registry.store.after.clear()
    with pytest.raises(StoreUnavailableError, match="no endpoints today"):
        await registry.changed(made, rate_limit=5.0)
    changed = await registry.changed(made, rate_limit=5.0)
    assert (changed.description, changed.rate_limit) == ("new", 5.0)
    assert len(registry.endpoints.all()) == 2


async def test_upkeep_clears_what_is_unknown(registry: Registry) -> None:
    """Though nobody asks for a change of it."""
    made = await registry.made()
    registry.store.after["save_endpoint"] = unsaid
    registry.store.failing["endpoints"] = 1
    with pytest.raises(StoreUnavailableError):
        await registry.changed(made, description="new")
    await registry.endpoints.forget_expired(NOW)
    assert registry.endpoints.find(made.id).description == "new"


@pytest.mark.parametrize("committed", [True, False])
async def test_an_endpoint_whose_making_failed_is_not_there(registry: Registry, committed: bool) -> None:
    """Whoever asks again would have two, and every event twice, one signed with a secret that no one has."""
    if committed:
        registry.store.after["add_endpoint"] = unsaid
    else:
        registry.store.failing["add_endpoint"] = 1
    with pytest.raises(StoreUnavailableError):
        await registry.made()
    assert (registry.endpoints.all(), await registry.stored(), registry.changes) == ([], [], [])


async def test_a_deletion_whose_commit_is_unknown_goes_on_where_it_stands(registry: Registry) -> None:
    """It was stored: it is gone, and asking again cancels what waits."""
    made = await registry.made()
    await registry.keep(3, type="order.paid")
    registry.store.after["save_endpoint"] = unsaid
    with pytest.raises(StoreUnavailableError):
        await registry.endpoints.delete(made.id)
    assert registry.endpoints.get(made.id) is None
    assert await registry.endpoints.delete(made.id) == 3


async def test_a_caller_that_goes_away_leaves_memory_and_store_alike(registry: Registry) -> None:
    """A request that is cut off in the middle: what is committed stands, and is told of."""
    made = await registry.made()
    entered, gate = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        entered.set()
        await gate.wait()

    registry.store.before["save_endpoint"] = wait
    asking = asyncio.create_task(registry.changed(made, description="new"))
    await entered.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    gate.set()
    await registry.store.called("save_endpoint")
    assert (await registry.changed(made, rate_limit=5.0)).description == "new"
    assert [each.description for each in registry.changes] == [None, "new", "new"]
