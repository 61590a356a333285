"""Requests → values of our types, or a problem that points at the fault."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct
from msgspec.inspect import IntType, Metadata, Type

from notifier.faults import UNREADABLE, choices, faults_of
from notifier.web.calls import JSON
from notifier.web.problems import ProblemError, invalid, invalid_parameter

_T = TypeVar("_T", bound=Struct)

_ANY_CASE = frozenset({"status", "state"})
"""The fields whose words are taken in capitals and small letters alike."""
_DIGITS = re.compile(r"-?[0-9]{1,18}")
_PLUS_LOST = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?) (\d\d:\d\d)")


def media_type(request: web.Request) -> str:
    """Return the body's media type, without parameters. Raises ProblemError (415) for a charset."""
    if request.headers.get("Content-Type") == JSON:
        return JSON
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
        raise ProblemError(415, f"The body must be UTF-8, not {request.charset}.")
    return request.content_type.lower()


async def read_body(request: web.Request, limit: int) -> bytes:
    """Return the body, `limit` bytes at most. Raises ProblemError (413, 415)."""
    coding = request.headers.get("Content-Encoding")
    if coding is not None and coding.strip().lower() != "identity":
        raise ProblemError(415, "The body must not be compressed.", headers={"Accept-Encoding": "identity"})
    if (request.content_length or 0) > limit:
        raise ProblemError(413, f"The body is larger than {limit} bytes (server.max_body).")
    return await request.read()


async def read_json(
    request: web.Request,
    decoder: "msgspec.json.Decoder[_T]",
    limit: int,
    *,
    known: Mapping[str, str] | None = None,
) -> _T:
    """Return the body as the decoder's type. Raises ProblemError (413, 415, 422).

    `known` has the words for fields that are not taken, and why (`faults.faults_of`).
    """
    _demand_json(request)
    return _decoded(await read_body(request, limit), decoder, known)


async def read_optional_json(request: web.Request, decoder: "msgspec.json.Decoder[_T]", limit: int) -> _T:
    """Return the body as the decoder's type, an empty one as its defaults. Raises as `read_json` does."""
    body = await read_body(request, limit)
    if not body:
        return decoder.decode(b"{}")
    _demand_json(request)
    return _decoded(body, decoder)


def _demand_json(request: web.Request) -> None:
    kind = media_type(request)
    if kind != JSON:
        raise unsupported(kind, JSON)


def _decoded(body: bytes, decoder: "msgspec.json.Decoder[_T]", known: Mapping[str, str] | None = None) -> _T:
    wanted = decoder.type
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError:
            # Perhaps for the letters of a state alone: only what is refused is looked at twice.
            respelt = _respelt(body, wanted)
            if respelt is None:
                raise
            return msgspec.convert(respelt, wanted)
    except UNREADABLE as error:
        raise invalid(faults_of(error, wanted=wanted, text=body, known=known)) from None


def _respelt(body: bytes, wanted: Any) -> dict[str, Any] | None:
    """Return a body with its states in the letters they are written in; None where nothing is to mend."""
    given = msgspec.json.decode(body)
    if not isinstance(given, dict):
        return None
    spelt = {name: _spelt(given[name], wanted, name) for name in _ANY_CASE & given.keys()}
    return given | spelt if any(given[name] != word for name, word in spelt.items()) else None


def _spelt(value: Any, wanted: Any, name: str) -> Any:
    """Return one of the words that a field takes as they are written, in whatever letters it came."""
    alike = (
        word for word in choices(wanted, name) if isinstance(value, str) and word.lower() == value.lower()
    )
    return next(alike, value)


def unsupported(kind: str, *wanted: str) -> ProblemError:
    """Refuse a media type."""
    return ProblemError(415, f"The body's type must be {' or '.join(wanted)}, not {kind}.")


def read_query(request: web.Request, wanted: type[_T]) -> _T:
    """Return the query as a struct. Raises ProblemError (422) naming the parameter at fault."""
    given: dict[str, Any] = {}
    for name, value in request.query.items():
        if name in given:
            raise invalid_parameter(name, "is given more than once")
        given[name] = _value(name, value, wanted)
    try:
        return msgspec.convert(given, wanted)
    except UNREADABLE as error:
        fault = faults_of(error, wanted=wanted)[0]
        # All that a query says is text: that it was one is no help.
        told = fault.detail.replace("unknown field", "unknown parameter").removesuffix(", got a text")
        raise invalid_parameter(fault.pointer[1:], told) from None


def _value(name: str, text: str, wanted: type[Struct]) -> Any:
    if name in _numbers(wanted) and _DIGITS.fullmatch(text):
        return int(text)
    return _spelt(text, wanted, name) if name in _ANY_CASE else _with_plus(text)


@cache
def _numbers(wanted: type[Struct]) -> frozenset[str]:
    """Name the parameters that are whole numbers."""
    fields = msgspec.inspect.type_info(wanted).fields  # type: ignore[attr-defined]  # of a struct, always
    return frozenset(field.encode_name for field in fields if isinstance(_bare(field.type), IntType))


def _bare(kind: Type) -> Type:
    """Take a type out of what only describes it."""
    return kind.type if isinstance(kind, Metadata) else kind


def _with_plus(value: str) -> str:
    """Mend a time: a + in a query means a space, and the one in "+01:00" is easily left unescaped."""
    time = _PLUS_LOST.fullmatch(value)
    return value if time is None else f"{time[1]}+{time[2]}"
