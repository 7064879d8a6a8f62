-- Say how a run ended, whether somebody asked it to, and whether the connection with its lock is there.
-- Parameters: run_id. Grain: one row, or none when there is no such run.
SELECT r.run_id, r.pipeline, r.status, r.message, r.started_at, r.ended_at, r.max_duration, r.host, r.process_id,
       r.cancel_asked_at, r.cancel_asked_by, r.cancel_because, r.backend_pid, r.backend_start, a.pid IS NOT NULL AS connected
FROM prescore.runs AS r
LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = r.backend_pid AND a.backend_start = r.backend_start
WHERE r.run_id = :run_id
