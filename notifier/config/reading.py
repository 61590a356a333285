"""`config.toml` → `Config`: environment variables put in, routes named, every rule held."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from notifier.config.checks import check
from notifier.config.mistakes import explained
from notifier.config.sections import Config, Route
from notifier.config.units import Duration, Size, parse_duration, parse_size
from notifier.errors import ConfigError

SECRET_KEY = "NOTIFIER_SECRET_KEY"  # noqa: S105 - the name of a variable, not a secret
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


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
    check(config)
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
        raise explained(str(error)) from None


def _custom(wanted: type, value: Any) -> Any:
    if wanted is Duration:
        return parse_duration(value)
    if wanted is Size:
        return parse_size(value)
    raise TypeError(f"no reader for {wanted}")


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
