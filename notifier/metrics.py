"""What is counted, in Prometheus form. Labels are bounded: never an address, a url or an id."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one notifier, in a registry of their own so that several live in one program."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Counter(
            "notifier_events_accepted",
            "Events stored; a duplicate isn't counted again",
            registry=self.registry,
        )
        self.unrouted = Counter(
            "notifier_events_unrouted", "Events stored that no one wanted", registry=self.registry
        )
        self.duplicates = Counter(
            "notifier_events_duplicate", "Events answered by their idempotency key", registry=self.registry
        )
        self.errors = Counter(
            "notifier_errors", "Faults in a part of the notifier itself", ["part"], registry=self.registry
        )
        self.stale = Counter(
            "notifier_settles_refused",
            "Outcomes that came under a claim no longer held",
            registry=self.registry,
        )
        self.in_flight = Gauge("notifier_deliveries_in_flight", "Attempts under way", registry=self.registry)
        self.held = Gauge("notifier_jobs_held", "Jobs claimed into memory", registry=self.registry)
        self._attempts = Counter(
            "notifier_attempts", "Attempts by outcome", ["channel", "outcome"], registry=self.registry
        )
        self._seconds = Histogram(
            "notifier_attempt_seconds",
            "How long an attempt took",
            ["channel"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._children: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def attempted(self, channel: str, outcome: str, seconds: float) -> None:
        """Count one attempt that took so many seconds."""
        key = (channel, outcome)
        found = self._children.get(key)
        if found is None:
            found = (self._attempts.labels(channel, outcome), self._seconds.labels(channel))
            self._children[key] = found
        counter, histogram = found
        counter.inc()
        histogram.observe(seconds)
