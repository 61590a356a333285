"""Why a route or an endpoint takes an event, or doesn't, in words."""

from collections.abc import Callable

from msgspec import Struct

from notifier.errors import Permanent


class Verdict(Struct, frozen=True):
    """Whether a route or an endpoint takes an event, and why not. `name` is the endpoint's id."""

    name: str
    matched: bool
    reason: str


def by_condition(name: str, matching: str, when: str | None, holds: Callable[[], bool]) -> Verdict:
    """The verdict on an event whose type fits, `matching` saying how: `when` has the last word.

    One that fails counts as matched: it causes a job, which is born FAILED.
    """
    try:
        if not holds():
            return Verdict(name, matched=False, reason=f"`when` is false: {when}")
    except Permanent as error:
        return Verdict(name, matched=True, reason=f"`when` failed: {error.message}")
    and_so = f", and `when` is true: {when}" if when else ""
    return Verdict(name, matched=True, reason=matching + and_so)
