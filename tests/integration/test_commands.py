"""The installed command as a user runs it: real processes, real signals, real sockets on loopback."""

import asyncio
import json
import os
import pty
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.program import COMMAND, Program
from support.receiver import Line, Receiver, answer

from notifier.channels.signing import verify
from notifier.model import rfc3339

ADMIN, INGEST = "admin-key", "ingest-key"
pytestmark = pytest.mark.slow


def configure(folder: Path, receiver: Receiver, extra: str = "") -> Path:
    """Write a configuration with one webhook route to a receiver on loopback."""
    path = folder / "config.toml"
    path.write_text(
        f"""
        [auth]
        ingest_keys = ["{INGEST}"]
        admin_keys = ["{ADMIN}"]
        [server]
        port = 0
        [workers]
        drain_timeout = "20s"
        [retry]
        schedule = []
        [channels.webhook]
        allow_networks = ["127.0.0.0/8"]
        [[routes]]
        name = "hook"
        event = "order.*"
        when = "data.total > 100"
        channel = "webhook"
        url = "{receiver.url()}"
        {extra}
        """
    )
    return path


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver that takes everything."""
    async with Receiver(answer()) as made:
        yield made


@pytest.fixture
def config(tmp_path: Path, receiver: Receiver) -> Path:
    """A configuration that delivers to that receiver."""
    return configure(tmp_path, receiver)


@pytest.fixture
async def server(config: Path) -> AsyncIterator[Program]:
    """A server with that configuration, that listens."""
    async with Program("serve", cwd=config.parent) as made:
        await made.listening()
        yield made


async def run(*args: str, cwd: Path, stdin: bytes = b"", **env: str) -> tuple[int, str, str]:
    """Run a command to its end: its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *args,
        cwd=cwd,
        env=os.environ | env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def post(url: str, event: dict[str, Any]) -> aiohttp.ClientResponse:
    """Post one event."""
    headers = {"Authorization": f"Bearer {INGEST}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/v1/events", json=event) as response,
    ):
        await response.read()
        return response


# serve -------------------------------------------------------------------------------------------


async def test_it_says_where_it_listens_once_it_does(server: Program) -> None:
    """The line on stderr names the real port, and a request sent at that moment is answered."""
    url = await server.listening()
    assert not url.endswith(":0")
    async with aiohttp.ClientSession() as session, session.get(f"{url}/livez") as response:
        assert response.status == 200


async def test_options_override_the_configured_address(config: Path) -> None:
    """--host and --port win, and an IPv6 address stands in brackets."""
    async with Program("serve", "--host", "::1", "--port", "0", cwd=config.parent) as program:
        url = await program.listening()
        assert url.startswith("http://[::1]:")
        async with aiohttp.ClientSession() as session, session.get(f"{url}/livez") as response:
            assert response.status == 200


async def test_a_port_in_use_is_one_clear_line(config: Path) -> None:
    """Nothing is started, no traceback is shown, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = await run("serve", "--port", port, cwd=config.parent)
    assert code == 1
    assert out == ""
    assert err == (
        f"notifier: port {port} on 127.0.0.1 is in use: stop what listens there, "
        "or choose another with --port\n"
    )
    assert not (config.parent / "notifier.db").exists()


async def test_a_store_in_use_is_one_clear_line(server: Program, config: Path) -> None:
    """A second server on the same file is refused, with exit code 1."""
    await server.listening()
    code, _, err = await run("serve", cwd=config.parent)
    assert code == 1
    assert err.startswith("notifier: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_server_ends_at_the_first_signal(server: Program, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end it with exit code 0 and without a traceback."""
    server.signal(number)
    assert await server.ended() == 0
    assert "Traceback" not in "\n".join(server.lines)


