-- Show that a run is alive, and see whether somebody asked it to end.
-- Parameters: run_id. Grain: one row, or none when it is over.
UPDATE prescore.runs SET heartbeat_at = clock_timestamp() WHERE run_id = :run_id AND status = 'running'
RETURNING cancel_asked_at, cancel_asked_by, cancel_because
