"""The connections of a transport: how many may be in use, which wait for their next request, and how long."""

import asyncio
from collections import OrderedDict, deque

from notifier.channels.deadlines import Deadlines
from notifier.channels.dials import Dial, current
from notifier.channels.egress import Egress
from notifier.channels.line import Line
from notifier.channels.origins import Origin
from notifier.errors import Transient

MOST_KEPT = 256
"""Idle connections that are kept: each holds a file descriptor, of which a process may have few (1,024)."""
KEPT_FOR = 15.0
"""Seconds that an idle connection is kept: receivers close theirs sooner or later, just as we write."""


class Connections:
    """Lines to receivers: at most so many in use at once, and kept while they can serve again."""

    def __init__(self, egress: Egress, *, most: int) -> None:
        self._egress = egress
        self._loop = asyncio.get_running_loop()
        self._free = most
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._deadlines: Deadlines[Line] = Deadlines()
        self._idle: OrderedDict[Line, None] = OrderedDict()
        """Those that wait, the longest first; each is on the list of its origin too."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def under_way(self) -> set[Line]:
        """The lines that are in use."""
        return self._deadlines.under_way

    @property
    def idle(self) -> list[Line]:
        """The lines that wait for their next request, the longest first."""
        return list(self._idle)

    def take(self, origin: Origin, until: float) -> Line | None:
        """Take a kept line for one exchange, if there is one, and a place. Costs no turn of the loop."""
        if not self._free:
            return None
        line = self._find_idle(origin)
        if line is not None:
            self._free -= 1
            line.until = until
            self._deadlines.watch(line)
        return line

    async def connect(self, origin: Origin, until: float, dial: Dial, *, anew: bool = False) -> Line:
        """Wait for a place, and take a line: a new one, unless one came back meanwhile and will do.

        `dial` hears what becomes of it. Raises what aiohttp's connector does, and DeliveryError. To be run
        under the deadline: that watches over the line only once it is there.
        """
        await self._enter()
        try:
            kept = None if anew else self._find_idle(origin)
            line = kept or await self._dialled(origin, dial)
        except BaseException:
            self._leave()
            raise
        line.until = until
        self._deadlines.watch(line)
        return line

    async def close(self) -> None:
        """Close every line, and wait until all are closed."""
        self._closed = True
        self._deadlines.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
        lines = [*self._idle, *self.under_way]
        for line in lines:
            line.close()
        await asyncio.gather(*[line.gone for line in lines])
        await self._egress.close()

    # For lines --------------------------------------------------------------------------------------

    def ended(self, line: Line, *, keep: bool) -> None:
        """See `Owner`: a line is kept in place of the one that waits longest, where there are too many."""
        self._deadlines.forget(line)
        if keep and not self._closed:
            self._keep(line)
        else:
            line.close()
        self._leave()

    def lost(self, line: Line) -> None:
        """See `Owner`."""
        if line in self._idle:
            self._drop(line)

    # Idle lines -------------------------------------------------------------------------------------

    def _find_idle(self, origin: Origin) -> Line | None:
        """Find a line that can serve: the last that did. What it leads to must still be allowed."""
        while origin.idle:
            line = origin.idle.pop()
            del self._idle[line]
            if line.is_open and self._egress.is_allowed(line):
                return line
            line.close()
        return None

    def _keep(self, line: Line) -> None:
        line.idle_since = self._loop.time()
        self._idle[line] = None
        line.origin.idle.append(line)
        if len(self._idle) > MOST_KEPT:
            self._drop(next(iter(self._idle)))
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(KEPT_FOR, self._sweep)

    def _drop(self, line: Line) -> None:
        del self._idle[line]
        line.origin.idle.remove(line)
        line.close()

    def _sweep(self) -> None:
        """Close what has waited too long: one timer for all, which isn't set while nothing waits."""
        self._sweeping = None
        now = self._loop.time()
        for line in self.idle:
            if line.idle_since + KEPT_FOR > now:
                self._sweeping = self._loop.call_at(line.idle_since + KEPT_FOR, self._sweep)
                return
            self._drop(line)

    # New lines, and places --------------------------------------------------------------------------

    async def _dialled(self, origin: Origin, dial: Dial) -> Line:
        current.set(dial)
        line = await self._egress.dial(origin)
        if self._closed:
            line.close()
            raise Transient("the transport was closed", code="connect_failed")
        line.owner, line.origin = self, origin
        return line

    async def _enter(self) -> None:
        """Wait for a place, in turn."""
        if self._free:
            self._free -= 1
            return
        place = self._loop.create_future()
        self._waiting.append(place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled():  # it was given just as it was given up
                self._leave()
            raise

    def _leave(self) -> None:
        """Give a place back: to whoever waits longest, if anyone does."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1
