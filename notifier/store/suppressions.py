"""Suppressions and bounces in the SQLite store."""

import sqlite3
from typing import Any

import msgspec

from notifier.model import Suppression, SuppressionReason
from notifier.store.base import SuppressionPage
from notifier.store.queries import SQL
from notifier.store.rows import micros, seconds


class _Row(msgspec.Struct, frozen=True, array_like=True):
    """The columns of `suppression_columns`, in order."""

    channel: str
    recipient: str
    category: str | None
    reason: SuppressionReason
    detail: str | None
    job_id: str | None
    created_at: int

    def suppression(self) -> Suppression:
        return Suppression(
            channel=self.channel,
            recipient=self.recipient,
            category=self.category,
            reason=self.reason,
            detail=self.detail,
            job_id=self.job_id,
            created_at=seconds(self.created_at),
        )


_row = msgspec.json.Decoder(_Row)

_BITS = 2**23
"""Of `Known`, a mebibyte: a million recipients leave eight of nine others unmistaken."""


class Known:
    """Of which recipients the store may know something: a suppression, or a bounce that is counted.

    No is certain, and spares nearly every mail two looks at the store (each a hand-over to its thread and
    back). Yes may be by mistake, or for what is dropped by now. A bit stands for all whose name hashes to it.
    """

    def __init__(self) -> None:
        self._bits = bytearray(_BITS // 8)

    def read(self, database: sqlite3.Connection) -> None:
        """Learn all that a store knows: 0.6 s for a million."""
        for (recipient,) in database.execute(SQL["known_recipients"]):
            self.add(recipient)

    def add(self, recipient: str) -> None:
        """Learn of one, before what there is to know of it is written: no answer may come first."""
        bit = hash(recipient) % _BITS
        self._bits[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, recipient: str) -> bool:
        bit = hash(recipient) % _BITS
        return bool(self._bits[bit >> 3] & 1 << (bit & 7))


def add(database: sqlite3.Connection, suppression: Suppression) -> bool:
    """Add one. False: there is one of this recipient and category, and it stays as it is."""
    values = msgspec.structs.asdict(suppression)
    values |= {"reason": str(suppression.reason), "created_at": micros(suppression.created_at)}
    return database.execute(SQL["add_suppression"], values).rowcount == 1


def drop(database: sqlite3.Connection, channel: str, recipient: str, category: str | None) -> bool:
    """Drop one. False: it was not there."""
    values = {"channel": channel, "recipient": recipient, "category": category}
    return database.execute(SQL["drop_suppression"], values).rowcount == 1


def covering(
    database: sqlite3.Connection, channel: str, recipient: str, category: str | None
) -> Suppression | None:
    """Read the one that keeps this from being sent."""
    values = {"channel": channel, "recipient": recipient, "category": category}
    found = database.execute(SQL["suppressed"], values).fetchone()
    return None if found is None else _row.decode(found[0]).suppression()


def page(
    database: sqlite3.Connection, narrowed: dict[str, Any], *, limit: int, after: int | None
) -> SuppressionPage:
    """Read a page of those that hold to `narrowed` (channel, recipient, reason), the last added first."""
    values = {name: value for name, value in narrowed.items() if value is not None}
    conditions = "\n".join(SQL[f"suppressions_{name}"] for name in values)
    values |= {"limit": limit + 1, "after": 2**62 if after is None else after}
    found = database.execute(SQL["suppressions"].replace("{conditions}", conditions), values).fetchall()
    more = len(found) > limit
    return SuppressionPage(
        [_row.decode(text).suppression() for _, text in found[:limit]], found[limit - 1][0] if more else None
    )


def count_bounce(database: sqlite3.Connection, channel: str, recipient: str, now: float) -> int:
    """Count one more; returns how many there are."""
    values = {"channel": channel, "recipient": recipient, "now": micros(now)}
    (count,) = database.execute(SQL["count_bounce"], values).fetchall()[0]
    return int(count)


def has_bounced(database: sqlite3.Connection, channel: str, recipient: str) -> bool:
    """Whether any is counted."""
    values = {"channel": channel, "recipient": recipient}
    return database.execute(SQL["has_bounced"], values).fetchone() is not None


def forget_bounces(database: sqlite3.Connection, channel: str, recipient: str) -> None:
    """Count from nothing again."""
    database.execute(SQL["forget_bounces"], {"channel": channel, "recipient": recipient})
