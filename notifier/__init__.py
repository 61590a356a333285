"""A durable, self-hosted dispatcher for webhooks and email.

The public names: `Notifier` and `Event` to embed it, and what `submit` raises; `channel`, `Message`,
`Receipt`, `Transient` and `Permanent` to add a way to deliver.
"""

from notifier.channels import Message, Receipt, channel
from notifier.errors import (
    ConfigError,
    DrainingError,
    IdempotencyConflictError,
    InvalidEventError,
    NotifierError,
    Permanent,
    StoreUnavailableError,
    Transient,
)
from notifier.model import Delivery, Event
from notifier.service import Notifier

__all__ = [
    "ConfigError",
    "Delivery",
    "DrainingError",
    "Event",
    "IdempotencyConflictError",
    "InvalidEventError",
    "Message",
    "Notifier",
    "NotifierError",
    "Permanent",
    "Receipt",
    "StoreUnavailableError",
    "Transient",
    "channel",
]
