"""The latest jobs of templates with their events: from the store, or from the server that has it open."""

import asyncio
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from notifier.cli.client import Client
from notifier.cli.tables import segment
from notifier.model import EventRecord, Job, JobState

if TYPE_CHECKING:
    from notifier.store import Store

Deliveries = list[tuple[Job, EventRecord]]

PAGE = 500
PAGES = 20
"""How far back a server is asked: it tells of all jobs, whatever their template."""
_AT_ONCE = 8


class Recent(Struct, frozen=True):
    """The newest deliveries of each template asked for, and where they are from, in words."""

    source: str
    deliveries: dict[str, Deliveries]


async def from_store(store: "Store", url: str, templates: Collection[str], limit: int) -> Recent:
    """Read up to `limit` of each template. The store is open. Raises StoreUnavailableError."""
    found = {template: await store.recent(template, limit) for template in templates}
    return Recent(f"the store {url}", found)


async def from_server(client: Client, templates: Collection[str], limit: int) -> Recent:
    """Ask a server for up to `limit` of each template. Raises RefusedError, UnreachableError.

    Of one event's jobs that differ only in whom they go to, one; none that is further back than `PAGES`.
    """
    wanted: dict[str, list[dict[str, Any]]] = {template: [] for template in templates}
    seen: set[tuple[str, ...]] = set()
    looked, cursor = 0, ""
    for _ in range(PAGES):
        params = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
        page = await client.get("/v1/admin/jobs", params)
        looked += len(page["jobs"])
        for job in page["jobs"]:
            if _is_wanted(job, wanted, limit) and (kind := _kind(job)) not in seen:
                seen.add(kind)
                wanted[job["template"]].append(job)
        cursor = page["next_cursor"]
        if not cursor or all(len(jobs) >= limit for jobs in wanted.values()):
            break
    events = await _events(client, {job["id"]: job["event_id"] for jobs in wanted.values() for job in jobs})
    found = {
        template: [(_job(job), events[job["event_id"]]) for job in jobs if job["event_id"] in events]
        for template, jobs in wanted.items()
    }
    return Recent(f"the running server at {client.url}, among its newest {looked:,} jobs", found)


def _is_wanted(job: dict[str, Any], wanted: dict[str, list[dict[str, Any]]], limit: int) -> bool:
    found = wanted.get(job["template"])
    return found is not None and len(found) < limit


def _kind(job: dict[str, Any]) -> tuple[str, ...]:
    """What jobs share that differ only in whom they go to."""
    return tuple(str(job[name]) for name in ("event_id", "template", "channel", "route", "locale"))


async def _events(client: Client, event_of: dict[str, str]) -> dict[str, EventRecord]:
    """Ask for each event once; a few calls at the same time. One that was pruned meanwhile is left out."""
    from notifier.cli.client import RefusedError

    events: dict[str, EventRecord] = {}
    waiting = iter({event: job for job, event in event_of.items()}.items())

    async def ask(pending: Iterator[tuple[str, str]]) -> None:
        for event, job in pending:
            try:
                answer = await client.get(f"/v1/admin/jobs/{segment(job)}")
            except RefusedError as error:
                if error.status != 404:  # noqa: PLR2004 - not found
                    raise
            else:
                events[event] = _event(answer["event"])

    await asyncio.gather(*(ask(waiting) for _ in range(_AT_ONCE)))
    return events


def _event(answer: dict[str, Any]) -> EventRecord:
    return EventRecord(
        id=answer["id"],
        type=answer["type"],
        data=Raw(msgspec.json.encode(answer["data"])),
        created_at=_seconds(answer["created_at"]),
        tenant=answer["tenant"],
    )


def _job(answer: dict[str, Any]) -> Job:
    """Read a job, as far as a template can tell."""
    fields = ("id", "event_id", "event_type", "channel", "destination", "tenant", "route", "endpoint")
    return Job(
        **{
            name: answer[name]
            for name in (*fields, "template", "locale", "category", "attempts", "max_attempts")
        },
        lane="",
        status=JobState(answer["status"]),
        created_at=_seconds(answer["created_at"]),
        updated_at=_seconds(answer["updated_at"]),
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
