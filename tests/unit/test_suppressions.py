"""Suppressions: who is left alone, and by what; bounces that count; what operators do about it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.builders import NOW, job
from support.clock import Clock

from notifier.channels import Receipt
from notifier.errors import Bounced, Permanent, StoreUnavailableError, Transient, Unavailable, Withdrawn
from notifier.model import Job, Suppression, SuppressionReason
from notifier.store.sqlite import SqliteStore
from notifier.suppressions import Suppressions, recipient_key
from notifier.unsubscribing import Unsubscription

ADA = "ada@example.com"
WANTED = Unsubscription("email", ADA, "news", "job_1")


def mail(**changes: Any) -> Job:
    """A mail to Ada."""
    return job(**({"channel": "email", "destination": "Ada <Ada@Example.com>"} | changes))


def bounce() -> Bounced:
    """What her server says."""
    return Bounced("the recipient is refused", status_code=550, response="550 5.1.1 no such user")


class Desk:
    """Suppressions on a real store."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.clock = Clock()
        self.of_one = Suppressions(store, self.clock, 1)
        self.of_three = Suppressions(store, self.clock, 3)

    async def reason(self, made: Job) -> str | None:
        """Why a job doesn't go out; None: it does."""
        try:
            await self.of_one.check(made)
        except Withdrawn as error:
            return f"{error.code}: {error.message}"
        return None

    async def all(self) -> list[Suppression]:
        """Every suppression, the newest first."""
        return (await self.of_one.page(limit=100)).suppressions


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """An empty store."""
    store = SqliteStore(tmp_path / "notifier.db")
    await store.open(NOW)
    yield Desk(store)
    await store.close()


def manual(**changes: Any) -> Suppression:
    """What an operator keeps."""
    fields: dict[str, Any] = {
        "channel": "email",
        "recipient": ADA,
        "reason": SuppressionReason.MANUAL,
        "created_at": NOW,
    }
    return Suppression(**(fields | changes))


# At send time ----------------------------------------------------------------------------------------


async def test_who_is_not_suppressed_is_written_to(desk: Desk) -> None:
    """Nor does another's suppression count, nor one on another channel."""
    await desk.of_one.add([manual(recipient="eve@example.com"), manual(channel="sms")])
    assert await desk.reason(mail()) is None


async def test_a_suppression_without_a_category_covers_everything(desk: Desk) -> None:
    """However the address is written; what has a category, and what has none."""
    await desk.of_one.add([manual(detail="asked by phone")])
    for made in (mail(), mail(category="news"), mail(destination=" ADA@example.COM ")):
        assert await desk.reason(made) == (
            "suppressed: an operator suppressed everything to the recipient: asked by phone"
        )


async def test_a_category_covers_its_own_jobs_alone(desk: Desk) -> None:
    """Who wants no newsletter still gets receipts, and what has no category."""
    await desk.of_one.unsubscribe(WANTED, everything=False, detail="one click")
    assert await desk.reason(mail(category="news")) == (
        "suppressed: the recipient unsubscribed from news: one click"
    )
    assert await desk.reason(mail(category="receipts")) is None
    assert await desk.reason(mail()) is None


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (SuppressionReason.UNSUBSCRIBED, "the recipient unsubscribed from everything"),
        (SuppressionReason.BOUNCED, "the recipient's address bounced"),
        (SuppressionReason.COMPLAINED, "the recipient complained about everything"),
        (SuppressionReason.MANUAL, "an operator suppressed everything to the recipient"),
    ],
)
async def test_a_suppressed_job_says_why(desk: Desk, reason: SuppressionReason, words: str) -> None:
    """In words that group: the same for everyone of the same cause."""
    await desk.of_one.add([manual(reason=reason)])
    assert await desk.reason(mail()) == f"suppressed: {words}"


