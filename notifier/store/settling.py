"""What became of claimed jobs, into the SQLite store: one batch of settles inside its transaction."""

import sqlite3
from collections.abc import Mapping, Sequence

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
    held = [settlements[index] for index in live.values()]
    # Both before the state: what is finished has a destination if it is COMPLETED, and nothing kept.
    _make_out(database, held)
    _keep_and_forget(database, held, {settlements[index].job_id: seq for index, seq in unusual.items()})
    database.execute(SQL["settle"], {"settlements": json_text([values[index] for index in live.values()])})
    attempts = [rows.attempt_values(each, each.attempt) for each in held if each.attempt is not None]
    insert_rows(database, "insert_attempts", attempts)
    return [live.get(each.job_id) == index for index, each in enumerate(settlements)]


def _make_out(database: sqlite3.Connection, held: Sequence[Settlement]) -> None:
    for each in held:
        if each.destination is not None:
            made_out = {name: getattr(each, name) for name in ("destination", "lane", "locale")}
            addressed = None if each.addressed is None else json_text(each.addressed)
            database.execute(SQL["make_out"], made_out | {"id": each.job_id, "addressed": addressed})


def _keep_and_forget(
    database: sqlite3.Connection, held: Sequence[Settlement], seqs: Mapping[str, int | None]
) -> None:
    """Keep what jobs that are tried again have sent; forget what was kept of those that are finished."""
    finished = []
    for each in held:
        if each.status is not JobState.PENDING:
            finished.append(seqs.get(each.job_id))
        elif each.content is not None:
            kept.keep(database, each.job_id, each.content)
    if seqs:
        kept.forget(database, json_text([seq for seq in finished if seq is not None]))
