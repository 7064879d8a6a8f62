-- Read what is measured of each pipeline: its promise, its last runs, its model; with rights on the views of health alone.
-- Parameters: none. Grain: one row per pipeline; seconds, NULL where there is nothing to measure; rejected is that of what is served.
SELECT h.pipeline,
       h.state,
       h.overdue,
       h.pinned,
       h.hung_run_id IS NOT NULL AS hung,
       h.model_pending,
       extract(epoch FROM h.age)::double precision AS age,
       extract(epoch FROM h.data_as_of)::double precision AS data_as_of,
       extract(epoch FROM h.aging_at - i.now)::double precision AS until_aging,
       extract(epoch FROM h.stale_at - i.now)::double precision AS until_stale,
       extract(epoch FROM h.expires_at - i.now)::double precision AS until_expired,
       extract(epoch FROM h.published_at)::double precision AS published_at,
       h.rows,
       s.rejected,
       coalesce(q.quarantined_generations, 0) AS quarantined_generations,
       h.last_run_status,
       extract(epoch FROM h.last_run_at)::double precision AS last_run_at,
       e.seconds,
       e.rows_per_second,
       e.cpu_seconds,
       e.postgres_cpu_seconds,
       e.peak_memory,
       e.scored,
       e.unchanged,
       e.rejected AS run_rejected,
       f.failures,
       m.model,
       m.alias,
       m.served_version,
       m.aliased_version,
       extract(epoch FROM m.age)::double precision AS model_age,
       m.size_bytes AS model_bytes
FROM prescore.pipeline_health AS h
CROSS JOIN prescore.installation_health AS i
LEFT JOIN prescore.model_health AS m ON m.pipeline = h.pipeline
LEFT JOIN prescore.run_health AS s ON s.run_id = h.served_run_id
LEFT JOIN prescore.storage_health AS q ON q.pipeline = h.pipeline AND q.role = 'current'
LEFT JOIN LATERAL (
    SELECT r.seconds, r.rows_per_second, r.cpu_seconds, r.postgres_cpu_seconds, r.peak_memory, r.scored, r.unchanged,
           r.rejected
    FROM prescore.run_health AS r
    WHERE r.pipeline = h.pipeline AND r.status NOT IN ('running', 'skipped')
    ORDER BY r.run_id DESC LIMIT 1
) AS e ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS failures
    FROM prescore.run_health AS r
    WHERE r.pipeline = h.pipeline AND r.status IN ('held', 'aborted', 'failed', 'crashed')
      AND r.run_id > coalesce((SELECT max(g.run_id)
                               FROM prescore.run_health AS g
                               WHERE g.pipeline = h.pipeline AND g.status = 'published'), 0)
) AS f
ORDER BY h.pipeline
