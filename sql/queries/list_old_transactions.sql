-- List the transactions of this database that have been open for long: VACUUM removes nothing that they may see, and a storage that
-- they may read is emptied row by row. Those of runs at work are left out.
-- Parameters: longer_than (interval). Grain: one row per connection, the oldest first.
SELECT a.pid, CAST(a.usename AS text) AS role, a.application_name, a.state, a.xact_start AS since,
       a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL AS holds_back
FROM pg_catalog.pg_stat_activity AS a
WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
  AND a.xact_start < clock_timestamp() - CAST(:longer_than AS interval)
  AND NOT (a.application_name LIKE 'prescore%' AND EXISTS (
      SELECT FROM prescore.runs AS r
      WHERE r.status = 'running' AND r.started_at <= a.xact_start AND r.heartbeat_at > clock_timestamp() - interval '5 minutes'))
ORDER BY a.xact_start
