"""What was measured, in numbers: runs, rounds of them, what those come to, and the figures aimed for."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from msgspec import Struct

Values = Mapping[str, float]
"""What one run came to, by column."""

Round = Mapping[str, Values]
"""One run of each row, by the row's name."""


class Spread(Struct, frozen=True):
    """What several rounds came to."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up at least one value."""
        return cls(median(values), min(values), max(values))

    def told(self, form: str) -> str:
        """As words: the median, and how far the rounds lie apart; `form` formats each number."""
        if self.least == self.most:
            return f"{self.median:{form}}"
        return f"{self.median:{form}} ({self.least:{form}} to {self.most:{form}})"


class Column(Struct, frozen=True):
    """What a column's head says, and how its numbers are written."""

    head: str
    form: str = ",.0f"


class Figure(Struct, frozen=True, kw_only=True):
    """A number that is made within each round, and what is aimed for."""

    name: str
    of: Callable[[Round], float]
    at_least: float | None = None
    at_most: float | None = None
    form: str = ".2f"
    unit: str = ""

    @property
    def aim(self) -> str:
        """The aim in words; empty where there is none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}{self.unit}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}{self.unit}"


class Measured(Struct, frozen=True, kw_only=True):
    """A figure, once measured; `met` is None where nothing is aimed for."""

    name: str
    spread: Spread
    told: str
    aim: str = ""
    met: bool | None = None
    of_aim: float | None = None
    """How many times the aim is reached: from 1 on it is met."""


class Result(Struct, frozen=True, kw_only=True):
    """What one part came to; `failed` says why it has no rounds or fewer than were asked for."""

    name: str
    title: str
    columns: Mapping[str, Column]
    rounds: Sequence[Round]
    figures: Sequence[Measured]
    notes: Sequence[str] = ()
    failed: str = ""


class Report(Struct, frozen=True, kw_only=True):
    """All of one call of the benchmarks, as it is written to JSON."""

    machine: Mapping[str, str]
    setting: Mapping[str, str]
    results: Sequence[Result]


def ratio(one: str, other: str, column: str = "rate") -> Callable[[Round], float]:
    """One row's number of a column ÷ another row's."""
    return lambda run: run[one][column] / run[other][column]


def value(row: str, column: str) -> Callable[[Round], float]:
    """A row's number of a column."""
    return lambda run: run[row][column]


def spreads(rounds: Sequence[Round]) -> dict[str, dict[str, Spread]]:
    """By row and column, what the rounds came to."""
    return {
        row: {column: Spread.of([each[row][column] for each in rounds]) for column in values}
        for row, values in rounds[0].items()
    }


def measured(figure: Figure, rounds: Sequence[Round]) -> Measured:
    """Make a figure of each round, and hold the median of them against the aim."""
    spread = Spread.of([figure.of(each) for each in rounds])
    reached = _reached(figure, spread.median)
    return Measured(
        name=figure.name,
        spread=spread,
        told=spread.told(figure.form) + figure.unit,
        aim=figure.aim,
        met=None if reached is None else reached >= 1,
        of_aim=reached,
    )


def _reached(figure: Figure, got: float) -> float | None:
    if figure.at_least is not None:
        return got / figure.at_least
    if figure.at_most is not None:
        return figure.at_most / max(got, 1e-9)
    return None
