"""Celery on Redis, acknowledged late, results kept in Redis.

Fair: late acknowledgement, and a lost worker's task is queued again. Against it: each enqueue subscribes to
the task's result, as it does wherever a result backend is configured. For it: no HTTP in front, no
per-receiver fairness or limits, one result where the notifier keeps each attempt.
"""

from celery import Celery
from redis import Redis

from benchmarks.peers import work
from benchmarks.peers.producing import produce

app = Celery("benchmarks.peers.celery", broker=work.STORE, backend=work.STORE)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=16,
    broker_connection_retry_on_startup=True,
)


@app.task(
    autoretry_for=(work.NotDeliveredError,), retry_backoff=5, retry_jitter=True, max_retries=work.RETRIES
)
def deliver(event: work.Event) -> int:
    """Deliver one event."""
    return work.deliver(event)


def main() -> None:
    """Enqueue what is asked for."""
    redis = Redis.from_url(work.STORE)
    produce(deliver.delay, lambda: sum(1 for _ in redis.scan_iter("celery-task-meta-*", count=5000)))
