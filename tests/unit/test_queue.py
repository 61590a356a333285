"""The order in which claimed jobs reach workers: by priority, by turns of lanes, within everyone's share."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from support.builders import NOW, event_record, job

from notifier.config import BreakerSection
from notifier.dispatch.lanes import BREAKER_OPEN, PAUSED, RETRY_AFTER, Stop
from notifier.dispatch.limits import UNLIMITED, Held, Limits
from notifier.dispatch.queue import MAX_BYTES, MAX_LANES, FairQueue
from notifier.model import Claim, Priority

HIGH, NORMAL, LOW = Priority


def claim(lane: str = "a", priority: Priority = NORMAL, **changes: Any) -> Claim:
    """A claimed job in a lane."""
    event = event_record(**changes)
    return Claim(job(event, lane=lane, priority=priority, claim=1), event)


def filled(queue: FairQueue, lanes: Sequence[str], each: int = 1, priority: Priority = NORMAL) -> list[Claim]:
    """Put so many claims of every lane into a queue, lane by lane."""
    claims = [claim(lane, priority) for lane in lanes for _ in range(each)]
    for one in claims:
        queue.put(one)
    return claims


async def taken(queue: FairQueue, at_most: int = 1000) -> list[Claim]:
    """Let workers come until one has to wait, or so many have something; none of them finishes."""
    got: list[Claim] = []
    while len(got) < at_most:
        asking = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        if not asking.done():
            asking.cancel()
            break
        one = asking.result()
        assert one is not None
        got.append(one)
    return got


def lanes(claims: Sequence[Claim]) -> list[str]:
    """The lanes of claims, in their order."""
    return [each.job.lane for each in claims]


async def one_by_one(queue: FairQueue) -> list[Claim]:
    """Work as a single worker does: take one, finish it, take the next, until there is none."""
    got: list[Claim] = []
    while claims := await taken(queue, 1):
        queue.done(claims[0])
        got += claims
    return got


@pytest.fixture
def queue() -> FairQueue:
    """A queue before 16 workers."""
    return FairQueue(capacity=256, workers=16)


# Lanes ---------------------------------------------------------------------------------------------


async def test_lanes_take_turns(queue: FairQueue) -> None:
    """However many jobs one lane put in first, the next of each comes in the same round."""
    filled(queue, "a", 5)
    filled(queue, "b", 2)
    filled(queue, "c", 1)
    assert lanes(await one_by_one(queue)) == ["a", "b", "c", "a", "b", "a", "a", "a"]


async def test_a_lane_keeps_its_own_order(queue: FairQueue) -> None:
    """What was claimed first goes first."""
    claims = filled(queue, "a", 20)
    assert await one_by_one(queue) == claims


async def test_a_lane_that_hangs_takes_half_of_the_workers(queue: FairQueue) -> None:
    """Alone, and with a backlog for many times as many workers, it leaves the other half free."""
    filled(queue, "a", 100)
    assert len(await taken(queue)) == 8
    assert queue.busy == 8


@pytest.mark.parametrize("hanging", [1, 2, 3, 5])
async def test_lanes_that_hang_leave_a_lanes_share_to_others(hanging: int) -> None:
    """Of n that hang together each has 1/(n+1) of the workers; as much stays for whoever comes."""
    queue = FairQueue(capacity=4096, workers=120)
    filled(queue, [f"dead-{number}" for number in range(hanging)], 200)
    stuck = Counter(lanes(await taken(queue)))
    assert queue.workers - queue.busy == pytest.approx(120 / (hanging + 1), abs=hanging)
    assert max(stuck.values()) - min(stuck.values()) <= 1
    filled(queue, ["alive"])
    assert lanes(await taken(queue)) == ["alive"]


async def test_a_lane_regains_workers_as_they_become_free(queue: FairQueue) -> None:
    """Shares are of the moment: what others give back goes to whoever has work."""
    filled(queue, "a", 8)
    busy = await taken(queue)
    filled(queue, "b", 100)
    assert len(await taken(queue)) == 4
    for each in busy:
        queue.done(each)
    assert len(await taken(queue)) == 4


async def test_one_worker_is_enough_for_many_lanes() -> None:
    """Nobody's share rounds down to nothing."""
    queue = FairQueue(capacity=64, workers=1)
    filled(queue, "abc", 2)
    filled(queue, "d", 1, LOW)
    assert lanes(await one_by_one(queue)) == ["a", "b", "c", "a", "b", "c", "d"]


