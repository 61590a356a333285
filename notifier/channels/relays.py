"""The relays: kept connections to each, which of them to try, and what each taught. Knows nothing of jobs."""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import msgspec
import structlog

from notifier.channels.conversation import Conversation
from notifier.channels.deadlines import Deadlines
from notifier.channels.pacing import PATIENCE, Ceiling, Clock, Pace
from notifier.channels.replies import About, Lesson, Reply, Rules
from notifier.channels.smtp import Broken, Envelope, RelayFault, Session, where
from notifier.channels.standing import Standing
from notifier.config import Duration, Relay, ReplyRule
from notifier.errors import DeliveryError, Permanent, Transient, Unavailable

CHECK_TIMEOUT = 5.0
"""The longest that a check of a relay takes, in seconds."""

_CROWDED = 2  # connections that may be refused for there being too many, until a mail is put off

_log = structlog.get_logger(__name__)


class Relays:
    """The relays in their order: a mail goes to the first that isn't resting after a fault."""

    def __init__(
        self,
        relays: Sequence[Relay],
        *,
        rules: Sequence[ReplyRule] = (),
        directory: Path = Path(),
        clock: Clock = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Take the relays in their order, and the rules that count before the built-in ones.

        `directory` is where relative paths count from; `tls` says whose certificates to trust, by default the
        system's.
        """
        if tls is None and any(relay.tls != "none" for relay in relays):
            tls = ssl.create_default_context()
        self._tls = tls
        self._rules = Rules(rules)
        self._relays = list(relays)
        self._pools = [Pool(_located(relay, directory), self._rules, clock, tls) for relay in relays]

    async def send(self, envelope: Envelope) -> Reply:
        """Hand one mail to the first relay that takes it, and return what it answered.

        Raises Bounced, Permanent or Transient for what a relay said about the recipient or the mail, Unknown
        where it may have taken the mail and didn't say so, Unavailable where every relay is at fault or has
        had too much. `via` names the relay, in the reply and in the error. Every phase has its own time, so
        that there is no other for the whole.
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
        problems = await asyncio.gather(*(pool.check() for pool in self._pools))
        return list(zip(self._relays, problems, strict=True))

    async def close(self) -> None:
        """Take leave of every relay."""
        await asyncio.gather(*(pool.close() for pool in self._pools))


def _located(relay: Relay, directory: Path) -> Relay:
    if relay.token_file is None:
        return relay
    return msgspec.structs.replace(relay, token_file=str(directory / relay.token_file))


def _verdict(faults: list[RelayFault]) -> DeliveryError:
    """Sum up why no relay took a mail; the first one's fault names it, for it is the one that should have."""
    lacking = [fault for fault in faults if fault.code == "smtputf8_unsupported"]
    first = next((fault for fault in faults if fault not in lacking), faults[0])
    kind = Permanent if len(lacking) == len(faults) else Unavailable
    waits = [fault.wait for fault in faults if fault.wait is not None]
    return kind(
        "; ".join(map(str, faults)),
        code=first.code,
        status_code=first.reply.code if first.reply else None,
        response=first.reply.text if first.reply else None,
        retry_after=min(waits) if len(waits) == len(faults) else None,
        via=where(first.relay),
    )


class Places:
    """The right to use a connection: never more at once than is allowed, first come, first served."""

    def __init__(self, allowed: Callable[[], int]) -> None:
        self.taken = 0
        self._allowed = allowed
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take_at_once(self) -> bool:
        """Take a place if there is one."""
        free = self.taken < self._allowed() and not self._waiting
        self.taken += free
        return free

    async def take(self, seconds: float) -> None:
        """Take a place, as soon as there is one. Raises TimeoutError where that is too long."""
        if self.take_at_once():
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        # asyncio.timeout would take five times as long, and most mails wait here while there is much to send.
        timer = loop.call_later(seconds, _is_late, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled() and turn.exception() is None:
                self.leave()  # it was given while we gave up
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Give a place back, to those who wait as far as it is allowed."""
        self.taken -= 1
        while self._waiting and (self._waiting[0].done() or self.taken < self._allowed()):
            turn = self._waiting.popleft()
            if not turn.done():
                self.taken += 1
                turn.set_result(None)


def _is_late(turn: "asyncio.Future[None]") -> None:
    if not turn.done():
        turn.set_exception(TimeoutError())


class Pool:
    """The connections to one relay: at most `relay.connections`, the one last used going first."""

    def __init__(self, relay: Relay, rules: Rules, clock: Clock, tls: ssl.SSLContext | None) -> None:
        self._relay = relay
        self._rules = rules
        self._clock = clock
        self._tls = tls
        self._connections = Ceiling(relay.connections, clock)
        self._messages = Ceiling(relay.messages, clock)
        self._pace = Pace(clock)
        self._places = Places(lambda: self._connections.now)
        self._idle: list[Session] = []
        self._busy = 0
        self._farewells: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self._standing = Standing(relay, clock)
        self._name = where(relay)

    @cached_property
    def _deadlines(self) -> Deadlines[Conversation]:
        """By when each connection must have heard its next reply; asked for once there is a loop."""
        return Deadlines()

    async def send(self, envelope: Envelope) -> Reply:
        """Send over a kept connection or a fresh one. Raises what `Relays.send` does, and RelayFault."""
        self._standing.refuse_while_resting()
        if wait := self._pace.turn():
            await self._wait_for_turn(wait)
        try:
            reply = await self._carried(envelope)
        except RelayFault as fault:
            self._learn(fault)
            if self._standing.is_the_mails(fault, envelope.recipient):
                raise _of_the_mail(fault) from fault
            raise
        except DeliveryError:
            self._standing.answered()  # it was about the mail: the relay works
            raise
        self._standing.took()
        return Reply(reply.code, reply.text, self._name)

    async def check(self) -> str | None:
        """Connect and log in; returns what is wrong, or None."""
        brief = Duration(min(self._relay.connect_timeout, CHECK_TIMEOUT))
        relay = msgspec.structs.replace(self._relay, connect_timeout=brief)
        try:
            session = await Session.open(relay, self._tls, self._rules, self._deadlines)
        except RelayFault as fault:
            return fault.problem
        await session.quit()
        return None

    async def close(self) -> None:
        """Take leave on every connection that nobody uses; those in use are closed as they come back."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        while self._idle:
            self._take_leave(self._idle.pop())
        await asyncio.gather(*self._farewells)

    # What the relay bears ------------------------------------------------------------------------

    async def _wait_for_turn(self, wait: float) -> None:
        """Wait for a turn that is near; raise RelayFault for one that isn't."""
        if wait > PATIENCE:
            problem = f"it takes no more than {self._pace.limit or 0:.3g} mails a second"
            raise RelayFault(self._relay, "relay_throttled", problem, rests=False, wait=wait)
        await asyncio.sleep(wait)

    def _learn(self, fault: RelayFault) -> None:
        """Heed what a throttle was about. Too many mails on a fresh connection are too many at all."""
        throttled = fault.meaning is not None and fault.meaning.about is About.THROTTLE
        if throttled and fault.lesson in {Lesson.RATE, Lesson.MAILS} and self._pace.complain():
            limit = self._pace.limit or 0
            _log.warning("relay slows us down", relay=where(self._relay), a_second=f"{limit:.3g}")

    def _learn_mails(self, carried: int) -> None:
        """A connection that was ended after so many mails, where a fresh one took the next, bears no more."""
        if self._messages.lower(carried):
            _log.info("relay takes fewer mails a connection", relay=where(self._relay), mails=carried)

    def _learn_connections(self) -> bool:
        """One too many was refused. Returns whether there are others that a mail can wait for."""
        others = self._places.taken - 1
        if self._connections.lower(others):
            _log.info("relay takes fewer connections", relay=where(self._relay), connections=others)
        return others > 0

    # Connections ---------------------------------------------------------------------------------

    async def _carried(self, envelope: Envelope) -> Reply:
        """Send over whichever connection there is a place for."""
        for left in reversed(range(_CROWDED)):
            if not self._places.take_at_once():
                await self._wait_for_place()
            try:
                return await self._delivered(envelope)
            except RelayFault as fault:
                crowded = fault.lesson is Lesson.CONNECTIONS and self._learn_connections()
                if not (crowded and left):
                    raise
            finally:
                self._places.leave()
        raise AssertionError("the last try returns or raises")

    async def _wait_for_place(self) -> None:
        try:
            await self._places.take(self._relay.timeout)
        except TimeoutError:
            problem = f"all {self._places.taken} connections are in use"
            raise RelayFault(self._relay, "relay_busy", problem, rests=False) from None

    async def _delivered(self, envelope: Envelope) -> Reply:
        kept = self._take_kept()
        ended: Broken | None = None
        if kept is not None:
            # The server may have grown tired of it. Nothing was accepted, so a fresh one is as good.
            try:
                return await self._use(kept, envelope)
            except Broken as broken:
                ended = broken
        try:
            reply = await self._use(await self._opened(), envelope)
        except Broken as broken:
            raise broken.fault from broken
        if kept is not None and ended is not None and ended.meaning is not None and ended.meaning.lesson:
            self._learn_mails(kept.carried)
        return reply

    async def _opened(self) -> Session:
        session = await Session.open(self._relay, self._tls, self._rules, self._deadlines)
        session.opened_at = self._clock()
        return session

    async def _use(self, session: Session, envelope: Envelope) -> Reply:
        self._busy += 1
        try:
            return await session.send(envelope)
        finally:
            self._busy -= 1
            self._give_back(session)

    def _take_kept(self) -> Session | None:
        """The one last used; those that have been idle for longer, the sweep looks at."""
        while self._idle:
            session = self._idle.pop()
            if not session.usable:
                continue
            if self._fresh(session):
                return session
            self._take_leave(session)
        return None

    def _give_back(self, session: Session) -> None:
        if not session.usable:
            return
        session.idle_since = self._clock()
        if self._closed or self._surplus or not self._fresh(session):
            self._take_leave(session)
            return
        self._idle.append(session)
        self._sweep_later()

    @property
    def _surplus(self) -> bool:
        """Whether the relay bears no other connection than those there are, since it taught us so."""
        return self._busy + len(self._idle) >= self._connections.now

    def _drop_stale(self) -> None:
        """Take leave on what was idle for too long, is too old, or carried all that the relay bears."""
        kept = []
        for session in self._idle:
            if session.usable and self._fresh(session):
                kept.append(session)
            elif session.usable:
                self._take_leave(session)
        self._idle = kept

    def _fresh(self, session: Session) -> bool:
        now, relay = self._clock(), self._relay
        return (
            now - session.idle_since < relay.idle
            and now - session.opened_at < relay.age
            and session.carried < self._messages.now
        )

    def _sweep_later(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._relay.idle, self._swept)

    def _swept(self) -> None:
        self._sweep = None
        self._drop_stale()
        if self._idle:
            self._sweep_later()

    def _take_leave(self, session: Session) -> None:
        farewell = asyncio.get_running_loop().create_task(session.quit())
        self._farewells.add(farewell)
        farewell.add_done_callback(self._farewells.discard)


def _of_the_mail(fault: RelayFault) -> Transient:
    """A fault that other mails don't have: it is tried again, and counts."""
    return Transient(
        str(fault),
        code=fault.code,
        status_code=fault.reply.code if fault.reply else None,
        response=fault.reply.text if fault.reply else None,
        via=where(fault.relay),
    )
