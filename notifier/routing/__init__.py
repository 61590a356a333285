"""Which jobs an event causes: by routes, by endpoints, and by its own `deliver`. Pure."""

from notifier.routing.destinations import MAX_DESTINATION, LaneOf
from notifier.routing.patterns import OPERATIONAL, matches
from notifier.routing.recipients import MAIL, key_of
from notifier.routing.router import Router
from notifier.routing.subscriptions import EXPLAINED, Explained, Subscriptions, condition, without_query
from notifier.routing.verdicts import Verdict

__all__ = [
    "EXPLAINED",
    "MAIL",
    "MAX_DESTINATION",
    "OPERATIONAL",
    "Explained",
    "LaneOf",
    "Router",
    "Subscriptions",
    "Verdict",
    "condition",
    "key_of",
    "matches",
    "without_query",
]
