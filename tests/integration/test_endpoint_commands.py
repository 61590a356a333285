"""`notifier endpoints` and `preview --live` as a user runs them: real processes, on a terminal and off."""

import asyncio
import json
import os
import pty
import re
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from support.program import COMMAND, Program
from support.receiver import Receiver, answer

pytestmark = pytest.mark.slow


class Console:
    """A running server, and a folder whose configuration names its key; each command is told its url."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    async def run(self, *args: str, stdin: bytes = b"") -> tuple[int, str, str]:
        """Run a command to its end: its exit code, stdout and stderr."""
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            *args,
            *("--server", self.url),
            cwd=self.folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def json(self, *args: str) -> Any:
        """Run `notifier endpoints … --json`; return what it printed."""
        code, out, err = await self.run("endpoints", *args, "--json")
        assert code == 0, err
        return json.loads(out)

    async def on_a_terminal(self, *args: str, say: str) -> str:
        """Run a command on a terminal of its own, saying something; returns all that was shown."""
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            *args,
            *("--server", self.url),
            cwd=self.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"COLUMNS": "160"},
        )
        os.close(theirs)
        os.write(ours, say.encode())
        shown = await asyncio.to_thread(_read_all, ours)
        await process.wait()
        return shown


def _read_all(terminal: int) -> str:
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            os.close(terminal)
            return shown.decode()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that takes everything."""
    async with Receiver(answer(200, b"thanks")) as made:
        yield made


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    """A server that may deliver to this machine, and commands that know its key."""
    (tmp_path / "config.toml").write_text(
        """
        [auth]
        admin_keys = ["admin-key"]
        [server]
        port = 0
        [retry]
        schedule = []
        [channels.webhook]
        allow_networks = ["127.0.0.0/8"]
        [[routes]]
        event = "order.*"
        channel = "webhook"
        url = "https://127.0.0.1:1/"
        when = "false"
        """
    )
    async with Program("serve", cwd=tmp_path) as program:
        yield Console(tmp_path, await program.listening())


async def test_an_endpoint_lives_from_create_to_delete(console: Console, receiver: Receiver) -> None:
    """Create, list, show, update, pause, resume and delete, each in words that a person can read."""
    code, out, err = await console.run(
        *("endpoints", "create", receiver.url("/in?token=7"), "--event-type", "invoice.*"),
        *("--event-type", "order.paid", "--header", "X-Shop: one", "--header", "Authorization: Bearer 1"),
        *("--description", "the books", "--when", "data.total > 1", "--rate-limit", "50", "--tenant", "acme"),
    )
    assert code == 0
    fields = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert fields["secret"].startswith("whsec_")
    assert fields["event_types"] == '["invoice.*","order.paid"]'
    assert fields["headers"] == '{"X-Shop":"one","Authorization":"(hidden)"}'
    assert err == "the secret won't be shown again: give it to the receiver now\n"
    endpoint = fields["id"]

    code, out, _ = await console.run("endpoints", "list", "--tenant", "acme", "--state", "enabled")
    assert out.split("\t")[:4] == [endpoint, "enabled", "invoice.*, order.paid", receiver.url("/in?…")]
    code, out, _ = await console.run("endpoints", "show", endpoint)
    assert fields["secret"] not in out
    assert "pending          0" in out
    assert "headers " not in (await console.run("endpoints", "update", endpoint, "--clear", "headers"))[1]
    head = "FINGERPRINT\tSIGNATURE\tCREATED\tEXPIRES\tPUBLIC KEY"
    print_of = sha256(fields["secret"].encode()).hexdigest()[:8]
    assert f"secrets (1)\n{head}\n{print_of}\tv1\t" in out

    changed = await console.json(
        *("update", endpoint, "--url", receiver.url(), "--clear", "when", "--clear", "rate-limit"),
        *("--max-in-flight", "3"),
    )
    assert (changed["url"], changed["when"], changed["rate_limit"]) == (receiver.url(), None, None)
    assert (changed["tenant"], changed["max_in_flight"], changed["description"]) == ("acme", 3, "the books")

    _, out, _ = await console.run("endpoints", "pause", endpoint, "--reason", "moving house")
    assert out == f"{endpoint}  paused: paused by an operator: moving house\n"
    _, out, _ = await console.run("endpoints", "pause", endpoint)
    assert out == f"{endpoint}  paused already, nothing was changed: paused by an operator: moving house\n"
    await console.run("send", "invoice.paid", "--tenant", "acme")
    asked = await console.on_a_terminal("endpoints", "delete", endpoint, say="n\n")
    assert "1 job waits for it, to be cancelled. [y/N]" in asked
    assert "nothing was changed" in asked
    _, out, _ = await console.run("endpoints", "resume", endpoint)
    assert out == f"{endpoint}  enabled\n"
    _, out, _ = await console.run("endpoints", "resume", endpoint)
    assert out == f"{endpoint}  enabled already, nothing was changed\n"
    await receiver.seen(1)
    code, out, _ = await console.run("endpoints", "delete", endpoint)
    assert (code, out) == (0, f"{endpoint}  deleted, 0 jobs cancelled\n")
    code, _, err = await console.run("endpoints", "show", endpoint)
    assert (code, err) == (1, f"notifier: the server answered 404: There is no endpoint '{endpoint}'.\n")


