"""The commands' manners: help, usage errors, exit codes, and what they print of hostile texts."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from notifier.cli import main
from notifier.cli.client import Problem, RefusedError, Server, address
from notifier.cli.program import printable
from notifier.cli.send import event_text
from notifier.cli.tables import timings_line
from notifier.errors import ConfigError


def run(*args: str, stdin: bytes | None = None) -> Result:
    """Run a command with a clean environment."""
    return CliRunner(env={"NOTIFIER_CONFIG": None, "NOTIFIER_KEY": None}).invoke(main, args, input=stdin)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Name every command, groups' own too."""
    found = []
    for name, command in group.commands.items():
        found.append((*path, name))
        found += commands(command, (*path, name)) if isinstance(command, click.Group) else []
    return found


GROUPS = {("jobs",), ("endpoints",), ("suppressions",)}


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    """`--help` exits 0 and tells what each command is for; all take `--config` but groups and `verify`."""
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert f"Usage: notifier {' '.join(path)}" in result.output
    assert "--config" in result.output or path in GROUPS | {("verify",)}


def test_the_version_is_told() -> None:
    """`--version` prints the name and the version of the installed package."""
    result = run("--version")
    assert result.exit_code == 0
    assert result.output.startswith("notifier ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("nope",), "No such command 'nope'"),
        (("serve", "--nope"), "No such option"),
        (("serve", "--port", "70000"), "'--port'"),
        (("send",), "give either a TYPE or --file"),
        (("send", "a", "--file", "b"), "give either a TYPE or --file"),
        (("send", "--file", "f", "--tenant", "t"), "--tenant goes with a TYPE"),
        (("send", "a", "--data", "{"), "--data is not a JSON object"),
        (("send", "a", "--data", "[1]"), "--data is not a JSON object"),
        (("send", "a", "--data", "@/nowhere"), "/nowhere: No such file"),
        (("preview",), "give either a TEMPLATE, a TYPE or --file"),
        (("preview", "welcome", "--file", "f"), "give either a TEMPLATE, a TYPE or --file"),
        (("preview", "welcome", "--template", "--event"), "--template goes with none of --event"),
        (("preview", "welcome", "--template", "--live"), "--template goes with none of --event"),
        (("preview", "no.template", "--eml", "f"), "--eml goes with a template, which 'no.template' is not"),
        (("preview", "welcome", "--event", "--no-open"), "--open goes with a template"),
        (("preview", "welcome", "--data", "/nowhere"), "'/nowhere' is neither a JSON object nor a file"),
        (("preview", "welcome", "--data", "x" * 5000), "is neither a JSON object nor a file"),
        (("preview", "welcome", "--data", "@/nowhere"), "/nowhere: No such file"),
        (("preview", "welcome", "--send-to", "nobody"), "--send-to: 'nobody' is no mail address"),
        (("check", "--template", "welcome"), "--template goes with --against-recent"),
        (("check", "--url", "http://a"), "--server goes with --against-recent"),
        (("check", "--against-recent", "0"), "0 is not in the range"),
        (("preview", "--file", "/nowhere"), "/nowhere: No such file"),
        (("preview", "a", "--data", "[1]"), "--data is not a JSON object"),
        (("jobs", "show"), "Missing argument 'JOB'"),
        (("jobs", "list", "--status", "lost"), "'lost' is not one of"),
        (("jobs", "requeue"), "name each JOB, or say which"),
        (("jobs", "requeue", "job_1", "--cause", "x"), "name each JOB, or say which"),
        (("jobs", "requeue", "job_1", "--dry-run"), "--canary and --dry-run go with a filter"),
        (("endpoints", "create", "https://a.example"), "say which events it gets with --event-type"),
        (("endpoints", "create", "u", "--event-type", "*", "--header", "X"), "--header 'X' is no header"),
        (("endpoints", "create", "u", "--event-type", "*", "--secret", "@/nowhere"), "No such file"),
        (("endpoints", "update", "ep_1"), "say what to change"),
        (("endpoints", "update", "ep_1", "--when", "1", "--clear", "when"), "when is both set and cleared"),
        (("endpoints", "update", "ep_1", "--clear", "url"), "'url' is not one of"),
        (("endpoints", "test", "ep_1", "--data", "[1]"), "--data is not a JSON object"),
        (("endpoints", "requeue", "ep_1"), "Missing option '--since'"),
        (("endpoints", "requeue", "ep_1", "--since", "1h", "--status", "PROCESSING"), "is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_usage_error_is_one_line_and_exit_code_2(args: tuple[str, ...], said: str) -> None:
    """What is wrong and where the help is, on one line of stderr, and nothing on stdout."""
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert "--help`)" in result.stderr
    assert result.stderr.count("\n") == 1


def test_no_command_at_all_shows_the_help() -> None:
    """`notifier` alone is a usage error that shows what there is."""
    result = run()
    assert result.exit_code == 2
    assert "serve" in result.stderr


def test_a_missing_configuration_says_how_to_name_one() -> None:
    """A file that isn't there is one line with the way out, and exit code 1."""
    result = run("serve", "--config", "/nowhere/config.toml")
    assert result.exit_code == 1
    assert result.stderr.startswith("notifier: /nowhere/config.toml: no such file")
    assert "--config" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_configuration_error_names_its_key(tmp_path: Path) -> None:
    """A bad key stops the command with `notifier: KEY: problem`."""
    config = tmp_path / "config.toml"
    config.write_text("[server]\nprot = 1\n")
    result = run("serve", "--config", str(config))
    assert result.exit_code == 1
    assert result.stderr == "notifier: server.prot: unknown key; did you mean 'port'?\n"


def test_the_configuration_can_be_named_by_the_environment(tmp_path: Path) -> None:
    """NOTIFIER_CONFIG stands in for --config."""
    config = tmp_path / "other.toml"
    config.write_text("server = 1")
    result = CliRunner(env={"NOTIFIER_CONFIG": str(config)}).invoke(main, ["serve"])
    assert result.exit_code == 1
    assert result.stderr.startswith("notifier: server: ")


def test_serving_others_without_keys_is_refused(tmp_path: Path) -> None:
    """--host can't open what the configuration would not be allowed to."""
    config = tmp_path / "config.toml"
    config.write_text("")
    result = run("serve", "--config", str(config), "--host", "0.0.0.0")  # noqa: S104 - refused
    assert result.exit_code == 1
    assert "'0.0.0.0' is not loopback" in result.stderr


def test_a_server_that_is_away_is_named_with_what_to_do() -> None:
    """One line: the url, the reason, and how to go on; exit code 1."""
    result = run("jobs", "list", "--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stderr == (
        "notifier: no answer from http://127.0.0.1:1 (connection refused): "
        "start it with `notifier serve`, or name another with --server\n"
    )


@pytest.mark.parametrize("how", [("--live",), ("--server", "http://127.0.0.1:1")])
def test_a_preview_asks_the_server_where_it_is_told_to(tmp_path: Path, how: tuple[str, ...]) -> None:
    """With --live the configured one, with --server that one; without either, none."""
    config = tmp_path / "config.toml"
    config.write_text("[server]\nport = 1\n")
    result = run("preview", "a", "--config", str(config), *how)
    assert result.exit_code == 1
    assert "no answer from http://127.0.0.1:1" in result.stderr
    result = run("preview", "a", "--config", str(config))
    assert result.exit_code == 0
    assert "Nothing would be sent." in result.stdout
    assert "--live" in result.stderr


def test_what_a_terminal_would_obey_is_written_out() -> None:
    """Escape sequences and controls in errors and destinations reach no terminal."""
    assert printable("a\x1b[31mb\r\n\u202eé") == r"a\x1b[31mb\r\n\u202eé"


def test_data_goes_out_exactly_as_it_was_written() -> None:
    """Numbers that no float can hold, and escapes, survive."""
    text = '{"n": 12345678901234567890.10, "s": "\\u00e9"}'
    assert event_text({"type": "a.b", "data": text, "tenant": None}) == (
        b'{"type":"a.b","data":' + text.encode() + b"}"
    )


def test_data_can_come_from_a_file_or_from_stdin(tmp_path: Path) -> None:
    """`@FILE` and `@-` are read."""
    file = tmp_path / "data.json"
    file.write_text('{"a": 1}')
    assert b'"data":{"a": 1}' in event_text({"type": "a", "data": f"@{file}"})
    result = run("send", "a", "--data", "@-", "--url", "http://127.0.0.1:1", "--key", "k", stdin=b"{")
    assert result.exit_code == 2
    assert "--data is not a JSON object" in result.stderr


def test_timings_read_as_a_sentence() -> None:
    """Where the time went, without the parts that took none, and the bytes both ways."""
    timings = {"dns_ms": 1.25, "connect_ms": 0.5, "tls_ms": 0.0, "wait_ms": 110.0, "body_ms": 0.04}
    assert timings_line({**timings, "bytes_sent": 1512, "bytes_received": 2}) == (
        "dns 1.2 ms, connect 0.5 ms, wait 110.0 ms, body 0.0 ms; 1,512 B sent, 2 B received"
    )


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("[::1]", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_an_address_is_a_url(host: str, url: str) -> None:
    """An IPv6 host stands in brackets, once."""
    assert address(host, 80) == url


@pytest.mark.parametrize(
    ("listens", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),  # noqa: S104 - read, not bound
        ("::", "http://[::1]:8080"),
    ],
)
def test_the_server_is_found_where_the_configuration_has_it(tmp_path: Path, listens: str, url: str) -> None:
    """Without --url, the configured address is called; all interfaces means this machine."""
    config = tmp_path / "config.toml"
    config.write_text(f'[server]\nhost = "{listens}"\n[auth]\ningest_keys = ["in"]\nadmin_keys = ["ad"]\n')
    server = Server(config, None, None)
    assert server.client("ingest").url == url
    assert server.client("ingest")._headers == {"Authorization": "Bearer in"}
    assert server.client("admin")._headers == {"Authorization": "Bearer ad"}


def test_no_configuration_is_needed_where_options_say_it_all() -> None:
    """With --url, a missing file is no error; with a broken one and a key neither."""
    assert Server(Path("/nowhere"), "http://a:1/", None).client("admin").url == "http://a:1"
    assert Server(Path("/nowhere"), "http://a:1", "k").client("admin")._headers["Authorization"] == "Bearer k"
    with pytest.raises(click.ClickException, match="no such file"):
        Server(Path("/nowhere"), None, "k").client("admin")


def test_a_broken_configuration_is_not_passed_over(tmp_path: Path) -> None:
    """A file that is there and can't be used is an error, not a missing key."""
    config = tmp_path / "config.toml"
    config.write_text("nope = 1")
    with pytest.raises(ConfigError, match="nope"):
        Server(config, "http://a:1", None).client("admin")


def test_a_refusal_carries_the_servers_words() -> None:
    """The status, the detail and every fault are in the message, and what to do about a key."""
    assert str(RefusedError(404, Problem(detail="There is no job."))) == (
        "the server answered 404: There is no job."
    )
    assert "--key" in str(RefusedError(401, Problem(title="Unauthorized")))
