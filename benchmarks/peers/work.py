"""What each peer's task does with an event: renders the webhook, signs it (Standard Webhooks), posts it.

Runs in the peers' environments, which have Jinja2, msgspec and one HTTP client, and no notifier.
"""

import os
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from functools import cache
from hmac import digest
from time import time
from typing import TYPE_CHECKING, Any

import jinja2
import msgspec

from benchmarks.events import BODY, PAYLOAD, SECRET

if TYPE_CHECKING:
    import aiohttp

STORE = os.environ["BENCH_STORE"]
"""The url of the peer's Redis or PostgreSQL, or the path of its SQLite file."""
CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "0"))
"""Of a peer that takes it from its program and not from its command line."""
RETRIES = 7
"""As many as the notifier makes as it comes."""

_HOOK = os.environ["BENCH_HOOK"]
_KEY = b64decode(SECRET.removeprefix("whsec_"))
_TIMEOUT = 15
_template = jinja2.Environment(autoescape=False).from_string(PAYLOAD)  # noqa: S701 - it is JSON, by `tojson`
_thread = threading.local()

Event = dict[str, Any]


class NotDeliveredError(Exception):
    """The receiver did not take it: what a retry is for."""


def events(count: int, first: int) -> Iterator[Event]:
    """So many events, each with an id of its own."""
    event = msgspec.json.decode(BODY)
    for number in range(first, first + count):
        yield event | {"id": f"evt_{number:032x}"}


def deliver(event: Event) -> int:
    """Deliver an event by curl, on a connection that the thread keeps. Raises NotDeliveredError."""
    import pycurl

    body, headers = _prepared(event)
    curl = _curl()
    curl.setopt(pycurl.HTTPHEADER, [f"{name}: {value}" for name, value in headers.items()])
    curl.setopt(pycurl.POSTFIELDS, body)
    curl.perform()
    return _taken(curl.getinfo(pycurl.RESPONSE_CODE))


async def deliver_async(event: Event) -> int:
    """Deliver an event by an aiohttp client that is as tuned as it gets. Raises NotDeliveredError."""
    body, headers = _prepared(event)
    async with _session().post(_HOOK, data=body, headers=headers, allow_redirects=False) as response:
        await response.read()
        return _taken(response.status)


def _prepared(event: Event) -> tuple[bytes, dict[str, str]]:
    body = _template.render(event=event, data=event["data"]).encode()
    timestamp = str(int(time()))
    signature = digest(_KEY, f"{event['id']}.{timestamp}.".encode() + body, "sha256")
    return body, {
        "Content-Type": "application/json",
        "webhook-id": event["id"],
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{b64encode(signature).decode()}",
    }


def _taken(status: int) -> int:
    if not 200 <= status < 300:
        raise NotDeliveredError(status)
    return status


def _curl() -> Any:
    import pycurl

    if not hasattr(_thread, "curl"):
        _thread.curl = made = pycurl.Curl()
        made.setopt(pycurl.URL, _HOOK)
        made.setopt(pycurl.TIMEOUT, _TIMEOUT)
        made.setopt(pycurl.NOSIGNAL, 1)  # libcurl: needed where there are threads
        made.setopt(pycurl.WRITEFUNCTION, lambda _: None)
    return _thread.curl


@cache
def _session() -> "aiohttp.ClientSession":
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT),
    )
