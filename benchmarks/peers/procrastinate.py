"""procrastinate on PostgreSQL, finished jobs kept in its table.

Fair: the same kind of durability as the notifier's own store, and the closest in what it keeps: a row for
each job, with its state and its events. For it: no HTTP in front, no per-receiver fairness or limits.
"""

import uvloop
from procrastinate import App, PsycopgConnector, RetryStrategy

from benchmarks.peers import work
from benchmarks.peers.producing import produce_async

app = App(connector=PsycopgConnector(conninfo=work.STORE, max_size=20))


@app.task(name="deliver", retry=RetryStrategy(max_attempts=1 + work.RETRIES, exponential_wait=5))
async def deliver(event: work.Event) -> int:
    """Deliver one event."""
    return await work.deliver_async(event)


def main() -> None:
    """Enqueue what is asked for."""
    uvloop.run(_produce())


async def _produce() -> None:
    async with app.open_async():

        async def recorded() -> int:
            query = "SELECT count(*) AS count FROM procrastinate_jobs WHERE status = 'succeeded'"
            return int((await app.connector.execute_query_one_async(query))["count"])

        await produce_async(lambda event: deliver.defer_async(event=event), recorded)
