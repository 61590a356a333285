"""The short cuts of compiled templates: they make what plain Jinja2 makes, and nothing gets past by them."""

import resource
import threading
from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import event_record, job
from support.plain_jinja import PlainJinja, PlainPayloads

from notifier.channels import ALL_PARTS
from notifier.errors import TemplateError
from notifier.rendering import Renderer
from notifier.rendering.budget import LONG
from notifier.rendering.compiler import names
from notifier.rendering.problems import explained
from notifier.rendering.renderer import _FINISH
from notifier.rendering.sandbox import Sandbox
from notifier.rendering.variables import event_variables, job_variables

EVENT = event_record(type="order.paid", tenant="acme")
JOB = job(EVENT, template="t", locale=None)

FILES = {
    "layouts/base.html": (
        "<title>{% block t %}{{ event.id }}{% endblock %}</title>{% block b %}{% endblock %}"
    ),
    "layouts/script.jinja": "<script>x = {{ data.a | tojson }}\n{% block b %}{% endblock %}</script>",
    "layouts/brand.jinja": "{% set name = 'A & B' %}{% macro m(x) %}[{{ x }}]{% endmacro %}",
    "order/payload.json": (
        '{"type": {{ event.type | tojson }}, "a": {{ data.a | tojson }}, "n": {{ data.n }},\n "items": ['
        '{% for i in data["items"] %}\n{"s": {{ i.s | tojson }}, "p": {{ i.n * i.m + 1 }}}'
        "{{ ',' if not loop.last }}{% endfor %}]}"
    ),
    "texts/payload.json": (
        '{"t": "{{ data.s }}", "b": {{ data.b.a if data.b else data.a }}, "c": "{{ data["s"] }}"}'
    ),
    "macros/payload.json": (
        '{% macro row(i) %}{"s": {{ i.s | tojson }}, "n": "{{ i.n }}"}{% endmacro %}'
        "{% set x = data.a | tojson %}[{{ x }}, "
        "{% for i in data['items'] %}{{ row(i) }}, {% endfor %}{{ loop | default(0) }}]"
    ),
    "escaped/payload.json": (
        '{% autoescape true %}["{{ data.s }}", {{ data.a | tojson }}]{% endautoescape %}'
    ),
    "values/body.txt": (
        "{{ data.a }}\n{{ data.s }} {{ data['n'] }}\n{{ data.b.a.items }}{{ data.s | tojson }}"
    ),
    "page/body.html": (
        "{{ data.s }}\n<b title='{{ data.a }}'>{{ data.s | upper }}</b>{{ data.s ~ data.n }}"
        "{{ data.s | tojson }}\n{% set x %}{{ data.s }}{% endset %}{{ x }}"
        "{{ data.s | safe }}{{ '<' if data.n }}{{ 1.5 }}"
    ),
    "loops/body.txt": (
        "{% for k in data.b %}{{ k }}={{ data.b[k] | default('d', true) }}"
        "{{ ', ' if not loop.last else '.' }}{% endfor %}"
        "{% for i in data.items if i.n %}{{ loop.index }}/{{ loop.length }} {{ loop.first }} {{ i.s }}"
        "{{ loop.previtem.n if not loop.first }}{% else %}none{% endfor %}"
        "{% for c in data.s %}{{ c }}|{% endfor %}"
        "{% for i in data.items recursive %}{{ i.s }}{{ loop([]) }}{% endfor %}"
    ),
    "hostile/body.txt": (
        "{{ data.items | length }} {{ data.b.keys is defined }} {{ data.b.__class__ is defined }}\n"
        "{{ data.b.get | default('d') }}{% set loop = data %}{{ loop.last }}\n{{ data.__class__ }}"
    ),
    "numbers/body.txt": (
        "{{ data.n * 2 }} {{ data.n + data.a }}\n{{ data.n * data.n }}{{ -data.n // 2 }} {{ data.a + 1.5 }}"
    ),
    "child/body.html": (
        '{% extends "layouts/base.html" %}{% import "layouts/brand.jinja" as brand %}'
        "{% block b %}{{ super() }}{{ brand.name }}{{ brand.m(data.s) }}{{ brand.nope | default('d') }}"
        "{% include 'child/_x.txt' %}{% endblock %}"
    ),
    "child/_x.txt": "{{ job.id }}{{ tenant }}\n{{ data.s }}",
    "script/body.html": '{% extends "layouts/script.jinja" %}{% block b %}{{ data.s }}{% endblock %}',
    "long/body.html": (
        f"{'<p>' * LONG}{{{{ data.s }}}}{'x' * LONG}\n{{{{ data.a }}}}{{{{ data.s }}}}{'y' * LONG}"
    ),
    "caught/body.html": (
        "{% macro wrap() %}<{{ caller(data.s) }}>{% endmacro %}"
        "{% filter upper %}{{ data.s }}{% endfilter %}"
        "{% call(y) wrap() %}{{ y }}{{ data.a | default('d', true) }}{% endcall %}"
    ),
}
TEMPLATES = sorted({name.partition("/")[0] for name in FILES} - {"layouts"})

