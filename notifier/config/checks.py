"""The rules that span keys, or that a type can't hold. An error names the key."""

import ipaddress
import re
from urllib.parse import urlsplit

from notifier.config.sections import Config, Lanes, Relay, ReplyRule, Route, several
from notifier.config.units import Duration
from notifier.errors import ConfigError
from notifier.model import MAX_RECIPIENTS

_LOOPBACK_NAMES = frozenset({"localhost"})
_PUBLIC_PATH = re.compile(r"[A-Za-z0-9._~/-]*")
_LONGEST_PUBLIC_URL = 256
"""Characters: with a token behind it, it must fit a line of a mail's header (998, RFC 5322 §2.1.1)."""


def check(config: Config) -> None:
    """Hold the rules that span keys. Raises ConfigError."""
    _check_access(config)
    _check_public_url(config.server.public_url)
    _check_durations(config)
    for index, network in enumerate(config.channels.webhook.allow_networks):
        _check_network(f"channels.webhook.allow_networks[{index}]", network)
    _check_secrets("channels.webhook.secret", config.channels.webhook.secret)
    for index, relay in enumerate(config.channels.email.relays):
        _check_relay(f"channels.email.relays[{index}]", relay)
    for index, rule in enumerate(config.channels.email.rules):
        _check_rule(f"channels.email.rules[{index}]", rule)
    for index, lanes in enumerate(config.lanes):
        _check_lanes(f"lanes[{index}]", lanes)
    for index, route in enumerate(config.routes):
        _check_route(f"routes[{index}]", route)


def _check_access(config: Config) -> None:
    for kind in ("ingest_keys", "admin_keys"):
        for index, key in enumerate(getattr(config.auth, kind)):
            if not key.strip() or key != key.strip():
                raise ConfigError(f"auth.{kind}[{index}]", "is empty or has white space around it")
    if not config.auth.configured and not is_loopback(config.server.host):
        raise ConfigError(
            "server.host",
            f"{config.server.host!r} is not loopback; without auth.admin_keys only loopback may be bound",
        )


def _check_durations(config: Config) -> None:
    _check_positive("workers.claim_timeout", config.workers.claim_timeout)
    _check_positive("channels.webhook.timeout", config.channels.webhook.timeout)
    _check_positive("channels.webhook.disable_after", config.channels.webhook.disable_after)
    _check_positive("breaker.window", config.breaker.window)
    for index, pause in enumerate(config.breaker.open_for):
        _check_positive(f"breaker.open_for[{index}]", pause)
    for index, relay in enumerate(config.channels.email.relays):
        for name in ("connect_timeout", "timeout", "data_timeout", "dot_timeout"):
            _check_positive(f"channels.email.relays[{index}].{name}", getattr(relay, name))


def _check_public_url(url: str | None) -> None:
    """Mail programs post to https alone (RFC 8058 §3.1); http is for a try on this machine."""
    if url is None:
        return
    key, expected = "server.public_url", f'expected something like "https://mail.example.com", got {url!r}'
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(key, f"{expected}: {error}") from None
    if not host or parts.scheme not in {"https", "http"} or not url.isascii() or not url.isprintable():
        raise ConfigError(key, expected)
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(key, f"expected https, as {host!r} is not loopback")
    if "?" in url or "#" in url or "@" in parts.netloc or not _PUBLIC_PATH.fullmatch(parts.path):
        raise ConfigError(key, "expected no user, query or fragment, and a path of A-Z a-z 0-9 . _ ~ - /")
    if len(url) > _LONGEST_PUBLIC_URL:
        raise ConfigError(key, f"is longer than {_LONGEST_PUBLIC_URL} characters")


