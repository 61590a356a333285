"""The whole measurement, one thing after the other."""

import platform
import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from notifier.bench.child import Child
from notifier.bench.disk import AT_ONCE, commits, fsyncs
from notifier.bench.events import array, event
from notifier.bench.figures import Latency, Spread
from notifier.bench.load import Load
from notifier.bench.receivers import LOOPBACK, RECEIVERS, Mails, webhooks
from notifier.bench.report import Accepted, Delivered, Machine, Report
from notifier.bench.stage import set_up
from notifier.bench.traffic import Look, Peak, Traffic, serving
from notifier.bench.turns import Plan, Watcher
from notifier.bench.usage import cores
from notifier.bench.verdict import Facts, Limit, Verdict, judge, reckoned
from notifier.bench.wire import Request, request
from notifier.config import Config

CONNECTIONS = 64
"""How many the load has to the server."""
ARRAY = 100
"""How many events one request brings where they are posted by arrays."""

_ARRAY_CONNECTIONS = 4
_FEWEST_UNDER_WAY, _MOST_UNDER_WAY = 256, 4096
_NOWHERE = 9
"""The port of what is due tomorrow, and so never goes there."""

_SHARES = {
    "syncs of the disk": 4.0,
    "commits one by one": 4.0,
    "commits of many at once": 4.0,
    "accepting, flat out": 10.0,
    "accepting, at half of that": 8.0,
    "accepting arrays": 6.0,
    "webhooks, flat out": 12.0,
    "webhooks, at half of that": 10.0,
}
_SHARES_OF_MAILS = {"mails, flat out": 12.0, "mails, at half of that": 10.0}


