"""Bytes as they were posted → events as they are understood.

Whatever isn't understood is refused whole, with a pointer to the fault. Knows nothing of HTTP, of routes
or of stores.
"""

import hashlib
import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct

from notifier.errors import Fault, InvalidEventError
from notifier.faults import UNREADABLE, depth_fault, escaped, faults_of, nearest
from notifier.model import MAX_DATA_DEPTH, MAX_RECIPIENTS, Delivery, Event, EventType, IdempotencyKey

MAX_EVENTS = 1000
"""How many events one array may hold."""
MAX_DELAY = 366 * 86400.0
"""How far ahead `deliver_at` may lie, in seconds."""


class Incoming(Struct, frozen=True):
    """An event that is understood, with its data's JSON text as it was posted.

    `fingerprint` is the hex SHA-256 of what the event says (not of how it was written: white space and
    the order of keys don't count), or None without an idempotency key.
    """

    event: Event
    raw: Raw
    fingerprint: str | None = None


class _Posted(Event, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event whose data is left as text."""

    data: Raw  # type: ignore[assignment]  # the same field, before it is decoded


class _Quick(_Posted, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same, its type not yet held to its pattern: that one expression takes half of the decoding."""

    type: Annotated[str, Meta(max_length=128)]


_quick = msgspec.json.Decoder(_Quick)
_event = msgspec.json.Decoder(_Posted)
_array = msgspec.json.Decoder(list[Raw])
_data = msgspec.json.Decoder(dict[str, Any])
_anything = msgspec.json.Decoder()
_children = msgspec.json.Decoder(dict[str, Raw] | list[Raw])
_canonical = msgspec.json.Encoder(order="deterministic")

_MEMBERS = len('{"type":"","data":}')
_TENANT = len(',"tenant":""')
_KEY = len(',"idempotency_key":""')
_TIME = len(',"deliver_at":"2026-01-01T00:00:00Z"')
_SHORTEST = len(',"data":0')
"""Bytes that fields take beside their values, and those of the shortest field that can stand twice."""

_FIELD = re.compile(
    rb'"(' + b"|".join(field.encode_name.encode() for field in msgspec.structs.fields(Event)) + rb')"\s*:'
)
_ARRAY = re.compile(rb"[ \t\r\n]*\[")


def parse_json(
    body: bytes, *, now: float | None = None, channels: Collection[str] | None = None
) -> tuple[list[Incoming], bool]:
    """Read one event, or an array of 1 to `MAX_EVENTS`; the second value says which it was.

    `now` is what `deliver_at` is measured against (default: the system's clock); `channels` are those that
    `deliver` may name, where they are known. Raises InvalidEventError with every event's first faults; the
    pointers of an array's begin with the event's place, `/0/type`.
    """
    now = time.time() if now is None else now
    if not _ARRAY.match(body):
        return [understood(body, now, channels)], False
    return each(elements(body), lambda text: understood(text, now, channels)), True


def from_event(event: Event, *, now: float | None = None) -> Incoming:
    """Hold an event that was made in this process to the rules of a posted one.

    `data` may hold whatever msgspec writes as JSON. Raises InvalidEventError.
    """
    try:
        body = msgspec.json.encode(event)
    except RecursionError:
        raise InvalidEventError([depth_fault("/data")]) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidEventError([Fault("/data", f"can't be written as JSON: {error}")]) from error
    incoming = understood(body, time.time() if now is None else now)
    if b"null" in body and _has_non_finite(event.data):
        raise InvalidEventError([Fault("/data", "NaN and infinity can't be written as JSON")])
    return incoming


def with_key(incoming: Incoming, key: str) -> Incoming:
    """Give an event the idempotency key that came beside it. Raises InvalidEventError."""
    inside = incoming.event.idempotency_key
    if inside is not None and inside != key:
        raise InvalidEventError(
            [Fault("/idempotency_key", "differs from the Idempotency-Key that was sent beside the body")]
        )
    try:
        key = msgspec.convert(key, IdempotencyKey)
    except msgspec.ValidationError:
        problem = "the Idempotency-Key beside the body: expected 1 to 512 printable ASCII characters"
        raise InvalidEventError([Fault("", problem)]) from None
    event = msgspec.structs.replace(incoming.event, idempotency_key=key)
    return Incoming(event, incoming.raw, fingerprint(event))


def elements(body: bytes) -> list[Raw]:
    """Take an array of 1 to `MAX_EVENTS` apart. Raises InvalidEventError."""
    try:
        found = _array.decode(body)
    except UNREADABLE as error:
        raise InvalidEventError(faults_of(error, wanted=list[Event], text=body)) from None
    if not 1 <= len(found) <= MAX_EVENTS:
        raise InvalidEventError([Fault("", f"expected 1 to {MAX_EVENTS} events, got {len(found)}")])
    return found


def each(texts: Iterable[Raw], read: Callable[[Raw], Incoming]) -> list[Incoming]:
    """Read every element of an array. Raises one InvalidEventError with the faults of all."""
    events: list[Incoming] = []
    faults: list[Fault] = []
    for index, text in enumerate(texts):
        try:
            events.append(read(text))
        except InvalidEventError as error:
            faults += [Fault(f"/{index}{fault.pointer}", fault.detail) for fault in error.faults]
    if faults:
        raise InvalidEventError(faults)
    return events


def understood(text: bytes | Raw, now: float, channels: Collection[str] | None = None) -> Incoming:
    """Read one event. Raises InvalidEventError, its pointers from the event on."""
    posted = _posted(text)
    event = Event(
        type=posted.type,
        data=decode_data(posted.data),
        tenant=posted.tenant,
        idempotency_key=posted.idempotency_key,
        deliver_at=posted.deliver_at,
        deliver=posted.deliver,
    )
    if faults := _broken_rules(event, posted, text, now, channels):
        raise InvalidEventError(faults)
    return Incoming(event, posted.data, None if event.idempotency_key is None else fingerprint(event))


def _posted(text: bytes | Raw) -> _Posted:
    """Take one event apart; whatever is not quite in order is read again, to say what is wrong with it."""
    try:
        posted = _quick.decode(text)
        if _is_type(posted.type):
            return posted
    except UNREADABLE:
        pass
    try:
        return _event.decode(text)
    except UNREADABLE as error:
        raise InvalidEventError(faults_of(error, wanted=Event, text=text)) from None


@lru_cache(maxsize=1024)
def _is_type(name: str) -> bool:
    """Whether it is the name of a type, remembered: there are few."""
    try:
        msgspec.convert(name, EventType)
    except msgspec.ValidationError:
        return False
    return True


def decode_data(text: bytes | Raw, pointer: str = "/data") -> dict[str, Any]:
    """Decode an event's data, which stands at `pointer`, and bound its depth. Raises InvalidEventError.

    At once, and not when somebody needs it: nothing says sooner that every number and text in it is in order.
    """
    try:
        data = _data.decode(text)
    except RecursionError:
        raise InvalidEventError([depth_fault(pointer)]) from None
    except UNREADABLE as error:
        told = faults_of(error, wanted=dict[str, Any], text=text)[0].detail
        raise InvalidEventError([Fault(_culprit(text, pointer), told)]) from None
    flat = bytes(text)
    if flat.count(b"{") + flat.count(b"[") > MAX_DATA_DEPTH and _too_deep(data):
        raise InvalidEventError([depth_fault(pointer)])
    return data


def fingerprint(event: Event) -> str:
    """Digest what an event says, its idempotency key apart."""
    said = msgspec.structs.replace(event, idempotency_key=None)
    return hashlib.sha256(_canonical.encode(said)).hexdigest()


def _broken_rules(
    event: Event, posted: _Posted, text: bytes | Raw, now: float, channels: Collection[str] | None
) -> list[Fault]:
    """Hold the rules that a type can't say."""
    faults: list[Fault] = []
    if _has_room(posted, len(text)) and (repeated := _repeated_field(bytes(text))):
        faults.append(Fault(f"/{escaped(repeated)}", "stands more than once"))
    if event.deliver_at is not None and not 0 <= event.deliver_at.timestamp() <= now + MAX_DELAY:
        faults.append(Fault("/deliver_at", "expected a time at most 366 days ahead, and none before 1970"))
    for index, delivery in enumerate(event.deliver):
        if channels is not None and delivery.channel not in channels:
            # What a channel needs is no help to whoever mistyped its name; one such name is enough to tell.
            return [*faults, Fault(f"/deliver/{index}/channel", _no_channel(delivery.channel, channels))]
        faults += _delivery_faults(f"/deliver/{index}", delivery)
    return faults


def _no_channel(name: str, channels: Collection[str]) -> str:
    return f"no channel {name!r}{nearest(name, channels) or '; there are: ' + ', '.join(sorted(channels))}"


def _delivery_faults(pointer: str, delivery: Delivery) -> Iterable[Fault]:
    to_url = delivery.channel == "webhook"
    wanted, refused = ("url", "to") if to_url else ("to", "url")
    if getattr(delivery, wanted) is None:
        yield Fault(f"{pointer}/{wanted}", "is missing: this channel needs it")
    if getattr(delivery, refused) is not None:
        yield Fault(f"{pointer}/{refused}", f"this channel takes {wanted!r} instead")
    if delivery.channel != "email":
        for name in ("cc", "bcc", "category"):
            if getattr(delivery, name) is not UNSET:
                yield Fault(f"{pointer}/{name}", "only an email has one")
    elif delivery.template is None:
        yield Fault(f"{pointer}/template", "is missing: an email needs one")
    if (count := delivery.recipients) > MAX_RECIPIENTS:
        yield Fault(pointer, f"expected at most {MAX_RECIPIENTS} recipients in to, cc and bcc, got {count}")


def _has_room(posted: _Posted, size: int) -> bool:
    """Whether a text of that many bytes could hold a field twice, by what those it has take at least.

    Spares nearly every text the search (2 µs): only white space and escapes take more than they must.
    """
    taken = _MEMBERS + len(posted.type) + len(posted.data)
    if posted.tenant is not None:
        taken += _TENANT + len(posted.tenant)
    if posted.idempotency_key is not None:
        taken += _KEY + len(posted.idempotency_key)
    if posted.deliver_at is not None:
        taken += _TIME
    return size >= taken + _SHORTEST


def _repeated_field(text: bytes) -> str | None:
    """Find a field that stands twice: which of the two is meant, nobody can tell.

    A text that can't hold one is the rule, and is told from the rest by counting; only what might (a
    field's name within the data, or spelt with escapes) is read again, by a parser that shows both.
    """
    found = _FIELD.findall(text)
    if len(found) == len(set(found)) and b"\\u00" not in text:
        return None
    try:
        readable = text.decode("utf-8", "replace")  # data that was repeated is not decoded yet
        pairs = json.loads(readable, object_pairs_hook=list, parse_int=str, parse_float=str)
    except RecursionError:  # nor was it held to its depth
        return "data"
    name, times = Counter(name for name, _ in pairs).most_common(1)[0]
    return name if times > 1 else None


def _too_deep(data: dict[str, Any]) -> bool:
    """Whether objects and arrays nest too deep."""
    level: list[Any] = [data]
    for _ in range(MAX_DATA_DEPTH):
        level = [item for parent in level for item in _items(parent) if isinstance(item, (dict, list))]
    return bool(level)


def _items(parent: Any) -> Iterable[Any]:
    return parent.values() if isinstance(parent, dict) else parent


def _has_non_finite(value: Any) -> bool:
    """Whether a number is NaN or infinite, which msgspec would write as null."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_non_finite, value.values()))
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(_has_non_finite, value))


def _culprit(text: bytes | Raw, pointer: str) -> str:
    """Follow what can't be decoded down to the smallest value that can't."""
    for _ in range(MAX_DATA_DEPTH):
        found = _broken_child(text)
        if found is None:
            break
        step, text = found
        pointer = f"{pointer}/{escaped(step)}"
    return pointer


def _broken_child(text: bytes | Raw) -> tuple[str, Raw] | None:
    try:
        children = _children.decode(text)
    except UNREADABLE:
        return None
    pairs = children.items() if isinstance(children, dict) else enumerate(children)
    return next(((str(step), child) for step, child in pairs if not _decodable(child)), None)


def _decodable(text: Raw) -> bool:
    try:
        _anything.decode(text)
    except UNREADABLE:
        return False
    return True
