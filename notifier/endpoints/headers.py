"""The headers that an endpoint adds to its deliveries: which it may, and which of them are never shown."""

import re
from collections.abc import Iterator, Mapping

from notifier.channels.webhook import is_ours
from notifier.errors import Fault
from notifier.faults import escaped

HIDDEN = "(hidden)"
"""Stands where a sensitive value is not shown; handed in, it keeps the value there is."""
MAX_HEADERS = 32
MAX_NAME = 128
MAX_VALUE = 4096
"""Characters."""

_SENSITIVE = re.compile(
    r"auth|bearer|cookie|cred|hmac|jwt|key|login|otp|pass|pwd|secret|session|sig|token", re.IGNORECASE
)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?")  # RFC 9110 §5.5, ASCII alone


def shown_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as anybody may see them: the values of those that may hold a credential hidden."""
    return {name: HIDDEN if _SENSITIVE.search(name) else value for name, value in headers.items()}


def with_kept(given: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """Put the present values in where hidden ones were handed in, names compared without regard to case."""
    known = {name.lower(): value for name, value in present.items()}
    return {
        name: known.get(name.lower(), value) if value == HIDDEN else value for name, value in given.items()
    }


def header_faults(headers: Mapping[str, str]) -> Iterator[Fault]:
    """What is wrong with headers. A value that is still hidden has none to stand for."""
    if len(headers) > MAX_HEADERS:
        yield Fault("/headers", f"expected at most {MAX_HEADERS} headers, got {len(headers)}")
        return
    seen: set[str] = set()
    for name, value in headers.items():
        fault = _name_fault(name, seen) or _value_fault(value)
        if fault is not None:
            yield Fault(f"/headers/{escaped(name)}", fault)
        seen.add(name.lower())


def _name_fault(name: str, seen: set[str]) -> str | None:
    if len(name) > MAX_NAME or not _TOKEN.fullmatch(name):
        return f"expected a header's name: 1 to {MAX_NAME} of A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~"
    if name.lower() in seen:
        return "stands more than once: upper and lower case make no difference"
    if is_ours(name):
        return "can't be set: it is the notifier's own to say"
    return None


def _value_fault(value: str) -> str | None:
    if value == HIDDEN:
        return f"{HIDDEN} keeps the value that a header has, and there is none of this name"
    if len(value) > MAX_VALUE or not _VALUE.fullmatch(value):
        return f"expected up to {MAX_VALUE} printable ASCII characters, no space at either end"
    return None
