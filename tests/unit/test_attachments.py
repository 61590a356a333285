"""attachments.json: which files go with a mail, and everything that can be wrong with the list."""

import base64
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import event_record, job

from notifier.channels import ALL_PARTS, Attachment
from notifier.errors import TemplateError, Unavailable
from notifier.rendering import Renderer
from notifier.rendering.attachments import MAX_ENTRIES, OCTETS

EVENT = event_record(type="invoice.created")
JOB = job(EVENT, channel="email", destination="ada@example.com", template="t")
PNG = b"\x89PNG\r\n\x1a\n"

Folder = Callable[[dict[str, str | bytes]], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Writes files by their path below the templates folder."""

    def write(files: dict[str, str | bytes]) -> Path:
        root = tmp_path / "templates"
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return write


def attached(
    path: Path, data: dict[str, Any] | None = None, *, locale: str | None = None, **limits: Any
) -> tuple[Attachment, ...]:
    """What the template `t` attaches."""
    renderer = Renderer(path, **limits)
    made = renderer.render("t", ALL_PARTS, event=EVENT, data=data or {}, job=JOB, locale=locale)
    return made.attachments


def failure(path: Path, data: dict[str, Any] | None = None, **limits: Any) -> TemplateError:
    """What a render raises."""
    with pytest.raises(TemplateError) as raised:
        attached(path, data, **limits)
    return raised.value


def listing(*entries: Any) -> str:
    """An attachments.json that says just this."""
    return json.dumps(entries)


# What is attached ------------------------------------------------------------------------------------


def test_files_of_the_folder_are_attached(folder: Folder) -> None:
    """With their name and type, which the list may say otherwise; an inline name for the HTML."""
    path = folder(
        {
            "t/logo.png": PNG,
            "t/legal/terms.pdf": b"%PDF",
            "t/attachments.json": listing(
                {"filename": "Terms 2027.pdf", "file": "legal/terms.pdf"},
                {"file": "logo.png", "inline": "logo", "type": "image/X-png"},
            ),
        }
    )
    assert attached(path) == (
        Attachment(filename="Terms 2027.pdf", media_type="application/pdf", content=b"%PDF"),
        Attachment(filename="logo.png", media_type="image/x-png", content=PNG, inline="logo"),
    )


def test_base64_of_the_event_is_attached(folder: Folder) -> None:
    """Any bytes, under a name that the event says; null is as good as left out."""
    source = (
        '[{"filename": {{ data.name | tojson }}, "content": {{ data.pdf | tojson }}, "type": null},'
        '{% for each in data.more %}{"filename": "{{ loop.index }}.csv", "content": "{{ each }}"}'
        "{{ '' if loop.last else ',' }}{% endfor %}]"
    )
    data = {"name": 'Rechnung "Ä".PDF', "pdf": base64.b64encode(bytes(range(256))).decode(), "more": ["YQ=="]}
    assert attached(folder({"t/attachments.json": source}), data) == (
        Attachment(filename='Rechnung "Ä".PDF', media_type="application/pdf", content=bytes(range(256))),
        Attachment(filename="1.csv", media_type="text/csv", content=b"a"),
    )


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_what_the_event_holds_arrives_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Every file survives the way through JSON, Jinja2 and base64."""
    path = tmp_path_factory.getbasetemp() / "attached"
    (path / "t").mkdir(parents=True, exist_ok=True)
    source = '[{"filename": "x", "content": {{ data.x | tojson }}}]'
    (path / "t/attachments.json").write_text(source)
    (made,) = attached(path, {"x": base64.b64encode(content).decode()})
    assert made.content == content


def test_a_template_without_a_list_attaches_nothing(folder: Folder) -> None:
    """And so does one that nobody asked for it, or whose list is empty."""
    assert attached(folder({"t/body.txt": "x"})) == ()
    path = folder({"t/attachments.json": "[]"})
    assert attached(path) == ()
    folder({"t/attachments.json": "{{ broken"})
    made = Renderer(path).render("t", {"text"}, event=EVENT, data={}, job=JOB)
    assert (made.text, made.attachments) == ("x", ())


def test_a_list_has_locales_as_other_parts_have(folder: Folder) -> None:
    """fr-CA falls back to fr, and de to the plain one; files are named from the template's folder."""
    path = folder(
        {
            "t/a.txt": "plain",
            "t/fr/a.txt": "français",
            "t/attachments.json": listing({"file": "a.txt"}),
            "t/attachments.fr.json": listing({"file": "fr/a.txt"}),
        }
    )
    made = [attached(path, locale=locale)[0].content for locale in ("fr-CA", "de", None)]
    assert made == ["français".encode(), b"plain", b"plain"]


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("a.pdf", "application/pdf"),
        ("A.PNG", "image/png"),
        ("table.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        ("meeting.ics", "text/calendar"),
        ("logs.tar.gz", "application/gzip"),
        ("logs.tar.xz", OCTETS),
        ("mail.eml", OCTETS),
        ("data:x.pdf", "application/pdf"),
        ("unknown", OCTETS),
        (".profile", OCTETS),
    ],
)
def test_a_type_is_told_by_the_files_name(folder: Folder, filename: str, expected: str) -> None:
    """By one table on every machine; what can't travel in base64 (a mail) goes as plain bytes."""
    (made,) = attached(folder({"t/attachments.json": listing({"filename": filename, "content": ""})}))
    assert made.media_type == expected


