"""What every store promises of mail: what is kept to be sent again, whom nothing is sent to, who bounced.

Tried on each backend alike, as all that `test_store_contract.py` holds.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.builders import (
    NOW,
    attempt,
    event_record,
    failed_job,
    job,
    lost,
    release,
    settlement,
    submission,
    suppression,
)
from support.stores import BACKENDS, finish, ids, put, take, take_one

from notifier.model import Addressed, Claim, JobState, Outcome, Suppression, SuppressionReason
from notifier.store import Store, open_store
from notifier.store.base import JobFilter, Submission, SuppressionPage

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState
EVERYTHING = JobFilter()
ODD = "a\"b'c\\d;-- {x}\n\t\u0001\u0000 \N{SNOWMAN} \N{GRINNING FACE} \u202e%s?:now"
ADA, BOB = "ada@example.com", "bob@example.com"


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest) -> str:
    """Name one backend's store, empty."""
    return BACKENDS[request.param]


@pytest.fixture
async def store(url: str, tmp_path: Path) -> AsyncIterator[Store]:
    """Open an empty store of each backend."""
    opened = open_store(url, tmp_path)
    await opened.open(NOW)
    yield opened
    await opened.close()


async def lose(store: Store, content: bytes = b"the mail", **changes: Any) -> Claim:
    """Store one job, lose sight of what became of it, and claim it again a minute later."""
    assert await store.settle(lost(await take_one(store, **changes), content))
    (again,) = await take(store, now=NOW + 60)
    return again


async def copies(store: Store, job_id: str) -> tuple[bool, bytes | None]:
    """Whether the job says that something is kept of it, and what is."""
    return (await store.job(job_id)).kept, await store.kept_content(job_id)


# Jobs and attempts ---------------------------------------------------------------------------------


async def test_whom_a_mail_is_addressed_to_comes_back_as_it_was_stored(store: Store) -> None:
    """In its order, text in any script among it; None stays None, and nothing is not None."""
    event = event_record()
    jobs = (
        job(event, category="news", addressed=Addressed(to=("Ada <ada@example.com>", ODD), cc=(ODD,))),
        job(event, category=ODD, addressed=Addressed(cc=("bob@example.com",))),
        job(event, addressed=Addressed()),
        failed_job(event, category="news", addressed=None),
    )
    await store.add([Submission(event, jobs)])
    assert await store.event(event.id) == (event, list(jobs))
    assert [await store.job(each.id) for each in jobs] == list(jobs)
    assert (await store.jobs(EVERYTHING, limit=9)).jobs == list(reversed(jobs))
    assert {claim.job.id: (claim.job.category, claim.job.addressed) for claim in await take(store)} == {
        each.id: (each.category, each.addressed) for each in jobs[:3]
    }


async def test_what_an_attempt_went_by_is_on_its_record(store: Store) -> None:
    """The relay that was used, of each attempt its own; none where there was no choice."""
    written = [
        attempt(Outcome.RETRY, via="mx1.example.com:25"),
        attempt(Outcome.RETRY),
        attempt(via="mx2.example.com:587"),
    ]
    (made,) = await put(store, submission())
    for number, each in enumerate(written):
        (claim,) = await take(store, now=NOW + number)
        await store.settle(settlement(claim, PENDING, attempt=each, next_attempt_at=NOW + number + 1))
    assert await store.attempts(made.id) == written


# What is kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff\r\n.\r\n", b"x" * 3_000_000], ids=["none", "odd", "large"]
)
async def test_what_was_lost_sight_of_is_kept_byte_for_byte(store: Store, content: bytes) -> None:
    """The next claim says that there is something to send again, and it is what was sent."""
    again = await lose(store, content)
    assert again.job.kept
    assert await copies(store, again.job.id) == (True, content)


async def test_of_other_jobs_nothing_is_kept(store: Store) -> None:
    """Neither of one that was never lost sight of, nor of one that nobody knows."""
    again = await lose(store)
    (other,) = await put(store, submission())
    assert await copies(store, other.id) == (False, None)
    assert await store.kept_content("job_0") is None
    assert await copies(store, again.job.id) == (True, b"the mail")