async def test_a_drain_answers_503_and_finishes_what_is_in_flight(tmp_path: Path) -> None:
    """The listener stays up to say so, the delivery under way completes, then it ends with 0."""
    finish = asyncio.Event()

    async def answer_late(line: Line) -> None:
        await finish.wait()
        await answer()(line)

    async with (
        Receiver(answer_late) as receiver,
        Program("serve", "--config", str(configure(tmp_path, receiver)), cwd=tmp_path) as program,
    ):
        url = await program.listening()
        assert (await post(url, {"type": "order.paid", "data": {"total": 101}})).status == 202
        await receiver.seen(1)
        program.signal(signal.SIGTERM)
        await program.line('"event": "draining"')
        refused = await post(url, {"type": "order.paid", "data": {"total": 102}})
        assert refused.status == 503
        assert int(refused.headers["Retry-After"]) > 0
        finish.set()
        assert await program.ended() == 0
        assert len(receiver.requests) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A delivery that hangs is left to the next start."""
    async with (
        Receiver(Line.gone) as receiver,
        Program("serve", "--config", str(configure(tmp_path, receiver)), cwd=tmp_path) as program,
    ):
        url = await program.listening()
        await post(url, {"type": "order.paid", "data": {"total": 101}})
        await receiver.seen(1)
        program.signal(number)
        await program.line('"event": "draining"')
        assert (await post(url, {"type": "order.paid", "data": {}})).status == 503
        program.signal(number)
        assert await program.ended() == code


async def test_every_log_line_is_json_where_no_terminal_reads_it(server: Program) -> None:
    """Beside the line that says where it listens, a machine can read all of stderr."""
    await server.listening()
    server.signal(signal.SIGTERM)
    await server.ended()
    logged = [json.loads(line) for line in server.lines if not line.startswith("listening on ")]
    assert {"event", "level", "timestamp"} <= set(logged[0])


async def test_a_log_reader_that_went_away_stops_nothing(config: Path) -> None:
    """With stderr closed at the other end, it still drains and ends with 0."""
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(COMMAND, "serve", cwd=config.parent, stderr=writing)
    os.close(writing)
    with os.fdopen(reading) as stderr:
        said = await asyncio.to_thread(stderr.readline)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0, said
    assert said.startswith("listening on ")


# send --------------------------------------------------------------------------------------------


async def test_one_event_is_sent_and_its_jobs_are_told(server: Program, receiver: Receiver) -> None:
    """TYPE and --data make one event; the answer names its jobs."""
    url = await server.listening()
    here = server.cwd
    code, out, _ = await run("send", "order.paid", "--data", '{"total": 120}', "--url", url, cwd=here)
    assert code == 0
    assert "accepted, 1 job" in out
    assert f"webhook → {receiver.url()}" in out
    await receiver.seen(1)
    code, out, _ = await run("send", "user.left", "--url", url, "--json", cwd=here)
    assert code == 0
    assert json.loads(out)["jobs"] == []


async def test_what_the_server_refuses_is_told_in_one_line(server: Program) -> None:
    """The status and what was at fault as it was given, with exit code 1."""
    code, _, err = await run("send", "bad type", "--url", await server.listening(), cwd=server.cwd)
    assert code == 1
    assert err.startswith("notifier: the server answered 422: ")
    assert "TYPE: expected" in err
    assert err.count("\n") == 1


async def test_a_wrong_key_says_what_to_do(server: Program) -> None:
    """401 leads to --key; an ingest key is no admin key."""
    url = await server.listening()
    code, _, err = await run("send", "a", "--url", url, "--key", "wrong", cwd=server.cwd)
    assert code == 1
    assert "give a key with --key" in err
    code, _, err = await run("jobs", "list", "--url", url, cwd=server.cwd, NOTIFIER_KEY=INGEST)
    assert code == 1
    assert "give another key with --key" in err


def event_lines(count: int) -> str:
    """NDJSON of so many events that match the route."""
    return "".join(f'{{"type":"order.paid","data":{{"total":200,"n":{n}}}}}\n' for n in range(count))


async def test_a_file_is_sent_whole_and_again_without_harm(server: Program, receiver: Receiver) -> None:
    """Bad lines are named and stop no other; the second run causes nothing twice."""
    url, here = await server.listening(), server.cwd
    (here / "events.ndjson").write_text(f'nonsense\n{event_lines(1200)}{{"type":"a","data":1}}\n')
    args = ("send", "--file", "events.ndjson", "--url", url)
    code, out, err = await run(*args, cwd=here)
    assert code == 1
    assert out == "1,200 events accepted, 0 duplicates, 2 refused\n"
    first, second = err.splitlines()
    assert first.startswith("line 1: not a JSON object")
    assert second.startswith("line 1202: /data: expected")
    await receiver.seen(1200)
    code, out, err = await run(*args, "--json", cwd=here)
    assert code == 1
    *refused, totals = [json.loads(line) for line in out.splitlines()]
    assert totals == {"accepted": 0, "duplicates": 1200, "refused": 2}
    assert [refusal["line"] for refusal in refused] == [1, 1202]
    assert refused[1]["errors"][0]["pointer"] == "/data"


async def test_events_come_by_a_pipe(server: Program, receiver: Receiver) -> None:
    """`--file -` reads stdin."""
    url = await server.listening()
    code, out, _ = await run(
        "send", "--file", "-", "--url", url, cwd=server.cwd, stdin=event_lines(3).encode()
    )
    assert (code, out) == (0, "3 events accepted, 0 duplicates, 0 refused\n")
    await receiver.seen(3)


async def test_a_server_that_stays_away_ends_the_run(config: Path) -> None:
    """What was sent is summed up, and that a second run is safe is said."""
    args = ("send", "--file", "-", "--url", "http://127.0.0.1:1", "--retry-for", "0")
    code, out, err = await run(*args, cwd=config.parent, stdin=event_lines(1).encode())
    assert code == 1
    assert out == "0 events accepted, 0 duplicates, 0 refused\n"
    assert "run the same command again" in err
    assert "no answer from http://127.0.0.1:1" in err


async def test_ctrl_c_reaches_a_run_that_waits_for_input(server: Program) -> None:
    """A pipe that nobody writes to is left quietly: 130, what came of it summed up, no traceback."""
    url = await server.listening()
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *("send", "--file", "-", "--url", url),
        cwd=server.cwd,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(event_lines(1).encode())
    await process.stdin.drain()
    await until_accepted(url, 1)
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert process.returncode == 130
    # The server took it; whether its answer was in yet when the run was broken off, nobody knows.
    assert out in {f"{told} accepted, 0 duplicates, 0 refused\n".encode() for told in ("1 event", "0 events")}
    assert b"run the same command again" in err
    assert b"Traceback" not in err


async def until_accepted(url: str, count: int) -> None:
    """Wait until the server has so many jobs."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {ADMIN}"}) as session:
        while True:
            async with session.get(f"{url}/v1/admin/jobs") as response:
                if len((await response.json())["jobs"]) >= count:
                    return


