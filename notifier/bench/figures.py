"""Numbers from a noisy machine: medians with what they lie between, percentiles, CPU for each second."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Self

from msgspec import Struct

from notifier.bench import BenchError

_TOO_SHORT = "too little happened to measure: give it more --seconds"


class Spread(Struct, frozen=True):
    """One figure taken several times over."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Make it of a figure's values. Raises BenchError where there are none, or nothing but noughts."""
        if not values or not max(values):
            raise BenchError(_TOO_SHORT)
        return cls(median(values), min(values), max(values))


class Latency(Struct, frozen=True):
    """How long something took, each time."""

    p50_ms: float
    p99_ms: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """Make it of the seconds that each took. Raises BenchError where there are none."""
        if not seconds:
            raise BenchError(_TOO_SHORT)
        ranked = sorted(seconds)
        return cls(percentile(ranked, 0.5) * 1e3, percentile(ranked, 0.99) * 1e3, len(ranked))


def percentile(ranked: Sequence[float], share: float) -> float:
    """The least of some sorted values that so large a share of them (0 to 1) does not exceed."""
    return ranked[max(0, math.ceil(share * len(ranked)) - 1)]