texts = st.text(st.characters(codec="utf-8") | st.sampled_from("<>&'\"\\\n{}"), max_size=20)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(2**62, 2**70)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "items", "keys", "get", "last", "__class__"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
items = st.fixed_dictionaries({"s": texts, "n": numbers}, optional={"m": numbers, "last": values})
data_of_events = st.fixed_dictionaries(
    {"s": texts, "n": numbers, "items": st.lists(items, max_size=3)},
    optional={"a": values, "b": values, "last": values, "__class__": texts},
) | st.dictionaries(st.sampled_from(["a", "b", "s", "n", "items"]), values)


Outcome = tuple[Any, ...]


@pytest.fixture(scope="module")
def both(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, dict[str, Any]], tuple[Outcome, Outcome]]:
    """Renders a template of `FILES` here and by plain Jinja2: the text, or where and why it failed."""
    folder = tmp_path_factory.mktemp("both")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    renderer = Renderer(folder, clock=lambda: 0.0)
    plain = {".json": PlainPayloads(folder)}
    mails = PlainJinja(folder)

    def here(template: str, part: str, data: dict[str, Any]) -> Outcome:
        made = renderer.render(template, {part}, event=EVENT, data=data, job=JOB)
        return (getattr(made, part),)

    def there(name: str, part: str, data: dict[str, Any]) -> Outcome:
        given = {"event": event_variables(EVENT), "job": job_variables(JOB), "data": data, "tenant": "acme"}
        try:
            found = plain.get(Path(name).suffix, mails).get_template(name)
            text = "".join(
                found.root_render_func(found.new_context(given))
            )  # which leaves tracebacks as they are
        except Exception as error:
            raise explained(error, name, given) from error
        return (_FINISH[part](name, text),)

    def render(template: str, data: dict[str, Any]) -> tuple[Outcome, Outcome]:
        ((part, name),) = renderer._files.chosen(template, ALL_PARTS, None)
        return outcome(here, template, part, data), outcome(there, name, part, data)

    return render


def outcome(make: Callable[..., Outcome], *args: Any) -> Outcome:
    """What is made, or all that a failure says."""
    try:
        return make(*args)
    except TemplateError as error:
        return error.template, error.line, error.variable, error.problem


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(TEMPLATES), data_of_events)
def test_what_is_made_is_what_plain_jinja2_makes(
    both: Callable[[str, dict[str, Any]], tuple[Outcome, Outcome]], template: str, data: dict[str, Any]
) -> None:
    """The same text, or the same file, line, variable and problem, whatever the data is."""
    here, there = both(template, data)
    assert here == there


# What gets past nothing --------------------------------------------------------------------------


def write(folder: Path, files: dict[str, str]) -> Renderer:
    """Make a templates folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return Renderer(folder)


def made(folder: Path, source: str, data: dict[str, Any], *, file: str = "body.txt") -> str:
    """What a template of one file makes."""
    content = write(folder, {f"t/{file}": source}).render("t", ALL_PARTS, event=EVENT, data=data, job=JOB)
    return content.payload or content.html or content.text or ""


@pytest.mark.parametrize(
    "name", ["items", "keys", "get", "pop", "update", "__class__", "__init__", "_x", "mro"]
)
@pytest.mark.parametrize(
    "source", ["{{ data.NAME }}", "{{ data['NAME'] }}", "{{ data.d.NAME | default('d') }}"]
)
def test_a_key_of_any_name_is_data_and_where_it_lacks_there_is_nothing(
    tmp_path: Path, name: str, source: str
) -> None:
    """Never a method of Python's dict, nor what leads out of the sandbox."""
    source = source.replace("NAME", name)
    assert made(tmp_path, source, {name: "k", "d": {name: "k"}}) == "k"
    (tmp_path / "t/body.txt").unlink()
    if "default" in source:
        assert made(tmp_path, source, {"d": {}}) == "d"
        return
    with pytest.raises(TemplateError, match=r"is undefined|is unsafe"):
        made(tmp_path, source, {})


class Loud(str):
    """A text that says something else when it is asked."""

    __slots__ = ()

    def __str__(self) -> str:
        return '","admin":true,"x":"'

    def __html__(self) -> str:
        return self


class Colour(IntEnum):
    """Whole numbers with names."""

    RED = 1


class Custom:
    """Something of the embedding program's."""

    name = "n"
    _secret = "s"

    def encode(self) -> bytes:
        """Give bytes."""
        return b""


