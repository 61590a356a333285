"""Webhook subscriptions: how they come to be, change and go, and how their receivers are doing."""

from notifier.endpoints.headers import HIDDEN, shown_headers

__all__ = ["HIDDEN", "shown_headers"]
