"""Whom a route or a delivery goes to: a job each, one for whoever stands in several places."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import Struct

from notifier.channels.address import read_address
from notifier.errors import Permanent
from notifier.model import Addressed, Delivery

MAIL = "email"
"""The one channel whose deliveries say whom they are addressed to."""


class Place(NamedTuple):
    """Where a recipient stands: in `to`, `cc`, `bcc` or `url`, and its number there, from 0."""

    field: str
    number: int

    def __str__(self) -> str:
        return f"{self.field}[{self.number}]"


class Recipient(Struct, frozen=True):
    """One recipient: where it is and by which lane; or, without a destination, why that can't be made out."""

    place: Place
    destination: str | None
    lane: str
    error: Permanent | None = None


def key_of(channel: str, destination: str) -> str:
    """What a recipient is known by, however its address is written: of mail, `local@domain` in lower case.

    Local parts are told apart by case nowhere that matters (RFC 5321 §2.4 would let a host do so).
    """
    if channel == MAIL:
        try:
            return read_address(destination).spec.lower()
        except Permanent:
            return destination.strip().lower()
    return destination.strip()


def distinct(channel: str, recipients: Sequence[Recipient]) -> list[Recipient]:
    """Leave out who stands before already. Those that can't be made out can't be told apart, and stay."""
    if len(recipients) == 1:
        return list(recipients)
    seen: set[str] = set()
    left = []
    for each in recipients:
        key = None if each.destination is None else key_of(channel, each.destination)
        if key not in seen:
            left.append(each)
        if key is not None:
            seen.add(key)
    return left


def addressed(channel: str, recipients: Sequence[Recipient]) -> Addressed | None:
    """Whom a mail to these says it is for; None where there is one alone, or it is no mail."""
    if len(recipients) == 1 or channel != MAIL:
        return None
    return Addressed(to=_standing("to", recipients), cc=_standing("cc", recipients))


def _standing(field: str, recipients: Sequence[Recipient]) -> tuple[str, ...]:
    return tuple(
        each.destination for each in recipients if each.place.field == field and each.destination is not None
    )


def places(delivery: Delivery) -> Iterator[tuple[Place, str, str]]:
    """Each recipient of a delivery: its place, its JSON pointer from there, and what it says."""
    for field in ("url", "to", "cc", "bcc"):
        given = getattr(delivery, field)
        if isinstance(given, str):
            yield Place(field, 0), f"/{field}", given
        elif given:
            yield from ((Place(field, n), f"/{field}/{n}", each) for n, each in enumerate(given))
