"""`notifier verify` as a receiver's developer runs it: the installed command, on what a server delivered."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest
from support.program import COMMAND, Program
from support.receiver import Received, Receiver, answer

from notifier.channels.signing import new_secret, public_key

SHARED, PRIVATE = new_secret(), new_secret("v1a")
PUBLIC = public_key(PRIVATE) or ""
pytestmark = pytest.mark.slow


class Ended(NamedTuple):
    """How a run of the command ended."""

    code: int
    out: str
    err: str


async def verify(*args: str, stdin: bytes = b"", secret: str = "", folder: Path | None = None) -> Ended:
    """Run the command where there is neither a configuration nor a server."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "verify",
        *args,
        cwd=folder or Path("/"),
        env=environment | ({"NOTIFIER_VERIFY_SECRET": secret} if secret else {}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def delivered(tmp_path: Path) -> AsyncIterator[Received]:
    """What a receiver got of a running notifier, signed in both ways."""
    async with Receiver(answer()) as receiver:
        (tmp_path / "config.toml").write_text(
            f"""
            server.port = 0
            channels.webhook.allow_networks = ["127.0.0.0/8"]
            [[routes]]
            event = "*"
            channel = "webhook"
            url = "{receiver.url()}"
            secret = ["{SHARED}", "{PRIVATE}"]
            """
        )
        async with Program("serve", cwd=tmp_path) as program, aiohttp.ClientSession() as session:
            event = {"type": "order.paid", "data": {"total": 120, "name": "Ada Löve"}}
            async with session.post(f"{await program.listening()}/v1/events", json=event) as response:
                assert response.status == 202
            (only,) = await receiver.seen(1)
            yield only


def captured(request: Received, body: bytes | None = None) -> bytes:
    """Write a request down as it came over the wire, with another body if one is given."""
    head = [f"{request.method} {request.target} HTTP/1.1"]
    head += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + (request.body if body is None else body)


async def test_what_was_delivered_verifies(delivered: Received, tmp_path: Path) -> None:
    """From a file, from stdin, and in parts; with the shared secret, the public key, from the environment."""
    request, body = tmp_path / "request", tmp_path / "body"
    request.write_bytes(captured(delivered))
    body.write_bytes(delivered.body)
    headers = [f"--header={name}: {value}" for name, value in delivered.headers.items()]
    for run in (
        verify("request", secret=SHARED, folder=tmp_path),
        verify("-", "--secret", PUBLIC, stdin=captured(delivered)),
        verify(*headers, "--body", "body", secret=f"{SHARED} {PUBLIC}", folder=tmp_path),
    ):
        ended = await run
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.endswith("Verified: the signature is right.\n")
        assert "✓ content-length" in ended.out
        assert "✓ content-digest" in ended.out


async def test_what_is_wrong_is_told(delivered: Received) -> None:
    """A parser's JSON, another secret, a changed body, an old capture: each is told in its own words."""
    parsed = json.dumps(json.loads(delivered.body)).encode()
    cases: list[tuple[bytes, tuple[str, ...], str, str]] = [
        (parsed, (), SHARED, "the body was parsed as JSON and written anew"),
        (delivered.body + b"\n", (), PUBLIC, "a newline was added at the end of the body"),
        (delivered.body, (), new_secret(), "another secret signed it"),
        (delivered.body.replace(b"120", b"210"), (), SHARED, "the body was changed on its way"),
        (delivered.body, ("--now", "2020-01-01T00:00:00Z"), SHARED, "the signature is right, but the clock"),
    ]
    for body, options, secret, said in cases:
        ended = await verify("-", *options, stdin=captured(delivered, body), secret=secret)
        assert (ended.code, ended.err) == (1, "")
        assert f"Not verified: {said}" in ended.out
        assert secret.partition("_")[2] not in ended.out
        as_json = await verify("-", *options, "--json", stdin=captured(delivered, body), secret=secret)
        assert as_json.code == 1
        assert json.loads(as_json.out)["verdict"].startswith(said)


async def test_what_is_no_request_is_a_usage_error() -> None:
    """Exit code 2, one line on stderr, nothing on stdout."""
    for run in (verify("-", stdin=b"{}", secret=SHARED), verify("-", stdin=b"{}"), verify(secret=SHARED)):
        ended = await run
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("notifier verify: ")
        assert ended.err.count("\n") == 1
