"""Where events, jobs and attempts are kept. Only this package writes, and SQL stands nowhere else."""

from pathlib import Path

from notifier.errors import ConfigError
from notifier.store.base import Store

__all__ = ["Store", "file_url", "folder_of", "open_store"]


def open_store(url: str, directory: Path, secret_key: str = "") -> Store:
    """Make the store that a url names (not opened yet). A relative path counts from `directory`.

    Takes `sqlite:///relative.db` or `sqlite:////absolute.db`, and the keys that seal its secrets as
    `store.secret_key` has them. Raises ConfigError for any other.
    """
    path = _path(url, directory)
    from notifier.store.sealing import Sealer
    from notifier.store.sqlite import SqliteStore

    return SqliteStore(path, Sealer.from_config(secret_key))


def folder_of(url: str, directory: Path) -> Path:
    """The folder that the store of a url is in, whether or not it is there yet. Raises as `open_store`."""
    return _path(url, directory).resolve().parent


def file_url(path: Path) -> str:
    """The url of the store in a file, for `open_store`; `path` is absolute."""
    return f"sqlite:///{path}"


def _path(url: str, directory: Path) -> Path:
    scheme, _, path = url.partition("://")
    if scheme != "sqlite" or not path.startswith("/") or not path[1:]:
        raise ConfigError("store.url", 'expected "sqlite:///notifier.db" or "sqlite:////absolute/path.db"')
    return directory / path[1:]
