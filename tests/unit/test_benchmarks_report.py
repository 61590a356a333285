"""A report of the benchmarks as Markdown, as JSON and as a picture, from one that is fixed."""

from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from benchmarks.plot import plot
from benchmarks.report import aimed, markdown, table, to_json
from benchmarks.results import Column, Figure, Report, Result, Round, measured, ratio

ROUNDS: list[Round] = [
    {"notifier": {"rate": 3_000.0, "peak": 80.0}, "a peer": {"rate": 1_000.0}},
    {"notifier": {"rate": 2_000.0, "peak": 90.0}, "a peer": {"rate": 1_000.0}},
]
FIGURES = (
    Figure(name="notifier ÷ a peer", of=ratio("notifier", "a peer"), at_least=2),
    Figure(name="the same, more wanted", of=ratio("notifier", "a peer"), at_least=4),
    Figure(name="a peer ÷ notifier", of=ratio("a peer", "notifier")),
)
RESULT = Result(
    name="peers",
    title="Beside others",
    columns={"rate": Column("a second"), "peak": Column("peak MiB")},
    rounds=ROUNDS,
    figures=[measured(figure, ROUNDS) for figure in FIGURES],
    notes=["all on one machine"],
)
FAILED = Result(
    name="sending",
    title="Mails",
    columns={"rate": Column("a second")},
    rounds=[],
    figures=[],
    failed="no sink",
)
REPORT = Report(machine={"cores": "2", "python": "3.11"}, setting={"rounds": "2"}, results=[RESULT, FAILED])


def test_the_report_says_all_in_tables() -> None:
    """Machine, setting, each aim and whether it is met, every row with its spread, what failed, and notes."""
    assert (
        markdown(REPORT)
        == """\
cores 2, python 3.11.

rounds 2.

| figure, within a round | median (least to most) | aim |    met |
|------------------------|-----------------------:|----:|-------:|
| notifier ÷ a peer      |    2.50 (2.00 to 3.00) | ≥ 2 |    yes |
| the same, more wanted  |    2.50 (2.00 to 3.00) | ≥ 4 | **no** |

## Beside others

| 2 rounds |               a second |      peak MiB |
|----------|-----------------------:|--------------:|
| notifier | 2,500 (2,000 to 3,000) | 85 (80 to 90) |
| a peer   |                  1,000 |             – |

| figure, within a round | median (least to most) | aim | met |
|------------------------|-----------------------:|----:|----:|
| a peer ÷ notifier      |    0.42 (0.33 to 0.50) |   – |   – |

- all on one machine

## Mails

Failed after 0 rounds:

```
no sink
```
"""
    )


def test_the_json_holds_every_single_run() -> None:
    """What is written to JSON has each round's numbers as they were measured."""
    told = msgspec.json.decode(to_json(REPORT))
    assert told["results"][0]["rounds"] == ROUNDS
    assert told["results"][0]["figures"][1]["met"] is False
    assert told["machine"] == {"cores": "2", "python": "3.11"}


def test_only_figures_with_an_aim_stand_at_the_head() -> None:
    """What is told for information is not among what is aimed for."""
    assert [figure.name for figure in aimed(REPORT)] == ["notifier ÷ a peer", "the same, more wanted"]


def test_a_table_is_as_wide_as_its_widest_cell() -> None:
    """Cells are padded, words to the left and numbers to the right."""
    assert table(("a", "number"), [("row", "1")]) == "| a   | number |\n|-----|-------:|\n| row |      1 |"


@pytest.mark.parametrize(
    "report", [REPORT, Report(machine={}, setting={}, results=[])], ids=["full", "empty"]
)
def test_the_plot_is_an_svg_that_does_not_change(tmp_path: Path, report: Report) -> None:
    """The same report gives the same picture, byte for byte, and it is well-formed."""
    for name in ("one.svg", "two.svg"):
        plot(report, tmp_path / name)
    made = (tmp_path / "one.svg").read_bytes()
    assert made == (tmp_path / "two.svg").read_bytes()
    assert ET.fromstring(made).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - it was made here


def test_the_plot_shows_figures_and_rows(tmp_path: Path) -> None:
    """Every figure that is aimed for and every row with a rate is named in it, with its number."""
    plot(REPORT, tmp_path / "plot.svg")
    drawn = " ".join(ET.parse(tmp_path / "plot.svg").getroot().itertext())  # noqa: S314 - it was made here
    for words in ("notifier ÷ a peer", "≥ 4", "2.50 (2.00 to 3.00)", "a peer", "2,500", "Beside others"):
        assert words in drawn
