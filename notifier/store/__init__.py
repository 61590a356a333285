"""Where events, jobs and attempts are kept. Only this package writes, and SQL stands nowhere else."""

from pathlib import Path

from notifier.errors import ConfigError
from notifier.store.base import Store

__all__ = ["Store", "file_url", "open_store"]


def open_store(url: str, directory: Path, secret_key: str = "") -> Store:
    """Make the store that a url names (not opened yet). A relative path counts from `directory`.

    Takes `sqlite:///relative.db` or `sqlite:////absolute.db`, and the keys that seal its secrets as
    `store.secret_key` has them. Raises ConfigError for any other.
    """
    scheme, _, path = url.partition("://")
    if scheme != "sqlite" or not path.startswith("/") or not path[1:]:
        raise ConfigError("store.url", 'expected "sqlite:///notifier.db" or "sqlite:////absolute/path.db"')
    from notifier.store.sealing import Sealer
    from notifier.store.sqlite import SqliteStore

    return SqliteStore(directory / path[1:], Sealer.from_config(secret_key))


def file_url(path: Path) -> str:
    """The url of the store in a file, for `open_store`; `path` is absolute."""
    return f"sqlite:///{path}"
