"""What a process did in how long, and what it used for it: as one that is measured from outside prints it."""

from collections.abc import Awaitable, Callable
from time import perf_counter, process_time

import msgspec
from msgspec import Struct


class Took(Struct, frozen=True, kw_only=True):
    """What was done, in how many seconds, and for how many of CPU in the measured process."""

    count: int
    seconds: float
    cpu: float

    @property
    def values(self) -> dict[str, float]:
        """How many a second, and microseconds of CPU for each."""
        return {"rate": self.count / self.seconds, "cost": self.cpu / self.count * 1e6}


async def print_took(work: Callable[[], Awaitable[object]], count: int) -> None:
    """Do what counts as so many, and print what this process took for it, for `read_took`."""
    began, spent = perf_counter(), process_time()
    await work()
    took = Took(count=count, seconds=perf_counter() - began, cpu=process_time() - spent)
    print(msgspec.json.encode(took).decode(), flush=True)


def read_took(printed: bytes) -> Took:
    """Read what such a process printed."""
    return msgspec.json.decode(printed, type=Took)
