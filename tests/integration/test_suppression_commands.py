"""`notifier suppressions` as an operator runs it: real processes against a real server."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.program import COMMAND, Program

pytestmark = pytest.mark.slow

CONFIG = """
[auth]
admin_keys = ["admin-key"]
[server]
port = 0
"""


class Console:
    """A running server, and commands that are told its address."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    async def run(self, *args: str, stdin: str = "") -> tuple[int, str, str]:
        """Run `notifier suppressions …`: its exit code, stdout and stderr."""
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            "suppressions",
            *args,
            *("--server", self.url, "--key", "admin-key"),
            cwd=self.folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def rows(self) -> list[list[str]]:
        """The list, without its times."""
        code, out, err = await self.run("list")
        assert code == 0, err
        cells = [line.split("\t") for line in out.splitlines()]
        return [[*row[:4], row[5]] for row in cells]


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    """A server that asks for a key, which the commands are told."""
    (tmp_path / "config.toml").write_text(CONFIG)
    async with Program("serve", cwd=tmp_path) as program:
        yield Console(tmp_path, await program.listening())


async def test_someone_is_suppressed_and_sent_to_again(console: Console) -> None:
    """Add, list, add again, drop; each says what it did."""
    code, out, _ = await console.run(
        "add", "Ada <Ada@example.com>", "bob@example.com", "--detail", "by phone"
    )
    assert (code, out) == (0, "ada@example.com  suppressed\nbob@example.com  suppressed\n")
    _, out, _ = await console.run("add", "ada@example.com", "--category", "news", "--reason", "complained")
    assert out == "ada@example.com  suppressed (of news alone)\n"
    _, out, _ = await console.run("add", "ada@example.com")
    assert out == "ada@example.com  was suppressed already\n"
    assert await console.rows() == [
        ["email", "ada@example.com", "news", "complained", ""],
        ["email", "bob@example.com", "", "manual", "by phone"],
        ["email", "ada@example.com", "", "manual", "by phone"],
    ]
    code, out, _ = await console.run("drop", "ADA@example.com", "--category", "news")
    assert (code, out) == (0, "ADA@example.com  is sent to again (of news alone)\n")
    code, _, err = await console.run("drop", "nobody@example.com")
    assert code == 1
    assert "There is no suppression 'nobody@example.com'" in err
    _, out, _ = await console.run("list", "--recipient", "ADA@example.com", "--json")
    (found,) = json.loads(out)["suppressions"]
    assert found["category"] is None


async def test_a_slip_of_the_pen_is_told(console: Console) -> None:
    """And nothing is added, of the others neither."""
    code, _, err = await console.run("add", "ada@example.com", "nobody")
    assert code == 1
    assert "/1/recipient: 'nobody' is no mail address" in err
    assert await console.rows() == []
    assert (await console.run("add"))[0] == 2
    assert (await console.run("add", "a@b.example", "--reason", "bored"))[0] == 2


@pytest.mark.parametrize("name", ["list.csv", "list.ndjson"])
async def test_what_was_exported_is_imported_again_as_it_was(console: Console, name: str) -> None:
    """With its reasons, categories, words and dates; a second run adds nothing."""
    await console.run("add", "=cmd!a0@example.com", "'bob@example.com", "--detail", '=1+1,"x"')
    await console.run("add", "ada@example.com", "--category", "news", "--reason", "unsubscribed")
    code, out, err = await console.run("export", "-o", name)
    assert (code, out) == (0, ""), err
    _, before, _ = await console.run("list", "--json")
    for each in json.loads(before)["suppressions"]:
        category = () if each["category"] is None else ("--category", each["category"])
        await console.run("drop", each["recipient"], *category)
    assert await console.rows() == []
    code, out, _ = await console.run("import", name)
    assert (code, out) == (0, "3 suppressions added, 0 known already, 0 refused\n")
    _, after, _ = await console.run("list", "--json")

    def in_order(text: str) -> list[str]:
        return sorted(map(str, json.loads(text)["suppressions"]))

    assert in_order(after) == in_order(before)
    _, out, _ = await console.run("import", name, "--json")
    assert json.loads(out) == {"added": 0, "known": 3, "refusals": []}


async def test_another_providers_list_is_taken(console: Console) -> None:
    """Its column of addresses is found by name; what it gives for a reason is kept as a detail."""
    (console.folder / "bounces.csv").write_text(
        "\ufeffEmail,Reason,Whatever\r\n"
        "Ada@example.com,550 5.1.1 unknown,x\r\n"
        '"Bob ""B"" <bob@example.com>",bounced,\r\n'
        "nobody,bounced,\r\n"
        ",,\r\n"
        "ada@example.com,bounced,\r\n"
    )
    code, out, err = await console.run("import", "bounces.csv", "--reason", "bounced")
    assert (code, out) == (1, "2 suppressions added, 1 known already, 1 refused\n")
    assert err.startswith("line 4: recipient: 'nobody' is no mail address")
    assert await console.rows() == [
        ["email", "bob@example.com", "", "bounced", ""],
        ["email", "ada@example.com", "", "bounced", "550 5.1.1 unknown"],
    ]


async def test_a_plain_list_is_taken_from_stdin(console: Console) -> None:
    """One address a line; in more than one call where it is long."""
    lines = "".join(f"{n}@example.com\n" for n in range(1100))
    code, out, _ = await console.run("import", "-", "--category", "news", stdin=f"\n{lines}a,b\nno one\n")
    assert (code, out) == (1, "1,100 suppressions added, 0 known already, 2 refused\n")
    code, out, _ = await console.run("export", "--json")
    assert [json.loads(line)["category"] for line in out.splitlines()] == ["news"] * 1100
    _, out, _ = await console.run("export", "--reason", "bounced")
    assert out.count("\n") == 1


async def test_lines_of_json_are_known_by_how_they_begin(console: Console) -> None:
    """Without a name that says so; what is no JSON is refused by its line."""
    text = '{"recipient":"a@b.example","reason":"complained","job_id":"x"}\n{oops\n\n{"category":"news"}\n'
    code, out, err = await console.run("import", "-", stdin=text)
    assert (code, out) == (1, "1 suppression added, 0 known already, 2 refused\n")
    assert [line.partition(":")[0] for line in err.splitlines()] == ["line 2", "line 4"]
    assert await console.rows() == [["email", "a@b.example", "", "complained", ""]]


async def test_what_can_not_be_read_or_written_is_told(console: Console) -> None:
    """A file that isn't there, one that is no text, a folder that isn't there."""
    (console.folder / "x.csv").write_bytes(b"\xff\xfe")
    for args in (("import", "gone.csv"), ("import", "x.csv"), ("export", "-o", "gone/x.csv")):
        code, _, err = await console.run(*args)
        assert code == 2
        assert err.count("\n") == 1
