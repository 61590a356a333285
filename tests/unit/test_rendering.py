"""Rendering: which file makes which part, what templates see, and what they can't do."""

import json
import os
import resource
import tracemalloc
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import event_record, job

from notifier.channels import ALL_PARTS, Content
from notifier.errors import ConfigError, Permanent, TemplateError
from notifier.rendering import Condition, Renderer, Text
from notifier.rendering.sandbox import Sandbox

SHIPPED = Path(__file__).parents[2] / "templates"
EVENT = event_record(type="user.signup", tenant="acme")
JOB = job(EVENT, channel="email", destination="ada@example.com", template="t", locale=None)

Folder = Callable[[dict[str, str]], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Writes template files, by their path below the templates folder."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text, "utf-8")
        return tmp_path

    return write


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


def render(
    path: Path,
    data: dict[str, Any] | None = None,
    *,
    template: str = "t",
    locale: str | None = None,
    max_output: int = 4 * 1024**2,
) -> Content:
    """Render all parts of a template."""
    renderer = Renderer(path, max_output=max_output)
    return renderer.render(template, ALL_PARTS, event=EVENT, data=data or {}, job=JOB, locale=locale)


def failure(path: Path, data: dict[str, Any] | None = None, *, template: str = "t") -> TemplateError:
    """What a render raises."""
    with pytest.raises(TemplateError) as raised:
        render(path, data, template=template)
    return raised.value


# Which file makes which part -------------------------------------------------------------------------


def test_each_file_of_a_folder_makes_its_part(folder: Folder) -> None:
    """subject.txt, body.html, body.txt and payload.json are the four parts of a template."""
    path = folder({"t/subject.txt": "S", "t/body.html": "<p>H", "t/body.txt": "T", "t/payload.json": "{}"})
    assert render(path) == Content(subject="S", html="<p>H", text="T", payload="{}")


def test_only_parts_that_are_asked_for_and_have_a_file_are_made(folder: Folder) -> None:
    """A part that the folder lacks is None, and one that nobody asks for isn't rendered at all."""
    path = folder({"t/subject.txt": "S", "t/body.html": "{{ broken"})
    made = Renderer(path).render("t", {"subject", "text"}, event=EVENT, data={}, job=JOB)
    assert made == Content(subject="S")


def test_a_template_may_stand_in_a_folder_of_folders(folder: Folder) -> None:
    """A template's name is its path below the templates folder."""
    path = folder({"orders/paid/body.txt": "paid"})
    assert render(path, template="orders/paid").text == "paid"
    assert Renderer(path).names() == ["orders/paid"]


def test_names_lists_templates_and_not_layouts_or_other_files(folder: Folder) -> None:
    """What holds a part, in any locale, is a template; layouts and partials are none."""
    path = folder(
        {
            "welcome/body.fr.html": "",
            "alert/subject.txt": "",
            "layouts/base.html": "",
            "welcome/_row.html": "",
            "notes/readme.txt": "",
            "body.txt": "",
            ".git/body.txt": "",
        }
    )
    assert Renderer(path).names() == ["alert", "welcome"]


def test_a_missing_templates_folder_has_no_templates(tmp_path: Path) -> None:
    """Whoever only sends plain webhooks needs no templates folder."""
    renderer = Renderer(tmp_path / "none")
    assert (renderer.names(), renderer.check()) == ([], [])


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        (None, "plain"),
        ("de", "plain"),
        ("fr", "fr"),
        ("FR", "fr"),
        ("fr-CA", "fr-CA"),
        ("fr_ca", "fr-CA"),
        ("fr-CH", "fr"),
        ("pt-BR", "pt_br"),
        ("zh-Hant-TW", "zh-Hant"),
        ("zh", "plain"),
        ("../fr", "plain"),
        ("", "plain"),
    ],
)
def test_a_locale_falls_back_to_its_language_and_then_to_the_plain_file(
    folder: Folder, locale: str | None, expected: str
) -> None:
    """fr-CA → fr → plain; case, `-` and `_` make no difference, in the file's name nor in the locale."""
    path = folder(
        {f"t/body{tag}.txt": tag.strip(".") or "plain" for tag in ("", ".fr", ".fr-CA", ".pt_br", ".zh-Hant")}
    )
    assert render(path, locale=locale).text == expected


def test_every_part_falls_back_by_itself(folder: Folder) -> None:
    """A subject that isn't translated doesn't keep the body from being so."""
    path = folder({"t/subject.txt": "S", "t/body.txt": "T", "t/body.fr.txt": "T fr"})
    assert render(path, locale="fr") == Content(subject="S", text="T fr")


def test_subjects_and_payloads_have_locales_too(folder: Folder) -> None:
    """The suffix stands before the file's ending, whichever file it is."""
    path = folder({"t/subject.fr.txt": "S fr", "t/payload.fr.json": "[]"})
    assert render(path, locale="fr") == Content(subject="S fr", payload="[]")
    assert render(path, locale="de") == Content()


def test_a_subject_is_one_line(folder: Folder) -> None:
    """Line breaks and runs of white space collapse, so that no header can be injected by them."""
    path = folder({"t/subject.txt": "  Hello\n {{ data.name }}  "})
    assert render(path, {"name": "Ada\r\nBcc: eve@example.com"}).subject == "Hello Ada Bcc: eve@example.com"


# Files that change -----------------------------------------------------------------------------------


def test_changed_new_and_removed_files_are_seen_after_a_second(folder: Folder) -> None:
    """An operator who mends a template needn't restart anything."""
    path, clock = folder({"t/body.txt": "{% extends 'layouts/l.txt' %}", "layouts/l.txt": "old"}), Clock()
    renderer = Renderer(path, clock=clock)

    def made() -> Content:
        return renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB)

    assert made() == Content(text="old")
    folder({"layouts/l.txt": "changed", "t/subject.txt": "new"})
    assert made() == Content(text="old")
    clock.now += 1
    assert made() == Content(text="changed", subject="new")
    (path / "t/subject.txt").unlink()
    clock.now += 1
    assert made() == Content(text="changed")


