"""Who may call what: bearer keys with scopes; without any keys, this machine's own programs alone."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.http import RawRequestMessage

from notifier.config import Auth, is_loopback
from notifier.web.problems import ProblemError

_AUTHORITY = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::\d*)?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Scope(StrEnum):
    """What a call asks of its caller."""

    OPEN = "open"
    """Nothing: no key is needed."""
    LINK = "link"
    """Nothing but the link that was called, which is signed."""
    INGEST = "ingest"
    """A key that may post events and read what became of them."""
    ADMIN = "admin"
    """A key that may do everything."""

    @property
    def needs_key(self) -> bool:
        """Whether a key is asked for, where there are any."""
        return self not in {Scope.OPEN, Scope.LINK}


class Gate:
    """Lets a request in, or raises ProblemError.

    Without keys, a request must name this machine as its `Host` (else a page that rebinds its own name to
    127.0.0.1 could read everything), and a browser's must not come from another site's page when it
    changes anything. A link is called from anywhere, by the name that `public_url` gives this server or by
    whatever name a proxy has for it: without the link, there is nothing there to read or to change.
    """

    def __init__(self, auth: Auth, public_url: str | None = None) -> None:
        self.keys_asked = auth.configured
        self._links_are_public = public_url is not None
        self._keys = [
            *((_digest(key), Scope.INGEST) for key in auth.ingest_keys),
            *((_digest(key), Scope.ADMIN) for key in auth.admin_keys),
        ]

    def admit(self, request: web.Request | RawRequestMessage, scope: Scope) -> None:
        """Let a request in for a call of this scope. Raises ProblemError (401 or 403).

        Only the request's head is looked at: what was let in once is let in whenever it comes again.
        """
        if scope is Scope.LINK and self._links_are_public:
            return
        if not self.keys_asked:
            _demand_local(request)
        elif scope.needs_key:
            self._demand(self.granted(request.headers.get("Authorization", "")), scope)

    def granted(self, authorization: str) -> Scope | None:
        """Say what the key in an `Authorization` header may do; None for one that isn't known."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        return self.scope_of(key.strip())

    def scope_of(self, key: str) -> Scope | None:
        """Say what a key may do. Takes the same time whichever it resembles."""
        digest = _digest(key)
        granted = {scope for known, scope in self._keys if hmac.compare_digest(known, digest)}
        return max(granted, key=_rank, default=None)

    def _demand(self, granted: Scope | None, scope: Scope) -> None:
        if granted is None:
            raise ProblemError(
                401,
                "A known key is needed: Authorization: Bearer KEY.",
                headers={"WWW-Authenticate": 'Bearer realm="notifier"'},
            )
        if _rank(granted) < _rank(scope):
            challenge = f'Bearer realm="notifier", error="insufficient_scope", scope="{scope}"'
            raise ProblemError(
                403, f"This needs a key of scope {scope}.", headers={"WWW-Authenticate": challenge}
            )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _rank(scope: Scope) -> int:
    return list(Scope).index(scope)


def _demand_local(request: web.Request | RawRequestMessage) -> None:
    if not names_loopback(request.headers.get("Host", "")):
        raise ProblemError(
            403,
            "Without keys only requests to localhost, 127.0.0.0/8 or [::1] are answered; see [auth].",
            kind="not-local",
        )
    if request.method not in _SAFE_METHODS and _is_from_another_site(request):
        raise ProblemError(403, "Without keys, other sites' pages may change nothing.", kind="not-local")


def _is_from_another_site(request: web.Request | RawRequestMessage) -> bool:
    """Whether a browser says that another site's page caused this request (Fetch Metadata, Origin)."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return True
    origins: Iterable[str] = request.headers.getall("Origin", ())
    return not all(_is_local_origin(origin) for origin in origins)


@lru_cache(maxsize=256)
def names_loopback(authority: str) -> bool:
    """Whether a `Host` header, port or none, names this machine."""
    found = _AUTHORITY.fullmatch(authority)
    return found is not None and is_loopback(found[1].lower())


def _is_local_origin(origin: str) -> bool:
    try:
        return names_loopback(urlsplit(origin).netloc)
    except ValueError:
        return False
