-- Show that a run is alive.
-- Parameters: run_id. Grain: one row.
UPDATE prescore.runs SET heartbeat_at = clock_timestamp() WHERE run_id = :run_id AND status = 'running'