@pytest.mark.parametrize(
    ("source", "value", "expected"),
    [
        ("{{ data.x.a }}{{ data.x['a'] }}", OrderedDict(a=1), "11"),
        ("{{ data.x.name | tojson }}", Custom(), '"n"'),
        ("{{ data.x | tojson }}", Colour.RED, "1"),
        ("[{% for k in data.x %}{{ k | tojson }}{% endfor %}]", OrderedDict(a=1), '["a"]'),
    ],
)
def test_python_values_that_are_not_plain_data_are_read(
    tmp_path: Path, source: str, value: Any, expected: str
) -> None:
    """A plugin may hand anything in."""
    assert made(tmp_path, source, {"x": value}, file="payload.json") == expected


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ data.x._secret }}", Custom()),
        ("{{ data.x.encode() }}", Custom()),
        ("{{ data.x.__class__ }}", Custom()),
        ("{{ data.x.popitem() }}", OrderedDict(a=1)),
        ("{{ data.x.clear() }}", OrderedDict(a=1)),
        ("{{ data.x['clear']() }}", OrderedDict(a=1)),
    ],
)
def test_python_values_that_are_not_plain_data_go_through_every_check(
    tmp_path: Path, source: str, value: Any
) -> None:
    """Only Python's own dict, str and numbers take the short way."""
    with pytest.raises(TemplateError, match="unsafe"):
        made(tmp_path, source, {"x": value}, file="payload.json")


@pytest.mark.parametrize(
    "source", ['"{{ data.x }}"', '"{{ data.x if true }}"', '"{% set y %}{{ data.x }}{% endset %}"']
)
@pytest.mark.parametrize("text", ['","admin":true,"x":"', "\\", Loud("\\")])
def test_no_short_cut_lets_a_text_out_of_its_string(tmp_path: Path, source: str, text: str) -> None:
    """By whichever way it is written, escaped as HTML or not."""
    for form in (source, f"{{% autoescape true %}}{source}{{% endautoescape %}}"):
        if "autoescape" in form and '"' in text:
            continue  # escaping makes it harmless
        with pytest.raises(TemplateError, match="tojson"):
            made(tmp_path, form, {"x": text}, file="payload.json")


def test_json_is_harmless_in_html_whichever_file_writes_it(tmp_path: Path) -> None:
    """A layout that isn't HTML by its name may frame a mail that is."""
    renderer = write(
        tmp_path,
        {
            "layouts/script.jinja": "<script>{{ data.x | tojson }}{% block b %}{% endblock %}</script>",
            "t/body.html": (
                '{% extends "layouts/script.jinja" %}{% block b %}{{ data.x | tojson }}{% endblock %}'
            ),
        },
    )
    html = renderer.render("t", {"html"}, event=EVENT, data={"x": "</script>"}, job=JOB).html
    assert html == r'<script>"\u003c/script\u003e""\u003c/script\u003e"</script>'


def test_what_is_exported_is_judged_as_any_member(tmp_path: Path) -> None:
    """A name that a template exports is no way to what the sandbox keeps from it."""
    files = {"layouts/m.jinja": "{% set translate = 1 %}{% set fine = 'x' %}", "t/body.txt": ""}
    write(tmp_path, files)
    load = '{% import "layouts/m.jinja" as m %}'
    assert made(tmp_path, load + "{{ m.fine }}", {}) == "x"
    for name in ("translate", "__name__", "_body_stream", "__class__"):
        with pytest.raises(TemplateError, match="unsafe"):
            made(tmp_path, f"{load}{{{{ m.{name} }}}}", {})


def test_data_that_nests_as_deep_as_it_may_can_be_looked_up(tmp_path: Path) -> None:
    """The code of a look-up nests no deeper than Python takes."""
    data: dict[str, Any] = {"a": "deep"}
    for _ in range(63):
        data = {"a": data}
    assert made(tmp_path, "{{ data" + ".a" * 64 + " | tojson }}", data) == '"deep"'


@pytest.mark.parametrize(
    ("source", "line", "variable"),
    [
        ("{{ data.a }}\n{{ data.a }}\n{{ data.b }}\n", 3, "data.b"),
        ("x\n{{ data.a if data.a }}\n{{ 'y' if data.b }}", 3, "data.b"),
        ("{{ data.a }}\n{{ data.b.c if data.a }}", 2, "data.b"),
        ("\n{{ data.a }}{{ data.b | tojson }}", 2, "data.b"),
    ],
)
def test_each_of_several_pieces_has_its_own_line(
    tmp_path: Path, source: str, line: int, variable: str
) -> None:
    """They are put out together, and still fail where they stand."""
    with pytest.raises(TemplateError) as raised:
        made(tmp_path, source, {"a": 1})
    assert (raised.value.line, raised.value.variable) == (line, variable)


# What is paid for --------------------------------------------------------------------------------


