"""Stands in for a plugin's channel in `notifier dev`: the message goes to the inbox, and nowhere else."""

from collections.abc import Callable
from typing import Any

import msgspec

from notifier.channels import DEFAULT_TIMEOUT, Channel, Message, Receipt
from notifier.inbox import Inbox, Note


class CaptureChannel:
    """Takes what `stood_in_for` would have delivered. Lanes and previews stay that channel's own."""

    def __init__(self, name: str, stood_in_for: Channel, inbox: Inbox, clock: Callable[[], float]) -> None:
        self.parts = stood_in_for.parts
        self.timeout = DEFAULT_TIMEOUT
        self._name = name
        self._original = stood_in_for
        self._inbox = inbox
        self._clock = clock

    def lane(self, destination: str) -> str:
        """Answer as the original does, so that what it refuses is refused here too."""
        return self._original.lane(destination)

    async def open(self) -> None:
        """Nothing to open: the original must not reach for anything."""

    async def deliver(self, message: Message) -> Receipt:
        """Put the message into the inbox."""
        note = Note(
            channel=self._name,
            destination=message.destination,
            job_id=message.id,
            event_type=message.event.type,
            data=bytes(message.event.data),
            content=msgspec.structs.asdict(message.content),
        )
        self._inbox.add(note, self._clock())
        return Receipt(response="captured")

    def preview(self, message: Message) -> dict[str, Any]:
        """Answer as the original does."""
        return self._original.preview(message)

    async def close(self) -> None:
        """Nothing was opened."""