def test_files_are_looked_at_once_a_second_at_most(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A render in between touches no file: rendering stays quick."""
    path, clock = folder({"t/body.txt": "x"}), Clock()
    renderer = Renderer(path, clock=clock)
    renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was looked at")

    monkeypatch.setattr(Path, "iterdir", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(os, "stat", refuse)
    assert renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB).text == "x"


def test_names_that_callers_make_up_fill_no_memory(folder: Folder) -> None:
    """What is remembered of template names is bounded, since anyone who posts may choose them."""
    renderer = Renderer(folder({"t/body.txt": ""}))
    for number in range(3000):
        with pytest.raises(TemplateError):
            renderer.render(f"no{number}", ALL_PARTS, event=EVENT, data={}, job=JOB)
    assert len(renderer._files._folders) <= 1024


def test_includes_that_callers_make_up_fill_no_memory(folder: Folder) -> None:
    """A name longer than any file's is not remembered, where the data says what is included."""
    renderer = Renderer(folder({"t/body.txt": "{% include data.x ignore missing %}"}))
    for number in range(3):
        data = {"x": str(number) * 1_000_000}
        assert renderer.render("t", ALL_PARTS, event=EVENT, data=data, job=JOB).text == ""
    assert max(map(len, renderer._files._stamps)) < 10_000


def test_locales_that_callers_make_up_fill_no_memory(folder: Folder) -> None:
    """Which file is meant by a locale is remembered, of a bounded number of them."""
    renderer = Renderer(folder({"t/body.txt": "plain", "t/body.fr.txt": "fr"}))
    for number in range(300):
        made = renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB, locale=f"fr-{number}")
        assert made.text == "fr"
    assert len(renderer._files._folders["t"].chosen) <= 64


def test_a_file_is_compiled_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way it is reached: as a part, a layout, an import, one include of several."""
    path = folder(
        {
            "t/body.txt": "{% extends 'l.txt' %}{% block b %}{% include ['no', 't/_i.txt'] %}{% endblock %}",
            "t/_i.txt": "{% from 'm.jinja' import m %}{{ m() }}",
            "l.txt": "{% block b %}{% endblock %}",
            "m.jinja": "{% macro m() %}x{% endmacro %}",
        }
    )
    renderer = Renderer(path)
    compiled: list[str] = []
    whole = Sandbox.compile

    def noted(sandbox: Sandbox, source: Any, name: str, *args: Any) -> Any:
        compiled.append(name)
        return whole(sandbox, source, name, *args)

    monkeypatch.setattr(Sandbox, "compile", noted)
    for _ in range(3):
        assert renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB).text == "x"
    assert sorted(compiled) == ["l.txt", "m.jinja", "t/_i.txt", "t/body.txt"]


# What templates see ----------------------------------------------------------------------------------


def test_templates_get_event_data_job_and_tenant(folder: Folder) -> None:
    """These four, and times as datetimes that can be formatted."""
    source = (
        "{{ event.id }} {{ event.type }} {{ event.created_at.strftime('%Y') }} {{ event.tenant }} "
        "{{ data.n }} {{ job.id }} {{ job.channel }} {{ job.destination }} {{ job.attempts }} {{ tenant }}"
    )
    expected = f"{EVENT.id} user.signup 2027 acme 7 {JOB.id} email ada@example.com 0 acme"
    assert render(folder({"t/body.txt": source}), {"n": 7}).text == expected


def test_keys_of_the_data_go_before_methods_of_dict(folder: Folder) -> None:
    """`data.items` is what the event says, by dot and by bracket, at any depth."""
    source = "{{ data.items[0] }} {{ data.keys }} {{ data.in.values }} {{ data['get'] }}"
    data = {"items": ["i"], "keys": "k", "in": {"values": "v"}, "get": "g"}
    assert render(folder({"t/body.txt": source}), data).text == "i k v g"


@pytest.mark.parametrize("source", ["{{ data.items }}", "{{ data['items'] }}", "{{ data.items | length }}"])
def test_a_missing_key_with_the_name_of_a_method_is_missing(folder: Folder, source: str) -> None:
    """An event without `items` is an error, not `<built-in method items of dict object at …>`."""
    assert failure(folder({"t/body.txt": source})).problem == "'data.items' is undefined"


def test_methods_of_dict_can_be_called_where_no_key_hides_them(folder: Folder) -> None:
    """`data.items()` and `data.get()` work as everywhere in Jinja2, and `is defined` tells the truth."""
    source = (
        "{% for k, v in data.items() %}{{ k }}={{ v }};{% endfor %}{{ data.get('x', 'y') }} "
        "{{ data.items is defined }} {{ data.items | default('d') }}"
    )
    assert render(folder({"t/body.txt": source}), {"a": 1, "b": 2}).text == "a=1;b=2;y False d"


def test_html_is_escaped_and_text_is_not(folder: Folder) -> None:
    """What fills a template can't add markup to HTML; plain text has none to protect."""
    line = "{{ data.x }}"
    path = folder({"t/subject.txt": line, "t/body.txt": line, "t/body.html": line})
    made = render(path, {"x": "<b>&\"'"})
    assert (made.subject, made.text) == ("<b>&\"'", "<b>&\"'")
    assert made.html == "&lt;b&gt;&amp;&#34;&#39;"


@settings(deadline=None)  # the first example compiles
@given(st.text(st.characters(codec="utf-8"), max_size=50))
def test_no_data_adds_a_tag_to_html(name: str) -> None:
    """Whatever a name is, the shipped mail has the same tags, and reads the name as text."""
    made = render(SHIPPED, {"email": "a@example.com", "name": f"x{name}"}, template="welcome")
    plain = render(SHIPPED, {"email": "a@example.com", "name": "x"}, template="welcome")
    assert _tags(made.html) == _tags(plain.html)