async def test_a_retry_that_says_nothing_of_it_leaves_what_is_kept(store: Store) -> None:
    """The first mail may have come in after all: what is sent the third time must still be the same."""
    again = await lose(store)
    await store.settle(settlement(again, PENDING, next_attempt_at=NOW + 90))
    (again,) = await take(store, now=NOW + 90)
    await store.settle(release(again, next_attempt_at=NOW + 91))
    assert await copies(store, again.job.id) == (True, b"the mail")


async def test_what_is_lost_again_takes_the_place_of_what_was_kept(store: Store) -> None:
    """There is one copy, the last that was sent."""
    again = await lose(store, b"first")
    await store.settle(lost(again, b"second"))
    assert await copies(store, again.job.id) == (True, b"second")


@pytest.mark.parametrize("state", [COMPLETED, FAILED, CANCELLED])
async def test_a_finished_job_keeps_nothing(store: Store, state: JobState) -> None:
    """Nor does one that brings something along as it ends."""
    again = await lose(store)
    assert await store.settle(settlement(again, state))
    assert await copies(store, again.job.id) == (False, None)
    claim = await take_one(store)
    assert await store.settle(settlement(claim, state, content=b"the mail"))
    assert await copies(store, claim.job.id) == (False, None)


async def withdraw(store: Store, wanted: JobFilter) -> None:
    """Cancel by filter."""
    assert await store.cancel_some(wanted, now=NOW, limit=9) == 1


async def send_anew(store: Store, wanted: JobFilter) -> None:
    """Requeue by filter."""
    assert len(await store.requeue_some(wanted, now=NOW, limit=9)) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda store, job_id: store.requeue(job_id, NOW),
        lambda store, job_id: store.cancel(job_id, NOW),
        lambda store, _: send_anew(store, JobFilter(route="mail")),
        lambda store, _: withdraw(store, JobFilter(route="mail")),
    ],
    ids=["requeue", "cancel", "requeue_some", "cancel_some"],
)
async def test_an_operator_who_begins_anew_or_withdraws_forgets_what_is_kept(
    store: Store, change: Callable[[Store, str], Awaitable[Any]]
) -> None:
    """It is made from the template as it is then, of this job and of no other."""
    again, other = [await lose(store, route=route) for route in ("mail", "other")]
    for claim in (again, other):
        await store.settle(release(claim))
    await change(store, again.job.id)
    assert await copies(store, again.job.id) == (False, None)
    assert await copies(store, other.job.id) == (True, b"the mail")


async def test_what_is_kept_outlives_its_worker(store: Store, url: str, tmp_path: Path) -> None:
    """A claim that ran out, or died with its process, gives the job back with what is to be sent again."""
    again = await lose(store)
    assert await store.rescue(NOW + 999) == 1
    assert await copies(store, again.job.id) == (True, b"the mail")
    await take(store, now=NOW + 999)
    await store.close()
    reopened = open_store(url, tmp_path)
    assert await reopened.open(NOW + 999) == 1
    assert await copies(reopened, again.job.id) == (True, b"the mail")
    await reopened.close()


async def test_a_lost_claim_keeps_nothing_and_forgets_nothing(store: Store) -> None:
    """What a late worker sent is not what the present one is sending."""
    first = await take_one(store)
    await store.rescue(NOW + 61)
    (second,) = await take(store, now=NOW + 61)
    assert not await store.settle(lost(first, b"too late"))
    assert await copies(store, second.job.id) == (False, None)
    assert await store.settle(lost(second, b"in time"))
    assert not await store.settle(settlement(first, COMPLETED))
    assert await copies(store, second.job.id) == (True, b"in time")


