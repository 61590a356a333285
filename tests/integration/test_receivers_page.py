"""`docs/receivers.md`: every example on it runs here, takes what we sign, and refuses what was changed."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner
from support.deliveries import PRIVATE, SECRET, delivery

from notifier.channels.signing import new_secret, public_key
from notifier.cli import main
from notifier.config import Config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "receivers.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
NODE = shutil.which("node")
NODE_MODULES = Path(sys.prefix) / "node_modules"
"""Where `.ci/setup test` puts what npm has."""
PUBLIC = public_key(PRIVATE) or ""
KEYS = {"WEBHOOK_SECRET": SECRET, "WEBHOOK_PUBLIC_KEY": PUBLIC}

Headers = dict[str, str]


def blocks(language: str) -> list[str]:
    """The examples in a language, in the order of the page."""
    return [text for kind, text in BLOCKS if kind == language]


def examples(language: str) -> list[Any]:
    """The examples in a language, as parameters."""
    return [pytest.param(text, id=f"{language}-{number}") for number, text in enumerate(blocks(language), 1)]


class Case(NamedTuple):
    """A request, and whether it is as it was sent."""

    name: str
    headers: Headers
    body: bytes
    good: bool


def cases() -> Iterator[Case]:
    """Requests signed for this moment by one key, or by several in a rotation; and what may become of one."""
    now = time.time()
    for name, secrets in {
        "alone": (SECRET, PRIVATE),
        "old": (new_secret(), new_secret("v1a"), SECRET, PRIVATE),
        "new": (PRIVATE, SECRET, new_secret("v1a"), new_secret()),
    }.items():
        sent = delivery(*secrets, data='{"name": "Ada Löve", "total": 120.0}', now=now)
        yield Case(name, sent.headers, sent.body, good=True)
        yield from _changed(name, sent.headers, sent.body)
    other = delivery(new_secret(), new_secret("v1a"), now=now)
    yield Case("of others", other.headers, other.body, good=False)
    for off in (-400, 400):
        sent = delivery(SECRET, PRIVATE, now=now + off)
        yield Case(f"clock {off}", sent.headers, sent.body, good=False)


def _changed(name: str, headers: Headers, body: bytes) -> Iterator[Case]:
    for what, other in {
        "cut": body[:-1],
        "grown": body + b"\n",
        "other": body.replace(b"120", b"121"),
    }.items():
        yield Case(f"{name}, body {what}", headers, other, good=False)
    later = str(int(headers["webhook-timestamp"]) + 1)
    for header, value in {
        "webhook-id": headers["webhook-id"] + "0",
        "webhook-timestamp": later,
        "webhook-signature": re.sub(r",(.)", _another_letter, headers["webhook-signature"]),
    }.items():
        yield Case(f"{name}, {header}", headers | {header: value}, body, good=False)


def _another_letter(found: re.Match[str]) -> str:
    """Change the first letter of a signature."""
    return ",B" if found[1] == "A" else ",A"


def lower(headers: Headers) -> Headers:
    """Header names as most frameworks give them."""
    return {name.lower(): value for name, value in headers.items()}


def test_the_page_has_an_example_for_everyone() -> None:
    """Three for Python and for JavaScript, two for openssl; no block is of a kind that nothing here runs."""
    kinds = [kind for kind, _ in BLOCKS]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "http": 1,
        "python": 3,
        "js": 3,
        "sh": 2,
        "console": 1,
    }


@pytest.mark.parametrize("example", examples("python"))
def test_python(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example returns the body of what we signed, and raises for what was changed."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    space: dict[str, Any] = {}
    exec(compile(example, "docs/receivers.md", "exec"), space)  # noqa: S102 - the page's own code
    receive: Callable[[Headers, bytes], object] = space["receive"]
    for case in cases():
        if case.good:
            assert receive(lower(case.headers), case.body) == json.loads(case.body), case.name
        else:
            with pytest.raises(Exception, match=r"(?i)signature|timestamp|clock"):
                receive(lower(case.headers), case.body)


DRIVER = """
import { readFileSync } from "node:fs";
import { receive } from "./receive.mjs";
const told = JSON.parse(readFileSync(0)).map(([headers, body]) => {
  try {
    return { read: receive(headers, Buffer.from(body, "base64")) };
  } catch (error) {
    return { error: `${error.message}` };
  }
});
console.log(JSON.stringify(told));
"""


@pytest.mark.parametrize("example", examples("js"))
def test_javascript(example: str, tmp_path: Path) -> None:
    """Each example returns the body of what we signed, and throws for what was changed."""
    if NODE is None:
        pytest.skip("there is no node on this machine: the JavaScript of docs/receivers.md was not run")
    if '"standardwebhooks"' in example:
        if not (NODE_MODULES / "standardwebhooks").is_dir():
            pytest.skip(f"npm's standardwebhooks is not in {NODE_MODULES}: its example was not run")
        (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "receive.mjs").write_text(example)
    (tmp_path / "driver.mjs").write_text(DRIVER)
    tried = list(cases())
    asked = [(lower(case.headers), b64encode(case.body).decode()) for case in tried]
    run = subprocess.run(  # noqa: S603 - the page's own code
        [NODE, "driver.mjs"],
        cwd=tmp_path,
        env=os.environ | KEYS,
        input=json.dumps(asked).encode(),
        capture_output=True,
        check=True,
    )
    for case, told in zip(tried, json.loads(run.stdout), strict=True):
        if case.good:
            assert told == {"read": json.loads(case.body)}, case.name
        else:
            assert re.search(r"(?i)signature|timestamp|clock", told["error"]), case.name


@pytest.mark.parametrize("example", examples("sh"))
def test_openssl(example: str, tmp_path: Path) -> None:
    """Each example says `verified` for what we signed, and exits with 1 for what was changed."""
    for case in cases():
        if case.name.startswith("clock"):
            continue  # which it leaves to its reader, as the page says
        (tmp_path / "body").write_bytes(case.body)
        told = {
            "ID": case.headers["webhook-id"],
            "TIMESTAMP": case.headers["webhook-timestamp"],
            "SIGNATURE": case.headers["webhook-signature"],
        }
        run = subprocess.run(  # noqa: S603 - the page's own code
            ["/bin/sh", "-eu", "-c", example],
            cwd=tmp_path,
            env=os.environ | KEYS | told,
            capture_output=True,
            check=False,
        )
        assert run.returncode == (0 if case.good else 1), (case.name, run.stderr)
        assert (b"verified\n" in run.stdout) is case.good


def test_the_delivery_on_the_page_verifies_as_it_says() -> None:
    """The request shown is one that we sign; with a newline at its end `notifier verify` says just that."""
    (request,), (console,) = blocks("http"), blocks("console")
    export, command, *output = console.splitlines()
    name, _, secret = export.removeprefix("$ export ").partition("=")
    _, *args = shlex.split(command.removeprefix("$ "))
    args = ["-" if arg == "request.txt" else arg for arg in args]
    runner = CliRunner(env={name: secret})
    saved = runner.invoke(main, args, input=request.encode())
    assert saved.exit_code == 1
    assert saved.output.splitlines() == output
    exact = runner.invoke(main, args, input=request.removesuffix("\n").encode())
    assert exact.exit_code == 0
    assert "✗" not in exact.output
    headers, body = request.partition("\n\n")[0], request.partition("\n\n")[2].removesuffix("\n")
    shown = dict(line.split(": ", 1) for line in headers.splitlines()[1:])
    sent = delivery(SECRET, PRIVATE).headers
    assert list(shown) == ["Host", *sent, "Content-Length"]
    constant = ("Content-Type", "User-Agent", "Accept")
    assert [shown[name] for name in constant] == [sent[name] for name in constant]
    assert list(json.loads(body)) == ["type", "timestamp", "data"]


def test_the_numbers_on_the_page_are_those_of_the_configuration() -> None:
    """Schedule, jitter, timeout, cap and the rest as they ship."""
    config = Config()
    webhook = config.channels.webhook
    units = {"s": 1, "min": 60, "h": 3600}
    found = re.search(r"comes in ((?:\d+ (?:s|min|h)(?:, | and )?)+), each ± (\d+) %; after the eighth", PAGE)
    assert found is not None
    delays = [float(number) * units[unit] for number, unit in re.findall(r"(\d+) (s|min|h)", found[1])]
    assert delays == list(config.retry.schedule)
    assert len(delays) + 1 == 8
    assert int(found[2]) / 100 == config.retry.jitter
    told = {
        f"within {webhook.timeout:.0f} seconds": True,
        "up to an hour": float(config.retry.retry_after_cap) == 3600,
        "for 5 days": float(webhook.disable_after) == 5 * 86400,
        "For a day": float(webhook.rotation_overlap) == 86400,
    }
    assert [words for words, true in told.items() if not true or words not in PAGE] == []


def test_the_readme_leads_to_the_page() -> None:
    """One line is enough."""
    assert "(docs/receivers.md)" in (ROOT / "README.md").read_text("utf-8")
