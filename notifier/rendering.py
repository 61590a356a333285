"""Templates: a folder each under `templates/`, rendered by a sandboxed, strict Jinja2.

Operators write templates, events fill them: a template is trusted to mean well and kept from doing harm by
mistake; what fills it is not trusted at all.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from jinja2 import pass_eval_context
from jinja2.nodes import EvalContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import htmlsafe_json_dumps

from notifier.channels import Content
from notifier.errors import ConfigError, Permanent, TemplateError
from notifier.model import EventRecord, Job

MAX_OUTPUT = 4 * 1024**2
"""Characters that one part of a template may make."""

_FILES = {"subject": "subject.txt", "html": "body.html", "text": "body.txt", "payload": "payload.json"}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(?:/[A-Za-z0-9_][A-Za-z0-9_-]*)*")
_LAYOUTS = "layouts"
_LISTED_FOR = 1.0
_BREAKS_JSON = re.compile(r'["\\\x00-\x1f]')


class _Json(str):
    """JSON text as `tojson` makes it, which may stand in a payload as it is."""

    __slots__ = ()


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja2 as templates get it: strict, immutable, HTML escaped, and data's keys before dict's methods."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, loader: jinja2.BaseLoader | None = None) -> None:
        super().__init__(
            loader=loader,
            undefined=jinja2.StrictUndefined,
            autoescape=lambda name: name is not None and name.endswith(".html"),
            finalize=_present,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.filters |= {"tojson": _tojson, "date": _date}
        del self.filters["random"]  # a retry must make the same bytes

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`data.items` is the event's key, not dict's method. Also what makes plain data quick to read."""
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """The same for `data["items"]`."""
        if type(obj) is dict and isinstance(argument, str) and argument in obj:
            return obj[argument]
        return super().getitem(obj, argument)

    def make_globals(self, d: Any) -> dict[str, Any]:
        """One plain dict, where Jinja2's ChainMap costs several microseconds a render."""
        return {**self.globals, **(d or {})}

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse the two operators that make something huge out of something small."""
        if operator == "**" or (_size(left) * _size(right) > MAX_OUTPUT):
            raise jinja2.exceptions.SecurityError(f"the operator {operator} would make too much")
        return super().call_binop(context, operator, left, right)


def _size(value: Any) -> int:
    """How much a value multiplies what it is multiplied by, if that is text or a list."""
    return (
        len(value) if isinstance(value, str | list | tuple) else 1 if isinstance(value, float) else abs(value)
    )


def _present(value: Any) -> Any:
    """Refuse to write `None` into what people read."""
    if value is None:
        raise jinja2.exceptions.UndefinedError("the value is null; say what stands in: default('…', true)")
    return value


def _json_value(value: Any) -> Any:
    """Write a value into a payload so that no text can break out of the JSON it stands in."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str) and not isinstance(value, _Json) and _BREAKS_JSON.search(value):
        raise jinja2.exceptions.SecurityError('a text holds a quote, \\ or control character; use "| tojson"')
    return value


@pass_eval_context
def _tojson(context: EvalContext, value: Any) -> str:
    """JSON; in HTML also safe inside `<script>` and attributes."""
    if isinstance(value, jinja2.Undefined):
        str(value)  # raises, naming it
    return htmlsafe_json_dumps(value) if context.autoescape else _Json(msgspec.json.encode(value).decode())


def _date(value: Any, layout: str = "%Y-%m-%d %H:%M") -> str:
    """Write a time (a datetime, RFC 3339 text, or seconds since the epoch) by a `strftime` layout."""
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    elif isinstance(value, str):
        value = datetime.fromisoformat(value)
    return str(value.strftime(layout))