# jobs --------------------------------------------------------------------------------------------


async def test_an_operator_finds_mends_and_requeues(tmp_path: Path) -> None:
    """Failures → list by cause → show → why → requeue by filter, then it is delivered."""
    async with (
        Receiver(answer(500, b"out of paper"), answer(500, b"out of paper"), answer()) as receiver,
        Program("serve", "--config", str(configure(tmp_path, receiver)), cwd=tmp_path) as program,
    ):
        there = ("--server", await program.listening())
        for total in (101, 102):
            await post(there[1], {"type": "order.paid", "data": {"total": total}})
        await receiver.seen(2)
        groups = await until(lambda: jobs(tmp_path, "failures", *there), lambda found: counted(found) == 2)
        cause = groups["failures"][0]["cause"]
        listed = (await jobs(tmp_path, "list", "--status", "failed", "--cause", cause, *there))["jobs"]
        assert len(listed) == 2
        assert (await jobs(tmp_path, "list", "--channel", "email", *there))["jobs"] == []
        assert len((await jobs(tmp_path, "list", "--created-after", "1h", *there))["jobs"]) == 2
        assert (await jobs(tmp_path, "list", "--created-before", "1h", *there))["jobs"] == []
        _, out, _ = await run("jobs", "failures", *there, cwd=tmp_path)
        assert out.rstrip("\n").split("\t")[-1] in {job["id"] for job in listed}
        job_id = listed[0]["id"]
        detail = await jobs(tmp_path, "show", job_id, *there)
        assert detail["attempts"][0]["response"] == "out of paper"
        assert (await jobs(tmp_path, "why", job_id, *there))["reason"] == "failed"
        counted_only = await jobs(tmp_path, "requeue", "--cause", cause, "--dry-run", *there)
        assert counted_only == {"matched": 2, "requeued": 0}
        assert await jobs(tmp_path, "requeue", "--cause", cause, *there) == {"matched": 2, "requeued": 2}
        await receiver.seen(4)
        await until(
            lambda: jobs(tmp_path, "list", "--status", "COMPLETED", *there),
            lambda found: len(found["jobs"]) == 2,
        )


