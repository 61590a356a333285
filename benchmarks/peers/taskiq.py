"""taskiq on a Redis stream, results kept in Redis, on uvloop.

Fair: a stream, since its list broker loses what a killed worker held; acknowledged once the result is saved.
For it: no HTTP in front, no per-receiver fairness or limits, one result where the notifier keeps each
attempt.
"""

import uvloop
from redis.asyncio import Redis
from taskiq import SmartRetryMiddleware
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers import work
from benchmarks.peers.producing import produce_async

broker = (
    RedisStreamBroker(work.STORE, consumer_id="0")  # from the start, also what came before the worker did
    .with_result_backend(RedisAsyncResultBackend(work.STORE, prefix_str="result"))
    .with_middlewares(
        SmartRetryMiddleware(default_retry_count=work.RETRIES, default_delay=5, use_delay_exponent=True)
    )
)


@broker.task(task_name="deliver", retry_on_error=True)
async def deliver(event: work.Event) -> int:
    """Deliver one event."""
    return await work.deliver_async(event)


def main() -> None:
    """Enqueue what is asked for."""
    uvloop.run(_produce())


async def _produce() -> None:
    await broker.startup()
    redis = Redis.from_url(work.STORE)

    async def recorded() -> int:
        return sum([1 async for _ in redis.scan_iter("result:*", count=5000)])

    await produce_async(deliver.kiq, recorded)
    await broker.shutdown()
