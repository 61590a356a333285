"""What a process used of the cores, and how long it had to wait for one, as the kernel counts it."""

import os
from pathlib import Path

from msgspec import Struct


class Usage(Struct, frozen=True):
    """Seconds since the process began, or between two moments."""

    cpu: float
    """Of CPU, in all its threads."""
    waited: float
    """In which its main thread could have run, and had no core."""

    def __sub__(self, before: "Usage") -> "Usage":
        return Usage(self.cpu - before.cpu, self.waited - before.waited)


def usage_of(pid: int) -> Usage | None:
    """What a process has used so far; None where the system doesn't tell."""
    process = Path(f"/proc/{pid}")
    try:
        return _by_scheduler(process)
    except (OSError, ValueError, IndexError):
        pass
    try:
        return _by_ticks(process)
    except (OSError, ValueError, IndexError):
        return None


def _by_scheduler(process: Path) -> Usage:
    """From `schedstat`: nanoseconds run, nanoseconds waited; a file for each thread."""
    threads = [(thread / "schedstat").read_text().split() for thread in (process / "task").iterdir()]
    waited = int((process / "schedstat").read_text().split()[1])
    return Usage(sum(int(run) for run, *_ in threads) / 1e9, waited / 1e9)


def _by_ticks(process: Path) -> Usage:
    """From `stat`, where the kernel keeps no `schedstat`."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return Usage((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), 0.0)


def cores() -> int:
    """How many cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