# Priorities ----------------------------------------------------------------------------------------


async def test_a_higher_priority_goes_first(queue: FairQueue) -> None:
    """Whatever was put in before it, of its own lane or of others."""
    filled(queue, "ab", 2, LOW)
    filled(queue, "ab", 2, NORMAL)
    filled(queue, "ab", 2, HIGH)
    order = [each.job.priority for each in await one_by_one(queue)]
    assert order == [HIGH] * 4 + [NORMAL] * 4 + [LOW] * 4


@pytest.mark.parametrize("lane", ["newsletter", "elsewhere"])
async def test_high_finds_a_worker_while_low_hangs(queue: FairQueue, lane: str) -> None:
    """Low jobs at as many workers as they can get keep no high one waiting, not even of their own lane."""
    filled(queue, ["newsletter", *(f"other-{number}" for number in range(20))], 8, LOW)
    await taken(queue)
    filled(queue, [lane], 1, HIGH)
    assert lanes(await taken(queue)) == [lane]


async def test_low_leaves_workers_to_those_above(queue: FairQueue) -> None:
    """With more lanes than workers, a quarter of the workers still never takes a low job."""
    filled(queue, [f"lane-{number}" for number in range(40)], 1, LOW)
    assert len(await taken(queue)) == 12
    filled(queue, [f"lane-{number}" for number in range(40)], 1, NORMAL)
    assert len(await taken(queue)) == 3
    filled(queue, [f"lane-{number}" for number in range(40)], 1, HIGH)
    assert len(await taken(queue)) == 1


async def test_high_finds_room_while_the_window_is_full_of_low(queue: FairQueue) -> None:
    """The window keeps a quarter for what is above low, so that a high job is claimed at once."""
    number = 0
    while queue.room(LOW):
        filled(queue, [f"lane-{number}"], 1, LOW)
        number += 1
    assert number == 192
    assert queue.room(HIGH) == 64
    assert queue.share("lane-0", HIGH) > 0
    assert not queue.is_crowded("lane-0", HIGH)


async def test_a_lane_crowded_with_low_has_its_whole_share_for_high(queue: FairQueue) -> None:
    """What a lane holds of lower priority doesn't count against what is above it."""
    while queue.share("a", LOW):
        filled(queue, "a", 1, LOW)
    assert queue.share("a", HIGH) == (queue.room(HIGH) + 1) // 2


# The window's bounds -------------------------------------------------------------------------------


async def test_the_window_is_bounded_in_count(queue: FairQueue) -> None:
    """Room for more ends when as many are held as the window has places, those in flight included."""
    filled(queue, [f"lane-{number}" for number in range(250)], 1, HIGH)
    assert queue.room(HIGH) == 6
    await taken(queue)
    assert queue.room(HIGH) == 6
    filled(queue, "abcdef", 1, HIGH)
    assert [queue.room(priority) for priority in Priority] == [0, 0, 0]
    assert queue.share("new", HIGH) == 0


async def test_the_window_is_bounded_in_bytes(queue: FairQueue) -> None:
    """A few huge events fill it as many small ones do, and it is free again when they are gone."""
    big = claim(data=msgspec.Raw(b'"' + b"x" * (MAX_BYTES - 2) + b'"'))
    queue.put(big)
    assert queue.room(HIGH) == 0
    assert await taken(queue) == [big]
    queue.done(big)
    assert queue.room(HIGH) == 256


async def test_a_lane_is_crowded_long_before_the_window_is_full(queue: FairQueue) -> None:
    """One lane claims a part of the window; the rest stays for lanes that come later."""
    while not queue.is_crowded("a", NORMAL):
        filled(queue, "a")
    assert len(queue.claims) < 128
    assert queue.share("b", NORMAL) > 50


async def test_room_is_told_of_whenever_a_job_leaves(queue: FairQueue) -> None:
    """The dispatcher need not look again and again."""
    told: list[tuple[str, int]] = []
    queue.on_room = lambda lane: told.append((lane, len(queue.claims)))
    filled(queue, "a", 3)
    await one_by_one(queue)
    assert told == [("a", 2), ("a", 1), ("a", 0)]


async def test_nothing_is_remembered_of_a_lane_without_jobs(queue: FairQueue) -> None:
    """A program that runs for a year sees millions of lanes."""
    filled(queue, [f"lane-{number}" for number in range(200)])
    await one_by_one(queue)
    assert not queue._lanes
    assert not any(queue._turns)
    assert queue._bytes == 0


