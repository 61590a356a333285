"""How a connection comes about, for whoever asks later: where the time went, and what stood in the way."""

from contextvars import ContextVar
from enum import IntEnum
from time import monotonic

from msgspec.structs import replace

from notifier.model import Timings


class Phase(IntEnum):
    """What dialling spends its time on, in turn."""

    QUEUE = 0
    """Waiting for a place among the connections."""
    DNS = 1
    CONNECT = 2
    TLS = 3


class Dial:
    """One attempt to connect. Whoever has a part in it notes here what became of that."""

    __slots__ = ("_before", "_phase", "_since", "_spent", "blocked", "dialled", "secure", "to_proxy")

    def __init__(self, before: Timings) -> None:
        """Begin; `before` is what the request has cost already, on a connection that was lost."""
        self._before = before
        self._phase = Phase.QUEUE
        self._since = monotonic()
        self._spent = [0.0, 0.0, 0.0, 0.0]
        self.blocked = False
        """Whether an address was refused."""
        self.dialled = False
        """Whether a socket was made."""
        self.secure = False
        """Whether TLS follows once a socket is connected."""
        self.to_proxy = False
        """Whether it is the egress proxy that is being connected to."""

    @property
    def queued(self) -> bool:
        """Whether it still waits for a place among the connections."""
        return self._phase is Phase.QUEUE

    def enter(self, phase: Phase) -> None:
        """Begin a phase: the time until now was the one's before."""
        now = monotonic()
        self._spent[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def timings(self) -> Timings:
        """Where the time went until now, with what was spent before."""
        self.enter(self._phase)
        before, (_, dns, connect, tls) = self._before, self._spent
        return replace(before, dns=before.dns + dns, connect=before.connect + connect, tls=before.tls + tls)


current: ContextVar[Dial] = ContextVar("current_dial")
"""The attempt that the running task makes."""
