"""What the SQLite store seals: none of it stands in the file or its log, whenever the key came or changed."""

import asyncio
import base64
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.builders import NOW, born_claimed, endpoint, submission
from support.database import OLD_VERSIONS, make_version, rows

from notifier.config import Config, StoreSection
from notifier.errors import StoreSealedError
from notifier.model import Endpoint, EndpointSecret
from notifier.service import Notifier
from notifier.store import open_store
from notifier.store.resealing import _UNTIDY
from notifier.store.sealing import Sealer
from notifier.store.sqlite import SqliteStore

OLD, NEW = b"o" * 32, b"n" * 32
SECRET, RETIRED, TOKEN, QUERY, COMMON = (f"{name}-{'0123456789abcdef' * 3}" for name in "srtqc")
EVERY = (SECRET, RETIRED, TOKEN, QUERY, COMMON)


def subscription(**changes: object) -> Endpoint:
    """An endpoint with a secret wherever it can have one."""
    secrets = (EndpointSecret(f"whsec_{SECRET}", NOW), EndpointSecret(f"whsec_{RETIRED}", NOW, NOW + 60))
    fields: dict[str, object] = {
        "id": "ep_1",
        "url": f"https://receiver.example/hooks?token={QUERY}",
        "headers": {"Authorization": f"Bearer {TOKEN}"},
        "secrets": secrets,
    }
    return endpoint(**fields | changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store's file is to be."""
    return tmp_path / "notifier.db"


@contextlib.asynccontextmanager
async def opened(path: Path, *keys: bytes) -> AsyncIterator[SqliteStore]:
    """Open the store of a file with these keys; close it in the end."""
    store = SqliteStore(path, Sealer(keys))
    try:
        await store.open(NOW)
        yield store
    finally:
        await store.close()


def told(path: Path, *texts: str) -> list[str]:
    """Which of the secrets (or of these texts) stand in the file, in its log, or in anything beside it."""
    whole = b"".join(each.read_bytes() for each in path.parent.iterdir() if each.is_file())
    return [text for text in texts or EVERY if text.encode() in whole]


def key_id(key: bytes) -> str:
    """By what name a key is known in what it sealed."""
    return Sealer([key]).seal("", "", "").split(":")[1]


async def fill(store: SqliteStore) -> None:
    """Keep an endpoint and a setting with all the secrets, and change and drop one more."""
    await store.add_endpoint(subscription())
    await store.add_endpoint(subscription(id="ep_2"))
    await store.save_endpoint(subscription(id="ep_2", description="changed"))
    await store.drop_endpoint("ep_2")
    assert await store.setting("webhook_secret", COMMON, secret=True) == COMMON


async def check_kept(store: SqliteStore) -> None:
    """All that was kept comes back as it was."""
    assert await store.endpoints() == [subscription()]
    assert await store.setting("webhook_secret", "another", secret=True) == COMMON


async def test_a_sealed_store_tells_no_secret(path: Path) -> None:
    """Neither while it is open, its log unwritten, nor after; not even of what was changed or dropped."""
    async with opened(path, NEW) as store:
        await fill(store)
        assert path.with_name(path.name + "-wal").stat().st_size
        assert told(path) == []
        await store.checkpoint()
        assert told(path) == []
    assert told(path) == []
    async with opened(path, NEW) as store:
        await check_kept(store)


async def test_a_store_is_its_owners_alone(path: Path) -> None:
    """Whoever else has an account on the machine can read neither the file nor its log."""
    store = SqliteStore(path)
    await store.open(NOW)
    await store.ping()
    modes = {each.name: each.stat().st_mode & 0o777 for each in path.parent.glob(f"{path.name}*")}
    assert len(modes) >= 3
    assert set(modes.values()) == {0o600}
    await store.close()


async def test_without_a_key_secrets_are_kept_in_the_clear(path: Path) -> None:
    """As the README says; which also shows that these tests would see a secret."""
    async with opened(path) as store:
        await fill(store)
        assert told(path) == list(EVERY)
        await check_kept(store)


async def test_what_stood_in_the_clear_is_sealed_when_a_key_comes(path: Path) -> None:
    """No trace is left: in the rows, in pages that deleted rows left behind, or in the log."""
    async with opened(path) as store:
        await store._connections[0].run(lambda database: database.execute("PRAGMA secure_delete = OFF"))
        await fill(store)
        dropped = [subscription(id=f"ep_{number}", description="x" * 3000) for number in range(10, 40)]
        for each in dropped:
            await store.add_endpoint(each)
        for each in dropped:
            await store.drop_endpoint(each.id)
    assert told(path) == list(EVERY)
    assert rows(path, "PRAGMA freelist_count")[0][0] > 0
    async with opened(path, NEW) as store:
        assert told(path) == []
        await check_kept(store)
    assert told(path) == []
    assert rows(path, "SELECT count(*) FROM setting WHERE name <> 'webhook_secret'") == [(0,)]


async def test_a_log_that_a_crash_left_behind_tells_nothing_once_a_key_came(
    path: Path, tmp_path: Path
) -> None:
    """What was committed and not yet written to the file is sealed like the rest."""
    async with opened(path) as store:
        await fill(store)
        left = tmp_path / "left"
        left.mkdir()
        for each in (path, path.with_name(path.name + "-wal")):
            (left / each.name).write_bytes(each.read_bytes())
    assert told(left / path.name) == list(EVERY)
    async with opened(left / path.name, NEW) as store:
        assert told(left / path.name) == []
        await check_kept(store)


async def test_a_new_key_takes_over_from_the_old_one(path: Path) -> None:
    """Given before the old one, it seals all anew; after that the old one is needed no more."""
    async with opened(path, OLD) as store:
        await fill(store)
    async with opened(path, NEW, OLD) as store:
        await check_kept(store)
        assert told(path, key_id(NEW)) == [key_id(NEW)]
        assert told(path, key_id(OLD)) == []
    async with opened(path, NEW) as store:
        await check_kept(store)
    assert told(path) == []


async def test_a_key_that_is_first_already_changes_nothing(path: Path) -> None:
    """A start as any other rewrites nothing: the sealed texts are the very same."""
    sealed = "SELECT url, headers, secrets FROM endpoint UNION ALL SELECT name, value, '' FROM setting"
    async with opened(path, OLD) as store:
        await fill(store)
    before = rows(path, sealed)
    for keys in ([OLD], [OLD, NEW]):
        async with opened(path, *keys) as store:
            await check_kept(store)
    assert rows(path, sealed) == before


@pytest.mark.parametrize("keys", [[], [NEW]], ids=["no key", "another key"])
async def test_a_store_that_no_key_opens_is_refused_and_left_alone(path: Path, keys: list[bytes]) -> None:
    """It says which key is missing and where to give it; not even orphaned claims are given back."""
    async with opened(path, OLD) as store:
        await fill(store)
        await store.add([born_claimed(submission())])
    before = list(_dump(path))
    for _ in range(2):
        with pytest.raises(StoreSealedError, match=f"{key_id(OLD)}.*NOTIFIER_SECRET_KEY"):
            await SqliteStore(path, Sealer(keys)).open(NOW)
    assert list(_dump(path)) == before
    async with opened(path, OLD) as store:
        await check_kept(store)


async def test_one_secret_under_a_lost_key_is_enough_to_refuse(path: Path) -> None:
    """What the given keys do open is not sealed anew either: all or nothing."""
    async with opened(path, OLD) as store:
        await fill(store)
    lost = b"l" * 32
    _put(path, "UPDATE endpoint SET headers = ?", Sealer([lost]).seal("{}", "endpoint_headers", "ep_1"))
    before = list(_dump(path))
    with pytest.raises(StoreSealedError, match=key_id(lost)):
        await SqliteStore(path, Sealer([NEW, OLD])).open(NOW)
    assert list(_dump(path)) == before


async def test_a_sealed_text_in_anothers_row_is_refused(path: Path) -> None:
    """Who can write the file can't have one endpoint's deliveries signed, or sent, as another's."""
    async with opened(path, NEW) as store:
        await fill(store)
        await store.add_endpoint(subscription(id="ep_3"))
    _put(path, "UPDATE endpoint SET headers = (SELECT headers FROM endpoint WHERE id = ?)", "ep_3")
    with pytest.raises(StoreSealedError, match=r"endpoint_headers of ep_1.*moved"):
        await SqliteStore(path, Sealer([NEW])).open(NOW)


@pytest.mark.parametrize("version", OLD_VERSIONS)
async def test_an_old_store_is_sealed_as_it_is_brought_up_to_date(path: Path, version: int) -> None:
    """The webhook secret that it made for itself was in the clear, and is no longer."""
    make_version(version, path)
    ((secret,),) = rows(path, "SELECT value FROM setting WHERE name = 'webhook_secret'")
    assert told(path, secret) == [secret]
    async with opened(path, NEW) as store:
        assert told(path, secret) == []
        assert await store.setting("webhook_secret", "another", secret=True) == secret
        assert await store.setting("plain", "another") == "value"


async def test_a_file_that_can_not_be_rewritten_is_at_the_next_start(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program reads it: secrets are sealed all the same, it is said what is left, and tried again."""
    monkeypatch.setattr("notifier.store.sqlite._PRAGMAS", ("PRAGMA busy_timeout = 10",))
    async with opened(path) as store:
        await fill(store)
    with contextlib.closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM setting").fetchall()
        async with opened(path, NEW) as store:
            await check_kept(store)
            assert told(path) != []
    assert "traces" in capsys.readouterr().out
    assert rows(path, f"SELECT count(*) FROM setting WHERE name = '{_UNTIDY}'") == [(1,)]  # noqa: S608 - ours
    async with opened(path, NEW) as store:
        await check_kept(store)
        assert told(path) == []


async def test_a_start_that_is_cut_short_loses_no_secret(tmp_path: Path) -> None:
    """Wherever it was cancelled while it sealed, the next start with the keys opens all, and tidies up."""
    for passes in (0, 1, 2, 4, 8, 16, 64, 256):
        path = tmp_path / f"{passes}" / "notifier.db"
        path.parent.mkdir()
        async with opened(path, OLD) as store:
            await fill(store)
        task = asyncio.ensure_future((cut := SqliteStore(path, Sealer([NEW, OLD]))).open(NOW))
        for _ in range(passes):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await cut.close()
        async with opened(path, NEW, OLD) as store:
            await check_kept(store)
        async with opened(path, NEW) as store:
            await check_kept(store)


async def test_the_keys_are_those_of_the_configuration(tmp_path: Path) -> None:
    """In base64, the first of them seals."""
    spelled = ",".join(base64.b64encode(key).decode() for key in (NEW, OLD))
    store = open_store("sqlite:///notifier.db", tmp_path, spelled)
    await store.open(NOW)
    await store.add_endpoint(subscription())
    await store.close()
    async with opened(tmp_path / "notifier.db", NEW) as reopened:
        assert await reopened.endpoints() == [subscription()]


async def test_a_notifier_keeps_its_webhook_secret_sealed(tmp_path: Path) -> None:
    """With a key in the configuration: the secret that it makes at its first start, and has ever after."""
    spelled = base64.b64encode(NEW).decode()
    config = Config(directory=tmp_path, store=StoreSection(secret_key=spelled))
    async with Notifier(config) as notifier:
        secret = notifier.webhook_secret
        assert told(tmp_path / "notifier.db", secret) == []
    assert told(tmp_path / "notifier.db", secret) == []
    async with Notifier(config) as notifier:
        assert notifier.webhook_secret == secret


def _dump(path: Path) -> list[str]:
    """All that a file holds, as statements."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def _put(path: Path, statement: str, value: str) -> None:
    """Write to the file as somebody else could."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(statement, (value,))
