"""Where a webhook's destination leads: urls read strictly, one spelling each. No network, no look-up."""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from msgspec import Struct
from yarl import URL

from notifier.errors import Permanent

MAX_URL = 2048

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_AUTHORITY = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*:[^\[\]]*\]|[^:\[\]]*)(:[0-9]{0,5})?", re.ASCII)


class Target(Struct, frozen=True):
    """Where a destination leads."""

    url: str
    """Its url, as it is sent."""
    receiver: str
    """Its host and port."""
    lane: str
    """What it shares with all on that host."""


@lru_cache(maxsize=4096)
def target(destination: str) -> Target:
    """Read a destination strictly. Raises Permanent (`invalid_destination`) saying what is wrong.

    The message never repeats the url, which may hold secrets.
    """
    tail = _check_text(destination)
    try:
        url = URL(destination)
    except ValueError:
        raise _invalid("its host or port can't be read") from None
    host = url.raw_host or ""
    if not host or not url.port:
        raise _invalid("it has no host" if not host else "its port must be 1 to 65535")
    if ":" in host:
        _check_ipv6(host)
    else:
        _check_name(host.removesuffix("."), rooted=host.endswith("."))
    shared = (url.host_subcomponent or "").removesuffix(".")
    receiver = f"{shared}:{url.port}"
    return Target(_as_given(url, tail), receiver, f"webhook:{receiver}")


def _as_given(url: URL, tail: str) -> str:
    """The url with path and query just as they were given: a signed url would not survive being tidied."""
    if not tail.isascii():
        return str(url.with_fragment(None))
    return f"{url.origin()}{'' if tail.startswith('/') else '/'}{tail}"


def _check_text(destination: str) -> str:
    """Let through a url that is in order as far as its text goes; returns its path and query."""
    if len(destination) > MAX_URL:
        raise _invalid(f"it is longer than {MAX_URL} characters")
    if not destination.isprintable() or " " in destination or "\\" in destination:
        raise _invalid("it holds white space, a backslash or a control character")
    found = _AUTHORITY.match(destination)
    if found is None:
        raise _invalid("it must start with http:// or https://")
    if "@" in found[1]:
        raise _invalid("it must not hold a user name or password")
    if not _HOST_AND_PORT.fullmatch(found[1]):
        raise _invalid("its host or port can't be read")
    return destination[found.end() :].partition("#")[0]


def _check_ipv6(host: str) -> None:
    if "%" in host:
        raise _invalid("its host must not hold a zone")
    try:
        IPv6Address(host)
    except AddressValueError:
        raise _invalid("its host is not an IPv6 address") from None


def _check_name(host: str, *, rooted: bool) -> None:
    """Let through a name or a plain IPv4 address, and no other spelling of an address.

    What ends in a number is an IPv4 address to every resolver (WHATWG URL §3.5), `0x7f.1` and `127.1` too.
    """
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):  # noqa: PLR2004 - RFC 1035 §2.3.4
        raise _invalid("its host is no name")
    if not _NUMBER.fullmatch(labels[-1]):
        return
    try:
        IPv4Address(host)
    except AddressValueError:
        raise _invalid("its host is no plain IPv4 address") from None
    if rooted:
        raise _invalid("its host is no plain IPv4 address")


def _invalid(problem: str) -> Permanent:
    return Permanent(f"not a url that can be delivered to: {problem}", code="invalid_destination")
