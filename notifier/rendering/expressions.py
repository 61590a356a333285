"""The Jinja2 that stands in `config.toml`: destinations and locales (`Text`), and `when` (`Condition`)."""

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jinja2 import Template, TemplateSyntaxError, meta, nodes

from notifier.errors import ConfigError, Permanent
from notifier.model import EventRecord
from notifier.rendering.problems import explained
from notifier.rendering.sandbox import Sandbox
from notifier.rendering.variables import complete

_GIVEN = frozenset({"event", "data", "tenant"})
_MAX_CONFIGURED = 1024 * 1024


class Text:
    """A string of the configuration that may hold Jinja2, such as a route's `to`. `key` is its place there.

    Raises ConfigError where it can't be compiled, or names what it will never be given.
    """

    def __init__(self, source: str, key: str) -> None:
        self.source = source
        self.key = key
        self._template: Template | None = None
        if "{" in source:
            with _compiling(key, "is no Jinja2"):
                self._names = _known_names(key, _CONFIGURED.parse(source))
                self._template = _CONFIGURED.from_string(source)

    @property
    def is_literal(self) -> bool:
        """Whether it holds no Jinja2, and so is the same for every event."""
        return self._template is None

    def render(self, event: EventRecord, data: Mapping[str, Any]) -> str:
        """Fill it in, the white space around it taken off. Raises Permanent (`destination_error`)."""
        if self._template is None:
            return self.source
        variables = _variables(event, data, self._names)
        _CONFIGURED.budget.refill()
        try:
            text = _CONFIGURED.produce(self._template, variables, _MAX_CONFIGURED)
            text.encode()
        except Exception as error:
            raise _refusal(error, self.key, variables, code="destination_error") from error
        return text.strip()


class Condition:
    """A Jinja2 expression of the configuration: a route's `when`. `key` is its place there.

    Raises ConfigError where it can't be compiled, or names what it will never be given.
    """

    def __init__(self, source: str, key: str) -> None:
        self.source = source
        self.key = key
        with _compiling(key, "is no Jinja2 expression, which stands without {{ }}"):
            self._template = _CONFIGURED.expression(source)
            self._names = _known_names(key, _CONFIGURED.parse(f"{{{{ ({source}\n) }}}}"))

    def holds(self, event: EventRecord, data: Mapping[str, Any]) -> bool:
        """Whether it is true of an event. Raises Permanent (`condition_error`) where that can't be said."""
        variables = _variables(event, data, self._names)
        _CONFIGURED.budget.refill()
        try:
            return bool(_CONFIGURED.value(self._template, variables))
        except Exception as error:
            raise _refusal(error, self.key, variables, code="condition_error") from error


_CONFIGURED = Sandbox(limit=_MAX_CONFIGURED)


@contextmanager
def _compiling(key: str, problem: str) -> Iterator[None]:
    try:
        yield
    except TemplateSyntaxError as error:
        raise ConfigError(key, f"{problem}: {error.message}") from None
    except (RecursionError, SyntaxError, MemoryError):  # of Jinja2's compiler or of Python's
        raise ConfigError(key, f"{problem} that can be compiled: it nests too deep") from None


def _known_names(key: str, tree: nodes.Template) -> set[str]:
    """The variables that are asked for.

    A name that nobody will ever set is a slip of the pen: better told at the start than by failed jobs.
    """
    names = meta.find_undeclared_variables(tree)
    for name in sorted(names - _GIVEN - _CONFIGURED.globals.keys()):
        near = difflib.get_close_matches(name, _GIVEN, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(_GIVEN))}"
        raise ConfigError(key, f"{name!r} is never given; {hint}")
    return names


def _variables(event: EventRecord, data: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    variables = {"data": data, "tenant": event.tenant}
    complete(variables, wanted, event)
    return variables


def _refusal(error: Exception, key: str, variables: dict[str, Any], *, code: str) -> Permanent:
    return Permanent(str(explained(error, key, variables)), code=code)
