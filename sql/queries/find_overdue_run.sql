-- Find the run that holds the lock of a pipeline although it should have ended by itself: its process hangs.
-- Parameters: pipeline (text), grace (interval: how long it may take to end by itself). Grain: one row or none.
SELECT r.run_id, r.pipeline, r.status, r.started_at, r.max_duration, r.host, r.process_id, r.backend_pid, r.backend_start
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
JOIN prescore.runs AS r ON r.backend_pid = a.pid AND r.backend_start = a.backend_start AND r.pipeline = :pipeline
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('prescore run ' || CAST(:pipeline AS text), 0)
  AND clock_timestamp() >= r.started_at + r.max_duration + CAST(:grace AS interval)
  AND a.usename = current_user
ORDER BY r.run_id DESC
LIMIT 1
