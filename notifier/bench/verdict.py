"""What limits, told from the numbers in plain words; and what receivers that take their time get at most."""

from enum import StrEnum

from msgspec import Struct

BUSY = 0.85
"""The share of a core, or of the places for deliveries, from which on it counts as used up."""
TAKES_MS = (50, 200, 1000)
"""How long receivers take that are reckoned with."""

_CROWDED = 0.2
"""The share of the time of waiting for a core from which on that explains what nothing else does."""
_OF_SYNCS = 1 / 3
"""The share of something's time that a single sync takes where syncs are what it waits for: by group commit
each waits for half a commit on average, and then for its own."""


class Limit(StrEnum):
    """What there is too little of."""

    CORE = "core"
    """The server's one core is busy."""
    MACHINE = "machine"
    """The server could do more, and waits for a core that others have."""
    LOAD = "load"
    """The load and the receivers of the measurement itself are busy."""
    DISK = "disk"
    """Everything waits for syncs."""
    WORKERS = "workers"
    """All workers are at a delivery."""
    CONNECTIONS = "connections"
    """All connections to the mail relay have a mail under way."""
    UNKNOWN = "unknown"
    """Nothing that is measured is used up."""


class Places(Struct, frozen=True):
    """What only so many deliveries can have at once, and how many had it."""

    limit: Limit
    count: int
    taken: float

    @property
    def full(self) -> bool:
        """Whether nearly all are taken."""
        return self.taken >= self.count * BUSY


class Busy(Struct, frozen=True):
    """The shares of the time that a process ran, of one core, and that it had to wait for one."""

    ran: float
    waited: float


class Facts(Struct, frozen=True, kw_only=True):
    """What was measured while something went as fast as it could."""

    rate: float
    """How many a second."""
    server: Busy | None
    """None: the system doesn't tell."""
    load: Busy | None
    cores: int
    """How many the machine has for us."""
    sync_ms: float
    """How long one append and its sync take."""
    accept_ms: float
    """How long a request took to be answered meanwhile."""
    places: tuple[Places, ...] = ()
    array_gain: float = 0.0
    """How many times as many events come in by arrays, where that is known."""


class Verdict(Struct, frozen=True):
    """What limits, why that is known, and what would help."""

    limit: Limit
    because: str
    helps: str


_HELPS = {
    Limit.CORE: "a quicker core, or several notifiers with a store each: one process uses one core",
    Limit.MACHINE: "more cores, or less that runs beside it",
    Limit.LOAD: "nothing is needed: the server can do more than this could ask of it",
    Limit.DISK: "a disk with quicker syncs, such as an SSD that keeps its cache through a power cut",
    Limit.WORKERS: "a larger workers.concurrency",
    Limit.CONNECTIONS: "more connections to the relay (channels.email.relays), as far as it allows them",
    Limit.UNKNOWN: "run it again with more --seconds, while nothing else runs",
}


def judge(facts: Facts) -> Verdict:
    """Say what limits."""
    limit, because = _limit(facts)
    helps = _HELPS[limit]
    if limit is Limit.CORE and facts.array_gain > 1:
        helps = f"to post arrays ({facts.array_gain:.1f} times as many events); {helps}"
    return Verdict(limit, because, helps)


def _limit(facts: Facts) -> tuple[Limit, str]:
    by_cores = _by_cores(facts)
    if by_cores is not None:
        return by_cores
    for places in facts.places:
        if places.full:
            return _by_places(facts, places)
    if facts.sync_ms >= facts.accept_ms * _OF_SYNCS:
        return Limit.DISK, f"a sync takes {facts.sync_ms:.2g} ms, an answer {facts.accept_ms:.2g} ms"
    if facts.server is None or facts.load is None:
        return Limit.UNKNOWN, "this system does not tell what a process uses of its cores"
    for name, busy in (("server", facts.server), ("load", facts.load)):
        if busy.waited >= _CROWDED:
            return Limit.MACHINE, f"the {name} {_shares(busy, facts.cores)}"
    return Limit.UNKNOWN, f"the server's core is not busy ({facts.server.ran:.0%}), and the disk keeps up"


def _by_cores(facts: Facts) -> tuple[Limit, str] | None:
    server, load = facts.server, facts.load
    if server is None or load is None:
        return None
    if server.ran >= BUSY:
        return Limit.CORE, f"the server keeps one core busy ({server.ran:.0%})"
    if server.ran + server.waited >= BUSY:
        return Limit.MACHINE, f"the server {_shares(server, facts.cores)}"
    if load.ran >= BUSY:
        return Limit.LOAD, f"the load keeps one core busy ({load.ran:.0%}), the server does not"
    if load.ran + load.waited >= BUSY:
        return Limit.MACHINE, f"the load {_shares(load, facts.cores)}"
    return None


def _shares(busy: Busy, cores: int) -> str:
    others = "the one core there is" if cores == 1 else f"one of {cores} cores, which others use too"
    return f"runs {busy.ran:.0%} of the time, and waits another {busy.waited:.0%} for {others}"


def _by_places(facts: Facts, places: Places) -> tuple[Limit, str]:
    kept_ms = places.taken / facts.rate * 1e3
    if facts.sync_ms >= kept_ms * _OF_SYNCS:
        return (
            Limit.DISK,
            f"a sync takes {facts.sync_ms:.2g} of the {kept_ms:.2g} ms that each delivery takes",
        )
    said = f"{places.taken:.0f} of {places.count} {places.limit} are taken, {kept_ms:.2g} ms by each delivery"
    return places.limit, said


class Receivers(Struct, frozen=True, kw_only=True):
    """What receivers that take so long get of all deliveries, at most; by arithmetic, nothing is measured."""

    channel: str
    takes_ms: int
    at_most: float
    """How many a second: places ÷ time, but no more than was measured with receivers that take no time."""


def reckoned(channel: str, places: int, measured: float) -> list[Receivers]:
    """Reckon with receivers that take each of `TAKES_MS`; `places` is how many can be under way."""
    return [
        Receivers(channel=channel, takes_ms=takes, at_most=min(places * 1000 / takes, measured))
        for takes in TAKES_MS
    ]