async def test_settles_that_keep_and_forget_are_each_their_own(store: Store) -> None:
    """Written in one batch with stale ones and with those of which nothing is kept: each has its answer."""
    for number in range(30):
        await store.settle(lost(await take_one(store), b"%d" % number))
    await put(store, submission(30, next_attempt_at=NOW + 60))
    claims = await take(store, now=NOW + 60)
    outcomes = [
        settlement(claim, COMPLETED) if index % 3 else lost(claim, b"again %d" % index)
        for index, claim in enumerate(claims)
    ]
    stale = [lost(claim, b"stale", fence=0) for claim in claims]
    answers = await asyncio.gather(*map(store.settle, [*stale, *outcomes]))
    assert answers == [False] * 60 + [True] * 60
    for index, claim in enumerate(claims):
        expected = (False, None) if index % 3 else (True, b"again %d" % index)
        assert await copies(store, claim.job.id) == expected


@pytest.mark.parametrize("first", ["keeps", "forgets"])
async def test_of_two_settles_under_one_claim_only_the_first_counts(store: Store, first: str) -> None:
    """In one batch too: the second neither keeps nor forgets anything."""
    again = await lose(store, b"before")
    both = [lost(again, b"after"), settlement(again, FAILED)]
    if first == "forgets":
        both.reverse()
    assert await asyncio.gather(*map(store.settle, both)) == [True, False]
    expected = (True, b"after") if first == "keeps" else (False, None)
    assert await copies(store, again.job.id) == expected


async def test_a_settle_whose_content_can_not_be_kept_changes_nothing(store: Store) -> None:
    """Both or neither, and those beside it are written."""
    again = await lose(store, b"before")
    other = await lose(store)
    refused, *bad, settled = await asyncio.gather(
        store.settle(lost(again, b"after", now="soon")),
        store.settle(lost(again, "no bytes")),  # type: ignore[arg-type]  # what a database takes for text
        store.settle(lost(again, 7)),  # type: ignore[arg-type]
        store.settle(lost(other, b"after")),
        return_exceptions=True,
    )
    assert all(isinstance(each, Exception) for each in (refused, *bad))
    assert settled is True
    assert await store.job(again.job.id) == again.job
    assert len(await store.attempts(again.job.id)) == 1
    assert await store.kept_content(again.job.id) == b"before"
    assert await copies(store, other.job.id) == (True, b"after")


async def test_what_was_lost_and_found_is_pruned_like_any_other(store: Store) -> None:
    """With all that there was of it."""
    again = await lose(store)
    await store.settle(settlement(again, COMPLETED))
    assert await store.prune(completed_before=NOW + 99, failed_before=NOW, limit=9) == 1
    assert await store.kept_content(again.job.id) is None
    assert await store.attempts(again.job.id) == []


async def test_what_is_kept_is_not_pruned_however_old(store: Store) -> None:
    """Its job is not finished."""
    again = await lose(store)
    await store.settle(release(again))
    assert await store.prune(completed_before=NOW + 999, failed_before=NOW + 999, limit=9) == 0
    assert await copies(store, again.job.id) == (True, b"the mail")


# Suppressions --------------------------------------------------------------------------------------


async def listed(store: Store, **narrowed: Any) -> list[Suppression]:
    """All suppressions that there are."""
    return (await store.suppressions(limit=1000, **narrowed)).suppressions


async def test_a_suppression_comes_back_as_it_was_added(store: Store) -> None:
    """Every field survives, set or not."""
    whole = suppression(
        recipient=ODD,
        category="news",
        reason=SuppressionReason.COMPLAINED,
        detail=ODD,
        job_id="job_1",
        created_at=NOW + 0.000_001,
    )
    bare = suppression(channel="sms")
    for each in (whole, bare):
        assert await store.add_suppression(each)
    assert await listed(store) == [bare, whole]
    assert await store.suppressed("email", ODD, "news") == whole
    assert await store.suppressed("sms", ADA, None) == bare


@pytest.mark.parametrize("reason", SuppressionReason)
async def test_a_suppression_may_have_any_reason(store: Store, reason: SuppressionReason) -> None:
    """Each of those there are."""
    added = suppression(reason=reason)
    await store.add_suppression(added)
    assert await listed(store) == [added]