OFTEN = "{% for i in range(99999) %}{% for j in range(99) %}THIS{% endfor %}{% endfor %}"
GATHERED = {
    "short escapes": OFTEN.replace("THIS", "{{ data.short }}"),
    "its own text": OFTEN.replace("THIS", "{{ i }}" + "x" * 1000),
    "json": "{% for i in range(99999) %}{{ data.long | tojson }}{% endfor %}",
    "long texts": "{% for i in range(99999) %}{{ data.long }}{{ data.long }}{% endfor %}",
}


@pytest.mark.parametrize("source", GATHERED.values(), ids=GATHERED.keys())
@pytest.mark.parametrize("file", ["t/_x.html", "t/_x.txt"])
@pytest.mark.parametrize(
    "gather", ["{% set x %}{% include FILE %}{% endset %}", "{% import FILE as x with context %}"]
)
@pytest.mark.timeout(30)
def test_what_another_file_puts_out_is_paid_for_where_it_is_gathered(
    tmp_path: Path, source: str, gather: str, file: str
) -> None:
    """Pieces that are joined as they are put out are new texts, which fill memory before the output's cap."""
    renderer = write(tmp_path, {"t/body.html": gather.replace("FILE", repr(file)), file: source})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TemplateError, match="too often, or makes too much"):
        renderer.render(
            "t", ALL_PARTS, event=EVENT, data={"short": "<" * 1023, "long": "<" * 100_000}, job=JOB
        )
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 < 150


def test_many_long_values_in_one_place_are_refused_before_they_are_joined(tmp_path: Path) -> None:
    """However many of them stand side by side, without a loop."""
    renderer = write(tmp_path, {"t/body.html": "{{ data.x }}" * 2000})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TemplateError, match="too often, or makes too much"):
        renderer.render("t", ALL_PARTS, event=EVENT, data={"x": "<" * 100_000}, job=JOB)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024 < 150


class Meanwhile:
    """Has another thread do something while it is written out."""

    def __init__(self, what: Callable[[], object]) -> None:
        self.what = what

    def __str__(self) -> str:
        other = threading.Thread(target=self.what)
        other.start()
        other.join()
        return "meanwhile"


def test_each_thread_pays_from_its_own_allowance(tmp_path: Path) -> None:
    """Also in a macro of a file that another thread was the first to import."""
    load = '{% from "m.jinja" import m %}'
    write(
        tmp_path,
        {
            "m.jinja": "{% macro m(n) %}{% for i in range(n) %}{% endfor %}{% endmacro %}",
            "t/body.txt": load + "{{ m(39000) }}{{ data.other }}{{ m(22000) }}",
            "u/body.txt": load + "{{ m(58000) }}done",
        },
    )
    renderer = Renderer(tmp_path, max_output=100)
    texts: list[str | None] = []

    def render(template: str, data: dict[str, Any]) -> None:
        texts.append(renderer.render(template, {"text"}, event=EVENT, data=data, job=JOB).text)

    render("t", {"other": Meanwhile(lambda: render("u", {}))})
    assert texts == ["done", "meanwhile"]


# What is made only when it is asked for -------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ data.a }}{{ tenant }}", {"data", "tenant"}),
        ("{% macro m() %}{{ job.id }}{% endmacro %}{{ m() }}", {"job"}),
        ("{% block b %}{% for i in data %}{{ event }}{% endfor %}{% endblock %}", {"data", "event"}),
        ("{% set x = data %}{{ x }}{% import 'x' as y %}", {"data"}),
        ("plain", set()),
        ("{% include 'x' %}", None),
        ("{% import 'x' as y with context %}", None),
        ("{% extends 'x' %}", None),
    ],
)
def test_a_template_tells_which_variables_it_asks_for(source: str, expected: set[str] | None) -> None:
    """Unless it hands them on to another file, that may ask for any."""
    found = names(Sandbox(limit=1000).from_string(source))
    assert (None if found is None else found & {"data", "event", "job", "tenant"}) == expected


def test_variables_are_there_for_whichever_file_asks(tmp_path: Path) -> None:
    """An include, a layout and an import with context see what the template itself never names."""
    renderer = write(
        tmp_path,
        {
            "layouts/l.txt": "{{ event.type }} {% block b %}{% endblock %}",
            "t/_i.txt": "{{ job.channel }}",
            "t/_m.txt": "{% macro m() %}{{ event.tenant }}{% endmacro %}",
            "t/subject.txt": "plain",
            "t/body.txt": (
                "{% extends 'layouts/l.txt' %}{% block b %}{% include 't/_i.txt' %} "
                "{% from 't/_m.txt' import m with context %}{{ m() }}{% endblock %}"
            ),
            "t/body.html": "{{ job.id }}",
        },
    )
    content = renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB)
    assert (content.text, content.html) == ("order.paid webhook acme", JOB.id)
