"""What `notifier dev` makes of a configuration, and of the path that a caught request comes by."""

from pathlib import Path

import pytest

from notifier.channels.signing import parse_secret
from notifier.config import parse_config
from notifier.dev import Catcher, caught, original_url, stand_ins
from notifier.inbox import Inbox

CONFIG = """
[server]
host = "127.0.0.2"
port = 9000
[auth]
admin_keys = ["${ADMIN_KEY}"]
[store]
url = "postgresql://user:${PGPASSWORD:-none}@db/notifier"
[channels.email]
from = "Shop <shop@example.com>"
[[channels.email.relays]]
host = "mx.example.com"
tls = "implicit"
password = "${SMTP_PASSWORD}"
username = "x"
[[routes]]
event = "order.paid"
channel = "webhook"
url = "https://erp.example.com"
secret = "${ERP_SECRET}"   # not "${COMMENTED}"
"""


def test_nothing_configured_is_reached() -> None:
    """Keys, store, relays and address give way to this machine's own; the rest stays."""
    config = parse_config(CONFIG, stand_ins(CONFIG, {}))
    catcher = Catcher(Inbox(), lambda: 0.0)
    catcher.smtp_port = 2525
    changed = caught(config, catcher, Path("/tmp/somewhere"), 0)  # noqa: S108 - only a name
    assert not changed.auth.configured
    assert (changed.server.host, changed.server.port) == ("127.0.0.1", 0)
    assert changed.store.url == "sqlite:////tmp/somewhere/dev.db"
    (relay,) = changed.channels.email.relays
    assert (relay.host, relay.port, relay.tls, relay.username) == ("127.0.0.1", 2525, "none", None)
    assert changed.channels.email.from_ == "Shop <shop@example.com>"
    assert changed.routes == config.routes


def test_no_dkim_key_is_needed() -> None:
    """It lies where mails are really sent from; whoever tries a template has none."""
    text = '[channels.email.dkim]\nselector = "s1"\nkey_file = "${DKIM_KEY_FILE}"\n'
    config = parse_config(text, stand_ins(text, {}))
    assert caught(config, Catcher(Inbox(), lambda: 0.0), Path("/d"), None).channels.email.dkim is None


def test_the_configured_port_is_kept_unless_another_is_given() -> None:
    """A newcomer finds the server where the file says."""
    config = parse_config("[server]\nport = 9000\n")
    assert caught(config, Catcher(Inbox(), lambda: 0.0), Path("/d"), None).server.port == 9000


def test_what_the_environment_lacks_is_made_up() -> None:
    """Unset variables without a default are stood in for, by what passes as a webhook secret too."""
    made_up = stand_ins(CONFIG, {"ADMIN_KEY": "k"})
    assert sorted(made_up) == ["ERP_SECRET", "SMTP_PASSWORD"]
    parse_secret(made_up["ERP_SECRET"])
    assert stand_ins("not toml = = ${X}") == {}


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/https/example.com:443/hooks?x=1&y=%2F", "https://example.com/hooks?x=1&y=%2F"),
        ("/http/example.com:80/", "http://example.com/"),
        ("/http/example.com:8080/a/b", "http://example.com:8080/a/b"),
        ("/https/[::1]:443/", "https://[::1]/"),
        ("/https/example.com:4443//double", "https://example.com:4443//double"),
        ("/", None),
        ("/favicon.ico", None),
        ("/ftp/example.com:21/x", None),
        ("/https//x", None),
    ],
)
def test_the_receivers_url_is_read_from_the_path(path: str, url: str | None) -> None:
    """A caught request shows the url it was meant for; a path of another making shows none."""
    assert original_url(path) == url
