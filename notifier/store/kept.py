"""What an attempt of unknown outcome sent: kept in the SQLite store until it is known, or given up."""

import sqlite3

from notifier.store.queries import SQL


def keep(database: sqlite3.Connection, job_id: str, content: bytes) -> None:
    """Keep what was sent of a PROCESSING job, in place of what was kept of it before."""
    database.execute(SQL["keep_content"], {"id": job_id, "content": content})
    database.execute(SQL["mark_kept"], {"id": job_id})


def forget(database: sqlite3.Connection, seqs: str) -> None:
    """Forget what is kept of any of these jobs (row numbers, as JSON)."""
    if database.execute(SQL["forget_content"], {"seqs": seqs}).rowcount:
        database.execute(SQL["unmark_kept"], {"seqs": seqs})


def content_of(database: sqlite3.Connection, job_id: str) -> bytes | None:
    """Read what is kept of a job."""
    found = database.execute(SQL["kept_content"], {"id": job_id}).fetchone()
    return None if found is None else found[0]
