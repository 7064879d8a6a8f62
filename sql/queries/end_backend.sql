-- End one connection of our own role, and wait up to 5 s until it is gone: its transaction is rolled back, its locks are free.
-- Parameters: pid, started (instant: pids are used again). Grain: one row, or none when it is gone already.
SELECT pid, pg_terminate_backend(pid, 5000) AS gone
FROM pg_catalog.pg_stat_activity
WHERE pid = :pid AND backend_start = :started AND usename = current_user AND pid <> pg_backend_pid()
