"""Where urls lead: whom to connect to for each, and how its requests begin."""

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import hdrs
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from notifier.channels.transport import PreparedRequest, is_plain
from notifier.errors import Permanent

if TYPE_CHECKING:
    from notifier.channels.line import Line


class Origin(aiohttp.ClientRequest):
    """Where requests go, in the words of aiohttp's connector: one for all urls of a scheme, host and port."""

    def __init__(self, url: URL) -> None:
        """Take the url of an origin. Certificates name hosts without the dot that a full name may end in."""
        super().__init__(hdrs.METH_POST, url, server_hostname=(url.raw_host or "").rstrip("."))
        self.idle: list[Line] = []
        """The connections to it that wait for their next request, the last used at the end."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        """What aiohttp's errors are told of."""
        return super().connection_key


class Way:
    """A url as a request needs it: the origin to connect to, and how the request begins."""

    __slots__ = ("_begins", "origin")

    def __init__(self, url: URL, origin: Origin) -> None:
        self.origin = origin
        self._begins = f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.host_port_subcomponent}\r\n".encode()

    def bytes_of(self, request: PreparedRequest) -> bytes:
        """The bytes of a request, as they go over the wire."""
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (
            self._begins,
            request.head,
            len(request.body),
            request.body,
        )


class Ways:
    """Finds the ways to urls, and keeps them: the same urls come again and again."""

    def __init__(self) -> None:
        self.to = lru_cache(maxsize=4096)(self._to)
        self._origin = lru_cache(maxsize=1024)(Origin)

    def _to(self, url: str) -> Way:
        """Raises Permanent for a url that is not http, or not text that a request line can hold."""
        parsed = URL(url, encoded=True)
        if parsed.scheme not in {"http", "https"} or not parsed.raw_host or " " in url or not is_plain(url):
            raise Permanent("the url can't be used", code="invalid_destination")
        return Way(parsed, self._origin(parsed.origin()))
