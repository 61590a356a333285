"""The two rules of sharing: what one lane may take, and what one priority leaves to those above it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.dispatch.limits import lane_may_take, room_for
from notifier.model import Priority


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
