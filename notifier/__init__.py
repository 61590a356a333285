"""A durable, self-hosted dispatcher for webhooks and email.

The public names: `Notifier` and `Event` to embed it, `channel`, `Message`, `Receipt`, `Transient` and
`Permanent` to add a way to deliver.
"""

from notifier.channels import Message, Receipt, channel
from notifier.errors import Permanent, Transient
from notifier.model import Delivery, Event
from notifier.service import Notifier

__all__ = [
    "Delivery",
    "Event",
    "Message",
    "Notifier",
    "Permanent",
    "Receipt",
    "Transient",
    "channel",
]
