"""CloudEvents 1.0.2 → events, in the three modes of its HTTP binding. Knows HTTP's headers as a mapping only.

`source` and `id` together are the idempotency key, joined by a space (which a URI can't hold, so no two
pairs meet); the extension attribute `tenant` is the tenant; `subject`, `time`, `dataschema` and other
extension attributes are read, and not kept. What an event says is its type and its data.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Raw, Struct

from notifier.errors import Fault, InvalidEventError
from notifier.faults import UNREADABLE, escaped, faults_of
from notifier.ingest import Incoming, decode_data, each, elements, fingerprint
from notifier.model import Event, EventType, Tenant

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
HEADER = "ce-"
"""What the binary mode's headers begin with."""

_NULL = Raw(b"null")
_NO_DATA = Raw(b"{}")
_JSON_TYPE = re.compile(r"\s*[\w.+-]+/([\w.-]+\+)?json\s*(;.*)?", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"[a-z0-9]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_MAX_KEY = 512


class Attributes(Struct, frozen=True, kw_only=True):
    """What describes a CloudEvent; other attributes are its extensions, and allowed."""

    specversion: Literal["1.0"]
    id: Annotated[str, Meta(pattern=r"^[\x20-\x7e]{1,512}\Z")]
    source: Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,510}\Z", description="a URI reference")]
    type: EventType
    subject: Annotated[str, Meta(min_length=1)] | None = None
    time: Annotated[datetime, Meta(tz=True)] | None = None
    dataschema: Annotated[str, Meta(min_length=1)] | None = None
    datacontenttype: Annotated[str, Meta(description="of JSON only")] | None = None
    tenant: Tenant | None = None


class CloudEvent(Attributes, frozen=True, kw_only=True):
    """A CloudEvent 1.0 in the JSON format; its data must be a JSON object."""

    data: dict[str, Any] | None = None
    data_base64: str | None = None


class _Posted(CloudEvent, frozen=True, kw_only=True):
    """A CloudEvent whose data is left as text."""

    data: Raw = _NULL  # type: ignore[assignment]  # the same field, before it is decoded


_cloud_event = msgspec.json.Decoder(_Posted)
_names = msgspec.json.Decoder(dict[str, Raw])
_EXPECTED = {
    "id": "expected 1 to 512 printable ASCII characters",
    "source": "expected a URI reference of 1 to 510 ASCII characters",
    "type": "expected 1 to 128 of A-Z a-z 0-9 _ . - /",
    "tenant": "expected 1 to 128 printable ASCII characters, without spaces",
}


def parse_structured(body: bytes) -> list[Incoming]:
    """Read one CloudEvent in structured mode. Raises InvalidEventError."""
    return [_structured(body)]


def parse_batch(body: bytes) -> list[Incoming]:
    """Read a batch of CloudEvents, 1 to `ingest.MAX_EVENTS`. Raises InvalidEventError."""
    return each(elements(body), _structured)


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether headers hold any of the attributes that make a request one in binary mode."""
    return any(f"{HEADER}{name}" in headers for name in ("specversion", "id", "source", "type"))


def parse_binary(headers: Mapping[str, str], body: bytes) -> list[Incoming]:
    """Read one CloudEvent whose attributes are `ce-` headers and whose data is the body.

    An empty body is an event without data. The content type is the caller's to check. Raises
    InvalidEventError; a fault's pointer names the attribute as if it stood in the structured mode.
    """
    said = {
        name.lower().removeprefix(HEADER): header_value(value)
        for name, value in headers.items()
        if name.lower().startswith(HEADER)
    }
    _check_names(said)
    try:
        attributes = msgspec.convert(said, Attributes)
    except UNREADABLE as error:
        raise InvalidEventError(faults_of(error, wanted=Attributes, expected=_EXPECTED)) from None
    return [_incoming(attributes, Raw(body) if body else _NO_DATA)]


def is_json(media_type: str) -> bool:
    """Whether a media type is one of JSON, `application/json` or `…+json`."""
    return _JSON_TYPE.fullmatch(media_type) is not None


def header_value(value: str) -> str:
    """Undo what the HTTP binding does to an attribute's value (§3.1.3.2): quoting, then percent-encoding.

    What isn't UTF-8 then becomes U+FFFD, which no attribute that is kept may hold.
    """
    if quoted := _QUOTED.fullmatch(value):
        value = re.sub(r"\\(.)", r"\1", quoted[1])
    return unquote(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _structured(text: bytes | Raw) -> Incoming:
    try:
        posted = _cloud_event.decode(text)
        names = _names.decode(text)
    except UNREADABLE as error:
        faults = faults_of(error, wanted=CloudEvent, text=text, expected=_EXPECTED)
        raise InvalidEventError(faults) from None
    _check_names(names.keys() - {"data_base64"})
    if posted.datacontenttype is not None and not is_json(posted.datacontenttype):
        raise InvalidEventError([Fault("/datacontenttype", "expected a JSON media type")])
    if posted.data_base64 is not None:
        return _incoming(posted, _decoded(posted), "/data_base64")
    return _incoming(posted, _NO_DATA if _is_null(posted.data) else posted.data)


def _check_names(names: Iterable[str]) -> None:
    """Hold CloudEvents §3.1: names are lower-case letters and digits."""
    wrong = [name for name in names if not _ATTRIBUTE.fullmatch(name)]
    if wrong:
        raise InvalidEventError(
            [Fault(f"/{escaped(name)}", "an attribute's name is lower-case a-z and 0-9") for name in wrong]
        )


def _is_null(text: Raw) -> bool:
    return bytes(text) == bytes(_NULL)


def _decoded(posted: _Posted) -> Raw:
    """Return the data's JSON text out of its Base64."""
    if not _is_null(posted.data):
        raise InvalidEventError([Fault("/data_base64", "stands beside data; only one may")])
    try:
        return Raw(base64.b64decode(posted.data_base64 or "", validate=True))
    except ValueError:
        raise InvalidEventError([Fault("/data_base64", "is not Base64")]) from None


def _incoming(said: Attributes, text: Raw, pointer: str = "/data") -> Incoming:
    """Put an event together from its attributes and its data's text, which stands at `pointer`."""
    key = f"{said.source} {said.id}"
    if len(key) > _MAX_KEY:
        problem = f"source and id together are longer than {_MAX_KEY - 1} characters"
        raise InvalidEventError([Fault("/id", problem)])
    event = Event(type=said.type, data=decode_data(text, pointer), tenant=said.tenant, idempotency_key=key)
    return Incoming(event, text, fingerprint(event))