class _Loader(jinja2.FileSystemLoader):
    """Looks at most once a second whether a file has changed, where Jinja2 would at every render."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        super().__init__(path)
        self._clock = clock

    def get_source(
        self, environment: jinja2.Environment, template: str
    ) -> tuple[str, str, Callable[[], bool]]:
        source, file, is_current = super().get_source(environment, template)
        looked_at = self._clock()

        def is_current_enough() -> bool:
            nonlocal looked_at
            now = self._clock()
            if now - looked_at < _LISTED_FOR:
                return True
            looked_at = now
            return is_current()

        return source, file, is_current_enough


class Renderer:
    """The templates of one folder. `clock` (monotonic seconds) says when to look for new files."""

    def __init__(
        self, path: Path, *, max_output: int = MAX_OUTPUT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._max_output = max_output
        self._clock = clock
        loader = _Loader(path, clock)
        self._texts = Sandbox(loader)
        self._payloads = Sandbox(loader)
        self._payloads.finalize = _json_value
        self._listed: dict[str, tuple[float, dict[str, str]]] = {}

    def render(
        self,
        template: str,
        parts: frozenset[str],
        *,
        event: EventRecord,
        data: Mapping[str, Any],
        job: Job,
        locale: str | None = None,
    ) -> Content:
        """Render those of `parts` that the template has. Raises TemplateError naming file, line and fault.

        Templates get `event`, `data`, `job` and `tenant`. A locale `fr-CA` takes `body.fr-CA.html`, else
        `body.fr.html`, else `body.html`.
        """
        files = self._files(template)
        variables = _variables(event, data, job)
        made = {
            part: self._part(part, file, variables)
            for part in _FILES
            if part in parts and (file := _localised(files, _FILES[part], locale)) is not None
        }
        return Content(**made)

    def names(self) -> list[str]:
        """The templates there are."""
        folders = {file.parent.relative_to(self.path).as_posix() for file in self._all_files()}
        return sorted(name for name in folders if name.split("/", 1)[0] not in {_LAYOUTS, "."})

    def check(self) -> list[TemplateError]:
        """Compile every file, layouts too; returns what is wrong."""
        problems = []
        for file in sorted(self._all_files()):
            name = file.relative_to(self.path).as_posix()
            try:
                self._environment(name).get_template(name)
            except Exception as error:  # noqa: BLE001, RUF100 - any fault of a file is what is asked for
                problems.append(self._fault(error, name))
        return problems

    def _all_files(self) -> Iterator[Path]:
        return (file for file in self.path.rglob("*") if file.suffix in {".txt", ".html", ".json"})

    def _environment(self, file: str) -> Sandbox:
        return self._payloads if file.endswith(".json") else self._texts

    def _files(self, template: str) -> dict[str, str]:
        """The files of a template's folder, by their names in lower case with `_` for `-`."""
        now = self._clock()
        listed = self._listed.get(template)
        if listed is None or now - listed[0] > _LISTED_FOR:
            listed = self._listed[template] = (now, self._list(template))
        return listed[1]

    def _list(self, template: str) -> dict[str, str]:
        folder = self.path / template
        known = _NAME.fullmatch(template) and template.split("/", 1)[0] != _LAYOUTS and folder.is_dir()
        if not known:
            self._listed.pop(template, None)
            raise TemplateError("there is no such template", template=template)
        return {_plain(file.name): f"{template}/{file.name}" for file in folder.iterdir() if file.is_file()}

    def _part(self, part: str, file: str, variables: dict[str, Any]) -> str:
        try:
            text = self._text(self._environment(file).get_template(file), variables)
        except Exception as error:
            raise self._fault(error, file) from error
        if part == "payload":
            _check_json(text, file)
        return " ".join(text.split()) if part == "subject" else text

    def _text(self, template: jinja2.Template, variables: dict[str, Any]) -> str:
        """Render, stopping where the room ends. What `Template.render` does, but for that."""
        pieces, room = [], self._max_output
        try:
            for piece in template.root_render_func(template.new_context(variables)):
                pieces.append(piece)
                room -= len(piece)
                if room < 0:
                    break
        except Exception:
            template.environment.handle_exception()
        if room < 0:
            raise jinja2.exceptions.SecurityError(f"it makes more than {self._max_output} characters")
        return "".join(pieces)

    def _fault(self, error: Exception, file: str) -> TemplateError:
        """Say where in which file a render failed; the deepest frame of a template is the place."""
        problem = error.message if isinstance(error, jinja2.TemplateError) else None
        problem = problem or f"{type(error).__name__}: {error}"
        if isinstance(error, jinja2.TemplateSyntaxError):
            return TemplateError(problem, template=error.name or file, line=error.lineno)
        if isinstance(error, jinja2.TemplatesNotFound | jinja2.TemplateNotFound):
            problem = f"there is no template {error.name!r}"
        place: tuple[str, int | None] = (file, None)
        trace = error.__traceback__
        while trace is not None:
            frame = Path(trace.tb_frame.f_code.co_filename)
            if frame.is_relative_to(self.path):
                place = (frame.relative_to(self.path).as_posix(), trace.tb_lineno)
            trace = trace.tb_next
        return TemplateError(problem, template=place[0], line=place[1])