async def test_a_rotation_prints_the_new_secret_once(console: Console, receiver: Receiver) -> None:
    """Both sign until the overlap is over; a secret may come from a file, out of others' sight."""
    made = await console.json("create", receiver.url(), "--event-type", "invoice.*")
    code, out, err = await console.run("endpoints", "rotate", made["id"], "--overlap", "2h")
    assert code == 0
    assert "secrets (2)\nFINGERPRINT\t" in out
    assert "won't be shown again" in err
    secret = dict(line.split(maxsplit=1) for line in out.splitlines()[:-5] if " " in line)["secret"]
    await console.run("send", "invoice.paid")
    (delivered,) = await receiver.seen(1)
    for each in (made["secret"], secret):
        Webhook(each).verify(delivered.body, delivered.headers)
    own = "whsec_" + "QUJD" * 8
    (console.folder / "secret").write_text(f"{own}\n")
    assert (await console.json("rotate", made["id"], "--secret", "@secret"))["secret"] == own
    assert (await console.json("rotate", made["id"], "--signature", "v1a"))["public_key"].startswith("whpk_")


async def test_of_a_key_pair_the_receiver_is_to_get_the_public_half(console: Console) -> None:
    """The words by the secret must not send a private key to anyone."""
    code, out, err = await console.run(
        "endpoints", "create", "https://acme.example/", "--event-type", "a", "--signature", "v1a"
    )
    assert code == 0
    assert "public_key       whpk_" in out
    assert "give public_key, and never the secret, to the receiver" in err


async def test_a_test_shows_the_exchange(console: Console) -> None:
    """The request, the answer, what came of it and where the time went; exit code 1 where it failed."""
    async with Receiver(answer(200, b"thanks"), answer(500, b"\x1b[2Jno")) as receiver:
        made = await console.json("create", receiver.url(), "--event-type", "a")
        code, out, _ = await console.run("endpoints", "test", made["id"], "--data", '{"n": 1.50}')
        assert code == 0
        assert out.startswith(f"POST {receiver.url()}\n")
        assert "webhook-signature: v1," in out
        assert '"type":"notifier.test"' in out
        assert "answered 200" in out
        assert "delivered\n" in out
        assert "B received" in out
        code, out, _ = await console.run("endpoints", "test", made["id"], "--type", "a.b")
        assert code == 1
        assert '"type":"a.b"' in out
        assert "failed: http_500: " in out
        assert "\\x1b[2Jno" in out


