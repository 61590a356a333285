"""What is posted, about 500 bytes each, and the templates that a webhook and a mail are made of."""

from datetime import UTC, datetime, timedelta

import msgspec

MARK = b"bench-"
"""What stands before the number of each event, wherever it goes."""
SLOT = b"000000000000"
"""Where the number stands: as many digits."""
EVENT = "bench"
"""What the types of these events begin with; their channel and the number of their receiver follow."""

DATA = msgspec.json.encode(
    {
        "bench": (MARK + SLOT).decode(),
        "customer": {"name": "Ada Lovelace", "email": "ada@example.com", "locale": "en"},
        "order": "ord_9f3c2a7714",
        "currency": "EUR",
        "total": 12995,
        "lines": [
            {"sku": "A-1001", "title": "Difference engine, small", "count": 1, "price": 9900},
            {"sku": "B-2040", "title": "Punched cards, a hundred", "count": 2, "price": 1250},
            {"sku": "C-0007", "title": "Brass & oil", "count": 1, "price": 595},
        ],
        "note": "Please leave it with the neighbours.",
    }
)
"""The data of every event, with the slot for its number."""

TEMPLATES = {
    "hook/payload.json": """{
  "bench": {{ data.bench | tojson }},
  "id": {{ event.id | tojson }},
  "order": {{ data.order | tojson }},
  "customer": {{ data.customer.name | tojson }},
  "total": {{ data.total | tojson }},
  "lines": [
    {%- for line in data.lines %}
    {"sku": {{ line.sku | tojson }}, "title": {{ line.title | tojson }}, "sum": {{ line.count * line.price }}}
    {{- "," if not loop.last }}
    {%- endfor %}
  ]
}
""",
    "mail/subject.txt": "Order {{ data.bench }} is on its way",
    "mail/body.txt": """Hello {{ data.customer.name }},

your order {{ data.order }} is on its way:
{% for line in data.lines %}
{{ line.count }} × {{ line.title }}
{%- endfor %}
""",
    "mail/body.html": """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><style>p { margin: 0 0 16px } td { padding: 8px }</style></head>
<body><p>Hello {{ data.customer.name }},</p><p>your order {{ data.order }} is on its way:</p>
<table>{% for line in data.lines %}
<tr><td>{{ line.count }}</td><td>{{ line.title }}</td></tr>{% endfor %}</table>
<p>{{ data.note }}</p></body></html>
""",
}
"""By their place among the templates."""


def event(channel: str, receiver: int, *, later: bool = False) -> bytes:
    """An event as it is posted; one for later causes a job that is due tomorrow, and stays out of the way."""
    fields: dict[str, object] = {"type": f"{EVENT}.{channel}.{receiver}", "data": msgspec.Raw(DATA)}
    if later:
        fields["deliver_at"] = datetime.now(UTC) + timedelta(days=1)
    return msgspec.json.encode(fields)


def array(events: bytes, count: int) -> bytes:
    """The same event, so many times over."""
    return b"[" + b",".join([events] * count) + b"]"
