"""Which kind of machine this is, and what is installed on it; nothing that names it."""

import os
import platform
import sqlite3
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("aiohttp", "aiosmtplib", "aiosqlite", "httptools", "jinja2", "msgspec", "uvloop", "yarl")


def machine() -> dict[str, str]:
    """By name: processor, cores, memory, kernel, and the versions of what is measured."""
    told = {
        "processor": _first("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1024**3:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    return told | {name: version(name) for name in _LIBRARIES}


def _first(path: str, key: str) -> str:
    file = Path(path)
    lines = file.read_text().splitlines() if file.exists() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(key)]
    return found[0] if found else ""
