"""The declared egress proxy: where it stands, how it is asked for a tunnel, and what its answers mean."""

from base64 import b64encode

from msgspec import Struct
from yarl import URL

from notifier.errors import DeliveryError, Transient, Unavailable

_EXPECTED = "expected http://[user:password@]host:port"
_DENIED = 403
_LOGIN_NEEDED = 407
_UNREACHED = frozenset({502, 503, 504})
"""What proxies answer where the receiver is out of their reach; Squid says 503 of a refused connection."""


class Proxy(Struct, frozen=True):
    """An egress proxy. `url` is its origin; `authorization` is what it is shown, if it asks for a login."""

    url: URL
    authorization: str | None = None
    resolves: bool = False
    """Whether host names are its to look up, and to guard."""

    def __repr__(self) -> str:
        """Tell nothing of the login: what is printed ends in logs."""
        return f"Proxy({self.url})"

    def connect_request(self, host: str, port: int) -> bytes:
        """The bytes that ask for a tunnel to a host (RFC 9110 §9.3.6), named by address or by name."""
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        login = "" if self.authorization is None else f"Proxy-Authorization: {self.authorization}\r\n"
        return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{login}\r\n".encode()


def parse_proxy(text: str, *, resolves: bool) -> Proxy:
    """Read `http://[user:password@]host:port`. Raises ValueError that never repeats it."""
    if not text.isprintable() or " " in text:
        raise ValueError(f"{_EXPECTED}, without white space")
    try:
        url = URL(text)
    except ValueError:
        raise ValueError(_EXPECTED) from None
    if url.scheme != "http":
        raise ValueError(f"{_EXPECTED}: no other scheme will do")
    if not url.raw_host or not url.explicit_port:
        raise ValueError(f"{_EXPECTED}: a host and a port of 1 to 65535 are needed")
    if url.raw_path_qs != "/" or url.raw_fragment:
        raise ValueError(f"{_EXPECTED}, and nothing behind it")
    return Proxy(url.origin(), _basic(url), resolves)


def _basic(url: URL) -> str | None:
    """The login in a url, as Basic credentials (RFC 7617)."""
    if url.user is None and url.password is None:
        return None
    return "Basic " + b64encode(f"{url.user or ''}:{url.password or ''}".encode()).decode()


def unreachable() -> Unavailable:
    """The error of a proxy that no connection comes about to."""
    return Unavailable("the egress proxy can't be reached", code="proxy_unreachable")


def refusal(status: int) -> DeliveryError:
    """Say what it means that a proxy answered a CONNECT with this status, which is no success.

    What is about one receiver (denied, out of reach) is told as that: its jobs must not wait for ever, as
    they would for a proxy that is at fault.
    """
    if status == _DENIED:
        return Transient("the egress proxy denies this receiver", code="proxy_denied", lane_fault=True)
    if status in _UNREACHED:
        return Transient(
            f"no connection: the egress proxy answered {status}", code="connect_failed", lane_fault=True
        )
    if status == _LOGIN_NEEDED:
        return Unavailable("the egress proxy refused the login (407)", code="proxy_refused")
    return Unavailable(f"the egress proxy answered {status}", code="proxy_refused")
