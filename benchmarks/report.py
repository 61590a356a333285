"""A report as people read it: tables in Markdown. And as programs do: JSON."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from benchmarks.results import Measured, Report, Result, spreads

_MET = {None: "–", True: "yes", False: "**no**"}


def markdown(report: Report) -> str:
    """The figures that are aimed for, then every part's own tables."""
    return "\n\n".join((*_head(report), *(text for each in report.results for text in _part(each)))) + "\n"


def to_json(report: Report) -> bytes:
    """The report with every single run."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def aimed(report: Report) -> list[Measured]:
    """The figures that something is aimed for."""
    return [figure for result in report.results for figure in result.figures if figure.aim]


def _head(report: Report) -> Iterator[str]:
    yield f"{_facts(report.machine)}."
    yield f"{_facts(report.setting)}."
    if figures := aimed(report):
        yield _figures(figures)


def _facts(facts: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _part(result: Result) -> Iterator[str]:
    yield f"## {result.title}"
    if result.failed:
        yield f"Failed after {len(result.rounds)} rounds:\n\n```\n{result.failed}\n```"
    if result.rounds:
        yield _rows(result)
    if others := [figure for figure in result.figures if not figure.aim]:
        yield _figures(others)
    if result.notes:
        yield "\n".join(f"- {note}" for note in result.notes)


def _rows(result: Result) -> str:
    told = spreads(result.rounds)
    rows = [
        (
            row,
            *(
                values[name].told(column.form) if name in values else "–"
                for name, column in result.columns.items()
            ),
        )
        for row, values in told.items()
    ]
    count = len(result.rounds)
    title = f"{count} rounds" if count > 1 else "one round"
    return table((title, *(column.head for column in result.columns.values())), rows)


def _figures(figures: Sequence[Measured]) -> str:
    rows = [(each.name, each.told, each.aim or "–", _MET[each.met]) for each in figures]
    return table(("figure, within a round", "median (least to most)", "aim", "met"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first column is words, the others numbers."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join((line(head), f"|{rule}|", *map(line, rows)))
