"""The secrets in a SQLite file, brought under the first key as it is opened, with no trace left of before."""

import sqlite3

import structlog

from notifier.errors import StoreSealedError
from notifier.store.queries import SQL
from notifier.store.sealing import Sealer, is_sealed

_UNTIDY = "store.untidy"
"""Set while the file may hold traces of secrets as they stood before they were sealed anew."""

_log = structlog.get_logger(__name__)


def seal_anew(database: sqlite3.Connection, sealer: Sealer) -> None:
    """Bring every secret under the first key, inside the transaction of the caller.

    Raises StoreSealedError where one does not open with the keys given, or where one in the clear stands
    beside sealed ones: all are sealed at once, so somebody put it there.
    """
    sealed, found = 0, database.execute(SQL["secrets"]).fetchall()
    bare = [(place, owner) for place, owner, kept in found if not is_sealed(kept)]
    if 0 < len(bare) < len(found):
        place, owner = bare[0]
        raise StoreSealedError(f"the {place} of {owner} stands in the clear beside others that are sealed")
    for place, owner, kept in found:
        if (text := sealer.renewed(kept, place, owner)) is not None:
            database.execute(SQL[f"reseal_{place}"], {"owner": owner, "text": text})
            sealed += 1
    if sealed:
        database.execute(SQL["keep_setting"], {"name": _UNTIDY, "value": "", "secret": 0})
        _log.info("secrets are sealed under the first key", count=sealed)


def tidy(database: sqlite3.Connection) -> None:
    """Rewrite the file where sealing anew left traces: in free pages, between rows, and in the log.

    Where that can't be done (no room on the disk, another reader), the store works all the same, and the
    next start tries again.
    """
    if database.execute(SQL["setting"], {"name": _UNTIDY}).fetchone() is None:
        return
    try:
        _rewrite(database)
        database.execute(SQL["drop_setting"], {"name": _UNTIDY})
    except sqlite3.Error as error:
        _log.warning(
            "secrets are sealed, but the file may still hold traces of them; the next start tries again",
            problem=str(error),
        )


def _rewrite(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA temp_store = FILE")  # all that the file holds is copied: not into memory
    try:
        database.execute("VACUUM")
    finally:
        database.execute("PRAGMA temp_store = MEMORY")
    busy, *_ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("another program reads it")
