"""Replay lint: what a template would break of what was real."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.builders import event_record, job

from notifier.channels import Channel, FunctionChannel, Message, Receipt
from notifier.model import EventRecord, Job
from notifier.rendering import Renderer
from notifier.rendering.lint import breaks


async def refuse(_message: Message) -> Receipt:
    """Never called: nothing is sent."""
    raise AssertionError


@pytest.fixture
def channels() -> Mapping[str, Channel]:
    """Mail without payloads, and webhooks of nothing else."""
    made = {name: FunctionChannel(name, refuse, 60) for name in ("email", "webhook")}
    made["email"].parts = frozenset({"subject", "html", "text"})
    made["webhook"].parts = frozenset({"payload"})
    return made


def delivery(body: str = "{}", **changes: object) -> tuple[Job, EventRecord]:
    """A mail that was sent for an event."""
    event = event_record(body=body)
    return job(event, **({"channel": "email", "template": "t"} | changes)), event


def write(folder: Path, **files: str) -> Renderer:
    """Make the template `t`."""
    (folder / "t").mkdir()
    for name, text in files.items():
        (folder / "t" / name.replace("_", ".")).write_text(text)
    return Renderer(folder)


def test_what_would_break_is_named_with_event_file_line_and_variable(
    tmp_path: Path, channels: Mapping[str, Channel]
) -> None:
    """Of three events, the one that lacks what the template now asks for."""
    renderer = write(tmp_path, body_txt="Hi\n{{ data.name }}")
    fine, bad, other = delivery('{"name": "Ada"}'), delivery(), delivery('{"name": null}')
    found = breaks("t", [fine, bad, other], renderer, channels, lambda _: None)
    assert [(each.event_id, each.job_id, each.where, each.variable) for each in found] == [
        (bad[1].id, bad[0].id, "t/body.txt:2", "data.name"),
        (other[1].id, other[0].id, "t/body.txt:2", None),
    ]
    assert found[0].problem == "'data.name' is undefined"


def test_only_what_is_sent_is_rendered(tmp_path: Path, channels: Mapping[str, Channel]) -> None:
    """Of a template for both, a mail needs no payload; a job of a channel that is gone is rendered whole."""
    renderer = write(tmp_path, body_txt="x", payload_json="{{ data.total | tojson }}")
    recent = [delivery(channel=name) for name in ("email", "webhook", "gone")]
    found = breaks("t", recent, renderer, channels, lambda _: None)
    assert [each.job_id for each in found] == [recent[1][0].id, recent[2][0].id]


def test_a_locale_is_rendered_in_its_own_files(tmp_path: Path, channels: Mapping[str, Channel]) -> None:
    """What is wrong with the French file breaks the French mails alone."""
    renderer = write(tmp_path, body_txt="x", body_fr_txt="{{ data.nom }}")
    recent = [delivery(locale="fr-CA"), delivery()]
    (found,) = breaks("t", recent, renderer, channels, lambda _: None)
    assert (found.job_id, found.where) == (recent[0][0].id, "t/body.fr.txt:1")


def test_mail_of_a_category_has_its_link(tmp_path: Path, channels: Mapping[str, Channel]) -> None:
    """A template that prints the link breaks where there is none, and only there."""
    renderer = write(tmp_path, body_txt="{{ unsubscribe_url }}")
    recent = [delivery(category="news"), delivery()]
    found = breaks("t", recent, renderer, channels, lambda job: job.category and f"https://n/{job.category}")
    assert [each.job_id for each in found] == [recent[1][0].id]


def test_a_template_that_is_gone_breaks_for_all(tmp_path: Path, channels: Mapping[str, Channel]) -> None:
    """Without a line, since there is none."""
    (found,) = breaks("t", [delivery()], Renderer(tmp_path), channels, lambda _: None)
    assert (found.where, found.problem) == ("t", "there is no such template")
