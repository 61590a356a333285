"""What is posted: events of 500 bytes, and the configuration and template that make a webhook of each."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

SIZE = 500
"""Bytes of one event as it is posted."""

ROUTED = "order.paid"
UNWANTED = "nobody.wants.this"

_DATA: dict[str, Any] = {
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

CONFIG = """
[server]
port = 0

[channels.webhook]
allow_networks = ["127.0.0.1/32"]
timeout = "{timeout}"
secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

[[routes]]
event = "order.*"
channel = "webhook"
url = "http://127.0.0.1:{port}/hook"
template = "order"
"""
"""Everything else is as it comes: 64 workers, `synchronous=FULL`."""


def event(event_type: str, **fields: Any) -> bytes:
    """An event of `SIZE` bytes."""
    made = {"type": event_type, "data": _DATA} | fields
    padding = SIZE - len(msgspec.json.encode(made))
    assert padding >= 0, padding
    return msgspec.json.encode(made | {"data": _DATA | {"note": "x" * padding}})


def later() -> bytes:
    """An event whose job is due tomorrow, and so stays out of the way."""
    return event(ROUTED, deliver_at=(datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds"))


def array(count: int) -> bytes:
    """So many events that nobody wants."""
    return b"[" + b",".join([event(UNWANTED)] * count) + b"]"


BODY = event(ROUTED)