@pytest.mark.parametrize(
    ("suppressed", "asked", "covered"),
    [
        (None, None, True),
        (None, "news", True),
        ("news", "news", True),
        ("news", "offers", False),
        ("news", None, False),
        ("news", "News", False),
    ],
)
async def test_what_a_suppression_covers(
    store: Store, suppressed: str | None, asked: str | None, covered: bool
) -> None:
    """Without a category all that is sent; with one, only that."""
    added = suppression(category=suppressed)
    await store.add_suppression(added)
    assert await store.suppressed("email", ADA, asked) == (added if covered else None)


@pytest.mark.parametrize(
    ("channel", "recipient"), [("sms", ADA), ("email", BOB), ("email", "Ada@example.com"), ("email", "")]
)
async def test_a_suppression_is_of_one_recipient_on_one_channel(
    store: Store, channel: str, recipient: str
) -> None:
    """Spelled just so: how an address is spelled is not the store's matter."""
    await store.add_suppression(suppression())
    await store.add_suppression(suppression(category="news"))
    for category in (None, "news"):
        assert await store.suppressed(channel, recipient, category) is None


async def test_the_suppression_of_everything_is_told_before_that_of_a_category(store: Store) -> None:
    """In whatever order they were added."""
    of_news, of_all = suppression(category="news"), suppression()
    for pair in ((of_news, of_all), (of_all, of_news)):
        for each in pair:
            assert await store.add_suppression(each)
        assert await store.suppressed("email", ADA, "news") == of_all
        for each in pair:
            assert await store.drop_suppression("email", ADA, each.category)


@pytest.mark.parametrize("category", [None, "news"])
async def test_what_is_suppressed_already_stays_as_it_was(store: Store, category: str | None) -> None:
    """The second is told so: why it was suppressed first is what counts."""
    first = suppression(category=category, reason=SuppressionReason.UNSUBSCRIBED)
    second = suppression(category=category, reason=SuppressionReason.BOUNCED, created_at=NOW + 9)
    assert await store.add_suppression(first)
    assert not await store.add_suppression(second)
    assert await listed(store) == [first]


@pytest.mark.parametrize("category", [None, "news"])
async def test_of_those_who_suppress_at_once_one_was_first(store: Store, category: str | None) -> None:
    """A link that is followed twice suppresses once."""
    answers = await asyncio.gather(
        *(store.add_suppression(suppression(category=category, detail=str(n))) for n in range(20))
    )
    assert answers.count(True) == 1
    assert len(await listed(store)) == 1


async def test_a_suppression_that_can_not_be_harms_no_other(store: Store) -> None:
    """A reason that there is not is refused, alone."""
    refused, added = await asyncio.gather(
        store.add_suppression(suppression(reason="whim")),
        store.add_suppression(suppression(recipient=BOB)),
        return_exceptions=True,
    )
    assert isinstance(refused, Exception)
    assert added is True
    assert [each.recipient for each in await listed(store)] == [BOB]


@pytest.mark.parametrize("category", [None, "news"])
async def test_just_the_suppression_that_is_named_is_dropped(store: Store, category: str | None) -> None:
    """Those of other categories, recipients and channels stand; to drop it twice is harmless."""
    others = [
        suppression(category="offers"),
        suppression(category="news" if category is None else None),
        suppression(category=category, recipient=BOB),
        suppression(category=category, channel="sms"),
    ]
    for each in (*others, suppression(category=category)):
        assert await store.add_suppression(each)
    assert await store.drop_suppression("email", ADA, category)
    assert not await store.drop_suppression("email", ADA, category)
    assert await listed(store) == others[::-1]


async def test_a_dropped_suppression_can_be_added_again(store: Store) -> None:
    """As a new one: it is listed before all others."""
    for recipient in (ADA, BOB):
        await store.add_suppression(suppression(recipient=recipient))
    await store.drop_suppression("email", ADA, None)
    assert await store.suppressed("email", ADA, None) is None
    assert await store.add_suppression(suppression(created_at=NOW + 9))
    assert [each.recipient for each in await listed(store)] == [ADA, BOB]