def test_layouts_includes_and_macros_work_by_path(folder: Folder) -> None:
    """Inheritance, include and import take paths relative to the templates folder."""
    path = folder(
        {
            "layouts/base.html": "<title>{% block t %}{% endblock %}</title>{% block b %}base{% endblock %}",
            "layouts/bits.html": "{% macro bold(x) %}<b>{{ x }}</b>{% endmacro %}",
            "t/_footer.html": "<i>{{ data.x }}</i>",
            "t/body.html": (
                '{% extends "layouts/base.html" %}{% from "layouts/bits.html" import bold %}'
                "{% block t %}T{% endblock %}{% block b %}{{ super() }} {{ bold(data.x) }}"
                '{% include "t/_footer.html" %}{% endblock %}'
            ),
        }
    )
    assert render(path, {"x": "<"}).html == "<title>T</title>base <b>&lt;</b><i>&lt;</i>"


def test_dates_are_written_from_datetimes_texts_and_seconds(folder: Folder) -> None:
    """`date` takes what events hold times as."""
    source = "{{ event.created_at | date('%d %B %Y') }}|{{ data.at | date }}|{{ 0 | date('%H:%M %Z') }}"
    made = render(folder({"t/body.txt": source}), {"at": "2026-01-02T03:04:05Z"})
    assert made.text == "15 January 2027|2026-01-02 03:04 UTC|00:00 UTC"


def test_lists_are_gone_through_with_all_that_loops_offer(folder: Folder) -> None:
    """Metering leaves `loop`, filters on the loop, `else` and recursion as Jinja2 has them."""
    source = (
        "{% for x in data.l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }}"
        "{{ '' if loop.last else ',' }}"
        "{% else %}none{% endfor %}|{% for x in [] %}{% else %}none{% endfor %}|"
        "{% for n in data.tree recursive %}{{ n.v }}{{ loop(n.c) }}{% endfor %}|{{ data.l | join('-') }}|"
        "{{ data.l | map('string') | join }}|{{ 'a' ~ 1 ~ none }}|"
        "{{ '{:,.2f}'.format(1234.5) }}|{{ '%.1f' % 2 }}"
    )
    data = {"l": [1, 2, 3], "tree": [{"v": 1, "c": [{"v": 2, "c": []}]}]}
    expected = "1/2:2,2/2:3|none|12|1-2-3|123|a1None|1,234.50|2.0"
    assert render(folder({"t/body.txt": source}), data).text == expected


@pytest.mark.parametrize("source", ["{{ data.x }}", "{{ none }}"])
def test_null_is_never_written_as_none(folder: Folder, source: str) -> None:
    """No mail says "Hello None": the template says what stands there instead, or fails."""
    error = failure(folder({"t/body.txt": source}), {"x": None})
    assert "the value is null" in error.problem
    path = folder({"t/body.txt": "{{ data.x | default('you', true) }}"})
    assert render(path, {"x": None}).text == "you"


def test_a_method_that_is_not_called_is_not_written(folder: Folder) -> None:
    """A forgotten `()` is an error, not an address in this process's memory sent to a customer."""
    assert "'title' is a method" in failure(folder({"t/body.txt": "{{ data.x.title }}"}), {"x": "a"}).problem


# Payloads --------------------------------------------------------------------------------------------


@settings(deadline=None)  # the first example compiles
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
        max_leaves=10,
    )
)
def test_tojson_writes_any_value(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    """What goes in by `tojson` comes out of the payload as it was."""
    path = tmp_path_factory.getbasetemp() / "tojson"
    (path / "t").mkdir(parents=True, exist_ok=True)
    (path / "t/payload.json").write_text('{"v": {{ data.v | tojson }}}')
    assert json.loads(render(path, {"v": value}).payload or "") == {"v": value}


def test_tojson_leaves_payloads_readable_and_makes_html_safe(folder: Folder) -> None:
    """In JSON `<` stays what it is; in HTML it can't end a script."""
    path = folder({"t/payload.json": "{{ data.x | tojson }}", "t/body.html": "{{ data.x | tojson }}"})
    made = render(path, {"x": "</script>'&"})
    assert made.payload == '"</script>\'&"'
    assert made.html == r'"\u003c/script\u003e\u0027\u0026"'


def test_tojson_takes_times_and_an_indent(folder: Folder) -> None:
    """A datetime becomes RFC 3339; `indent` is for people."""
    path = folder({"t/payload.json": "{{ {'at': event.created_at} | tojson(indent=2) }}"})
    assert render(path).payload == '{\n  "at": "2027-01-15T08:00:00Z"\n}'


def test_numbers_booleans_and_null_stand_in_a_payload_as_json_has_them(folder: Folder) -> None:
    """Not as Python would write them."""
    path = folder({"t/payload.json": '[{{ data.n }}, {{ data.b }}, {{ data.z }}, "{{ data.s }}"]'})
    assert json.loads(render(path, {"n": 1.5, "b": True, "z": None, "s": "ok"}).payload or "") == [
        1.5,
        True,
        None,
        "ok",
    ]


BREAKING = '", "admin": true, "x": "'


@pytest.mark.parametrize(
    "text",
    ['x","admin":true,"y":"', "back\\", "line\nbreak", [BREAKING], {BREAKING: 1}, {"a": [{"b": BREAKING}]}],
)
def test_no_text_breaks_out_of_the_string_it_is_written_into(folder: Folder, text: Any) -> None:
    """Data can't add members to a payload that is signed in the operator's name, nor can a list of texts."""
    error = failure(folder({"t/payload.json": '{"name": "{{ data.x }}"}'}), {"x": text})
    assert "tojson" in error.problem
    assert (error.template, error.line) == ("t/payload.json", 1)


def test_macros_make_json(folder: Folder) -> None:
    """What a macro of the template makes is its own JSON, and not taken for a text."""
    source = '{% macro row(x) %}{"v": {{ x | tojson }}}{% endmacro %}[{{ row(data.x) }}]'
    assert render(folder({"t/payload.json": source}), {"x": '"'}).payload == r'[{"v": "\""}]'


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ('{"a": 1,\n}', "line 2, column 1"),
        ("{'a': 1}", "line 1, column 2"),
        ("", "line 1, column 1"),
        ('{"a": NaN}', "the result is not JSON"),
        ("[" * 100_000, "nests too deep"),
    ],
)
def test_a_payload_that_is_no_json_is_refused_and_says_where(folder: Folder, source: str, where: str) -> None:
    """A receiver is never sent half a document."""
    error = failure(folder({"t/payload.json": source}))
    assert error.template == "t/payload.json"
    assert where in error.problem


