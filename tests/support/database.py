"""A SQLite file as a process left it: looked at from outside, with nothing of ours in between."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA query_only = ON")
        yield database


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask a query of a file that no process has open."""
    with _reading(path) as database:
        return database.execute(query).fetchall()


def integrity(path: Path) -> list[str]:
    """What SQLite finds wrong with the file, and with what its rows refer to; nothing is `["ok"]`."""
    with _reading(path) as database:
        found = [text for (text,) in database.execute("PRAGMA integrity_check")]
        found += [f"dangling: {row}" for row in database.execute("PRAGMA foreign_key_check")]
    return found