async def test_faults_of_lanes_long_gone_are_forgotten_in_the_end(queue: FairQueue) -> None:
    """That a provider was at fault is remembered without a job, but for a bounded number of lanes."""
    for number in range(MAX_LANES + 100):
        queue.fault(f"lane-{number}")
    assert len(queue._lanes) <= MAX_LANES + 1


async def test_lanes_that_must_be_remembered_are_not_looked_through_at_each_new_one(queue: FairQueue) -> None:
    """With more of them paused than are remembered else, a new lane costs what it always does."""
    for number in range(MAX_LANES + 100):
        paused(queue, f"dead-{number}")
    looks = 0
    forget = queue._forget_past

    def count() -> None:
        nonlocal looks
        looks += 1
        forget()

    queue._forget_past = count  # type: ignore[method-assign]  # to see how often it is done
    filled(queue, [f"lane-{number}" for number in range(500)])
    assert looks <= 1


# Pausing -------------------------------------------------------------------------------------------


def paused(queue: FairQueue, lane: str = "a") -> None:
    """Pause a lane for longer than any test runs."""
    queue.stop(lane, Stop(PAUSED, "the relay is down", NOW + 3600), 3600)


def resume(queue: FairQueue, lane: str = "a") -> None:
    """End a pause now."""
    known = queue.lane(lane)
    assert known is not None
    queue._resume(known)


async def test_a_paused_lane_waits_and_others_do_not(queue: FairQueue) -> None:
    """None of its jobs is handed out, whenever it was put in."""
    filled(queue, "a", 2)
    paused(queue)
    filled(queue, "a", 1)
    filled(queue, "a", 1, HIGH)
    filled(queue, "b", 1)
    assert lanes(await taken(queue)) == ["b"]


async def test_a_paused_lane_gets_no_more_of_the_window(queue: FairQueue) -> None:
    """Its new jobs stay in the store, where they cost nothing."""
    paused(queue)
    assert queue.share("a", HIGH) == 0
    assert queue.is_crowded("a", HIGH)


async def test_a_pause_gives_the_window_back_what_the_lane_held(queue: FairQueue) -> None:
    """A relay that is down takes no room from others; what is in flight stays with its worker."""
    filled(queue, "a", 3)
    (begun,) = await taken(queue, 1)
    withdrawn = queue.stop("a", Stop(PAUSED, "the relay is down", NOW + 3600), 3600)
    assert lanes(withdrawn) == ["a", "a"]
    assert [*queue.claims.values()] == [begun]


async def test_a_lane_goes_on_when_its_pause_ends(queue: FairQueue) -> None:
    """Workers that wait get what came meanwhile, in its order, and the dispatcher hears of it."""
    told: list[str] = []
    queue.on_room = told.append
    paused(queue)
    claims = filled(queue, "a", 2)
    waiting = [asyncio.ensure_future(queue.get()) for _ in range(2)]
    await asyncio.sleep(0)
    resume(queue)
    assert await asyncio.gather(*waiting) == claims
    assert told == ["a"]


async def test_a_pause_ends_by_itself(queue: FairQueue) -> None:
    """Nobody has to remember to resume a lane."""
    queue.stop("a", Stop(PAUSED, "the relay is down", NOW), 0.01)
    (one,) = filled(queue, "a")
    assert await queue.get() == one


async def test_of_two_stops_the_later_end_counts(queue: FairQueue) -> None:
    """A receiver that asks for an hour gets it, though its lane waits for a minute already."""
    minute, hour = (Stop(RETRY_AFTER, f"{seconds} s", NOW + seconds) for seconds in (60, 3600))
    for first, second in ((minute, hour), (hour, minute)):
        queue.stop("a", first, 0.001)
        queue.stop("a", second, 3600)
        lane = queue.lane("a")
        assert lane is not None
        assert lane.stop == hour
        resume(queue)


async def test_faults_in_a_row_are_counted_until_one_goes_well(queue: FairQueue) -> None:
    """The count outlives the pause and the lane's jobs; an answer of the provider ends it."""
    for expected in (1, 2, 3):
        assert queue.fault("a") == expected
        paused(queue)
        resume(queue)
    queue.provider_answered("a")
    assert queue.fault("a") == 1


# What a lane is held to ----------------------------------------------------------------------------