def counted(found: Any) -> int:
    """How many jobs the failure groups hold."""
    return sum(group["count"] for group in found["failures"])


async def jobs(cwd: Path, *args: str) -> Any:
    """Run `notifier jobs … --json`."""
    code, out, err = await run("jobs", *args, "--json", cwd=cwd)
    assert code == 0, err
    return json.loads(out)


async def until(ask: Any, good: Any) -> Any:
    """Ask again until the answer is good."""
    while not good(found := await ask()):
        pass
    return found


async def test_the_secret_it_prints_verifies_what_is_delivered(server: Program, receiver: Receiver) -> None:
    """Where no route has a secret, receivers get theirs by `notifier secret`; it outlives a restart."""
    url, here = await server.listening(), server.cwd
    await post(url, {"type": "order.paid", "data": {"total": 101}})
    (delivered,) = await receiver.seen(1)
    code, out, _ = await run("secret", "--url", url, cwd=here)
    assert code == 0
    verify(delivered.headers, delivered.body, out.strip(), time.time())
    server.signal(signal.SIGTERM)
    await server.ended()
    async with Program("serve", cwd=here) as successor:
        again = await run("secret", "--url", await successor.listening(), cwd=here)
    assert again == (0, out, "")


async def test_named_jobs_are_requeued_and_cancelled_one_by_one(server: Program, receiver: Receiver) -> None:
    """Each is told with its new state; one that can't be is an error."""
    url, here = await server.listening(), server.cwd
    tomorrow = rfc3339(time.time() + 86400)
    event = {"type": "order.paid", "data": {"total": 101}, "deliver_at": tomorrow}
    await post(url, event)
    _, out, _ = await run("jobs", "list", "--url", url, cwd=here)
    job_id, status, *_ = out.splitlines()[0].split("\t")
    assert status == "PENDING"
    code, out, _ = await run("jobs", "cancel", job_id, "--url", url, cwd=here)
    assert (code, out) == (0, f"{job_id}  CANCELLED\n")
    code, _, err = await run("jobs", "cancel", job_id, "--url", url, cwd=here)
    assert code == 1
    assert "409" in err
    code, out, _ = await run("jobs", "requeue", job_id, "--url", url, cwd=here)
    assert (code, out) == (0, f"{job_id}  PENDING\n")
    await receiver.seen(1)
    code, out, _ = await run("jobs", "show", job_id, "--url", url, cwd=here)
    assert code == 0
    assert "attempts (" in out


async def test_a_reader_that_left_ends_a_list_quietly(server: Program) -> None:
    """`notifier jobs list | head -1` prints no traceback."""
    url, here = await server.listening(), server.cwd
    events = (json.dumps({"type": "order.paid", "data": {"total": 101}}) for _ in range(500))
    await run("send", "--file", "-", "--url", url, cwd=here, stdin="\n".join(events).encode())
    reading, writing = os.pipe()
    os.close(reading)
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *("jobs", "list", "--limit", "500", "--url", url),
        cwd=here,
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    _, err = await process.communicate()
    assert process.returncode == 141
    assert err == b""


# dev ---------------------------------------------------------------------------------------------


def configure_for_dev(folder: Path) -> None:
    """Write a configuration that asks for an environment nobody set, and a store with work in it."""
    (folder / "config.toml").write_text(
        """
        [auth]
        admin_keys = ["${UNSET_ADMIN_KEY}"]
        [store]
        url = "sqlite:///precious.db"
        [[channels.email.relays]]
        host = "mx.example.com"
        password = "${UNSET_PASSWORD}"
        username = "u"
        [[routes]]
        event = "*"
        channel = "webhook"
        url = "https://far.example.com/hooks"
        secret = "${UNSET_SECRET}"
        """
    )


