"""arq on Redis, results kept in Redis, on uvloop.

Fair: a job stays in its queue until it is done, so that a lost worker's jobs run again. It polls; every 10 ms
here, where half a second is its default. For it: no HTTP in front, no per-receiver fairness or limits, one
result where the notifier keeps each attempt.
"""

import asyncio
from typing import Any

import uvloop
from arq import Retry, create_pool
from arq.connections import RedisSettings

from benchmarks.peers import work
from benchmarks.peers.producing import produce_async

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # arq has no other way to be told


async def deliver(ctx: dict[str, Any], event: work.Event) -> int:
    """Deliver one event."""
    try:
        return await work.deliver_async(event)
    except work.NotDeliveredError as error:
        raise Retry(defer=5 ** ctx["job_try"]) from error


class WorkerSettings:
    """What `arq` reads."""

    functions = (deliver,)
    redis_settings = RedisSettings.from_dsn(work.STORE)
    max_jobs = work.CONCURRENCY
    max_tries = 1 + work.RETRIES
    poll_delay = 0.01


def main() -> None:
    """Enqueue what is asked for."""
    uvloop.run(_produce())


async def _produce() -> None:
    redis = await create_pool(WorkerSettings.redis_settings)

    async def recorded() -> int:
        return sum([1 async for _ in redis.scan_iter("arq:result:*", count=5000)])

    await produce_async(lambda event: redis.enqueue_job("deliver", event), recorded)
