"""How a message is printed: part by part, so that no terminal obeys what stands in it."""

from collections.abc import Mapping

import click

from notifier.cli.program import printable


def print_part(name: str, part: object, indent: str = "") -> None:
    """Print one part of a message; a text of several lines stands below its name."""
    if isinstance(part, Mapping):
        for inner, value in part.items():
            print_part(f"{name}.{inner}", value, indent)
    elif isinstance(part, str) and "\n" in part:
        click.echo(f"{indent}{name}:")
        for line in part.splitlines():
            click.echo(f"{indent}  {printable(line)}")
    elif part is not None:
        click.echo(f"{indent}{name}: {printable(str(part))}")
