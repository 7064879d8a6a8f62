-- Make sure that the run is still running, owned by this backend, and that nobody has asked it to end.
-- Parameters: run_id. Grain: one row, or none when it was found dead or may not publish any more.
SELECT run_id FROM prescore.runs WHERE run_id = :run_id AND status = 'running' AND backend_pid = pg_backend_pid() AND cancel_asked_at IS NULL
FOR UPDATE
