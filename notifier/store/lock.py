"""One process owns a SQLite file: an advisory lock beside it says so, and falls with its process."""

import contextlib
import fcntl
import os
from pathlib import Path

from notifier.errors import StoreInUseError, StoreUnavailableError


class FileLock:
    """An exclusive lock on `PATH.lock`, which names its holder's process id for people to read."""

    def __init__(self, path: Path) -> None:
        self._guarded = path
        real = path.resolve()  # a symbolic link names the same file
        self._path = real.with_name(real.name + ".lock")
        self._file: int | None = None

    def take(self) -> None:
        """Take the lock, or raise StoreInUseError naming who holds it."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailableError(f"{self._guarded}: can't be opened: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(file, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(file)
            raise StoreInUseError(
                f"{self._guarded}: in use by another notifier (process {holder}); a SQLite file has one owner"
            ) from None
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._file = file

    def release(self) -> None:
        """Let go; harmless when not held. The file stays, so that no one can lock one just unlinked."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None