@pytest.mark.parametrize(("signals", "codes"), [(1, {0}), (2, {130, 143})])
async def test_dev_needs_no_set_up_and_leaves_nothing_behind(
    tmp_path: Path, signals: int, codes: set[int]
) -> None:
    """No key, no environment, no reach; the configured store is not touched, its own is removed."""
    configure_for_dev(tmp_path)
    kept = tmp_path / "tmp"
    kept.mkdir()
    async with Program("dev", "--port", "0", cwd=tmp_path, env={"TMPDIR": str(kept)}) as program:
        url = await program.listening()
        assert await program.line("made up for now: UNSET_ADMIN_KEY, UNSET_PASSWORD, UNSET_SECRET")
        assert len(list(kept.iterdir())) == 1
        async with aiohttp.ClientSession() as session, aiohttp.ClientSession() as reader:
            async with reader.get(f"{url}/dashboard/inbox/stream") as stream:
                await stream.content.readuntil(b"\n\n")
                async with session.post(f"{url}/v1/events", json={"type": "a.b", "data": {}}) as response:
                    assert response.status == 202
                await stream.content.readuntil(b"\n\n")
            async with session.get(f"{url}/dashboard/inbox.json") as response:
                (caught,) = (await response.json())["messages"]
        assert caught["url"] == "https://far.example.com/hooks"
        assert caught["signature"] == {"verified": True, "problem": None}
        await send_signals(program, signals)
        assert await program.ended() in codes
    assert list(kept.iterdir()) == []
    assert not (tmp_path / "precious.db").exists()


async def send_signals(program: Program, count: int) -> None:
    """Ask it to stop, once or twice over."""
    if count == 1:
        program.signal(signal.SIGINT)
        return
    # Held still, it finds both when it goes on, in either order, and can't have ended in between.
    program.signal(signal.SIGSTOP)
    program.signal(signal.SIGINT)
    program.signal(signal.SIGTERM)
    program.signal(signal.SIGCONT)


async def test_dev_answers_no_other_host(tmp_path: Path) -> None:
    """A page that rebinds its name to this machine reads no Inbox."""
    configure_for_dev(tmp_path)
    async with Program("dev", "--port", "0", cwd=tmp_path) as program:
        url = await program.listening()
        headers = {"Host": "evil.example.com"}
        async with aiohttp.ClientSession() as session:
            for path in ("/dashboard/inbox", "/dashboard/inbox.json", "/v1/admin/jobs"):
                async with session.get(url + path, headers=headers) as response:
                    assert response.status == 403


# check and preview -------------------------------------------------------------------------------


async def test_check_is_content_with_a_configuration_in_order(config: Path) -> None:
    """Every part is named, exit code 0."""
    code, out, _ = await run("check", cwd=config.parent)
    assert code == 0
    assert [line[0] for line in out.splitlines()] == ["✓"] * len(out.splitlines())
    assert "store: sqlite:///notifier.db" in out


async def test_check_names_everything_that_is_wrong(tmp_path: Path, receiver: Receiver) -> None:
    """A broken template by file and line, a missing one by its route's key, a relay by its address."""
    route = '[[routes]]\nevent = "a"\nchannel = "email"\nto = "a@example.com"\ntemplate = "gone"\n'
    relay = '[[channels.email.relays]]\nhost = "127.0.0.1"\nport = 1\ntls = "none"\n'
    configure(tmp_path, receiver, route + relay)
    broken = tmp_path / "templates" / "broken"
    broken.mkdir(parents=True)
    (broken / "subject.txt").write_text("Hi\n{% if %}\n")
    code, out, _ = await run("check", "--json", cwd=tmp_path)
    assert code == 1
    wrong = {problem["where"]: problem["problem"] for problem in json.loads(out)["problems"]}
    assert any(where.endswith("broken/subject.txt:2") for where in wrong), wrong
    assert "there is no template 'gone'" in wrong["routes[1].template"]
    assert "127.0.0.1:1" in wrong
    code, out, _ = await run("check", "--offline", cwd=tmp_path)
    assert code == 1
    assert "127.0.0.1:1" not in out


