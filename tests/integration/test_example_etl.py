"""The worked example of docs/channels.md, run as it stands."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from notifier import Event, Notifier
from notifier.model import JobState

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "etl"


@pytest.fixture
async def site() -> AsyncIterator[TestServer]:
    """A site with one good page, and one without a title."""

    async def good(_request: web.Request) -> web.Response:
        return web.Response(text="<html><title>Caf&eacute;\n au lait</title></html>")

    async def untitled(_request: web.Request) -> web.Response:
        return web.Response(text="<html></html>")

    app = web.Application()
    app.add_routes([web.get("/good", good), web.get("/untitled", untitled)])
    server = TestServer(app)
    async with server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the example, as the working folder."""
    copy = tmp_path / "etl"
    shutil.copytree(EXAMPLE, copy)
    monkeypatch.chdir(copy)
    monkeypatch.syspath_prepend(str(copy))
    return copy


async def _settled(notifier: Notifier, event_id: str) -> JobState:
    """The state of the event's one job, once it is final."""
    while True:
        _, (job,) = await notifier.store.event(event_id)
        if job.status not in {JobState.PENDING, JobState.PROCESSING}:
            return job.status
        await notifier.store.ping()


async def test_an_etl_step_rides_the_same_rails(site: TestServer, folder: Path) -> None:
    """The example fetches, transforms and loads; what can't be transformed is FAILED with its cause."""
    async with Notifier.from_config(folder / "config.toml") as notifier:
        good = await notifier.submit(Event(type="page.changed", data={"url": str(site.make_url("/good"))}))
        bad = await notifier.submit(Event(type="page.changed", data={"url": str(site.make_url("/untitled"))}))
        assert await _settled(notifier, good.event.id) is JobState.COMPLETED
        assert await _settled(notifier, bad.event.id) is JobState.FAILED
        _, (failed,) = await notifier.store.event(bad.event.id)
        assert failed.error is not None
        assert failed.error.code == "no_title"
        await notifier.requeue(good.jobs[0].id)
        assert await _settled(notifier, good.event.id) is JobState.COMPLETED
        assert len(await notifier.store.attempts(good.jobs[0].id)) == 2
    lines = [json.loads(line) for line in (folder / "titles.ndjson").read_text("utf-8").splitlines()]
    assert lines == [{"id": good.jobs[0].id, "page": str(site.make_url("/good")), "title": "Café au lait"}]
