"""What one lane may take of what all share, what a priority leaves, and a lane's own limits."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import endpoint

from notifier.config import Lanes
from notifier.dispatch.limits import UNLIMITED, Bucket, Held, LaneLimits, Limits, lane_may_take, room_for
from notifier.model import EndpointState, Priority


def taken_by(lanes: int, total: int) -> Counter[int]:
    """Let so many lanes take turns, and give nothing back, until none may take more."""
    taken: Counter[int] = Counter()
    takers = [*range(lanes)]
    while takers:
        takers = [lane for lane in takers if lane_may_take(taken[lane], total - taken.total())]
        for lane in takers:
            if lane_may_take(taken[lane], total - taken.total()):
                taken[lane] += 1
    return taken


@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 9])
def test_lanes_that_give_nothing_back_leave_as_much_as_one_of_them_has(lanes: int) -> None:
    """Of n lanes that hang each has 1/(n+1), and 1/(n+1) stays free for others."""
    total = 360
    taken = taken_by(lanes, total)
    assert total - taken.total() == pytest.approx(total / (lanes + 1), abs=lanes)
    assert all(taken[lane] == pytest.approx(total / (lanes + 1), abs=1) for lane in range(lanes))


@given(st.integers(1, 10_000))
def test_a_lane_alone_gets_half_and_at_least_one(total: int) -> None:
    """Even where there is only one worker, a lone lane gets it."""
    assert taken_by(1, total).total() == (total + 1) // 2


@given(st.integers(0, 10_000))
def test_a_lane_with_nothing_may_take_what_is_left(free: int) -> None:
    """Whoever else takes what, one that has none gets the last one."""
    assert lane_may_take(0, free) == (free > 0)


@given(st.integers(1, 10_000), st.data())
def test_a_priority_never_has_more_room_than_one_above_it(total: int, data: st.DataObject) -> None:
    """Room shrinks with rank, is never more than is free, and never below nothing."""
    free = data.draw(st.integers(0, total))
    rooms = [room_for(priority, free, total) for priority in Priority]
    assert rooms == sorted(rooms, reverse=True)
    assert rooms[Priority.HIGH] == free
    assert min(rooms) >= 0


@pytest.mark.parametrize(("priority", "most"), [("HIGH", 64), ("NORMAL", 60), ("LOW", 48)])
def test_a_lower_priority_leaves_a_part_to_those_above(priority: str, most: int) -> None:
    """Of 64 workers 16 are never at a LOW job, and 4 never at any but a HIGH one."""
    assert room_for(Priority[priority], 64, 64) == most


@pytest.mark.parametrize("priority", Priority)
def test_one_worker_serves_every_priority(priority: Priority) -> None:
    """Nothing is set aside where there is nothing to divide."""
    assert room_for(priority, 1, 1) == 1


# What a lane is held to ----------------------------------------------------------------------------


@given(
    rate=st.floats(0.01, 1000),
    burst=st.integers(1, 50),
    steps=st.lists(st.floats(0, 10), min_size=1, max_size=200),
)
def test_no_stretch_of_time_sees_more_than_the_burst_and_the_rate(
    rate: float, burst: int, steps: list[float]
) -> None:
    """Whenever it is asked: in any t seconds at most `burst + rate * t`."""
    now, bucket, taken = 0.0, Bucket(rate, burst, 0.0), list[float]()
    for step in steps:
        now += step
        for _ in range(burst + 2):
            if bucket.wait(now) == 0:
                bucket.take(now)
                taken.append(now)
    for first, begun in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - begun) + 0.02


@given(rate=st.floats(0.001, 1e6), burst=st.integers(1, 1000))
def test_a_wait_that_was_waited_is_over(rate: float, burst: int) -> None:
    """Whatever the rounding: a timer set for it would run again and again else."""
    bucket, now = Bucket(rate, burst, 1e6), 1e6
    while bucket.wait(now) == 0:
        bucket.take(now)
    assert bucket.wait(now + bucket.wait(now)) == 0


def test_a_steady_clock_that_stumbles_gives_nothing_away() -> None:
    """A time before the last is taken for the last."""
    bucket = Bucket(1, 1, 100)
    bucket.take(100)
    assert bucket.wait(50) == 1
    assert bucket.wait(100.5) == 0.5


def test_the_burst_is_one_seconds_worth_where_none_is_given() -> None:
    """And at least one, or nothing would ever go out."""
    for rate, burst in ((20, 20), (0.1, 1)):
        bucket = Limits(rate=rate).bucket(0)
        assert bucket is not None
        assert bucket.left(0) == burst


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        (UNLIMITED, float("inf")),
        (Limits(rate=0.1), 1),
        (Limits(rate=10), 20),
        (Limits(rate=10, burst=3), 13),
        (Limits(max_in_flight=1), 2),
        (Limits(rate=10, max_in_flight=3), 6),
        (Limits(held=Held("endpoint_paused", "")), 0),
    ],
)
def test_the_window_has_use_for_what_goes_out_soon(limits: Limits, most: float) -> None:
    """Its burst and a second's worth by the rate, twice what may be in flight, nothing of a held lane."""
    assert limits.most_at_first == most


def test_the_first_entry_that_names_a_lane_counts() -> None:
    """Whole names, or the start of one; nothing else is a pattern."""
    limits_of = LaneLimits(
        (
            Lanes(lane="webhook:erp.example.com:443", rate_limit=5, burst=9),
            Lanes(lane="webhook:*", max_in_flight=8),
            Lanes(lane="webhook:late.example.com:443", rate_limit=1),
        )
    )
    assert limits_of("webhook:erp.example.com:443") == Limits(rate=5, burst=9)
    assert limits_of("webhook:erp.example.com:4430") == Limits(max_in_flight=8)
    assert limits_of("webhook:late.example.com:443") == Limits(max_in_flight=8)
    assert limits_of("email:example.com") is UNLIMITED


def test_an_endpoint_counts_more_than_the_entry_that_names_its_lane() -> None:
    """Where it says nothing, the entry does; what it says of its rate is the whole of it."""
    plain = endpoint()
    limits_of = LaneLimits((Lanes(lane="endpoint:*", rate_limit=5, burst=9, max_in_flight=4),))
    limits_of.put(plain)
    assert limits_of(plain.lane) == Limits(rate=5, burst=9, max_in_flight=4)
    limits_of.put(msgspec.structs.replace(plain, rate_limit=2.0, max_in_flight=1))
    assert limits_of(plain.lane) == Limits(rate=2, max_in_flight=1)


def test_an_endpoint_that_is_not_enabled_is_held_and_says_by_whom() -> None:
    """Until it is enabled again; of one that is deleted nothing is left."""
    plain = endpoint()
    limits_of = LaneLimits()
    limits_of.put(
        msgspec.structs.replace(plain, state=EndpointState.PAUSED, state_reason="paused by an operator")
    )
    held = limits_of(plain.lane).held
    assert held is not None
    assert held.reason == "endpoint_paused"
    assert "is paused (paused by an operator) since 2" in held.detail
    limits_of.put(plain)
    assert limits_of(plain.lane).held is None
    limits_of.put(msgspec.structs.replace(plain, rate_limit=1.0))
    limits_of.put(msgspec.structs.replace(plain, rate_limit=1.0, deleted=True))
    assert limits_of(plain.lane) is UNLIMITED
