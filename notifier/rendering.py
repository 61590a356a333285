"""templates/ → subject, HTML, text and payload; and the Jinja2 that stands in `config.toml`.

Whatever goes wrong in a template is a `TemplateError` that names the file, the line and the variable.
"""

import difflib
import json
import re
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import (
    BaseLoader,
    Environment,
    Template,
    TemplateNotFound,
    TemplateSyntaxError,
    Undefined,
    meta,
    nodes,
)
from jinja2.exceptions import UndefinedError

from notifier.channels import Content
from notifier.errors import ConfigError, Permanent, TemplateError
from notifier.model import EventRecord, Job
from notifier.sandbox import JsonSandbox, Sandbox

MAX_OUTPUT = 4 * 1024 * 1024
"""How many characters one render may put out, all its parts together."""

RECHECK_SECONDS = 1.0
"""How soon a changed, new or removed file is seen."""

_GIVEN = frozenset({"event", "data", "tenant"})  # what `to`, `url`, `locale` and `when` know
_MAX_CONFIGURED = 1024 * 1024
_MAX_PROBLEM = 500
_KEPT_FOLDERS = 1024
_SEARCHED_VALUES = 100_000
_PLAIN = ("",)

_PARTS = {
    ("subject", "txt"): "subject",
    ("body", "html"): "html",
    ("body", "txt"): "text",
    ("payload", "json"): "payload",
}
_PART_FILE = re.compile(r"(subject|body|payload)(?:\.([A-Za-z0-9_-]{1,35}))?\.(txt|html|json)")
_SEGMENT = re.compile(r"[^/\\\x00:]+")
_TEMPLATE_SUFFIXES = frozenset({".html", ".txt", ".json", ".jinja", ".j2"})
_REFERENCES = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)

Variables = Mapping[str, Any]


