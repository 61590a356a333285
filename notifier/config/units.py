"""Durations and sizes as people write them."""

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB)")
_LONGEST = 3650 * 86400.0


class Duration(float):
    """Seconds, written as `"90s"`, `"5m"`, `"2h"`, `"7d"` or `"250ms"`."""

    __slots__ = ()


class Size(int):
    """Bytes, written as `"1MiB"`, `"64KiB"` or `"512B"`."""

    __slots__ = ()


def parse_duration(text: object) -> Duration:
    """Read a duration. Raises ValueError saying what was expected."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f'expected a duration such as "90s", "5m", "2h" or "7d", got {text!r}')
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > _LONGEST:
        raise ValueError(f"expected a duration of at most 3650d, got {text!r}")
    return Duration(seconds)


def parse_size(text: object) -> Size:
    """Read a size. Raises ValueError saying what was expected."""
    found = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f'expected a size such as "1MiB" or "64KiB", got {text!r}')
    return Size(int(found[1]) * _SIZES[found[2]])