# What goes wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "nope",
        "",
        ".",
        "..",
        "../t",
        "t/../t",
        "./t",
        "/etc",
        "/t",
        "t/",
        "t//",
        "t\\body",
        "t\0",
        "C:t",
        "x" * 5000,
        "\ud800",
        "layouts",
    ],
)
def test_a_template_that_is_not_there_is_missing(folder: Folder, template: str) -> None:
    """Names come from whoever posts: none leads out of the folder, none raises anything else."""
    path = folder({"t/body.txt": "", "layouts/base.html": ""}) / "t"
    folder({"t/t/body.txt": "", "t/layouts/base.html": ""})
    error = failure(path, template=template)
    assert (error.problem, error.template, error.line) == ("there is no such template", template, None)
    assert error.code == "template_error"


@pytest.mark.parametrize("reference", ["../secret.txt", "/secret.txt", "t/../../secret.txt", "./secret.txt"])
def test_includes_do_not_lead_out_of_the_folder(folder: Folder, reference: str) -> None:
    """A template can't show files of the machine."""
    path = folder({"secret.txt": "secret", "in/t/body.txt": f"{{% include '{reference}' %}}"})
    error = failure(path / "in")
    assert (error.template, error.line) == ("t/body.txt", 1)
    assert error.problem == f"there is no '{reference}'"


@pytest.mark.parametrize(
    ("source", "line", "problem"),
    [
        ("a\n\n{{ data.name }}", 3, "'data.name' is undefined"),
        ("{{ nonsense }}", 1, "'nonsense' is undefined"),
        ("{% for i in data.items %}\n{{ i.price }}\n{% endfor %}", 2, "'data.items[1].price' is undefined"),
        ("{{ data.a.b.c }}", 1, "'data.a.b' is undefined"),
        ("\n{{ data.a.s.t }}", 2, "'str object' has no attribute 't'"),
        ("{{ data.x ~ '!' }}", 1, "'data.x' is undefined"),
        ("{{ data.x | tojson }}", 1, "'data.x' is undefined"),
        ("{{ [data.x] | tojson }}", 1, "'data.x' is undefined"),
        ("{% if data.x %}{% endif %}", 1, "'data.x' is undefined"),
        ("{% for i in data.x %}{% endfor %}", 1, "'data.x' is undefined"),
        ("{{ data.x() }}", 1, "'data.x' is undefined"),
        ("\n{% for k, v in data.x | items %}{% endfor %}", 2, "'data.x' is undefined"),
        ("{% for k, v in data.keys | items %}{% endfor %}", 1, "'data.keys' is undefined"),
        ("\n{{ data['items'][data.x] }}", 2, "'data.x' is undefined"),
        ("\n{% if %}", 2, "Expected an expression"),
        ("\n\n{{ 1 | nope }}", 3, "No filter named 'nope'"),
        ("{% if a %}\n\n", 1, "Unexpected end of template"),
        ("\n{{ 1 / 0 }}", 2, "division by zero"),
        ("\n{{ [data.x] }}", 2, "'data.x' is undefined"),
        ("\n{{ 'x' | round }}", 2, "doesn't define __round__"),
        ("\n{{ 'x' | date }}", 2, "Invalid isoformat string"),
        ("{{ data.a.s.format() }}\n{{ '{} {}'.format(1) }}", 2, "index"),
        ("{% macro m(x) %}\n{{ x.y }}{% endmacro %}\n{{ m(data) }}", 2, "'data.y' is undefined"),
    ],
)
def test_an_error_names_file_line_and_variable(folder: Folder, source: str, line: int, problem: str) -> None:
    """A missing variable, bad syntax, or whatever a filter raises: the author sees where to look."""
    data = {"items": [{"price": 1}, {}], "a": {"s": "text"}}
    error = failure(folder({"t/body.txt": source}), data)
    assert (error.template, error.line) == ("t/body.txt", line)
    assert problem in error.problem
    assert f"t/body.txt, line {line}: " in str(error)


def test_an_error_in_a_layout_names_the_layout(folder: Folder) -> None:
    """The place is where the fault stands, not who included it: at run time and in syntax."""
    path = folder({"t/body.html": "{% extends 'layouts/l.html' %}", "layouts/l.html": "\n{{ data.x }}"})
    error = failure(path)
    assert (error.template, error.line, error.problem) == ("layouts/l.html", 2, "'data.x' is undefined")
    folder({"layouts/l.html": "\n\n{% if %}"})
    error = failure(path)
    assert (error.template, error.line) == ("layouts/l.html", 3)


def test_a_missing_layout_names_itself_and_who_wants_it(folder: Folder) -> None:
    """The line is that of the `extends`."""
    error = failure(folder({"t/body.html": "\n{% extends 'layouts/none.html' %}"}))
    assert (error.template, error.line) == ("t/body.html", 2)
    assert error.problem == "there is no 'layouts/none.html'"


def test_an_error_from_a_strange_value_is_short_and_printable(folder: Folder) -> None:
    """A message goes into a store and onto a page, whatever the data is."""
    error = failure(folder({"t/body.txt": "{{ data.x | date }}"}), {"x": "\0\x1b\ud800" * 10_000})
    assert len(str(error)) < 600
    assert str(error).isprintable()


