"""What was measured, and what it means: as JSON has it, and as it is told."""

from msgspec import Struct

from notifier.bench.disk import Commits
from notifier.bench.figures import Latency, Spread
from notifier.bench.verdict import Limit, Receivers, Verdict


class Machine(Struct, frozen=True, kw_only=True):
    """Where it was measured."""

    notifier: str
    python: str
    cores: int
    """How many there are for this program."""
    folder: str
    """Where the store is that is configured, and where all that was stored was stored."""


class Accepted(Struct, frozen=True, kw_only=True):
    """Events taken in by HTTP: routed, stored and synced, each with a job that is due tomorrow."""

    rate: Spread
    """A second, posted one by one over `connections`."""
    latency: Latency
    """Of a request, at half of that rate."""
    cpu_us: float | None
    """Microseconds of the server's CPU for each; None: the system doesn't tell."""
    connections: int
    array: int
    """How many one request brings where they are posted by arrays,"""
    array_rate: Spread
    """and how many a second these are."""
    limit: Verdict


class Delivered(Struct, frozen=True, kw_only=True):
    """Events through the whole of it: accepted, rendered, signed, taken by a receiver at once."""

    channel: str
    rate: Spread
    """A second."""
    latency: Latency
    """From the answer to the app until the receiver has it, at half of that rate."""
    cpu_us: float | None
    places: int
    """How many deliveries can be under way at once,"""
    places_are: Limit
    """and what there are so many of: workers, or connections to the relay."""
    limit: Verdict


class Report(Struct, frozen=True, kw_only=True):
    """All of it."""

    machine: Machine
    seconds: float
    fsync: Latency
    """A block appended and synced."""
    commit: Commits
    """Durable commits of one event, one after the other,"""
    commits_at_once: Commits
    """and of many that arrive at once."""
    accept: Accepted
    deliver: list[Delivered]
    receivers: list[Receivers]
    notes: list[str]
    """What makes the measured server another than the real one."""