async def test_what_an_endpoint_did_not_get_is_requeued(console: Console) -> None:
    """`--since` an age or a time; a terminal is asked first; the attempts of a job tell their timings."""
    async with Receiver(answer(500), answer()) as receiver:
        made = await console.json("create", receiver.url(), "--event-type", "invoice.*")
        await console.run("send", "invoice.paid")
        await receiver.seen(1)
        counted = {"matched": 0, "requeued": 0}
        while not counted["matched"]:
            counted = await console.json("requeue", made["id"], "--since", "1h", "--dry-run")
        asked = await console.on_a_terminal("endpoints", "requeue", made["id"], "--since", "1h", say="n\n")
        assert "Requeue 1 FAILED job? [y/N]" in asked
        assert "nothing was changed" in asked
        canary = await console.run("endpoints", "requeue", made["id"], "--since", "0s", "--canary")
        assert canary == (0, "0 of 0 requeued\n", "")
        since = "2020-01-01T00:00:00Z"
        code, out, _ = await console.run("endpoints", "requeue", made["id"], "--since", since)
        assert (code, out) == (0, "1 of 1 requeued\n")
        await receiver.seen(2)
    _, out, _ = await console.run("jobs", "list", "--endpoint", made["id"])
    job_id = out.split("\t")[0]
    _, out, _ = await console.run("jobs", "show", job_id)
    assert "\nNO\tSTARTED\tTOOK\tOUTCOME\tCODE\tVIA\tSAID\n1\t" in out
    first = out.partition("\ntimings\nNO\tSPENT\n1\t")[2].partition("\n")[0]
    assert re.fullmatch(
        r".*connect [\d.]+ ms, wait [\d.]+ ms, body [\d.]+ ms; \d+ B sent, 0 B received", first
    ), out
    code, _, err = await console.run("endpoints", "requeue", made["id"], "--since", "yesterday")
    assert (code, "'--since': expected a time such as" in err) == (2, True)


async def test_a_refusal_names_the_option_that_was_at_fault(console: Console) -> None:
    """Not the body that was made of it, nor its pointer alone."""
    made = await console.json("create", "https://acme.example/", "--event-type", "a")
    for args, said in (
        (("rotate", made["id"], "--overlap", "24"), '--overlap: expected a duration such as "90s"'),
        (("update", made["id"], "--url", "nowhere"), "--url: "),
        (
            ("update", made["id"], "--event-type", "a b"),
            "--event-type (/event_types/0): expected an event type",
        ),
        (("create", "nowhere", "--event-type", "a"), "URL: "),
        (("test", made["id"], "--type", "a b"), "--type: expected 1 to 128 of"),
        (("list", "--limit", "0"), "--limit: expected a whole number, at least 1"),
        (("list", "--cursor", "x"), "--cursor: is no next_cursor"),
    ):
        code, out, err = await console.run("endpoints", *args)
        assert (code, out) == (1, "")
        assert err.startswith(f"notifier: the server answered 422: {said}")


async def test_a_key_goes_to_no_other_server(tmp_path: Path) -> None:
    """The configuration's is for its own; another gets one that is given to it, and the way is told."""
    async with Receiver(answer(401, b"{}"), answer(401, b"{}")) as other:
        (tmp_path / "config.toml").write_text('[auth]\nadmin_keys = ["admin-key"]\n')
        console = Console(tmp_path, other.url("").rstrip("/"))
        code, _, err = await console.run("endpoints", "update", "ep_1", "--description", "x")
        assert code == 1
        assert "the key in config.toml is for http://127.0.0.1:8080 alone: give this server's" in err
        await console.run("endpoints", "list", "--key", "given")
    assert [each.headers.get("authorization") for each in other.requests] == [None, "Bearer given"]


async def test_a_preview_of_the_server_knows_its_endpoints(console: Console, receiver: Receiver) -> None:
    """Endpoints' verdicts beside the routes', and the signed request that would go out; nothing does."""
    made = await console.json("create", receiver.url(), "--event-type", "invoice.*")
    other = await console.json("create", receiver.url(), "--event-type", "user.*")
    code, out, err = await console.run("preview", "invoice.paid")
    assert (code, err) == (0, "")
    assert f"✓ {made['id']}: " in out
    assert f"✗ {other['id']}: " in out
    assert f"── webhook → {receiver.url()}" in out
    assert "webhook-signature: v1," in out
    assert receiver.requests == []
