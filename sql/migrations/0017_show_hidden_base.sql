-- pipeline_health is quarantined, too, when the full run is that most rows stem from, whatever incremental runs published since; and
-- it knows a clock that is wrong by the run's own instant as well, as readers do.
CREATE OR REPLACE VIEW prescore.pipeline_health AS
SELECT p.pipeline,
       t.state,
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
       coalesce(f.failing_checks, '{}') AS failing_checks,
       coalesce(f.warning_checks, '{}') AS warning_checks,
       coalesce(f.followups, '{}') AS followups,
       f.last_check_at,
       CASE t.state
           WHEN 'expired' THEN h.expires_at
           WHEN 'stale' THEN least(h.stale_at, h.model_stale_at)
           WHEN 'aging' THEN CASE WHEN h.verdict <> 'pass' THEN least(g.clock_at, h.aging_at, h.model_aging_at)
                                  ELSE least(h.aging_at, h.model_aging_at) END
           WHEN 'fresh' THEN g.clock_at
           WHEN 'quarantined' THEN coalesce(b.quarantined_at, g.quarantined_at)
       END AS state_since,
       g.run_id AS served_run_id,
       coalesce(w.waived_checks, '{}') AS waived_checks,
       u.hung_run_id,
       d.next_full,
       d.next_incremental
FROM prescore.pipelines AS p
CROSS JOIN (SELECT prescore.clock() AS now) AS c
LEFT JOIN prescore.head AS h ON h.pipeline = p.pipeline
LEFT JOIN LATERAL (
    SELECT max(q.quarantined_at) AS quarantined_at
    FROM prescore.generations AS q
    WHERE q.generation_id = ANY (h.quarantined) AND q.mode = 'full'
) AS b ON true
CROSS JOIN LATERAL (
    SELECT CASE
               WHEN h.pipeline IS NULL THEN 'missing'
               WHEN h.generation_id = ANY (h.quarantined) OR b.quarantined_at IS NOT NULL THEN 'quarantined'
               WHEN c.now < greatest(h.data_as_of, h.as_of) - interval '5 minutes' THEN 'clock_error'
               WHEN c.now >= h.expires_at THEN 'expired'
               WHEN c.now >= least(h.stale_at, h.model_stale_at) THEN 'stale'
               WHEN c.now >= least(h.aging_at, h.model_aging_at) OR h.verdict <> 'pass' THEN 'aging'
               ELSE 'fresh'
           END AS state
) AS t
LEFT JOIN prescore.aliases AS a ON a.model = p.model AND a.alias = p.alias AND a.until IS NULL
LEFT JOIN LATERAL (
    SELECT q.run_id, q.clock_at, o.quarantined_at
    FROM prescore.generations AS o
    JOIN prescore.runs AS q ON q.run_id = o.run_id
    WHERE o.generation_id = h.generation_id
) AS g ON true
LEFT JOIN LATERAL (
    SELECT bool_or(c.now >= e.next_tick + e.grace) AS overdue,
           min(e.next_tick) FILTER (WHERE c.now >= e.next_tick + e.grace) AS overdue_since,
           min(e.next_tick) AS next_tick,
           min(e.next_tick) FILTER (WHERE e.mode = 'full') AS next_full,
           min(e.next_tick) FILTER (WHERE e.mode = 'incremental') AS next_incremental
    FROM prescore.schedules AS e
    WHERE e.pipeline = p.pipeline
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
    SELECT q.run_id
    FROM prescore.runs AS q
    WHERE q.pipeline = p.pipeline AND q.status IN ('published', 'held', 'aborted')
    ORDER BY q.run_id DESC LIMIT 1
) AS j ON true
LEFT JOIN LATERAL (
    SELECT array_agg(l.label ORDER BY l.label) FILTER (WHERE k.effective = 'fail') AS failing_checks,
           array_agg(l.label ORDER BY l.label) FILTER (WHERE k.effective = 'warn') AS warning_checks,
           max(k.checked_at) AS last_check_at,
           (SELECT array_agg(DISTINCT n.followup ORDER BY n.followup)
            FROM prescore.checks AS m
            CROSS JOIN LATERAL unnest(m.followups) AS n (followup)
            WHERE m.run_id = j.run_id AND m.effective IN ('warn', 'fail')) AS followups
    FROM prescore.checks AS k
    CROSS JOIN LATERAL (SELECT concat_ws(' ', k.check_id, nullif(k.subject, '')) AS label) AS l
    WHERE k.run_id = j.run_id
) AS f ON true
LEFT JOIN LATERAL (
    SELECT array_agg(concat_ws(' ', k.check_id, nullif(k.subject, '')) ORDER BY k.check_id, k.subject) AS waived_checks
    FROM prescore.checks AS k
    WHERE k.run_id = g.run_id AND k.waived
) AS w ON true
LEFT JOIN LATERAL (
    SELECT max(q.run_id) AS hung_run_id
    FROM prescore.runs AS q
    WHERE q.pipeline = p.pipeline AND q.status = 'running' AND q.heartbeat_at <= statement_timestamp() - interval '5 minutes'
) AS u ON true;
