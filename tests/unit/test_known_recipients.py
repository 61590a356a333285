"""Who nothing is known of costs the SQLite store no look, and nobody is taken for someone else."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.builders import NOW, suppression

from notifier.store import suppressions
from notifier.store.sqlite import SqliteStore

ADA, BOB = "ada@example.com", "bob@example.com"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An empty store."""
    opened = SqliteStore(tmp_path / "notifier.db")
    await opened.open(NOW)
    yield opened
    await opened.close()


async def test_who_nothing_is_known_of_costs_no_look(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither before a mail goes out nor after it came through."""
    await store.add_suppression(suppression())
    looks: list[Any] = []

    async def looked(work: Any) -> None:
        looks.append(work)

    monkeypatch.setattr(store, "_read", looked)
    assert await store.suppressed("email", BOB, "news") is None
    await store.forget_bounces("email", BOB)
    assert looks == []
    await store.suppressed("email", ADA, "news")
    assert len(looks) == 1


async def test_who_looks_like_someone_else_is_not(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all are taken for one another, each is still told apart by the store."""
    monkeypatch.setattr(suppressions, "_BITS", 1)
    await store.add_suppression(suppression())
    await store.count_bounce("email", ADA, NOW)
    await store.forget_bounces("email", BOB)
    assert await store.suppressed("email", BOB, None) is None
    assert await store.suppressed("email", ADA, None) == suppression()
    assert await store.count_bounce("email", ADA, NOW) == 2