def test_half_a_surrogate_pair_is_refused(folder: Folder) -> None:
    """What can't be encoded is an error here, and not in the middle of a delivery."""
    error = failure(folder({"t/body.txt": "{{ data.x }}"}), {"x": "\ud800"})
    assert "surrogate" in error.problem


def test_a_file_that_is_not_utf8_is_refused(folder: Folder) -> None:
    """By its name, in a render and in a check."""
    path = folder({"t/body.txt": ""})
    (path / "t/body.txt").write_bytes(b"\xff\xfe")
    assert failure(path).problem == "is not UTF-8 text"
    assert [str(error) for error in Renderer(path).check()] == ["t/body.txt: is not UTF-8 text"]


def test_a_failed_render_leaves_the_next_one_whole(folder: Folder) -> None:
    """What one render spent is not missing in the next."""
    path = folder(
        {"bad/body.txt": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"}
    )
    folder({"t/body.txt": "fine"})
    renderer = Renderer(path)
    with pytest.raises(TemplateError):
        renderer.render("bad", ALL_PARTS, event=EVENT, data={}, job=JOB)
    assert renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB).text == "fine"


def test_check_finds_every_broken_file_and_missing_layout(folder: Folder) -> None:
    """Before anything is sent: syntax, unknown filters, layouts and includes that aren't there."""
    path = folder(
        {
            "a/body.txt": "\n{% if %}",
            "b/payload.json": "{{ 1 | nope }}",
            "c/body.html": "{% extends 'layouts/none.html' %}",
            "d/body.txt": "{% include 'x.txt' ignore missing %}{{ data.fine }}",
            "layouts/base.html": "{% block x %}",
            "layouts/macros.j2": "{{ '",
            "e/logo.png": "{% if %}",
            "e/.body.txt.swp": "{% if %}",
        }
    )
    places = [(error.template, error.line) for error in Renderer(path).check()]
    assert places == [
        ("a/body.txt", 2),
        ("b/payload.json", 1),
        ("c/body.html", 1),
        ("layouts/base.html", 1),
        ("layouts/macros.j2", 1),
    ]


# What templates can't do -----------------------------------------------------------------------------

DOUBLED = "{% set ns = namespace(v=[1]) %}{% for i in range(60) %}{% set ns.v = [ns.v, ns.v] %}{% endfor %}"

HOARDED = (
    "{% set ns = namespace(v=[]) %}{% for j in range(9) %}{% for i in range(99999) %}"
    "{% set ns.v = [ns.v, MADE] %}{% endfor %}{% endfor %}"
)

GREEDY = {
    "range": "{% for i in range(10**9) %}x{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "output": "{% for i in range(99999) %}{{ data.long }}{% endfor %}",
    "gathered in set": "{% set x %}{% for i in range(99999) %}{{ data.long }}{% endfor %}{% endset %}",
    "gathered in a macro": (
        "{% macro m() %}{% for i in range(99999) %}{{ data.long }}{% endfor %}{% endmacro %}"
        "{{ m() | length }}"
    ),
    "gathered again and again": (
        "{% for i in range(999) %}{% set x %}{% include 't/long.txt' %}{% endset %}{% endfor %}"
    ),
    "text multiplied": '{{ "x" * 10**9 }}',
    "text multiplied, other way": '{{ (10**9 * "x") | length }}',
    "list multiplied": "{{ ([0] * 10**9) | length }}",
    "power": "{{ 10 ** (10 ** 9) }}",
    "squares": (
        "{% set ns = namespace(v=3) %}{% for i in range(90) %}{% set ns.v = ns.v * ns.v %}{% endfor %}"
        "{{ ns.v }}"
    ),
    "doubled by +": (
        "{% set ns = namespace(v='x') %}{% for i in range(60) %}{% set ns.v = ns.v + ns.v %}{% endfor %}"
    ),
    "doubled by ~": (
        "{% set ns = namespace(v='x') %}{% for i in range(60) %}{% set ns.v = ns.v ~ ns.v %}{% endfor %}"
    ),
    "doubled list": DOUBLED + "{{ ns.v }}",
    "doubled list as JSON": DOUBLED + "{{ ns.v | tojson }}",
    "doubled list beside ~": DOUBLED + "{{ ns.v ~ '' }}",
    "doubled list as text": DOUBLED + "{{ ns.v | string }}",
    "doubled list joined": DOUBLED + "{{ ns.v | join }}",
    "doubled list formatted": DOUBLED + '{{ "%s" | format(ns.v) }}',
    "doubled list in format": DOUBLED + '{{ "{}".format(ns.v) }}',
    "doubled list behind a namespace": DOUBLED + "{{ ns }}",
    "center": '{{ "x".center(10**9) }}',
    "ljust": '{{ "x".ljust(10**9) }}',
    "zfill": '{{ "x".zfill(10**9) }}',
    "expandtabs": '{{ "\\t".expandtabs(10**9) }}',
    "expandtabs by name": '{{ "\\t".expandtabs(tabsize=10**9) }}',
    "center filter": '{{ "x" | center(10**9) }}',
    "indent filter": '{{ "a\\nb" | indent(10**9) }}',
    "wordwrap filter": "{{ data.long | wordwrap(1, true, data.long) }}",
    "batch filter": "{{ [1] | batch(10**9, 0) | list }}",
    "slice filter": "{{ [1] | slice(10**9) | list }}",
    "slices of nothing": "{{ [] | slice(16 * 10**6) | list }}",
    "slices of nothing as JSON": "{{ [] | slice(16 * 10**6) | tojson }}",
    "slices of a text": HOARDED.replace("MADE", "data.very_long[1:]"),
    "slices of a list": HOARDED.replace("MADE", "data.many[:]"),
    "difference of keys": HOARDED.replace("MADE", "data.keyed.keys() - []"),
    "literal lists": HOARDED.replace("MADE", "[1" + ", 1" * 999 + "]"),
    "literal dicts": HOARDED.replace("MADE", "{'a': i, 'b': i, 'c': i, 'd': i, 'e': i, 'f': i}"),
    "a namespace of much": HOARDED.replace("MADE", "namespace(data.keyed)"),
    "arguments unpacked": HOARDED.replace("MADE", "cycler(*data.many)"),
    "lists written out": "{% set x %}{% for i in range(99999) %}{{ data.many }}{% endfor %}{% endset %}",
    "long numbers written out": (
        "{% set n = 10 ** 4000 %}{% set x %}{% for j in range(9) %}"
        "{% for i in range(99999) %}{{ n }}{% endfor %}{% endfor %}{% endset %}"
    ),
    "tojson indent": "{{ [1] | tojson(indent=10**9) }}",
    "tojson indent of what nests": (
        "{% set ns = namespace(v=[]) %}{% for i in range(900) %}{% set ns.v = [ns.v] %}{% endfor %}"
        "{{ ns.v | tojson(indent=1000) }}"
    ),
    "date filter": "{{ event.created_at | date('%255d' * 10**6) }}",
    "strftime": "{{ event.created_at.strftime('%255d' * 10**6) }}",
    "strftime by name": "{{ event.created_at.strftime(format='%255d' * 10**6) }}",
    "round filter": '{{ 1.5 | round(10**9, "ceil") }}',
    "percent width": '{{ "%0999999999d" % 1 }}',
    "percent width behind a key with brackets": "{{ '%(a(b))999999999d' % {'a(b)': 1} }}",
    "percent star": '{{ "%0*d" % (999999999, 1) }}',
    "percent precision": '{{ "%.999999999f" | format(1) }}',
    "format width": '{{ "{:>999999999}".format(1) }}',
    "format nested width": '{{ "{:>{}}".format(1, 10**9) }}',
    "format_map": '{{ "{a:>999999999}".format_map({"a": 1}) }}',
    "replace": '{{ data.long.replace("a", data.long) }}',
    "replace filter": '{{ data.long | replace("a", data.long) }}',
    "join": "{{ data.long.join(data.long) }}",
    "join filter": "{{ data.long | join(data.long) }}",
    "join an iterator": "{{ data.long | map('string') | join(data.long) }}",
    "split": "{{ data.very_long.split('a') }}",
    "bytes": "{{ (5).to_bytes(10**9) }}",
    "translate": "{{ data.long.translate({97: data.long}) }}",
    "macros calling themselves twice": (
        "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(100) }}"
    ),
    "recursive loops": (
        "{% for x in [1] recursive %}{% if loop.depth < 4 %}{{ loop(range(99999)) }}{% endif %}{% endfor %}"
    ),
    "recursive loops by name": (
        "{% for x in [1] recursive %}"
        "{% if loop.depth < 4 %}{{ loop(iterable=range(99999)) }}{% endif %}{% endfor %}"
    ),
    "the first of several includes, twice": (
        "{% set depth = (depth | default(0)) + 1 %}{% if depth < 40 %}"
        "{% include ['no', 't/body.txt'] %}{% include ['no', 't/body.txt'] %}{% endif %}"
    ),
    "macro without end": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "include of itself": "{% include 't/body.txt' %}{% include 't/body.txt' %}",
    "extends itself": "{% extends 't/body.txt' %}",
    "block within itself": "{% block b %}{{ self.b() }}{% endblock %}",
}


