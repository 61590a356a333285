"""The relays: kept connections to each, and which of them to try. Knows nothing of jobs."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import structlog
from msgspec import Struct

from notifier.channels.smtp import LONGEST_SEND, Broken, Envelope, RelayFault, Reply, Session, where
from notifier.config import Relay
from notifier.errors import DeliveryError, Permanent, Unavailable

CHECK_TIMEOUT = 5.0
"""The longest that a check of a relay takes, in seconds."""

# In times `relay.timeout`: a place in the pool, a mail on a kept connection that breaks at the last
# moment, a fresh connection, and the mail once more.
_LONGEST = 1 + LONGEST_SEND + 1 + LONGEST_SEND

_log = structlog.get_logger(__name__)


class Limits(Struct, frozen=True, kw_only=True):
    """How long connections are kept, and a failed relay is left alone; seconds, but for `messages`."""

    idle: float = 30.0
    messages: int = 100
    """How many mails one connection carries before it is closed."""
    rest: float = 5.0


class Relays:
    """The relays in their order: a mail goes to the first that isn't resting after a fault."""

    def __init__(
        self,
        relays: Sequence[Relay],
        *,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take the relays in their order; `tls` says whose certificates to trust, by default the system's."""
        if tls is None and any(relay.tls != "none" for relay in relays):
            tls = ssl.create_default_context()
        self._tls = tls
        self._pools = [Pool(relay, limits, clock, tls) for relay in relays]

    @property
    def patience(self) -> float:
        """The longest that `send` can take, in seconds."""
        return sum(_LONGEST * pool.relay.timeout for pool in self._pools)

    async def send(self, envelope: Envelope) -> Reply:
        """Hand one mail to the first relay that takes it, and return what it answered.

        Raises Transient or Permanent for what a relay said about the recipient or the mail, Unknown where
        it may have taken the mail and didn't say so, Unavailable where every relay is at fault.
        """
        faults = []
        for pool in self._pools:
            try:
                return await pool.send(envelope)
            except RelayFault as fault:
                faults.append(fault)
        raise _verdict(faults) from faults[-1]

    async def check(self) -> list[tuple[Relay, str | None]]:
        """Connect and log in to each relay, send nothing; say what is wrong with it, or None."""
        problems = await asyncio.gather(*(_check(pool.relay, self._tls) for pool in self._pools))
        return [(pool.relay, problem) for pool, problem in zip(self._pools, problems, strict=True)]

    async def close(self) -> None:
        """Take leave of every relay."""
        await asyncio.gather(*(pool.close() for pool in self._pools))


def _verdict(faults: list[RelayFault]) -> DeliveryError:
    """Sum up why no relay took a mail; the first one's fault names it, for it is the one that should have."""
    lacking = [fault for fault in faults if fault.code == "smtputf8_unsupported"]
    first = next((fault for fault in faults if fault not in lacking), faults[0])
    kind = Permanent if len(lacking) == len(faults) else Unavailable
    return kind(
        "; ".join(map(str, faults)),
        code=first.code,
        status_code=first.reply.code if first.reply else None,
        response=first.reply.text if first.reply else None,
    )


async def _check(relay: Relay, tls: ssl.SSLContext | None) -> str | None:
    relay = msgspec.structs.replace(relay, timeout=min(relay.timeout, CHECK_TIMEOUT))
    try:
        session = await Session.open(relay, tls)
    except RelayFault as fault:
        return fault.problem
    await session.quit()
    return None


class Pool:
    """The connections to one relay: at most `relay.connections`, the one last used going first."""

    def __init__(
        self, relay: Relay, limits: Limits, clock: Callable[[], float], tls: ssl.SSLContext | None
    ) -> None:
        self.relay = relay
        self._limits = limits
        self._clock = clock
        self._tls = tls
        self._places = asyncio.Semaphore(relay.connections)
        self._idle: list[Session] = []
        self._farewells: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self._fault: RelayFault | None = None
        self._rests_until = 0.0

    async def send(self, envelope: Envelope) -> Reply:
        """Send over a kept connection or a fresh one. Raises what `Relays.send` does, and RelayFault."""
        self._refuse_while_resting()
        try:
            async with self._place():
                reply = await self._deliver(envelope)
        except RelayFault as fault:
            if fault.rests:
                self._rest(fault)
            raise
        except DeliveryError:
            self._recover()  # it was about the mail: the relay works
            raise
        self._recover()
        return reply

    async def close(self) -> None:
        """Take leave on every connection that nobody uses; those in use are closed as they come back."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        while self._idle:
            self._take_leave(self._idle.pop())
        await asyncio.gather(*self._farewells)

    # Whether to try at all ------------------------------------------------------------------------

    def _refuse_while_resting(self) -> None:
        """Raise the last fault while it is fresh. After that one mail at a time tries the relay again."""
        if self._fault is None:
            return
        if self._clock() < self._rests_until:
            raise self._fault.again()
        self._rests_until = self._clock() + self._limits.rest

    def _recover(self) -> None:
        if self._fault is not None:
            _log.info("relay works again", relay=where(self.relay))
        self._fault = None

    def _rest(self, fault: RelayFault) -> None:
        if self._fault is None:
            _log.warning("relay at fault", relay=where(self.relay), code=fault.code, problem=fault.problem)
        self._fault = fault
        self._rests_until = self._clock() + self._limits.rest

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.relay.timeout):
                await self._places.acquire()
        except TimeoutError:
            problem = f"all {self.relay.connections} connections are in use"
            raise RelayFault(self.relay, "relay_busy", problem, rests=False) from None
        try:
            yield
        finally:
            self._places.release()

    # Connections ----------------------------------------------------------------------------------

    async def _deliver(self, envelope: Envelope) -> Reply:
        kept = self._take_kept()
        if kept is not None:
            # The server may have grown tired of it. Nothing was accepted, so a fresh one is as good.
            with contextlib.suppress(Broken):
                return await self._use(kept, envelope)
        try:
            return await self._use(await Session.open(self.relay, self._tls), envelope)
        except Broken as broken:
            raise broken.fault from broken

    async def _use(self, session: Session, envelope: Envelope) -> Reply:
        try:
            return await session.send(envelope)
        finally:
            self._give_back(session)

    def _take_kept(self) -> Session | None:
        self._drop_stale()
        return self._idle.pop() if self._idle else None

    def _give_back(self, session: Session) -> None:
        if not session.usable:
            return
        if self._closed or session.carried >= self._limits.messages:
            self._take_leave(session)
            return
        session.idle_since = self._clock()
        self._idle.append(session)
        self._sweep_later()

    def _drop_stale(self) -> None:
        """Take leave on what was idle for too long; the oldest stand first."""
        oldest = self._clock() - self._limits.idle
        while self._idle and not (self._idle[0].usable and self._idle[0].idle_since > oldest):
            self._take_leave(self._idle.pop(0))
        self._idle = [session for session in self._idle if session.usable]

    def _sweep_later(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._limits.idle, self._swept)

    def _swept(self) -> None:
        self._sweep = None
        self._drop_stale()
        if self._idle:
            self._sweep_later()

    def _take_leave(self, session: Session) -> None:
        farewell = asyncio.get_running_loop().create_task(session.quit())
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)
