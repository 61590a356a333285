-- The whole schema, as a new store gets it; `sqlite_N.sql` brings a store of version N - 1 to the same.
-- Times are whole microseconds since the Unix epoch, UTC.
-- What a state means and may become stands in model.py; the CHECKs hold what each state must carry.

CREATE TABLE event (
    seq             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    type            TEXT NOT NULL,
    data            TEXT NOT NULL,
    tenant          TEXT,
    idempotency_key TEXT,
    fingerprint     TEXT,
    deliver_at      INTEGER,
    created_at      INTEGER NOT NULL,
    CHECK (idempotency_key IS NULL OR fingerprint IS NOT NULL)
) STRICT;

CREATE UNIQUE INDEX event_by_key ON event (idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE job (
    seq             INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    event_seq       INTEGER NOT NULL REFERENCES event (seq),
    channel         TEXT NOT NULL,
    route           TEXT,
    endpoint        TEXT,
    destination     TEXT,
    template        TEXT,
    locale          TEXT,
    lane            TEXT NOT NULL,
    priority        INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2),
    status          TEXT NOT NULL
                    CHECK (status IN ('PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED')),
    attempts        INTEGER NOT NULL CHECK (attempts >= 0),
    max_attempts    INTEGER NOT NULL CHECK (max_attempts >= 1),
    next_attempt_at INTEGER,
    claim           INTEGER NOT NULL CHECK (claim >= 0),
    claimed_until   INTEGER,
    error_code      TEXT,
    error_message   TEXT,
    cause           TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    category        TEXT,
    addressed       TEXT,
    kept            INTEGER NOT NULL DEFAULT 0
                    CHECK (kept = 0 OR (kept = 1 AND status IN ('PENDING', 'PROCESSING'))),
    CHECK ((status = 'PENDING') = (next_attempt_at IS NOT NULL)),
    CHECK ((status = 'PROCESSING') = (claimed_until IS NOT NULL)),
    CHECK ((status = 'FAILED') = (cause IS NOT NULL)),
    CHECK (status <> 'COMPLETED' OR (error_code IS NULL AND destination IS NOT NULL)),
    CHECK ((error_code IS NULL) = (error_message IS NULL))
) STRICT;

CREATE INDEX job_by_event ON job (event_seq);
CREATE INDEX job_by_template ON job (template, seq) WHERE template IS NOT NULL;

-- Each of these holds only the jobs of one state, so none grows with what is finished.
CREATE INDEX job_by_lane ON job (priority, lane, next_attempt_at) WHERE status = 'PENDING';
CREATE INDEX job_by_endpoint ON job (endpoint) WHERE status = 'PENDING' AND endpoint IS NOT NULL;
CREATE INDEX job_claimed ON job (claimed_until) WHERE status = 'PROCESSING';
CREATE INDEX job_failed ON job (seq, cause) WHERE status = 'FAILED';
CREATE INDEX job_cancelled ON job (seq) WHERE status = 'CANCELLED';

-- One attempt a claim, never changed.
CREATE TABLE attempt (
    job_id        TEXT NOT NULL REFERENCES job (id),
    claim         INTEGER NOT NULL,
    started_at    INTEGER NOT NULL,
    duration_us   INTEGER NOT NULL,
    outcome       TEXT NOT NULL CHECK (outcome IN ('delivered', 'retry', 'failed', 'unknown')),
    status_code   INTEGER,
    error_code    TEXT,
    error_message TEXT,
    response      TEXT,
    timings       TEXT,
    via           TEXT,
    PRIMARY KEY (job_id, claim)
) STRICT, WITHOUT ROWID;

-- Requeues by filter that wait for their canary to complete.
CREATE TABLE replay (
    id            TEXT PRIMARY KEY,
    filter        TEXT NOT NULL,
    canary_job_id TEXT NOT NULL,
    created_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The value of a secret is sealed where there is a key (sealing.py).
CREATE TABLE setting (
    name   TEXT PRIMARY KEY,
    value  TEXT NOT NULL,
    secret INTEGER NOT NULL DEFAULT 0 CHECK (secret IN (0, 1))
) STRICT, WITHOUT ROWID;

-- Each replaced as a whole. Where there is a key, url, headers and secrets are sealed.
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

-- What an attempt of unknown outcome sent, to send just that again: a row exactly where `job.kept` is 1.
CREATE TABLE kept (
    job_seq INTEGER PRIMARY KEY REFERENCES job (seq) ON DELETE CASCADE,
    content BLOB NOT NULL
) STRICT;

-- Whom nothing more is sent to, of one category or (without one) at all.
CREATE TABLE suppression (
    seq        INTEGER PRIMARY KEY,
    channel    TEXT NOT NULL,
    recipient  TEXT NOT NULL,
    category   TEXT,
    reason     TEXT NOT NULL CHECK (reason IN ('unsubscribed', 'bounced', 'complained', 'manual')),
    detail     TEXT,
    job_id     TEXT,
    created_at INTEGER NOT NULL,
    UNIQUE (recipient, channel, category)
) STRICT;

-- The key above takes two rows without a category for two, as NULL equals nothing.
CREATE UNIQUE INDEX suppression_of_all ON suppression (recipient, channel) WHERE category IS NULL;

-- How often a recipient was refused for good since something last came through to it.
CREATE TABLE bounce (
    recipient TEXT NOT NULL,
    channel   TEXT NOT NULL,
    count     INTEGER NOT NULL CHECK (count >= 1),
    last_at   INTEGER NOT NULL,
    PRIMARY KEY (recipient, channel)
) STRICT, WITHOUT ROWID;

CREATE INDEX bounce_by_age ON bounce (last_at);