@pytest.fixture
def grown() -> Callable[[], int]:
    """By how many MiB this process outgrew the most that it ever held before the test."""

    def most() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    before = most()
    return lambda: most() - before


@pytest.mark.parametrize("source", GREEDY.values(), ids=GREEDY.keys())
@pytest.mark.timeout(30)
def test_a_template_can_not_eat_the_machine(folder: Folder, grown: Callable[[], int], source: str) -> None:
    """Output, intermediate results, loops and recursion are bounded, and refused before they are made."""
    data: dict[str, Any] = {
        "long": "a" * 100_000,
        "very_long": "a" * 4_000_000,
        "many": [1] * 40_000,
        "keyed": {str(number): number for number in range(20_000)},
    }
    error = failure(folder({"t/body.txt": source, "t/long.txt": data["very_long"]}), data)
    assert error.template == "t/body.txt"
    assert grown() < 150


def test_escaping_does_not_make_copies_without_end(folder: Folder, grown: Callable[[], int]) -> None:
    """In HTML each `{{ … }}` makes a new text, which is paid for before it is gathered."""
    source = "{% set x %}{% for i in range(99999) %}{{ data.x }}{% endfor %}{% endset %}"
    failure(folder({"t/body.html": source}), {"x": "<" * 100_000})
    assert grown() < 150


ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ data | attr('__class__') }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{0.__class__}'.format_map({'0': 1}) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ self.__init__ }}",
    "{{ range.__self__ }}",
    "{% set data.x = 1 %}",
    "{{ data.list.append(1) }}",
    "{{ data.update(x=1) }}",
    "{{ data.pop('list') }}",
    "{{ data.list.clear() }}",
    "{{ data.list | indent }}",
    "{{ [data.list] | map('indent', 2) | list }}",
    "{{ dict.update(data, {'x': 1}) }}",
    "{{ dict.pop(data, 'list') }}",
    "{{ dict['x'].clear(data) }}",
    "{{ '{0.clear}'.format(dict) }}",
    "{{ [data] | map(attribute='__class__') | list }}",
    "{{ lipsum() }}",
    "{{ [1, 2] | random }}",
    "{% import 'os' as os %}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_a_template_can_not_leave_its_sandbox(folder: Folder, source: str) -> None:
    """Neither Python's internals, nor a change to the data, nor chance (a retry makes the same bytes)."""
    data: dict[str, Any] = {"list": [0]}
    failure(folder({"t/body.txt": source}), data)
    assert data == {"list": [0]}


