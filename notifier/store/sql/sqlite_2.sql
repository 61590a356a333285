-- From version 1 to 2: endpoints, the timings of attempts, and which settings are to be sealed.

DROP INDEX job_by_due;
CREATE INDEX job_by_endpoint ON job (endpoint) WHERE status = 'PENDING' AND endpoint IS NOT NULL;

ALTER TABLE attempt ADD COLUMN timings TEXT;

ALTER TABLE setting ADD COLUMN secret INTEGER NOT NULL DEFAULT 0 CHECK (secret IN (0, 1));
UPDATE setting SET secret = 1 WHERE name = 'webhook_secret';

CREATE TABLE endpoint (
    id               TEXT PRIMARY KEY,
    url              TEXT NOT NULL,
    event_types      TEXT NOT NULL,
    tenant           TEXT,
    condition        TEXT,
    description      TEXT,
    headers          TEXT NOT NULL,
    template         TEXT,
    rate_limit       REAL,
    max_in_flight    INTEGER,
    state            TEXT NOT NULL CHECK (state IN ('enabled', 'paused', 'disabled')),
    state_reason     TEXT,
    state_changed_at INTEGER NOT NULL,
    secrets          TEXT NOT NULL,
    failing_since    INTEGER,
    reported         INTEGER NOT NULL CHECK (reported IN (0, 1)),
    deleted          INTEGER NOT NULL CHECK (deleted IN (0, 1)),
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
