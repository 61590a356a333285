"""A channel that notifies nobody: fetch a page, take its title, append it to a file.

A job may be attempted more than once, so the step says what it already did: a line carries the job's id,
and a job whose line stands in the file is done.
"""

import asyncio
import html
import json
import re
from pathlib import Path

import aiohttp

from notifier import Message, Permanent, Receipt, Transient, channel

_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_writing = asyncio.Lock()


@channel("etl", timeout=30)
async def append_title(message: Message) -> Receipt:
    """Extract the page at the job's destination, transform it to its title, load that into the file."""
    page = await fetch(message.destination)
    record = {"id": message.id, "page": message.destination, "title": title_of(page)}
    async with _writing:
        await asyncio.to_thread(append_once, Path(message.settings["file"]), record)
    return Receipt(response=record["title"])


async def fetch(url: str) -> bytes:
    """Read a page of at most 1 MiB. What a later try may mend is Transient, the rest Permanent."""
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            if response.status >= 500:
                raise Transient(f"the page answered {response.status}", status_code=response.status)
            if response.status != 200:
                raise Permanent(f"the page answered {response.status}", status_code=response.status)
            return await response.content.read(1024**2)
    except aiohttp.InvalidURL as error:
        raise Permanent(f"{url!r} is no url", code="invalid_url") from error
    except aiohttp.ClientError as error:
        raise Transient(f"the page can't be fetched: {error}", code="fetch_failed") from error


def title_of(page: bytes) -> str:
    """Return the text of the page's title."""
    found = _TITLE.search(page)
    if found is None:
        raise Permanent("the page has no title", code="no_title")
    return " ".join(html.unescape(found[1].decode("utf-8", "replace")).split())


def append_once(file: Path, record: dict[str, str]) -> None:
    """Append a line of JSON, unless an earlier attempt of the same job did."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    if not any(json.loads(line)["id"] == record["id"] for line in lines):
        with file.open("a", encoding="utf-8") as target:
            target.write(json.dumps(record, ensure_ascii=False) + "\n")
