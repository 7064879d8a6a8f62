-- Name the run whose connection holds the lock of a pipeline.
-- Parameters: pipeline (text). Grain: one row, or none when the lock became free meanwhile.
SELECT r.run_id, r.process_id, r.host, r.started_at, r.mode
FROM pg_catalog.pg_locks AS l
LEFT JOIN prescore.runs AS r ON r.backend_pid = l.pid AND r.pipeline = :pipeline AND r.status = 'running'
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('prescore run ' || CAST(:pipeline AS text), 0)
ORDER BY r.run_id DESC NULLS LAST
LIMIT 1
