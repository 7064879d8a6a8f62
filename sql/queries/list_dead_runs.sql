-- List runs that are recorded as at work and whose connection is gone: nobody holds the lock of their pipeline for them.
-- Parameters: none. Grain: one row per run.
SELECT r.run_id, r.pipeline, r.host, r.process_id, r.heartbeat_at AS since
FROM prescore.runs AS r
WHERE r.status = 'running' AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_locks AS l
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid = r.backend_pid
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
ORDER BY r.run_id
