-- Queries of the SQLite store. Sets go in and come out as JSON, one value a statement: a thread beside
-- a busy event loop pays for the GIL at every step of a statement, not for what a step does.

-- name: event_columns
event.id, event.type, event.data, event.created_at, event.tenant, event.idempotency_key,
event.fingerprint, event.deliver_at

-- name: job_columns
job.id, event.id, event.type, event.tenant, job.channel, job.route, job.endpoint, job.destination,
job.template, job.locale, job.lane, job.priority, job.status, job.attempts, job.max_attempts,
job.next_attempt_at, job.claim, job.error_code, job.error_message, job.created_at, job.updated_at,
job.category, json(job.addressed), job.kept

-- name: last_seqs
SELECT json_array(
    (SELECT coalesce(max(seq), 0) FROM event),
    (SELECT coalesce(max(seq), 0) FROM job)
)

-- name: insert_events
INSERT INTO event (
    seq, id, type, data, tenant, idempotency_key, fingerprint, deliver_at, created_at
) VALUES

-- name: new_job_columns
seq, id, event_seq, channel, route, endpoint, destination, template, locale, lane, priority, status,
attempts, max_attempts, next_attempt_at, claim, claimed_until, created_at, updated_at

-- name: insert_jobs
INSERT INTO job ({new_job_columns}) VALUES

-- name: insert_whole_jobs
-- Apart from `insert_jobs`: even NULLs cost something to bind, and most jobs would bind nothing else.
INSERT INTO job ({new_job_columns}, error_code, error_message, cause, category, addressed) VALUES

-- name: known_keys
SELECT json_group_array(json_array(idempotency_key, fingerprint, id))
FROM event
WHERE idempotency_key IN (SELECT value FROM json_each(:keys))

-- name: event_by_id
SELECT json_array({event_columns}) FROM event WHERE id = :id

-- name: jobs_of_event
SELECT json_array({job_columns})
FROM job JOIN event ON event.seq = job.event_seq
WHERE job.event_seq = (SELECT seq FROM event WHERE id = :id)
ORDER BY job.seq

-- name: lanes
-- A loose scan: one seek a lane, however many jobs wait in it.
WITH RECURSIVE found (lane, nth) AS (
    VALUES ((
        SELECT min(lane) FROM job
        WHERE status = 'PENDING' AND priority = :priority AND lane > :after
    ), 1)
    UNION ALL
    SELECT (
        SELECT min(job.lane) FROM job
        WHERE job.status = 'PENDING' AND job.priority = :priority AND job.lane > found.lane
    ), nth + 1
    FROM found
    WHERE found.lane IS NOT NULL AND nth < :limit
)
SELECT json_group_array(json_array(lane, (
    SELECT min(next_attempt_at) FROM job
    WHERE job.status = 'PENDING' AND job.priority = :priority AND job.lane = found.lane
)))
FROM found
WHERE lane IS NOT NULL AND nth <= :limit

-- name: next_due_of_lanes
SELECT json_group_array(json_array(wanted.value, (
    SELECT min(next_attempt_at) FROM job
    WHERE job.status = 'PENDING' AND job.priority = :priority AND job.lane = wanted.value
)))
FROM json_each(:lanes) AS wanted

-- name: due_of_lanes
SELECT json_group_array(json_array(wanted.value, job.seq, length(event.data)))
FROM json_each(:lanes) AS wanted
JOIN job ON job.seq IN (
    SELECT due.seq FROM job AS due
    WHERE due.status = 'PENDING' AND due.priority = :priority
      AND due.lane = wanted.value AND due.next_attempt_at <= :now
    ORDER BY due.next_attempt_at
    LIMIT :per_lane
)
JOIN event ON event.seq = job.event_seq

-- name: claim
UPDATE job
SET status = 'PROCESSING', claim = claim + 1, claimed_until = :until, next_attempt_at = NULL,
    updated_at = :now
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: claimed
-- Without what a claim knows of its jobs: their status, priority, and when they were claimed.
SELECT json_group_array(json_array(
    job.id, job.channel, job.route, job.endpoint, job.destination, job.template, job.locale, job.lane,
    job.attempts, job.max_attempts, job.claim, job.error_code, job.error_message, job.created_at,
    job.category, json(job.addressed), job.kept,
    {event_columns}
))
FROM json_each(:seqs) AS wanted
JOIN job ON job.seq = wanted.value
JOIN event ON event.seq = job.event_seq