class Bench:
    """A queue whose lanes have limits, and a steady clock that the test moves."""

    def __init__(self, **limits: Limits) -> None:
        self.now = 100.0
        self.limits = limits
        self.queue = FairQueue(
            capacity=256,
            workers=16,
            limits_of=lambda lane: self.limits.get(lane, UNLIMITED),
            timer=lambda: self.now,
        )

    def after(self, seconds: float) -> None:
        """Let time pass, and the timers that were set run."""
        self.now += seconds
        for lane in [*self.queue._lanes.values()]:
            if lane.waking is not None:
                lane.waking.cancel()
                self.queue._awake(lane)


async def test_a_lane_never_has_more_in_flight_than_it_may() -> None:
    """Whatever is free; and as one ends the next goes."""
    bench = Bench(a=Limits(max_in_flight=2))
    filled(bench.queue, "a", 6, HIGH)
    filled(bench.queue, "a", 6)
    begun = await taken(bench.queue)
    assert len(begun) == 2
    bench.queue.done(begun[0])
    assert len(await taken(bench.queue)) == 1


async def test_a_lanes_rate_is_kept_and_its_burst_comes_once() -> None:
    """Three at once, then two a second, whoever waits, and others don't wait for it."""
    bench = Bench(a=Limits(rate=2, burst=3))
    filled(bench.queue, "a", 20)
    filled(bench.queue, "b", 1)
    assert Counter(lanes(await one_by_one(bench.queue))) == {"a": 3, "b": 1}
    bench.after(0.49)
    assert await one_by_one(bench.queue) == []
    bench.after(0.01)
    assert len(await one_by_one(bench.queue)) == 1
    bench.after(3600)
    assert len(await one_by_one(bench.queue)) == 3


async def test_a_burst_is_not_renewed_by_forgetting_the_lane() -> None:
    """A lane without jobs is remembered for as long as its burst is used up."""
    bench = Bench(a=Limits(rate=1, burst=3))
    filled(bench.queue, "a", 3)
    assert len(await one_by_one(bench.queue)) == 3
    filled(bench.queue, "a", 3)
    assert len(await one_by_one(bench.queue)) == 0
    bench.after(3)
    assert len(await one_by_one(bench.queue)) == 3
    assert bench.queue.lane("a") is not None
    bench.after(100)
    bench.queue._forget_past()
    assert bench.queue.lane("a") is None


async def test_the_window_holds_of_a_slow_lane_what_it_has_use_for() -> None:
    """A hundred thousand jobs at one a second would only lie there, and take the room of others."""
    bench = Bench(a=Limits(rate=1), b=Limits(max_in_flight=5))
    assert bench.queue.share("a", NORMAL) == 2
    assert bench.queue.share("b", NORMAL) == 10
    filled(bench.queue, "a", 2)
    assert bench.queue.share("a", NORMAL) == 0
    assert bench.queue.is_crowded("a", NORMAL)


async def test_what_flies_long_keeps_no_rate_from_being_used() -> None:
    """At two a second, a receiver that takes its time has as many in flight as come in that time."""
    bench = Bench(a=Limits(rate=2))
    told: list[str] = []
    bench.queue.on_room = told.append
    for flying in range(2, 8):
        filled(bench.queue, "a", 1)
        await taken(bench.queue)
        assert told
        told.clear()
        bench.after(0.5)
        assert bench.queue.busy == flying - 1
        assert not bench.queue.is_crowded("a", NORMAL)


async def test_nothing_is_held_of_a_lane_that_may_send_only_much_later() -> None:
    """A thousand lanes at one a minute would fill the window with what only lies there; time brings more."""
    bench = Bench(a=Limits(rate=1 / 60))
    filled(bench.queue, "a", 1)
    await one_by_one(bench.queue)
    assert bench.queue.is_crowded("a", NORMAL)
    assert bench.queue.share("a", NORMAL) == 0
    told: list[str] = []
    bench.queue.on_room = told.append
    bench.after(59)
    assert told == ["a"]
    assert not bench.queue.is_crowded("a", NORMAL)
    assert bench.queue.share("a", NORMAL) == 1


async def test_a_held_lane_gives_its_jobs_back_and_goes_on_when_it_is_resumed() -> None:
    """Nothing of it is claimed or handed out meanwhile."""
    bench = Bench()
    claims = filled(bench.queue, "a", 3)
    (begun,) = await taken(bench.queue, 1)
    bench.limits["a"] = Limits(held=Held("endpoint_paused", "an operator paused it"))
    assert bench.queue.refresh("a") == claims[1:]
    assert [*bench.queue.claims.values()] == [begun]
    assert bench.queue.is_crowded("a", HIGH)
    assert bench.queue.share("a", HIGH) == 0
    told: list[str] = []
    bench.queue.on_room = told.append
    del bench.limits["a"]
    bench.queue.refresh("a")
    assert told == ["a"]
    filled(bench.queue, "a", 1)
    assert len(await taken(bench.queue)) == 1


