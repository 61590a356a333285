"""What went wrong in a template, as its author needs to be told: the file, the line, the variable's path."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Template, TemplateNotFound, TemplateSyntaxError, Undefined
from jinja2.exceptions import UndefinedError
from jinja2.utils import missing

from notifier.errors import TemplateError
from notifier.rendering.variables import Variables

_MAX_PROBLEM = 500
_SEARCHED_VALUES = 10_000
_MAX_STEP = 64


def explained(error: Exception, template: str, variables: Variables) -> TemplateError:
    """Turn whatever a template raised into what its author needs to know."""
    if isinstance(error, TemplateSyntaxError):
        return TemplateError(
            error.message or "syntax error", template=error.name or template, line=error.lineno
        )
    line = None
    culprit = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        culprit = frame.f_locals.get("self")
        compiled = frame.f_globals.get("__jinja_template__")
        if isinstance(compiled, Template):
            template, line = compiled.name or template, compiled.get_corresponding_lineno(number)
    if isinstance(error, UndefinedError) and isinstance(culprit, Undefined):
        variable = _missing(culprit, variables)
        problem = f"{variable!r} is undefined" if variable else error.message or "a variable is undefined"
        return TemplateError(problem, template=template, line=line, variable=variable)
    return TemplateError(_problem(error), template=template, line=line)


def _problem(error: Exception) -> str:
    if isinstance(error, TemplateNotFound):
        return f"there is no {error.message!r}"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    if isinstance(error, UnicodeEncodeError):
        return "the result holds half of a surrogate pair, which is no text"
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:_MAX_PROBLEM])


def _missing(culprit: Undefined, variables: Variables) -> str | None:
    """Name a missing variable by the path that leads to it, such as `data.items[3].price`."""
    name, owner = culprit._undefined_name, culprit._undefined_obj  # noqa: SLF001 - told nowhere else
    if owner is missing:
        return None if culprit._undefined_hint else name  # noqa: SLF001
    path = _path_to(owner, variables)
    return None if path is None else f"{path}.{name}"


def _path_to(wanted: object, variables: Variables) -> str | None:
    """Find a dict or list among the variables by identity; None when it isn't there, or too much else is.

    Each is remembered by its last step alone: whole paths would multiply what hostile data holds.
    """
    if not isinstance(wanted, dict | list):
        return None
    found: list[tuple[Any, int, str]] = [(variables, -1, "")]
    for place, (value, _, _) in enumerate(found):  # which grows as it is walked
        if value is wanted:
            return _path(found, place)
        for step, child in _children(value):
            if len(found) >= _SEARCHED_VALUES:
                return None
            found.append((child, place, step))
    return None


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """The dicts and lists that a value holds, each with the step that leads to it."""
    if isinstance(value, Mapping):
        return (
            (f".{key[:_MAX_STEP]}", child) for key, child in value.items() if isinstance(child, dict | list)
        )
    return ((f"[{index}]", child) for index, child in enumerate(value) if isinstance(child, dict | list))


def _path(found: Sequence[tuple[Any, int, str]], place: int) -> str:
    """Put a path together from the steps that lead to a place."""
    steps = []
    while place > 0:
        _, above, step = found[place]
        steps.append(step)
        place = above
    return "".join(reversed(steps)).removeprefix(".")[:_MAX_PROBLEM]
