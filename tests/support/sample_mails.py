"""The templates that ship, as mails: with data as an app would post it, and with as little as they take."""

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from support.builders import NOW, event_record, job

from notifier.channels import ChannelContext, Message
from notifier.channels.email import EmailChannel
from notifier.config import Channels, Config, EmailSection
from notifier.rendering import Renderer

TEMPLATES = Path(__file__).parents[2] / "templates"
LINK = "https://notify.example.com/unsubscribe/eyJjIjoibmV3cyIsInIiOiJhZGFAZXhhbXBsZS5vcmcifQ.c2lnbmF0dXJl"


class Sample(NamedTuple):
    """What a template is tried with."""

    name: str
    template: str
    data: dict[str, Any]
    locale: str | None = None
    unsubscribe_url: str | None = None


_WELCOME = {
    "email": "ada.lovelace@example.org",
    "name": "Ada",
    "url": "https://app.example.com/start?token=4f1c2a9be07d4f3f",
}
_ORDER = {
    "number": "2026-004711",
    "name": "Ada",
    "currency": "EUR",
    "items": [
        {"name": "Assam tea, loose, 250 g", "quantity": 2, "price": 12.5, "description": "Second flush"},
        {"name": "Teapot, cast iron", "price": 1249.0, "description": "1.2 litres, dark green"},
        {"name": "Strainer", "quantity": 12, "price": 3.95},
    ],
    "subtotal": 1321.4,
    "discount": -20,
    "shipping": 4.9,
    "tax": 247.15,
    "total": 1553.45,
    "paid_with": "Visa •••• 4242",
    "paid_at": "24 November 2026",
    "address": "Ada Lovelace\n12 St James’s Square\nLondon SW1Y 4JH",
    "url": "https://shop.example.com/orders/2026-004711",
}
_SMALL_ORDER = {
    "number": "7",
    "currency": "USD",
    "items": [{"name": "Tea", "price": "4.00"}],
    "total": "4.00",
}
_RESET = {
    "url": "https://app.example.com/reset/3b6f0c9f5d5c4b0e9a53a0f7c1de2a44",
    "name": "Ada",
    "expires_in": "30 minutes",
    "ip": "203.0.113.7",
    "device": "Firefox on Linux",
}
_ALERT = {
    "severity": "critical",
    "title": "Disk of db-2 is 97 % full",
    "message": "It grows by 1.2 GiB an hour and is full at about 16:40.\nWrites will fail from then on.",
    "details": {"Host": "db-2.internal.example.com", "Path": "/var/lib/postgresql", "Free": "6.1 GiB"},
    "url": "https://grafana.example.com/d/disks?var-host=db-2",
}

SAMPLES = (
    Sample("welcome", "welcome", _WELCOME, unsubscribe_url=LINK),
    Sample("welcome in French", "welcome", _WELCOME, "fr-CA", LINK),
    Sample("welcome with little", "welcome", {"email": "ada@example.org", "name": "Ada"}),
    Sample("receipt", "receipt", _ORDER, unsubscribe_url=LINK),
    Sample("receipt with little", "receipt", _SMALL_ORDER),
    Sample("password-reset", "password-reset", _RESET),
    Sample("password-reset with little", "password-reset", {"url": _RESET["url"]}),
    Sample("alert", "alert", _ALERT, unsubscribe_url=LINK),
    Sample("alert with little", "alert", {"title": "The nightly backup did not run"}),
)

_renderer = Renderer(TEMPLATES)


def channel(**section: Any) -> EmailChannel:
    """The email channel, as it stands with a sender alone."""
    email = EmailSection(from_="Example <no-reply@example.com>", **section)
    return EmailChannel(
        ChannelContext(
            config=Config(channels=Channels(email=email)),
            settings={},
            secrets_for=lambda _job: (),
            clock=lambda: NOW,
        )
    )


def sent(sample: Sample, by: EmailChannel) -> dict[str, Any]:
    """The mail that a sample becomes, as the channel previews it."""
    event = event_record(type="user.signup", data=msgspec.Raw(msgspec.json.encode(sample.data)))
    to = job(
        event,
        channel="email",
        destination="Ada Lovelace <ada@example.org>",
        template=sample.template,
        category="news" if sample.unsubscribe_url else None,
    )
    content = _renderer.render(
        sample.template,
        by.parts,
        event=event,
        data=sample.data,
        job=to,
        locale=sample.locale,
        unsubscribe_url=sample.unsubscribe_url,
    )
    return by.preview(Message(job=to, event=event, content=content, unsubscribe_url=sample.unsubscribe_url))