async def test_check_names_mails_that_can_not_go_out_or_be_unsubscribed_from(
    tmp_path: Path, receiver: Receiver
) -> None:
    """They would wait for ever without a relay, and their recipients could do nothing about them."""
    route = '[[routes]]\nevent = "a"\nchannel = "email"\nto = "a@example.com"\ntemplate = "t"\n'
    configure(tmp_path, receiver, f'{route}category = "news"\n')
    code, out, _ = await run("check", "--offline", "--json", cwd=tmp_path)
    assert code == 1
    wrong = {problem["where"]: problem["problem"] for problem in json.loads(out)["problems"]}
    assert "there is no relay to send the mail of 1 route by" in wrong["channels.email.relays"]
    assert "server.public_url is not set" in wrong["routes[1].category"]


async def test_check_leaves_a_running_notifier_alone(server: Program) -> None:
    """A store in use by one that runs is in order, and said to be so."""
    await server.listening()
    code, out, _ = await run("check", cwd=server.cwd)
    assert code == 0
    assert "in use by a running notifier" in out


async def test_check_names_a_key_that_is_wrong(tmp_path: Path) -> None:
    """A configuration that can't be loaded is a finding, not a traceback."""
    (tmp_path / "config.toml").write_text("[server]\nport = 'x'\n")
    code, out, _ = await run("check", cwd=tmp_path)
    assert code == 1
    assert out.startswith("✗ server.port: ")


async def test_preview_shows_what_an_event_would_cause(config: Path, receiver: Receiver) -> None:
    """Routes with their reasons, and the signed request, without anything being sent."""
    code, out, _ = await run("preview", "order.paid", "--data", '{"total": 120}', cwd=config.parent)
    assert code == 0
    assert "✓ hook" in out
    assert f"\n\n── webhook → {receiver.url()}\n" in out
    assert "webhook-signature: v1," in out
    code, out, _ = await run(
        *("preview", "--file", "-", "--json"),
        cwd=config.parent,
        stdin=b'{"type":"order.paid","data":{"total":1}}',
    )
    shown = json.loads(out)
    assert shown["deliveries"] == []
    assert not shown["routes"][0]["matched"]
    assert receiver.requests == []
    assert not (config.parent / "notifier.db").exists()


async def test_a_terminal_gets_a_table_and_a_question(tmp_path: Path) -> None:
    """On a terminal `jobs list` has heads, and a requeue by filter asks before it changes anything."""
    async with (
        Receiver(answer(400)) as receiver,
        Program("serve", "--config", str(configure(tmp_path, receiver)), cwd=tmp_path) as program,
    ):
        url = await program.listening()
        await post(url, {"type": "order.paid", "data": {"total": 101}})
        await until(
            lambda: jobs(tmp_path, "list", "--status", "FAILED", "--url", url),
            lambda found: len(found["jobs"]) == 1,
        )
        listed = await on_a_terminal(tmp_path, "jobs", "list", "--url", url)
        assert "STATUS" in listed
        asked = await on_a_terminal(
            tmp_path, "jobs", "requeue", "--channel", "webhook", "--url", url, say="n\n"
        )
        assert "Requeue 1 FAILED job? [y/N]" in asked
        assert "nothing was changed" in asked
        assert len((await jobs(tmp_path, "list", "--status", "FAILED", "--url", url))["jobs"]) == 1


async def on_a_terminal(cwd: Path, *args: str, say: str = "") -> str:
    """Run a command on a terminal of its own; returns all that the terminal showed."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        *args,
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"COLUMNS": "160"},
    )
    os.close(theirs)
    os.write(ours, say.encode())
    shown = await asyncio.to_thread(read_all, ours)
    await process.wait()
    return shown


def read_all(terminal: int) -> str:
    """Read a terminal until its program is gone."""
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            os.close(terminal)
            return shown.decode()
