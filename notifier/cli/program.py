"""How every command starts and ends: its shared options, and one line on stderr for whatever stopped it."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
from click.exceptions import NoArgsIsHelpError

from notifier.errors import NotifierError

if TYPE_CHECKING:
    from notifier.config import Config

FAILED, USAGE = 1, 2
INTERRUPTED = 128 + signal.SIGINT
PIPE_CLOSED = 128 + signal.SIGPIPE

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Failure(click.ClickException):
    """Ends a command with exit code 1 and one line that says what to do."""


class _PipeClosedError(Exception):
    """Whoever read our output has gone; at a BrokenPipeError click would end the process itself."""


class Program(click.Group):
    """The group of all commands; whatever ends one ends here, without a traceback for what is expected."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; in standalone mode the process ends with its exit code."""

        def run() -> Any:
            return click.Group.main(self, args, prog_name or "notifier", complete_var, False, **extra)

        return _ended(run) if standalone_mode else run()

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and have its output read before its exit code is."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:
            raise _PipeClosedError from None


def _ended(run: Callable[[], Any]) -> NoReturn:
    try:
        result = run()
    except NoArgsIsHelpError as error:
        error.show()
        sys.exit(USAGE)
    except click.ClickException as error:
        _say(_one_line(error))
        sys.exit(error.exit_code)
    except NotifierError as error:
        _say(f"notifier: {error}")
        sys.exit(FAILED)
    except click.Abort as error:
        sys.exit(INTERRUPTED if isinstance(error.__cause__, KeyboardInterrupt) else FAILED)
    except _PipeClosedError:
        _let_go_of_stdout()
        sys.exit(PIPE_CLOSED)
    sys.exit(result if isinstance(result, int) else 0)


def _one_line(error: click.ClickException) -> str:
    """Turn click's words into one line that names the command and where its help is."""
    message = " ".join(error.format_message().split())
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return f"notifier: {message}"
    path = error.ctx.command_path
    return f"{path}: {message.rstrip('.')} (see `{path} --help`)"


def _say(line: str) -> None:
    click.echo(printable(line), err=True)


def _let_go_of_stdout() -> None:
    """Keep the interpreter's last flush from complaining about a reader that left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def printable(text: str) -> str:
    r"""Write what a terminal would obey (escape sequences, controls) as `\x1b`: texts come from anywhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def usage_error(message: str) -> click.UsageError:
    """Make the error of a command that was given what it can't use."""
    return click.UsageError(message, click.get_current_context(silent=True))


def config_option(function: _Function) -> _Function:
    """Add `--config PATH`."""
    return click.option(
        "--config",
        "config_path",
        envvar="NOTIFIER_CONFIG",
        default="config.toml",
        show_default=True,
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="The configuration file.",
    )(function)


def json_option(function: _Function) -> _Function:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(function)


def yes_option(function: _Function) -> _Function:
    """Add `--yes`."""
    return click.option(
        "--yes", is_flag=True, help="Don't ask. Only on a terminal is anything asked: scripts are not."
    )(function)


def ask_first(question: str) -> None:
    """Ask on stderr; a no ends the command with exit code 1."""
    if not click.confirm(question, err=True):
        _say("nothing was changed")
        raise click.exceptions.Exit(FAILED)


def read_config(path: Path) -> "Config":
    """Load the configuration. Raises ConfigError; a missing file is a Failure that says what to do."""
    from notifier.config import load_config

    if not path.exists():
        raise Failure(f"{path}: no such file: name the configuration with --config PATH or NOTIFIER_CONFIG")
    return load_config(path)


def read_config_made_up(path: Path) -> "Config":
    """Load a configuration, standing in for the environment that it asks for and nobody set."""
    from notifier.config import load_config
    from notifier.dev import stand_ins

    made_up = stand_ins(path.read_text("utf-8", "replace")) if path.is_file() else {}
    if not made_up:
        return read_config(path)
    _say(f"not set, so made up for now: {', '.join(made_up)}")
    return load_config(path, {**os.environ, **made_up})


def print_json(value: Any) -> None:
    """Print a value as one indented JSON document."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
