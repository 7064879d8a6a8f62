-- Ask a run to end, and wake it: from now on it cannot publish. Who asks again changes nothing.
-- Parameters: run_id, asked_by, because (text or NULL). Grain: one row, or none when it is over.
UPDATE prescore.runs
SET cancel_asked_at = coalesce(cancel_asked_at, clock_timestamp()),
    cancel_asked_by = coalesce(cancel_asked_by, :asked_by),
    cancel_because = coalesce(cancel_because, :because)
WHERE run_id = :run_id AND status = 'running'
RETURNING cancel_asked_by, cancel_because, pg_notify('prescore_runs', CAST(run_id AS text))
