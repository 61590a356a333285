"""`notifier bench` as a user runs it: a real server is measured, and nothing is left of it."""

import asyncio
import signal
import sys
from pathlib import Path

import aiohttp
import msgspec
import pytest
from support.program import COMMAND, Program
from support.receiver import Receiver, answer

from notifier.bench.report import Report
from notifier.bench.verdict import Limit

pytestmark = pytest.mark.slow

SHORT = ("bench", "--seconds", "1")
KEY = "the-admins-own-key"


def files(folder: Path) -> set[str]:
    """What is in a folder; what SQLite keeps beside a store that is open comes and goes."""
    return {path.name for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm"))}


def left_running(folder: Path) -> list[str]:
    """Processes that work in a folder below this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = (process / "cwd").readlink()
        except OSError:  # it ended, or is someone else's
            continue
        if folder in where.parents:
            found.append(process.name)
    return found


async def test_it_measures_beside_a_running_server(tmp_path: Path) -> None:
    """The configured store, its server, receivers and relays are left alone; JSON has every figure."""
    async with Receiver(answer()) as receiver:
        (tmp_path / "config.toml").write_text(
            f"""
            [server]
            port = 0
            [auth]
            admin_keys = ["{KEY}"]
            [workers]
            concurrency = 16
            [channels.webhook]
            allow_networks = ["127.0.0.0/8"]
            [[channels.email.relays]]
            host = "127.0.0.1"
            port = {receiver.port}
            username = "u"
            password = "${{NOBODY_SET_THIS}}"
            [[routes]]
            event = "*"
            channel = "webhook"
            url = "{receiver.url()}"
            """
        )
        async with Program("serve", cwd=tmp_path, env={"NOBODY_SET_THIS": "p"}) as server:
            url = await server.listening()
            before = files(tmp_path)
            async with Program(*SHORT, "--json", cwd=tmp_path) as program:
                out = await program.output()
                assert await program.ended() == 0, program.lines
            assert files(tmp_path) == before
            assert not left_running(tmp_path)
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as session:
                async with session.get(f"{url}/readyz") as response:
                    assert response.status == 200
                async with session.get(f"{url}/v1/admin/jobs") as response:
                    assert (await response.json())["jobs"] == []
        assert not receiver.requests
    assert program.lines[0] == "not set, so made up for now: NOBODY_SET_THIS"
    assert program.lines[1] == "measuring: syncs of the disk"
    assert KEY not in out + "\n".join(program.lines)
    check(msgspec.json.decode(out, type=Report), tmp_path)


def check(report: Report, folder: Path) -> None:
    """Hold that the figures hang together."""
    assert report.machine.folder == str(folder)
    assert 0 < report.fsync.p50_ms <= report.fsync.p99_ms
    accept = report.accept
    for rate in (report.commit.rate, report.commits_at_once.rate, accept.rate, accept.array_rate):
        assert 0 <= rate.least <= rate.median <= rate.most
    assert report.commits_at_once.rate.median > report.commit.rate.median
    assert accept.latency.count > 0
    assert [each.channel for each in report.deliver] == ["webhook", "email"]
    assert [each.places for each in report.deliver] == [16, 10]
    assert [each.places_are for each in report.deliver] == [Limit.WORKERS, Limit.CONNECTIONS]
    for each in report.deliver:
        assert each.rate.median > 0
        assert each.latency.count > 0
        assert each.limit.because
    if sys.platform == "linux":
        assert accept.cpu_us
    at_most = {(each.channel, each.takes_ms): each.at_most for each in report.receivers}
    assert at_most["webhook", 1000] == min(16.0, report.deliver[0].rate.median)


async def test_it_tells_what_it_found_in_words(tmp_path: Path) -> None:
    """Without a relay nothing is told of mails; the limits and the arithmetic are."""
    (tmp_path / "config.toml").write_text("[workers]\nconcurrency = 2\n")
    async with Program(*SHORT, cwd=tmp_path) as program:
        out = await program.output()
        assert await program.ended() == 0, program.lines
    assert all(line.startswith("measuring: ") for line in program.lines)
    assert "events accepted\t" in out
    assert "webhooks delivered\t" in out
    assert "mails" not in out
    assert "What limits\n  accepting: " in out
    assert "2 a second at 1,000 ms (workers.concurrency = 2)" in out
    assert files(tmp_path) == {"config.toml"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_broken_off_it_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """The folder is as it was, the measured server is gone, and there is no traceback."""
    (tmp_path / "config.toml").write_text("")
    async with Program("bench", "--seconds", "10", cwd=tmp_path) as program:
        await program.line("measuring: syncs")
        assert len(files(tmp_path)) > 1
        if number is signal.SIGTERM:  # the other way out, with a server running
            await program.line("measuring: accepting, flat out")
            assert left_running(tmp_path)
        program.signal(number)
        assert await program.ended() == 130
    assert all(line.startswith("measuring: ") for line in program.lines if line)
    assert files(tmp_path) == {"config.toml"}
    assert not left_running(tmp_path)


async def test_a_disk_that_is_full_is_one_clear_line(tmp_path: Path) -> None:
    """Exit code 1, the folder named, nothing left behind; a limit on files' sizes stands in for the disk."""
    (tmp_path / "config.toml").write_text("")
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'ulimit -f 128; exec "$@"', "sh", COMMAND, *SHORT),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 1
    assert out == b""
    assert err.decode().splitlines()[-1].startswith(f"notifier: {tmp_path}: can't be measured: ")
    assert files(tmp_path) == {"config.toml"}
