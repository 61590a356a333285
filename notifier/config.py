"""`config.toml` → frozen structs. An error names the key, what stands there and what was expected."""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct, field

from notifier.errors import ConfigError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+)(B|KiB|MiB|GiB)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$(.*?)`)?$", re.DOTALL)
_LONGEST = 3650 * 86400.0
SECRET_KEY = "NOTIFIER_SECRET_KEY"  # noqa: S105 - the name of a variable, not a secret
_LOOPBACK_NAMES = frozenset({"localhost"})


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


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: what it doesn't know, it refuses."""


class Server(_Section, frozen=True, kw_only=True):
    """`[server]`: where the API listens."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    max_body: Size = Size(1024**2)


class Auth(_Section, frozen=True, kw_only=True):
    """`[auth]`: the keys that callers present as `Authorization: Bearer KEY`."""

    ingest_keys: tuple[str, ...] = ()
    admin_keys: tuple[str, ...] = ()

    @property
    def configured(self) -> bool:
        """Whether any key is asked for at all."""
        return bool(self.ingest_keys or self.admin_keys)


class StoreSection(_Section, frozen=True, kw_only=True):
    """`[store]`: where everything is kept. A relative SQLite path counts from the configuration file."""

    url: str = "sqlite:///notifier.db"
    secret_key: str = ""
    """Seals the secrets that the store keeps; `NOTIFIER_SECRET_KEY` of the environment where it is unset.

    One or more keys of 32 bytes in base64, separated by commas: the first seals, all of them open.
    """


class Workers(_Section, frozen=True, kw_only=True):
    """`[workers]`: how many deliveries run at once, and how long a claim and a drain last."""

    concurrency: Annotated[int, Meta(ge=1, le=10_000)] = 64
    claim_timeout: Duration = Duration(60)
    drain_timeout: Duration = Duration(30)


class Retry(_Section, frozen=True, kw_only=True):
    """`[retry]`: delays after the 1st, 2nd … failed attempt; past the last the job is FAILED."""

    schedule: tuple[Duration, ...] = tuple(map(Duration, (5, 300, 1800, 7200, 18000, 36000, 36000)))
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.2
    retry_after_cap: Duration = Duration(3600)
    """The longest wait that a receiver's `Retry-After` can impose."""


class Retention(_Section, frozen=True, kw_only=True):
    """`[retention]`: how long finished jobs are kept (CANCELLED as long as FAILED)."""

    completed: Duration = Duration(7 * 86400)
    failed: Duration = Duration(30 * 86400)


class Templates(_Section, frozen=True, kw_only=True):
    """`[templates]`: the folder of notification templates."""

    path: str = "templates"


class WebhookSection(_Section, frozen=True, kw_only=True):
    """`[channels.webhook]`."""

    timeout: Duration = Duration(15)
    allow_networks: tuple[str, ...] = ()
    """Networks that may be connected to though they are not public, on every port."""
    allow_ports: tuple[Annotated[int, Meta(ge=1, le=65535)], ...] = ()
    """Ports that public addresses may be connected to at, beside 80 and 443."""
    proxy: str | None = None
    """`http://[user:password@]host:port` of the egress proxy that all deliveries go through."""
    proxy_resolves: bool = False
    """Whether host names are left to the proxy, to look up and to guard."""
    secret: str | tuple[str, ...] | None = None
    """Signs what has no route with a secret of its own; the store makes and keeps one when this is unset."""
    rotation_overlap: Duration = Duration(86400)
    """How long an endpoint's old secret goes on signing beside the new one."""
    disable_after: Duration = Duration(5 * 86400)
    """How long an endpoint fails everything until it is disabled."""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What `secret` holds, none, one or several."""
        return _each(self.secret)


class Relay(_Section, frozen=True, kw_only=True):
    """`[[channels.email.relays]]`: one SMTP server."""

    host: str = "localhost"
    port: Annotated[int, Meta(ge=1, le=65535)] = 25
    tls: Literal["none", "starttls", "implicit"] = "starttls"
    username: str | None = None
    password: str | None = None
    timeout: Duration = Duration(30)
    connections: Annotated[int, Meta(ge=1, le=1000)] = 10


class EmailSection(_Section, frozen=True, kw_only=True, rename={"from_": "from"}):
    """`[channels.email]`."""

    from_: str = "Notifier <no-reply@localhost>"
    relays: tuple[Relay, ...] = ()


class Channels(_Section, frozen=True, kw_only=True):
    """`[channels]`: the two built in, and a free table for each that a plugin registers."""

    webhook: WebhookSection = field(default_factory=WebhookSection)
    email: EmailSection = field(default_factory=EmailSection)
    others: dict[str, dict[str, Any]] = field(default_factory=dict)


class Route(_Section, frozen=True, kw_only=True):
    """`[[routes]]`: which events go to whom, how. `to`, `url`, `locale` are Jinja2; `when` an expression."""

    event: str
    channel: Annotated[str, Meta(min_length=1)]
    name: str = ""
    """Unique; made from event and channel where it is left out."""
    when: str | None = None
    to: str | None = None
    url: str | None = None
    template: str | None = None
    locale: str | None = None
    secret: str | tuple[str, ...] | None = None
    """Signs a webhook; several do while receivers change from one to the next."""
    priority: Literal["high", "normal", "low"] = "normal"
    retry: tuple[Duration, ...] | None = None
    """This route's own schedule, in place of `retry.schedule`."""

    @property
    def destination(self) -> str:
        """The template of where it goes, whichever word the channel uses for it."""
        return self.url or self.to or ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """What `secret` holds, none, one or several."""
        return _each(self.secret)


