"""`notifier secret`: what receivers verify webhooks with, where no route has a secret of its own."""

import click

from notifier.cli.client import Server, named_server_options
from notifier.cli.program import json_option, print_json


@click.command(short_help="Print the secret that receivers verify webhooks with.")
@named_server_options
@json_option
def secret(*, server: Server, as_json: bool) -> None:
    """Print what signs the webhooks that have no secret of their own.

    It is `channels.webhook.secret` of the running server's configuration, or else the one that its store
    made and keeps. An endpoint's secret is its own, shown when it is made. Needs an admin key where keys
    are configured.
    """
    told = server.ask("GET", "/v1/admin/webhook-secret")
    if as_json:
        print_json(told)
    else:
        click.echo(told["secret"])