# What is wrong with a list ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("{}", "expected a JSON list"),
        ("[{},]", "the result is not JSON"),
        (listing({"filename": "a", "content": ""}, 1), "entry 2: Expected 'object', got 'int'"),
        (listing({"filename": "a", "path": "x"}), "entry 1: Object contains unknown field 'path'"),
        (listing({"filename": 1, "content": ""}), "entry 1: Expected 'str | null', got 'int'"),
        (listing({"filename": "a.txt"}), 'entry 1 (\'a.txt\'): expected either "file" or "content"'),
        (listing({"file": "a", "content": ""}), 'expected either "file" or "content"'),
        (listing({"content": ""}), 'entry 1: expected a "filename"'),
        (listing({"filename": "a", "content": "YQ"}), '"content" is no base64'),
        (listing({"filename": "a", "content": "YQ==YQ=="}), '"content" is no base64'),
        (listing({"filename": "a", "content": "YQ==\n"}), '"content" is no base64'),
        (listing({"filename": "a", "content": "YQ-_"}), '"content" is no base64'),
        (listing({"filename": "a", "content": "é"}), '"content" is no base64'),
        (listing({"filename": "", "content": ""}), 'expected a "filename"'),
        (listing({"filename": "..", "content": ""}), 'expected a "filename"'),
        (listing({"filename": "a/b", "content": ""}), 'expected a "filename"'),
        (listing({"filename": "a\\b", "content": ""}), 'expected a "filename"'),
        (listing({"filename": "a\r\nBcc: b", "content": ""}), 'expected a "filename"'),
        (listing({"filename": "gpj.\u202eexe", "content": ""}), 'expected a "filename"'),
        (listing({"filename": "x" * 256, "content": ""}), 'expected a "filename"'),
        (listing({"filename": "a", "content": "", "type": "pdf"}), 'expected a "type" such as'),
        (listing({"filename": "a", "content": "", "type": "text/x; a=b"}), 'expected a "type" such as'),
        (listing({"filename": "a", "content": "", "type": "text/x\r\nBcc: b"}), 'expected a "type" such as'),
        (listing({"filename": "a", "content": "", "type": "message/rfc822"}), "can be attached"),
        (listing({"filename": "a", "content": "", "inline": "a b"}), 'expected an "inline" name'),
        (listing({"filename": "a", "content": "", "inline": "<a>"}), 'expected an "inline" name'),
        (
            listing(*[{"filename": "a", "content": "", "inline": "logo"}] * 2),
            "entry 2 ('a'): \"inline\" 'logo' is used before",
        ),
        (listing({"file": "gone.pdf"}), "entry 1 ('gone.pdf'): there is no file 'gone.pdf'"),
        (listing(*[{"filename": "a", "content": ""}] * (MAX_ENTRIES + 1)), "there are 101 entries"),
    ],
)
def test_a_mistake_names_the_file_and_the_entry(folder: Folder, source: str, problem: str) -> None:
    """Nothing is sent without what it should carry, and the author sees which entry is at fault."""
    error = failure(folder({"t/attachments.json": source, "t/a": "x"}))
    assert error.template == "t/attachments.json"
    assert problem in error.problem
    assert error.code == "template_error"


