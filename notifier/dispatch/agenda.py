"""Which lanes have work in the store, and from when on: what saves looking through the store for it.

One agenda a priority. It may name a lane that has no work (a claim then finds nothing, and corrects it);
a lane with work that it doesn't name is found by the next sweep.
"""

import heapq
from collections.abc import Callable
from math import inf

FULL = 50_000
"""Due lanes past which a sweep adds no more (what is said of a lane singly is taken up to twice as many), and
lanes to come past which one is only remembered as a time to sweep again."""

_UNTIDY = 1024
_BETWEEN_SWEEPS = 1.0


class Agenda:
    """The lanes with PENDING jobs of one priority."""

    def __init__(self) -> None:
        self.overflowed = False
        """Whether a due lane was left out for want of room, so that a sweep must look for it again."""
        self.sweep_at: float | None = None
        """The earliest time of a lane to come that was left out, so that a sweep must look for it then."""
        self._ready: dict[str, None] = {}
        self._parked: dict[str, None] = {}
        self._later: dict[str, float] = {}
        self._times: list[tuple[float, str]] = []
        self._being_claimed: dict[str, float | None] = {}

    def __len__(self) -> int:
        return len(self._ready) + len(self._later)

    @property
    def full(self) -> bool:
        """Whether a sweep should wait with adding more."""
        return len(self._ready) >= FULL

    @property
    def has_ready(self) -> bool:
        """Whether there is a lane to claim from."""
        return bool(self._ready)

    def is_behind(self, lane: str, now: float) -> bool:
        """Whether the store holds due work of a lane, older than what comes in now."""
        return self._is_due(lane) or self._later.get(lane, inf) <= now

    def _is_due(self, lane: str) -> bool:
        return lane in self._ready or lane in self._parked

    def note(self, lane: str, at: float, now: float) -> None:
        """Take note that a job of a lane becomes due at a time."""
        if lane in self._being_claimed:
            noted = self._being_claimed[lane]
            self._being_claimed[lane] = at if noted is None else min(noted, at)
        elif not self._is_due(lane):
            self._enter(lane, at, now)

    def _enter(self, lane: str, at: float, now: float) -> None:
        if at > now:
            self._enter_later(lane, at, now)
        elif len(self._ready) >= 2 * FULL:
            self.overflowed = True
        else:
            self._later.pop(lane, None)
            self._ready[lane] = None

    def _enter_later(self, lane: str, at: float, now: float) -> None:
        known = self._later.get(lane)
        if known is None and len(self._later) >= FULL:
            self.sweep_at = max(now + _BETWEEN_SWEEPS, min(at, self.sweep_at or at))
        elif known is None or at < known:
            self._later[lane] = at
            heapq.heappush(self._times, (at, lane))
            self._tidy()

    def _tidy(self) -> None:
        """Drop what no longer holds of the heap, before that is most of it."""
        if len(self._times) > 2 * len(self._later) + _UNTIDY:
            self._times = [(at, lane) for lane, at in self._later.items()]
            heapq.heapify(self._times)

    # When it is time -----------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Let the lanes be ready whose time has come."""
        while self._times and self._times[0][0] <= now:
            at, lane = heapq.heappop(self._times)
            if self._later.get(lane) == at:
                del self._later[lane]
                self._ready[lane] = None

    @property
    def next_time(self) -> float | None:
        """When there is something to do, at the earliest."""
        return _earlier(self._times[0][0] if self._times else None, self.sweep_at)

    # Turns ---------------------------------------------------------------------------------------

    def choose(self, most: int, crowded: Callable[[str], bool], held: Callable[[str], bool]) -> list[str]:
        """The lanes to claim from, in turn, and so many at most.

        Those that are crowded (the window has enough of them, or they are stopped) are put aside until
        `unpark`; those that are held are dropped: who lets them go on says so.
        """
        chosen: list[str] = []
        aside: list[str] = []
        for lane in self._ready:
            if len(chosen) >= most:
                break
            (aside if crowded(lane) else chosen).append(lane)
        for lane in aside:
            del self._ready[lane]
            if not held(lane):
                self._parked[lane] = None
        return chosen

    def unpark(self, lane: str) -> bool:
        """Bring a lane back, last in turn. Returns whether it had been put aside."""
        if lane not in self._parked:
            return False
        del self._parked[lane]
        self._ready[lane] = None
        return True

    # Around a claim ------------------------------------------------------------------------------

    def begin_claim(self, lanes: list[str]) -> None:
        """Listen for what is noted of these lanes from now on: the claim may have come too early for it."""
        self._being_claimed = dict.fromkeys(lanes)

    def end_claim(self, next_due: dict[str, float], served: set[str], now: float) -> None:
        """Take in what a claim said of its lanes. Those served, and still due, are last in turn then."""
        for lane, noted in self._being_claimed.items():
            due = _earlier(next_due.get(lane), noted)
            still_due = due is not None and due <= now
            if lane in self._ready and not (still_due and lane not in served):
                del self._ready[lane]
            if due is not None and not self._is_due(lane):
                self._enter(lane, due, now)
        self._being_claimed = {}

    def give_up_claim(self) -> None:
        """The claim failed: its lanes stay as they are."""
        self._being_claimed = {}


def _earlier(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
