"""The rules that span keys, or that a type can't hold. An error names the key."""

import ipaddress
import re

from notifier.config.sections import Config, Lanes, Route
from notifier.config.units import Duration
from notifier.errors import ConfigError

_LOOPBACK_NAMES = frozenset({"localhost"})


def check(config: Config) -> None:
    """Hold the rules that span keys. Raises ConfigError."""
    _check_access(config)
    _check_durations(config)
    for index, network in enumerate(config.channels.webhook.allow_networks):
        _check_network(f"channels.webhook.allow_networks[{index}]", network)
    _check_secrets("channels.webhook.secret", config.channels.webhook.secret)
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
        _check_positive(f"channels.email.relays[{index}].timeout", relay.timeout)


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


def _check_pair(key: str, route: Route, *, wanted: str, refused: str) -> None:
    if not getattr(route, wanted):
        raise ConfigError(f"{key}.{wanted}", f"is missing: a route by {route.channel} needs it")
    if getattr(route, refused) is not None:
        raise ConfigError(f"{key}.{refused}", f"a route by {route.channel} takes {wanted!r} instead")
