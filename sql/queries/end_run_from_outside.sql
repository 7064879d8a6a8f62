-- Write that a run was ended by somebody else than itself: from now on it can neither publish nor say otherwise.
-- Parameters: run_id, status, message (text). Grain: one row, or none when it is over.
UPDATE prescore.runs SET status = :status, message = :message, ended_at = clock_timestamp()
WHERE run_id = :run_id AND status = 'running'
RETURNING run_id