async def test_suppressions_are_listed_page_by_page(store: Store) -> None:
    """The last added first, each once, whatever is added or dropped meanwhile; the end has no next."""
    made = [suppression(recipient=f"{n}@example.com") for n in range(7)]
    for each in made:
        await store.add_suppression(each)
    first = await store.suppressions(limit=3)
    await store.add_suppression(suppression())
    await store.drop_suppression("email", made[5].recipient, None)
    second = await store.suppressions(limit=3, after=first.next_position)
    third = await store.suppressions(limit=3, after=second.next_position)
    assert [*first.suppressions, *second.suppressions, *third.suppressions] == made[::-1]
    assert third.next_position is None


async def test_a_last_page_of_suppressions_that_is_full_says_so(store: Store) -> None:
    """No one is sent on to an empty page, nor from an empty list."""
    assert await store.suppressions(limit=2) == SuppressionPage([], None)
    for recipient in (ADA, BOB):
        await store.add_suppression(suppression(recipient=recipient))
    assert (await store.suppressions(limit=2)).next_position is None


@pytest.mark.parametrize(
    ("narrowed", "found"),
    [
        ({}, 4),
        ({"channel": "email"}, 3),
        ({"recipient": ADA}, 3),
        ({"reason": SuppressionReason.BOUNCED}, 2),
        ({"channel": "email", "recipient": ADA}, 2),
        ({"channel": "email", "recipient": ADA, "reason": SuppressionReason.BOUNCED}, 1),
        ({"recipient": BOB, "reason": SuppressionReason.MANUAL}, 0),
        ({"recipient": "ada"}, 0),
        ({"channel": "fax"}, 0),
    ],
)
async def test_suppressions_are_narrowed_by_all_that_is_given(
    store: Store, narrowed: dict[str, Any], found: int
) -> None:
    """And so they are on every page."""
    bounced = SuppressionReason.BOUNCED
    for each in (
        suppression(reason=bounced),
        suppression(category="news"),
        suppression(channel="sms"),
        suppression(recipient=BOB, reason=bounced),
    ):
        await store.add_suppression(each)
    whole = await listed(store, **narrowed)
    assert len(whole) == found
    paged: list[Suppression] = []
    after = None
    while page := (turned := await store.suppressions(limit=1, after=after, **narrowed)).suppressions:
        paged += page
        if (after := turned.next_position) is None:
            break
    assert paged == whole


async def test_suppressions_are_there_after_the_store_is_opened_again(url: str, tmp_path: Path) -> None:
    """They are kept as safely as events, and pruned never."""
    store = open_store(url, tmp_path)
    await store.open(NOW)
    await store.add_suppression(suppression(job_id="job_1"))
    await store.close()
    await store.open(NOW)
    await store.prune(completed_before=NOW * 2, failed_before=NOW * 2, limit=9)
    assert await store.suppressed("email", ADA, None) == suppression(job_id="job_1")
    await store.close()


# Bounces -------------------------------------------------------------------------------------------


async def test_bounces_are_counted_by_channel_and_recipient(store: Store) -> None:
    """Each on its own, from one."""
    assert [await store.count_bounce("email", ADA, NOW + n) for n in range(3)] == [1, 2, 3]
    assert await store.count_bounce("email", BOB, NOW) == 1
    assert await store.count_bounce("sms", ADA, NOW) == 1
    assert await store.count_bounce("email", ADA, NOW) == 4


async def test_bounces_that_come_at_once_are_all_counted(store: Store) -> None:
    """No two of them are told the same number."""
    counts = await asyncio.gather(*(store.count_bounce("email", ADA, NOW) for _ in range(20)))
    assert sorted(counts) == list(range(1, 21))


async def test_what_comes_through_has_bounces_counted_from_one_again(store: Store) -> None:
    """Of this recipient on this channel; where none was counted, there is nothing to forget."""
    for channel, recipient in [("email", ADA), ("email", BOB), ("sms", ADA)]:
        await store.count_bounce(channel, recipient, NOW)
    for _ in range(2):
        await store.forget_bounces("email", ADA)
    assert await store.count_bounce("email", ADA, NOW) == 1
    assert await store.count_bounce("email", BOB, NOW) == 2
    assert await store.count_bounce("sms", ADA, NOW) == 2


