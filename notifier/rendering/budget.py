"""The allowance that all a render makes is paid from."""

import threading

from jinja2.exceptions import TemplateRuntimeError

LONG = 1024
"""From how many characters on a piece is paid for by itself, before the next one is made."""


class ExcessError(TemplateRuntimeError):
    """A template made more than it may."""


class Budget:
    """What one render may still make, in characters."""

    __slots__ = ("left", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.left = total

    def refill(self) -> None:
        """Begin a render."""
        self.left = self.total

    def spend(self, amount: int) -> None:
        """Pay for what was made. Raises ExcessError once all is spent."""
        self.left -= amount
        if self.left < 0:
            raise ExcessError("the template loops too often, or makes too much on the way")

    def foresee(self, amount: int) -> None:
        """Refuse to begin what could not be paid for. Raises ExcessError."""
        if amount > self.total:
            raise ExcessError("one operation of the template would make too much")


class Budgets(threading.local):
    """Those of a sandbox: threads may render at the same time, each from its own."""

    def __init__(self, total: int) -> None:
        self.mine = Budget(total)
