"""What every store promises (`store.base.Store`), tried on each backend alike.

What they promise of mail stands in test_store_mail.py; what is true of one of them only, in a file of its
own.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.builders import (
    LANE,
    NOW,
    attempt,
    born_claimed,
    endpoint,
    event_record,
    failed_job,
    job,
    release,
    settlement,
    submission,
)
from support.stores import BACKENDS, claim_of, finish, ids, lanes, put, take, take_one

from notifier.errors import (
    IdempotencyConflictError,
    IllegalTransitionError,
    NotFoundError,
    StoreUnavailableError,
)
from notifier.model import (
    Attempt,
    Claim,
    Endpoint,
    EndpointSecret,
    EndpointState,
    Job,
    JobError,
    JobState,
    Outcome,
    Priority,
    Timings,
)
from notifier.store import Store, open_store
from notifier.store.base import WINDOW_BYTES, Added, Claimed, JobFilter, Replay, Submission

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = JobState
UNTIL = NOW + 60
EVERYTHING = JobFilter()


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


# Adding --------------------------------------------------------------------------------------------


async def test_an_event_and_its_jobs_come_back_as_they_were_stored(store: Store) -> None:
    """Every field survives, text in any script and with any mark in it among them."""
    event = event_record(tenant="acme", key="k-1", deliver_at=NOW + 3600.25, created_at=NOW + 0.000001)
    odd = "a\"b'c\\d;-- {x}\n\t\u0001 \N{SNOWMAN} \N{GRINNING FACE} \u202e%s?:now"
    jobs = (
        job(event, next_attempt_at=NOW + 3600.25, priority=Priority.HIGH, endpoint="ep_1", route=None),
        job(event, destination=odd, lane=odd, template=odd, locale="fr", route=odd, channel="sms"),
        failed_job(event, error=JobError("template_error", odd)),
    )
    await store.add([Submission(event, jobs)])
    assert await store.event(event.id) == (event, list(jobs))
    assert [await store.job(each.id) for each in jobs] == list(jobs)


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        ' { "b" : 1.0,\r\n\t"a": 1e400, "a": -0 } ',
        '{"big": 123456789012345678901234567890}',
        '{"nul": "\\u0000", "lone": "\\ud800", "\\"": "\\\\"}',
        '{"snow": "☃", "grin": "😀", "sep": "\u2028"}',
        '{"quotes": "it\'s; DROP TABLE job; --"}',
    ],
)
async def test_data_is_kept_byte_for_byte(store: Store, body: str) -> None:
    """A receiver is sent what the app posted: no number is rounded, no key moved, no space lost."""
    added = submission(of=event_record(body=body))
    await put(store, added)
    kept, _ = await store.event(added.event.id)
    assert bytes(kept.data) == body.encode()
    (claim,) = await take(store)
    assert bytes(claim.event.data) == body.encode()


async def test_submissions_are_answered_in_their_order(store: Store) -> None:
    """An app that posts an array finds its own events by their place."""
    made = [submission(jobs) for jobs in (2, 0, 1)]
    assert await store.add(made) == [Added(each.event, each.jobs, duplicate=False) for each in made]


async def test_an_event_that_nobody_wants_is_stored_all_the_same(store: Store) -> None:
    """It is answered with no jobs, and can be looked up."""
    made = submission(jobs=0)
    await put(store, made)
    assert await store.event(made.event.id) == (made.event, [])


async def test_adding_nothing_is_no_error(store: Store) -> None:
    """An empty call is an empty answer."""
    assert await store.add([]) == []


async def test_many_submissions_are_stored_in_one_call(store: Store) -> None:
    """An array of a thousand events with their jobs is one call, all or none."""
    made = [submission(jobs=3) for _ in range(1000)]
    added = await store.add(made)
    assert [each.event.id for each in added] == [each.event.id for each in made]
    assert (await store.counts())[PENDING] == 3000


async def test_the_same_key_and_body_again_is_the_first_event(store: Store) -> None:
    """The answer is what stands in the store now: the first ids, and the jobs' present states."""
    first = submission(of=event_record(key="k"))
    await put(store, first)
    (claim,) = await take(store)
    await store.settle(settlement(claim, COMPLETED))
    (again,) = await store.add([submission(of=event_record(key="k"))])
    assert again == Added(first.event, (await store.job(claim.job.id),), duplicate=True)
    assert again.jobs[0].status is COMPLETED
    assert await store.count(EVERYTHING) == 1


async def test_the_same_key_with_another_body_is_a_conflict(store: Store) -> None:
    """It is refused by name and place, and of the whole call nothing is stored."""
    await put(store, submission(of=event_record(key="k")))
    call = [
        submission(),
        submission(of=event_record(key="fresh")),
        submission(of=event_record(key="k", body='{"total":1}')),
    ]
    with pytest.raises(IdempotencyConflictError, match="'k'") as refused:
        await store.add(call)
    assert (refused.value.key, refused.value.index) == ("k", 2)
    assert await store.count(EVERYTHING) == 1
    for each in call:
        with pytest.raises(NotFoundError):
            await store.event(each.event.id)


async def test_the_key_of_a_refused_call_is_free_again(store: Store) -> None:
    """What a conflict kept out did not take place, not even in the next call of the same batch."""
    await put(store, submission(of=event_record(key="k")))
    refused = [
        submission(of=event_record(key="fresh")),
        submission(of=event_record(key="k", body="{}")),
    ]
    later = submission(of=event_record(key="fresh", body='{"other":true}'))
    first, second = await asyncio.gather(store.add(refused), store.add([later]), return_exceptions=True)
    assert isinstance(first, IdempotencyConflictError)
    assert second == [Added(later.event, later.jobs, duplicate=False)]


async def test_a_key_that_comes_twice_in_one_call_is_stored_once(store: Store) -> None:
    """The second is a duplicate of the first, as if they had been posted one after the other."""
    first, second = (submission(of=event_record(key="k")) for _ in range(2))
    assert await store.add([first, second]) == [
        Added(first.event, first.jobs, duplicate=False),
        Added(first.event, first.jobs, duplicate=True),
    ]
    assert await store.count(EVERYTHING) == 1


async def test_a_key_that_comes_twice_in_one_call_with_two_bodies_is_a_conflict(store: Store) -> None:
    """Neither is stored: which of them is meant, only the app knows."""
    with pytest.raises(IdempotencyConflictError) as refused:
        await store.add(
            [submission(of=event_record(key="k")), submission(of=event_record(key="k", body="{}"))]
        )
    assert refused.value.index == 1
    assert await store.count(EVERYTHING) == 0


async def test_posters_that_race_with_one_key_make_one_event(store: Store) -> None:
    """All get the same id, and exactly one of them is told that it was first."""
    racing = [submission(of=event_record(key="k")) for _ in range(50)]
    answers = await asyncio.gather(*(store.add([each]) for each in racing))
    assert len({answer[0].event.id for answer in answers}) == 1
    assert sum(not answer[0].duplicate for answer in answers) == 1
    assert await store.count(EVERYTHING) == 1


async def test_a_key_belongs_to_who_wrote_it_exactly_so(store: Store) -> None:
    """Case and white space count; nothing is folded together."""
    keys = ["k", "K", "k ", " k", "k%", "k_"]
    added = await store.add([submission(of=event_record(key=key, body=f'"{key}"')) for key in keys])
    assert not any(each.duplicate for each in added)