def test_a_missing_variable_names_line_and_variable(folder: Folder) -> None:
    """As in every other part."""
    error = failure(
        folder({"t/attachments.json": '[\n{"filename": "a", "content": {{ data.pdf | tojson }}}]'})
    )
    assert (error.template, error.line, error.variable) == ("t/attachments.json", 2, "data.pdf")
    assert error.problem == "'data.pdf' is undefined"


def test_no_data_adds_an_entry(folder: Folder) -> None:
    """What an event says of a file's name can't attach another."""
    source = '[{"filename": "{{ data.name }}.txt", "content": ""}]'
    error = failure(folder({"t/attachments.json": source}), {"name": 'a","file":"secret.txt'})
    assert "tojson" in error.problem


# What a file may be ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    ["../secret.txt", "/etc/passwd", "./a.txt", "sub/../a.txt", "sub//a.txt", "sub", "", "..", "sub\\a.txt"],
)
def test_no_file_leads_out_of_the_templates_folder(folder: Folder, file: str) -> None:
    """An event may name the file; it names one of the template's."""
    source = '[{"filename": "x", "file": {{ data.file | tojson }}}]'
    path = folder({"t/attachments.json": source, "t/sub/a.txt": "x", "t/a.txt": "x", "secret.txt": "s"})
    assert "there is no file" in failure(path, {"file": file}).problem


def test_no_link_leads_out_of_the_templates_folder(folder: Folder, tmp_path: Path) -> None:
    """Neither to a file nor by way of a folder; one that stays inside is a file like any other."""
    (tmp_path / "secret.txt").write_text("secret")
    path = folder({"t/a.txt": "a", "t/attachments.json": '[{"file": {{ data.file | tojson }}}]'})
    (path / "t/out.txt").symlink_to(tmp_path / "secret.txt")
    (path / "t/up").symlink_to(tmp_path)
    (path / "t/loop").symlink_to("loop")
    (path / "t/in.txt").symlink_to("a.txt")
    for file in ("out.txt", "up/secret.txt", "loop"):
        assert "there is no file" in failure(path, {"file": file}).problem
    assert attached(path, {"file": "in.txt"})[0].content == b"a"


def test_a_folder_that_is_a_link_holds_its_files(folder: Folder, tmp_path: Path) -> None:
    """A template that is mounted or linked into place attaches what lies beside it."""
    path = folder({"elsewhere/a.txt": "a", "elsewhere/attachments.json": listing({"file": "a.txt"})})
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "t").symlink_to(path / "elsewhere")
    assert attached(linked)[0].content == b"a"


def test_what_is_no_plain_file_is_not_waited_for(folder: Folder) -> None:
    """A pipe that nobody writes to holds up no delivery."""
    path = folder({"t/attachments.json": listing({"file": "pipe"})})
    os.mkfifo(path / "t/pipe")
    assert "there is no file" in failure(path).problem


def test_a_file_that_may_not_be_read_says_why(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template's fault where it is the file's; nobody's where the machine has no files left to open."""
    path = folder({"t/a.txt": "a", "t/attachments.json": listing({"file": "a.txt"})})
    read = Path.read_bytes

    def refuse(number: int) -> None:
        def read_bytes(file: Path) -> bytes:
            if file.name == "a.txt":
                raise OSError(number, os.strerror(number))
            return read(file)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)

    refuse(errno.EACCES)
    assert "'a.txt' can't be read: Permission denied" in failure(path).problem
    refuse(errno.EMFILE)
    with pytest.raises(Unavailable, match="Too many open files"):
        attached(path)


def test_a_template_that_the_machine_cant_read_is_no_fault_of_the_jobs(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files in the middle of a render costs no attempt either."""
    path = folder({"t/body.txt": "x"})

    def refuse(_file: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(Unavailable, match="Too many open files"):
        attached(path)


# How large it may be ---------------------------------------------------------------------------------


def test_a_file_that_is_too_large_is_refused_unread(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the limit it goes; a byte more is an error that names the key and both sizes."""
    path = folder({"t/a.bin": bytes(1000), "t/attachments.json": listing({"file": "a.bin"})})
    assert len(attached(path, max_attachment=1000)[0].content) == 1000
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: b"" if file.suffix == ".bin" else read(file))
    problem = failure(path, max_attachment=999).problem
    assert problem == ("entry 1 ('a.bin'): it has 1,000 bytes, more than channels.email.max_attachment (999)")


