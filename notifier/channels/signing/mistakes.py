"""What goes wrong most on the way from a signed request to its check, undone one by one to be tried."""

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

from notifier.channels.signing.keys import (
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    SECRET_PREFIX,
    SymmetricKey,
    Verifier,
    parse_verifier,
)

MAX_JSON = 4 * 1024**2
"""Bytes up to which a body is tried as JSON that was written anew."""

_NO_JSON = object()
_SIGNATURE = re.compile(r"(v1a?),([A-Za-z0-9+/]+={0,2})")
_OURS = ("type", "timestamp", "data")
_LAYOUTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("without spaces", {"separators": (",", ":")}),
    ("with a space after each comma and colon", {"separators": (", ", ": ")}),
    ("indented by 2", {"indent": 2}),
    ("indented by 4", {"indent": 4}),
)
_ORDERS = (("", False), (", its keys sorted", True))
_LETTERS = ((r", other letters than ASCII as \u…", True), (", every letter as itself", False))


def signatures(values: Iterable[str]) -> tuple[str, ...]:
    """The signatures in values of `webhook-signature`, whatever spaces and commas stand around or in them."""
    return tuple(
        f"{version},{text}"
        for value in values
        for version, text in _SIGNATURE.findall("".join(value.split()))
    )


def writer(body: bytes) -> str | None:
    """How a JSON writer writes, where a body stands exactly as one would have written it; else None.

    Such a body may have been parsed and written anew, which loses the white space of what was sent.
    """
    value = _parsed_json(body)
    if not isinstance(value, (dict, list)) or not value:
        return None
    return next((how for how, text in _spelled(value) if text == body), None)


def bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    """What may have been sent instead of a body, each with what then was done to it."""
    return ((what, sent) for what, sent in _each_body(body) if sent != body)


def _each_body(body: bytes) -> Iterator[tuple[str, bytes]]:
    yield "a newline was added at the end of the body", body.removesuffix(b"\n")
    yield "a line end (CRLF) was added at the end of the body", body.removesuffix(b"\r\n")
    yield "the newline at the end of the body was taken off", body + b"\n"
    yield "the line end (CRLF) at the end of the body was taken off", body + b"\r\n"
    yield "white space was added around the body", body.strip()
    yield "the line ends of the body were changed from LF to CRLF", body.replace(b"\r\n", b"\n")
    yield "the line ends of the body were changed from CRLF to LF", body.replace(b"\n", b"\r\n")
    yield "a byte order mark was put before the body", body.removeprefix(BOM_UTF8)
    yield "the byte order mark before the body was taken off", BOM_UTF8 + body
    value = _parsed_json(body)
    if value is not _NO_JSON:
        yield from _written_anew(value)


def seems_whole(body: bytes) -> bool:
    """Whether a body is one JSON text to its end; of one too large to be read, its last letter tells."""
    if len(body) > MAX_JSON:
        return body.rstrip().endswith((b"}", b"]"))
    return _parsed_json(body) is not _NO_JSON


def _parsed_json(body: bytes) -> Any:
    try:
        return json.loads(body) if len(body) <= MAX_JSON else _NO_JSON
    except (ValueError, RecursionError):
        return _NO_JSON


def _written_anew(value: Any) -> Iterator[tuple[str, bytes]]:
    """The ways in which JSON that was parsed and serialised again may have been written before."""
    what = "the body was parsed as JSON and written anew: it was sent"
    for how, text in _spelled(value):
        yield f"{what} {how}", text
    if _is_ours(value):
        for how, text in _spelled({name: value[name] for name in _OURS}):
            yield f"{what} {how}", text
        for how, text in _spelled(value["data"]):
            yield f"{what} with its data as it was posted, {how}", _framed(value, text)


def _is_ours(value: Any) -> bool:
    """Whether a value is what the notifier sends without a template."""
    if not isinstance(value, dict) or value.keys() != set(_OURS):
        return False
    return isinstance(value["type"], str) and isinstance(value["timestamp"], str)


def _spelled(value: Any) -> Iterator[tuple[str, bytes]]:
    """A value in every usual layout, order and escaping, each with its description."""
    for (layout, how), (order, ordered), (letters, escaped) in product(_LAYOUTS, _ORDERS, _LETTERS):
        try:
            text = json.dumps(value, sort_keys=ordered, ensure_ascii=escaped, **how).encode()
        except (ValueError, RecursionError):
            continue
        yield f"{layout}{order}{letters}", text


def _framed(value: dict[str, Any], data: bytes) -> bytes:
    """The body that the notifier makes without a template: its own frame, and in it the data as it came."""
    kind, moment = json.dumps(value["type"]), json.dumps(value["timestamp"])
    return f'{{"type":{kind},"timestamp":{moment},"data":'.encode() + data + b"}"


def keys(secret: str) -> Iterator[tuple[str, Verifier]]:
    """Keys that may be meant by a secret, or were made of it by whoever signed, each with how."""
    bare = secret.strip().strip("'\"")
    yield from _parsed("without the white space or quotes around the secret", [bare])
    bare = "".join(bare.split())
    yield from _parsed("without the white space within the secret", [bare])
    for prefix in (SECRET_PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX):
        yield from _parsed(f"with {prefix} before the secret: its prefix is missing", [prefix + bare])
        wrong = [
            prefix + bare.removeprefix(other) for other in (SECRET_PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX)
        ]
        yield from _parsed(f"with {prefix} before the secret: it has another's prefix", wrong)
    url_safe = bare.partition("_")[2].translate(str.maketrans("-_", "+/"))
    yield from _parsed("once the secret is written in base64's usual alphabet", [SECRET_PREFIX + url_safe])
    text = bare.removeprefix(SECRET_PREFIX)
    yield "if the secret is used as text: whoever signed did not decode its base64", _textual(text)
    yield (
        "if the secret is used as text, its prefix with it: whoever signed did not decode it",
        _textual(bare),
    )


def _textual(text: str) -> SymmetricKey:
    return SymmetricKey(text.encode("utf-8", "surrogateescape"))


def _parsed(how: str, candidates: Iterable[str]) -> Iterator[tuple[str, Verifier]]:
    for candidate in candidates:
        try:
            yield how, parse_verifier(candidate)
        except ValueError:
            continue