async def test_without_a_key_nothing_is_a_duplicate(store: Store) -> None:
    """Two events alike in all but their ids are two events."""
    await store.add([submission(), submission()])
    assert await store.count(EVERYTHING) == 2


async def test_one_call_that_can_not_be_stored_harms_no_other(store: Store) -> None:
    """Of calls that are written together, the one at fault fails alone."""
    known = submission()
    await put(store, known)
    bad = Submission(event_record(), (msgspec.structs.replace(known.jobs[0]),))
    good = [submission() for _ in range(20)]
    answers = await asyncio.gather(
        *(store.add([each]) for each in (*good[:10], bad, *good[10:])), return_exceptions=True
    )
    failed = [index for index, answer in enumerate(answers) if isinstance(answer, BaseException)]
    assert failed == [10]
    assert await store.count(EVERYTHING) == 21
    with pytest.raises(NotFoundError):
        await store.event(bad.event.id)


async def test_an_unknown_event_or_job_is_not_found(store: Store) -> None:
    """The error names what was looked for."""
    with pytest.raises(NotFoundError, match="no event 'evt_0'"):
        await store.event("evt_0")
    with pytest.raises(NotFoundError, match="no job 'job_0'"):
        await store.job("job_0")


# Claiming ------------------------------------------------------------------------------------------


async def test_a_claim_hands_out_the_job_with_its_event(store: Store) -> None:
    """The job is PROCESSING, waits for no time, and its fence has grown."""
    made = submission(of=event_record(key="k", tenant="acme"))
    await put(store, made)
    (claim,) = await take(store, now=NOW + 5)
    assert claim.event == made.event
    assert claim.job == msgspec.structs.replace(
        made.jobs[0], status=PROCESSING, claim=1, next_attempt_at=None, updated_at=NOW + 5
    )
    assert await store.job(claim.job.id) == claim.job


async def test_only_due_jobs_are_claimed(store: Store) -> None:
    """One that waits for later is left alone until its moment comes, and not a microsecond more."""
    due, later = await put(
        store, submission(next_attempt_at=NOW), submission(next_attempt_at=NOW + 0.000_001)
    )
    assert ids(await take(store, now=NOW)) == [due.id]
    assert ids(await take(store, now=NOW + 0.000_001)) == [later.id]


@pytest.mark.parametrize("state", [PROCESSING, COMPLETED, FAILED, CANCELLED])
async def test_only_pending_jobs_are_claimed(store: Store, state: JobState) -> None:
    """What is held, finished or withdrawn is handed out to nobody."""
    await finish(store, state)
    assert await take(store, now=NOW + 10) == []


async def test_a_job_may_be_claimed_as_it_is_made(store: Store) -> None:
    """It is PROCESSING under the fence 1 from the start: handed to nobody else, and settled as any other."""
    event = event_record()
    held = job(event, status=PROCESSING, claim=1)
    waits = job(event, lane="other")
    failed = failed_job(event)
    await put(store, Submission(event, (held, waits, failed), UNTIL))
    assert await store.event(event.id) == (event, [held, waits, failed])
    assert ids(await take(store, now=NOW + 10)) == [waits.id]
    assert not await store.settle(settlement(Claim(held, event), COMPLETED, fence=2))
    assert await store.settle(settlement(Claim(held, event), COMPLETED))
    assert (await store.job(held.id)).status is COMPLETED
    assert len(await store.attempts(held.id)) == 1


async def test_a_claim_that_a_job_was_born_with_ends_as_any_other(store: Store) -> None:
    """Unless it is renewed it runs out at its time, to the moment, and the next has the next fence."""
    short, renewed = (born_claimed(submission(), NOW + 10) for _ in range(2))
    await put(store, short, renewed)
    await store.renew([(renewed.jobs[0].id, 1)], NOW + 60)
    assert await store.rescue(NOW + 9.999_999) == 0
    assert await store.rescue(NOW + 10) == 1
    (claim,) = await take(store, now=NOW + 10)
    assert (claim.job.id, claim.job.claim) == (short.jobs[0].id, 2)
    assert not await store.settle(settlement(Claim(short.jobs[0], short.event), COMPLETED))


async def test_a_repeated_event_claims_nothing(store: Store) -> None:
    """Its poster is told of the first event and its jobs, and holds none of them."""
    first = born_claimed(submission(of=event_record(key="k")))
    again = born_claimed(submission(of=event_record(key="k")))
    answers = await asyncio.gather(store.add([first]), store.add([again]))
    assert [each.duplicate for (each,) in answers] == [False, True]
    assert (await store.counts())[PROCESSING] == 1
    with pytest.raises(NotFoundError):
        await store.job(again.jobs[0].id)


async def test_only_what_is_processing_can_be_held(store: Store) -> None:
    """That a submission has an end for its claims makes none of those that wait."""
    (made,) = await put(store, Submission((waits := submission()).event, waits.jobs, UNTIL))
    assert await store.rescue(UNTIL) == 0
    assert await store.job(made.id) == made


async def test_a_job_born_failed_is_not_claimed(store: Store) -> None:
    """It has no destination: there is nothing to try."""
    event = event_record()
    await store.add([Submission(event, (failed_job(event),))])
    assert await take(store) == []


async def test_the_longest_due_of_a_lane_go_first(store: Store) -> None:
    """Within a lane the turn is that of `next_attempt_at`, not of arrival."""
    second, third, first = await put(
        store, *(submission(next_attempt_at=NOW + each) for each in (-2, -1, -3))
    )
    assert set(ids(await take(store, 2))) == {first.id, second.id}
    assert ids(await take(store, 2)) == [third.id]


@pytest.mark.parametrize("priority", Priority)
async def test_a_claim_is_of_one_priority(store: Store, priority: Priority) -> None:
    """Who asks for one-time codes gets no newsletter, however long that has been due."""
    for each in Priority:
        await put(store, submission(2, priority=each, next_attempt_at=NOW - each))
    assert [claim.job.priority for claim in await take(store, priority=priority)] == [priority] * 2
    assert (await store.counts())[PENDING] == 4


async def test_a_claim_takes_no_more_than_it_was_asked_for(store: Store) -> None:
    """Nor more than there is; no room is no claim."""
    await put(store, submission(5))
    assert [len(await take(store, limit)) for limit in (0, 1, 3, 3)] == [0, 1, 3, 1]


async def test_a_claim_takes_no_more_than_its_part_of_a_lane(store: Store) -> None:
    """A lane's backlog can't fill the window."""
    await put(store, *(submission(5, lane=lane) for lane in ("a", "b")), submission(1, lane="c"))
    assert sorted(lanes(await take(store, per_lane=2))) == ["a", "a", "b", "b", "c"]
    assert sorted(lanes(await take(store, per_lane=2, lanes=["a"]))) == ["a", "a"]


