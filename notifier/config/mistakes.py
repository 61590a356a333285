"""msgspec's sentences about a value, turned into sentences about a key of the file."""

import difflib
import re
from typing import get_args, get_type_hints

import msgspec
from msgspec import Struct

from notifier.config.sections import (
    Auth,
    BreakerSection,
    Channels,
    Config,
    DkimSection,
    EmailSection,
    Lanes,
    Relay,
    ReplyRule,
    Retention,
    Retry,
    Route,
    Server,
    StoreSection,
    Templates,
    WebhookSection,
    Workers,
)
from notifier.errors import ConfigError

_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$(.*?)`)?$", re.DOTALL)


def explained(message: str) -> ConfigError:
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
    types = (get_type_hints(section).get(name) for section in (Relay, ReplyRule, Route))
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
    leaves = (WebhookSection, EmailSection, Relay, ReplyRule, DkimSection)
    for inner in (*nested, *leaves) if section is Config else ():
        known |= {entry.encode_name for entry in msgspec.structs.fields(inner)}
    return known - {"directory", "others"}