@pytest.mark.parametrize(
    "state", ["namespace(n=0)", "joiner(',')", "cycler(1, 2, 3)"], ids=["namespace", "joiner", "cycler"]
)
@pytest.mark.parametrize("name", ["state", "_state"])
def test_a_macro_begins_anew_with_each_render(folder: Folder, state: str, name: str) -> None:
    """What macros of a shared file remember is no later mail's: a retry makes the same bytes."""
    step = {
        "n": "{% set NAME.n = NAME.n + 1 %}{{ NAME.n }}",
        "j": "{{ NAME() }}x",
        "c": "{{ NAME.next() }}",
    }[state[0]]
    source = f"{{% set NAME = {state} %}}{{% macro m() %}}{step}{{% endmacro %}}".replace("NAME", name)
    path = folder({"m.jinja": source, "t/body.txt": "{% from 'm.jinja' import m %}{{ m() }}{{ m() }}"})
    renderer = Renderer(path)
    made = {renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB).text for _ in range(3)}
    assert made in ({"12"}, {"x,x"})


def test_a_shared_file_that_remembers_nothing_is_read_once(folder: Folder) -> None:
    """Its macros are made for the first render, and serve all others."""
    source = "{% set title = 'T' %}{% macro m() %}{{ title }}{% endmacro %}"
    path = folder({"m.jinja": source, "t/body.txt": "{% import 'm.jinja' as m %}{{ m.m() }}"})
    renderer = Renderer(path)
    template = renderer._pages.loaded("m.jinja")
    modules = []
    for _ in range(2):
        assert renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB).text == "T"
        modules.append(template._module)
    assert modules[0] is modules[1] is not None


@settings(deadline=None)  # the first example compiles
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_data_is_never_taken_for_a_template(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """What an event says is written, never run."""
    path = tmp_path_factory.getbasetemp() / "data"
    (path / "t").mkdir(parents=True, exist_ok=True)
    (path / "t/body.txt").write_text("{{ data.x }}")
    hostile = text + "{{ ''.__class__ }}{% for %}"
    assert render(path, {"x": hostile}).text == hostile


@settings(deadline=None)  # the first example compiles
@given(
    st.lists(
        st.sampled_from(
            ["{{", "}}", "{%", "%}", "for x in data", "if", "endif", "endfor", "data", ".x", "|", "("]
        )
        | st.sampled_from(
            ["'", '"', "*", "9", "**", "~", "set y =", "{#", "#}", "\n", "tojson", "macro m()", "-"]
        ),
        max_size=12,
    )
)
def test_whatever_a_template_is_it_renders_or_says_why_not(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[str]
) -> None:
    """No template raises anything but a TemplateError."""
    path = tmp_path_factory.mktemp("any")
    (path / "t").mkdir()
    (path / "t/body.html").write_text(" ".join(tokens))
    try:
        render(path, {"x": [1, "a"]})
    except TemplateError as error:
        assert error.template == "t/body.html"  # noqa: PT017 - both outcomes are right


def test_output_stops_where_the_cap_stands(folder: Folder) -> None:
    """All parts of one render share it: at the cap all is well, one character more is refused."""
    path = folder({"t/subject.txt": "12345", "t/body.txt": "{{ data.x }}"})
    assert render(path, {"x": "67890"}, max_output=10).text == "67890"
    with pytest.raises(TemplateError, match=r"t/body\.txt.*puts out too much"):
        render(path, {"x": "678901"}, max_output=10)


def test_a_large_honest_mail_is_made(folder: Folder) -> None:
    """The bounds are far from what a digest of thousands of rows needs."""
    source = (
        "{% macro cell(x) %}<td>{{ x }}</td>{% endmacro %}<table>"
        "{% for row in data.rows | sort(attribute='n') %}"
        "<tr>{{ cell(row.n) }}{{ cell(row.name.title()) }}{{ cell('{:,.2f}'.format(row.n * 2)) }}</tr>"
        "{% endfor %}</table>{{ data.rows | map(attribute='name') | join(', ') }}"
    )
    rows = [{"n": number, "name": f"row {number}"} for number in range(5000, 0, -1)]
    html = render(folder({"t/body.html": source}), {"rows": rows}).html or ""
    assert html.startswith("<table><tr><td>1</td><td>Row 1</td><td>2.00</td></tr>")
    assert html.count("<tr>") == 5000


# Jinja2 in the configuration -------------------------------------------------------------------------


def test_a_text_without_braces_is_itself() -> None:
    """A literal is never run through Jinja2: neither is it parsed, nor is anything in it replaced."""
    text = Text("https://example.com/a%20b?x=#}", "routes[0].url")
    assert text._template is None
    assert text.render(EVENT, {}) == "https://example.com/a%20b?x=#}"


def test_a_text_is_filled_from_event_data_and_tenant() -> None:
    """And is trimmed, so that a template may be written with room."""
    text = Text(" {{ data.items[0] }}/{{ event.type }}/{{ event.id }}/{{ tenant }} ", "routes[0].to")
    assert text.render(EVENT, {"items": ["x"]}) == f"x/user.signup/{EVENT.id}/acme"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ data.email }}", "'data.email' is undefined"),
        ("{{ data.null }}", "the value is null"),
        ("{{ 'x' * 10**9 }}", "too much"),
        ("{{ data.half }}", "surrogate"),
        ("{{ data.email.lower() }}", "'data.email' is undefined"),
    ],
)
def test_a_text_that_can_not_be_filled_says_why(source: str, problem: str) -> None:
    """The key, and the variable."""
    text = Text(source, "routes[2].to")
    with pytest.raises(Permanent) as raised:
        text.render(EVENT, {"null": None, "half": "\ud800"})
    assert raised.value.code == "destination_error"
    assert raised.value.message.startswith("routes[2].to")
    assert problem in raised.value.message


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{{ data.email", "is no Jinja2: unexpected end of template"),
        ("{% if %}", "is no Jinja2: Expected an expression"),
        ("{{ data.email | nope }}", "is no Jinja2: No filter named 'nope'"),
        ("{{ dat.email }}", "'dat' is never given; did you mean 'data'?"),
        ("{{ job.id }}", "'job' is never given; there are data, event, tenant"),
    ],
)
def test_a_text_that_can_never_be_filled_is_an_error_of_the_configuration(source: str, problem: str) -> None:
    """It is told at the start, by its key."""
    with pytest.raises(ConfigError) as raised:
        Text(source, "routes[2].to")
    assert raised.value.key == "routes[2].to"
    assert problem in raised.value.problem


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("data.total > 100", True),
        ("data.total > 200", False),
        ("data.items | length == 2 and tenant == 'acme'", True),
        ("'vip' in data.tags", True),
        ("data.vip is defined", False),
        ("data.vip | default(false)", False),
        ("event.type.startswith('user.')", True),
        ("data.items | selectattr('n', 'gt', 1000000000) | list", False),
        ("data['total'] == 120 and {'a': {'b': 1}}", True),
        ("0", False),
    ],
)
def test_a_condition_holds_or_not(source: str, expected: bool) -> None:
    """Any Jinja2 expression over event, data and tenant; its truth is what counts."""
    data = {"total": 120, "items": [{"n": 1}, {"n": 2}], "tags": ["vip"]}
    assert Condition(source, "routes[0].when").holds(EVENT, data) is expected


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("data.total > 100", "'data.total' is undefined"),
        ("data.vip", "'data.vip' is undefined"),
        ("data.name > 1", "not supported between"),
        ("data.name.__class__", "unsafe"),
        ("10 ** (10 ** 9) > 1", "too large"),
    ],
)
def test_a_condition_that_can_not_be_told_says_why(source: str, problem: str) -> None:
    """Missing data is neither true nor false."""
    condition = Condition(source, "routes[2].when")
    with pytest.raises(Permanent) as raised:
        condition.holds(EVENT, {"name": "x"})
    assert raised.value.code == "condition_error"
    assert raised.value.message.startswith("routes[2].when")
    assert problem in raised.value.message


