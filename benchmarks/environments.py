"""Throw-away virtual environments, made by pip and without it in them."""

import asyncio
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.processes import Process


class Environment:
    """One that has been made."""

    def __init__(self, folder: Path, versions: dict[str, str]) -> None:
        self._folder = folder
        self.versions = versions
        """By package, in lower case, of all that is in it."""

    def program(self, name: str) -> Path:
        """Where one of its commands is."""
        return self._folder / "bin" / name


async def made(folder: Path, packages: Sequence[str], cpus: set[int]) -> Environment:
    """Make one with these packages, from wheels only. Raises EndedError with what pip said if it can't."""
    await asyncio.to_thread(venv.create, folder, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--python", str(folder), "--disable-pip-version-check")
    async with Process(*pip, "install", "--quiet", "--only-binary=:all:", *packages, cpus=cpus) as process:
        await process.succeeded()
    async with Process(*pip, "list", "--format=json", cpus=cpus, talks=True) as process:
        listed = msgspec.json.decode(await process.output(), type=list[dict[str, str]])
    return Environment(folder, {each["name"].lower(): each["version"] for each in listed})