async def test_a_lane_that_nothing_is_known_of_can_be_held_and_resumed() -> None:
    """Its jobs may all be in the store."""
    bench = Bench(a=Limits(held=Held("endpoint_paused", "an operator paused it")))
    assert bench.queue.is_crowded("a", LOW)
    told: list[str] = []
    bench.queue.on_room = told.append
    del bench.limits["a"]
    assert bench.queue.refresh("a") == []
    assert not bench.queue.is_crowded("a", LOW)
    assert told == ["a"]


async def test_changed_limits_count_at_once_and_make_no_new_burst() -> None:
    """An operator who asks for less gets less from the next attempt on."""
    bench = Bench(a=Limits(rate=10, burst=4))
    filled(bench.queue, "a", 10)
    assert len(await one_by_one(bench.queue)) == 4
    bench.limits["a"] = Limits(rate=1, burst=4)
    bench.queue.refresh("a")
    assert await one_by_one(bench.queue) == []
    bench.after(1)
    assert len(await one_by_one(bench.queue)) == 1
    bench.limits["a"] = UNLIMITED
    bench.queue.refresh("a")
    assert len(await one_by_one(bench.queue)) == 5


@pytest.mark.parametrize("slow", [0.001, 1e-300])
async def test_a_faster_rate_counts_at_once(slow: float) -> None:
    """A lane that would have waited for hours by its old rate waits as long as the new one says."""
    queue = FairQueue(capacity=256, workers=16, limits_of=lambda _lane: limits)
    limits = Limits(rate=slow)
    filled(queue, "a", 2)
    queue.done((await taken(queue))[0])
    limits = Limits(rate=1000)
    queue.refresh("a")
    async with asyncio.timeout(5):
        assert await queue.get() is not None


async def test_a_tripped_breaker_lets_one_through_at_a_time_until_one_succeeds() -> None:
    """Then the lane is as it was."""
    bench = Bench()
    lane = bench.queue.remembered("a")
    assert lane.failed(BreakerSection(failures=1), bench.now) == 30
    bench.queue.stop("a", Stop(BREAKER_OPEN, "it is in trouble", NOW + 30), 3600)
    filled(bench.queue, "a", 5)
    assert await taken(bench.queue) == []
    resume(bench.queue)
    (probe,) = await taken(bench.queue)
    assert bench.queue.share("a", NORMAL) == 0
    bench.queue.succeeded("a")
    bench.queue.done(probe)
    assert len(await taken(bench.queue)) == 4


async def test_a_success_ends_an_open_breakers_wait_at_once() -> None:
    """One that was under way when it opened shows that the receiver is well."""
    bench = Bench()
    filled(bench.queue, "a", 2)
    await taken(bench.queue, 1)
    bench.queue.remembered("a").failed(BreakerSection(failures=1), bench.now)
    bench.queue.stop("a", Stop(BREAKER_OPEN, "it is in trouble", NOW + 30), 3600)
    filled(bench.queue, "a", 1)
    bench.queue.succeeded("a")
    assert len(await taken(bench.queue)) == 1


# Ending, and workers that go away ------------------------------------------------------------------


async def test_what_no_worker_has_begun_can_be_withdrawn(queue: FairQueue) -> None:
    """It is handed out no more, and leaves its room; what is in flight, or not there, is left alone."""
    freed: list[str] = []
    queue.on_room = freed.append
    begun, waits, last = (claim("a") for _ in range(3))
    for each in (begun, waits, last):
        queue.put(each)
    assert await queue.get() is begun
    assert queue.withdraw(begun.job.id, begun.job.claim) is None
    assert queue.withdraw(waits.job.id, waits.job.claim + 1) is None
    assert queue.withdraw(waits.job.id, waits.job.claim) is waits
    assert queue.withdraw(waits.job.id, waits.job.claim) is None
    assert freed == ["a"]
    assert await queue.get() is last
    queue.done(begun)
    only = claim("b")
    queue.put(only)
    assert queue.withdraw(only.job.id, only.job.claim) is only
    assert queue.lane("b") is None
    assert [*queue.claims.values()] == [last]


