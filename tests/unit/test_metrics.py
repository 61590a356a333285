"""What is counted in plain numbers comes out as Prometheus's own client would write it."""

import re

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from notifier.metrics import Metrics
from notifier.model import Outcome

_CREATED = re.compile(rb"(_created(?:{[^}]*})?) \S+")
_ATTEMPTS = [
    ("webhook", Outcome.DELIVERED, 0.004),
    ("webhook", Outcome.DELIVERED, 0.005),
    ("webhook", Outcome.DELIVERED, 0.25),
    ("webhook", Outcome.RETRY, 15.0),
    ("email", Outcome.FAILED, 0.0),
    ("email", Outcome.UNKNOWN, 60.0),
]


def written(registry: CollectorRegistry) -> bytes:
    """What a registry answers, without when each series began."""
    return _CREATED.sub(rb"\1 then", generate_latest(registry))


def families(text: bytes) -> dict[bytes, bytes]:
    """What is written of each metric, by its name."""
    return {part.split()[0]: part for part in text.split(b"# HELP ")[1:]}


def test_attempts_are_written_as_the_library_writes_them() -> None:
    """The same names, labels, buckets and sums, to the letter; a bucket's bound belongs to it."""
    theirs, ours = CollectorRegistry(), Metrics()
    outcomes = Counter("notifier_attempts", "Attempts by outcome", ["channel", "outcome"], registry=theirs)
    bounds = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
    seconds = Histogram(
        "notifier_attempt_seconds", "How long an attempt took", ["channel"], buckets=bounds, registry=theirs
    )
    for channel, outcome, took in _ATTEMPTS:
        outcomes.labels(channel, outcome).inc()
        seconds.labels(channel).observe(took)
        ours.attempts.add(channel, outcome, took)
    expected = families(written(theirs))
    assert {name: families(written(ours.registry))[name] for name in expected} == expected


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_tally_is_written_as_the_library_writes_a_counter(times: int) -> None:
    """From nothing on, so that a rate can be made of it."""
    theirs, ours = CollectorRegistry(), Metrics()
    counter = Counter("notifier_events_unrouted", "Events stored that no one wanted", registry=theirs)
    for _ in range(times):
        counter.inc()
        ours.unrouted.inc()
    expected = families(written(theirs))
    assert {name: families(written(ours.registry))[name] for name in expected} == expected


def test_two_notifiers_in_one_program_count_apart() -> None:
    """Each has its own registry."""
    one, other = Metrics(), Metrics()
    one.accepted.inc()
    assert one.registry.get_sample_value("notifier_events_accepted_total") == 1
    assert other.registry.get_sample_value("notifier_events_accepted_total") == 0
