-- From version 2 to 3: what kind of mail a job is, whom it is addressed to and what of it is kept; what
-- attempts went by; suppressions and bounces.

ALTER TABLE job ADD COLUMN category TEXT;
ALTER TABLE job ADD COLUMN addressed TEXT;
ALTER TABLE job ADD COLUMN kept INTEGER NOT NULL DEFAULT 0
    CHECK (kept = 0 OR (kept = 1 AND status IN ('PENDING', 'PROCESSING')));
CREATE INDEX job_by_template ON job (template, seq) WHERE template IS NOT NULL;

ALTER TABLE attempt ADD COLUMN via TEXT;

CREATE TABLE kept (
    job_seq INTEGER PRIMARY KEY REFERENCES job (seq) ON DELETE CASCADE,
    content BLOB NOT NULL
) STRICT;

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

CREATE UNIQUE INDEX suppression_of_all ON suppression (recipient, channel) WHERE category IS NULL;

CREATE TABLE bounce (
    recipient TEXT NOT NULL,
    channel   TEXT NOT NULL,
    count     INTEGER NOT NULL CHECK (count >= 1),
    last_at   INTEGER NOT NULL,
    PRIMARY KEY (recipient, channel)
) STRICT, WITHOUT ROWID;

CREATE INDEX bounce_by_age ON bounce (last_at);
