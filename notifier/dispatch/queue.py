"""The claim window and its order: claimed jobs wait here, in memory and bounded, for a worker.

Higher priorities go first; within one, lanes take turns, each within its share (`limits`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import inf

from notifier.dispatch.lanes import BREAKER_OPEN, Lane, Stop
from notifier.dispatch.limits import UNLIMITED, Limits, LimitsOf, lane_may_take, left_by, room_for
from notifier.model import Claim, Priority

MAX_BYTES = 32 * 1024**2
"""Event data that the window holds at most; past it no more is claimed."""
MAX_LANES = 10_000
"""Lanes remembered at most beyond those that hold jobs or are paused."""
_LONGEST = 3600.0
"""Seconds that a timer is set to at most: a rate may be as low as one likes."""
_SHORTEST = 0.001
"""And at least: one of a millisecond may end a little early, and would be set again and again."""


class FairQueue:
    """Claims waiting for workers, at most `capacity` of them, those in flight included.

    `limits_of` says what the lane of a name is held to; `timer` is a steady clock, in seconds.
    """

    def __init__(
        self,
        *,
        capacity: int,
        workers: int,
        limits_of: LimitsOf = lambda _lane: UNLIMITED,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.capacity = capacity
        self.workers = workers
        self.timer = timer
        self.claims: dict[tuple[str, int], Claim] = {}
        """Everything held, by job id and fence: a job whose claim was lost may be held twice for a while."""
        self.on_room: Callable[[str], None] = lambda _lane: None
        """Called with the lane whenever a job leaves it or it goes on, so that more can be claimed."""
        self.on_refused: Callable[[Sequence[Claim], float], None] = lambda _claims, _until: None
        """Called with claims that came too late for their lane, to be released until then."""
        self.reserved = 0
        """Room that is kept for what is being claimed just now."""
        self._left_by = [left_by(priority, workers) for priority in Priority]
        """The workers that each priority leaves free."""
        self._limits_of = limits_of
        self._lanes: dict[str, Lane] = {}
        self._turns: tuple[dict[str, Lane], ...] = tuple({} for _ in Priority)
        self._asking: deque[asyncio.Future[Claim | None]] = deque()
        self._bytes = 0
        self._busy = 0
        self._closed = False
        self._serving = False
        """Whether those that wait are about to be served."""
        self._tidy_at = MAX_LANES
        """How many lanes there are when those are looked for that may be forgotten."""

    # For the dispatcher --------------------------------------------------------------------------

    def room(self, priority: int) -> int:
        """How many more jobs of a priority may be claimed."""
        if self._closed or self._bytes >= MAX_BYTES:
            return 0
        return room_for(priority, self.capacity - len(self.claims) - self.reserved, self.capacity)

    def share(self, lane_name: str, priority: int) -> int:
        """How many more jobs of a lane may be claimed: half of what it may still take, to leave some free."""
        room = self.room(priority)
        lane = self._lanes.get(lane_name)
        if lane is None:
            most = self._limits_of(lane_name).most_at_first
            return (room + 1) // 2 if most == inf else int(min(most, (room + 1) // 2))
        if lane.stop is not None:
            return 0
        held = sum(lane.held[: priority + 1])
        fair = (room - held + 1) // 2 if lane_may_take(held, room) else 0
        return fair if lane.unlimited else int(min(fair, lane.wants(self.timer())))

    def is_crowded(self, lane_name: str, priority: int) -> bool:
        """Whether a lane is stopped, or holds so much that more of it can wait: until `on_room` is called."""
        lane = self._lanes.get(lane_name)
        if lane is None:
            return self._limits_of(lane_name).held is not None
        if lane.stop is not None or lane.limits.held is not None:
            return True
        if sum(lane.held[: priority + 1]) * 2 > self.room(priority):
            return True
        return not lane.unlimited and self._has_enough(lane)

    def _has_enough(self, lane: Lane) -> bool:
        """Whether its limits leave a lane no use for more. Where only time helps, a timer is set."""
        now = self.timer()
        if not lane.has_enough(now):
            return False
        if (seconds := lane.too_early_for_more(now)) and lane.waking is None:
            self._wake_in(lane, max(_SHORTEST, seconds))
        return True

    def _wake_in(self, lane: Lane, seconds: float) -> None:
        lane.waking = self._loop.call_later(min(seconds, _LONGEST), self._awake, lane)

    def is_held(self, lane_name: str) -> bool:
        """Whether nothing of a lane goes out until an operator says so."""
        return self._limits_of(lane_name).held is not None

    def take_in(self, claims: Sequence[Claim]) -> None:
        """Take in what was just claimed, save of lanes stopped or held meanwhile: that goes back."""
        refused: dict[str, list[Claim]] = {}
        for claim in claims:
            lane = self._lane(claim.job.lane)
            if lane.stop is None and lane.limits.held is None:
                self._put(claim, lane)
            else:
                refused.setdefault(lane.name, []).append(claim)
        self._serve()
        for name, theirs in refused.items():
            lane = self._lanes[name]
            self.on_refused(theirs, 0.0 if lane.stop is None else lane.stop.until)
            self._drop_if_idle(lane)

    def put(self, claim: Claim) -> None:
        """Take a claimed job in."""
        self._put(claim, self._lane(claim.job.lane))
        self._serve()

    def _put(self, claim: Claim, lane: Lane) -> None:
        job = claim.job
        self.claims[job.id, job.claim] = claim
        self._bytes += len(memoryview(claim.event.data))
        lane.held[job.priority] += 1
        lane.waiting[job.priority].append(claim)
        if lane.unlimited and lane.stop is None:
            self._turns[job.priority].setdefault(lane.name, lane)
        else:
            self._line_up(lane)

    # For the workers -----------------------------------------------------------------------------

    async def get(self) -> Claim | None:
        """Wait for the next claim to attempt; None: the queue is closed.

        Each one ends with `done`, or with `landed` and `settled`.
        """
        if self._closed:
            return None
        claim = self._next()
        if claim is not None:
            return claim
        asking: asyncio.Future[Claim | None] = self._loop.create_future()
        self._asking.append(asking)
        try:
            return await asking
        except asyncio.CancelledError:
            self._take_back(asking)
            raise

    def landed(self, claim: Claim) -> None:
        """A worker is finished with a claim, which is held until it is `settled`."""
        lane = self._lanes[claim.job.lane]
        lane.in_flight[claim.job.priority] -= 1
        self._busy -= 1
        if not lane.unlimited:
            self._line_up(lane)
        if self._asking:
            self._serve_soon()

    def settled(self, claim: Claim) -> None:
        """What became of a claim is written down, or no longer ours to write: it leaves its room."""
        if (claim.job.id, claim.job.claim) in self.claims:
            lane = self._lanes[claim.job.lane]
            self._forget(claim, lane)
            self.on_room(lane.name)

    def done(self, claim: Claim) -> None:
        """A worker is finished with a claim, and nothing is left to write of it."""
        self.landed(claim)
        self.settled(claim)

    # What holds a lane up ------------------------------------------------------------------------

    def stop(self, lane_name: str, stop: Stop, seconds: float) -> list[Claim]:
        """Let a lane wait: none of its jobs is handed out for so many seconds.

        A lane that waits already waits for whichever ends later. Returns its claims that no worker has
        begun, to be released: others need the room meanwhile.
        """
        lane = self._lane(lane_name)
        if self._closed or (lane.stop is not None and lane.stop.until >= stop.until):
            return []
        if lane.resuming is not None:
            lane.resuming.cancel()
        lane.stop = stop
        lane.resuming = self._loop.call_later(seconds, self._resume, lane)
        self._line_up(lane)
        return [*self._take_waiting(lane)]

    def fault(self, lane_name: str) -> int:
        """Count a provider's fault on a lane; returns how many came in a row."""
        lane = self._lane(lane_name)
        lane.faults += 1
        return lane.faults

    def provider_answered(self, lane_name: str) -> None:
        """Forget a lane's faults: whatever came back, its provider is there."""
        if (lane := self._lanes.get(lane_name)) is not None:
            lane.faults = 0

    def succeeded(self, lane_name: str) -> None:
        """Take note that a lane's receiver took something: no fault is held against it any more."""
        lane = self._lanes.get(lane_name)
        if lane is None or (not lane.faults and lane.breaker is None):
            return
        lane.succeeded(self.timer())
        if lane.stop is not None and lane.stop.reason == BREAKER_OPEN and lane.resuming is not None:
            lane.resuming.cancel()
            self._resume(lane)
        else:
            self._line_up(lane)

    def refresh(self, lane_name: str) -> list[Claim]:
        """Look up anew what a lane is held to. Returns the claims to be released, if it is to be held."""
        lane = self._lanes.get(lane_name)
        if lane is None:
            self.on_room(lane_name)
            return []
        lane.hold_to(self._limits_of(lane_name), self.timer())
        lane.forget_waking()  # its old rate's time is not that of its new one
        withdrawn = [*self._take_waiting(lane)] if lane.limits.held is not None else []
        self._line_up(lane)
        self._drop_if_idle(lane)
        self._serve()
        self.on_room(lane_name)
        return withdrawn

    # For people ----------------------------------------------------------------------------------

    @property
    def busy(self) -> int:
        """How many workers are at an attempt."""
        return self._busy

    def lane(self, name: str) -> Lane | None:
        """What the window knows of a lane, or None where there is nothing to know."""
        return self._lanes.get(name)

    def limits(self, name: str) -> Limits:
        """What a lane is held to."""
        return self._limits_of(name)

    def remembered(self, name: str) -> Lane:
        """A lane, to note something on that outlives its jobs."""
        return self._lane(name)

    def is_waiting(self, claim: Claim) -> bool:
        """Whether a held claim still waits for a worker."""
        lane = self._lanes.get(claim.job.lane)
        return lane is not None and claim in lane.waiting[claim.job.priority]

    def withdraw(self, job_id: str, fence: int) -> Claim | None:
        """Take out a claim that no worker has begun, to be settled otherwise; None: there is no such."""
        claim = self.claims.get((job_id, fence))
        if claim is None or not self.is_waiting(claim):
            return None
        lane = self._lanes[claim.job.lane]
        lane.waiting[claim.job.priority].remove(claim)
        self._line_up(lane)
        self._forget(claim, lane)
        self.on_room(lane.name)
        return claim

    # At the end ----------------------------------------------------------------------------------

    def close(self) -> list[Claim]:
        """Hand out nothing any more. Returns the claims that no worker has begun, to be released."""
        self._closed = True
        for asking in self._asking:
            if not asking.done():
                asking.set_result(None)
        self._asking.clear()
        for lane in self._lanes.values():
            lane.set_no_timer()
        return [claim for lane in [*self._lanes.values()] for claim in self._take_waiting(lane)]

    def _take_waiting(self, lane: Lane) -> Iterator[Claim]:
        for waiting in lane.waiting:
            while waiting:
                claim = waiting.popleft()
                self._forget(claim, lane)
                yield claim

    # Inside --------------------------------------------------------------------------------------

    @cached_property
    def _loop(self) -> asyncio.AbstractEventLoop:
        """The loop that all of it runs on; asked for once, as it costs a system call."""
        return asyncio.get_running_loop()

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            if len(self._lanes) > self._tidy_at:
                self._forget_past()
            lane = self._lanes[name] = Lane(name, self._limits_of(name), self.timer())
        return lane

    def _forget_past(self) -> None:
        """Drop lanes that are only remembered for failures gone by; a burst that was used up still counts."""
        now = self.timer()
        for lane in [*self._lanes.values()]:
            if not lane.in_use and (lane.bucket is None or lane.bucket.is_full(now)):
                del self._lanes[lane.name]
        # Where most are in use, looking again at each new one would cost more than remembering it.
        self._tidy_at = max(MAX_LANES, len(self._lanes) + len(self._lanes) // 4)

    def _drop_if_idle(self, lane: Lane) -> None:
        if lane.is_idle(self.timer):
            self._lanes.pop(lane.name, None)

    def _forget(self, claim: Claim, lane: Lane) -> None:
        del self.claims[claim.job.id, claim.job.claim]
        self._bytes -= len(memoryview(claim.event.data))
        lane.held[claim.job.priority] -= 1
        if not any(lane.held):
            self._drop_if_idle(lane)

    def _serve_soon(self) -> None:
        """Serve those that wait, after the worker that is done: that one goes on without a future (2 µs)."""
        if not self._serving and any(self._turns):
            self._serving = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Give waiting workers what may go out now."""
        self._serving = False
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
            if not turns:
                continue
            if free <= self._left_by[priority]:
                return None
            for lane in turns.values():
                if lane_may_take(sum(lane.in_flight[: priority + 1]), free):
                    return self._hand_out(lane, priority)
        return None

    def _line_up(self, lane: Lane) -> None:
        """Let a lane take its turns where it has jobs and they may go; if it is only too early, wake then."""
        may_go = lane.may_go(self.timer())
        for turns, waiting in zip(self._turns, lane.waiting, strict=True):
            if may_go and waiting:
                turns.setdefault(lane.name, lane)
            else:
                turns.pop(lane.name, None)
        if not may_go and (seconds := lane.too_early(self.timer())) and lane.waking is None:
            self._wake_in(lane, seconds)

    def _awake(self, lane: Lane) -> None:
        """A lane with a rate may have its next attempt now, or has use for more of its jobs."""
        lane.waking = None
        self._line_up(lane)
        self._drop_if_idle(lane)
        self._serve()
        self.on_room(lane.name)

    def _take_back(self, asking: asyncio.Future[Claim | None]) -> None:
        """Put back in its place what a worker was given in the moment that it was cancelled."""
        claim = asking.result() if asking.done() and not asking.cancelled() else None
        if claim is None:
            return
        lane, priority = self._lanes[claim.job.lane], claim.job.priority
        lane.in_flight[priority] -= 1
        self._busy -= 1
        lane.waiting[priority].appendleft(claim)
        self._line_up(lane)
        self._serve()

    def _hand_out(self, lane: Lane, priority: int) -> Claim:
        claim = lane.waiting[priority].popleft()
        del self._turns[priority][lane.name]
        lane.in_flight[priority] += 1
        self._busy += 1
        if not lane.unlimited:
            if lane.bucket is not None:
                lane.bucket.take(self.timer())
                self.on_room(lane.name)  # it has use for another, however long this one flies
            self._line_up(lane)
        elif lane.waiting[priority]:
            self._turns[priority][lane.name] = lane
        return claim

    def _resume(self, lane: Lane) -> None:
        lane.resumed()
        self._line_up(lane)
        self._drop_if_idle(lane)
        self._serve()
        self.on_room(lane.name)
