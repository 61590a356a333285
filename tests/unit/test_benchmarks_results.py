"""What the benchmarks make of what they measured: spreads, ratios within a round, aims."""

import pytest

from benchmarks.results import Figure, Round, Spread, measured, ratio, spreads, value

ROUNDS: list[Round] = [
    {"ours": {"rate": 300.0, "peak": 70.0}, "theirs": {"rate": 100.0}},
    {"ours": {"rate": 100.0, "peak": 80.0}, "theirs": {"rate": 100.0}},
    {"ours": {"rate": 400.0, "peak": 90.0}, "theirs": {"rate": 200.0}},
]


def test_a_ratio_is_made_within_each_round() -> None:
    """A figure is the median of the rounds' ratios, not the ratio of the medians."""
    told = measured(Figure(name="ours ÷ theirs", of=ratio("ours", "theirs")), ROUNDS)
    assert told.spread == Spread(2.0, 1.0, 3.0)
    assert told.told == "2.00 (1.00 to 3.00)"


@pytest.mark.parametrize(("at_least", "met"), [(2.0, True), (2.1, False), (None, None)])
def test_an_aim_is_held_against_the_median(at_least: float | None, met: bool | None) -> None:
    """A figure that reaches its aim in the median meets it; one that has none neither meets nor misses."""
    assert measured(Figure(name="x", of=ratio("ours", "theirs"), at_least=at_least), ROUNDS).met is met


def test_what_must_not_be_exceeded_is_met_below() -> None:
    """A limit of 100 MiB that 80 are held against is met 1.25 times; one of 79 is missed."""
    within = measured(Figure(name="x", of=value("ours", "peak"), at_most=100, unit=" MiB"), ROUNDS)
    beyond = measured(Figure(name="x", of=value("ours", "peak"), at_most=79), ROUNDS)
    assert (within.met, within.of_aim, within.aim) == (True, 1.25, "≤ 100 MiB")
    assert beyond.met is False


def test_nothing_at_all_is_within_every_limit() -> None:
    """No CPU spent while idle meets a limit on it."""
    told = measured(Figure(name="x", of=value("ours", "idle"), at_most=0.5), [{"ours": {"idle": 0.0}}])
    assert told.met is True


def test_each_row_and_column_is_summed_up() -> None:
    """By row and column, the median and how far the rounds lie apart."""
    told = spreads(ROUNDS)
    assert told["ours"] == {"rate": Spread(300.0, 100.0, 400.0), "peak": Spread(80.0, 70.0, 90.0)}
    assert told["theirs"] == {"rate": Spread(100.0, 100.0, 200.0)}


def test_a_single_round_has_no_spread_to_tell() -> None:
    """One value is told as it is."""
    assert Spread.of([1234.0]).told(",.0f") == "1,234"
