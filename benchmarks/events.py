"""What is posted: events of 500 bytes, and the template and secret that make a webhook of each.

Stands apart from `notifier.bench.events`: peers import it too, where no notifier is installed.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

SIZE = 500
"""Bytes of one event as it is posted."""

ROUTED = "order.paid"
UNWANTED = "nobody.wants.this"

DATA: dict[str, Any] = {
    "order": "ord_9f3c2a7714",
    "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "locale": "en"},
    "currency": "EUR",
    "total": 12995,
    "items": [
        {"sku": "A-1001", "title": "Difference engine, small", "count": 1, "price": 9900},
        {"sku": "B-2040", "title": "Punched cards, a hundred", "count": 2, "price": 1250},
        {"sku": "C-0007", "title": "Brass & oil", "count": 1, "price": 595},
    ],
    "note": "",
}

PAYLOAD = """{
  "type": {{ event.type | tojson }},
  "id": {{ event.id | tojson }},
  "order": {{ data.order | tojson }},
  "customer": {{ data.customer.name | tojson }},
  "email": {{ data.customer.email | tojson }},
  "total": {{ data.total }},
  "lines": [
    {%- for item in data["items"] %}
    {"sku": {{ item.sku | tojson }}, "title": {{ item.title | tojson }}, "sum": {{ item.count * item.price }}}
    {{- "," if not loop.last }}
    {%- endfor %}
  ]
}
"""
"""The template of each webhook, `templates/order/payload.json`."""

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of nobody
"""What signs each webhook."""


def event(event_type: str, **fields: Any) -> bytes:
    """An event of `SIZE` bytes."""
    made = {"type": event_type, "data": DATA} | fields
    padding = SIZE - len(msgspec.json.encode(made))
    assert padding >= 0, padding
    return msgspec.json.encode(made | {"data": DATA | {"note": "x" * padding}})


def later() -> bytes:
    """An event whose job is due tomorrow, and so stays out of the way."""
    return event(ROUTED, deliver_at=(datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds"))


def array(event: bytes, count: int) -> bytes:
    """So many of one event, for one request."""
    return b"[" + b",".join([event] * count) + b"]"


BODY = event(ROUTED)
NUMBER_AT = BODY.index(b"ord_") + 4
NUMBER_DIGITS = 10


def numbered(number: int) -> bytes:
    """`BODY`, with a number as its order that `number_of` finds in what it caused, too."""
    return BODY[:NUMBER_AT] + b"%0*d" % (NUMBER_DIGITS, number) + BODY[NUMBER_AT + NUMBER_DIGITS :]


def number_of(webhook: bytes) -> int:
    """The number of the event that caused a webhook."""
    at = webhook.index(b"ord_") + 4
    return int(webhook[at : at + NUMBER_DIGITS])
