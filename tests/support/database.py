"""A SQLite file as a process left it: looked at from outside, or made, with nothing of ours in between."""

import re
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


OLD_VERSIONS = (1, 2)


def make_version(version: int, path: Path) -> None:
    """Make the file that a notifier of an old schema left, with two events and what became of them."""
    script = Path(__file__).with_name(f"sqlite_{version}.sql").read_text("utf-8")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(script)


def shape(path: Path) -> dict[str, Any]:
    """The schema of a file: what SQLite knows of each table and index, and its statement without spaces."""
    with _reading(path) as database:
        made = database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        return {name: (re.sub(r"\s+|--.*", "", sql), _known_of(database, name)) for name, sql in made}


def _known_of(database: sqlite3.Connection, name: str) -> list[Any]:
    indexes = [row[1:] for row in database.execute(f"PRAGMA index_list({name})")]  # the first is its place
    others = ("table_xinfo", "index_xinfo", "foreign_key_list")
    return [sorted(indexes), *(database.execute(f"PRAGMA {about}({name})").fetchall() for about in others)]
