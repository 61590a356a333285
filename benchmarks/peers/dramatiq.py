"""dramatiq on Redis, results kept in Redis.

Fair: a message is acknowledged once its actor has returned, and a lost worker's messages are taken over.
Results are stored, which dramatiq does only where it is asked to: without, nothing would tell what became of
a delivery. For it: no HTTP in front, no per-receiver fairness or limits, one result where the notifier keeps
each attempt.
"""

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from redis import Redis

from benchmarks.peers import work
from benchmarks.peers.producing import produce

broker = RedisBroker(url=work.STORE)
results = RedisBackend(url=work.STORE, use_namespace_prefix_keys=True)  # so that they can be counted
broker.add_middleware(Results(backend=results, store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor(max_retries=work.RETRIES, min_backoff=5_000, max_backoff=36_000_000)
def deliver(event: work.Event) -> int:
    """Deliver one event."""
    return work.deliver(event)


def main() -> None:
    """Enqueue what is asked for."""
    redis = Redis.from_url(work.STORE)
    produce(deliver.send, lambda: sum(1 for _ in redis.scan_iter("dramatiq-results:*", count=5000)))
