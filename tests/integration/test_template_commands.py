"""Seeing before sending, by the installed command: `preview TEMPLATE` and `check --against-recent`."""

import asyncio
import json
import os
import pty
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from support.program import COMMAND, Program
from support.smtp_server import SmtpServer, closed_port, say

pytestmark = pytest.mark.slow
DATA = '{"name": "Ada", "email": "ada@example.com"}'
FILES = {
    "welcome/subject.txt": "Welcome, {{ data.name }}!",
    "welcome/body.html": '<p style="margin:0">Hello {{ data.name }}</p><img src="cid:logo" alt="">',
    "welcome/body.txt": "Hello {{ data.name }}{% if unsubscribe_url %} ({{ unsubscribe_url }}){% endif %}",
    "welcome/body.fr.txt": "Bonjour {{ data.name }}",
    "welcome/attachments.json": '[{"file": "logo.png", "inline": "logo"}]',
    "welcome/logo.png": "\x89PNG",
    "hook/payload.json": '{"total": {{ data.total | tojson }}}',
}


@pytest.fixture
async def relay() -> AsyncIterator[SmtpServer]:
    """A relay that takes everything."""
    async with SmtpServer() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path, relay: SmtpServer) -> Path:
    """A configuration that sends mail by that relay, and its templates."""
    (tmp_path / "config.toml").write_text(
        f"""
        [channels.email]
        from = "Notifier <no-reply@example.com>"
        [[channels.email.relays]]
        host = "127.0.0.1"
        port = {relay.port}
        tls = "none"
        [[routes]]
        event = "user.signup"
        channel = "email"
        to = "{{{{ data.email }}}}"
        template = "welcome"
        locale = "{{{{ data.locale | default('') }}}}"
        [[routes]]
        event = "welcome"
        channel = "webhook"
        url = "https://hooks.example/"
        """
    )
    for name, text in FILES.items():
        write(tmp_path, name, text)
    return tmp_path


def write(folder: Path, name: str, text: str) -> None:
    """Write a file of a template."""
    path = folder / "templates" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "latin-1")


