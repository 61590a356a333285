"""How commands print what the API answered: fields, tables, and where the time of an exchange went."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click
import msgspec

from notifier.cli.client import named_server_options
from notifier.cli.program import json_option, printable

_WHOLE = frozenset({"ID", "JOB", "CAUSE", "FINGERPRINT", "PUBLIC KEY"})
"""What one copies to name a thing stays whole, however narrow the terminal is."""


def server_and_output(function: Callable[..., None]) -> Callable[..., None]:
    """Add what every command over the API takes; `server` and `as_json` reach the function."""
    return named_server_options(json_option(function))


def print_fields(fields: Mapping[str, Any], indent: str = "") -> None:
    """Print what is set, a line each."""
    for name, value in fields.items():
        if value is not None:
            click.echo(f"{indent}{name:<16} {text_of(value)}")


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], *, always_headed: bool = False
) -> None:
    """Print a table on a terminal; lines with tabs between the cells elsewhere.

    Those have no heads, for scripts to read, unless `always_headed`: among other things a reader needs them.
    """
    cells = [[text_of(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [list(heads), *cells] if always_headed else cells:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, no_wrap=head in _WHOLE, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def text_of(value: object) -> str:
    """Write a value of JSON so that no terminal obeys it; nothing for null."""
    if value is None:
        return ""
    return printable(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def timings_line(timings: Mapping[str, Any]) -> str:
    """Say where the time of an exchange went; what took none (a connection used again) is left out."""
    parts = ("dns", "connect", "tls", "wait", "body")
    spent = [f"{part} {timings[f'{part}_ms']:.1f} ms" for part in parts if timings[f"{part}_ms"]]
    sent, received = timings["bytes_sent"], timings["bytes_received"]
    return f"{', '.join(spent) or 'no time'}; {sent:,} B sent, {received:,} B received"


def given(options: Mapping[str, str | None]) -> dict[str, str]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def segment(name: str) -> str:
    """Write a name as one segment of a path."""
    from urllib.parse import quote

    return quote(name, safe="")


def counted(number: int, noun: str) -> str:
    """Write a number of things: `1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
