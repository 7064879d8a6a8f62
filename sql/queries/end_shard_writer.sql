-- End the backend that writes an open shard for a worker that does not answer: its transaction is rolled back.
-- Waits up to 5 s for it to be gone. Parameters: run_id, shard. Grain: one row, or none where nobody writes.
SELECT a.pid, pg_terminate_backend(a.pid, 5000) AS gone
FROM prescore.shards AS s
JOIN pg_catalog.pg_stat_activity AS a ON a.pid = s.backend_pid AND a.backend_start = s.backend_start
WHERE s.run_id = :run_id AND s.shard = :shard AND s.state = 'open'
