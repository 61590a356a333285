"""`notifier serve` and `notifier dev`: the commands that stay."""

import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from notifier.cli.client import address
from notifier.cli.program import config_option, read_config, read_config_made_up
from notifier.logs import LEVELS

if TYPE_CHECKING:
    from notifier.config import Config
    from notifier.dev import Catcher

_Function = TypeVar("_Function", bound=Callable[..., Any])
_EXAMPLE = '{"type":"user.signup","data":{"email":"ada@example.com","name":"Ada"}}'


def _port_option(function: _Function) -> _Function:
    kind = click.IntRange(0, 65535)
    help_ = "The port; 0 picks a free one.  [default: from the configuration]"
    return click.option("--port", type=kind, help=help_)(function)


def _log_option(function: _Function) -> _Function:
    kind = click.Choice(LEVELS)
    return click.option("--log-level", type=kind, default="info", show_default=True, help="What to log.")(
        function
    )


@click.command(short_help="Serve the API, and deliver.")
@click.option("--host", help="The address to listen on.  [default: from the configuration]")
@_port_option
@_log_option
@config_option
def serve(host: str | None, port: int | None, log_level: str, config_path: Path) -> None:
    """Serve the API and deliver, until SIGTERM or Ctrl-C; then finish what is in flight, and stop.

    A second signal stops at once.
    """
    import msgspec

    from notifier import logs, server

    config = read_config(config_path)
    host = config.server.host if host is None else host
    port = config.server.port if port is None else port
    server.check_exposure(host, keys_asked=config.auth.configured)
    listen = msgspec.structs.replace(config.server, host=host, port=port)
    logs.configure(log_level)
    server.run(_serve(msgspec.structs.replace(config, server=listen)))


async def _serve(config: "Config") -> None:
    from notifier import server
    from notifier.service import Notifier
    from notifier.web.app import build_app

    stop = server.StopSignals()
    sockets = server.bind(config.server.host, config.server.port)
    notifier = Notifier(config)
    url = address(config.server.host, sockets[0].getsockname()[1])
    await server.serve(
        notifier, build_app(notifier), sockets, stop=stop, on_listening=lambda: _say(f"listening on {url}")
    )


@click.command(short_help="Try things out: deliveries are caught, and shown in the Inbox.")
@_port_option
@click.option("--open", "open_browser", is_flag=True, help="Open the Inbox in a browser.")
@_log_option
@config_option
def dev(port: int | None, open_browser: bool, log_level: str, config_path: Path) -> None:
    """Serve on this machine alone, and catch every delivery in the Inbox.

    Nothing leaves the machine, whatever the configuration says; no key, mail server or receiver is
    needed. What is stored is forgotten at the end; the configured store is not touched.
    """
    from tempfile import TemporaryDirectory

    from notifier import logs, server

    config = read_config_made_up(config_path)
    logs.configure(log_level)
    with TemporaryDirectory(prefix="notifier-dev-") as directory:
        server.run(_dev(config, Path(directory), port, open_browser=open_browser))


async def _dev(config: "Config", directory: Path, port: int | None, *, open_browser: bool) -> None:
    import shutil
    import time

    import msgspec

    from notifier import server
    from notifier.dashboard.views import PREFIX, build_dashboard
    from notifier.dev import Catcher, caught
    from notifier.inbox import Inbox
    from notifier.service import Notifier, Overrides
    from notifier.web.app import build_app

    stop = server.StopSignals(last_words=lambda: shutil.rmtree(directory, ignore_errors=True))
    catcher = Catcher(Inbox(), time.time)
    await catcher.start()
    try:
        config = caught(config, catcher, directory, port)
        sockets = server.bind(config.server.host, config.server.port)
        url = address(config.server.host, sockets[0].getsockname()[1])
        # So that links in caught mails lead back here, and not to the server that is configured.
        here = msgspec.structs.replace(config.server, public_url=url)
        notifier = Notifier(
            msgspec.structs.replace(config, server=here), Overrides(channels=catcher.channels)
        )
        app = build_app(notifier)
        app.add_subapp(PREFIX, build_dashboard(catcher.inbox))

        def greet() -> None:
            _say(_banner(url, catcher))
            _say(f"listening on {url}")
            if open_browser:
                _open(f"{url}{PREFIX}/inbox")

        await server.serve(notifier, app, sockets, stop=stop, on_listening=greet)
    finally:
        await catcher.close()


def _banner(url: str, catcher: "Catcher") -> str:
    from notifier.dev import LOOPBACK

    post = f"curl -sS {url}/v1/events -H 'Content-Type: application/json' -d {shlex.quote(_EXAMPLE)}"
    return f"""
  Everything is caught on this machine; nothing leaves it. Ctrl-C ends it.

  API       {url}
  Inbox     {url}/dashboard/inbox
  Mail      {LOOPBACK}:{catcher.smtp_port} (SMTP; takes anyone's)
  Webhooks  {LOOPBACK}:{catcher.webhook_port}

  Try it, and look at the Inbox:

{post}
"""


def _open(url: str) -> None:
    """Open a browser, in a thread of its own: a browser in the terminal would hold everything up."""
    import threading
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _say(text: str) -> None:
    """Write to stderr; that nobody reads it any more must stop no delivery."""
    with suppress(OSError):
        click.echo(text, err=True)
