-- Make sure that the run is still running and owned by this backend.
-- Parameters: run_id. Grain: one row, or none when it was found dead.
SELECT run_id FROM prescore.runs WHERE run_id = :run_id AND status = 'running' AND backend_pid = pg_backend_pid() FOR UPDATE
