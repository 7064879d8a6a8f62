-- End connections of a run, so that what waits for them in its process hears of it.
-- Parameters: pids (integer[]), since (instant: when the run was opened; pids are used again). Grain: one row per connection.
SELECT pid, pg_terminate_backend(pid) AS told
FROM pg_catalog.pg_stat_activity
WHERE pid = ANY (CAST(:pids AS integer[])) AND backend_start >= CAST(:since AS timestamptz) - interval '5 minutes'
  AND usename = current_user AND application_name LIKE 'prescore%' AND pid <> pg_backend_pid()
