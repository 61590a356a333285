"""Times as one types them: RFC 3339, or how long ago."""

import time
from datetime import datetime

import click


class Moment(click.ParamType[str]):
    """Takes `2026-01-31T12:00:00Z`, or `2h` for two hours ago; gives RFC 3339."""

    name = "moment"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Make text that the API understands. A text that is neither is a usage error."""
        from notifier.config import parse_duration
        from notifier.model import rfc3339

        try:
            return rfc3339(time.time() - parse_duration(value))
        except ValueError:
            pass
        try:
            zoned = datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            zoned = False
        if not zoned:
            self.fail('expected a time such as "2026-01-31T12:00:00Z", or how long ago: "2h"', param, ctx)
        return value


MOMENT = Moment()