async def test_data_ends_a_claim_early(store: Store) -> None:
    """What one claim brings into memory is bounded, and one large event gets through all the same."""
    body = json.dumps({"text": "x" * (WINDOW_BYTES // 2)})
    await put(store, *(submission(of=event_record(body=body)) for _ in range(5)))
    await put(store, submission(of=event_record(body=json.dumps({"text": "x" * (2 * WINDOW_BYTES)}))))
    taken = [len(await take(store)) for _ in range(5)]
    assert sum(taken) == 6
    assert max(taken) <= 2


async def test_a_claim_looks_at_no_lanes_but_those_named(store: Store) -> None:
    """A lane that has come free is filled without a look at the rest; one unknown is no trouble."""
    await put(store, *(submission(2, lane=lane) for lane in "abc"))
    claimed = await claim_of(store, ["c", "nobody", "a", "c"])
    assert lanes(claimed.claims) == ["c", "c", "a", "a"]
    assert claimed.next_due == {}
    assert await claim_of(store, []) == Claimed([], {})
    assert (await store.counts())[PENDING] == 2


async def test_a_claim_says_when_the_next_of_each_is_due(store: Store) -> None:
    """Now where more is due than was taken; later where the rest waits; never where nothing does."""
    await put(store, submission(5, lane="a"), submission(2, lane="b"), submission(lane="c"))
    await put(store, submission(lane="b", next_attempt_at=NOW + 7), submission(lane="d", next_attempt_at=NOW))
    await put(store, submission(lane="e", next_attempt_at=NOW + 0.000_001), submission(lane="not asked for"))
    await put(store, submission(lane="c", priority=Priority.HIGH))
    claimed = await claim_of(store, ["a", "b", "c", "d", "e", "f"], per_lane=2)
    assert sorted(lanes(claimed.claims)) == ["a", "a", "b", "b", "c", "d"]
    assert claimed.next_due == {"a": NOW, "b": NOW + 7, "e": NOW + 0.000_001}


async def test_lanes_get_equal_parts_in_the_order_they_are_named(store: Store) -> None:
    """Who is named first is served first; nobody gets a second before all had a first."""
    await put(store, submission(50, lane="a"), *(submission(2, lane=lane) for lane in "bcde"))
    assert lanes((await claim_of(store, "edcba", 3)).claims) == ["e", "d", "c"]
    assert sorted(lanes((await claim_of(store, "abcde", 6)).claims)) == ["a", "a", "b", "c", "d", "e"]
    assert sorted(lanes((await claim_of(store, "abcde", 9)).claims)) == ["a"] * 8 + ["b"]


@pytest.mark.parametrize("limit", [0, 1, 5, 9, 10, 11, 29, 30, 31])
async def test_a_claim_takes_all_that_it_has_room_for(store: Store, limit: int) -> None:
    """From lanes long and short, and no more than is due."""
    sizes = {f"lane-{size}": size for size in (1, 2, 3, 4, 20)}
    await put(store, *(submission(size, lane=lane) for lane, size in sizes.items()))
    await put(store, submission(3, lane="lane-4", next_attempt_at=NOW + 1))
    taken = Counter(lanes((first := await claim_of(store, list(sizes), limit)).claims))
    assert taken.total() == min(limit, 30)
    more = {lane for lane, size in sizes.items() if taken[lane] < size}
    assert {lane for lane, due in first.next_due.items() if due <= NOW} == more
    assert len((await claim_of(store, list(sizes))).claims) == 30 - taken.total()


async def test_what_a_claim_left_for_its_size_is_due(store: Store) -> None:
    """What was left for want of room in memory is named as due now."""
    body = json.dumps({"text": "x" * (WINDOW_BYTES // 2)})
    await put(store, *(submission(of=event_record(body=body), lane=lane) for lane in "abc"))
    claimed = await claim_of(store, "abc")
    assert lanes(claimed.claims) == ["a", "b"]
    assert claimed.next_due == {"c": NOW}


async def test_claims_that_race_are_disjoint(store: Store) -> None:
    """No job is ever held twice, and none is left over; the last of them knows that it is."""
    await put(store, submission(100))
    answers = await asyncio.gather(*(claim_of(store, [LANE], 7) for _ in range(20)))
    claimed = [job_id for each in answers for job_id in ids(each.claims)]
    assert len(claimed) == len(set(claimed)) == 100
    assert [LANE in each.next_due for each in answers].index(False) == 14


async def test_lanes_that_wait_are_listed_by_name(store: Store) -> None:
    """Each with its earliest time, due or not; a page of them at a time, until there are no more."""
    await put(store, *(submission(2, lane=lane, next_attempt_at=NOW + 9) for lane in "dbac"))
    await put(
        store, submission(lane="b", next_attempt_at=NOW - 9), submission(lane="x", priority=Priority.LOW)
    )
    listed: dict[str, Any] = {"priority": Priority.NORMAL, "limit": 3}
    assert await store.lanes(after="", **listed) == [("a", NOW + 9), ("b", NOW - 9), ("c", NOW + 9)]
    assert await store.lanes(after="c", **listed) == [("d", NOW + 9)]
    assert await store.lanes(after="bb", priority=Priority.NORMAL, limit=1) == [("c", NOW + 9)]
    assert await store.lanes(after="d", **listed) == []
    assert await store.lanes(after="", priority=Priority.LOW, limit=3) == [("x", NOW)]
    assert await store.lanes(after="", priority=Priority.HIGH, limit=3) == []


@pytest.mark.parametrize("state", [PROCESSING, COMPLETED, FAILED, CANCELLED])
async def test_only_lanes_with_pending_jobs_are_listed(store: Store, state: JobState) -> None:
    """What is held, finished or withdrawn makes no lane wait; nor does a claim name it as due."""
    await finish(store, state)
    assert await store.lanes(priority=Priority.NORMAL, after="", limit=9) == []
    assert await claim_of(store, [LANE], now=NOW + 99) == Claimed([], {})


async def test_very_many_lanes_are_listed_page_by_page(store: Store) -> None:
    """All of them, each once, whatever the page holds."""
    names = [f"lane-{number:04}" for number in range(1200)]
    await store.add([submission(2, lane=lane) for lane in names])
    reached: list[str] = []
    while page := await store.lanes(
        priority=Priority.NORMAL, after=reached[-1] if reached else "", limit=500
    ):
        reached += [lane for lane, _ in page]
    assert reached == names


async def test_a_claim_beside_a_write_that_fails_is_whole(store: Store) -> None:
    """The batch is written anew one by one: what is handed out is claimed indeed, and once."""
    replay = Replay(id="rpl_1", filter=EVERYTHING, canary_job_id="job_1", created_at=NOW)
    await store.add_replay(replay)
    await put(store, submission(5))
    claimed, twice = await asyncio.gather(
        claim_of(store, [LANE], 3), store.add_replay(replay), return_exceptions=True
    )
    assert isinstance(twice, Exception)
    assert isinstance(claimed, Claimed)
    claims = claimed.claims
    assert len(claims) == 3
    assert [await store.job(claim.job.id) for claim in claims] == [claim.job for claim in claims]
    assert (await store.counts())[PROCESSING] == 3


# Settling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [COMPLETED, PENDING, FAILED, CANCELLED])
async def test_a_settle_writes_the_state_and_the_attempt(store: Store, state: JobState) -> None:
    """Each way out of PROCESSING: state, time, error and the attempt are there together."""
    claim = await take_one(store)
    outcome = settlement(claim, state)
    assert await store.settle(outcome)
    assert await store.job(claim.job.id) == msgspec.structs.replace(
        claim.job,
        status=state,
        attempts=1,
        next_attempt_at=outcome.next_attempt_at,
        error=outcome.error,
        updated_at=outcome.now,
    )
    assert await store.attempts(claim.job.id) == [outcome.attempt]


async def test_a_retry_is_claimed_again_when_its_time_has_come(store: Store) -> None:
    """With a new fence, and the attempts it has spent."""
    claim = await take_one(store)
    await store.settle(settlement(claim, PENDING, next_attempt_at=NOW + 300))
    assert await take(store, now=NOW + 299) == []
    (again,) = await take(store, now=NOW + 300)
    assert (again.job.claim, again.job.attempts) == (2, 1)
    assert again.job.error == JobError("http_503", "the receiver answered 503")


async def test_a_success_forgets_the_error_before_it(store: Store) -> None:
    """A COMPLETED job has no error; its attempts still tell the story."""
    claim = await take_one(store)
    await store.settle(settlement(claim, PENDING))
    (again,) = await take(store, now=NOW + 60)
    await store.settle(settlement(again, COMPLETED))
    assert (await store.job(claim.job.id)).error is None
    outcomes = [each.outcome for each in await store.attempts(claim.job.id)]
    assert outcomes == [Outcome.RETRY, Outcome.DELIVERED]


async def test_a_release_spends_nothing(store: Store) -> None:
    """A drain or a full lane gives a job back as it was, without an attempt on its record."""
    claim = await take_one(store)
    assert await store.settle(release(claim))
    kept = await store.job(claim.job.id)
    assert (kept.status, kept.attempts, kept.next_attempt_at) == (PENDING, 0, NOW + 1)
    assert await store.attempts(claim.job.id) == []


async def test_a_providers_fault_is_recorded_and_costs_nothing(store: Store) -> None:
    """The attempt is there to be seen; the job's budget is whole."""
    claim = await take_one(store)
    await store.settle(settlement(claim, PENDING, spent=False))
    assert (await store.job(claim.job.id)).attempts == 0
    assert len(await store.attempts(claim.job.id)) == 1


async def test_an_attempt_comes_back_as_it_was_written(store: Store) -> None:
    """Every field, an odd response among them; they stand in the order they were made."""
    written = [
        attempt(Outcome.RETRY, status_code=None, response="\u0001 ☃ \"'\\ \n", duration_ms=0.125),
        attempt(Outcome.UNKNOWN, started_at=NOW + 61, error=JobError("unknown", "no answer"), response=None),
        Attempt(started_at=NOW + 122, duration_ms=12_345.678, outcome=Outcome.FAILED),
        attempt(started_at=NOW + 183, response=""),
        attempt(started_at=NOW + 244, timings=Timings()),
        attempt(
            started_at=NOW + 305,
            timings=Timings(
                dns=0.000_001, connect=0.0153, tls=0.25, wait=14.999_999, body=3.0, sent=2**40, received=1024
            ),
        ),
    ]
    (made,) = await put(store, submission())
    for number, each in enumerate(written):
        (claim,) = await take(store, now=NOW + 61 * number)
        await store.settle(settlement(claim, PENDING, attempt=each, next_attempt_at=NOW + 61 * (number + 1)))
    assert await store.attempts(made.id) == written


async def test_a_destination_made_out_late_is_kept(store: Store) -> None:
    """A settle may say where the job goes and by which lane; one that says nothing leaves both alone."""
    event = event_record()
    (added,) = await store.add([Submission(event, (failed_job(event, lane="unknown"),))])
    await store.requeue(added.jobs[0].id, NOW)
    (claim,) = await take(store)
    await store.settle(release(claim, destination="https://found.example", lane="webhook:found.example:443"))
    (claim,) = await take(store, now=NOW + 1)
    await store.settle(settlement(claim, COMPLETED))
    kept = await store.job(claim.job.id)
    assert (kept.destination, kept.lane) == ("https://found.example", "webhook:found.example:443")


async def test_a_job_born_failed_can_be_delivered_at_its_first_try(store: Store) -> None:
    """Requeued, it gets its destination and its success in one settle."""
    event = event_record()
    (added,) = await store.add([Submission(event, (failed_job(event),))])
    await store.requeue(added.jobs[0].id, NOW)
    (claim,) = await take(store)
    found: dict[str, Any] = {"destination": "https://found.example", "lane": "webhook:found.example:443"}
    assert await store.settle(settlement(claim, COMPLETED, **found))
    kept = await store.job(claim.job.id)
    assert (kept.status, kept.destination, kept.lane) == (COMPLETED, *found.values())


async def test_a_settle_under_another_fence_is_refused(store: Store) -> None:
    """Neither an older number nor a newer one than there is; nothing is written."""
    claim = await take_one(store)
    for fence in (claim.job.claim - 1, claim.job.claim + 1):
        assert not await store.settle(settlement(claim, COMPLETED, fence=fence))
    assert await store.job(claim.job.id) == claim.job
    assert await store.attempts(claim.job.id) == []


async def test_a_settle_of_no_job_is_refused(store: Store) -> None:
    """The job may have been pruned since: that is no error, and nothing of it comes back."""
    claim = await take_one(store)
    assert not await store.settle(settlement(claim, COMPLETED, job_id="job_0"))
    assert await store.attempts("job_0") == []


@pytest.mark.parametrize("state", [COMPLETED, PENDING, FAILED, CANCELLED])
async def test_a_claim_is_settled_once(store: Store, state: JobState) -> None:
    """The second settle changes nothing, whatever the first one said."""
    claim = await take_one(store)
    assert await store.settle(settlement(claim, state))
    after = await store.job(claim.job.id)
    assert not await store.settle(settlement(claim, COMPLETED, now=NOW + 9))
    assert await store.job(claim.job.id) == after
    assert len(await store.attempts(claim.job.id)) == 1


@pytest.mark.parametrize(
    "others", [(), (COMPLETED,), (COMPLETED, FAILED), (PENDING, COMPLETED), (COMPLETED, COMPLETED)]
)
async def test_settles_of_one_claim_that_race_have_one_winner(
    store: Store, others: tuple[JobState, ...]
) -> None:
    """Written in the same batch, exactly one of them is told that it holds, and the job is as it said."""
    claim = await take_one(store)
    rivals = [release(claim), release(claim), *(settlement(claim, state) for state in others)]
    answers = await asyncio.gather(*(store.settle(each) for each in rivals))
    assert answers.count(True) == 1
    winner = rivals[answers.index(True)]
    assert (await store.job(claim.job.id)).status is winner.status
    assert await store.attempts(claim.job.id) == ([winner.attempt] if winner.attempt else [])


async def test_many_settles_at_once_are_each_their_own(store: Store) -> None:
    """Good, stale and unknown ones are written together; each gets its own answer."""
    await put(store, submission(90))
    claims = await take(store, 90)
    wanted = [COMPLETED, PENDING, FAILED]
    settlements = [settlement(claim, wanted[index % 3]) for index, claim in enumerate(claims)]
    stale = [settlement(claim, COMPLETED, fence=0) for claim in claims]
    answers = await asyncio.gather(*(store.settle(each) for each in [*stale, *settlements]))
    assert answers == [False] * 90 + [True] * 90
    assert await store.counts() == {PENDING: 30, PROCESSING: 0, COMPLETED: 30, FAILED: 30, CANCELLED: 0}


async def test_a_settle_that_can_not_be_written_harms_no_other(store: Store) -> None:
    """A FAILED job without its cause is refused by the database, and by it alone."""
    await put(store, submission(10))
    good, bad = (claims := await take(store, 10))[:9], claims[9]
    answers = await asyncio.gather(
        *(store.settle(settlement(claim, COMPLETED)) for claim in good),
        store.settle(settlement(bad, FAILED, cause=None)),
        return_exceptions=True,
    )
    assert answers[:9] == [True] * 9
    assert isinstance(answers[9], Exception)
    assert await store.job(bad.job.id) == bad.job
    assert await store.attempts(bad.job.id) == []


# Expiry --------------------------------------------------------------------------------------------


async def test_an_expired_claim_is_given_back(store: Store) -> None:
    """The job is PENDING and due at once, nothing spent; a settle of the lost claim is refused."""
    claim = await take_one(store)
    assert await store.rescue(UNTIL - 1) == 0
    assert await store.rescue(UNTIL + 1) == 1
    back = await store.job(claim.job.id)
    assert (back.status, back.attempts, back.next_attempt_at) == (PENDING, 0, UNTIL + 1)
    assert not await store.settle(settlement(claim, COMPLETED))


async def test_a_worker_paused_past_its_claim_can_not_overwrite_what_came_after(store: Store) -> None:
    """The job was rescued and taken by another: only the new fence counts."""
    late = await take_one(store)
    await store.rescue(UNTIL + 1)
    (current,) = await take(store, now=UNTIL + 1)
    assert current.job.claim > late.job.claim
    assert not await store.settle(settlement(late, FAILED))
    assert await store.settle(settlement(current, COMPLETED))
    assert len(await store.attempts(current.job.id)) == 1


async def test_a_renewed_claim_lives_on(store: Store) -> None:
    """Only the claims that were named are extended."""
    await put(store, submission(2))
    kept, lost = await take(store)
    await store.renew([(kept.job.id, kept.job.claim)], UNTIL + 600)
    assert await store.rescue(UNTIL + 1) == 1
    assert (await store.job(lost.job.id)).status is PENDING
    assert await store.settle(settlement(kept, COMPLETED))


async def test_a_lost_claim_can_not_be_renewed(store: Store) -> None:
    """Neither by an old fence, nor once the job is settled, nor for a job that is gone."""
    late = await take_one(store)
    await store.rescue(UNTIL + 1)
    (current,) = await take(store, now=UNTIL + 1)
    await store.renew([(late.job.id, late.job.claim), ("job_0", 1)], UNTIL + 9999)
    assert await store.rescue(UNTIL + 100) == 1
    await store.renew([(current.job.id, current.job.claim)], UNTIL + 9999)
    assert (await store.job(current.job.id)).status is PENDING
    await store.renew([], UNTIL)


# Looking -------------------------------------------------------------------------------------------


async def test_a_job_without_attempts_has_none(store: Store) -> None:
    """Neither has one that nobody knows."""
    (made,) = await put(store, submission())
    assert await store.attempts(made.id) == []
    assert await store.attempts("job_0") == []


FILTERS: list[tuple[JobFilter, int]] = [
    (JobFilter(), 8),
    (JobFilter(status=PENDING), 3),
    (JobFilter(status=PROCESSING), 1),
    (JobFilter(status=COMPLETED), 1),
    (JobFilter(status=FAILED), 2),
    (JobFilter(status=CANCELLED), 1),
    (JobFilter(channel="sms"), 1),
    (JobFilter(event_type="user.signup"), 1),
    (JobFilter(route="crm"), 1),
    (JobFilter(endpoint="ep_1"), 1),
    (JobFilter(destination="a@b.example"), 1),
    (JobFilter(tenant="acme"), 1),
    (JobFilter(tenant="nobody"), 0),
    (JobFilter(cause="a503a503a503"), 1),
    (JobFilter(created_after=NOW + 100), 1),
    (JobFilter(created_before=NOW + 100), 7),
    (JobFilter(updated_before=NOW + 0.5), 4),
    (JobFilter(status=PENDING, channel="sms"), 1),
    (JobFilter(status=FAILED, channel="sms"), 0),
    (JobFilter(channel="sms", destination="a@b.example", tenant="acme", event_type="user.signup"), 1),
]


@pytest.mark.parametrize(("wanted", "matching"), FILTERS, ids=str)
async def test_a_filter_means_the_jobs_for_which_all_of_it_holds(
    store: Store, wanted: JobFilter, matching: int
) -> None:
    """Counting, listing and requeueing read a filter alike. `created_after` includes its moment."""
    for state in JobState:
        await finish(store, state, now=NOW + 1)
    born_failed = event_record()
    other = event_record(tenant="acme", type="user.signup")
    await store.add(
        [
            Submission(born_failed, (failed_job(born_failed),)),
            submission(of=other, channel="sms", destination="a@b.example", route="crm", endpoint="ep_1"),
            submission(of=event_record(created_at=NOW + 100)),
        ]
    )
    assert await store.count(wanted) == matching
    page = await store.jobs(wanted, limit=100)
    assert len(page.jobs) == matching
    requeueable = {each.id for each in page.jobs if each.status is not PROCESSING}
    assert set(await store.requeue_some(wanted, now=NOW, limit=100)) == requeueable


async def test_jobs_are_listed_newest_first_page_by_page(store: Store) -> None:
    """Every job once, whatever is added or changed while one turns the pages; the end has no next."""
    made = await put(store, *(submission() for _ in range(7)))
    first = await store.jobs(EVERYTHING, limit=3)
    await put(store, submission())
    await store.cancel(made[1].id, NOW)
    second = await store.jobs(EVERYTHING, limit=3, before=first.next_position)
    third = await store.jobs(EVERYTHING, limit=3, before=second.next_position)
    listed = ids([*first.jobs, *second.jobs, *third.jobs])
    assert listed == ids(made)[::-1]
    assert third.next_position is None


async def test_a_last_page_that_is_full_says_so(store: Store) -> None:
    """No one is sent on to an empty page."""
    await put(store, submission(4))
    first = await store.jobs(EVERYTHING, limit=2)
    assert first.next_position is not None
    assert (await store.jobs(EVERYTHING, limit=2, before=first.next_position)).next_position is None


async def test_jobs_are_counted_by_state(store: Store) -> None:
    """Every state has its number, 0 among them."""
    assert await store.counts() == dict.fromkeys(JobState, 0)
    for number, state in enumerate(JobState):
        for _ in range(number):
            await finish(store, state)
    assert await store.counts() == {state: number for number, state in enumerate(JobState)}


async def fail(store: Store, cause: str, message: str, *, now: float, **changes: Any) -> str:
    """Fail a new job for a cause."""
    made = born_claimed(submission(**changes))
    await put(store, made)
    claim = Claim(made.jobs[0], made.event)
    error = JobError("smtp_550", message)
    assert await store.settle(settlement(claim, FAILED, cause=cause, error=error, now=now))
    return claim.job.id


async def test_failures_are_grouped_by_cause(store: Store) -> None:
    """An operator sees the one cause behind many: how many, since when, until when, and some to look at."""
    common = [await fail(store, "common", f"user{n} unknown", now=NOW + n, template="t") for n in range(8)]
    rare = await fail(store, "rare", "quota", now=NOW + 3, channel="email")
    await finish(store, PENDING)
    first, second = await store.failures(EVERYTHING)
    assert (first.cause, first.channel, first.code, first.template) == ("common", "webhook", "smtp_550", "t")
    assert (first.count, first.first_seen, first.last_seen) == (8, NOW, NOW + 7)
    assert first.message in {f"user{n} unknown" for n in range(8)}
    assert first.sample_job_ids
    assert set(first.sample_job_ids) <= set(common)
    assert (second.cause, second.channel, second.count) == ("rare", "email", 1)
    assert second.sample_job_ids == [rare]


async def test_failures_are_those_that_the_filter_means(store: Store) -> None:
    """Counts, times and samples are of the tenant that was asked for, and of no other."""
    of_acme = [await fail(store, "same", "x", now=NOW + n, of=event_record(tenant="acme")) for n in range(2)]
    for n in range(6):
        await fail(store, "same", "x", now=NOW + 50 + n, of=event_record(tenant="other"))
    (group,) = await store.failures(JobFilter(tenant="acme"))
    assert (group.count, group.first_seen, group.last_seen) == (2, NOW, NOW + 1)
    assert sorted(group.sample_job_ids) == sorted(of_acme)
    assert await store.failures(JobFilter(tenant="acme", status=COMPLETED)) == []


async def test_a_job_born_failed_shows_up_among_the_failures(store: Store) -> None:
    """Its error has a cause like any other, shared by those that failed alike."""
    for number in range(2):
        event = event_record()
        error = JobError("template_error", f"no address in event {number}")
        await store.add([Submission(event, (failed_job(event, error=error),))])
    (group,) = await store.failures(EVERYTHING)
    assert (group.code, group.count) == ("template_error", 2)
    assert await store.count(JobFilter(cause=group.cause)) == 2


async def test_a_requeued_job_is_a_failure_no_longer(store: Store) -> None:
    """The groups show what is to be mended, not what once was."""
    failed = await finish(store, FAILED)
    await store.requeue(failed.id, NOW)
    assert await store.failures(EVERYTHING) == []
    assert await store.count(JobFilter(cause="a503a503a503")) == 0


# Operating -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [PENDING, COMPLETED, FAILED, CANCELLED])
async def test_a_requeued_job_is_due_now_with_its_attempts_unspent(store: Store, state: JobState) -> None:
    """What was tried stays on the record; the fence grows, so that no old claim fits."""
    before = await finish(store, state)
    tried = await store.attempts(before.id)
    again = await store.requeue(before.id, NOW + 7)
    assert (again.status, again.next_attempt_at, again.attempts) == (PENDING, NOW + 7, 0)
    assert again.claim > before.claim
    assert await store.job(before.id) == again
    assert await store.attempts(before.id) == tried
    assert ids(await take(store, now=NOW + 7)) == [before.id]


async def test_a_requeue_does_not_wait_for_the_schedule(store: Store) -> None:
    """A job that backs off until tomorrow is due at once."""
    (made,) = await put(store, submission(next_attempt_at=NOW + 86_400))
    await store.requeue(made.id, NOW)
    assert ids(await take(store)) == [made.id]


async def test_a_job_that_a_worker_holds_is_not_requeued(store: Store) -> None:
    """It would be sent twice at once; the error says which state stands in the way."""
    held = await finish(store, PROCESSING)
    with pytest.raises(IllegalTransitionError, match="PROCESSING") as refused:
        await store.requeue(held.id, NOW)
    assert (refused.value.job_id, refused.value.status) == (held.id, "PROCESSING")
    assert await store.job(held.id) == held


async def test_a_pending_job_can_be_cancelled(store: Store) -> None:
    """It waits for nothing any more, and its fence has grown."""
    (made,) = await put(store, submission())
    withdrawn = await store.cancel(made.id, NOW + 7)
    assert (withdrawn.status, withdrawn.next_attempt_at, withdrawn.updated_at) == (CANCELLED, None, NOW + 7)
    assert withdrawn.claim > made.claim
    assert await store.job(made.id) == withdrawn


@pytest.mark.parametrize("state", [PROCESSING, COMPLETED, FAILED, CANCELLED])
async def test_only_a_pending_job_can_be_cancelled(store: Store, state: JobState) -> None:
    """What is under way or over can't be withdrawn."""
    held = await finish(store, state)
    with pytest.raises(IllegalTransitionError, match=state):
        await store.cancel(held.id, NOW)
    assert await store.job(held.id) == held


async def test_an_unknown_job_can_be_neither_requeued_nor_cancelled(store: Store) -> None:
    """It is not found, and the operations beside it go on."""
    (made,) = await put(store, submission())
    answers = await asyncio.gather(
        store.requeue("job_0", NOW),
        store.cancel("job_1", NOW),
        store.cancel(made.id, NOW),
        return_exceptions=True,
    )
    assert [type(each) for each in answers] == [NotFoundError, NotFoundError, Job]


async def test_requeueing_by_filter_takes_the_oldest_first(store: Store) -> None:
    """A bounded number a call, so that a large replay never holds up the store."""
    failed = [await finish(store, FAILED) for _ in range(5)]
    other = await finish(store, COMPLETED)
    wanted = JobFilter(status=FAILED)
    assert await store.requeue_some(wanted, now=NOW + 2, limit=3) == ids(failed[:3])
    assert await store.requeue_some(wanted, now=NOW + 3, limit=3) == ids(failed[3:])
    assert await store.requeue_some(wanted, now=NOW + 4, limit=3) == []
    again = [await store.job(each.id) for each in failed]
    assert {(each.status, each.attempts) for each in again} == {(PENDING, 0)}
    assert [each.next_attempt_at for each in again] == [NOW + 2] * 3 + [NOW + 3] * 2
    assert all(after.claim > before.claim for before, after in zip(failed, again, strict=True))
    assert await store.job(other.id) == other


async def test_requeueing_by_filter_leaves_held_jobs_alone(store: Store) -> None:
    """Even when the filter asks for them."""
    held = await finish(store, PROCESSING)
    assert await store.requeue_some(JobFilter(status=PROCESSING), now=NOW, limit=9) == []
    assert await store.requeue_some(EVERYTHING, now=NOW, limit=9) == []
    assert await store.job(held.id) == held


async def test_cancelling_by_filter_takes_the_oldest_first(store: Store) -> None:
    """A bounded number a call, until nothing waits for the endpoint; each fence grows."""
    made = await put(store, *(submission(endpoint="ep_1") for _ in range(5)))
    (other,) = await put(store, submission(endpoint="ep_2"))
    wanted = JobFilter(endpoint="ep_1")
    assert [await store.cancel_some(wanted, now=NOW + n, limit=3) for n in range(3)] == [3, 2, 0]
    withdrawn = [await store.job(each.id) for each in made]
    assert {(each.status, each.next_attempt_at) for each in withdrawn} == {(CANCELLED, None)}
    assert [each.updated_at for each in withdrawn] == [NOW] * 3 + [NOW + 1] * 2
    assert all(after.claim > before.claim for before, after in zip(made, withdrawn, strict=True))
    assert await store.job(other.id) == other


@pytest.mark.parametrize("state", [PROCESSING, COMPLETED, FAILED, CANCELLED])
async def test_cancelling_by_filter_leaves_all_but_pending_jobs_alone(store: Store, state: JobState) -> None:
    """Even when the filter asks for them."""
    held = await finish(store, state)
    for wanted in (EVERYTHING, JobFilter(status=state), JobFilter(channel="webhook")):
        assert await store.cancel_some(wanted, now=NOW, limit=9) == 0
    assert await store.job(held.id) == held


async def test_replays_wait_until_they_are_dropped(store: Store) -> None:
    """Oldest first, each with its whole filter; to drop one twice is harmless."""
    whole = JobFilter(**{name: "x" for name in JobFilter.__struct_fields__ if name not in TYPED} | TYPED)
    younger = Replay(id="rpl_1", filter=whole, canary_job_id="job_1", created_at=NOW + 1)
    older = Replay(id="rpl_2", filter=JobFilter(), canary_job_id="job_2", created_at=NOW)
    await store.add_replay(younger)
    await store.add_replay(older)
    assert await store.replays() == [older, younger]
    for _ in range(2):
        await store.drop_replay(older.id)
    assert await store.replays() == [younger]


TYPED: dict[str, Any] = {
    "status": FAILED,
    "created_after": NOW - 0.5,
    "created_before": NOW + 0.5,
    "updated_before": NOW,
}


async def test_a_setting_is_kept_the_first_time_it_is_asked_for(store: Store) -> None:
    """A secret made at the first start is the same ever after."""
    assert await store.setting("webhook.secret", "whsec_1") == "whsec_1"
    assert await store.setting("webhook.secret", "whsec_2") == "whsec_1"
    assert await store.setting("other", "☃") == "☃"
    assert await store.setting("kept as a secret", "whsec_1", secret=True) == "whsec_1"
    assert await store.setting("kept as a secret", "whsec_2", secret=True) == "whsec_1"


# Endpoints -----------------------------------------------------------------------------------------


def whole_endpoint(**changes: Any) -> Endpoint:
    """An endpoint with something in every field."""
    odd = "a\"b'c\\d;-- {x}\n\t\u0001 \N{SNOWMAN} \N{GRINNING FACE}"
    fields: dict[str, Any] = {
        "tenant": "acme",
        "when": odd,
        "description": odd,
        "headers": {"Authorization": "Bearer s3cret", "X-Odd": odd},
        "template": "t",
        "rate_limit": 0.1 + 0.2,
        "max_in_flight": 3,
        "state": EndpointState.DISABLED,
        "state_reason": odd,
        "state_changed_at": NOW + 0.000_001,
        "secrets": (
            EndpointSecret("whsec_new", NOW + 2),
            EndpointSecret("whsk_old", NOW, expires_at=NOW + 86_400.5),
        ),
        "failing_since": NOW + 3,
        "reported": True,
        "deleted": True,
    }
    return endpoint(**fields | changes)


async def test_an_endpoint_comes_back_as_it_was_kept(store: Store) -> None:
    """Every field survives, set or not."""
    whole = whole_endpoint(id="ep_1", created_at=NOW)
    assert all(getattr(whole, name) for name in whole.__struct_fields__)
    bare = endpoint(id="ep_2", created_at=NOW + 1)
    for each in (bare, whole):
        await store.add_endpoint(each)
    assert await store.endpoints() == [whole, bare]


async def test_endpoints_come_oldest_first(store: Store) -> None:
    """Those of one moment by their id."""
    made = [endpoint(id=f"ep_{n}", created_at=NOW + at) for n, at in enumerate((1, 0, 2, 0, 1))]
    for each in made:
        await store.add_endpoint(each)
    assert [each.id for each in await store.endpoints()] == ["ep_1", "ep_3", "ep_0", "ep_4", "ep_2"]


async def test_no_two_endpoints_have_one_id(store: Store) -> None:
    """The second is refused, and the first is as it was."""
    first = endpoint(id="ep_1")
    await store.add_endpoint(first)
    with pytest.raises(Exception, match=r"endpoint\.id"):
        await store.add_endpoint(whole_endpoint(id="ep_1"))
    assert await store.endpoints() == [first]


async def test_an_endpoint_is_replaced_as_a_whole(store: Store) -> None:
    """What was set and is no longer is gone, and the other way round; others are as they were."""
    other = whole_endpoint(id="ep_2", created_at=NOW)
    for each in (endpoint(id="ep_1", created_at=NOW), other):
        await store.add_endpoint(each)
    for changed in (whole_endpoint(id="ep_1", created_at=NOW), endpoint(id="ep_1", created_at=NOW)):
        await store.save_endpoint(changed)
        assert await store.endpoints() == [changed, other]


async def test_what_a_change_caused_is_stored_with_it(store: Store) -> None:
    """The event that tells of a disabled endpoint is there with its jobs, and they can be claimed."""
    await store.add_endpoint(endpoint(id="ep_1"))
    told = submission(2)
    changed = endpoint(id="ep_1", state=EndpointState.DISABLED)
    await store.save_endpoint(changed, [told, submission(0)])
    assert await store.endpoints() == [changed]
    assert await store.event(told.event.id) == (told.event, list(told.jobs))
    assert sorted(ids(await take(store))) == sorted(ids(told.jobs))


async def test_an_unknown_endpoint_is_not_changed_into_being(store: Store) -> None:
    """It is not found by its name, what its change would have caused is not stored, and others go on."""
    told = submission()
    answers = await asyncio.gather(
        store.add([submission()]),
        store.save_endpoint(endpoint(id="ep_0"), [told]),
        store.add([submission()]),
        return_exceptions=True,
    )
    assert isinstance(answers[1], NotFoundError)
    assert str(answers[1]) == "no endpoint 'ep_0'"
    assert await store.endpoints() == []
    assert await store.count(EVERYTHING) == 2
    with pytest.raises(NotFoundError):
        await store.event(told.event.id)


async def test_an_endpoint_whose_event_is_in_conflict_stays_as_it_was(store: Store) -> None:
    """Both or neither."""
    await put(store, submission(of=event_record(key="k")))
    before = endpoint(id="ep_1")
    await store.add_endpoint(before)
    with pytest.raises(IdempotencyConflictError):
        await store.save_endpoint(
            whole_endpoint(id="ep_1"), [submission(), submission(of=event_record(key="k", body="{}"))]
        )
    assert await store.endpoints() == [before]
    assert await store.count(EVERYTHING) == 1


async def test_an_endpoint_that_can_not_be_kept_brings_no_event(store: Store) -> None:
    """What the database refuses is refused with all that came with it."""
    before = endpoint(id="ep_1")
    await store.add_endpoint(before)
    with pytest.raises(Exception, match="state"):
        await store.save_endpoint(endpoint(id="ep_1", state="lost"), [submission()])
    assert await store.endpoints() == [before]
    assert await store.count(EVERYTHING) == 0


async def test_a_dropped_endpoint_is_gone_and_its_jobs_stay(store: Store) -> None:
    """What was delivered for it can still be looked up; to drop it twice is harmless."""
    made = endpoint(id="ep_1")
    await store.add_endpoint(made)
    (waiting,) = await put(store, submission(endpoint=made.id, lane=made.lane))
    for _ in range(2):
        await store.drop_endpoint(made.id)
    assert await store.endpoints() == []
    assert await store.job(waiting.id) == waiting


# Pruning -------------------------------------------------------------------------------------------


async def prune(store: Store, *, completed: float = 0, failed: float = 0, limit: int = 100) -> int:
    """Prune what was finished before these moments, by default nothing."""
    return await store.prune(completed_before=completed, failed_before=failed, limit=limit)


@pytest.mark.parametrize(
    ("state", "cutoffs", "goes"),
    [
        (COMPLETED, {"completed": NOW + 2}, True),
        (COMPLETED, {"completed": NOW + 1}, False),
        (COMPLETED, {"failed": NOW + 99}, False),
        (FAILED, {"failed": NOW + 2}, True),
        (FAILED, {"failed": NOW + 1}, False),
        (FAILED, {"completed": NOW + 99}, False),
        (CANCELLED, {"failed": NOW + 2}, True),
        (CANCELLED, {"completed": NOW + 99}, False),
        (PENDING, {"completed": NOW + 99, "failed": NOW + 99}, False),
        (PROCESSING, {"completed": NOW + 99, "failed": NOW + 99}, False),
    ],
)
async def test_finished_jobs_go_when_they_are_old_enough(
    store: Store, state: JobState, cutoffs: dict[str, Any], goes: bool
) -> None:
    """Age counts from when the job was finished; CANCELLED is kept as long as FAILED; the live stay."""
    old = await finish(store, state, now=NOW + 1)
    assert await prune(store, **cutoffs) == int(goes)
    assert await store.count(EVERYTHING) == int(not goes)
    assert len(await store.attempts(old.id)) == int(not goes and state in {COMPLETED, FAILED})


async def test_an_event_goes_with_the_last_of_its_jobs(store: Store) -> None:
    """While one of them is kept, so is the event it needs."""
    event = event_record(key="k")
    (added,) = await store.add([submission(2, of=event)])
    first, second = await take(store)
    await store.settle(settlement(first, COMPLETED))
    assert await prune(store, completed=NOW + 99) == 1
    assert ids((await store.event(event.id))[1]) == [second.job.id]
    await store.settle(settlement(second, COMPLETED))
    assert await prune(store, completed=NOW + 99) == 1
    with pytest.raises(NotFoundError):
        await store.event(added.event.id)


async def test_a_pruned_events_key_is_free_again(store: Store) -> None:
    """Idempotency holds for as long as the event is kept."""
    claim = await take_one(store, of=event_record(key="k"))
    await store.settle(settlement(claim, COMPLETED))
    await prune(store, completed=NOW + 99)
    (again,) = await store.add([submission(of=event_record(key="k", body="{}"))])
    assert not again.duplicate


async def test_an_event_that_never_had_a_job_goes_by_its_own_age(store: Store) -> None:
    """It counts as no job."""
    old, young = (submission(0, of=event_record(created_at=NOW + each)) for each in (0, 50))
    await put(store, old, young)
    assert await prune(store, completed=NOW + 50) == 0
    with pytest.raises(NotFoundError):
        await store.event(old.event.id)
    assert await store.event(young.event.id) == (young.event, [])


async def test_a_prune_deletes_a_bounded_number_and_the_next_goes_on(store: Store) -> None:
    """A year's backlog is cleared in small steps, between which everybody else gets to write."""
    for _ in range(10):
        await finish(store, COMPLETED)
    kept = await finish(store, FAILED)
    pruned = [await prune(store, completed=NOW + 99, limit=4) for _ in range(4)]
    assert max(pruned) <= 4
    assert sum(pruned) == 10
    assert (await store.jobs(EVERYTHING, limit=9)).jobs == [kept]


async def test_what_is_kept_does_not_hide_what_may_go(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows one look takes in, a prune goes on until it finds any, or has seen all."""
    monkeypatch.setattr("notifier.store.sqlite._ROWS_A_PRUNE", 2)
    for _ in range(5):
        await finish(store, FAILED)
    await finish(store, COMPLETED)
    await finish(store, COMPLETED, now=NOW + 99)
    assert [await prune(store, completed=NOW + 50) for _ in range(2)] == [1, 0]


async def test_what_grows_old_behind_a_prune_is_found_by_a_later_one(store: Store) -> None:
    """No job is passed over for ever because it was young when its turn came."""
    young = await finish(store, COMPLETED, now=NOW + 50)
    for _ in range(6):
        await finish(store, COMPLETED, now=NOW)
    for _ in range(3):
        await prune(store, completed=NOW + 10, limit=2)
    assert ids((await store.jobs(EVERYTHING, limit=9)).jobs) == [young.id]
    assert sum([await prune(store, completed=NOW + 60, limit=2) for _ in range(2)]) == 1


async def test_new_jobs_after_a_prune_of_everything_are_like_any_other(store: Store) -> None:
    """Positions are never handed out twice while a page may still stand at one."""
    for _ in range(3):
        await finish(store, COMPLETED)
    await prune(store, completed=NOW + 99)
    made = await put(store, submission(), submission())
    assert ids((await store.jobs(EVERYTHING, limit=9)).jobs) == ids(made)[::-1]
    assert len(await take(store)) == 2


# Opening and closing -------------------------------------------------------------------------------


async def test_a_store_that_is_open_answers(store: Store) -> None:
    """Readiness asks; a checkpoint at any time is harmless."""
    await store.ping()
    await store.checkpoint()


async def test_a_closed_store_says_that_it_is(url: str, tmp_path: Path) -> None:
    """Nothing hangs and nothing is taken for stored, be it closed or not yet open."""
    store = open_store(url, tmp_path)
    with pytest.raises(StoreUnavailableError):
        await store.ping()
    await store.open(NOW)
    await store.close()
    await store.close()
    for call in (store.ping(), store.add([submission()]), store.counts(), store.checkpoint()):
        with pytest.raises(StoreUnavailableError):
            await call


async def test_what_was_handed_in_is_stored_before_the_store_closes(url: str, tmp_path: Path) -> None:
    """A stop loses no event that is on its way to the disk."""
    store = open_store(url, tmp_path)
    await store.open(NOW)
    adding = [asyncio.ensure_future(store.add([submission()])) for _ in range(20)]
    await asyncio.sleep(0)
    await store.close()
    assert all(len(added) == 1 for added in await asyncio.gather(*adding))
    await store.open(NOW)
    assert await store.count(EVERYTHING) == 20
    await store.close()


async def test_all_is_there_after_the_store_is_opened_again(url: str, tmp_path: Path) -> None:
    """And what was under way when it closed is PENDING and due, its old claims refused."""
    store = open_store(url, tmp_path)
    assert await store.open(NOW) == 0
    claim = await take_one(store, of=event_record(key="k"))
    done = await finish(store, COMPLETED, lane="done")
    await store.setting("name", "value")
    await store.close()

    reopened = open_store(url, tmp_path)
    assert await reopened.open(NOW + 9) == 1
    back = await reopened.job(claim.job.id)
    assert (back.status, back.next_attempt_at, back.attempts) == (PENDING, NOW + 9, 0)
    assert not await reopened.settle(settlement(claim, COMPLETED))
    assert await reopened.job(done.id) == done
    assert len(await reopened.attempts(done.id)) == 1
    assert await reopened.setting("name", "another") == "value"
    (again,) = await reopened.add([submission(of=event_record(key="k"))])
    assert again.duplicate
    assert LANE in lanes(await take(reopened, now=NOW + 9))
    await reopened.close()
