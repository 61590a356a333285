"""What msgspec says of a text that it can't take → where the fault is, and words for whoever wrote it.

No type of Python's is named, and whatever else was allowed there is told: fields, and words of a few.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import Raw, inspect

from notifier.errors import Fault
from notifier.model import MAX_DATA_DEPTH

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a text that it can't decode into the type asked for."""
A_TIME = 'a time with its zone (RFC 3339), such as "2026-01-31T12:00:00Z"'

_PROBLEM = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_NAMED = re.compile(r"Object (contains unknown|missing required) field `(.*)`", re.DOTALL)
_TYPES = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_BOUND = re.compile(r"Expected `(\w+)`(?: of length)? (<=|>=|<|>) (\S+)")
_CHOICE = re.compile(r"Invalid (?:enum )?value .*", re.DOTALL)
_KEYS = msgspec.json.Decoder(dict[str, Raw])
_KINDS = {
    "object": "an object",
    "array": "an array",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "datetime": A_TIME,
}
_GOT = _KINDS | {"float": "a decimal number"}
_COUNTED = {"str": "character", "array": "element", "object": "field"}
_LIMITS = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}
_EXPECTED = {
    "type": "expected 1 to 128 of A-Z a-z 0-9 _ . - /",
    "tenant": "expected 1 to 128 printable ASCII characters, without spaces",
    "idempotency_key": "expected 1 to 512 printable ASCII characters",
    "locale": "expected 1 to 35 of A-Z a-z 0-9 _ -",
    "category": "expected 1 to 64 of a-z 0-9 _ -, beginning with a letter or a digit",
    "priority": 'expected "high", "normal" or "low"',
}
"""What to say in place of a regular expression."""
_SHOWN = 64
"""Characters of a wrong value or name that are looked at."""


def faults_of(
    error: Exception,
    pointer: str = "",
    *,
    wanted: Any = Any,
    text: bytes | Raw | None = None,
    expected: Mapping[str, str] = _EXPECTED,
    known: Mapping[str, str] | None = None,
) -> list[Fault]:
    """Say what msgspec found (one of `UNREADABLE`), each as a JSON pointer (RFC 6901) below `pointer`.

    `wanted` is the type that was asked for, `text` what was to be it: then every missing field is named, and
    not just the first. `expected` has the words for the fields that a regular expression holds, and `known`
    those for fields that are not taken, and why, where that is worth more than "unknown".
    """
    if not isinstance(error, msgspec.DecodeError):
        deep = isinstance(error, RecursionError)
        return [depth_fault(pointer) if deep else Fault(pointer, "is not UTF-8 text")]
    problem, path = _PROBLEM.fullmatch(str(error)).groups("")  # type: ignore[union-attr]  # it matches any text
    steps = [name or index for name, index in _STEP.findall(path)]
    pointer += "".join(f"/{step}" for step in steps)
    if named := _NAMED.fullmatch(problem):
        names = _fields(wanted, steps)
        if named[1] == "missing required":
            missing = [named[2]] if text is None or steps else _missing(text, names) or [named[2]]
            return [Fault(f"{pointer}/{escaped(name)}", "is missing") for name in missing]
        told = (known or {}).get(named[2]) or f"unknown field{nearest(named[2], names)}"
        return [Fault(f"{pointer}/{escaped(named[2])}", told)]
    if text is not None and not bytes(text).strip():
        return [Fault(pointer, f"is empty: expected {_kinds_of(wanted)}")]
    if "matching regex" in problem:
        return [Fault(pointer, expected.get(steps[-1] if steps else "", "is not written as it has to be"))]
    within = "a value in it: " if path.endswith("[...]") else ""
    return [Fault(pointer, within + _told(problem, wanted, steps))]


def choices(wanted: Any, *steps: str) -> tuple[str, ...]:
    """Return the words that may stand at a place of a type; nothing where it takes any text."""
    return tuple(word for kind in _within(_described(wanted), steps) for word in _words(kind))


def nearest(name: str, names: Iterable[str]) -> str:
    """Write the known name that is most like this one as a question, after a `;`, if any is."""
    near = difflib.get_close_matches(name[:_SHOWN].lower(), list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def escaped(name: str) -> str:
    """Write a field's name as a step of a JSON pointer, cut where it is absurdly long."""
    return name[:128].replace("~", "~0").replace("/", "~1")


def depth_fault(pointer: str) -> Fault:
    """Refuse what nests too deep."""
    return Fault(pointer, f"nests deeper than {MAX_DATA_DEPTH} levels")


def either(words: Sequence[str]) -> str:
    """Write words as alternatives: `a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _told(problem: str, wanted: Any, steps: Sequence[str]) -> str:
    """Put one of msgspec's sentences into our words."""
    if types := _TYPES.fullmatch(problem):
        kinds = types[1].split(" | ")
        expected = A_TIME if "datetime" in kinds else either([_KINDS.get(kind, kind) for kind in kinds])
        return f"expected {expected}, got {_GOT.get(types[2], types[2])}"
    if bound := _BOUND.fullmatch(problem):
        return f"expected {_bounded(*bound.groups())}"
    if _CHOICE.fullmatch(problem) and (allowed := choices(wanted, *steps)):
        quoted = [f'"{word}"' for word in allowed]
        return f"expected {either(quoted)}"
    if "RFC3339" in problem or "timezone" in problem:
        return f"expected {A_TIME}"
    if problem == "Input data was truncated":
        return "JSON is malformed: it ends too early"
    return problem if problem.startswith("JSON") else problem[0].lower() + problem[1:]


def _bounded(kind: str, sign: str, bound: str) -> str:
    if noun := _COUNTED.get(kind):
        return f"{_LIMITS[sign]} {bound} {noun}{'' if bound == '1' else 's'}"
    return f"{_KINDS.get(kind, kind)}, {_LIMITS[sign]} {bound}"


def _kinds_of(wanted: Any) -> str:
    kinds = _within(_described(wanted), ())
    arrays = {isinstance(kind, inspect.ListType | inspect.VarTupleType) for kind in kinds}
    return either(["a JSON array" if array else "a JSON object" for array in sorted(arrays)])


def _missing(text: bytes | Raw, names: Mapping[str, bool]) -> list[str]:
    try:
        there = _KEYS.decode(text)
    except UNREADABLE:  # something follows what lacks the field
        return []
    return [name for name, required in names.items() if required and name not in there]


def _fields(wanted: Any, steps: Sequence[str]) -> dict[str, bool]:
    """Name the fields of the object at a place, and whether each is required."""
    structs = [kind for kind in _within(_described(wanted), steps) if isinstance(kind, inspect.StructType)]
    return {field.encode_name: field.required for kind in structs for field in kind.fields}


@cache
def _described(wanted: Any) -> inspect.Type:
    return inspect.type_info(wanted)


def _within(kind: inspect.Type, steps: Sequence[str]) -> Iterator[inspect.Type]:
    """Yield the types that a value may have at a place below one of a type."""
    if isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _within(each, steps)
    elif isinstance(kind, inspect.Metadata):
        yield from _within(kind.type, steps)
    elif not steps:
        yield kind
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            if field.encode_name == steps[0]:
                yield from _within(field.type, steps[1:])
    elif isinstance(kind, inspect.ListType | inspect.VarTupleType):
        yield from _within(kind.item_type, steps[1:])


def _words(kind: inspect.Type) -> Iterator[str]:
    if isinstance(kind, inspect.EnumType):
        yield from (str(member.value) for member in kind.cls)
    elif isinstance(kind, inspect.LiteralType):
        yield from (str(value) for value in kind.values)
