"""The commands. Each module imports what it needs only when its command runs, so that `--help` is quick."""

import click

from notifier.cli.bench import bench
from notifier.cli.check import check
from notifier.cli.endpoints import endpoints
from notifier.cli.jobs import jobs
from notifier.cli.preview import preview
from notifier.cli.program import Program
from notifier.cli.secret import secret
from notifier.cli.send import send
from notifier.cli.serve import dev, serve
from notifier.cli.suppressions import suppressions
from notifier.cli.verify import verify

__all__ = ["main"]


@click.group(
    "notifier",
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="notifier", message="notifier %(version)s")
def main() -> None:
    """Send the notifications that events cause: webhooks and email, durably, with every attempt kept."""


for command in (serve, dev, check, send, jobs, endpoints, suppressions, preview, secret, verify, bench):
    main.add_command(command)
