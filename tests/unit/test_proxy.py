"""The declared egress proxy: how its url is read, and that its login is shown to no one."""

import pytest

from notifier.channels import ChannelContext
from notifier.channels.proxy import Proxy, parse_proxy
from notifier.channels.webhook import WebhookChannel
from notifier.config import parse_config
from notifier.errors import ConfigError


def declared(url: str) -> None:
    """Build the webhook channel of a configuration that declares a proxy."""
    config = parse_config(f"[channels.webhook]\nproxy = {url!r}\n")
    WebhookChannel(ChannelContext(config=config, settings={}, secrets_for=lambda _job: [], clock=lambda: 0.0))


@pytest.mark.parametrize(
    ("text", "origin", "login"),
    [
        ("http://proxy.internal:3128", "http://proxy.internal:3128", None),
        ("http://10.0.0.1:8080/", "http://10.0.0.1:8080", None),
        ("http://[fd00::1]:3128", "http://[fd00::1]:3128", None),
        ("http://proxy:80", "http://proxy", None),
        ("http://Aladdin:open%20sesame@proxy:1", "http://proxy:1", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("http://user@proxy:1", "http://proxy:1", "Basic dXNlcjo="),
        ("http://:p%C3%BC@proxy:1", "http://proxy:1", "Basic OnDDvA=="),
    ],
)
def test_a_proxys_url_is_read(text: str, origin: str, login: str | None) -> None:
    """Where it stands, and the login that is made of its user name and password (RFC 7617)."""
    proxy = parse_proxy(text, resolves=True)
    assert (str(proxy.url), proxy.authorization, proxy.resolves) == (origin, login, True)


@pytest.mark.parametrize(
    "text",
    [
        *("", "proxy", "proxy:3128", "//proxy:3128", "http://", "http://:3128", "http:///x"),
        *("https://u:hunter2@proxy:3128", "socks5://u:hunter2@proxy:1080", "http://u:hunter2@proxy"),
        *("http://u:hunter2@proxy:0", "http://u:hunter2@proxy:65536", "http://u:hunter2@proxy:x"),
        *("http://u:hunter2@proxy:1/path", "http://u:hunter2@proxy:1/?q", "http://u:hunter2@proxy:1#f"),
        *("http://u:hunter2 @proxy:1", "http://u:hunter2@pro xy:1", "http://u:hunter2@[::1:1"),
    ],
)
def test_a_proxy_that_cant_be_used_is_named_by_its_key(text: str) -> None:
    """The channel doesn't start; the error has the key and what was expected, and never the password."""
    with pytest.raises(ConfigError, match="http://") as refused:
        declared(text)
    assert refused.value.key == "channels.webhook.proxy"
    assert "hunter2" not in str(refused.value)


def test_a_proxy_that_can_be_used_is() -> None:
    """The channel starts with it."""
    declared("http://user:hunter2@proxy:3128")


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        ("example.com", "example.com:443"),
        ("1.1.1.1", "1.1.1.1:443"),
        ("2606:4700::1111", "[2606:4700::1111]:443"),
    ],
)
def test_a_tunnel_is_asked_for(host: str, authority: str) -> None:
    """By CONNECT, with the login if there is one."""
    plain, with_login = (
        parse_proxy(f"http://{login}proxy:1", resolves=False).connect_request(host, 443)
        for login in ("", "a:b@")
    )
    assert plain == f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    assert b"\r\nProxy-Authorization: Basic YTpi\r\n\r\n" in with_login


def test_printing_a_proxy_shows_no_login() -> None:
    """What is printed ends in logs."""
    proxy = parse_proxy("http://user:hunter2@proxy:1", resolves=False)
    assert isinstance(proxy, Proxy)
    assert repr(proxy) == str(proxy) == "Proxy(http://proxy:1)"
