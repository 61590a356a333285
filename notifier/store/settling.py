"""What became of claimed jobs, into the SQLite store: one batch of settles inside its transaction."""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from notifier.model import JobState
from notifier.store import kept, rows
from notifier.store.base import Settlement
from notifier.store.queries import SQL, Insert, read
from notifier.store.rows import json_text

_ATTEMPTS = Insert("insert_attempts")


def settle_all(database: sqlite3.Connection, settlements: Sequence[Settlement]) -> list[bool]:
    """Settle those whose claim is still held; of two under one claim, the first."""
    if _all_settled(database, settlements):
        return [True] * len(settlements)
    return _settled_apart(database, settlements)


def _all_settled(database: sqlite3.Connection, settlements: Sequence[Settlement]) -> bool:
    """Settle them all without looking first, as can nearly always be done; where it can't, change nothing."""
    if any(each.content is not None or each.destination is not None for each in settlements):
        return False
    database.execute("SAVEPOINT settling")  # ends with the transaction
    if _update(database, settlements) < len(settlements):
        database.execute("ROLLBACK TO settling")
        return False
    _add_attempts(database, settlements)
    return True


def _settled_apart(database: sqlite3.Connection, settlements: Sequence[Settlement]) -> list[bool]:
    """Settle those that can be, with all that goes with it."""
    claims = [(each.job_id, each.claim) for each in settlements]
    # By index: None where the claim is lost, else the row of a job of which something is kept.
    unusual: dict[int, int | None] = dict(read(database, "stale_or_kept", claims=json_text(claims)))
    live: dict[str, int] = {}
    for index, each in enumerate(settlements):
        if unusual.get(index, 0) is not None:
            live.setdefault(each.job_id, index)
    held = {index: settlements[index] for index in live.values()}
    # All before the state: what is finished has nothing kept, and a destination if it is COMPLETED.
    _make_out(database, held.values())
    _keep(database, held.values())
    _forget(database, [seq for index, seq in unusual.items() if index in held and _ends(held[index])])
    _update(database, held.values())
    _add_attempts(database, held.values())
    return [index in held for index in range(len(settlements))]


def _update(database: sqlite3.Connection, settlements: Collection[Settlement]) -> int:
    """Bring jobs to their states where the claim is held and nothing kept is in the way; returns how many."""
    done = [rows.completion_values(each) for each in settlements if _is_delivered(each)]
    others = [rows.settlement_values(each) for each in settlements if not _is_delivered(each)]
    changed = 0
    if done:
        changed += database.execute(SQL["complete"], {"settlements": json_text(done)}).rowcount
    if others:
        changed += database.execute(SQL["settle"], {"settlements": json_text(others)}).rowcount
    return changed


def _is_delivered(settled: Settlement) -> bool:
    """Whether it is as nearly all are, and `complete` says all of it."""
    return (
        settled.status is JobState.COMPLETED
        and settled.spent
        and settled.error is None
        and settled.cause is None
        and settled.next_attempt_at is None
    )


def _add_attempts(database: sqlite3.Connection, settlements: Iterable[Settlement]) -> None:
    values: list[Any] = []
    for each in settlements:
        if each.attempt is not None:
            values += rows.attempt_values(each, each.attempt)
    _ATTEMPTS.run(database, values)


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