def _check_relay(key: str, relay: Relay) -> None:
    by_token = relay.auth == "xoauth2"
    if by_token and relay.token_file is None:
        raise ConfigError(f"{key}.token_file", "is missing: xoauth2 takes its token from there")
    if not by_token and relay.token_file is not None:
        raise ConfigError(f"{key}.token_file", 'is used by auth = "xoauth2" alone')
    if by_token and relay.password is not None:
        raise ConfigError(f"{key}.password", "has no use: xoauth2 logs in with a token")
    if relay.username is None and (relay.password is not None or relay.auth != "auto"):
        raise ConfigError(f"{key}.username", "is missing: there is a login without it")
    if relay.username is not None and relay.password is None and not by_token:
        raise ConfigError(f"{key}.password", "is missing: there is a username")


def _check_rule(key: str, rule: ReplyRule) -> None:
    if rule.code is None and rule.enhanced is None and rule.text is None and rule.phase is None:
        raise ConfigError(key, "fits every reply: say which with code, enhanced, text or phase")
    try:
        re.compile(rule.text or "")
    except re.error as error:
        raise ConfigError(f"{key}.text", f"is no regular expression: {error}") from None


def _check_secrets(key: str, secret: str | tuple[str, ...] | None) -> None:
    if secret == ():
        raise ConfigError(key, "is an empty list: expected a secret, or several")


def _check_lanes(key: str, lanes: Lanes) -> None:
    if "*" in lanes.lane[:-1]:
        raise ConfigError(
            f"{key}.lane", f"expected a lane's name, or its start and one *, got {lanes.lane!r}"
        )
    if lanes.burst is not None and lanes.rate_limit is None:
        raise ConfigError(f"{key}.burst", "there is no rate_limit that it could go beyond")


def _check_positive(key: str, duration: Duration) -> None:
    if not duration:
        raise ConfigError(key, "expected a duration longer than none")


def is_loopback(host: str) -> bool:
    """Whether a server bound to this host is reachable from this machine alone."""
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_network(key: str, network: str) -> None:
    try:
        ipaddress.ip_network(network)
    except ValueError as error:
        raise ConfigError(key, f'expected a network such as "10.0.0.0/8": {error}') from None


EVENT_PATTERN = re.compile(r"\*|(?:[A-Za-z0-9_\-/]+|\*)(?:\.(?:[A-Za-z0-9_\-/]+|\*))*")
"""What a route's `event` and an endpoint's event types may look like; for `fullmatch`."""


def _check_route(key: str, route: Route) -> None:
    if not EVENT_PATTERN.fullmatch(route.event):
        raise ConfigError(
            f"{key}.event", f'expected an event type, or segments with * ("order.*"), got {route.event!r}'
        )
    if route.channel == "webhook":
        _check_pair(key, route, wanted="url", refused="to")
        _check_secrets(f"{key}.secret", route.secret)
    else:
        _check_pair(key, route, wanted="to", refused="url")
        if route.secret is not None:
            raise ConfigError(f"{key}.secret", "only a webhook route has a secret")
    if route.channel == "email" and not route.template:
        raise ConfigError(f"{key}.template", "an email route needs a template")
    _check_recipients(key, route)


def _check_recipients(key: str, route: Route) -> None:
    if route.channel != "email":
        for name in ("cc", "bcc", "category"):
            if getattr(route, name):
                raise ConfigError(f"{key}.{name}", "only an email route has one")
    for name in ("to", "cc", "bcc"):
        given = getattr(route, name)
        for index, recipient in enumerate(several(given)):
            if not recipient.strip():
                place = name if isinstance(given, str) else f"{name}[{index}]"
                raise ConfigError(f"{key}.{place}", "is empty")
    count = len(several(route.to)) + len(several(route.cc)) + len(several(route.bcc))
    if count > MAX_RECIPIENTS:
        raise ConfigError(key, f"has {count} recipients in to, cc and bcc; {MAX_RECIPIENTS} are the most")


def _check_pair(key: str, route: Route, *, wanted: str, refused: str) -> None:
    if not getattr(route, wanted):
        raise ConfigError(f"{key}.{wanted}", f"is missing: a route by {route.channel} needs it")
    if getattr(route, refused) is not None:
        raise ConfigError(f"{key}.{refused}", f"a route by {route.channel} takes {wanted!r} instead")