-- name: stale_or_kept
-- Of these claims, those that are no longer theirs (with NULL), and those on jobs of which something is kept
-- (with the job's row number): nearly all are neither.
SELECT json_group_array(json_array(wanted.key, CASE
    WHEN job.claim IS json_extract(wanted.value, '$[1]') AND job.status = 'PROCESSING' THEN job.seq
END))
FROM json_each(:claims) AS wanted
LEFT JOIN job ON job.id = json_extract(wanted.value, '$[0]')
WHERE job.claim IS NOT json_extract(wanted.value, '$[1]') OR job.status <> 'PROCESSING' OR job.kept

-- name: still_claimed
-- Finds the job of a settlement, unless the claim is no longer its own.
job.id = json_extract(wanted.value, '$[0]') AND job.claim = json_extract(wanted.value, '$[1]')
AND job.status = 'PROCESSING'

-- name: complete
-- What nearly all settlements come to, apart from `settle`: to take a value out of JSON costs something too.
UPDATE job
SET status          = 'COMPLETED',
    updated_at      = json_extract(wanted.value, '$[2]'),
    next_attempt_at = NULL,
    error_code      = NULL,
    error_message   = NULL,
    cause           = NULL,
    attempts        = attempts + 1,
    claimed_until   = NULL
FROM json_each(:settlements) AS wanted
WHERE {still_claimed} AND NOT job.kept

-- name: settle
UPDATE job
SET status          = json_extract(wanted.value, '$[2]'),
    updated_at      = json_extract(wanted.value, '$[3]'),
    next_attempt_at = json_extract(wanted.value, '$[4]'),
    error_code      = json_extract(wanted.value, '$[5]'),
    error_message   = json_extract(wanted.value, '$[6]'),
    cause           = json_extract(wanted.value, '$[7]'),
    attempts        = attempts + json_extract(wanted.value, '$[8]'),
    claimed_until   = NULL
FROM json_each(:settlements) AS wanted
WHERE {still_claimed} AND (NOT job.kept OR json_extract(wanted.value, '$[2]') = 'PENDING')

-- name: make_out
-- Apart from `settle`, which runs for every job that failed: naming the lane there would have its index looked after.
UPDATE job
SET destination = :destination, lane = :lane, locale = :locale, addressed = :addressed
WHERE id = :id

-- name: keep_content
REPLACE INTO kept (job_seq, content) SELECT seq, :content FROM job WHERE id = :id

-- name: mark_kept
UPDATE job SET kept = 1 WHERE id = :id

-- name: forget_content
DELETE FROM kept WHERE job_seq IN (SELECT value FROM json_each(:seqs))

-- name: unmark_kept
UPDATE job SET kept = 0 WHERE seq IN (SELECT value FROM json_each(:seqs)) AND kept

-- name: kept_content
SELECT content FROM kept WHERE job_seq = (SELECT seq FROM job WHERE id = :id)

-- name: insert_attempts
INSERT INTO attempt (
    job_id, claim, started_at, duration_us, outcome, status_code, error_code, error_message, response,
    timings, via
) VALUES

-- name: renew
UPDATE job
SET claimed_until = :until
FROM json_each(:claims) AS held
WHERE job.id = json_extract(held.value, '$[0]') AND job.claim = json_extract(held.value, '$[1]')
  AND job.status = 'PROCESSING'

-- name: rescue
UPDATE job
SET status = 'PENDING', next_attempt_at = :now, claimed_until = NULL, updated_at = :now
WHERE status = 'PROCESSING' AND claimed_until <= :before

-- name: job
SELECT json_array({job_columns}) FROM job JOIN event ON event.seq = job.event_seq WHERE job.id = :id

-- name: attempts
SELECT json_array(
    started_at, duration_us, outcome, status_code, error_code, error_message, response, json(timings), via
)
FROM attempt
WHERE job_id = :id
ORDER BY claim

-- name: jobs
SELECT job.seq, json_array({job_columns})
FROM job JOIN event ON event.seq = job.event_seq
WHERE job.seq < :before {conditions}
ORDER BY job.seq DESC
LIMIT :limit

-- name: count
SELECT count(*) FROM job WHERE TRUE {conditions}

-- name: some_seqs
SELECT json_group_array(json_array(seq, id)) FROM (
    SELECT job.seq, job.id
    FROM job
    WHERE job.status <> 'PROCESSING' {conditions}
    ORDER BY job.seq
    LIMIT :limit
)

-- name: some_pending
SELECT json_group_array(seq) FROM (
    SELECT job.seq
    FROM job
    WHERE job.status = 'PENDING' {conditions}
    ORDER BY job.seq
    LIMIT :limit
)

-- name: where_status
AND job.status = '{status}'

-- name: where_channel
AND job.channel = :channel

-- name: where_event_type
-- Apart from any join: what isn't asked about events is answered without a look at them.
AND (SELECT event.type FROM event WHERE event.seq = job.event_seq) = :event_type

-- name: where_route
AND job.route = :route

-- name: where_endpoint
AND job.endpoint = :endpoint

-- name: where_destination
AND job.destination = :destination

-- name: where_tenant
AND (SELECT event.tenant FROM event WHERE event.seq = job.event_seq) = :tenant

-- name: where_cause
AND job.cause = :cause

-- name: where_created_after
AND job.created_at >= :created_after

-- name: where_created_before
AND job.created_at < :created_before

-- name: where_updated_before
AND job.updated_at < :updated_before

-- name: counts
SELECT json_object(
    'PENDING',    (SELECT count(*) FROM job WHERE status = 'PENDING'),
    'PROCESSING', (SELECT count(*) FROM job WHERE status = 'PROCESSING'),
    'FAILED',     (SELECT count(*) FROM job WHERE status = 'FAILED'),
    'CANCELLED',  (SELECT count(*) FROM job WHERE status = 'CANCELLED'),
    'all',        (SELECT count(*) FROM job)
)

-- name: failures
SELECT json_array(
    cause, channel, max(error_code), max(error_message), template, count(*),
    min(updated_at), max(updated_at), json_group_array(id) FILTER (WHERE nth <= 5)
)
FROM (
    SELECT job.id, cause, job.channel, error_code, error_message, job.template, job.updated_at,
           row_number() OVER (PARTITION BY cause ORDER BY job.seq DESC) AS nth
    FROM job
    WHERE job.status = 'FAILED' {conditions}
)
GROUP BY cause
ORDER BY count(*) DESC, cause

-- name: requeue
UPDATE job
SET status = 'PENDING', attempts = 0, next_attempt_at = :now, cause = NULL, claim = claim + 1,
    updated_at = :now
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: cancel
UPDATE job
SET status = 'CANCELLED', next_attempt_at = NULL, claim = claim + 1, updated_at = :now
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: recent
-- Of an event that has several such jobs, the newest.
SELECT json_array(json_array({job_columns}), json_array({event_columns}))
FROM job JOIN event ON event.seq = job.event_seq
WHERE job.template = :template
  AND NOT EXISTS (
      SELECT 1 FROM job AS later
      WHERE later.event_seq = job.event_seq AND later.seq > job.seq
        AND later.template = job.template AND later.locale IS job.locale
  )
ORDER BY job.seq DESC
LIMIT :limit

-- name: state_of_job
SELECT json_array(seq, status) FROM job WHERE id = :id

-- name: add_replay
INSERT INTO replay (id, filter, canary_job_id, created_at) VALUES (:id, :filter, :canary_job_id, :created_at)

-- name: replays
SELECT json_array(id, filter, canary_job_id, created_at) FROM replay ORDER BY created_at, id

-- name: drop_replay
DELETE FROM replay WHERE id = :id

-- name: old_jobs
-- From a position on, oldest first, a bounded number: how far this looked, whether all that is old enough
-- has been looked at now, and those that may go.
SELECT json_array(
    max(seq), count(*) < :scan OR max(created_at) >= :newest,
    json_group_array(seq) FILTER (WHERE expired)
) FROM (
    SELECT seq, created_at,
           CASE status WHEN 'COMPLETED' THEN updated_at < :completed_before
                       WHEN 'FAILED' THEN updated_at < :failed_before
                       WHEN 'CANCELLED' THEN updated_at < :failed_before
                       ELSE FALSE END AS expired
    FROM job
    WHERE seq > :after
    ORDER BY seq
    LIMIT :scan
)

-- name: events_of_jobs
SELECT json_group_array(DISTINCT event_seq) FROM job WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: delete_attempts
DELETE FROM attempt
WHERE job_id IN (SELECT job.id FROM job WHERE seq IN (SELECT value FROM json_each(:seqs)))

-- name: delete_jobs
DELETE FROM job WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: delete_events
DELETE FROM event
WHERE seq IN (SELECT value FROM json_each(:seqs))
  AND NOT EXISTS (SELECT 1 FROM job WHERE job.event_seq = event.seq)

-- name: old_events
SELECT json_array(
    max(seq), count(*) < :scan OR max(created_at) >= :before,
    json_group_array(seq) FILTER (WHERE expired)
) FROM (
    SELECT seq, created_at,
           created_at < :before AND NOT EXISTS (SELECT 1 FROM job WHERE job.event_seq = event.seq) AS expired
    FROM event
    WHERE seq > :after
    ORDER BY seq
    LIMIT :scan
)

-- name: suppression_columns
channel, recipient, category, reason, detail, job_id, created_at

-- name: add_suppression
INSERT INTO suppression ({suppression_columns})
VALUES (:channel, :recipient, :category, :reason, :detail, :job_id, :created_at)
ON CONFLICT DO NOTHING

-- name: drop_suppression
DELETE FROM suppression WHERE recipient = :recipient AND channel = :channel AND category IS :category

-- name: suppressed
-- The one that covers everything, before one of just this category.
SELECT json_array({suppression_columns})
FROM suppression
WHERE recipient = :recipient AND channel = :channel AND (category IS NULL OR category = :category)
ORDER BY category
LIMIT 1

-- name: known_recipients
SELECT recipient FROM suppression UNION ALL SELECT recipient FROM bounce

-- name: suppressions
SELECT seq, json_array({suppression_columns})
FROM suppression
WHERE seq < :after {conditions}
ORDER BY seq DESC
LIMIT :limit

-- name: suppressions_channel
AND channel = :channel

-- name: suppressions_recipient
AND recipient = :recipient

-- name: suppressions_reason
AND reason = :reason

-- name: count_bounce
INSERT INTO bounce (recipient, channel, count, last_at) VALUES (:recipient, :channel, 1, :now)
ON CONFLICT DO UPDATE SET count = count + 1, last_at = excluded.last_at
RETURNING count

-- name: has_bounced
SELECT 1 FROM bounce WHERE recipient = :recipient AND channel = :channel

-- name: forget_bounces
DELETE FROM bounce WHERE recipient = :recipient AND channel = :channel

-- name: delete_bounces
DELETE FROM bounce
WHERE (recipient, channel) IN (
    SELECT recipient, channel FROM bounce WHERE last_at < :before ORDER BY last_at LIMIT :limit
)

-- name: keep_setting
INSERT INTO setting (name, value, secret) VALUES (:name, :value, :secret) ON CONFLICT DO NOTHING

-- name: setting
SELECT value FROM setting WHERE name = :name

-- name: drop_setting
DELETE FROM setting WHERE name = :name

-- name: endpoint_columns
id, url, event_types, tenant, condition, description, headers, template, rate_limit, max_in_flight,
state, state_reason, state_changed_at, secrets, failing_since, reported, deleted, created_at, updated_at

-- name: endpoint_values
:id, :url, :event_types, :tenant, :condition, :description, :headers, :template, :rate_limit, :max_in_flight,
:state, :state_reason, :state_changed_at, :secrets, :failing_since, :reported, :deleted, :created_at, :updated_at

-- name: add_endpoint
INSERT INTO endpoint ({endpoint_columns}) VALUES ({endpoint_values})

-- name: save_endpoint
REPLACE INTO endpoint ({endpoint_columns}) VALUES ({endpoint_values})

-- name: endpoint_exists
SELECT 1 FROM endpoint WHERE id = :id

-- name: endpoints
SELECT {endpoint_columns} FROM endpoint ORDER BY created_at, id

-- name: drop_endpoint
DELETE FROM endpoint WHERE id = :id

-- name: secrets
-- All that is sealed: its place, whose it is, and what is kept.
SELECT 'endpoint_url', id, url FROM endpoint
UNION ALL SELECT 'endpoint_headers', id, headers FROM endpoint
UNION ALL SELECT 'endpoint_secrets', id, secrets FROM endpoint
UNION ALL SELECT 'setting', name, value FROM setting WHERE secret

-- name: reseal_endpoint_url
UPDATE endpoint SET url = :text WHERE id = :owner

-- name: reseal_endpoint_headers
UPDATE endpoint SET headers = :text WHERE id = :owner

-- name: reseal_endpoint_secrets
UPDATE endpoint SET secrets = :text WHERE id = :owner

-- name: reseal_setting
UPDATE setting SET value = :text WHERE name = :owner
