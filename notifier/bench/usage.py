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
        return Usage(_cpu(process), _waited(process))
    except (OSError, ValueError, IndexError):
        return None


def _cpu(process: Path) -> float:
    """From `stat`, which counts threads that have ended, too."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _waited(process: Path) -> float:
    """From `schedstat`, nanoseconds run and waited; nothing where the kernel keeps none."""
    try:
        return int((process / "schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def cores() -> int:
    """How many cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1
