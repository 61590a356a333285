"""A report as a picture: how far each figure is from its aim, and the rates of what was compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import aimed
from benchmarks.results import Measured, Report, Result, Spread, spreads

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MET, _MISSED, _PLAIN, _OURS = "#2a7f62", "#c8553d", "#9aa5b1", "#1f4e79"
_BEHIND_WORDS = {"facecolor": "white", "edgecolor": "none", "pad": 1}
_WIDTH = 9.0
_A_BAR = 0.34
_A_HEAD = 1.0
_FURTHEST = 4.0
"""Times the aim that are shown at most: a bar that goes further is cut, its number says how far."""


def plot(report: Report, path: Path) -> None:
    """Write an SVG. A report without rates and aims gives an empty one. Needs matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    figures = aimed(report)
    shown = [each for each in report.results if each.rounds and "rate" in each.columns]
    heights = [len(figures), *(len(each.rounds[0]) for each in shown)]
    canvas = Canvas(
        figsize=(_WIDTH, sum(_A_BAR * height + _A_HEAD for height in heights)), layout="constrained"
    )
    axes = canvas.subplots(len(heights), 1, height_ratios=[height + 2 for height in heights], squeeze=False)
    _draw_aims(axes[0][0], figures)
    for place, result in zip(axes[1:, 0], shown, strict=True):
        _draw_rates(place, result)
    with mpl.rc_context({"svg.hashsalt": "notifier", "svg.fonttype": "none"}):
        canvas.savefig(path, format="svg", metadata={"Date": None})


def _draw_aims(axes: "Axes", figures: Sequence[Measured]) -> None:
    _bars(
        axes,
        [f"{each.name}  ({each.aim})" for each in figures],
        [min(each.of_aim or 0.0, _FURTHEST) for each in figures],
        [_MET if each.met else _MISSED for each in figures],
        [each.told for each in figures],
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(0, _FURTHEST * 1.4)
    axes.set_title("figures, as times their aims (at 1 it is met)", loc="left", fontsize=9)


def _draw_rates(axes: "Axes", result: Result) -> None:
    rates = {row: values["rate"] for row, values in spreads(result.rounds).items() if "rate" in values}
    medians = [spread.median for spread in rates.values()]
    colours = [_OURS if row.startswith("notifier") else _PLAIN for row in rates]
    form = result.columns["rate"].form
    _bars(axes, list(rates), medians, colours, [f"{median:{form}}" for median in medians])
    for place, spread in enumerate(rates.values()):
        _whisker(axes, place, spread)
    axes.set_xlim(0, max((spread.most for spread in rates.values()), default=1) * 1.2)
    axes.set_title(f"{result.title}: {result.columns['rate'].head}", loc="left", fontsize=9)


def _bars(
    axes: "Axes", names: Sequence[str], lengths: Sequence[float], colours: Sequence[str], words: Sequence[str]
) -> None:
    places = list(range(len(names)))
    bars = axes.barh(places, lengths, color=colours)
    axes.bar_label(bars, labels=words, padding=10, fontsize=8, bbox=_BEHIND_WORDS)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _whisker(axes: "Axes", place: int, spread: Spread) -> None:
    axes.plot([spread.least, spread.most], [place, place], color="black", linewidth=1, marker="|")