class Renderer:
    """Makes a job's content from its template, a folder of subject.txt, body.html, body.txt, payload.json.

    `path` is the templates folder. `max_output` is in characters, for all parts of one render together.
    `clock` is monotonic, in seconds: files are looked at again after `RECHECK_SECONDS`.
    """

    def __init__(
        self, path: Path, *, max_output: int = MAX_OUTPUT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._max_output = max_output
        self._files = _Files(path, clock)
        self._pages = Sandbox(self._files, limit=max_output)
        self._payloads = JsonSandbox(self._files, limit=max_output)

    def render(
        self,
        template: str,
        parts: Collection[str],
        *,
        event: EventRecord,
        data: Mapping[str, Any],
        job: Job,
        locale: str | None = None,
    ) -> Content:
        """Render those of `parts` (`channels.ALL_PARTS`) that the template has a file for.

        For the locale `fr-CA` each part is looked for as `fr-CA`, then as `fr`, then plain; case, `-` and
        `_` make no difference. Raises TemplateError.
        """
        chosen = self._files.chosen(template, parts, locale)
        variables = event_variables(event, data) | {"job": _job_variables(job)}
        for sandbox in (self._pages, self._payloads):
            sandbox.budget.refill()
        made: dict[str, str] = {}
        for part, name in chosen:
            room = self._max_output - sum(map(len, made.values()))
            made[part] = _FINISH[part](name, self._text(name, variables, room))
        return Content(**made)

    def _text(self, name: str, variables: dict[str, Any], room: int) -> str:
        sandbox = self._sandbox(name)
        try:
            text = sandbox.produce(sandbox.get_template(name), variables, room)
            text.encode()
        except Exception as error:
            raise _explained(error, name, variables) from error
        return text

    def _sandbox(self, name: str) -> Sandbox:
        return self._payloads if name.endswith(".json") else self._pages

    def names(self) -> list[str]:
        """The templates there are."""
        places = (name.rpartition("/") for name in self._files.names())
        return sorted({folder for folder, _, file in places if folder and _part_of(file)})

    def check(self) -> list[TemplateError]:
        """Compile every file below the templates folder, and look for the layouts it names."""
        return [problem for name in self._files.names() for problem in self._problems(name)]

    def _problems(self, name: str) -> Iterator[TemplateError]:
        sandbox = self._sandbox(name)
        sandbox.budget.refill()
        try:
            source, _, _ = self._files.get_source(sandbox, name)
            tree = sandbox.parse(source, name)
            sandbox.compile(source, name)
        except Exception as error:
            yield _explained(error, name, {})
            return
        for wanted, line in _references(tree):
            if not self._files.has(wanted):
                yield TemplateError(f"there is no {wanted!r}", template=name, line=line)


def _references(tree: nodes.Template) -> Iterator[tuple[str, int]]:
    """The files that a template always needs, and the lines that say so."""
    for node in tree.find_all(_REFERENCES):
        named = getattr(node, "template", None)
        always = not getattr(node, "ignore_missing", False)
        if always and isinstance(named, nodes.Const) and isinstance(named.value, str):
            yield named.value, node.lineno


class _Files(BaseLoader):
    """The templates folder, looked at no more often than every `RECHECK_SECONDS`.

    Template names come from callers of the API: none may lead out of the folder.
    """

    def __init__(self, root: Path, clock: Callable[[], float]) -> None:
        self.root = root
        self._clock = clock
        self._folders: dict[str, tuple[float, dict[tuple[str, str], str]]] = {}
        self._stamps: dict[str, tuple[float, tuple[int, int, int] | None]] = {}

    def chosen(self, template: str, parts: Collection[str], locale: str | None) -> list[tuple[str, str]]:
        """Each of the parts that has a file, and that file's name. Raises TemplateError for no template."""
        known = self._parts(template)
        if not known:
            raise TemplateError("there is no such template", template=template)
        tags = _fallbacks(locale) if locale else _PLAIN
        return [
            (part, known[part, tag])
            for part in _FINISH
            if part in parts and (tag := _first(tags, part, known)) is not None
        ]

    def _parts(self, template: str) -> dict[tuple[str, str], str]:
        """The files of a template, by part and locale."""
        now = self._clock()
        known = self._folders.get(template)
        if known is None or known[0] <= now:
            if len(self._folders) >= _KEPT_FOLDERS:
                self._folders.clear()
            known = self._folders[template] = (now + RECHECK_SECONDS, self._look_for_parts(template))
        return known[1]

    def _look_for_parts(self, template: str) -> dict[tuple[str, str], str]:
        if not _is_inside(template):
            return {}
        try:
            files = sorted(entry.name for entry in (self.root / template).iterdir() if entry.is_file())
        except (OSError, ValueError):
            return {}
        return {part: f"{template}/{name}" for name in files if (part := _part_of(name))}

    def get_source(self, _environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        """Read a file for Jinja2. Raises TemplateNotFound."""
        stamp = self._stamp(template)
        if stamp is None:
            raise TemplateNotFound(template)
        source = (self.root / template).read_text("utf-8")
        # Jinja2 mixes file names and template names up in some errors: here both are the same.
        return source, template, lambda: self._stamp(template) == stamp

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._stamp(name) is not None

    def _stamp(self, name: str) -> tuple[int, int, int] | None:
        """What changes with a file's contents; None for no file."""
        now = self._clock()
        known = self._stamps.get(name)
        if known is None or known[0] <= now:
            if len(self._stamps) >= _KEPT_FOLDERS * len(_PARTS):
                self._stamps.clear()
            known = self._stamps[name] = (now + RECHECK_SECONDS, self._look_at(name))
        return known[1]

    def _look_at(self, name: str) -> tuple[int, int, int] | None:
        path = self.root / name
        try:
            if not _is_inside(name) or not path.is_file():
                return None
            found = path.stat()
        except (OSError, ValueError):
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def names(self) -> list[str]:
        """Every file that holds a template."""
        files = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return sorted(file.as_posix() for file in files if _is_template(file))


def _is_template(file: Path) -> bool:
    return file.suffix in _TEMPLATE_SUFFIXES and not any(segment.startswith(".") for segment in file.parts)


def _is_inside(name: str) -> bool:
    return all(_SEGMENT.fullmatch(segment) and segment not in {".", ".."} for segment in name.split("/"))


def _part_of(file: str) -> tuple[str, str] | None:
    """Which part, in which locale, a file of a template holds."""
    found = _PART_FILE.fullmatch(file)
    part = _PARTS.get((found[1], found[3])) if found else None
    return (part, _normal(found[2] or "")) if found and part else None


def _normal(locale: str) -> str:
    return locale.replace("_", "-").lower()


def _first(tags: tuple[str, ...], part: str, known: Mapping[tuple[str, str], str]) -> str | None:
    for tag in tags:
        if (part, tag) in known:
            return tag
    return None


@lru_cache(maxsize=256)
def _fallbacks(locale: str) -> tuple[str, ...]:
    """`fr_CA` → `fr-ca`, `fr`, and the plain one."""
    subtags = _normal(locale).split("-")
    return (*("-".join(subtags[:length]) for length in range(len(subtags), 0, -1)), "")


# What templates are given ------------------------------------------------------------------------


def event_variables(event: EventRecord, data: Mapping[str, Any]) -> dict[str, Any]:
    """What templates, destinations and conditions know of an event."""
    return {
        "event": {
            "id": event.id,
            "type": event.type,
            "created_at": datetime.fromtimestamp(event.created_at, UTC),
            "tenant": event.tenant,
        },
        "data": data,
        "tenant": event.tenant,
    }


def _job_variables(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "channel": job.channel,
        "destination": job.destination,
        "route": job.route,
        "endpoint": job.endpoint,
        "template": job.template,
        "locale": job.locale,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "created_at": datetime.fromtimestamp(job.created_at, UTC),
    }


# What is made of a rendered file -----------------------------------------------------------------


def _one_line(_name: str, text: str) -> str:
    return " ".join(text.split())


def _as_it_is(_name: str, text: str) -> str:
    return text


def _valid_json(name: str, text: str) -> str:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise TemplateError(f"the result is not JSON: {_json_problem(text, error)}", template=name) from None
    return text


def _json_problem(text: str, error: Exception) -> str:
    """Where it stops being JSON, as line and column of the result."""
    try:
        json.loads(text)
    except json.JSONDecodeError as found:
        return f"{found.msg} at line {found.lineno}, column {found.colno} of {_excerpt(text, found.pos)}"
    except RecursionError:
        return "it nests too deep"
    return str(error)


def _excerpt(text: str, position: int) -> str:
    start = max(0, position - 30)
    return repr(text[start : position + 30])


_FINISH: dict[str, Callable[[str, str], str]] = {
    "subject": _one_line,
    "html": _as_it_is,
    "text": _as_it_is,
    "payload": _valid_json,
}


# What went wrong ---------------------------------------------------------------------------------


def _explained(error: Exception, template: str, variables: Variables) -> TemplateError:
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
    return TemplateError(_problem(error, culprit, variables), template=template, line=line)


def _problem(error: Exception, culprit: object, variables: Variables) -> str:
    if isinstance(error, TemplateNotFound):
        return f"there is no {error.message!r}"
    if isinstance(error, UndefinedError) and isinstance(culprit, Undefined):
        return _missing(error, culprit, variables)
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    if isinstance(error, UnicodeEncodeError):
        return "the result holds half of a surrogate pair, which is no text"
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(c if c.isprintable() else "\ufffd" for c in text[:_MAX_PROBLEM])


def _missing(error: UndefinedError, culprit: Undefined, variables: Variables) -> str:
    """Name a missing variable by the path that leads to it, such as `data.items[3].price`."""
    path = _path_to(culprit._undefined_obj, variables)  # noqa: SLF001 - Jinja2 tells it nowhere else
    if path is None:
        return error.message or "a variable is undefined"
    return f"'{path}.{culprit._undefined_name}' is undefined"  # noqa: SLF001


def _path_to(wanted: object, variables: Variables) -> str | None:
    """Find a dict or list among the variables by identity; None when it isn't there."""
    if not isinstance(wanted, dict | list):
        return None
    pending: list[tuple[str, Any]] = list(variables.items())
    for path, value in pending:  # which grows as it is walked
        if value is wanted:
            return path
        if len(pending) > _SEARCHED_VALUES:
            return None
        if isinstance(value, dict):
            pending += [(f"{path}.{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            pending += [(f"{path}[{index}]", inner) for index, inner in enumerate(value)]
    return None


# Jinja2 in the configuration ---------------------------------------------------------------------


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
                _refuse_unknown_names(key, _CONFIGURED.parse(source))
                self._template = _CONFIGURED.from_string(source)

    def render(self, event: EventRecord, data: Mapping[str, Any]) -> str:
        """Fill it in, the white space around it taken off. Raises Permanent (`destination_error`)."""
        if self._template is None:
            return self.source
        variables = event_variables(event, data)
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
            self._evaluate = _CONFIGURED.compile_expression(source, undefined_to_none=False)
            _refuse_unknown_names(key, _CONFIGURED.parse(f"{{{{ ({source}\n) }}}}"))

    def holds(self, event: EventRecord, data: Mapping[str, Any]) -> bool:
        """Whether it is true of an event. Raises Permanent (`condition_error`) where that can't be said."""
        variables = event_variables(event, data)
        _CONFIGURED.budget.refill()
        try:
            return bool(self._evaluate(variables))
        except Exception as error:
            raise _refusal(error, self.key, variables, code="condition_error") from error


_CONFIGURED = Sandbox(limit=_MAX_CONFIGURED)


@contextmanager
def _compiling(key: str, problem: str) -> Iterator[None]:
    try:
        yield
    except TemplateSyntaxError as error:
        raise ConfigError(key, f"{problem}: {error.message}") from None


def _refuse_unknown_names(key: str, tree: nodes.Template) -> None:
    """A name that nobody will ever set is a slip of the pen: better told at the start than by failed jobs."""
    for name in sorted(meta.find_undeclared_variables(tree) - _GIVEN - _CONFIGURED.globals.keys()):
        near = difflib.get_close_matches(name, _GIVEN, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(_GIVEN))}"
        raise ConfigError(key, f"{name!r} is never given; {hint}")


def _refusal(error: Exception, key: str, variables: Variables, *, code: str) -> Permanent:
    return Permanent(str(_explained(error, key, variables)), code=code)
