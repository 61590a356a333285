"""Which schema a SQLite file has, and how it comes to have this program's."""

import sqlite3
from pathlib import Path

from notifier.errors import StoreTooNewError
from notifier.store import sql

SCHEMA_VERSION = 3


def begin(database: sqlite3.Connection, path: Path) -> None:
    """Begin a transaction that, once committed, has brought the file up to date: new, or step by step.

    Raises StoreTooNewError, naming `path`, for a schema that this program doesn't know yet.
    """
    ((version,),) = database.execute("PRAGMA user_version").fetchall()
    if version > SCHEMA_VERSION:
        raise StoreTooNewError(
            f"{path}: written by a newer notifier (schema {version}, known: {SCHEMA_VERSION})"
        )
    # A script commits what is open before it begins, so the transaction begins within it.
    database.executescript(f"BEGIN IMMEDIATE;\n{_steps(version)}\nPRAGMA user_version = {SCHEMA_VERSION};")


def _steps(version: int) -> str:
    """The statements that lead from a version to the present one."""
    if version == 0:
        return sql.script("sqlite_schema.sql")
    return "".join(sql.script(f"sqlite_{step}.sql") for step in range(version + 1, SCHEMA_VERSION + 1))
