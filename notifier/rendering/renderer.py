"""templates/ → subject, HTML, text, payload and attachments.

Whatever goes wrong in a template is a `TemplateError` that names the file, the line and the variable.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import nodes
from msgspec import Struct

from notifier.channels import ALL_PARTS, Content
from notifier.errors import TemplateError, Unavailable
from notifier.model import EventRecord, Job
from notifier.rendering.attachments import MAX_ATTACHMENT, MAX_MESSAGE, Attachments
from notifier.rendering.compiler import names
from notifier.rendering.files import TemplateFiles
from notifier.rendering.problems import explained
from notifier.rendering.sandbox import WORK_FACTOR, JsonSandbox, Sandbox
from notifier.rendering.variables import complete

MAX_OUTPUT = 4 * 1024 * 1024
"""How many characters one render may put out, all its parts but the attachments together."""

# Read to the end by the grammar of RFC 8259, and nothing made of it: a third of what decoding costs.
_any_json = msgspec.json.Decoder(msgspec.Raw)
_REFERENCES = (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)


class _Given(Struct):
    """What the templates of one render are given: `variables`, completed as they ask for more."""

    event: EventRecord
    job: Job
    variables: dict[str, Any]


class Renderer:
    """Makes a job's content from its template.

    That is a folder of subject.txt, body.html, body.txt, attachments.json, and payload.json for webhooks.

    `path` is the templates folder. `max_output` is in characters, for all parts of one render together but
    the attachments, which have at most `max_attachment` bytes each and `max_message` together. `clock` is
    monotonic, in seconds: files are looked at again after `RECHECK_SECONDS`.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_output: int = MAX_OUTPUT,
        max_attachment: int = MAX_ATTACHMENT,
        max_message: int = MAX_MESSAGE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._max_output = max_output
        # All that a mail can carry in base64, and what is said of it: of an event it is only passed on.
        self._max_list = max_output + max_message * 4 // 3
        self._files = TemplateFiles(path, clock)
        self._pages = Sandbox(self._files, limit=max_output)
        self._payloads = JsonSandbox(self._files, limit=max_output)
        self._lists = JsonSandbox(self._files, limit=self._max_list // WORK_FACTOR)
        self._sandboxes = {
            "subject": self._pages,
            "html": self._pages,
            "text": self._pages,
            "payload": self._payloads,
            "attachments": self._lists,
        }
        self._attachments = Attachments(self._files, max_each=max_attachment, max_together=max_message)

    def render(
        self,
        template: str,
        parts: Collection[str],
        *,
        event: EventRecord,
        data: Mapping[str, Any],
        job: Job,
        locale: str | None = None,
        unsubscribe_url: str | None = None,
    ) -> Content:
        """Render those of `parts` (`channels.ALL_PARTS`) that the template has a file for.

        For the locale `fr-CA` each part is looked for as `fr-CA`, then as `fr`, then plain; case, `-` and
        `_` make no difference. `unsubscribe_url` is None where there is no way to unsubscribe. Raises
        TemplateError; Unavailable where the machine can't read the files just now.
        """
        chosen = self._files.chosen(template, frozenset(parts), locale)
        given = _Given(event, job, {"data": data, "tenant": event.tenant, "unsubscribe_url": unsubscribe_url})
        made: dict[str, Any] = {}
        room = self._max_output
        begun = None
        for part, name in chosen:
            sandbox = self._sandboxes[part]
            if sandbox is not begun:  # those of one sandbox follow each other
                sandbox.budget.refill()
                begun = sandbox
            if part == "attachments":
                text = self._text(sandbox, name, given, self._max_list)
                made[part] = self._attachments.read(template, name, _valid_json(name, text))
            else:
                text = _FINISH[part](name, self._text(sandbox, name, given, room))
                made[part], room = text, room - len(text)
        return Content(**made)

    def _text(self, sandbox: Sandbox, name: str, given: _Given, room: int) -> str:
        variables = given.variables
        try:
            template = sandbox.loaded(name)
            complete(variables, names(template), given.event, given.job)
            text = sandbox.produce(template, variables, room)
            text.encode()
        except Unavailable:
            raise
        except Exception as error:
            raise explained(error, name, variables) from error
        return text

    def parts_of(self, template: str) -> frozenset[str]:
        """The parts that a template has without a locale. Raises TemplateError where there is none."""
        return frozenset(part for part, _ in self._files.chosen(template, ALL_PARTS, None))

    def names(self) -> list[str]:
        """The templates there are."""
        return self._files.templates()

    def check(self) -> list[TemplateError]:
        """Compile every file below the templates folder, and look for the layouts it names."""
        return [problem for name in self._files.names() for problem in self._problems(name)]

    def _problems(self, name: str) -> Iterator[TemplateError]:
        sandbox = self._payloads if name.endswith(".json") else self._pages
        sandbox.budget.refill()
        try:
            source, _, _ = self._files.get_source(sandbox, name)
            tree = sandbox.parse(source, name)
            sandbox.compile(source, name)
        except Exception as error:
            yield explained(error, name, {})
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


# What is made of a rendered file -----------------------------------------------------------------


def _one_line(_name: str, text: str) -> str:
    return " ".join(text.split())


def _as_it_is(_name: str, text: str) -> str:
    return text


def _valid_json(name: str, text: str) -> str:
    try:
        _any_json.decode(text)
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