@pytest.mark.parametrize("size", [998, 999, 1000])
def test_base64_is_measured_by_what_it_holds(folder: Folder, size: int) -> None:
    """Whatever the padding, to the byte."""
    source = '[{"filename": "a", "content": {{ data.x | tojson }}}]'
    path = folder({"t/attachments.json": source})
    data = {"x": base64.b64encode(bytes(size)).decode()}
    assert len(attached(path, data, max_attachment=size)[0].content) == size
    assert "more than channels.email.max_attachment" in failure(path, data, max_attachment=size - 1).problem


def test_all_together_fit_into_a_mail(folder: Folder) -> None:
    """Many that may be attached each make a mail that no relay takes: told before it is built."""
    path = folder(
        {"t/a.bin": bytes(600), "t/attachments.json": listing({"file": "a.bin"}, {"file": "a.bin"})}
    )
    assert len(attached(path, max_message=1200)) == 2
    problem = failure(path, max_message=1199).problem
    assert problem == (
        "entry 2 ('a.bin'): with it they have 1,200 bytes, more than channels.email.max_message (1,199)"
    )


def test_attachments_of_the_full_size_pass(folder: Folder) -> None:
    """Three of 5 MiB from one event: the limits of a page are not theirs, and leave it its own room."""
    entry = '{"filename": "a", "content": {{ x | tojson }}}'
    source = f"[{{% for x in data.l %}}{entry}{{{{ '' if loop.last else ',' }}}}{{% endfor %}}]"
    path = folder({"t/attachments.json": source, "t/body.txt": "x" * 1000})
    full = base64.b64encode(bytes(5 * 1024**2)).decode()
    made = attached(path, {"l": [full] * 3}, max_output=1000)
    assert [len(each.content) for each in made] == [5 * 1024**2] * 3


# Files are remembered --------------------------------------------------------------------------------


class Clock:
    """Monotonic seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


def test_a_file_is_read_once_until_it_changes(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand mails with one logo read it once; a new logo is in the mails a second later."""
    path, clock = folder({"t/a.txt": "old", "t/attachments.json": listing({"file": "a.txt"})}), Clock()
    renderer = Renderer(path, clock=clock)
    reads: list[str] = []
    read = Path.read_bytes

    def noted(file: Path) -> bytes:
        reads.append(file.name)
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", noted)

    def made() -> bytes:
        return renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB).attachments[0].content

    assert [made(), made()] == [b"old", b"old"]
    folder({"t/a.txt": "changed"})
    assert made() == b"old"
    clock.now += 1
    assert [made(), made()] == [b"changed", b"changed"]
    assert reads == ["attachments.json", "a.txt", "a.txt"]


def test_what_is_remembered_of_files_is_bounded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of many large files doesn't fill the memory, whatever events name of it."""
    monkeypatch.setattr("notifier.rendering.files._KEPT_BYTES", 1000)
    files: dict[str, str | bytes] = {f"t/{number}.bin": bytes(400) for number in range(10)}
    path = folder(files | {"t/attachments.json": '[{"file": "{{ data.n }}.bin"}]'})
    renderer = Renderer(path)
    for number in range(10):
        renderer.render("t", ALL_PARTS, event=EVENT, data={"n": number}, job=JOB)
        assert len(renderer._files._contents) <= 2


# Unsubscribing ---------------------------------------------------------------------------------------


def test_templates_get_the_way_to_unsubscribe(folder: Folder) -> None:
    """The link where there is one; without, a condition on it holds not, and it can't be printed."""
    path = folder({"t/body.txt": "{% if unsubscribe_url %}Stop: {{ unsubscribe_url }}{% endif %}"})

    def made(url: str | None) -> str | None:
        renderer = Renderer(path)
        return renderer.render("t", ALL_PARTS, event=EVENT, data={}, job=JOB, unsubscribe_url=url).text

    assert made("https://n.example/unsubscribe/x") == "Stop: https://n.example/unsubscribe/x"
    assert made(None) == ""
    folder({"t/body.txt": "{{ unsubscribe_url }}"})
    with pytest.raises(TemplateError, match="the value is null"):
        made(None)
