-- Is what is served within its promise, and did a scheduled run not happen? Judged by the database clock alone, so it
-- stays true while no process of ours runs.
CREATE VIEW prescore.pipeline_health AS
SELECT p.pipeline,
       CASE
           WHEN h.pipeline IS NULL THEN 'missing'
           WHEN h.generation_id = ANY (h.quarantined) THEN 'quarantined'
           WHEN c.now < h.data_as_of - interval '5 minutes' THEN 'clock_error'
           WHEN c.now >= h.expires_at THEN 'expired'
           WHEN c.now >= least(h.stale_at, h.model_stale_at) THEN 'stale'
           WHEN c.now >= least(h.aging_at, h.model_aging_at) OR h.verdict <> 'pass' THEN 'aging'
           ELSE 'fresh'
       END AS state,
       coalesce(d.overdue, false) AS overdue,
       d.overdue_since,
       d.next_tick,
       p.pinned_at IS NOT NULL AS pinned,
       h.generation_id,
       h.published_at,
       c.now - h.data_as_of AS age,
       h.data_as_of,
       least(h.aging_at, h.model_aging_at) AS aging_at,
       least(h.stale_at, h.model_stale_at) AS stale_at,
       h.expires_at,
       h.rows,
       h.model,
       h.model_version,
       coalesce(a.version <> h.model_version, false) AS model_pending,
       coalesce(h.reasons, '{}') AS reasons,
       s.run_id AS last_scheduled_run_id,
       s.started_at AS last_scheduled_run_at,
       s.status AS last_scheduled_status,
       r.run_id AS last_run_id,
       r.started_at AS last_run_at,
       r.trigger AS last_run_trigger,
       r.status AS last_run_status,
       r.message AS last_run_message,
       coalesce(f.failing_checks, '{}') AS failing_checks
FROM prescore.pipelines AS p
CROSS JOIN (SELECT prescore.clock() AS now) AS c
LEFT JOIN prescore.head AS h ON h.pipeline = p.pipeline
LEFT JOIN prescore.aliases AS a ON a.model = p.model AND a.alias = p.alias AND a.until IS NULL
LEFT JOIN LATERAL (
    SELECT bool_or(c.now >= t.next_tick + t.grace) AS overdue,
           min(t.next_tick) FILTER (WHERE c.now >= t.next_tick + t.grace) AS overdue_since,
           min(t.next_tick) AS next_tick
    FROM prescore.schedules AS t
    WHERE t.pipeline = p.pipeline
) AS d ON true
LEFT JOIN LATERAL (
    SELECT q.run_id, q.started_at, q.status
    FROM prescore.runs AS q
    WHERE q.pipeline = p.pipeline AND q.trigger = 'scheduled' AND q.status <> 'skipped'
    ORDER BY q.run_id DESC LIMIT 1
) AS s ON true
LEFT JOIN LATERAL (
    SELECT q.run_id, q.started_at, q.trigger, q.status, q.message
    FROM prescore.runs AS q
    WHERE q.pipeline = p.pipeline AND q.status <> 'skipped'
    ORDER BY q.run_id DESC LIMIT 1
) AS r ON true
LEFT JOIN LATERAL (
    SELECT array_agg(k.check_id || CASE WHEN k.subject = '' THEN '' ELSE ' ' || k.subject END ORDER BY k.check_id, k.subject)
               AS failing_checks
    FROM prescore.checks AS k
    WHERE k.run_id = r.run_id AND k.verdict IN ('fail', 'unknown')
) AS f ON true;

COMMENT ON VIEW prescore.pipeline_health IS
    'One row per pipeline: its state now, whether a scheduled run is overdue, the last scheduled run against the last run of any kind, failing checks.';
COMMENT ON COLUMN prescore.pipeline_health.state IS 'What a reader of an ordinary row sees; missing before the first publication.';
COMMENT ON COLUMN prescore.pipeline_health.overdue IS 'A scheduled tick and its grace have passed and no scheduled publication covers it.';
COMMENT ON COLUMN prescore.pipeline_health.overdue_since IS 'The first tick that was missed.';
COMMENT ON COLUMN prescore.pipeline_health.model_pending IS 'The alias names another version than the one served; the next run will be full.';
