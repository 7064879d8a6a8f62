-- List what keeps migrations out: connections that hold the gate, or the lock of a pipeline, and the runs that they work for.
-- Parameters: none. Grain: one row per connection; run_id is NULL for one that works for no run, such as a rollback.
SELECT a.pid, coalesce(r.pipeline, p.pipeline) AS pipeline, r.run_id, r.process_id, r.host, a.application_name, a.usename,
       coalesce(r.started_at, a.backend_start) AS since
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
LEFT JOIN prescore.pipelines AS p
  ON hashtextextended('prescore run ' || p.pipeline, 0) = (l.classid::bigint << 32 | l.objid::bigint)
LEFT JOIN LATERAL (
    SELECT q.pipeline, q.run_id, q.process_id, q.host, q.started_at
    FROM prescore.runs AS q
    WHERE q.backend_pid = l.pid AND q.status = 'running'
    ORDER BY q.run_id DESC LIMIT 1
) AS r ON true
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (p.pipeline IS NOT NULL
       OR (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('prescore gate', 0))
ORDER BY a.pid, p.pipeline