async def test_bounces_are_forgotten_with_the_failures_they_came_from(store: Store) -> None:
    """The last one counts: two that are years apart are no two in a row."""
    await store.count_bounce("email", ADA, NOW)
    await store.count_bounce("email", BOB, NOW)
    await store.count_bounce("email", BOB, NOW + 50)
    assert await store.prune(completed_before=NOW + 99, failed_before=NOW + 50, limit=9) == 0
    assert await store.count_bounce("email", ADA, NOW + 99) == 1
    assert await store.count_bounce("email", BOB, NOW + 99) == 3


async def test_who_is_known_stays_known_over_a_restart(url: str, tmp_path: Path) -> None:
    """Who was suppressed is, and bounces go on to be counted, and to be forgotten."""
    first = open_store(url, tmp_path)
    await first.open(NOW)
    await first.add_suppression(suppression())
    for _ in range(2):
        await first.count_bounce("email", BOB, NOW)
    await first.close()
    second = open_store(url, tmp_path)
    await second.open(NOW)
    assert await second.suppressed("email", ADA, None) == suppression()
    await second.forget_bounces("email", BOB)
    assert await second.count_bounce("email", BOB, NOW) == 1
    await second.close()


async def test_old_bounces_are_forgotten_a_bounded_number_at_once(store: Store) -> None:
    """The oldest first; the next prune goes on."""
    names = [f"{n}@example.com" for n in range(5)]
    for n, name in enumerate(names):
        await store.count_bounce("email", name, NOW + n)
    await store.prune(completed_before=NOW, failed_before=NOW + 99, limit=2)
    assert [await store.count_bounce("email", name, NOW + 50) for name in names] == [1, 1, 2, 2, 2]


# Recent --------------------------------------------------------------------------------------------


async def test_the_newest_jobs_of_a_template_come_with_their_events(store: Store) -> None:
    """The newest first, as many as are asked for, in whatever state they are; of other templates, none."""
    made = [submission(of=event_record(body=f'{{"n":{n}}}'), template="welcome") for n in range(4)]
    await put(store, *made, submission(template="receipt"), submission())
    await finish(store, COMPLETED, template="receipt")
    found = await store.recent("welcome", 3)
    assert found == [(each.jobs[0], each.event) for each in made[:0:-1]]
    assert len(await store.recent("receipt", 9)) == 2
    assert await store.recent("nobody's", 9) == []
    assert await store.recent("welcome", 0) == []


async def test_an_event_with_many_recipients_is_recent_once(store: Store) -> None:
    """Once for each locale: the last N are N events, not one event N times over."""
    event = event_record()
    jobs = [job(event, template="welcome", locale=locale) for locale in ("fr", None, "fr", None, "fr")]
    jobs.append(job(event, template="receipt"))
    older = submission(3, template="welcome")
    await store.add([older, Submission(event, tuple(jobs))])
    found = [each for each, _ in await store.recent("welcome", 9)]
    assert ids(found) == [jobs[4].id, jobs[3].id, older.jobs[2].id]


async def test_what_is_made_out_late_is_kept_with_the_destination(store: Store) -> None:
    """Whom a mail is addressed to, and its locale: the next attempt is of the same mail."""
    event = event_record()
    born = failed_job(event, channel="email", addressed=Addressed(to=(ADA,), place="cc[0]"))
    await store.add([Submission(event, (born,))])
    assert (await store.job(born.id)).addressed == born.addressed
    await store.requeue(born.id, NOW)
    (claim,) = await take(store)
    told = Addressed(to=(ADA,), cc=(BOB,))
    await store.settle(release(claim, destination=BOB, lane="email:example.com", locale="fr", addressed=told))
    made_out = await store.job(born.id)
    assert (made_out.destination, made_out.locale, made_out.addressed) == (BOB, "fr", told)
    (claim,) = await take(store, now=NOW + 1)
    await store.settle(release(claim, now=NOW + 1))
    assert (await store.job(born.id)).addressed == told
