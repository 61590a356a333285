"""Due jobs out of the SQLite store: one claim inside its transaction, fair by lane."""

import sqlite3
from collections import Counter
from collections.abc import Sequence

import msgspec

from notifier.store.base import WINDOW_BYTES
from notifier.store.queries import SQL, read
from notifier.store.rows import json_text, seconds


class Claiming(msgspec.Struct, kw_only=True):
    """One claim inside its transaction: an equal part of the due jobs of each lane, in the order named."""

    priority: int
    limit: int
    per_lane: int
    now: int
    until: int
    taken: list[int] = msgspec.field(default_factory=list)
    size: int = 0

    def run(self, database: sqlite3.Connection, lanes: Sequence[str]) -> tuple[str, dict[str, float]]:
        """Claim of these lanes: the JSON text of the query `claimed`, and when each one's next is due."""
        lanes = list(dict.fromkeys(lanes))
        self._take(database, lanes)
        text: str = database.execute(SQL["claimed"], {"seqs": json_text(self.taken)}).fetchone()[0]
        next_due = read(database, "next_due_of_lanes", priority=self.priority, lanes=json_text(lanes))
        return text, {lane: seconds(due) for lane, due in next_due if due is not None}

    def _take(self, database: sqlite3.Connection, lanes: Sequence[str]) -> None:
        """Take an equal part of each lane, then again of those that have more."""
        left = self.per_lane
        while lanes and left and self._has_room:
            part = min(left, max(1, (self.limit - len(self.taken)) // len(lanes)))
            found = self._due_of_lanes(database, lanes, part)
            self._claim(database, self._fitting(found))
            counts = Counter(lane for lane, _, _ in found)
            lanes = [lane for lane, count in counts.items() if count == part]
            left -= part

    @property
    def _has_room(self) -> bool:
        return len(self.taken) < self.limit and self.size < WINDOW_BYTES

    def _due_of_lanes(
        self, database: sqlite3.Connection, lanes: Sequence[str], part: int
    ) -> list[tuple[str, int, int]]:
        """Return lane, row number and bytes of data of each lane's first due jobs."""
        found: list[tuple[str, int, int]] = read(
            database,
            "due_of_lanes",
            lanes=json_text(lanes),
            priority=self.priority,
            now=self.now,
            per_lane=part,
        )
        return found

    def _claim(self, database: sqlite3.Connection, seqs: Sequence[int]) -> None:
        database.execute(SQL["claim"], {"seqs": json_text(seqs), "now": self.now, "until": self.until})

    def _fitting(self, found: Sequence[tuple[str, int, int]]) -> list[int]:
        """The row numbers of as many of these as there is room for, now taken."""
        before = len(self.taken)
        for _, seq, size in found:
            if not self._has_room:
                break
            self.taken.append(seq)
            self.size += size
        return self.taken[before:]