async def test_webhooks_have_no_suppressions_and_other_channels_do(desk: Desk) -> None:
    """A receiver is paused, a person is left alone, by whatever channel."""
    url = "https://receiver.example/hooks"
    await desk.of_one.add(
        [manual(channel="webhook", recipient=url), manual(channel="sms", recipient="+1555")]
    )
    assert await desk.reason(job(destination=url)) is None
    assert await desk.reason(job(channel="sms", destination="+1555 ")) is not None
    assert await desk.reason(mail(destination=None)) is None


async def test_what_can_not_be_looked_up_is_not_sent(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Better late than to someone who asked to be left alone; no attempt is spent on it."""

    async def away(*_: object) -> None:
        raise StoreUnavailableError("no disk")

    monkeypatch.setattr(desk.store, "suppressed", away)
    with pytest.raises(Unavailable) as raised:
        await desk.of_one.check(mail())
    assert raised.value.code == "store_unavailable"


# Bounces ---------------------------------------------------------------------------------------------


async def test_the_first_bounce_suppresses_where_one_does(desk: Desk) -> None:
    """For all categories, with what the server said and the job that it said it to."""
    made = mail(category="news")
    await desk.of_one.note(made, bounce())
    (kept,) = await desk.all()
    assert kept == manual(reason=SuppressionReason.BOUNCED, detail="550 5.1.1 no such user", job_id=made.id)
    assert await desk.reason(mail(category="receipts")) is not None


@pytest.mark.parametrize("said", ["no\0 \udc80", 550])
async def test_whatever_is_said_of_a_bounce_suppresses(desk: Desk, said: Any) -> None:
    """A plugin hands in what no store takes: it bounced all the same."""
    await desk.of_one.note(mail(), Bounced("gone", response=said))
    (kept,) = await desk.all()
    assert kept.detail in {"no\ufffd ?", "550"}


async def test_bounces_in_a_row_count_and_a_delivery_ends_the_row(desk: Desk) -> None:
    """A full mailbox that is emptied again starts from nothing."""
    for answer in (bounce(), bounce(), Receipt(), bounce(), bounce()):
        await desk.of_three.note(mail(), answer)
    assert await desk.all() == []
    await desk.of_three.note(mail(destination="ADA@EXAMPLE.COM"), bounce())
    assert [each.reason for each in await desk.all()] == [SuppressionReason.BOUNCED]


@pytest.mark.parametrize("answer", [Transient("greylisted"), Permanent("too large"), Unavailable("down")])
async def test_other_failures_are_no_bounces(desk: Desk, answer: Permanent | Transient) -> None:
    """What is about the message, the provider or the weather says nothing about the recipient."""
    await desk.of_one.note(mail(), answer)
    assert await desk.all() == []


async def test_bounces_can_be_left_uncounted(desk: Desk) -> None:
    """With `suppress_after = 0` the job fails, and that is all."""
    await Suppressions(desk.store, desk.clock, 0).note(mail(), bounce())
    await desk.of_one.note(job(), bounce())
    await desk.of_one.note(mail(destination=None), bounce())
    assert await desk.all() == []


async def test_a_bounce_changes_nothing_of_what_stands(desk: Desk) -> None:
    """Who had complained is still known to have complained."""
    await desk.of_one.add([manual(reason=SuppressionReason.COMPLAINED)])
    await desk.of_one.note(mail(), bounce())
    assert [each.reason for each in await desk.all()] == [SuppressionReason.COMPLAINED]


async def test_to_note_a_bounce_never_raises(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of the job must not hang on it."""

    async def away(*_: object) -> None:
        raise StoreUnavailableError("no disk")

    for name in ("add_suppression", "count_bounce", "forget_bounces"):
        monkeypatch.setattr(desk.store, name, away)
    for suppressions in (desk.of_one, desk.of_three):
        for answer in (bounce(), Receipt()):
            await suppressions.note(mail(), answer)


async def test_a_delivery_asks_nothing_of_the_store_where_nothing_is_counted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first bounce suppressing, there is no count to end: deliveries cost nothing more."""
    monkeypatch.delattr(SqliteStore, "forget_bounces")
    await desk.of_one.note(mail(), Receipt())


# By recipients and operators -------------------------------------------------------------------------


async def test_unsubscribing_twice_is_once(desk: Desk) -> None:
    """And everything on top of a category is a suppression of its own, the wider one first."""
    assert await desk.of_one.covering(WANTED) is None
    for _ in range(2):
        await desk.of_one.unsubscribe(WANTED, everything=False, detail="one click")
    (kept,) = await desk.all()
    assert (kept.category, kept.reason, kept.job_id) == ("news", SuppressionReason.UNSUBSCRIBED, "job_1")
    await desk.of_one.unsubscribe(WANTED, everything=True, detail="on the page")
    found = await desk.of_one.covering(WANTED)
    assert found is not None
    assert found.category is None
    assert len(await desk.all()) == 2


async def test_adding_tells_what_was_there(desk: Desk) -> None:
    """What stands is left as it is."""
    assert await desk.of_one.add([manual(detail="first"), manual(category="news")]) == [True, True]
    assert await desk.of_one.add([manual(detail="second"), manual(recipient="eve@example.com")]) == [
        False,
        True,
    ]
    assert [each.detail for each in await desk.all() if each.recipient == ADA] == [None, "first"]


async def test_dropping_is_of_just_the_one_and_counts_anew(desk: Desk) -> None:
    """However the address is written; two bounces before it was dropped are forgotten."""
    for _ in range(3):
        await desk.of_three.note(mail(), bounce())
    await desk.of_three.add([manual(category="news")])
    assert await desk.of_three.drop("email", "Ada <ADA@example.com>", None)
    assert not await desk.of_three.drop("email", ADA, None)
    assert [each.category for each in await desk.all()] == ["news"]
    for _ in range(2):
        await desk.of_three.note(mail(), bounce())
    assert len(await desk.all()) == 1
    assert await desk.of_three.drop("email", ADA, "news")
    assert await desk.all() == []


async def test_pages_are_narrowed_and_lead_on(desk: Desk) -> None:
    """The last added first; a recipient is found however it is written."""
    await desk.of_one.add(
        [manual(recipient=f"{n}@example.com", reason=reason) for n, reason in enumerate(SuppressionReason)]
    )
    first = await desk.of_one.page(limit=3)
    rest = await desk.of_one.page(limit=3, after=first.next_position)
    assert [each.recipient[0] for each in (*first.suppressions, *rest.suppressions)] == ["3", "2", "1", "0"]
    assert rest.next_position is None
    narrowings: list[dict[str, Any]] = [
        {"recipient": "X <1@EXAMPLE.com>"},
        {"reason": SuppressionReason.BOUNCED},
        {"channel": "email", "recipient": "1@example.com"},
    ]
    for narrowed in narrowings:
        (found,) = (await desk.of_one.page(limit=3, **narrowed)).suppressions
        assert found.recipient == "1@example.com"
    assert (await desk.of_one.page(limit=3, channel="sms")).suppressions == []


@pytest.mark.parametrize(
    ("channel", "recipient", "expected"),
    [
        ("email", "Ada <Ada@Example.com>", ADA),
        ("email", "nobody", None),
        ("email", "a@b, c@d", None),
        ("sms", " +1555 ", "+1555"),
        ("sms", "  ", None),
        ("sms", "1\x00", None),
        ("sms", "1" * 3000, None),
    ],
)
def test_only_what_could_be_sent_to_can_be_suppressed(
    channel: str, recipient: str, expected: str | None
) -> None:
    """A slip of the pen is told, instead of suppressing nobody."""
    if expected is not None:
        assert recipient_key(channel, recipient) == expected
        return
    with pytest.raises(Permanent):
        recipient_key(channel, recipient)
