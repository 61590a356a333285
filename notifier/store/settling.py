"""What became of claimed jobs, into the SQLite store: one batch of settles inside its transaction."""

import sqlite3
from collections.abc import Iterable, Sequence

from notifier.model import JobState
from notifier.store import kept, rows
from notifier.store.base import Settlement
from notifier.store.queries import SQL, insert_rows, read
from notifier.store.rows import json_text


def settle_all(database: sqlite3.Connection, settlements: Sequence[Settlement]) -> list[bool]:
    """Settle those whose claim is still held; of two under one claim, the first."""
    values = [rows.settlement_values(each) for each in settlements]
    unusual: dict[int, int | None] = dict(read(database, "stale_or_kept", settlements=json_text(values)))
    live: dict[str, int] = {}
    for index, each in enumerate(settlements):
        if unusual.get(index, 0) is not None:
            live.setdefault(each.job_id, index)
    held = {index: settlements[index] for index in live.values()}
    # All before the state: what is finished has nothing kept, and a destination if it is COMPLETED.
    _make_out(database, held.values())
    _keep(database, held.values())
    _forget(database, [seq for index, seq in unusual.items() if index in held and _ends(held[index])])
    database.execute(SQL["settle"], {"settlements": json_text([values[index] for index in held])})
    attempts = [rows.attempt_values(each, each.attempt) for each in held.values() if each.attempt is not None]
    insert_rows(database, "insert_attempts", attempts)
    return [index in held for index in range(len(settlements))]


def _make_out(database: sqlite3.Connection, held: Iterable[Settlement]) -> None:
    for each in held:
        if each.destination is not None:
            made_out = {name: getattr(each, name) for name in ("destination", "lane", "locale")}
            addressed = None if each.addressed is None else json_text(each.addressed)
            database.execute(SQL["make_out"], made_out | {"id": each.job_id, "addressed": addressed})


def _keep(database: sqlite3.Connection, held: Iterable[Settlement]) -> None:
    for each in held:
        if each.content is not None and not _ends(each):
            kept.keep(database, each.job_id, each.content)


def _forget(database: sqlite3.Connection, seqs: Sequence[int | None]) -> None:
    if seqs:
        kept.forget(database, json_text(seqs))


def _ends(settled: Settlement) -> bool:
    """Whether nothing comes after it, and so nothing is to be sent again."""
    return settled.status is not JobState.PENDING
