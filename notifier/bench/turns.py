"""How a measure is taken: a few short turns after one to warm up, so that what is noise shows as such."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

TURNS = 5
"""How many turns count."""

_Result = TypeVar("_Result")


class Watcher(Protocol):
    """Whoever is told how far it is."""

    def begin(self, what: str) -> None:
        """Something else is measured from now on."""

    def advance(self, seconds: float) -> None:
        """So many seconds of what was planned are over."""


class Turns:
    """The turns of one measure, `seconds` each."""

    def __init__(self, what: str, seconds: float, watcher: Watcher) -> None:
        self._what = what
        self._seconds = seconds
        self._watcher = watcher

    async def take(self, work: Callable[[float], Awaitable[_Result]]) -> list[_Result]:
        """Do the work, which is told how many seconds it has; what came of the first turn is left out."""
        self._watcher.begin(self._what)
        results: list[_Result] = []
        for _ in range(1 + TURNS):
            results.append(await work(self._seconds))
            self._watcher.advance(self._seconds)
        return results[1:]


class Plan:
    """Shares seconds out among measures."""

    def __init__(self, seconds: float, shares: dict[str, float], watcher: Watcher) -> None:
        self._a_turn = seconds / sum(shares.values()) / (1 + TURNS)
        self._shares = shares
        self._watcher = watcher

    def turns(self, what: str) -> Turns:
        """The turns of a measure, by its name among the shares."""
        return Turns(what, self._shares[what] * self._a_turn, self._watcher)