async def test_closing_returns_what_no_worker_has_begun(queue: FairQueue) -> None:
    """What is in flight stays with its worker; the rest, of paused lanes too, is handed back."""
    filled(queue, "a", 3)
    filled(queue, "b", 2, HIGH)
    paused(queue, "c")
    filled(queue, "c", 2, LOW)
    begun = await taken(queue, 2)
    rest = queue.close()
    assert sorted(lanes(begun + rest)) == [*"aaabbcc"]
    assert [*queue.claims.values()] == begun
    for each in begun:
        queue.done(each)
    assert not queue.claims


async def test_closing_sends_every_worker_home(queue: FairQueue) -> None:
    """Those that wait are told at once, those that come back later when they ask."""
    waiting = [asyncio.ensure_future(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.close()
    assert await asyncio.gather(*waiting) == [None, None, None]
    assert await queue.get() is None


async def test_a_closed_queue_has_no_room(queue: FairQueue) -> None:
    """Nothing more is claimed, and no lane is paused that could not resume."""
    queue.close()
    paused(queue)
    assert [queue.room(priority) for priority in Priority] == [0, 0, 0]
    assert not queue.is_crowded("c", HIGH)


async def test_a_closed_queue_leaves_no_timer_running() -> None:
    """A program that embeds a notifier is not kept waiting, nor its memory kept, by what is over."""
    bench = Bench(slow=Limits(rate=1))
    filled(bench.queue, ["slow", "stopped"], 2)
    begun = await taken(bench.queue)
    paused(bench.queue, "stopped")
    slow, stopped = (bench.queue._lanes[name] for name in ("slow", "stopped"))
    timers = [slow.waking, stopped.resuming]
    bench.queue.close()
    for each in begun:
        bench.queue.done(each)
    assert all(timer is not None and timer.cancelled() for timer in timers)
    assert slow.waking is None


async def test_workers_are_served_in_the_order_they_asked(queue: FairQueue) -> None:
    """So that none is idle while others never rest."""
    waiting = [asyncio.ensure_future(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    claims = filled(queue, "abc")
    assert await asyncio.gather(*waiting) == claims


async def one_done_while_one_waits() -> tuple[FairQueue, Claim, asyncio.Future[Claim | None]]:
    """A queue whose one place has just become free, the next claim, and a worker that waits for any."""
    queue = FairQueue(capacity=64, workers=1)
    (first,) = filled(queue, "a")
    assert await queue.get() == first
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    (second,) = filled(queue, "a")
    queue.done(first)
    return queue, second, waiting


async def test_a_worker_that_is_done_takes_the_next_itself() -> None:
    """It is awake: to wake another for it, and to wait in its place, would cost both."""
    queue, second, waiting = await one_done_while_one_waits()
    assert await queue.get() == second
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_a_worker_that_is_done_and_asks_no_more_leaves_the_next_to_one_that_waits() -> None:
    """One that was told to end must not keep what its place is free for."""
    _, second, waiting = await one_done_while_one_waits()
    assert await waiting == second


async def test_a_worker_cancelled_while_it_waits_takes_nothing_with_it(queue: FairQueue) -> None:
    """The next one gets what would have been its job."""
    gone = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    gone.cancel()
    (one,) = filled(queue, "a")
    assert await queue.get() == one


async def test_a_worker_cancelled_at_the_moment_it_is_served_gives_its_job_back(queue: FairQueue) -> None:
    """The job is again the first of its lane, and the worker isn't counted as busy."""
    gone = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    first, second = filled(queue, "a", 2)
    gone.cancel()
    await asyncio.wait([gone])
    assert gone.cancelled()
    assert queue.busy == 0
    assert await one_by_one(queue) == [first, second]


async def test_a_job_given_back_goes_to_a_worker_that_waits(queue: FairQueue) -> None:
    """Nobody has to ask again for it to move."""
    gone, waiting = (asyncio.ensure_future(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    (one,) = filled(queue, "a")
    gone.cancel()
    assert await waiting == one


async def test_a_job_held_twice_is_two_claims(queue: FairQueue) -> None:
    """One whose claim was lost may come again while the old one is still in flight; each ends by itself."""
    old = claim()
    new = Claim(msgspec.structs.replace(old.job, claim=2), old.event)
    queue.put(old)
    queue.put(new)
    assert await taken(queue) == [old, new]
    queue.done(old)
    assert [*queue.claims.values()] == [new]
    assert not queue.is_waiting(new)
