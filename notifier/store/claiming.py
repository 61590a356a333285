"""Due jobs out of the SQLite store: one claim inside its transaction, fair by lane."""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import msgspec

from notifier.store.base import WINDOW_BYTES
from notifier.store.queries import SQL, mark_claimed, read
from notifier.store.rows import json_text

_LANES_A_SCAN = 256


class Claiming(msgspec.Struct, kw_only=True):
    """One claim inside its transaction: an equal part of the due jobs of each lane, in the order named."""

    priority: int
    limit: int
    per_lane: int
    now: int
    until: int
    taken: list[int] = msgspec.field(default_factory=list)
    size: int = 0
    last: str | None = None

    def run(self, database: sqlite3.Connection, lanes: Sequence[str]) -> tuple[str, dict[str, int]]:
        """Claim of these lanes: the JSON text of the query `claimed`, and when each one's next is due."""
        lanes = list(dict.fromkeys(lanes))
        self._take(database, lanes)
        next_due = read(database, "next_due_of_lanes", priority=self.priority, lanes=json_text(lanes))
        return self._claimed(database), {lane: due for lane, due in next_due if due is not None}

    def _claimed(self, database: sqlite3.Connection) -> str:
        text: str = database.execute(SQL["claimed"], {"seqs": json_text(self.taken)}).fetchone()[0]
        return text

    def _take(self, database: sqlite3.Connection, lanes: Sequence[str]) -> str | None:
        """Take an equal part of each lane, then again of those that have more.

        Where room ran out, returns the lane to go on after: the last served, so that none is passed over.
        """
        left = self.per_lane
        while lanes and left:
            part = min(left, max(1, (self.limit - len(self.taken)) // len(lanes)))
            found = self._due_of_lanes(database, lanes, part)
            fitting = self._fitting(found)
            mark_claimed(database, [seq for _, seq, _ in fitting], self.now, self.until)
            if len(fitting) < len(found):
                return self.last or found[0][0]
            counts = Counter(lane for lane, _, _ in found)
            lanes = [lane for lane, count in counts.items() if count == part]
            left -= part
        return None

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

    def _fitting(self, found: Sequence[tuple[str, int, int]]) -> Sequence[tuple[str, int, int]]:
        """As many of these as there is room for, now taken."""
        for index, (lane, seq, size) in enumerate(found):
            if len(self.taken) >= self.limit or self.size >= WINDOW_BYTES:
                return found[:index]
            self.taken.append(seq)
            self.size += size
            self.last = lane
        return found


class Sweeping(Claiming, kw_only=True):
    """A claim that looks for the lanes itself."""

    scanned: dict[int, str]
    """Where the look at each priority's lanes goes on; kept by the store between claims."""
    exclude: Collection[str]
    only: Collection[str] | None

    def sweep(self, database: sqlite3.Connection) -> str:
        """Claim, and return the JSON text of the query `claimed`."""
        if self.only is not None:
            self._take(database, [lane for lane in dict.fromkeys(self.only) if lane not in self.exclude])
        elif database.execute(SQL["is_any_due"], {"now": self.now}).fetchone()[0]:
            rounds = self._once_round(database, self.scanned.get(self.priority, ""))
            cuts = (self._take(database, lanes) for lanes in rounds)
            self.scanned[self.priority] = next(filter(None, cuts), "")
        return self._claimed(database)

    def _once_round(self, database: sqlite3.Connection, start: str) -> Iterator[list[str]]:
        """All lanes with due work, some at a time: those after `start`, then those up to it."""
        for after, end in ((start, None), ("", start)) if start else (("", None),):
            last: str | None = after
            while last is not None and (end is None or last < end):
                last, lanes = self._due_lanes(database, last)
                yield [lane for lane in lanes if end is None or lane <= end]

    def _due_lanes(self, database: sqlite3.Connection, after: str) -> tuple[str | None, list[str]]:
        """Return the next lanes with due work, and the last one looked at (None: there are no more)."""
        last, lanes = read(
            database,
            "due_lanes",
            priority=self.priority,
            after=after,
            scan=_LANES_A_SCAN,
            exclude=json_text(list(self.exclude)),
            now=self.now,
        )
        return last, lanes
