"""How commands reach a server: by which address, and with whose key."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from notifier.cli import main
from notifier.cli.client import Pointed, Problem, RefusedError, Server, UnreachableError

KEYS = '[auth]\ningest_keys = ["in"]\nadmin_keys = ["ad"]\n'


def key_for(folder: Path, url: str, config: str = KEYS) -> str | None:
    """The key that a server at an address is sent, as the configuration alone has it."""
    path = folder / "config.toml"
    path.write_text(config)
    return Server(path, url, None).client("admin")._headers.get("Authorization")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8080", "http://localhost:8080/", "http://[::1]:8080", "https://notifier.example"],
)
def test_a_configured_key_goes_to_the_configured_server(tmp_path: Path, url: str) -> None:
    """By any name of this machine, or by its public one."""
    config = f'{KEYS}[server]\npublic_url = "https://notifier.example"\n'
    assert key_for(tmp_path, url, config) == "Bearer ad"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9090",
        "https://127.0.0.1:8080",
        "http://127.0.0.1",
        "http://127.0.0.1.example:8080",
        "https://receiver.example/hooks",
    ],
)
def test_a_configured_key_goes_to_nobody_else(tmp_path: Path, url: str) -> None:
    """Another port, scheme or host is another server, which may be anyone's."""
    assert key_for(tmp_path, url) is None


def test_where_the_port_is_left_open_any_is_its_own(tmp_path: Path) -> None:
    """With port 0 only the host says which server it is."""
    config = f"{KEYS}[server]\nport = 0\n"
    assert key_for(tmp_path, "http://127.0.0.1:41234", config) == "Bearer ad"
    assert key_for(tmp_path, "http://receiver.example:41234", config) is None


def test_a_key_that_was_not_sent_is_told_of(tmp_path: Path) -> None:
    """Only where the server asks for one."""
    path = tmp_path / "config.toml"
    path.write_text(KEYS)
    unkeyed = Server(path, "http://other.example", None).client("admin")._unkeyed
    assert unkeyed is not None
    assert "is for http://127.0.0.1:8080 alone: give this server's with --key or NOTIFIER_KEY" in unkeyed
    assert str(RefusedError(401, Problem("Unauthorized"), unkeyed=unkeyed)).endswith(unkeyed)
    assert unkeyed not in str(RefusedError(404, Problem("Not Found"), unkeyed=unkeyed))


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Name every command of a group."""
    return [(*path, name) for name, each in group.commands.items() if not isinstance(each, click.Group)]


ENDPOINTS, JOBS = main.commands["endpoints"], main.commands["jobs"]
assert isinstance(ENDPOINTS, click.Group)
assert isinstance(JOBS, click.Group)


@pytest.mark.parametrize(
    "path",
    [*commands(ENDPOINTS, ("endpoints",)), *commands(JOBS, ("jobs",)), ("send",), ("secret",)],
    ids=" ".join,
)
def test_the_server_is_named_alike_everywhere(path: tuple[str, ...]) -> None:
    """`--server`; and where an endpoint has a url of its own, `--url` is never the server's."""
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    (server,) = [each for each in command.params if "--server" in each.opts]
    assert ("--url" in server.opts) == (path[0] != "endpoints")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1", "localhost:1"])
def test_an_address_may_lack_its_scheme(address: str) -> None:
    """It is http, then."""
    result = CliRunner().invoke(main, ["jobs", "list", "--server", address, "--key", "k"])
    assert result.exit_code == 1
    assert "no answer from http://" in result.stderr


@pytest.mark.parametrize("address", ["ftp://a.example", "http://", "http://a:b:c", "http://a:99999"])
def test_what_can_be_no_address_is_a_usage_error(address: str) -> None:
    """Exit code 2, and what one looks like."""
    result = CliRunner().invoke(main, ["jobs", "list", "--server", address])
    assert result.exit_code == 2
    assert "is no address: expected something like http://127.0.0.1:8080" in result.stderr


@pytest.mark.parametrize("option", ["--created-after", "--created-before"])
@pytest.mark.parametrize("moment", ["yesterday", "2h ago", "2026-01-31", "2026-01-31T12:00:00"])
def test_what_is_no_time_names_its_option(option: str, moment: str) -> None:
    """Before any server is asked."""
    result = CliRunner().invoke(main, ["jobs", "list", option, moment, "--server", "127.0.0.1:1"])
    assert result.exit_code == 2
    assert f"'{option}': expected a time such as" in result.stderr


@pytest.mark.parametrize("moment", ["2h", "1.5d", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00+01:00"])
def test_a_time_may_be_an_age(moment: str) -> None:
    """Of hours, days and the like, or RFC 3339."""
    result = CliRunner().invoke(main, ["jobs", "list", "--created-after", moment, "--server", "127.0.0.1:1"])
    assert "no answer from" in result.stderr


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("[1]", "expected an object, got an array"),
        ("{", "JSON is malformed: it ends too early"),
        ("", "is empty: expected a JSON object"),
    ],
)
def test_data_that_is_no_object_is_told_in_words_for_people(data: str, said: str) -> None:
    """As the server would tell it."""
    result = CliRunner().invoke(main, ["send", "a", "--data", "@-"], input=data)
    assert result.exit_code == 2
    assert f"--data is not a JSON object: {said} (see" in result.stderr


def test_a_fault_of_a_query_names_its_parameter() -> None:
    """Outside of a command there are no options to name."""
    fault = Pointed(detail="expected a whole number", parameter="limit")
    assert str(RefusedError(422, Problem(detail="no", errors=[fault]))) == (
        "the server answered 422: the parameter limit: expected a whole number"
    )


def test_who_does_not_answer_is_named() -> None:
    """With both ways to go on."""
    assert "or name another with --server" in str(UnreachableError("http://a", "refused"))
