"""Which lanes have work in the store: nothing that was noted is lost, and all of it is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.dispatch import agenda as module
from notifier.dispatch.agenda import Agenda


def never(_lane: str) -> bool:
    """No lane is."""
    return False


def ready(agenda: Agenda) -> list[str]:
    """The lanes to claim from."""
    return agenda.choose(1000, never, never)


def test_a_due_lane_is_ready_and_one_to_come_is_when_its_time_has_come() -> None:
    """In the order of their times."""
    agenda = Agenda()
    agenda.note("late", 30, 10)
    agenda.note("later", 40, 10)
    agenda.note("now", 10, 10)
    assert ready(agenda) == ["now"]
    assert agenda.next_time == 30
    agenda.advance(40)
    assert ready(agenda) == ["now", "late", "later"]
    assert agenda.next_time is None


def test_the_earliest_time_of_a_lane_counts() -> None:
    """Whichever was noted first."""
    agenda = Agenda()
    for at in (30, 20, 40):
        agenda.note("a", at, 10)
    agenda.advance(19)
    assert ready(agenda) == []
    agenda.advance(20)
    assert ready(agenda) == ["a"]


def test_a_lane_with_older_due_work_is_behind() -> None:
    """One whose work is only to come is not, until its time has come."""
    agenda = Agenda()
    agenda.note("due", 10, 10)
    agenda.note("to come", 11, 10)
    assert agenda.is_behind("due", 10)
    assert not agenda.is_behind("to come", 10)
    assert agenda.is_behind("to come", 11)
    assert not agenda.is_behind("another", 10)


def test_crowded_lanes_are_put_aside_until_they_have_room() -> None:
    """They cost the looks that come meanwhile nothing, and are behind all the same."""
    agenda = Agenda()
    for lane in ("a", "b", "c"):
        agenda.note(lane, 10, 10)
    assert agenda.choose(10, lambda lane: lane == "b", never) == ["a", "c"]
    assert ready(agenda) == ["a", "c"]
    assert agenda.is_behind("b", 10)
    agenda.note("b", 10, 10)
    assert ready(agenda) == ["a", "c"]
    assert agenda.unpark("b")
    assert not agenda.unpark("b")
    assert ready(agenda) == ["a", "c", "b"]


def test_held_lanes_are_dropped() -> None:
    """They may be held for months; whoever resumes one says so."""
    agenda = Agenda()
    agenda.note("a", 10, 10)
    assert agenda.choose(10, lambda _lane: True, lambda _lane: True) == []
    assert not agenda.is_behind("a", 10)
    agenda.note("a", 11, 11)
    assert ready(agenda) == ["a"]


def test_after_a_claim_each_lane_stands_where_its_next_job_is() -> None:
    """Those served and still due are last in turn; those that found no room keep their place."""
    agenda = Agenda()
    lanes = ["served", "unserved", "done", "to come"]
    for lane in lanes:
        agenda.note(lane, 10, 10)
    agenda.begin_claim(lanes)
    agenda.end_claim({"served": 9, "unserved": 9, "to come": 50}, {"served", "done", "to come"}, 10)
    assert ready(agenda) == ["unserved", "served"]
    assert agenda.next_time == 50


def test_what_is_noted_during_a_claim_counts_with_what_the_claim_says() -> None:
    """The claim looked before it was there."""
    agenda = Agenda()
    agenda.note("a", 10, 10)
    agenda.begin_claim(["a", "b"])
    agenda.note("a", 30, 10)
    agenda.note("a", 20, 10)
    agenda.note("b", 10, 10)
    agenda.end_claim({"a": 40}, {"a"}, 10)
    assert ready(agenda) == ["b"]
    assert agenda.next_time == 20


def test_lanes_stay_where_they_are_when_a_claim_fails() -> None:
    """And what is noted of them is taken as ever."""
    agenda = Agenda()
    agenda.note("a", 10, 10)
    agenda.begin_claim(["a"])
    agenda.give_up_claim()
    assert ready(agenda) == ["a"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Agenda:
    """One that is full with five lanes."""
    monkeypatch.setattr(module, "FULL", 5)
    return Agenda()


def test_due_lanes_past_a_number_are_left_to_a_sweep(small: Agenda) -> None:
    """It says so, and holds no more."""
    for number in range(10):
        small.note(f"lane-{number}", 10, 10)
    before = small.overflowed
    small.note("one more", 10, 10)
    assert [before, small.overflowed] == [False, True]
    assert len(small) == 10
    assert small.full


def test_lanes_to_come_past_a_number_are_left_to_a_sweep_at_their_time(small: Agenda) -> None:
    """They keep no due lane from being found meanwhile."""
    for number in range(5):
        small.note(f"lane-{number}", 1000, 10)
    small.note("x", 500, 10)
    small.note("y", 300, 10)
    small.note("z", 10.1, 10)
    small.note("due", 10, 10)
    assert small.sweep_at == 11
    assert small.next_time == 11
    assert ready(small) == ["due"]
    assert not small.full


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=200))
def test_every_lane_comes_at_the_earliest_of_its_times(notes: list[tuple[str, int]]) -> None:
    """Whatever is noted in whatever order, and the heap never grows past what it is about."""
    agenda = Agenda()
    wanted: dict[str, int] = {}
    for lane, at in notes:
        agenda.note(lane, at, -1)
        wanted[lane] = min(at, wanted.get(lane, at))
    for now in range(51):
        agenda.advance(now)
        assert set(ready(agenda)) == {lane for lane, at in wanted.items() if at <= now}


def test_a_lane_whose_times_change_for_ever_takes_no_more_memory() -> None:
    """What no longer holds is dropped from the heap before it is most of it."""
    agenda = Agenda()
    for number in range(100_000):
        agenda.note("a", 1e9 - number, 0)
    assert len(agenda._times) < 2000