def _check_json(text: str, file: str) -> None:
    """Raise TemplateError unless a payload is JSON."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise TemplateError(f"what it makes is no JSON: {error}", template=file) from error


def _variables(event: EventRecord, data: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """What a template gets to see: plain data alone."""
    return {
        "event": {
            "id": event.id,
            "type": event.type,
            "tenant": event.tenant,
            "created_at": datetime.fromtimestamp(event.created_at, UTC),
        },
        "data": data,
        "tenant": event.tenant,
        "job": {
            "id": job.id,
            "channel": job.channel,
            "route": job.route,
            "destination": job.destination,
            "template": job.template,
            "locale": job.locale,
        },
    }


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _localised(files: Mapping[str, str], file: str, locale: str | None) -> str | None:
    """The file of a locale, else of its language, else the plain one; None where there is none at all."""
    stem, suffix = file.split(".")
    tag = _plain(locale) if locale else ""
    while tag:
        found = files.get(f"{stem}.{tag}.{suffix}")
        if found is not None:
            return found
        tag = tag.rpartition("-")[0]
    return files.get(file)


class Text:
    """A string of the configuration that may hold Jinja2, such as a route's `to`. `key` is its place there.

    Raises ConfigError where it can't be compiled.
    """

    _sandbox = Sandbox()

    def __init__(self, source: str, key: str) -> None:
        self.source = source
        self._template = None
        if "{" in source:
            try:
                self._template = self._sandbox.from_string(source)
            except jinja2.TemplateSyntaxError as error:
                raise ConfigError(key, f"is no Jinja2: {error.message}") from error

    def render(self, event: EventRecord, data: Mapping[str, Any]) -> str:
        """Fill it in. Raises Permanent (`destination_error`) naming what is missing."""
        if self._template is None:
            return self.source
        try:
            return self._template.render(_context(event, data)).strip()
        except Exception as error:
            raise Permanent(f"{self.source}: {_told(error)}", code="destination_error") from error


class Condition:
    """A Jinja2 expression of the configuration: a route's `when`. `key` is its place there.

    Raises ConfigError where it can't be compiled.
    """

    def __init__(self, source: str, key: str) -> None:
        self.source = source
        try:
            self._evaluate = Text._sandbox.compile_expression(source, undefined_to_none=False)  # noqa: SLF001
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(key, f"is no Jinja2 expression: {error.message}") from error

    def holds(self, event: EventRecord, data: Mapping[str, Any]) -> bool:
        """Whether it is true of an event. Raises Permanent (`condition_error`) where that can't be said."""
        try:
            return bool(self._evaluate(_context(event, data)))
        except Exception as error:
            raise Permanent(f"{self.source}: {_told(error)}", code="condition_error") from error


def _context(event: EventRecord, data: Mapping[str, Any]) -> dict[str, Any]:
    """What the configuration's own Jinja2 gets to see of an event."""
    return {"event": {"type": event.type, "tenant": event.tenant}, "data": data, "tenant": event.tenant}


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
