"""huey on SQLite that is synced at each commit, or on Redis; results kept there.

Not equal, and that favours it: huey takes a task off its queue before it runs it, so that a killed worker's
tasks are lost; it can do no other. For it, too: no HTTP in front, no per-receiver fairness or limits, one
result where the notifier keeps each attempt.
"""

from huey import RedisHuey, SqliteHuey

from benchmarks.peers import work
from benchmarks.peers.producing import produce

huey = (
    RedisHuey("peers", url=work.STORE)
    if work.STORE.startswith("redis:")
    else SqliteHuey("peers", filename=work.STORE, fsync=True)
)


@huey.task(retries=work.RETRIES, retry_delay=5, name="deliver")
def deliver(event: work.Event) -> int:
    """Deliver one event."""
    return work.deliver(event)


def main() -> None:
    """Enqueue what is asked for."""
    produce(deliver, huey.result_count)
