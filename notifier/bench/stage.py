"""What the measured server runs with: the settings that make a difference, and nothing of where they lead.

No text of the user's configuration gets here, and so none of its keys, addresses or secrets.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from notifier.bench.events import EVENT, TEMPLATES
from notifier.bench.receivers import LOOPBACK, RECEIVERS
from notifier.config import (
    Auth,
    Channels,
    Config,
    DkimSection,
    Duration,
    EmailSection,
    Relay,
    Route,
    Server,
    Size,
    StoreSection,
    WebhookSection,
)
from notifier.store import file_url

_DKIM = "dkim.pem"
_KEPT_OF_RELAYS = ("connections", "messages", "idle", "age")
_KEPT_OF_MAIL = ("inline_css", "max_attachment", "max_message")


def set_up(
    folder: Path, config: Config, *, key: str | None, hooks: Sequence[int] = (), relay: int | None = None
) -> None:
    """Write `config.toml` and the templates into an empty folder. Raises OSError.

    `key` may post events, where the configuration asks for keys; `hooks` are the ports that webhooks go to,
    each by an event type of its own, `relay` is the one that mails go to.
    """
    for name, text in TEMPLATES.items():
        path = folder / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    signed = relay is not None and config.channels.email.dkim is not None
    if signed:
        (folder / _DKIM).write_bytes(_new_key())
    staged = Config(
        server=Server(host=LOOPBACK, port=0, max_body=config.server.max_body),
        auth=Auth() if key is None else Auth(ingest_keys=(key,)),
        store=StoreSection(url=file_url(folder / "bench.db")),
        workers=config.workers,
        retry=config.retry,
        retention=config.retention,
        breaker=config.breaker,
        channels=Channels(
            webhook=WebhookSection(
                timeout=config.channels.webhook.timeout, allow_networks=(f"{LOOPBACK}/32",)
            ),
            email=_mail(config.channels.email, relay, signed=signed),
        ),
        routes=(*_hook_routes(hooks), *(_mail_routes() if relay is not None else ())),
    )
    (folder / "config.toml").write_text(as_toml(staged), "utf-8")


def _mail(mail: EmailSection, port: int | None, *, signed: bool) -> EmailSection:
    """The first relay's limits hold for the one that stands in for it."""
    kept = {name: getattr(mail, name) for name in _KEPT_OF_MAIL}
    if port is None:
        return EmailSection(**kept)
    limits = {name: getattr(mail.relays[0], name) for name in _KEPT_OF_RELAYS}
    relay = Relay(host=LOOPBACK, port=port, tls="none", **limits)
    dkim = DkimSection(selector="bench", key_file=_DKIM) if signed else None
    return EmailSection(relays=(relay,), dkim=dkim, **kept)


def _hook_routes(ports: Sequence[int]) -> list[Route]:
    return [
        Route(
            event=f"{EVENT}.webhook.{number}",
            channel="webhook",
            url=f"http://{LOOPBACK}:{port}/hook",
            template="hook",
        )
        for number, port in enumerate(ports)
    ]


def _mail_routes() -> list[Route]:
    return [
        Route(
            event=f"{EVENT}.email.{number}",
            channel="email",
            to=f"ada@mail{number}.example.com",
            template="mail",
        )
        for number in range(RECEIVERS)
    ]


def _new_key() -> bytes:
    """A key as most sign with; the user's own is left alone."""
    key = generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def as_toml(config: Config) -> str:
    """Write a configuration as the text that it could have been read from."""
    tables = _plain(msgspec.structs.asdict(config))
    del tables["directory"]  # where the text is put says it
    return "".join(f"{name} = {_value(value)}\n" for name, value in tables.items())


def _plain(value: Any) -> Any:
    """Turn sections into tables, without what is unset: that is what its absence means."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        return _plain({field.encode_name: getattr(value, field.name) for field in fields})
    if isinstance(value, Mapping):
        tables = {name: _plain(each) for name, each in value.items()}
        return {name: each for name, each in tables.items() if each is not None and each != {}}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_value(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, Duration):
        return f'"{float(value):f}s"'
    if isinstance(value, Size):
        return f'"{int(value)}B"'
    return msgspec.json.encode(value).decode()