def _each(secret: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if secret is None:
        return ()
    return (secret,) if isinstance(secret, str) else secret


class Lanes(_Section, frozen=True, kw_only=True):
    """`[[lanes]]`: what the lanes of a name are held to. The first entry that names a lane counts."""

    lane: Annotated[str, Meta(min_length=1)]
    """A lane's name (`webhook:erp.example.com:443`, `email:example.com`), or its start and a `*`."""
    rate_limit: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    """Attempts a second."""
    burst: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Attempts that may go at once after a quiet while; unset: those of one second."""
    max_in_flight: Annotated[int, Meta(ge=1, le=10_000)] | None = None

    def names(self, lane: str) -> bool:
        """Whether this entry is about a lane."""
        return lane.startswith(self.lane[:-1]) if self.lane.endswith("*") else lane == self.lane


class BreakerSection(_Section, frozen=True, kw_only=True):
    """`[breaker]`: when a lane whose receiver is in trouble is let alone for a while."""

    failures: Annotated[int, Meta(ge=1)] = 10
    """It opens after this many failures in a row,"""
    window: Duration = Duration(60)
    window_attempts: Annotated[int, Meta(ge=1)] = 50
    """or once so many attempts ended within the window,"""
    window_failed: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """this part of them failed."""
    open_for: tuple[Duration, ...] = tuple(map(Duration, (30, 60, 120, 300, 600)))
    """How long it stays open the 1st, 2nd … time in a row; then one attempt is let through. Empty: never."""


class Config(_Section, frozen=True, kw_only=True):
    """The whole file."""

    server: Server = field(default_factory=Server)
    auth: Auth = field(default_factory=Auth)
    store: StoreSection = field(default_factory=StoreSection)
    workers: Workers = field(default_factory=Workers)
    retry: Retry = field(default_factory=Retry)
    retention: Retention = field(default_factory=Retention)
    templates: Templates = field(default_factory=Templates)
    channels: Channels = field(default_factory=Channels)
    breaker: BreakerSection = field(default_factory=BreakerSection)
    lanes: tuple[Lanes, ...] = ()
    routes: tuple[Route, ...] = ()
    plugins: tuple[str, ...] = ()
    directory: Path = field(default_factory=Path.cwd)
    """Where the file stands; relative paths count from here."""

    @property
    def templates_path(self) -> Path:
        """The templates folder, absolute."""
        return self.directory / self.templates.path


def load_config(path: str | Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a configuration file. Raises ConfigError naming the file or the key."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), "is not UTF-8 text") from error
    return parse_config(text, environ, source=path)


def parse_config(text: str, environ: Mapping[str, str] = os.environ, *, source: Path | None = None) -> Config:
    """Read a configuration from its text; `source` is the file it came from. Raises ConfigError."""
    source = source or Path("config.toml")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(source), f"is not TOML: {error}") from error
    tables = _expand(tables, environ, "")
    _set_apart_plugin_channels(tables)
    if "directory" in tables:
        raise ConfigError("directory", "unknown key")
    _fill_in_secret_key(tables, environ)
    config = _convert(tables)
    config = msgspec.structs.replace(
        config, directory=source.resolve().parent, routes=_named_routes(config.routes)
    )
    _check(config)
    return config


def _expand(value: Any, environ: Mapping[str, str], key: str) -> Any:
    """Replace `${NAME}` and `${NAME:-default}` in every string below `value`."""
    if isinstance(value, str):
        if "${" in _VARIABLE.sub(
            "", value
        ):  # taken as it stands, it could become a key that anyone can guess
            raise ConfigError(key, "expected ${NAME} or ${NAME:-default}, with a name of A-Z, a-z, 0-9 and _")
        return _VARIABLE.sub(lambda found: _variable(found, environ, key), value)
    if isinstance(value, list):
        return [_expand(item, environ, f"{key}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {name: _expand(item, environ, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    return value


def _variable(found: re.Match[str], environ: Mapping[str, str], key: str) -> str:
    name, default = found[1], found[2]
    if name in environ:
        return environ[name]
    if default is None:
        raise ConfigError(key, f"the environment variable {name} is not set")
    return default


def _set_apart_plugin_channels(tables: dict[str, Any]) -> None:
    """Move the tables of channels that are not built in to `channels.others`, where their keys are free."""
    channels = tables.get("channels")
    if not isinstance(channels, dict):
        return
    others = {name: channels.pop(name) for name in list(channels) if name not in {"webhook", "email"}}
    for name, table in others.items():
        if not isinstance(table, dict):
            raise ConfigError(f"channels.{name}", f"expected a table, got {table!r}")
    channels["others"] = others


def _fill_in_secret_key(tables: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Take `store.secret_key` from the environment where the file doesn't say."""
    store = tables.setdefault("store", {})
    if isinstance(store, dict):
        store.setdefault("secret_key", environ.get(SECRET_KEY, ""))


def _convert(tables: dict[str, Any]) -> Config:
    try:
        return msgspec.convert(tables, Config, dec_hook=_custom)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None


def _custom(wanted: type, value: Any) -> Any:
    if wanted is Duration:
        return parse_duration(value)
    if wanted is Size:
        return parse_size(value)
    raise TypeError(f"no reader for {wanted}")


def _explained(message: str) -> ConfigError:
    """Turn msgspec's sentence into one about a key of the file."""
    if unknown := _UNKNOWN_FIELD.match(message):
        parent = (unknown[2] or "").lstrip(".")
        return ConfigError(f"{parent}.{unknown[1]}".lstrip("."), f"unknown key{_nearest(unknown[1])}")
    problem, _, path = message.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    if missing := re.match(r"Object missing required field `(.*)`", problem):
        return ConfigError(f"{path}.{missing[1]}".lstrip("."), "is missing, and has no default")
    if choice := re.match(r"Invalid enum value (.*)", problem):
        expected = ", ".join(f'"{each}"' for each in _choices(path.rpartition(".")[2]))
        return ConfigError(path, f"expected one of {expected}, got {choice[1]}")
    return ConfigError(path or "config", problem[0].lower() + problem[1:])


def _choices(name: str) -> tuple[str, ...]:
    """The words that a key takes which takes no others."""
    types = (get_type_hints(section).get(name) for section in (Relay, Route))
    return next((get_args(each) for each in types if each is not None), ())


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, _known_keys(Config), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _known_keys(section: type[Struct]) -> set[str]:
    """Every key that the file may hold, at any depth."""
    known = {entry.encode_name for entry in msgspec.structs.fields(section)}
    nested = (
        Server,
        Auth,
        StoreSection,
        Workers,
        Retry,
        Retention,
        Templates,
        Channels,
        BreakerSection,
        Lanes,
        Route,
    )
    leaves = (WebhookSection, EmailSection, Relay)
    for inner in (*nested, *leaves) if section is Config else ():
        known |= {entry.encode_name for entry in msgspec.structs.fields(inner)}
    return known - {"directory", "others"}


def _named_routes(routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Give each route without a name one that stays the same while others come and go."""
    taken = {route.name for route in routes if route.name}
    if len(taken) < sum(1 for route in routes if route.name):
        double = next(r.name for i, r in enumerate(routes) if r.name in {o.name for o in routes[:i]} - {""})
        raise ConfigError("routes", f"two routes are named {double!r}")
    named = []
    for route in routes:
        name = route.name or _free_name(f"{route.event} by {route.channel}", taken)
        taken.add(name)
        named.append(msgspec.structs.replace(route, name=name))
    return tuple(named)


def _free_name(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted} #{number}"
    return name


def _check(config: Config) -> None:
    """Hold the rules that span keys. Raises ConfigError."""
    for kind in ("ingest_keys", "admin_keys"):
        for index, key in enumerate(getattr(config.auth, kind)):
            if not key.strip() or key != key.strip():
                raise ConfigError(f"auth.{kind}[{index}]", "is empty or has white space around it")
    if not config.auth.configured and not is_loopback(config.server.host):
        raise ConfigError(
            "server.host",
            f"{config.server.host!r} is not loopback; without auth.admin_keys only loopback may be bound",
        )
    _check_positive("workers.claim_timeout", config.workers.claim_timeout)
    _check_positive("channels.webhook.timeout", config.channels.webhook.timeout)
    _check_positive("breaker.window", config.breaker.window)
    for index, pause in enumerate(config.breaker.open_for):
        _check_positive(f"breaker.open_for[{index}]", pause)
    for index, relay in enumerate(config.channels.email.relays):
        _check_positive(f"channels.email.relays[{index}].timeout", relay.timeout)
    for index, network in enumerate(config.channels.webhook.allow_networks):
        _check_network(f"channels.webhook.allow_networks[{index}]", network)
    for index, route in enumerate(config.routes):
        _check_route(f"routes[{index}]", route)


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
