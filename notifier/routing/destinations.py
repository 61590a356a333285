"""What can be sent to at all, and the lane that a destination shares with others."""

import re
from collections.abc import Callable

from notifier.errors import Permanent

LaneOf = Callable[[str], str]
"""Takes a destination, returns its lane; raises Permanent for what is no destination at all."""

MAX_DESTINATION = 2048
"""Characters, as for the destinations that events bring themselves."""

_NO_DESTINATION_HOLDS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def lane_by(lane_of: LaneOf, destination: str) -> str:
    """The lane of a destination. Raises Permanent for one that nothing could be sent to.

    Whatever else a channel raises is a refusal too: a fault of one channel must not cost an event its others.
    """
    if not destination.strip():
        raise Permanent("the destination is empty", code="invalid_destination")
    if len(destination) > MAX_DESTINATION or _NO_DESTINATION_HOLDS.search(destination):
        problem = "the destination is too long, or holds a control character"
        raise Permanent(problem, code="invalid_destination")
    try:
        return lane_of(destination)
    except Permanent as error:
        code = error.code if error.code != Permanent.code else "invalid_destination"
        raise Permanent(error.message, code=code) from error
    except Exception as error:
        problem = f"the channel can't read it: {type(error).__name__}: {error}"
        raise Permanent(problem, code="invalid_destination") from error
