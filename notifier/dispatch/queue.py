"""The claim window and its order: claimed jobs wait here, in memory and bounded, for a worker.

Higher priorities go first; within one, lanes take turns, each within its share (`limits`).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from notifier.dispatch.limits import lane_may_take, room_for
from notifier.model import Claim, Priority

MAX_BYTES = 32 * 1024**2
"""Event data that the window holds at most; past it no more is claimed."""
MAX_LANES = 10_000
"""Lanes remembered at most beyond those that hold jobs or are paused."""


class Lane:
    """What the window knows of one lane. Counts are by priority."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: tuple[deque[Claim], ...] = tuple(deque() for _ in Priority)
        self.held = [0] * len(Priority)
        self.in_flight = [0] * len(Priority)
        self.faults = 0
        self.paused_until: float | None = None
        self.pause_reason = ""

    @property
    def idle(self) -> bool:
        """Whether nothing is left that must be remembered."""
        return not any(self.held) and not self.faults and self.paused_until is None


class FairQueue:
    """Claims waiting for workers, at most `capacity` of them, those in flight included."""

    def __init__(self, *, capacity: int, workers: int) -> None:
        self.capacity = capacity
        self.workers = workers
        self.claims: dict[tuple[str, int], Claim] = {}
        """Everything held, by job id and fence: a job whose claim was lost may be held twice for a while."""
        self.on_room: Callable[[], None] = lambda: None
        """Called whenever a job leaves, so that more can be claimed."""
        self._lanes: dict[str, Lane] = {}
        self._turns: tuple[dict[str, None], ...] = tuple({} for _ in Priority)
        self._asking: deque[asyncio.Future[Claim | None]] = deque()
        self._bytes = 0
        self._busy = 0
        self._closed = False

    # For the dispatcher --------------------------------------------------------------------------

    def room(self, priority: int) -> int:
        """How many more jobs of a priority may be claimed."""
        if self._closed or self._bytes >= MAX_BYTES:
            return 0
        return room_for(priority, self.capacity - len(self.claims), self.capacity)

    def share(self, lane_name: str, priority: int) -> int:
        """How many more jobs of a lane may be claimed: half of what it may still take, to leave some free."""
        room = self.room(priority)
        lane = self._lanes.get(lane_name)
        if lane is not None and lane.paused_until is not None:
            return 0
        held = sum(lane.held[: priority + 1]) if lane else 0
        return (room - held + 1) // 2 if lane_may_take(held, room) else 0

    def is_crowded(self, lane_name: str, priority: int) -> bool:
        """Whether a lane waits, or holds so much that claiming more of it can wait too."""
        lane = self._lanes.get(lane_name)
        if lane is None:
            return False
        return lane.paused_until is not None or sum(lane.held[: priority + 1]) * 2 > self.room(priority)

    def crowded(self, priority: int) -> list[str]:
        """All lanes of which `is_crowded` holds."""
        return [name for name in self._lanes if self.is_crowded(name, priority)]

    def put(self, claim: Claim) -> None:
        """Take a claimed job in."""
        job = claim.job
        lane = self._lane(job.lane)
        self.claims[job.id, job.claim] = claim
        self._bytes += len(memoryview(claim.event.data))
        lane.held[job.priority] += 1
        lane.waiting[job.priority].append(claim)
        self._line_up(lane, job.priority)
        self._serve()

    # For the workers -----------------------------------------------------------------------------

    async def get(self) -> Claim | None:
        """Wait for the next claim to attempt; None: the queue is closed. Each one ends with `done`."""
        if self._closed:
            return None
        claim = self._next()
        if claim is not None:
            return claim
        asking: asyncio.Future[Claim | None] = asyncio.get_running_loop().create_future()
        self._asking.append(asking)
        try:
            return await asking
        except asyncio.CancelledError:
            self._take_back(asking)
            raise

    def done(self, claim: Claim) -> None:
        """A worker is finished with a claim."""
        lane = self._lanes[claim.job.lane]
        lane.in_flight[claim.job.priority] -= 1
        self._busy -= 1
        self._forget(claim, lane)
        self._serve()
        self.on_room()

    def pause(self, lane_name: str, *, seconds: float, until: float, reason: str) -> list[Claim]:
        """Let a lane wait: none of its jobs is handed out for so many seconds. `until` is for people.

        Returns its claims that no worker has begun, to be released: others need the room meanwhile.
        """
        lane = self._lane(lane_name)
        if self._closed or lane.paused_until is not None:
            return []
        lane.paused_until = until
        lane.pause_reason = reason
        for turns in self._turns:
            turns.pop(lane_name, None)
        asyncio.get_running_loop().call_later(seconds, self._resume, lane)
        return [*self._take_waiting(lane)]

    def fault(self, lane_name: str) -> int:
        """Count a provider's fault on a lane; returns how many came in a row."""
        lane = self._lane(lane_name)
        if lane.paused_until is None:
            lane.faults += 1
        return lane.faults

    def healthy(self, lane_name: str) -> None:
        """Forget a lane's faults: its provider answered."""
        if (lane := self._lanes.get(lane_name)) is not None:
            lane.faults = 0

    # For people ----------------------------------------------------------------------------------

    @property
    def busy(self) -> int:
        """How many workers are at an attempt."""
        return self._busy

    def lane(self, name: str) -> Lane | None:
        """What the window knows of a lane, or None where there is nothing to know."""
        return self._lanes.get(name)

    def is_waiting(self, claim: Claim) -> bool:
        """Whether a held claim still waits for a worker."""
        lane = self._lanes.get(claim.job.lane)
        return lane is not None and claim in lane.waiting[claim.job.priority]

    # At the end ----------------------------------------------------------------------------------

    def close(self) -> list[Claim]:
        """Hand out nothing any more. Returns the claims that no worker has begun, to be released."""
        self._closed = True
        for asking in self._asking:
            if not asking.done():
                asking.set_result(None)
        self._asking.clear()
        return [claim for lane in [*self._lanes.values()] for claim in self._take_waiting(lane)]

    def _take_waiting(self, lane: Lane) -> Iterator[Claim]:
        for waiting in lane.waiting:
            while waiting:
                claim = waiting.popleft()
                self._forget(claim, lane)
                yield claim

    # Inside --------------------------------------------------------------------------------------

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            if len(self._lanes) > MAX_LANES:
                self._forget_faults()
            lane = self._lanes[name] = Lane(name)
        return lane

    def _forget_faults(self) -> None:
        """Drop lanes that are only remembered for faults gone by."""
        for lane in [*self._lanes.values()]:
            if not any(lane.held) and lane.paused_until is None:
                del self._lanes[lane.name]

    def _forget(self, claim: Claim, lane: Lane) -> None:
        del self.claims[claim.job.id, claim.job.claim]
        self._bytes -= len(memoryview(claim.event.data))
        lane.held[claim.job.priority] -= 1
        if lane.idle:
            del self._lanes[lane.name]

    def _serve(self) -> None:
        """Give waiting workers what may go out now."""
        while self._asking:
            if self._asking[0].done():  # the worker was cancelled while it waited
                self._asking.popleft()
                continue
            claim = self._next()
            if claim is None:
                return
            self._asking.popleft().set_result(claim)

    def _next(self) -> Claim | None:
        free = self.workers - self._busy
        for priority, turns in enumerate(self._turns):
            if not room_for(priority, free, self.workers):
                return None
            for name in turns:
                lane = self._lanes[name]
                if lane_may_take(sum(lane.in_flight[: priority + 1]), free):
                    return self._hand_out(lane, priority)
        return None

    def _line_up(self, lane: Lane, priority: int) -> None:
        """Let a lane take its turns, unless it waits or has nothing to go out."""
        if lane.paused_until is None and lane.waiting[priority]:
            self._turns[priority].setdefault(lane.name)

    def _take_back(self, asking: asyncio.Future[Claim | None]) -> None:
        """Put back in its place what a worker was given in the moment that it was cancelled."""
        claim = asking.result() if asking.done() and not asking.cancelled() else None
        if claim is None:
            return
        lane, priority = self._lanes[claim.job.lane], claim.job.priority
        lane.in_flight[priority] -= 1
        self._busy -= 1
        lane.waiting[priority].appendleft(claim)
        self._line_up(lane, priority)
        self._serve()

    def _hand_out(self, lane: Lane, priority: int) -> Claim:
        claim = lane.waiting[priority].popleft()
        del self._turns[priority][lane.name]
        if lane.waiting[priority]:
            self._turns[priority][lane.name] = None
        lane.in_flight[priority] += 1
        self._busy += 1
        return claim

    def _resume(self, lane: Lane) -> None:
        lane.paused_until = None
        for priority in Priority:
            self._line_up(lane, priority)
        if lane.idle:
            self._lanes.pop(lane.name, None)
        self._serve()
        self.on_room()
