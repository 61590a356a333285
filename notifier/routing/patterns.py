"""Which event types a pattern takes: those of routes, and the stricter reading that endpoints get."""

OPERATIONAL = "notifier."
"""What the types of the notifier's own events begin with."""


def matches(pattern: str, event_type: str) -> bool:
    """Whether a route's `event` takes an event type: `*` stands for one segment, alone for everything."""
    if pattern in ("*", event_type):
        return True
    wanted, given = pattern.split("."), event_type.split(".")
    return len(wanted) == len(given) and all(w in ("*", g) for w, g in zip(wanted, given, strict=True))


def endpoint_matches(pattern: str, event_type: str) -> bool:
    """Whether an endpoint's pattern takes an event type.

    As `matches`, save that the notifier's own events come to none that doesn't name them: who asks for
    everything means everything of theirs.
    """
    if event_type.startswith(OPERATIONAL) and not pattern.startswith(OPERATIONAL):
        return False
    return matches(pattern, event_type)