class Measurement:
    """Takes every measure that a configuration gives reason to."""

    def __init__(self, config: Config, folder: Path, seconds: float, watcher: Watcher) -> None:
        """`folder` is an empty one on the disk that is measured; what is put there is not removed."""
        self._config = config
        self._folder = folder
        self._seconds = seconds
        self._relays = config.channels.email.relays
        self._plan = Plan(seconds, _SHARES | (_SHARES_OF_MAILS if self._relays else {}), watcher)
        self._key = secrets.token_urlsafe() if config.auth.configured else None
        self._sync_ms = 0.0

    async def report(self) -> Report:
        """Measure. Raises BenchError, StoreError or OSError."""
        turns, folder = self._plan.turns, self._folder
        fsync = await fsyncs(folder, turns("syncs of the disk"))
        self._sync_ms = fsync.p50_ms
        commit = await commits(folder, turns("commits one by one"), at_once=1)
        commits_at_once = await commits(folder, turns("commits of many at once"), at_once=AT_ONCE)
        accept = await self._accepted()
        deliver = [await self._webhooks(), *([await self._mails()] if self._relays else [])]
        return Report(
            machine=_machine(folder.parent),
            seconds=self._seconds,
            fsync=fsync,
            commit=commit,
            commits_at_once=commits_at_once,
            accept=accept,
            deliver=deliver,
            receivers=[
                receivers
                for each in deliver
                for receivers in reckoned(each.channel, each.places, each.rate.median)
            ],
            notes=[*_notes(self._config)],
        )

    # Accept --------------------------------------------------------------------------------------

    async def _accepted(self) -> Accepted:
        """Events with a job that is due tomorrow: nothing is delivered meanwhile."""
        events = [event("webhook", number, later=True) for number in range(RECEIVERS)]
        async with self._serving(hooks=[_NOWHERE] * RECEIVERS) as child:
            peak, latency = await self._through(child, Load(arrives=False), events, "accepting")
            array_rate = await self._arrays(child, events)
        return Accepted(
            rate=peak.rate,
            latency=latency,
            cpu_us=peak.cpu_us,
            connections=CONNECTIONS,
            array=self._array(events),
            array_rate=array_rate,
            limit=self._judged(peak, array_rate.median / peak.rate.median),
        )

    async def _arrays(self, child: Child, events: Sequence[bytes]) -> Spread:
        length = self._array(events)
        load = Load(arrives=False, events_each=length)
        requests = self._requests(child, [array(each, length) for each in events])
        async with load.connected(child.port, requests, connections=_ARRAY_CONNECTIONS):
            peak = await Traffic(child, load).flat_out(
                self._plan.turns("accepting arrays"), _ARRAY_CONNECTIONS
            )
        return peak.rate

    def _array(self, events: Sequence[bytes]) -> int:
        """How many events one request brings: no more than it may hold."""
        return max(1, min(ARRAY, self._config.server.max_body // (len(events[0]) + 1)))

    # Deliver -------------------------------------------------------------------------------------

    async def _webhooks(self) -> Delivered:
        load = Load(arrives=True)
        async with webhooks(load.arrived) as ports, self._serving(hooks=ports) as child:
            return await self._delivered(child, load, "webhook", "webhooks", [self._workers(child)])

    async def _mails(self) -> Delivered:
        load = Load(arrives=True)
        sink = Mails(load.arrived)
        async with sink.listening(), self._serving(relay=sink.port) as child:
            connections = Look(Limit.CONNECTIONS, self._relays[0].connections, sink.sessions_busy)
            looks = [connections, self._workers(child)]
            return await self._delivered(child, load, "email", "mails", looks)

    def _workers(self, child: Child) -> Look:
        return Look(Limit.WORKERS, self._config.workers.concurrency, child.in_flight)

    async def _delivered(
        self, child: Child, load: Load, channel: str, what: str, looks: Sequence[Look]
    ) -> Delivered:
        events = [event(channel, number) for number in range(RECEIVERS)]
        peak, latency = await self._through(child, load, events, what, looks)
        narrowest = min(looks, key=lambda look: look.places)
        return Delivered(
            channel=channel,
            rate=peak.rate,
            latency=latency,
            cpu_us=peak.cpu_us,
            places=narrowest.places,
            places_are=narrowest.limit,
            limit=self._judged(peak),
        )

    # Both ----------------------------------------------------------------------------------------

    async def _through(
        self, child: Child, load: Load, events: Sequence[bytes], what: str, looks: Sequence[Look] = ()
    ) -> tuple[Peak, Latency]:
        """Flat out, and then at half of that rate: how long something takes depends on the rate."""
        window = CONNECTIONS
        if load.arrives:  # enough for every worker to have one, and another one to go on with
            wanted = 2 * self._config.workers.concurrency
            window = min(max(_FEWEST_UNDER_WAY, wanted), _MOST_UNDER_WAY)
        requests = self._requests(child, events)
        async with load.connected(child.port, requests, connections=CONNECTIONS):
            traffic = Traffic(child, load, looks)
            peak = await traffic.flat_out(self._plan.turns(f"{what}, flat out"), window)
            half = self._plan.turns(f"{what}, at half of that")
            return peak, await traffic.steady(half, peak.rate.median / 2)

    def _serving(
        self, *, hooks: Sequence[int] = (), relay: int | None = None
    ) -> AbstractAsyncContextManager[Child]:
        prepare = partial(set_up, config=self._config, key=self._key, hooks=hooks, relay=relay)
        return serving(self._folder, prepare)

    def _requests(self, child: Child, bodies: Sequence[bytes]) -> list[Request]:
        host = f"{LOOPBACK}:{child.port}"
        return [request("/v1/events", host, body, self._key) for body in bodies]

    def _judged(self, peak: Peak, array_gain: float = 0.0) -> Verdict:
        facts = Facts(
            rate=peak.rate.median,
            server=peak.server,
            load=peak.load,
            cores=cores(),
            sync_ms=self._sync_ms,
            accept_ms=peak.accept_ms,
            places=peak.places,
            array_gain=array_gain,
        )
        return judge(facts)


def _machine(folder: Path) -> Machine:
    return Machine(
        notifier=version("notifier"), python=platform.python_version(), cores=cores(), folder=str(folder)
    )


def _notes(config: Config) -> Iterator[str]:
    """Say what makes the measured server another than the one that is configured."""
    yield "Load and receivers share this machine with the server, and answer at once."
    if cores() == 1:
        yield "There is one core for all of them: by itself, the server does more."
    if config.channels.webhook.proxy is not None:
        yield "Webhooks went straight to their receivers, by no proxy."
    if config.channels.email.relays:
        yield "Mails went to a relay of this command's own, without TLS or a login."
    if config.channels.email.dkim is not None:
        yield "Mails were signed with an RSA key of 2,048 bits, made up for this."
    if config.lanes:
        yield "The limits of [[lanes]] held nothing back."
