-- What a notifier of schema version 2 left behind: its schema, and some of everything.

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
    CHECK ((status = 'PENDING') = (next_attempt_at IS NOT NULL)),
    CHECK ((status = 'PROCESSING') = (claimed_until IS NOT NULL)),
    CHECK ((status = 'FAILED') = (cause IS NOT NULL)),
    CHECK (status <> 'COMPLETED' OR (error_code IS NULL AND destination IS NOT NULL)),
    CHECK ((error_code IS NULL) = (error_message IS NULL))
) STRICT;

CREATE INDEX job_by_event ON job (event_seq);

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

INSERT INTO event VALUES
    (1, 'evt_1', 'order.paid', '{"total":120}', 'acme', 'k-1', 'f1', NULL, 1800000000000000),
    (2, 'evt_2', 'order.lost', '{}', NULL, NULL, NULL, NULL, 1800000001000000);

INSERT INTO job VALUES
    (1, 'job_1', 1, 'webhook', 'erp', 'ep_1', 'https://a.example/', NULL, NULL, 'endpoint:ep_1', 1,
     'COMPLETED', 2, 8, NULL, 2, NULL, NULL, NULL, NULL, 1800000000000000, 1800000009000000),
    (2, 'job_2', 1, 'email', 'mail', NULL, 'ada@example.com', 'paid', 'fr', 'email:example.com', 0,
     'PENDING', 0, 8, 1800000060000000, 0, NULL, NULL, NULL, NULL, 1800000000000000, 1800000000000000),
    (3, 'job_3', 2, 'webhook', 'erp', NULL, 'https://a.example/', NULL, NULL, 'webhook:a.example:443', 1,
     'PROCESSING', 0, 8, NULL, 1, 1800000060000000, NULL, NULL, NULL, 1800000001000000, 1800000001000000),
    (4, 'job_4', 2, 'email', 'mail', NULL, NULL, 'lost', NULL, 'email', 1,
     'FAILED', 0, 8, NULL, 0, NULL, 'template_error', 'no address', 'c4', 1800000001000000, 1800000001000000);

INSERT INTO attempt VALUES
    ('job_1', 1, 1800000001000000, 250000, 'retry', 503, 'http_503', 'the receiver answered 503', 'later',
     NULL),
    ('job_1', 2, 1800000008000000, 125000, 'delivered', 200, NULL, NULL, 'thanks',
     '[1000,2000,3000,100000,5000,300,6]');

INSERT INTO replay VALUES ('rpl_1', '{"status":"FAILED"}', 'job_2', 1800000000000000);

INSERT INTO setting VALUES
    ('webhook_secret', 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD', 1), ('plain', 'value', 0);

INSERT INTO endpoint VALUES
    ('ep_1', 'https://a.example/?token=t-1', '["order.*"]', 'acme', NULL, 'the ERP', '{"X-Key":"h-1"}', NULL,
     5.0, 2, 'paused', 'paused by an operator', 1800000002000000,
     '[["whsec_bm90IGEgc2VjcmV0LCBub3QgYSBzZWNyZXQh",1800000000000000,null]]', NULL, 0, 0,
     1800000000000000, 1800000002000000);

PRAGMA user_version = 2;
