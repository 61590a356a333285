"""Webhook subscriptions: how they come to be, change and go, and how their receivers are doing."""

from notifier.channels.signing import public_key
from notifier.endpoints.drafts import EndpointChanges, EndpointDraft
from notifier.endpoints.headers import HIDDEN, shown_headers
from notifier.endpoints.registry import Endpoints

__all__ = ["HIDDEN", "EndpointChanges", "EndpointDraft", "Endpoints", "public_key", "shown_headers"]