@pytest.mark.parametrize(
    "source", ["data.total >", "{{ data.total > 1 }}", "", "data total", "dta.total", "1 | nope"]
)
def test_a_condition_that_can_never_be_told_is_an_error_of_the_configuration(source: str) -> None:
    """It is told at the start, by its key."""
    with pytest.raises(ConfigError, match=r"^routes\[2\]\.when: ") as raised:
        Condition(source, "routes[2].when")
    assert raised.value.key == "routes[2].when"


@pytest.mark.parametrize(
    "source",
    [
        "(" * 1000 + "1" + ")" * 1000,
        "not " * 500 + "1",
        "-" * 2000 + "1",
        "1+" * 1000 + "1",
        "[" * 95 + "]" * 95,
    ],
    ids=["parentheses", "not", "minus", "plus", "brackets"],
)
def test_what_nests_too_deep_to_be_compiled_is_an_error_of_the_configuration(source: str) -> None:
    """Told as any other, with its place; what just compiles today may not where the stack is deeper."""
    with pytest.raises(ConfigError, match="nests too deep"):
        Condition(source, "routes[0].when")
    with pytest.raises(ConfigError, match="nests too deep"):
        Text(f"{{{{ {source} }}}}", "routes[0].to")


# The mail that ships ---------------------------------------------------------------------------------


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"br", "meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _tags(html: str | None) -> list[tuple[str, dict[str, str | None]]]:
    """Every tag with its attributes; asserts that all are closed in order."""
    parser = _Tags()
    parser.feed(html or "")
    parser.close()
    assert parser.open == []
    return parser.tags


@pytest.mark.parametrize(
    "data", [{}, {"name": None}, {"name": ""}, {"name": "Ada"}, {"url": "https://x.example/"}]
)
def test_the_welcome_mail_needs_an_address_and_nothing_more(data: dict[str, Any]) -> None:
    """Name and link are optional; each greets properly without."""
    made = render(SHIPPED, {"email": "ada@example.com"} | data, template="welcome")
    greeting = "Welcome, Ada!" if data.get("name") else "Welcome!"
    assert made.subject == greeting
    for body in (made.html or "", made.text or ""):
        assert greeting in body
        assert "ada@example.com" in body
        assert ("https://x.example/" in body) == ("url" in data)
        assert "None" not in body
    assert made.payload is None


def test_the_welcome_mail_without_an_address_fails() -> None:
    """A blank where the address should stand is no mail."""
    with pytest.raises(TemplateError, match=r"'data\.email' is undefined"):
        render(SHIPPED, {"name": "Ada"}, template="welcome")


def test_the_welcome_mail_is_html_that_mail_clients_can_show() -> None:
    """Tables 600 px wide; no script, or anything fetched from elsewhere."""
    made = render(SHIPPED, {"email": "ada@example.com", "url": "https://x.example/"}, template="welcome")
    tags = _tags(made.html)
    assert {tag for tag, _ in tags}.isdisjoint({"script", "link", "img", "form", "iframe"})
    assert any(tag == "table" and attrs.get("width") == "600" for tag, attrs in tags)
    assert all(attrs.get("role") == "presentation" for tag, attrs in tags if tag == "table")
    assert (made.html or "").startswith("<!doctype html>")


def test_all_that_ships_compiles() -> None:
    """`notifier check` finds nothing to say about a fresh clone's templates."""
    renderer = Renderer(SHIPPED)
    assert renderer.check() == []
    assert renderer.names() == ["alert", "password-reset", "receipt", "welcome"]


def test_naming_what_is_missing_costs_no_more_than_the_data(tmp_path: Path) -> None:
    """A path is looked for without writing every other path down: long keys over many items are no bomb."""
    (tmp_path / "welcome").mkdir()
    (tmp_path / "welcome" / "subject.txt").write_text("{{ data.user.name }}")
    data = {"k" * 8000: [[number] for number in range(9000)], "user": {}}
    renderer = Renderer(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(TemplateError, match=r"data\.user\.name"):
            renderer.render("welcome", {"subject"}, event=event_record(), data=data, job=job())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 1024**2
