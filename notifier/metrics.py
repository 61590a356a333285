"""What is counted, in Prometheus form. Labels are bounded: never an address, a url or an id.

What is counted for each event or attempt is counted by the event loop's thread alone, in plain numbers, and
is put into Prometheus's form when it is asked for: a counter of its library takes a lock (1.3 µs an attempt).
"""

import time
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric, Sample
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BOUNDS = (*map(floatToGoString, _SECONDS), "+Inf")


class Tally(Collector):
    """A count of one thing."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._about = (name, documentation)
        self._count = 0
        self._created = time.time()
        registry.register(self)

    def inc(self) -> None:
        """Count one more."""
        self._count += 1

    def collect(self) -> Iterator[Metric]:
        """The count, for Prometheus."""
        yield CounterMetricFamily(*self._about, value=self._count, created=self._created)


class _Durations:
    """How long things took that ended alike: how many of each class of `_SECONDS`, and all together."""

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.seconds = 0.0
        self.created = time.time()

    def add(self, other: "_Durations") -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds
        self.created = min(self.created, other.created)


class Attempts(Collector):
    """How many attempts there were, by channel and outcome, and how long they took, by channel."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._alike: dict[tuple[str, str], _Durations] = {}
        registry.register(self)

    def add(self, channel: str, outcome: str, seconds: float) -> None:
        """Count one attempt that took so many seconds."""
        alike = self._alike.get((channel, outcome))
        if alike is None:
            alike = self._alike[channel, outcome] = _Durations()
        alike.counts[bisect_left(_SECONDS, seconds)] += 1
        alike.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """Both, for Prometheus."""
        yield self._outcomes()
        yield self._durations()

    def _outcomes(self) -> Metric:
        family = CounterMetricFamily(
            "notifier_attempts", "Attempts by outcome", labels=("channel", "outcome")
        )
        for labels, alike in self._alike.items():
            family.add_metric(labels, sum(alike.counts), created=alike.created)
        return family

    def _durations(self) -> Metric:
        name = "notifier_attempt_seconds"
        family = HistogramMetricFamily(name, "How long an attempt took", labels=("channel",))
        channels: dict[str, _Durations] = {}
        for (channel, _), alike in self._alike.items():
            channels.setdefault(channel, _Durations()).add(alike)
        for channel, all_of_it in channels.items():
            buckets = list(zip(_BOUNDS, accumulate(all_of_it.counts), strict=True))
            family.add_metric((channel,), buckets, all_of_it.seconds)
            family.samples.append(Sample(f"{name}_created", {"channel": channel}, all_of_it.created))
        return family


class Metrics:
    """The metrics of one notifier, in a registry of their own so that several live in one program."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Tally(
            "notifier_events_accepted", "Events stored; a duplicate isn't counted again", self.registry
        )
        self.unrouted = Tally("notifier_events_unrouted", "Events stored that no one wanted", self.registry)
        self.duplicates = Tally(
            "notifier_events_duplicate", "Events answered by their idempotency key", self.registry
        )
        self.errors = Counter(
            "notifier_errors", "Faults in a part of the notifier itself", ["part"], registry=self.registry
        )
        self.stale = Tally(
            "notifier_settles_refused", "Outcomes that came under a claim no longer held", self.registry
        )
        self.in_flight = Gauge("notifier_deliveries_in_flight", "Attempts under way", registry=self.registry)
        self.held = Gauge("notifier_jobs_held", "Jobs claimed into memory", registry=self.registry)
        self.attempts = Attempts(self.registry)
