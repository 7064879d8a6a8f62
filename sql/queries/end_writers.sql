-- End the connections that still write into the storages of a pipeline, or index them, though the caller holds its lock: a run that lost
-- that lock without knowing left them. Others than prescore's are not touched; waits up to 5 s for each to be gone.
-- Parameters: pipeline (text). Grain: one row per ended connection.
SELECT a.pid, pg_terminate_backend(a.pid, 5000) AS gone
FROM prescore.storages AS s
JOIN pg_catalog.pg_locks AS l
  ON l.relation = to_regclass(format('prescore_rows.%I', s.pipeline || '_' || s.storage_id))
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE s.pipeline = :pipeline AND l.locktype = 'relation' AND l.mode IN ('RowExclusiveLock', 'ShareLock') AND l.granted
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND a.pid <> pg_backend_pid() AND a.usename = current_user AND a.application_name LIKE 'prescore%'