class Ended(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


async def run(folder: Path, *args: str, **env: str) -> Ended:
    """Run a command to its end."""
    async with Program(*args, cwd=folder, env=env) as program:
        out = await program.output()
        return Ended(await program.ended(), out, "\n".join(program.lines))


# preview TEMPLATE --------------------------------------------------------------------------------


async def test_a_template_is_shown_with_headers_and_both_bodies(folder: Path) -> None:
    """As its reader gets it, with what goes with it; in a language where one is asked for."""
    shown = await run(folder, "preview", "welcome", "--data", DATA)
    assert shown.code == 0, shown.err
    assert "Subject: Welcome, Ada!\n" in shown.out
    assert "To: recipient@example.com\n" in shown.out
    assert "Auto-Submitted: auto-generated\n" in shown.out
    assert "attached: logo.png (image/png, 4 bytes, shown as cid:logo)\n" in shown.out
    assert "Hello Ada" in shown.out
    assert "List-Unsubscribe" not in shown.out
    assert not (folder / "notifier.db").exists()
    (folder / "data.json").write_text(DATA)
    for given in ("data.json", "@data.json"):
        shown = await run(folder, "preview", "welcome", "--data", given, "--locale", "fr_CA")
        assert "Bonjour Ada" in shown.out


async def test_a_category_shows_the_way_to_unsubscribe(folder: Path) -> None:
    """By a link that is made up: in the template, and in the headers that mail programs make a button of."""
    shown = await run(folder, "preview", "welcome", "--data", DATA, "--category", "news")
    assert "Hello Ada (https://notifier.example/unsubscribe/preview)" in shown.out
    assert "List-Unsubscribe: <https://notifier.example/unsubscribe/preview>\n" in shown.out


async def test_what_is_missing_is_named_with_file_and_line(folder: Path) -> None:
    """Of every part; nothing is written or sent, exit code 1."""
    done = await run(folder, "preview", "welcome", "--eml", "out.eml", "--send-to", "ada@example.com")
    assert (done.code, done.out) == (1, "")
    assert "✗ welcome/subject.txt, line 1: 'data.name' is undefined" in done.err
    assert "✗ welcome/body.html, line 1: 'data.name' is undefined" in done.err
    assert not (folder / "out.eml").exists()
    done = await run(folder, "preview", "welcome", "--json")
    problems = json.loads(done.out)["problems"]
    assert {(each["file"], each["line"], each["variable"]) for each in problems} == {
        (f"welcome/{name}", 1, "data.name") for name in ("subject.txt", "body.html", "body.txt")
    }


async def test_a_name_that_is_both_is_a_template_unless_it_is_said(folder: Path) -> None:
    """--event means the type; --template is refused where there is none; a type is no template."""
    both = await run(folder, "preview", "welcome", "--data", DATA)
    assert "Subject: " in both.out
    event = await run(folder, "preview", "welcome", "--data", DATA, "--event")
    assert "webhook → https://hooks.example/" in event.out
    other = await run(folder, "preview", "user.signup", "--data", DATA)
    assert "✓ user.signup by email" in other.out
    none = await run(folder, "preview", "user.signup", "--template")
    assert none.code == 1
    assert none.err.startswith("notifier: there is no template 'user.signup' in ")


async def test_a_webhooks_template_is_its_payload(folder: Path) -> None:
    """It makes no mail, and says so where one is asked for."""
    shown = await run(folder, "preview", "hook", "--data", '{"total": 7}')
    assert (shown.code, shown.out.splitlines()[1]) == (0, 'payload: {"total": 7}')
    asked = await run(folder, "preview", "hook", "--data", '{"total": 7}', "--eml", "out.eml")
    assert asked.code == 1
    assert "no subject" in asked.err


async def test_the_mail_is_written_as_it_would_be_sent(folder: Path, relay: SmtpServer) -> None:
    """To the byte: the file, and what the relay got."""
    args = ("preview", "welcome", "--data", DATA, "--eml", "out.eml", "--send-to", "Ada <ada@example.org>")
    done = await run(folder, *args)
    assert done.code == 0, done.err
    (sent,) = relay.mails
    assert (folder / "out.eml").read_bytes() == sent.content
    assert sent.recipients == ("ada@example.org",)
    assert "sent to Ada <ada@example.org>: " in done.out
    assert "answered 250 2.0.0 queued as 1" in done.out
    read = message_from_bytes(sent.content, policy=policy.default)
    assert read["Subject"] == "Welcome, Ada!"
    assert str(read["Message-ID"]).startswith("<test_")
    stdout = await run(folder, "preview", "welcome", "--data", DATA, "--eml", "-")
    assert stdout.out.startswith("From: Notifier <no-reply@example.com>\r\n")


async def test_what_the_relay_refuses_is_told_in_its_words(folder: Path, relay: SmtpServer) -> None:
    """With exit code 1; one that is away is named, too. Nothing is stored or tried again."""
    relay.script("rcpt", say(550, "5.1.1 no such user"))
    args = ("preview", "welcome", "--data", DATA, "--send-to", "gone@example.org")
    done = await run(folder, *args)
    assert done.code == 1
    assert "not sent to gone@example.org: " in done.err
    assert "5.1.1 no such user" in done.err
    relay.script("rcpt", say(550, "5.1.1 no such user"))
    told = json.loads((await run(folder, *args, "--json")).out)["sent"]
    assert (told["status_code"], told["error"]["message"] != "") == (550, True)
    assert relay.mails == []
    config = folder / "config.toml"
    config.write_text(config.read_text().replace(f"port = {relay.port}", f"port = {closed_port()}"))
    done = await run(folder, *args)
    assert done.code == 1
    assert "not sent to gone@example.org: relay_down: 127.0.0.1:" in done.err


def browser(folder: Path) -> dict[str, str]:
    """A browser that only writes down what it was to open."""
    script = folder / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" >> {folder}/opened\n')
    script.chmod(0o755)
    (folder / "tmp").mkdir(exist_ok=True)
    return {"BROWSER": str(script), "TMPDIR": str(folder / "tmp")}


async def test_html_and_text_are_opened_side_by_side(folder: Path) -> None:
    """In a page of its own; by itself nothing is opened where no terminal is."""
    env = browser(folder)
    await run(folder, "preview", "welcome", "--data", DATA, **env, DISPLAY=":0")
    assert not (folder / "opened").exists()
    done = await run(folder, "preview", "welcome", "--data", DATA, "--open", **env)
    assert done.code == 0, done.err
    opened = (folder / "opened").read_text().strip()
    (made,) = [file.read_text() for file in (folder / "tmp").glob("notifier-preview-*.html")]
    assert opened.startswith((folder / "tmp" / "notifier-preview-").as_uri())
    assert "&lt;p style=&quot;margin:0&quot;&gt;Hello Ada&lt;/p&gt;" in made
    assert "data:image/png;base64," in made
    assert "<pre>Hello Ada" in made


@pytest.mark.parametrize(
    ("args", "env", "opens"),
    [
        ((), {"DISPLAY": ":0"}, True),
        ((), {"DISPLAY": ":0", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, False),
        ((), {"DISPLAY": ""}, False),
        (("--no-open",), {"DISPLAY": ":0"}, False),
        (("--json",), {"DISPLAY": ":0"}, False),
        (("--eml", "out.eml"), {"DISPLAY": ":0"}, False),
    ],
)
async def test_a_terminal_with_a_display_opens_the_browser_by_itself(
    folder: Path, args: tuple[str, ...], env: dict[str, str], opens: bool
) -> None:
    """Unless something else is asked for, or the display is not where the person sits."""
    kept = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"}
    ours, theirs = pty.openpty()
    program = await asyncio.create_subprocess_exec(
        COMMAND,
        *("preview", "welcome", "--data", DATA, *args),
        cwd=folder,
        env={**kept, "WAYLAND_DISPLAY": "", **browser(folder), **env},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    await asyncio.to_thread(read_all, ours)
    assert await program.wait() == 0
    assert (folder / "opened").exists() is opens


def read_all(terminal: int) -> None:
    """Read a terminal until its program is gone."""
    while True:
        try:
            os.read(terminal, 65536)
        except OSError:
            os.close(terminal)
            return


# check --against-recent --------------------------------------------------------------------------


async def post(url: str, *events: dict[str, Any]) -> list[str]:
    """Post events; returns their ids."""
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/events", json=events) as response:
        assert response.status == 202
        return [each["id"] for each in await response.json()]


def signup(**data: Any) -> dict[str, Any]:
    """Someone signed up."""
    return {"type": "user.signup", "data": {"email": "ada@example.com", "name": "Ada"} | data}


async def test_templates_are_tried_on_what_was_real(folder: Path, relay: SmtpServer) -> None:
    """From the running server, and once it has stopped from its store: the same breaks, told where from."""
    async with Program("serve", "--port", "0", cwd=folder) as server:
        url = await server.listening()
        first, second, french = await post(url, signup(), signup(plan="pro"), signup(locale="fr"))
        await relay.until(lambda: len(relay.mails) == 3)
        fine = await run(folder, "check", "--against-recent", "10", "--server", url)
        assert fine.code == 0, fine.out
        assert f"✓ replay: welcome (3 recent events, from the running server at {url}" in fine.out
        assert "✓ replay: hook (0 recent events" in fine.out
        write(folder, "welcome/body.txt", "Hello {{ data.name }}\n{{ data.plan }}")
        broken = ["check", "--against-recent", "10", "--template", "welcome"]
        asked = await run(folder, *broken, "--url", url, "--json")
        lines = await run(folder, *broken, "--url", url)
    kept = await run(folder, *broken, "--json")
    assert (asked.code, kept.code, lines.code) == (1, 1, 1)
    assert json.loads(asked.out)["breaks"] == json.loads(kept.out)["breaks"]
    (found,) = json.loads(kept.out)["breaks"]
    assert (found["template"], found["event_id"]) == ("welcome", first)
    assert (found["file"], found["line"], found["variable"]) == ("welcome/body.txt", 2, "data.plan")
    assert (
        f"✗ welcome/body.txt:2: 'data.plan' is undefined: welcome breaks for {first} (3 recent" in lines.out
    )
    assert "from the store sqlite:///notifier.db" in kept.out
    assert {second, french}.isdisjoint({found["event_id"]})


async def test_a_store_that_is_in_use_is_asked_for_by_its_server(folder: Path) -> None:
    """Where the server can't be found by the configuration, that is a finding with the way out."""
    config = folder / "config.toml"
    port = closed_port()
    config.write_text(f"[server]\nport = {port}\n{config.read_text()}")
    async with Program("serve", cwd=folder) as server:
        url = await server.listening()
        await post(url, signup())
        found = await run(folder, "check", "--offline", "--against-recent", "5")
        assert found.code == 0, found.out
        assert f"✓ replay: welcome (1 recent event, from the running server at {url}" in found.out
    async with Program("serve", "--port", "0", cwd=folder) as server:
        await server.listening()
        lost = await run(folder, "check", "--offline", "--against-recent", "5")
    assert lost.code == 1
    assert f"✗ recent events: no answer from http://127.0.0.1:{port}" in lost.out
    assert "or name another with --" in lost.out


async def test_only_the_last_n_count(folder: Path, relay: SmtpServer) -> None:
    """What broke long ago doesn't matter; a template that isn't there is a finding."""
    async with Program("serve", "--port", "0", cwd=folder) as server:
        url = await server.listening()
        await post(url, signup())
        await post(url, signup(plan="pro"), signup(plan="free"))
        await relay.until(lambda: len(relay.mails) == 3)
        write(folder, "welcome/body.txt", "{{ data.plan }}")
        asked = [await run(folder, "check", "--against-recent", n, "--url", url) for n in ("2", "3")]
    kept = [await run(folder, "check", "--against-recent", n) for n in ("2", "3")]
    assert [each.code for each in (*asked, *kept)] == [0, 1, 0, 1]
    gone = await run(folder, "check", "--against-recent", "1", "--template", "gone")
    assert gone.code == 1
    assert "✗ gone: there is no such template in " in gone.out
