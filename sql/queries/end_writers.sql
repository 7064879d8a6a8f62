-- End the connections that still write into a storage, though the caller holds the lock of its pipeline: a run that lost
-- its own lock left them. Others than prescore's are not touched; waits up to 5 s for each to be gone.
-- Parameters: storage (text, a quoted table). Grain: one row per ended connection.
SELECT a.pid, pg_terminate_backend(a.pid, 5000) AS gone
FROM pg_catalog.pg_locks AS l
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = CAST(:storage AS regclass) AND l.mode = 'RowExclusiveLock' AND l.granted
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND a.pid <> pg_backend_pid() AND a.usename = current_user AND a.application_name LIKE 'prescore%'
